//! Reads what was published, as any consumer would: committed records, from each partition's start.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::Value;
use waltide_stack::{Kafka, Registry};

use crate::audit::key_text;
use crate::{Row, Seen, What};

pub(crate) struct Reader {
    consumer: BaseConsumer,
    kafka: Kafka,
    registry: Registry,
    prefix: String,
    /// The next offset of each partition of each topic. A client that has met an error is made anew from
    /// here: whatever it makes of a broker that was killed, no record is skipped.
    next: BTreeMap<(String, i32), i64>,
    failed: bool,
}

impl Reader {
    /// Of the topics of tables of a pipeline.
    pub(crate) fn new(kafka: &Kafka, registry: &Registry, pipeline: &str) -> Result<Self, String> {
        let (kafka, registry) = (kafka.clone(), registry.clone());
        let consumer = consumer(&kafka)?;
        let prefix = format!("{pipeline}.public.");
        Ok(Self { consumer, kafka, registry, prefix, next: BTreeMap::new(), failed: false })
    }

    /// Begins anew where it is.
    pub(crate) fn begin_anew(&mut self) -> Result<(), String> {
        self.consumer = consumer(&self.kafka)?;
        let mut all = TopicPartitionList::new();
        for ((topic, partition), offset) in &self.next {
            let added = all.add_partition_offset(topic, *partition, Offset::Offset(*offset));
            added.map_err(|error| format!("cannot read {topic}: {error}"))?;
        }
        self.failed = false;
        self.consumer.assign(&all).map_err(|error| format!("cannot read: {error}"))
    }

    /// Looks for topics that are new, and tells their tables with their partitions.
    pub(crate) fn look(&mut self) -> Result<Vec<(String, Vec<i32>)>, String> {
        let timeout = Duration::from_secs(30);
        let metadata = self.consumer.fetch_metadata(None, timeout);
        let metadata = metadata.map_err(|error| format!("cannot list topics: {error}"))?;
        let mut found = Vec::new();
        for topic in metadata.topics() {
            let Some(table) = topic.name().strip_prefix(&self.prefix) else { continue };
            let partitions = topic.partitions().iter().map(|partition| partition.id());
            let partitions: Vec<i32> = partitions.collect();
            let key = |partition: &i32| (topic.name().to_owned(), *partition);
            if partitions.iter().all(|partition| self.next.contains_key(&key(partition))) {
                continue;
            }
            for partition in &partitions {
                self.next.entry(key(partition)).or_insert(0);
            }
            found.push((format!("public.{table}"), partitions));
        }
        if self.failed || !found.is_empty() {
            self.begin_anew()?;
        }
        Ok(found)
    }

    /// The next record, or why it cannot be read; none where none comes within the time.
    pub(crate) fn next(&mut self, wait: Duration) -> Option<Result<Seen, String>> {
        // A broker that is away comes back, or what is missing is found to be.
        let Ok(message) = self.consumer.poll(wait)? else {
            self.failed = true;
            return None;
        };
        let next = self.next.entry((message.topic().to_owned(), message.partition())).or_default();
        if message.offset() < *next {
            return Some(Err(format!("{} was read twice", message.topic())));
        }
        *next = message.offset() + 1;
        Some(seen(&message, &self.prefix, &self.registry))
    }
}

fn consumer(kafka: &Kafka) -> Result<BaseConsumer, String> {
    ClientConfig::new()
        .set("bootstrap.servers", kafka.direct())
        // The client insists on a group; assigning partitions by hand never joins it.
        .set("group.id", "torture")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        // Never to the end: what lies between would not be read.
        .set("auto.offset.reset", "error")
        .set("fetch.wait.max.ms", "20")
        .set("fetch.error.backoff.ms", "10")
        .set("reconnect.backoff.ms", "10")
        .set("reconnect.backoff.max.ms", "100")
        .set("log_level", "0")
        .create()
        .map_err(|error| format!("no consumer: {error}"))
}

fn seen(message: &BorrowedMessage<'_>, prefix: &str, registry: &Registry) -> Result<Seen, String> {
    let table = message.topic().strip_prefix(prefix).unwrap_or(message.topic());
    let (partition, offset) = (message.partition(), message.offset());
    let wrong = |what: &str| format!("public.{table}/{partition} at {offset}: {what}");
    let mut digest = DefaultHasher::new();
    (message.key(), message.payload(), message.timestamp().to_millis()).hash(&mut digest);
    let mut position = None;
    for header in message.headers().iter().flat_map(|headers| headers.iter()) {
        (header.key, header.value).hash(&mut digest);
        if header.key == "waltide.position" {
            let text = String::from_utf8_lossy(header.value.unwrap_or_default());
            position = Some(text.parse().map_err(|error: String| wrong(&error))?);
        }
    }
    let position = position.ok_or_else(|| wrong("it has no position"))?;
    let decoded = |bytes: &[u8]| match registry.decode(bytes) {
        Ok((_, Value::Object(object))) => Ok(object),
        Ok((_, other)) => Err(wrong(&format!("{other} is no record"))),
        Err(error) => Err(wrong(&error.to_string())),
    };
    let key = message.key().map(decoded).transpose()?.map(|key| key_text(&key));
    let value = message.payload().map(decoded).transpose()?;
    let what = value.map_or(Ok(What::Tombstone), |value| what(value).map_err(|it| wrong(&it)))?;
    let (table, digest) = (format!("public.{table}"), digest.finish());
    Ok(Seen { table, partition, offset, key, position, what, digest })
}

fn what(mut value: Row) -> Result<What, String> {
    let op = value.get("op").and_then(Value::as_str).unwrap_or_default().to_owned();
    let after = match value.remove("after") {
        Some(Value::Object(row)) => Ok(row),
        _ => Err(format!("an op {op:?} without the row")),
    };
    let unchanged = match value.remove("unchanged") {
        Some(Value::Array(names)) => names,
        _ => Vec::new(),
    };
    let name = |name: Value| name.as_str().map(str::to_owned);
    Ok(match op.as_str() {
        "r" => What::Read(after?),
        "c" if unchanged.is_empty() => What::Create(after?),
        // A row that took another key, without what was left as it is.
        "c" => What::Moved(after?, unchanged.into_iter().filter_map(name).collect()),
        "u" => What::Update(after?, unchanged.into_iter().filter_map(name).collect()),
        "d" => What::Delete,
        "t" => What::Truncate,
        other => return Err(format!("there is no op {other:?}")),
    })
}
