//! A second daemon with the same configuration waits for the slot and takes over.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant};

use waltide_stack::serde_json::Value;
use waltide_stack::{KafkaOptions, PostgresOptions, Proxy, Stack, Version, eventually};

use crate::support::{
    Daemon, Lsn, Pipeline, SOON, assert_each_once_and_in_order, on_each_version, without_repeats,
};

/// What we promise.
const TAKEOVER: Duration = Duration::from_secs(10);

/// Waits until the second daemon streams, no longer than is promised.
#[track_caller]
fn takes_over(second: &Daemon, since: Instant) {
    second.wait_for_state("streaming");
    let took = since.elapsed();
    eprintln!("the takeover took {took:?}");
    assert!(took < TAKEOVER, "the takeover took {took:?}");
}

on_each_version!(a_second_daemon_stands_by_and_takes_over_when_the_first_is_killed);

fn a_second_daemon_stands_by_and_takes_over_when_the_first_is_killed(version: Version) {
    let shop = Stack::shared().database(version, "takeover");
    shop.execute("CREATE TABLE orders (id int PRIMARY KEY)");
    let pipeline = Pipeline::of(&shop);
    let first = pipeline.start();
    let second = pipeline.launch();
    second.wait_for_state("standby");
    second.wait_ready();
    shop.execute("INSERT INTO orders SELECT generate_series(1, 1000)");
    pipeline.wait_until_delivered();
    assert_eq!(second.status()["state"], "standby");
    shop.execute("INSERT INTO orders SELECT generate_series(1001, 2000)");
    first.kill();
    takes_over(&second, Instant::now());
    shop.execute("INSERT INTO orders SELECT generate_series(2001, 3000)");
    pipeline.wait_until_delivered();
    second.terminate();
    let (once, _) = without_repeats(&pipeline.changes("public.orders"), 1);
    assert_eq!(once.len(), 3000);
}

#[test]
fn a_second_daemon_takes_over_when_the_first_ends_and_nothing_comes_again() {
    let shop = Stack::shared().database(Version::NEWEST, "handover");
    shop.execute("CREATE TABLE orders (id int PRIMARY KEY)");
    let pipeline = Pipeline::of(&shop);
    let first = pipeline.start();
    let second = pipeline.launch();
    second.wait_for_state("standby");
    shop.execute("INSERT INTO orders SELECT generate_series(1, 5000)");
    first.terminate();
    second.wait_for_state("streaming");
    shop.execute("INSERT INTO orders SELECT generate_series(5001, 6000)");
    pipeline.wait_until_delivered();
    let changes = pipeline.changes("public.orders");
    assert_eq!(changes.len(), 6000);
    assert_each_once_and_in_order(&changes);
    second.terminate();
}

#[test]
fn a_daemon_that_lost_its_slot_while_frozen_stands_by_when_it_wakes() {
    let shop = Stack::shared().database(Version::NEWEST, "frozen");
    shop.execute("CREATE TABLE orders (id int PRIMARY KEY)");
    let pipeline = Pipeline::of(&shop);
    let first = pipeline.start();
    let second = pipeline.launch();
    second.wait_for_state("standby");
    first.process().pause();
    let paused = Instant::now();
    shop.execute("INSERT INTO orders SELECT generate_series(1, 1000)");
    // The server gives a silent daemon's slot away after the time the daemon itself has asked for.
    takes_over(&second, paused);
    pipeline.wait_until_delivered();
    first.process().resume();
    first.wait_for_state("standby");
    shop.execute("INSERT INTO orders SELECT generate_series(1001, 2000)");
    pipeline.wait_until_delivered();
    first.terminate();
    second.terminate();
    assert_eq!(each_the_same_again(&pipeline), 2000);
}

/// What the server had sent to the first daemon it publishes when it wakes or is reached again,
/// late and between what the second publishes, but the same. Returns how many records there are,
/// each counted once.
#[track_caller]
fn each_the_same_again(pipeline: &Pipeline<'_>) -> usize {
    let mut seen = BTreeMap::new();
    for change in pipeline.changes("public.orders") {
        let first = *seen.entry(change.position).or_insert(change.digest);
        assert_eq!(first, change.digest, "{} is not the same again", change.position);
    }
    seen.len()
}

/// Its connection stands, and nothing comes through.
#[test]
fn a_second_daemon_takes_over_when_the_first_is_cut_off_from_postgres() {
    let shop = Stack::shared().database(Version::NEWEST, "cut from postgres");
    shop.execute("CREATE TABLE orders (id int PRIMARY KEY)");
    let proxy = Proxy::to(("127.0.0.1", shop.postgres().port()));
    let direct = Pipeline::of(&shop);
    let url =
        shop.url().replace(&shop.postgres().port().to_string(), &proxy.addr().port().to_string());
    let first = Pipeline::of(&shop).with("source.url", url).start();
    let second = direct.launch();
    second.wait_for_state("standby");
    shop.execute("INSERT INTO orders SELECT generate_series(1, 1000)");
    direct.wait_until_delivered();
    proxy.stall();
    let stalled = Instant::now();
    shop.execute("INSERT INTO orders SELECT generate_series(1001, 2000)");
    takes_over(&second, stalled);
    direct.wait_until_delivered();
    proxy.restore();
    first.wait_for_state("standby");
    shop.execute("INSERT INTO orders SELECT generate_series(2001, 3000)");
    direct.wait_until_delivered();
    assert_eq!(second.status()["state"], "streaming");
    first.terminate();
    second.terminate();
    assert_eq!(each_the_same_again(&direct), 3000);
}

