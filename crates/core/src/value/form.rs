//! The text form of values that are made of others.

use super::quoted::{Escape, is_space, quote};
use super::scalar::Scalar;
use super::{Datum, Fault, array, bytes, composite, text};

/// What a type's bytes are made of.
#[derive(Clone, Debug)]
pub(crate) enum Form {
    Scalar(Scalar),
    Array { element: Box<Form>, delimiter: u8 },
    Composite(Vec<Form>),
    Range(Box<Form>),
    Multirange(Box<Form>),
}

impl Form {
    /// The same, or the bytes in hex where there is no such text: for notes, which must say
    /// something whatever came.
    pub(crate) fn describe(&self, datum: Datum<'_>, out: &mut Vec<u8>) {
        let start = out.len();
        if self.write_text(datum, out).is_err() {
            out.truncate(start);
            let (Datum::Text(raw) | Datum::Binary(raw)) = datum;
            bytes::write_hex(raw, out);
        }
    }

    /// Appends the value as Postgres would write it.
    pub(crate) fn write_text(&self, datum: Datum<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
        if let Datum::Text(bytes) = datum {
            text::text(datum)?;
            out.extend_from_slice(bytes);
            return Ok(());
        }
        // A binary form needs nothing unescaped, so the buffers for that stay empty.
        match self {
            Self::Scalar(scalar) => scalar.write_text(datum, out),
            Self::Array { element, delimiter } => write_array(datum, element, *delimiter, out),
            Self::Composite(attributes) => {
                out.push(b'(');
                composite::attributes(
                    datum,
                    attributes.len(),
                    &mut Vec::new(),
                    |_, _| true,
                    |at, value| {
                        if at > 0 {
                            out.push(b',');
                        }
                        match (value, attributes.get(at)) {
                            (Some(value), Some(form)) => form.write_part(value, b"(),", out),
                            _ => Ok(()),
                        }
                    },
                )?;
                out.push(b')');
                Ok(())
            }
            Self::Range(bound) => write_range(datum, bound, out),
            Self::Multirange(bound) => {
                out.push(b'{');
                let mut first = true;
                composite::ranges(datum, |range| {
                    if !first {
                        out.push(b',');
                    }
                    first = false;
                    write_range(range, bound, out)
                })?;
                out.push(b'}');
                Ok(())
            }
        }
    }

    /// Appends an attribute or a bound, in quotes where it must be.
    fn write_part(&self, datum: Datum<'_>, special: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        let start = out.len();
        self.write_text(datum, out)?;
        let must =
            |byte: &u8| matches!(byte, b'"' | b'\\') || is_space(*byte) || special.contains(byte);
        let written = out.get(start..).unwrap_or_default();
        if written.is_empty() || written.iter().any(must) {
            quote(out, start, Escape::Twice);
        }
        Ok(())
    }
}

fn write_array(
    datum: Datum<'_>,
    element: &Form,
    delimiter: u8,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    let array = array::parse(datum, delimiter, &mut Vec::new())?;
    let shape = array.shape;
    if shape.shows_bounds() {
        shape.write(out);
        out.push(b'=');
    }
    let braces = |out: &mut Vec<u8>, count: usize, brace: u8| out.resize(out.len() + count, brace);
    let dimensions = shape.dimensions().len();
    braces(out, dimensions.max(1), b'{');
    let mut done = 0;
    array.each(&mut Vec::new(), |value| {
        if done > 0 {
            let turns = shape.braces(done);
            braces(out, turns, b'}');
            out.push(delimiter);
            braces(out, turns, b'{');
        }
        done += 1;
        write_element(value, element, delimiter, out)
    })?;
    braces(out, dimensions.max(1), b'}');
    Ok(())
}

fn write_element(
    value: Option<Datum<'_>>,
    element: &Form,
    delimiter: u8,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    let Some(value) = value else {
        out.extend_from_slice(b"NULL");
        return Ok(());
    };
    let start = out.len();
    element.write_text(value, out)?;
    let must = |byte: &u8| {
        matches!(byte, b'"' | b'\\' | b'{' | b'}') || *byte == delimiter || is_space(*byte)
    };
    let written = out.get(start..).unwrap_or_default();
    if written.is_empty() || written.eq_ignore_ascii_case(b"NULL") || written.iter().any(must) {
        quote(out, start, Escape::Backslash);
    }
    Ok(())
}

fn write_range(datum: Datum<'_>, bound: &Form, out: &mut Vec<u8>) -> Result<(), Fault> {
    let start = out.len();
    out.push(b'?');
    let mut lower = true;
    let bounds = composite::range(datum, &mut Vec::new(), |value| {
        if let Some(value) = value {
            bound.write_part(value, b"()[],", out)?;
        }
        if lower {
            out.push(b',');
        }
        lower = false;
        Ok(())
    })?;
    match bounds.as_str().as_bytes() {
        [open, close] => {
            if let Some(slot) = out.get_mut(start) {
                *slot = *open;
            }
            out.push(*close);
        }
        empty => {
            out.truncate(start);
            out.extend_from_slice(empty);
        }
    }
    Ok(())
}
