//! From nothing to a stream.
//!
//! ```text
//!   FindSlot -- there ----------------------------> TakeSlot -- another's --> StandBy
//!      '- missing -> Look -- no checkpoint -> MakeSlot -^ |
//!                      '- one, and still no slot: Halt    v
//!                                 Fence -> Recall -> Measure -> AskForSlot -> (resume) -- Halt
//!                                                                                 |
//!                                  Stream <- ReadBack <- Write <- a new pipeline -'- goes on
//! ```

use std::collections::{BTreeMap, BTreeSet};

use super::topics::{LostTopic, held_by, still_hold};
use crate::checkpoint::{
    Checkpoint, Partial, Progress, Resume, SourceFacts, Stop, Unreadable, resume,
};
use crate::lsn::{CommitLsn, DurableLsn, EndLsn, Lsn};
use crate::snapshot::Book;

/// What is to come of it.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The slot.
    pub slot: String,
    /// What the publication covers; opaque here.
    pub publication_fingerprint: String,
    /// The topics that are published to.
    pub topics: BTreeSet<String>,
    /// This daemon, in this life of the pipeline: no other is called the same.
    pub instance: String,
    /// Whether a transaction of which a part is published is gone on with behind that part.
    pub exactly_once: bool,
    /// Whether tables are read.
    pub snapshots: bool,
    /// Microseconds since 1970.
    pub now_us: i64,
}

/// What is to be done next.
#[derive(Debug)]
pub enum Step {
    /// Look whether there is a slot.
    FindSlot,
    /// Read the last checkpoint. Nobody is shut out, for nothing is held yet.
    Look,
    /// Make the slot.
    MakeSlot,
    /// Take the slot, and look at the source with it in hand.
    TakeSlot,
    /// Shut out whoever wrote before.
    Fence,
    /// Read the last checkpoint.
    Recall,
    /// Look where these topics end.
    Measure(BTreeSet<String>),
    /// Ask the server whether the slot is still ours. Who was frozen meanwhile may hold facts
    /// against a checkpoint that others have written since, and would find fault with both.
    AskForSlot,
    /// Write this checkpoint.
    Write(Box<Checkpoint>),
    /// Read it: that it cannot be must show now, and not when it is needed.
    ReadBack,
    /// Another daemon has the slot.
    StandBy,
    /// Stream.
    Stream(Box<Began>),
}

/// What came of it.
#[derive(Debug)]
pub enum Event {
    /// Whether there is a slot.
    Slot {
        /// There is.
        there: bool,
    },
    /// The last checkpoint.
    Checkpoint(Option<Box<Checkpoint>>),
    /// The slot is made.
    SlotMade,
    /// The slot is ours.
    Held(Box<SourceFacts>),
    /// It is another's.
    HeldByAnother,
    /// Whoever wrote before is shut out.
    Fenced,
    /// Where topics end, by partition.
    Ends(BTreeMap<String, Vec<i64>>),
    /// Whether the server says that the slot is held by our connection.
    Ours(bool),
    /// The checkpoint is written.
    Written,
}

/// Why nothing may be published.
#[derive(Debug)]
pub enum Halt {
    /// There is no slot, and there was one.
    SlotMissing {
        /// How far the checkpoint reaches.
        checkpoint: Lsn,
    },
    /// It cannot be proved that nothing is left out.
    Stop(Stop),
    /// A topic has lost records.
    LostTopic(LostTopic),
    /// The books of snapshots in the checkpoint cannot be read.
    Unreadable(Unreadable),
    /// The slot is not ours any more.
    SlotLost,
    /// Another daemon has written a checkpoint since.
    Superseded {
        /// Which.
        by: String,
    },
    /// What was just written is not there.
    WrittenInVain,
    /// It was told of something that it had not asked for.
    OutOfOrder,
}

/// From where the stream goes on.
#[derive(Debug)]
pub struct Began {
    /// Everything before is published, or never was ours to publish.
    pub resume: DurableLsn,
    /// What of the transaction behind that is published already.
    pub inside: Option<Partial>,
    /// What is read of tables, and has been; none where that is not wanted.
    pub book: Option<Book>,
    /// The number of this life; zero where no tables are read.
    pub life: u64,
    /// What the next checkpoint carries over.
    pub last: Checkpoint,
    /// Who wrote the checkpoint that was found, and when.
    pub base: Option<(String, i64)>,
    /// How it came to be there.
    pub decided: Resume,
    /// The publication covers other tables than it did at the last checkpoint.
    pub covers_others: bool,
}

