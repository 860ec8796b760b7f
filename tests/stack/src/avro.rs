//! Avro as JSON, for assertions: decoded by `apache-avro`, independently of our own encoder.
//!
//! What JSON cannot say exactly is a string: a decimal with its scale ("12.50"), bytes and fixed
//! (hexadecimal digits), the floats NaN, Infinity and -Infinity. Numbers with a date or time as
//! their logical type stay the numbers they are on the wire. A union is the value it holds.

use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::schema::{NamesRef, ResolvedSchema};
use apache_avro::types::Value as Avro;
use apache_avro::{Decimal, Schema};
use num_bigint::BigInt;
use serde_json::{Value, json};

use crate::error::Error;

/// Decodes what one schema wrote.
#[derive(Debug)]
pub(crate) struct Decoder {
    schema: Schema,
}

impl Decoder {
    pub(crate) fn new(schema: &Value) -> Result<Self, Error> {
        let schema = Schema::parse(schema).map_err(Error::because("not an Avro schema"))?;
        Ok(Self { schema })
    }

    /// Decodes a datum that must fill `bytes` exactly.
    pub(crate) fn decode(&self, mut bytes: &[u8]) -> Result<Value, Error> {
        let resolved = ResolvedSchema::new(&self.schema)
            .map_err(Error::because("a schema with unknown names"))?;
        let value = GenericDatumReader::builder(&self.schema)
            .build()
            .and_then(|reader| reader.read_value(&mut bytes))
            .map_err(Error::because("not a value of its schema"))?;
        if !bytes.is_empty() {
            return Err(Error::new(format!("{} bytes after the value", bytes.len())));
        }
        json_of(&value, &self.schema, resolved.get_names())
    }
}

fn json_of(value: &Avro, schema: &Schema, names: &NamesRef<'_>) -> Result<Value, Error> {
    if let Schema::Ref { name } = schema {
        let schema = names.get(name).ok_or_else(|| Error::new(format!("no schema {name}")))?;
        return json_of(value, schema, names);
    }
    let json = match (value, schema) {
        (Avro::Union(branch, value), Schema::Union(union)) => {
            let branch = usize::try_from(*branch).ok().and_then(|i| union.variants().get(i));
            let schema = branch.ok_or_else(|| Error::new("a union branch beyond the schema"))?;
            json_of(value, schema, names)?
        }
        (Avro::Record(fields), Schema::Record(record)) => {
            let fields = fields.iter().zip(&record.fields);
            let members = fields.map(|((name, value), field)| {
                Ok((name.clone(), json_of(value, &field.schema, names)?))
            });
            Value::Object(members.collect::<Result<_, Error>>()?)
        }
        (Avro::Array(items), Schema::Array(array)) => {
            let items = items.iter().map(|item| json_of(item, &array.items, names));
            Value::Array(items.collect::<Result<_, _>>()?)
        }
        (Avro::Map(entries), Schema::Map(map)) => {
            let members = entries
                .iter()
                .map(|(key, value)| Ok((key.clone(), json_of(value, &map.types, names)?)));
            Value::Object(members.collect::<Result<_, Error>>()?)
        }
        (Avro::Decimal(decimal), Schema::Decimal(schema)) => {
            decimal_text(decimal, schema.scale).into()
        }
        (value, _) => scalar(value)?,
    };
    Ok(json)
}

fn scalar(value: &Avro) -> Result<Value, Error> {
    Ok(match value {
        Avro::Null => Value::Null,
        Avro::Boolean(it) => json!(it),
        Avro::Int(it) | Avro::Date(it) | Avro::TimeMillis(it) => json!(it),
        Avro::Long(it)
        | Avro::TimeMicros(it)
        | Avro::TimestampMillis(it)
        | Avro::TimestampMicros(it)
        | Avro::TimestampNanos(it)
        | Avro::LocalTimestampMillis(it)
        | Avro::LocalTimestampMicros(it)
        | Avro::LocalTimestampNanos(it) => json!(it),
        // By way of its shortest text, so that 0.1 stays 0.1.
        Avro::Float(it) => float(it.to_string().parse().unwrap_or(f64::from(*it))),
        Avro::Double(it) => float(*it),
        Avro::String(it) | Avro::Enum(_, it) => json!(it),
        Avro::Bytes(it) | Avro::Fixed(_, it) => json!(hexadecimal(it)),
        Avro::Uuid(it) => json!(it.to_string()),
        Avro::Duration(it) => json!({
            "months": u32::from(it.months()),
            "days": u32::from(it.days()),
            "millis": u32::from(it.millis()),
        }),
        other => return Err(Error::new(format!("no JSON for {other:?}"))),
    })
}

fn float(value: f64) -> Value {
    if value.is_finite() {
        json!(value)
    } else if value.is_nan() {
        json!("NaN")
    } else {
        json!(if value > 0.0 { "Infinity" } else { "-Infinity" })
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn decimal_text(decimal: &Decimal, scale: usize) -> String {
    let unscaled = BigInt::from(decimal.clone()).to_string();
    let (sign, digits) = match unscaled.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", unscaled.as_str()),
    };
    if scale == 0 {
        return unscaled;
    }
    let digits = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    format!("{sign}{whole}.{fraction}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(schema: Value, bytes: &[u8]) -> Value {
        Decoder::new(&schema).and_then(|decoder| decoder.decode(bytes)).expect("decodes")
    }

    #[test]
    fn a_decimal_keeps_its_scale_and_sign() {
        let schema = json!({"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2});
        assert_eq!(decoded(schema.clone(), &[4, 0x04, 0xe2]), json!("12.50"));
        assert_eq!(decoded(schema.clone(), &[2, 0xfb]), json!("-0.05"));
        assert_eq!(decoded(schema, &[2, 0]), json!("0.00"));
    }

    #[test]
    fn a_record_named_twice_is_decoded_where_it_is_only_referred_to() {
        let row = json!({"type": "record", "name": "shop.Row", "fields": [
            {"name": "n", "type": {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 1}},
        ]});
        let schema = json!({"type": "record", "name": "shop.Envelope", "fields": [
            {"name": "before", "type": ["null", row]},
            {"name": "after", "type": ["null", "shop.Row"]},
        ]});
        let value = decoded(schema, &[0, 2, 2, 15]);
        assert_eq!(value, json!({"before": null, "after": {"n": "1.5"}}));
    }

    #[test]
    fn bytes_after_the_value_are_an_error() {
        let decoder = Decoder::new(&json!("int")).expect("a schema");
        assert!(decoder.decode(&[2, 0]).is_err());
    }

    #[test]
    fn floats_that_json_lacks_are_words() {
        assert_eq!(decoded(json!("float"), &f32::NAN.to_le_bytes()), json!("NaN"));
        assert_eq!(decoded(json!("float"), &0.1f32.to_le_bytes()), json!(0.1));
        assert_eq!(decoded(json!("double"), &f64::NEG_INFINITY.to_le_bytes()), json!("-Infinity"));
    }
}
