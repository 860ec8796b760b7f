//! What it takes to read a table beside its stream: how the stream describes it, where its rows
//! lie, and who is writing.

use std::collections::{BTreeSet, HashMap};

use waltide_core::lsn::Lsn;
use waltide_core::pgoutput::{Relation, RelationColumn, RelationId, ReplicaIdentity};
use waltide_core::snapshot::reachable;

use super::{PublishedTable, grouped, oids};
use crate::postgres::cells::Cells;
use crate::postgres::connection::Connection;
use crate::postgres::error::Error;
use crate::postgres::sql;

/// A file with rows of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The table, or the partition.
    pub id: RelationId,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// The file's number.
    pub file: u32,
    /// How many blocks it has.
    pub blocks: u32,
}

/// What the primary's transactions are doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Activity {
    /// Transactions that have written and not ended, by the locks that they have on their ids.
    pub open: Vec<u32>,
    /// As `pg_current_snapshot()` prints it.
    pub snapshot: String,
}

/// As pgoutput describes it: the published columns in their order, and which identify a row.
const COLUMNS: &str = "\
SELECT a.attname, a.atttypid, a.atttypmod,
       c.relreplident = 'f' OR EXISTS (
           SELECT FROM pg_index i
           WHERE i.indrelid = c.oid AND i.indisvalid
             AND CASE c.relreplident WHEN 'd' THEN i.indisprimary AND i.indimmediate
                 WHEN 'i' THEN i.indisreplident ELSE false END
             AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])),
       c.relreplident
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
WHERE c.oid = $1::oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attname = ANY ($2::text[])
ORDER BY a.attnum";

/// Partitions of other kinds have no rows in the stream.
const LEAVES: &str = "\
SELECT c.oid, n.nspname, c.relname, coalesce(pg_relation_filenode(c.oid), 0),
       coalesce(pg_relation_size(c.oid), 0) / current_setting('block_size')::bigint
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence = 'p'
  AND (c.oid = $1::oid OR c.oid IN (SELECT relid FROM pg_partition_tree($1::oid::regclass) WHERE isleaf))
ORDER BY c.oid";

/// What [`Connection::shape_of`] is made from; also read with each chunk.
pub const SHAPE: &str = "\
(SELECT concat_ws('; ', c.relname, c.relreplident,
    (SELECT string_agg(concat_ws(' ', a.attnum, a.attname, a.atttypid, a.atttypmod, a.attgenerated),
            ',' ORDER BY a.attnum)
     FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
    (SELECT string_agg(concat_ws(' ', i.indisprimary, i.indisreplident, i.indkey), ',' ORDER BY i.indexrelid)
     FROM pg_index i WHERE i.indrelid = c.oid AND (i.indisprimary OR i.indisreplident)))
 FROM pg_class c WHERE c.oid = $TABLE)";

/// A waiting transaction's lock on another's id is not granted, or shared.
const ACTIVITY: &str = "\
SELECT coalesce(string_agg(transactionid::text, ','), ''), pg_current_snapshot()::text
FROM pg_locks WHERE locktype = 'transactionid' AND granted AND mode = 'ExclusiveLock'";

impl Connection {
    /// A published table as the stream describes it; none where it is gone.
    pub async fn as_published(
        &mut self,
        table: &PublishedTable,
    ) -> Result<Option<Relation>, Error> {
        let id = table.id.0.to_string();
        let names = sql::array(&table.columns);
        let rows = self.query(COLUMNS, &[Some(&id), Some(&names)]).await?;
        let columns = self.rows_as(&rows, "a column of a table", |row| {
            let mut cells = Cells::of(row);
            let (name, type_oid, type_modifier) = (cells.get()?, cells.get()?, cells.get()?);
            let key = cells.flag()?;
            let column = RelationColumn { key, name, type_oid, type_modifier };
            Some((column, cells.get::<char>()?))
        })?;
        let Some((_, letter)) = columns.first() else { return Ok(None) };
        let identity = match letter {
            'n' => ReplicaIdentity::Nothing,
            'f' => ReplicaIdentity::Full,
            'i' => ReplicaIdentity::Index,
            _ => ReplicaIdentity::Default,
        };
        Ok(Some(Relation {
            id: table.id,
            schema: table.schema.clone(),
            name: table.name.clone(),
            identity,
            columns: columns.into_iter().map(|(column, _)| column).collect(),
        }))
    }

