//! Avro's primitive encodings, appended to a buffer. On the row path: nothing here allocates
//! but the buffer itself.

use crate::value::decimal;

/// A zig-zag varint: Avro's `int` and `long`. One of a byte, as most are, is written in place.
#[inline(always)]
pub(crate) fn long(out: &mut Vec<u8>, value: i64) {
    let rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    match rest.to_le_bytes() {
        [low, ..] if rest < 0x80 => out.push(low),
        _ => longer(out, rest),
    }
}

fn longer(out: &mut Vec<u8>, rest: u64) {
    if rest < 0x4000 {
        let [low, high, ..] = (rest & 0x7F | 0x80 | (rest & 0x3F80) << 1).to_le_bytes();
        out.extend_from_slice(&[low, high]);
    } else if rest < 1 << 56 {
        // Up to eight groups of seven bits are moved apart, halves at a time, into eight bytes.
        let spread = (rest & 0x00FF_FFFF_F000_0000) << 4 | rest & 0x0FFF_FFFF;
        let spread = (spread & 0x0FFF_C000_0FFF_C000) << 2 | spread & 0x0000_3FFF_0000_3FFF;
        let spread = (spread & 0x3F80_3F80_3F80_3F80) << 1 | spread & 0x007F_007F_007F_007F;
        // All but the last are marked; how many there are shows in the highest bit set.
        let more = rest.ilog2() / 7;
        let marks = 0x8080_8080_8080_8080 & ((1 << (8 * more)) - 1);
        // All eight and then fewer: a copy of fixed size is a store, not a call.
        let start = out.len();
        out.extend_from_slice(&(spread | marks).to_le_bytes());
        out.truncate(start + more as usize + 1);
    } else {
        wide(out, rest);
    }
}

#[cold]
fn wide(out: &mut Vec<u8>, mut rest: u64) {
    while rest >= 0x80 {
        let [low, ..] = rest.to_le_bytes();
        out.push(low | 0x80);
        rest >>= 7;
    }
    let [low, ..] = rest.to_le_bytes();
    out.push(low);
}

/// The long that `bytes` start with, and the rest.
pub(crate) fn read_long(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let last = bytes.iter().take(10).position(|byte| byte & 0x80 == 0)?;
    let (varint, rest) = bytes.split_at_checked(last + 1)?;
    let number = varint.iter().rev().fold(0_u64, |sum, byte| sum << 7 | u64::from(byte & 0x7F));
    Some(((number >> 1).cast_signed() ^ -(number & 1).cast_signed(), rest))
}

/// A length or a count.
#[inline]
pub(crate) fn size(out: &mut Vec<u8>, value: usize) {
    // No buffer outgrows i64; were it so, the reader would see a length it cannot have.
    long(out, i64::try_from(value).unwrap_or(i64::MAX));
}

/// Avro's `boolean`.
#[inline]
pub(crate) fn boolean(out: &mut Vec<u8>, value: bool) {
    out.push(u8::from(value));
}

/// Avro's `float`.
#[inline]
pub(crate) fn float(out: &mut Vec<u8>, value: f32) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Avro's `double`.
#[inline]
pub(crate) fn double(out: &mut Vec<u8>, value: f64) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Avro's `bytes`, and `string` where they are UTF-8.
#[inline]
pub(crate) fn bytes(out: &mut Vec<u8>, value: &[u8]) {
    size(out, value.len());
    out.extend_from_slice(value);
}

/// `bytes` or `string` whose content `body` appends; its length is put before it afterwards.
#[inline]
pub(crate) fn sized<E>(
    out: &mut Vec<u8>,
    body: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    prefixed(out, |out| {
        let start = out.len();
        body(out)?;
        Ok(out.len() - start)
    })
}

/// `bytes` that are an integer's big-endian two's complement: a decimal.
#[inline]
pub(crate) fn unscaled(out: &mut Vec<u8>, value: i64) {
    decimal::write_minimal_behind(value, |width| width << 1, out);
}

/// A block of array items or map entries which `body` appends and counts, and the end mark.
#[inline]
pub(crate) fn block<E>(
    out: &mut Vec<u8>,
    body: impl FnOnce(&mut Vec<u8>) -> Result<usize, E>,
) -> Result<(), E> {
    let mut count = 0;
    prefixed(out, |out| {
        count = body(out)?;
        Ok(count)
    })?;
    if count > 0 {
        out.push(0);
    }
    Ok(())
}

/// Appends what `body` writes after the number that it returns. One byte is kept for the
/// number, which is enough below 64; a larger one moves the content once.
#[inline]
fn prefixed<E>(
    out: &mut Vec<u8>,
    body: impl FnOnce(&mut Vec<u8>) -> Result<usize, E>,
) -> Result<(), E> {
    let start = out.len();
    out.push(0);
    let number = body(out)?;
    if let (Ok(short @ 0..64), Some(slot)) = (u8::try_from(number), out.get_mut(start)) {
        *slot = short << 1;
        return Ok(());
    }
    // Write the number behind the content and turn the two round: no second buffer.
    let end = out.len();
    size(out, number);
    let width = out.len() - end;
    if let Some(tail) = out.get_mut(start + 1..) {
        tail.rotate_right(width);
    }
    out.remove(start);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_is_zig_zag_in_as_few_bytes_as_it_needs() {
        for (value, expected) in [
            (0, &[0_u8][..]),
            (-1, &[1]),
            (1, &[2]),
            (63, &[0x7E]),
            (64, &[0x80, 1]),
            (-65, &[0x81, 1]),
            ((1 << 55) - 1, &[0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F]),
            (1 << 55, &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1]),
            (i64::MAX, &[0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1]),
            (i64::MIN, &[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1]),
        ] {
            let mut out = Vec::new();
            long(&mut out, value);
            assert_eq!(out, expected, "{value}");
            assert_eq!(read_long(&out), Some((value, &[][..])));
        }
    }

    #[test]
    fn every_width_of_a_long_reads_back() {
        for shift in 0..64 {
            for near in [-1_i64, 0, 1] {
                for value in [(1_i64 << shift).wrapping_add(near), near.wrapping_sub(1 << shift)] {
                    let mut out = Vec::new();
                    long(&mut out, value);
                    assert_eq!(read_long(&out), Some((value, &[][..])));
                }
            }
        }
    }

    #[test]
    fn a_length_is_put_before_its_content_whatever_its_size() {
        for len in [0, 1, 63, 64, 8191, 8192, 2_000_000] {
            let content: Vec<u8> = (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect();
            let (mut plain, mut late) = (vec![9], vec![9]);
            bytes(&mut plain, &content);
            sized(&mut late, |out| {
                out.extend_from_slice(&content);
                Ok::<_, ()>(())
            })
            .unwrap();
            assert_eq!(plain, late, "{len}");
        }
    }

    #[test]
    fn an_empty_block_is_its_end_mark_alone() {
        let mut out = Vec::new();
        block(&mut out, |_| Ok::<_, ()>(0)).unwrap();
        assert_eq!(out, [0]);
    }
}
