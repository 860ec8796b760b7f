//! Slots: made, read, dropped, taken.

use waltide::postgres::{Error, NewSlot, SqlState, WalStatus};
use waltide_core::lsn::Lsn;
use waltide_stack::{PostgresOptions, Version, eventually};

use crate::stream::{publish, start};
use crate::{PATIENCE, database, launch, open, open_replication, within};

fn slot(name: &str) -> NewSlot<'_> {
    NewSlot { name, temporary: false, failover: false }
}

#[tokio::test]
async fn the_server_tells_who_it_is() {
    for version in Version::ALL {
        let db = database(version, "identify");
        let mut connection = open_replication(&db.url()).await;
        let identity = connection.identify_system().await.unwrap();
        let control = db.value("SELECT system_identifier FROM pg_control_system()");
        assert_eq!(identity.system_identifier.to_string(), control);
        assert_eq!((identity.timeline, identity.database.as_str()), (1, db.name()));
        assert!(identity.flushed > Lsn::ZERO);
    }
}

#[tokio::test]
async fn a_slot_is_made_read_and_dropped() {
    for version in Version::ALL {
        let db = database(version, "slot");
        let name = db.prefix();
        let mut connection = open_replication(&db.url()).await;
        let created = within(connection.create_slot(&slot(name))).await.unwrap();
        let mut plain = open(&db.url()).await;
        for reader in [&mut connection, &mut plain] {
            let read = reader.read_slot(name).await.unwrap().unwrap();
            assert_eq!(read.plugin.as_deref(), Some("pgoutput"));
            assert_eq!(read.database.as_deref(), Some(db.name()));
            assert_eq!(read.confirmed_flush_lsn, Some(created.consistent_point));
            assert!(read.restart_lsn.unwrap() <= created.consistent_point);
            assert!(read.catalog_xmin.is_some());
            assert_eq!((read.temporary, read.two_phase, read.active_pid), (false, false, None));
            assert_eq!((read.wal_status, read.safe_wal_size), (Some(WalStatus::Reserved), None));
            assert_eq!(read.conflicting, (version >= Version::V16).then_some(false), "{version}");
            assert_eq!(read.failover, (version >= Version::V17).then_some(false), "{version}");
            assert_eq!(read.synced, (version >= Version::V17).then_some(false), "{version}");
            assert_eq!(read.inactive_since.is_some(), version >= Version::V17, "{version}");
            assert_eq!(read.invalidation_reason, None);
        }
        let error = connection.create_slot(&slot(name)).await.unwrap_err();
        assert_eq!(error.sqlstate(), Some(SqlState::DUPLICATE_OBJECT), "{error}");
        connection.drop_slot(name, false).await.unwrap();
        assert_eq!(plain.read_slot(name).await.unwrap(), None);
        let error = connection.drop_slot(name, true).await.unwrap_err();
        assert_eq!(error.sqlstate(), Some(SqlState::UNDEFINED_OBJECT), "{error}");
    }
}

#[tokio::test]
async fn the_time_since_when_a_slot_is_idle_is_the_servers() {
    let db = database(Version::NEWEST, "idle slot");
    let mut connection = open_replication(&db.url()).await;
    within(connection.create_slot(&slot(db.prefix()))).await.unwrap();
    let read = connection.read_slot(db.prefix()).await.unwrap().unwrap();
    let micros = db.value(&format!(
        "SELECT (extract(epoch FROM inactive_since - timestamptz '2000-01-01Z') * 1000000)::bigint
         FROM pg_replication_slots WHERE slot_name = '{}'",
        db.prefix()
    ));
    assert_eq!(read.inactive_since.unwrap().0.to_string(), micros);
}

#[tokio::test]
async fn a_temporary_slot_goes_with_its_connection() {
    for version in [Version::V14, Version::NEWEST] {
        let db = database(version, "temporary slot");
        let mut connection = open_replication(&db.url()).await;
        let temporary = NewSlot { temporary: true, ..slot(db.prefix()) };
        within(connection.create_slot(&temporary)).await.unwrap();
        let mut plain = open(&db.url()).await;
        assert!(plain.read_slot(db.prefix()).await.unwrap().unwrap().temporary);
        connection.close().await;
        let count = format!("SELECT FROM pg_replication_slots WHERE slot_name = '{}'", db.prefix());
        eventually("the slot has gone", PATIENCE, || db.query(&count).is_empty().then_some(()));
    }
}

