//! Whether a stream that runs also gets on.
//!
//! Three things stand in the way of a stream without ending it: Kafka that acknowledges nothing, a
//! server that says nothing although it was asked, and a row at which the last connection failed
//! and this one may fail again. While one of them does, the pipeline is not ready.

use std::time::Duration;

use tokio::time::Instant;
use waltide_core::lsn::Lsn;

/// Records in flight and no report for so long: the sink is said to be in the way. A broker that
/// is restarted in an orderly way is back sooner; `run` promises to name what is wrong in ten.
pub(super) const STALLED_AFTER: Duration = Duration::from_secs(5);

/// The server is asked for a sign of life every two seconds. One that answers none of three is
/// busy or gone, and people should know.
pub(super) const SILENT_AFTER: Duration = Duration::from_secs(7);

/// After so long a connection without a sign of life is given up: something in between may keep
/// it open. A server that works through a very large transaction answers all the while.
pub(super) const GIVEN_UP_AFTER: Duration = Duration::from_secs(60);

/// A stream that has lived so long after a failure has got over it.
const TRIAL: Duration = Duration::from_secs(10);

/// What is in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing.
    Well,
    /// The last connection failed, and this one has not yet come as far.
    OnTrial,
    /// Kafka acknowledges nothing.
    KafkaStalled,
    /// The server says nothing.
    SourceSilent,
    /// It has been silent for so long that the connection is of no use.
    SourceGone,
}

/// Until when a stream after a failure has to prove itself.
#[derive(Clone, Copy, Debug)]
struct Trial {
    since: Instant,
    /// Where the server's log ended when it began: what failed lies before.
    pending: Lsn,
}

/// What is known of a stream's progress.
#[derive(Debug)]
pub(super) struct Standing {
    /// Since when records have been waiting without a report.
    waiting_since: Option<Instant>,
    /// Since when the server has been listened to without a word.
    listening_since: Instant,
    trial: Option<Trial>,
}

impl Standing {
    /// A stream that begins; after a failure it proves itself by delivering what is `pending`.
    pub(super) fn new(now: Instant, pending: Option<Lsn>) -> Self {
        let trial = pending.map(|pending| Trial { since: now, pending });
        Self { waiting_since: None, listening_since: now, trial }
    }

    /// The server was heard, and what it said is dealt with.
    pub(super) fn heard(&mut self, now: Instant) {
        self.listening_since = now;
    }

    /// Kafka has acknowledged something.
    pub(super) fn acknowledged(&mut self) {
        self.waiting_since = None;
    }

    /// Whether the stream has got over the failure before it, if there was one.
    pub(super) const fn is_proven(&self) -> bool {
        self.trial.is_none()
    }

    /// What is in the way now.
    pub(super) fn judge(&mut self, now: Instant, in_flight: usize, durable: Lsn) -> Verdict {
        if in_flight == 0 {
            self.waiting_since = None;
        } else {
            self.waiting_since.get_or_insert(now);
        }
        let over =
            |trial: Trial| durable >= trial.pending || now.duration_since(trial.since) >= TRIAL;
        if self.trial.is_some_and(over) {
            self.trial = None;
        }
        let silent = now.duration_since(self.listening_since);
        if self.waiting_since.is_some_and(|since| now.duration_since(since) >= STALLED_AFTER) {
            Verdict::KafkaStalled
        } else if silent >= GIVEN_UP_AFTER {
            Verdict::SourceGone
        } else if silent >= SILENT_AFTER {
            Verdict::SourceSilent
        } else if self.trial.is_some() {
            Verdict::OnTrial
        } else {
            Verdict::Well
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn kafka_is_in_the_way_once_records_wait_and_until_one_is_acknowledged() {
        let start = Instant::now();
        let mut standing = Standing::new(start, None);
        let at = |standing: &mut Standing, seconds: u32, in_flight| {
            standing.heard(start + seconds * SECOND);
            standing.judge(start + seconds * SECOND, in_flight, Lsn(5))
        };
        assert_eq!(at(&mut standing, 100, 0), Verdict::Well);
        assert_eq!(at(&mut standing, 101, 7), Verdict::Well);
        assert_eq!(at(&mut standing, 106, 7), Verdict::KafkaStalled);
        standing.acknowledged();
        assert_eq!(at(&mut standing, 107, 7), Verdict::Well);
        assert_eq!(at(&mut standing, 111, 7), Verdict::Well);
        assert_eq!(at(&mut standing, 112, 7), Verdict::KafkaStalled);
        assert_eq!(at(&mut standing, 113, 0), Verdict::Well);
    }

    #[test]
    fn a_server_that_says_nothing_is_told_and_then_given_up() {
        let start = Instant::now();
        let mut standing = Standing::new(start, None);
        assert_eq!(standing.judge(start + 6 * SECOND, 0, Lsn(5)), Verdict::Well);
        assert_eq!(standing.judge(start + 7 * SECOND, 0, Lsn(5)), Verdict::SourceSilent);
        assert_eq!(standing.judge(start + 60 * SECOND, 0, Lsn(5)), Verdict::SourceGone);
        standing.heard(start + 60 * SECOND);
        assert_eq!(standing.judge(start + 61 * SECOND, 0, Lsn(5)), Verdict::Well);
    }

    #[test]
    fn after_a_failure_a_stream_proves_itself_by_what_was_pending_or_by_living() {
        let start = Instant::now();
        let mut standing = Standing::new(start, Some(Lsn(100)));
        assert_eq!(standing.judge(start + SECOND, 0, Lsn(99)), Verdict::OnTrial);
        assert!(!standing.is_proven());
        assert_eq!(standing.judge(start + SECOND, 0, Lsn(100)), Verdict::Well);
        assert!(standing.is_proven());

        let mut standing = Standing::new(start, Some(Lsn(100)));
        standing.heard(start + 10 * SECOND);
        assert_eq!(standing.judge(start + 10 * SECOND, 0, Lsn(1)), Verdict::Well);
    }
}
