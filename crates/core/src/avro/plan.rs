//! A relation and its catalog are compiled into schemas and steps.

use std::collections::HashSet;

use super::codec::{Null, Slot};
use super::error::{PlanError, PlanFault, Warning};
use super::json::Json;
use super::options::{Envelope, Options, Profile};
use super::waltide::{self, Typed};
use super::{key, names, resolve, wire};
use crate::catalog::{PgType, Table, TableColumn, Types};
use crate::pgoutput::{Relation, RelationColumn};

/// The namespace of the records that are the same for every table.
pub(super) const SHARED: &str = "waltide";

/// How the rows of one version of a relation become records.
#[derive(Debug)]
pub struct Plan {
    pub(super) schema: String,
    pub(super) table: String,
    key_schema: Option<String>,
    value_schema: String,
    namespace: String,
    /// One for each column of the relation, in its order.
    pub(super) columns: Box<[Column]>,
    /// Positions of the key's columns, in key order.
    pub(super) key: Box<[usize]>,
    pub(super) profile: Profile,
    pub(super) envelope: Envelope,
    /// The first fields of `source`, which are the same in every record.
    pub(super) source_head: Box<[u8]>,
    pub(super) tombstones: bool,
    pub(super) max_row_bytes: usize,
    warnings: Vec<Warning>,
}

/// How one column is written.
#[derive(Debug)]
pub(super) struct Column {
    /// As the table has it.
    pub(super) name: String,
    /// As the schema has it.
    pub(super) field: String,
    /// None where the configuration leaves the column out.
    pub(super) slot: Option<Slot>,
    /// The column's place in the key.
    pub(super) key_index: Option<usize>,
}

impl Plan {
    /// Compiles a relation.
    ///
    /// `table` may be newer than the relation: a column that it does not know is taken as
    /// nullable, one that the relation does not have is passed over.
    ///
    /// # Errors
    /// Where the table cannot be captured as configured.
    pub fn compile(
        relation: &Relation,
        table: &Table,
        types: &Types,
        options: &Options,
    ) -> Result<Self, PlanError> {
        let fail = |reason| PlanError {
            schema: relation.schema.clone(),
            table: relation.name.clone(),
            reason,
        };
        Compiler::new(relation, table, types, options).compile().map_err(fail)
    }

    /// The key's schema, exactly as it is registered; none where the table has no key.
    #[must_use]
    pub fn key_schema(&self) -> Option<&str> {
        self.key_schema.as_deref()
    }

    /// The value's schema, exactly as it is registered.
    #[must_use]
    pub fn value_schema(&self) -> &str {
        &self.value_schema
    }

    /// The namespace of both.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// A column's name in the table, by its position in the relation.
    #[must_use]
    pub fn column_name(&self, position: usize) -> Option<&str> {
        self.columns.get(position).map(|column| column.name.as_str())
    }

    /// A column's name in the schema, by its position in the relation.
    #[must_use]
    pub fn field_name(&self, position: usize) -> Option<&str> {
        self.columns.get(position).map(|column| column.field.as_str())
    }

    /// The positions of the key's columns in the relation, in key order.
    #[must_use]
    pub fn key_columns(&self) -> &[usize] {
        &self.key
    }

    /// What an operator should know.
    #[must_use]
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }
}

/// What is at hand while a relation is compiled.
pub(crate) struct Compiler<'a> {
    relation: &'a Relation,
    table: &'a Table,
    pub(crate) types: &'a Types,
    pub(crate) options: &'a Options,
    namespace: String,
    warnings: Vec<Warning>,
    /// The full names of the types that the schema at hand has defined so far.
    defined: HashSet<String>,
    /// The column at hand.
    column: String,
    /// How deep in the column's type we are.
    depth: usize,
    fault: Option<PlanFault>,
}

impl<'a> Compiler<'a> {
    fn new(
        relation: &'a Relation,
        table: &'a Table,
        types: &'a Types,
        options: &'a Options,
    ) -> Self {
        let namespace = waltide::namespace(options, relation);
        let (warnings, defined) = (Vec::new(), HashSet::new());
        let column = String::new();
        let (depth, fault) = (0, None);
        Self { relation, table, types, options, namespace, warnings, defined, column, depth, fault }
    }

    fn compile(mut self) -> Result<Plan, PlanFault> {
        let key = key::columns(self.relation, self.table, &self.options.key)?;
        let key_schema = if key.is_empty() { None } else { Some(self.key_schema(&key)?) };
        self.warnings.clear();
        self.defined.clear();
        let mut columns = Vec::with_capacity(self.relation.columns.len());
        let mut fields = Vec::with_capacity(self.relation.columns.len());
        for (position, column) in self.relation.columns.iter().enumerate() {
            let key_index = key.iter().position(|at| *at == position);
            let slot = if self.options.columns.takes(&column.name) {
                let (slot, schema) = self.column(column, key_index.is_some());
                fields.push(schema);
                Some(slot)
            } else {
                None
            };
            let field = self.field_name(&column.name);
            columns.push(Column { name: column.name.clone(), field, slot, key_index });
        }
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let row = self.row_schema(fields);
        let value_schema = match self.options.envelope {
            Envelope::Full => waltide::envelope(&self.namespace, row),
            Envelope::Flat => row,
        };
        if self.options.envelope == Envelope::Flat && key.is_empty() {
            self.warnings.push(Warning::DeletesUnseen);
        }
        Ok(Plan {
            schema: self.relation.schema.clone(),
            table: self.relation.name.clone(),
            key_schema,
            value_schema: value_schema.to_string(),
            source_head: self.source_head(),
            namespace: self.namespace,
            columns: columns.into(),
            key: key.into(),
            profile: self.options.profile,
            envelope: self.options.envelope,
            tombstones: self.options.tombstones,
            max_row_bytes: self.options.max_row_bytes,
            warnings: self.warnings,
        })
    }

