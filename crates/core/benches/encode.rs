//! What a row costs from its fields to an Avro body. One iteration is one row.
//!
//! The rows are recorded: ten columns in binary, some 220 bytes (`tests/corpus/record.py`, `ten`).

mod ten_columns;

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ten_columns::{TenColumns, meta};
use waltide_core::avro::{Envelope, Notes, Profile, Record, Written};
use waltide_core::pgoutput::OldTuple;

fn ten_columns(criterion: &mut Criterion) {
    let recorded = TenColumns::load();
    let payloads = &recorded.payloads;
    let rows: Vec<_> = payloads.iter().filter_map(|row| ten_columns::decode(row)).collect();
    let mut group = criterion.benchmark_group("ten columns");
    group.throughput(Throughput::Elements(1));
    for (name, profile, envelope) in [
        ("waltide full", Profile::Waltide, Envelope::Full),
        ("waltide flat", Profile::Waltide, Envelope::Flat),
        ("debezium full", Profile::Debezium, Envelope::Full),
    ] {
        let plan = recorded.plan(profile, envelope);
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
