//! What differs is published again as the table has it, and nothing older than the stream has.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::*;
use crate::snapshots::shop as accounts;
use crate::support::{Daemon, Op, Random, Request};

/// Ordinals of rows that no transaction has brought begin here.
const ASIDE: u64 = 1 << 40;

/// Repairs a table.
#[track_caller]
fn repair(pipeline: &Pipeline<'_>, table: &str, daemon: &Daemon) -> Verified {
    verify(pipeline, table, &["--repair", "--yes", "--url", &daemon.url()])
}

/// What the daemon answers to an order to read these rows again.
#[track_caller]
fn order(pipeline: &Pipeline<'_>, daemon: &Daemon, body: &Value) -> (u16, String) {
    let path = format!("/api/pipelines/{}/snapshots/start", pipeline.name());
    Request::post(&path).of_its_user(daemon).body(&body.to_string()).send(daemon)
}

#[track_caller]
fn wait_until_done(pipeline: &Pipeline<'_>, daemon: &Daemon, table: &str, state: &str) {
    let path = format!("/api/pipelines/{}/snapshots", pipeline.name());
    waltide_stack::eventually(&format!("{table} is {state}"), SOON, || {
        let (_, body) = Request::get(&path).send(daemon);
        let of: Value = serde_json::from_str(&body).expect("JSON");
        (of["snapshots"][table]["state"] == state).then_some(())
    });
}

fn differences_are_repaired(profile: &str, envelope: &str, version: Version) {
    let shop = Stack::shared().database(version, &format!("repair {profile} {envelope}"));
    shop.execute(ORDERS);
    let pipeline = Pipeline::of(&shop).with("profile", profile).with("envelope", envelope);
    let pipeline = pipeline.with("snapshot", "on_request");
    let daemon = pipeline.start();
    shop.execute("INSERT INTO orders SELECT g, 'tea' FROM generate_series(1, 30) g");
    shop.execute("UPDATE orders SET item = 'x' WHERE id = 4; DELETE FROM orders WHERE id = 5");
    pipeline.wait_until_delivered();
    let intruder = Intruder::of(&pipeline, "public.orders");
    intruder.repeats_the_first(&json!({"id": 4}));
    intruder.repeats_the_first(&json!({"id": 5}));
    intruder.buries(&json!({"id": 6}));
    let before = pipeline.topic("public.orders").read().len();
    let found = repair(&pipeline, "public.orders", &daemon);
    found.is_equal(29);
    let one = |id: u32, was: &str, done: &str| json!({"key": {"id": id}, "was": was, "done": done, "now": "equal"});
    let expected = json!([
        one(4, "changed", "published"),
        one(6, "missing", "published"),
        one(5, "extra", "buried"),
    ]);
    assert_eq!(found.json["repaired"], expected, "{}", found.everything);
    // A delete has a tombstone behind it, or is one; nothing else has come.
    let records = if envelope == "flat" { 3 } else { 4 };
    assert_eq!(pipeline.topic("public.orders").read().len(), before + records);
    assert_eq!(pipeline.read_whole(), Vec::<String>::new(), "it was not read whole");
    let again = repair(&pipeline, "public.orders", &daemon);
    assert_eq!(again.is_equal(29).json.get("repaired"), None, "{}", again.everything);
    assert_eq!(pipeline.topic("public.orders").read().len(), before + records);
    daemon.terminate();
}

#[test]
fn differences_are_repaired_in_the_waltide_profile() {
    differences_are_repaired("waltide", "full", Version::V14);
    differences_are_repaired("waltide", "flat", Version::NEWEST);
}

#[test]
fn differences_are_repaired_in_the_debezium_profile() {
    differences_are_repaired("debezium", "full", Version::NEWEST);
}