/// A start.
#[derive(Debug)]
pub struct Start {
    wanted: Wanted,
    made: bool,
    at: At,
}

#[derive(Debug)]
enum At {
    Finding,
    Looking,
    LookingAgain(Lsn),
    Making,
    Taking,
    Fencing(Box<SourceFacts>),
    Recalling(Box<SourceFacts>),
    Measuring(Box<Known>, BTreeSet<String>),
    Asking(Box<Known>),
    Writing(Box<Began>),
    ReadingBack(Box<Began>),
    Over,
}

/// What is held against each other.
#[derive(Debug)]
struct Known {
    facts: SourceFacts,
    found: Option<Checkpoint>,
    /// Topics that hold our records, as far as anybody knows, and where they end.
    ends: BTreeMap<String, Vec<i64>>,
    lost: Option<LostTopic>,
}

impl Start {
    /// A start, and what it begins with.
    #[must_use]
    pub const fn new(wanted: Wanted) -> (Self, Step) {
        (Self { wanted, made: false, at: At::Finding }, Step::FindSlot)
    }

    /// What follows from what came.
    ///
    /// # Errors
    /// Where nothing may be published.
    pub fn on(&mut self, event: Event) -> Result<Step, Halt> {
        let at = std::mem::replace(&mut self.at, At::Over);
        let (at, step) = match (at, event) {
            (At::Finding, Event::Slot { there: true }) => (At::Taking, Step::TakeSlot),
            (At::Finding, Event::Slot { there: false }) => (At::Looking, Step::Look),
            // It may have been made since by another daemon, which has begun.
            (At::Looking, Event::Checkpoint(Some(found))) => {
                (At::LookingAgain(found.end_lsn.0), Step::FindSlot)
            }
            (At::LookingAgain(_), Event::Slot { there: true }) => (At::Taking, Step::TakeSlot),
            // A new slot would start later than the checkpoint, and leave a gap nobody sees.
            (At::LookingAgain(checkpoint), Event::Slot { there: false }) => {
                return Err(Halt::SlotMissing { checkpoint });
            }
            (At::Looking, Event::Checkpoint(None)) => (At::Making, Step::MakeSlot),
            (At::Making, Event::SlotMade) => {
                self.made = true;
                (At::Taking, Step::TakeSlot)
            }
            (At::Taking, Event::HeldByAnother) => (At::Over, Step::StandBy),
            (At::Taking, Event::Held(facts)) => (At::Fencing(facts), Step::Fence),
            (At::Fencing(facts), Event::Fenced) => (At::Recalling(facts), Step::Recall),
            (At::Recalling(facts), Event::Checkpoint(found)) => {
                self.recalled(*facts, found.map(|found| *found))
            }
            (At::Measuring(mut known, topics), Event::Ends(ends)) => {
                let lost = known.found.as_ref().map(|it| still_hold(it, &topics, &ends));
                known.lost = lost.and_then(Result::err);
                known.ends = ends;
                (At::Asking(known), Step::AskForSlot)
            }
            (At::Asking(_), Event::Ours(false)) => return Err(Halt::SlotLost),
            (At::Asking(known), Event::Ours(true)) => return self.decide(*known),
            (At::Writing(began), Event::Written) => match began.decided {
                Resume::Continue { .. } => (At::Over, Step::Stream(began)),
                Resume::Birth { .. } | Resume::Adopt { .. } => {
                    (At::ReadingBack(began), Step::ReadBack)
                }
            },
            (At::ReadingBack(began), Event::Checkpoint(found)) => {
                let found = found.ok_or(Halt::WrittenInVain)?;
                if found.instance != began.last.instance {
                    return Err(Halt::Superseded { by: found.instance });
                }
                (At::Over, Step::Stream(began))
            }
            _ => return Err(Halt::OutOfOrder),
        };
        self.at = at;
        Ok(step)
    }

