//! Views on rows, columns and truncated relations. On the row path: nothing here allocates.
//!
//! One function finds a field, for the decoder that checks a tuple and for the iterator that
//! walks it, so the two cannot disagree; the same holds for columns. Their `Debug` shows the
//! shape and never a value: rows must not reach a log.

use std::fmt;
use std::iter::FusedIterator;

use super::reader::Reader;
use super::{Column, Columns, DecodeError, Fault, Field, LogicalMessage, RelationId};
use super::{Truncate, Tuple};

/// The first field of `bytes` and what follows it.
#[inline(always)]
fn split_field(bytes: &[u8]) -> Option<(Field<'_>, &[u8])> {
    match bytes {
        [kind @ (b'b' | b't'), a, b, c, d, rest @ ..] => {
            let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
            let (value, rest) = rest.split_at_checked(length)?;
            let field = if *kind == b'b' { Field::Binary(value) } else { Field::Text(value) };
            Some((field, rest))
        }
        [b'n', rest @ ..] => Some((Field::Null, rest)),
        [b'u', rest @ ..] => Some((Field::Unchanged, rest)),
        _ => None,
    }
}

impl<'a> Tuple<'a> {
    /// Checks a tuple as the protocol writes it (Int16 number of fields, the fields, nothing more).
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let tuple = Self::read(&mut reader)?;
        reader.finish()?;
        Ok(tuple)
    }

    #[inline]
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let count = reader.count16("number of fields")?;
        let mut rest = reader.rest();
        for _ in 0..count {
            match split_field(rest) {
                Some((_, after)) => rest = after,
                None => return Err(Self::explain(*reader, rest)),
            }
        }
        Ok(Self { bytes: reader.advance_to(rest), count })
    }

    /// Why there is no field at `at`.
    #[cold]
    fn explain(mut reader: Reader<'a>, at: &'a [u8]) -> DecodeError {
        reader.advance_to(at);
        let fault = match at {
            [] => Fault::Truncated("field"),
            [b'b' | b't', ..] => Fault::Truncated("field's value"),
            [kind, ..] => Fault::Unknown("kind of field", *kind),
        };
        reader.fault(fault)
    }

    /// How many fields there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there are none, as in a table without columns.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The fields, in the order of the relation's columns.
    #[inline]
    #[must_use]
    pub const fn fields(&self) -> Fields<'a> {
        Fields { rest: self.bytes, left: self.count }
    }
}

/// The fields of a [`Tuple`].
#[derive(Clone)]
pub struct Fields<'a> {
    rest: &'a [u8],
    left: u16,
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    #[inline]
    fn next(&mut self) -> Option<Field<'a>> {
        self.left = self.left.checked_sub(1)?;
        let (field, rest) = split_field(self.rest)?;
        self.rest = rest;
        Some(field)
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left.into(), Some(self.left.into()))
    }
}

impl ExactSizeIterator for Fields<'_> {}
impl FusedIterator for Fields<'_> {}

impl<'a> Columns<'a> {
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let count = reader.count16("number of columns")?;
        let mut end = *reader;
        for _ in 0..count {
            Column::read(&mut end)?;
        }
        Ok(Self { bytes: reader.advance_to(end.rest()), count })
    }

    /// How many columns there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The columns, in the order of every tuple.
    #[must_use]
    pub const fn iter(&self) -> ColumnsIter<'a> {
        ColumnsIter { rest: Reader::new(self.bytes), left: self.count }
    }
}

impl<'a> IntoIterator for Columns<'a> {
    type Item = Column<'a>;
    type IntoIter = ColumnsIter<'a>;

    fn into_iter(self) -> ColumnsIter<'a> {
        self.iter()
    }
}

impl<'a> IntoIterator for &Columns<'a> {
    type Item = Column<'a>;
    type IntoIter = ColumnsIter<'a>;

    fn into_iter(self) -> ColumnsIter<'a> {
        self.iter()
    }
}

impl<'a> Column<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            key: reader.flags("column flags", 1)? == 1,
            name: reader.string("column name")?,
            type_oid: reader.int32("type OID")?,
            type_modifier: reader.signed32("type modifier")?,
        })
    }
}

/// The columns of a relation message.
#[derive(Clone)]
pub struct ColumnsIter<'a> {
    rest: Reader<'a>,
    left: u16,
}

