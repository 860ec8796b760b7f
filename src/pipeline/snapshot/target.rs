//! A table that is read: the stream's description of it, and the SQL that gives its rows in that
//! form.

use std::collections::BTreeMap;
use std::time::Duration;

use waltide_core::catalog::Types;
use waltide_core::pgoutput::{CopyRows, Relation, RelationId};
use waltide_core::snapshot::{Filter, Span, Tid};

use crate::config::TableName;
use crate::postgres::catalog::{Leaf, PublishedTable, SHAPE};
use crate::postgres::sql::{LOG_SIZES, identifier, literal, qualified};

/// How long reading a chunk may take where somebody has said which rows: whatever that computes,
/// no transaction is to be long.
const FILTER_TIMEOUT: Duration = Duration::from_secs(10);

/// A table, and how it is read.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) name: TableName,
    pub(crate) relation: Relation,
    /// What is selected, the row's place first.
    select: String,
    /// Columns that have no binary form, the place included.
    as_text: Vec<bool>,
    /// What is true of every row that is read: the publication's word and that of whoever asked.
    filters: Vec<String>,
    /// How long reading a chunk may take; none where that is bounded by itself.
    timeout: Option<Duration>,
    /// Where its rows are.
    leaves: BTreeMap<RelationId, String>,
    /// How many rows are asked for at a time, when nothing is known of their size.
    pub(crate) blocks: u64,
}

impl Target {
    pub(crate) fn new(
        published: &PublishedTable,
        relation: Relation,
        types: &Types,
        leaves: &[Leaf],
        wanted: Option<&Filter>,
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
            filters: published
                .filter
                .iter()
                .map(String::as_str)
                .chain(wanted.map(Filter::as_str))
                .map(ToOwned::to_owned)
                .collect(),
            timeout: wanted.map(|_| FILTER_TIMEOUT),
            leaves: leaves.iter().map(of).collect(),
            blocks: leaves.iter().map(|leaf| u64::from(leaf.blocks)).sum(),
        }
    }

    /// The whole table, for reads by key.
    pub(crate) fn root(&self) -> String {
        qualified(&self.name.schema, &self.name.table)
    }

    pub(crate) fn leaf(&self, id: RelationId) -> Option<&str> {
        self.leaves.get(&id).map(String::as_str)
    }

    /// Begins a transaction whose snapshot is taken when the table cannot be rewritten any more:
    /// LOCK TABLE itself takes none.
    pub(crate) fn begin(&self, of: &str, wait_ms: u128) -> String {
        let bound = self.timeout.map_or(String::new(), |timeout| {
            format!("SET LOCAL statement_timeout = '{}ms'; ", timeout.as_millis())
        });
        format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {bound}\
             SET LOCAL lock_timeout = '{wait_ms}ms'; LOCK TABLE {of} IN ACCESS SHARE MODE"
        )
    }

    /// Whether somebody has said which rows are read.
    pub(super) const fn is_partial(&self) -> bool {
        self.timeout.is_some()
    }

    /// The snapshot, then where the log ends that it may have seen, then what the table is, and
    /// whether the server is a replica.
    pub(crate) fn look(&self, of: &str, on_replica: bool) -> String {
        let end = if on_replica { "pg_last_wal_replay_lsn" } else { "pg_current_wal_insert_lsn" };
        format!(
            "SELECT pg_current_snapshot(), {end}(), to_regclass({name})::oid, \
             coalesce(pg_relation_filenode(to_regclass({name})), 0), {shape}, \
             {LOG_SIZES}, pg_is_in_recovery()",
            name = literal(of),
            shape = SHAPE.replace("$TABLE", &self.relation.id.0.to_string()),
        )
    }

    /// Up to so many rows of a part, in the order in which they lie.
    pub(crate) fn copy(&self, of: &str, span: &Span, rows: usize) -> String {
        let at = |tid: Tid| format!("'({},{})'", tid.block(), tid.number());
        format!(
            "COPY (SELECT {} FROM ONLY {of} AS {} WHERE ctid >= {} AND ctid < {}{} LIMIT {rows}) \
             TO STDOUT (FORMAT binary)",
            self.select,
            identifier(&self.name.table),
            at(span.from),
            at(span.to),
            self.and_filters()
        )
    }

    /// The files that have its rows.
    pub(crate) fn leaves(&self) -> impl Iterator<Item = &str> {
        self.leaves.values().map(String::as_str)
    }

    /// All rows of a file.
    pub(crate) fn copy_all(&self, of: &str) -> String {
        let (select, alias) = (&self.select, identifier(&self.name.table));
        format!(
            "COPY (SELECT {select} FROM ONLY {of} AS {alias} WHERE true{}) \
             TO STDOUT (FORMAT binary)",
            self.and_filters()
        )
    }

    /// A row by its key.
    pub(crate) fn by_key(&self, key: &[usize]) -> String {
        let columns = key.iter().filter_map(|at| self.relation.columns.get(*at)).enumerate();
        let equal: Vec<String> = columns
            .map(|(number, column)| format!("{} = ${}", identifier(&column.name), number + 1))
            .collect();
        let (select, root, filter) = (&self.select, self.root(), self.and_filters());
        format!("SELECT {select} FROM {root} WHERE {}{filter}", equal.join(" AND "))
    }

    /// A key as a row would have it, whatever form it is given in.
    pub(super) fn key_alone(&self, key: &[usize]) -> (String, CopyRows) {
        let columns = key.iter().filter_map(|at| self.relation.columns.get(*at));
        let names = columns.map(|column| column.name.as_str());
        let is_text = |at: usize| self.as_text.get(at + 1).copied().unwrap_or_default();
        let as_text: Vec<bool> = key.iter().map(|at| is_text(*at)).collect();
        let sql = key_alone(&self.root(), names, &as_text);
        // The form of rows: their place comes first.
        (sql, CopyRows::of_query(std::iter::once(false).chain(as_text)))
    }

    fn and_filters(&self) -> String {
        self.filters.iter().map(|filter| format!(" AND ({filter})")).collect()
    }

    pub(crate) fn copied(&self) -> CopyRows {
        CopyRows::new(self.as_text.iter().copied())
    }

    pub(crate) fn queried(&self) -> CopyRows {
        CopyRows::of_query(self.as_text.iter().copied())
    }
}

/// Gives parameters back in the form of columns, by asking for no row: what a row's value and a
/// parameter can be at once has the type of the column, without its length.
pub(super) fn key_alone<'a>(
    of: &str,
    columns: impl Iterator<Item = &'a str>,
    as_text: &[bool],
) -> String {
    let mut select = "'(0,0)'::tid".to_owned();
    for ((number, name), text) in columns.enumerate().zip(as_text) {
        let cast = if *text { "::text" } else { "" };
        let name = identifier(name);
        select += &format!(", (CASE WHEN false THEN t.{name} ELSE ${} END){cast}", number + 1);
    }
    format!("SELECT {select} FROM (SELECT) AS one LEFT JOIN {of} AS t ON false")
}
