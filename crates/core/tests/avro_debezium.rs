//! The debezium profile against what Debezium itself registered and published for the same
//! tables and rows.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "it is only for tests")]

#[path = "avro_fixture/reader.rs"]
mod reader;
#[path = "avro_fixture/recorded.rs"]
mod recorded;
#[path = "avro_fixture/stream.rs"]
mod stream;

mod avro_fixture;

use avro_fixture::{decode, meta, options};
use serde_json::{Value, json};
use stream::Event;
use waltide_core::avro::{
    Notes, Options, Plan, Profile, Record, RecordMeta, Snapshot, Written, names,
};
use waltide_core::catalog;
use waltide_core::change::Transaction;
use waltide_core::pgoutput::Field;
use waltide_core::pgoutput::encode::TupleBuf;

fn debezium() -> Options {
    Options {
        profile: Profile::Debezium,
        prefix: "dbserver1".to_owned(),
        database: "golden".to_owned(),
        ..options()
    }
}

fn golden(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn every_schema_is_the_one_that_debezium_registers() {
    let schemas = golden(include_str!("../../../tests/golden/golden-schemas.json"));
    let stream = stream::load();
    let mut seen = 0;
    stream::play(&stream, &stream.binary, &debezium(), |event| {
        let Event::Plan(relation, plan) = event else { return };
        let topic = names::debezium_topic("dbserver1", &relation.schema, &relation.name);
        let of = &schemas[&topic];
        assert_eq!(plan.value_schema(), of["value"][0].to_string(), "{topic}");
        let key = of.get("key").map(|key| key[0].to_string());
        assert_eq!(plan.key_schema(), key.as_deref(), "{topic}");
        seen += 1;
    });
    assert!(seen >= schemas.as_object().unwrap().len(), "{seen} of the tables were streamed");
}

/// A record as the golden events have it.
fn event(plan: &Plan, key: &[u8], value: Option<&[u8]>) -> Value {
    let of = |schema: &str, body: &[u8]| {
        decode(schema, body);
        reader::read(schema, body)
    };
    json!({
        "topic": plan.namespace(),
        "key": plan.key_schema().map(|schema| of(schema, key)),
        "value": value.map(|value| of(plan.value_schema(), value)),
    })
}

fn encode(
    plan: &Plan,
    transaction: Transaction,
    record: &Record<'_>,
) -> (Vec<u8>, Option<Vec<u8>>) {
    let meta = RecordMeta { transaction: Some(transaction), ..meta() };
    let (mut notes, mut key, mut value) = (Notes::new(), Vec::new(), Vec::new());
    plan.encode_key(record, &mut notes, &mut key).unwrap();
    let written = plan.encode(record, &meta, &mut notes, &mut value).unwrap();
    (key, (written == Written::Value).then_some(value))
}

/// What our records of the recorded stream say.
fn published(messages: &[Vec<u8>], stream: &stream::Stream) -> Vec<Value> {
    let mut events = Vec::new();
    stream::play(stream, messages, &debezium(), |happened| match happened {
        Event::Plan(..) => {}
        Event::Row(plan, transaction, row) => {
            let records: Vec<_> = plan.records(&row).unwrap().map(|(_, record)| record).collect();
            for record in &records {
                let (key, value) = encode(plan, transaction, record);
                let mut event = event(plan, &key, value.as_deref());
                if let Some((name, other)) = plan.key_header(&row, record) {
                    let mut text = Vec::new();
                    plan.write_key_text(&other, &mut Notes::new(), &mut text).unwrap();
                    event["headers"] = json!({ name: String::from_utf8(text).unwrap() });
                }
                events.push(event);
            }
        }
        Event::Truncate(plan, transaction) => {
            let meta = RecordMeta { transaction: Some(transaction), ..meta() };
            let mut value = Vec::new();
            plan.encode_truncate(&meta, &mut Notes::new(), &mut value);
            events.push(event(plan, &[], Some(&value)));
        }
    });
    events
}

/// Leaves out of ours what the golden event does not have: it is volatile.
fn only_as_golden(ours: &mut Value, golden: &Value) {
    if let (Value::Object(ours), Value::Object(golden)) = (ours, golden) {
        ours.retain(|name, _| golden.contains_key(name));
        for (name, value) in ours {
            only_as_golden(value, &golden[name]);
        }
    }
}

#[test]
fn every_record_is_the_one_that_debezium_publishes() {
    let stream = stream::load();
    for messages in [&stream.binary, &stream.text] {
        let mut expected = golden(include_str!("../../../tests/golden/golden-events.json"));
        let expected = expected.as_array_mut().unwrap();
        // The first one is of Debezium's snapshot.
        assert_eq!(expected.remove(0)["value"]["op"], "r");
        let events = published(messages, &stream);
        assert_eq!(events.len(), expected.len());
        for (mut ours, golden) in events.into_iter().zip(expected) {
            let topic = golden["topic"].as_str().unwrap().to_owned();
            assert_eq!(ours["topic"], topic.replace('-', "_"));
            ours["topic"] = golden["topic"].clone();
            assert_eq!(ours.get("headers"), golden.get("headers"), "{topic}");
            if golden["value"] == "TRUNCATED" {
                assert_eq!(ours["value"]["op"], "c");
                assert_eq!(ours["value"]["after"]["big"].as_str().unwrap().len(), 16_000);
                continue;
            }
            if topic == "dbserver1.public.defaults" {
                let after = &mut golden["value"]["after"];
                if after["id"] == 2 {
                    // Debezium writes a default where the row says NULL. A null stays null here.
                    assert_eq!((&after["n"], &after["s"]), (&json!(7), &json!("hey")));
                    (after["n"], after["s"], after["flag"]) =
                        (Value::Null, Value::Null, Value::Null);
                }
                // Its value is the time of the recording; its form is not.
                let at = ours["value"]["after"]["at"].as_str().unwrap().to_owned();
                assert_eq!(at.len(), after["at"].as_str().unwrap().len());
                after["at"] = json!(at);
            }
            only_as_golden(&mut ours, golden);
            assert_eq!(&ours, golden, "{topic}");
        }
    }
}

#[test]
fn a_row_of_a_snapshot_says_so() {
    let stream = stream::load();
    let mut read = None;
    stream::play(&stream, &stream.binary, &debezium(), |event| {
        let Event::Plan(relation, plan) = event else { return };
        if relation.name != "scalars" || read.is_some() {
            return;
        }
        let nulls = relation.columns.iter().skip(1).map(|_| Field::Null);
        let row = TupleBuf::new(std::iter::once(Field::Text(b"1000")).chain(nulls));
        let meta = RecordMeta { transaction: None, snapshot: Snapshot::Last, ..meta() };
        let mut value = Vec::new();
        let record = Record::Read(row.tuple());
        plan.encode(&record, &meta, &mut Notes::new(), &mut value).unwrap();
        read = Some(reader::read(plan.value_schema(), &value));
    });
    let mut read = read.unwrap();
    let events = golden(include_str!("../../../tests/golden/golden-events.json"));
    let golden = &events[0]["value"];
    only_as_golden(&mut read, golden);
    assert_eq!(&read, golden);
}
