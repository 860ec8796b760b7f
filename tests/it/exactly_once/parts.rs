//! Transactions that are too large for one Kafka transaction are published in parts, and a daemon
//! that takes over in the middle goes on at the very row.

use std::time::Duration;

use waltide_stack::serde_json::json;
use waltide_stack::{Database, Stack, Version};

use super::exactly;
use crate::support::{
    Change, Daemon, Pipeline, SOON, Table, assert_each_once_and_in_order, assert_table_is,
    assert_transactions_are_whole, on_each_version,
};

/// A second or two for two thousand rows, and several parts: few leave at a time.
fn slowly<'a>(shop: &'a Database) -> Pipeline<'a> {
    exactly(shop)
        .with("kafka.partitions", 1)
        .with("kafka.properties", json!({"queue.buffering.max.messages": 5, "linger.ms": 5}))
}

/// Waits until so many rows of a transaction are committed, but not all of them; and how many.
#[track_caller]
fn until_some_are_there(pipeline: &Pipeline<'_>, table: &str, after: usize, all: usize) -> usize {
    let count = pipeline.topic(table).wait_for(after + 1, SOON).len();
    assert!(count < all, "it is too late: {count} of {all} are there");
    count
}

/// One transaction with a storm of savepoints, values stored apart that stay as they are, and
/// tables that change and come to be while it runs.
const STORM: &str = "
    DO $$ BEGIN
      FOR i IN 1..300 LOOP
        BEGIN
          INSERT INTO orders (id, item, body) VALUES (i, 'tea', repeat(md5(i::text), 200));
          UPDATE orders SET item = 'milk' WHERE id = i;
          IF i % 3 = 0 THEN RAISE EXCEPTION 'no'; END IF;
        EXCEPTION WHEN raise_exception THEN NULL;
        END;
      END LOOP;
      ALTER TABLE orders ADD COLUMN extra int DEFAULT 7;
      FOR i IN 301..600 LOOP
        BEGIN
          INSERT INTO orders (id, item, body, extra) VALUES (i, 'tea', md5(i::text), i);
          UPDATE orders SET id = -id WHERE id = i;
          IF i % 5 = 0 THEN RAISE EXCEPTION 'no'; END IF;
        EXCEPTION WHEN raise_exception THEN NULL;
        END;
      END LOOP;
      ALTER TABLE orders DROP COLUMN item;
      UPDATE orders SET extra = extra + 1 WHERE id > 0;
    END $$";

on_each_version!(a_transaction_of_every_kind_keeps_its_positions_over_restarts_in_its_middle);

fn a_transaction_of_every_kind_keeps_its_positions_over_restarts_in_its_middle(version: Version) {
    let test = format!("parts on {version}");
    let shop = Stack::shared().database(version, &test);
    shop.execute(
        "CREATE TABLE orders (id int PRIMARY KEY, item text, body text);
         ALTER TABLE orders ALTER body SET STORAGE EXTERNAL",
    );
    // The server then spills, and streams where it is asked to.
    shop.execute(&format!(
        "ALTER DATABASE \"{}\" SET logical_decoding_work_mem = '64kB'",
        shop.value("SELECT current_database()")
    ));
    let pipeline = slowly(&shop).with("registry.on_incompatible", "force");
    pipeline.start().terminate();
    shop.execute(STORM);
    let mut seen = 0;
    for _ in 0..3 {
        let daemon = pipeline.launch();
        seen = until_some_are_there(&pipeline, "public.orders", seen, 1_500);
        daemon.kill();
    }
    let daemon = pipeline.start();
    pipeline.wait_until_delivered();
    daemon.terminate();
    let changes = pipeline.changes("public.orders");
    assert_each_once_and_in_order(&changes);
    let highest = assert_transactions_are_whole(&changes);
    assert_eq!(highest.len(), 1, "it is one transaction");
    assert_table_is(&shop.session(), "public.orders", &Table::fold(&changes));
}

/// A transaction of 1000 rows of which a part is published, and no daemon.
fn part_way(shop: &Database, pipeline: &Pipeline<'_>) {
    shop.execute("CREATE TABLE orders (id int PRIMARY KEY, price numeric)");
    pipeline.start().terminate();
    shop.execute("INSERT INTO orders SELECT g, g / 7.0 FROM generate_series(1, 1000) g");
    let daemon = pipeline.launch();
    until_some_are_there(pipeline, "public.orders", 0, 1000);
    daemon.kill();
}

