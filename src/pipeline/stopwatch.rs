//! What the owner's time is spent on. The clock is read once a batch: to read it for each row would
//! cost more than what it measures.

use std::time::{Duration, Instant};

use crate::status::{Stage, Stages};

/// Runs all the time, and is read where the owner turns to something else.
#[derive(Debug)]
pub(super) struct Stopwatch(Instant);

impl Stopwatch {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    /// Until now there was nothing to read.
    pub(super) fn waited(&mut self, stages: &Stages) {
        stages.add(Stage::Source, self.lap());
    }

    /// Until now rows were worked on, and of that these were spent waiting.
    pub(super) fn worked(&mut self, stages: &Stages, kafka: Duration, schemas: Duration) {
        stages.add(Stage::Rows, self.lap().saturating_sub(kafka + schemas));
        stages.add(Stage::Kafka, kafka);
        stages.add(Stage::Schemas, schemas);
    }

    fn lap(&mut self) -> Duration {
        let began = std::mem::replace(&mut self.0, Instant::now());
        self.0.saturating_duration_since(began)
    }
}
