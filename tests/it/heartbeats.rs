//! A pipeline says that it lives, and how far it is.

use waltide_stack::serde_json::json;
use waltide_stack::{Database, Stack, Version, eventually};

use crate::support::{Lsn, Pipeline, SOON};

fn shop(test: &str) -> Database {
    let shop = Stack::shared().database(Version::NEWEST, test);
    shop.execute("CREATE TABLE orders (id int PRIMARY KEY)");
    shop
}

#[test]
fn heartbeats_come_while_nothing_happens_and_tell_how_far_the_pipeline_is() {
    let shop = shop("heartbeats");
    let pipeline = Pipeline::of(&shop).with("heartbeat_seconds", 1);
    let daemon = pipeline.start();
    shop.execute("INSERT INTO orders VALUES (1)");
    let delivered = pipeline.wait_until_delivered();
    let topic = pipeline.topic("waltide.heartbeat");
    let before = topic.wait_for_json(1, SOON).len();
    let beats = topic.wait_for_json(before + 2, SOON);
    let last = &beats.last().expect("a heartbeat");
    assert_eq!(last.value["pipeline"], pipeline.name());
    assert_eq!(last.value["database"], shop.name());
    assert!(last.key.is_null());
    let position = Lsn(last.value["position"].as_u64().expect("a position"));
    assert!(position >= delivered, "{position} is before {delivered}");
    assert_eq!(last.header("waltide.position"), Some(format!("{position}:0:0")));
    let times: Vec<i64> = beats.iter().filter_map(|beat| beat.value["at"].as_i64()).collect();
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= 900_000), "{times:?}");
    // They are no changes of the source: nothing is held up or repeated on their account.
    shop.execute("INSERT INTO orders VALUES (2)");
    pipeline.wait_until_delivered();
    daemon.terminate();
    pipeline.start().terminate();
    assert_eq!(pipeline.changes("public.orders").len(), 2);
}

#[test]
fn the_debezium_profile_has_debeziums_heartbeats() {
    let shop = shop("debezium heartbeats");
    let pipeline = Pipeline::of(&shop).with("heartbeat_seconds", 1).with("profile", "debezium");
    let daemon = pipeline.start();
    let kafka = Stack::shared().kafka();
    let name = format!("__debezium-heartbeat.{}", pipeline.name());
    eventually("the topic is there", SOON, || kafka.topics().contains(&name).then_some(()));
    let beats = kafka.topic(&name).wait_for_json(1, SOON);
    assert_eq!(beats[0].key, json!({ "serverName": pipeline.name() }));
    let at_ms = beats[0].value["ts_ms"].as_i64().expect("a time");
    assert_eq!(beats[0].timestamp_ms, Some(at_ms));
    daemon.terminate();
    kafka.delete_topic(&name);
}

#[test]
fn nobody_who_did_not_ask_gets_heartbeats() {
    let shop = shop("no heartbeats");
    let pipeline = Pipeline::of(&shop);
    let daemon = pipeline.start();
    shop.execute("INSERT INTO orders VALUES (1)");
    pipeline.wait_until_delivered();
    daemon.terminate();
    let topics = Stack::shared().kafka().topics();
    assert!(!topics.contains(&format!("{}.waltide.heartbeat", pipeline.name())));
}

#[test]
fn a_table_may_not_have_the_name_of_a_topic_of_ours() {
    let shop = shop("reserved");
    shop.execute("CREATE SCHEMA waltide; CREATE TABLE waltide.checkpoint (id int PRIMARY KEY)");
    let pipeline = Pipeline::of(&shop);
    let daemon = pipeline.launch();
    let status = daemon.wait_for_state("stopped");
    assert_eq!(status["error"]["code"], "WT502", "{status}");
    let what = status["error"]["what"].as_str().expect("words");
    assert!(what.contains("waltide.checkpoint"), "{what}");
    daemon.terminate();
}
