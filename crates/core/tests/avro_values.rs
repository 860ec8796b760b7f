//! Values of every type as a real server wrote them: both forms become the same Avro, and an
//! independent reader reads all of it.
#![expect(clippy::unwrap_used, clippy::panic, reason = "it is only for tests")]

#[path = "avro_fixture/reader.rs"]
mod reader;
#[path = "avro_fixture/recorded.rs"]
mod recorded;

mod avro_fixture;

use apache_avro::types::Value;
use avro_fixture::{decode, get, meta, options, relation, table};
use recorded::Recorded;
use waltide_core::avro::{Envelope, Notes, Options, Plan, Profile, Record, Warning, Written};
use waltide_core::catalog::{self, Types};
use waltide_core::pgoutput::encode::TupleBuf;
use waltide_core::pgoutput::{Field, ReplicaIdentity};

/// All that a row can become.
const VARIANTS: [(Profile, Envelope); 4] = [
    (Profile::Waltide, Envelope::Full),
    (Profile::Waltide, Envelope::Flat),
    (Profile::Debezium, Envelope::Full),
    (Profile::Debezium, Envelope::Flat),
];

/// A row's body and all of its notes.
type Encoded = (Vec<u8>, Vec<(String, String)>, Vec<(String, String)>);

fn plan(types: &Types, value: &Recorded, options: &Options) -> Plan {
    let columns = [("id", 23, -1, true), ("v", value.oid, value.modifier, false)];
    let relation = relation("public", "t", ReplicaIdentity::Default, &columns);
    Plan::compile(&relation, &table(&relation), types, options).unwrap()
}

fn encode(plan: &Plan, field: Field<'_>) -> Encoded {
    let row = TupleBuf::new([Field::Text(b"1"), field]);
    let (mut notes, mut out) = (Notes::new(), Vec::new());
    let record = Record::Create { old: None, new: row.tuple() };
    let written = plan.encode(&record, &meta(), &mut notes, &mut out).unwrap();
    assert_eq!(written, Written::Value);
    let owned = |(path, text): (&str, &str)| (path.to_owned(), text.to_owned());
    let unrepresentable = notes.unrepresentable().map(owned).collect();
    (out, unrepresentable, notes.shapes().map(owned).collect())
}

#[test]
fn both_forms_of_every_type_become_the_same_avro() {
    let (types, values) = recorded::load();
    for (profile, envelope) in VARIANTS {
        let options = Options { profile, envelope, ..options() };
        for value in &values {
            let plan = plan(&types, value, &options);
            let text = encode(&plan, Field::Text(value.text.as_bytes()));
            decode(plan.value_schema(), &text.0);
            reader::read(plan.value_schema(), &text.0);
            if let Some(bytes) = &value.binary {
                let binary = encode(&plan, Field::Binary(bytes));
                assert_eq!(binary, text, "{profile:?} {} {}", value.type_name, value.text);
            }
        }
    }
}

#[test]
fn no_type_of_the_recording_is_unknown() {
    let (types, values) = recorded::load();
    for (profile, _) in VARIANTS {
        for value in &values {
            let plan = plan(&types, value, &Options { profile, ..options() });
            assert_eq!(plan.warnings(), [], "{profile:?} {}", value.type_name);
        }
    }
}

/// What became of the recorded value with this type and text.
fn decoded(type_name: &str, text: &str) -> Value {
    let (types, values) = recorded::load();
    let found = values.iter().find(|value| value.type_name == type_name && value.text == text);
    let value = found.unwrap_or_else(|| panic!("{type_name} {text} was not recorded"));
    let plan = plan(&types, value, &options());
    let field = match &value.binary {
        Some(bytes) => Field::Binary(bytes),
        None => Field::Text(value.text.as_bytes()),
    };
    decode(plan.value_schema(), &encode(&plan, field).0)
}

fn text(value: &str) -> Value {
    Value::String(value.to_owned())
}

