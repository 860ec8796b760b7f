// Hot path: `Intake::row` runs once a row.
//! Follows transactions through the stream: which is open, which row this is, what may be confirmed.
//!
//! The stream is trusted for its bytes and not for its order: a transaction inside another, a row
//! outside of one, or a commit that does not fit its begin means that we or the server are wrong
//! about where we are. Then nothing more may be published or confirmed.

use std::fmt;

use crate::change::{Position, Transaction};
use crate::checkpoint::{Partial, Progress};
use crate::lsn::{CommitLsn, DurableLsn, EndLsn, Lsn};
use crate::pgoutput::{Begin, Commit, Message, PgTimestamp};
use crate::trail::Trail;
use crate::watermark::{Ticket, Unaccounted, Watermark};

/// The stream contradicts itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disorder {
    /// A transaction starts inside another.
    NestedBegin(CommitLsn),
    /// A transaction starts that was committed before the last one.
    BackwardBegin {
        /// Its commit.
        begins: CommitLsn,
        /// The last one's.
        after: CommitLsn,
    },
    /// A row or a commit outside of a transaction.
    Outside,
    /// A message that belongs to no transaction inside of one.
    Inside(Lsn),
    /// A commit that is not the one its begin announced.
    ForeignCommit {
        /// What begin said.
        announced: CommitLsn,
        /// What came.
        came: CommitLsn,
    },
    /// A delivery that was never produced.
    Unaccounted(Ticket),
    /// A transaction that is published in part comes again with other rows, or not at all.
    Another {
        /// The transaction.
        commit: CommitLsn,
        /// So many of its messages are published.
        published: u64,
        /// What is wrong.
        why: Differs,
    },
}

/// How a transaction differs from the one that is published in part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Differs {
    /// Its rows are others.
    Rows,
    /// It has fewer.
    Ends {
        /// So many.
        after: u64,
    },
    /// The server has gone past it.
    Missing,
}

impl fmt::Display for Disorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NestedBegin(at) => {
                write!(f, "a transaction (commit {}) starts inside another", at.0)
            }
            Self::BackwardBegin { begins, after } => {
                write!(
                    f,
                    "a transaction committed at {} comes after one committed at {}",
                    begins.0, after.0
                )
            }
            Self::Outside => f.write_str("a row or commit comes outside of a transaction"),
            Self::Inside(at) => {
                write!(f, "a message of no transaction, at {at}, comes inside of one")
            }
            Self::ForeignCommit { announced, came } => {
                write!(f, "a commit at {} ends a transaction announced for {}", came.0, announced.0)
            }
            Self::Unaccounted(ticket) => {
                write!(
                    f,
                    "more records of transaction {} are acknowledged than were sent",
                    ticket.0
                )
            }
            Self::Another { commit, published, why } => {
                write!(
                    f,
                    "of the transaction committed at {} {published} changes are published, and ",
                    commit.0
                )?;
                match why {
                    Differs::Rows => f.write_str("the server sends others in their place"),
                    Differs::Ends { after } => write!(f, "now it has {after}"),
                    Differs::Missing => f.write_str("now the server does not send it"),
                }
            }
        }
    }
}

impl std::error::Error for Disorder {}

impl From<Unaccounted> for Disorder {
    fn from(Unaccounted(ticket): Unaccounted) -> Self {
        Self::Unaccounted(ticket)
    }
}

#[derive(Clone, Copy, Debug)]
struct Open {
    transaction: Transaction,
    ordinal: u64,
    /// Messages since the last row.
    messages: u32,
    /// `None` for a transaction that was delivered before a restart and only repeats.
    ticket: Option<Ticket>,
    /// Of the messages so far, where that is kept.
    trail: Trail,
    /// What of it was published before a restart.
    published: Option<Partial>,
    /// The message at hand is.
    muted: bool,
}

/// A row's place: what it belongs to and how it is told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its transaction.
    pub transaction: Transaction,
    /// Its position, sub-index zero.
    pub position: Position,
    /// What its records count for.
    pub ticket: Ticket,
}

/// How far everything has been handed to the sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandedOver {
    /// All of what lies before.
    pub end: EndLsn,
    /// The last transaction before that; none before the first one here.
    pub last: Option<CommitLsn>,
    /// And what of the one after it.
    pub progress: Progress,
}

/// The stream's state on one connection.
#[derive(Debug)]
pub struct Intake {
    watermark: Watermark,
    resumed_at: Lsn,
    open: Option<Open>,
    last: Option<CommitLsn>,
    /// Whether transactions may be published in parts.
    in_parts: bool,
    /// The transaction that is published in part, until it comes.
    awaited: Option<Partial>,
}

impl Intake {
    /// A connection that resumes where everything before is durable. The server may go back
    /// further than that (it forgets confirmations in a crash); what repeats is left out.
    #[must_use]
    pub fn resume(at: DurableLsn) -> Self {
        Self {
            watermark: Watermark::new(at),
            resumed_at: at.lsn(),
            open: None,
            last: None,
            in_parts: false,
            awaited: None,
        }
    }