#[test]
fn what_is_told_of_a_transaction_counts_what_was_published_before_a_restart() {
    let shop = Stack::shared().database(Version::NEWEST, "parts counted");
    let pipeline = slowly(&shop).with("transactions", true);
    part_way(&shop, &pipeline);
    let daemon = pipeline.start();
    pipeline.wait_until_delivered();
    daemon.terminate();
    let changes = pipeline.changes("public.orders");
    assert_each_once_and_in_order(&changes);
    assert_eq!(changes.len(), 1000);
    let told = pipeline.topic("transaction").read_json();
    let bounds: Vec<_> = told
        .iter()
        .map(|record| (record.value["status"].as_str(), record.value["event_count"].as_u64()))
        .collect();
    assert_eq!(bounds, [(Some("BEGIN"), None), (Some("END"), Some(1000))], "{told:?}");
    let orders = pipeline.topic("public.orders").read_json();
    let orders = orders.iter().map(|it| it.value["transaction"]["total_order"].as_u64());
    assert!(orders.eq((1..=1000).map(Some)), "each change has its number");
}

fn stopped(daemon: &Daemon) -> String {
    daemon.wait_for_state("stopped")["error"].to_string()
}

#[test]
fn a_transaction_that_comes_again_as_another_stops_the_pipeline_and_names_it() {
    let shop = Stack::shared().database(Version::NEWEST, "parts differ");
    let pipeline = slowly(&shop);
    part_way(&shop, &pipeline);

    // The same rows in another form: nobody can tell that they are the same.
    let daemon = slowly(&shop).with("source.binary", false).launch();
    let text = stopped(&daemon);
    assert!(text.contains("WT231") && text.contains("others in their place"), "{text}");
    // What was being committed when the daemon was killed is decided by now.
    let seen = pipeline.changes("public.orders").len();
    daemon.terminate();
    let daemon = slowly(&shop).with("source.binary", false).launch();
    stopped(&daemon);
    daemon.terminate();
    assert_eq!(pipeline.changes("public.orders").len(), seen, "nothing was published meanwhile");

    // The way out that costs repetitions.
    let at_least_once =
        slowly(&shop).with("source.binary", false).with("delivery", "at_least_once");
    let daemon = at_least_once.start();
    at_least_once.wait_until_delivered();
    daemon.terminate();
    let changes = pipeline.changes("public.orders");
    assert_eq!(changes.len(), seen + 1000, "it is published again from its start");

    // And back.
    let daemon = pipeline.start();
    shop.execute("INSERT INTO orders VALUES (0, 0)");
    pipeline.wait_until_delivered();
    daemon.terminate();
    assert_eq!(pipeline.changes("public.orders").len(), seen + 1001);
}

#[test]
fn what_was_put_back_lets_a_part_be_gone_on_with() {
    let shop = Stack::shared().database(Version::NEWEST, "parts put back");
    let pipeline = slowly(&shop);
    part_way(&shop, &pipeline);
    let daemon = slowly(&shop).with("source.binary", false).launch();
    stopped(&daemon);
    daemon.terminate();
    let daemon = pipeline.start();
    pipeline.wait_until_delivered();
    daemon.terminate();
    let changes: Vec<Change> = pipeline.changes("public.orders");
    assert_each_once_and_in_order(&changes);
    assert_eq!(changes.len(), 1000);
}

/// While a part is published and its transaction comes again, nothing is forgotten of it.
#[test]
fn a_daemon_that_waits_for_the_rest_of_a_transaction_does_not_forget_its_part() {
    let shop = Stack::shared().database(Version::NEWEST, "parts idle");
    let pipeline = slowly(&shop);
    part_way(&shop, &pipeline);
    // The registry is asked for nothing, and the server sends from the start: each of these comes
    // less far than the first.
    for wait in [0, 200, 400] {
        let daemon = pipeline.start();
        std::thread::sleep(Duration::from_millis(wait));
        daemon.kill();
    }
    let daemon = pipeline.start();
    pipeline.wait_until_delivered();
    daemon.terminate();
    let changes = pipeline.changes("public.orders");
    assert_each_once_and_in_order(&changes);
    assert_eq!(changes.len(), 1000);
}
