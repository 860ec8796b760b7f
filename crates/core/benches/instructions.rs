//! The work whose instructions `scripts/instructions.sh` counts: `STAGE ROWS`, and nothing else.
//!
//! The rows are recorded: ten columns in binary, some 220 bytes (`tests/corpus/record.py`, `ten`).
//! What a run costs beside its rows is the same for any number of them, so the difference of two
//! runs is that of their rows.
#![expect(clippy::expect_used, clippy::panic, reason = "who asks for what is not there is told")]

mod ten_columns;

use std::hint::black_box;

use ten_columns::{TenColumns, meta};
use waltide_core::avro::{Envelope, Notes, Profile, Record, Written};

fn main() {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let [stage, rows] = arguments.as_slice() else {
        // `cargo bench` without arguments comes here as well.
        return;
    };
    let rows = rows.parse().expect("a number of rows");
    let done = match stage.as_str() {
        "decode" => decode(rows),
        "waltide" => encode(rows, Profile::Waltide),
        "debezium" => encode(rows, Profile::Debezium),
        other => panic!("there is no stage {other}"),
    };
    assert_eq!(done, rows);
}

fn decode(rows: usize) -> usize {
    let recorded = TenColumns::load();
    let payloads = recorded.payloads.iter().cycle().take(rows);
    payloads.filter(|payload| ten_columns::decode(black_box(payload)).is_some()).count()
}

/// Key and value of a create.
fn encode(rows: usize, profile: Profile) -> usize {
    let recorded = TenColumns::load();
    let plan = recorded.plan(profile, Envelope::Full);
    let tuples: Vec<_> =
        recorded.payloads.iter().filter_map(|payload| ten_columns::decode(payload)).collect();
    let (meta, mut notes, mut key, mut value) = (meta(), Notes::new(), Vec::new(), Vec::new());
    let mut encode = |new| {
        let record = Record::Create { old: None, new: black_box(new) };
        key.clear();
        value.clear();
        plan.encode_key(&record, &mut notes, &mut key) == Ok(true)
            && plan.encode(&record, &meta, &mut notes, &mut value) == Ok(Written::Value)
    };
    tuples.iter().cycle().take(rows).filter(|new| encode(**new)).count()
}
