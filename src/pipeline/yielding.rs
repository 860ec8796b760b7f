//! A leader that is cut off from Kafka alone: its connection to Postgres is fine, so nobody takes
//! the slot away from it. Where that is configured it gives the slot up, to a standby that may
//! reach Kafka.

use std::time::Duration;

use tokio::time::Instant;

/// How long a daemon that has given the slot up stays away from it: several times what a standby
/// takes to ask for it and to get ready.
pub(super) const STAY_AWAY: Duration = Duration::from_secs(10);

/// Since when Kafka is away, and for how long that is borne.
#[derive(Debug)]
pub(super) struct Yielding {
    after: Option<Duration>,
    since: Option<Instant>,
    has_yielded: bool,
}

impl Yielding {
    /// `None` holds on to the slot whatever happens.
    pub(super) fn after(after: Option<Duration>) -> Self {
        Self { after, since: None, has_yielded: false }
    }

    /// Whether to give the slot up now.
    pub(super) fn is_due(&mut self, now: Instant, kafka_is_away: bool) -> bool {
        if !kafka_is_away {
            self.since = None;
            return false;
        }
        let since = *self.since.get_or_insert(now);
        self.has_yielded = self.after.is_some_and(|after| now.duration_since(since) >= after);
        self.has_yielded
    }

    /// Whether the slot was given up.
    pub(super) const fn has_yielded(&self) -> bool {
        self.has_yielded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_slot_is_given_up_after_so_long_without_a_break() {
        let start = Instant::now();
        let mut yielding = Yielding::after(Some(5 * SECOND));
        assert!(!yielding.is_due(start, true));
        assert!(!yielding.is_due(start + 4 * SECOND, true));
        assert!(!yielding.is_due(start + 5 * SECOND, false), "it is back");
        assert!(!yielding.is_due(start + 6 * SECOND, true));
        assert!(!yielding.has_yielded());
        assert!(yielding.is_due(start + 11 * SECOND, true));
        assert!(yielding.has_yielded());
    }

    #[test]
    fn where_nothing_is_configured_it_is_kept() {
        let start = Instant::now();
        let mut yielding = Yielding::after(None);
        assert!(!yielding.is_due(start, true));
        assert!(!yielding.is_due(start + 86_400 * SECOND, true));
    }
}
