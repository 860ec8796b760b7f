//! That a table has been read whole, for consumers that wait for it.

use crate::avro::wire;
use crate::lsn::Lsn;

/// Its schema. Its records have no key.
pub const END_SCHEMA: &str = include_str!("../../../../schemas/snapshot.avsc");

/// One of them.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// The pipeline's name.
    pub pipeline: &'a str,
    /// The source's database.
    pub database: &'a str,
    /// The table's schema.
    pub schema: &'a str,
    /// The table's name.
    pub table: &'a str,
    /// Records it took.
    pub rows: u64,
    /// Where the stream was.
    pub position: Lsn,
    /// Microseconds since 1970.
    pub at_us: i64,
    /// Which rows were read, where not all.
    pub filter: Option<&'a str>,
}

impl End<'_> {
    /// Appends the value.
    pub fn write(&self, out: &mut Vec<u8>) {
        for text in [self.pipeline, self.database, self.schema, self.table] {
            wire::bytes(out, text.as_bytes());
        }
        wire::long(out, self.rows.cast_signed());
        wire::long(out, self.position.0.cast_signed());
        wire::long(out, self.at_us);
        wire::long(out, i64::from(self.filter.is_some()));
        if let Some(filter) = self.filter {
            wire::bytes(out, filter.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use apache_avro::reader::datum::GenericDatumReader;
    use apache_avro::{Schema, from_value};
    use serde_json::Value;

    use super::*;

    #[test]
    fn the_example_is_what_a_reader_of_the_schema_finds() {
        let end = End {
            pipeline: "shop",
            database: "shop",
            schema: "public",
            table: "orders",
            rows: 1_000_000,
            position: Lsn(97_500_059_768),
            at_us: 1_767_225_600_123_456,
            filter: None,
        };
        let mut bytes = Vec::new();
        end.write(&mut bytes);
        let schema = Schema::parse_str(END_SCHEMA).unwrap();
        let reader = GenericDatumReader::builder(&schema).build().unwrap();
        let value = reader.read_value(&mut bytes.as_slice()).unwrap();
        let example = include_str!("../../../../schemas/snapshot.example.json");
        let expected = serde_json::from_str::<Value>(example).unwrap();
        assert_eq!(from_value::<Value>(&value).unwrap(), expected);
        bytes.clear();
        End { filter: Some("a > 0"), ..end }.write(&mut bytes);
        let value = from_value::<Value>(&reader.read_value(&mut bytes.as_slice()).unwrap());
        assert_eq!(value.unwrap()["where"], "a > 0");
    }
}