impl<'a> Iterator for ColumnsIter<'a> {
    type Item = Column<'a>;

    fn next(&mut self) -> Option<Column<'a>> {
        self.left = self.left.checked_sub(1)?;
        Column::read(&mut self.rest).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left.into(), Some(self.left.into()))
    }
}

impl ExactSizeIterator for ColumnsIter<'_> {}
impl FusedIterator for ColumnsIter<'_> {}

impl<'a> Truncate<'a> {
    pub(super) const CASCADE: u8 = 1;
    pub(super) const RESTART_IDENTITY: u8 = 2;

    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let count = reader.count32("number of relations")?;
        let flags = reader.flags("truncate flags", Self::CASCADE | Self::RESTART_IDENTITY)?;
        // Where this saturates (on 32 bits), no message is that long either.
        let relations = reader.bytes(count.saturating_mul(4), "list of relations")?;
        Ok(Self {
            cascade: flags & Self::CASCADE != 0,
            restart_identity: flags & Self::RESTART_IDENTITY != 0,
            relations,
        })
    }

    /// The tables, those that CASCADE reached included.
    pub fn relations(&self) -> impl ExactSizeIterator<Item = RelationId> + Clone + use<'a> {
        let (ids, _) = self.relations.as_chunks();
        ids.iter().map(|id| RelationId(u32::from_be_bytes(*id)))
    }
}

impl fmt::Debug for Tuple<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.fields()).finish()
    }
}

impl fmt::Debug for Columns<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self).finish()
    }
}

impl fmt::Debug for Truncate<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Truncate")
            .field("cascade", &self.cascade)
            .field("restart_identity", &self.restart_identity)
            .field("relations", &self.relations().collect::<Vec<_>>())
            .finish()
    }
}

impl fmt::Debug for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Field::Null => f.write_str("Null"),
            Field::Unchanged => f.write_str("Unchanged"),
            Field::Text(value) => write!(f, "Text({} bytes)", value.len()),
            Field::Binary(value) => write!(f, "Binary({} bytes)", value.len()),
        }
    }
}

impl fmt::Debug for LogicalMessage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogicalMessage")
            .field("transactional", &self.transactional)
            .field("lsn", &self.lsn)
            .field("prefix", &self.prefix)
            .field("content", &format_args!("{} bytes", self.content.len()))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lsn::Lsn;

    #[test]
    fn a_tuple_is_checked_whole_before_it_is_walked() {
        let tuple = Tuple::decode(b"\0\x04nut\0\0\0\x01xb\0\0\0\0").unwrap();
        let fields = [Field::Null, Field::Unchanged, Field::Text(b"x"), Field::Binary(b"")];
        assert!(tuple.fields().eq(fields));
        let mut rest = tuple.fields();
        assert_eq!((rest.nth(1), rest.len()), (Some(Field::Unchanged), 2));

        for (bytes, offset, fault) in [
            (b"\0".as_slice(), 0, Fault::Truncated("number of fields")),
            (b"\xff\xff", 0, Fault::Negative("number of fields")),
            (b"\0\x02n", 3, Fault::Truncated("field")),
            (b"\0\x01x", 2, Fault::Unknown("kind of field", b'x')),
            (b"\0\x02nt\0\0\0", 3, Fault::Truncated("field's value")),
            (b"\0\x01b\0\0\0\x02x", 2, Fault::Truncated("field's value")),
            (b"\0\x01b\xff\xff\xff\xff", 2, Fault::Truncated("field's value")),
            (b"\0\x01nn", 3, Fault::Trailing(1)),
        ] {
            let error = Tuple::decode(bytes).unwrap_err();
            assert_eq!((error.offset, error.fault), (offset, fault), "{bytes:?}");
        }
    }

    #[test]
    fn what_is_printed_of_a_row_shows_no_value_of_it() {
        let tuple = Tuple::decode(b"\0\x02t\0\0\0\x06secretn").unwrap();
        assert_eq!(format!("{tuple:?}"), "[Text(6 bytes), Null]");
        let (lsn, prefix, content) = (Lsn::ZERO, "p", b"secret".as_slice());
        let message = LogicalMessage { transactional: true, lsn, prefix, content };
        let printed = format!("{message:?}");
        assert!(printed.contains("6 bytes") && !printed.contains("secret"), "{printed}");
    }
}
