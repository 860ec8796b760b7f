//! Reads a record back as a consumer would: Avro bytes with their schema become JSON, or digests.
//!
//! It reads what our own plans write, and nothing else, so a mistake on either side shows as an
//! error and not as a wrong value. What JSON has no word for is text: a decimal with its scale,
//! bytes as hexadecimal digits, dates and times as ISO has them, floats that are no numbers.

mod digest;

pub use digest::{Note, Seed, Told, UNTOLD, ValueReader};

use std::collections::HashMap;

use serde_json::{Map, Value, json};

/// A schema, ready to read with.
#[derive(Debug)]
pub struct Schema {
    records: Vec<Vec<Field>>,
    root: Shape,
}

#[derive(Clone, Debug)]
struct Field {
    /// As the table has it.
    name: String,
    /// As the schema has it.
    field: String,
    shape: Shape,
}

#[derive(Clone, Debug)]
enum Shape {
    Null,
    Boolean,
    /// Int and long are the same on the wire.
    Number(Meaning),
    Float,
    Double,
    Bytes,
    /// With this scale.
    Decimal(usize),
    Text,
    Record(usize),
    Array(Box<Shape>),
    Map(Box<Shape>),
    Union(Vec<Shape>),
}

/// What a number stands for.
#[derive(Clone, Copy, Debug)]
enum Meaning {
    Plain,
    Date,
    Time,
    Timestamp {
        zoned: bool,
    },
    /// The same in milliseconds, as Debezium has what is not exact to more.
    TimeMs,
    TimestampMs,
}

impl Schema {
    /// Takes a schema as it would be registered; none where it has what no plan writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let json: Value = serde_json::from_str(text).ok()?;
        let mut parser = Parser { records: Vec::new(), names: HashMap::new() };
        let root = parser.shape(&json, "")?;
        Some(Self { records: parser.records, root })
    }

    /// A value that fills `bytes` exactly; none where it does not.
    #[must_use]
    pub fn read(&self, mut bytes: &[u8]) -> Option<Value> {
        let value = self.value(&self.root, &mut bytes)?;
        bytes.is_empty().then_some(value)
    }

    fn value(&self, shape: &Shape, bytes: &mut &[u8]) -> Option<Value> {
        Some(match shape {
            Shape::Null => Value::Null,
            Shape::Boolean => (take(bytes, 1)? != [0]).into(),
            Shape::Number(meaning) => number(*meaning, long(bytes)?),
            Shape::Float => {
                let value = f32::from_le_bytes(take(bytes, 4)?.try_into().ok()?);
                // By way of its shortest text, so that 0.1 stays 0.1.
                float(value.to_string().parse().ok()?)
            }
            Shape::Double => float(f64::from_le_bytes(take(bytes, 8)?.try_into().ok()?)),
            Shape::Bytes => hexadecimal(sized(bytes)?).into(),
            Shape::Decimal(scale) => decimal(sized(bytes)?, *scale).into(),
            Shape::Text => text(bytes)?.into(),
            Shape::Record(index) => {
                let mut fields = Map::new();
                for field in self.records.get(*index)? {
                    fields.insert(field.name.clone(), self.value(&field.shape, bytes)?);
                }
                fields.into()
            }
            Shape::Array(item) => {
                let mut items = Vec::new();
                blocks(bytes, |bytes| {
                    items.push(self.value(item, bytes)?);
                    Some(())
                })?;
                items.into()
            }
            Shape::Map(item) => {
                let mut entries = Map::new();
                blocks(bytes, |bytes| {
                    let key = text(bytes)?.to_owned();
                    entries.insert(key, self.value(item, bytes)?);
                    Some(())
                })?;
                entries.into()
            }
            Shape::Union(shapes) => {
                let branch = usize::try_from(long(bytes)?).ok()?;
                self.value(shapes.get(branch)?, bytes)?
            }
        })
    }
}

struct Parser {
    records: Vec<Vec<Field>>,
    names: HashMap<String, usize>,
}

impl Parser {
    fn shape(&mut self, json: &Value, namespace: &str) -> Option<Shape> {
        match json {
            Value::String(name) => self.named(name, namespace),
            Value::Array(branches) => {
                let shapes = branches.iter().map(|branch| self.shape(branch, namespace));
                Some(Shape::Union(shapes.collect::<Option<_>>()?))
            }
            Value::Object(of) => match of.get("type")? {
                Value::String(kind) => match kind.as_str() {
                    "record" => self.record(of, namespace),
                    "array" => {
                        Some(Shape::Array(Box::new(self.shape(of.get("items")?, namespace)?)))
                    }
                    "map" => Some(Shape::Map(Box::new(self.shape(of.get("values")?, namespace)?))),
                    kind => self.logical(kind, of, namespace),
                },
                inner => self.shape(inner, namespace),
            },
            _ => None,
        }
    }

