//! Daemons come and go, by order or by force; nothing is lost, and what comes again is the end of
//! what was there, in the same order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use waltide_stack::serde_json::{self, Value, json};
use waltide_stack::{Database, KafkaOptions, Stack, Version, eventually};

use crate::random::writer::SCHEMA;
use crate::random::{self, assert_nothing_is_missing};
use crate::support::{Daemon, Pipeline, Random, SOON, on_each_version, without_repeats};

/// Restarts in one test. Enough that some fall into every phase of a daemon's life.
const RESTARTS: u64 = 8;

/// One statement changes up to this many rows, so that most daemons die with some in flight and
/// none leaves much to the next.
const MOST_ROWS: u64 = 1_000;

/// Lets writers write while `disturb` has its way with the daemon.
fn under_load(
    shop: &Database,
    random: &Random,
    disturb: impl FnOnce() -> Daemon,
) -> (Daemon, BTreeSet<String>) {
    // Some time for the daemon: an endless backlog would only make the test longer.
    let patience = |_: &AtomicBool| thread::sleep(Duration::from_millis(50));
    random::under_load(shop, random, MOST_ROWS, patience, disturb)
}

/// Checks all topics and says how many records came again.
fn check(
    shop: &Database,
    pipeline: &Pipeline<'_>,
    committed: &BTreeSet<String>,
    restarts: usize,
) -> usize {
    let mut topics = BTreeMap::new();
    let mut repeats = 0;
    for (table, changes) in pipeline.all_changes() {
        let (once, again) = without_repeats(&changes, restarts);
        repeats += again;
        topics.insert(table, once);
    }
    assert_nothing_is_missing(shop, committed, &topics);
    let records: usize = topics.values().map(Vec::len).sum();
    eprintln!("{} transactions, {records} records, {repeats} came again", committed.len());
    repeats
}

on_each_version! {
    daemons_killed_under_load_lose_nothing_and_repeat_a_suffix
}

fn daemons_killed_under_load_lose_nothing_and_repeat_a_suffix(version: Version) {
    let test = format!("kills on {version}");
    let mut random = Random::from_environment(&test);
    let shop = Stack::shared().database(version, &test);
    shop.execute(SCHEMA);
    let pipeline = Pipeline::of(&shop);
    // The slot comes first: what is committed before it belongs to nobody.
    pipeline.start().terminate();
    let writing = random.branch(99);
    let (daemon, committed) = under_load(&shop, &writing, || {
        for _ in 0..RESTARTS {
            // Some die while they start, most while they stream.
            let daemon = if random.once_in(4) { pipeline.launch() } else { pipeline.start() };
            thread::sleep(Duration::from_millis(random.of(0..600)));
            daemon.kill();
        }
        pipeline.start()
    });
    pipeline.wait_until_delivered();
    daemon.terminate();
    let restarts = usize::try_from(RESTARTS).expect("a number");
    check(&shop, &pipeline, &committed, restarts);
}

/// Ends the connection the daemon streams on, as a failing network or an administrator would.
fn cut_off(shop: &Database, pipeline: &Pipeline<'_>) {
    shop.execute(&format!(
        "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '{}'",
        pipeline.slot()
    ));
}

#[test]
fn a_daemon_cut_off_under_load_loses_nothing_and_repeats_a_suffix() {
    let test = "cut off";
    let mut random = Random::from_environment(test);
    let shop = Stack::shared().database(Version::NEWEST, test);
    shop.execute(SCHEMA);
    let pipeline = Pipeline::of(&shop);
    let daemon = pipeline.start();
    let writing = random.branch(99);
    let (daemon, committed) = under_load(&shop, &writing, || {
        for _ in 0..RESTARTS {
            thread::sleep(Duration::from_millis(random.of(0..600)));
            cut_off(&shop, &pipeline);
            daemon.wait_for_state("streaming");
        }
        daemon
    });
    pipeline.wait_until_delivered();
    daemon.terminate();
    let restarts = usize::try_from(RESTARTS).expect("a number");
    check(&shop, &pipeline, &committed, restarts);
}

#[test]
fn a_daemon_cut_off_while_kafka_hangs_repeats_nothing_out_of_order() {
    let kafka = KafkaOptions::new().start();
    let shop = Stack::shared().database(Version::NEWEST, "cut off while kafka hangs");
    shop.execute("CREATE TABLE orders (id int PRIMARY KEY, item text)");
    // One partition: the first record of each must have arrived before others follow.
    let pipeline = Pipeline::of(&shop).into_kafka(&kafka).with("kafka.partitions", 1);
    let daemon = pipeline.start();
    shop.execute("INSERT INTO orders VALUES (0, '')");
    pipeline.wait_until_delivered();
    kafka.pause();
    // Some of it lies in the broker's sockets, some waits in the daemon.
    for from in [1, 2001, 4001] {
        shop.execute(&format!(
            "INSERT INTO orders SELECT g, repeat(md5(g::text), 32) \
             FROM generate_series({from}, {from} + 1999) g"
        ));
    }
    eventually("records wait for Kafka", SOON, || {
        (daemon.status()["records_in_flight"].as_u64()? >= 400).then_some(())
    });
    cut_off(&shop, &pipeline);
    daemon.wait_for_state("waiting");
    kafka.resume();
    pipeline.wait_until_delivered();
    daemon.terminate();
    let (once, repeats) = without_repeats(&pipeline.changes("public.orders"), 1);
    assert_eq!(once.len(), 6001);
    eprintln!("{repeats} came again");
}

