//! The tables there are, and whether and how each can be captured.

use waltide_core::pgoutput::{RelationId, ReplicaIdentity};

use super::{grouped, oids};
use crate::postgres::cells::Cells;
use crate::postgres::connection::Connection;
use crate::postgres::error::Error;
use crate::postgres::sql;

/// A table, and what decides about capturing it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableFacts {
    /// Its OID.
    pub id: RelationId,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// What kind of table it is.
    pub kind: RelationKind,
    /// Whether it is in the log.
    pub persistence: Persistence,
    /// How old rows are identified; `Nothing` where the index that was named is gone.
    pub identity: ReplicaIdentity,
    /// The primary key's columns in key order.
    pub primary_key: Vec<String>,
    /// Whether the primary key is deferrable: the server does not identify rows by such a one.
    pub deferrable_key: bool,
    /// The partitioned table at the top, where it is a partition.
    pub root: Option<RelationId>,
    /// Whether it has row-level security.
    pub row_security: bool,
    /// The extension that owns it, where one does.
    pub extension: Option<String>,
    /// Its owner.
    pub owner: String,
    /// Whether our role may read it.
    pub readable: bool,
    /// Its size in pages when it was last looked at; 0 where it never was.
    pub pages: u32,
}

impl TableFacts {
    /// Whether it has changes of its own in the log, and is not described as another.
    pub(crate) fn is_streamed(&self) -> bool {
        self.persistence == Persistence::Logged
            && self.kind != RelationKind::Foreign
            && self.root.is_none()
    }
}

/// What kind of table it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelationKind {
    /// With rows of its own.
    Table,
    /// With partitions that have the rows.
    Partitioned,
    /// Elsewhere: never in the stream.
    Foreign,
}

/// Whether changes are in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// They are.
    Logged,
    /// They are not: never in the stream.
    Unlogged,
}

const TABLES: &str = "\
SELECT c.oid, n.nspname, c.relname, c.relkind, c.relpersistence,
       CASE WHEN c.relreplident = 'i' AND NOT EXISTS (
           SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisreplident AND i.indisvalid)
       THEN 'n' ELSE c.relreplident END,
       EXISTS (SELECT FROM pg_index i
               WHERE i.indrelid = c.oid AND i.indisprimary AND NOT i.indimmediate),
       CASE WHEN c.relispartition THEN pg_partition_root(c.oid)::oid END,
       c.relrowsecurity,
       (SELECT x.extname FROM pg_depend d JOIN pg_extension x ON x.oid = d.refobjid
        WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.objsubid = 0
          AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'),
       pg_get_userbyid(c.relowner),
       has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'),
       c.relpages
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'f') AND c.relpersistence IN ('p', 'u')
  AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
  AND n.nspname LIKE ANY ($1::text[])
  AND NOT EXISTS (SELECT FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
                  WHERE r.prrelid = c.oid AND p.pubname = ANY ($2::text[]))
ORDER BY n.nspname, c.relname";

const KEYS: &str = "\
SELECT i.indrelid, a.attname
FROM pg_index i
CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, place)
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
WHERE i.indrelid = ANY ($1::oid[]) AND i.indisprimary AND k.place <= i.indnkeyatts
ORDER BY i.indrelid, k.place";

impl Connection {
    /// The tables of the schemas that fit one of these patterns, in which `*` stands for any
    /// characters and `?` for one. System schemas never do.
    pub async fn list_tables(&mut self, schemas: &[&str]) -> Result<Vec<TableFacts>, Error> {
        let ours = self.begin_reading().await?;
        let result = self.tables(schemas, &[]).await;
        self.end_reading(ours, result).await
    }

    /// The tables of all schemas that are not members themselves of one of these publications.
    pub async fn list_tables_outside(
        &mut self,
        publications: &[&str],
    ) -> Result<Vec<TableFacts>, Error> {
        let ours = self.begin_reading().await?;
        let result = self.tables(&["*"], publications).await;
        self.end_reading(ours, result).await
    }

    async fn tables(
        &mut self,
        schemas: &[&str],
        outside: &[&str],
    ) -> Result<Vec<TableFacts>, Error> {
        let patterns = sql::array(schemas.iter().map(|pattern| like(pattern)));
        let outside = sql::array(outside.iter().map(|name| (*name).to_owned()));
        let rows = self.query(TABLES, &[Some(&patterns), Some(&outside)]).await?;
        let mut tables = self.rows_as(&rows, "a row of pg_class", read)?;
        let found = oids(tables.iter().map(|table| table.id.0));
        let keys = self.query(KEYS, &[Some(&found)]).await?;
        let mut keys = grouped(self.rows_as(&keys, "a row of pg_index", |row| {
            let mut cells = Cells::of(row);
            Some((cells.get()?, cells.get::<String>()?))
        })?);
        for table in &mut tables {
            table.primary_key = keys.remove(&table.id.0).unwrap_or_default();
        }
        Ok(tables)
    }
}

fn read(row: &[Option<String>]) -> Option<TableFacts> {
    let mut cells = Cells::of(row);
    Some(TableFacts {
        id: RelationId(cells.get()?),
        schema: cells.get()?,
        name: cells.get()?,
        kind: match cells.get()? {
            'r' => RelationKind::Table,
            'p' => RelationKind::Partitioned,
            'f' => RelationKind::Foreign,
            _ => return None,
        },
        persistence: match cells.get()? {
            'p' => Persistence::Logged,
            'u' => Persistence::Unlogged,
            _ => return None,
        },
        identity: match cells.get()? {
            'd' => ReplicaIdentity::Default,
            'n' => ReplicaIdentity::Nothing,
            'f' => ReplicaIdentity::Full,
            'i' => ReplicaIdentity::Index,
            _ => return None,
        },
        primary_key: Vec::new(),
        deferrable_key: cells.flag()?,
        root: cells.maybe()?.map(RelationId),
        row_security: cells.flag()?,
        extension: cells.maybe()?,
        owner: cells.get()?,
        readable: cells.flag()?,
        pages: cells.get()?,
    })
}

/// `*` and `?` as LIKE has them, with what LIKE has of its own escaped.
fn like(pattern: &str) -> String {
    let mut like = String::with_capacity(pattern.len());
    for char in pattern.chars() {
        match char {
            '*' => like.push('%'),
            '?' => like.push('_'),
            '%' | '_' | '\\' => {
                like.push('\\');
                like.push(char);
            }
            other => like.push(other),
        }
    }
    like
}

#[cfg(test)]
mod tests {
    use super::like;

    #[test]
    fn a_pattern_means_the_same_to_the_server() {
        assert_eq!(like("public"), "public");
        assert_eq!(like("a_b%*\\?"), "a\\_b\\%%\\\\_");
    }
}
