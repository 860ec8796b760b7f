//! From where a pipeline goes on, and where it must not.

use std::collections::{BTreeMap, BTreeSet};

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use waltide_core::checkpoint::Checkpoint;
use waltide_stack::serde_json::{self, Value, json};
use waltide_stack::{Database, KafkaOptions, PostgresOptions, Stack, Version, eventually};

use crate::cli::{Ended, waltide};
use crate::support::{
    Daemon, Lsn, Op, Pipeline, SOON, assert_each_once_and_in_order, on_each_version,
};

const ORDERS: &str = "CREATE TABLE orders (id int PRIMARY KEY, item text)";

/// A database with the table.
fn shop(version: Version, test: &str) -> Database {
    let database = Stack::shared().database(version, test);
    database.execute(ORDERS);
    database
}

pub(super) fn order(database: &Database, id: u32) {
    database.execute(&format!("INSERT INTO orders VALUES ({id}, 'tea')"));
}

/// Publishes these orders, and ends in order.
#[track_caller]
fn publish(pipeline: &Pipeline<'_>, database: &Database, ids: impl IntoIterator<Item = u32>) {
    let daemon = pipeline.start();
    ids.into_iter().for_each(|id| order(database, id));
    pipeline.wait_until_delivered();
    daemon.terminate();
}

/// The orders in the topic, in the order of their commits.
#[track_caller]
pub(super) fn published(pipeline: &Pipeline<'_>) -> Vec<u64> {
    let mut changes = pipeline.changes("public.orders");
    changes.sort_by_key(|change| change.position);
    let ids = changes.iter().filter_map(|change| change.after.as_ref()?.get("id")?.as_u64());
    ids.collect()
}

/// Sees to it that a daemon stops with this code, publishes nothing, and names what to do.
#[track_caller]
pub(super) fn stops(pipeline: &Pipeline<'_>, code: &str, words: &[&str]) -> String {
    let before = published(pipeline);
    let daemon = pipeline.launch();
    let status = daemon.wait_for_state("stopped");
    let error = &status["error"];
    let text = format!("{} {}", error["what"], error["mend"]);
    eprintln!("{code}: {text}");
    assert_eq!(error["code"], code, "{text}");
    assert!(words.iter().all(|word| text.contains(word)), "{text}");
    assert_eq!(daemon.get("/readyz").map(|(status, _)| status), Some(503));
    daemon.terminate();
    assert_eq!(published(pipeline), before);
    text
}

/// Runs `waltide recover` as the message says.
#[track_caller]
pub(crate) fn recover(pipeline: &Pipeline<'_>, way: &str, more: &[&str]) -> Ended {
    let file = pipeline.file();
    let path = file.path().to_str().expect("a path in UTF-8");
    let arguments = [&["recover", pipeline.name(), way, "--config", path], more].concat();
    let ended = waltide(&arguments);
    eprintln!("{}", ended.everything);
    ended
}

/// Carries the way out through, and sees to it that the pipeline goes on.
#[track_caller]
pub(super) fn goes_on_after(pipeline: &Pipeline<'_>, commit: impl FnOnce(u32), way: &str, id: u32) {
    let asked = recover(pipeline, way, &[]);
    assert_eq!(asked.status, Some(1), "without a yes nothing is done");
    assert!(asked.everything.contains("nothing was done"));
    let done = recover(pipeline, way, &["--yes"]);
    assert_eq!(done.status, Some(0));
    let daemon = pipeline.start();
    commit(id);
    eventually("the pipeline goes on", SOON, || {
        published(pipeline).contains(&u64::from(id)).then_some(())
    });
    daemon.terminate();
}

/// What consumers are told of gaps.
#[track_caller]
pub(super) fn gaps(pipeline: &Pipeline<'_>) -> Vec<Value> {
    let records = pipeline.topic("waltide.gap").read_json();
    records.into_iter().map(|record| record.value).collect()
}

