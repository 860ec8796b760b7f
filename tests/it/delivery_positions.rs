//! What the server is told is exactly what has arrived.

mod commits;

use std::collections::BTreeSet;
use std::time::Duration;

use waltide_stack::serde_json::json;
use waltide_stack::{Database, KafkaOptions, Stack, Version, eventually};

use crate::support::{
    Lsn, Pipeline, SOON, assert_each_once_and_in_order, on_each_version, without_repeats,
};
use commits::Commits;

/// How often feedback is awaited where it must go on; it leaves at least every second.
const FEEDBACKS: usize = 6;

/// The oldest that feedback may be. It leaves every 0.9 s; the rest is for a busy machine.
const LONGEST_SILENCE_S: f64 = 5.0;

on_each_version! {
    a_database_in_which_nothing_happens_lets_go_of_the_log
    back_to_back_commits_are_told_apart_to_the_byte
}

/// What is written elsewhere in the cluster, or to tables nobody captures, must not pile up.
fn a_database_in_which_nothing_happens_lets_go_of_the_log(version: Version) {
    let shop = Stack::shared().database(version, "idle");
    shop.execute("CREATE TABLE orders (id int PRIMARY KEY); CREATE TABLE chatter (text text)");
    let busy = Stack::shared().database(version, "busy");
    busy.execute("CREATE TABLE chatter (text text)");
    let pipeline = Pipeline::of(&shop).with("source.exclude", vec!["public.chatter"]);
    let daemon = pipeline.start();
    for database in [&busy, &shop] {
        let before = pipeline.end_of_log();
        database
            .execute("INSERT INTO chatter SELECT repeat('x', 500) FROM generate_series(1, 8000)");
        let after = pipeline.end_of_log();
        assert!(after.0 - before.0 > 4_000_000, "that wrote much log");
        eventually("the slot moves on", Duration::from_secs(10), || {
            (pipeline.confirmed() >= after).then_some(())
        });
    }
    eventually("the daemon says so too", SOON, || {
        let durable = daemon.status()["durable_lsn"].as_str()?.parse::<Lsn>().ok()?;
        (durable >= pipeline.confirmed()).then_some(())
    });
    daemon.terminate();
}

/// Waits for feedback to come several times, while what is confirmed stays where it is.
#[track_caller]
fn assert_only_feedback_goes_on(shop: &Database, pipeline: &Pipeline<'_>) -> Lsn {
    let slot = pipeline.slot();
    let pid = shop
        .value(&format!("SELECT active_pid FROM pg_replication_slots WHERE slot_name = '{slot}'"));
    let confirmed = pipeline.confirmed();
    let mut replies = BTreeSet::new();
    eventually("feedback goes on", SOON, || {
        let rows = shop.query(&format!(
            "SELECT reply_time, extract(epoch FROM clock_timestamp() - reply_time) \
             FROM pg_stat_replication WHERE pid = {pid}"
        ));
        let row = rows.first().expect("the connection lives");
        let age_s: f64 = row[1].as_deref().and_then(|age| age.parse().ok()).expect("an age");
        assert!(age_s < LONGEST_SILENCE_S, "the server has heard nothing for {age_s} s");
        assert_eq!(pipeline.confirmed(), confirmed, "the position moved");
        replies.insert(row[0].clone());
        (replies.len() >= FEEDBACKS).then_some(())
    });
    confirmed
}

#[test]
fn while_kafka_hangs_feedback_goes_on_and_nothing_is_confirmed() {
    let kafka = KafkaOptions::new().start();
    let shop = Stack::shared().database(Version::NEWEST, "kafka hangs");
    shop.execute("CREATE TABLE orders (id int PRIMARY KEY, item text)");
    // One partition: the first record of each must have arrived before others follow.
    let pipeline = Pipeline::of(&shop).into_kafka(&kafka).with("kafka.partitions", 1);
    let daemon = pipeline.start();
    shop.execute("INSERT INTO orders VALUES (0, 'first')");
    pipeline.wait_until_delivered();
    kafka.pause();
    // These are in flight, each wholly received; then more than the producer's queue holds, so
    // that the pipeline itself stands still.
    for id in 30_001..=30_003 {
        shop.execute(&format!("INSERT INTO orders VALUES ({id}, 'in flight')"));
    }
    eventually("they are on their way", SOON, || {
        (daemon.status()["records_in_flight"].as_u64()? >= 3).then_some(())
    });
    shop.execute(
        "INSERT INTO orders SELECT g, repeat(md5(g::text), 32) FROM generate_series(1, 20000) g",
    );
    shop.execute("INSERT INTO orders VALUES (20001, 'last')");
    eventually("the pipeline is stuck", SOON, || {
        (daemon.status()["records_in_flight"].as_u64()? >= 400).then_some(())
    });
    let confirmed = assert_only_feedback_goes_on(&shop, &pipeline);
    kafka.resume();
    pipeline.wait_until_delivered();
    let changes = pipeline.changes("public.orders");
    assert_eq!(changes.len(), 20_005);
    assert_each_once_and_in_order(&changes);
    let stuck = changes.iter().map(|change| change.position.commit);
    let first_stuck = stuck.collect::<BTreeSet<_>>().into_iter().nth(1).expect("a commit");
    assert!(confirmed <= first_stuck, "{confirmed} was confirmed before {first_stuck} arrived");
    daemon.terminate();
}

/// Two commits that follow each other in the log without a byte in between: the end of the first
/// is the start of the second. Told too little, the server repeats the first; told too much, it
/// never sends the second.
fn back_to_back_commits_are_told_apart_to_the_byte(version: Version) {
    let shop = Stack::shared().database(version, "back to back");
    shop.execute("CREATE TABLE small (id int); CREATE TABLE large (id int)");
    // A second and a half pass before the second commit's rows have left, five at a time.
    let pipeline = Pipeline::of(&shop)
        .with("kafka.properties", json!({"queue.buffering.max.messages": 5, "linger.ms": 50}));
    pipeline.start().terminate();
    let commits = Commits::watch(&shop);
    let (first, second) = commits.back_to_back(
        ("INSERT INTO small VALUES (1)", "INSERT INTO large SELECT generate_series(1, 150)"),
        |passed| {
            let slot = pipeline.slot();
            shop.execute(&format!("SELECT pg_replication_slot_advance('{slot}', '{passed}')"));
        },
    );
    let start = pipeline.confirmed();
    assert!(start < first.end);

    let daemon = pipeline.start();
    // On its way there it may stand anywhere between transactions.
    let confirmed = eventually("the slot moves on", SOON, || {
        let confirmed = pipeline.confirmed();
        (confirmed >= first.end).then_some(confirmed)
    });
    daemon.kill();
    assert_eq!((confirmed, first.end), (second.start, second.start));
    assert_eq!(pipeline.changes("public.small").len(), 1);
    assert!(pipeline.changes("public.large").len() < 150, "the test was too slow");

    let daemon = pipeline.start();
    pipeline.wait_until_delivered();
    daemon.terminate();
    assert_eq!(pipeline.changes("public.small").len(), 1, "the first came again");
    let (once, _) = without_repeats(&pipeline.changes("public.large"), 1);
    assert_eq!(once.len(), 150);
    assert!(once.iter().all(|change| change.position.commit == second.start));
}
