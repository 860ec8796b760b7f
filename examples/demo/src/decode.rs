//! From a record's bytes to the row in it, as any consumer would: the schema's id leads to the
//! registry, and `apache-avro` reads with what that says. Nothing of the daemon's own is used.

use std::collections::HashMap;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value as Avro;
use num_bigint::BigInt;
use serde_json::Value as Json;
use waltide_stack::Registry;

use crate::shop::{Op, Row};

/// A change as its envelope tells it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Envelope {
    pub(crate) op: Op,
    pub(crate) before: Option<Row>,
    pub(crate) after: Option<Row>,
    /// Whether the old row is no more than its key.
    pub(crate) before_is_key: bool,
    pub(crate) committed_at_us: i64,
}

/// One version of a record's schema.
pub(crate) struct Reader {
    schema: Schema,
    /// Of its decimal columns.
    scales: HashMap<String, usize>,
    /// The columns of the row in it.
    pub(crate) columns: Vec<String>,
}

/// The schemas met so far, by their ids.
pub(crate) struct Schemas {
    registry: Registry,
    readers: HashMap<u32, Reader>,
}

impl Schemas {
    pub(crate) fn new(registry: Registry) -> Self {
        Self { registry, readers: HashMap::new() }
    }

    /// Splits the id off and finds its schema.
    pub(crate) fn reader<'a>(
        &mut self,
        bytes: &'a [u8],
    ) -> Result<(u32, &Reader, &'a [u8]), String> {
        let Some((&[0, a, b, c, d], datum)) = bytes.split_first_chunk() else {
            return Err("it does not begin with a schema's id".to_owned());
        };
        let id = u32::from_be_bytes([a, b, c, d]);
        if !self.readers.contains_key(&id) {
            self.readers.insert(id, Reader::new(&self.registry.schema(id))?);
        }
        Ok((id, &self.readers[&id], datum))
    }
}

impl Reader {
    fn new(json: &Json) -> Result<Self, String> {
        let schema = Schema::parse(json).map_err(|error| format!("its schema: {error}"))?;
        // The row stands in the envelope's first field; a key is a row itself.
        let fields = json["fields"].as_array().map(Vec::as_slice).unwrap_or_default();
        let in_envelope = fields.iter().find(|field| field["name"] == "before");
        let fields = in_envelope
            .and_then(|before| before["type"].as_array()?.last()?["fields"].as_array())
            .map_or(fields, Vec::as_slice);
        let name = |field: &Json| field["name"].as_str().map(str::to_owned);
        let scales = fields.iter().filter_map(|field| {
            let of = &field["type"];
            let of = of.as_array().and_then(|union| union.last()).unwrap_or(of);
            let scale = (of["logicalType"] == "decimal").then(|| of["scale"].as_u64().unwrap_or(0));
            Some((name(field)?, usize::try_from(scale?).ok()?))
        });
        Ok(Self {
            schema,
            scales: scales.collect(),
            columns: fields.iter().filter_map(name).collect(),
        })
    }

    /// Reads a value that must fill `datum` exactly, as the fields of a record.
    fn fields(&self, mut datum: &[u8]) -> Result<Vec<(String, Avro)>, String> {
        let value = GenericDatumReader::builder(&self.schema)
            .build()
            .and_then(|reader| reader.read_value(&mut datum))
            .map_err(|error| error.to_string())?;
        match value {
            Avro::Record(fields) if datum.is_empty() => Ok(fields),
            Avro::Record(_) => Err(format!("{} bytes stand behind it", datum.len())),
            _ => Err("it is no record".to_owned()),
        }
    }

    pub(crate) fn key(&self, datum: &[u8]) -> Result<Row, String> {
        self.row(self.fields(datum)?)
    }

    pub(crate) fn envelope(&self, datum: &[u8]) -> Result<Envelope, String> {
        let (mut op, mut before, mut after) = (None, None, None);
        let (mut before_is_key, mut committed_at_us) = (false, None);
        for (name, value) in self.fields(datum)? {
            match (name.as_str(), inner(value)) {
                ("op", Avro::String(letter)) => op = Some(letter),
                ("before", Avro::Record(fields)) => before = Some(self.row(fields)?),
                ("after", Avro::Record(fields)) => after = Some(self.row(fields)?),
                ("before_is_key", Avro::Boolean(is)) => before_is_key = is,
                ("ts_us", Avro::TimestampMicros(at)) => committed_at_us = Some(at),
                _ => {}
            }
        }
        let op = match op.as_deref() {
            Some("c") => Op::Insert,
            Some("u") => Op::Update,
            Some("d") => Op::Delete,
            other => return Err(format!("its op is {other:?}")),
        };
        let committed_at_us = committed_at_us.ok_or("it has no ts_us")?;
        Ok(Envelope { op, before, after, before_is_key, committed_at_us })
    }

    fn row(&self, fields: Vec<(String, Avro)>) -> Result<Row, String> {
        let mut row = Row::default();
        for (name, value) in fields {
            let text = match inner(value) {
                Avro::Null => continue,
                Avro::Boolean(it) => it.to_string(),
                Avro::Int(it) => it.to_string(),
                Avro::Long(it) | Avro::TimestampMicros(it) => it.to_string(),
                Avro::String(it) => it,
                Avro::Decimal(it) => {
                    decimal(&BigInt::from(it), self.scales.get(&name).copied().unwrap_or(0))
                }
                other => return Err(format!("column {name} is {other:?}")),
            };
            row.0.insert(name, text);
        }
        Ok(row)
    }
}

fn inner(value: Avro) -> Avro {
    match value {
        Avro::Union(_, value) => *value,
        value => value,
    }
}

/// As Postgres prints it.
fn decimal(unscaled: &BigInt, scale: usize) -> String {
    let text = unscaled.to_string();
    let (sign, digits) = text.strip_prefix('-').map_or(("", text.as_str()), |rest| ("-", rest));
    if scale == 0 {
        return text;
    }
    let digits = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    format!("{sign}{whole}.{fraction}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn reader() -> Reader {
        let price = json!({"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 2});
        let row = json!({"type": "record", "name": "Row", "fields": [
            {"name": "id", "type": "long"},
            {"name": "price", "type": ["null", price]},
        ]});
        Reader::new(&json!({"type": "record", "name": "Envelope", "fields": [
            {"name": "before", "type": ["null", row]},
            {"name": "after", "type": ["null", "Row"]},
            {"name": "op", "type": "string"},
            {"name": "ts_us", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        ]}))
        .unwrap()
    }

    #[test]
    fn an_envelope_is_read_with_its_decimals_as_postgres_prints_them() {
        // before null; after (id 3, price -0.05); op "c"; ts_us 1.
        let bytes = [0, 2, 6, 2, 2, 0xfb, 2, b'c', 2];
        let envelope = reader().envelope(&bytes).unwrap();
        let after = Row::from_json(r#"{"id": 3, "price": "-0.05"}"#).unwrap();
        assert_eq!((envelope.op, envelope.after), (Op::Insert, Some(after)));
        assert_eq!((envelope.before, envelope.committed_at_us), (None, 1));
    }

    #[test]
    fn bytes_behind_a_value_and_an_unknown_op_are_errors() {
        let reader = reader();
        assert!(reader.envelope(&[0, 0, 2, b'c', 2, 0]).unwrap_err().contains("1 bytes"));
        assert!(reader.envelope(&[0, 0, 2, b'x', 2]).unwrap_err().contains("op"));
    }

    #[test]
    fn the_rows_columns_are_known_from_the_schema() {
        assert_eq!(reader().columns, ["id", "price"]);
    }
}
