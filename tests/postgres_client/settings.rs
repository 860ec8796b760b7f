//! What role, database and connection string are configured with must not change what we read.

use waltide_stack::Version;

use crate::{database, open, open_replication, params, value};

/// Values in their text forms, each of which some setting can change.
const VALUES: &str = "SELECT concat_ws('|',
    timestamptz '2001-02-03 04:05:06+00', interval '1 year 2 days -03:00', float8 '0.1' + '0.2',
    bytea '\\x01ff', 1234.5::money, timestamp '2001-02-03 04:05:06',
    'pg_catalog.pg_class'::regclass, 'public.pinned'::regclass, current_setting('row_security'))";

const EXPECTED: &str = "2001-02-03 04:05:06+00|1 year 2 days -03:00:00|0.30000000000000004|\
     \\x01ff|$1,234.50|2001-02-03 04:05:06|pg_class|public.pinned|off";

#[tokio::test]
async fn what_we_read_does_not_depend_on_what_role_and_database_are_configured_with() {
    for version in Version::ALL {
        let db = database(version, "pinned settings");
        db.execute("CREATE TABLE public.pinned ()");
        let role = format!("{}_role", db.prefix());
        db.execute(&format!("CREATE ROLE {role} LOGIN SUPERUSER"));
        for (name, value) in [
            ("datestyle", "German, DMY"),
            ("intervalstyle", "sql_standard"),
            ("timezone", "Asia/Kathmandu"),
            ("extra_float_digits", "-15"),
            ("bytea_output", "escape"),
            ("search_path", "public"),
            ("quote_all_identifiers", "on"),
            ("standard_conforming_strings", "off"),
            ("statement_timeout", "1ms"),
            ("lock_timeout", "1ms"),
            ("default_transaction_isolation", "serializable"),
            ("client_encoding", "LATIN1"),
        ] {
            db.execute(&format!("ALTER ROLE {role} SET {name} = '{value}'"));
            db.execute(&format!("ALTER DATABASE {} SET {name} = '{value}'", db.name()));
        }
        let url = db.url_as(&role, None);
        for connection in [&mut open(&url).await, &mut open_replication(&url).await] {
            let read = value(connection, VALUES).await;
            assert_eq!(read, EXPECTED, "{version}: {connection:?}");
            assert_eq!(value(connection, "SELECT 'ä' || pg_sleep(0.01)").await, "ä");
        }
    }
}

#[tokio::test]
async fn options_in_the_connection_string_reach_the_server() {
    let db = database(Version::NEWEST, "options");
    let url = format!("{}?options=-c%20work_mem%3D1234kB&application_name=me%20too", db.url());
    let mut connection = open(&url).await;
    assert_eq!(value(&mut connection, "SHOW work_mem").await, "1234kB");
    assert_eq!(value(&mut connection, "SHOW application_name").await, "me too");
    let mut unnamed = open(&db.url()).await;
    assert_eq!(value(&mut unnamed, "SHOW application_name").await, "waltide");
}

#[tokio::test]
async fn the_server_forgets_a_silent_stream_as_soon_as_we_ask_it_to() {
    for version in Version::ALL {
        let db = database(version, "wal_sender_timeout");
        let mut params = params(&db.url());
        params.wal_sender_timeout = Some(std::time::Duration::from_millis(2500));
        let mode = waltide::postgres::Mode::Replication;
        let mut connection = waltide::postgres::Connection::open(&params, mode).await.unwrap();
        assert_eq!(value(&mut connection, "SHOW wal_sender_timeout").await, "2500ms", "{version}");
    }
}