    fn named(&self, name: &str, namespace: &str) -> Option<Shape> {
        Some(match name {
            "null" => Shape::Null,
            "boolean" => Shape::Boolean,
            "int" | "long" => Shape::Number(Meaning::Plain),
            "float" => Shape::Float,
            "double" => Shape::Double,
            "bytes" => Shape::Bytes,
            "string" => Shape::Text,
            name => Shape::Record(*self.names.get(&full(name, namespace))?),
        })
    }

    fn logical(&self, kind: &str, of: &Map<String, Value>, namespace: &str) -> Option<Shape> {
        let meaning = match of.get("logicalType").and_then(Value::as_str) {
            Some("decimal") => {
                let scale = of.get("scale").and_then(Value::as_u64).unwrap_or(0);
                return Some(Shape::Decimal(usize::try_from(scale).ok()?));
            }
            Some("date") => Meaning::Date,
            Some("time-micros") => Meaning::Time,
            Some("timestamp-micros") => Meaning::Timestamp { zoned: true },
            Some("local-timestamp-micros") => Meaning::Timestamp { zoned: false },
            _ => match of.get("connect.name").and_then(Value::as_str) {
                Some("io.debezium.time.Date") => Meaning::Date,
                Some("io.debezium.time.Time") => Meaning::TimeMs,
                Some("io.debezium.time.MicroTime") => Meaning::Time,
                Some("io.debezium.time.Timestamp") => Meaning::TimestampMs,
                Some("io.debezium.time.MicroTimestamp") => Meaning::Timestamp { zoned: false },
                _ => return self.named(kind, namespace),
            },
        };
        Some(Shape::Number(meaning))
    }

    fn record(&mut self, of: &Map<String, Value>, namespace: &str) -> Option<Shape> {
        let namespace = of.get("namespace").and_then(Value::as_str).unwrap_or(namespace);
        let name = full(of.get("name")?.as_str()?, namespace);
        // Its place is taken before those of the records within it.
        let index = self.records.len();
        self.records.push(Vec::new());
        self.names.insert(name, index);
        let mut fields = Vec::new();
        for field in of.get("fields")?.as_array()? {
            let of = field.get("name")?.as_str()?.to_owned();
            // As the table has it, where Avro could not.
            let name =
                field.get("postgres.column").and_then(Value::as_str).unwrap_or(&of).to_owned();
            let shape = self.shape(field.get("type")?, namespace)?;
            fields.push(Field { name, field: of, shape });
        }
        *self.records.get_mut(index)? = fields;
        Some(Shape::Record(index))
    }
}

fn full(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() {
        name.to_owned()
    } else {
        format!("{namespace}.{name}")
    }
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

fn long(bytes: &mut &[u8]) -> Option<i64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = *take(bytes, 1)?.first()?;
        value |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
        }
    }
    None
}

fn sized<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(long(bytes)?).ok()?;
    take(bytes, len)
}

fn text<'a>(bytes: &mut &'a [u8]) -> Option<&'a str> {
    std::str::from_utf8(sized(bytes)?).ok()
}

/// Blocks of items, each with its count; a negative one is followed by the block's size.
fn blocks(bytes: &mut &[u8], mut item: impl FnMut(&mut &[u8]) -> Option<()>) -> Option<()> {
    loop {
        let count = long(bytes)?;
        if count == 0 {
            return Some(());
        }
        if count < 0 {
            long(bytes)?;
        }
        for _ in 0..count.unsigned_abs() {
            item(bytes)?;
        }
    }
}

