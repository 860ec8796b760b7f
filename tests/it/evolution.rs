//! Tables change their shape while changes flow.

mod kinds;
mod readers;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use waltide_stack::serde_json::{self, Value, json};
use waltide_stack::{Database, Stack, Version};

use crate::support::{
    Change, Op, Pipeline, Random, Table, assert_each_once_and_in_order, assert_table_is,
    assert_transactions_are_whole, on_each_version,
};

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

/// The rows as they are after each record, as text with columns by name.
#[track_caller]
fn rows(pipeline: &Pipeline<'_>, table: &str) -> Vec<String> {
    let by_name = |change: &Change| {
        let row = change.after.clone().map(|row| row.into_iter().collect::<BTreeMap<_, _>>());
        serde_json::to_string(&row).expect("JSON")
    };
    delivered(pipeline, table).iter().map(by_name).collect()
}

/// One statement at a time: several in one string are one transaction.
fn each(shop: &Database, statements: &[&str]) {
    statements.iter().for_each(|sql| shop.execute(sql));
}

on_each_version! {
    columns_come_go_and_change_while_rows_flow
    rows_before_and_after_a_change_of_columns_share_a_transaction
    rows_of_tables_that_are_gone_meanwhile_still_arrive
    keys_come_go_and_change_while_rows_flow
    no_row_is_lost_invented_or_repeated_while_the_table_changes
}

fn columns_come_go_and_change_while_rows_flow(version: Version) {
    let shop = Stack::shared().database(version, "columns");
    shop.execute("CREATE TABLE orders (id int PRIMARY KEY, item text)");
    let pipeline = Pipeline::of(&shop);
    let daemon = pipeline.start();
    each(
        &shop,
        &[
            "INSERT INTO orders VALUES (1, 'tea')",
            "ALTER TABLE orders ADD COLUMN pieces smallint DEFAULT 7",
            "INSERT INTO orders VALUES (2, 'milk', 2)",
            "UPDATE orders SET item = 'green tea' WHERE id = 1",
            "ALTER TABLE orders ALTER pieces TYPE bigint",
            "INSERT INTO orders VALUES (3, 'rice', 5000000000)",
            "ALTER TABLE orders RENAME item TO what",
            "INSERT INTO orders VALUES (4, 'salt', NULL)",
            "ALTER TABLE orders ALTER pieces TYPE text",
            "INSERT INTO orders VALUES (5, 'figs', 'many')",
            "ALTER TABLE orders DROP COLUMN what",
            "INSERT INTO orders VALUES (6, 'few')",
        ],
    );
    assert_eq!(
        rows(&pipeline, "public.orders"),
        [
            r#"{"id":1,"item":"tea"}"#,
            r#"{"id":2,"item":"milk","pieces":2}"#,
            r#"{"id":1,"item":"green tea","pieces":7}"#,
            r#"{"id":3,"item":"rice","pieces":5000000000}"#,
            r#"{"id":4,"pieces":null,"what":"salt"}"#,
            r#"{"id":5,"pieces":"many","what":"figs"}"#,
            r#"{"id":6,"pieces":"few"}"#,
        ]
    );
    assert_eq!(daemon.status()["retries"], 0, "no change of columns may end the connection");
    daemon.terminate();
}

