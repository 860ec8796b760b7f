//! Encoding a row allocates nothing once its buffers have grown.

#[path = "avro_fixture/recorded.rs"]
mod recorded;

mod avro_fixture;

use std::hint::black_box;

use avro_fixture::{meta, options, relation, table};
use waltide_core::avro::{Envelope, Notes, Options, Plan, Profile, Record};
use waltide_core::catalog;
use waltide_core::change::Row;
use waltide_core::pgoutput::encode::TupleBuf;
use waltide_core::pgoutput::{Field, OldTuple, ReplicaIdentity};

/// Allocations that `work` makes on this thread.
fn allocations(work: impl FnOnce()) -> u64 {
    allocation_counter::measure(work).count_total
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(black_box(Box::new(1)))), 1);
}

#[test]
fn no_type_in_no_form_takes_an_allocation() {
    let (types, values) = recorded::load();
    let (mut notes, mut key, mut out) = (Notes::new(), Vec::new(), Vec::new());
    for profile in [Profile::Waltide, Profile::Debezium] {
        for envelope in [Envelope::Full, Envelope::Flat] {
            let options = Options { profile, envelope, ..options() };
            for value in &values {
                let columns = [("id", 23, -1, true), ("v", value.oid, value.modifier, false)];
                let relation = relation("public", "t", ReplicaIdentity::Full, &columns);
                let plan = Plan::compile(&relation, &table(&relation), &types, &options).unwrap();
                let id = Field::Text(b"1");
                let text = TupleBuf::new([id, Field::Text(value.text.as_bytes())]);
                let binary = value.binary.as_deref().map_or(Field::Null, Field::Binary);
                let binary = TupleBuf::new([id, binary]);
                let unchanged = TupleBuf::new([id, Field::Unchanged]);
                let rows = [
                    Row::Insert(text.tuple()),
                    Row::Insert(binary.tuple()),
                    Row::Update { old: None, new: unchanged.tuple() },
                    Row::Update { old: Some(OldTuple::Full(text.tuple())), new: unchanged.tuple() },
                    Row::Delete(OldTuple::Key(unchanged.tuple())),
                ];
                let mut encode = || {
                    for row in &rows {
                        for (_, record) in plan.records(row).unwrap() {
                            encode_all(&plan, &record, &mut notes, &mut key, &mut out);
                        }
                    }
                };
                encode();
                assert_eq!(
                    allocations(encode),
                    0,
                    "{profile:?} {} {}",
                    value.type_name,
                    value.text
                );
            }
        }
    }
}

fn encode_all(
    plan: &Plan,
    record: &Record<'_>,
    notes: &mut Notes,
    key: &mut Vec<u8>,
    out: &mut Vec<u8>,
) {
    key.clear();
    out.clear();
    assert!(plan.encode_key(record, notes, key).is_ok());
    assert!(plan.encode(record, &meta(), notes, out).is_ok());
    black_box((key, out));
}
