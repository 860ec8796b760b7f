//! What a publication covers.

use waltide_core::pgoutput::RelationId;

use super::grouped;
use crate::postgres::cells::Cells;
use crate::postgres::connection::Connection;
use crate::postgres::error::Error;

/// A publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// Its OID.
    pub oid: u32,
    /// Its name.
    pub name: String,
    /// Its owner.
    pub owner: String,
    /// Whether it covers all tables, later ones included.
    pub all_tables: bool,
    /// Whether inserts are published.
    pub inserts: bool,
    /// Whether updates are.
    pub updates: bool,
    /// Whether deletes are.
    pub deletes: bool,
    /// Whether truncates are.
    pub truncates: bool,
    /// Whether partitions' changes come as those of the table at the top.
    pub via_root: bool,
    /// Whether stored generated columns are published; from 18.
    pub generated_columns: bool,
    /// The schemas all of whose tables it covers, later ones included; from 15.
    pub schemas: Vec<String>,
    /// The tables as they come in the stream: partitions, or the tables at the top.
    pub tables: Vec<PublishedTable>,
}

/// A table as a publication covers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedTable {
    /// Its OID.
    pub id: RelationId,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// The columns that are published.
    pub columns: Vec<String>,
    /// Whether they were listed: if not, later columns are published as well.
    pub column_list: bool,
    /// Which rows are published, as SQL; from 15.
    pub filter: Option<String>,
    /// The OIDs of what makes it a member: its own entry, that of a table above it, that of its
    /// schema. A table that was taken out and put in again has new ones, and may have lost
    /// changes in between.
    pub memberships: Vec<u32>,
}

const PUBLICATION: &str = "\
SELECT p.oid, p.pubname, pg_get_userbyid(p.pubowner), p.puballtables, p.pubinsert, p.pubupdate,
       p.pubdelete, p.pubtruncate, p.pubviaroot,
       coalesce(to_jsonb(p) ->> 'pubgencols' = 's', false)
FROM pg_publication p WHERE p.pubname = $1";

const SCHEMAS: &str = "\
SELECT n.nspname FROM pg_publication_namespace s
JOIN pg_publication p ON p.oid = s.pnpubid JOIN pg_namespace n ON n.oid = s.pnnspid
WHERE p.pubname = $1 ORDER BY n.nspname";

/// From 15 on; a table's memberships are looked up by its OID, since to go through those of the
/// publication for each table takes ten thousand tables' time squared. `qual` and `attrs` are what applies to the table as it comes in the stream.
const TABLES: &str = "\
SELECT g.relid, n.nspname, c.relname, r.prattrs IS NOT NULL, pg_get_expr(g.qual, g.relid),
       (SELECT string_agg(m.oid::text, ',' ORDER BY m.oid)
        FROM (SELECT r.oid FROM (SELECT c.oid UNION SELECT pg_partition_ancestors(c.oid)) a (id)
              JOIN pg_publication_rel r ON r.prrelid = a.id AND r.prpubid = p.oid
              UNION ALL
              SELECT s.oid FROM pg_publication_namespace s
              WHERE s.pnpubid = p.oid AND s.pnnspid = c.relnamespace) m)
FROM pg_publication p
CROSS JOIN LATERAL pg_get_publication_tables(p.pubname) g
JOIN pg_class c ON c.oid = g.relid
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_publication_rel r ON r.prpubid = p.oid AND r.prrelid = c.oid
WHERE p.pubname = $1 ORDER BY n.nspname, c.relname";

/// 14 has neither column lists nor filters nor schemas.
const TABLES_14: &str = "\
SELECT g.relid, n.nspname, c.relname, false, NULL,
       (SELECT string_agg(r.oid::text, ',' ORDER BY r.oid)
        FROM (SELECT c.oid UNION SELECT pg_partition_ancestors(c.oid)) a (id)
        JOIN pg_publication_rel r ON r.prrelid = a.id AND r.prpubid = p.oid)
FROM pg_publication p
CROSS JOIN LATERAL pg_get_publication_tables(p.pubname) g
JOIN pg_class c ON c.oid = g.relid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE p.pubname = $1 ORDER BY n.nspname, c.relname";

