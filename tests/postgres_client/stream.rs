//! The replication stream: frames, status, ends of every kind.

use std::time::{Duration, Instant};

use waltide::postgres::{
    Connection, Error, NewSlot, SqlState, StreamOptions, StreamReader, StreamWriter,
};
use waltide_core::lsn::{DurableLsn, Lsn};
use waltide_stack::{Database, PostgresOptions, Proxy, Version, eventually};

use crate::guarded::guarded;
use crate::{PATIENCE, database, launch, open, open_replication, params, value, within};

const OPTIONS: StreamOptions<'_> = StreamOptions {
    publications: &["it's \"odd\", really"],
    binary: true,
    streaming: false,
    messages: false,
    any_origin: true,
};

/// A table `t` that is published under an odd name.
pub(crate) fn publish(db: &Database) {
    db.execute(
        "CREATE TABLE t (id int PRIMARY KEY, body text);
         ALTER TABLE t ALTER body SET STORAGE EXTERNAL;
         CREATE PUBLICATION \"it's \"\"odd\"\", really\" FOR TABLE t",
    );
}

pub(crate) async fn start(connection: &mut Connection, slot: &str) -> Result<(), Error> {
    within(connection.start_replication(slot, Lsn::ZERO, &OPTIONS)).await
}

/// A stream on a new slot.
async fn stream(db: &Database) -> (StreamReader, StreamWriter) {
    let mut connection = open_replication(&db.url()).await;
    let slot = NewSlot { name: db.prefix(), temporary: false, failover: false };
    within(connection.create_slot(&slot)).await.unwrap();
    start(&mut connection, db.prefix()).await.unwrap();
    connection.into_stream().unwrap()
}

/// Reads until a message of this kind, and returns it; keepalives are `k`.
async fn until(reader: &mut StreamReader, kind: u8) -> Result<Vec<u8>, Error> {
    loop {
        while let Some(frame) = reader.next_frame() {
            let frame = frame?;
            let found = if frame[0] == b'w' { frame[25] } else { frame[0] };
            if found == kind {
                return Ok(frame.to_vec());
            }
        }
        assert!(within(reader.fill()).await? > 0, "the stream has ended");
    }
}

fn lsn(bytes: &[u8]) -> Lsn {
    Lsn(u64::from_be_bytes(bytes.try_into().unwrap()))
}

/// The end of the transaction, of a commit message.
fn end_of(commit: &[u8]) -> Lsn {
    lsn(&commit[25 + 10..25 + 18])
}

async fn confirm(writer: &mut StreamWriter, at: Lsn) {
    let durable = DurableLsn::proven(at);
    within(writer.status_update(at, durable, durable, false)).await.unwrap();
}

fn wait_until_confirmed(db: &Database, at: Lsn) {
    let sql = format!(
        "SELECT FROM pg_replication_slots WHERE slot_name = '{}' AND confirmed_flush_lsn = '{at}'",
        db.prefix()
    );
    eventually("the slot has moved", PATIENCE, || db.query(&sql).first().map(drop));
}

#[tokio::test]
async fn frames_come_and_confirming_moves_the_slot() {
    for version in Version::ALL {
        let db = database(version, "frames");
        publish(&db);
        let (mut reader, mut writer) = stream(&db).await;
        db.execute("INSERT INTO t VALUES (1, 'one'), (2, 'two'); DELETE FROM t WHERE id = 1");
        let mut kinds = Vec::new();
        let commit = loop {
            within(reader.fill()).await.unwrap();
            while let Some(frame) = reader.next_frame() {
                let frame = frame.unwrap();
                kinds.extend((frame[0] == b'w').then(|| frame[25]));
            }
            if kinds.contains(&b'C') {
                break kinds.clone();
            }
        };
        assert_eq!(String::from_utf8(commit).unwrap(), "BRIIDC", "{version}");
        db.execute("INSERT INTO t VALUES (3, 'three')");
        let end = end_of(&until(&mut reader, b'C').await.unwrap());
        confirm(&mut writer, end).await;
        wait_until_confirmed(&db, end);
    }
}

