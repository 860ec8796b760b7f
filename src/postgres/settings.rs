//! The settings every session is pinned to, so that what a database or a role is configured with
//! changes neither what we read nor what our queries mean.
//!
//! Sent as one statement once the session is there, and not with the login: it holds against the
//! settings of role and database either way, and poolers refuse logins with settings they do not
//! know. `client_encoding` alone goes with the login as well, since the first error may come
//! before.

use std::time::Duration;

use super::session::Mode;

/// Name, value, and the first version that knows it.
const PINNED: [(&str, &str, u32); 21] = [
    // Text forms of values.
    ("datestyle", "ISO, YMD", 0),
    ("intervalstyle", "postgres", 0),
    ("timezone", "UTC", 0),
    // From 12 on any positive value means the shortest text that reads back exactly.
    ("extra_float_digits", "1", 0),
    ("bytea_output", "hex", 0),
    ("lc_monetary", "C", 0),
    ("lc_numeric", "C", 0),
    // Names: whatever is not in pg_catalog comes with its schema.
    ("search_path", "", 0),
    ("quote_all_identifiers", "off", 0),
    ("standard_conforming_strings", "on", 0),
    // A policy that hides rows is an error, not a silent filter.
    ("row_security", "off", 0),
    // Bounds are set where they are needed, by the one who waits.
    ("statement_timeout", "0", 0),
    ("lock_timeout", "0", 0),
    ("idle_in_transaction_session_timeout", "0", 0),
    ("idle_session_timeout", "0", 140_000),
    ("transaction_timeout", "0", 170_000),
    // "Serializable" by default would fail on a standby; "read only" is left as it is, since it
    // is what target_session_attrs asks for.
    ("default_transaction_isolation", "read committed", 0),
    ("default_transaction_deferrable", "off", 0),
    // Compiling a catalog query takes longer than running it.
    ("jit", "off", 0),
    ("synchronize_seqscans", "off", 0),
    ("client_min_messages", "warning", 0),
];

/// The statement that pins them.
pub(super) fn statement(
    version_num: u32,
    server_encoding: Option<&str>,
    mode: Mode,
    wal_sender_timeout: Option<Duration>,
) -> String {
    let known = PINNED.iter().filter(|(_, _, since)| version_num >= *since);
    let mut sql: String =
        known.map(|(name, value, _)| format!("SET {name} = '{value}';")).collect();
    // Such a database may hold bytes of any encoding. Asked for UTF-8 the server would fail on
    // those that are none, and a slot that has to send them would be stuck for ever.
    if server_encoding == Some("SQL_ASCII") {
        sql.push_str("SET client_encoding = 'SQL_ASCII';");
    }
    if let (Mode::Replication, Some(timeout)) = (mode, wal_sender_timeout) {
        sql.push_str(&format!("SET wal_sender_timeout = '{}ms';", timeout.as_millis()));
    }
    sql
}
