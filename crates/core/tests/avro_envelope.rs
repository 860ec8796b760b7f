//! What the records of the waltide profile say of inserts, updates, deletes and truncates.

mod avro_fixture;

use apache_avro::types::Value;
use avro_fixture::{
    decode, get, keys, meta, modifier, options, plan, relation, table, text_row, value, values,
};
use waltide_core::avro::{ColumnFilter, Envelope, Notes, Options, Plan, Problem};
use waltide_core::avro::{Profile, Record, Written};
use waltide_core::catalog::Types;
use waltide_core::change::Row;
use waltide_core::pgoutput::encode::TupleBuf;
use waltide_core::pgoutput::{Field, OldTuple, Relation, ReplicaIdentity};

fn orders() -> Relation {
    relation(
        "public",
        "orders",
        ReplicaIdentity::Default,
        &[
            ("id", 20, -1, true),
            ("note", 25, -1, false),
            ("price", 1700, modifier(10, 2), false),
            ("at", 1184, -1, false),
        ],
    )
}

fn text(value: &str) -> Value {
    Value::String(value.to_owned())
}

#[test]
fn an_insert_says_what_happened_where_and_when() {
    let row = text_row(&[Some("42"), Some("hey"), Some("10.50"), Some("2026-09-07 00:00:00.5+00")]);
    let all = values(&plan(&orders()), &Row::Insert(row.tuple()));
    let [Some(record)] = all.as_slice() else { panic!("one record, not {all:?}") };
    assert_eq!(*get(record, "before"), Value::Null);
    assert_eq!(*get(record, "after.id"), Value::Long(42));
    assert_eq!(*get(record, "after.note"), text("hey"));
    assert_eq!(*get(record, "after.price"), Value::Decimal(vec![0x04, 0x1A].into()));
    assert_eq!(*get(record, "after.at"), Value::TimestampMicros(1_788_739_200_500_000));
    assert_eq!(*get(record, "op"), text("c"));
    assert_eq!(*get(record, "ts_us"), Value::TimestampMicros(1_788_739_200_123_456));
    assert_eq!(*get(record, "source.connector"), text("waltide"));
    assert_eq!(*get(record, "source.name"), text("shop"));
    assert_eq!(*get(record, "source.db"), text("shopdb"));
    assert_eq!(*get(record, "source.table"), text("orders"));
    assert_eq!(*get(record, "source.commit_lsn"), Value::Long(0x16_B374_D848));
    assert_eq!(*get(record, "source.ordinal"), Value::Long(7));
    assert_eq!(*get(record, "source.xid"), Value::Long(4_000_000_000));
    assert_eq!(*get(record, "source.snapshot"), Value::Boolean(false));
    assert_eq!(keys(&plan(&orders()), &Row::Insert(row.tuple())).len(), 1);
}

#[test]
fn a_delete_has_the_old_key_and_a_tombstone_behind_it() {
    let key = text_row(&[Some("42"), None, None, None]);
    let row = Row::Delete(OldTuple::Key(key.tuple()));
    let all = values(&plan(&orders()), &row);
    let [Some(delete), None] = all.as_slice() else { panic!("a delete and a tombstone: {all:?}") };
    assert_eq!(*get(delete, "op"), text("d"));
    assert_eq!(*get(delete, "before.id"), Value::Long(42));
    assert_eq!(*get(delete, "before_is_key"), Value::Boolean(true));
    assert_eq!(*get(delete, "after"), Value::Null);
    let keys = keys(&plan(&orders()), &row);
    assert_eq!(keys[0], keys[1]);
    assert_eq!(*get(&keys[0], "id"), Value::Long(42));
}

