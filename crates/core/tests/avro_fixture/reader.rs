//! A second Avro reader, which reads by the schema's JSON alone and gives JSON in the form of the
//! golden events: bytes as `{"bytes": hex}`, decimals as `{"decimal": text}`, floats that are no
//! numbers as `{"float": text}`.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it is only for tests"
)]

use std::collections::HashMap;

use serde_json::{Map, Value, json};

/// Reads a body in full.
pub fn read(schema: &str, body: &[u8]) -> Value {
    let schema: Value = serde_json::from_str(schema).unwrap();
    let mut reader = Reader { rest: body, named: HashMap::new() };
    reader.define(&schema, "");
    let value = reader.value(&schema, "");
    assert!(reader.rest.is_empty(), "{} bytes are left over", reader.rest.len());
    value
}

struct Reader<'a> {
    rest: &'a [u8],
    named: HashMap<String, (Value, String)>,
}

impl Reader<'_> {
    fn define(&mut self, schema: &Value, space: &str) {
        match schema {
            Value::Array(branches) => branches.iter().for_each(|branch| self.define(branch, space)),
            Value::Object(of) => {
                let space = of.get("namespace").and_then(Value::as_str).unwrap_or(space);
                if let Some(name) = of.get("name").and_then(Value::as_str) {
                    let full = format!("{space}.{name}");
                    self.named.insert(full, (schema.clone(), space.to_owned()));
                }
                for inner in ["items", "values"] {
                    of.get(inner).into_iter().for_each(|inner| self.define(inner, space));
                }
                let fields = of.get("fields").and_then(Value::as_array).into_iter().flatten();
                fields.for_each(|field| self.define(&field["type"], space));
                of.get("type").filter(|of| !of.is_string()).into_iter().for_each(|of| {
                    self.define(of, space);
                });
            }
            _ => {}
        }
    }

    fn value(&mut self, schema: &Value, space: &str) -> Value {
        match schema {
            Value::Array(branches) => {
                let branch = self.long();
                self.value(&branches[branch as usize], space)
            }
            Value::String(name) => self.plain(name, schema, space),
            Value::Object(of) => {
                let space = of.get("namespace").and_then(Value::as_str).unwrap_or(space);
                match of["type"].as_str() {
                    Some(name) => self.plain(name, schema, space),
                    None => self.value(&of["type"], space),
                }
            }
            other => panic!("{other} is no schema"),
        }
    }

    fn plain(&mut self, name: &str, schema: &Value, space: &str) -> Value {
        match name {
            "null" => Value::Null,
            "boolean" => Value::Bool(self.take(1)[0] == 1),
            "int" | "long" => json!(self.long()),
            "float" => float(f32::from_le_bytes(self.take(4).try_into().unwrap()).into()),
            "double" => float(f64::from_le_bytes(self.take(8).try_into().unwrap())),
            "string" => {
                let length = self.long() as usize;
                Value::String(String::from_utf8(self.take(length).to_vec()).unwrap())
            }
            "bytes" => {
                let length = self.long() as usize;
                let bytes = self.take(length).to_vec();
                match schema.get("logicalType").and_then(Value::as_str) {
                    Some("decimal") => decimal(&bytes, schema["scale"].as_u64().unwrap() as usize),
                    _ => json!({ "bytes": hex(&bytes) }),
                }
            }
            "array" => Value::Array(self.blocks(|reader| reader.value(&schema["items"], space))),
            "map" => {
                let entries = self.blocks(|reader| {
                    let key = reader.value(&json!("string"), space);
                    (key.as_str().unwrap().to_owned(), reader.value(&schema["values"], space))
                });
                Value::Object(entries.into_iter().collect())
            }
            "record" => {
                let mut record = Map::new();
                for field in schema["fields"].as_array().unwrap() {
                    let name = field["name"].as_str().unwrap().to_owned();
                    record.insert(name, self.value(&field["type"], space));
                }
                Value::Object(record)
            }
            name => {
                let full = format!("{space}.{name}");
                let found = self.named.get(name).or_else(|| self.named.get(&full));
                let (schema, space) = found.unwrap_or_else(|| panic!("{name} is unknown")).clone();
                self.value(&schema, &space)
            }
        }
    }

    fn blocks<T>(&mut self, mut item: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let mut items = Vec::new();
        loop {
            let count = self.long();
            assert!(count >= 0, "no block says how long it is");
            if count == 0 {
                return items;
            }
            (0..count).for_each(|_| items.push(item(self)));
        }
    }

    fn long(&mut self) -> i64 {
        let (mut number, mut shift) = (0_u64, 0);
        loop {
            let byte = self.take(1)[0];
            number |= u64::from(byte & 0x7F) << shift;
            shift += 7;
            if byte < 0x80 {
                return (number >> 1).cast_signed() ^ -(number & 1).cast_signed();
            }
        }
    }

    fn take(&mut self, length: usize) -> &[u8] {
        let (head, tail) = self.rest.split_at(length);
        self.rest = tail;
        head
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn float(value: f64) -> Value {
    match value {
        value if value.is_finite() => json!(value),
        value if value.is_nan() => json!({ "float": "nan" }),
        value => json!({ "float": if value > 0.0 { "inf" } else { "-inf" } }),
    }
}

fn decimal(bytes: &[u8], scale: usize) -> Value {
    let start = if bytes[0] >= 0x80 { -1_i128 } else { 0 };
    let unscaled = bytes.iter().fold(start, |sum, byte| sum << 8 | i128::from(*byte));
    let digits = format!("{:0width$}", unscaled.unsigned_abs(), width = scale + 1);
    let (whole, part) = digits.split_at(digits.len() - scale);
    let sign = if unscaled < 0 { "-" } else { "" };
    let point = if scale > 0 { "." } else { "" };
    json!({ "decimal": format!("{sign}{whole}{point}{part}") })
}
