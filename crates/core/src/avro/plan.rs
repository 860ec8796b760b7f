//! A relation and its catalog are compiled into schemas and steps.

use std::collections::HashSet;

use super::codec::Slot;
use super::error::{PlanError, PlanFault, Warning};
use super::json::Json;
use super::options::{Envelope, Options, Profile};
use super::waltide::{self, Typed};
use super::{debezium, key, names, resolve, wire};
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
    /// What of `source` is the same in every record.
    pub(super) source: Source,
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
    pub(super) plan: Option<ColumnPlan>,
    /// The column's place in the key.
    pub(super) key_index: Option<usize>,
}

/// How the values of one column are written.
#[derive(Debug)]
pub(crate) struct ColumnPlan {
    pub(crate) slot: Slot,
    /// What is written where an old row that is its key only has no value, and the column is
    /// required.
    pub(crate) absent: Option<Vec<u8>>,
    /// What is written for a value that the server did not send, where there is such a mark.
    pub(crate) unavailable: Option<Vec<u8>>,
}

/// Encoded fields of `source`. Waltide has all of them in a row, and so in `head`.
#[derive(Debug, Default)]
pub(crate) struct Source {
    /// The version, the connector and the pipeline's name.
    pub(super) head: Box<[u8]>,
    /// The database's name.
    pub(super) database: Box<[u8]>,
    /// The schema's and the table's name.
    pub(super) table: Box<[u8]>,
}

impl Source {
    pub(crate) fn new(options: &Options, schema: &str, table: &str) -> Self {
        let Options { version, prefix, database, .. } = options;
        let strings = |texts: &[&str]| {
            let mut out = Vec::new();
            texts.iter().for_each(|text| wire::bytes(&mut out, text.as_bytes()));
            out.into()
        };
        match options.profile {
            Profile::Waltide => Self {
                head: strings(&[version, "waltide", prefix, database, schema, table]),
                ..Self::default()
            },
            Profile::Debezium => Self {
                head: strings(&[version, "postgresql", prefix]),
                database: strings(&[database]),
                table: strings(&[schema, table]),
            },
        }
    }
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

    /// How many columns a row has.
    #[must_use]
    pub fn column_count(&self) -> usize {
        self.columns.len()
    }

    /// The positions of the key's columns in the relation, in key order.
    #[must_use]
    pub fn key_columns(&self) -> &[usize] {
        &self.key
    }

    /// Whether a value of this envelope holds its record's [`Notes`](super::Notes) itself.
    #[must_use]
    pub fn envelope_has_notes(&self) -> bool {
        self.profile == Profile::Waltide && self.envelope == Envelope::Full
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
        let namespace = match options.profile {
            Profile::Waltide => waltide::namespace(options, relation),
            Profile::Debezium => {
                debezium::namespace(&options.prefix, &relation.schema, &relation.name)
            }
        };
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
        let mut columns: Vec<Column> = Vec::with_capacity(self.relation.columns.len());
        let mut fields = Vec::with_capacity(self.relation.columns.len());
        for (position, column) in self.relation.columns.iter().enumerate() {
            let key_index = key.iter().position(|at| *at == position);
            let name = column.name.clone();
            let field = self.field_name(&name);
            let plan = if self.options.columns.takes(&name) {
                let met = columns.iter().find(|other| other.plan.is_some() && other.field == field);
                if let Some(other) = met {
                    return Err(PlanFault::NamesMeet(other.name.clone(), name));
                }
                let (plan, schema) = self.column(column, key_index.is_some());
                fields.push(schema);
                Some(plan)
            } else {
                None
            };
            columns.push(Column { name, field, plan, key_index });
        }
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        if self.options.envelope == Envelope::Flat && key.is_empty() {
            self.warnings.push(Warning::DeletesUnseen);
        }
        Ok(Plan {
            schema: self.relation.schema.clone(),
            table: self.relation.name.clone(),
            key_schema,
            value_schema: self.value_schema(fields).to_string(),
            source: Source::new(self.options, &self.relation.schema, &self.relation.name),
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
        let schema = match self.options.profile {
            Profile::Waltide => waltide::record("Key", Some(&self.namespace), fields),
            Profile::Debezium => debezium::top_level("Key", &self.namespace, fields),
        };
        Ok(schema.to_string())
    }

    /// How a column is written, and its field in the schema.
    fn column(&mut self, column: &RelationColumn, in_key: bool) -> (ColumnPlan, Json) {
        self.column.clone_from(&column.name);
        let known = self.catalog(column);
        let not_null = known.is_some_and(|known| known.not_null)
            || self.table.primary_key.contains(&column.name);
        // A key column is required, but for one that only the configuration makes one.
        let key_required = in_key && (self.options.key.is_empty() || not_null);
        match self.options.profile {
            Profile::Waltide => waltide::column(self, column, known, key_required),
            Profile::Debezium => debezium::column(self, column, known, key_required || not_null),
        }
    }

    fn value_schema(&self, fields: Vec<Json>) -> Json {
        let (relation, table, namespace) = (self.relation, self.table, self.namespace.as_str());
        match (self.options.profile, self.options.envelope) {
            (Profile::Waltide, Envelope::Full) => {
                waltide::envelope(namespace, waltide::row(relation, table, None, fields))
            }
            (Profile::Waltide, Envelope::Flat) => {
                waltide::row(relation, table, Some(namespace), fields)
            }
            (Profile::Debezium, Envelope::Full) => debezium::envelope(namespace, fields),
            (Profile::Debezium, Envelope::Flat) => debezium::top_level("Value", namespace, fields),
        }
    }

    fn field_name(&self, column: &str) -> String {
        match self.options.profile {
            Profile::Waltide => names::escape(column),
            Profile::Debezium => names::debezium_field(column),
        }
    }

    fn catalog(&self, column: &RelationColumn) -> Option<&'a TableColumn> {
        self.table.columns.iter().find(|known| known.name == column.name)
    }

    /// A type inside another one, in the waltide profile.
    pub(crate) fn nested(&mut self, oid: u32, modifier: i32) -> Typed {
        self.deeper(|compiler| waltide::type_of(compiler, oid, modifier))
            .unwrap_or_else(|| waltide::opaque(true))
    }

    /// A type inside another one, in the debezium profile.
    pub(crate) fn nested_debezium(&mut self, oid: u32, modifier: i32) -> debezium::Type {
        self.deeper(|compiler| debezium::type_of(compiler, oid, modifier))
            .unwrap_or_else(debezium::opaque)
    }

    /// One level further down, unless that is deeper than any sane type.
    fn deeper<T>(&mut self, compile: impl FnOnce(&mut Self) -> T) -> Option<T> {
        if self.depth == resolve::MAX_DEPTH {
            self.fault = Some(PlanFault::TooDeep(self.column.clone()));
            return None;
        }
        self.depth += 1;
        let compiled = compile(self);
        self.depth -= 1;
        Some(compiled)
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
        if !self.is_new(&full) {
            return Json::str(full);
        }
        let fields = fields(self);
        waltide::record(name, Some(namespace), fields)
    }

    /// Whether the schema at hand has not defined this name yet; from now on it has.
    pub(crate) fn is_new(&mut self, full_name: &str) -> bool {
        self.defined.insert(full_name.to_owned())
    }

    pub(crate) fn warn_opaque(&mut self, oid: u32, binary: bool) {
        let (column, type_name) = (self.column.clone(), resolve::display_name(self.types, oid));
        self.warnings.push(Warning::OpaqueType { column, type_name, binary });
    }
}