#[test]
fn only_debezium_has_a_tombstone_behind_the_delete_of_a_row_without_a_key() {
    let keyless = relation("public", "log", ReplicaIdentity::Full, &[("line", 25, -1, false)]);
    let old = text_row(&[Some("gone")]);
    let row = Row::Delete(OldTuple::Full(old.tuple()));
    for (profile, expected) in [(Profile::Waltide, 1), (Profile::Debezium, 2)] {
        let options = Options { profile, ..options() };
        let plan = Plan::compile(&keyless, &table(&keyless), &Types::default(), &options).unwrap();
        assert_eq!(plan.records(&row).unwrap().count(), expected, "{profile:?}");
        let without = Options { tombstones: false, ..options };
        let plan = Plan::compile(&keyless, &table(&keyless), &Types::default(), &without).unwrap();
        assert_eq!(plan.records(&row).unwrap().count(), 1, "{profile:?}");
    }
}

#[test]
fn a_changed_key_is_a_delete_a_tombstone_and_a_create() {
    let old = text_row(&[Some("1"), None, None, None]);
    let new = text_row(&[Some("2"), Some("x"), None, None]);
    let row = Row::Update { old: Some(OldTuple::Key(old.tuple())), new: new.tuple() };
    let plan = plan(&orders());
    let all = values(&plan, &row);
    let [Some(delete), None, Some(create)] = all.as_slice() else { panic!("{all:?}") };
    assert_eq!((get(delete, "op"), get(delete, "before.id")), (&text("d"), &Value::Long(1)));
    assert_eq!((get(create, "op"), get(create, "after.id")), (&text("c"), &Value::Long(2)));
    assert_eq!(*get(create, "before"), Value::Null);
    let keys: Vec<Value> = keys(&plan, &row).iter().map(|key| get(key, "id").clone()).collect();
    assert_eq!(keys, [Value::Long(1), Value::Long(1), Value::Long(2)]);
    let sub_indexes: Vec<u8> = plan.records(&row).unwrap().map(|(index, _)| index).collect();
    assert_eq!(sub_indexes, [0, 1, 2]);
}

#[test]
fn the_sub_index_of_a_create_is_the_same_without_tombstones() {
    let options = Options { tombstones: false, ..options() };
    let plan = Plan::compile(&orders(), &table(&orders()), &Types::default(), &options).unwrap();
    let (old, new) =
        (text_row(&[Some("1"), None, None, None]), text_row(&[Some("2"), None, None, None]));
    let row = Row::Update { old: Some(OldTuple::Key(old.tuple())), new: new.tuple() };
    let sub_indexes: Vec<u8> = plan.records(&row).unwrap().map(|(index, _)| index).collect();
    assert_eq!(sub_indexes, [0, 2]);
}

#[test]
fn an_unchanged_toasted_value_is_listed_and_not_null_in_disguise() {
    let new = TupleBuf::new([Field::Text(b"1"), Field::Unchanged, Field::Null, Field::Null]);
    let plan = plan(&orders());
    let mut notes = Notes::new();
    let row = Record::Update { old: None, new: new.tuple() };
    let record = value(&plan, &row, &mut notes).unwrap();
    assert_eq!(*get(&record, "after.note"), Value::Null);
    assert_eq!(*get(&record, "unchanged"), Value::Array(vec![text("note")]));
    assert_eq!(notes.unchanged().collect::<Vec<_>>(), [1]);
}

#[test]
fn an_unchanged_toasted_value_is_taken_from_the_whole_old_row() {
    let old = text_row(&[Some("1"), Some("long"), None, None]);
    let new = TupleBuf::new([Field::Text(b"2"), Field::Unchanged, Field::Null, Field::Null]);
    let row = Row::Update { old: Some(OldTuple::Full(old.tuple())), new: new.tuple() };
    let all = values(&plan(&orders()), &row);
    let create = all[2].as_ref().unwrap();
    assert_eq!(*get(create, "after.note"), text("long"));
    assert_eq!(*get(create, "unchanged"), Value::Array(vec![]));
}

