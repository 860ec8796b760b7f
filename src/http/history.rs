//! The last hour, for who opens the page in the middle of it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};

use crate::control::Handle;

/// Between two samples.
const EVERY: Duration = Duration::from_secs(15);

/// An hour of them: two KiB a pipeline.
const SAMPLES: usize = 240;

/// The lags of each pipeline, in their order, the latest last.
#[derive(Clone, Debug)]
pub(super) struct History(Arc<Mutex<Vec<VecDeque<f64>>>>);

impl History {
    pub(super) fn of(pipelines: usize) -> Self {
        Self(Arc::new(Mutex::new(vec![VecDeque::with_capacity(SAMPLES); pipelines])))
    }

    /// Looks at the pipelines until the process ends.
    pub(super) async fn keep(self, pipelines: Arc<[Handle]>) {
        let mut tick = interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tick.tick().await;
            self.add(pipelines.iter().map(|pipeline| pipeline.status.lag().as_secs_f64()));
        }
    }

    fn add(&self, lags: impl Iterator<Item = f64>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (samples, lag) in all.iter_mut().zip(lags) {
            if samples.len() == SAMPLES {
                samples.pop_front();
            }
            samples.push_back((lag * 1_000.0).round() / 1_000.0);
        }
    }

    /// As the API writes it.
    pub(super) fn show(&self, pipelines: &[Handle]) -> Value {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let names = pipelines.iter().map(|pipeline| pipeline.status.name.clone());
        let samples: Value = names.zip(all.iter().map(|samples| json!(samples))).collect();
        json!({ "every_seconds": EVERY.as_secs(), "pipelines": samples })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_kept_and_no_more() {
        let history = History::of(1);
        for lag in 0..SAMPLES + 5 {
            history.add(std::iter::once(lag as f64));
        }
        let all = history.0.lock().unwrap();
        assert_eq!((all[0].len(), all[0][0], all[0][SAMPLES - 1]), (240, 5.0, 244.0));
    }
}
