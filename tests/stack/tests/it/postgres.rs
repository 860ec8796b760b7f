use std::thread;

use waltide_stack::{Stack, Version};

#[test]
fn each_version_starts_and_is_the_pinned_release() {
    thread::scope(|scope| {
        for version in Version::ALL {
            scope.spawn(move || {
                let rows = Stack::shared().postgres(version).query("SHOW server_version");
                assert_eq!(rows[0][0].as_deref(), Some(version.release()));
            });
        }
    });
}

#[test]
fn databases_of_one_test_name_are_apart_and_go_away_with_their_slots() {
    let stack = Stack::shared();
    let first = stack.database(Version::V16, "one name");
    let second = stack.database(Version::V16, "one name");
    assert_ne!(first.name(), second.name());
    first.execute("CREATE TABLE t (a int, b text); INSERT INTO t VALUES (1, NULL)");
    assert_eq!(first.query("SELECT * FROM t"), [[Some("1".to_owned()), None]]);
    assert!(second.try_query("SELECT * FROM t").is_err());

    let slot = format!("{}_slot", first.prefix());
    first.execute(&format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"));
    let postgres = first.postgres().clone();
    let left = format!(
        "SELECT slot_name FROM pg_replication_slots WHERE slot_name = '{slot}' \
         UNION ALL SELECT datname FROM pg_database WHERE datname = '{}'",
        first.name()
    );
    assert_eq!(postgres.query(&left).len(), 2);
    drop(first);
    assert_eq!(postgres.query(&left).len(), 0);
}
