// Hot path: `Producer::send` runs once a record.
//! Records go out in the order they are handed over, and their delivery reports come back.
//!
//! librdkafka calls back on a thread of its own. The call-back only adds to the books of a
//! mailbox, where reports of one transaction are one entry; the owner of the pipeline empties it
//! when it is woken. So everything that decides stays with one owner, and the mailbox is bounded
//! by what is in flight, which librdkafka bounds by bytes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::client::OAuthToken;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext, PurgeConfig};
use tokio::sync::Notify;
use waltide_core::watermark::Ticket;

use super::connection::Complaints;
use super::firsts::{Firsts, Minutes};
use super::gear::{Gear, Gearbox};
use super::login::Badge;
use super::polled::Polled;
use super::turns::Turns;
use super::{Error, Headers, Settings};

/// Bytes of records that may be on their way before more wait. They are most of the daemon's memory,
/// and what waits in librdkafka for longer than it may linger has its thread spin (`gear.rs`); it
/// still is two full requests.
const ON_THE_WAY: u64 = 2 * 1024 * 1024;

/// The property that says otherwise.
const ROOM_KEY: &str = "queue.buffering.max.kbytes";

/// What librdkafka takes for one record, unless it is told otherwise.
const MAX_RECORD_BYTES: u32 = 1_000_000;

/// How long a stream that is behind may let a batch grow. Longer than a request of a full batch
/// takes, or librdkafka spins (`gear.rs`), and short beside what being behind costs anyway.
const BULK_LINGER_MS: &str = "5";

/// Requests on their way to one broker. Five keep order with idempotence as well, but librdkafka
/// spins while all are taken.
const REQUESTS_IN_FLIGHT: u32 = 3;

/// A record as it is handed over.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Where to.
    pub topic: &'a str,
    /// Where in it: for a key what [`super::partition_of`] says.
    pub partition: i32,
    /// Absent where the table has no key.
    pub key: Option<&'a [u8]>,
    /// Absent in a tombstone.
    pub value: Option<&'a [u8]>,
    /// Milliseconds since 1970: the time of the commit.
    pub timestamp_ms: i64,
    /// The value of the header `waltide.position`.
    pub position: &'a [u8],
    /// The other headers.
    pub headers: &'a Headers,
    /// The transaction it counts for.
    pub ticket: Ticket,
    /// Its topic's, from [`Ends::lane`].
    pub lane: Lane,
}

/// A topic's number with a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lane(usize);

/// What comes back with a delivery report is one word of the machine: the ticket above, the lane
/// below. Transactions of one connection and topics of one daemon stay far below these.
const LANE_BITS: u32 = 24;

/// As many transactions fit above a lane.
const MAX_TICKETS: u64 = 1 << (usize::BITS - LANE_BITS);

/// Why a record was not queued.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The queue is full: wait for room and hand it over again.
    Full,
    /// It cannot be sent.
    Failed(Error),
}

/// A record that came back undelivered. Nothing after it may be confirmed.
pub type Failure = Error;

/// What comes back with the last record of a Kafka transaction, which counts for no ticket.
const LAST: usize = usize::MAX;

/// Delivery reports that nobody has looked at yet.
#[derive(Debug, Default)]
struct Mailbox {
    delivered: Vec<(Ticket, u64)>,
    /// All there ever were.
    reported: u64,
    failure: Option<Failure>,
    /// Bytes of all keys and values that have come back, delivered or not.
    bytes: u64,
    /// What became of a commit.
    outcome: Option<Result<(), Error>>,
    /// By lane and partition.
    ends: Vec<Vec<End>>,
}

/// What has arrived in a partition.
#[derive(Clone, Copy, Debug, Default)]
struct End {
    /// How many records.
    records: u64,
    /// The offset after the last one.
    offset: i64,
}

impl Mailbox {
    fn ends_at(&mut self, lane: usize, partition: i32, offset: i64) {
        let Some(ends) = self.ends.get_mut(lane) else { return };
        let Ok(index) = usize::try_from(partition) else { return };
        if index >= ends.len() {
            // The topic has more partitions than it had.
            ends.resize(index + 1, End::default());
        }
        if let Some(end) = ends.get_mut(index) {
            end.records += 1;
            end.offset = end.offset.max(offset + 1);
        }
    }

    /// How many records have arrived there.
    fn arrived(&self, (lane, partition): (usize, i32)) -> u64 {
        let ends = self.ends.get(lane);
        let end = ends.and_then(|ends| ends.get(usize::try_from(partition).ok()?));
        end.map_or(0, |end| end.records)
    }
}

