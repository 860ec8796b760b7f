//! Digests of rows and keys, column by column, without a tree of values.
//!
//! Two records have the same digest of a column where a reader would take the same value out of
//! them, whichever schemas they were written with: numbers are compared as numbers, decimals
//! without the zeros behind them, and a column that an older schema does not have is a null, which
//! is what its default is. So is a value that differs from another one only in its type a
//! difference: a reader would see it.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher as _};

use super::{Field, Meaning, Schema, Shape, blocks, decimal, long, sized, take, text};

/// What digests are made with. One that nobody knows beforehand lets nobody make two values whose
/// digests are alike.
#[derive(Clone, Copy, Debug)]
pub struct Seed(pub u64);

/// The digest of a value that a record does not tell.
pub const UNTOLD: u64 = 0;

/// What a record says of its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// The row is so.
    Row,
    /// There is no such row any more.
    Gone,
    /// There are no rows any more.
    Truncated,
}

/// What is said of a record's values beside them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note<'a> {
    /// This field's value was not sent again.
    Unchanged(&'a str),
    /// What a value is that the schema cannot hold, or what shape an array has.
    Said {
        /// Where.
        path: &'a str,
        /// What.
        text: &'a str,
    },
}

/// What a field of an envelope is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    After,
    Op,
    Unchanged,
    Texts,
    Other,
}

impl Part {
    fn of(field: &Field) -> Self {
        match field.field.as_str() {
            "after" => Self::After,
            "op" => Self::Op,
            "unchanged" => Self::Unchanged,
            "unrepresentable" | "shapes" => Self::Texts,
            _ => Self::Other,
        }
    }
}

/// Takes the digests of a table's columns out of records of one schema.
#[derive(Debug)]
pub struct ValueReader {
    schema: Schema,
    /// What the fields of the envelope are for; none where the record is the row itself.
    parts: Option<Vec<Part>>,
    /// The row among the schema's records.
    row: usize,
    /// Which column each of its fields is, as far as it is one of the table's.
    columns: Vec<Option<usize>>,
    /// The same by the fields' names.
    by_field: BTreeMap<String, usize>,
    /// How many columns the table has.
    count: usize,
}

impl Schema {
    /// The columns of the rows that its records are of, as the table has them; none where it is no
    /// schema of a row, or no envelope where that is expected.
    #[must_use]
    pub fn columns(&self, envelope: bool) -> Option<Vec<String>> {
        let row = self.records.get(self.row(envelope)?)?;
        Some(row.iter().map(|field| field.name.clone()).collect())
    }

    fn root(&self) -> Option<&[Field]> {
        let Shape::Record(root) = self.root else { return None };
        self.records.get(root).map(Vec::as_slice)
    }

    fn row(&self, envelope: bool) -> Option<usize> {
        let Shape::Record(root) = self.root else { return None };
        if !envelope {
            return Some(root);
        }
        let fields = self.root()?;
        fields.iter().find(|field| Part::of(field) == Part::Op)?;
        let after = fields.iter().find(|field| Part::of(field) == Part::After)?;
        let Shape::Union(branches) = &after.shape else { return None };
        branches.iter().find_map(|branch| match branch {
            Shape::Record(row) => Some(*row),
            _ => None,
        })
    }

    /// The digest of a key: its values in their order, whatever they are called.
    #[must_use]
    pub fn digest_of_key(&self, seed: Seed, mut bytes: &[u8]) -> Option<u128> {
        let mut halves = [hasher(seed), hasher(Seed(!seed.0))];
        let whole = bytes;
        for half in &mut halves {
            bytes = whole;
            for field in self.root()? {
                self.feed(&field.shape, &mut bytes, half)?;
            }
        }
        let [high, low] = halves.map(|half| u128::from(half.finish()));
        bytes.is_empty().then_some(high << 64 | low)
    }

