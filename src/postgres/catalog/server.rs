//! Facts of the server and the database that decide whether a pipeline can run.

use crate::postgres::cells::Cells;
use crate::postgres::connection::Connection;
use crate::postgres::error::Error;

/// What the server is set up for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFacts {
    /// As in `server_version_num`: 150018 for 15.18.
    pub version_num: u32,
    /// `logical`, or no slot can be made.
    pub wal_level: String,
    /// How many slots there can be.
    pub max_replication_slots: u32,
    /// How many there are.
    pub replication_slots: u32,
    /// How many streams there can be.
    pub max_wal_senders: u32,
    /// How much WAL a slot may keep, in bytes; `None` without a limit.
    pub max_slot_wal_keep_size: Option<u64>,
    /// Whether it is a standby.
    pub in_recovery: bool,
    /// The database's encoding, such as `UTF8` or `SQL_ASCII`.
    pub encoding: String,
    /// Whether our role may create FOR ALL TABLES publications, and everything else.
    pub superuser: bool,
    /// Whether our role may use slots.
    pub replication: bool,
}

const QUERY: &str = "\
SELECT current_setting('server_version_num'), current_setting('wal_level'),
       current_setting('max_replication_slots'), (SELECT count(*) FROM pg_replication_slots),
       current_setting('max_wal_senders'),
       (SELECT CASE WHEN setting::bigint >= 0 THEN setting::bigint * 1048576 END
        FROM pg_settings WHERE name = 'max_slot_wal_keep_size'),
       pg_is_in_recovery(), getdatabaseencoding(), r.rolsuper, r.rolreplication OR r.rolsuper
FROM pg_roles r WHERE r.rolname = current_user";

impl Connection {
    /// What the server is set up for.
    pub async fn server_facts(&mut self) -> Result<ServerFacts, Error> {
        let rows = self.query(QUERY, &[]).await?;
        let facts = self.rows_as(&rows, "the server's settings", |row| {
            let mut cells = Cells::of(row);
            Some(ServerFacts {
                version_num: cells.get()?,
                wal_level: cells.get()?,
                max_replication_slots: cells.get()?,
                replication_slots: cells.get()?,
                max_wal_senders: cells.get()?,
                max_slot_wal_keep_size: cells.maybe()?,
                in_recovery: cells.flag()?,
                encoding: cells.get()?,
                superuser: cells.flag()?,
                replication: cells.flag()?,
            })
        })?;
        facts.into_iter().next().ok_or_else(|| self.link.malformed("the server's settings"))
    }
}
