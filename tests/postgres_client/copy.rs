//! COPY TO STDOUT: whole, large, broken off, failing.

use waltide::postgres::{Connection, CopyOut, Error};
use waltide_stack::Version;

use crate::{database, open, value, within};

/// All rows, one after the other.
async fn rows(copy: &mut CopyOut<'_>) -> Result<Vec<Vec<u8>>, Error> {
    let mut rows = Vec::new();
    while within(copy.fill()).await? > 0 {
        while let Some(row) = copy.next_frame() {
            rows.push(row?.to_vec());
        }
    }
    Ok(rows)
}

async fn copied(connection: &mut Connection, sql: &str) -> Result<Vec<Vec<u8>>, Error> {
    rows(&mut connection.copy_out(sql).await?).await
}

#[tokio::test]
async fn rows_come_one_by_one_in_text_and_in_binary() {
    for version in Version::ALL {
        let db = database(version, "copy");
        let mut connection = open(&db.url()).await;
        let query = "SELECT n FROM generate_series(1, 3000) AS n";
        let text = copied(&mut connection, &format!("COPY ({query}) TO STDOUT")).await.unwrap();
        assert_eq!((text.len(), &text[2999][..]), (3000, &b"3000\n"[..]));
        let binary =
            copied(&mut connection, &format!("COPY ({query}) TO STDOUT (FORMAT binary)")).await;
        let bytes = binary.unwrap().concat();
        assert!(bytes.starts_with(b"PGCOPY\n\xff\r\n\0"));
        assert_eq!(bytes.len(), 19 + 3000 * 10 + 2);
        assert_eq!(value(&mut connection, "SELECT 1").await, "1");
    }
}

#[tokio::test]
async fn rows_far_larger_than_the_buffer_come_whole() {
    let db = database(Version::NEWEST, "large rows");
    let mut connection = open(&db.url()).await;
    let sql = "COPY (SELECT repeat(n::text, 20000000) FROM generate_series(1, 3) AS n) TO STDOUT";
    let mut copy = connection.copy_out(sql).await.unwrap();
    let mut seen = Vec::new();
    while within(copy.fill()).await.unwrap() > 0 {
        while let Some(row) = copy.next_frame() {
            let row = row.unwrap();
            assert!(row[..row.len() - 1].iter().all(|byte| *byte == row[0]));
            seen.push((row[0], row.len()));
        }
    }
    assert_eq!(seen, [(b'1', 20_000_001), (b'2', 20_000_001), (b'3', 20_000_001)]);
}

#[tokio::test]
async fn an_error_among_the_rows_comes_after_those_before_it() {
    let db = database(Version::NEWEST, "failing copy");
    let mut connection = open(&db.url()).await;
    let sql = "COPY (SELECT 100 / (5000 - n) FROM generate_series(1, 9000) AS n) TO STDOUT";
    let mut copy = connection.copy_out(sql).await.unwrap();
    let mut count = 0;
    let error = 'rows: loop {
        within(copy.fill()).await.unwrap();
        while let Some(row) = copy.next_frame() {
            match row {
                Ok(_) => count += 1,
                Err(error) => break 'rows error,
            }
        }
    };
    assert_eq!(count, 4999);
    assert_eq!(error.sqlstate().unwrap().as_str(), "22012");
    copy.finish().await.unwrap();
    assert_eq!(value(&mut connection, "SELECT 1").await, "1");
}

#[tokio::test]
async fn a_copy_that_cannot_start_leaves_the_connection_usable() {
    let db = database(Version::NEWEST, "refused copy");
    let mut connection = open(&db.url()).await;
    let error = connection.copy_out("COPY nowhere TO STDOUT").await.map(drop).unwrap_err();
    assert_eq!(error.sqlstate().unwrap().as_str(), "42P01");
    let error = connection.copy_out("SELECT 1").await.map(drop).unwrap_err();
    assert!(matches!(error, Error::Protocol { .. }), "{error}");
    assert_eq!(value(&mut connection, "SELECT 1").await, "1");
}

#[tokio::test]
async fn the_rest_can_be_skipped_but_not_forgotten() {
    let db = database(Version::NEWEST, "skipped copy");
    let sql = "COPY (SELECT repeat('x', 1000) FROM generate_series(1, 50000)) TO STDOUT";
    let mut connection = open(&db.url()).await;
    let mut copy = connection.copy_out(sql).await.unwrap();
    within(copy.fill()).await.unwrap();
    copy.next_frame().unwrap().unwrap();
    within(copy.finish()).await.unwrap();
    assert_eq!(value(&mut connection, "SELECT 1").await, "1");
    let mut copy = connection.copy_out(sql).await.unwrap();
    within(copy.fill()).await.unwrap();
    let error = within(connection.simple_query("SELECT 1")).await.unwrap_err();
    assert!(matches!(error, Error::Closed { .. }), "{error}");
}