#[test]
fn an_unchanged_toasted_key_is_taken_from_the_old_key() {
    let relation = relation(
        "public",
        "pages",
        ReplicaIdentity::Default,
        &[("url", 25, -1, true), ("body", 25, -1, false)],
    );
    let old = text_row(&[Some("long"), None]);
    let new = TupleBuf::new([Field::Unchanged, Field::Text(b"new")]);
    let row = Row::Update { old: Some(OldTuple::Key(old.tuple())), new: new.tuple() };
    let plan = plan(&relation);
    let all = values(&plan, &row);
    let [Some(update)] = all.as_slice() else { panic!("the key did not change: {all:?}") };
    assert_eq!(*get(update, "after.url"), text("long"));
    assert_eq!(*get(update, "unchanged"), Value::Array(vec![]));
    assert_eq!(*get(&keys(&plan, &row)[0], "url"), text("long"));
}

#[test]
fn what_a_logical_type_cannot_hold_is_kept_as_text() {
    let row = text_row(&[Some("1"), None, Some("NaN"), Some("-infinity")]);
    let mut notes = Notes::new();
    let insert = Record::from(Row::Insert(row.tuple()));
    let record = value(&plan(&orders()), &insert, &mut notes).unwrap();
    assert_eq!(*get(&record, "after.price"), Value::Null);
    assert_eq!(*get(&record, "after.at"), Value::Null);
    let Value::Map(kept) = get(&record, "unrepresentable") else { panic!() };
    assert_eq!(kept["after.price"], text("NaN"));
    assert_eq!(kept["after.at"], text("-infinity"));
    assert_eq!(notes.unrepresentable().count(), 2);
}

#[test]
fn infinity_in_a_key_has_a_number_of_its_own() {
    let relation = relation(
        "public",
        "prices",
        ReplicaIdentity::Default,
        &[("sku", 25, -1, true), ("until", 1184, -1, true), ("day", 1082, -1, true)],
    );
    let row = text_row(&[Some("a"), Some("infinity"), Some("-infinity")]);
    let insert = Row::Insert(row.tuple());
    let key = &keys(&plan(&relation), &insert)[0];
    assert_eq!(*get(key, "until"), Value::TimestampMicros(i64::MAX));
    assert_eq!(*get(key, "day"), Value::Date(i32::MIN));
    let record = values(&plan(&relation), &insert)[0].clone().unwrap();
    assert_eq!(*get(&record, "after.until"), Value::TimestampMicros(i64::MAX));
    let Value::Map(kept) = get(&record, "unrepresentable") else { panic!() };
    assert_eq!(kept["after.until"], text("infinity"));
}

#[test]
fn a_truncate_is_an_envelope_without_rows() {
    let plan = plan(&orders());
    let mut out = Vec::new();
    assert_eq!(plan.encode_truncate(&meta(), &mut Notes::new(), &mut out), Written::Value);
    let record = decode(plan.value_schema(), &out);
    assert_eq!(*get(&record, "op"), text("t"));
    assert_eq!((get(&record, "before"), get(&record, "after")), (&Value::Null, &Value::Null));
}

#[test]
fn the_flat_envelope_is_the_row_and_a_delete_is_a_tombstone() {
    let options = Options { envelope: Envelope::Flat, ..options() };
    let plan = Plan::compile(&orders(), &table(&orders()), &Types::default(), &options).unwrap();
    let row = text_row(&[Some("42"), None, None, None]);
    let record = values(&plan, &Row::Insert(row.tuple()))[0].clone().unwrap();
    assert_eq!(*get(&record, "id"), Value::Long(42));
    let deleted = values(&plan, &Row::Delete(OldTuple::Key(row.tuple())));
    assert_eq!(deleted, [None]);
}

