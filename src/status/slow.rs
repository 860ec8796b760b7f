//! What changes so rarely that a lock serves: state, outages, tables, errors, slot.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant, SystemTime};

use super::{Snapshot, State, Table};
use crate::fault::{Code, Fault};

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

/// How many failures are remembered. An operator reads the last few; metrics count all.
pub(super) const RECENT: usize = 20;

/// A failure that was met.
#[derive(Clone, Debug)]
pub struct Trouble {
    /// What it is.
    pub fault: Fault,
    /// When it was last met.
    pub last: Instant,
    /// How often in a row.
    pub times: u64,
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
    pub(super) tables: BTreeMap<String, Table>,
    pub(super) errors: BTreeMap<&'static str, (Code, u64)>,
    pub(super) recent: VecDeque<Trouble>,
    pub(super) slot: SlotHealth,
    pub(super) snapshots: BTreeMap<String, Snapshot>,
}

impl Slow {
    /// Counts a failure, and remembers it as one of the last.
    pub(super) fn note_failure(&mut self, fault: &Fault) {
        self.errors.entry(fault.code.id()).or_insert((fault.code, 0)).1 += 1;
        let last = Instant::now();
        match self.recent.front_mut() {
            Some(known) if known.fault == *fault => {
                (known.last, known.times) = (last, known.times + 1);
            }
            _ => {
                self.recent.truncate(RECENT - 1);
                self.recent.push_front(Trouble { fault: fault.clone(), last, times: 1 });
            }
        }
    }

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
