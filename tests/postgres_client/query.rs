//! Queries: rows, parameters, errors, notices, and what an abandoned command leaves.

use std::time::Duration;

use waltide::postgres::{Error, SqlState};
use waltide_stack::Version;

use crate::{database, open, open_replication, value, within};

#[tokio::test]
async fn rows_come_with_their_names_and_nulls_in_both_modes() {
    for version in Version::ALL {
        let db = database(version, "rows");
        for connection in [&mut open(&db.url()).await, &mut open_replication(&db.url()).await] {
            let sql = "SELECT n AS \"a b\", nullif(n, 2) AS c FROM generate_series(1, 2) AS n";
            let rows = connection.simple_query(sql).await.unwrap();
            assert_eq!(rows.columns, ["a b", "c"]);
            let one = || Some("1".to_owned());
            assert_eq!(rows.rows, [vec![one(), one()], vec![Some("2".to_owned()), None]]);
            assert_eq!(rows.tag, "SELECT 2");
        }
    }
}

#[tokio::test]
async fn parameters_are_text_of_any_type() {
    let db = database(Version::V14, "parameters");
    let mut connection = open(&db.url()).await;
    let sql = "SELECT $1::int + 1, $2::text, $3::int[], $4::bytea, coalesce($5, 'none')";
    let params = [Some("41"), Some("it's \\ \"ä\""), Some("{1,NULL}"), Some("\\x00ff"), None];
    let rows = connection.query(sql, &params).await.unwrap();
    let values: Vec<_> = rows.rows[0].iter().map(Option::as_deref).collect();
    let expected = ["42", "it's \\ \"ä\"", "{1,NULL}", "\\x00ff", "none"];
    assert_eq!(values, expected.map(Some));
    let empty = connection.query("SELECT 1 WHERE $1::bool", &[Some("false")]).await.unwrap();
    assert_eq!((empty.rows.len(), empty.columns.len()), (0, 1));
    let none = connection.query("SET application_name = 'x'", &[]).await.unwrap();
    assert_eq!((none.rows.len(), none.tag.as_str()), (0, "SET"));
}

#[tokio::test]
async fn an_error_keeps_what_the_server_said_and_leaves_the_connection_usable() {
    let db = database(Version::NEWEST, "errors");
    let mut connection = open(&db.url()).await;
    db.execute("CREATE TABLE t (a int CONSTRAINT small CHECK (a < 10))");
    let error = connection.query("INSERT INTO public.t VALUES ($1)", &[Some("4711")]).await;
    let error = error.unwrap_err();
    let said = error.server().unwrap();
    assert_eq!(said.sqlstate.as_str(), "23514");
    assert_eq!((said.severity.as_str(), said.constraint.as_deref()), ("ERROR", Some("small")));
    assert_eq!((said.schema.as_deref(), said.table.as_deref()), (Some("public"), Some("t")));
    assert!(said.detail.as_ref().unwrap().contains("4711"));
    // The detail holds the row: it is there for those who ask, and never printed.
    assert!(!error.to_string().contains("4711"), "{error}");
    for sql in ["SELECT 1; SELECT 1/0; SELECT 2", "selekt"] {
        connection.simple_query(sql).await.unwrap_err();
        assert_eq!(value(&mut connection, "SELECT 3").await, "3");
    }
    let error = connection.query("SELECT $1::int", &[Some("x")]).await.unwrap_err();
    assert_eq!(error.sqlstate().unwrap().as_str(), "22P02");
    assert_eq!(error.sqlstate().unwrap().class(), "22");
    assert_eq!(value(&mut connection, "SELECT 4").await, "4");
}

#[tokio::test]
async fn whether_a_transaction_is_open_is_known() {
    let db = database(Version::NEWEST, "transaction");
    let mut connection = open(&db.url()).await;
    assert!(!connection.in_transaction());
    connection.simple_query("BEGIN").await.unwrap();
    assert!(connection.in_transaction());
    connection.simple_query("SELECT 1/0").await.unwrap_err();
    assert!(connection.in_transaction());
    connection.simple_query("ROLLBACK").await.unwrap();
    assert!(!connection.in_transaction());
}

#[tokio::test]
async fn warnings_are_kept_for_whoever_asks_and_bounded() {
    let db = database(Version::NEWEST, "warnings");
    let mut connection = open(&db.url()).await;
    let raise = "DO $$ BEGIN FOR i IN 1..100 LOOP RAISE WARNING 'number %', i; END LOOP; END $$";
    connection.simple_query(raise).await.unwrap();
    let notices = connection.take_notices();
    assert_eq!(notices.len(), waltide::postgres::MAX_NOTICES);
    assert_eq!(notices.last().unwrap().message, "number 100");
    assert_eq!(notices.last().unwrap().severity, "WARNING");
    assert!(connection.take_notices().is_empty());
}

#[tokio::test]
async fn a_connection_whose_command_was_given_up_takes_no_other() {
    let db = database(Version::NEWEST, "given up");
    let mut connection = open(&db.url()).await;
    let patience = Duration::from_millis(20);
    let sleep = connection.simple_query("SELECT pg_sleep(60)");
    tokio::time::timeout(patience, sleep).await.unwrap_err();
    let error = within(connection.simple_query("SELECT 1")).await.unwrap_err();
    assert!(matches!(error, Error::Closed { .. }), "{error}");
}

#[tokio::test]
async fn a_query_with_parameters_is_refused_on_a_replication_connection() {
    let db = database(Version::NEWEST, "extended");
    let mut connection = open_replication(&db.url()).await;
    let error = connection.query("SELECT $1::int", &[Some("1")]).await.unwrap_err();
    assert!(matches!(error, Error::Protocol { .. }), "{error}");
    assert_eq!(value(&mut connection, "SELECT 1").await, "1");
}

#[tokio::test]
async fn the_last_words_of_a_server_that_ends_us_are_heard() {
    let db = database(Version::NEWEST, "terminated");
    let mut connection = open(&db.url()).await;
    let pid = connection.process_id().unwrap();
    assert_eq!(db.value(&format!("SELECT pg_terminate_backend({pid}, 10000)")), "t");
    let error = within(connection.simple_query("SELECT 1")).await.unwrap_err();
    assert_eq!(error.sqlstate(), Some(SqlState::ADMIN_SHUTDOWN), "{error}");
    let error = within(connection.simple_query("SELECT 1")).await.unwrap_err();
    assert!(matches!(error, Error::Closed { .. }), "{error}");
}

#[tokio::test]
async fn what_the_server_is_we_know_without_asking() {
    for version in Version::ALL {
        let db = database(version, "version");
        let connection = open(&db.url()).await;
        assert_eq!(connection.server_version_num() / 10_000, version.number());
        assert_eq!(connection.parameter("server_encoding"), Some("UTF8"));
        connection.close().await;
    }
}
