//! With `delivery: exactly_once` a reader of committed records has each change once and in order,
//! whatever becomes of daemons, servers and connections.

mod parts;
mod steps;
pub(crate) mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use waltide_stack::serde_json::json;
use waltide_stack::{Database, KafkaOptions, Stack, Version, eventually};

use crate::random::writer::SCHEMA;
use crate::random::{self, assert_nothing_is_missing};
use crate::support::{
    Change, Daemon, Op, Pipeline, Random, SOON, assert_each_once_and_in_order, on_each_version,
    without_repeats,
};

/// Kills on each version, unless `WALTIDE_KILLS` says how many. Some fall into every phase.
const KILLS: u64 = 5;

/// One statement changes up to this many rows, so that some transactions are published in parts.
const MOST_ROWS: u64 = 1_000;

/// Writers wait while the daemon is so far behind: an endless backlog would show nothing more.
const BACKLOG: u64 = 8 << 20;

/// A pipeline that publishes exactly once.
fn exactly<'a>(shop: &'a Database) -> Pipeline<'a> {
    Pipeline::of(shop).with("delivery", "exactly_once")
}

fn kills() -> u64 {
    std::env::var("WALTIDE_KILLS")
        .map_or(KILLS, |text| text.parse().expect("WALTIDE_KILLS is a number"))
}

/// Lets writers write while `disturb` has its way with the daemon, and sees to it that each change
/// is there once.
fn under_load(
    shop: &Database,
    pipeline: &Pipeline<'_>,
    random: &Random,
    disturb: impl FnOnce() -> Daemon,
) {
    let patience = |enough: &AtomicBool| {
        let done = || enough.load(Ordering::Relaxed);
        let behind = || pipeline.end_of_log().0.saturating_sub(pipeline.confirmed().0);
        thread::sleep(Duration::from_millis(50));
        while !done() && behind() > BACKLOG {
            thread::sleep(Duration::from_millis(50));
        }
    };
    let (daemon, committed) = random::under_load(shop, random, MOST_ROWS, patience, disturb);
    pipeline.wait_until_delivered();
    daemon.terminate();
    check(shop, pipeline, &committed);
}

#[track_caller]
fn check(shop: &Database, pipeline: &Pipeline<'_>, committed: &BTreeSet<String>) {
    let topics: BTreeMap<String, Vec<Change>> = pipeline.all_changes();
    for changes in topics.values() {
        assert_each_once_and_in_order(changes);
    }
    assert_nothing_is_missing(shop, committed, &topics);
    let records: usize = topics.values().map(Vec::len).sum();
    eprintln!("{} transactions, {records} records, each once", committed.len());
}

on_each_version!(daemons_killed_at_random_moments_publish_each_change_once);

fn daemons_killed_at_random_moments_publish_each_change_once(version: Version) {
    let test = format!("exactly once killed on {version}");
    let mut random = Random::from_environment(&test);
    let shop = Stack::shared().database(version, &test);
    shop.execute(SCHEMA);
    let pipeline = exactly(&shop);
    // The slot comes first: what is committed before it belongs to nobody.
    pipeline.start().terminate();
    let writing = random.branch(99);
    under_load(&shop, &pipeline, &writing, || {
        for _ in 0..kills() {
            // Some die while they start, most while they stream, and a few get somewhere.
            let daemon = if random.once_in(4) { pipeline.launch() } else { pipeline.start() };
            let most = if random.once_in(5) { 3_000 } else { 600 };
            thread::sleep(Duration::from_millis(random.of(0..most)));
            daemon.kill();
        }
        pipeline.start()
    });
}

#[test]
fn brokers_restarted_and_connections_cut_under_load_make_nothing_come_twice() {
    let test = "exactly once cut off";
    let mut random = Random::from_environment(test);
    let kafka = KafkaOptions::new().behind_proxy().start();
    let shop = Stack::shared().database(Version::NEWEST, test);
    shop.execute(SCHEMA);
    let pipeline = exactly(&shop).into_kafka(&kafka);
    let daemon = pipeline.start();
    let writing = random.branch(99);
    under_load(&shop, &pipeline, &writing, || {
        for round in 0..6 {
            thread::sleep(Duration::from_millis(random.of(100..600)));
            match round % 3 {
                0 => kafka.proxy().reset(),
                1 => {
                    kafka.kill();
                    kafka.start_again();
                }
                _ => shop.execute(&format!(
                    "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots
                     WHERE slot_name = '{}'",
                    pipeline.slot()
                )),
            }
            daemon.wait_for_state("streaming");
        }
        daemon
    });
}

#[test]
fn a_frozen_daemon_that_wakes_beside_its_successor_publishes_nothing_twice() {
    let test = "exactly once frozen";
    let mut random = Random::from_environment(test);
    let shop = Stack::shared().database(Version::NEWEST, test);
    shop.execute(SCHEMA);
    let pipeline = exactly(&shop);
    let mut first = pipeline.start();
    let mut second = pipeline.launch();
    second.wait_for_state("standby");
    let writing = random.branch(99);
    under_load(&shop, &pipeline, &writing, || {
        for _ in 0..3 {
            thread::sleep(Duration::from_millis(random.of(100..600)));
            first.process().pause();
            second.wait_for_state("streaming");
            // In the midst of the other's work.
            thread::sleep(Duration::from_millis(random.of(0..300)));
            first.process().resume();
            first.wait_for_state("standby");
            std::mem::swap(&mut first, &mut second);
        }
        second.terminate();
        first
    });
}

