//! What a running pipeline is doing, written by its owner and read by whoever asks.
//!
//! The owner writes plain numbers once a batch; nothing here is touched once a row. Readers never
//! make the owner wait.

mod latency;
mod stages;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use waltide_core::lsn::Lsn;
use waltide_core::pgoutput::PgTimestamp;

use crate::fault::{Code, Fault};
pub use latency::Latency;
pub use stages::{Stage, Stages};

/// Microseconds from 1970 to 2000, where Postgres starts to count.
const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;

/// "No commit in flight."
const NONE: i64 = i64::MIN;

/// The owner shows itself four times a second; silence beyond this means that it is stuck.
const SHOWN_EVERY_AT_LEAST: Duration = Duration::from_secs(1);

/// How long a reading of the server's clock holds against later ones that show it further behind.
const CLOCK_KEPT_MS: u64 = 60_000;

/// No moment of this process.
const NEVER: u64 = u64::MAX;

/// Tables that are counted by name, the first ones that rows come of: four series each.
pub const MAX_TABLES: usize = 1_000;

/// The name under which all others are counted. No table is called so, for it has no dot.
pub const OTHER_TABLES: &str = "(other)";

/// What a pipeline is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It has not yet reached its servers.
    Starting,
    /// Another daemon reads the slot; this one takes over when it is free.
    Standby,
    /// Changes flow, or would if there were any.
    Streaming,
    /// Something is in the way; it is tried again by itself.
    Waiting(Fault),
    /// It was asked to end and delivers what it holds.
    Draining,
    /// It does not go on without a decision.
    Stopped(Fault),
}

impl State {
    /// Whether changes flow, or would, or another daemon sees to it.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        matches!(self, Self::Streaming | Self::Standby)
    }

    /// As metrics, logs and the API write it.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Standby => "standby",
            Self::Streaming => "streaming",
            Self::Waiting(_) => "waiting",
            Self::Draining => "draining",
            Self::Stopped(_) => "stopped",
        }
    }

    /// The names of all states.
    pub const NAMES: &'static [&'static str] =
        &["starting", "standby", "streaming", "waiting", "draining", "stopped"];
}

/// Rows published of one table, by what happened to them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows that came to be.
    pub inserts: u64,
    /// Rows that changed.
    pub updates: u64,
    /// Rows that went.
    pub deletes: u64,
    /// Times the table was emptied.
    pub truncates: u64,
}

impl Counts {
    /// Adds what another count holds.
    pub fn add(&mut self, more: Self) {
        self.inserts += more.inserts;
        self.updates += more.updates;
        self.deletes += more.deletes;
        self.truncates += more.truncates;
    }

    /// The counts with the letters of their operations.
    #[must_use]
    pub const fn by_op(&self) -> [(&'static str, u64); 4] {
        [("c", self.inserts), ("u", self.updates), ("d", self.deletes), ("t", self.truncates)]
    }
}

/// How far the reading of a table is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Rows published so far.
    pub rows: u64,
    /// Blocks of the table; none before it is measured.
    pub blocks: Option<u64>,
    /// Those that are left.
    pub blocks_left: Option<u64>,
    /// It waits for transactions to end that were open when it began.
    pub waits: bool,
    /// What keeps it from being read.
    pub fault: Option<Fault>,
    /// For how long it is being read.
    pub running_s: u64,
    /// Whether it has been read.
    pub done: bool,
}

impl Snapshot {
    /// As metrics and the API write it.
    #[must_use]
    pub fn state(&self) -> &'static str {
        match self {
            Self { done: true, .. } => "done",
            Self { fault: Some(_), .. } => "failing",
            Self { waits: true, .. } => "waiting",
            _ => "reading",
        }
    }
}

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
struct Slow {
    state: State,
    since: SystemTime,
    outages: Outages,
    /// Since when it is not ready; none while it is.
    unready: Option<Instant>,
    /// It has been ready before.
    proven: bool,
    tables: BTreeMap<String, Counts>,
    errors: BTreeMap<&'static str, (Code, u64)>,
    slot: SlotHealth,
    snapshots: BTreeMap<String, Snapshot>,
}

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
    registry_calls: Arc<Calls>,
    latency: Latency,
    slow: Mutex<Slow>,
}

