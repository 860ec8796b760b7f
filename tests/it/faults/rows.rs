//! Rows that take more than is allowed.

use waltide_stack::serde_json::json;
use waltide_stack::{Database, JsonRecord, Version};

use super::{arrive, fails_fast_as, logged_once, order, pipeline, set_up, shop, tells};
use crate::support::{Pipeline, Position};

const LARGE: &str = "INSERT INTO orders VALUES (2, repeat('tea ', 5000))";

/// All that arrives is small but for what is asked for.
fn limited(database: &Database) -> Pipeline<'_> {
    pipeline(database).with("max_row_bytes", 10_000)
}

#[test]
fn a_row_over_the_limit_stops_the_pipeline_and_nothing_after_it_is_confirmed() {
    let database = shop(Version::NEWEST, "row too large");
    set_up(&database);
    let pipeline = limited(&database);
    let daemon = pipeline.start();
    order(&database, 1);
    let before = pipeline.wait_until_delivered();
    database.execute(LARGE);
    order(&database, 3);
    let told = tells(&daemon, "WT306", &["max_row_bytes", "dead_letter", "restart"]);
    daemon.wait_for_state("stopped");
    assert!(before <= pipeline.confirmed() && pipeline.confirmed() < pipeline.end_of_log());
    arrive(&pipeline, &[1]);
    fails_fast_as(&pipeline, &told);
    logged_once(&daemon, &["WT306"]);
    daemon.terminate();

    let daemon = pipeline.with("max_row_bytes", 100_000).launch();
    daemon.wait_ready();
    arrive(&super::pipeline(&database), &[1, 2, 3]);
    daemon.terminate();
}

#[test]
fn a_row_over_the_limit_goes_where_it_is_told_and_the_others_go_on() {
    let database = shop(Version::NEWEST, "dead letters");
    database.execute("ALTER TABLE orders REPLICA IDENTITY FULL");
    let pipeline = limited(&database).with("large_rows", "dead_letter");
    let daemon = pipeline.start();
    order(&database, 1);
    let xid = database.value(&format!("{LARGE} RETURNING pg_current_xact_id()::xid"));
    order(&database, 3);
    database.execute("UPDATE orders SET id = 4 WHERE id = 2");
    database.execute("UPDATE orders SET item = 'tea' WHERE id = 4");
    order(&database, 5);
    pipeline.wait_until_delivered();

    let told = |record: &JsonRecord| (record.value["op"].clone(), record.key["id"].clone());
    let ours: Vec<_> = pipeline.topic("public.orders").read_json().iter().map(told).collect();
    let tombstone = (json!(null), json!(2));
    let [one, three, five] = [1, 3, 5].map(|id| (json!("c"), json!(id)));
    // The old row of the second update is as large as the new row of the first.
    assert_eq!(ours, [one, three, tombstone, five]);

    let letters = pipeline.topic("waltide.deadletter").read_json();
    let keys: Vec<_> = letters.iter().map(|letter| letter.key["id"].clone()).collect();
    assert_eq!(keys, [2, 2, 4, 4]);
    let (letter, position) = (&letters[0].value, Position::of(&letters[0]));
    assert_eq!(letter["code"], "WT306");
    assert_eq!((&letter["schema"], &letter["table"]), (&json!("public"), &json!("orders")));
    assert_eq!(letter["topic"], pipeline.topic("public.orders").name());
    assert_eq!(letter["xid"].to_string(), xid);
    assert_eq!(letter["commit_lsn"].as_u64(), Some(position.commit.0));
    assert_eq!((&letter["ordinal"], &letter["sub_index"]), (&json!(0), &json!(0)));
    assert_eq!(letter["commit_us"].as_i64().map(|us| us.div_euclid(1000)), letters[0].timestamp_ms);
    daemon.wait_for_event(letter["reason"].as_str().expect("a reason"), 1);
    daemon.terminate();
}
