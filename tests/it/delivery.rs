//! What each kind of change looks like to a consumer.

use waltide_stack::serde_json::{Value, json};
use waltide_stack::{Database, Stack, Version};

use crate::support::{
    Change, Op, Pipeline, Table, assert_each_once_and_in_order, assert_table_is,
    assert_transactions_are_whole, on_each_version,
};

/// A database of the newest version.
fn database(test: &str) -> Database {
    Stack::shared().database(Version::NEWEST, test)
}

/// All records of a table once everything is delivered, in the order of their positions.
#[track_caller]
fn delivered(pipeline: &Pipeline<'_>, table: &str) -> Vec<Change> {
    pipeline.wait_until_delivered();
    let mut changes = pipeline.changes(table);
    changes.sort_by_key(|change| change.position);
    changes
}

/// What of a change a reader looks at first.
fn brief(change: &Change) -> (u64, u32, Op, Value) {
    let key = change.key.as_deref().map_or(Value::Null, |key| key.parse().expect("JSON"));
    (change.position.ordinal, change.position.sub_index, change.op, key)
}

on_each_version!(a_committed_row_arrives_and_a_rolled_back_one_does_not);

fn a_committed_row_arrives_and_a_rolled_back_one_does_not(version: Version) {
    let shop = Stack::shared().database(version, "a row arrives");
    shop.execute("CREATE TABLE orders (id int PRIMARY KEY, item text)");
    let pipeline = Pipeline::of(&shop);
    let daemon = pipeline.start();
    daemon.wait_ready();
    shop.execute("BEGIN; INSERT INTO orders VALUES (1, 'coffee'); ROLLBACK");
    shop.execute(
        "BEGIN; INSERT INTO orders VALUES (2, 'tea'); SAVEPOINT s;
         INSERT INTO orders VALUES (3, 'milk'); ROLLBACK TO s;
         INSERT INTO orders VALUES (4, 'water'); COMMIT",
    );
    let changes = delivered(&pipeline, "public.orders");
    let briefs: Vec<_> = changes.iter().map(brief).collect();
    assert_eq!(
        briefs,
        [(0, 0, Op::Create, json!({"id": 2})), (1, 0, Op::Create, json!({"id": 4}))]
    );
    assert_eq!(changes[0].before, None);
    assert_eq!(changes[0].after, json!({"id": 2, "item": "tea"}).as_object().cloned());
    daemon.terminate();
}

/// Their rows lie in the log in another order than their commits.
#[test]
fn transactions_that_overlap_arrive_whole_and_in_the_order_of_their_commits() {
    let shop = database("overlap");
    shop.execute("CREATE TABLE orders (id int PRIMARY KEY)");
    let pipeline = Pipeline::of(&shop).with("kafka.partitions", 1);
    let daemon = pipeline.start();
    let (first, second, third) = (shop.session(), shop.session(), shop.session());
    first.execute("BEGIN; INSERT INTO orders VALUES (1)");
    second.execute("BEGIN; INSERT INTO orders VALUES (2)");
    third.execute("BEGIN; INSERT INTO orders VALUES (3); COMMIT");
    first.execute("INSERT INTO orders VALUES (4)");
    second.execute("COMMIT");
    first.execute("INSERT INTO orders VALUES (5); COMMIT");
    pipeline.wait_until_delivered();
    let changes = pipeline.changes("public.orders");
    let ids: Vec<&Value> =
        changes.iter().filter_map(|change| change.after.as_ref()?.get("id")).collect();
    assert_eq!(ids, [3, 2, 1, 4, 5]);
    assert_each_once_and_in_order(&changes);
    assert_transactions_are_whole(&changes);
    daemon.terminate();
}

#[test]
fn a_record_says_when_and_in_which_transaction_it_was_committed() {
    let shop = database("when and in which");
    shop.execute("CREATE TABLE orders (id int PRIMARY KEY)");
    let pipeline = Pipeline::of(&shop);
    let _daemon = pipeline.start();
    let xid = shop.value("INSERT INTO orders VALUES (1) RETURNING pg_current_xact_id()::xid");
    pipeline.wait_until_delivered();
    let records = pipeline.topic("public.orders").read_json();
    let source = &records[0].value["source"];
    assert_eq!(source["xid"].to_string(), xid);
    assert_eq!(source["name"], pipeline.name());
    assert_eq!(source["db"], shop.name());
    assert_eq!((&source["schema"], &source["table"]), (&json!("public"), &json!("orders")));
    let commit_us = records[0].value["ts_us"].as_i64().expect("a time");
    assert_eq!(records[0].timestamp_ms, Some(commit_us.div_euclid(1000)));
    let now_us = shop.value("SELECT (extract(epoch FROM now()) * 1000000)::bigint");
    let age_us = now_us.parse::<i64>().expect("a number") - commit_us;
    assert!((0..60_000_000).contains(&age_us), "committed {age_us} us ago");
}

