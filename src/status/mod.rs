//! What a running pipeline is doing, written by its owner and read by whoever asks.
//!
//! The owner writes plain numbers once a batch; nothing here is touched once a row. Readers never
//! make the owner wait.

mod calls;
mod clock;
mod latency;
mod slow;
mod stages;
mod state;
mod tables;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use waltide_core::lsn::Lsn;
use waltide_core::pgoutput::PgTimestamp;

use crate::fault::{Code, Fault};
pub use calls::Calls;
pub use clock::{now, unix_ms};
pub use latency::Latency;
use slow::Slow;
pub use slow::{Outages, SlotHealth, Trouble};
pub use stages::{Stage, Stages};
pub use state::State;
pub use tables::{BLOCK_BYTES, Counts, End, MAX_TABLES, OTHER_TABLES, Snapshot, Table};

/// "No commit in flight."
const NONE: i64 = i64::MIN;

/// The owner shows itself four times a second; silence beyond this means that it is stuck.
const SHOWN_EVERY_AT_LEAST: Duration = Duration::from_secs(1);

/// How long a reading of the server's clock holds against later ones that show it further behind.
const CLOCK_KEPT_MS: u64 = 60_000;

/// No moment of this process.
const NEVER: u64 = u64::MAX;

/// One pipeline, as seen from outside.
#[derive(Debug)]
pub struct Pipeline {
    /// Its name.
    pub name: String,
    started: Instant,
    received: AtomicU64,
    durable: AtomicU64,
    server_end: AtomicU64,
    /// Age of the oldest commit in flight when it was last shown.
    oldest_age_us: AtomicI64,
    shown_ms: AtomicU64,
    contact_ms: AtomicU64,
    caught_up_ms: AtomicU64,
    clock_ahead_us: AtomicI64,
    clock_read_ms: AtomicU64,
    wal_bytes: AtomicU64,
    records: AtomicU64,
    record_bytes: AtomicU64,
    in_flight: AtomicU64,
    queue_bytes: AtomicU64,
    /// Seconds since 1970; 0 where none is known.
    certificate_expires_s: AtomicU64,
    stages: Stages,
    retries: AtomicU64,
    checkpoint_ms: AtomicI64,
    schema_changes: AtomicU64,
    spool_bytes: AtomicU64,
    open_transactions: AtomicU64,
    oldest_open_us: AtomicI64,
    registry_calls: Arc<Calls>,
    latency: Latency,
    slow: Mutex<Slow>,
}

