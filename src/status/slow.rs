//! What changes so rarely that a lock serves: state, outages, tables, errors, slot.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use super::{Counts, Snapshot, State};
use crate::fault::Code;

/// What is known of the slot on the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotHealth {
    /// Bytes of WAL the server keeps for it.
    pub retained_bytes: Option<u64>,
    /// Bytes that may still be written before it is lost; none where there is no limit.
    pub safe_bytes: Option<i64>,
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: Option<String>,
}

/// How often a pipeline was kept from its work, and for how long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outages {
    /// Times it was not ready after it had been.
    pub count: u64,
    /// How long it was not ready in all, up to now.
    pub time: Duration,
    /// How long the last one took that is over.
    pub last: Option<Duration>,
}

#[derive(Debug)]
pub(super) struct Slow {
    pub(super) state: State,
    pub(super) since: SystemTime,
    pub(super) outages: Outages,
    /// Since when it is not ready; none while it is.
    pub(super) unready: Option<Instant>,
    /// It has been ready before.
    pub(super) proven: bool,
    pub(super) tables: BTreeMap<String, Counts>,
    pub(super) errors: BTreeMap<&'static str, (Code, u64)>,
    pub(super) slot: SlotHealth,
    pub(super) snapshots: BTreeMap<String, Snapshot>,
}

impl Slow {
    /// The end of a daemon is no outage: nothing waits for it to be ready again.
    pub(super) fn note_readiness(&mut self, ready: bool) {
        match (ready, self.unready) {
            (true, Some(since)) => {
                let took = since.elapsed();
                self.outages.time += took;
                if self.proven {
                    self.outages.last = Some(took);
                }
                (self.unready, self.proven) = (None, true);
            }
            (false, None) => {
                self.unready = Some(Instant::now());
                self.outages.count += 1;
            }
            (true, None) | (false, Some(_)) => {}
        }
    }
}
