//! Where transactions begin and end, as records of their own.
//!
//! A consumer that wants a transaction whole counts its changes, which come on the topics of many
//! tables, until there are as many as the transaction's end says.

use std::collections::BTreeMap;
use std::convert::Infallible;

use crate::avro::envelope::text;
use crate::avro::{Order, Profile, wire};
use crate::change::Transaction;
use crate::value::time::EPOCH_US;

/// The waltide profile's schema. Its records have no key: the topic has one partition, and
/// nothing in it replaces what was before.
pub const SCHEMA: &str = include_str!("../../../schemas/transaction.avsc");

/// The debezium profile's key.
const DEBEZIUM_KEY: &str = r#"{"type":"record","name":"TransactionMetadataKey","namespace":"io.debezium.connector.common","fields":[{"name":"id","type":"string"}],"connect.version":1,"connect.name":"io.debezium.connector.common.TransactionMetadataKey"}"#;

/// The debezium profile's value.
const DEBEZIUM_VALUE: &str = r#"{"type":"record","name":"TransactionMetadataValue","namespace":"io.debezium.connector.common","fields":[{"name":"status","type":"string"},{"name":"id","type":"string"},{"name":"event_count","type":["null","long"],"default":null},{"name":"data_collections","type":["null",{"type":"array","items":["null",{"type":"record","name":"collection","namespace":"event","fields":[{"name":"data_collection","type":"string"},{"name":"event_count","type":"long"}],"connect.version":1,"connect.name":"event.collection"}]}],"default":null},{"name":"ts_ms","type":"long"}],"connect.version":1,"connect.name":"io.debezium.connector.common.TransactionMetadataValue"}"#;

/// The schemas of key and value, as they are registered.
#[must_use]
pub const fn schemas(profile: Profile) -> (Option<&'static str>, &'static str) {
    match profile {
        Profile::Waltide => (None, SCHEMA),
        Profile::Debezium => (Some(DEBEZIUM_KEY), DEBEZIUM_VALUE),
    }
}

/// The changes that the open transaction has published so far, by schema and table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Events {
    total: u64,
    tables: BTreeMap<String, BTreeMap<String, u64>>,
}

impl Events {
    /// Counts a change, and says which it is. Allocates for a table's first change only.
    pub fn count(&mut self, schema: &str, table: &str) -> Order {
        self.total += 1;
        if !self.tables.contains_key(schema) {
            self.tables.insert(schema.to_owned(), BTreeMap::new());
        }
        let mut in_table = 1;
        if let Some(tables) = self.tables.get_mut(schema) {
            match tables.get_mut(table) {
                Some(count) => {
                    *count += 1;
                    in_table = *count;
                }
                None => {
                    tables.insert(table.to_owned(), 1);
                }
            }
        }
        Order { total: self.total, in_table }
    }

    /// Counts a message among the changes, as Debezium does. It is of no table, and comes first of
    /// what it is of.
    pub fn count_message(&mut self) -> Order {
        self.total += 1;
        Order { total: self.total, in_table: 1 }
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// Each table with its changes, ordered by name: the same whenever it is repeated.
    fn by_table(&self) -> impl Iterator<Item = (&str, &str, u64)> {
        self.tables.iter().flat_map(|(schema, tables)| {
            tables.iter().map(move |(table, count)| (schema.as_str(), table.as_str(), *count))
        })
    }
}

/// Which end of a transaction.
#[derive(Clone, Copy, Debug)]
pub enum Bound<'a> {
    /// Its changes follow.
    Begin,
    /// These were its changes.
    End(&'a Events),
}

/// Appends the debezium profile's key.
pub fn write_key(transaction: &Transaction, out: &mut Vec<u8>) {
    text(out, |out| transaction.write_id(out));
}

/// Appends the value.
pub fn write(profile: Profile, transaction: &Transaction, bound: Bound<'_>, out: &mut Vec<u8>) {
    let status: &[u8] = match bound {
        Bound::Begin => b"BEGIN",
        Bound::End(_) => b"END",
    };
    wire::bytes(out, status);
    text(out, |out| transaction.write_id(out));
    let commit_us = transaction.commit_time.0.saturating_add(EPOCH_US);
    match profile {
        Profile::Waltide => {
            wire::long(out, transaction.commit_lsn.0.0.cast_signed());
            wire::long(out, transaction.xid.0.into());
            wire::long(out, commit_us);
            write_counts(bound, out, |out, schema, table| {
                wire::bytes(out, schema.as_bytes());
                wire::bytes(out, table.as_bytes());
            });
        }
        Profile::Debezium => {
            write_counts(bound, out, |out, schema, table| {
                // An item may be null there.
                out.push(2);
                wire::size(out, schema.len() + 1 + table.len());
                out.extend_from_slice(schema.as_bytes());
                out.push(b'.');
                out.extend_from_slice(table.as_bytes());
            });
            wire::long(out, commit_us.div_euclid(1000));
        }
    }
}

/// Appends the number of changes, and that of each table; null and null at the beginning.
fn write_counts(
    bound: Bound<'_>,
    out: &mut Vec<u8>,
    write_name: impl Fn(&mut Vec<u8>, &str, &str),
) {
    let Bound::End(events) = bound else {
        out.extend_from_slice(&[0, 0]);
        return;
    };
    out.push(2);
    wire::long(out, events.total.cast_signed());
    out.push(2);
    let _ = wire::block(out, |out| {
        let mut tables = 0;
        for (schema, table, count) in events.by_table() {
            write_name(out, schema, table);
            wire::long(out, count.cast_signed());
            tables += 1;
        }
        Ok::<_, Infallible>(tables)
    });
}

#[cfg(test)]
mod tests {
    use apache_avro::Schema;
    use apache_avro::from_value;
    use apache_avro::reader::datum::GenericDatumReader;
    use serde_json::{Value, json};

