//! `bytea` and other types that are bytes, and bit strings.

use super::read::Reader;
use super::uuid::hex_digit;
use super::{Datum, Fault, put};

/// The bytes of a `bytea`; its text form is read in both of its styles, hex and escape.
pub(crate) fn write_bytea(datum: Datum<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    match datum {
        Datum::Binary(bytes) => out.extend_from_slice(bytes),
        Datum::Text([b'\\', b'x', hex @ ..]) => unhex(hex, out)?,
        Datum::Text(escaped) => unescape(escaped, out)?,
    }
    Ok(())
}

/// `\x00ff`.
pub(crate) fn write_hex(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"\\x");
    write_bare_hex(bytes, out);
}

fn write_bare_hex(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend(bytes.iter().flat_map(|byte| [hex_digit(byte >> 4), hex_digit(byte & 15)]));
}

/// `00FF`, as PostGIS writes a geometry.
pub(crate) fn write_upper_hex(bytes: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    write_bare_hex(bytes, out);
    out.get_mut(start..).unwrap_or_default().make_ascii_uppercase();
}

/// Reads pairs of hex digits.
pub(crate) fn unhex(hex: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
    let fault = Fault::Malformed(&"hex digits");
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let pairs = hex.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return Err(fault);
    }
    for pair in pairs {
        let &[high, low] = pair else { return Err(fault) };
        out.push(digit(high).ok_or(fault)? << 4 | digit(low).ok_or(fault)?);
    }
    Ok(())
}

fn unescape(escaped: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
    let fault = Fault::Malformed(&"bytea");
    let mut rest = escaped;
    loop {
        rest = match rest {
            [] => return Ok(()),
            [b'\\', b'\\', tail @ ..] => {
                out.push(b'\\');
                tail
            }
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..] => {
                out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                tail
            }
            [b'\\', ..] => return Err(fault),
            [byte, tail @ ..] => {
                out.push(*byte);
                tail
            }
        };
    }
}

/// A bit string: how many bits, and the bytes that hold them, first bit highest.
pub(crate) fn bits(bytes: &[u8]) -> Result<(usize, &[u8]), Fault> {
    let mut reader = Reader::new(bytes, &"bit string");
    let count = reader.len()?;
    let packed = reader.take(count.div_ceil(8))?;
    reader.end()?;
    Ok((count, packed))
}

/// `bit` and `varbit` as Postgres writes them: `0101`.
pub(crate) fn write_bits(datum: Datum<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    match datum {
        Datum::Binary(bytes) => {
            let (count, packed) = bits(bytes)?;
            let all = packed.iter().flat_map(|byte| (0..8).rev().map(move |i| byte >> i & 1));
            out.extend(all.take(count).map(|bit| b'0' + bit));
            Ok(())
        }
        Datum::Text(text) if text.iter().all(|byte| matches!(byte, b'0' | b'1')) => {
            out.extend_from_slice(text);
            Ok(())
        }
        Datum::Text(_) => Err(Fault::Malformed(&"bit string")),
    }
}

/// `"char"`: one byte, written as its output function does; zero is the empty text.
pub(crate) fn write_char(datum: Datum<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    match datum {
        Datum::Binary([0]) => Ok(()),
        Datum::Binary([byte @ 0x80..=0xFF]) => {
            put!(out, "\\{byte:03o}");
            Ok(())
        }
        Datum::Binary([byte]) => {
            out.push(*byte);
            Ok(())
        }
        // Before PostgreSQL 16 a high byte comes bare.
        Datum::Text([byte @ 0x80..=0xFF]) => write_char(Datum::Binary(&[*byte]), out),
        Datum::Text(text) if text.len() <= 4 && text.is_ascii() => {
            out.extend_from_slice(text);
            Ok(())
        }
        _ => Err(Fault::Malformed(&"\"char\"")),
    }
}