/// The names of topics and where our last records in each of their partitions end.
#[derive(Clone, Debug)]
pub struct Ends {
    reports: Arc<Reports>,
    topics: Arc<Mutex<Topics>>,
}

/// Topics with their numbers.
#[derive(Debug, Default)]
struct Topics {
    lanes: HashMap<String, Lane>,
    names: Vec<String>,
}

impl Ends {
    /// The number of a topic, by which its reports are counted from now on.
    #[must_use]
    pub fn lane(&self, topic: &str) -> Lane {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lane) = topics.lanes.get(topic) {
            return *lane;
        }
        let lane = Lane(topics.names.len());
        topics.names.push(topic.to_owned());
        topics.lanes.insert(topic.to_owned(), lane);
        self.reports.mailbox().ends.push(Vec::new());
        lane
    }

    /// What is acknowledged so far, by topic.
    #[must_use]
    pub fn so_far(&self) -> Vec<(String, Vec<i64>)> {
        let topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        let mailbox = self.reports.mailbox();
        let ends = mailbox.ends.iter().map(|ends| ends.iter().map(|end| end.offset).collect());
        topics.names.iter().cloned().zip(ends).collect()
    }
}

#[derive(Debug, Default)]
pub(super) struct Reports {
    mailbox: Mutex<Mailbox>,
    arrived: Notify,
    complaints: Complaints,
    /// Connections that were lost so far.
    lost: AtomicU64,
    /// A record came back as delivered by a Kafka that may not have it.
    doubtful: AtomicBool,
}

/// Kafka says of what it has taken where it is. Where it does not, librdkafka concludes from what was
/// sent later that this is there, which need not be so (`firsts.rs`).
const DOUBT: &str = "Kafka has taken what was sent after it, and has not said that it has this";

impl Reports {
    fn mailbox(&self) -> MutexGuard<'_, Mailbox> {
        self.mailbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A commit has ended.
    pub(super) fn ended(&self, outcome: Result<(), Error>) {
        self.mailbox().outcome = Some(outcome);
        self.arrived.notify_one();
    }

    /// How it has, once so many records are reported.
    pub(super) fn take_outcome(&self, sent: u64) -> Option<Result<(), Error>> {
        let mut mailbox = self.mailbox();
        if mailbox.outcome.as_ref()?.is_ok() && mailbox.reported < sent {
            return None;
        }
        mailbox.outcome.take()
    }

    /// Whether so many records are reported.
    pub(super) fn has(&self, sent: u64) -> bool {
        self.mailbox().reported >= sent
    }

    /// What librdkafka complained of in the last seconds.
    pub(super) fn complaint(&self) -> Option<String> {
        self.complaints.recent()
    }

    /// Why what was sent may not be committed, if so.
    pub(super) fn doubt(&self) -> Option<&'static str> {
        self.doubtful.load(Ordering::Acquire).then_some(DOUBT)
    }

    /// How many connections have been lost.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

/// What a client calls back.
#[derive(Clone, Debug, Default)]
pub(super) struct Reporter(Arc<Reports>, Arc<Badge>);

impl Reporter {
    pub(super) fn new(reports: &Arc<Reports>, settings: &Settings) -> Self {
        Self(Arc::clone(reports), Arc::new(Badge::new(&settings.login)))
    }

    /// Lets a client ask for a token before it connects.
    pub(super) fn settle(&self, deadline: Instant, poll: impl Fn()) {
        self.1.settle(deadline, poll);
    }

    pub(super) fn complaint(&self) -> Option<String> {
        self.0.complaint()
    }
}

impl ClientContext for Reporter {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(
        &self,
        _: Option<&str>,
    ) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.1.show()
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.0.complaints.logged(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // By one that did not come to be, nothing was sent.
        if !reason.contains(": Connect to ") {
            self.0.lost.fetch_add(1, Ordering::Relaxed);
        }
        self.0.complaints.failed(&error, reason);
    }
}