    /// The same where transactions may be published in parts, and one may be already. Its messages
    /// have places all the same, for what is told of a transaction counts them; but
    /// [`Intake::is_muted`] while they are at hand.
    #[must_use]
    pub fn resume_inside(at: DurableLsn, inside: Option<Partial>) -> Self {
        Self { in_parts: true, awaited: inside, ..Self::resume(at) }
    }

    /// A transaction starts.
    ///
    /// # Errors
    /// Inside another one, or out of commit order.
    pub fn begin(&mut self, begin: &Begin) -> Result<(), Disorder> {
        if self.open.is_some() {
            return Err(Disorder::NestedBegin(begin.commit_lsn));
        }
        if let Some(after) = self.last.filter(|last| *last >= begin.commit_lsn) {
            return Err(Disorder::BackwardBegin { begins: begin.commit_lsn, after });
        }
        let Begin { commit_lsn, commit_time, xid } = *begin;
        // A commit record that starts before the resume point also ends at or before it: the
        // point is the end of a transaction, or a position the server had sent everything up to.
        let repeats = commit_lsn.0 < self.resumed_at;
        let published = self.awaited.take_if(|awaited| awaited.commit_lsn == commit_lsn);
        self.goes_to(commit_lsn.0)?;
        let ticket =
            if repeats { None } else { Some(self.watermark.begin(commit_lsn, commit_time)) };
        let transaction = Transaction { commit_lsn, commit_time, xid };
        let (ordinal, messages, trail) = (0, 0, Trail::default());
        let muted = published.is_some_and(|published| published.ordinal > 0);
        self.open = Some(Open { transaction, ordinal, messages, ticket, trail, published, muted });
        Ok(())
    }

    /// A message of the open transaction came. What is published in parts is known again by it.
    #[inline]
    pub fn sees(&mut self, message: &Message<'_>) {
        if let Some(open) = &mut self.open
            && self.in_parts
        {
            open.trail.add(message);
        }
    }

    /// A row or truncate message came; `None` where it repeats what is delivered already.
    ///
    /// # Errors
    /// Outside of a transaction.
    pub fn row(&mut self) -> Result<Option<Place>, Disorder> {
        let place = self.behind()?;
        if let Some(Partial { commit_lsn: commit, ordinal: published, .. }) = self.awaited
            && place.is_some()
        {
            return Err(Disorder::Another { commit, published, why: Differs::Rows });
        }
        if let Some(open) = &mut self.open {
            open.ordinal += 1;
            open.messages = 0;
            if let Some(published) = open.published.filter(|it| it.ordinal == open.ordinal)
                && published.hash != open.trail.hash()
            {
                let (commit, published) = (published.commit_lsn, published.ordinal);
                return Err(Disorder::Another { commit, published, why: Differs::Rows });
            }
        }
        Ok(place)
    }

    /// The place behind the rows that have come of the open transaction; `None` where it repeats
    /// what is delivered already.
    ///
    /// # Errors
    /// Outside of a transaction.
    pub fn behind(&mut self) -> Result<Option<Place>, Disorder> {
        let open = self.open.as_mut().ok_or(Disorder::Outside)?;
        open.muted = open.published.is_some_and(|it| open.ordinal < it.ordinal);
        let Open { transaction, ordinal, ticket, .. } = *open;
        let position = Position { commit_lsn: transaction.commit_lsn, ordinal, sub_index: 0 };
        Ok(ticket.map(|ticket| Place { transaction, position, ticket }))
    }

    /// A message of the open transaction came; `None` where it repeats. It counts no row: its
    /// sub-index says which message before the next row it is.
    ///
    /// # Errors
    /// Outside of a transaction.
    pub fn message(&mut self) -> Result<Option<Place>, Disorder> {
        let mut place = self.behind()?;
        if let Some(open) = &mut self.open {
            if let Some(place) = &mut place {
                place.position.sub_index = open.messages;
            }
            open.messages = open.messages.saturating_add(1);
        }
        Ok(place)
    }

    /// A message that belongs to no transaction came, `at` being the last byte of it in the log;
    /// `None` where it repeats what is delivered. Its record is handed over before
    /// [`Intake::end_alone`].
    ///
    /// The server says where a message ends, and a commit may start just there. The byte before
    /// tells the two apart, also at a resume point between them.
    ///
    /// # Errors
    /// Inside of a transaction, or before the last one.
    pub fn begin_alone(
        &mut self,
        at: Lsn,
        sent_at: PgTimestamp,
    ) -> Result<Option<Ticket>, Disorder> {
        if self.open.is_some() {
            return Err(Disorder::Inside(at));
        }
        let begins = CommitLsn(at);
        if let Some(after) = self.last.filter(|last| *last >= begins) {
            return Err(Disorder::BackwardBegin { begins, after });
        }
        self.goes_to(at)?;
        self.last = Some(begins);
        Ok((at >= self.resumed_at).then(|| self.watermark.begin_alone(sent_at)))
    }