#[test]
fn a_table_without_a_key_has_null_keys() {
    let keyless = relation("public", "log", ReplicaIdentity::Full, &[("line", 25, -1, true)]);
    let plan = Plan::compile(&keyless, &Default::default(), &Types::default(), &options()).unwrap();
    assert_eq!(plan.key_schema(), None);
    let row = text_row(&[Some("x")]);
    let mut out = Vec::new();
    let delete = Row::Delete(OldTuple::Full(row.tuple()));
    for (_, record) in plan.records(&delete).unwrap() {
        assert_eq!(plan.encode_key(&record, &mut Notes::new(), &mut out), Ok(false));
    }
    assert!(out.is_empty());
    assert_eq!(values(&plan, &delete).len(), 1, "a tombstone without a key says nothing");
}

#[test]
fn an_error_names_the_column_and_never_the_value() {
    let plan = plan(&orders());
    let row = text_row(&[Some("1"), Some("fine"), Some("secret"), None]);
    let mut out = b"before".to_vec();
    let record = Record::from(Row::Insert(row.tuple()));
    let error = plan.encode(&record, &meta(), &mut Notes::new(), &mut out).unwrap_err();
    assert_eq!(error.to_string(), "public.orders.price: the bytes received are no numeric");
    assert_eq!(out, b"before", "nothing half-written is left");
    let short = text_row(&[Some("1")]);
    let record = Record::from(Row::Insert(short.tuple()));
    let error = plan.encode(&record, &meta(), &mut Notes::new(), &mut out).unwrap_err();
    assert_eq!(error.problem, Problem::ColumnCount { expected: 4, found: 1 });
    let keyless = text_row(&[None, None, None, None]);
    let record = Record::from(Row::Insert(keyless.tuple()));
    let error = plan.encode_key(&record, &mut Notes::new(), &mut out).unwrap_err();
    assert_eq!((error.column.as_deref(), error.problem), (Some("id"), Problem::Null));
}

#[test]
fn a_row_larger_than_allowed_is_told_and_not_written() {
    let options = Options { max_row_bytes: 1000, ..options() };
    let plan = Plan::compile(&orders(), &table(&orders()), &Types::default(), &options).unwrap();
    let long = "x".repeat(1001);
    let row = text_row(&[Some("1"), Some(&long), None, None]);
    let mut out = Vec::new();
    let record = Record::from(Row::Insert(row.tuple()));
    let written = plan.encode(&record, &meta(), &mut Notes::new(), &mut out).unwrap();
    assert!(matches!(written, Written::TooLarge { bytes } if bytes > 1000), "{written:?}");
    assert!(out.is_empty());
}

#[test]
fn a_row_much_larger_than_allowed_takes_no_memory_and_an_excluded_column_none_of_the_limit() {
    let long = "x".repeat(10_000_000);
    let row = text_row(&[Some("1"), Some(&long), None, None]);
    let record = Record::from(Row::Insert(row.tuple()));
    let mut out = Vec::new();
    let limited = Options { max_row_bytes: 1000, ..options() };
    let plan = |options: &Options| {
        Plan::compile(&orders(), &table(&orders()), &Types::default(), options).unwrap()
    };
    let mut encode = |plan: &Plan| {
        let written = plan.encode(&record, &meta(), &mut Notes::new(), &mut out).unwrap();
        (written, out.capacity())
    };
    let (written, taken) = encode(&plan(&limited));
    assert!(matches!(written, Written::TooLarge { .. }) && taken < 100_000, "{taken} bytes");
    let name = orders().columns[1].name.clone();
    let without = Options { columns: ColumnFilter::Except(vec![name]), ..limited };
    assert_eq!(encode(&plan(&without)).0, Written::Value);
}

#[test]
fn a_repeated_change_is_the_same_byte_for_byte() {
    let plan = plan(&orders());
    let row = text_row(&[Some("1"), None, None, None]);
    let record = Record::from(Row::Insert(row.tuple()));
    let (mut first, mut second) = (Vec::new(), Vec::new());
    let mut later = meta();
    later.now.0 += 1_000_000;
    plan.encode(&record, &meta(), &mut Notes::new(), &mut first).unwrap();
    plan.encode(&record, &later, &mut Notes::new(), &mut second).unwrap();
    assert_eq!(first, second);
}
