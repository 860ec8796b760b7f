//! An independent consumer: it reads every partition of the shop's topics from the first record
//! to the last and enters what it reads into the books.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use waltide_stack::Registry;

use crate::decode::{Envelope, Schemas};
use crate::ledger::{Position, Read};
use crate::live::Shared;
use crate::shop::{Op, Row, Table};

/// How often we look for topics that the daemon has made meanwhile.
const DISCOVERY: Duration = Duration::from_millis(100);

/// A broker on this machine answers in milliseconds.
const ANSWER: Duration = Duration::from_secs(5);

/// How long reading on to the end may take once nothing more is written.
const READ_DEADLINE: Duration = Duration::from_secs(60);

/// A table's topic, and which of its partitions.
type Partition = (Table, i32);

/// The consumer's thread.
pub(crate) struct Consumer {
    thread: JoinHandle<Result<(), String>>,
    nothing_more: Arc<AtomicBool>,
}

impl Consumer {
    pub(crate) fn start(
        bootstrap: &str,
        registry: Registry,
        shared: Arc<Shared>,
    ) -> Result<Self, String> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            // The client insists on a group; assigning partitions by hand never joins it.
            .set("group.id", "waltide-demo")
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set("fetch.wait.max.ms", "20")
            .set("fetch.error.backoff.ms", "20")
            .create()
            .map_err(|error| format!("cannot make a Kafka consumer: {error}"))?;
        let nothing_more = Arc::new(AtomicBool::new(false));
        let mut reading = Reading {
            consumer,
            shared,
            schemas: Schemas::new(registry),
            next: HashMap::new(),
            new_column: None,
        };
        let flag = Arc::clone(&nothing_more);
        let thread = thread::Builder::new()
            .name("consumer".into())
            .spawn(move || reading.run(&flag))
            .map_err(|error| format!("no thread for the consumer: {error}"))?;
        Ok(Self { thread, nothing_more })
    }

    /// Whether it has given up.
    pub(crate) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Reads on to the end of every partition. Nothing more may be written.
    pub(crate) fn finish(self) -> Result<(), String> {
        self.nothing_more.store(true, Ordering::Release);
        self.thread.join().unwrap_or_else(|_| Err("the consumer died".to_owned()))
    }
}

struct Reading {
    consumer: BaseConsumer,
    shared: Arc<Shared>,
    schemas: Schemas,
    /// The next offset of each partition.
    next: HashMap<Partition, i64>,
    /// A column that has just come to a table, and how many records with it are to be shown.
    new_column: Option<(Table, String, u32)>,
}

impl Reading {
    fn run(&mut self, nothing_more: &AtomicBool) -> Result<(), String> {
        let mut looked = None;
        while !nothing_more.load(Ordering::Acquire) {
            if looked.is_none_or(|at: Instant| at.elapsed() >= DISCOVERY) && !self.knows_all() {
                self.discover()?;
                looked = Some(Instant::now());
            }
            self.poll()?;
        }
        self.discover()?;
        let ends = self.ends()?;
        let deadline = Instant::now() + READ_DEADLINE;
        while ends.iter().any(|(partition, end)| self.next[partition] < *end) {
            if Instant::now() >= deadline {
                return Err(format!("the topics were not read to their ends in {READ_DEADLINE:?}"));
            }
            self.poll()?;
        }
        Ok(())
    }

    fn knows_all(&self) -> bool {
        Table::ALL.iter().all(|table| self.next.keys().any(|(known, _)| known == table))
    }

    /// Begins to read topics that were not there before.
    fn discover(&mut self) -> Result<(), String> {
        let metadata = match self.consumer.fetch_metadata(None, ANSWER) {
            Ok(metadata) => metadata,
            Err(error) if is_transient(&error) => return Ok(()),
            Err(error) => return Err(format!("cannot list topics: {error}")),
        };
        let mut more = TopicPartitionList::new();
        for topic in metadata.topics() {
            let Some(table) = table_of(topic.name()) else { continue };
            for partition in topic.partitions() {
                let place = (table, partition.id());
                if self.next.contains_key(&place) {
                    continue;
                }
                self.next.insert(place, 0);
                more.add_partition_offset(topic.name(), partition.id(), Offset::Beginning)
                    .map_err(|error| format!("{}: {error}", topic.name()))?;
            }
            self.shared.live().topics[table as usize].partitions = topic.partitions().len();
        }
        if more.count() > 0 {
            let assigned = self.consumer.incremental_assign(&more);
            assigned.map_err(|error| format!("cannot read the topics: {error}"))?;
        }
        Ok(())
    }

    /// The offset behind the last record of each partition.
    fn ends(&self) -> Result<HashMap<Partition, i64>, String> {
        let mut ends = HashMap::new();
        for place in self.next.keys() {
            let (table, partition) = *place;
            let marks = self.consumer.fetch_watermarks(&table.topic(), partition, ANSWER);
            let (_, end) = marks.map_err(|error| format!("{}: {error}", table.topic()))?;
            ends.insert(*place, end);
        }
        Ok(ends)
    }

    fn poll(&mut self) -> Result<(), String> {
        match self.consumer.poll(Duration::from_millis(20)) {
            None => Ok(()),
            Some(Err(error)) if is_transient(&error) => Ok(()),
            Some(Err(error)) => Err(format!("cannot read: {error}")),
            Some(Ok(message)) => {
                let Some(table) = table_of(message.topic()) else { return Ok(()) };
                let (partition, offset) = (message.partition(), message.offset());
                let taken = take(&mut self.schemas, &self.shared, table, &message);
                drop(message);
                self.next.insert((table, partition), offset + 1);
                match taken {
                    Ok(None) => {}
                    Ok(Some(taken)) => self.show(table, taken),
                    Err(why) => self.shared.ledger().unreadable(table, &why),
                }
                Ok(())
            }
        }
    }

