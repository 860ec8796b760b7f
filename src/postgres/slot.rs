//! A slot as the server's catalog shows it.

use waltide_core::lsn::Lsn;
use waltide_core::pgoutput::PgTimestamp;

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
    fn of(word: &str) -> Self {
        match word {
            "reserved" => Self::Reserved,
            "extended" => Self::Extended,
            "unreserved" => Self::Unreserved,
            "lost" => Self::Lost,
            other => Self::Other(other.to_owned()),
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
}

fn slot(row: &[Option<String>]) -> Option<Slot> {
    let values: Vec<Option<&str>> = row.iter().map(Option::as_deref).collect();
    let [
        name,
        plugin,
        database,
        temporary,
        active_pid,
        restart_lsn,
        confirmed_flush_lsn,
        catalog_xmin,
        wal_status,
        safe_wal_size,
        two_phase,
        conflicting,
        invalidation_reason,
        inactive_since,
        failover,
        synced,
    ] = <[Option<&str>; 16]>::try_from(values).ok()?;
    Some(Slot {
        name: name?.to_owned(),
        plugin: plugin.map(str::to_owned),
        database: database.map(str::to_owned),
        temporary: truth(temporary)?,
        active_pid: parsed(active_pid)?,
        restart_lsn: parsed(restart_lsn)?,
        confirmed_flush_lsn: parsed(confirmed_flush_lsn)?,
        catalog_xmin: parsed(catalog_xmin)?,
        wal_status: wal_status.map(WalStatus::of),
        safe_wal_size: parsed(safe_wal_size)?,
        two_phase: truth(two_phase)?,
        conflicting: conflicting.and_then(|value| truth(Some(value))),
        invalidation_reason: invalidation_reason.map(str::to_owned),
        inactive_since: parsed(inactive_since)?.map(PgTimestamp),
        failover: failover.and_then(|value| truth(Some(value))),
        synced: synced.and_then(|value| truth(Some(value))),
    })
}

/// NULL is `Some(None)`; what cannot be read is `None`.
fn parsed<T: std::str::FromStr>(value: Option<&str>) -> Option<Option<T>> {
    match value {
        None => Some(None),
        Some(text) => text.parse().ok().map(Some),
    }
}

/// Of a boolean, as a column and as JSON have it.
fn truth(value: Option<&str>) -> Option<bool> {
    match value? {
        "t" | "true" => Some(true),
        "f" | "false" => Some(false),
        _ => None,
    }
}