    /// Feeds a value to a hasher.
    fn feed(&self, shape: &Shape, bytes: &mut &[u8], into: &mut DefaultHasher) -> Option<()> {
        match shape {
            Shape::Null => into.write_u8(0),
            Shape::Boolean => into.write(&[1, u8::from(take(bytes, 1)? != [0])]),
            Shape::Number(meaning) => {
                into.write_u8(kind(*meaning));
                into.write_i64(long(bytes)?);
            }
            Shape::Float => {
                let value = f32::from_le_bytes(take(bytes, 4)?.try_into().ok()?);
                feed_float(value.into(), into);
            }
            Shape::Double => {
                feed_float(f64::from_le_bytes(take(bytes, 8)?.try_into().ok()?), into);
            }
            Shape::Bytes => feed_bytes(3, sized(bytes)?, into),
            Shape::Decimal(scale) => {
                let digits = decimal(sized(bytes)?, *scale);
                let digits = match digits.contains('.') {
                    true => digits.trim_end_matches('0').trim_end_matches('.'),
                    false => &digits,
                };
                feed_bytes(4, digits.as_bytes(), into);
            }
            Shape::Text => feed_bytes(5, text(bytes)?.as_bytes(), into),
            Shape::Record(index) => {
                into.write_u8(6);
                for field in self.records.get(*index)? {
                    self.feed(&field.shape, bytes, into)?;
                }
            }
            Shape::Array(item) => {
                into.write_u8(7);
                blocks(bytes, |bytes| {
                    into.write_u8(1);
                    self.feed(item, bytes, into)
                })?;
                into.write_u8(0);
            }
            Shape::Map(item) => {
                into.write_u8(8);
                blocks(bytes, |bytes| {
                    feed_bytes(1, text(bytes)?.as_bytes(), into);
                    self.feed(item, bytes, into)
                })?;
                into.write_u8(0);
            }
            // Which branch it is says what it is.
            Shape::Union(shapes) => {
                let branch = usize::try_from(long(bytes)?).ok()?;
                self.feed(shapes.get(branch)?, bytes, into)?;
            }
        }
        Some(())
    }

    fn skip(&self, shape: &Shape, bytes: &mut &[u8]) -> Option<()> {
        match shape {
            Shape::Null => {}
            Shape::Boolean => drop(take(bytes, 1)?),
            Shape::Number(_) => drop(long(bytes)?),
            Shape::Float => drop(take(bytes, 4)?),
            Shape::Double => drop(take(bytes, 8)?),
            Shape::Bytes | Shape::Decimal(_) | Shape::Text => drop(sized(bytes)?),
            Shape::Record(index) => {
                for field in self.records.get(*index)? {
                    self.skip(&field.shape, bytes)?;
                }
            }
            Shape::Array(item) => blocks(bytes, |bytes| self.skip(item, bytes))?,
            Shape::Map(item) => blocks(bytes, |bytes| {
                text(bytes)?;
                self.skip(item, bytes)
            })?,
            Shape::Union(shapes) => {
                let branch = usize::try_from(long(bytes)?).ok()?;
                self.skip(shapes.get(branch)?, bytes)?;
            }
        }
        Some(())
    }
}

impl ValueReader {
    /// For records of this schema, whose rows are compared by these columns. None where it is no
    /// schema of such records.
    #[must_use]
    pub fn new(schema: Schema, envelope: bool, columns: &[String]) -> Option<Self> {
        let row = schema.row(envelope)?;
        let fields = schema.records.get(row)?;
        let place = |field: &Field| columns.iter().position(|column| *column == field.name);
        let places: Vec<_> = fields.iter().map(place).collect();
        let named = fields.iter().zip(&places);
        let by_field =
            named.filter_map(|(field, at)| Some((field.field.clone(), (*at)?))).collect();
        let parts = match envelope {
            true => Some(schema.root()?.iter().map(Part::of).collect()),
            false => None,
        };
        Some(Self { parts, row, columns: places, by_field, count: columns.len(), schema })
    }

