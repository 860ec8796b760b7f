//! What brokers do to a stream without breaking it: it goes on by itself, and nothing is lost.

use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use waltide_stack::{Database, Kafka, KafkaOptions, Stack, Version, eventually};

use crate::support::{Daemon, Lsn, Pipeline, SOON, assert_each_once_and_in_order, without_repeats};

fn shop(test: &str) -> Database {
    let database = Stack::shared().database(Version::NEWEST, test);
    database.execute("CREATE TABLE orders (id int PRIMARY KEY, item text)");
    database
}

fn orders(shop: &Database, from: u32, to: u32) {
    shop.execute(&format!(
        "INSERT INTO orders SELECT g, md5(g::text) FROM generate_series({from}, {to}) AS g"
    ));
}

/// The failures it has logged, by code.
fn codes(daemon: &Daemon) -> BTreeSet<String> {
    let failures = daemon.events().into_iter().filter(|event| event["level"] == "ERROR");
    failures.filter_map(|event| Some(event["code"].as_str()?.to_owned())).collect()
}

#[test]
fn leaders_that_move_between_brokers_are_followed() {
    let kafka = KafkaOptions::new().start();
    let shop = shop("leaders move");
    let pipeline = Pipeline::of(&shop).into_kafka(&kafka);
    // Its checkpoints are on the first broker, before there is another.
    pipeline.start().terminate();
    let second = KafkaOptions::new().joining(&kafka).start();
    let topic = pipeline.topic("public.orders");
    // Every other partition begins with the second broker as its leader.
    kafka.create_replicated_topic(topic.name(), 6, 2, &[]);
    let daemon = pipeline.start();
    orders(&shop, 1, 1000);
    pipeline.wait_until_delivered();
    second.kill();
    orders(&shop, 1001, 2000);
    pipeline.wait_until_delivered();
    second.start_again();
    orders(&shop, 2001, 3000);
    // The leaders go back while records flow.
    let mut id = 3000;
    thread::scope(|scope| {
        let election = scope.spawn(|| {
            eventually("both brokers are in sync, and leaders move", SOON, || {
                kafka.elect_preferred_leaders().then_some(())
            });
        });
        while !election.is_finished() {
            orders(&shop, id + 1, id + 50);
            id += 50;
            thread::sleep(Duration::from_millis(20));
        }
    });
    orders(&shop, id + 1, id + 1000);
    pipeline.wait_until_delivered();
    second.stop();
    orders(&shop, id + 1001, id + 2000);
    pipeline.wait_until_delivered();
    daemon.wait_ready();
    let changes = pipeline.changes("public.orders");
    let (once, _) = without_repeats(&changes, 3);
    assert_eq!(once.len(), usize::try_from(id).unwrap() + 2000);
    // Waiting for a new leader is all that may have been told.
    let codes = codes(&daemon);
    assert!(codes.iter().all(|code| code == "WT301"), "{codes:?}\n{}", daemon.log());
    daemon.terminate();
}

#[test]
fn a_quota_slows_the_stream_down_and_nothing_else() {
    let kafka = KafkaOptions::new().start();
    let shop = shop("quota");
    let pipeline = Pipeline::of(&shop).into_kafka(&kafka).with("kafka.partitions", 1);
    let quota = |change: &[&str]| {
        let client = ["--alter", "--entity-type", "clients", "--entity-name", "waltide"];
        kafka.configs(client.iter().chain(change).copied());
    };
    quota(&["--add-config", "producer_byte_rate=40000"]);
    let daemon = pipeline.start();
    let started = Instant::now();
    // Some 700 kB once compressed; Kafka lets eleven seconds' worth pass first.
    shop.execute(
        "INSERT INTO orders SELECT g, (SELECT string_agg(md5(g::text || n::text), '') \
         FROM generate_series(1, 30) AS n) FROM generate_series(1, 1500) AS g",
    );
    let at_work = eventually("it is behind", SOON, || {
        let status = daemon.status();
        (status["lag_bytes"].as_u64()? > 300_000).then_some(status)
    });
    assert_ne!(at_work["state"], "stopped");
    pipeline.wait_until_delivered();
    let took = started.elapsed();
    eprintln!("it took {took:?}");
    assert!(took > Duration::from_secs(3), "the quota was not felt: {took:?}");
    quota(&["--delete-config", "producer_byte_rate"]);
    orders(&shop, 1501, 4000);
    pipeline.wait_until_delivered();
    daemon.wait_ready();
    let changes = pipeline.changes("public.orders");
    assert_eq!(changes.len(), 4000);
    assert_each_once_and_in_order(&changes);
    let codes = codes(&daemon);
    assert!(codes.iter().all(|code| code == "WT301"), "{codes:?}\n{}", daemon.log());
    daemon.terminate();
}

/// How long Kafka hangs: `WALTIDE_KAFKA_PAUSE_SECONDS`.
fn pause() -> Duration {
    let seconds = std::env::var("WALTIDE_KAFKA_PAUSE_SECONDS").ok();
    let seconds = seconds.map(|text| text.parse().expect("a number of seconds"));
    Duration::from_secs(seconds.unwrap_or(20))
}

/// The most memory that may ever be resident.
const MEMORY_KIB: u64 = 64 * 1024;

/// The quick producer never holds more (`gear.rs`); beyond it is the one for bulk.
const QUICK: u64 = 500;

