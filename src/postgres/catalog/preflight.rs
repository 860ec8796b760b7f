//! What a look before the start asks of the server beyond what a start needs. Nothing is changed.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use waltide_core::pgoutput::{Relation, RelationColumn, RelationId, ReplicaIdentity};

use super::tables::TableFacts;
use super::{grouped, oids};
use crate::postgres::cells::Cells;
use crate::postgres::connection::Connection;
use crate::postgres::error::Error;
use crate::postgres::sql;

/// The settings that are looked at.
const SETTINGS: [&str; 7] = [
    "idle_replication_slot_timeout",
    "max_replication_slots",
    "max_slot_wal_keep_size",
    "max_wal_senders",
    "max_wal_size",
    "wal_level",
    "wal_sender_timeout",
];

/// What the server and our role are like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preflight {
    /// The version in words, such as `15.18`.
    pub version: String,
    /// Settings by name, in the server's own units; a version may lack one.
    pub settings: BTreeMap<String, String>,
    /// Whether it is a standby.
    pub in_recovery: bool,
    /// Our role.
    pub role: String,
    /// Whether our role may do everything.
    pub superuser: bool,
    /// Whether our role may use slots.
    pub replication: bool,
    /// Whether row-level security spares our role.
    pub bypasses_row_security: bool,
    /// Whether our role may make a publication in this database, where it owns the tables.
    pub may_create: bool,
    /// The roles whose objects are ours as well.
    pub owners: Vec<String>,
    /// How many streams there are.
    pub wal_senders: u32,
    /// The process that answers. A pooler tells another one at the login.
    pub process_id: i32,
    /// Sequences of the database.
    pub sequences: u64,
    /// Large objects of the database.
    pub large_objects: u64,
    /// By how much the server's clock is ahead of ours, at the most and at the least.
    pub clock_ahead_us: (i64, i64),
    /// Who has written and not ended for as long as asked, as words for a message and SQL that
    /// ends it.
    pub old_transactions: Vec<(String, String)>,
}

const FACTS: &str = "\
SELECT current_setting('server_version'), pg_is_in_recovery(), r.rolname, r.rolsuper,
       r.rolreplication OR r.rolsuper, r.rolbypassrls OR r.rolsuper,
       has_database_privilege(current_database(), 'CREATE'),
       (SELECT count(*) FROM pg_stat_replication), pg_backend_pid(),
       (SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind = 'S' AND n.nspname !~ '^pg_'),
       (SELECT count(*) FROM pg_largeobject_metadata)
FROM pg_roles r WHERE r.rolname = current_user";

const OWNERS: &str = "SELECT rolname FROM pg_roles WHERE pg_has_role(oid, 'USAGE')";

const CLOCK: &str = "SELECT CAST(1000000 * EXTRACT(epoch FROM clock_timestamp()) AS bigint)::text";

/// Whoever may not look into others' sessions sees no `xact_start` there.
const OLD: &str = "\
SELECT 'process ' || pid, format('SELECT pg_terminate_backend(%s)', pid)
  FROM pg_stat_activity
 WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()
   AND xact_start < now() - CAST($1 AS interval)
UNION ALL
SELECT 'prepared transaction ' || quote_literal(gid), format('ROLLBACK PREPARED %L', gid)
  FROM pg_prepared_xacts
 WHERE prepared < now() - CAST($1 AS interval) AND database = current_database()";

const COLUMNS: &str = "\
SELECT a.attrelid, a.attname, a.atttypid, a.atttypmod,
       CASE c.relreplident WHEN 'f' THEN true
            WHEN 'i' THEN a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]) AND i.indisreplident
            WHEN 'd' THEN a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]) AND i.indisprimary
            ELSE false END
FROM pg_attribute a
JOIN pg_class c ON c.oid = a.attrelid
LEFT JOIN pg_index i ON i.indrelid = c.oid
      AND CASE c.relreplident WHEN 'i' THEN i.indisreplident ELSE i.indisprimary END