/// Keys in every form in which values of them are written, and of a partitioned table.
#[test]
fn keys_of_many_types_are_repaired() {
    let shop = Stack::shared().database(Version::NEWEST, "repair keys");
    shop.execute(
        "CREATE DOMAIN code AS varchar(3);
         CREATE TABLE odd (price numeric(9, 2), at timestamptz, day date, raw bytea, no uuid, yes bool,
           code code, fixed char(4), item text, PRIMARY KEY (day, code, at, raw, no, yes, price, fixed))
           PARTITION BY RANGE (day);
         CREATE TABLE odd_1 PARTITION OF odd FOR VALUES FROM ('2026-01-01') TO ('2026-01-06');
         CREATE TABLE odd_2 PARTITION OF odd FOR VALUES FROM ('2026-01-06') TO ('2027-01-01')",
    );
    let pipeline = Pipeline::of(&shop).with("snapshot", "on_request").with("kafka.partitions", 1);
    let daemon = pipeline.start();
    shop.execute(
        "INSERT INTO odd SELECT g / 4.0, '2026-01-01 12:00:00.5+02'::timestamptz + g * interval '1s',
           date '2026-01-01' + g, decode(md5(g::text), 'hex'), md5(g::text)::uuid, g % 2 = 0, 'c' || g,
           'f' || g, 'tea' FROM generate_series(1, 9) g",
    );
    shop.execute("UPDATE odd SET item = 'x'; DELETE FROM odd WHERE code IN ('c3', 'c7')");
    pipeline.wait_until_delivered();
    let intruder = Intruder::of(&pipeline, "public.odd");
    let records = pipeline.topic("public.odd").read_json();
    let coded = |code: &str| {
        let of = |one: &&waltide_stack::JsonRecord| one.key["code"] == code;
        records.iter().find(of).expect("its record").key.clone()
    };
    intruder.repeats_the_first(&coded("c1"));
    intruder.repeats_the_first(&coded("c3"));
    intruder.repeats_the_first(&coded("c7"));
    intruder.buries(&coded("c8"));
    let found = repair(&pipeline, "public.odd", &daemon);
    found.is_equal(7);
    let repaired = found.json["repaired"].as_array().map(Vec::len);
    assert_eq!(repaired, Some(4), "{}", found.everything);
    daemon.terminate();
}

fn is_repaired_while_others_write(delivery: &str) {
    let test = format!("repair beside writers {delivery}");
    let random = Random::from_environment(&test);
    let shop = Stack::shared().database(Version::NEWEST, &test);
    let pipeline = Pipeline::of(&shop).with("delivery", delivery).with("snapshot", "initial");
    accounts::fill(&shop, 2_000);
    // Else no record under its new key tells the large value of a row whose key changed.
    shop.execute("ALTER TABLE accounts REPLICA IDENTITY FULL");
    let daemon = pipeline.start();
    waltide_stack::eventually("its rows are read", SOON, || {
        (!pipeline.read_whole().is_empty()).then_some(())
    });
    accounts::while_writing(&shop, &random, (2_000, Duration::from_millis(10)), || {
        let intruder = Intruder::of(&pipeline, "public.accounts");
        shop.execute(
            "INSERT INTO accounts VALUES (1, -1, 'a', 'b'), (1, -2, 'a', 'b'), (1, -3, 'a', 'b')",
        );
        shop.execute("DELETE FROM accounts WHERE id = -2");
        shop.execute("UPDATE accounts SET note = 'c' WHERE id = -3");
        pipeline.wait_until_delivered();
        intruder.buries(&json!({"id": -1}));
        intruder.repeats_the_first(&json!({"id": -2}));
        intruder.repeats_the_first(&json!({"id": -3}));
        // Rows that others may change or delete meanwhile.
        for id in [300, 700, 1_100, 1_500, 1_900] {
            intruder.buries(&json!({ "id": id }));
        }
        let found = repair(&pipeline, "public.accounts", &daemon);
        assert_eq!(found.status, Some(0), "{}", found.everything);
        assert_eq!(found.json["result"], "equal", "{}", found.everything);
        let repaired = found.json["repaired"].to_string();
        for key in ["{\"id\":-1}", "{\"id\":-2}", "{\"id\":-3}"] {
            assert!(repaired.contains(key), "{key} in: {}", found.everything);
        }
    });
    pipeline.wait_until_delivered();
    assert_eq!(verify(&pipeline, "public.accounts", &[]).status, Some(0));
    daemon.terminate();
}

#[test]
fn a_table_is_repaired_while_others_write() {
    is_repaired_while_others_write("at_least_once");
}

#[test]
fn a_table_is_repaired_while_others_write_with_exactly_once() {
    is_repaired_while_others_write("exactly_once");
}

/// Whatever is said of a row beside the stream is what the stream last said of it.
#[test]
fn a_repair_of_rows_that_never_rest_brings_nothing_old() {
    let shop = shop("repair hot rows");
    let pipeline = Pipeline::of(&shop).with("snapshot", "on_request").with("kafka.partitions", 1);
    let daemon = pipeline.start();
    shop.execute("INSERT INTO orders VALUES (1, '0'), (2, '0'), (4, 'still')");
    pipeline.wait_until_delivered();
    let keys = json!({"columns": ["id"], "values": [["1"], ["2"], ["3"], ["4"]]});
    let body = json!({"table": "public.orders", "keys": keys});
    let (orders, enough) = (6, AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let session = shop.session();
            let mut number = 0_u64;
            while !enough.load(Ordering::Relaxed) {
                number += 1;
                session.execute(&format!("UPDATE orders SET item = '{number}' WHERE id = 1"));
                session.execute("DELETE FROM orders WHERE id = 2");
                session.execute(&format!("INSERT INTO orders VALUES (2, '{number}')"));
            }
        });
        let ordered = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..orders {
                let (status, answer) = order(&pipeline, &daemon, &body);
                assert_eq!(status, 200, "{answer}");
                wait_until_done(&pipeline, &daemon, "public.orders", "done");
            }
        }));
        enough.store(true, Ordering::Relaxed);
        ordered.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    pipeline.wait_until_delivered();
    let mut rows: BTreeMap<String, Option<Value>> = BTreeMap::new();
    let (mut read, mut buried) = (0, 0);
    for change in pipeline.changes("public.orders") {
        let key = change.key.clone().expect("a key");
        let now = change.after.as_ref().map(|row| row["item"].clone());
        let aside = change.position.ordinal >= ASIDE;
        if aside {
            let said = rows.get(&key).cloned().flatten();
            assert_eq!(now, said, "{change:?}: older than what the stream has said");
            read += u32::from(change.op == Op::Read && key == "{\"id\":4}");
            buried += u32::from(change.op == Op::Delete && key == "{\"id\":3}");
        }
        rows.insert(key, now);
    }
    // Those that rest are told each time.
    assert_eq!((read, buried), (orders, orders));
    verify(&pipeline, "public.orders", &[]).is_equal(3);
    daemon.terminate();
}

