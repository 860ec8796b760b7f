//! `hstore`: texts by text.

use super::quoted::{Escape, item, quote};
use super::read::Reader;
use super::{Datum, Fault, What, text};

const WHAT: What = &"hstore";

/// Gives each pair to `each`, and returns how many there were.
pub(crate) fn pairs(
    datum: Datum<'_>,
    scratch: &mut Vec<u8>,
    mut each: impl FnMut(Part<'_>),
) -> Result<usize, Fault> {
    let mut count = 0;
    match datum {
        Datum::Binary(bytes) => {
            let mut reader = Reader::new(bytes, WHAT);
            let sent = reader.len()?;
            while count < sent {
                let key = reader.item()?.ok_or(reader.fault())?;
                each(Part::Key(text::text(Datum::Text(key))?));
                let value = reader.item()?.map(|value| text::text(Datum::Text(value)));
                each(Part::Value(value.transpose()?));
                count += 1;
            }
            reader.end()?;
        }
        Datum::Text(bytes) => {
            let fault = Fault::Malformed(WHAT);
            let mut rest = text::text(Datum::Text(bytes))?;
            while !rest.is_empty() {
                let (key, _) = item(&mut rest, scratch, |byte| byte == b'=')?;
                each(Part::Key(key));
                rest = rest.strip_prefix(b"=>").ok_or(fault)?;
                let (value, quoted) = item(&mut rest, scratch, |byte| byte == b',')?;
                each(Part::Value((quoted || value != b"NULL").then_some(value)));
                count += 1;
                rest = rest.strip_prefix(b", ").unwrap_or(rest);
            }
        }
    }
    Ok(count)
}

/// A key, or the value of the key before it.
pub(crate) enum Part<'a> {
    Key(&'a [u8]),
    Value(Option<&'a [u8]>),
}

/// `"a"=>"1", "b"=>NULL`, of the binary form.
pub(crate) fn write_text(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
    let mut first = true;
    pairs(Datum::Binary(bytes), &mut Vec::new(), |part| match part {
        Part::Key(key) => {
            if !first {
                out.extend_from_slice(b", ");
            }
            first = false;
            write_quoted(key, out);
            out.extend_from_slice(b"=>");
        }
        Part::Value(Some(value)) => write_quoted(value, out),
        Part::Value(None) => out.extend_from_slice(b"NULL"),
    })?;
    Ok(())
}

fn write_quoted(text: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(text);
    quote(out, start, Escape::Backslash);
}