/// Without a column list, 15 leaves `attrs` empty where later versions write them all.
const COLUMNS: &str = "\
SELECT g.relid, a.attname
FROM pg_get_publication_tables($1) g
JOIN pg_attribute a ON a.attrelid = g.relid
WHERE a.attnum > 0 AND NOT a.attisdropped
  AND CASE WHEN g.attrs IS NULL THEN a.attgenerated = ''
      ELSE a.attnum = ANY (g.attrs::int2[]) END
ORDER BY g.relid, a.attnum";

const COLUMNS_14: &str = "\
SELECT g.relid, a.attname
FROM pg_get_publication_tables($1) g
JOIN pg_attribute a ON a.attrelid = g.relid
WHERE a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
ORDER BY g.relid, a.attnum";

impl Connection {
    /// The publication of this name; `None` if there is none.
    pub async fn load_publication(&mut self, name: &str) -> Result<Option<Publication>, Error> {
        let ours = self.begin_reading().await?;
        let result = self.publication(name).await;
        self.end_reading(ours, result).await
    }

    /// The publication without its tables, and the tables that it covers as they come in the
    /// stream, without what it shows of each.
    pub async fn load_members(
        &mut self,
        name: &str,
    ) -> Result<Option<(Publication, Vec<RelationId>)>, Error> {
        let Some(publication) = self.publication_itself(name).await? else { return Ok(None) };
        let members = "SELECT relid FROM pg_get_publication_tables($1)";
        let members = self.query(members, &[Some(name)]).await?;
        let members = self.rows_as(&members, "a table of a publication", |row| {
            Cells::of(row).get().map(RelationId)
        })?;
        Ok(Some((publication, members)))
    }

    async fn publication_itself(&mut self, name: &str) -> Result<Option<Publication>, Error> {
        let rows = self.query(PUBLICATION, &[Some(name)]).await?;
        let publications = self.rows_as(&rows, "a row of pg_publication", publication)?;
        Ok(publications.into_iter().next())
    }

    async fn publication(&mut self, name: &str) -> Result<Option<Publication>, Error> {
        let Some(mut publication) = self.publication_itself(name).await? else { return Ok(None) };
        let name = [Some(name)];
        let (tables, columns) = match self.server_version_num() {
            150_000.. => (TABLES, COLUMNS),
            _ => (TABLES_14, COLUMNS_14),
        };
        let tables = self.query(tables, &name).await?;
        publication.tables = self.rows_as(&tables, "a table of a publication", table)?;
        let columns = self.query(columns, &name).await?;
        let mut columns = grouped(self.rows_as(&columns, "a column of a publication", |row| {
            let mut cells = Cells::of(row);
            Some((cells.get()?, cells.get::<String>()?))
        })?);
        for table in &mut publication.tables {
            table.columns = columns.remove(&table.id.0).unwrap_or_default();
        }
        if self.server_version_num() >= 150_000 {
            let schemas = self.query(SCHEMAS, &name).await?;
            let read = |row: &[Option<String>]| Cells::of(row).get();
            publication.schemas = self.rows_as(&schemas, "a schema of a publication", read)?;
        }
        Ok(Some(publication))
    }
}

fn publication(row: &[Option<String>]) -> Option<Publication> {
    let mut cells = Cells::of(row);
    Some(Publication {
        oid: cells.get()?,
        name: cells.get()?,
        owner: cells.get()?,
        all_tables: cells.flag()?,
        inserts: cells.flag()?,
        updates: cells.flag()?,
        deletes: cells.flag()?,
        truncates: cells.flag()?,
        via_root: cells.flag()?,
        generated_columns: cells.flag()?,
        schemas: Vec::new(),
        tables: Vec::new(),
    })
}

fn table(row: &[Option<String>]) -> Option<PublishedTable> {
    let mut cells = Cells::of(row);
    Some(PublishedTable {
        id: RelationId(cells.get()?),
        schema: cells.get()?,
        name: cells.get()?,
        columns: Vec::new(),
        column_list: cells.flag()?,
        filter: cells.maybe()?,
        memberships: match cells.maybe::<String>()? {
            None => Vec::new(),
            Some(list) => list.split(',').map(|oid| oid.parse().ok()).collect::<Option<_>>()?,
        },
    })
}
