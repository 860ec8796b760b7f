//! What a row costs from the payload of CopyData to its fields. One iteration is one row.
//!
//! The rows are recorded: ten columns in binary, some 220 bytes (`tests/corpus/record.py`, `ten`).

#[path = "../tests/corpus/mod.rs"]
mod corpus;

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use waltide_core::pgoutput::{
    Decoder, Field, Frame, Message, Relation, RelationCache, RelationId, Tuple,
};

fn decode<'a>(decoder: &mut Decoder, payload: &'a [u8]) -> Option<(RelationId, Tuple<'a>)> {
    let Ok(Frame::XLogData { body, .. }) = Frame::decode(payload) else { return None };
    match decoder.decode(body) {
        Ok(Message::Insert(_, id, new)) => Some((id, new)),
        _ => None,
    }
}

/// Reads a byte of every value, so that each must be found.
fn walk(tuple: &Tuple<'_>) -> usize {
    let lengths = tuple.fields().map(|field| match field {
        Field::Text(value) | Field::Binary(value) => {
            value.len() + usize::from(value.first().copied().unwrap_or_default())
        }
        Field::Null | Field::Unchanged => 1,
    });
    lengths.sum()
}

fn ten_columns(criterion: &mut Criterion) {
    let recordings = corpus::recordings();
    let Some(recording) = recordings.iter().find(|recording| recording.name == "18/ten") else {
        return;
    };
    let mut cache = RelationCache::new();
    let mut decoder = Decoder::new();
    let mut rows = Vec::new();
    for payload in recording.payloads() {
        let Ok(Frame::XLogData { body, .. }) = Frame::decode(payload) else { continue };
        match decoder.decode(body) {
            Ok(Message::Relation(_, body)) => {
                assert!(cache.insert(Relation::from(&body), ()).is_ok());
            }
            Ok(Message::Insert(..)) => rows.push(payload),
            _ => {}
        }
    }
    let bytes = rows.iter().map(|row| row.len()).sum::<usize>();
    let name = format!("{} rows of ten columns, {} bytes each", rows.len(), bytes / rows.len());
    let mut group = criterion.benchmark_group(name);
    let mut next = rows.iter().cycle();
    group.bench_function("frame and message", |bencher| {
        bencher.iter(|| decode(&mut decoder, black_box(next.next()?)));
    });
    group.bench_function("frame, message and walk", |bencher| {
        bencher.iter(|| {
            let (_, tuple) = decode(&mut decoder, black_box(next.next()?))?;
            Some(walk(&tuple))
        });
    });
    group.bench_function("frame, message, relation and walk", |bencher| {
        bencher.iter(|| {
            let (id, tuple) = decode(&mut decoder, black_box(next.next()?))?;
            let (relation, ()) = cache.get(id)?;
            Some(walk(&tuple) + relation.columns.len())
        });
    });
    group.finish();
}

criterion_group!(benches, ten_columns);
criterion_main!(benches);
