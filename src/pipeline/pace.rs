//! Reads in large pieces while behind, at once while not.
//!
//! A walsender writes every message by itself. A reader that keeps up with it is woken for each,
//! and both sides pay two context switches a row. When small reads follow one another closely,
//! the system is asked to wake us only for a batch; when a batch does not come together within a
//! moment, what is there is taken and reading goes back to at once. A single change on a quiet
//! stream is never held up: it takes a run of close reads to get here.

use std::time::{Duration, Instant};

use crate::postgres::{Error, StreamReader};

/// Bytes worth waking up for while behind: some hundred rows.
const BATCH_BYTES: usize = 128 * 1024;

/// A read below this was a wake-up for little.
const SMALL_BYTES: usize = 32 * 1024;

/// Reads this close belong to a stream that is faster than a moment.
const CLOSE: Duration = Duration::from_micros(200);

/// Small close reads in a row before batches are asked for.
const RUN: u32 = 16;

/// The longest a batch is waited for, which is the most this adds to a change's latency.
const MOMENT: Duration = Duration::from_millis(1);

/// Whether batches are asked for just now.
#[derive(Debug)]
pub(super) struct Pace {
    run: u32,
    batching: bool,
    last: Instant,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { run: 0, batching: false, last: Instant::now() }
    }

    /// Reads what has come, or waits for it; the number of bytes that wait in the buffer. May be
    /// dropped at any point.
    pub(super) async fn fill(&mut self, reader: &mut StreamReader) -> Result<usize, Error> {
        if self.batching {
            match tokio::time::timeout(MOMENT, reader.fill()).await {
                Ok(read) => return read,
                Err(_) => {
                    reader.set_low_water_mark(1)?;
                    self.batching = false;
                    self.run = 0;
                }
            }
        }
        let read = reader.fill().await?;
        let now = Instant::now();
        let close = now.duration_since(self.last) < CLOSE;
        self.last = now;
        self.run = if close && read < SMALL_BYTES { self.run + 1 } else { 0 };
        if self.run >= RUN {
            // Where the socket has no such mark, reading goes on as it is.
            self.batching = reader.set_low_water_mark(BATCH_BYTES)?;
            self.run = 0;
        }
        Ok(read)
    }
}