WHERE a.attrelid = ANY ($1::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
      AND ($2::boolean OR a.attgenerated = '')
ORDER BY a.attrelid, a.attnum";

impl Connection {
    /// Looks at the server and our role, and for transactions that have been open for so long.
    pub async fn preflight(&mut self, old: Duration) -> Result<Preflight, Error> {
        let ours = self.begin_reading().await?;
        let result = self.look(old).await;
        self.end_reading(ours, result).await
    }

    async fn look(&mut self, old: Duration) -> Result<Preflight, Error> {
        let facts = self.query(FACTS, &[]).await?;
        let facts = self.rows_as(&facts, "the server's facts", read)?;
        let mut facts =
            facts.into_iter().next().ok_or_else(|| self.link.malformed("the server's facts"))?;
        let names = sql::array(SETTINGS);
        let settings = "SELECT name, setting FROM pg_settings WHERE name = ANY ($1::text[])";
        let settings = self.query(settings, &[Some(&names)]).await?;
        let settings = self.rows_as(&settings, "a setting", |row| {
            let mut cells = Cells::of(row);
            Some((cells.get::<String>()?, cells.get::<String>()?))
        })?;
        facts.settings = settings.into_iter().collect();
        let owners = self.query(OWNERS, &[]).await?;
        facts.owners = self.rows_as(&owners, "a role", |row| Cells::of(row).get())?;
        let seconds = format!("{} s", old.as_secs());
        let held = self.query(OLD, &[Some(&seconds)]).await?;
        facts.old_transactions = self.rows_as(&held, "a transaction", |row| {
            let mut cells = Cells::of(row);
            Some((cells.get()?, cells.get()?))
        })?;
        facts.clock_ahead_us = self.clock_ahead_us().await?;
        Ok(facts)
    }

    /// The server read its clock between the question and the answer: so the difference is known
    /// to within that time, whatever the network is like.
    async fn clock_ahead_us(&mut self) -> Result<(i64, i64), Error> {
        let (before_us, asked) = (unix_us(), Instant::now());
        let clock = self.query(CLOCK, &[]).await?;
        let took_us = i64::try_from(asked.elapsed().as_micros()).unwrap_or(i64::MAX);
        let server_us: i64 = clock
            .single()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| self.link.malformed("the server's clock"))?;
        let most = server_us.saturating_sub(before_us);
        Ok((most, most.saturating_sub(took_us)))
    }

    /// Tables as the stream would describe them, with all columns; those that are generated are
    /// in a stream only where a publication has them.
    pub async fn described(
        &mut self,
        tables: &[&TableFacts],
        generated: bool,
    ) -> Result<HashMap<RelationId, Relation>, Error> {
        let wanted = oids(tables.iter().map(|table| table.id.0));
        let rows =
            self.query(COLUMNS, &[Some(&wanted), Some(if generated { "t" } else { "f" })]).await?;
        let mut columns = grouped(self.rows_as(&rows, "a row of pg_attribute", column)?);
        let relation = |table: &&TableFacts| {
            let relation = Relation {
                id: table.id,
                schema: table.schema.clone(),
                name: table.name.clone(),
                identity: if table.deferrable_key && table.identity == ReplicaIdentity::Default {
                    ReplicaIdentity::Nothing
                } else {
                    table.identity
                },
                columns: columns.remove(&table.id.0).unwrap_or_default(),
            };
            (table.id, relation)
        };
        Ok(tables.iter().map(relation).collect())
    }
}

fn read(row: &[Option<String>]) -> Option<Preflight> {
    let mut cells = Cells::of(row);
    let version: String = cells.get()?;
    Some(Preflight {
        // "15.18 (Debian 15.18-1.pgdg12+1)"
        version: version.split(' ').next().unwrap_or_default().to_owned(),
        in_recovery: cells.flag()?,
        role: cells.get()?,
        superuser: cells.flag()?,
        replication: cells.flag()?,
        bypasses_row_security: cells.flag()?,
        may_create: cells.flag()?,
        wal_senders: cells.get()?,
        process_id: cells.get()?,
        sequences: cells.get()?,
        large_objects: cells.get()?,
        ..Preflight::default()
    })
}

fn column(row: &[Option<String>]) -> Option<(u32, RelationColumn)> {
    let mut cells = Cells::of(row);
    let oid = cells.get()?;
    let (name, type_oid, type_modifier) = (cells.get()?, cells.get()?, cells.get()?);
    let key = cells.maybe_flag()?.unwrap_or(false);
    Some((oid, RelationColumn { key, name, type_oid, type_modifier }))
}

fn unix_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
