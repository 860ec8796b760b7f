//! Composite values and ranges: how they are taken apart.

use super::quoted::item;
use super::read::Reader;
use super::{Datum, Fault, What};

const COMPOSITE: What =
    &"composite with the attributes that the catalog knows (the type may have changed)";
const RANGE: What = &"range";

/// Gives each attribute's value to `each`, by its number; `is` tells whether the type that was sent
/// is the one that is known. (Text says nothing of types.)
///
/// A value may have fewer attributes than the type, where it was written before they were added;
/// those are null. It may not have more: then what we know of the type is too old.
pub(crate) fn attributes(
    datum: Datum<'_>,
    count: usize,
    scratch: &mut Vec<u8>,
    is: impl Fn(usize, u32) -> bool,
    mut each: impl FnMut(usize, Option<Datum<'_>>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let fault = Fault::Malformed(COMPOSITE);
    let mut at = 0;
    match datum {
        Datum::Binary(bytes) => {
            let mut reader = Reader::new(bytes, COMPOSITE);
            let sent = reader.len()?;
            if sent > count {
                return Err(fault);
            }
            while at < sent {
                if !is(at, reader.u32()?) {
                    return Err(fault);
                }
                each(at, reader.item()?.map(Datum::Binary))?;
                at += 1;
            }
            reader.end()?;
        }
        Datum::Text(text) => {
            let inner = text.strip_prefix(b"(").and_then(|text| text.strip_suffix(b")"));
            let mut rest = inner.ok_or(fault)?;
            if count == 0 {
                return if rest.is_empty() { Ok(()) } else { Err(fault) };
            }
            loop {
                let (text, quoted) = item(&mut rest, scratch, |byte| byte == b',')?;
                if at == count {
                    return Err(fault);
                }
                each(at, (quoted || !text.is_empty()).then_some(Datum::Text(text)))?;
                at += 1;
                match rest {
                    [] => break,
                    [_, tail @ ..] => rest = tail,
                }
            }
        }
    }
    (at..count).try_for_each(|at| each(at, None))
}

/// Whether a range's bounds belong to it, as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bounds {
    Empty,
    Between { lower_inclusive: bool, upper_inclusive: bool },
}

impl Bounds {
    /// `[)` and the like, or `empty`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Between { lower_inclusive: true, upper_inclusive: true } => "[]",
            Self::Between { lower_inclusive: true, upper_inclusive: false } => "[)",
            Self::Between { lower_inclusive: false, upper_inclusive: true } => "(]",
            Self::Between { lower_inclusive: false, upper_inclusive: false } => "()",
        }
    }
}