impl ProducerContext for Reporter {
    /// The ticket's number and the lane's.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: usize) {
        let ticket = Ticket((opaque >> LANE_BITS) as u64);
        let lane = opaque & ((1 << LANE_BITS) - 1);
        let mut mailbox = self.0.mailbox();
        let was_empty = mailbox.delivered.is_empty() && mailbox.failure.is_none();
        let (Ok(message) | Err((_, message))) = result;
        if opaque != LAST {
            mailbox.bytes += size(message.key(), message.payload());
        }
        mailbox.reported += 1;
        match result {
            Ok(message) if message.offset() < 0 => {
                self.0.doubtful.store(true, Ordering::Release);
                let topic = message.topic().to_owned();
                let reason = DOUBT.to_owned();
                mailbox.failure.get_or_insert(Error::Delivery { topic, reason });
            }
            // It wakes whoever waits for the outcome.
            Ok(_) if opaque == LAST => {}
            Ok(message) => {
                mailbox.ends_at(lane, message.partition(), message.offset());
                match mailbox.delivered.last_mut() {
                    Some((last, count)) if *last == ticket => *count += 1,
                    _ => mailbox.delivered.push((ticket, 1)),
                }
            }
            Err((error, message)) => {
                mailbox.failure.get_or_insert_with(|| Error::of_delivery(error, message.topic()));
            }
        }
        drop(mailbox);
        if was_empty {
            self.0.arrived.notify_one();
        }
    }
}

/// Through whom records go.
enum Clients {
    /// Each record counts as soon as it has arrived.
    Idempotent {
        quick: Polled<BaseProducer<Reporter>>,
        bulk: Polled<BaseProducer<Reporter>>,
        gears: Gearbox,
    },
    /// Records count together with the checkpoint that covers them.
    Transactional(Box<Turns>),
}

/// The way to Kafka.
pub struct Producer {
    clients: Clients,
    reports: Arc<Reports>,
    taken: Vec<(Ticket, u64)>,
    topics: Arc<Mutex<Topics>>,
    /// Bytes of all keys and values that were handed over.
    bytes: u64,
    /// Of those, what has come back as far as anybody has looked.
    returned: u64,
    /// How many may be on their way.
    room: u64,
    /// Records that were handed over.
    sent: u64,
    /// Of each client.
    firsts: [Firsts; 2],
    minutes: Minutes,
    /// All that was handed over has come back, and nothing was handed over since.
    rests: bool,
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer").finish_non_exhaustive()
    }
}

