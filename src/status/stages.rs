//! What the time of a pipeline's thread is spent on.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// What it is spent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Waiting for the server, or nothing to do.
    Source,
    /// Decoding and encoding rows, and handing them over.
    Rows,
    /// Asking catalog, registry and Kafka about a table.
    Schemas,
    /// Waiting for room in the queue to Kafka.
    Kafka,
}

impl Stage {
    /// All of them, with the names that metrics have for them.
    const NAMED: [(Self, &str); 4] = [
        (Self::Source, "source"),
        (Self::Rows, "rows"),
        (Self::Schemas, "schemas"),
        (Self::Kafka, "kafka"),
    ];
}

/// The time spent so far, by stage.
#[derive(Debug, Default)]
pub struct Stages([AtomicU64; Stage::NAMED.len()]);

impl Stages {
    /// Adds some.
    pub fn add(&self, stage: Stage, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        if let Some(spent) = self.0.get(stage as usize) {
            spent.fetch_add(nanos, Relaxed);
        }
    }

    /// The time by the stages' names.
    pub fn spent(&self) -> impl Iterator<Item = (&'static str, Duration)> {
        let all = Stage::NAMED.iter().zip(&self.0);
        all.map(|((_, name), spent)| (*name, Duration::from_nanos(spent.load(Relaxed))))
    }
}
