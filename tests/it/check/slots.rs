//! Our slot.

use waltide_stack::{PostgresOptions, Stack, Version, eventually};

use super::{Found, ORDERS, Patient};
use crate::support::{Pipeline, SOON};

#[test]
fn a_slot_that_is_not_for_us_gives_way_to_another() {
    let database = Stack::shared().database(Version::NEWEST, "check slot");
    database.execute(ORDERS);
    let slot = Pipeline::of(&database).slot();
    let make = "SELECT pg_create_logical_replication_slot";
    for (sql, words) in [
        (format!("{make}('{slot}', 'test_decoding')"), "test_decoding"),
        (format!("SELECT pg_create_physical_replication_slot('{slot}')"), "physical"),
        (format!("{make}('{slot}', 'pgoutput', false, true)"), "prepared"),
    ] {
        database.execute(&sql);
        let patient = Patient::new(&database, Pipeline::of(&database));
        patient.mended("source.slot", "error", &[words, "WT211"]).is_sound();
        database.execute(&format!("SELECT pg_drop_replication_slot('{slot}')"));
    }
}

#[test]
fn a_slot_that_was_lost_is_recovered_from_as_is_printed() {
    let postgres = PostgresOptions::new(Version::NEWEST)
        .setting("max_slot_wal_keep_size", "1MB")
        .setting("min_wal_size", "32MB")
        .setting("max_wal_size", "32MB")
        .start();
    let database = postgres.database("check lost");
    database.execute(ORDERS);
    let pipeline = Pipeline::of(&database);
    let daemon = pipeline.start();
    database.execute("INSERT INTO orders VALUES (1, 'tea')");
    pipeline.wait_until_delivered();
    daemon.terminate();
    eventually("the slot is lost", SOON, || {
        database.execute(
            "INSERT INTO orders SELECT g, repeat('x', 500) FROM generate_series(
            (SELECT max(id) + 1 FROM orders), (SELECT max(id) + 20000 FROM orders)) g",
        );
        database.execute("SELECT pg_switch_wal()");
        database.execute("CHECKPOINT");
        let sql = "SELECT FROM pg_replication_slots WHERE wal_status = 'lost'";
        (!database.query(sql).is_empty()).then_some(())
    });
    let patient = Patient::new(&database, pipeline);
    let patient = patient.mended("source.slot", "error", &["is lost", "WT211"]);
    let found = Found::of(&patient.pipeline);
    assert!(found.wrong("source.slot").is_none(), "{}", found.ended.everything);
    // And it goes on.
    let daemon = patient.pipeline.start();
    daemon.terminate();
}
