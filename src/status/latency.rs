//! How long it took from commits to acknowledgements, as a histogram: a few plain counters, written
//! once for each batch of reports.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Upper bounds of the buckets. A quiet stream takes a millisecond, a broker's fail-over seconds, an
/// outage hours.
const BOUNDS_US: [u64; 14] = [
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    1_000_000,
    5_000_000,
    30_000_000,
    300_000_000,
    1_800_000_000,
    10_800_000_000,
];

/// Counts of what was observed.
#[derive(Debug, Default)]
pub struct Latency {
    /// One for each bound, and one for what is beyond the last.
    buckets: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

impl Latency {
    /// Notes one. Clocks may differ, so it may be negative, which is none at all.
    pub fn observe(&self, us: i64) {
        let us = u64::try_from(us).unwrap_or(0);
        let place = BOUNDS_US.partition_point(|bound| *bound < us);
        if let Some(bucket) = self.buckets.get(place) {
            bucket.fetch_add(1, Relaxed);
        }
        self.sum_us.fetch_add(us, Relaxed);
    }

    /// The bounds in seconds, each with how many took no longer; how many there are; and their sum
    /// in seconds.
    #[must_use]
    pub fn cumulative(&self) -> (Vec<(f64, u64)>, u64, f64) {
        let seconds = |us: u64| std::time::Duration::from_micros(us).as_secs_f64();
        let mut total = 0;
        let mut bounds = Vec::with_capacity(BOUNDS_US.len());
        for (place, bucket) in self.buckets.iter().enumerate() {
            total += bucket.load(Relaxed);
            bounds.extend(BOUNDS_US.get(place).map(|bound| (seconds(*bound), total)));
        }
        (bounds, total, seconds(self.sum_us.load(Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_what_took_no_longer() {
        let latency = Latency::default();
        for us in [-5, 0, 1_000, 1_001, 20_000_000_000] {
            latency.observe(us);
        }
        let (bounds, total, sum) = latency.cumulative();
        assert_eq!(bounds.first(), Some(&(0.001, 3)));
        assert_eq!(bounds.get(1), Some(&(0.0025, 4)));
        assert_eq!(bounds.last().map(|bound| bound.1), Some(4));
        assert_eq!((total, sum), (5, 20_000.002_001));
    }
}
