//! Names that Kafka cannot hold, or that become one.

use waltide_stack::{Stack, Version};

use super::{SOON, arrive, fails_fast_as, logged_once, order, pipeline, shop, tells};
use crate::support::Pipeline;

/// Two tables whose topics would have one name.
const TWINS: &str =
    r#"CREATE TABLE "a b" (id int PRIMARY KEY); CREATE TABLE a_b (id int PRIMARY KEY)"#;

#[test]
fn two_tables_that_would_share_a_topic_are_named_before_a_row_of_either_is_published() {
    let database = Stack::shared().database(Version::NEWEST, "one topic");
    database.execute(TWINS);
    let pipeline = pipeline(&database);
    let daemon = pipeline.launch();
    let topic = pipeline.topic("public.a_b");
    let told = tells(&daemon, "WT502", &["public.a b", "public.a_b", topic.name()]);
    fails_fast_as(&pipeline, &told);
    logged_once(&daemon, &["WT502"]);
    daemon.terminate();
    assert!(!Stack::shared().kafka().topics().contains(&topic.name().to_owned()));

    let apart = pipeline.with(
        "table_options",
        waltide_stack::serde_json::json!({ "public.a b": { "topic": "{pipeline}.spaced" } }),
    );
    let daemon = apart.start();
    database.execute(r#"INSERT INTO "a b" VALUES (1); INSERT INTO a_b VALUES (2)"#);
    assert_eq!(apart.topic("spaced").wait_for_json(1, SOON)[0].value["after"]["id"], 1);
    assert_eq!(apart.topic("public.a_b").wait_for_json(1, SOON)[0].value["after"]["id"], 2);
    daemon.terminate();
}

#[test]
fn a_table_that_comes_to_share_a_topic_stops_the_pipeline_before_its_first_row() {
    let database = shop(Version::NEWEST, "one topic later");
    let slot = pipeline(&database).slot();
    database.execute(&format!("CREATE PUBLICATION {slot} FOR ALL TABLES"));
    let pipeline = pipeline(&database);
    let daemon = pipeline.start();
    database.execute(r#"CREATE TABLE "a b" (id int PRIMARY KEY); INSERT INTO "a b" VALUES (1)"#);
    let before = pipeline.wait_until_delivered();
    database.execute("CREATE TABLE a_b (id int PRIMARY KEY); INSERT INTO a_b VALUES (2)");
    let told = tells(&daemon, "WT502", &["public.a b", "public.a_b"]);
    daemon.wait_for_state("stopped");
    assert!(pipeline.confirmed() < pipeline.end_of_log() && before <= pipeline.confirmed());
    fails_fast_as(&pipeline, &told);
    daemon.terminate();

    // What is dropped has no topic any more.
    database.execute(r#"DROP TABLE "a b""#);
    let daemon = pipeline.start();
    let records = pipeline.topic("public.a_b").wait_for_json(2, SOON);
    let mut ids: Vec<_> =
        records.iter().map(|record| record.value["after"]["id"].as_u64()).collect();
    ids.sort_unstable();
    assert_eq!(ids, [Some(1), Some(2)]);
    order(&database, 1);
    arrive(&pipeline, &[1]);
    daemon.terminate();
}

#[test]
fn a_topic_s_name_that_is_too_long_for_kafka_is_told_with_its_table() {
    let long = "t".repeat(60);
    let database = Stack::shared().database(Version::NEWEST, "long topic");
    database.execute(&format!("CREATE TABLE {long} (id int PRIMARY KEY)"));
    let name = "{pipeline}.{schema}.{table}.{table}.{table}.{table}";
    let too_long = pipeline(&database).with("kafka.topic", name);
    let daemon = too_long.launch();
    let told = tells(&daemon, "WT502", &[&long, "249", "table_options"]);
    fails_fast_as(&too_long, &told);
    daemon.terminate();
    let short: Pipeline<'_> = too_long.with("kafka.topic", "{pipeline}.{schema}.{table}");
    let daemon = short.start();
    database.execute(&format!("INSERT INTO {long} VALUES (1)"));
    short.topic(&format!("public.{long}")).wait_for_json(1, SOON);
    daemon.terminate();
}