#[tokio::test]
async fn a_stream_through_tls_is_the_same() {
    for server in guarded() {
        let db = server.postgres.database("tls stream");
        publish(&db);
        let mut params = params(&server.url("postgres", &server.verified()));
        params.database = db.name().to_owned();
        let mode = waltide::postgres::Mode::Replication;
        let mut connection = Connection::open(&params, mode).await.unwrap();
        let slot = NewSlot { name: db.prefix(), temporary: false, failover: false };
        within(connection.create_slot(&slot)).await.unwrap();
        start(&mut connection, db.prefix()).await.unwrap();
        let (mut reader, mut writer) = connection.into_stream().unwrap();
        assert!(reader.set_low_water_mark(4096).unwrap());
        db.execute("INSERT INTO t SELECT n, repeat('x', 5000) FROM generate_series(1, 2000) AS n");
        let end = end_of(&until(&mut reader, b'C').await.unwrap());
        confirm(&mut writer, end).await;
        wait_until_confirmed(&db, end);
        writer.finish().await.unwrap();
        let mut connection = within(reader.rejoin(writer)).await.unwrap();
        assert!(connection.is_encrypted());
        assert_eq!(value(&mut connection, "SELECT 1").await, "1");
    }
}

#[tokio::test]
async fn a_stream_over_a_unix_socket_is_the_same() {
    let db = database(Version::NEWEST, "unix stream");
    publish(&db);
    let server = db.postgres();
    let (directory, port) = (server.socket_directory(), server.port());
    let url =
        format!("host={} port={port} user=postgres dbname={}", directory.display(), db.name());
    let mut connection = open_replication(&url).await;
    let slot = NewSlot { name: db.prefix(), temporary: true, failover: false };
    within(connection.create_slot(&slot)).await.unwrap();
    start(&mut connection, db.prefix()).await.unwrap();
    let (mut reader, mut writer) = connection.into_stream().unwrap();
    assert!(!reader.set_low_water_mark(4096).unwrap());
    db.execute("INSERT INTO t VALUES (1, 'one')");
    let end = end_of(&until(&mut reader, b'C').await.unwrap());
    confirm(&mut writer, end).await;
    writer.finish().await.unwrap();
    let mut connection = within(reader.rejoin(writer)).await.unwrap();
    let read = connection.read_slot(db.prefix()).await.unwrap().unwrap();
    assert_eq!(read.confirmed_flush_lsn, Some(end));
}

#[tokio::test(flavor = "multi_thread")]
async fn reader_and_writer_work_in_different_tasks() {
    let db = database(Version::NEWEST, "tasks");
    publish(&db);
    let (mut reader, mut writer) = stream(&db).await;
    let (said, mut heard) = tokio::sync::watch::channel(Lsn::ZERO);
    let writing = tokio::spawn(async move {
        while heard.changed().await.is_ok() {
            let at = *heard.borrow_and_update();
            confirm(&mut writer, at).await;
        }
        writer
    });
    let mut last = Lsn::ZERO;
    for n in 0..50 {
        db.execute(&format!("INSERT INTO t VALUES ({n}, 'x')"));
        last = end_of(&until(&mut reader, b'C').await.unwrap());
        said.send(last).unwrap();
    }
    drop(said);
    wait_until_confirmed(&db, last);
    writing.await.unwrap().terminate().await.unwrap();
}

#[tokio::test]
async fn a_stream_that_ends_in_order_gives_the_connection_back_for_other_commands() {
    for version in Version::ALL {
        let db = database(version, "end of stream");
        publish(&db);
        let (mut reader, mut writer) = stream(&db).await;
        db.execute("INSERT INTO t VALUES (1, 'x')");
        let end = end_of(&until(&mut reader, b'C').await.unwrap());
        confirm(&mut writer, end).await;
        // More may be on its way: it is skipped, and comes again next time.
        db.execute("UPDATE t SET body = 'y' WHERE id = 1");
        assert!(!reader.is_finished());
        within(writer.finish()).await.unwrap();
        let mut connection = within(reader.rejoin(writer)).await.unwrap();
        assert_eq!(value(&mut connection, "SELECT 1").await, "1");
        let read = within(connection.read_slot(db.prefix())).await.unwrap().unwrap();
        assert_eq!((read.confirmed_flush_lsn, read.active_pid), (Some(end), None), "{version}");
        // No version's server process streams twice, so we do not ask it to.
        let error = start(&mut connection, db.prefix()).await.unwrap_err();
        assert!(matches!(error, Error::Protocol { .. }), "{error}");
        assert_eq!(value(&mut connection, "SELECT 1").await, "1");
        let mut connection = open_replication(&db.url()).await;
        start(&mut connection, db.prefix()).await.unwrap();
        let (mut reader, _writer) = connection.into_stream().unwrap();
        until(&mut reader, b'U').await.unwrap();
    }
}

