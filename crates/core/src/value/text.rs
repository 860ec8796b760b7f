//! Types whose binary form is their text, or their text behind a version byte.

use super::{Datum, Fault};

/// Text as it is: `text`, `varchar`, `char(n)` with its padding, `name`, `json`, `xml`, enums.
///
/// A `SQL_ASCII` database may hold what is no UTF-8, which no Avro string can.
#[inline]
pub(crate) fn text(datum: Datum<'_>) -> Result<&[u8], Fault> {
    let (Datum::Text(bytes) | Datum::Binary(bytes)) = datum;
    let sound = is_ascii(bytes) || std::str::from_utf8(bytes).is_ok();
    if sound { Ok(bytes) } else { Err(Fault::Unrepresentable) }
}

/// Most text is, and to see so takes a fraction of what a check of UTF-8 does.
#[inline]
fn is_ascii(bytes: &[u8]) -> bool {
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let (words, rest) = bytes.as_chunks::<8>();
    let all = words.iter().fold(0, |all, word| all | u64::from_le_bytes(*word));
    // The rest is looked at with some of what comes before it where there is that.
    let rest = match bytes.last_chunk::<8>() {
        Some(last) => u64::from_le_bytes(*last),
        None => rest.iter().fold(0, |all, byte| all | u64::from(*byte)),
    };
    (all | rest) & HIGH == 0
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