fn rows_before_and_after_a_change_of_columns_share_a_transaction(version: Version) {
    let shop = Stack::shared().database(version, "one transaction");
    shop.execute("CREATE TABLE orders (id int PRIMARY KEY, item text)");
    let pipeline = Pipeline::of(&shop);
    let daemon = pipeline.start();
    shop.execute(
        "BEGIN; INSERT INTO orders VALUES (1, 'tea');
         ALTER TABLE orders DROP COLUMN item, ADD COLUMN pieces int NOT NULL DEFAULT 0;
         INSERT INTO orders VALUES (2, 2);
         SAVEPOINT s; ALTER TABLE orders ADD COLUMN lost int; INSERT INTO orders VALUES (3, 3, 3);
         ROLLBACK TO s; INSERT INTO orders VALUES (4, 4); COMMIT",
    );
    assert_eq!(
        rows(&pipeline, "public.orders"),
        [r#"{"id":1,"item":"tea"}"#, r#"{"id":2,"pieces":2}"#, r#"{"id":4,"pieces":4}"#]
    );
    daemon.terminate();
}

fn rows_of_tables_that_are_gone_meanwhile_still_arrive(version: Version) {
    let shop = Stack::shared().database(version, "gone meanwhile");
    shop.execute(
        "CREATE TABLE orders (a text, id int PRIMARY KEY, b text);
         CREATE TABLE gone (n int, id bigint PRIMARY KEY)",
    );
    let pipeline = Pipeline::of(&shop);
    pipeline.start().terminate();
    each(
        &shop,
        &[
            "INSERT INTO orders VALUES ('a1', 1, 'b1')",
            "INSERT INTO gone VALUES (1, 10)",
            "UPDATE gone SET id = 11",
            "DROP TABLE gone",
            "ALTER TABLE orders DROP COLUMN a",
            "ALTER TABLE orders RENAME b TO a",
            "INSERT INTO orders VALUES (2, 'was b')",
        ],
    );
    let daemon = pipeline.start();
    assert_eq!(
        rows(&pipeline, "public.orders"),
        [r#"{"a":"a1","b":"b1","id":1}"#, r#"{"a":"was b","id":2}"#]
    );
    assert_eq!(
        rows(&pipeline, "public.gone"),
        [r#"{"id":10,"n":1}"#, "null", "null", r#"{"id":11,"n":1}"#]
    );
    daemon.terminate();
}

fn keys_come_go_and_change_while_rows_flow(version: Version) {
    let shop = Stack::shared().database(version, "keys");
    shop.execute(
        "CREATE TABLE orders (id int NOT NULL, code text NOT NULL);
         ALTER TABLE orders REPLICA IDENTITY FULL",
    );
    let pipeline = Pipeline::of(&shop);
    let daemon = pipeline.start();
    // A whole old row does not say what its key was: that is the catalog's key of now.
    for sql in [
        "INSERT INTO orders VALUES (1, 'a')",
        "ALTER TABLE orders ADD PRIMARY KEY (id)",
        "UPDATE orders SET code = 'b'",
        "ALTER TABLE orders REPLICA IDENTITY DEFAULT",
        "UPDATE orders SET code = 'c'",
        "CREATE UNIQUE INDEX by_code ON orders (code)",
        "ALTER TABLE orders REPLICA IDENTITY USING INDEX by_code",
        "UPDATE orders SET id = 2",
        "ALTER TABLE orders DROP CONSTRAINT orders_pkey, REPLICA IDENTITY FULL",
        "UPDATE orders SET id = 3",
        "DELETE FROM orders",
    ] {
        shop.execute(sql);
        pipeline.wait_until_delivered();
    }
    let records = delivered(&pipeline, "public.orders");
    let told: Vec<_> = records
        .iter()
        .map(|change| (change.op, row(change).1, change.before.clone().map(Value::Object)))
        .collect();
    let (by_id, by_code) = (json!({"id": 1}), json!({"code": "c"}));
    assert_eq!(
        told,
        [
            (Op::Create, Value::Null, None),
            (Op::Update, by_id.clone(), Some(json!({"id": 1, "code": "a"}))),
            (Op::Update, by_id, None),
            (Op::Update, by_code, None),
            (Op::Update, Value::Null, Some(json!({"id": 2, "code": "c"}))),
            (Op::Delete, Value::Null, Some(json!({"id": 3, "code": "c"}))),
        ]
    );
    assert_eq!(daemon.status()["retries"], 0, "no change of keys may end the connection");
    daemon.terminate();
}

/// What the table goes through, over and over, while rows flow. One column keeps its value under
/// two names and four types.
const CHANGES: &[&str] = &[
    "ALTER TABLE orders ADD COLUMN extra int DEFAULT 5",
    "ALTER TABLE orders ALTER mark TYPE bigint",
    "ALTER TABLE orders RENAME mark TO sign",
    "ALTER TABLE orders REPLICA IDENTITY FULL",
    "ALTER TABLE orders DROP COLUMN extra",
    "ALTER TABLE orders ALTER sign TYPE numeric",
    "ALTER TABLE orders REPLICA IDENTITY DEFAULT",
    "ALTER TABLE orders ALTER sign TYPE text",
    "ALTER TABLE orders RENAME sign TO mark",
    "ALTER TABLE orders ALTER mark TYPE int USING mark::int",
];

/// Rows that are written meanwhile.
const ROWS: u64 = 400;

fn no_row_is_lost_invented_or_repeated_while_the_table_changes(version: Version) {
    let shop = Stack::shared().database(version, "under change");
    shop.execute("CREATE TABLE orders (id int PRIMARY KEY, mark int)");
    let pipeline = Pipeline::of(&shop);
    let daemon = pipeline.start();
    let mut random = Random::from_environment(&format!("a table under change on {version}"));
    let done = AtomicBool::new(false);
    let changed = std::thread::scope(|scope| {
        let changing = scope.spawn(|| {
            let session = shop.session();
            let wanted = |_: &&&str| !done.load(Ordering::Relaxed);
            CHANGES.iter().cycle().take_while(wanted).map(|change| session.execute(change)).count()
        });
        let session = shop.session();
        for id in 0..ROWS {
            // With the second one, rows of one transaction may be written around a change.
            let twice = random.once_in(3);
            session.execute("BEGIN");
            session.execute(&format!("INSERT INTO orders VALUES ({id}, {})", id * 7));
            if twice {
                session.execute("SAVEPOINT s; DELETE FROM orders; ROLLBACK TO s");
                session.execute(&format!("UPDATE orders SET id = -id - 1 WHERE id = {id}"));
            }
            session.execute("COMMIT");
        }
        done.store(true, Ordering::Relaxed);
        changing.join().expect("changes of the table")
    });
    assert!(changed > CHANGES.len(), "{changed} changes of the table are too few");
    let changes = delivered(&pipeline, "public.orders");
    assert_each_once_and_in_order(&changes);
    assert_eq!(daemon.status()["retries"], 0, "no change of the table may end the connection");
    daemon.terminate();
    let mut marks = BTreeMap::new();
    for change in changes.iter().filter(|change| change.op == Op::Create) {
        let row = change.after.as_ref().expect("a row");
        let names: Vec<&str> =
            row.keys().map(String::as_str).filter(|it| !["id", "extra"].contains(it)).collect();
        assert!(["mark", "sign"].map(|name| vec![name]).contains(&names), "{row:?}");
        let mark = row[names[0]].to_string().trim_matches('"').to_owned();
        let id = row["id"].as_i64().expect("an id");
        assert_eq!(marks.insert(id, mark.clone()), None, "created twice: {row:?}");
        let id = if id < 0 { -id - 1 } else { id };
        assert_eq!(mark, (id * 7).to_string(), "{row:?}");
    }
    let moved = marks.keys().filter(|id| **id < 0).count();
    let created = usize::try_from(ROWS).expect("a number") + moved;
    assert_eq!(marks.len(), created, "every row once, and once more where its key changed");
    let left: Vec<String> = Table::fold(&changes).rows().map(|row| row["id"].to_string()).collect();
    let expected = shop.value("SELECT string_agg(id::text, ' ') FROM orders");
    let [mut left, mut expected] =
        [left, expected.split(' ').map(str::to_owned).collect::<Vec<_>>()];
    left.sort_unstable();
    expected.sort_unstable();
    assert_eq!(left, expected);
}

#[test]
fn a_partition_attached_while_rows_flow_is_seen_as_the_table_above_it() {
    let shop = database("partitions");
    shop.execute(
        "CREATE TABLE readings (region int, id int, value text, PRIMARY KEY (region, id))
           PARTITION BY LIST (region);
         CREATE TABLE readings_1 PARTITION OF readings FOR VALUES IN (1);",
    );
    let pipeline = Pipeline::of(&shop);
    let daemon = pipeline.start();
    each(
        &shop,
        &[
            "INSERT INTO readings VALUES (1, 1, 'a')",
            "CREATE TABLE readings_2 PARTITION OF readings FOR VALUES IN (2)",
            "INSERT INTO readings VALUES (2, 1, 'b')",
            "UPDATE readings SET region = 2, id = 2 WHERE region = 1",
            "CREATE TABLE readings_3 (value text, id int NOT NULL, region int NOT NULL)",
            "ALTER TABLE readings ATTACH PARTITION readings_3 FOR VALUES IN (3)",
            "INSERT INTO readings VALUES (3, 1, 'c')",
        ],
    );
    let changes = delivered(&pipeline, "public.readings");
    assert_each_once_and_in_order(&changes);
    assert_table_is(&shop.session(), "readings", &Table::fold(&changes));
    let topics = Stack::shared().kafka().topics();
    let tables = format!("{}.public.", pipeline.name());
    let ours: Vec<&String> = topics.iter().filter(|topic| topic.starts_with(&tables)).collect();
    assert_eq!(ours, [pipeline.topic("public.readings").name()], "one topic for all partitions");
    daemon.terminate();
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
