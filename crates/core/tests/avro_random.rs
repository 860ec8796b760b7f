//! Random tables and rows, and rows that no server would send.
//!
//! Every case has a seed, and a failure prints it; `WALTIDE_SEED=<seed>` runs that case alone.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "it is only for tests"
)]

#[path = "avro_fixture/reader.rs"]
mod reader;
#[path = "avro_fixture/recorded.rs"]
mod recorded;

mod avro_fixture;

use std::panic::{AssertUnwindSafe, catch_unwind};

use avro_fixture::{decode, meta, options};
use recorded::Recorded;
use waltide_core::avro::{ColumnFilter, Envelope, Notes, Options, Plan, Profile, Written};
use waltide_core::catalog::{self, Table, TableColumn, Types};
use waltide_core::change::Row;
use waltide_core::pgoutput::encode::TupleBuf;
use waltide_core::pgoutput::{
    Field, OldTuple, Relation, RelationColumn, RelationId, ReplicaIdentity,
};

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).unwrap()).unwrap()
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// Runs a case for each seed.
fn cases(count: u64, mut case: impl FnMut(&mut Random)) {
    #[expect(clippy::disallowed_methods, reason = "the test is asked for one seed, not core")]
    let only = std::env::var("WALTIDE_SEED").ok().map(|seed| seed.parse().unwrap());
    let seeds = only.map_or(0..count, |seed: u64| seed..seed + 1);
    for seed in seeds {
        let result = catch_unwind(AssertUnwindSafe(|| case(&mut Random(seed))));
        assert!(result.is_ok(), "it was WALTIDE_SEED={seed}");
    }
}

/// A table with a row's worth of values for each of its columns.
struct Case<'a> {
    relation: Relation,
    table: Table,
    options: Options,
    columns: Vec<&'a Recorded>,
    keys: Vec<bool>,
}

const NAMES: [&str; 12] =
    ["id", "a", "a-b", "a_b", "A", "1st", "ünï", "_X2d_", "漢", "a b", "before", "_"];

impl<'a> Case<'a> {
    fn new(random: &mut Random, values: &'a [Recorded]) -> Self {
        let count = 1 + random.below(NAMES.len() - 1);
        let identity =
            *random.one(&[ReplicaIdentity::Default, ReplicaIdentity::Full, ReplicaIdentity::Index]);
        // Types whose every value has a place in a key.
        let plain: Vec<&Recorded> = values
            .iter()
            .filter(|value| {
                ["integer", "text", "bigint", "uuid", "date", "boolean"]
                    .contains(&value.type_name.as_str())
            })
            .collect();
        let mut columns = Vec::new();
        let mut keys = Vec::new();
        for at in 0..count {
            let key = at == 0 || random.chance(20);
            columns.push(if key { *random.one(&plain) } else { random.one(values) });
            keys.push(key);
        }
        let keyless = random.chance(10);
        let named = NAMES.iter().zip(&columns).zip(&keys);
        let relation = Relation {
            id: RelationId(1),
            schema: (*random.one(&["public", "Odd.Schema"])).to_owned(),
            name: (*random.one(&["t", "Odd \"Name\"", "a.b"])).to_owned(),
            identity,
            columns: named
                .clone()
                .map(|((name, value), key)| RelationColumn {
                    key: identity == ReplicaIdentity::Full || (*key && !keyless),
                    name: (*name).to_owned(),
                    type_oid: value.oid,
                    type_modifier: value.modifier,
                })
                .collect(),
        };
        let primary = named.clone().filter(|(_, key)| **key && !keyless);
        let table = Table {
            comment: random.chance(20).then(|| "\"quoted\"\n\u{1}".to_owned()),
            columns: named
                .map(|((name, _), key)| TableColumn {
                    name: (*name).to_owned(),
                    not_null: *key,
                    default: random.chance(20).then(|| "now()".to_owned()),
                    identity: false,
                    generated: false,
                    comment: random.chance(20).then(|| "what it is".to_owned()),
                })
                .collect(),
            primary_key: primary.map(|((name, _), _)| (*name).to_owned()).collect(),
            identity_index: Vec::new(),
        };
        let excluded = keys.iter().rposition(|key| !key).filter(|_| random.chance(20));
        let columns_taken = match excluded {
            Some(at) => ColumnFilter::Except(vec![NAMES[at].to_owned()]),
            None => ColumnFilter::All,
        };
        let options = Options {
            profile: *random.one(&[Profile::Waltide, Profile::Debezium]),
            envelope: *random.one(&[Envelope::Full, Envelope::Flat]),
            tombstones: random.chance(80),
            columns: columns_taken,
            ..options()
        };
        Self { relation, table, options, columns, keys }
    }

