//! The rules of the debezium profile that the golden tables do not show.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "it is only for tests")]

#[path = "avro_fixture/reader.rs"]
mod reader;

mod avro_fixture;

use avro_fixture::{meta, modifier, options, relation, table};
use serde_json::{Value, json};
use waltide_core::avro::{Notes, Options, Plan, PlanFault, Problem, Profile, Record, RecordMeta};
use waltide_core::catalog::{Kind, PgType, Table, TableColumn, Types};
use waltide_core::lsn::Lsn;
use waltide_core::pgoutput::encode::TupleBuf;
use waltide_core::pgoutput::{Field, OldTuple, ReplicaIdentity};

const MARK: &str = "__debezium_unavailable_value";

fn debezium() -> Options {
    Options { profile: Profile::Debezium, ..options() }
}

/// The types that are not built in, and the arrays.
fn types() -> Types {
    let mut types = Types::default();
    let mut insert = |oid, name: &str, kind, extension: Option<&str>| {
        types.insert(PgType {
            oid,
            schema: "public".to_owned(),
            name: name.to_owned(),
            kind,
            has_send: true,
            extension: extension.map(str::to_owned),
        });
    };
    let array = |element| Kind::Array { element, delimiter: b',' };
    for (array_oid, element) in
        [(1007, 23), (1016, 20), (1009, 25), (1001, 17), (2951, 2950), (1182, 1082), (1231, 1700)]
    {
        insert(array_oid, "_array", array(element), None);
    }
    insert(90_001, "mood", Kind::Enum(vec!["sad".to_owned(), "ok".to_owned()]), None);
    insert(90_002, "_mood", array(90_001), None);
    insert(90_003, "positive", Kind::Domain { base: 23, modifier: -1 }, None);
    insert(90_004, "hstore", Kind::Base, Some("hstore"));
    insert(90_005, "geometry", Kind::Base, Some("postgis"));
    insert(90_006, "vector", Kind::Base, Some("vector"));
    insert(90_007, "halfvec", Kind::Base, Some("vector"));
    insert(90_008, "sparsevec", Kind::Base, Some("vector"));
    insert(90_009, "geography", Kind::Base, Some("postgis"));
    types
}

/// A plan of a table with a key and one more column.
fn plan(oid: u32, type_modifier: i32, not_null: bool, default: Option<&str>) -> Plan {
    let columns = [("id", 23, -1, true), ("v", oid, type_modifier, false)];
    let relation = relation("public", "t", ReplicaIdentity::Default, &columns);
    let column = TableColumn {
        name: "v".to_owned(),
        not_null,
        default: default.map(str::to_owned),
        identity: false,
        generated: false,
        comment: None,
    };
    let table = Table { columns: vec![column], ..table(&relation) };
    Plan::compile(&relation, &table, &types(), &debezium()).unwrap()
}

/// The field `v` of the value's schema.
fn schema_of(plan: &Plan) -> Value {
    let schema: Value = serde_json::from_str(plan.value_schema()).unwrap();
    schema["fields"][0]["type"][1]["fields"][1].clone()
}

fn read(plan: &Plan, record: &Record<'_>) -> Value {
    let mut value = Vec::new();
    plan.encode(record, &meta(), &mut Notes::new(), &mut value).unwrap();
    reader::read(plan.value_schema(), &value)
}

/// What `v` becomes.
fn value_of(plan: &Plan, field: Field<'_>) -> Value {
    let row = TupleBuf::new([Field::Text(b"1"), field]);
    read(plan, &Record::Create { old: None, new: row.tuple() })["after"]["v"].clone()
}

