//! Lag says what an operator would say.
//!
//! Each test makes a situation and compares what `/api/status` and `/metrics` say with the time
//! that has passed by the test's own watch.

use std::time::{Duration, Instant};

use waltide_stack::serde_json::json;
use waltide_stack::{Database, KafkaOptions, PostgresOptions, Version, eventually};

use crate::cli::waltide;
use crate::support::{Daemon, Pipeline, SOON};

const ORDERS: &str = "CREATE TABLE orders (id int PRIMARY KEY, item text)";

/// What a busy machine adds: a commit that has not come yet is not known.
const SLACK: f64 = 6.0;

/// What is said in both places, the metric a moment later.
fn lags(daemon: &Daemon) -> [f64; 2] {
    let seconds = daemon.status()["lag_seconds"].as_f64().expect("a lag");
    let (_, metrics) = daemon.get("/metrics").expect("an answer");
    let line = metrics.lines().find(|line| line.starts_with("waltide_source_lag_seconds"));
    let metric = line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    [seconds, metric.expect("the metric")]
}

fn lag(daemon: &Daemon) -> f64 {
    lags(daemon)[0]
}

/// Between which two moments a change was committed.
#[derive(Clone, Copy)]
struct Committed(Instant, Instant);

/// Waits until a lag of so many seconds is said, and sees to it that it is not said too early and
/// that it is as old as the test knows it is.
#[track_caller]
fn grows(daemon: &Daemon, committed: Committed, to: f64) {
    let Committed(earliest, latest) = committed;
    eventually(&format!("a lag of {to} s"), SOON, || {
        let before = latest.elapsed().as_secs_f64();
        let said = lags(daemon);
        let after = earliest.elapsed().as_secs_f64();
        for said in said {
            assert!(said <= after + 0.5, "{said} s said after {after} s");
            if before > SLACK {
                assert!(said >= before - SLACK, "{said} s said after {before} s");
            }
        }
        (said[0] >= to).then_some(())
    });
}

#[track_caller]
fn is_gone(daemon: &Daemon) {
    eventually("there is no lag", SOON, || {
        let status = daemon.status();
        (lag(daemon) == 0.0 && status["lag_bytes"] == 0).then_some(())
    });
}

fn order(database: &Database, id: u32) -> Committed {
    let before = Instant::now();
    database.execute(&format!("INSERT INTO orders VALUES ({id}, 'tea')"));
    Committed(before, Instant::now())
}

#[test]
fn while_kafka_stands_still_the_oldest_commit_grows_older() {
    let postgres = PostgresOptions::new(Version::NEWEST).start();
    let database = postgres.database("lag kafka");
    database.execute(ORDERS);
    let kafka = KafkaOptions::new().start();
    let pipeline = Pipeline::of(&database).into_kafka(&kafka);
    let daemon = pipeline.start();
    order(&database, 1);
    is_gone(&daemon);
    kafka.pause();
    let since = order(&database, 2);
    grows(&daemon, since, 8.0);
    // Later commits do not make it younger.
    order(&database, 3);
    grows(&daemon, since, 10.0);
    kafka.resume();
    is_gone(&daemon);
    daemon.terminate();
}

#[test]
fn while_the_server_is_away_it_is_the_time_since_it_was_heard() {
    let postgres = PostgresOptions::new(Version::NEWEST).start();
    let database = postgres.database("lag away");
    database.execute(ORDERS);
    let pipeline = Pipeline::of(&database);
    let daemon = pipeline.start();
    order(&database, 1);
    is_gone(&daemon);
    postgres.kill();
    let since = Instant::now();
    // It was last heard up to two seconds before.
    eventually("a lag of 6 s", SOON, || {
        let passed = since.elapsed().as_secs_f64();
        let said = lag(&daemon);
        assert!(said <= since.elapsed().as_secs_f64() + 2.5, "{said} s after {passed} s");
        (said >= 6.0).then_some(())
    });
    postgres.start_again();
    is_gone(&daemon);
    daemon.terminate();
}

