// Hot path: `Intake::row` runs once a row.
//! Follows transactions through the stream: which is open, which row this is, what may be confirmed.
//!
//! The stream is trusted for its bytes and not for its order: a transaction inside another, a row
//! outside of one, or a commit that does not fit its begin means that we or the server are wrong
//! about where we are. Then nothing more may be published or confirmed.

use std::fmt;

use crate::change::{Position, Transaction};
use crate::lsn::{CommitLsn, DurableLsn, EndLsn, Lsn};
use crate::pgoutput::{Begin, Commit, PgTimestamp};
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

/// The stream's state on one connection.
#[derive(Debug)]
pub struct Intake {
    watermark: Watermark,
    resumed_at: Lsn,
    open: Option<Open>,
    last: Option<CommitLsn>,
}

impl Intake {
    /// A connection that resumes where everything before is durable. The server may go back
    /// further than that (it forgets confirmations in a crash); what repeats is left out.
    #[must_use]
    pub fn resume(at: DurableLsn) -> Self {
        Self { watermark: Watermark::new(at), resumed_at: at.lsn(), open: None, last: None }
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
        let ticket =
            if repeats { None } else { Some(self.watermark.begin(commit_lsn, commit_time)) };
        let transaction = Transaction { commit_lsn, commit_time, xid };
        self.open = Some(Open { transaction, ordinal: 0, messages: 0, ticket });
        Ok(())
    }

    /// A row or truncate message came; `None` where it repeats what is delivered already.
    ///
    /// # Errors
    /// Outside of a transaction.
    pub fn row(&mut self) -> Result<Option<Place>, Disorder> {
        let place = self.behind()?;
        if let Some(open) = &mut self.open {
            open.ordinal += 1;
            open.messages = 0;
        }
        Ok(place)
    }

    /// The place behind the rows that have come of the open transaction; `None` where it repeats
    /// what is delivered already.
    ///
    /// # Errors
    /// Outside of a transaction.
    pub fn behind(&self) -> Result<Option<Place>, Disorder> {
        let Open { transaction, ordinal, ticket, .. } = self.open.ok_or(Disorder::Outside)?;
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
        self.last = Some(announced);
        if open.ticket.is_some() {
            self.watermark.commit(commit.end_lsn);
        }
        Ok(())
    }

