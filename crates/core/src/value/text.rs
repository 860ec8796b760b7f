//! Types whose binary form is their text, or their text behind a version byte.

use super::{Datum, Fault};

/// Text as it is: `text`, `varchar`, `char(n)` with its padding, `name`, `json`, `xml`, enums.
///
/// A `SQL_ASCII` database may hold what is no UTF-8, which no Avro string can.
#[inline]
pub(crate) fn text(datum: Datum<'_>) -> Result<&[u8], Fault> {
    let (Datum::Text(bytes) | Datum::Binary(bytes)) = datum;
    if std::str::from_utf8(bytes).is_ok() { Ok(bytes) } else { Err(Fault::Unrepresentable) }
}

/// `jsonb`, `jsonpath`, `ltree`, `lquery`, `ltxtquery`: the version 1, then text.
#[inline]
pub(crate) fn versioned(datum: Datum<'_>) -> Result<&[u8], Fault> {
    match datum {
        Datum::Text(_) => text(datum),
        Datum::Binary([1, rest @ ..]) => text(Datum::Text(rest)),
        Datum::Binary(_) => Err(Fault::Malformed(&"text behind the version byte 1")),
    }
}