#[test]
fn an_open_transaction_is_no_lag_and_an_idle_database_has_none() {
    let postgres = PostgresOptions::new(Version::NEWEST).start();
    let (database, other) = (postgres.database("lag open"), postgres.database("lag other"));
    database.execute(ORDERS);
    other.execute("CREATE TABLE noise (a text)");
    let pipeline = Pipeline::of(&database);
    let daemon = pipeline.start();
    order(&database, 1);
    is_gone(&daemon);
    let session = database.session();
    session.execute("BEGIN; INSERT INTO orders VALUES (2, 'tea')");
    let since = Instant::now();
    // WAL that is none of ours goes by all the while.
    while since.elapsed() < Duration::from_secs(6) {
        other.execute("INSERT INTO noise SELECT repeat('x', 1000) FROM generate_series(1, 500)");
        let said = lag(&daemon);
        assert!(said < SLACK, "{said} s, and nothing is committed");
    }
    session.execute("COMMIT");
    pipeline.wait_until_delivered();
    is_gone(&daemon);
    assert_eq!(pipeline.topic("public.orders").wait_for(2, SOON).len(), 2);
    daemon.terminate();
}

#[test]
fn rows_that_are_being_read_are_no_lag_and_hide_none() {
    let postgres = PostgresOptions::new(Version::NEWEST).start();
    let database = postgres.database("lag snapshot");
    database.execute(ORDERS);
    database
        .execute("INSERT INTO orders SELECT n, repeat('x', 200) FROM generate_series(1, 60000) n");
    let kafka = KafkaOptions::new().start();
    // Some megabytes, for half a minute.
    let slowly = json!({ "mode": "initial", "parallelism": 1, "max_rate": 400_000 });
    let pipeline = Pipeline::of(&database).with("snapshot", slowly).into_kafka(&kafka);
    let daemon = pipeline.start();
    let state = || daemon.status()["snapshots"]["public.orders"]["state"].clone();
    eventually("the table is being read", SOON, || (state() == "reading").then_some(()));
    for id in 0..10 {
        order(&database, 100_000 + id);
        is_gone(&daemon);
    }
    kafka.pause();
    let since = order(&database, 200_000);
    grows(&daemon, since, 6.0);
    kafka.resume();
    is_gone(&daemon);
    assert_ne!(state(), "done", "it was over before its lag was looked at");
    daemon.terminate();
}

#[test]
fn a_clock_that_is_wrong_by_a_minute_does_not_show() {
    for (offset, word) in [("+60s", "ahead of ours"), ("-60s", "behind ours")] {
        let postgres = PostgresOptions::new(Version::NEWEST).clock(offset).start();
        let database = postgres.database("lag skew");
        database.execute(ORDERS);
        let kafka = KafkaOptions::new().start();
        let pipeline = Pipeline::of(&database).into_kafka(&kafka);
        // The clock is as wrong as it should be.
        let file = pipeline.file();
        let found = waltide(&["check", "--json", "--config", file.path().to_str().expect("UTF-8")]);
        let line = found.out.lines().find(|line| line.contains("source.clock")).expect("a finding");
        assert!(line.contains("\"warning\"") && line.contains(word), "{line}");
        let daemon = pipeline.start();
        order(&database, 1);
        is_gone(&daemon);
        let (_, metrics) = daemon.get("/metrics").expect("an answer");
        let sum =
            metrics.lines().find_map(|line| line.strip_prefix("waltide_end_to_end_seconds_sum"));
        let sum: f64 = sum.and_then(|line| line.rsplit(' ').next()?.parse().ok()).expect("a sum");
        assert!(sum < 30.0, "{sum}");
        kafka.pause();
        let since = order(&database, 2);
        grows(&daemon, since, 6.0);
        kafka.resume();
        is_gone(&daemon);
        daemon.terminate();
    }
}
