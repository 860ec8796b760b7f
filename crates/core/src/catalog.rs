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

    /// A type without a send function inside an array, composite, range or domain of these.
    ///
    /// A scalar without one arrives as text, but what contains one makes the server refuse to send
    /// the row in binary, for ever.
    #[must_use]
    pub fn unsendable_inside(&self, oid: u32) -> Option<&PgType> {
        // Postgres lets no type hold itself; the bound is for a broken catalog.
        self.unsendable(oid, false, 64)
    }

    fn unsendable(&self, oid: u32, inside: bool, depth: usize) -> Option<&PgType> {
        let depth = depth.checked_sub(1)?;
        let found = self.get(oid)?;
        match &found.kind {
            Kind::Base | Kind::Pseudo | Kind::Enum(_) => {
                (inside && !found.has_send).then_some(found)
            }
            // A domain is sent as what it is made of.
            Kind::Domain { base, .. } => self.unsendable(*base, inside, depth),
            Kind::Array { element, .. } => self.unsendable(*element, true, depth),
            Kind::Range { subtype } => self.unsendable(*subtype, true, depth),
            Kind::Multirange { range } => self.unsendable(*range, true, depth),
            Kind::Composite(attributes) => attributes
                .iter()
                .find_map(|attribute| self.unsendable(attribute.type_oid, true, depth)),
        }
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

impl Table {
    /// Takes a column as nullable, and a primary key that it is part of as none: a row without a
    /// value there was written before either was declared.
    pub fn loosen(&mut self, column: &str) {
        for known in self.columns.iter_mut().filter(|known| known.name == column) {
            known.not_null = false;
        }
        if self.primary_key.iter().any(|name| name == column) {
            self.primary_key.clear();
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn types(all: &[(u32, bool, Kind)]) -> Types {
        let mut types = Types::default();
        for (oid, has_send, kind) in all {
            types.insert(PgType {
                oid: *oid,
                schema: "public".to_owned(),
                name: format!("t{oid}"),
                kind: kind.clone(),
                has_send: *has_send,
                extension: None,
            });
        }
        types
    }

    #[test]
    fn a_type_without_a_send_function_is_found_wherever_it_hides() {
        let attribute = |type_oid| Attribute { name: "a".to_owned(), type_oid, modifier: -1 };
        let types = types(&[
            (1, false, Kind::Base),
            (2, true, Kind::Base),
            (3, true, Kind::Array { element: 1, delimiter: b',' }),
            (4, true, Kind::Domain { base: 1, modifier: -1 }),
            (5, true, Kind::Composite(vec![attribute(2), attribute(4)])),
            (6, true, Kind::Range { subtype: 5 }),
            (7, true, Kind::Multirange { range: 6 }),
            (8, true, Kind::Array { element: 2, delimiter: b',' }),
            (9, true, Kind::Array { element: 9, delimiter: b',' }),
        ]);
        let found = |oid| types.unsendable_inside(oid).map(|found| found.oid);
        assert_eq!([3, 5, 6, 7].map(found), [Some(1); 4]);
        assert_eq!([1, 2, 4, 8, 9, 10].map(found), [None; 6]);
    }
}
