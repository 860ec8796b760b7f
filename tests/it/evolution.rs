//! Tables change their shape while changes flow.

use waltide_stack::serde_json::{Value, json};
use waltide_stack::{Database, Stack, Version};

use crate::support::{Change, Op, Pipeline, assert_transactions_are_whole};

fn database(test: &str) -> Database {
    Stack::shared().database(Version::NEWEST, test)
}

/// The records of a table in the order of their positions.
#[track_caller]
fn delivered(pipeline: &Pipeline<'_>, table: &str) -> Vec<Change> {
    pipeline.wait_until_delivered();
    let mut changes = pipeline.changes(table);
    changes.sort_by_key(|change| change.position);
    assert_transactions_are_whole(&changes);
    changes
}

/// What a record says of the row as it is, and its key.
fn row(change: &Change) -> (Op, Value, Value) {
    let key = change.key.as_deref().map_or(Value::Null, |key| key.parse().expect("JSON"));
    (change.op, key, change.after.clone().map_or(Value::Null, Value::Object))
}

/// The catalog is as it is now, the rows are as they were.
#[test]
fn rows_from_before_a_column_became_required_still_arrive() {
    let shop = database("before required");
    shop.execute("CREATE TABLE orders (id int PRIMARY KEY, item text, pieces int)");
    let pipeline = Pipeline::of(&shop).with("profile", "debezium");
    pipeline.start().terminate();
    for sql in [
        "INSERT INTO orders VALUES (1, 'tea', 1), (2, NULL, 2), (3, NULL, NULL)",
        "UPDATE orders SET item = 'milk' WHERE item IS NULL",
        "UPDATE orders SET pieces = 0 WHERE pieces IS NULL",
        "ALTER TABLE orders ALTER item SET NOT NULL, ALTER pieces SET NOT NULL",
        "INSERT INTO orders VALUES (4, 'rice', 4)",
    ] {
        shop.execute(sql);
    }
    let daemon = pipeline.start();
    let rows: Vec<Value> =
        delivered(&pipeline, "public.orders").iter().map(|change| row(change).2).collect();
    assert_eq!(
        rows,
        [
            json!({"id": 1, "item": "tea", "pieces": 1}),
            json!({"id": 2, "item": null, "pieces": 2}),
            json!({"id": 3, "item": null, "pieces": null}),
            json!({"id": 2, "item": "milk", "pieces": 2}),
            json!({"id": 3, "item": "milk", "pieces": null}),
            json!({"id": 3, "item": "milk", "pieces": 0}),
            json!({"id": 4, "item": "rice", "pieces": 4}),
        ]
    );
    assert_eq!(daemon.status()["retries"], 0, "no row may end the connection");
    daemon.terminate();
}

#[test]
fn rows_from_before_a_column_became_the_key_arrive_without_one() {
    let shop = database("before the key");
    shop.execute(
        "CREATE TABLE orders (id int, item text); ALTER TABLE orders REPLICA IDENTITY FULL",
    );
    let pipeline = Pipeline::of(&shop);
    pipeline.start().terminate();
    for sql in [
        "INSERT INTO orders VALUES (NULL, 'tea')",
        "UPDATE orders SET id = 1",
        "ALTER TABLE orders ADD PRIMARY KEY (id)",
        "INSERT INTO orders VALUES (2, 'milk')",
    ] {
        shop.execute(sql);
    }
    let daemon = pipeline.start();
    let rows: Vec<_> = delivered(&pipeline, "public.orders").iter().map(row).collect();
    assert_eq!(
        rows,
        [
            (Op::Create, Value::Null, json!({"id": null, "item": "tea"})),
            (Op::Update, Value::Null, json!({"id": 1, "item": "tea"})),
            (Op::Create, json!({"id": 2}), json!({"id": 2, "item": "milk"})),
        ]
    );
    assert_eq!(daemon.status()["retries"], 0, "no row may end the connection");
    daemon.terminate();
}