#[tokio::test]
async fn once_it_has_ended_a_reader_gives_nothing_more() {
    let db = database(Version::NEWEST, "nothing more");
    publish(&db);
    let (mut reader, mut writer) = stream(&db).await;
    writer.finish().await.unwrap();
    while within(reader.fill()).await.unwrap() > 0 {
        while let Some(frame) = reader.next_frame() {
            frame.unwrap();
        }
    }
    assert!(reader.is_finished());
    assert_eq!(reader.fill().await.unwrap(), 0);
    assert!(reader.next_frame().is_none());
}

#[tokio::test]
async fn a_terminated_backend_is_57p01_after_all_that_came_before() {
    for version in Version::ALL {
        let db = database(version, "terminated stream");
        publish(&db);
        let (mut reader, _writer) = stream(&db).await;
        db.execute("INSERT INTO t VALUES (1, 'one')");
        until(&mut reader, b'C').await.unwrap();
        let pid = reader.process_id().unwrap();
        assert_eq!(db.value(&format!("SELECT pg_terminate_backend({pid}, 10000)")), "t");
        let error = until(&mut reader, b'I').await.unwrap_err();
        assert_eq!(error.sqlstate(), Some(SqlState::ADMIN_SHUTDOWN), "{version}: {error}");
        assert_eq!(error.server().unwrap().severity, "FATAL");
    }
}

#[tokio::test]
async fn a_server_that_shuts_down_ends_the_stream() {
    for version in [Version::V14, Version::NEWEST] {
        let server = launch(PostgresOptions::new(version));
        let db = server.database("shutdown");
        publish(&db);
        let (mut reader, mut writer) = stream(&db).await;
        db.execute("INSERT INTO t VALUES (1, 'one')");
        let end = end_of(&until(&mut reader, b'C').await.unwrap());
        confirm(&mut writer, end).await;
        let stopping = server.clone();
        let stopped = tokio::task::spawn_blocking(move || stopping.stop());
        // The server waits until all it wrote is confirmed, so we go on confirming.
        let error = loop {
            match until(&mut reader, b'k').await {
                Ok(keepalive) => confirm(&mut writer, lsn(&keepalive[1..9])).await,
                Err(error) => break error,
            }
        };
        let ended = matches!(error, Error::Closed { .. })
            || error.sqlstate() == Some(SqlState::ADMIN_SHUTDOWN);
        assert!(ended, "{version}: {error}");
        stopped.await.unwrap();
    }
}

#[tokio::test]
async fn a_connection_that_breaks_is_told_from_one_that_is_closed() {
    let db = database(Version::NEWEST, "broken");
    publish(&db);
    let proxy = Proxy::to(("127.0.0.1", db.postgres().port()));
    let url = db
        .url()
        .replace(&format!(":{}/", db.postgres().port()), &format!(":{}/", proxy.addr().port()));
    let mut connection = open_replication(&url).await;
    let slot = NewSlot { name: db.prefix(), temporary: false, failover: false };
    within(connection.create_slot(&slot)).await.unwrap();
    start(&mut connection, db.prefix()).await.unwrap();
    let (mut reader, _writer) = connection.into_stream().unwrap();
    proxy.cut();
    let error = until(&mut reader, b'C').await.unwrap_err();
    assert!(matches!(error, Error::Closed { .. }), "{error}");
}

#[tokio::test]
async fn values_far_larger_than_the_buffer_come_whole() {
    for version in Version::ALL {
        let db = database(version, "large values");
        publish(&db);
        let (mut reader, mut writer) = stream(&db).await;
        db.execute(
            "INSERT INTO t VALUES (1, 'small'), (2, repeat('x', 20000000)), (3, 'small'),
                                  (4, repeat('y', 20000000)), (5, 'small')",
        );
        let mut lens = Vec::new();
        let end = 'read: loop {
            within(reader.fill()).await.unwrap();
            while let Some(frame) = reader.next_frame() {
                let frame = frame.unwrap();
                match (frame[0], frame.get(25)) {
                    (b'w', Some(b'I')) => {
                        let body = &frame[frame.len() - 1000.min(frame.len() - 45)..];
                        assert!(frame.len() < 1000 || body.iter().all(|byte| *byte == body[0]));
                        lens.push(frame.len());
                    }
                    (b'w', Some(b'C')) => break 'read end_of(frame),
                    _ => {}
                }
            }
        };
        // Header, relation, `N`, two columns with kind and length, the id, the text.
        let frame = |text: usize| 25 + 1 + 4 + 1 + 2 + (1 + 4 + 4) + (1 + 4 + text);
        let (small, large) = (frame(5), frame(20_000_000));
        assert_eq!(lens, [small, large, small, large, small], "{version}");
        confirm(&mut writer, end).await;
        wait_until_confirmed(&db, end);
    }
}