    /// The files with the rows of a table.
    pub async fn leaves(&mut self, table: RelationId) -> Result<Vec<Leaf>, Error> {
        let rows = self.query(LEAVES, &[Some(&table.0.to_string())]).await?;
        self.rows_as(&rows, "a partition", |row| {
            let mut cells = Cells::of(row);
            Some(Leaf {
                id: RelationId(cells.get()?),
                schema: cells.get()?,
                name: cells.get()?,
                file: cells.get()?,
                blocks: cells.get()?,
            })
        })
    }

    /// Of these tables, those that are partitioned, with their partitions that have rows.
    pub async fn partitions(
        &mut self,
        tables: &[RelationId],
    ) -> Result<HashMap<u32, Vec<RelationId>>, Error> {
        let sql = "\
SELECT p.partrelid, t.relid::oid FROM pg_partitioned_table p
CROSS JOIN LATERAL pg_partition_tree(p.partrelid) t
WHERE t.isleaf AND p.partrelid = ANY ($1::oid[]) ORDER BY p.partrelid";
        let list = oids(tables.iter().map(|table| table.0));
        let rows = self.query(sql, &[Some(&list)]).await?;
        Ok(grouped(self.rows_as(&rows, "a partition", |row| {
            let mut cells = Cells::of(row);
            Some((cells.get()?, RelationId(cells.get()?)))
        })?))
    }

    /// Text that is another one once the table has other columns.
    pub async fn shape_of(&mut self, table: RelationId) -> Result<Option<String>, Error> {
        let sql = format!("SELECT {}", SHAPE.replace("$TABLE", &table.0.to_string()));
        Ok(self.simple_query(&sql).await?.single().map(ToOwned::to_owned))
    }

    /// Who is writing.
    pub async fn activity(&mut self) -> Result<Activity, Error> {
        let rows = self.simple_query(ACTIVITY).await?;
        let mut read = self.rows_as(&rows, "transactions", |row| {
            let mut cells = Cells::of(row);
            let (open, snapshot): (String, String) = (cells.get()?, cells.get()?);
            let open = open.split(',').filter(|xid| !xid.is_empty());
            Some(Activity {
                open: open.map(|xid| xid.parse().ok()).collect::<Option<_>>()?,
                snapshot,
            })
        })?;
        read.pop().ok_or_else(|| self.link.malformed("transactions"))
    }

    /// Where the log is being written, as a position that a replica and a stream come to even if
    /// nothing follows.
    pub async fn insert_lsn(&mut self) -> Result<Lsn, Error> {
        let sql = format!("SELECT pg_current_wal_insert_lsn(), {}", sql::LOG_SIZES);
        let rows = self.simple_query(&sql).await?;
        let mut read = self.rows_as(&rows, "a position", |row| {
            let mut cells = Cells::of(row);
            Some(reachable(cells.get()?, cells.get()?, cells.get()?))
        })?;
        read.pop().ok_or_else(|| self.link.malformed("a position"))
    }

    /// Which of these tables the role may not read, itself or one of its partitions.
    pub async fn unreadable(&mut self, table: RelationId) -> Result<BTreeSet<String>, Error> {
        let sql = "\
SELECT format('%I.%I', n.nspname, c.relname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE (c.oid = $1::oid OR c.oid IN (SELECT relid FROM pg_partition_tree($1::oid::regclass)))
  AND NOT (has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'))";
        let rows = self.query(sql, &[Some(&table.0.to_string())]).await?;
        Ok(self.rows_as(&rows, "a table", |row| Cells::of(row).get())?.into_iter().collect())
    }

    /// Whether row-level security hides rows of a table, or of one of its partitions, from the role.
    pub async fn hides_rows(&mut self, table: RelationId) -> Result<bool, Error> {
        let sql = "\
SELECT coalesce(bool_or(row_security_active(c.oid)), false) FROM pg_class c
WHERE c.oid = $1::oid OR c.oid IN (SELECT relid FROM pg_partition_tree($1::oid::regclass))";
        let rows = self.query(sql, &[Some(&table.0.to_string())]).await?;
        Ok(rows.single() == Some("t"))
    }
}