/// The oldest that feedback may be. It leaves every 0.9 s; the rest is for a busy machine, and still
/// less than after what the server gives up (7 s).
const LONGEST_SILENCE_S: f64 = 6.5;

fn in_flight(daemon: &Daemon) -> u64 {
    daemon.status()["records_in_flight"].as_u64().expect("a number of records")
}

/// The most memory that was ever resident.
fn peak_kib(daemon: &Daemon) -> u64 {
    let path = format!("/proc/{}/status", daemon.process().pid());
    let status = fs::read_to_string(path).expect("the daemon lives");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a peak");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}

/// Lets Kafka go on and hang again until records wait in the producer for bulk: it is used once
/// what filled the quick one has arrived.
fn hang_while_bulk_is_under_way(kafka: &Kafka, daemon: &Daemon) {
    let handed_over = || daemon.status()["records"].as_u64().expect("a number of records");
    for _ in 0..20 {
        let waiting = eventually("records wait", SOON, || {
            let before = in_flight(daemon);
            thread::sleep(Duration::from_millis(500));
            let now = in_flight(daemon);
            (now == before && now > 0).then_some(now)
        });
        eprintln!("{waiting} records wait");
        if waiting > QUICK {
            return;
        }
        let before = handed_over();
        kafka.resume();
        eventually("more leave", SOON, || (handed_over() > before + QUICK).then_some(()));
        kafka.pause();
    }
    panic!("the producer for bulk was never used");
}

#[test]
fn a_kafka_that_hangs_under_load_costs_neither_memory_nor_the_connection() {
    let kafka = KafkaOptions::new().start();
    let shop = shop("kafka hangs under load");
    let pipeline = Pipeline::of(&shop).into_kafka(&kafka);
    let daemon = pipeline.start();
    let slot = pipeline.slot();
    let pid = shop
        .value(&format!("SELECT active_pid FROM pg_replication_slots WHERE slot_name = '{slot}'"));
    shop.execute("INSERT INTO orders VALUES (0, 'makes the topic')");
    pipeline.wait_until_delivered();
    kafka.pause();
    let row = "repeat(md5(g::text), 10)";
    let insert = |from: u32, to: u32| {
        shop.execute(&format!(
            "INSERT INTO orders SELECT g, {row} FROM generate_series({from}, {to}) AS g"
        ));
    };
    // Far more than both producers hold.
    for thousand in 0..100 {
        insert(thousand * 1000 + 1, thousand * 1000 + 1000);
    }
    hang_while_bulk_is_under_way(&kafka, &daemon);
    let confirmed: Lsn = pipeline.confirmed();
    let (started, mut id) = (Instant::now(), 100_000);
    while started.elapsed() < pause() {
        insert(id + 1, id + 100);
        id += 100;
        let silence = shop.value(&format!(
            "SELECT extract(epoch FROM clock_timestamp() - reply_time) \
             FROM pg_stat_replication WHERE pid = {pid}"
        ));
        let silence_s: f64 = silence.parse().expect("the connection lives");
        assert!(silence_s < LONGEST_SILENCE_S, "the server has heard nothing for {silence_s} s");
        assert_eq!(pipeline.confirmed(), confirmed, "the position moved");
        thread::sleep(Duration::from_millis(500));
    }
    let status = daemon.status();
    assert_eq!((&status["state"], &status["error"]["code"]), (&"waiting".into(), &"WT301".into()));
    kafka.resume();
    let end = pipeline.end_of_log();
    eventually("it has caught up", SOON * 3, || (pipeline.confirmed() >= end).then_some(()));
    daemon.wait_ready();
    let peak = peak_kib(&daemon);
    eprintln!("the peak was {peak} KiB");
    assert!(peak <= MEMORY_KIB, "{peak} KiB were resident");
    let began = daemon.events().iter().filter(|event| event["message"] == "streaming").count();
    assert_eq!(began, 1, "{}", daemon.log());
    let changes = pipeline.changes("public.orders");
    assert_eq!(changes.len(), usize::try_from(id).expect("a small number") + 1);
    assert_each_once_and_in_order(&changes);
    daemon.terminate();
}

/// The server describes a table again after every change of it, and after each ANALYZE.
#[test]
fn a_table_that_is_described_again_while_kafka_hangs_does_not_end_the_stream() {
    let kafka = KafkaOptions::new().start();
    let shop = shop("described again");
    let pipeline = Pipeline::of(&shop).into_kafka(&kafka);
    let daemon = pipeline.start();
    orders(&shop, 1, 10);
    pipeline.wait_until_delivered();
    kafka.pause();
    for id in 11..=13 {
        orders(&shop, id, id);
        shop.execute(
            "ALTER TABLE orders ADD COLUMN extra int; ALTER TABLE orders DROP COLUMN extra",
        );
    }
    orders(&shop, 14, 14);
    eventually("it has got past them", SOON, || (in_flight(&daemon) >= 4).then_some(()));
    kafka.resume();
    pipeline.wait_until_delivered();
    daemon.wait_ready();
    let began = daemon.events().iter().filter(|event| event["message"] == "streaming").count();
    assert_eq!(began, 1, "{}", daemon.log());
    let changes = pipeline.changes("public.orders");
    assert_eq!(changes.len(), 14);
    assert_each_once_and_in_order(&changes);
    daemon.terminate();
}
