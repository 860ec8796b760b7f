// Hot path: `Producer::send` runs once a record.
//! Records go out in the order they are handed over, and their delivery reports come back
//! (`reports.rs`). What is on its way is bounded by bytes.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, PurgeConfig};
use waltide_core::watermark::Ticket;

use super::firsts::{Firsts, Minutes};
use super::gear::{BULK_LINGER_MS, Gear, Gearbox, LOAD, LOADING};
use super::polled::Polled;
use super::reports::{Ends, LAST, Lane, Reporter, Reports, tag};
use super::turns::Turns;
use super::{Error, Headers, Settings};

/// Bytes of records that may be on their way before more wait. They are most of the daemon's memory,
/// and what waits in librdkafka for longer than it may linger has its thread spin (`gear.rs`); it
/// still is two full requests.
const ON_THE_WAY: u64 = 2 * 1024 * 1024;

/// The property that says otherwise.
const ROOM_KEY: &str = "queue.buffering.max.kbytes";

/// The most that librdkafka takes for it.
const MAX_ROOM_KIB: u64 = i32::MAX as u64;

/// What librdkafka takes for one record, unless it is told otherwise.
const MAX_RECORD_BYTES: u32 = 1_000_000;

/// The property of how long the first record of a batch waits for others, in milliseconds.
const LINGER_KEY: &str = "linger.ms";

/// The property of how many records make a full batch.
const BATCH_KEY: &str = "batch.num.messages";

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
    ends: Ends,
    /// Bytes of all keys and values that were handed over.
    bytes: u64,
    /// Of those, what has come back as far as anybody has looked.
    returned: u64,
    /// How many may be on their way.
    room: u64,
    /// Of each client.
    firsts: [Firsts; 2],
    minutes: Minutes,
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
        let client = |config: &ClientConfig| {
            Polled::new(config, Reporter::new(&reports, settings))
                .map_err(|error| Error::of_call(&error, &settings.bootstrap_servers, "", ""))
        };
        let mut bulk = producer_config(settings, BULK_LINGER_MS, None)?;
        // A load is made for our own batches: with others it could wait for a longer linger, or be
        // over at once.
        let ours = |key: &str| !settings.properties.contains_key(key);
        let loading = (ours(LINGER_KEY) && ours(BATCH_KEY)).then_some(LOADING);
        if loading.is_some() {
            bulk.set(BATCH_KEY, LOAD.to_string());
        }
        let quick = client(&producer_config(settings, "0", None)?)?;
        let (bulk, gears) = (client(&bulk)?, Gearbox::new(loading));
        let clients = Clients::Idempotent { quick, bulk, gears };
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
        let ends = Ends::new(&reports);
        Self {
            clients,
            reports,
            taken: Vec::new(),
            ends,
            bytes: 0,
            returned: 0,
            room,
            firsts: [Firsts::new(), Firsts::new()],
            minutes: Minutes::new(),
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
        self.ends.clone()
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
        // After a rest nobody has looked for long.
        if self.bytes == self.returned {
            self.minutes.look();
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
        let Some(opaque) = tag(record.ticket, record.lane) else {
            return Err(Refusal::Failed(Error::Delivery {
                topic: record.topic.to_owned(),
                reason: "more transactions or topics than a connection can count".to_owned(),
            }));
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
        self.reports.complaint()
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

pub(super) fn size(key: Option<&[u8]>, value: Option<&[u8]>) -> u64 {
    (key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len)) as u64
}

/// How many bytes of records may be on their way.
fn room(settings: &Settings) -> Result<u64, Error> {
    let Some(text) = settings.properties.get(ROOM_KEY) else { return Ok(ON_THE_WAY) };
    let kib = text.parse().ok().filter(|kib| (1..=MAX_ROOM_KIB).contains(kib));
    kib.map(|kib| kib * 1024).ok_or_else(|| Error::Settings {
        reason: format!("{ROOM_KEY} is a number of kibibytes from 1 to {MAX_ROOM_KIB}"),
    })
}

/// Of a client that takes records of up to `largest` bytes, unless it is told otherwise.
pub(super) fn producer_config(
    settings: &Settings,
    linger_ms: &str,
    largest: Option<u32>,
) -> Result<ClientConfig, Error> {
    const LARGEST_KEY: &str = "message.max.bytes";
    let mut config = settings.client()?;
    let defaults = [(LINGER_KEY, linger_ms), ("compression.type", "lz4")];
    for (key, value) in defaults {
        if !settings.properties.contains_key(key) {
            config.set(key, value);
        }
    }
    // One that is no number is refused by librdkafka.
    let told = settings.properties.get(LARGEST_KEY).map(|bytes| bytes.parse().unwrap_or(0));
    let largest = told.or(largest).unwrap_or(MAX_RECORD_BYTES);
    if told.is_none() {
        config.set(LARGEST_KEY, largest.to_string());
    }
    // What does not fit into an empty queue would wait for ever.
    let queue = (room(settings)? + 2 * u64::from(largest)) / 1024;
    config.set(ROOM_KEY, queue.min(MAX_ROOM_KIB).to_string());
    config
        .set("enable.idempotence", "true")
        // A record that fails for good takes those behind it along: else they would arrive, and
        // come again, later, behind it.
        .set("enable.gapless.guarantee", "true")
        .set("acks", "all")
        .set("max.in.flight.requests.per.connection", REQUESTS_IN_FLIGHT.to_string())
        // An outage is waited out: a record that timed out would poison the idempotent
        // producer and force a replay.
        .set("message.timeout.ms", "0");
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_a_number_that_librdkafka_takes() {
        let of = |kib: &str| {
            let properties = [(ROOM_KEY.to_owned(), kib.to_owned())].into();
            let settings = Settings { properties, ..Settings::default() };
            let queue = producer_config(&settings, "0", None).ok()?;
            Some((room(&settings).ok()?, queue.get(ROOM_KEY)?.parse::<u64>().ok()?))
        };
        assert_eq!(of("1024"), Some((1024 * 1024, 1024 + 2_000_000 / 1024)));
        assert_eq!(of("2147483647"), Some((MAX_ROOM_KIB * 1024, MAX_ROOM_KIB)));
        for refused in ["0", "-1", "2147483648", "many", ""] {
            assert_eq!(of(refused), None, "{refused}");
        }
    }
}
