//! `uuid`.

use super::read::exactly;
use super::{Datum, Fault};

/// The two hex digits of every byte.
#[expect(clippy::indexing_slicing, reason = "it is computed when this is compiled")]
const HEX: [[u8; 2]; 256] = {
    let mut table = [[0; 2]; 256];
    let mut byte: u8 = 0;
    loop {
        table[byte as usize] = [hex_digit(byte >> 4), hex_digit(byte & 15)];
        if byte == 255 {
            break table;
        }
        byte += 1;
    }
};

/// `a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11`.
#[inline]
pub(crate) fn text(datum: Datum<'_>) -> Result<[u8; 36], Fault> {
    let bytes: [u8; 16] = match datum {
        Datum::Binary(bytes) => exactly(bytes, &"uuid")?,
        Datum::Text(text) => return checked(exactly(text, &"uuid")?),
    };
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes.map(hex);
    let mut text = [b'-'; 36];
    let (first, rest) = text.split_at_mut(9);
    let (second, rest) = rest.split_at_mut(5);
    let (third, rest) = rest.split_at_mut(5);
    let (fourth, fifth) = rest.split_at_mut(5);
    put(first, [a, b, c, d]);
    put(second, [e, f]);
    put(third, [g, h]);
    put(fourth, [i, j]);
    put(fifth, [k, l, m, n, o, p]);
    Ok(text)
}

fn checked(text: [u8; 36]) -> Result<[u8; 36], Fault> {
    let sound = text.iter().enumerate().all(|(i, byte)| match i {
        8 | 13 | 18 | 23 => *byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    });
    if sound { Ok(text) } else { Err(Fault::Malformed(&"uuid")) }
}

#[inline]
fn put<const N: usize>(slots: &mut [u8], pairs: [[u8; 2]; N]) {
    for (slot, pair) in slots.chunks_exact_mut(2).zip(pairs) {
        slot.copy_from_slice(&pair);
    }
}

#[inline]
fn hex(byte: u8) -> [u8; 2] {
    HEX.get(usize::from(byte)).copied().unwrap_or_default()
}

#[inline]
pub(crate) const fn hex_digit(nibble: u8) -> u8 {
    if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 }
}