impl Producer {
    /// A producer whose guarantees no setting can weaken: configuration refuses those properties
    /// by name, and here they are set last.
    ///
    /// # Errors
    /// Where librdkafka refuses a setting.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        let reports: Arc<Reports> = Arc::default();
        let client = |linger_ms: &str| {
            let reporter = Reporter::new(&reports, settings);
            Polled::new(&producer_config(settings, linger_ms, None)?, reporter)
                .map_err(|error| Error::of_call(&error, &settings.bootstrap_servers, "", ""))
        };
        let (quick, bulk) = (client("0")?, client(BULK_LINGER_MS)?);
        let clients = Clients::Idempotent { quick, bulk, gears: Gearbox::new() };
        Ok(Self::of(clients, reports, room(settings)?))
    }

    /// A producer whose records count only once they are committed. It has shut out every earlier
    /// one with these transactional ids, and is used up by the first failure. `checkpoints` is the
    /// topic of the records by which they are committed.
    ///
    /// # Errors
    /// Where Kafka does not answer in time, does not allow it, or refuses a setting.
    pub async fn transactional(
        settings: &Settings,
        transactional_ids: [&str; 2],
        checkpoints: &str,
        within: Duration,
    ) -> Result<Self, Error> {
        let reports: Arc<Reports> = Arc::default();
        let turns = Turns::init(settings, transactional_ids, checkpoints, &reports, within).await?;
        Ok(Self::of(Clients::Transactional(Box::new(turns)), reports, room(settings)?))
    }

    fn of(clients: Clients, reports: Arc<Reports>, room: u64) -> Self {
        Self {
            clients,
            reports,
            taken: Vec::new(),
            topics: Arc::default(),
            bytes: 0,
            returned: 0,
            room,
            sent: 0,
            firsts: [Firsts::new(), Firsts::new()],
            minutes: Minutes::new(),
            rests: true,
        }
    }

    /// Hands over the last record of a Kafka transaction, and commits it with all that was handed
    /// over before, in the background: [`Producer::committed`]. Two may be on their way.
    ///
    /// # Errors
    /// [`Refusal::Full`] where there is no room just now: nothing has happened.
    pub fn commit_with(&mut self, topic: &str, key: &[u8], value: &[u8]) -> Result<(), Refusal> {
        let Clients::Transactional(turns) = &mut self.clients else {
            return Err(Refusal::Failed(Error::Settings {
                reason: "a producer without a transactional id commits nothing".to_owned(),
            }));
        };
        let Some(open) = turns.open().map_err(Refusal::Failed)? else {
            return Err(Refusal::Full);
        };
        let record = BaseRecord::<[u8], [u8], usize>::with_opaque_to(topic, LAST);
        match open.send(record.partition(0).key(key).payload(value)) {
            Ok(()) => {
                self.sent += 1;
                turns.sent();
                turns.commit();
                Ok(())
            }
            Err((error, _)) => Err(self.refusal(&error, topic)),
        }
    }

    /// What became of the first commit that was on its way; none while it is.
    ///
    /// # Errors
    /// [`Error::Fenced`] where another producer has taken over, [`Error::UnknownOutcome`] where
    /// nobody knows.
    pub fn committed(&mut self) -> Option<Result<(), Error>> {
        match &mut self.clients {
            Clients::Transactional(turns) => turns.outcome(),
            Clients::Idempotent { .. } => None,
        }
    }

    /// Where what is delivered ends, to be asked from another thread.
    #[must_use]
    pub fn ends(&self) -> Ends {
        Ends { reports: Arc::clone(&self.reports), topics: Arc::clone(&self.topics) }
    }

    /// So many records come at once now, that nobody waits for as for a change.
    pub fn expect(&mut self, records: usize) {
        if let Clients::Idempotent { gears, .. } = &mut self.clients {
            gears.expect(records as u64);
        }
    }

    /// Queues a record; its bytes are copied.
    ///
    /// # Errors
    /// [`Refusal::Full`] where there is no room just now.
    pub fn send(&mut self, record: &Record<'_>) -> Result<(), Refusal> {
        // However large a record is, it finds room once enough has come back.
        if self.bytes.saturating_sub(self.returned) >= self.room {
            return Err(self.full());
        }
        let (client, producer): (usize, &BaseProducer<Reporter>) = match &mut self.clients {
            Clients::Idempotent { quick, bulk, gears } => match gears.next() {
                Some(Gear::Quick) => (0, quick),
                Some(Gear::Bulk) => (1, bulk),
                None => return Err(Refusal::Full),
            },
            Clients::Transactional(turns) => {
                let turn = turns.turn();
                match turns.open().map_err(Refusal::Failed)? {
                    Some(client) => (turn, client),
                    None => return Err(Refusal::Full),
                }
            }
        };
        if self.rests {
            self.minutes.look();
            self.rests = false;
        }
        let (to, minute) = ((record.lane.0, record.partition), self.minutes.now);
        if !self.firsts[client].admits(to, minute, || self.reports.mailbox().arrived(to)) {
            return Err(Refusal::Full);
        }
        let mut headers = OwnedHeaders::new_with_capacity(1 + record.headers.len())
            .insert(Header { key: "waltide.position", value: Some(record.position) });
        for (key, value) in record.headers.iter() {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        let opaque = match usize::try_from(record.ticket.0) {
            Ok(ticket) if record.ticket.0 < MAX_TICKETS && record.lane.0 < 1 << LANE_BITS => {
                ticket << LANE_BITS | record.lane.0
            }
            _ => {
                return Err(Refusal::Failed(Error::Delivery {
                    topic: record.topic.to_owned(),
                    reason: "more transactions or topics than a connection can count".to_owned(),
                }));
            }
        };
        let mut out = BaseRecord::<[u8], [u8], usize>::with_opaque_to(record.topic, opaque)
            .timestamp(record.timestamp_ms)
            .headers(headers);
        out.partition = Some(record.partition);
        out.key = record.key;
        out.payload = record.value;
        match producer.send(out) {
            Ok(()) => {
                self.bytes += size(record.key, record.value);
                self.sent += 1;
                self.firsts[client].took(to, minute);
                match &mut self.clients {
                    Clients::Idempotent { gears, .. } => gears.sent(),
                    Clients::Transactional(turns) => turns.sent(),
                }
                Ok(())
            }
            Err((error, _)) => Err(self.refusal(&error, record.topic)),
        }
    }

    fn refusal(&mut self, error: &KafkaError, topic: &str) -> Refusal {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) {
            return self.full();
        }
        Refusal::Failed(self.why(Error::of_delivery(error, topic)))
    }

    fn full(&mut self) -> Refusal {
        if let Clients::Idempotent { gears, .. } = &mut self.clients {
            gears.full();
        }
        Refusal::Full
    }

    fn why(&self, error: Error) -> Error {
        match &self.clients {
            Clients::Transactional(turns) => turns.why(error),
            Clients::Idempotent { .. } => error,
        }
    }

    fn each(&self) -> impl Iterator<Item = &BaseProducer<Reporter>> {
        let clients: [&BaseProducer<Reporter>; 2] = match &self.clients {
            Clients::Idempotent { quick, bulk, .. } => [quick, bulk],
            Clients::Transactional(turns) => turns.clients(),
        };
        clients.into_iter()
    }

    /// Waits until a report has come in. A report that came before the call counts.
    pub async fn reported(&self) {
        self.reports.arrived.notified().await;
    }

    /// Takes the reports that came in, summed by transaction.
    ///
    /// # Errors
    /// The first record that was not delivered.
    pub fn take_reports(&mut self) -> Result<&[(Ticket, u64)], Failure> {
        self.taken.clear();
        let mut mailbox = self.reports.mailbox();
        if let Some(failure) = mailbox.failure.take() {
            drop(mailbox);
            return Err(self.why(failure));
        }
        std::mem::swap(&mut self.taken, &mut mailbox.delivered);
        self.rests = mailbox.reported >= self.sent;
        self.returned = mailbox.bytes;
        drop(mailbox);
        self.minutes.look();
        if let Clients::Idempotent { gears, .. } = &mut self.clients {
            gears.delivered(self.taken.iter().map(|(_, count)| count).sum());
        }
        Ok(&self.taken)
    }

    /// Records that are queued or on their way.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        let count: i32 = self.each().map(|it| it.in_flight_count()).sum();
        let committing = match &self.clients {
            Clients::Transactional(turns) => turns.committing(),
            Clients::Idempotent { .. } => 0,
        };
        usize::try_from(count).unwrap_or(0) + committing
    }

    /// Bytes of their keys and values.
    #[must_use]
    pub fn bytes_in_flight(&self) -> u64 {
        self.bytes.saturating_sub(self.reports.mailbox().bytes)
    }

    /// What librdkafka complained of in the last seconds.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        self.reports.complaints.recent()
    }

    /// Drops what is not sent yet; what is on its way may still arrive.
    pub fn drop_unsent(&self) {
        for producer in self.each() {
            producer.purge(PurgeConfig::default().queue());
        }
    }

    /// Drops everything; its records are read again after the restart.
    pub fn abandon(&self) {
        for producer in self.each() {
            producer.purge(PurgeConfig::default().queue().inflight());
            // The poll thread serves the purged reports before the client can be destroyed.
            producer.poll(Duration::ZERO);
        }
    }
}