/// Rows of one COPY, the daemon being killed again and again on its way through them.
#[test]
fn a_copy_with_crashes_all_along_its_rows_loses_none() {
    let crashes: u64 = std::env::var("WALTIDE_COPY_CRASHES")
        .map_or(10, |text| text.parse().expect("WALTIDE_COPY_CRASHES is a number"));
    let shop = Stack::shared().database(Version::NEWEST, "copy with crashes");
    shop.execute("CREATE TABLE orders (id int PRIMARY KEY, item text)");
    // A second or so for a thousand rows: five leave at a time.
    let pipeline = Pipeline::of(&shop)
        .with("kafka.partitions", 1)
        .with("kafka.properties", json!({"queue.buffering.max.messages": 5, "linger.ms": 5}));
    pipeline.start().terminate();
    shop.execute("COPY orders FROM PROGRAM 'seq -f \"%.0f\ttea\" 1 1000'");
    let mut killed_at = Vec::new();
    for crash in 1..=crashes {
        let daemon = pipeline.launch();
        let row = crash * 1000 / crashes;
        let at = eventually("the row is reached", SOON, || {
            let (_, body) = daemon.get("/api/status")?;
            let status: Value = serde_json::from_str(&body).ok()?;
            let records = status["pipelines"][0]["records"].as_u64()?;
            (records >= row).then_some(records)
        });
        daemon.kill();
        killed_at.push(at);
    }
    eprintln!("killed at records {killed_at:?}");
    let daemon = pipeline.start();
    pipeline.wait_until_delivered();
    daemon.terminate();
    let crashes = usize::try_from(crashes).expect("a number");
    let (once, repeats) = without_repeats(&pipeline.changes("public.orders"), crashes);
    assert_eq!(once.len(), 1000, "{repeats} came again");
}

#[test]
fn daemons_asked_to_end_under_load_deliver_what_they_hold_and_nothing_comes_again() {
    let test = "terminations";
    let mut random = Random::from_environment(test);
    let shop = Stack::shared().database(Version::NEWEST, test);
    shop.execute(SCHEMA);
    let pipeline = Pipeline::of(&shop);
    pipeline.start().terminate();
    let writing = random.branch(99);
    let (daemon, committed) = under_load(&shop, &writing, || {
        for _ in 0..RESTARTS {
            let daemon = pipeline.start();
            thread::sleep(Duration::from_millis(random.of(0..600)));
            daemon.terminate();
        }
        pipeline.start()
    });
    pipeline.wait_until_delivered();
    daemon.terminate();
    let repeats = check(&shop, &pipeline, &committed, 0);
    assert_eq!(repeats, 0);
}

/// Restarts that are timed: `WALTIDE_RESTARTS`.
fn timed_restarts() -> usize {
    let count = std::env::var("WALTIDE_RESTARTS").ok();
    count.map_or(5, |text| text.parse().expect("a number of restarts"))
}

/// What half of the restarts may take at most: a debug build on a machine that is busy with other
/// tests. `scripts/restarts.sh` shows what a release build takes.
const RESTART: Duration = Duration::from_secs(5);

/// The time of day of an event, in the log's own words: `2026-11-21T08:53:32.318207Z`.
fn time_of_day(event: &Value) -> Duration {
    let text = event["timestamp"].as_str().expect("a time");
    let (_, time) = text.trim_end_matches('Z').split_once('T').expect("a date and a time");
    let seconds = time.split(':').fold(0.0, |sum, part| {
        sum * 60.0 + part.parse::<f64>().expect("hours, minutes or seconds")
    });
    Duration::from_secs_f64(seconds)
}

#[test]
fn a_restart_streams_soon_after() {
    const DAY: Duration = Duration::from_secs(86_400);
    let shop = Stack::shared().database(Version::NEWEST, "restarts timed");
    shop.execute("CREATE TABLE orders (id int PRIMARY KEY, item text)");
    let pipeline = Pipeline::of(&shop);
    let mut took = Vec::new();
    for round in 0..=timed_restarts() {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let launched = Duration::from_millis(
            u64::try_from(now.expect("after 1970").as_millis() % DAY.as_millis()).expect("a day"),
        );
        let daemon = pipeline.start();
        let events = daemon.events();
        let streams = events.iter().find(|event| event["message"] == "streaming");
        let streams = time_of_day(streams.expect("it is logged"));
        // Midnight may be in between.
        let later = if streams < launched { streams + DAY } else { streams };
        // The first makes slot, topics and checkpoint.
        if round > 0 {
            took.push(later - launched);
        }
        shop.execute(&format!("INSERT INTO orders VALUES ({round}, 'tea')"));
        pipeline.wait_until_delivered();
        daemon.terminate();
    }
    took.sort_unstable();
    let median = took[took.len() / 2];
    let (least, most) = (took[0], took[took.len() - 1]);
    eprintln!("restart to streaming: {median:?} in the median, from {least:?} to {most:?}");
    assert!(median < RESTART, "{took:?}");
    let (once, _) = without_repeats(&pipeline.changes("public.orders"), took.len());
    assert_eq!(once.len(), took.len() + 1);
}