    /// What a record says, and the digests of its columns where that is a row; none where the bytes
    /// are not of the schema.
    #[must_use]
    pub fn digest<'n>(
        &self,
        seed: Seed,
        mut bytes: &[u8],
        notes: impl IntoIterator<Item = Note<'n>>,
        out: &mut Vec<u64>,
    ) -> Option<Told> {
        out.clear();
        out.resize(self.count, finish(&nothing(seed)));
        let mut told = Told::Row;
        match &self.parts {
            None => self.digest_row(seed, &mut bytes, out)?,
            Some(parts) => {
                for (part, field) in parts.iter().zip(self.schema.root()?) {
                    self.digest_part(*part, &field.shape, seed, &mut bytes, &mut told, out)?;
                }
            }
        }
        notes.into_iter().for_each(|note| self.note(seed, note, out));
        bytes.is_empty().then_some(told)
    }

    fn digest_part(
        &self,
        part: Part,
        shape: &Shape,
        seed: Seed,
        bytes: &mut &[u8],
        told: &mut Told,
        out: &mut [u64],
    ) -> Option<()> {
        match (part, shape) {
            (Part::After, Shape::Union(branches)) => {
                let branch = usize::try_from(long(bytes)?).ok()?;
                match branches.get(branch)? {
                    Shape::Record(row) if *row == self.row => self.digest_row(seed, bytes, out)?,
                    _ => *told = Told::Gone,
                }
            }
            (Part::Op, Shape::Text) => {
                if text(bytes)? == "t" {
                    *told = Told::Truncated;
                }
            }
            (Part::Unchanged, Shape::Array(item)) if matches!(**item, Shape::Text) => {
                blocks(bytes, |bytes| {
                    self.note(seed, Note::Unchanged(text(bytes)?), out);
                    Some(())
                })?;
            }
            (Part::Texts, Shape::Map(item)) if matches!(**item, Shape::Text) => {
                blocks(bytes, |bytes| {
                    let (path, text) = (text(bytes)?, text(bytes)?);
                    self.note(seed, Note::Said { path, text }, out);
                    Some(())
                })?;
            }
            _ => self.schema.skip(shape, bytes)?,
        }
        Some(())
    }

    fn digest_row(&self, seed: Seed, bytes: &mut &[u8], out: &mut [u64]) -> Option<()> {
        for (field, column) in self.schema.records.get(self.row)?.iter().zip(&self.columns) {
            let Some(place) = column.and_then(|column| out.get_mut(column)) else {
                self.schema.skip(&field.shape, bytes)?;
                continue;
            };
            let mut hasher = hasher(seed);
            self.schema.feed(&field.shape, bytes, &mut hasher)?;
            *place = finish(&hasher);
        }
        Some(())
    }

    fn note(&self, seed: Seed, note: Note<'_>, out: &mut [u64]) {
        match note {
            Note::Unchanged(field) => {
                if let Some(place) = self.by_field.get(field).and_then(|at| out.get_mut(*at)) {
                    *place = UNTOLD;
                }
            }
            Note::Said { path, text } => {
                // Of the row as it was nothing is compared.
                let path = match self.parts {
                    Some(_) => path.strip_prefix("after."),
                    None => Some(path),
                };
                let Some(path) = path else { return };
                let field = path.split(['.', '[']).next().unwrap_or_default();
                let Some(place) = self.by_field.get(field).and_then(|at| out.get_mut(*at)) else {
                    return;
                };
                let mut said = hasher(seed);
                feed_bytes(9, path.as_bytes(), &mut said);
                feed_bytes(9, text.as_bytes(), &mut said);
                // In whatever order they come.
                *place = place.wrapping_add(said.finish()).max(1);
            }
        }
    }
}

fn hasher(seed: Seed) -> DefaultHasher {
    let mut hasher = DefaultHasher::new();
    hasher.write_u64(seed.0);
    hasher
}

/// A null.
fn nothing(seed: Seed) -> DefaultHasher {
    let mut hasher = hasher(seed);
    hasher.write_u8(0);
    hasher
}

/// Never the one that says that a value is not told.
fn finish(hasher: &DefaultHasher) -> u64 {
    hasher.finish().max(1)
}

fn feed_bytes(kind: u8, bytes: &[u8], into: &mut DefaultHasher) {
    into.write_u8(kind);
    into.write_usize(bytes.len());
    into.write(bytes);
}

/// Zero and its negative are two values; of what is no number there is one.
fn feed_float(value: f64, into: &mut DefaultHasher) {
    into.write_u8(2);
    into.write_u64(if value.is_nan() { f64::NAN.to_bits() } else { value.to_bits() });
}

