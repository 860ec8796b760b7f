//! What can be wrong with a table, and with a row.

use std::error::Error;
use std::fmt;

/// A table that cannot be captured as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanError {
    /// The table's schema.
    pub schema: String,
    /// The table.
    pub table: String,
    /// What is wrong.
    pub reason: PlanFault,
}

/// Why a table cannot be captured as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlanFault {
    /// A column that the configuration names for the key is not there.
    UnknownKeyColumn(String),
    /// A key column is left out by the configuration.
    KeyColumnExcluded(String),
    /// A key column is not part of the replica identity, so a delete would not carry it.
    KeyNotInIdentity(String),
    /// More key columns than an index can have.
    TooManyKeyColumns(usize),
    /// Two columns have the same name once what Avro does not allow is replaced.
    NamesMeet(String, String),
    /// A type is nested deeper than any sane one.
    TooDeep(String),
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}: ", self.schema, self.table)?;
        match &self.reason {
            PlanFault::UnknownKeyColumn(column) => {
                write!(f, "the key names column {column}, which the table does not have")
            }
            PlanFault::KeyColumnExcluded(column) => {
                write!(f, "key column {column} is excluded: include it, or name another key")
            }
            PlanFault::KeyNotInIdentity(column) => write!(
                f,
                "key column {column} is not part of the replica identity, so a delete would come \
                 without it: set REPLICA IDENTITY FULL, or name another key"
            ),
            PlanFault::TooManyKeyColumns(count) => {
                write!(f, "the key has {count} columns; {} are the most", super::key::MAX_COLUMNS)
            }
            PlanFault::NamesMeet(one, other) => write!(
                f,
                "columns {one:?} and {other:?} have the same name in Avro in the debezium profile: \
                 exclude one, or use the waltide profile"
            ),
            PlanFault::TooDeep(column) => {
                write!(f, "the type of column {column} is nested too deep")
            }
        }
    }
}

impl Error for PlanError {}

/// Something an operator should know about a table that is captured all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// The type is not known, so its values are passed on as they come.
    OpaqueType {
        /// The column.
        column: String,
        /// Its type's name, or its OID where the catalog does not know it.
        type_name: String,
        /// Whether they come as bytes, not as text.
        binary: bool,
    },
    /// The table has no key in an envelope where a delete is a tombstone: deletes are not seen.
    DeletesUnseen,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OpaqueType { column, type_name, binary: true } => write!(
                f,
                "column {column}: type {type_name} is not known, its binary form is passed on as bytes"
            ),
            Self::OpaqueType { column, type_name, binary: false } => {
                write!(f, "column {column}: type {type_name} is not known, its text is passed on")
            }
            Self::DeletesUnseen => f.write_str(
                "the table has no key, and the flat envelope shows a delete as a tombstone only: \
                 its deletes are not published",
            ),
        }
    }
}

/// A row that cannot be written. Says where and what, never the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataError {
    /// The table's schema.
    pub schema: String,
    /// The table.
    pub table: String,
    /// The column, where it is one.
    pub column: Option<String>,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The bytes are not what the type sends: the type as it should be.
    Malformed(&'static str),
    /// The column is required (by its `NOT NULL` or the key), and the row has no value. The
    /// catalog may be ahead of the log: compile again with the column
    /// [loosened](crate::catalog::Table::loosen).
    Null,
    /// A required column's TOASTed value was not sent.
    Unchanged,
    /// The value has no place in the schema, and the column is required.
    Unrepresentable,
    /// The row does not have as many columns as its relation.
    ColumnCount {
        /// The relation's columns.
        expected: usize,
        /// The row's.
        found: usize,
    },
}

impl fmt::Display for DataError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.table)?;
        if let Some(column) = &self.column {
            write!(f, ".{column}")?;
        }
        f.write_str(": ")?;
        match self.problem {
            Problem::Malformed(what) => write!(f, "the bytes received are no {what}"),
            Problem::Null => f.write_str("there is no value, and the column is required"),
            Problem::Unchanged => f.write_str(
                "the server did not send the unchanged TOASTed value, and the column is required: \
                 set REPLICA IDENTITY FULL",
            ),
            Problem::Unrepresentable => {
                f.write_str("the value has no place in the schema, and the column is required")
            }
            Problem::ColumnCount { expected, found } => {
                write!(f, "the row has {found} columns, its relation {expected}")
            }
        }
    }
}

impl Error for DataError {}