#[test]
fn a_changed_key_is_a_delete_a_tombstone_and_a_create() {
    let shop = database("a changed key");
    shop.execute("CREATE TABLE orders (id int PRIMARY KEY, item text)");
    let pipeline = Pipeline::of(&shop);
    let daemon = pipeline.start();
    shop.execute("INSERT INTO orders VALUES (1, 'tea')");
    shop.execute("UPDATE orders SET id = 7");
    shop.execute("UPDATE orders SET id = 7, item = 'milk'");
    shop.execute("DELETE FROM orders");
    let changes = delivered(&pipeline, "public.orders");
    let briefs: Vec<_> = changes.iter().map(brief).collect();
    let (one, seven) = (json!({"id": 1}), json!({"id": 7}));
    assert_eq!(
        briefs,
        [
            (0, 0, Op::Create, one.clone()),
            (0, 0, Op::Delete, one.clone()),
            (0, 1, Op::Tombstone, one),
            (0, 2, Op::Create, seven.clone()),
            (0, 0, Op::Update, seven.clone()),
            (0, 0, Op::Delete, seven.clone()),
            (0, 1, Op::Tombstone, seven),
        ]
    );
    assert_eq!(changes[1].position.commit, changes[3].position.commit);
    assert_eq!(changes[3].after, json!({"id": 7, "item": "tea"}).as_object().cloned());
    assert_transactions_are_whole(&changes);
    daemon.terminate();
}

#[test]
fn two_keys_swapped_in_one_transaction_end_swapped() {
    let shop = database("two keys swapped");
    shop.execute("CREATE TABLE orders (id int PRIMARY KEY, item text)");
    let pipeline = Pipeline::of(&shop);
    let daemon = pipeline.start();
    shop.execute("INSERT INTO orders VALUES (1, 'tea'), (2, 'milk')");
    shop.execute(
        "BEGIN; UPDATE orders SET id = 0 WHERE id = 1; UPDATE orders SET id = 1 WHERE id = 2;
         UPDATE orders SET id = 2 WHERE id = 0; COMMIT",
    );
    let changes = delivered(&pipeline, "public.orders");
    assert_each_once_and_in_order(&changes);
    assert_table_is(&shop.session(), "orders", &Table::fold(&changes));
    daemon.terminate();
}

#[test]
fn a_long_value_that_did_not_change_is_listed_and_never_null() {
    let shop = database("unchanged toast");
    shop.execute(
        "CREATE TABLE pages (id int PRIMARY KEY, body text, note text, n int);
         ALTER TABLE pages ALTER body SET STORAGE EXTERNAL;
         CREATE TABLE full_pages (LIKE pages INCLUDING ALL);
         ALTER TABLE full_pages REPLICA IDENTITY FULL",
    );
    let pipeline = Pipeline::of(&shop);
    let daemon = pipeline.start();
    for table in ["pages", "full_pages"] {
        shop.execute(&format!(
            "INSERT INTO {table} VALUES (1, repeat('long ', 1000), NULL, 0);
             UPDATE {table} SET n = 1;
             UPDATE {table} SET id = 2;
             UPDATE {table} SET body = NULL;"
        ));
    }
    let changes = delivered(&pipeline, "public.pages");
    let unchanged: Vec<_> = changes.iter().map(|change| change.unchanged.join(",")).collect();
    // Create, update, the three records of the key change, and the update that sets it to NULL.
    assert_eq!(unchanged, ["", "body", "", "", "body", ""]);
    assert_table_is(&shop.session(), "pages", &Table::fold(&changes));

    let changes = delivered(&pipeline, "public.full_pages");
    assert!(changes.iter().all(|change| change.unchanged.is_empty()), "the old row has the value");
    let body = changes[1].after.as_ref().map(|row| &row["body"]);
    assert_eq!(body, Some(&json!("long ".repeat(1000))));
    assert_table_is(&shop.session(), "full_pages", &Table::fold(&changes));
    daemon.terminate();
}

