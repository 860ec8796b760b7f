//! Tables, rows and an independent reader for the tests of the Avro plan.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "it is only for tests")]

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use waltide_core::avro::{Notes, Options, Plan, Record, RecordMeta, Snapshot, Written};
use waltide_core::catalog::{Table, Types};
use waltide_core::change::{Position, Row, Transaction};
use waltide_core::lsn::{CommitLsn, Lsn};
use waltide_core::pgoutput::encode::TupleBuf;
use waltide_core::pgoutput::{
    Field, PgTimestamp, Relation, RelationColumn, RelationId, ReplicaIdentity, Xid,
};

/// A column: its name, type, modifier and whether it is in the replica identity.
pub type Col<'a> = (&'a str, u32, i32, bool);

pub fn relation(
    schema: &str,
    name: &str,
    identity: ReplicaIdentity,
    columns: &[Col<'_>],
) -> Relation {
    let columns = columns.iter().map(|(name, type_oid, type_modifier, key)| RelationColumn {
        key: *key,
        name: (*name).to_owned(),
        type_oid: *type_oid,
        type_modifier: *type_modifier,
    });
    Relation {
        id: RelationId(16_384),
        schema: schema.to_owned(),
        name: name.to_owned(),
        identity,
        columns: columns.collect(),
    }
}

/// A table whose primary key is the columns marked as the identity.
pub fn table(relation: &Relation) -> Table {
    let primary_key =
        relation.columns.iter().filter(|column| column.key).map(|column| column.name.clone());
    Table { primary_key: primary_key.collect(), ..Table::default() }
}

pub fn options() -> Options {
    Options {
        prefix: "shop".to_owned(),
        database: "shopdb".to_owned(),
        version: "1.2.3".to_owned(),
        ..Options::default()
    }
}

pub fn plan(relation: &Relation) -> Plan {
    Plan::compile(relation, &table(relation), &Types::default(), &options()).unwrap()
}

pub fn modifier(precision: i32, scale: i32) -> i32 {
    (precision << 16 | scale & 0x7FF) + 4
}

pub fn meta() -> RecordMeta<'static> {
    let commit_lsn = CommitLsn(Lsn(0x16_B374_D848));
    RecordMeta {
        transaction: Some(Transaction {
            commit_lsn,
            commit_time: PgTimestamp(842_054_400_123_456),
            xid: Xid(4_000_000_000),
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

/// Fields in text form; `None` is null.
pub fn text_row(values: &[Option<&str>]) -> TupleBuf {
    TupleBuf::new(
        values.iter().map(|value| value.map_or(Field::Null, |text| Field::Text(text.as_bytes()))),
    )
}

/// Reads a body in full with an independent reader.
pub fn decode(schema: &str, mut body: &[u8]) -> Value {
    let parsed = Schema::parse_str(schema).unwrap_or_else(|error| panic!("{error}: {schema}"));
    let reader = GenericDatumReader::builder(&parsed).build().unwrap();
    let value = reader.read_value(&mut body).unwrap_or_else(|error| panic!("{error}: {schema}"));
    assert!(body.is_empty(), "{} bytes are left over", body.len());
    value
}

/// The value of each record that a row makes, decoded; `None` for a tombstone.
pub fn values(plan: &Plan, row: &Row<'_>) -> Vec<Option<Value>> {
    let mut notes = Notes::new();
    let records = plan.records(row).unwrap();
    records.map(|(_, record)| value(plan, &record, &mut notes)).collect()
}

pub fn value(plan: &Plan, record: &Record<'_>, notes: &mut Notes) -> Option<Value> {
    let mut out = Vec::new();
    match plan.encode(record, &meta(), notes, &mut out).unwrap() {
        Written::Value => Some(decode(plan.value_schema(), &out)),
        Written::Null => None,
        Written::TooLarge { bytes } => panic!("{bytes} bytes are too many"),
    }
}

/// The keys of the records that a row makes, decoded.
pub fn keys(plan: &Plan, row: &Row<'_>) -> Vec<Value> {
    let mut notes = Notes::new();
    let records = plan.records(row).unwrap();
    let key = |(_, record)| {
        let mut out = Vec::new();
        assert!(plan.encode_key(&record, &mut notes, &mut out).unwrap());
        decode(plan.key_schema().unwrap(), &out)
    };
    records.map(key).collect()
}

/// A field of a record, unions taken off; a path goes down with dots.
pub fn get<'a>(value: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(bare(value), |value, name| match value {
        Value::Record(fields) => {
            let found = fields.iter().find(|(field, _)| field == name);
            bare(&found.unwrap_or_else(|| panic!("no field {name}")).1)
        }
        Value::Map(entries) => bare(&entries[name]),
        other => panic!("{name} in {other:?}"),
    })
}

fn bare(value: &Value) -> &Value {
    match value {
        Value::Union(_, inner) => inner,
        value => value,
    }
}