fn float(value: f64) -> Value {
    match serde_json::Number::from_f64(value) {
        Some(number) => number.into(),
        None if value.is_nan() => json!("NaN"),
        None => json!(if value > 0.0 { "Infinity" } else { "-Infinity" }),
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold("\\x".to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A number in two's complement, of any length, in decimal digits.
fn decimal(bytes: &[u8], scale: usize) -> String {
    let negative = bytes.first().is_some_and(|first| first & 0x80 != 0);
    let mut magnitude = bytes.to_vec();
    if negative {
        let mut carry = true;
        for byte in magnitude.iter_mut().rev() {
            let (sum, over) = (!*byte).overflowing_add(u8::from(carry));
            (*byte, carry) = (sum, over);
        }
    }
    let mut digits = Vec::new();
    while magnitude.iter().any(|byte| *byte != 0) {
        let mut rest = 0_u32;
        for byte in &mut magnitude {
            let value = rest << 8 | u32::from(*byte);
            *byte = u8::try_from(value / 10).unwrap_or(u8::MAX);
            rest = value % 10;
        }
        digits.push(char::from_digit(rest, 10).unwrap_or('?'));
    }
    while digits.len() <= scale {
        digits.push('0');
    }
    if scale > 0 {
        digits.insert(scale, '.');
    }
    if negative {
        digits.push('-');
    }
    digits.into_iter().rev().collect()
}

fn number(meaning: Meaning, value: i64) -> Value {
    const DAY_US: i64 = 86_400_000_000;
    match meaning {
        Meaning::Plain => value.into(),
        Meaning::Date => date(value).into(),
        Meaning::Time => time(value).into(),
        Meaning::TimeMs => time(value.saturating_mul(1_000)).into(),
        Meaning::TimestampMs => {
            number(Meaning::Timestamp { zoned: false }, value.saturating_mul(1_000))
        }
        Meaning::Timestamp { zoned } => {
            let (day, us) = (value.div_euclid(DAY_US), value.rem_euclid(DAY_US));
            format!("{}T{}{}", date(day), time(us), if zoned { "Z" } else { "" }).into()
        }
    }
}

fn time(us: i64) -> String {
    let seconds = us / 1_000_000;
    let clock = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    match us % 1_000_000 {
        0 => clock,
        us => format!("{clock}.{us:06}").trim_end_matches('0').to_owned(),
    }
}

/// A day counted from 1970; ISO's years before 1 are 0 and below.
fn date(day: i64) -> String {
    // Eras of 400 years that begin on the first of March, so that the leap day comes last.
    let day = day.saturating_add(719_468);
    let (era, day) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + i64::from(month <= 2);
    if year < 0 {
        format!("-{:04}-{month:02}-{day:02}", -year)
    } else {
        format!("{year:04}-{month:02}-{day:02}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(schema: &Value, bytes: &[u8]) -> Option<Value> {
        Schema::parse(&schema.to_string()).unwrap().read(bytes)
    }

    #[test]
    fn decimals_of_any_length_keep_scale_and_sign() {
        let schema = json!({"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2});
        assert_eq!(read(&schema, &[4, 0x04, 0xe2]), Some(json!("12.50")));
        assert_eq!(read(&schema, &[2, 0xfb]), Some(json!("-0.05")));
        assert_eq!(read(&schema, &[2, 0]), Some(json!("0.00")));
        assert_eq!(decimal(&[0x80, 0, 0, 0, 0, 0, 0, 0, 0], 0), "-2361183241434822606848");
    }

    #[test]
    fn times_are_as_iso_has_them() {
        assert_eq!(number(Meaning::Date, 0), json!("1970-01-01"));
        assert_eq!(number(Meaning::Date, -719_529), json!("-0001-12-31"));
        let zoned = Meaning::Timestamp { zoned: true };
        assert_eq!(number(zoned, 951_782_399_500_000), json!("2000-02-28T23:59:59.5Z"));
        assert_eq!(number(zoned, -1), json!("1969-12-31T23:59:59.999999Z"));
        assert_eq!(number(Meaning::Time, 86_400_000_000), json!("24:00:00"));
    }

    #[test]
    fn a_name_is_found_in_its_namespace_and_bytes_that_do_not_fit_are_refused() {
        let row = json!({"type": "record", "name": "Row", "fields": [
            {"name": "a_5fb", "postgres.column": "a_b", "type": ["null", "int"]},
        ]});
        let schema = json!({"type": "record", "name": "Envelope", "namespace": "shop", "fields": [
            {"name": "before", "type": ["null", row]},
            {"name": "after", "type": ["null", "Row"]},
            {"name": "tags", "type": {"type": "array", "items": "string"}},
        ]});
        let whole = [0, 2, 2, 3, 2, 2, b'x', 0];
        let value = json!({"before": null, "after": {"a_b": -2}, "tags": ["x"]});
        assert_eq!(read(&schema, &whole), Some(value));
        assert_eq!(read(&schema, &whole[..7]), None);
        assert_eq!(read(&schema, &[&whole[..], &[0]].concat()), None);
        assert_eq!(read(&json!("long"), &[0xFF; 12]), None);
    }
}
