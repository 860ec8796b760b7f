//! A table that is read: the stream's description of it, and the SQL that gives its rows in that
//! form.

use std::collections::BTreeMap;

use waltide_core::catalog::Types;
use waltide_core::pgoutput::{CopyRows, Relation, RelationId};
use waltide_core::snapshot::{Span, Tid};

use crate::config::TableName;
use crate::postgres::catalog::{Leaf, PublishedTable, SHAPE};
use crate::postgres::sql::{identifier, literal, qualified};

/// A table, and how it is read.
#[derive(Debug)]
pub(in super::super) struct Target {
    pub(super) name: TableName,
    pub(super) relation: Relation,
    /// What is selected, the row's place first.
    select: String,
    /// Columns that have no binary form, the place included.
    as_text: Vec<bool>,
    filter: Option<String>,
    /// Where its rows are.
    leaves: BTreeMap<RelationId, String>,
    /// How many rows are asked for at a time, when nothing is known of their size.
    pub(super) blocks: u64,
}

impl Target {
    pub(super) fn new(
        published: &PublishedTable,
        relation: Relation,
        types: &Types,
        leaves: &[Leaf],
    ) -> Self {
        let no_binary = |oid: u32| {
            let alone = types.get(oid).is_some_and(|of| !of.has_send);
            alone || types.unsendable_inside(oid).is_some()
        };
        let (mut select, mut as_text) = ("ctid".to_owned(), vec![false]);
        for column in &relation.columns {
            let text = no_binary(column.type_oid);
            select +=
                &format!(", {}{}", identifier(&column.name), if text { "::text" } else { "" });
            as_text.push(text);
        }
        let of = |leaf: &Leaf| (leaf.id, qualified(&leaf.schema, &leaf.name));
        Self {
            name: TableName { schema: published.schema.clone(), table: published.name.clone() },
            relation,
            select,
            as_text,
            filter: published.filter.clone(),
            leaves: leaves.iter().map(of).collect(),
            blocks: leaves.iter().map(|leaf| u64::from(leaf.blocks)).sum(),
        }
    }

    /// The whole table, for reads by key.
    pub(super) fn root(&self) -> String {
        qualified(&self.name.schema, &self.name.table)
    }

    pub(super) fn leaf(&self, id: RelationId) -> Option<&str> {
        self.leaves.get(&id).map(String::as_str)
    }

    /// Begins a transaction whose snapshot is taken when the table cannot be rewritten any more:
    /// LOCK TABLE itself takes none.
    pub(super) fn begin(of: &str, wait_ms: u128) -> String {
        format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL lock_timeout = '{wait_ms}ms'; \
             LOCK TABLE {of} IN ACCESS SHARE MODE"
        )
    }

    /// The snapshot, then where the log ends that it may have seen, then what the table is.
    pub(super) fn look(&self, of: &str) -> String {
        format!(
            "SELECT pg_current_snapshot(), pg_current_wal_insert_lsn(), to_regclass({name})::oid, \
             coalesce(pg_relation_filenode(to_regclass({name})), 0), {shape}, \
             current_setting('wal_block_size'), \
             (SELECT setting::bigint * CASE unit WHEN '8kB' THEN 8192 ELSE 1 END \
              FROM pg_settings WHERE name = 'wal_segment_size')",
            name = literal(of),
            shape = SHAPE.replace("$TABLE", &self.relation.id.0.to_string()),
        )
    }

    /// Up to so many rows of a part, in the order in which they lie.
    pub(super) fn copy(&self, of: &str, span: &Span, rows: usize) -> String {
        let at = |tid: Tid| format!("'({},{})'", tid.block(), tid.number());
        format!(
            "COPY (SELECT {} FROM ONLY {of} WHERE ctid >= {} AND ctid < {}{} LIMIT {rows}) \
             TO STDOUT (FORMAT binary)",
            self.select,
            at(span.from),
            at(span.to),
            self.and_filter()
        )
    }

    /// The files that have its rows.
    pub(super) fn leaves(&self) -> impl Iterator<Item = &str> {
        self.leaves.values().map(String::as_str)
    }

    /// All rows of a file.
    pub(super) fn copy_all(&self, of: &str) -> String {
        let filter =
            self.filter.as_ref().map_or(String::new(), |filter| format!(" WHERE ({filter})"));
        format!("COPY (SELECT {} FROM ONLY {of}{filter}) TO STDOUT (FORMAT binary)", self.select)
    }

    /// A row by its key.
    pub(super) fn by_key(&self, key: &[usize]) -> String {
        let columns = key.iter().filter_map(|at| self.relation.columns.get(*at)).enumerate();
        let equal: Vec<String> = columns
            .map(|(number, column)| format!("{} = ${}", identifier(&column.name), number + 1))
            .collect();
        let (select, root, filter) = (&self.select, self.root(), self.and_filter());
        format!("SELECT {select} FROM {root} WHERE {}{filter}", equal.join(" AND "))
    }

    fn and_filter(&self) -> String {
        self.filter.as_ref().map_or(String::new(), |filter| format!(" AND ({filter})"))
    }

    pub(super) fn copied(&self) -> CopyRows {
        CopyRows::new(self.as_text.iter().copied())
    }

    pub(super) fn queried(&self) -> CopyRows {
        CopyRows::of_query(self.as_text.iter().copied())
    }
}
