//! The cluster and its topics.

use waltide_stack::{KafkaOptions, Stack, Version};

use super::{Found, ORDERS, Patient};
use crate::support::Pipeline;

#[test]
fn topics_that_lose_or_refuse_records_are_mended_with_kafkas_own_tools() {
    let database = Stack::shared().database(Version::NEWEST, "check topics");
    database.execute(ORDERS);
    database.execute("CREATE TABLE keyless (a int)");
    database.execute("ALTER TABLE keyless REPLICA IDENTITY FULL");
    let kafka = Stack::shared().kafka();
    let pipeline = Pipeline::of(&database).with("large_rows", "dead_letter");
    let name = |topic: &str| format!("{}.{topic}", pipeline.name());
    let settings = [("min.insync.replicas", "2"), ("unclean.leader.election.enable", "true")];
    kafka.create_topic(&name("public.orders"), 1, &settings);
    kafka.create_topic(&name("public.keyless"), 1, &[("cleanup.policy", "compact")]);
    kafka.create_topic(&name("waltide.checkpoint"), 1, &[("cleanup.policy", "delete")]);
    Patient::new(&database, pipeline)
        .mended("kafka.min_insync", "error", &["more replicas in sync than they have"])
        .mended("kafka.unclean_election", "warning", &["public.orders"])
        .mended("kafka.compaction", "error", &["public.keyless"])
        .mended("kafka.checkpoint", "error", &["it can be lost"])
        .mended("kafka.max_message", "warning", &["max_row_bytes"])
        .is_sound();
}

#[test]
fn topics_that_would_be_made_wrongly_are_mended_in_the_configuration() {
    let database = Stack::shared().database(Version::NEWEST, "check made");
    database.execute(ORDERS);
    database.execute("CREATE TABLE keyless (a int)");
    database.execute("ALTER TABLE keyless REPLICA IDENTITY FULL");
    let settings = waltide_stack::serde_json::json!({
        "min.insync.replicas": 2,
        "unclean.leader.election.enable": "true",
        "cleanup.policy": "compact",
    });
    let pipeline = Pipeline::of(&database).with("kafka.topic_config", settings);
    let patient = Patient::new(&database, pipeline)
        .mended("kafka.min_insync", "error", &["would ever be acknowledged"])
        .mended("kafka.unclean_election", "warning", &["would be made"])
        .mended("kafka.compaction", "error", &["without a key"]);
    patient.is_sound();
    // More replicas than brokers: Kafka is asked, and makes nothing.
    let pipeline = Pipeline::of(&database).with("kafka.replication_factor", 5);
    let found = Found::of(&pipeline);
    let wrong = found.wrong("kafka.create").expect("a finding");
    assert_eq!((&wrong["level"], &wrong["code"]), (&"error".into(), &"WT305".into()), "{wrong}");
    let topics = Stack::shared().kafka().topics();
    assert!(!topics.iter().any(|topic| topic.starts_with(pipeline.name())), "{topics:?}");
}

#[test]
fn a_cluster_that_makes_topics_by_itself_or_is_away_is_told() {
    let database = Stack::shared().database(Version::NEWEST, "check cluster");
    database.execute(ORDERS);
    let kafka =
        KafkaOptions::new().setting("auto.create.topics.enable", "true").behind_proxy().start();
    let pipeline = Pipeline::of(&database).into_kafka(&kafka);
    let found = Found::of(&pipeline);
    for check in ["kafka.auto_create", "kafka.brokers"] {
        let wrong = found.wrong(check).expect("a finding");
        assert_eq!(wrong["level"], "warning", "{wrong}");
    }
    kafka.proxy().cut();
    let found = Found::of(&pipeline);
    let wrong = found.wrong("kafka.connect").expect("a finding");
    assert_eq!((&wrong["level"], &wrong["code"]), (&"error".into(), &"WT301".into()), "{wrong}");
}

#[test]
fn a_transaction_time_out_that_the_brokers_refuse_is_mended_in_the_configuration() {
    let kafka = KafkaOptions::new().setting("transaction.max.timeout.ms", "20000").start();
    let database = Stack::shared().database(Version::NEWEST, "check transactions");
    database.execute(ORDERS);
    let pipeline = Pipeline::of(&database).into_kafka(&kafka).with("delivery", "exactly_once");
    Patient::new(&database, pipeline)
        .mended("kafka.transactions", "error", &["transaction.timeout.ms is 30000", "20000"])
        .is_sound();
}
