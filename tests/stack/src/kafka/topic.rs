//! Reading a topic from its first record, as an independent consumer would.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers as _, Message};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;

use super::Kafka;
use crate::Stack;
use crate::error::Error;
use crate::poll::poll;
use crate::registry::Registry;

/// To read what is there takes milliseconds; a broker that has just come back may need seconds.
const READ_DEADLINE: Duration = Duration::from_secs(60);

/// The headers of a record, in their order.
pub type Headers = Vec<(String, Option<Vec<u8>>)>;

/// A record as it lies in Kafka.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "Kafka's own words")]
pub struct Record {
    pub partition: i32,
    pub offset: i64,
    pub timestamp_ms: Option<i64>,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Headers,
}

impl Record {
    /// The first header of that name, as text.
    pub fn header(&self, name: &str) -> Option<String> {
        header(&self.headers, name)
    }
}

/// A record whose key and value were Avro, decoded with the schemas of the registry.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonRecord {
    /// Kafka's partition.
    pub partition: i32,
    /// Kafka's offset.
    pub offset: i64,
    /// Kafka's timestamp.
    pub timestamp_ms: Option<i64>,
    /// The key; null if there is none.
    pub key: Value,
    /// The value; null if there is none, as in a tombstone.
    pub value: Value,
    /// The id of the key's schema.
    pub key_schema_id: Option<u32>,
    /// The id of the value's schema.
    pub value_schema_id: Option<u32>,
    /// All headers.
    pub headers: Headers,
}

impl JsonRecord {
    /// The first header of that name, as text.
    pub fn header(&self, name: &str) -> Option<String> {
        header(&self.headers, name)
    }
}

fn header(headers: &Headers, name: &str) -> Option<String> {
    let value = headers.iter().find(|(key, _)| key == name)?.1.as_deref()?;
    Some(String::from_utf8_lossy(value).into_owned())
}

/// A topic to read. Readers see committed records only, unless told otherwise.
#[derive(Clone)]
pub struct Topic {
    kafka: Kafka,
    name: String,
    registry: Option<Registry>,
    isolation: &'static str,
}