#[test]
fn a_default_is_read_out_of_its_sql_and_nothing_is_evaluated() {
    let numeric = modifier(10, 2);
    for (oid, type_modifier, sql, expected) in [
        (23, -1, "7", Some(json!(7))),
        (23, -1, "'-7'::integer", Some(json!(-7))),
        (23, -1, "nextval('t_id_seq'::regclass)", Some(json!(0))),
        (23, -1, "(1 + 2)", None),
        (21, -1, "3", Some(json!(3))),
        (20, -1, "'9223372036854775807'::bigint", Some(json!(9_223_372_036_854_775_807_i64))),
        (16, -1, "true", Some(json!(true))),
        (25, -1, "'it''s'::text", Some(json!("it's"))),
        (25, -1, "NULL::text", None),
        (25, -1, "CURRENT_USER", Some(json!("CURRENT_USER"))),
        (25, -1, "upper('x'::text)", Some(json!(""))),
        (1043, 24, "'abc'::character varying", Some(json!("abc"))),
        (700, -1, "0.1", Some(json!(0.1))),
        (701, -1, "'1.5'::double precision", Some(json!(1.5))),
        (701, -1, "'NaN'::double precision", None),
        (1700, numeric, "1.50", Some(json!("\u{0}\u{96}"))),
        (1700, numeric, "1.505", None),
        (1700, numeric, "random()", Some(json!("\u{0}"))),
        // A record cannot be a default.
        (1700, -1, "1.5", None),
        (2950, -1, "gen_random_uuid()", Some(json!("00000000-0000-0000-0000-000000000000"))),
        (1082, -1, "CURRENT_DATE", Some(json!(0))),
        (1082, -1, "'2020-01-02'::date", Some(json!(18_263))),
        (1184, -1, "now()", Some(json!("1970-01-01T00:00:00.000000Z"))),
        (1184, 3, "CURRENT_TIMESTAMP", Some(json!("1970-01-01T00:00:00.000Z"))),
        (1114, -1, "(now() AT TIME ZONE 'utc'::text)", Some(json!(0))),
        (
            1114,
            3,
            "'2020-01-01 00:00:00'::timestamp without time zone",
            Some(json!(1_577_836_800_000_i64)),
        ),
        (3802, -1, "'{}'::jsonb", Some(json!("{}"))),
        (1560, 1, "'1'::\"bit\"", Some(json!(true))),
        (1560, 9, "'101000001'::\"bit\"", Some(json!("A\u{1}"))),
        (90_001, -1, "'ok'::mood", Some(json!("ok"))),
        (90_001, -1, "'ok'", None),
        // Not read by Debezium.
        (17, -1, "'\\x00'::bytea", None),
        (90_003, -1, "5", None),
        (790, -1, "'1.00'::money", None),
        (1007, -1, "'{}'::integer[]", None),
    ] {
        for not_null in [false, true] {
            let field = schema_of(&plan(oid, type_modifier, not_null, Some(sql)));
            let found = field.get("default").filter(|default| !default.is_null());
            assert_eq!(found, expected.as_ref(), "{sql}");
            let of = &field["type"];
            match (not_null, &expected) {
                (true, Some(expected)) => assert_eq!(of["connect.default"], *expected, "{sql}"),
                (true, None) => assert!(!of.is_array(), "{sql}"),
                (false, Some(expected)) => {
                    assert_eq!((&of[0]["connect.default"], &of[1]), (expected, &json!("null")));
                }
                (false, None) => assert_eq!(of[0], "null", "{sql}"),
            }
        }
    }
}

#[test]
fn a_default_does_not_change_what_a_row_says() {
    let plan = plan(23, -1, false, Some("7"));
    assert_eq!(value_of(&plan, Field::Null), Value::Null);
    assert_eq!(value_of(&plan, Field::Text(b"8")), json!(8));
}

#[test]
fn a_required_column_that_an_old_key_does_not_carry_has_its_default_or_zero() {
    let numeric = modifier(10, 2);
    let point = json!({
        "x": 0.0, "y": 0.0, "srid": null,
        "wkb": { "bytes": "010100000000000000000000000000000000000000" },
    });
    for (oid, type_modifier, default, expected) in [
        (23, -1, Some("7"), json!(7)),
        (23, -1, None, json!(0)),
        (16, -1, None, json!(false)),
        (25, -1, None, json!("")),
        (701, -1, None, json!(0.0)),
        (1700, numeric, None, json!({ "decimal": "0.00" })),
        (1700, -1, None, json!({ "scale": 0, "value": { "bytes": "00" } })),
        (1184, -1, None, json!("1970-01-01T00:00:00Z")),
        (1184, -1, Some("now()"), json!("1970-01-01T00:00:00.000000Z")),
        (1266, -1, None, json!("00:00:00Z")),
        (2950, -1, None, json!("")),
        (17, -1, None, json!({ "bytes": "" })),
        (1007, -1, None, json!([])),
        (600, -1, None, point),
        (90_009, -1, None, json!({ "wkb": { "bytes": "010700000000000000" }, "srid": null })),
    ] {
        let plan = plan(oid, type_modifier, true, default);
        let old = TupleBuf::new([Field::Text(b"1"), Field::Null]);
        let delete = read(&plan, &Record::Delete(OldTuple::Key(old.tuple())));
        assert_eq!(delete["before"]["v"], expected, "{oid}");
        // In a row that is there, a missing value is an error and never invented.
        let record = Record::Create { old: None, new: old.tuple() };
        let error = plan.encode(&record, &meta(), &mut Notes::new(), &mut Vec::new()).unwrap_err();
        assert_eq!((error.column.as_deref(), error.problem), (Some("v"), Problem::Null));
    }
}