#[test]
fn the_old_row_comes_with_full_replica_identity_and_its_key_without() {
    let shop = database("old rows");
    shop.execute(
        "CREATE TABLE brief (id int PRIMARY KEY, item text);
         CREATE TABLE whole (LIKE brief INCLUDING ALL);
         ALTER TABLE whole REPLICA IDENTITY FULL;",
    );
    let pipeline = Pipeline::of(&shop);
    let daemon = pipeline.start();
    for table in ["brief", "whole"] {
        shop.execute(&format!(
            "INSERT INTO {table} VALUES (1, 'tea'); UPDATE {table} SET item = 'milk';
             DELETE FROM {table}"
        ));
    }
    let brief = delivered(&pipeline, "public.brief");
    assert_eq!(brief[1].before, None);
    assert_eq!(brief[2].before, json!({"id": 1, "item": null}).as_object().cloned());
    assert!(brief[2].before_is_key);
    let whole = delivered(&pipeline, "public.whole");
    assert_eq!(whole[1].before, json!({"id": 1, "item": "tea"}).as_object().cloned());
    assert_eq!(whole[2].before, json!({"id": 1, "item": "milk"}).as_object().cloned());
    assert!(!whole[1].before_is_key && !whole[2].before_is_key);
    daemon.terminate();
}

on_each_version!(a_truncate_reaches_every_partition_of_every_table_it_empties);

fn a_truncate_reaches_every_partition_of_every_table_it_empties(version: Version) {
    let shop = Stack::shared().database(version, "truncates");
    shop.execute(
        "CREATE TABLE orders (id int PRIMARY KEY);
         CREATE TABLE lines (id int PRIMARY KEY, of_order int REFERENCES orders);",
    );
    let pipeline = Pipeline::of(&shop);
    let daemon = pipeline.start();
    shop.execute("INSERT INTO orders VALUES (1), (2), (3); INSERT INTO lines VALUES (1, 1)");
    shop.execute("BEGIN; TRUNCATE orders CASCADE; INSERT INTO orders VALUES (4); COMMIT");
    let orders = delivered(&pipeline, "public.orders");
    let lines = delivered(&pipeline, "public.lines");
    let truncates = |changes: &[Change]| -> Vec<(i32, u64, u32)> {
        let truncates = changes.iter().filter(|change| change.op == Op::Truncate);
        let mut places: Vec<_> = truncates
            .map(|change| (change.partition, change.position.ordinal, change.position.sub_index))
            .collect();
        places.sort_unstable();
        places
    };
    // One message of the server names both tables, in an order of its choice.
    let first = [(0, 0, 0), (1, 0, 1), (2, 0, 2)];
    let second = [(0, 0, 3), (1, 0, 4), (2, 0, 5)];
    let places = (truncates(&orders), truncates(&lines));
    let either = [(first.to_vec(), second.to_vec()), (second.to_vec(), first.to_vec())];
    assert!(either.contains(&places), "{places:?}");
    assert_transactions_are_whole(orders.iter().chain(&lines));
    assert_table_is(&shop.session(), "orders", &Table::fold(&orders));
    assert_table_is(&shop.session(), "lines", &Table::fold(&lines));
    daemon.terminate();
}

#[test]
fn tombstones_and_truncates_stay_away_where_nobody_wants_them() {
    let shop = database("without tombstones");
    shop.execute("CREATE TABLE orders (id int PRIMARY KEY)");
    let pipeline = Pipeline::of(&shop).with("tombstones", false).with("truncates", false);
    let daemon = pipeline.start();
    shop.execute(
        "INSERT INTO orders VALUES (1), (2); UPDATE orders SET id = 3 WHERE id = 1;
         DELETE FROM orders WHERE id = 2; TRUNCATE orders; INSERT INTO orders VALUES (4)",
    );
    let changes = delivered(&pipeline, "public.orders");
    let briefs: Vec<_> = changes.iter().map(brief).collect();
    let key = |id: u8| json!({ "id": id });
    // The truncate is counted, so that ordinals do not depend on what is published.
    assert_eq!(
        briefs,
        [
            (0, 0, Op::Create, key(1)),
            (1, 0, Op::Create, key(2)),
            (2, 0, Op::Delete, key(1)),
            (2, 2, Op::Create, key(3)),
            (3, 0, Op::Delete, key(2)),
            (5, 0, Op::Create, key(4)),
        ]
    );
    daemon.terminate();
}

#[test]
fn a_key_of_several_columns_has_them_in_the_order_of_the_key() {
    let shop = database("composite keys");
    shop.execute(
        "CREATE TABLE lines (note text, line int, of_order text, PRIMARY KEY (of_order, line))",
    );
    let pipeline = Pipeline::of(&shop);
    let daemon = pipeline.start();
    shop.execute(
        "INSERT INTO lines VALUES ('x', 1, 'a'), ('y', 2, 'a'), ('z', 1, 'b');
         UPDATE lines SET note = 'w' WHERE line = 1;
         UPDATE lines SET line = 3 WHERE of_order = 'b'",
    );
    let changes = delivered(&pipeline, "public.lines");
    assert_table_is(&shop.session(), "lines", &Table::fold(&changes));
    let topic = pipeline.topic("public.lines");
    let subject = format!("{}-key", topic.name());
    let schema = Stack::shared().registry().latest(&subject).expect("the key has a schema");
    let fields: Vec<&Value> =
        schema["fields"].as_array().into_iter().flatten().map(|field| &field["name"]).collect();
    assert_eq!(fields, ["of_order", "line"]);
    daemon.terminate();
}

