//! What a row costs from its fields to an Avro body. One iteration is one row.
//!
//! The rows are recorded: ten columns in binary, some 220 bytes (`tests/corpus/record.py`, `ten`).

#[path = "../tests/corpus/mod.rs"]
mod corpus;

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use waltide_core::avro::{
    Envelope, Notes, Options, Plan, Profile, Record, RecordMeta, Snapshot, Written,
};
use waltide_core::catalog::{Table, Types};
use waltide_core::change::{Position, Transaction};
use waltide_core::lsn::{CommitLsn, Lsn};
use waltide_core::pgoutput::{Decoder, Frame, Message, OldTuple, PgTimestamp, Relation, Xid};

fn meta() -> RecordMeta<'static> {
    let commit_lsn = CommitLsn(Lsn(0x16_B374_D848));
    RecordMeta {
        transaction: Some(Transaction {
            commit_lsn,
            commit_time: PgTimestamp(842_054_400_123_456),
            xid: Xid(4_000_000),
        }),
        position: Position { commit_lsn, ordinal: 7, sub_index: 0 },
        lsn: Lsn(0x16_B374_D000),
        snapshot: Snapshot::No,
        now: PgTimestamp(842_054_400_200_000),
        order: None,
        last_commit: None,
        origin: None,
    }
}

fn ten_columns(criterion: &mut Criterion) {
    let recordings = corpus::recordings();
    let Some(recording) = recordings.iter().find(|recording| recording.name == "18/ten") else {
        return;
    };
    let payloads = recording.payloads();
    let mut decoder = Decoder::new();
    let (mut relation, mut rows) = (None, Vec::new());
    for payload in &payloads {
        let Ok(Frame::XLogData { body, .. }) = Frame::decode(payload) else { continue };
        match decoder.decode(body) {
            Ok(Message::Relation(_, body)) => relation = Some(Relation::from(&body)),
            Ok(Message::Insert(_, _, new)) => rows.push(new),
            _ => {}
        }
    }
    let Some(relation) = relation else { return };
    let mut group = criterion.benchmark_group("ten columns");
    group.throughput(Throughput::Elements(1));
    for (name, profile, envelope) in [
        ("waltide full", Profile::Waltide, Envelope::Full),
        ("waltide flat", Profile::Waltide, Envelope::Flat),
        ("debezium full", Profile::Debezium, Envelope::Full),
    ] {
        let options =
            Options { profile, envelope, prefix: "shop".to_owned(), ..Options::default() };
        let table = Table { primary_key: vec!["id".to_owned()], ..Table::default() };
        let Ok(plan) = Plan::compile(&relation, &table, &Types::default(), &options) else {
            return;
        };
        let (meta, mut notes, mut out) = (meta(), Notes::new(), Vec::new());
        let mut next = rows.iter().cycle();
        group.bench_function(BenchmarkId::new("insert", name), |bencher| {
            bencher.iter(|| {
                let record = Record::Create { old: None, new: *black_box(next.next()?) };
                out.clear();
                let written = plan.encode(&record, &meta, &mut notes, &mut out);
                (written == Ok(Written::Value)).then_some(out.len())
            });
        });
        group.bench_function(BenchmarkId::new("update with the old row", name), |bencher| {
            bencher.iter(|| {
                let row = *black_box(next.next()?);
                let record = Record::Update { old: Some(OldTuple::Full(row)), new: row };
                out.clear();
                let written = plan.encode(&record, &meta, &mut notes, &mut out);
                (written == Ok(Written::Value)).then_some(out.len())
            });
        });
        group.bench_function(BenchmarkId::new("key", name), |bencher| {
            bencher.iter(|| {
                let record = Record::Create { old: None, new: *black_box(next.next()?) };
                out.clear();
                plan.encode_key(&record, &mut notes, &mut out).ok()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, ten_columns);
criterion_main!(benches);
