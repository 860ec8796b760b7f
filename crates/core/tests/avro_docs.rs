//! docs/types.md against the code: its table is what the code does, line by line.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "it is only for tests"
)]

#[path = "avro_fixture/reader.rs"]
mod reader;
#[path = "avro_fixture/recorded.rs"]
mod recorded;

mod avro_fixture;

use std::fmt::Write;
use std::path::Path;

use avro_fixture::{meta, options, relation, table};
use recorded::Recorded;
use serde_json::Value;
use waltide_core::avro::{Envelope, Notes, Options, Plan, Profile, Record};
use waltide_core::catalog::{self, Kind, PgType, Types};
use waltide_core::pgoutput::encode::TupleBuf;
use waltide_core::pgoutput::{Field, ReplicaIdentity};

/// A type, by the name the server gives it, and the value that the page shows.
const SHOWN: [(&str, &str); 92] = [
    ("boolean", "t"),
    ("smallint", "32767"),
    ("integer", "64"),
    ("bigint", "9223372036854775807"),
    ("oid", "4294967295"),
    ("xid", "4294967295"),
    ("cid", "7"),
    ("xid8", "5000000000"),
    ("real", "1.5"),
    ("double precision", "0.1"),
    ("numeric(10,2)", "10.50"),
    ("numeric(5,-2)", "123500"),
    ("numeric(3,5)", "0.00999"),
    ("numeric", "12345.6789"),
    ("money", "-$1,234,567.89"),
    ("text", "plain"),
    ("character varying(20)", "vc "),
    ("character(5)", "ab   "),
    ("name", "nm"),
    ("\"char\"", "a"),
    ("citext", "CiText"),
    ("bytea", "\\x00ff10"),
    ("bit(1)", "1"),
    ("bit(9)", "101000001"),
    ("bit varying", "110"),
    ("date", "2016-11-04"),
    ("time without time zone", "13:51:30.123456"),
    ("time(3) without time zone", "13:51:30.123"),
    ("time with time zone", "13:51:30.123789+02"),
    ("timestamp without time zone", "2016-11-04 13:51:30.123456"),
    ("timestamp(3) without time zone", "2016-11-04 13:51:30.123"),
    ("timestamp with time zone", "2016-11-04 11:51:30.123456+00"),
    ("interval", "1 year 2 mons 3 days 04:05:06.78"),
    ("uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("json", "{\"k\": [1, null]}"),
    ("jsonb", "{\"k\": [1, null]}"),
    ("jsonpath", "$.\"a\"[*]?(@.\"b\" > 1)"),
    ("xml", "<a>1</a>"),
    ("inet", "10.1.2.3/8"),
    ("cidr", "2001:db8::/32"),
    ("macaddr", "08:00:2b:01:02:03"),
    ("macaddr8", "08:00:2b:01:02:03:04:05"),
    ("point", "(1,2.5)"),
    ("line", "{1,-1,0}"),
    ("lseg", "[(0,0),(1,1.5)]"),
    ("box", "(1,1),(0,0)"),
    ("path", "[(0,0),(1,1),(2,0)]"),
    ("polygon", "((0,0),(1,1),(1,0))"),
    ("circle", "<(1,2),3.5>"),
    ("tsvector", "'a':1A,2B,3C,4 'b c':5 'it''s' 'x\\\\y'"),
    ("tsquery", "'fat' & ( 'cat':*AB | !'dog' )"),
    ("pg_lsn", "16/B374D848"),
    ("pg_snapshot", "10:20:10,14,15"),
    ("txid_snapshot", "10:20:10,14,15"),
    ("tid", "(0,1)"),
    ("regclass", "1259"),
    ("int2vector", "1 2 3"),
    ("oidvector", "1 4294967295"),
    ("aclitem", "postgres=arwdDxt/postgres"),
    ("mood", "in between"),
    ("positive", "5"),
    ("price", "12.345"),
    ("prices", "{1.500,NULL,2.000}"),
    ("address", "(\"High St. \"\"1\"\"\",12345,\"(1,2.5)\",10.50,\"2020-01-01 00:00:00+00\")"),
    ("integer[]", "{1,NULL,3}"),
    ("numeric(10,2)[]", "{1.10,NULL,NaN}"),
    ("mood[]", "{sad,happy,\"in between\",\"ünï\\\"x\"}"),
    ("address[]", "{\"(\\\"a b\\\",,,,)\",NULL}"),
    ("int4range", "[1,5)"),
    ("int8range", "[1,9223372036854775807)"),
    ("numrange", "[1.5,2.50]"),
    ("tsrange", "[\"2020-01-01 00:00:00\",\"2020-02-01 12:30:00\")"),
    ("tstzrange", "[\"2020-01-01 00:00:00+00\",\"2020-01-31 22:00:00+00\")"),
    ("daterange", "[2020-01-01,2020-02-01)"),
    ("floatrange", "(0.1,1e+20)"),
    ("int4multirange", "{[1,3),[5,)}"),
    ("hstore", "\"k\"=>\"v\", \"n\"=>NULL"),
    ("ltree", "Top.Science"),
    ("lquery", "*.a|b*{1,2}"),
    ("ltxtquery", "a & b*"),
    ("isbn", "0-393-04002-X"),
    ("ean13", "978-0-393-04002-9"),
    ("cube", "(1, 2),(3, 4.5)"),
    ("seg", "1.5 .. 2.5"),
    ("vector", "[1.1,-2]"),
    ("halfvec", "[1.5,2]"),
    ("sparsevec", "{1:1.5,3:2}/5"),
    ("geometry", "0101000020E6100000000000000000F03F0000000000000040"),
    ("geography", "0101000020E6100000000000000000F03F0000000000000040"),
    ("(unknown, binary)", "\\x010203"),
    ("(unknown, text only)", "as it comes"),
    ("refcursor", "c1"),
];

/// The types that are not in the recording.
fn others(types: &mut Types) -> Vec<Recorded> {
    let mut insert = |oid, name: &str, has_send, extension: Option<&str>| {
        types.insert(PgType {
            oid,
            schema: "public".to_owned(),
            name: name.to_owned(),
            kind: Kind::Base,
            has_send,
            extension: extension.map(str::to_owned),
        });
    };
    insert(90_001, "vector", true, Some("vector"));
    insert(90_002, "halfvec", true, Some("vector"));
    insert(90_003, "sparsevec", true, Some("vector"));
    insert(90_004, "geometry", true, Some("postgis"));
    insert(90_005, "geography", true, Some("postgis"));
    insert(90_006, "mystery", true, None);
    insert(90_007, "mystery_text", false, None);
    let oids = [
        ("vector", 90_001),
        ("halfvec", 90_002),
        ("sparsevec", 90_003),
        ("geometry", 90_004),
        ("geography", 90_005),
        ("(unknown, binary)", 90_006),
        ("(unknown, text only)", 90_007),
        ("regclass", 2205),
        ("refcursor", 1790),
    ];
    let of = |(name, oid): &(&str, u32)| {
        let (_, text) = SHOWN.iter().find(|(shown, _)| shown == name).unwrap();
        Recorded {
            type_name: (*name).to_owned(),
            oid: *oid,
            modifier: -1,
            text: (*text).to_owned(),
            binary: (*oid == 90_006).then(|| vec![1, 2, 3]),
        }
    };
    oids.iter().map(of).collect()
}

/// A schema on one line: `array<decimal(10,2)?>`, where `?` stands for a union with null.
fn short(schema: &Value) -> String {
    match schema {
        Value::String(name) => name.rsplit('.').next().unwrap().to_owned(),
        Value::Array(branches) => {
            format!("{}?", short(branches.iter().find(|branch| **branch != "null").unwrap()))
        }
        of => {
            let logical = of.get("logicalType").and_then(Value::as_str);
            let connect = of.get("connect.name").and_then(Value::as_str);
            let base = match (of["type"].as_str().unwrap(), logical) {
                (_, Some("decimal")) => format!("decimal({},{})", of["precision"], of["scale"]),
                (primitive, Some(logical)) => format!("{primitive} {logical}"),
                ("array", _) => format!("array<{}>", short(&of["items"])),
                ("map", _) => format!("map<{}>", short(&of["values"])),
                ("record", _) => {
                    let fields = of["fields"].as_array().unwrap().iter();
                    let fields: Vec<String> = fields
                        .map(|f| format!("{} {}", f["name"].as_str().unwrap(), short(&f["type"])))
                        .collect();
                    format!("{}{{{}}}", of["name"].as_str().unwrap(), fields.join(", "))
                }
                (primitive, None) => primitive.to_owned(),
            };
            let connect = connect
                .filter(|_| of["type"] != "record")
                .and_then(|name| name.strip_prefix("io.debezium."));
            connect
                .map_or(base.clone(), |name| format!("{base} {}", name.rsplit('.').next().unwrap()))
        }
    }
}

/// What a type becomes in one profile: its schema and the value.
fn shown(types: &Types, value: &Recorded, profile: Profile) -> (String, String) {
    let columns = [("id", 23, -1, true), ("v", value.oid, value.modifier, false)];
    let relation = relation("public", "t", ReplicaIdentity::Default, &columns);
    let options = Options { profile, envelope: Envelope::Flat, ..options() };
    let plan = Plan::compile(&relation, &table(&relation), types, &options).unwrap();
    let field = match &value.binary {
        Some(bytes) => Field::Binary(bytes),
        None => Field::Text(value.text.as_bytes()),
    };
    let row = TupleBuf::new([Field::Text(b"1"), field]);
    let (mut out, mut notes) = (Vec::new(), Notes::new());
    let record = Record::Create { old: None, new: row.tuple() };
    plan.encode(&record, &meta(), &mut notes, &mut out).unwrap();
    let schema: Value = serde_json::from_str(plan.value_schema()).unwrap();
    let of = schema["fields"][1]["type"].as_array().unwrap();
    let of = of.iter().find(|branch| **branch != "null").unwrap();
    let mut shown = reader::read(plan.value_schema(), &out)["v"].to_string();
    for (path, text) in notes.unrepresentable() {
        write!(shown, "; {path} is {text}").unwrap();
    }
    (short(of), shown)
}

/// The table as the code has it.
fn lines() -> String {
    let (mut types, mut values) = recorded::load();
    values.extend(others(&mut types));
    let mut out = String::new();
    out.push_str("| Postgres | a value | waltide | in it | debezium | in it |\n");
    out.push_str("|---|---|---|---|---|---|\n");
    let cell = |text: &str| format!("`{}`", text.replace('|', "\\|"));
    for (name, text) in SHOWN {
        let same = |value: &&Recorded| value.type_name == name && value.text == text;
        let value = values.iter().find(same).unwrap_or_else(|| panic!("{name} {text}"));
        let [ours, theirs] = [Profile::Waltide, Profile::Debezium].map(|p| shown(&types, value, p));
        let cells = [name, text, &ours.0, &ours.1, &theirs.0, &theirs.1].map(cell);
        writeln!(out, "| {} |", cells.join(" | ")).unwrap();
    }
    out
}

#[test]
fn the_page_shows_what_the_code_does() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/types.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once("<!-- types -->\n").unwrap();
    let (table, after) = rest.split_once("<!-- /types -->").unwrap();
    let lines = lines();
    #[expect(clippy::disallowed_methods, reason = "the test is asked to write, not core")]
    let write = std::env::var("WALTIDE_BLESS").is_ok();
    if write {
        std::fs::write(path, format!("{before}<!-- types -->\n{lines}<!-- /types -->{after}"))
            .unwrap();
    } else {
        assert_eq!(table, lines, "WALTIDE_BLESS=1 writes the page's table anew");
    }
}

#[test]
fn every_recorded_type_is_on_the_page_itself_or_as_the_element_of_an_array() {
    let (_, values) = recorded::load();
    for value in values {
        let bare = value.type_name.trim_end_matches("[]");
        let bare = bare.split('(').next().unwrap().trim();
        // Made of what is on the page.
        let made = ["person", "one", "home"].contains(&bare) || bare.ends_with("multirange");
        let on_it = SHOWN.iter().any(|(name, _)| name.starts_with(bare) || bare.starts_with(name));
        assert!(on_it || made, "{bare}");
    }
}
