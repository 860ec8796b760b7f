//! What is published in place of a record that cannot be.

use crate::avro::wire;
use crate::change::{Position, Transaction};
use crate::lsn::Lsn;
use crate::value::time::EPOCH_US;

/// A record that was not published. Its Avro form is [`SCHEMA`].
#[derive(Clone, Copy, Debug)]
pub struct DeadLetter<'a> {
    /// Why, as `docs/errors.md` has it.
    pub code: &'a str,
    /// Why, as a sentence.
    pub reason: &'a str,
    /// The table's schema.
    pub schema: &'a str,
    /// The table.
    pub table: &'a str,
    /// Where the record would have gone.
    pub topic: &'a str,
    /// The record's place.
    pub position: Position,
    /// Where the change stands in the log.
    pub lsn: Lsn,
    /// The transaction.
    pub transaction: Transaction,
}

/// The schema as it is registered.
pub const SCHEMA: &str = include_str!("../../../schemas/dead_letter.avsc");

impl DeadLetter<'_> {
    /// Appends the record's value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        for text in [self.code, self.reason, self.schema, self.table, self.topic] {
            wire::bytes(out, text.as_bytes());
        }
        wire::long(out, self.position.commit_lsn.0.0.cast_signed());
        wire::long(out, self.position.ordinal.cast_signed());
        wire::long(out, self.position.sub_index.into());
        wire::long(out, self.lsn.0.cast_signed());
        wire::long(out, self.transaction.xid.0.into());
        wire::long(out, self.transaction.commit_time.0.saturating_add(EPOCH_US));
    }
}

#[cfg(test)]
mod tests {
    use apache_avro::Schema;
    use apache_avro::reader::datum::GenericDatumReader;
    use apache_avro::types::Value;

    use super::*;
    use crate::lsn::CommitLsn;
    use crate::pgoutput::{PgTimestamp, Xid};

    const EXAMPLE: &str = include_str!("../../../schemas/dead_letter.example.json");

    #[test]
    fn the_example_is_what_a_reader_of_the_schema_finds() {
        let commit_lsn = CommitLsn(Lsn(97_500_059_720));
        let commit_time = PgTimestamp(1_767_225_600_123_456 - EPOCH_US);
        let letter = DeadLetter {
            code: "WT306",
            reason: "the row takes more than 10240 bytes",
            schema: "public",
            table: "orders",
            topic: "shop.public.orders",
            position: Position { commit_lsn, ordinal: 4, sub_index: 0 },
            lsn: Lsn(97_500_059_656),
            transaction: Transaction { commit_lsn, commit_time, xid: Xid(756) },
        };
        let mut bytes = Vec::new();
        letter.encode(&mut bytes);
        let schema = Schema::parse_str(SCHEMA).unwrap();
        let mut rest = bytes.as_slice();
        let read = GenericDatumReader::builder(&schema).build().unwrap().read_value(&mut rest);
        assert!(rest.is_empty());
        let Value::Record(fields) = read.unwrap() else { panic!("a record") };
        let found: serde_json::Map<String, serde_json::Value> = fields
            .into_iter()
            .map(|(name, value)| {
                let value = match value {
                    Value::String(text) => text.into(),
                    Value::Int(number) => number.into(),
                    Value::Long(number) | Value::TimestampMicros(number) => number.into(),
                    other => panic!("{name}: {other:?}"),
                };
                (name, value)
            })
            .collect();
        let example: serde_json::Value = serde_json::from_str(EXAMPLE).unwrap();
        assert_eq!(serde_json::Value::Object(found), example);
    }
}