#[test]
fn an_array_keeps_its_elements_and_an_odd_one_its_bounds() {
    let record = decoded("integer[]", "{1,NULL,3}");
    let Value::Array(items) = get(&record, "after.v") else { panic!() };
    assert_eq!(items.len(), 3);
    assert_eq!(items[1], Value::Union(0, Box::new(Value::Null)));
    assert_eq!(*get(&record, "shapes"), Value::Map(Default::default()));
    let record = decoded("integer[]", "[-1:0][2:3]={{1,2},{3,NULL}}");
    let Value::Array(items) = get(&record, "after.v") else { panic!() };
    assert_eq!(items.len(), 4);
    let Value::Map(shapes) = get(&record, "shapes") else { panic!() };
    assert_eq!(shapes["after.v"], text("[-1:0][2:3]"));
}

#[test]
fn what_has_no_place_deep_inside_is_noted_with_its_path() {
    let record = decoded("address", r#"("","x\\y",,NaN,infinity)"#);
    assert_eq!(*get(&record, "after.v.street"), text(""));
    assert_eq!(*get(&record, "after.v.zip_X2d_code"), text("x\\y"));
    assert_eq!(*get(&record, "after.v.paid"), Value::Null);
    let Value::Map(kept) = get(&record, "unrepresentable") else { panic!() };
    assert_eq!(kept["after.v.paid"], text("NaN"));
    assert_eq!(kept["after.v.due"], text("infinity"));
    let record = decoded("numeric(10,2)[]", "{1.10,NULL,NaN}");
    let Value::Map(kept) = get(&record, "unrepresentable") else { panic!() };
    assert_eq!(kept["after.v[2]"], text("NaN"));
}

#[test]
fn a_range_has_typed_bounds() {
    let shown = "[\"2020-01-01 00:00:00+00\",\"2020-01-31 22:00:00+00\")";
    let record = decoded("tstzrange", shown);
    assert_eq!(*get(&record, "after.v.lower"), Value::TimestampMicros(1_577_836_800_000_000));
    assert_eq!(*get(&record, "after.v.bounds"), text("[)"));
    let record = decoded("int4range", "empty");
    assert_eq!(*get(&record, "after.v.bounds"), text("empty"));
    assert_eq!(*get(&record, "after.v.lower"), Value::Null);
}

#[test]
fn an_interval_keeps_its_three_parts() {
    let record = decoded("interval", "1 year 2 mons 3 days 04:05:06.78");
    assert_eq!(*get(&record, "after.v.months"), Value::Int(14));
    assert_eq!(*get(&record, "after.v.days"), Value::Int(3));
    assert_eq!(*get(&record, "after.v.micros"), Value::Long(14_706_780_000));
}

#[test]
fn a_number_without_a_scale_is_exact_text() {
    assert_eq!(*get(&decoded("numeric", "0.1000"), "after.v"), text("0.1000"));
    assert_eq!(*get(&decoded("numeric", "NaN"), "after.v"), text("NaN"));
    assert_eq!(*get(&decoded("numeric(5,-2)", "123500"), "after.v"), {
        Value::Decimal(vec![0x01, 0xE2, 0x6C].into())
    });
}

#[test]
fn a_type_nobody_knows_is_passed_on_with_a_warning() {
    let (mut types, values) = recorded::load();
    let value = values.into_iter().find(|value| value.type_name == "cube").unwrap();
    let mut unknown = types.get(value.oid).unwrap().clone();
    unknown.extension = None;
    types.insert(unknown.clone());
    let as_bytes = plan(&types, &value, &options());
    let warning = |binary| Warning::OpaqueType {
        column: "v".to_owned(),
        type_name: "public.cube".to_owned(),
        binary,
    };
    assert_eq!(as_bytes.warnings(), [warning(true)]);
    let (body, ..) = encode(&as_bytes, Field::Binary(&[1, 2, 3]));
    let record = decode(as_bytes.value_schema(), &body);
    assert_eq!(*get(&record, "after.v"), Value::Bytes(vec![1, 2, 3]));
    unknown.has_send = false;
    types.insert(unknown);
    let as_text = plan(&types, &value, &options());
    assert_eq!(as_text.warnings(), [warning(false)]);
    let (body, ..) = encode(&as_text, Field::Text(b"(1)"));
    assert_eq!(*get(&decode(as_text.value_schema(), &body), "after.v"), text("(1)"));
}
