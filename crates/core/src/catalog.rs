//! What the source's catalog says beyond the stream: the facts a plan needs about types and tables.
//!
//! A relation message carries names, type OIDs and modifiers. The rest (nullability, keys, enum
//! labels, what an array holds, comments) is read from the catalog when a relation is first seen
//! or changes, and comes in here as plain data.

use std::collections::HashMap;

/// Every type a captured column reaches, by OID. Built-in types are in it as well.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Types {
    by_oid: HashMap<u32, PgType>,
}

impl Types {
    /// Adds one type, or replaces what was known of it.
    pub fn insert(&mut self, of: PgType) {
        self.by_oid.insert(of.oid, of);
    }

    /// What is known of a type.
    #[must_use]
    pub fn get(&self, oid: u32) -> Option<&PgType> {
        self.by_oid.get(&oid)
    }

    /// How many types are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_oid.len()
    }

    /// Whether none is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_oid.is_empty()
    }
}

/// A row of `pg_type` and what belongs to it.
#[derive(Clone, Debug, PartialEq)]
pub struct PgType {
    /// Its OID.
    pub oid: u32,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// What it is made of.
    pub kind: Kind,
    /// Whether it has a binary send function; without one it travels as text, and nothing that contains it can travel in binary.
    pub has_send: bool,
    /// The extension that owns it, where one does.
    pub extension: Option<String>,
}

/// What a type is made of.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// A scalar.
    Base,
    /// Labels in sort order.
    Enum(Vec<String>),
    /// A named restriction of another type, with the modifier it was made with.
    Domain {
        /// The type below, possibly a domain itself.
        base: u32,
        /// -1 for none.
        modifier: i32,
    },
    /// Named attributes in order; dropped ones are not in it.
    Composite(Vec<Attribute>),
    /// An array of another type.
    Array {
        /// What it holds.
        element: u32,
        /// Between elements in its text form: a comma for all but box.
        delimiter: u8,
    },
    /// A range over another type.
    Range {
        /// What it bounds.
        subtype: u32,
    },
    /// A set of ranges.
    Multirange {
        /// The range type it is a set of.
        range: u32,
    },
    /// A pseudo-type: no column has one.
    Pseudo,
}

/// An attribute of a composite type.
#[derive(Clone, Debug, PartialEq)]
pub struct Attribute {
    /// Its name.
    pub name: String,
    /// Its type.
    pub type_oid: u32,
    /// Its modifier; -1 for none.
    pub modifier: i32,
}

/// What the catalog says of a captured table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// `COMMENT ON TABLE`.
    pub comment: Option<String>,
    /// Its columns by name; one the stream names and the catalog no longer has is missing here.
    pub columns: Vec<TableColumn>,
    /// The primary key's columns in key order; empty where there is none.
    pub primary_key: Vec<String>,
    /// The replica identity index's columns, where `REPLICA IDENTITY USING INDEX` names one.
    pub identity_index: Vec<String>,
}

/// What the catalog says of a column.
#[derive(Clone, Debug, PartialEq)]
pub struct TableColumn {
    /// Its name.
    pub name: String,
    /// `NOT NULL` (or part of the primary key).
    pub not_null: bool,
    /// Its default as SQL, where it has one.
    pub default: Option<String>,
    /// `GENERATED ... AS IDENTITY`.
    pub identity: bool,
    /// `GENERATED ALWAYS AS (...)`.
    pub generated: bool,
    /// `COMMENT ON COLUMN`.
    pub comment: Option<String>,
}
