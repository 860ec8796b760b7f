//! Types, with all that they are made of.

use std::collections::HashMap;

use waltide_core::catalog::{Attribute, Kind, PgType, Types};

use super::{grouped, oids};
use crate::postgres::cells::Cells;
use crate::postgres::connection::Connection;
use crate::postgres::error::Error;

/// From the given types to everything within them: elements, base types, attributes, subtypes.
///
/// An array is a type that its element type calls its array. `typelem` alone does not make one:
/// `name` and `point` have it, and so do `int2vector` and `oidvector`, whose text form is not
/// that of an array.
const REACHED: &str = "\
WITH RECURSIVE reached(oid) AS (
    SELECT unnest($1::oid[])
  UNION
    SELECT next.oid
    FROM reached
    JOIN pg_type t ON t.oid = reached.oid
    CROSS JOIN LATERAL (
        SELECT e.oid FROM pg_type e WHERE e.oid = t.typelem AND e.typarray = t.oid
      UNION ALL
        SELECT t.typbasetype WHERE t.typtype = 'd'
      UNION ALL
        SELECT a.atttypid FROM pg_attribute a
        WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
      UNION ALL
        SELECT r.rngsubtype FROM pg_range r WHERE r.rngtypid = t.oid
      UNION ALL
        SELECT r.rngtypid FROM pg_range r WHERE r.rngmultitypid = t.oid
    ) next
)
SELECT t.oid, n.nspname, t.typname, t.typtype, t.typsend <> 0,
       (SELECT x.extname FROM pg_depend d JOIN pg_extension x ON x.oid = d.refobjid
        WHERE d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.objsubid = 0
          AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'),
       e.oid, ascii(e.typdelim::text), t.typbasetype, t.typtypmod, r.rngsubtype, m.rngtypid
FROM reached
JOIN pg_type t ON t.oid = reached.oid
JOIN pg_namespace n ON n.oid = t.typnamespace
LEFT JOIN pg_type e ON e.oid = t.typelem AND e.typarray = t.oid
LEFT JOIN pg_range r ON r.rngtypid = t.oid
LEFT JOIN pg_range m ON m.rngmultitypid = t.oid";

const LABELS: &str = "\
SELECT enumtypid, enumlabel FROM pg_enum WHERE enumtypid = ANY ($1::oid[])
ORDER BY enumtypid, enumsortorder";

const ATTRIBUTES: &str = "\
SELECT t.oid, a.attname, a.atttypid, a.atttypmod
FROM pg_type t JOIN pg_attribute a ON a.attrelid = t.typrelid
WHERE t.oid = ANY ($1::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY t.oid, a.attnum";

/// A row of [`REACHED`].
struct Found {
    of: PgType,
    letter: char,
    element: Option<u32>,
    delimiter: Option<u8>,
    base: u32,
    modifier: i32,
    subtype: Option<u32>,
    range: Option<u32>,
}

impl Connection {
    /// These types and everything within them. An OID that no type has any more is left out.
    pub async fn load_types(&mut self, types: &[u32]) -> Result<Types, Error> {
        let ours = self.begin_reading().await?;
        let result = self.types(types).await;
        self.end_reading(ours, result).await
    }

    pub(super) async fn types(&mut self, types: &[u32]) -> Result<Types, Error> {
        let rows = self.query(REACHED, &[Some(&oids(types.iter().copied()))]).await?;
        let mut found = self.rows_as(&rows, "a row of pg_type", read)?;
        let of_kind = |letter: char| {
            let of_kind = found.iter().filter(move |found| found.letter == letter);
            oids(of_kind.map(|found| found.of.oid))
        };
        let (enums, composites) = (of_kind('e'), of_kind('c'));
        let labels = self.query(LABELS, &[Some(&enums)]).await?;
        let mut labels = grouped(self.rows_as(&labels, "a row of pg_enum", |row| {
            let mut cells = Cells::of(row);
            Some((cells.get()?, cells.get::<String>()?))
        })?);
        let attributes = self.query(ATTRIBUTES, &[Some(&composites)]).await?;
        let mut attributes =
            grouped(self.rows_as(&attributes, "a row of pg_attribute", |row| {
                let mut cells = Cells::of(row);
                let oid = cells.get()?;
                let (name, type_oid, modifier) = (cells.get()?, cells.get()?, cells.get()?);
                Some((oid, Attribute { name, type_oid, modifier }))
            })?);
        let mut types = Types::default();
        for found in &mut found {
            found.of.kind = kind(found, &mut labels, &mut attributes);
        }
        found.into_iter().for_each(|found| types.insert(found.of));
        Ok(types)
    }
}

fn read(row: &[Option<String>]) -> Option<Found> {
    let mut cells = Cells::of(row);
    let (oid, schema, name) = (cells.get()?, cells.get()?, cells.get()?);
    let letter = cells.get()?;
    let (has_send, extension) = (cells.flag()?, cells.maybe()?);
    Some(Found {
        of: PgType { oid, schema, name, kind: Kind::Base, has_send, extension },
        letter,
        element: cells.maybe()?,
        delimiter: cells.maybe()?,
        base: cells.get()?,
        modifier: cells.get()?,
        subtype: cells.maybe()?,
        range: cells.maybe()?,
    })
}

fn kind(
    found: &Found,
    labels: &mut HashMap<u32, Vec<String>>,
    attributes: &mut HashMap<u32, Vec<Attribute>>,
) -> Kind {
    let oid = found.of.oid;
    match (found.letter, found.element, found.subtype, found.range) {
        (_, Some(element), ..) => {
            Kind::Array { element, delimiter: found.delimiter.unwrap_or(b',') }
        }
        ('e', ..) => Kind::Enum(labels.remove(&oid).unwrap_or_default()),
        ('d', ..) => Kind::Domain { base: found.base, modifier: found.modifier },
        ('c', ..) => Kind::Composite(attributes.remove(&oid).unwrap_or_default()),
        ('r', _, Some(subtype), _) => Kind::Range { subtype },
        ('m', _, _, Some(range)) => Kind::Multirange { range },
        ('p', ..) => Kind::Pseudo,
        _ => Kind::Base,
    }
}