    use super::*;
    use crate::lsn::{CommitLsn, Lsn};
    use crate::pgoutput::{PgTimestamp, Xid};

    const EXAMPLE: &str = include_str!("../../../schemas/transaction.example.json");

    const SALE: Transaction = Transaction {
        commit_lsn: CommitLsn(Lsn(97_500_059_720)),
        commit_time: PgTimestamp(1_767_225_600_123_456 - EPOCH_US),
        xid: Xid(756),
    };

    fn sold() -> Events {
        let mut events = Events::default();
        let orders = ["orders", "lines", "lines"].map(|table| events.count("public", table));
        let expected = [(1, 1), (2, 1), (3, 2)];
        assert_eq!(orders.map(|order| (order.total, order.in_table)), expected);
        let mut with_message = events.clone();
        let Order { total, in_table } = with_message.count_message();
        assert_eq!((total, in_table), (4, 1));
        assert!(with_message.by_table().eq(events.by_table()));
        events
    }

    /// What an independent reader finds in our bytes.
    fn read(schema: &str, mut bytes: &[u8]) -> Value {
        let schema = Schema::parse_str(schema).unwrap();
        let reader = GenericDatumReader::builder(&schema).build().unwrap();
        let value = reader.read_value(&mut bytes).unwrap();
        assert!(bytes.is_empty());
        from_value(&value).unwrap()
    }

    fn value(profile: Profile, bound: Bound<'_>) -> Value {
        let mut bytes = Vec::new();
        write(profile, &SALE, bound, &mut bytes);
        read(schemas(profile).1, &bytes)
    }

    #[test]
    fn the_example_is_what_a_reader_of_the_schema_finds() {
        let example: Value = serde_json::from_str(EXAMPLE).unwrap();
        assert_eq!(value(Profile::Waltide, Bound::End(&sold())), example);
        let mut begin = example;
        begin["status"] = json!("BEGIN");
        begin["event_count"] = Value::Null;
        begin["tables"] = Value::Null;
        assert_eq!(value(Profile::Waltide, Bound::Begin), begin);
    }

    #[test]
    fn debeziums_reader_finds_its_own_record() {
        let id = "756:97500059720";
        let none = Value::Null;
        let begin = json!({
            "status": "BEGIN", "id": id, "event_count": none, "data_collections": none,
            "ts_ms": 1_767_225_600_123_u64,
        });
        assert_eq!(value(Profile::Debezium, Bound::Begin), begin);
        let end = json!({
            "status": "END", "id": id, "event_count": 3,
            "data_collections": [
                {"data_collection": "public.lines", "event_count": 2},
                {"data_collection": "public.orders", "event_count": 1},
            ],
            "ts_ms": 1_767_225_600_123_u64,
        });
        assert_eq!(value(Profile::Debezium, Bound::End(&sold())), end);
        let mut key = Vec::new();
        write_key(&SALE, &mut key);
        assert_eq!(read(DEBEZIUM_KEY, &key), json!({ "id": id }));
    }
}