impl Topic {
    pub(super) fn new(kafka: Kafka, name: &str) -> Self {
        Self { kafka, name: name.to_owned(), registry: None, isolation: "read_committed" }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Decodes with this registry's schemas instead of the shared one's.
    #[must_use]
    pub fn with_registry(mut self, registry: &Registry) -> Self {
        self.registry = Some(registry.clone());
        self
    }

    /// Reads records of open and aborted transactions as well.
    #[must_use]
    pub fn read_uncommitted(mut self) -> Self {
        self.isolation = "read_uncommitted";
        self
    }

    /// All records that are there now, by partition and offset.
    ///
    /// # Panics
    /// When the topic is missing or Kafka does not answer.
    #[track_caller]
    pub fn read(&self) -> Vec<Record> {
        match self.try_read() {
            Ok(records) => records,
            Err(error) => panic!("{error}"),
        }
    }

    /// Shows all records that are there now, those of a partition in their order, and keeps none.
    ///
    /// # Panics
    /// When the topic is missing or Kafka does not answer.
    #[track_caller]
    pub fn for_each(&self, mut show: impl FnMut(Record)) {
        let mut read = || {
            let mut reader = Reader::new(self)?;
            loop {
                let some = |reader: &Reader| reader.is_at_end() || reader.records.len() >= AT_ONCE;
                if !reader.read_until(READ_DEADLINE, some)? {
                    return Err(Error::new(format!("{}: not read to its end", self.name)));
                }
                reader.records.drain(..).for_each(&mut show);
                if reader.is_at_end() {
                    return Ok(());
                }
            }
        };
        if let Err(error) = read() {
            panic!("{error}");
        }
    }

    /// Waits until there are `count` records and returns all that are there then. The topic may
    /// be missing at first.
    ///
    /// # Panics
    /// When the deadline passes before.
    #[track_caller]
    pub fn wait_for(&self, count: usize, deadline: Duration) -> Vec<Record> {
        match self.try_wait_for(count, deadline) {
            Ok(records) => records,
            Err(error) => panic!("{error}"),
        }
    }

    /// [`read`](Self::read), decoded.
    ///
    /// # Panics
    /// When that does, or when a key or value is not Avro of a schema in the registry.
    #[track_caller]
    pub fn read_json(&self) -> Vec<JsonRecord> {
        self.decode(self.read())
    }

    /// [`wait_for`](Self::wait_for), decoded.
    ///
    /// # Panics
    /// When that does, or when a key or value is not Avro of a schema in the registry.
    #[track_caller]
    pub fn wait_for_json(&self, count: usize, deadline: Duration) -> Vec<JsonRecord> {
        self.decode(self.wait_for(count, deadline))
    }

    #[track_caller]
    fn decode(&self, records: Vec<Record>) -> Vec<JsonRecord> {
        let registry = self.registry.as_ref().unwrap_or_else(|| Stack::shared().registry());
        let decode = |part: &str, offset: i64, bytes: Option<Vec<u8>>| match bytes {
            None => (None, Value::Null),
            Some(bytes) => match registry.decode(&bytes) {
                Ok((id, value)) => (Some(id), value),
                Err(error) => panic!("{} at {offset}: the {part}: {error}", self.name),
            },
        };
        let mut decoded = Vec::with_capacity(records.len());
        for Record { partition, offset, timestamp_ms, key, value, headers } in records {
            let (key_schema_id, key) = decode("key", offset, key);
            let (value_schema_id, value) = decode("value", offset, value);
            decoded.push(JsonRecord {
                partition,
                offset,
                timestamp_ms,
                key,
                value,
                key_schema_id,
                value_schema_id,
                headers,
            });
        }
        decoded
    }

    fn try_read(&self) -> Result<Vec<Record>, Error> {
        let mut reader = Reader::new(self)?;
        if !reader.read_until(READ_DEADLINE, |reader| reader.is_at_end())? {
            return Err(Error::new(format!(
                "{}: not read to its end within {READ_DEADLINE:?}; {} records so far",
                self.name,
                reader.records.len()
            )));
        }
        Ok(reader.finish())
    }

    fn try_wait_for(&self, count: usize, deadline: Duration) -> Result<Vec<Record>, Error> {
        let end = Instant::now() + deadline;
        let Some(mut reader) = poll(deadline, || Reader::new(self).ok()) else {
            return Err(Error::new(format!("no topic {} within {deadline:?}", self.name)));
        };
        let remaining = end.saturating_duration_since(Instant::now());
        let done = |reader: &Reader| reader.records.len() >= count && reader.is_at_end();
        if reader.read_until(remaining, done)? {
            return Ok(reader.finish());
        }
        let seen = reader.records.len();
        Err(Error::new(format!(
            "{}: {seen} records instead of {count} within {deadline:?}",
            self.name
        )))
    }
}

/// Records of a topic that is shown and not kept.
const AT_ONCE: usize = 1_000;

/// A consumer without a group that stands somewhere in each partition.
struct Reader {
    consumer: BaseConsumer,
    records: Vec<Record>,
    partitions: usize,
    at_end: BTreeSet<i32>,
}

impl Reader {
    fn new(topic: &Topic) -> Result<Self, Error> {
        let because = || format!("cannot read topic {}", topic.name);
        let consumer: BaseConsumer = super::client_config(&topic.kafka.direct())
            // The client insists on a group; assigning partitions by hand never joins it.
            .set("group.id", "waltide-stack")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("isolation.level", topic.isolation)
            .set("fetch.wait.max.ms", "10")
            .set("fetch.error.backoff.ms", "10")
            .create()
            .map_err(Error::because(because()))?;
        let metadata = consumer
            .fetch_metadata(Some(&topic.name), Duration::from_secs(10))
            .map_err(Error::because(because()))?;
        let mut assignment = TopicPartitionList::new();
        for known in metadata.topics() {
            if let Some(code) = known.error() {
                let code = rdkafka::types::RDKafkaErrorCode::from(code);
                return Err(Error::new(format!("{}: {code}", because())));
            }
            for partition in known.partitions() {
                assignment
                    .add_partition_offset(known.name(), partition.id(), Offset::Beginning)
                    .map_err(Error::because(because()))?;
            }
        }
        consumer.assign(&assignment).map_err(Error::because(because()))?;
        let partitions = assignment.count();
        Ok(Self { consumer, records: Vec::new(), partitions, at_end: BTreeSet::new() })
    }

    /// Whether every partition was read to its end, at some time each.
    fn is_at_end(&self) -> bool {
        self.at_end.len() == self.partitions
    }

    /// Reads on until `done`, and says whether that came before the deadline.
    fn read_until(
        &mut self,
        deadline: Duration,
        done: impl Fn(&Self) -> bool,
    ) -> Result<bool, Error> {
        let end = Instant::now() + deadline;
        while !done(self) {
            let remaining = end.saturating_duration_since(Instant::now());
            if remaining.is_zero() {
                return Ok(false);
            }
            match self.consumer.poll(remaining.min(Duration::from_millis(100))) {
                Some(Ok(message)) => self.records.push(record(&message)),
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    self.at_end.insert(partition);
                }
                // A broker that is away for a moment comes back or the deadline passes.
                Some(Err(error)) if is_transient(&error) => {}
                Some(Err(error)) => return Err(Error::because("cannot read")(error)),
                None => {}
            }
        }
        Ok(true)
    }

    fn finish(mut self) -> Vec<Record> {
        self.records.sort_by_key(|record| (record.partition, record.offset));
        self.records
    }
}

fn is_transient(error: &KafkaError) -> bool {
    use rdkafka::types::RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::BrokerTransportFailure
                | Code::AllBrokersDown
                | Code::OperationTimedOut
                | Code::NotLeaderForPartition
                | Code::LeaderNotAvailable
        )
    )
}

fn record(message: &BorrowedMessage<'_>) -> Record {
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        headers.iter().map(|h| (h.key.to_owned(), h.value.map(<[u8]>::to_vec))).collect()
    });
    Record {
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers,
    }
}
