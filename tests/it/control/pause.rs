//! A pause holds everything where it is, and loses nothing.

use std::time::{Duration, Instant};

use waltide_stack::serde_json::Value;
use waltide_stack::{KafkaOptions, PostgresOptions, Stack, Version, eventually};

use super::{tell, told};
use crate::support::{Pipeline, SOON, assert_each_once_and_in_order};

const ORDERS: &str = "CREATE TABLE orders (id int PRIMARY KEY, item text)";

/// More than sockets and buffers on the way hold.
const MANY: &str = "INSERT INTO orders SELECT n, repeat(md5(n::text), 20) FROM generate_series";

#[test]
fn a_paused_pipeline_publishes_nothing_keeps_its_slot_and_goes_on_where_it_was() {
    for version in [Version::V14, Version::NEWEST] {
        let database = Stack::shared().database(version, "pause");
        database.execute(ORDERS);
        // A standby would be given the slot where Kafka is away, and takes one that is free at once.
        let pipeline = Pipeline::of(&database).with("standby_yield_seconds", 1);
        let daemon = pipeline.start();
        let standby = pipeline.launch();
        standby.wait_for_state("standby");
        database.execute("INSERT INTO orders VALUES (1, 'tea')");
        pipeline.wait_until_delivered();
        let out = tell(&daemon, &pipeline, "pause");
        assert!(out.contains(" is paused: it holds the slot"), "{out}");
        let paused = Instant::now();
        database.execute(&format!("{MANY}(2, 50000) AS n"));

        let (code, ready) = daemon.get("/readyz").expect("an answer");
        assert!(code == 503 && ready.contains("\"state\":\"paused\""), "{ready}");
        assert_eq!(daemon.get("/livez").expect("an answer").0, 200);
        let (_, metrics) = daemon.get("/metrics").expect("an answer");
        let name = pipeline.name();
        for line in [
            format!("waltide_pipeline_state{{pipeline=\"{name}\",state=\"paused\"}} 1"),
            format!("waltide_outages_total{{pipeline=\"{name}\"}} 0"),
        ] {
            assert!(metrics.contains(&line), "{line}: {metrics}");
        }
        // Longer than a server bears a client that says nothing, and a standby asks every second.
        let status = eventually("the log that is kept grows", SOON, || {
            let status = daemon.status();
            let slot = &status["slot"]["retained_wal_bytes"];
            let long = paused.elapsed() > Duration::from_secs(15);
            (long && slot.as_u64() > Some(20_000_000)).then_some(status)
        });
        assert_eq!((&status["state"], &status["paused"]), (&"paused".into(), &true.into()));
        let lag = status["lag_seconds"].as_f64().expect("a lag");
        let passed = paused.elapsed().as_secs_f64();
        assert!(lag > passed - 8.0 && lag < passed + 3.0, "{lag} s of {passed} s");
        assert_eq!(pipeline.changes("public.orders").len(), 1);
        assert_eq!(standby.status()["state"], "standby");

        let out = tell(&daemon, &pipeline, "resume");
        assert!(out.contains(" is streaming: changes flow"), "{out}");
        pipeline.wait_until_delivered();
        let changes = pipeline.changes("public.orders");
        assert_eq!(changes.len(), 50_000);
        assert_each_once_and_in_order(&changes);
        assert_eq!(daemon.status()["state"], "streaming");
        standby.terminate();
        daemon.terminate();
    }
}

#[test]
fn pauses_in_the_midst_of_transactions_neither_break_nor_lose_one() {
    let database = Stack::shared().database(Version::NEWEST, "pauses");
    database.execute(ORDERS);
    let pipeline = Pipeline::of(&database);
    let daemon = pipeline.start();
    database.execute("INSERT INTO orders VALUES (0, 'tea')");
    pipeline.wait_until_delivered();
    for round in 0..8 {
        let first = round * 5_000 + 1;
        database.execute(&format!("{MANY}({first}, {}) AS n", first + 4_999));
        tell(&daemon, &pipeline, "pause");
        daemon.wait_for_state("paused");
        // What has come is whole, and nothing more comes.
        let before = pipeline.changes("public.orders").len();
        assert_eq!(before % 5_000, (1 + 2 * round) % 5_000, "after {round} rounds");
        for item in ["milk", "water"] {
            database.execute(&format!("UPDATE orders SET item = '{item}' WHERE id = {first}"));
        }
        let status = daemon.status();
        assert_eq!((&status["state"], &status["records_in_flight"]), (&"paused".into(), &0.into()));
        assert_eq!(pipeline.changes("public.orders").len(), before);
        tell(&daemon, &pipeline, "resume");
        pipeline.wait_until_delivered();
    }
    let changes = pipeline.changes("public.orders");
    assert_eq!(changes.len(), 1 + 8 * 5_002);
    assert_each_once_and_in_order(&changes);
    daemon.terminate();
}