fn size(key: Option<&[u8]>, value: Option<&[u8]>) -> u64 {
    (key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len)) as u64
}

/// How many bytes of records may be on their way.
fn room(settings: &Settings) -> Result<u64, Error> {
    let Some(kib) = settings.properties.get(ROOM_KEY) else { return Ok(ON_THE_WAY) };
    let kib: Option<u64> = kib.parse().ok();
    kib.map(|kib| kib * 1024)
        .ok_or_else(|| Error::Settings { reason: format!("{ROOM_KEY} is a number of kibibytes") })
}

/// Of a client that takes records of up to `largest` bytes, unless it is told otherwise.
pub(super) fn producer_config(
    settings: &Settings,
    linger_ms: &str,
    largest: Option<u32>,
) -> Result<ClientConfig, Error> {
    const LARGEST_KEY: &str = "message.max.bytes";
    let mut config = settings.client()?;
    let defaults = [("linger.ms", linger_ms), ("compression.type", "lz4")];
    for (key, value) in defaults {
        if !settings.properties.contains_key(key) {
            config.set(key, value);
        }
    }
    let told = settings.properties.get(LARGEST_KEY).and_then(|bytes| bytes.parse().ok());
    let largest = u64::from(told.or(largest).unwrap_or(MAX_RECORD_BYTES));
    config.set(LARGEST_KEY, largest.to_string());
    // What does not fit into an empty queue would wait for ever.
    config.set(ROOM_KEY, ((room(settings)? + 2 * largest) / 1024).to_string());
    config
        .set("enable.idempotence", "true")
        // A record that fails for good takes those behind it along: else they would arrive, and
        // come again, later, behind it.
        .set("enable.gapless.guarantee", "true")
        .set("acks", "all")
        .set("max.in.flight.requests.per.connection", REQUESTS_IN_FLIGHT.to_string())
        // Java's partitioner, so that keys lie where Java's producers put them.
        .set("partitioner", "murmur2_random")
        // An outage is waited out: a record that timed out would poison the idempotent
        // producer and force a replay.
        .set("message.timeout.ms", "0");
    Ok(config)
}
