//! What was streaming breaks.

use waltide_stack::serde_json::json;
use waltide_stack::{KafkaOptions, PostgresOptions, Version};

use crate::support::without_repeats;

use super::{FailingFast, arrive, fails_fast, logged, logged_once, order, pipeline, shop, tells};

#[test]
fn a_restart_of_the_source_is_waited_for() {
    let postgres = PostgresOptions::new(Version::NEWEST).start();
    let database = postgres.database("source restarts");
    database.execute(super::ORDERS);
    let pipeline = pipeline(&database);
    let daemon = pipeline.start();
    order(&database, 1);
    arrive(&pipeline, &[1]);
    postgres.stop();
    tells(&daemon, "WT201", &["refused"]);
    postgres.start_again();
    daemon.wait_ready();
    order(&database, 2);
    arrive(&pipeline, &[1, 2]);
    assert_eq!(logged(&daemon)[0].code, "WT215", "{}", daemon.log());

    postgres.kill();
    tells(&daemon, "WT201", &["refused"]);
    postgres.start_again();
    order(&database, 3);
    arrive(&pipeline, &[1, 2, 3]);
    daemon.terminate();
}

#[test]
fn a_walsender_that_was_ended_is_replaced() {
    let database = shop(Version::NEWEST, "walsender ends");
    let pipeline = pipeline(&database);
    let daemon = pipeline.start();
    order(&database, 1);
    arrive(&pipeline, &[1]);
    database.execute(&format!(
        "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '{}'",
        pipeline.slot()
    ));
    order(&database, 2);
    arrive(&pipeline, &[1, 2]);
    daemon.wait_ready();
    logged_once(&daemon, &["WT215"]);
    daemon.terminate();
}

#[test]
fn a_slot_that_was_dropped_behind_our_back_is_not_made_anew() {
    let database = shop(Version::NEWEST, "slot dropped");
    let pipeline = pipeline(&database);
    let daemon = pipeline.start();
    order(&database, 1);
    arrive(&pipeline, &[1]);
    pipeline.wait_until_delivered();
    let slot = pipeline.slot();
    // Whoever drops it must be quicker than the daemon, which comes back at once.
    database.execute(&format!(
        "DO $$ BEGIN
           LOOP
             PERFORM pg_terminate_backend(active_pid) FROM pg_replication_slots
               WHERE slot_name = '{slot}';
             BEGIN
               PERFORM pg_drop_replication_slot('{slot}');
               EXIT;
             EXCEPTION WHEN object_in_use THEN
             END;
           END LOOP;
         END $$"
    ));
    order(&database, 2);
    let told = tells(&daemon, "WT212", &[&slot, "--accept-gap"]);
    daemon.wait_for_state("stopped");
    let slots = format!("SELECT FROM pg_replication_slots WHERE slot_name = '{slot}'");
    assert!(database.query(&slots).is_empty());
    arrive(&pipeline, &[1]);
    daemon.terminate();

    // Nor by the next daemon, which knows of it from the checkpoint alone.
    assert_eq!(fails_fast(&pipeline, "WT212"), told.line());
}

#[test]
fn a_restart_of_kafka_is_waited_for_and_a_wrong_password_told_from_it() {
    let kafka = KafkaOptions::new()
        .protocol("SASL_PLAINTEXT")
        .setting("sasl.enabled.mechanisms", "PLAIN")
        .setting(
            "listener.name.client.plain.sasl.jaas.config",
            "org.apache.kafka.common.security.plain.PlainLoginModule required \
             user_waltide=\"secret\";",
        )
        .start();
    let database = shop(Version::NEWEST, "kafka restarts");
    let login = |password: &str| {
        json!({
            "security.protocol": "sasl_plaintext",
            "sasl.mechanism": "PLAIN",
            "sasl.username": "waltide",
            "sasl.password": password,
        })
    };
    let pipeline = pipeline(&database).into_kafka(&kafka).with("kafka.properties", login("secret"));
    let wrong = super::pipeline(&database)
        .into_kafka(&kafka)
        .with("kafka.properties", login("guessed-wrongly"));
    let line = fails_fast(&wrong, "WT302");
    assert!(line.contains("sasl.password") && !line.contains("guessed"), "{line}");

    let daemon = pipeline.start();
    order(&database, 1);
    arrive(&pipeline, &[1]);
    kafka.stop();
    order(&database, 2);
    tells(&daemon, "WT301", &["refused"]);
    kafka.start_again();
    order(&database, 3);
    arrive(&pipeline, &[1, 2, 3]);
    daemon.wait_ready();
    // That connections are lost may be told before that they are refused; the same not twice.
    let mut told = logged(&daemon);
    assert!(told.iter().all(|told| told.code == "WT301"), "{}", daemon.log());
    told.dedup();
    assert_eq!(told, logged(&daemon), "{}", daemon.log());
    daemon.terminate();
}

#[test]
fn a_source_that_freezes_while_it_is_streamed_from_is_told_and_goes_on_when_it_wakes() {
    let postgres = PostgresOptions::new(Version::NEWEST).start();
    let database = postgres.database("source freezes");
    database.execute(super::ORDERS);
    let pipeline = pipeline(&database);
    let daemon = pipeline.start();
    let failing = FailingFast::launch(&pipeline);
    order(&database, 1);
    arrive(&pipeline, &[1]);
    postgres.pause();
    tells(&daemon, "WT201", &["has sent nothing for 7 s"]);
    failing.ends_with("WT201");
    postgres.resume();
    daemon.wait_ready();
    order(&database, 2);
    arrive(&pipeline, &[1, 2]);
    logged_once(&daemon, &["WT201"]);
    daemon.terminate();
}

#[test]
fn with_fail_fast_a_kafka_that_goes_away_ends_the_daemon() {
    let kafka = KafkaOptions::new().start();
    let database = shop(Version::NEWEST, "kafka goes");
    let pipeline = pipeline(&database).into_kafka(&kafka);
    let failing = FailingFast::launch(&pipeline);
    failing.0.wait_ready();
    order(&database, 1);
    arrive(&pipeline, &[1]);
    kafka.pause();
    order(&database, 2);
    failing.ends_with("WT301");
    kafka.resume();
    let daemon = pipeline.start();
    pipeline.wait_until_delivered();
    daemon.terminate();
    // What the broker's socket held when it froze may have come as well, and no checkpoint of the
    // first may have been written.
    let (once, _) = without_repeats(&pipeline.changes("public.orders"), 1);
    assert_eq!(once.len(), 2);
}