/// Gives a range's two bounds to `each`, the lower first; none is no bound.
pub(crate) fn range(
    datum: Datum<'_>,
    scratch: &mut Vec<u8>,
    mut each: impl FnMut(Option<Datum<'_>>) -> Result<(), Fault>,
) -> Result<Bounds, Fault> {
    match datum {
        Datum::Binary(bytes) => {
            let mut reader = Reader::new(bytes, RANGE);
            let flags = reader.u8()?;
            let (empty, open) = (flags & 0x01 != 0, [flags & 0x08 != 0, flags & 0x10 != 0]);
            for open in open {
                let bound = if empty || open { None } else { reader.item()? };
                each(bound.map(Datum::Binary))?;
            }
            reader.end()?;
            let lower_inclusive = flags & 0x02 != 0;
            let upper_inclusive = flags & 0x04 != 0;
            let between = Bounds::Between { lower_inclusive, upper_inclusive };
            Ok(if empty { Bounds::Empty } else { between })
        }
        Datum::Text(b"empty") => {
            each(None)?;
            each(None)?;
            Ok(Bounds::Empty)
        }
        Datum::Text(text) => {
            let fault = Fault::Malformed(RANGE);
            let [first @ (b'[' | b'('), rest @ .., last @ (b']' | b')')] = text else {
                return Err(fault);
            };
            let mut rest = rest;
            let mut bound = |rest: &mut &[u8]| {
                let (text, quoted) = item(rest, scratch, |byte| byte == b',')?;
                each((quoted || !text.is_empty()).then_some(Datum::Text(text)))
            };
            bound(&mut rest)?;
            rest = rest.strip_prefix(b",").ok_or(fault)?;
            bound(&mut rest)?;
            if !rest.is_empty() {
                return Err(fault);
            }
            let (lower_inclusive, upper_inclusive) = (*first == b'[', *last == b']');
            Ok(Bounds::Between { lower_inclusive, upper_inclusive })
        }
    }
}

/// Gives each range of a multirange to `each`, and returns how many there were.
pub(crate) fn ranges(
    datum: Datum<'_>,
    mut each: impl FnMut(Datum<'_>) -> Result<(), Fault>,
) -> Result<usize, Fault> {
    let fault = Fault::Malformed(&"multirange");
    let mut count = 0;
    match datum {
        Datum::Binary(bytes) => {
            let mut reader = Reader::new(bytes, &"multirange");
            let sent = reader.len()?;
            while count < sent {
                each(Datum::Binary(reader.item()?.ok_or(fault)?))?;
                count += 1;
            }
            reader.end()?;
        }
        Datum::Text(text) => {
            let inner = text.strip_prefix(b"{").and_then(|text| text.strip_suffix(b"}"));
            let mut rest = inner.ok_or(fault)?;
            while !rest.is_empty() {
                let (range, tail) = split_range(rest).ok_or(fault)?;
                each(Datum::Text(range))?;
                count += 1;
                rest = tail.strip_prefix(b",").unwrap_or(tail);
            }
        }
    }
    Ok(count)
}

/// The range that a text starts with, and what follows it: it ends at the first bracket outside
/// quotes.
fn split_range(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let (mut inside, mut escaped) = (false, false);
    let end = text.iter().position(|byte| {
        let here = !inside && !escaped && matches!(byte, b']' | b')');
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => inside = !inside,
            _ => {}
        }
        here
    })?;
    text.split_at_checked(end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(datum: Option<Datum<'_>>) -> Option<String> {
        datum.map(|datum| match datum {
            Datum::Text(text) => String::from_utf8(text.to_vec()).unwrap(),
            Datum::Binary(_) => panic!("text stays text"),
        })
    }

    #[test]
    fn a_composite_tells_an_empty_text_from_null() {
        let mut all = Vec::new();
        let row = Datum::Text(br#"(1,"",,"a ""b"" \\",x y)"#);
        attributes(
            row,
            6,
            &mut Vec::new(),
            |_, _| true,
            |at, value| {
                all.push((at, text(value)));
                Ok(())
            },
        )
        .unwrap();
        let expected = [Some("1"), Some(""), None, Some("a \"b\" \\"), Some("x y"), None];
        let expected: Vec<_> =
            expected.iter().enumerate().map(|(at, v)| (at, v.map(str::to_owned))).collect();
        assert_eq!(all, expected);
    }

    #[test]
    fn more_attributes_than_known_are_refused() {
        let none = |_: usize, _: Option<Datum<'_>>| Ok(());
        let read = |text, count| {
            attributes(Datum::Text(text), count, &mut Vec::new(), |_, _| true, none).is_ok()
        };
        assert!(!read(b"(1,2)", 1));
        assert!(read(b"()", 1));
        assert!(read(b"()", 0));
    }

    #[test]
    fn an_attribute_of_another_type_than_the_known_one_is_refused() {
        let sent = [0, 0, 0, 1, 0, 0, 0, 23, 0, 0, 0, 4, 0, 0, 0, 7];
        let none = |_: usize, _: Option<Datum<'_>>| Ok(());
        let read = |known| {
            attributes(Datum::Binary(&sent), 1, &mut Vec::new(), |_, oid| oid == known, none)
        };
        assert_eq!(read(23), Ok(()));
        assert_eq!(read(25), Err(Fault::Malformed(COMPOSITE)));
    }

    #[test]
    fn a_multirange_is_split_outside_quotes_only() {
        let mut all = Vec::new();
        let count = ranges(Datum::Text(br#"{[1,2),("a)","b""]"],(,)}"#), |range| {
            all.push(text(Some(range)).unwrap());
            Ok(())
        });
        assert_eq!(count, Ok(3));
        assert_eq!(all, ["[1,2)", r#"("a)","b""]"]"#, "(,)"]);
    }

    #[test]
    fn a_range_has_two_bounds() {
        let mut all = Vec::new();
        let bounds = range(Datum::Text(br#"["2020-01-01 00:00:00",)"#), &mut Vec::new(), |bound| {
            all.push(text(bound));
            Ok(())
        });
        assert_eq!(bounds.map(Bounds::as_str), Ok("[)"));
        assert_eq!(all, [Some("2020-01-01 00:00:00".to_owned()), None]);
        for text in ["[1)", "1,2", "[1,2,3)", ""] {
            assert!(range(Datum::Text(text.as_bytes()), &mut Vec::new(), |_| Ok(())).is_err());
        }
    }
}