    /// A row in one form; the same numbers give the same row in the other.
    fn row(
        &self,
        random: &mut Random,
        values: &[Recorded],
        binary: bool,
        may_be_unchanged: bool,
    ) -> TupleBuf {
        let mut row = TupleBuf::default();
        for (column, key) in self.columns.iter().zip(&self.keys) {
            let same =
                |value: &&Recorded| (value.oid, value.modifier) == (column.oid, column.modifier);
            let all: Vec<&Recorded> = values.iter().filter(same).collect();
            let value = *random.one(&all);
            let (null, unchanged) = (random.chance(20), random.chance(10));
            row.push(match (&value.binary, binary) {
                _ if null && !key => Field::Null,
                _ if unchanged && may_be_unchanged && !key => Field::Unchanged,
                (Some(bytes), true) => Field::Binary(bytes),
                _ => Field::Text(value.text.as_bytes()),
            });
        }
        row
    }
}

/// All bodies that a row makes, each read to its end by two readers.
fn bodies(plan: &Plan, row: &Row<'_>) -> Vec<Vec<u8>> {
    let mut notes = Notes::new();
    let mut all = Vec::new();
    for (_, record) in plan.records(row).unwrap() {
        let (mut key, mut value) = (Vec::new(), Vec::new());
        if plan.encode_key(&record, &mut notes, &mut key).unwrap() {
            let schema = plan.key_schema().unwrap();
            decode(schema, &key);
            reader::read(schema, &key);
        }
        if plan.encode(&record, &meta(), &mut notes, &mut value).unwrap() == Written::Value {
            decode(plan.value_schema(), &value);
            reader::read(plan.value_schema(), &value);
        }
        all.push(key);
        all.push(value);
    }
    all
}

/// Whether two columns meet in the debezium profile, where that is refused.
fn compiled(case: &Case<'_>, types: &Types) -> Option<Plan> {
    let plan = Plan::compile(&case.relation, &case.table, types, &case.options);
    match (plan, case.options.profile) {
        (Ok(plan), _) => Some(plan),
        (Err(_), Profile::Debezium) => None,
        (Err(error), Profile::Waltide) => panic!("{error}"),
    }
}

#[test]
fn every_row_of_every_table_is_read_to_its_end_and_the_same_in_both_forms() {
    let (types, values) = recorded::load();
    let mut compared = 0;
    cases(400, |random| {
        let case = Case::new(random, &values);
        let Some(plan) = compiled(&case, &types) else { return };
        let full = case.relation.identity == ReplicaIdentity::Full;
        let seed = random.next();
        let [binary, text] = [true, false].map(|binary| {
            let random = &mut Random(seed);
            let old = case.row(random, &values, binary, false);
            let new = case.row(random, &values, binary, true);
            let old = if full { OldTuple::Full(old.tuple()) } else { OldTuple::Key(old.tuple()) };
            let rows = [
                Row::Read(new.tuple()),
                Row::Insert(new.tuple()),
                Row::Update { old: None, new: new.tuple() },
                Row::Update { old: Some(old), new: new.tuple() },
                Row::Delete(old),
            ];
            rows.iter().flat_map(|row| bodies(&plan, row)).collect::<Vec<_>>()
        });
        assert_eq!(binary, text);
        compared += binary.len();
    });
    assert!(compared > 0, "nothing was compared");
}

#[test]
fn bytes_that_no_server_sends_are_refused_or_read_but_never_a_panic() {
    let (types, values) = recorded::load();
    cases(150, |random| {
        let case = Case::new(random, &values);
        let Some(plan) = compiled(&case, &types) else { return };
        for _ in 0..20 {
            let mut row = TupleBuf::default();
            for column in &case.columns {
                let binary = random.chance(50);
                let sound = match (&column.binary, binary) {
                    (Some(bytes), true) => bytes.as_slice(),
                    _ => column.text.as_bytes(),
                };
                let broken = broken(random, sound);
                row.push(if binary { Field::Binary(&broken) } else { Field::Text(&broken) });
            }
            let (mut notes, mut out) = (Notes::new(), b"before".to_vec());
            for (_, record) in plan.records(&Row::Insert(row.tuple())).unwrap() {
                match plan.encode(&record, &meta(), &mut notes, &mut out) {
                    Ok(Written::Value) => drop(decode(plan.value_schema(), &out[6..])),
                    Ok(written) => panic!("{written:?}"),
                    Err(error) => {
                        assert!(error.column.is_some());
                        assert_eq!(out, b"before");
                    }
                }
                out.truncate(6);
                let _ = plan.encode_key(&record, &mut notes, &mut out);
                out.truncate(6);
            }
        }
    });
}

/// Cut short, stretched, or with a byte changed.
fn broken(random: &mut Random, sound: &[u8]) -> Vec<u8> {
    let mut bytes = sound.to_vec();
    for _ in 0..random.below(3) {
        let byte = random.next().to_le_bytes()[0];
        match random.below(4) {
            0 => bytes.truncate(random.below(bytes.len() + 1)),
            1 => bytes.insert(random.below(bytes.len() + 1), byte),
            _ if bytes.is_empty() => {}
            2 => {
                let at = random.below(bytes.len());
                bytes[at] = byte;
            }
            _ => {
                let at = random.below(bytes.len());
                bytes[at] = *random.one(b"{}()[],\"\\'0-.:\xFF\0");
            }
        }
    }
    bytes
}
