//! A record of the waltide profile, read as any consumer would read it.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use waltide_stack::serde_json::{self, Map, Value};
use waltide_stack::{JsonRecord, Topic};

use super::Position;

/// A row as a consumer sees it: by the names of its fields.
pub(crate) type Row = Map<String, Value>;

/// What a record says happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Read,
    Create,
    Update,
    Delete,
    Truncate,
    Tombstone,
}

/// One record of a table's topic. What is not looked at is left out: a long run reads many.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) position: Position,
    pub(crate) op: Op,
    pub(crate) partition: i32,
    /// The key, in a form that can be compared; none where the table has none.
    pub(crate) key: Option<String>,
    /// The row as it was, if the record has one.
    pub(crate) before: Option<Row>,
    /// Whether only the key of `before` means anything.
    pub(crate) before_is_key: bool,
    /// The row as it is, if the record has one.
    pub(crate) after: Option<Row>,
    /// Columns whose value is as it was and not in the record.
    pub(crate) unchanged: Vec<String>,
    /// Values that Avro cannot hold, as text by their path.
    pub(crate) unrepresentable: Value,
    /// Stands for everything in the record: key, value, headers and time.
    pub(crate) digest: u64,
}

impl Change {
    #[track_caller]
    fn of(mut record: JsonRecord) -> Self {
        let op = match record.value["op"].as_str() {
            Some("r") => Op::Read,
            Some("c") => Op::Create,
            Some("u") => Op::Update,
            Some("d") => Op::Delete,
            Some("t") => Op::Truncate,
            None if record.value.is_null() => Op::Tombstone,
            other => panic!("a record with op {other:?}"),
        };
        let mut digest = DefaultHasher::new();
        (record.key.to_string(), record.value.to_string()).hash(&mut digest);
        (&record.headers, record.timestamp_ms).hash(&mut digest);
        let row = |value: Value| if let Value::Object(row) = value { Some(row) } else { None };
        let mut take = |field: &str| record.value.get_mut(field).map(Value::take);
        let unchanged = take("unchanged").and_then(|list| serde_json::from_value(list).ok());
        Self {
            before: take("before").and_then(row),
            before_is_key: take("before_is_key") == Some(true.into()),
            after: take("after").and_then(row),
            unchanged: unchanged.unwrap_or_default(),
            unrepresentable: take("unrepresentable").unwrap_or_default(),
            position: Position::of(&record),
            op,
            partition: record.partition,
            key: (!record.key.is_null()).then(|| record.key.to_string()),
            digest: digest.finish(),
        }
    }
}

/// All records of a topic, by partition and offset.
#[track_caller]
pub(crate) fn changes(topic: &Topic) -> Vec<Change> {
    topic.read_json().into_iter().map(Change::of).collect()
}

/// The same records by partition.
pub(crate) fn by_partition(changes: &[Change]) -> BTreeMap<i32, Vec<&Change>> {
    let mut partitions: BTreeMap<i32, Vec<&Change>> = BTreeMap::new();
    for change in changes {
        partitions.entry(change.partition).or_default().push(change);
    }
    partitions
}