#[test]
fn a_value_that_was_not_sent_is_marked_as_its_type_allows() {
    let bytes: Vec<i64> = MARK.bytes().map(i64::from).collect();
    let hex: String = MARK.bytes().map(|byte| format!("{byte:02x}")).collect();
    for (oid, expected) in [
        (25, json!(MARK)),
        (3802, json!(MARK)),
        (142, json!(MARK)),
        (17, json!({ "bytes": hex })),
        (90_004, json!(format!("{{\"{MARK}\":\"{MARK}\"}}"))),
        (1009, json!([MARK])),
        (1001, json!([{ "bytes": hex }])),
        (1007, json!(bytes)),
        (1016, json!(bytes)),
        (1182, json!(bytes)),
        (2951, json!(["b68a35a7-17ad-35b3-af2a-ae46edb4545a"])),
        // Debezium has none that fits.
        (1700, Value::Null),
        (1231, Value::Null),
    ] {
        let plan = plan(oid, -1, false, None);
        assert_eq!(value_of(&plan, Field::Unchanged), expected, "{oid}");
        let row = TupleBuf::new([Field::Text(b"1"), Field::Unchanged]);
        let mut notes = Notes::new();
        let record = Record::Update { old: None, new: row.tuple() };
        plan.encode(&record, &meta(), &mut notes, &mut Vec::new()).unwrap();
        assert_eq!(notes.unchanged().collect::<Vec<_>>(), [1], "it is told beside the record too");
    }
}

#[test]
fn special_values_are_debeziums() {
    for (oid, type_modifier, text, expected) in [
        (1114, -1, "infinity", json!(9_223_372_036_825_200_000_i64)),
        (1114, -1, "-infinity", json!(-9_223_372_036_832_400_000_i64)),
        (1114, 3, "infinity", json!(9_223_372_036_825_200_i64)),
        // Too far for microseconds.
        (1114, 3, "294276-12-31 23:59:59.999", json!(9_224_318_015_999_999_i64)),
        (1114, 3, "1969-12-31 23:59:59.999", json!(-1)),
        (1184, -1, "-infinity", json!("-infinity")),
        (1083, -1, "24:00:00", json!(86_400_000_000_i64)),
        (1083, 3, "24:00:00", json!(86_400_000)),
        (1082, -1, "infinity", json!(-2_147_472_692)),
        (700, -1, "NaN", json!({ "float": "nan" })),
        (1700, -1, "1.10", json!({ "scale": 1, "value": { "bytes": "0b" } })),
        (1700, -1, "1000", json!({ "scale": 0, "value": { "bytes": "03e8" } })),
        (90_002, -1, "{sad,ok}", json!(["sad", "ok"])),
        (90_006, -1, "[1.1,-2]", json!([1.1, -2.0])),
        (90_007, -1, "[1.5,2]", json!([1.5, 2.0])),
        (
            90_008,
            -1,
            "{1:1.1,3:2}/5",
            json!({
                "dimensions": 5,
                "vector": [{ "key": 1, "value": 1.1 }, { "key": 3, "value": 2.0 }],
            }),
        ),
        (
            90_005,
            -1,
            "0101000020E6100000000000000000F03F0000000000000040",
            json!({
                "wkb": { "bytes": "0101000020e6100000000000000000f03f0000000000000040" },
                "srid": 4326,
            }),
        ),
        (3220, -1, "16/B374D848", json!("16/B374D848")),
    ] {
        let plan = plan(oid, type_modifier, false, None);
        assert_eq!(value_of(&plan, Field::Text(text.as_bytes())), expected, "{oid} {text}");
    }
}

