//! Which partition a key has, and that the first records of a partition are not lost.
//!
//! Kafka takes what an idempotent producer sends to a partition in the order of its numbers, and of
//! a producer that is new to the partition whatever comes first. Where the very first request is
//! refused, because the broker has yet to hear of a new partition, and the next one is not, then
//! librdkafka takes the first one for delivered.

use std::collections::BTreeSet;

use waltide_stack::serde_json::json;
use waltide_stack::{KafkaOptions, Stack, Version, eventually};

use crate::exactly_once::wire::{PRODUCE, Side, Step, Wire};
use crate::support::{Pipeline, SOON, assert_each_once_and_in_order};

#[test]
fn a_partition_that_is_not_there_yet_loses_none_of_its_first_records() {
    with("at_least_once");
}

#[test]
fn neither_does_it_exactly_once() {
    with("exactly_once");
}

fn with(delivery: &str) {
    let kafka = KafkaOptions::new().behind_proxy().start();
    let wire = Wire::on(&kafka);
    let database = Stack::shared().database(Version::NEWEST, &format!("firsts {delivery}"));
    database.execute("CREATE TABLE orders (id int PRIMARY KEY)");
    let pipeline = Pipeline::of(&database)
        .into_kafka(&kafka)
        .with("delivery", delivery)
        .with("kafka.partitions", 1)
        // Each record is a request of its own.
        .with("kafka.properties", json!({ "batch.size": 1 }));
    let daemon = pipeline.start();
    wire.catch(Step { request: PRODUCE, with: "public.orders", side: Side::Astray });
    database.execute("INSERT INTO orders SELECT generate_series(1, 20)");
    wire.wait();
    pipeline.wait_until_delivered();
    daemon.terminate();
    let orders = pipeline.changes("public.orders");
    assert_each_once_and_in_order(&orders);
    let ids = orders.iter().map(|order| order.after.as_ref()?["id"].as_u64());
    assert_eq!(ids.collect::<Option<Vec<_>>>(), Some((1..=20).collect()));
}

#[test]
fn keys_stay_in_their_partitions_until_the_daemon_starts_again_with_more() {
    let stack = Stack::shared();
    let database = stack.database(Version::NEWEST, "more partitions");
    database.execute("CREATE TABLE orders (id int PRIMARY KEY)");
    let pipeline = Pipeline::of(&database).with("kafka.partitions", 1);
    let order = |from: u64| {
        let to = from + 9;
        database.execute(&format!("INSERT INTO orders SELECT generate_series({from}, {to})"));
        pipeline.wait_until_delivered();
        let orders = pipeline.changes("public.orders");
        assert_each_once_and_in_order(&orders);
        let new = orders.iter().filter(|order| {
            let id = order.after.as_ref().and_then(|row| row["id"].as_u64());
            id.expect("an id") >= from
        });
        new.map(|order| order.partition).collect::<BTreeSet<i32>>()
    };
    let daemon = pipeline.start();
    assert_eq!(order(1), BTreeSet::from([0]));
    stack.kafka().set_partitions(pipeline.topic("public.orders").name(), 4);
    // The server describes the table again.
    database.execute("ALTER TABLE orders ADD note text");
    assert_eq!(order(11), BTreeSet::from([0]));
    eventually("it is told", SOON, || daemon.log().contains("keys move").then_some(()));
    daemon.terminate();

    let daemon = pipeline.start();
    let partitions = order(21);
    daemon.terminate();
    assert!(partitions.len() > 1, "{partitions:?}");
}
