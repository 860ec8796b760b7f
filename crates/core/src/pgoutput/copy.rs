//! What `COPY ... TO STDOUT (FORMAT binary)` sends becomes tuples such as the stream has. On the row
//! path: nothing here allocates but by growing a buffer that is used again.
//!
//! Values have the same form in both, so a tuple differs only in what marks a field. COPY refuses a
//! type without a send function: such a column must be selected as `text`, which the stream does by
//! itself.

use std::fmt;

use super::reader::Reader;
use super::{DecodeError, Fault, Tuple};

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";

/// Critical flags: what a reader must know of. There was one, for OIDs, until version 12.
const CRITICAL: u32 = 0xFFFF_0000;

/// Reads what one COPY sends, one CopyData after the other.
#[derive(Debug)]
pub struct CopyRows {
    /// Whether a column is selected as text, by position.
    as_text: Box<[bool]>,
    next: Part,
    tuple: Vec<u8>,
}

/// What a COPY is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Header,
    Row,
    /// The trailer was there.
    Nothing,
}

/// Bytes that are no part of a binary COPY: where, counted from the start of their CopyData, and
/// why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyError {
    /// Where.
    pub offset: usize,
    /// What is wrong there.
    pub fault: Fault,
}

impl CopyRows {
    /// For columns of which these are selected as text; those that it does not name are not.
    #[must_use]
    pub fn new(as_text: impl IntoIterator<Item = bool>) -> Self {
        let as_text = as_text.into_iter().collect();
        Self { as_text, next: Part::Header, tuple: Vec::new() }
    }

    /// The same for rows of a query in binary form, which have neither header nor trailer.
    #[must_use]
    pub fn of_query(as_text: impl IntoIterator<Item = bool>) -> Self {
        Self { next: Part::Row, ..Self::new(as_text) }
    }

    /// Whether the trailer was there, without which rows may be missing.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.next == Part::Nothing
    }

    /// The row of a CopyData, a view until the next call; none where it has only the header or the
    /// trailer.
    ///
    /// # Errors
    /// Where the bytes are not what a server sends at this point.
    pub fn decode(&mut self, data: &[u8]) -> Result<Option<Tuple<'_>>, CopyError> {
        Ok(self.read(Reader::new(data))?)
    }

    fn read(&mut self, mut reader: Reader<'_>) -> Result<Option<Tuple<'_>>, DecodeError> {
        if self.next == Part::Header {
            header(&mut reader)?;
            self.next = Part::Row;
            if reader.rest().is_empty() {
                return Ok(None);
            }
        }
        if self.next == Part::Nothing {
            return Err(reader.fault(Fault::Trailing(reader.rest().len())));
        }
        if let Some((&[0xFF, 0xFF], rest)) = reader.rest().split_first_chunk() {
            reader.advance_to(rest);
            reader.finish()?;
            self.next = Part::Nothing;
            return Ok(None);
        }
        let count = reader.count16("number of fields")?;
        self.tuple.clear();
        for position in 0..count {
            let as_text = self.as_text.get(usize::from(position)).copied().unwrap_or_default();
            field(&mut reader, as_text, &mut self.tuple)?;
        }
        reader.finish()?;
        Ok(Some(Tuple { bytes: &self.tuple, count }))
    }
}

fn header(reader: &mut Reader<'_>) -> Result<(), DecodeError> {
    let here = *reader;
    if reader.bytes(SIGNATURE.len(), "signature")? != SIGNATURE {
        let first = here.rest().first().copied().unwrap_or_default();
        return Err(here.fault(Fault::Unknown("signature", first)));
    }
    let here = *reader;
    let flags = reader.int32("flags")?;
    if flags & CRITICAL != 0 {
        let [high, ..] = (flags & CRITICAL).to_be_bytes();
        return Err(here.fault(Fault::Unknown("flags", high)));
    }
    let extension = reader.count32("length of the header's extension")?;
    reader.bytes(extension, "header's extension")?;
    Ok(())
}

