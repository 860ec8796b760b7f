//! The headers by which Debezium ties together the records of a changed key.

use super::codec::Codec;
use super::debezium_codec::DebeziumCodec;
use super::error::DataError;
use super::notes::{Notes, Path};
use super::options::Profile;
use super::plan::Plan;
use super::record::Record;
use super::wire;
use crate::change::Row;
use crate::value::{Datum, Fault, put};

impl Plan {
    /// The header that ties a record of a changed key to the record of the other key, and that
    /// other record: `__debezium.newkey` where the row went, `__debezium.oldkey` where it goes on.
    /// None for other records, and in the waltide profile.
    #[inline]
    #[must_use]
    pub fn key_header<'a>(
        &self,
        row: &Row<'a>,
        record: &Record<'a>,
    ) -> Option<(&'static str, Record<'a>)> {
        if self.profile != Profile::Debezium {
            return None;
        }
        match (*row, *record) {
            (Row::Update { old, new }, Record::Delete(_) | Record::Tombstone(_)) => {
                Some(("__debezium.newkey", Record::Create { old, new }))
            }
            (_, Record::Create { old: Some(old), .. }) => {
                Some(("__debezium.oldkey", Record::Delete(old)))
            }
            _ => None,
        }
    }

    /// Appends a record's key as Debezium writes it into the headers `__debezium.newkey` and
    /// `__debezium.oldkey`: `Struct{tenant=a,no=2}`.
    ///
    /// # Errors
    /// Where the row does not have the key, or a value of it is malformed.
    pub fn write_key_text(
        &self,
        record: &Record<'_>,
        notes: &mut Notes,
        out: &mut Vec<u8>,
    ) -> Result<(), DataError> {
        out.extend_from_slice(b"Struct{");
        let mut first = true;
        self.each_key_field(record, |column, datum| {
            if let Some(datum) = datum {
                put!(out, "{}{}=", if first { "" } else { "," }, column.field);
                first = false;
                let Some(plan) = &column.plan else { return Ok(()) };
                write_java(&plan.slot.codec, datum, notes, out)?;
            }
            Ok(())
        })?;
        out.push(b'}');
        Ok(())
    }
}

/// A value as Java prints it.
fn write_java(
    codec: &Codec,
    datum: Datum<'_>,
    notes: &mut Notes,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    let path = Path::name(None, "");
    let mut encoded = notes.borrow();
    let written = codec.write(datum, &path, notes, &mut encoded);
    let long = wire::read_long(&encoded);
    match (codec, long) {
        _ if written.is_err() => {}
        (Codec::Bool | Codec::Debezium(DebeziumCodec::Bit), _) => {
            put!(out, "{}", encoded == [1]);
        }
        (codec, Some((number, _))) if codec.is_integer() => put!(out, "{number}"),
        (codec, Some((_, text))) if codec.is_string() => out.extend_from_slice(text),
        _ => codec.form().describe(datum, out),
    }
    notes.give_back(encoded);
    written
}
