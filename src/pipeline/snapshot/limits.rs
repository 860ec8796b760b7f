//! Reading is held to what is configured: so many bytes and rows in a second, and nothing of any
//! table while a replica of the source is too far behind.

use std::time::Duration;

use tokio::time::Instant;

use super::Snapshots;
use super::scout::Ask;
use crate::config::settled::SnapshotOptions;
use crate::fault::{Code, Fault};

/// Between looks at the replicas.
const EVERY: Duration = Duration::from_secs(1);

/// The replica of the source that is furthest behind, in bytes of the log.
#[derive(Debug)]
pub(in super::super) struct Furthest {
    pub(super) name: String,
    pub(super) bytes: u64,
}

/// Whether the replicas of the source let us read.
#[derive(Debug, Default)]
pub(super) struct Courtesy {
    asked_at: Option<Instant>,
    asking: bool,
    known: bool,
    /// Why nothing is read.
    pub(super) held_back: Option<Fault>,
}

/// How long it is to take to read so much.
pub(super) fn cost(options: &SnapshotOptions, rows: usize, bytes: usize) -> Duration {
    let seconds = |count: usize, rate: Option<u64>| rate.map_or(0.0, |it| count as f64 / it as f64);
    let seconds = seconds(bytes, options.max_rate).max(seconds(rows, options.max_rows));
    Duration::from_secs_f64(seconds)
}

impl Snapshots {
    /// Whether the replicas let us read, as was seen last; asks again when that is due.
    pub(super) fn replicas_allow(&mut self, now: Instant) -> bool {
        if self.options.max_replica_lag.is_none() {
            return true;
        }
        let of = &mut self.courtesy;
        if !of.asking && of.asked_at.is_none_or(|at| now - at >= EVERY) {
            of.asking = self.scout.try_send(Ask::Replicas).is_ok();
            of.asked_at = Some(now);
        }
        of.known && of.held_back.is_none()
    }

    /// The scout has looked at the replicas, or may not.
    pub(super) fn replicas_are(&mut self, seen: Result<Option<Furthest>, Fault>) {
        let most = self.options.max_replica_lag.unwrap_or(u64::MAX);
        let held_back = match seen {
            Ok(Some(furthest)) if furthest.bytes > most => Some(too_far(&furthest.name, most)),
            Ok(_) => None,
            Err(fault) => Some(fault),
        };
        let before = std::mem::replace(&mut self.courtesy.held_back, held_back);
        (self.courtesy.asking, self.courtesy.known) = (false, true);
        if before == self.courtesy.held_back {
            return;
        }
        let pipeline = &self.status.name;
        match &self.courtesy.held_back {
            Some(Fault { code, what, mend }) => {
                tracing::info!(pipeline, code = code.id(), mend, "{what}");
            }
            None => tracing::info!(pipeline, "replicas have caught up: tables are read again"),
        }
    }

    /// The scout could not look: what was seen last counts.
    pub(super) fn replicas_unseen(&mut self) {
        self.courtesy.asking = false;
    }
}

fn too_far(name: &str, most: u64) -> Fault {
    Fault::new(
        Code::SnapshotHeldBack,
        format!(
            "replica {name} of the source is more than {most} bytes behind: nothing is read of \
             tables until it has caught up"
        ),
        "nothing if it catches up by itself; else see what keeps it, or raise \
         `snapshot.max_replica_lag_bytes`",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stricter_limit_counts() {
        let limits = |max_rate, max_rows| SnapshotOptions { max_rate, max_rows, ..options() };
        let cost = |of, rows, bytes| cost(&of, rows, bytes).as_secs_f64();
        assert_eq!(cost(limits(None, None), 1_000, 1_000), 0.0);
        assert_eq!(cost(limits(Some(500), None), 9_000, 1_000), 2.0);
        assert_eq!(cost(limits(None, Some(3_000)), 9_000, 1_000), 3.0);
        assert_eq!(cost(limits(Some(100), Some(3_000)), 9_000, 1_000), 10.0);
    }

    fn options() -> SnapshotOptions {
        SnapshotOptions {
            on_request: false,
            parallelism: 1,
            max_rate: None,
            max_rows: None,
            max_replica_lag: None,
            keyless_max_bytes: None,
            from: None,
        }
    }
}