    fn recalled(&self, mut facts: SourceFacts, found: Option<Checkpoint>) -> (At, Step) {
        // There was no checkpoint when it was made: who wrote this one had it before us.
        facts.slot_created_now = self.made && found.is_none();
        let topics = self.wanted.topics.clone();
        let topics = match &found {
            Some(checkpoint) => held_by(checkpoint, topics),
            None => topics,
        };
        let known = Box::new(Known { facts, found, ends: BTreeMap::new(), lost: None });
        if topics.is_empty() {
            return (At::Asking(known), Step::AskForSlot);
        }
        (At::Measuring(known, topics.clone()), Step::Measure(topics))
    }

    /// Everything is known, and nobody else was at work meanwhile.
    fn decide(&mut self, known: Known) -> Result<Step, Halt> {
        let Known { facts, found, ends, lost } = known;
        if let Some(lost) = lost {
            return Err(Halt::LostTopic(lost));
        }
        let hold_records = found.is_none() && ends.values().flatten().any(|end| *end > 0);
        let decided = resume(found.as_ref(), &facts, hold_records).map_err(Halt::Stop)?;
        let began = self.begin(&facts, found, decided)?;
        // Rows of this life have its number, so no other may have it.
        let numbered = began.book.is_some();
        if numbered || !matches!(decided, Resume::Continue { .. }) {
            let checkpoint = Box::new(began.last.clone());
            self.at = At::Writing(Box::new(began));
            return Ok(Step::Write(checkpoint));
        }
        Ok(Step::Stream(Box::new(began)))
    }

    fn begin(
        &self,
        facts: &SourceFacts,
        found: Option<Checkpoint>,
        decided: Resume,
    ) -> Result<Began, Halt> {
        let wanted = &self.wanted;
        let is_new = found.is_none();
        let base = found.as_ref().map(|found| (found.instance.clone(), found.written_at_us));
        let mut last = match found {
            Some(found) => found,
            None => birth(&wanted.slot, facts, &wanted.instance, wanted.now_us),
        };
        let covers_others =
            !is_new && last.publication_fingerprint != wanted.publication_fingerprint;
        last.topics.sort_by(|one, other| one.name.cmp(&other.name));
        last.schemas.sort_by(|one, other| one.subject.cmp(&other.subject));
        // The same history, or we were not here.
        last.timeline = facts.timeline;
        last.slot.clone_from(&wanted.slot);
        last.publication_fingerprint.clone_from(&wanted.publication_fingerprint);
        last.instance.clone_from(&wanted.instance);
        last.written_at_us = wanted.now_us;
        let mut book = self.books(&last, is_new)?;
        let life = book.as_mut().map_or(0, |book| book.begin_life(facts.flushed));
        if let Some(book) = &book {
            let mut bytes = Vec::new();
            book.encode(&mut bytes);
            last.snapshot = Some(bytes);
        }
        let inside = match decided {
            // At least once publishes it again from its start.
            Resume::Continue { inside, .. } => inside.filter(|_| wanted.exactly_once),
            Resume::Birth { at } | Resume::Adopt { at } => {
                last.end_lsn = EndLsn(at.lsn());
                None
            }
        };
        let resume = decided.start();
        Ok(Began { resume, inside, book, life, last, base, decided, covers_others })
    }

    /// The books of snapshots, as they were written down last. Those of a pipeline that began
    /// without snapshots begin with what there is taken as read.
    fn books(&self, last: &Checkpoint, is_new: bool) -> Result<Option<Book>, Halt> {
        if !self.wanted.snapshots {
            return Ok(None);
        }
        match &last.snapshot {
            Some(bytes) => Book::decode(bytes).map(Some).map_err(Halt::Unreadable),
            None if is_new => Ok(Some(Book::default())),
            None => Ok(Some(Book::adopting())),
        }
    }
}

/// What a pipeline remembers that has not published anything.
#[must_use]
pub fn birth(slot: &str, facts: &SourceFacts, instance: &str, now_us: i64) -> Checkpoint {
    Checkpoint {
        system_identifier: facts.system_identifier,
        timeline: facts.timeline,
        database: facts.database.clone(),
        slot: slot.to_owned(),
        publication_fingerprint: String::new(),
        commit_lsn: CommitLsn(Lsn::ZERO),
        end_lsn: EndLsn(facts.slot_confirmed),
        progress: Progress::Complete,
        topics: Vec::new(),
        schemas: Vec::new(),
        settled_at_us: now_us,
        snapshot: None,
        instance: instance.to_owned(),
        written_at_us: now_us,
    }
}

#[cfg(test)]
mod tests;
