//! `waltide verify` names what differs, says so where all is equal, and claims nothing that it
//! cannot prove.
//!
//! `WALTIDE_VERIFY_ROUNDS` says how often a table is verified that writers change meanwhile.

mod answers;
mod forms;
mod limits;
mod repair;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use waltide_stack::serde_json::{self, Value, json};
use waltide_stack::{Database, Record, Stack, Topic, Version};

use crate::cli::waltide;
use crate::support::{Pipeline, SOON};

/// What `waltide verify` came to.
struct Verified {
    status: Option<i32>,
    /// What it said for programs; null where it came to nothing.
    json: Value,
    everything: String,
}

/// Verifies a table.
#[track_caller]
fn verify(pipeline: &Pipeline<'_>, table: &str, more: &[&str]) -> Verified {
    let file = pipeline.file();
    let path = file.path().to_str().expect("UTF-8");
    let arguments = ["verify", "--table", table, "--json", "--config", path];
    let ended = waltide(&[&arguments, more].concat());
    let json = ended.out.lines().next().and_then(|line| serde_json::from_str(line).ok());
    Verified { status: ended.status, json: json.unwrap_or_default(), everything: ended.everything }
}

impl Verified {
    #[track_caller]
    fn is_equal(&self, rows: u64) -> &Self {
        assert_eq!(self.status, Some(0), "{}", self.everything);
        assert_eq!(self.json["result"], "equal", "{}", self.everything);
        assert_eq!(self.json["rows"], rows, "{}", self.everything);
        assert_eq!(self.json["equal"], rows, "{}", self.everything);
        self
    }

    /// Exactly these keys are named, each with its kind and columns.
    #[track_caller]
    fn names(&self, code: &str, expected: Value) -> &Self {
        assert_eq!(self.status, Some(1), "{}", self.everything);
        assert!(self.everything.contains(&format!("error: {code} ")), "{}", self.everything);
        assert_eq!(self.json["named"], expected, "{}", self.everything);
        self
    }

    /// It failed with this code and these words.
    #[track_caller]
    fn fails(&self, code: &str, words: &[&str]) {
        assert_eq!(self.status, Some(1), "{}", self.everything);
        assert!(self.everything.contains(&format!("error: {code} ")), "{}", self.everything);
        for word in words {
            assert!(self.everything.contains(word), "{word} in: {}", self.everything);
        }
        assert_eq!(self.json, Value::Null, "{}", self.everything);
    }
}

/// Somebody else who writes to a topic, in the partitions in which the daemon has the keys.
struct Intruder {
    topic: Topic,
    producer: BaseProducer,
}

impl Intruder {
    fn of(pipeline: &Pipeline<'_>, table: &str) -> Self {
        let brokers = Stack::shared().kafka().bootstrap();
        let producer = ClientConfig::new().set("bootstrap.servers", brokers).create();
        Self { topic: pipeline.topic(table), producer: producer.expect("a producer") }
    }

    /// The records of a key, of which this is part of the JSON, tombstones included.
    #[track_caller]
    fn records(&self, key: &Value) -> Vec<Record> {
        let read = self.topic.read_json();
        let of_key = |record: &&waltide_stack::JsonRecord| record.key == *key;
        let places: Vec<_> =
            read.iter().filter(of_key).map(|one| (one.partition, one.offset)).collect();
        let records = self.topic.read().into_iter();
        let records: Vec<_> =
            records.filter(|one| places.contains(&(one.partition, one.offset))).collect();
        assert!(!records.is_empty(), "no record of {key} in {read:?}");
        records
    }

    /// Writes a value of a key's once more, or that the key is gone.
    #[track_caller]
    fn writes(&self, like: &Record, value: Option<&[u8]>) {
        let key = like.key.clone().expect("a key");
        let record = BaseRecord::<[u8], [u8]>::to(self.topic.name());
        let record = record.partition(like.partition).key(&key);
        let record = match value {
            Some(value) => record.payload(value),
            None => record,
        };
        self.producer.send(record).map_err(|(error, _)| error).expect("room");
        self.producer.flush(SOON).expect("it is written");
    }

    /// The first record of a key comes last again.
    #[track_caller]
    fn repeats_the_first(&self, key: &Value) {
        let first = &self.records(key)[0];
        self.writes(first, first.value.as_deref());
    }

    /// A key is gone.
    #[track_caller]
    fn buries(&self, key: &Value) {
        self.writes(&self.records(key)[0], None);
    }
}

const ORDERS: &str = "CREATE TABLE orders (id int PRIMARY KEY, item text)";

fn shop(test: &str) -> Database {
    let shop = Stack::shared().database(Version::NEWEST, test);
    shop.execute(ORDERS);
    shop
}
