//! A slot as the server's catalog shows it.

use waltide_core::lsn::Lsn;
use waltide_core::pgoutput::PgTimestamp;

use super::cells::Cells;
use super::connection::Connection;
use super::error::Error;
use super::sql::literal;

/// A row of `pg_replication_slots`. What a version does not know is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Its name.
    pub name: String,
    /// Its output plugin; `None` for a physical slot.
    pub plugin: Option<String>,
    /// Its database; `None` for a physical slot.
    pub database: Option<String>,
    /// Whether it goes with the connection that made it.
    pub temporary: bool,
    /// Who streams from it.
    pub active_pid: Option<i32>,
    /// From where on WAL is kept for it.
    pub restart_lsn: Option<Lsn>,
    /// What was confirmed.
    pub confirmed_flush_lsn: Option<Lsn>,
    /// The oldest transaction whose catalog rows are kept for it.
    pub catalog_xmin: Option<u32>,
    /// Whether its WAL is still there.
    pub wal_status: Option<WalStatus>,
    /// How much WAL may still be written before it is in danger; `None` without a limit.
    pub safe_wal_size: Option<i64>,
    /// Whether prepared transactions are streamed at their PREPARE.
    pub two_phase: bool,
    /// Whether recovery on this standby has made it useless; from 16.
    pub conflicting: Option<bool>,
    /// Why it is useless, such as `wal_removed` or `idle_timeout`; from 17, else `None`.
    pub invalidation_reason: Option<String>,
    /// Since when nobody has used it; from 17.
    pub inactive_since: Option<PgTimestamp>,
    /// Whether standbys keep a copy; from 17.
    pub failover: Option<bool>,
    /// Whether it is such a copy; from 17.
    pub synced: Option<bool>,
}

/// Whether a slot's WAL is still there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WalStatus {
    /// Within `max_wal_size`.
    Reserved,
    /// Beyond it, and kept.
    Extended,
    /// Beyond `max_slot_wal_keep_size`: the next checkpoint may remove it.
    Unreserved,
    /// Gone: the slot is useless.
    Lost,
    /// A word that we do not know.
    Other(String),
}

impl WalStatus {
    fn of(word: String) -> Self {
        match word.as_str() {
            "reserved" => Self::Reserved,
            "extended" => Self::Extended,
            "unreserved" => Self::Unreserved,
            "lost" => Self::Lost,
            _ => Self::Other(word),
        }
    }
}

/// One statement for all versions: a column that a version lacks is missing from the object and
/// so NULL. Simple words, since it also runs on replication connections, where PostgreSQL 14's
/// own scanner reads it first.
const QUERY: &str = "\
SELECT s.slot_name, s.plugin, s.database, s.temporary, s.active_pid, s.restart_lsn, \
       s.confirmed_flush_lsn, s.catalog_xmin, s.wal_status, s.safe_wal_size, s.two_phase, \
       pg_catalog.jsonb_extract_path_text(j, 'conflicting'), \
       pg_catalog.jsonb_extract_path_text(j, 'invalidation_reason'), \
       CAST(1000000 * EXTRACT(epoch FROM CAST(pg_catalog.jsonb_extract_path_text(j, 'inactive_since') AS timestamptz) \
            - TIMESTAMP WITH TIME ZONE '2000-01-01 00:00:00+00') AS bigint), \
       pg_catalog.jsonb_extract_path_text(j, 'failover'), \
       pg_catalog.jsonb_extract_path_text(j, 'synced') \
FROM pg_catalog.pg_replication_slots AS s, \
     LATERAL (SELECT pg_catalog.to_jsonb(s) AS j) AS o";

impl Connection {
    /// The slot of this name, in either mode; `None` if there is none.
    pub async fn read_slot(&mut self, name: &str) -> Result<Option<Slot>, Error> {
        let query = format!("{QUERY} WHERE s.slot_name = {}", literal(name));
        let rows = self.simple_query(&query).await?;
        let Some(row) = rows.rows.first() else { return Ok(None) };
        let slot = slot(row).ok_or_else(|| self.link.malformed("a row of pg_replication_slots"))?;
        Ok(Some(slot))
    }

    /// All slots of the server, by name.
    pub async fn list_slots(&mut self) -> Result<Vec<Slot>, Error> {
        let rows = self.simple_query(&format!("{QUERY} ORDER BY s.slot_name")).await?;
        let slots = rows.rows.iter().map(|row| slot(row)).collect::<Option<Vec<_>>>();
        slots.ok_or_else(|| self.link.malformed("a row of pg_replication_slots"))
    }

    /// Where the server's log ends now: at or past every commit so far.
    pub async fn current_wal_lsn(&mut self) -> Result<Lsn, Error> {
        let end = self.simple_query("SELECT pg_current_wal_lsn()").await?;
        let end = end.single().and_then(|text| text.parse().ok());
        end.ok_or_else(|| self.link.malformed("the answer to pg_current_wal_lsn()"))
    }
}

fn slot(row: &[Option<String>]) -> Option<Slot> {
    let mut cells = Cells::of(row);
    Some(Slot {
        name: cells.get()?,
        plugin: cells.maybe()?,
        database: cells.maybe()?,
        temporary: cells.flag()?,
        active_pid: cells.maybe()?,
        restart_lsn: cells.maybe()?,
        confirmed_flush_lsn: cells.maybe()?,
        catalog_xmin: cells.maybe()?,
        wal_status: cells.maybe::<String>()?.map(WalStatus::of),
        safe_wal_size: cells.maybe()?,
        two_phase: cells.flag()?,
        conflicting: cells.maybe_flag()?,
        invalidation_reason: cells.maybe()?,
        inactive_since: cells.maybe()?.map(PgTimestamp),
        failover: cells.maybe_flag()?,
        synced: cells.maybe_flag()?,
    })
}
