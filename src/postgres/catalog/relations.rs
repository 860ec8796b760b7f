//! What plans need to know of captured tables, by OID.

use std::collections::HashMap;

use waltide_core::catalog::{Table, TableColumn, Types};
use waltide_core::pgoutput::RelationId;

use super::{grouped, oids};
use crate::postgres::cells::Cells;
use crate::postgres::connection::Connection;
use crate::postgres::error::Error;

/// Tables, and all types that their columns reach.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Relations {
    /// The types.
    pub types: Types,
    /// The tables; one that is gone is not in it.
    pub tables: HashMap<RelationId, Table>,
}

const TABLES: &str = "\
SELECT c.oid, obj_description(c.oid, 'pg_class') FROM pg_class c WHERE c.oid = ANY ($1::oid[])";

/// From PostgreSQL 18 on, a NOT NULL that is NOT VALID sets `attnotnull` although rows with NULL
/// may be there.
const COLUMNS: &str = "\
SELECT a.attrelid, a.attname, a.atttypid,
       a.attnotnull AND NOT EXISTS (
           SELECT FROM pg_constraint n
           WHERE n.conrelid = a.attrelid AND n.contype = 'n' AND n.conkey[1] = a.attnum
             AND NOT n.convalidated),
       CASE WHEN a.attgenerated = '' THEN pg_get_expr(d.adbin, d.adrelid) END,
       a.attidentity <> '', a.attgenerated <> '', col_description(a.attrelid, a.attnum)
FROM pg_attribute a
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = ANY ($1::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attrelid, a.attnum";

/// Key columns only, without what an index merely includes.
const INDEXES: &str = "\
SELECT i.indrelid, i.indisprimary, i.indisreplident AND c.relreplident = 'i', a.attname
FROM pg_index i
JOIN pg_class c ON c.oid = i.indrelid
CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, place)
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
WHERE i.indrelid = ANY ($1::oid[]) AND (i.indisprimary OR i.indisreplident)
  AND k.place <= i.indnkeyatts
ORDER BY i.indrelid, i.indexrelid, k.place";

/// A row of [`INDEXES`].
struct KeyColumn {
    primary: bool,
    identity: bool,
    name: String,
}

impl Connection {
    /// What the catalog says of these tables and of all types that their columns reach.
    pub async fn load_relations(&mut self, relations: &[RelationId]) -> Result<Relations, Error> {
        let ours = self.begin_reading().await?;
        let result = self.relations(relations).await;
        self.end_reading(ours, result).await
    }

    async fn relations(&mut self, relations: &[RelationId]) -> Result<Relations, Error> {
        let wanted = oids(relations.iter().map(|relation| relation.0));
        let wanted = [Some(wanted.as_str())];
        let tables = self.query(TABLES, &wanted).await?;
        let tables = self.rows_as(&tables, "a row of pg_class", |row| {
            let mut cells = Cells::of(row);
            Some((cells.get()?, cells.maybe::<String>()?))
        })?;
        let columns = self.query(COLUMNS, &wanted).await?;
        let columns = self.rows_as(&columns, "a row of pg_attribute", column)?;
        let mut reached: Vec<u32> = columns.iter().map(|(_, (type_oid, _))| *type_oid).collect();
        reached.sort_unstable();
        reached.dedup();
        let keys = self.query(INDEXES, &wanted).await?;
        let keys = self.rows_as(&keys, "a row of pg_index", key_column)?;
        let types = self.types(&reached).await?;
        let (mut columns, mut keys) = (grouped(columns), grouped(keys));
        let table = |(oid, comment)| {
            let columns = columns.remove(&oid).unwrap_or_default();
            let mut table = Table {
                comment,
                columns: columns.into_iter().map(|(_, column)| column).collect(),
                ..Table::default()
            };
            for key in keys.remove(&oid).unwrap_or_default() {
                if key.identity {
                    table.identity_index.push(key.name.clone());
                }
                if key.primary {
                    table.primary_key.push(key.name);
                }
            }
            (RelationId(oid), table)
        };
        Ok(Relations { types, tables: tables.into_iter().map(table).collect() })
    }
}

/// A table's OID, and one of its columns with its type.
fn column(row: &[Option<String>]) -> Option<(u32, (u32, TableColumn))> {
    let mut cells = Cells::of(row);
    let (oid, name, type_oid) = (cells.get()?, cells.get()?, cells.get()?);
    let column = TableColumn {
        name,
        not_null: cells.flag()?,
        default: cells.maybe()?,
        identity: cells.flag()?,
        generated: cells.flag()?,
        comment: cells.maybe()?,
    };
    Some((oid, (type_oid, column)))
}

fn key_column(row: &[Option<String>]) -> Option<(u32, KeyColumn)> {
    let mut cells = Cells::of(row);
    let oid = cells.get()?;
    Some((oid, KeyColumn { primary: cells.flag()?, identity: cells.flag()?, name: cells.get()? }))
}