const fn kind(meaning: Meaning) -> u8 {
    match meaning {
        Meaning::Plain => 10,
        Meaning::Date => 11,
        Meaning::Time => 12,
        Meaning::Timestamp { zoned: false } => 13,
        Meaning::Timestamp { zoned: true } => 14,
        Meaning::TimeMs => 15,
        Meaning::TimestampMs => 16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const SEED: Seed = Seed(7);

    fn schema(json: &Value) -> Schema {
        Schema::parse(&json.to_string()).expect("a schema")
    }

    fn row(fields: Value) -> Value {
        json!({"type": "record", "name": "Row", "fields": fields})
    }

    fn columns(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[track_caller]
    fn digests(schema: Value, of: &[&str], bytes: &[u8]) -> Vec<u64> {
        let schema = self::schema(&schema);
        let reader = ValueReader::new(schema, false, &columns(of)).expect("a row");
        let mut out = Vec::new();
        assert_eq!(reader.digest(SEED, bytes, [], &mut out), Some(Told::Row));
        out
    }

    #[test]
    fn the_same_value_has_the_same_digest_whichever_schema_it_was_written_with() {
        let narrow = row(json!([
            {"name": "a", "type": "int"},
            {"name": "b", "type": {"type": "bytes", "logicalType": "decimal", "precision": 5, "scale": 1}},
        ]));
        let wide = row(json!([
            {"name": "c", "type": ["null", "string"]},
            {"name": "b", "type": ["null",
                {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}]},
            {"name": "a", "type": ["null", "long"]},
        ]));
        let of = ["a", "b", "c"];
        // 4 and 12.5, and nothing of c.
        let before = digests(narrow, &of, &[8, 2, 125]);
        let after = digests(wide.clone(), &of, &[0, 2, 4, 0x04, 0xe2, 2, 8]);
        assert_eq!(before, after);
        let other = digests(wide, &of, &[2, 0, 2, 4, 0x04, 0xe2, 2, 8]);
        assert_eq!((before[0], before[1]), (other[0], other[1]));
        assert_ne!(before[2], other[2], "an empty text is no null");
    }

    #[test]
    fn what_a_row_does_not_tell_is_told_apart_from_null() {
        let envelope = json!({"type": "record", "name": "Envelope", "fields": [
            {"name": "before", "type": ["null", row(json!([
                {"name": "a", "type": "int"}, {"name": "t", "type": ["null", "string"]}]))]},
            {"name": "after", "type": ["null", "Row"]},
            {"name": "op", "type": "string"},
            {"name": "unchanged", "type": {"type": "array", "items": "string"}},
            {"name": "unrepresentable", "type": {"type": "map", "values": "string"}},
        ]});
        let reader = ValueReader::new(schema(&envelope), true, &columns(&["t", "a"]));
        let reader = reader.expect("an envelope");
        let mut out = Vec::new();
        let mut read = |bytes: &[u8]| (reader.digest(SEED, bytes, [], &mut out), out.clone());
        let (told, null) = read(&[0, 2, 2, 0, 2, b'u', 0, 0]);
        assert_eq!(told, Some(Told::Row));
        let (_, untold) = read(&[0, 2, 2, 0, 2, b'u', 2, 2, b't', 0, 0]);
        assert_eq!((untold[0], untold[1]), (UNTOLD, null[1]));
        // A value that the schema cannot hold is none of them.
        let mut bytes = vec![0, 2, 2, 0, 2, b'u', 0, 2, 14];
        bytes.extend_from_slice(b"after.t");
        bytes.extend_from_slice(&[6, b'N', b'a', b'N', 0]);
        let (_, said) = read(&bytes);
        assert!(said[0] != null[0] && said[0] != UNTOLD && said[1] == null[1]);
        assert_eq!(read(&[2, 2, 0, 0, 2, b'd', 0, 0]).0, Some(Told::Gone));
        assert_eq!(read(&[0, 0, 2, b't', 0, 0]).0, Some(Told::Truncated));
        assert_eq!(read(&[0, 2, 2, 0, 2, b'u', 0]).0, None, "cut short");
        assert_eq!(reader.schema.columns(true), Some(columns(&["a", "t"])));
    }

    #[test]
    fn keys_are_told_apart_by_their_values_alone() {
        let key =
            |fields: Value| schema(&json!({"type": "record", "name": "Key", "fields": fields}));
        let narrow = key(json!([{"name": "id", "type": "int"}]));
        let wide = key(json!([{"name": "number", "type": ["null", "long"]}]));
        let digest = narrow.digest_of_key(SEED, &[8]);
        assert_eq!(digest, wide.digest_of_key(SEED, &[2, 8]));
        assert_ne!(digest, narrow.digest_of_key(SEED, &[10]));
        assert_ne!(digest, narrow.digest_of_key(Seed(8), &[8]));
        let pair = key(json!([{"name": "a", "type": "string"}, {"name": "b", "type": "string"}]));
        let of = |a: &str, b: &str| {
            let mut bytes = Vec::new();
            for text in [a, b] {
                bytes.push(u8::try_from(text.len() * 2).unwrap());
                bytes.extend_from_slice(text.as_bytes());
            }
            pair.digest_of_key(SEED, &bytes).expect("a key")
        };
        assert_ne!(of("ab", "c"), of("a", "bc"));
        assert_eq!(narrow.digest_of_key(SEED, &[8, 0]), None);
    }
}
