//! Waiting for something to become true, by asking, with a deadline.

use std::thread;
use std::time::{Duration, Instant};

/// The first pause between two questions, and the longest: soon enough for what takes a
/// millisecond, rare enough not to slow down a server that needs the processor to start.
const PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(25));

/// Asks until there is an answer; none when the deadline has passed.
pub(crate) fn poll<T>(deadline: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + deadline;
    let mut pause = PAUSE.0;
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if Instant::now() >= end {
            return None;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(PAUSE.1);
    }
}

/// Asks until there is an answer and returns it.
///
/// # Panics
/// When the deadline has passed, naming `what` was waited for.
#[track_caller]
pub fn eventually<T>(what: &str, deadline: Duration, ask: impl FnMut() -> Option<T>) -> T {
    match poll(deadline, ask) {
        Some(answer) => answer,
        None => panic!("waited {deadline:?} in vain: {what}"),
    }
}
