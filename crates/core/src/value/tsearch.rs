//! Full text search types, written as Postgres writes them.

use super::read::Reader;
use super::{Fault, put, text};
use crate::value::Datum;

/// A query nested deeper than this is not printed; the server's own stack bounds it as well.
const MAX_DEPTH: u16 = 1000;

/// `tsvector`: `'cat':3A 'fat':2,4`.
pub(crate) fn write_vector(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
    let mut reader = Reader::new(bytes, &"tsvector");
    for i in 0..reader.len()? {
        if i > 0 {
            out.push(b' ');
        }
        write_lexeme(&mut reader, out)?;
        for at in 0..reader.u16()? {
            let position = reader.u16()?;
            let weight = [b"", &b"C"[..], b"B", b"A"].get(usize::from(position >> 14)).copied();
            put!(out, "{}{}", if at == 0 { ':' } else { ',' }, position & 0x3FFF);
            out.extend_from_slice(weight.unwrap_or_default());
        }
    }
    reader.end()
}

/// `tsquery`: `'fat' & ( 'cat':*A | !'dog' )`.
pub(crate) fn write_query(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
    let mut reader = Reader::new(bytes, &"tsquery");
    if reader.len()? > 0 {
        write_operand(&mut reader, 0, false, MAX_DEPTH, out)?;
    }
    reader.end()
}

/// The operand that comes next. `parent` is the priority of the operator it belongs to; a phrase
/// to the right of a phrase needs brackets, as their order matters.
fn write_operand(
    reader: &mut Reader<'_>,
    parent: u8,
    right_of_phrase: bool,
    depth: u16,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    let depth = depth.checked_sub(1).ok_or(Fault::Unrepresentable)?;
    if reader.u8()? == 1 {
        let (weights, prefix) = (reader.u8()?, reader.u8()?);
        write_lexeme(reader, out)?;
        if weights != 0 || prefix != 0 {
            put!(out, ":{}", if prefix == 0 { "" } else { "*" });
            let letters = [(8, b'A'), (4, b'B'), (2, b'C'), (1, b'D')];
            out.extend(letters.iter().filter(|(bit, _)| weights & bit != 0).map(|(_, l)| *l));
        }
        return Ok(());
    }
    const NOT: u8 = 1;
    const PHRASE: u8 = 4;
    let operator = reader.u8()?;
    let priority = match operator {
        NOT => 4,
        2 => 2,
        3 => 1,
        PHRASE => 3,
        _ => return Err(reader.fault()),
    };
    let distance = if operator == PHRASE { reader.u16()? } else { 0 };
    let brackets = priority < parent || operator == PHRASE && right_of_phrase;
    out.extend_from_slice(if brackets { b"( " } else { b"" });
    if operator == NOT {
        out.push(b'!');
        write_operand(reader, priority, false, depth, out)?;
    } else {
        // The right operand is sent first: write it, then the left one and the operator, and
        // turn them round.
        let start = out.len();
        write_operand(reader, priority, operator == PHRASE, depth, out)?;
        let right = out.len() - start;
        write_operand(reader, priority, false, depth, out)?;
        match (operator, distance) {
            (2, _) => put!(out, " & "),
            (3, _) => put!(out, " | "),
            (_, 1) => put!(out, " <-> "),
            (_, distance) => put!(out, " <{distance}> "),
        }
        out.get_mut(start..).unwrap_or_default().rotate_left(right);
    }
    out.extend_from_slice(if brackets { b" )" } else { b"" });
    Ok(())
}

/// A text that ends with a zero, in quotes.
fn write_lexeme(reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    let length = reader.rest().iter().position(|byte| *byte == 0).ok_or(reader.fault())?;
    let lexeme = text::text(Datum::Text(reader.take(length)?))?;
    let _zero = reader.u8()?;
    out.push(b'\'');
    for byte in lexeme {
        if matches!(byte, b'\'' | b'\\') {
            out.push(*byte);
        }
        out.push(*byte);
    }
    out.push(b'\'');
    Ok(())
}