#[test]
fn a_server_can_be_restarted_while_a_pipeline_is_paused_and_the_pause_holds() {
    let postgres = PostgresOptions::new(Version::NEWEST).start();
    let database = postgres.database("pause restart");
    database.execute(ORDERS);
    let pipeline = Pipeline::of(&database);
    let daemon = pipeline.start();
    tell(&daemon, &pipeline, "pause");
    database.execute(&format!("{MANY}(1, 30000) AS n"));
    // It waits for whoever has not read its log.
    let since = Instant::now();
    postgres.restart();
    eprintln!("the restart took {:?}", since.elapsed());
    daemon.wait_for_state("paused");
    assert!(!daemon.log().contains("changes flow again"), "{}", daemon.log());
    assert!(pipeline.confirmed() < pipeline.end_of_log());
    postgres.kill();
    daemon.wait_for_state("waiting");
    postgres.start_again();
    daemon.wait_for_state("paused");
    tell(&daemon, &pipeline, "resume");
    pipeline.wait_until_delivered();
    let changes = pipeline.changes("public.orders");
    assert_eq!(changes.len(), 30_000);
    assert_each_once_and_in_order(&changes);
    daemon.terminate();
}

#[test]
fn a_pause_while_kafka_hangs_is_said_to_wait_and_holds_once_it_can() {
    let database = Stack::shared().database(Version::NEWEST, "pause kafka");
    database.execute(ORDERS);
    let kafka = KafkaOptions::new().start();
    let pipeline = Pipeline::of(&database).into_kafka(&kafka);
    let daemon = pipeline.start();
    database.execute("INSERT INTO orders VALUES (1, 'tea')");
    pipeline.wait_until_delivered();
    kafka.pause();
    database.execute("INSERT INTO orders VALUES (2, 'tea')");
    daemon.wait_for_state("waiting");
    let out = tell(&daemon, &pipeline, "pause");
    assert!(out.contains("was told to pause, and is still waiting: WT30"), "{out}");
    kafka.resume();
    daemon.wait_for_state("paused");
    database.execute("INSERT INTO orders VALUES (3, 'tea')");
    assert_eq!(pipeline.topic("public.orders").wait_for(2, SOON).len(), 2);
    tell(&daemon, &pipeline, "resume");
    pipeline.topic("public.orders").wait_for(3, SOON);
    daemon.terminate();
}

#[test]
fn a_pipeline_that_was_stopped_goes_on_when_it_is_told_to_after_the_mend() {
    let database = Stack::shared().database(Version::NEWEST, "stopped");
    database.execute(ORDERS);
    let kafka = Stack::shared().kafka();
    let pipeline = Pipeline::of(&database);
    let topic = pipeline.topic("public.orders");
    kafka.create_topic(topic.name(), 1, &[("max.message.bytes", "10000")]);
    let daemon = pipeline.start();
    let long = "SELECT string_agg(md5(n::text), '') FROM generate_series(1, 1000) AS n";
    database.execute(&format!("INSERT INTO orders VALUES (1, ({long}))"));
    daemon.wait_for_state("stopped");
    // Nothing is mended yet.
    let out = tell(&daemon, &pipeline, "resume");
    assert!(out.contains("was told to resume, and is still "), "{out}");
    kafka.alter_topic(topic.name(), "max.message.bytes", "100000");
    let ended = told(&daemon, &["resume"]);
    assert!(ended.out.contains(" is streaming: "), "{}", ended.everything);
    assert_eq!(topic.wait_for(1, SOON).len(), 1);
    daemon.terminate();
}

#[test]
fn a_pause_ends_with_the_process_and_an_end_while_paused_is_in_order() {
    let database = Stack::shared().database(Version::NEWEST, "pause end");
    database.execute(ORDERS);
    let pipeline = Pipeline::of(&database);
    let daemon = pipeline.start();
    tell(&daemon, &pipeline, "pause");
    database.execute(&format!("{MANY}(1, 30000) AS n"));
    daemon.terminate();
    let daemon = pipeline.start();
    let paused: Value = daemon.status()["paused"].clone();
    assert_eq!(paused, false);
    pipeline.wait_until_delivered();
    assert_eq!(pipeline.changes("public.orders").len(), 30_000);
    daemon.terminate();
}
