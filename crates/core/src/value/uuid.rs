//! `uuid`.

use super::read::exactly;
use super::{Datum, Fault};

/// `a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11`.
pub(crate) fn write(datum: Datum<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    match datum {
        Datum::Binary(bytes) => {
            let bytes: [u8; 16] = exactly(bytes, "uuid")?;
            let mut text = [b'-'; 36];
            let slots = text.iter_mut().enumerate().filter(|(i, _)| !matches!(i, 8 | 13 | 18 | 23));
            let nibbles = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
            for ((_, slot), nibble) in slots.zip(nibbles) {
                *slot = hex_digit(nibble);
            }
            out.extend_from_slice(&text);
            Ok(())
        }
        Datum::Text(text) if text.len() == 36 && text.is_ascii() => {
            out.extend_from_slice(text);
            Ok(())
        }
        Datum::Text(_) => Err(Fault::Malformed("uuid")),
    }
}

#[inline]
pub(crate) fn hex_digit(nibble: u8) -> u8 {
    if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 }
}
