//! How long to wait before trying again.

use std::time::Duration;

use crate::chance::spread;
use crate::fault::Class;

/// The first wait: short, because most outages are a restart of something close by.
const FIRST: Duration = Duration::from_millis(100);

/// The longest wait: an operator who has mended something should not wait to see it.
const LONGEST: Duration = Duration::from_secs(5);

/// What an operator must mend is looked at this often.
const OPERATOR: Duration = Duration::from_secs(2);

/// Grows with every failure in a row.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// The wait after one more failure, spread by up to a quarter so that daemons which failed
    /// together do not come back together.
    pub(super) fn failed(&mut self, class: Class) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let plain = match class {
            Class::Operator | Class::Stop => OPERATOR,
            Class::Transient => FIRST.saturating_mul(1 << (self.failures - 1).min(16)).min(LONGEST),
        };
        plain.mul_f64(1.0 - spread() / 4.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_limit_and_start_over_after_a_success() {
        let mut backoff = Backoff::default();
        let waits: Vec<Duration> = (0..12).map(|_| backoff.failed(Class::Transient)).collect();
        assert!(waits[0] <= FIRST && waits[0] >= FIRST.mul_f64(0.75), "{waits:?}");
        assert!(waits.iter().all(|wait| *wait <= LONGEST), "{waits:?}");
        assert!(waits[11] >= LONGEST.mul_f64(0.75), "{waits:?}");
        backoff.succeeded();
        assert!(backoff.failed(Class::Transient) <= FIRST);
    }
}
