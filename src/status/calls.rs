//! Requests to another server, counted.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Requests so far, by whether they were answered as hoped.
#[derive(Debug, Default)]
pub struct Calls {
    done: AtomicU64,
    failed: AtomicU64,
}

impl Calls {
    /// Counts one.
    pub fn count(&self, done: bool) {
        if done { &self.done } else { &self.failed }.fetch_add(1, Relaxed);
    }

    /// Those that were answered as hoped, and the others.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.done.load(Relaxed), self.failed.load(Relaxed))
    }
}