#[tokio::test]
async fn a_failover_slot_is_made_where_the_server_knows_them() {
    for version in Version::ALL {
        let db = database(version, "failover slot");
        let mut connection = open_replication(&db.url()).await;
        let failover = NewSlot { failover: true, ..slot(db.prefix()) };
        let made = within(connection.create_slot(&failover)).await;
        if version >= Version::V17 {
            made.unwrap();
            let read = connection.read_slot(db.prefix()).await.unwrap().unwrap();
            assert_eq!(read.failover, Some(true));
        } else {
            assert!(matches!(made, Err(Error::Protocol { .. })), "{version}");
        }
    }
}

#[tokio::test]
async fn a_name_that_no_slot_can_have_is_refused_by_the_server_and_not_run() {
    let db = database(Version::NEWEST, "slot names");
    let mut connection = open_replication(&db.url()).await;
    for name in ["Upper", "a b", "x\" LOGICAL test_decoding", "'; DROP DATABASE postgres"] {
        connection.create_slot(&slot(name)).await.unwrap_err();
        assert_eq!(connection.read_slot(name).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_slot_that_is_taken_is_55006_and_free_when_the_other_goes() {
    for version in Version::ALL {
        let db = database(version, "taken slot");
        publish(&db);
        let mut first = open_replication(&db.url()).await;
        within(first.create_slot(&slot(db.prefix()))).await.unwrap();
        start(&mut first, db.prefix()).await.unwrap();
        let mut second = open_replication(&db.url()).await;
        let error = start(&mut second, db.prefix()).await.unwrap_err();
        assert_eq!(error.sqlstate(), Some(SqlState::OBJECT_IN_USE), "{error}");
        let active = second.read_slot(db.prefix()).await.unwrap().unwrap().active_pid;
        assert_eq!(active, first.process_id());
        let (_reader, writer) = first.into_stream().unwrap();
        writer.terminate().await.unwrap();
        // The same connection asks again until it is free.
        while let Err(error) = start(&mut second, db.prefix()).await {
            assert_eq!(error.sqlstate(), Some(SqlState::OBJECT_IN_USE), "{error}");
        }
    }
}

#[tokio::test]
async fn dropping_with_wait_waits_for_the_stream_to_end() {
    let db = database(Version::NEWEST, "drop waits");
    publish(&db);
    let mut streaming = open_replication(&db.url()).await;
    within(streaming.create_slot(&slot(db.prefix()))).await.unwrap();
    start(&mut streaming, db.prefix()).await.unwrap();
    let mut dropping = open_replication(&db.url()).await;
    let error = dropping.drop_slot(db.prefix(), false).await.unwrap_err();
    assert_eq!(error.sqlstate(), Some(SqlState::OBJECT_IN_USE), "{error}");
    let (_reader, writer) = streaming.into_stream().unwrap();
    let (dropped, ended) =
        tokio::join!(within(dropping.drop_slot(db.prefix(), true)), writer.terminate());
    ended.unwrap();
    dropped.unwrap();
}

#[tokio::test]
async fn a_slot_whose_wal_is_gone_says_so() {
    for version in [Version::V14, Version::NEWEST] {
        let server = launch(
            PostgresOptions::new(version)
                .setting("max_slot_wal_keep_size", "1MB")
                .initdb("--wal-segsize=1")
                .setting("max_wal_size", "2MB")
                .setting("min_wal_size", "2MB"),
        );
        let db = server.database("lost slot");
        publish(&db);
        let mut connection = open_replication(&db.url()).await;
        within(connection.create_slot(&slot("lost"))).await.unwrap();
        let safe = connection.read_slot("lost").await.unwrap().unwrap().safe_wal_size;
        assert!(safe.unwrap() > 0);
        db.execute("CREATE TABLE filler (a text)");
        for _ in 0..8 {
            db.execute("INSERT INTO filler SELECT repeat('x', 1000) FROM generate_series(1, 2000)");
            db.execute("SELECT pg_switch_wal()");
            db.execute("CHECKPOINT");
        }
        let read = connection.read_slot("lost").await.unwrap().unwrap();
        assert_eq!(read.wal_status, Some(WalStatus::Lost), "{version}");
        if version >= Version::V17 {
            assert_eq!(read.invalidation_reason.as_deref(), Some("wal_removed"));
        }
        let error = start(&mut connection, "lost").await.unwrap_err();
        assert_eq!(error.sqlstate(), Some(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE), "{error}");
    }
}
