//! Where transactions begin and end is told on a topic of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::Duration;

use waltide_stack::serde_json::{Value, json};
use waltide_stack::{Database, JsonRecord, KafkaOptions, Stack, Version};

use crate::support::{Lsn, Pipeline, Position, Random, on_each_version};

/// Daemons that are killed in one test, so that some leave a transaction half told.
const KILLS: u64 = 6;

/// A shop with two tables and one that nobody captures.
fn shop(version: Version, test: &str) -> Database {
    let shop = Stack::shared().database(version, test);
    shop.execute(
        "CREATE TABLE orders (id int PRIMARY KEY, item text);
         CREATE TABLE lines (id int PRIMARY KEY);
         CREATE TABLE chatter (text text);",
    );
    shop
}

fn pipeline(shop: &Database) -> Pipeline<'_> {
    Pipeline::of(shop).with("transactions", true).with("source.exclude", vec!["public.chatter"])
}

/// The block that a record of a table has about its transaction; a truncate's is in every
/// partition, so each comes once.
fn places(pipeline: &Pipeline<'_>, table: &str) -> BTreeSet<(String, u64, u64)> {
    let records = pipeline.topic(table).read_json().into_iter();
    let records = records.filter(|record| !record.value.is_null());
    let number = |value: &Value| value.as_u64().expect("a number");
    let place = |record: JsonRecord| {
        let block = &record.value["transaction"];
        let id = block["id"].as_str().expect("an id").to_owned();
        (id, number(&block["total_order"]), number(&block["data_collection_order"]))
    };
    records.map(place).collect()
}

/// What a shop goes through: two transactions that are told, among some that are not.
fn trade(shop: &Database) {
    shop.execute("BEGIN; INSERT INTO orders VALUES (9, 'never'); ROLLBACK");
    shop.execute("INSERT INTO chatter VALUES ('captured by nobody')");
    shop.execute(
        "BEGIN; INSERT INTO orders VALUES (1, 'tea'), (2, 'milk'); INSERT INTO lines VALUES (1);
         SAVEPOINT s; INSERT INTO lines VALUES (2); ROLLBACK TO s;
         UPDATE orders SET id = 3 WHERE id = 1; DELETE FROM orders WHERE id = 2; COMMIT",
    );
    shop.execute("BEGIN; INSERT INTO lines VALUES (7); TRUNCATE orders, lines; COMMIT");
}

/// Which changes of which transaction a table has: one is of two keys, and tombstones count not.
fn assert_places_are_whole(pipeline: &Pipeline<'_>, ids: [&str; 2]) {
    let (orders, lines) = (places(pipeline, "public.orders"), places(pipeline, "public.lines"));
    for (id, count, of_orders, of_lines) in [(ids[0], 6, 5, 1), (ids[1], 3, 1, 2)] {
        let of = |places: &BTreeSet<(String, u64, u64)>| -> Vec<(u64, u64)> {
            let mine = places.iter().filter(|place| place.0 == id);
            mine.map(|(_, total, in_table)| (*total, *in_table)).collect()
        };
        let (orders, lines) = (of(&orders), of(&lines));
        for (places, expected) in [(&orders, of_orders), (&lines, of_lines)] {
            let in_table: Vec<u64> = places.iter().map(|place| place.1).collect();
            assert_eq!(in_table, (1..=expected).collect::<Vec<_>>(), "{id}");
        }
        let total: BTreeSet<u64> = orders.iter().chain(&lines).map(|place| place.0).collect();
        assert_eq!(total, (1..=count).collect(), "{id}");
    }
}

on_each_version!(a_transaction_is_told_with_the_number_of_its_changes);

