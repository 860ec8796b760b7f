//! pgvector's types, and `cube`.

use super::float::{write_float4, write_float8};
use super::read::{Reader, number};
use super::{Datum, Fault, What, put};

/// What a vector's numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Width {
    Single,
    Half,
}

/// Gives each number of a `vector` or `halfvec` to `each`, and returns how many there were.
pub(crate) fn dense(
    datum: Datum<'_>,
    width: Width,
    mut each: impl FnMut(f32),
) -> Result<usize, Fault> {
    let mut count = 0;
    match datum {
        Datum::Binary(bytes) => {
            let mut reader = Reader::new(bytes, &"vector");
            let sent = usize::from(reader.u16()?);
            let _unused = reader.u16()?;
            while count < sent {
                each(match width {
                    Width::Single => f32::from_be_bytes(reader.array()?),
                    Width::Half => half(reader.u16()?),
                });
                count += 1;
            }
            reader.end()?;
        }
        Datum::Text(text) => {
            let inner = text.strip_prefix(b"[").and_then(|text| text.strip_suffix(b"]"));
            let inner = inner.ok_or(Fault::Malformed(&"vector"))?;
            for word in inner.split(|byte| *byte == b',') {
                each(number(word, &"vector")?);
                count += 1;
            }
        }
    }
    Ok(count)
}

/// A `sparsevec`, its elements not read yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sparse<'a> {
    pub(crate) dimensions: i32,
    /// How many elements are not zero.
    pub(crate) count: usize,
    elements: Elements<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Elements<'a> {
    Binary { indices: &'a [u8], values: &'a [u8] },
    Text(&'a [u8]),
}

pub(crate) fn sparse(datum: Datum<'_>) -> Result<Sparse<'_>, Fault> {
    const WHAT: What = &"sparsevec";
    let fault = Fault::Malformed(WHAT);
    match datum {
        Datum::Binary(bytes) => {
            let mut reader = Reader::new(bytes, WHAT);
            let (dimensions, count) = (reader.i32()?, reader.len()?);
            let _unused = reader.u32()?;
            let length = count.checked_mul(4).ok_or(fault)?;
            let (indices, values) = (reader.take(length)?, reader.take(length)?);
            reader.end()?;
            Ok(Sparse { dimensions, count, elements: Elements::Binary { indices, values } })
        }
        Datum::Text(text) => {
            let slash = text.iter().rposition(|byte| *byte == b'/').ok_or(fault)?;
            let (braces, dimensions) = text.split_at_checked(slash).ok_or(fault)?;
            let inner = braces.strip_prefix(b"{").and_then(|text| text.strip_suffix(b"}"));
            let inner = inner.ok_or(fault)?;
            let dimensions = number(dimensions.get(1..).unwrap_or_default(), WHAT)?;
            let mut count = 0;
            for element in elements(inner) {
                element.ok_or(fault)?;
                count += 1;
            }
            Ok(Sparse { dimensions, count, elements: Elements::Text(inner) })
        }
    }
}

impl Sparse<'_> {
    /// Gives each element to `each`: its index, counted from 1 as in SQL, and its value.
    pub(crate) fn each(&self, mut each: impl FnMut(i32, f32)) {
        match self.elements {
            Elements::Binary { indices, values } => {
                let indices = indices.chunks_exact(4).filter_map(|four| four.try_into().ok());
                let values = values.chunks_exact(4).filter_map(|four| four.try_into().ok());
                let pairs = indices.map(i32::from_be_bytes).zip(values.map(f32::from_be_bytes));
                pairs.for_each(|(index, value)| each(index.saturating_add(1), value));
            }
            Elements::Text(text) => {
                elements(text).flatten().for_each(|(index, value)| each(index, value));
            }
        }
    }
}

/// The elements of `1:1.5,3:2`; none for one that is malformed.
fn elements(text: &[u8]) -> impl Iterator<Item = Option<(i32, f32)>> {
    text.split(|byte| *byte == b',').filter(|element| !element.is_empty()).map(|element| {
        let (index, value) = std::str::from_utf8(element).ok()?.split_once(':')?;
        Some((index.parse().ok()?, value.parse().ok()?))
    })
}

/// `[1,2.5]`.
pub(crate) fn write_dense(bytes: &[u8], width: Width, out: &mut Vec<u8>) -> Result<(), Fault> {
    out.push(b'[');
    let mut first = true;
    dense(Datum::Binary(bytes), width, |value| {
        put!(out, "{}", if first { "" } else { "," });
        first = false;
        write_float4(value, out);
    })?;
    out.push(b']');
    Ok(())
}

/// `{1:1.5,3:2}/5`.
pub(crate) fn write_sparse(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
    let sparse = sparse(Datum::Binary(bytes))?;
    out.push(b'{');
    let mut first = true;
    sparse.each(|index, value| {
        put!(out, "{}{index}:", if first { "" } else { "," });
        first = false;
        write_float4(value, out);
    });
    put!(out, "}}/{}", sparse.dimensions);
    Ok(())
}

/// `(1, 2),(3, 4)`; a cube that is a point shows one corner.
pub(crate) fn write_cube(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
    let mut reader = Reader::new(bytes, &"cube");
    let header = reader.u32()?;
    let (dimensions, is_point) = (header & 0x7FFF_FFFF, header >> 31 == 1);
    for corner in 0..if is_point { 1 } else { 2 } {
        out.extend_from_slice(if corner == 0 { b"(" } else { b",(" });
        for i in 0..dimensions {
            put!(out, "{}", if i > 0 { ", " } else { "" });
            write_float8(reader.f64()?, out);
        }
        out.push(b')');
    }
    reader.end()
}

/// An IEEE 754 half.
fn half(bits: u16) -> f32 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, fraction) = (bits >> 10 & 0x1F, f32::from(bits & 0x3FF));
    sign * match exponent {
        0 => fraction * 2_f32.powi(-24),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1.0 + fraction / 1024.0) * 2_f32.powi(i32::from(exponent) - 15),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_half_is_widened_exactly() {
        for (bits, value) in [
            (0x0000, 0.0),
            (0x3C00, 1.0),
            (0xC000, -2.0),
            (0x7BFF, 65_504.0),
            (0x0001, 2_f32.powi(-24)),
            (0x3555, 0.333_251_95),
            (0xFC00, f32::NEG_INFINITY),
        ] {
            assert_eq!(half(bits), value);
        }
        assert!(half(0x7E00).is_nan());
    }

    #[test]
    fn both_forms_of_a_sparse_vector_say_the_same() {
        let mut bytes = Vec::new();
        for word in [5_i32, 2, 0, 0, 2] {
            bytes.extend(word.to_be_bytes());
        }
        bytes.extend(1.5_f32.to_be_bytes());
        bytes.extend((-2_f32).to_be_bytes());
        let mut text = Vec::new();
        write_sparse(&bytes, &mut text).unwrap();
        assert_eq!(text, b"{1:1.5,3:-2}/5");
        for datum in [Datum::Binary(&bytes), Datum::Text(&text)] {
            let sparse = sparse(datum).unwrap();
            let mut all = Vec::new();
            sparse.each(|index, value| all.push((index, value)));
            assert_eq!((sparse.dimensions, sparse.count, all), (5, 2, vec![(1, 1.5), (3, -2.0)]));
        }
        assert!(sparse(Datum::Text(b"{1:x}/5")).is_err());
    }
}
