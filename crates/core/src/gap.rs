//! The record of changes that somebody decided to go on without.

use crate::avro::wire;
use crate::lsn::Lsn;

/// Its schema, as it is registered.
pub const SCHEMA: &str = include_str!("../../../schemas/gap.avsc");

/// Changes that are in no topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The pipeline.
    pub pipeline: String,
    /// The source's database from now on.
    pub database: String,
    /// Everything committed before is published; none where nobody knows.
    pub from: Option<Lsn>,
    /// What is committed from here on is published.
    pub to: Lsn,
    /// Whether both are positions of one log.
    pub same_history: bool,
    /// What had stopped the pipeline.
    pub reason: String,
    /// When somebody decided so, in microseconds since 1970.
    pub recorded_at_us: i64,
}

impl Gap {
    /// Appends its Avro form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let string = |out: &mut Vec<u8>, text: &str| {
            wire::size(out, text.len());
            out.extend_from_slice(text.as_bytes());
        };
        string(out, &self.pipeline);
        string(out, &self.database);
        match self.from {
            None => wire::long(out, 0),
            Some(from) => {
                wire::long(out, 1);
                string(out, &from.to_string());
            }
        }
        string(out, &self.to.to_string());
        wire::boolean(out, self.same_history);
        string(out, &self.reason);
        wire::long(out, self.recorded_at_us);
    }
}

#[cfg(test)]
mod tests {
    use apache_avro::Schema;
    use apache_avro::types::Value;

    use super::*;

    /// The committed example, as an independent reader has it from our bytes.
    #[test]
    fn the_example_is_what_is_written() {
        let example: serde_json::Value =
            serde_json::from_str(include_str!("../../../schemas/gap.example.json")).unwrap();
        let text = |key: &str| example[key].as_str().unwrap().to_owned();
        let gap = Gap {
            pipeline: text("pipeline"),
            database: text("database"),
            from: Some(text("from_lsn").parse().unwrap()),
            to: text("to_lsn").parse().unwrap(),
            same_history: true,
            reason: text("reason"),
            recorded_at_us: example["recorded_at"].as_i64().unwrap(),
        };
        for gap in [gap.clone(), Gap { from: None, ..gap }] {
            let mut bytes = Vec::new();
            gap.encode(&mut bytes);
            let schema = Schema::parse_str(SCHEMA).unwrap();
            let mut rest = bytes.as_slice();
            let read = apache_avro::reader::datum::GenericDatumReader::builder(&schema)
                .build()
                .unwrap()
                .read_value(&mut rest)
                .unwrap();
            assert!(rest.is_empty());
            let Value::Record(fields) = read else { panic!("a record") };
            let from = gap.from.map(|from| Value::String(from.to_string()));
            let (branch, from) = from.map_or((0, Value::Null), |from| (1, from));
            let expected = [
                Value::String(gap.pipeline.clone()),
                Value::String(gap.database.clone()),
                Value::Union(branch, Box::new(from)),
                Value::String(gap.to.to_string()),
                Value::Boolean(true),
                Value::String(gap.reason.clone()),
                Value::TimestampMicros(gap.recorded_at_us),
            ];
            let values: Vec<Value> = fields.into_iter().map(|(_, value)| value).collect();
            assert_eq!(values, expected);
        }
    }
}
