//! What may come again in a partition, and how.
//!
//! Positions grow along a partition. After a failure the end of what was there may come again: a
//! contiguous suffix, in the same order and bytes. What an earlier daemon still had on its way may come
//! late and between (at least once), which is counted apart and bears no skipping of new records either.

use std::collections::VecDeque;

use crate::{Position, Row};

/// What consumers were promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nothing is lost; a suffix may repeat.
    AtLeastOnce,
    /// Nothing is lost and nothing comes twice.
    ExactlyOnce,
}

impl Mode {
    /// As the configuration writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AtLeastOnce => "at_least_once",
            Self::ExactlyOnce => "exactly_once",
        }
    }
}

/// What has happened, and so what may come again, at least once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Allowance {
    /// Nothing has failed: each record comes once.
    Nothing,
    /// Something has failed: a contiguous suffix may come again.
    Suffix,
    /// A predecessor's records may have been held up on their way: those may come late as well.
    Late,
}

/// One record as a consumer got it.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "Kafka's own words")]
pub struct Seen {
    pub table: String,
    pub partition: i32,
    pub offset: i64,
    /// The key in one certain form; none where the record has none.
    pub key: Option<String>,
    /// Its header.
    pub position: Position,
    pub what: What,
    /// Stands for everything in the record.
    pub digest: u64,
}

/// What a record says.
#[derive(Debug, Clone)]
pub enum What {
    /// The row as a snapshot found it.
    Read(Row),
    /// The row as it was created.
    Create(Row),
    /// The row as it was created by taking another key, without the columns that are named.
    Moved(Row, Vec<String>),
    /// The row as it was left, without the columns that are named.
    Update(Row, Vec<String>),
    /// The row is gone.
    Delete,
    /// The key can be forgotten.
    Tombstone,
    /// All rows are gone.
    Truncate,
}

/// What a record is among those before it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// New.
    Fresh,
    /// The next one of those that come again.
    Repeat,
    /// A record of an earlier daemon that was held up on its way.
    Late,
}

/// Why a record may not stand where it does.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It was not there, and what comes behind it was.
    OutOfOrder,
    /// It was there.
    Repeated(&'static str),
    /// It is new, and before it a repetition did not reach its end.
    BreaksOff,
    /// It was there with other content.
    Different,
}

/// What a consumer remembers of a partition.
#[derive(Debug, Default)]
pub(crate) struct Partition {
    /// What the stream brought since the last but one [`settle`](Self::settle), each once.
    known: VecDeque<(Position, u64)>,
    /// How many of these had been told to be safe.
    safe: usize,
    /// The highest position, be it of the stream or of a snapshot.
    last: Option<Position>,
    /// Which of `known` comes again next; none where nothing does.
    next: Option<usize>,
    /// Truncates so far.
    pub(crate) truncates: u64,
}

impl Partition {
    pub(crate) fn take(
        &mut self,
        seen: &Seen,
        mode: Mode,
        allowed: Allowance,
    ) -> Result<Place, Fault> {
        let read = matches!(seen.what, What::Read(_));
        if self.last.is_none_or(|last| last < seen.position) {
            // A repetition ends where the end was, unless who repeated was itself held up.
            let broken = self.next.take().filter(|_| allowed < Allowance::Late);
            self.last = Some(seen.position);
            if !read {
                self.known.push_back((seen.position, seen.digest));
            }
            return match broken {
                Some(_) => Err(Fault::BreaksOff),
                None => Ok(Place::Fresh),
            };
        }
        if read {
            // Consumers skip it, and hold the row from when it was read before.
            return match mode {
                Mode::AtLeastOnce => Ok(Place::Repeat),
                Mode::ExactlyOnce => Err(Fault::Repeated("a row of a snapshot")),
            };
        }
        let Ok(at) = self.known.binary_search_by_key(&seen.position, |known| known.0) else {
            return match self.known.front() {
                Some((first, _)) if seen.position < *first && self.safe > 0 => {
                    Err(Fault::Repeated("it was safe long ago"))
                }
                _ => Err(Fault::OutOfOrder),
            };
        };
        if self.known[at].1 != seen.digest {
            return Err(Fault::Different);
        }
        self.again(at, mode, allowed)
    }

    /// One that is known comes again.
    fn again(&mut self, at: usize, mode: Mode, allowed: Allowance) -> Result<Place, Fault> {
        if mode == Mode::ExactlyOnce {
            return Err(Fault::Repeated("exactly once"));
        }
        if allowed == Allowance::Nothing {
            return Err(Fault::Repeated("nothing has failed"));
        }
        let skipped = self.next.is_some_and(|next| at > next);
        let after = (at + 1 < self.known.len()).then_some(at + 1);
        match allowed {
            Allowance::Late => {
                let place = if self.next == Some(at) { Place::Repeat } else { Place::Late };
                self.next = after;
                Ok(place)
            }
            _ if skipped => {
                self.next = after;
                Err(Fault::Repeated("a repetition leaves some out"))
            }
            _ if at < self.safe => {
                self.next = after;
                Err(Fault::Repeated("Postgres had been told that it is safe"))
            }
            _ => {
                self.next = after;
                Ok(Place::Repeat)
            }
        }
    }

    /// Everything so far is safe, and nothing is on its way: returns whether a repetition is unfinished.
    pub(crate) fn settle(&mut self, allowed: Allowance) -> bool {
        let unfinished = self.next.take().is_some() && allowed < Allowance::Late;
        // A late record may still be of the time before.
        self.known.drain(..self.safe);
        self.safe = self.known.len();
        unfinished
    }
}