#[test]
fn while_kafka_hangs_nothing_is_confirmed_and_then_each_change_comes_once() {
    let kafka = KafkaOptions::new().start();
    let shop = Stack::shared().database(Version::NEWEST, "exactly once hangs");
    shop.execute("CREATE TABLE orders (id int PRIMARY KEY)");
    let pipeline = exactly(&shop).into_kafka(&kafka);
    let daemon = pipeline.start();
    shop.execute("INSERT INTO orders SELECT generate_series(1, 1000)");
    let before = pipeline.wait_until_delivered();
    kafka.pause();
    shop.execute("INSERT INTO orders SELECT generate_series(1001, 2000)");
    let end = pipeline.end_of_log();
    let fault = daemon.wait_for_state("waiting");
    assert_eq!(fault["error"]["code"], "WT301", "{fault}");
    let confirmed = pipeline.confirmed();
    assert!(before <= confirmed && confirmed < end, "{confirmed}");
    kafka.resume();
    pipeline.wait_until_delivered();
    daemon.terminate();
    let changes = pipeline.changes("public.orders");
    assert_each_once_and_in_order(&changes);
    assert_eq!(changes.len(), 2000);
}

#[test]
fn rows_of_a_snapshot_come_once_however_often_its_daemon_is_killed() {
    let test = "exactly once snapshot";
    let mut random = Random::from_environment(test);
    let shop = Stack::shared().database(Version::NEWEST, test);
    shop.execute("CREATE TABLE orders (id int PRIMARY KEY, item text)");
    shop.execute(
        "INSERT INTO orders SELECT g, repeat('tea ', 50) FROM generate_series(1, 60000) g",
    );
    let pipeline = exactly(&shop).with("snapshot", "initial");
    for _ in 0..4 {
        let daemon = pipeline.start();
        thread::sleep(Duration::from_millis(random.of(50..700)));
        daemon.kill();
    }
    let daemon = pipeline.start();
    eventually("the table is read", SOON * 2, || {
        (pipeline.read_whole() == ["public.orders"]).then_some(())
    });
    shop.execute("INSERT INTO orders VALUES (0, 'milk')");
    pipeline.wait_until_delivered();
    daemon.terminate();
    let changes = pipeline.changes("public.orders");
    assert_each_once_and_in_order(&changes);
    let keys: BTreeSet<_> = changes.iter().map(|change| &change.key).collect();
    assert_eq!((changes.len(), keys.len()), (60_001, 60_001));
    assert_eq!(changes.iter().filter(|change| change.op == Op::Read).count(), 60_000);
}

#[test]
fn a_database_in_which_nothing_happens_lets_go_of_the_log_here_too() {
    let shop = Stack::shared().database(Version::NEWEST, "exactly once idle");
    shop.execute("CREATE TABLE orders (id int PRIMARY KEY)");
    shop.execute("CREATE TABLE ignored (id int PRIMARY KEY)");
    let pipeline = exactly(&shop).with("source.tables", json!(["public.orders"]));
    let daemon = pipeline.start();
    shop.execute("INSERT INTO ignored SELECT generate_series(1, 100000)");
    pipeline.wait_until_delivered();
    daemon.terminate();
}

/// From one mode to the other and back.
#[test]
fn a_pipeline_goes_on_in_the_other_mode() {
    let shop = Stack::shared().database(Version::NEWEST, "exactly once switched");
    shop.execute("CREATE TABLE orders (id int PRIMARY KEY)");
    let mut next = 1;
    let mut order = || {
        shop.execute(&format!("INSERT INTO orders SELECT generate_series({next}, {next} + 499)"));
        next += 500;
    };
    for mode in ["at_least_once", "exactly_once", "at_least_once", "exactly_once"] {
        let pipeline = exactly(&shop).with("delivery", mode);
        let daemon = pipeline.start();
        order();
        pipeline.wait_until_delivered();
        order();
        // What is not yet published when it ends is, by the end or by the next.
        daemon.terminate();
    }
    let pipeline = exactly(&shop);
    let daemon = pipeline.start();
    pipeline.wait_until_delivered();
    let changes = pipeline.changes("public.orders");
    assert_each_once_and_in_order(&changes);
    assert_eq!(changes.len(), 4000);
    // A daemon of the other mode that is killed may repeat what it published last, as ever.
    daemon.terminate();
    let killed = exactly(&shop).with("delivery", "at_least_once");
    let daemon = killed.start();
    order();
    daemon.kill();
    let daemon = pipeline.start();
    order();
    pipeline.wait_until_delivered();
    daemon.terminate();
    let (once, repeats) = without_repeats(&pipeline.changes("public.orders"), 1);
    assert_eq!(once.len(), 5000);
    assert!(repeats <= 500, "{repeats}");
}

#[test]
fn a_transaction_time_out_that_the_brokers_refuse_is_named() {
    let kafka = KafkaOptions::new().setting("transaction.max.timeout.ms", "20000").start();
    let shop = Stack::shared().database(Version::NEWEST, "exactly once time-out");
    shop.execute("CREATE TABLE orders (id int PRIMARY KEY)");
    let pipeline = exactly(&shop).into_kafka(&kafka);
    let daemon = pipeline.launch();
    let fault = daemon.wait_for_state("waiting");
    assert_eq!(fault["error"]["code"], "WT308", "{fault}");
    let text = fault["error"].to_string();
    for word in ["transaction.timeout.ms", "transaction.max.timeout.ms", "30000"] {
        assert!(text.contains(word), "{text}");
    }
    daemon.kill();
    let pipeline = pipeline.with("kafka.properties", json!({"transaction.timeout.ms": 15000}));
    let daemon = pipeline.start();
    shop.execute("INSERT INTO orders VALUES (1)");
    pipeline.wait_until_delivered();
    daemon.terminate();
    assert_eq!(pipeline.changes("public.orders").len(), 1);
}