/// What a leader does that reaches Postgres and not Kafka.
fn cut_off_from_kafka(test: &str, busy: bool) {
    let kafka = KafkaOptions::new().behind_proxy().start();
    let shop = Stack::shared().database(Version::NEWEST, test);
    shop.execute("CREATE TABLE orders (id int PRIMARY KEY)");
    let through_proxy = Pipeline::of(&shop).into_kafka(&kafka).with("standby_yield_seconds", 2);
    let direct =
        Pipeline::of(&shop).into_kafka(&kafka).with("kafka.bootstrap_servers", kafka.direct());
    let first = through_proxy.start();
    shop.execute("INSERT INTO orders SELECT generate_series(1, 1000)");
    direct.wait_until_delivered();
    let second = direct.launch();
    second.wait_for_state("standby");
    kafka.proxy().stall();
    if busy {
        shop.execute("INSERT INTO orders SELECT generate_series(1001, 2000)");
    }
    // Kafka is back at once: the first could take the slot again, and leaves it alone.
    first.wait_for_event("the slot is given up to a standby", 1);
    kafka.proxy().restore();
    second.wait_for_state("streaming");
    shop.execute("INSERT INTO orders SELECT generate_series(2001, 3000)");
    direct.wait_until_delivered();
    first.wait_for_state("standby");
    shop.execute("INSERT INTO orders SELECT generate_series(3001, 4000)");
    direct.wait_until_delivered();
    assert_eq!(second.status()["state"], "streaming");
    let began = second.events().iter().filter(|event| event["message"] == "streaming").count();
    assert_eq!(began, 1, "{}", second.log());
    let events = first.events();
    let given_up = |event: &&Value| event["message"] == "the slot is given up to a standby";
    assert_eq!(events.iter().filter(given_up).count(), 1, "{}", first.log());
    first.terminate();
    second.terminate();
    let seen: BTreeSet<_> = direct.changes("public.orders").iter().map(|it| it.position).collect();
    assert_eq!(seen.len(), if busy { 4000 } else { 3000 });
}

#[test]
fn a_busy_leader_without_kafka_gives_the_slot_up_where_it_shall() {
    cut_off_from_kafka("busy yields", true);
}

#[test]
fn an_idle_leader_without_kafka_gives_the_slot_up_where_it_shall() {
    cut_off_from_kafka("idle yields", false);
}

/// One that wakes up while its successor cannot deliver has nothing to say to the server.
#[test]
fn a_predecessor_that_wakes_up_acknowledges_nothing() {
    let kafka = KafkaOptions::new().start();
    let shop = Stack::shared().database(Version::NEWEST, "wakes and acknowledges");
    shop.execute("CREATE TABLE orders (id int PRIMARY KEY)");
    let pipeline = Pipeline::of(&shop).into_kafka(&kafka);
    let first = pipeline.start();
    let second = pipeline.launch();
    second.wait_for_state("standby");
    shop.execute("INSERT INTO orders SELECT generate_series(1, 1000)");
    // In the midst of its work.
    first.process().pause();
    takes_over(&second, Instant::now());
    pipeline.wait_until_delivered();
    kafka.pause();
    shop.execute("INSERT INTO orders SELECT generate_series(1001, 2000)");
    let confirmed: Lsn = pipeline.confirmed();
    first.process().resume();
    // It starts over, and cannot get past Kafka.
    eventually("it has noticed", SOON, || (first.status()["retries"].as_u64()? >= 2).then_some(()));
    assert_eq!(pipeline.confirmed(), confirmed);
    assert!(confirmed < pipeline.end_of_log());
    kafka.resume();
    first.wait_for_state("standby");
    pipeline.wait_until_delivered();
    first.terminate();
    second.terminate();
    let seen: BTreeSet<_> =
        pipeline.changes("public.orders").iter().map(|it| it.position).collect();
    assert_eq!(seen.len(), 2000);
}

/// Publication, slot, topics and checkpoint are wanted by both at the same moment.
#[test]
fn two_daemons_that_begin_a_pipeline_at_once_are_a_leader_and_a_standby() {
    // Making a slot waits for what is open in any database.
    let server = PostgresOptions::new(Version::NEWEST).start();
    let other = server.session("postgres");
    for attempt in 0..5 {
        let shop = server.database(&format!("at once {attempt}"));
        shop.execute("CREATE TABLE orders (id int PRIMARY KEY)");
        let pipeline = Pipeline::of(&shop);
        other.execute("BEGIN; SELECT txid_current()");
        let daemons = [pipeline.launch(), pipeline.launch()];
        let slot = pipeline.slot();
        let sql = format!("SELECT FROM pg_replication_slots WHERE slot_name = '{slot}'");
        eventually("one makes the slot", SOON, || (!shop.query(&sql).is_empty()).then_some(()));
        // So that the other one comes to see it half made.
        thread::sleep(Duration::from_millis(300));
        other.execute("COMMIT");
        daemons.iter().for_each(Daemon::wait_ready);
        eventually("one leads and one stands by", SOON, || {
            let mut states = daemons.each_ref().map(|it| it.status()["state"].clone());
            states.sort_by_key(ToString::to_string);
            (states == ["standby", "streaming"]).then_some(())
        });
        for daemon in &daemons {
            let errors = daemon.events().into_iter().filter(|it| it["level"] == "ERROR");
            assert_eq!(errors.collect::<Vec<_>>(), [] as [Value; 0]);
        }
        shop.execute("INSERT INTO orders VALUES (1)");
        pipeline.wait_until_delivered();
        daemons.into_iter().for_each(Daemon::terminate);
        assert_eq!(pipeline.changes("public.orders").len(), 1);
    }
}