    /// The server has sent everything before this position.
    pub fn passed(&mut self, lsn: Lsn) {
        if self.open.is_none() {
            self.watermark.passed(lsn);
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
mod tests {
    use super::*;
    use crate::pgoutput::Xid;

    fn begin(at: u64) -> Begin {
        Begin { commit_lsn: CommitLsn(Lsn(at)), commit_time: PgTimestamp(0), xid: Xid(7) }
    }

    fn commit(at: u64, end: u64) -> Commit {
        Commit {
            commit_lsn: CommitLsn(Lsn(at)),
            end_lsn: EndLsn(Lsn(end)),
            commit_time: PgTimestamp(0),
        }
    }

    fn from(lsn: u64) -> Intake {
        Intake::resume(DurableLsn::proven(Lsn(lsn)))
    }

    #[test]
    fn rows_of_a_transaction_are_counted_from_zero() {
        let mut intake = from(0);
        intake.begin(&begin(10)).unwrap();
        let ordinals: Vec<_> =
            (0..3).map(|_| intake.row().unwrap().unwrap().position.ordinal).collect();
        assert_eq!(ordinals, [0, 1, 2]);
        let behind = || intake.behind().unwrap().unwrap().position.ordinal;
        assert_eq!([behind(), behind()], [3, 3], "looking counts nothing");
        intake.commit(&commit(10, 12)).unwrap();
        intake.begin(&begin(12)).unwrap();
        assert_eq!(intake.row().unwrap().unwrap().position.ordinal, 0);
    }

    #[test]
    fn back_to_back_commits_are_told_apart_at_the_resume_point() {
        // The second commit record starts where the first ends. Resuming at that point must leave
        // out the first and publish the second.
        let mut intake = from(20);
        intake.begin(&begin(10)).unwrap();
        assert_eq!(intake.row(), Ok(None));
        intake.commit(&commit(10, 20)).unwrap();
        assert_eq!(intake.durable().lsn(), Lsn(20));
        intake.begin(&begin(20)).unwrap();
        let place = intake.row().unwrap().expect("it is new");
        intake.produced();
        intake.commit(&commit(20, 30)).unwrap();
        assert_eq!(intake.durable().lsn(), Lsn(20));
        intake.delivered(place.ticket, 1).unwrap();
        assert_eq!(intake.durable().lsn(), Lsn(30));
    }

    #[test]
    fn a_stream_that_contradicts_itself_is_refused() {
        let mut intake = from(0);
        assert_eq!(intake.row(), Err(Disorder::Outside));
        assert_eq!(intake.commit(&commit(5, 6)), Err(Disorder::Outside));
        intake.begin(&begin(10)).unwrap();
        assert_eq!(intake.begin(&begin(20)), Err(Disorder::NestedBegin(CommitLsn(Lsn(20)))));
        assert!(matches!(intake.commit(&commit(11, 12)), Err(Disorder::ForeignCommit { .. })));
        let mut intake = from(0);
        intake.begin(&begin(10)).unwrap();
        intake.commit(&commit(10, 12)).unwrap();
        assert!(matches!(intake.begin(&begin(10)), Err(Disorder::BackwardBegin { .. })));
    }

    #[test]
    fn messages_of_a_transaction_count_no_rows() {
        let mut intake = from(0);
        intake.begin(&begin(10)).unwrap();
        let mut places = Vec::new();
        for is_row in [false, false, true, false, true, false] {
            let place = if is_row { intake.row() } else { intake.message() };
            let Position { ordinal, sub_index, .. } = place.unwrap().unwrap().position;
            places.push((is_row, ordinal, sub_index));
        }
        let expected = [
            (false, 0, 0),
            (false, 0, 1),
            (true, 0, 0),
            (false, 1, 0),
            (true, 1, 0),
            (false, 2, 0),
        ];
        assert_eq!(places, expected);
        assert_eq!(from(0).message(), Err(Disorder::Outside));
    }

    #[test]
    fn a_message_of_no_transaction_is_confirmed_once_it_is_delivered() {
        let mut intake = from(5);
        let ticket = intake.begin_alone(Lsn(10), PgTimestamp(0)).unwrap().expect("it is new");
        assert!(!intake.is_settled());
        intake.passed(Lsn(50));
        intake.produced();
        intake.end_alone(Lsn(10));
        assert_eq!((intake.durable().lsn(), intake.is_settled()), (Lsn(5), false));
        intake.delivered(ticket, 1).unwrap();
        assert_eq!((intake.durable().lsn(), intake.is_settled()), (Lsn(11), true));
        assert_eq!(intake.last_durable(), None, "it is no commit");
    }

    #[test]
    fn a_message_of_no_transaction_waits_for_the_transaction_before_it() {
        let mut intake = from(0);
        intake.begin(&begin(10)).unwrap();
        let row = intake.row().unwrap().unwrap().ticket;
        intake.produced();
        intake.commit(&commit(10, 12)).unwrap();
        let message = intake.begin_alone(Lsn(12), PgTimestamp(0)).unwrap().unwrap();
        intake.produced();
        assert_eq!(intake.end_alone(Lsn(12)), Lsn(13));
        intake.delivered(message, 1).unwrap();
        assert_eq!(intake.durable().lsn(), Lsn(0));
        intake.delivered(row, 1).unwrap();
        assert_eq!(intake.durable().lsn(), Lsn(13));
        assert_eq!(intake.last_durable(), Some(CommitLsn(Lsn(10))));
    }

    #[test]
    fn resuming_behind_a_message_repeats_neither_it_nor_leaves_out_what_follows() {
        let mut intake = from(11);
        assert_eq!(intake.begin_alone(Lsn(10), PgTimestamp(0)), Ok(None));
        // The message ends at 11, and so the next commit may start there.
        intake.begin(&begin(11)).unwrap();
        assert!(intake.row().unwrap().is_some());
        let inside = intake.begin_alone(Lsn(12), PgTimestamp(0));
        assert_eq!(inside, Err(Disorder::Inside(Lsn(12))));
        intake.commit(&commit(11, 20)).unwrap();
        assert!(intake.begin_alone(Lsn(24), PgTimestamp(0)).unwrap().is_some());
        intake.end_alone(Lsn(24));
        let backward = intake.begin_alone(Lsn(24), PgTimestamp(0));
        assert!(matches!(backward, Err(Disorder::BackwardBegin { .. })));
    }

    #[test]
    fn a_record_that_is_none_of_the_sources_confirms_nothing_and_holds_nothing_up_for_long() {
        let mut intake = from(5);
        let ticket = intake.begin_aside(PgTimestamp(0));
        intake.produced();
        intake.end_aside();
        intake.passed(Lsn(50));
        assert_eq!((intake.durable().lsn(), intake.is_settled()), (Lsn(5), false));
        intake.delivered(ticket, 1).unwrap();
        assert_eq!((intake.durable().lsn(), intake.is_settled()), (Lsn(50), true));
        let ticket = intake.begin_aside(PgTimestamp(0));
        intake.produced();
        intake.end_aside();
        intake.delivered(ticket, 1).unwrap();
        assert_eq!(intake.durable().lsn(), Lsn(50), "it has no position of its own");
    }

    #[test]
    fn a_keepalive_between_rows_confirms_nothing() {
        let mut intake = from(0);
        intake.begin(&begin(10)).unwrap();
        intake.passed(Lsn(50));
        assert_eq!(intake.durable().lsn(), Lsn(0));
        intake.commit(&commit(10, 12)).unwrap();
        intake.passed(Lsn(50));
        assert_eq!(intake.durable().lsn(), Lsn(50));
    }
}