impl Slow {
    /// The end of a daemon is no outage: nothing waits for it to be ready again.
    fn note_readiness(&mut self, ready: bool) {
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
            let code = fault.code;
            slow.errors.entry(code.id()).or_insert((code, 0)).1 += 1;
        }
        slow.note_readiness(state.is_ready());
        if !matches!(state, State::Streaming | State::Draining) {
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

    /// Adds what a batch published of tables.
    pub fn published(&self, tables: impl IntoIterator<Item = (String, Counts)>) {
        let mut slow = self.slow();
        for (table, counts) in tables {
            let known = slow.tables.len() < MAX_TABLES || slow.tables.contains_key(&table);
            let table = if known { table } else { OTHER_TABLES.to_owned() };
            slow.tables.entry(table).or_default().add(counts);
        }
    }

    /// What was published so far, by table.
    #[must_use]
    pub fn tables(&self) -> BTreeMap<String, Counts> {
        self.slow().tables.clone()
    }

    /// How far the reading of a table is.
    pub fn snapshot_at(&self, table: &str, snapshot: Snapshot) {
        self.slow().snapshots.insert(table.to_owned(), snapshot);
    }

    /// A table has been read, or will not be.
    pub fn snapshot_ended(&self, table: &str, done: bool) {
        let mut slow = self.slow();
        match slow.snapshots.get_mut(table) {
            Some(snapshot) if done => {
                *snapshot = Snapshot {
                    rows: snapshot.rows,
                    blocks: snapshot.blocks,
                    done,
                    ..Snapshot::default()
                };
            }
            _ => drop(slow.snapshots.remove(table)),
        }
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
    /// server has is delivered; the time since we last heard of the server while it is away; and,
    /// while it is ahead of what it has sent, the time since we had caught up.
    #[must_use]
    pub fn lag(&self) -> Duration {
        let uptime_ms = self.uptime_ms();
        let since =
            |ms: &AtomicU64| Duration::from_millis(uptime_ms.saturating_sub(ms.load(Relaxed)));
        if !matches!(self.state(), State::Streaming | State::Draining) {
            return since(&self.contact_ms);
        }
        let age_us = self.oldest_age_us.load(Relaxed);
        if age_us != NONE {
            let age = Duration::from_micros(u64::try_from(age_us).unwrap_or(0));
            // While the owner shows itself what is in flight changes all the time; when it does
            // not, what was in flight grows older.
            let silent = since(&self.shown_ms);
            return if silent < SHOWN_EVERY_AT_LEAST { age } else { age + silent };
        }
        if self.lag_bytes() == 0 { Duration::ZERO } else { since(&self.caught_up_ms) }
    }

    fn uptime_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Our clock, as Postgres counts.
#[must_use]
pub fn now() -> PgTimestamp {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    PgTimestamp(i64::try_from(since_1970.as_micros()).unwrap_or(i64::MAX) - POSTGRES_EPOCH_US)
}

/// A Postgres time as a Kafka record's timestamp.
#[must_use]
pub const fn unix_ms(time: PgTimestamp) -> i64 {
    time.0.saturating_add(POSTGRES_EPOCH_US).div_euclid(1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_beyond_the_bound_are_counted_together_and_those_within_stay() {
        let pipeline = Pipeline::new("shop");
        let one = Counts { inserts: 1, ..Counts::default() };
        for _ in 0..2 {
            pipeline.published((0..MAX_TABLES + 500).map(|table| (format!("s.t{table}"), one)));
        }
        let tables = pipeline.tables();
        assert_eq!(tables.len(), MAX_TABLES + 1);
        assert_eq!(tables.get("s.t0").map(|counts| counts.inserts), Some(2));
        assert_eq!(tables.get(OTHER_TABLES).map(|counts| counts.inserts), Some(1_000));
    }

    #[test]
    fn an_outage_is_counted_once_and_its_end_says_how_long_it_took() {
        let pipeline = Pipeline::new("shop");
        assert_eq!((pipeline.outages().count, pipeline.outages().last), (0, None));
        pipeline.enter(State::Streaming);
        // The start is no outage.
        assert_eq!((pipeline.outages().count, pipeline.outages().last), (0, None));
        let streamed = pipeline.outages().time;
        assert_eq!(pipeline.outages().time, streamed);
        pipeline.enter(State::Waiting(fault()));
        pipeline.enter(State::Waiting(fault()));
        assert_eq!((pipeline.outages().count, pipeline.outages().last), (1, None));
        pipeline.enter(State::Streaming);
        let after = pipeline.outages();
        assert!(after.count == 1 && after.last.is_some() && after.time >= streamed, "{after:?}");
    }

    fn fault() -> Fault {
        Fault::new(Code::KafkaUnreachable, "no broker answers", "start one")
    }

    #[test]
    fn lag_is_zero_when_all_the_server_has_is_delivered() {
        let pipeline = Pipeline::new("shop");
        pipeline.enter(State::Streaming);
        pipeline.heard(Lsn(100), now());
        pipeline.progress(Lsn(100), Lsn(100), None, 0);
        assert_eq!((pipeline.lag_bytes(), pipeline.lag()), (0, Duration::ZERO));
    }

    #[test]
    fn lag_is_the_age_of_the_oldest_commit_in_flight_by_the_servers_clock() {
        let pipeline = Pipeline::new("shop");
        pipeline.enter(State::Streaming);
        let hour_ahead = PgTimestamp(now().0 + 3_600_000_000);
        pipeline.heard(Lsn(100), hour_ahead);
        pipeline.progress(Lsn(100), Lsn(50), Some(PgTimestamp(hour_ahead.0 - 5_000_000)), 1);
        assert_eq!(pipeline.lag().as_secs(), 5);
        assert_eq!(pipeline.lag_bytes(), 50);
    }

    #[test]
    fn what_was_long_on_its_way_does_not_make_a_lag_smaller() {
        let pipeline = Pipeline::new("shop");
        pipeline.enter(State::Streaming);
        pipeline.heard(Lsn(50), now());
        // It was sent ten seconds ago, and waited to be read.
        pipeline.heard(Lsn(100), PgTimestamp(now().0 - 10_000_000));
        let committed = PgTimestamp(now().0 - 12_000_000);
        pipeline.progress(Lsn(100), Lsn(50), Some(committed), 1);
        assert!(pipeline.lag() > Duration::from_secs(11));
    }

    #[test]
    fn the_same_failure_again_counts_but_does_not_restart_its_clock() {
        let pipeline = Pipeline::new("shop");
        pipeline.enter(State::Waiting(fault()));
        let since = pipeline.since();
        pipeline.enter(State::Waiting(fault()));
        assert_eq!(pipeline.since(), since);
        assert_eq!(pipeline.errors(), [(Code::KafkaUnreachable, 2)]);
    }

    #[test]
    fn a_commit_time_becomes_milliseconds_since_1970_also_before_it() {
        assert_eq!(unix_ms(PgTimestamp(0)), 946_684_800_000);
        assert_eq!(unix_ms(PgTimestamp(-POSTGRES_EPOCH_US - 1)), -1);
    }
}