    fn key_schema(&mut self, key: &[usize]) -> Result<String, PlanFault> {
        let mut fields = Vec::with_capacity(key.len());
        for position in key {
            let Some(column) = self.relation.columns.get(*position) else { continue };
            if !self.options.columns.takes(&column.name) {
                return Err(PlanFault::KeyColumnExcluded(column.name.clone()));
            }
            let (_, schema) = self.column(column, true);
            fields.push(schema);
        }
        Ok(waltide::record("Key", Some(&self.namespace), fields).to_string())
    }

    /// A column's slot and its field in the schema.
    fn column(&mut self, column: &RelationColumn, in_key: bool) -> (Slot, Json) {
        self.column.clone_from(&column.name);
        let Typed { codec, schema } = waltide::type_of(self, column.type_oid, column.type_modifier);
        // A key column is required, but for one that only the configuration makes one.
        let required = in_key && (self.options.key.is_empty() || self.is_required(column));
        let name = self.field_name(&column.name);
        let mut field =
            if required { waltide::field(&name, schema) } else { waltide::optional(&name, schema) };
        if let Some(comment) = self.catalog(column).and_then(|known| known.comment.as_deref()) {
            field = field.with("doc", Json::str(comment));
        }
        if name != column.name {
            field = field.with("postgres.column", Json::str(column.name.as_str()));
        }
        let type_name = resolve::display_name(self.types, column.type_oid);
        field = field.with("postgres.type", Json::str(type_name));
        (Slot { codec, null: if required { Null::Never } else { Null::First } }, field)
    }

    fn row_schema(&self, fields: Vec<Json>) -> Json {
        // Inside the envelope the namespace is the envelope's.
        let flat = self.options.envelope == Envelope::Flat;
        let mut row = waltide::record("Row", flat.then_some(self.namespace.as_str()), fields);
        if let Some(comment) = &self.table.comment {
            row = row.with("doc", Json::str(comment.as_str()));
        }
        row.with("postgres.schema", Json::str(self.relation.schema.as_str()))
            .with("postgres.table", Json::str(self.relation.name.as_str()))
    }

    fn source_head(&self) -> Box<[u8]> {
        let mut head = Vec::new();
        let Options { version, prefix, database, .. } = self.options;
        let Relation { schema, name, .. } = self.relation;
        for text in [version, "waltide", prefix, database, schema, name] {
            wire::bytes(&mut head, text.as_bytes());
        }
        head.into()
    }

    fn field_name(&self, column: &str) -> String {
        names::escape(column)
    }

    fn catalog(&self, column: &RelationColumn) -> Option<&'a TableColumn> {
        self.table.columns.iter().find(|known| known.name == column.name)
    }

    fn is_required(&self, column: &RelationColumn) -> bool {
        self.catalog(column).is_some_and(|known| known.not_null)
            || self.table.primary_key.contains(&column.name)
    }

    /// A type inside another one.
    pub(crate) fn nested(&mut self, oid: u32, modifier: i32) -> Typed {
        if self.depth == resolve::MAX_DEPTH {
            self.fault = Some(PlanFault::TooDeep(self.column.clone()));
            return waltide::opaque(true);
        }
        self.depth += 1;
        let typed = waltide::type_of(self, oid, modifier);
        self.depth -= 1;
        typed
    }

    /// The record for one of the source's own types: in full the first time, then by name. It has
    /// a namespace of its own below the table's, so it meets no other name.
    pub(crate) fn define(&mut self, of: &PgType, fields: Vec<Json>) -> Json {
        let (schema, name) = (names::escape(&of.schema), names::escape(&of.name));
        if of.schema == "pg_catalog" {
            return self.named(SHARED, &name, |_| fields);
        }
        let namespace = format!("{}.types.{schema}", self.namespace);
        self.named(&namespace, &name, |_| fields)
    }

    /// A record that is the same for every table: in full the first time, then by name.
    pub(crate) fn shared(
        &mut self,
        name: &str,
        fields: impl FnOnce(&mut Self) -> Vec<Json>,
    ) -> Json {
        self.named(SHARED, name, fields)
    }

    fn named(
        &mut self,
        namespace: &str,
        name: &str,
        fields: impl FnOnce(&mut Self) -> Vec<Json>,
    ) -> Json {
        let full = format!("{namespace}.{name}");
        if !self.defined.insert(full.clone()) {
            return Json::str(full);
        }
        let fields = fields(self);
        waltide::record(name, Some(namespace), fields)
    }

    pub(crate) fn warn_opaque(&mut self, type_name: String, binary: bool) {
        let column = self.column.clone();
        self.warnings.push(Warning::OpaqueType { column, type_name, binary });
    }
}