    /// The record of that message was handed over. Returns the message's end.
    pub fn end_alone(&mut self, at: Lsn) -> Lsn {
        let end = Lsn(at.0.saturating_add(1));
        self.watermark.commit(EndLsn(end));
        end
    }

    /// A record that is none of the source's is about to be handed over, between transactions.
    /// [`Intake::end_aside`] follows. Nothing is confirmed by it.
    pub fn begin_aside(&mut self, now: PgTimestamp) -> Ticket {
        self.watermark.begin_alone(now)
    }

    /// That record was handed over.
    pub fn end_aside(&mut self) {
        self.watermark.commit(EndLsn(Lsn::ZERO));
    }

    /// A record of the open transaction was handed to the sink.
    pub fn produced(&mut self) {
        self.watermark.produced();
    }

    /// Whether the message at hand is published already, in a part of its transaction: its records
    /// are made, and not handed over.
    #[inline]
    #[must_use]
    pub fn is_muted(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.muted)
    }

    /// How far everything has been handed over: what a checkpoint says that counts only together
    /// with all of it. Between messages only, and in a transaction only behind a row.
    #[must_use]
    pub fn handed_over(&self) -> HandedOver {
        let (end, last) = self.watermark.handed_over();
        let reached = self.open.as_ref().filter(|open| open.ticket.is_some()).and_then(|open| {
            let commit_lsn = open.transaction.commit_lsn;
            let here = Partial { commit_lsn, ordinal: open.ordinal, hash: open.trail.hash() };
            // What was published once stays so, however little of it has come again.
            let before = open.published.filter(|before| before.ordinal > here.ordinal);
            Some(before.unwrap_or(here)).filter(|reached| reached.ordinal > 0)
        });
        let progress = reached.or(self.awaited).map_or(Progress::Complete, Progress::Partial);
        HandedOver { end, last, progress }
    }

    /// Whether a part of a transaction may end here: behind a row, and before any message of the
    /// log that comes before the next.
    #[must_use]
    pub fn may_part(&self) -> bool {
        self.open.as_ref().is_none_or(|open| open.messages == 0)
    }

    /// The transaction ended.
    ///
    /// # Errors
    /// Where it is not the open one.
    pub fn commit(&mut self, commit: &Commit) -> Result<(), Disorder> {
        let open = self.open.take().ok_or(Disorder::Outside)?;
        let announced = open.transaction.commit_lsn;
        if announced != commit.commit_lsn {
            return Err(Disorder::ForeignCommit { announced, came: commit.commit_lsn });
        }
        if let Some(published) = open.published.filter(|it| open.ordinal < it.ordinal) {
            let why = Differs::Ends { after: open.ordinal };
            return Err(Disorder::Another { commit: announced, published: published.ordinal, why });
        }
        self.last = Some(announced);
        if open.ticket.is_some() {
            self.watermark.commit(commit.end_lsn);
        }
        Ok(())
    }

    /// The server has sent everything before this position.
    ///
    /// # Errors
    /// Where that is past a transaction that is published in part, and it did not come.
    pub fn passed(&mut self, lsn: Lsn) -> Result<(), Disorder> {
        if self.open.is_none() {
            self.goes_to(lsn)?;
            self.watermark.passed(lsn);
        }
        Ok(())
    }

    /// The stream goes on there; what is published in part must have come.
    fn goes_to(&self, lsn: Lsn) -> Result<(), Disorder> {
        match self.awaited {
            Some(Partial { commit_lsn: commit, ordinal: published, .. }) if commit.0 < lsn => {
                Err(Disorder::Another { commit, published, why: Differs::Missing })
            }
            _ => Ok(()),
        }
    }

    /// The sink acknowledged records of a transaction.
    ///
    /// # Errors
    /// Where they were never handed over.
    pub fn delivered(&mut self, ticket: Ticket, count: u64) -> Result<(), Disorder> {
        Ok(self.watermark.delivered(ticket, count)?)
    }

    /// Whether all records of this ticket are delivered, and of all before it.
    #[must_use]
    pub fn is_delivered(&self, ticket: Ticket) -> bool {
        self.watermark.is_delivered(ticket)
    }

    /// When a transaction in flight was committed.
    #[must_use]
    pub fn commit_time(&self, ticket: Ticket) -> Option<PgTimestamp> {
        self.watermark.commit_time(ticket)
    }

    /// Whether a transaction is open.
    #[must_use]
    pub fn in_transaction(&self) -> bool {
        self.open.is_some()
    }

    /// Whether everything that came is delivered.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.open.is_none() && self.watermark.in_flight() == 0
    }

    /// Everything before this position is delivered.
    #[must_use]
    pub fn durable(&self) -> DurableLsn {
        self.watermark.durable()
    }

    /// The last transaction of which everything is delivered; none before the first one here.
    #[must_use]
    pub fn last_durable(&self) -> Option<CommitLsn> {
        self.watermark.last_durable()
    }

    /// When the oldest transaction in flight was committed.
    #[must_use]
    pub fn oldest_commit(&self) -> Option<PgTimestamp> {
        self.watermark.oldest_commit()
    }
}

#[cfg(test)]
mod tests;