fn a_transaction_is_told_with_the_number_of_its_changes(version: Version) {
    let shop = shop(version, "transactions told");
    let pipeline = pipeline(&shop);
    let daemon = pipeline.start();
    trade(&shop);
    pipeline.wait_until_delivered();
    daemon.terminate();
    let records = pipeline.topic("transaction").read_json();
    let statuses: Vec<&str> =
        records.iter().map(|record| record.value["status"].as_str().expect("a text")).collect();
    assert_eq!(statuses, ["BEGIN", "END", "BEGIN", "END"]);
    let counts: Vec<[&Value; 2]> =
        records.iter().map(|it| [&it.value["event_count"], &it.value["tables"]]).collect();
    let table = |name, count| json!({"schema": "public", "table": name, "event_count": count});
    let (first, second) = (
        json!([table("lines", 1), table("orders", 5)]),
        json!([table("lines", 2), table("orders", 1)]),
    );
    let (none, six, three) = (Value::Null, json!(6), json!(3));
    assert_eq!(counts, [[&none, &none], [&six, &first], [&none, &none], [&three, &second]]);
    let ids: Vec<&str> =
        records.iter().map(|record| record.value["id"].as_str().expect("a text")).collect();
    assert!(ids[0] == ids[1] && ids[2] == ids[3] && ids[0] != ids[2]);
    for record in &records {
        let Position { commit, ordinal, sub_index } = Position::of(record);
        let said = ["xid", "commit_lsn"].map(|name| record.value[name].to_string());
        assert_eq!(record.value["id"], said.join(":"));
        assert_eq!(json!(commit.0), record.value["commit_lsn"]);
        let commit_us = record.value["commit_us"].as_i64().expect("a time");
        assert_eq!(record.timestamp_ms, Some(commit_us.div_euclid(1000)));
        assert_eq!((record.partition, &record.key, sub_index), (0, &Value::Null, 0));
        // Rows and truncates as the server sends them: five and two.
        let behind = [0, if record.value["id"] == ids[0] { 5 } else { 2 }];
        assert!(behind.contains(&ordinal) && (ordinal == 0) == (record.value["status"] == "BEGIN"));
    }
    assert_places_are_whole(&pipeline, [ids[0], ids[2]]);
}

#[test]
fn the_debezium_profile_tells_transactions_in_debeziums_own_records() {
    let shop = shop(Version::NEWEST, "transactions told to debezium's readers");
    let pipeline = pipeline(&shop).with("profile", "debezium");
    let daemon = pipeline.start();
    trade(&shop);
    pipeline.wait_until_delivered();
    daemon.terminate();
    let records = pipeline.topic("transaction").read_json();
    let id = |at: usize| records[at].key["id"].as_str().expect("an id");
    let counts = |value: &Value| -> Vec<(String, u64)> {
        let tables = value["data_collections"].as_array().into_iter().flatten();
        let name = |table: &Value| table["data_collection"].as_str().expect("a name").to_owned();
        let count = |table: &Value| table["event_count"].as_u64().expect("a number");
        tables.map(|table| (name(table), count(table))).collect()
    };
    let found: Vec<_> = records
        .iter()
        .map(|record| {
            assert_eq!(record.key["id"], record.value["id"]);
            assert_eq!(record.value["ts_ms"].as_i64(), record.timestamp_ms);
            let status = record.value["status"].as_str().expect("a status");
            (status, record.value["event_count"].as_u64(), counts(&record.value))
        })
        .collect();
    let of = |lines, orders| vec![("public.lines".into(), lines), ("public.orders".into(), orders)];
    assert_eq!(
        found,
        [
            ("BEGIN", None, Vec::new()),
            ("END", Some(6), of(1, 5)),
            ("BEGIN", None, Vec::new()),
            ("END", Some(3), of(2, 1)),
        ]
    );
    assert!(id(0) == id(1) && id(2) == id(3));
    assert_places_are_whole(&pipeline, [id(0), id(2)]);
}

#[test]
fn nothing_is_told_of_transactions_unless_it_is_asked_for() {
    let shop = shop(Version::NEWEST, "transactions untold");
    let pipeline = Pipeline::of(&shop);
    let daemon = pipeline.start();
    trade(&shop);
    pipeline.wait_until_delivered();
    daemon.terminate();
    let records = pipeline.topic("public.orders").read_json();
    let values = records.iter().filter(|record| !record.value.is_null());
    assert!(values.map(|record| &record.value["transaction"]).all(Value::is_null));
    let name = pipeline.topic("transaction").name().to_owned();
    assert!(!Stack::shared().kafka().topics().contains(&name));
}