#[tokio::test]
async fn below_the_low_water_mark_nobody_is_woken_until_it_comes_down() {
    let db = database(Version::NEWEST, "low water");
    publish(&db);
    let (mut reader, _writer) = stream(&db).await;
    db.execute("INSERT INTO t VALUES (1, 'one')");
    until(&mut reader, b'C').await.unwrap();
    assert!(reader.set_low_water_mark(64 * 1024).unwrap());
    db.execute("INSERT INTO t VALUES (2, 'two')");
    // That nothing comes can only be waited for.
    let early = tokio::time::timeout(Duration::from_millis(300), until(&mut reader, b'I')).await;
    assert!(early.is_err(), "woken for {:?} bytes", early.map(|frame| frame.unwrap().len()));
    reader.set_low_water_mark(1).unwrap();
    until(&mut reader, b'I').await.unwrap();
    // And above the mark it comes by itself.
    reader.set_low_water_mark(64 * 1024).unwrap();
    db.execute("INSERT INTO t SELECT n, repeat('x', 1000) FROM generate_series(3, 500) AS n");
    until(&mut reader, b'I').await.unwrap();
}

#[tokio::test]
async fn a_status_update_that_was_given_up_half_sent_is_finished_by_the_next() {
    let server = launch(PostgresOptions::new(Version::NEWEST).setting("wal_sender_timeout", "0"));
    let db = server.database("half sent");
    publish(&db);
    let (mut reader, mut writer) = stream(&db).await;
    db.execute("INSERT INTO t VALUES (1, 'one')");
    let end = end_of(&until(&mut reader, b'C').await.unwrap());
    // Nobody reads: at some point the system's buffers are full in the middle of an update.
    server.pause();
    let nowhere = DurableLsn::proven(Lsn::ZERO);
    let begun = Instant::now();
    loop {
        let update = writer.status_update(Lsn::ZERO, nowhere, nowhere, false);
        if tokio::time::timeout(Duration::from_millis(100), update).await.is_err() {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "the buffers never fill up");
    }
    server.resume();
    confirm(&mut writer, end).await;
    wait_until_confirmed(&db, end);
    writer.finish().await.unwrap();
    within(reader.rejoin(writer)).await.unwrap();
}

#[tokio::test]
async fn a_publication_that_does_not_exist_is_told_as_each_version_tells_it() {
    for version in Version::ALL {
        let db = database(version, "no publication");
        publish(&db);
        let (mut reader, mut writer) = {
            let mut connection = open_replication(&db.url()).await;
            let slot = NewSlot { name: db.prefix(), temporary: false, failover: false };
            within(connection.create_slot(&slot)).await.unwrap();
            let options = StreamOptions { publications: &["missing"], ..OPTIONS };
            connection.start_replication(db.prefix(), Lsn::ZERO, &options).await.unwrap();
            connection.into_stream().unwrap()
        };
        db.execute("INSERT INTO t VALUES (1, 'one')");
        if version < Version::V18 {
            let error = until(&mut reader, b'C').await.unwrap_err();
            assert_eq!(error.sqlstate(), Some(SqlState::UNDEFINED_OBJECT), "{version}: {error}");
            continue;
        }
        // 18 only warns, and goes on without: the warning must not be lost.
        let target = db.value("SELECT pg_current_wal_lsn()").parse::<Lsn>().unwrap();
        let nowhere = DurableLsn::proven(Lsn::ZERO);
        loop {
            writer.status_update(Lsn::ZERO, nowhere, nowhere, true).await.unwrap();
            let keepalive = until(&mut reader, b'k').await.unwrap();
            if lsn(&keepalive[1..9]) >= target {
                break;
            }
        }
        let notices = reader.take_notices();
        assert!(notices.iter().any(|notice| notice.message.contains("missing")), "{notices:?}");
    }
}

#[tokio::test]
async fn halves_of_different_streams_do_not_make_a_connection() {
    let (one, two) =
        (database(Version::NEWEST, "one half"), database(Version::NEWEST, "other half"));
    publish(&one);
    publish(&two);
    let ((reader, mut writer), (_other_reader, other_writer)) =
        (stream(&one).await, stream(&two).await);
    writer.finish().await.unwrap();
    let error = within(reader.rejoin(other_writer)).await.unwrap_err();
    assert!(matches!(error, Error::Protocol { .. }), "{error}");
}

#[tokio::test]
async fn a_connection_that_has_not_started_is_no_stream() {
    let db = database(Version::NEWEST, "not started");
    let connection = open(&db.url()).await;
    let error = connection.into_stream().map(drop).unwrap_err();
    assert!(matches!(error, Error::Protocol { .. }), "{error}");
}
