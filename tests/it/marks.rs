//! What a row's fields cannot say stands beside them: in the envelope, or else in headers.

use waltide_stack::serde_json::{self, Value, json};
use waltide_stack::{Database, JsonRecord, Stack, Version};

use crate::support::{Pipeline, Position};

const TABLE: &str = "
    CREATE TABLE odd (id int PRIMARY KEY, price numeric(9,2), matrix int[], sizes int[], body text);
    ALTER TABLE odd ALTER sizes SET STORAGE EXTERNAL, ALTER body SET STORAGE EXTERNAL;";

/// A plain row; one with all that is odd; an update that leaves long values alone; a delete.
const ROWS: &str = "
    INSERT INTO odd VALUES (1, 1.5, '{1,2}', '{3}', 'short');
    INSERT INTO odd SELECT 2, 'NaN', '[0:1][1:2]={{1,2},{3,4}}', array_agg(n), repeat('long ', 1000)
      FROM generate_series(1, 2000) n;
    UPDATE odd SET price = 2 WHERE id = 2;
    DELETE FROM odd WHERE id = 2;";

fn database(test: &str) -> Database {
    Stack::shared().database(Version::NEWEST, test)
}

/// All records of a table in the order of their positions.
#[track_caller]
fn delivered(pipeline: &Pipeline<'_>, table: &str) -> Vec<JsonRecord> {
    pipeline.wait_until_delivered();
    let mut records = pipeline.topic(table).read_json();
    records.sort_by_key(Position::of);
    records
}

/// Each record's headers but its position; those of ours as the JSON that they are.
fn headers(records: &[JsonRecord]) -> Vec<Value> {
    let of = |record: &JsonRecord| {
        let mut headers = json!({});
        for (name, _) in record.headers.iter().filter(|(name, _)| name != "waltide.position") {
            let text = record.header(name).expect("a header has a value");
            headers[name] = match name.strip_prefix("waltide.") {
                Some(_) => serde_json::from_str(&text).expect("our headers are JSON"),
                None => text.into(),
            };
        }
        headers
    };
    records.iter().map(of).collect()
}

#[test]
fn a_flat_record_names_in_headers_what_its_row_cannot_say() {
    let shop = database("flat marks");
    shop.execute(TABLE);
    let pipeline = Pipeline::of(&shop).with("envelope", "flat");
    let daemon = pipeline.start();
    shop.execute(ROWS);
    let records = delivered(&pipeline, "public.odd");
    let bounds = json!({"matrix": "[0:1][1:2]"});
    assert_eq!(
        headers(&records),
        [
            json!({}),
            json!({"waltide.unrepresentable": {"price": "NaN"}, "waltide.shapes": bounds}),
            json!({"waltide.unchanged": ["sizes", "body"], "waltide.shapes": bounds}),
            json!({}),
        ]
    );
    assert_eq!(records[1].value["price"], Value::Null);
    assert_eq!(records[1].value["matrix"], json!([1, 2, 3, 4]));
    assert_eq!(
        (&records[2].value["sizes"], &records[2].value["body"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(records[3].value, Value::Null, "a delete is a tombstone");
    daemon.terminate();
}

#[test]
fn a_debezium_record_names_in_headers_what_its_row_cannot_say() {
    let shop = database("debezium marks");
    shop.execute(TABLE);
    let pipeline = Pipeline::of(&shop).with("profile", "debezium");
    let daemon = pipeline.start();
    shop.execute(ROWS);
    let records = delivered(&pipeline, "public.odd");
    let bounds = json!({"after.matrix": "[0:1][1:2]"});
    assert_eq!(
        headers(&records),
        [
            json!({}),
            json!({"waltide.unrepresentable": {"after.price": "NaN"}, "waltide.shapes": bounds}),
            json!({"waltide.unchanged": ["sizes", "body"], "waltide.shapes": bounds}),
            json!({}),
            json!({}),
        ]
    );
    assert_eq!(records[2].value["after"]["body"], "__debezium_unavailable_value");
    daemon.terminate();
}

#[test]
fn the_full_envelope_says_it_itself_and_only_a_tombstone_needs_headers() {
    let shop = database("full marks");
    shop.execute(TABLE);
    shop.execute(
        "CREATE TABLE prices (price numeric(9,2)); ALTER TABLE prices REPLICA IDENTITY FULL;",
    );
    let pipeline =
        Pipeline::of(&shop).with("table_options", json!({ "public.prices": { "key": ["price"] } }));
    let daemon = pipeline.start();
    shop.execute(ROWS);
    shop.execute("INSERT INTO prices VALUES ('NaN'); DELETE FROM prices");
    let records = delivered(&pipeline, "public.odd");
    assert_eq!(headers(&records), vec![json!({}); 5]);
    assert_eq!(records[1].value["unrepresentable"], json!({"after.price": "NaN"}));
    assert_eq!(records[1].value["shapes"], json!({"after.matrix": "[0:1][1:2]"}));
    assert_eq!(records[2].value["unchanged"], json!(["sizes", "body"]));
    let records = delivered(&pipeline, "public.prices");
    let of_key = json!({"waltide.unrepresentable": {"price": "NaN"}});
    assert_eq!(headers(&records), [json!({}), json!({}), of_key]);
    assert_eq!(records[2].key, json!({"price": null}));
    daemon.terminate();
}

#[test]
fn the_records_of_a_changed_key_name_the_other_key_in_the_debezium_profile_alone() {
    for (profile, [new, old]) in [
        ("debezium", ["__debezium.newkey", "__debezium.oldkey"].map(Some)),
        ("waltide", [None, None]),
    ] {
        let shop = database(&format!("changed key in {profile}"));
        shop.execute("CREATE TABLE lines (shop text, no int, PRIMARY KEY (shop, no))");
        let pipeline = Pipeline::of(&shop).with("profile", profile);
        let daemon = pipeline.start();
        shop.execute(
            "INSERT INTO lines VALUES ('a', 1); UPDATE lines SET no = 2; DELETE FROM lines",
        );
        let records = delivered(&pipeline, "public.lines");
        let with = |name: Option<&str>, key: &str| match name {
            Some(name) => json!({ name: key }),
            None => json!({}),
        };
        assert_eq!(
            headers(&records),
            [
                json!({}),
                with(new, "Struct{shop=a,no=2}"),
                with(new, "Struct{shop=a,no=2}"),
                with(old, "Struct{shop=a,no=1}"),
                json!({}),
                json!({}),
            ]
        );
        daemon.terminate();
    }
}
