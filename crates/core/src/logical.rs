//! What `pg_logical_emit_message` writes into the log, as records.

use crate::avro::debezium::{source, transaction, versioned};
use crate::avro::envelope::{optional, text, write_transaction};
use crate::avro::json::Json;
use crate::avro::plan::Source;
use crate::avro::waltide::{field, optional as nullable};
use crate::avro::{Options, Profile, RecordMeta, wire};
use crate::pgoutput::LogicalMessage;
use crate::value::time::EPOCH_US;

/// The waltide profile's schema. Its records have no key: the topic has one partition, and
/// nothing in it replaces what was before.
pub const SCHEMA: &str = include_str!("../../../schemas/message.avsc");

/// The package of Debezium's connector.
const DEBEZIUM: &str = "io.debezium.connector.postgresql";

/// The form of a pipeline's messages.
#[derive(Debug)]
pub struct Form {
    profile: Profile,
    source: Source,
}

impl Form {
    /// The form that a pipeline's configuration asks for.
    #[must_use]
    pub fn new(options: &Options) -> Self {
        // A message is of no table; Debezium says so with empty names.
        Self { profile: options.profile, source: Source::new(options, "", "") }
    }

    /// The schemas of key and value, as they are registered.
    #[must_use]
    pub fn schemas(&self) -> (Option<String>, String) {
        match self.profile {
            Profile::Waltide => (None, SCHEMA.to_owned()),
            Profile::Debezium => (Some(debezium_key().to_string()), debezium_value().to_string()),
        }
    }

    /// Appends the debezium profile's key.
    pub fn write_key(&self, message: &LogicalMessage<'_>, out: &mut Vec<u8>) {
        out.push(2);
        wire::bytes(out, message.prefix.as_bytes());
    }

    /// Appends the value.
    pub fn write(&self, message: &LogicalMessage<'_>, meta: &RecordMeta<'_>, out: &mut Vec<u8>) {
        match self.profile {
            Profile::Waltide => write_waltide(message, meta, out),
            Profile::Debezium => {
                wire::bytes(out, b"m");
                out.push(2);
                wire::long(out, meta.now.0.saturating_add(EPOCH_US).div_euclid(1000));
                self.source.write_debezium(meta, out);
                write_transaction(meta, out);
                out.push(2);
                wire::bytes(out, message.prefix.as_bytes());
                out.push(2);
                wire::bytes(out, message.content);
            }
        }
    }
}

fn write_waltide(message: &LogicalMessage<'_>, meta: &RecordMeta<'_>, out: &mut Vec<u8>) {
    wire::bytes(out, message.prefix.as_bytes());
    wire::bytes(out, message.content);
    wire::boolean(out, message.transactional);
    wire::long(out, message.lsn.0.cast_signed());
    let transaction = meta.transaction;
    optional(out, transaction, |out, it| text(out, |out| it.write_id(out)));
    optional(out, transaction, |out, it| wire::long(out, it.commit_lsn.0.0.cast_signed()));
    optional(out, transaction, |out, it| wire::long(out, it.xid.0.into()));
    optional(out, transaction, |out, it| {
        wire::long(out, it.commit_time.0.saturating_add(EPOCH_US));
    });
}

fn debezium_key() -> Json {
    versioned("MessageKey", DEBEZIUM, vec![nullable("prefix", Json::str("string"))], 1)
}

fn debezium_value() -> Json {
    let said =
        vec![nullable("prefix", Json::str("string")), nullable("content", Json::str("bytes"))];
    let fields = vec![
        field("op", Json::str("string")),
        nullable("ts_ms", Json::str("long")),
        field("source", source()),
        nullable("transaction", transaction()),
        field("message", versioned("Message", DEBEZIUM, said, 1)),
    ];
    versioned("MessageValue", DEBEZIUM, fields, 1)
}

#[cfg(test)]
mod tests {
    use apache_avro::Schema;
    use apache_avro::reader::datum::GenericDatumReader;
    use serde_json::{Value, json};

    use super::*;
    use crate::avro::Snapshot;
    use crate::change::{Position, Transaction};
    use crate::lsn::{CommitLsn, Lsn};
    use crate::pgoutput::{PgTimestamp, Xid};

    const EXAMPLE: &str = include_str!("../../../schemas/message.example.json");
    const NOON: PgTimestamp = PgTimestamp(1_767_225_600_123_456 - EPOCH_US);
    const COMMIT: CommitLsn = CommitLsn(Lsn(97_500_059_720));

    /// What an independent reader finds in our bytes.
    fn read(schema: &str, mut bytes: &[u8]) -> Value {
        let schema = Schema::parse_str(schema).unwrap();
        let reader = GenericDatumReader::builder(&schema).build().unwrap();
        let value = reader.read_value(&mut bytes).unwrap();
        assert!(bytes.is_empty());
        value.try_into().unwrap()
    }

    fn value(profile: Profile, transactional: bool) -> Value {
        let lsn = Lsn(97_500_059_656);
        let content = b"closed";
        let message = LogicalMessage { transactional, lsn, prefix: "shop", content };
        let transaction = Transaction { commit_lsn: COMMIT, commit_time: NOON, xid: Xid(756) };
        let meta = RecordMeta {
            transaction: transactional.then_some(transaction),
            position: Position { commit_lsn: COMMIT, ordinal: 0, sub_index: 0 },
            lsn,
            snapshot: Snapshot::No,
            now: NOON,
            order: None,
            last_commit: None,
            origin: None,
        };
        let (prefix, database) = ("shop".to_owned(), "sales".to_owned());
        let form = Form::new(&Options { profile, prefix, database, ..Options::default() });
        let (mut key, mut value) = (Vec::new(), Vec::new());
        let (key_schema, value_schema) = form.schemas();
        if let Some(schema) = key_schema {
            form.write_key(&message, &mut key);
            assert_eq!(read(&schema, &key), json!({"prefix": "shop"}));
        }
        form.write(&message, &meta, &mut value);
        read(&value_schema, &value)
    }

    #[test]
    fn the_example_is_what_a_reader_of_the_schema_finds() {
        let example: Value = serde_json::from_str(EXAMPLE).unwrap();
        assert_eq!(value(Profile::Waltide, true), example);
        let mut alone = example;
        alone["transactional"] = json!(false);
        for name in ["transaction", "commit_lsn", "xid", "commit_us"] {
            alone[name] = Value::Null;
        }
        assert_eq!(value(Profile::Waltide, false), alone);
    }

    #[test]
    fn debeziums_reader_finds_its_own_record() {
        for (transactional, xid) in [(true, json!(756)), (false, Value::Null)] {
            let found = value(Profile::Debezium, transactional);
            assert_eq!(found["op"], "m");
            assert_eq!(found["ts_ms"], 1_767_225_600_123_u64);
            assert_eq!(found["message"], json!({"prefix": "shop", "content": b"closed"}));
            let source = &found["source"];
            assert_eq!((&source["schema"], &source["table"]), (&json!(""), &json!("")));
            assert_eq!((&source["db"], &source["txId"]), (&json!("sales"), &xid));
            assert_eq!(source["lsn"], 97_500_059_656_u64);
        }
    }
}
