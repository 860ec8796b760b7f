//! Kafka does not answer, or refuses.

use waltide_stack::serde_json::json;
use waltide_stack::{Proxy, Stack, Version, eventually};

use super::{
    FailingFast, SOON, arrive, fails_fast, fails_fast_as, logged_once, open_circuits, order,
    pipeline, set_up, shop, tells, tries_again,
};

/// A proxy at the address that is configured; brokers then name their own.
fn proxy() -> Proxy {
    Proxy::to(Stack::shared().kafka().bootstrap())
}

#[test]
fn a_kafka_where_nothing_listens_is_waited_for() {
    let database = shop(Version::NEWEST, "no kafka");
    let proxy = proxy();
    let address = proxy.addr().to_string();
    let pipeline = set_up(&database).with("kafka.bootstrap_servers", address.as_str());
    order(&database, 1);
    proxy.cut();
    let daemon = pipeline.launch();
    let told = tells(&daemon, "WT301", &[&address, "refused", "bootstrap_servers"]);
    fails_fast_as(&pipeline, &told);
    tries_again(&daemon);
    assert_eq!(open_circuits(&daemon), ["kafka"]);
    proxy.restore();
    order(&database, 2);
    arrive(&pipeline, &[1, 2]);
    daemon.wait_ready();
    assert_eq!(open_circuits(&daemon), [""; 0]);
    logged_once(&daemon, &["WT301"]);
    daemon.terminate();
}

#[test]
fn a_kafka_that_never_answers_is_not_waited_for_in_silence() {
    let database = shop(Version::NEWEST, "silent kafka");
    let proxy = proxy();
    let address = proxy.addr().to_string();
    let pipeline = set_up(&database).with("kafka.bootstrap_servers", address.as_str());
    order(&database, 1);
    proxy.stall();
    let failing = FailingFast::launch(&pipeline);
    let daemon = pipeline.launch();
    let told = tells(&daemon, "WT301", &[&address, "bootstrap_servers"]);
    assert_eq!(failing.ends_with("WT301"), told.line());
    tries_again(&daemon);
    proxy.restore();
    order(&database, 2);
    arrive(&pipeline, &[1, 2]);
    logged_once(&daemon, &["WT301"]);
    daemon.terminate();
}

#[test]
fn a_value_that_kafka_s_client_refuses_is_named() {
    let database = shop(Version::NEWEST, "kafka setting");
    let right = set_up(&database);
    order(&database, 1);
    let wrong =
        pipeline(&database).with("kafka.properties", json!({ "compression.type": "shrink" }));
    let daemon = wrong.launch();
    let told = tells(&daemon, "WT308", &["compression.type", "shrink", "kafka.properties"]);
    fails_fast_as(&wrong, &told);
    daemon.terminate();
    order(&database, 2);
    let daemon = right.start();
    arrive(&right, &[1, 2]);
    daemon.terminate();
}

#[test]
fn tls_to_a_port_without_it_is_told_from_a_kafka_that_is_away() {
    let database = shop(Version::NEWEST, "kafka tls");
    let pipeline =
        set_up(&database).with("kafka.properties", json!({ "security.protocol": "ssl" }));
    let line = fails_fast(&pipeline, "WT303");
    assert!(line.contains("security.protocol"), "{line}");
}

#[test]
fn a_topic_that_cannot_be_created_can_be_created_by_hand() {
    let database = shop(Version::NEWEST, "no topic");
    let pipeline = set_up(&database).with("kafka.replication_factor", 3);
    let line = fails_fast(&pipeline, "WT305");
    assert!(line.contains(".waltide.checkpoint") && line.contains("by hand"), "{line}");
    let checkpoints = format!("{}.waltide.checkpoint", pipeline.name());
    Stack::shared().kafka().create_topic(&checkpoints, 1, &[("cleanup.policy", "compact")]);
    order(&database, 1);
    let line = fails_fast(&pipeline, "WT305");
    let daemon = pipeline.launch();
    let topic = pipeline.topic("public.orders");
    let told =
        tells(&daemon, "WT305", &[topic.name(), "replication_factor: 3", "create it by hand"]);
    assert_eq!(line, told.line());
    tries_again(&daemon);
    Stack::shared().kafka().create_topic(topic.name(), 1, &[]);
    order(&database, 2);
    arrive(&pipeline, &[1, 2]);
    daemon.wait_ready();
    logged_once(&daemon, &["WT305"]);
    daemon.terminate();
}

#[test]
fn a_record_too_large_for_its_topic_stops_the_pipeline_and_nothing_after_it_is_confirmed() {
    let database = shop(Version::NEWEST, "too large");
    let pipeline = set_up(&database);
    let kafka = Stack::shared().kafka();
    let topic = pipeline.topic("public.orders");
    kafka.create_topic(topic.name(), 1, &[("max.message.bytes", "10000")]);
    let daemon = pipeline.start();
    order(&database, 1);
    let before = pipeline.wait_until_delivered();
    // Hashes, because compression would make it small.
    let long = "SELECT string_agg(md5(n::text), '') FROM generate_series(1, 1000) AS n";
    database.execute(&format!("INSERT INTO orders VALUES (2, ({long}))"));
    order(&database, 3);
    let told = tells(&daemon, "WT306", &[topic.name(), "max.message.bytes", "restart"]);
    daemon.wait_for_state("stopped");
    eventually("the slot is let go", SOON, || {
        let sql = format!(
            "SELECT active FROM pg_replication_slots WHERE slot_name = '{}'",
            pipeline.slot()
        );
        (database.value(&sql) == "f").then_some(())
    });
    let stopped_at = pipeline.confirmed();
    assert!(stopped_at < pipeline.end_of_log());
    arrive(&pipeline, &[1]);
    fails_fast_as(&pipeline, &told);
    assert_eq!(pipeline.confirmed(), stopped_at);
    logged_once(&daemon, &["WT306"]);
    daemon.terminate();
    assert!(before <= stopped_at);

    kafka.alter_topic(topic.name(), "max.message.bytes", "100000");
    let daemon = pipeline.start();
    arrive(&pipeline, &[1, 2, 3]);
    daemon.terminate();
}