/// Each transaction's begin and end, once all are there, and how many records came again.
fn told(records: &[JsonRecord]) -> (BTreeMap<Lsn, u64>, usize) {
    let mut known: BTreeMap<Position, &JsonRecord> = BTreeMap::new();
    let mut last: Option<Position> = None;
    let mut repeats = 0;
    for record in records {
        let at = Position::of(record);
        let jumps_ahead = known.last_key_value().is_some_and(|(newest, _)| *newest < at)
            && last != known.keys().next_back().copied();
        assert!(!jumps_ahead, "{at} comes before a repetition has ended");
        if let Some(before) = known.get(&at) {
            repeats += 1;
            let same = before.value == record.value && before.timestamp_ms == record.timestamp_ms;
            assert!(same, "{at} is not the same again");
        } else {
            assert!(last.is_none_or(|last| last < at), "{at} comes late");
            known.insert(at, record);
        }
        last = Some(at);
    }
    let once: Vec<&JsonRecord> = known.into_values().collect();
    let counts = once.chunks(2).map(|pair| {
        assert_eq!(
            (&pair[0].value["status"], &pair[1].value["status"]),
            (&json!("BEGIN"), &json!("END"))
        );
        assert_eq!(pair[0].value["id"], pair[1].value["id"]);
        let count = pair[1].value["event_count"].as_u64().expect("a number");
        (Position::of(pair[0]).commit, count)
    });
    (counts.collect(), repeats)
}

#[test]
fn daemons_killed_amid_transactions_tell_each_again_in_the_same_bytes() {
    let test = "transactions told again";
    let mut random = Random::from_environment(test);
    let shop = shop(Version::NEWEST, test);
    let pipeline = pipeline(&shop);
    pipeline.start().terminate();
    let mut next = 0;
    for _ in 0..KILLS {
        let daemon = pipeline.start();
        for number in 0..=40 {
            // The last one is large, and the daemon dies in the midst of it.
            let last = next + if number == 40 { 10_000 } else { random.of(1..20) };
            shop.execute(&format!(
                "INSERT INTO orders SELECT g, 'tea' FROM generate_series({}, {last}) g",
                next + 1
            ));
            next = last;
        }
        thread::sleep(Duration::from_millis(random.of(20..200)));
        daemon.kill();
    }
    let daemon = pipeline.start();
    pipeline.wait_until_delivered();
    daemon.terminate();
    let (counts, repeats) = told(&pipeline.topic("transaction").read_json());
    eprintln!("{} transactions, {repeats} records came again", counts.len());
    assert_eq!(counts.len(), 41 * usize::try_from(KILLS).expect("a number"));
    assert_eq!(counts.values().sum::<u64>(), next);
    let orders = pipeline.changes("public.orders");
    for (commit, count) in counts {
        let ordinals = orders.iter().filter(|change| change.position.commit == commit);
        let ordinals: BTreeSet<u64> = ordinals.map(|change| change.position.ordinal).collect();
        assert_eq!(ordinals, (0..count).collect(), "rows count from zero all the same");
    }
}

#[test]
fn a_transaction_topic_that_has_lost_records_stops_the_pipeline() {
    let kafka = KafkaOptions::new().start();
    let shop = shop(Version::NEWEST, "transactions lost");
    let pipeline = pipeline(&shop).into_kafka(&kafka);
    let daemon = pipeline.start();
    trade(&shop);
    pipeline.wait_until_delivered();
    daemon.terminate();
    kafka.delete_topic(pipeline.topic("transaction").name());
    let daemon = pipeline.launch();
    assert_eq!(daemon.wait_for_state("stopped")["error"]["code"], "WT311");
    daemon.terminate();
}