#[test]
fn what_the_schema_cannot_hold_is_null_and_told_and_in_a_required_column_an_error() {
    for (oid, type_modifier, text) in [
        (1700, modifier(10, 2), "NaN"),
        (1700, -1, "Infinity"),
        (1186, -1, "infinity"),
        (90_002, -1, "{sad,NULL}"),
    ] {
        let row = TupleBuf::new([Field::Text(b"1"), Field::Text(text.as_bytes())]);
        let record = Record::Create { old: None, new: row.tuple() };
        let mut notes = Notes::new();
        let nullable = plan(oid, type_modifier, false, None);
        let mut value = Vec::new();
        nullable.encode(&record, &meta(), &mut notes, &mut value).unwrap();
        assert_eq!(reader::read(nullable.value_schema(), &value)["after"]["v"], Value::Null);
        assert_eq!(notes.unrepresentable().collect::<Vec<_>>(), [("after.v", text)]);
        let required = plan(oid, type_modifier, true, None);
        let error = required.encode(&record, &meta(), &mut notes, &mut value).unwrap_err();
        assert_eq!(error.problem, Problem::Unrepresentable);
    }
}

#[test]
fn a_vector_and_a_geometry_have_debeziums_schemas() {
    let of = |oid| schema_of(&plan(oid, -1, false, None))["type"][1].clone();
    assert_eq!(
        of(90_006),
        json!({
            "type": "array", "items": "double",
            "connect.version": 1, "connect.name": "io.debezium.data.DoubleVector",
        })
    );
    assert_eq!(of(90_007)["items"], "float");
    assert_eq!(of(90_008)["fields"][1]["type"]["items"]["name"], "MapEntry");
    assert_eq!(
        of(90_005),
        json!({
            "type": "record", "name": "Geometry", "namespace": "io.debezium.data.geometry",
            "fields": [
                { "name": "wkb", "type": "bytes" },
                { "name": "srid", "type": ["null", "int"], "default": null },
            ],
            "connect.doc": "Geometry", "connect.version": 1,
            "connect.name": "io.debezium.data.geometry.Geometry",
        })
    );
    // Its builder makes it optional whatever the column is; that of geography does not.
    assert_eq!(schema_of(&plan(90_009, -1, true, None))["type"]["name"], "Geography");
    assert_eq!(schema_of(&plan(90_005, -1, true, None))["type"][0], "null");
}

#[test]
fn two_columns_that_would_meet_are_refused() {
    let columns = [("id", 23, -1, true), ("a-b", 25, -1, false), ("a b", 25, -1, false)];
    let relation = relation("public", "t", ReplicaIdentity::Default, &columns);
    let compiled = |options| Plan::compile(&relation, &table(&relation), &types(), &options);
    let error = compiled(debezium()).unwrap_err();
    assert_eq!(error.reason, PlanFault::NamesMeet("a-b".to_owned(), "a b".to_owned()));
    assert!(error.to_string().contains("exclude one"), "{error}");
    assert!(compiled(options()).is_ok(), "in the waltide profile they do not meet");
}

#[test]
fn the_source_says_where_in_the_log_and_after_which_commit() {
    let plan = plan(25, -1, false, None);
    let row = TupleBuf::new([Field::Text(b"1"), Field::Null]);
    let record = Record::Create { old: None, new: row.tuple() };
    let mut value = Vec::new();
    let meta = RecordMeta {
        last_commit: Some(Lsn(5)),
        lsn: Lsn(7),
        origin: Some(("elsewhere", Lsn(9))),
        ..meta()
    };
    plan.encode(&record, &meta, &mut Notes::new(), &mut value).unwrap();
    let read = reader::read(plan.value_schema(), &value);
    let source = &read["source"];
    assert_eq!(source["sequence"], "[\"5\",\"7\"]");
    assert_eq!((&source["lsn"], &source["txId"]), (&json!(7), &json!(4_000_000_000_u32)));
    assert_eq!((&source["origin"], &source["origin_lsn"]), (&json!("elsewhere"), &json!(9)));
    assert_eq!(source["ts_us"], json!(1_788_739_200_123_456_i64));
    assert_eq!(source["ts_ms"], json!(1_788_739_200_123_i64));
    assert_eq!(source["ts_ns"], json!(1_788_739_200_123_456_000_i64));
    assert_eq!(read["ts_ms"], json!(1_788_739_200_200_i64));
    assert_eq!(source["connector"], "postgresql");
}