/// The checkpoint, as the command line prints it.
#[track_caller]
fn checkpoint(pipeline: &Pipeline<'_>) -> Value {
    let file = pipeline.file();
    let path = file.path().to_str().expect("a path in UTF-8");
    let ended = waltide(&["checkpoint", "show", pipeline.name(), "--json", "--config", path]);
    assert_eq!(ended.status, Some(0), "{}", ended.everything);
    let printed: Value = serde_json::from_str(ended.out.trim()).expect("JSON");
    printed["checkpoint"].clone()
}

/// Makes the slot one that stands elsewhere.
fn replace_slot(database: &Database, slot: &str, by: &str) {
    database.execute(&format!("SELECT pg_drop_replication_slot('{slot}')"));
    database.execute(&format!("SELECT pg_copy_logical_replication_slot('{by}', '{slot}')"));
    database.execute(&format!("SELECT pg_drop_replication_slot('{by}')"));
}

on_each_version! {
    a_slot_that_was_put_back_repeats_nothing
    a_slot_that_was_moved_on_stops_the_pipeline
}

/// A server that crashes may forget what was confirmed to it.
fn a_slot_that_was_put_back_repeats_nothing(version: Version) {
    let shop = shop(version, "slot put back");
    let pipeline = Pipeline::of(&shop);
    pipeline.start().terminate();
    let (slot, old) = (pipeline.slot(), format!("{}_old", pipeline.slot()));
    shop.execute(&format!("SELECT pg_copy_logical_replication_slot('{slot}', '{old}')"));
    publish(&pipeline, &shop, 1..=50);
    let confirmed = pipeline.confirmed();
    replace_slot(&shop, &slot, &old);
    assert!(pipeline.confirmed() < confirmed);
    publish(&pipeline, &shop, 51..=52);
    let changes = pipeline.changes("public.orders");
    assert_eq!(changes.len(), 52);
    assert_each_once_and_in_order(&changes);
}

fn a_slot_that_was_moved_on_stops_the_pipeline(version: Version) {
    let shop = shop(version, "slot moved on");
    let pipeline = Pipeline::of(&shop);
    publish(&pipeline, &shop, [1]);
    order(&shop, 2);
    let slot = pipeline.slot();
    let at = pipeline.end_of_log();
    shop.execute(&format!("SELECT pg_replication_slot_advance('{slot}', '{at}')"));
    order(&shop, 3);
    let text = stops(&pipeline, "WT224", &["ahead of the checkpoint", "--accept-gap"]);
    let before: Lsn = checkpoint(&pipeline)["end_lsn"].as_str().unwrap().parse().unwrap();
    assert!(text.contains(&before.to_string()));
    goes_on_after(&pipeline, |id| order(&shop, id), "--accept-gap", 4);
    // The second was skipped by somebody, the third is there.
    assert_eq!(published(&pipeline), [1, 3, 4]);
    let gaps = gaps(&pipeline);
    assert_eq!(gaps.len(), 1);
    assert_eq!(gaps[0]["from_lsn"], before.to_string());
    assert_eq!(gaps[0]["same_history"], true);
    assert_eq!(recover(&pipeline, "--accept-gap", &["--yes"]).status, Some(1), "once is enough");
}

