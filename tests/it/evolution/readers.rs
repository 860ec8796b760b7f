//! A reader that holds the first schema of a table, and is not ours, reads what every change wrote
//! that the registry took.

use waltide_stack::serde_json::{Value, json};
use waltide_stack::{Database, Stack, Version, eventually};

use crate::python::read_with_first_schema;
use crate::support::{Daemon, Pipeline, SOON};

/// Changes that readers in both directions follow, and a row after each.
const FOLLOWED: [&str; 16] = [
    "INSERT INTO orders VALUES (1, 'tea', 2, 1.50, 'fine')",
    "ALTER TABLE orders ADD pieces int DEFAULT 7",
    "INSERT INTO orders VALUES (2, 'milk', NULL, 2, 'fine', 3)",
    "ALTER TABLE orders DROP COLUMN weight",
    "UPDATE orders SET item = 'oat milk' WHERE id = 2",
    "ALTER TYPE mood ADD VALUE 'sad'",
    "INSERT INTO orders VALUES (3, 'rice', 3, 'sad', 4)",
    "ALTER TABLE orders ALTER item TYPE varchar(50)",
    "DELETE FROM orders WHERE id = 1",
    "ALTER TABLE orders REPLICA IDENTITY FULL",
    "UPDATE orders SET pieces = 5 WHERE id = 3",
    "ALTER TABLE orders DROP COLUMN pieces, ADD note text, ADD ref uuid DEFAULT gen_random_uuid()",
    "INSERT INTO orders VALUES (4, NULL, 4, NULL, 'n')",
    "ALTER TABLE orders ADD number int GENERATED ALWAYS AS IDENTITY",
    "INSERT INTO orders VALUES (5, 'figs', 5, 'fine', 'n')",
    "TRUNCATE orders",
];

/// And those that they do not.
const REFUSED: [&str; 3] = [
    "ALTER TABLE orders ALTER item TYPE int USING 1",
    "ALTER TABLE orders RENAME id TO number",
    "ALTER TABLE orders ALTER id TYPE bigint",
];

fn shop(test: &str) -> Database {
    let shop = Stack::shared().database(Version::NEWEST, test);
    shop.execute(
        "CREATE TYPE mood AS ENUM ('fine');
         CREATE TABLE orders (id int PRIMARY KEY, item text, weight int, price numeric(9,2), mood mood)",
    );
    shop
}

/// A pipeline whose readers must be able to follow in both directions, after its first row.
fn started<'a>(shop: &'a Database, profile: &str) -> (Pipeline<'a>, Daemon) {
    let pipeline = Pipeline::of(shop).with("kafka.partitions", 1).with("profile", profile);
    let daemon = pipeline.start();
    shop.execute(FOLLOWED[0]);
    pipeline.wait_until_delivered();
    let topic = pipeline.topic("public.orders");
    for half in ["key", "value"] {
        let subject = format!("{}-{half}", topic.name());
        Stack::shared().registry().set_compatibility(&subject, "FULL_TRANSITIVE");
    }
    (pipeline, daemon)
}

/// What the reader sees of each record: the operation, and the columns that it knows.
fn seen(pipeline: &Pipeline<'_>) -> Vec<String> {
    let records = read_with_first_schema(pipeline, "public.orders");
    let values = records.iter().map(|record| &record["value"]).filter(|value| !value.is_null());
    values.map(|value| format!("{} {}", told(&value["op"]), told(&value["after"]))).collect()
}

/// Without what Python adds to say of which type a number is, with columns by name.
fn told(value: &Value) -> String {
    let Some(row) = value.as_object() else { return value.as_str().unwrap_or("-").to_owned() };
    let mut columns: Vec<String> = row
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| {
            let plain = value.get("Decimal").unwrap_or(value);
            format!("{name}={}", plain.to_string().trim_matches('"'))
        })
        .collect();
    columns.sort();
    columns.join(" ")
}

const SEEN: [&str; 8] = [
    "c id=1 item=tea mood=fine price=1.50 weight=2",
    "c id=2 item=milk mood=fine price=2.00",
    "u id=2 item=oat milk mood=fine price=2.00",
    "c id=3 item=rice mood=sad price=3.00",
    "d -",
    "u id=3 item=rice mood=sad price=3.00",
    "c id=4 price=4.00",
    "c id=5 item=figs mood=fine price=5.00",
];

fn reads_what_followed(profile: &str) {
    let shop = shop(&format!("first schema {profile}"));
    let (pipeline, daemon) = started(&shop, profile);
    FOLLOWED[1..].iter().for_each(|sql| shop.execute(sql));
    let mut seen = seen(&pipeline);
    assert_eq!(seen.pop().as_deref(), Some("t -"));
    assert_eq!(seen, SEEN);
    let errors = daemon.events().into_iter().filter(|event| event["level"] == "ERROR").count();
    assert_eq!(errors, 0, "{}", daemon.log());
    daemon.terminate();
}

#[test]
fn a_reader_with_the_first_schema_reads_what_every_compatible_change_wrote() {
    reads_what_followed("waltide");
}

#[test]
fn a_reader_with_the_first_schema_of_the_debezium_profile_does_so_too() {
    reads_what_followed("debezium");
}

/// Nothing that such a reader could not read gets past the registry.
#[test]
fn what_a_reader_with_the_first_schema_could_not_read_is_not_published() {
    for (number, change) in REFUSED.iter().enumerate() {
        let shop = shop(&format!("first schema refused {number}"));
        let (pipeline, daemon) = started(&shop, "waltide");
        shop.execute(change);
        shop.execute("UPDATE orders SET price = 3");
        let told = eventually("the change is refused", SOON, || {
            let status = daemon.status();
            (status["error"]["code"] == "WT403").then(|| status["error"]["what"].clone())
        });
        assert!(told.to_string().contains("table public.orders has changed"), "{told}");
        let topic = pipeline.topic("public.orders");
        let records = topic.read_json();
        assert_eq!(records.len(), 1, "{change}: {records:?}");
        assert_eq!(records[0].value["after"]["id"], json!(1));
        daemon.terminate();
    }
}
