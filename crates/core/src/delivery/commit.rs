//! Exactly once: records and the checkpoint that covers them, in one Kafka transaction.
//!
//! Two producers take turns, so that the records of one transaction arrive while the one before it
//! is being committed. It is committed only once that one is: what counts is always a beginning of
//! the stream.

use std::collections::VecDeque;
use std::fmt;

use super::follow::{Seen, following};
use crate::checkpoint::{Checkpoint, Progress};
use crate::intake::HandedOver;
use crate::lsn::{DurableLsn, Lsn};

/// As many as there are producers.
const MOST: usize = 2;

/// What is committed, and what is being committed.
#[derive(Debug)]
pub struct Commit {
    last: Checkpoint,
    /// In the order in which they were cut, and will be committed.
    on_their_way: VecDeque<Checkpoint>,
}

/// Kafka has committed more than the books say has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BooksBehind {
    /// How far the commit reaches.
    pub committed: Lsn,
    /// How far the books do.
    pub durable: Lsn,
}

impl fmt::Display for BooksBehind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kafka committed up to {}, and the books say {}", self.committed, self.durable)
    }
}

impl Commit {
    /// Goes on from the last checkpoint.
    #[must_use]
    pub const fn new(last: Checkpoint) -> Self {
        Self { last, on_their_way: VecDeque::new() }
    }

    /// The checkpoint that is committed with what was handed over; it is on its way from here on.
    /// None while as many are as can be: a producer has one transaction.
    pub fn cut(
        &mut self,
        handed: HandedOver,
        books: Option<&[u8]>,
        seen: Seen,
    ) -> Option<&Checkpoint> {
        if self.is_full() {
            return None;
        }
        let HandedOver { end, last, progress } = handed;
        let mut next = following(self.latest(), seen);
        next.end_lsn = end;
        next.commit_lsn = last.unwrap_or(next.commit_lsn);
        next.progress = progress;
        if let Some(books) = books {
            next.snapshot = Some(books.to_vec());
        }
        self.on_their_way.push_back(next);
        self.on_their_way.back()
    }

    /// The last one could not be sent: there was no room for it.
    pub fn not_sent(&mut self) {
        self.on_their_way.pop_back();
    }

    /// Whether a commit is on its way.
    #[must_use]
    pub fn is_on_its_way(&self) -> bool {
        !self.on_their_way.is_empty()
    }

    /// Whether nothing can be cut before one of them is known.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.on_their_way.len() >= MOST
    }

    /// Kafka said that the first of them is committed, and all of its records are reported: the
    /// server may be told this much. None where nothing was on its way.
    ///
    /// # Errors
    /// Where the books contradict Kafka.
    pub fn committed(&mut self, durable: DurableLsn) -> Result<Option<DurableLsn>, BooksBehind> {
        let Some(next) = self.on_their_way.pop_front() else { return Ok(None) };
        let committed = next.end_lsn.0;
        if durable.lsn() < committed {
            return Err(BooksBehind { committed, durable: durable.lsn() });
        }
        self.last = next;
        Ok(Some(durable.at_most(committed)))
    }

    /// Everything before this position is committed.
    #[must_use]
    pub const fn end(&self) -> Lsn {
        self.last.end_lsn.0
    }

    /// What will be committed last of what is cut.
    fn latest(&self) -> &Checkpoint {
        self.on_their_way.back().unwrap_or(&self.last)
    }

    /// Whether more was handed over than is cut.
    #[must_use]
    pub fn is_behind(&self, handed: &HandedOver) -> bool {
        handed.end > self.latest().end_lsn
    }

    /// Whether all that was handed over is committed, to the end of a transaction.
    #[must_use]
    pub fn is_settled(&self, handed: &HandedOver) -> bool {
        !self.is_on_its_way() && !self.is_behind(handed) && handed.progress == Progress::Complete
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::smallest;
    use crate::lsn::{CommitLsn, EndLsn};

    fn handed(end: u64) -> HandedOver {
        HandedOver {
            end: EndLsn(Lsn(end)),
            last: Some(CommitLsn(Lsn(end - 1))),
            progress: Progress::Complete,
        }
    }

    #[test]
    fn two_are_on_their_way_at_most_and_each_counts_once_it_is_known() {
        let mut commit = Commit::new(smallest());
        let before = commit.end();
        let sent = commit.cut(handed(200), None, Seen::default()).expect("nothing is on its way");
        assert_eq!((sent.end_lsn.0, sent.commit_lsn.0), (Lsn(200), Lsn(199)));
        assert!(!commit.is_behind(&handed(200)) && commit.is_behind(&handed(300)));
        let sent = commit.cut(handed(300), None, Seen::default()).expect("one is on its way");
        assert_eq!(sent.end_lsn.0, Lsn(300));
        assert!(commit.cut(handed(400), None, Seen::default()).is_none(), "two are on their way");
        assert_eq!(commit.end(), before, "nothing is known of them");
        let told = commit.committed(DurableLsn::proven(Lsn(350)));
        assert_eq!(told, Ok(Some(DurableLsn::proven(Lsn(200)))), "no more than was in the first");
        assert!(!commit.is_settled(&handed(300)), "one is on its way");
        let told = commit.committed(DurableLsn::proven(Lsn(350)));
        assert_eq!(told, Ok(Some(DurableLsn::proven(Lsn(300)))));
        assert_eq!(commit.committed(DurableLsn::proven(Lsn(350))), Ok(None));
        assert!(commit.is_behind(&handed(400)) && commit.is_settled(&handed(300)));
    }

    #[test]
    fn what_had_no_room_was_never_on_its_way() {
        let mut commit = Commit::new(smallest());
        let _ = commit.cut(handed(200), None, Seen::default());
        let _ = commit.cut(handed(300), None, Seen::default());
        commit.not_sent();
        let told = commit.committed(DurableLsn::proven(Lsn(350)));
        assert_eq!(told, Ok(Some(DurableLsn::proven(Lsn(200)))), "the first was");
        assert_eq!(commit.committed(DurableLsn::proven(Lsn(350))), Ok(None));
        assert!(!commit.is_settled(&handed(300)));
    }

    #[test]
    fn books_that_contradict_kafka_are_not_gone_on_with() {
        let mut commit = Commit::new(smallest());
        let _ = commit.cut(handed(200), None, Seen::default());
        let told = commit.committed(DurableLsn::proven(Lsn(150)));
        assert_eq!(told, Err(BooksBehind { committed: Lsn(200), durable: Lsn(150) }));
    }
}