#[test]
fn a_slot_that_was_made_anew_behind_our_back_stops_the_pipeline() {
    let shop = shop(Version::NEWEST, "slot anew");
    let pipeline = Pipeline::of(&shop);
    publish(&pipeline, &shop, [1]);
    let slot = pipeline.slot();
    shop.execute(&format!("SELECT pg_drop_replication_slot('{slot}')"));
    order(&shop, 2);
    stops(&pipeline, "WT212", &[&slot, "--accept-gap"]);
    let slots = format!("SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{slot}'");
    assert_eq!(shop.value(&slots), "0", "none is made");
    assert_eq!(recover(&pipeline, "--accept-gap", &[]).status, Some(1));
    assert_eq!(shop.value(&slots), "0", "a no leaves things as they were");
    shop.execute(&format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"));
    stops(&pipeline, "WT224", &["ahead of the checkpoint"]);
    shop.execute(&format!("SELECT pg_drop_replication_slot('{slot}')"));
    goes_on_after(&pipeline, |id| order(&shop, id), "--accept-gap", 3);
    assert_eq!(published(&pipeline), [1, 3]);
}

/// The server has let go of what the slot needs.
#[test]
fn a_slot_the_server_has_given_up_stops_the_pipeline() {
    for version in [Version::V14, Version::NEWEST] {
        let postgres = PostgresOptions::new(version)
            .initdb("--wal-segsize=1")
            .setting("max_slot_wal_keep_size", "1MB")
            .setting("min_wal_size", "2MB")
            .setting("max_wal_size", "4MB")
            .start();
        let shop = postgres.database("slot given up");
        shop.execute(ORDERS);
        let pipeline = Pipeline::of(&shop);
        publish(&pipeline, &shop, [1]);
        order(&shop, 2);
        let lost = format!(
            "SELECT wal_status FROM pg_replication_slots WHERE slot_name = '{}'",
            pipeline.slot()
        );
        eventually("the slot is lost", SOON, || {
            shop.execute("CREATE TABLE IF NOT EXISTS noise AS SELECT repeat('x', 900) AS x");
            shop.execute("INSERT INTO noise SELECT repeat('x', 900) FROM generate_series(1, 3000)");
            shop.execute("SELECT pg_switch_wal()");
            shop.execute("CHECKPOINT");
            (shop.value(&lost) == "lost").then_some(())
        });
        shop.execute("DROP TABLE noise");
        stops(&pipeline, "WT211", &["is lost", "--accept-gap"]);
        goes_on_after(&pipeline, |id| order(&shop, id), "--accept-gap", 3);
        assert_eq!(published(&pipeline), [1, 3]);
        assert_eq!(gaps(&pipeline).len(), 1);
    }
}

/// From 18 on, a server may let go of slots that nobody reads.
#[test]
fn a_slot_that_nobody_read_for_too_long_stops_the_pipeline() {
    let postgres =
        PostgresOptions::new(Version::V18).setting("idle_replication_slot_timeout", "1s").start();
    let shop = postgres.database("slot idle");
    shop.execute(ORDERS);
    let pipeline = Pipeline::of(&shop);
    publish(&pipeline, &shop, [1]);
    order(&shop, 2);
    let reason = format!(
        "SELECT coalesce(invalidation_reason, '') FROM pg_replication_slots WHERE slot_name = '{}'",
        pipeline.slot()
    );
    eventually("the slot is let go", SOON, || {
        shop.execute("CHECKPOINT");
        (shop.value(&reason) == "idle_timeout").then_some(())
    });
    stops(&pipeline, "WT211", &["is lost: idle_timeout", "--accept-gap"]);
    goes_on_after(&pipeline, |id| order(&shop, id), "--accept-gap", 3);
    assert_eq!(published(&pipeline), [1, 3]);
    assert_eq!(gaps(&pipeline).len(), 1);
}

#[test]
fn another_database_or_server_under_the_same_name_stops_the_pipeline() {
    let first = PostgresOptions::new(Version::NEWEST).start();
    let one = first.database("one");
    one.execute(ORDERS);
    let pipeline = Pipeline::of(&one);
    publish(&pipeline, &one, [1]);

    // Another database of the same server, with a slot of that name free to take.
    let two = first.database("two");
    two.execute(ORDERS);
    let other = Pipeline::of(&one).with("source.url", two.url()).with("source.slot", "two");
    two.execute("SELECT pg_create_logical_replication_slot('two', 'pgoutput')");
    stops(&other, "WT222", &[one.name(), two.name()]);
    two.execute("SELECT pg_drop_replication_slot('two')");

    // Another server.
    let second = PostgresOptions::new(Version::NEWEST).start();
    let elsewhere = second.database("elsewhere");
    elsewhere.execute(ORDERS);
    let other = Pipeline::of(&one).with("source.url", elsewhere.url());
    let slot = pipeline.slot();
    elsewhere.execute(&format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"));
    stops(&other, "WT222", &["system identifier", "accept-gap"]);
    goes_on_after(&other, |id| order(&elsewhere, id), "--accept-gap", 7);
    assert_eq!(gaps(&other)[0]["same_history"], false);
    // Positions of two servers say nothing about each other.
    assert_eq!(published(&other).into_iter().collect::<BTreeSet<_>>(), [1, 7].into());
}

#[test]
fn a_server_restored_to_an_earlier_state_stops_the_pipeline() {
    let original = PostgresOptions::new(Version::NEWEST).start();
    let shop = original.database("restored");
    shop.execute(ORDERS);
    let pipeline = Pipeline::of(&shop);
    publish(&pipeline, &shop, [1]);
    let restored = PostgresOptions::new(Version::NEWEST).copy_of(&original).start();
    publish(&pipeline, &shop, 2..=400);
    let url = restored.url(shop.name());
    let other = Pipeline::of(&shop).with("source.url", url);
    // A backup has no slots; somebody has made one.
    let sql = format!("SELECT pg_create_logical_replication_slot('{}', 'pgoutput')", other.slot());
    restored.session(shop.name()).execute(&sql);
    stops(&other, "WT223", &["earlier state", "--accept-gap"]);
}

#[test]
fn a_lost_checkpoint_is_not_a_new_pipeline() {
    let kafka = KafkaOptions::new().start();
    let shop = shop(Version::NEWEST, "checkpoint lost");
    let pipeline = Pipeline::of(&shop).into_kafka(&kafka);
    publish(&pipeline, &shop, [1]);
    kafka.delete_topic(&format!("{}.waltide.checkpoint", pipeline.name()));
    order(&shop, 2);
    stops(&pipeline, "WT309", &["--adopt"]);
    goes_on_after(&pipeline, |id| order(&shop, id), "--adopt", 3);
    assert_eq!(published(&pipeline), [1, 2, 3]);
    let refused = recover(&pipeline, "--adopt", &["--yes"]);
    assert_eq!(refused.status, Some(1));
    assert!(refused.everything.contains("WT225"));
}

/// Slot and checkpoint are gone, and the topics hold records.
#[test]
fn a_lost_slot_without_a_checkpoint_is_not_a_new_pipeline() {
    let kafka = KafkaOptions::new().start();
    let shop = shop(Version::NEWEST, "all lost");
    let pipeline = Pipeline::of(&shop).into_kafka(&kafka);
    publish(&pipeline, &shop, [1]);
    kafka.delete_topic(&format!("{}.waltide.checkpoint", pipeline.name()));
    shop.execute(&format!("SELECT pg_drop_replication_slot('{}')", pipeline.slot()));
    order(&shop, 2);
    stops(&pipeline, "WT309", &["--adopt", "topics hold records"]);
    let asked = recover(&pipeline, "--adopt", &[]);
    assert!(asked.everything.contains("is not known"), "{}", asked.everything);
    goes_on_after(&pipeline, |id| order(&shop, id), "--adopt", 3);
    // Nobody could read the second any more.
    assert_eq!(published(&pipeline), [1, 3]);
}

#[test]
fn a_topic_that_has_lost_records_stops_the_pipeline() {
    let kafka = KafkaOptions::new().start();
    let shop = shop(Version::NEWEST, "topic lost");
    shop.execute("CREATE TABLE others (id int PRIMARY KEY)");
    let pipeline = Pipeline::of(&shop).into_kafka(&kafka).with("kafka.partitions", 1);
    publish(&pipeline, &shop, 1..=5);
    let topic = pipeline.topic("public.orders").name().to_owned();
    kafka.delete_topic(&topic);
    let daemon = pipeline.launch();
    assert_eq!(daemon.wait_for_state("stopped")["error"]["code"], "WT311");
    daemon.terminate();
    kafka.create_topic(&topic, 1, &[]);
    stops(&pipeline, "WT311", &[&topic, "partition 0 ends at 0, and ended at 5"]);
    goes_on_after(&pipeline, |id| order(&shop, id), "--accept-gap", 6);
    assert_eq!(published(&pipeline), [6]);
}

#[test]
fn a_checkpoint_of_a_newer_version_is_not_gone_by() {
    let shop = shop(Version::NEWEST, "newer checkpoint");
    let pipeline = Pipeline::of(&shop);
    publish(&pipeline, &shop, [1]);
    // The frame, a fingerprint of another schema, and format 2.
    let newer = [&[0xC3, 0x01][..], &[7; 8], &[4]].concat();
    let name = pipeline.name();
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", Stack::shared().kafka().bootstrap())
        .create()
        .expect("a producer");
    let topic = format!("{name}.waltide.checkpoint");
    let record = BaseRecord::to(&topic).partition(0).key(name).payload(&newer);
    producer.send(record).map_err(|(error, _)| error).expect("it is queued");
    producer.flush(SOON).expect("it is written");
    stops(&pipeline, "WT310", &["format 2", "newer version"]);
}

/// A record that Kafka neither takes nor refuses yet holds up the checkpoint, not the records of
/// other topics behind it.
#[test]
fn a_checkpoint_never_runs_ahead_of_what_is_delivered() {
    let kafka = KafkaOptions::new().start();
    let shop = shop(Version::NEWEST, "checkpoint ahead");
    shop.execute("CREATE TABLE others (id int PRIMARY KEY)");
    let pipeline = Pipeline::of(&shop).into_kafka(&kafka);
    let daemon = pipeline.start();
    shop.execute("INSERT INTO others VALUES (1)");
    order(&shop, 1);
    pipeline.wait_until_delivered();
    // A topic that is gone is waited for, half a minute.
    kafka.delete_topic(pipeline.topic("public.others").name());
    shop.execute("INSERT INTO others VALUES (2)");
    let commit = pipeline.end_of_log();
    (2..=40).for_each(|id| order(&shop, id));
    eventually("later orders are there", SOON, || (published(&pipeline).len() == 40).then_some(()));
    let written = || checkpoint(&pipeline)["written_at_us"].as_i64().expect("a time");
    let first = written();
    eventually("another checkpoint is written", SOON, || (written() > first).then_some(()));
    let end: Lsn = checkpoint(&pipeline)["end_lsn"].as_str().unwrap().parse().unwrap();
    assert!(end < commit, "{end} covers what is not delivered ({commit})");
    assert!(pipeline.confirmed() <= end);
    daemon.kill();
    stops(&pipeline, "WT311", &["public.others", "does not exist any more"]);
    let now: Lsn = checkpoint(&pipeline)["end_lsn"].as_str().unwrap().parse().unwrap();
    assert_eq!(now, end);
}

#[test]
fn what_is_remembered_is_what_is_there() {
    let shop = shop(Version::NEWEST, "remembered");
    let pipeline = Pipeline::of(&shop).with("kafka.partitions", 3);
    assert_eq!(checkpoint(&pipeline), Value::Null, "it has not begun");
    pipeline.start().terminate();
    let born = checkpoint(&pipeline);
    assert_eq!(born["topics"], json!([]), "born before the first record");
    publish(&pipeline, &shop, 1..=30);
    let found = checkpoint(&pipeline);
    let mut ends = BTreeMap::new();
    for change in pipeline.changes("public.orders") {
        *ends.entry(change.partition).or_insert(0_i64) += 1;
    }
    let ends: Vec<i64> = ends.into_values().collect();
    let topic = pipeline.topic("public.orders").name().to_owned();
    assert_eq!(found["topics"], json!([{ "name": topic, "end_offsets": ends }]));
    let subjects: Vec<&str> = found["schemas"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|one| one["subject"].as_str())
        .collect();
    assert_eq!(subjects, [format!("{topic}-key"), format!("{topic}-value")]);
    assert_eq!(found["database"], shop.name());
    let end: Lsn = found["end_lsn"].as_str().unwrap().parse().unwrap();
    assert!(end >= pipeline.confirmed());
    let file = pipeline.file();
    let text = waltide(&["checkpoint", "show", "--config", file.path().to_str().unwrap()]);
    assert!(text.out.contains(&format!("published up to    {end}")), "{}", text.out);
    assert!(text.out.lines().all(|line| line.chars().count() <= 80), "{}", text.out);
}

/// One that wakes up when another has taken over, in the middle of its work.
#[test]
fn a_predecessor_that_wakes_up_does_not_move_the_checkpoint() {
    let shop = shop(Version::NEWEST, "wakes up");
    let pipeline = Pipeline::of(&shop);
    let first: Daemon = pipeline.start();
    let second = pipeline.launch();
    second.wait_for_state("standby");
    order(&shop, 1);
    first.process().pause();
    (2..=100).for_each(|id| order(&shop, id));
    second.wait_for_state("streaming");
    pipeline.wait_until_delivered();
    let leader = checkpoint(&pipeline)["instance"].as_str().expect("a name").to_owned();
    first.process().resume();
    first.wait_for_state("standby");
    (101..=120).for_each(|id| order(&shop, id));
    pipeline.wait_until_delivered();
    first.terminate();
    second.terminate();
    let records = pipeline.topic("waltide.checkpoint").read();
    let writers = records.iter().filter_map(|record| {
        let checkpoint = Checkpoint::decode(record.value.as_deref()?).expect("one of ours");
        Some(checkpoint.instance)
    });
    let since: Vec<String> = writers.skip_while(|writer| *writer != leader).collect();
    assert!(since.len() > 1 && since.iter().all(|writer| *writer == leader), "{since:?}");
}

/// What the gap swallowed is in the tables, except for what they no longer have.
#[test]
fn all_tables_are_read_again_where_that_is_decided() {
    let shop = shop(Version::NEWEST, "read again");
    let never = Pipeline::of(&shop);
    let pipeline = Pipeline::of(&shop).with("snapshot", "initial");
    publish(&pipeline, &shop, 1..=5);
    shop.execute(&format!("SELECT pg_drop_replication_slot('{}')", pipeline.slot()));
    shop.execute("DELETE FROM orders WHERE id = 1");
    order(&shop, 6);
    stops(&pipeline, "WT212", &["waltide recover"]);
    let refused = recover(&never, "--resnapshot", &["--yes"]);
    assert!(refused.everything.contains("snapshot: initial"), "{}", refused.everything);
    let asked = recover(&pipeline, "--resnapshot", &[]);
    assert!(asked.everything.contains("stay in the topics"), "{}", asked.everything);
    goes_on_after(&pipeline, |id| order(&shop, id), "--resnapshot", 7);
    let told = gaps(&pipeline);
    assert_eq!(told.len(), 1);
    let gap: Lsn = told[0]["to_lsn"].as_str().expect("a text").parse().expect("a position");
    let daemon = pipeline.start();
    let expected: BTreeSet<u64> = [2, 3, 4, 5, 6].into();
    eventually("all rows are there", SOON, || {
        let mut found = reads(&pipeline, gap);
        found.remove(&7);
        (found == expected).then_some(())
    });
    daemon.terminate();
}

/// Half of a snapshot is not a whole one, whatever happened in between.
#[test]
fn a_gap_amid_a_snapshot_leaves_no_table_half_read() {
    let shop = shop(Version::NEWEST, "gap amid snapshot");
    shop.execute(
        "INSERT INTO orders SELECT id, repeat('x', 1000) FROM generate_series(1, 6000) id",
    );
    let slow = json!({ "mode": "initial", "max_rate": 1_000_000, "parallelism": 1 });
    let slow = Pipeline::of(&shop).with("snapshot", slow);
    let daemon = slow.start();
    let topic = slow.topic("public.orders");
    topic.wait_for(1, SOON);
    daemon.terminate();
    let half = published(&slow).len();
    assert!(half < 6_000, "all of it was read");
    shop.execute(&format!("SELECT pg_drop_replication_slot('{}')", slow.slot()));
    let pipeline = Pipeline::of(&shop).with("snapshot", "initial");
    let done = recover(&pipeline, "--accept-gap", &["--yes"]);
    assert!(done.everything.contains("read again from the start"), "{}", done.everything);
    let daemon = pipeline.start();
    eventually("the whole is there", SOON, || {
        let found: BTreeSet<u64> = published(&pipeline).into_iter().collect();
        (found.len() == 6_000).then_some(())
    });
    daemon.terminate();
}

/// The rows behind a position that were read and not streamed.
fn reads(pipeline: &Pipeline<'_>, behind: Lsn) -> BTreeSet<u64> {
    let changes = pipeline.changes("public.orders");
    let read = changes.iter().filter(|it| it.op == Op::Read && it.position.commit >= behind);
    read.filter_map(|change| change.after.as_ref()?.get("id")?.as_u64()).collect()
}