#[test]
fn what_cannot_be_repaired_is_told_with_a_way_out() {
    let shop = shop("repair misuse");
    let pipeline = Pipeline::of(&shop);
    let daemon = pipeline.start();
    shop.execute("INSERT INTO orders VALUES (1, 'tea'), (2, 'tea')");
    pipeline.wait_until_delivered();
    let intruder = Intruder::of(&pipeline, "public.orders");
    intruder.buries(&json!({"id": 1}));
    // Nobody agreed, and nobody could be asked.
    let url = daemon.url();
    verify(&pipeline, "public.orders", &["--repair", "--url", &url]).fails("WT105", &["--yes"]);
    repair(&pipeline, "public.orders", &daemon).fails("WT110", &["on_request"]);
    daemon.terminate();
    let away = verify(&pipeline, "public.orders", &["--repair", "--yes", "--url", &url]);
    away.fails("WT106", &["no daemon reads the slot", "start it"]);
    let misused = waltide(&["verify", "--table", "public.orders", "--yes"]);
    assert_eq!(misused.status, Some(2), "{}", misused.everything);
    drop(pipeline);

    let pipeline = Pipeline::of(&shop).with("snapshot", "on_request").beside("asked");
    let daemon = pipeline.start();
    shop.execute("INSERT INTO orders VALUES (3, 'tea')");
    pipeline.wait_until_delivered();
    let keys = |columns: Value, values: Value| {
        let keys = json!({"columns": columns, "values": values});
        order(&pipeline, &daemon, &json!({"table": "public.orders", "keys": keys}))
    };
    for (columns, values, words) in [
        (json!(["no"]), json!([["1"]]), "publishes no column no"),
        (json!(["id"]), json!([["one"]]), "invalid input syntax for type integer"),
        (json!(["id"]), json!([["1", "2"]]), "not one text for each column"),
    ] {
        let (status, answer) = keys(columns, values);
        assert_eq!(status, 422, "{answer}");
        assert!(answer.contains("WT109") && answer.contains(words), "{words} in: {answer}");
    }
    assert_eq!(keys(json!(["id"]), json!("1")).0, 400);
    // What is no key is seen when the table has been looked at, and is not left behind.
    assert_eq!(keys(json!(["item"]), json!([["tea"]])).0, 200);
    wait_until_done(&pipeline, &daemon, "public.orders", "cancelled");
    assert!(daemon.log().contains("its key is (id)"), "{}", daemon.log());
    daemon.terminate();
}

#[test]
fn people_are_told_what_was_done_per_key() {
    let shop = shop("repair told");
    let pipeline = Pipeline::of(&shop).with("snapshot", "on_request");
    let daemon = pipeline.start();
    shop.execute("INSERT INTO orders VALUES (1, 'tea'), (2, 'tea')");
    shop.execute("DELETE FROM orders WHERE id = 2");
    pipeline.wait_until_delivered();
    let intruder = Intruder::of(&pipeline, "public.orders");
    intruder.buries(&json!({"id": 1}));
    intruder.repeats_the_first(&json!({"id": 2}));
    let (file, url) = (pipeline.file(), daemon.url());
    let path = file.path().to_str().expect("UTF-8");
    let arguments = ["verify", "--table", "public.orders", "--repair", "--yes", "--config", path];
    let ended = waltide(&[&arguments[..], &["--url", &url]].concat());
    assert_eq!(ended.status, Some(0), "{}", ended.everything);
    for words in [
        "result     different",
        "to be repaired: 1 rows are published as the table has them, 1 keys as deleted",
        "result     equal",
        "published {\"id\":1}: was missing, is equal",
        "buried    {\"id\":2}: was extra, is equal",
    ] {
        assert!(ended.out.contains(words), "{words} in: {}", ended.everything);
    }
    daemon.terminate();
}