#[inline]
fn field(reader: &mut Reader<'_>, as_text: bool, tuple: &mut Vec<u8>) -> Result<(), DecodeError> {
    if let Some((&[0xFF, 0xFF, 0xFF, 0xFF], rest)) = reader.rest().split_first_chunk() {
        reader.advance_to(rest);
        tuple.push(b'n');
        return Ok(());
    }
    let start = reader.rest();
    let length = reader.count32("length of a field")?;
    reader.bytes(length, "field's value")?;
    tuple.push(if as_text { b't' } else { b'b' });
    // The stream has the length in the same form.
    let end = start.len() - reader.rest().len();
    tuple.extend_from_slice(start.get(..end).unwrap_or_default());
    Ok(())
}

impl From<DecodeError> for CopyError {
    fn from(error: DecodeError) -> Self {
        Self { offset: error.offset, fault: error.fault }
    }
}

impl fmt::Display for CopyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "data of COPY, byte {}: {}", self.offset, self.fault)
    }
}

impl std::error::Error for CopyError {}

#[cfg(test)]
mod tests {
    use super::super::Field;
    use super::*;

    const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

    fn fault(data: &[u8]) -> CopyError {
        CopyRows::new([]).decode(data).unwrap_err()
    }

    #[test]
    fn rows_are_tuples_between_header_and_trailer() {
        let mut rows = CopyRows::new([false, false, true]);
        let row = b"\0\x03\0\0\0\x01x\xff\xff\xff\xff\0\0\0\0";
        let first = [HEADER, row].concat();
        let expected = [Field::Binary(b"x"), Field::Null, Field::Text(b"")];
        for data in [&first[..], row] {
            assert!(rows.decode(data).unwrap().unwrap().fields().eq(expected));
        }
        assert!(!rows.is_complete());
        assert_eq!(rows.decode(b"\xff\xff"), Ok(None));
        assert!(rows.is_complete());
        let after = CopyError { offset: 0, fault: Fault::Trailing(row.len()) };
        assert_eq!(rows.decode(row), Err(after));
    }

    #[test]
    fn a_table_may_have_no_rows_and_a_row_no_columns() {
        let mut rows = CopyRows::new([]);
        assert_eq!(rows.decode(&[HEADER, b"\xff\xff"].concat()), Ok(None));
        assert!(rows.is_complete());
        let mut rows = CopyRows::new([]);
        assert_eq!(rows.decode(HEADER), Ok(None));
        assert!(rows.decode(b"\0\0").unwrap().unwrap().is_empty());
    }

    #[test]
    fn the_header_may_be_longer_but_says_nothing_unknown() {
        let mut rows = CopyRows::new([]);
        let longer = b"PGCOPY\n\xff\r\n\0\0\0\xff\xff\0\0\0\x02xy\0\0";
        assert!(rows.decode(longer).unwrap().is_some());
        let oids = fault(b"PGCOPY\n\xff\r\n\0\0\x01\0\0\0\0\0\0");
        assert_eq!((oids.offset, oids.fault), (11, Fault::Unknown("flags", 0)));
        let text = fault(b"1\tsomething else\n");
        assert_eq!((text.offset, text.fault), (0, Fault::Unknown("signature", b'1')));
        assert_eq!(text.to_string(), "data of COPY, byte 0: unknown signature 0x31");
    }

    #[test]
    fn what_is_cut_off_or_too_long_is_refused() {
        let whole = [HEADER, b"\0\x02\0\0\0\x01x\xff\xff\xff\xff"].concat();
        for end in (0..whole.len()).filter(|end| *end != HEADER.len()) {
            let fault = fault(&whole[..end]).fault;
            assert!(matches!(fault, Fault::Truncated(_)), "{end}: {fault}");
        }
        assert_eq!(fault(&[&whole[..], b"y"].concat()).fault, Fault::Trailing(1));
        assert_eq!(
            fault(&[HEADER, b"\xff\xfe"].concat()).fault,
            Fault::Negative("number of fields")
        );
        let negative = [HEADER, b"\0\x01\xff\xff\xff\xfe"].concat();
        assert_eq!(fault(&negative).fault, Fault::Negative("length of a field"));
    }
}