impl Pipeline {
    /// A pipeline that has just been started.
    #[must_use]
    pub fn new(name: &str) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            started: Instant::now(),
            received: AtomicU64::new(0),
            durable: AtomicU64::new(0),
            server_end: AtomicU64::new(0),
            oldest_age_us: AtomicI64::new(NONE),
            shown_ms: AtomicU64::new(0),
            contact_ms: AtomicU64::new(0),
            caught_up_ms: AtomicU64::new(0),
            clock_ahead_us: AtomicI64::new(0),
            clock_read_ms: AtomicU64::new(NEVER),
            wal_bytes: AtomicU64::new(0),
            records: AtomicU64::new(0),
            record_bytes: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            queue_bytes: AtomicU64::new(0),
            certificate_expires_s: AtomicU64::new(0),
            stages: Stages::default(),
            retries: AtomicU64::new(0),
            checkpoint_ms: AtomicI64::new(NONE),
            schema_changes: AtomicU64::new(0),
            spool_bytes: AtomicU64::new(0),
            open_transactions: AtomicU64::new(0),
            oldest_open_us: AtomicI64::new(NONE),
            registry_calls: Arc::default(),
            latency: Latency::default(),
            slow: Mutex::new(Slow {
                state: State::Starting,
                since: SystemTime::now(),
                outages: Outages::default(),
                unready: Some(Instant::now()),
                proven: false,
                tables: BTreeMap::new(),
                errors: BTreeMap::new(),
                recent: VecDeque::new(),
                slot: SlotHealth::default(),
                snapshots: BTreeMap::new(),
            }),
        })
    }

    fn slow(&self) -> MutexGuard<'_, Slow> {
        self.slow.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it is doing.
    #[must_use]
    pub fn state(&self) -> State {
        self.slow().state.clone()
    }

    /// Since when.
    #[must_use]
    pub fn since(&self) -> SystemTime {
        self.slow().since
    }

    /// Enters a state. The same failure again is not a new one.
    pub fn enter(&self, state: State) {
        let mut slow = self.slow();
        if let State::Waiting(fault) | State::Stopped(fault) = &state {
            slow.note_failure(fault);
        }
        // Neither is an outage what somebody has asked for.
        slow.note_readiness(state.is_ready() || state == State::Paused);
        if !state.has_stream() {
            // The next server may be another.
            self.clock_read_ms.store(NEVER, Relaxed);
        }
        if slow.state != state {
            slow.since = SystemTime::now();
            slow.state = state;
        }
    }

    /// How often it was kept from its work, and for how long.
    #[must_use]
    pub fn outages(&self) -> Outages {
        let slow = self.slow();
        let now = slow.unready.map(|since| since.elapsed()).unwrap_or_default();
        Outages { time: slow.outages.time + now, ..slow.outages }
    }

    /// A table was described in another way than before.
    pub fn schema_changed(&self) {
        self.schema_changes.fetch_add(1, Relaxed);
    }

    /// How often that was so.
    #[must_use]
    pub fn schema_changes(&self) -> u64 {
        self.schema_changes.load(Relaxed)
    }

    /// What is kept of transactions that are sent before they are committed, how many of them are
    /// open, and since when the oldest is, by the server's clock.
    pub fn spooled(&self, bytes: u64, open: usize, oldest: Option<PgTimestamp>) {
        self.spool_bytes.store(bytes, Relaxed);
        self.open_transactions.store(open as u64, Relaxed);
        self.oldest_open_us.store(oldest.map_or(NONE, |at| at.0), Relaxed);
    }

    /// The bytes kept of them, and how many are open.
    #[must_use]
    pub fn spool(&self) -> (u64, u64) {
        (self.spool_bytes.load(Relaxed), self.open_transactions.load(Relaxed))
    }

    /// How long ago the server sent the first of the oldest of them; none where none is open.
    #[must_use]
    pub fn oldest_open(&self) -> Option<Duration> {
        let since = self.oldest_open_us.load(Relaxed);
        let age_us = u64::try_from(self.server_now().0.saturating_sub(since)).unwrap_or(0);
        (since != NONE).then(|| Duration::from_micros(age_us))
    }

    /// What was asked of the registry.
    #[must_use]
    pub fn registry_calls(&self) -> Arc<Calls> {
        Arc::clone(&self.registry_calls)
    }

    /// The server's clock, as far as we know.
    #[must_use]
    pub fn server_now(&self) -> PgTimestamp {
        PgTimestamp(now().0.saturating_add(self.clock_ahead_us.load(Relaxed)))
    }

    /// Records of a transaction were acknowledged, at this time by the server's clock.
    pub fn delivered(&self, committed: PgTimestamp, at: PgTimestamp) {
        self.latency.observe(at.0.saturating_sub(committed.0));
    }

    /// How long that took so far.
    #[must_use]
    pub fn latency(&self) -> &Latency {
        &self.latency
    }

    /// What the pipeline's time is spent on.
    #[must_use]
    pub fn stages(&self) -> &Stages {
        &self.stages
    }

    /// Bytes of keys and values are queued or on their way to Kafka.
    pub fn queue(&self, bytes: u64) {
        self.queue_bytes.store(bytes, Relaxed);
    }

    /// How many.
    #[must_use]
    pub fn queue_bytes(&self) -> u64 {
        self.queue_bytes.load(Relaxed)
    }

    /// The source has shown a certificate that runs out then, since 1970; or none.
    pub fn certificate_seen(&self, expires: Option<Duration>) {
        self.certificate_expires_s.store(expires.map_or(0, |at| at.as_secs()), Relaxed);
    }

    /// When the certificate that was shown last runs out, since 1970.
    #[must_use]
    pub fn certificate_expires(&self) -> Option<Duration> {
        let seconds = self.certificate_expires_s.load(Relaxed);
        (seconds != 0).then(|| Duration::from_secs(seconds))
    }

    /// What is in the way, where something is.
    #[must_use]
    pub fn last_fault(&self) -> Option<Fault> {
        match self.state() {
            State::Waiting(fault) | State::Stopped(fault) => Some(fault),
            _ => None,
        }
    }

    /// Failures so far, by code.
    #[must_use]
    pub fn errors(&self) -> Vec<(Code, u64)> {
        self.slow().errors.values().copied().collect()
    }

    /// The last failures, the latest first.
    #[must_use]
    pub fn recent(&self) -> Vec<Trouble> {
        self.slow().recent.iter().cloned().collect()
    }

    /// Notes one more attempt after a failure.
    pub fn retried(&self) {
        self.retries.fetch_add(1, Relaxed);
    }

    /// Attempts after failures.
    #[must_use]
    pub fn retries(&self) -> u64 {
        self.retries.load(Relaxed)
    }

    /// A checkpoint was written.
    pub fn checkpointed(&self) {
        self.checkpoint_ms.store(self.uptime_ms().cast_signed(), Relaxed);
    }

    /// How old the last checkpoint is; none before the first one of this process.
    #[must_use]
    pub fn checkpoint_age(&self) -> Option<Duration> {
        let at = self.checkpoint_ms.load(Relaxed);
        let age_ms = self.uptime_ms().saturating_sub(at.cast_unsigned());
        (at != NONE).then(|| Duration::from_millis(age_ms))
    }

    /// Adds what a batch published of tables, with the ids of their schemas.
    pub fn published(&self, tables: impl IntoIterator<Item = (String, Counts, Option<u32>)>) {
        let mut slow = self.slow();
        let counted = Instant::now();
        for (name, counts, schema) in tables {
            let known = slow.tables.len() < MAX_TABLES || slow.tables.contains_key(&name);
            let (name, schema) =
                if known { (name, schema) } else { (OTHER_TABLES.to_owned(), None) };
            let new = || Table { counts: Counts::default(), counted, schema };
            let table = slow.tables.entry(name).or_insert_with(new);
            table.counts.add(counts);
            (table.counted, table.schema) = (counted, schema);
        }
    }

    /// What was published so far, by table.
    #[must_use]
    pub fn tables(&self) -> BTreeMap<String, Table> {
        self.slow().tables.clone()
    }

    /// How far the reading of a table is.
    pub fn snapshot_at(&self, table: &str, snapshot: Snapshot) {
        self.slow().snapshots.insert(table.to_owned(), snapshot);
    }

    /// A table has been read, or will not be.
    pub fn snapshot_ended(&self, table: &str, end: End) {
        let mut slow = self.slow();
        let snapshot = slow.snapshots.entry(table.to_owned()).or_default();
        *snapshot = snapshot.ended(end);
    }

    /// How far the reading of tables is, of those that this process has read.
    #[must_use]
    pub fn snapshots(&self) -> BTreeMap<String, Snapshot> {
        self.slow().snapshots.clone()
    }

    /// What the server says of the slot.
    pub fn slot_seen(&self, slot: SlotHealth, server_end: Lsn) {
        self.server_end.fetch_max(server_end.0, Relaxed);
        self.slow().slot = slot;
    }

    /// What the server last said of the slot.
    #[must_use]
    pub fn slot(&self) -> SlotHealth {
        self.slow().slot.clone()
    }

    /// The server was heard: it has sent up to there, and its clock read so when it did.
    pub fn heard(&self, server_end: Lsn, server_clock: PgTimestamp) {
        self.server_end.fetch_max(server_end.0, Relaxed);
        self.contact_ms.store(self.uptime_ms(), Relaxed);
        self.clock_read(server_clock.0 - now().0);
    }

    /// What waited to be read shows the server's clock too far behind by as long as it waited: what
    /// came soonest is right, for a while, as clocks are set back as well.
    fn clock_read(&self, ahead_us: i64) {
        let uptime_ms = self.uptime_ms();
        let known = self.clock_ahead_us.load(Relaxed);
        let read_ms = self.clock_read_ms.load(Relaxed);
        let is_old = read_ms == NEVER || uptime_ms.saturating_sub(read_ms) >= CLOCK_KEPT_MS;
        if is_old || ahead_us >= known {
            self.clock_ahead_us.store(ahead_us, Relaxed);
            self.clock_read_ms.store(uptime_ms, Relaxed);
        }
    }

    /// Where the pipeline stands after a batch.
    pub fn progress(
        &self,
        received: Lsn,
        durable: Lsn,
        oldest_commit: Option<PgTimestamp>,
        in_flight: usize,
    ) {
        self.received.store(received.0, Relaxed);
        self.durable.store(durable.0, Relaxed);
        let server_now = self.server_now();
        let age_us = oldest_commit.map_or(NONE, |at| server_now.0.saturating_sub(at.0).max(0));
        self.oldest_age_us.store(age_us, Relaxed);
        self.shown_ms.store(self.uptime_ms(), Relaxed);
        self.in_flight.store(in_flight as u64, Relaxed);
        if durable.0 >= self.server_end.load(Relaxed) {
            self.caught_up_ms.store(self.uptime_ms(), Relaxed);
        }
    }

    /// Adds what a batch read and wrote.
    pub fn moved(&self, wal_bytes: u64, records: u64, record_bytes: u64) {
        self.wal_bytes.fetch_add(wal_bytes, Relaxed);
        self.records.fetch_add(records, Relaxed);
        self.record_bytes.fetch_add(record_bytes, Relaxed);
    }

    /// Bytes read from the source.
    #[must_use]
    pub fn wal_bytes(&self) -> u64 {
        self.wal_bytes.load(Relaxed)
    }

    /// Records handed to Kafka, and their bytes.
    #[must_use]
    pub fn records(&self) -> (u64, u64) {
        (self.records.load(Relaxed), self.record_bytes.load(Relaxed))
    }

    /// Records that wait for their acknowledgement.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Relaxed)
    }

    /// Up to where the stream was received.
    #[must_use]
    pub fn received(&self) -> Lsn {
        Lsn(self.received.load(Relaxed))
    }

    /// Up to where everything is delivered.
    #[must_use]
    pub fn durable(&self) -> Lsn {
        Lsn(self.durable.load(Relaxed))
    }

    /// How far the server is ahead of what is delivered.
    #[must_use]
    pub fn lag_bytes(&self) -> u64 {
        Lsn(self.server_end.load(Relaxed)).bytes_since(self.durable())
    }

    /// How old what a consumer sees is.
    ///
    /// The age of the oldest commit in flight by the server's clock; zero when everything the
    /// server has is delivered; while it is ahead of what it has sent, the time since we had caught
    /// up. While there is no stream it is at least the time since we last heard of the server.
    #[must_use]
    pub fn lag(&self) -> Duration {
        let uptime_ms = self.uptime_ms();
        let since =
            |ms: &AtomicU64| Duration::from_millis(uptime_ms.saturating_sub(ms.load(Relaxed)));
        // A server may be heard well while Kafka takes nothing, so the one does not hide the other.
        let away = match self.state().has_stream() {
            true => Duration::ZERO,
            false => since(&self.contact_ms),
        };
        let age_us = self.oldest_age_us.load(Relaxed);
        if age_us != NONE {
            let age = Duration::from_micros(u64::try_from(age_us).unwrap_or(0));
            // While the owner shows itself what is in flight changes all the time; when it does
            // not, what was in flight grows older.
            let silent = since(&self.shown_ms);
            let age = if silent < SHOWN_EVERY_AT_LEAST { age } else { age + silent };
            return age.max(away);
        }
        if self.lag_bytes() == 0 { away } else { away.max(since(&self.caught_up_ms)) }
    }

    fn uptime_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