#[test]
fn names_that_avro_and_kafka_do_not_take_are_written_so_that_none_meet() {
    let shop = database("odd names");
    shop.execute(
        r#"CREATE SCHEMA "Odd.Schema";
           CREATE TABLE "Odd.Schema"."Odd-Name Ü" (
               "Some Key" int PRIMARY KEY, "a-b" text, "a_b" text, "1st" int, "ünï" text,
               "say ""hi""" text, "select" boolean);
           CREATE TABLE "Odd-Name" ("Id" int PRIMARY KEY);"#,
    );
    let pipeline = Pipeline::of(&shop);
    let daemon = pipeline.start();
    shop.execute(
        r#"INSERT INTO "Odd.Schema"."Odd-Name Ü" VALUES (1, 'minus', 'underscore', 2, 'u', 'q', true);
           INSERT INTO "Odd-Name" VALUES (5);"#,
    );
    let changes = delivered(&pipeline, "Odd.Schema.Odd-Name__");
    assert_eq!(changes[0].key.as_deref(), Some(r#"{"Some_X20_Key":1}"#));
    let expected = json!({
        "Some_X20_Key": 1, "a_X2d_b": "minus", "a_b": "underscore", "_X31_st": 2,
        "_Xfc_n_Xef_": "u", "say_X20__X22_hi_X22_": "q", "select": true,
    });
    assert_eq!(changes[0].after, expected.as_object().cloned());
    let changes = delivered(&pipeline, "public.Odd-Name");
    assert_eq!(changes[0].after, json!({"Id": 5}).as_object().cloned());
    daemon.terminate();
}

#[test]
fn a_table_without_a_key_never_makes_the_application_fail() {
    let shop = database("without a key");
    shop.execute("CREATE TABLE events (what text); INSERT INTO events VALUES ('before')");
    let pipeline = Pipeline::of(&shop);
    let daemon = pipeline.start();
    shop.execute("INSERT INTO events VALUES ('a'), ('b'); UPDATE events SET what = 'c'");
    shop.execute("DELETE FROM events; TRUNCATE events; INSERT INTO events VALUES ('d')");
    let changes = delivered(&pipeline, "public.events");
    let ops: Vec<Op> = changes.iter().map(|change| change.op).collect();
    let truncate = [Op::Truncate; 3];
    assert_eq!(ops, [&[Op::Create; 2], &truncate[..], &[Op::Create]].concat());
    assert!(changes.iter().all(|change| change.key.is_none()));
    daemon.terminate();
}

fn a_row_larger_than_what_may_be_on_its_way_arrives(delivery: &str) {
    let shop = database(&format!("large row {delivery}"));
    shop.execute("CREATE TABLE orders (id int PRIMARY KEY, item text)");
    let pipeline = Pipeline::of(&shop)
        .with("delivery", delivery)
        .with("kafka.properties", json!({ "message.max.bytes": 20_000_000 }))
        .with("kafka.topic_config", json!({ "max.message.bytes": 20_000_000 }));
    let daemon = pipeline.start();
    // Hashes, because compression would make it small.
    let long = "SELECT string_agg(md5(n::text), '') FROM generate_series(1, 300000) AS n";
    shop.execute(&format!("INSERT INTO orders VALUES (1, ''), (2, ({long})), (3, ''), (4, '')"));
    let orders = delivered(&pipeline, "public.orders");
    daemon.terminate();
    let item =
        |order: &Change| order.after.as_ref().and_then(|row| row["item"].as_str()?.len().into());
    let mut lengths: Vec<Option<usize>> = orders.iter().map(item).collect();
    lengths.sort_unstable();
    assert_eq!(lengths, [Some(0), Some(0), Some(0), Some(9_600_000)]);
}

#[test]
fn a_row_larger_than_what_may_be_on_its_way_arrives_at_least_once() {
    a_row_larger_than_what_may_be_on_its_way_arrives("at_least_once");
}

#[test]
fn a_row_larger_than_what_may_be_on_its_way_arrives_exactly_once() {
    a_row_larger_than_what_may_be_on_its_way_arrives("exactly_once");
}