    /// Counts a record and, now and then, puts it before the person at the screen.
    fn show(&mut self, table: Table, taken: Taken) {
        let Taken { envelope, key, schema, columns } = taken;
        let mut live = self.shared.live();
        live.read += 1;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        live.delay(i64::try_from(now).unwrap_or(i64::MAX).saturating_sub(envelope.committed_at_us));
        let topic = &mut live.topics[table as usize];
        if let Some(columns) = columns {
            let former = std::mem::replace(&mut topic.columns, columns);
            let before = topic.schema.replace(schema);
            let new = topic.columns.iter().find(|column| !former.contains(column)).cloned();
            if let (Some(before), Some(column)) = (before, new) {
                let topic = table.topic();
                live.event(format!("{topic}-value: schema {before} -> {schema}, + {column}"));
                self.new_column = Some((table, column, 2));
            }
        }
        let has_new_column = match &mut self.new_column {
            Some((of, column, left)) if *of == table && *left > 0 => {
                let has = envelope.after.as_ref().is_some_and(|row| row.get(column).is_some());
                *left -= u32::from(has);
                has
            }
            _ => false,
        };
        if has_new_column || live.wants_sample(table) {
            let order = live.topics[table as usize].columns.clone();
            let text = described(table, &envelope, &order);
            live.sample(table, envelope.op, key, text);
        }
    }
}

/// A change, taken from its record and entered into the books.
struct Taken {
    envelope: Envelope,
    key: String,
    schema: u32,
    /// Where the schema is another than the topic's last.
    columns: Option<Vec<String>>,
}

/// Reads a record; none where it is a tombstone.
fn take(
    schemas: &mut Schemas,
    shared: &Shared,
    table: Table,
    message: &BorrowedMessage<'_>,
) -> Result<Option<Taken>, String> {
    let known = {
        let mut live = shared.live();
        let topic = &mut live.topics[table as usize];
        topic.records += 1;
        topic.schema
    };
    let partition = message.partition();
    let position = position(message).ok_or("it has no waltide.position")?;
    let (_, reader, datum) = schemas.reader(message.key().ok_or("it has no key")?)?;
    let key = table.key_of(&reader.key(datum)?).ok_or("its key lacks a column")?;
    let Some(bytes) = message.payload() else {
        shared.ledger().tombstone(table, partition, position);
        return Ok(None);
    };
    let (schema, reader, datum) = schemas.reader(bytes)?;
    let envelope = reader.envelope(datum)?;
    let row = match envelope.op {
        Op::Delete => envelope.before.as_ref().filter(|_| !envelope.before_is_key),
        _ => envelope.after.as_ref(),
    };
    // The envelope and the record's key must speak of the same row.
    let inside = envelope.after.as_ref().or(envelope.before.as_ref());
    if inside.and_then(|row| table.key_of(row)).as_deref() != Some(&key) {
        return Err(format!("its row is not that of its key {key}"));
    }
    // A delete is one version more than the row it took away.
    let more = u64::from(envelope.op == Op::Delete);
    shared.ledger().read(Read {
        table,
        key: key.clone(),
        op: envelope.op,
        version: row.and_then(Row::version).map(|version| version + more),
        digest: row.map(Row::digest),
        partition,
        position,
    });
    let columns = (known != Some(schema)).then(|| reader.columns.clone());
    Ok(Some(Taken { envelope, key, schema, columns }))
}

fn position(message: &BorrowedMessage<'_>) -> Option<Position> {
    let headers = message.headers()?;
    let header = headers.iter().find(|header| header.key == "waltide.position")?;
    Position::parse(str::from_utf8(header.value?).ok()?)
}

fn table_of(topic: &str) -> Option<Table> {
    Table::ALL.into_iter().find(|table| table.topic() == topic)
}

fn is_transient(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::BrokerTransportFailure
                | Code::AllBrokersDown
                | Code::OperationTimedOut
                | Code::NotLeaderForPartition
                | Code::LeaderNotAvailable
                | Code::UnknownTopicOrPartition
        )
    )
}

/// A change in a few words: what became different where that is known, else the row.
fn described(table: Table, envelope: &Envelope, order: &[String]) -> String {
    let Some(after) = &envelope.after else { return "and its tombstone".to_owned() };
    let shown =
        |column: &&String| column.as_str() != "version" && !table.key().contains(&column.as_str());
    let mut words = Vec::new();
    let before = envelope.before.as_ref().filter(|_| !envelope.before_is_key);
    for column in order.iter().filter(shown) {
        let Some(value) = after.get(column) else { continue };
        match before.map(|row| row.get(column)) {
            None => words.push(format!("{column}={}", readable(column, value))),
            Some(old) if old != Some(value) => {
                words.push(format!("{column}: {} -> {value}", old.unwrap_or("null")));
            }
            Some(_) => {}
        }
    }
    words.join(" ")
}

/// A time of day instead of microseconds since 1970.
fn readable(column: &str, value: &str) -> String {
    match value.parse::<i64>() {
        Ok(us) if column.ends_with("_at") => {
            let second = us.div_euclid(1_000_000).rem_euclid(86_400);
            format!("{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
        }
        _ => value.to_owned(),
    }
}
