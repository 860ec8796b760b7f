//! Points and what is made of them.

use super::float::write_float8;
use super::read::{Reader, number};
use super::{Datum, Fault, What, put};

/// A geometric type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Point,
    Line,
    Lseg,
    Box,
    Path,
    Polygon,
    Circle,
}

/// A value of one: its numbers, not read yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Geometry<'a> {
    /// How many numbers there are.
    pub(crate) count: usize,
    /// Whether a path ends where it starts.
    pub(crate) closed: bool,
    numbers: Numbers<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Numbers<'a> {
    Binary(&'a [u8]),
    Text(&'a [u8]),
}

impl Shape {
    fn what(self) -> What {
        match self {
            Self::Point => &"point",
            Self::Line => &"line",
            Self::Lseg => &"lseg",
            Self::Box => &"box",
            Self::Path => &"path",
            Self::Polygon => &"polygon",
            Self::Circle => &"circle",
        }
    }

    /// How many numbers it has; none where that differs from value to value.
    fn fixed(self) -> Option<usize> {
        match self {
            Self::Point => Some(2),
            Self::Line | Self::Circle => Some(3),
            Self::Lseg | Self::Box => Some(4),
            Self::Path | Self::Polygon => None,
        }
    }

    pub(crate) fn parse(self, datum: Datum<'_>) -> Result<Geometry<'_>, Fault> {
        let fault = Fault::Malformed(self.what());
        let geometry = match datum {
            Datum::Binary(bytes) => {
                let mut reader = Reader::new(bytes, self.what());
                let closed = self != Self::Path || reader.u8()? != 0;
                let count = match self.fixed() {
                    Some(count) => count,
                    None => reader.len()?.checked_mul(2).ok_or(fault)?,
                };
                let numbers = reader.take(count.checked_mul(8).ok_or(fault)?)?;
                reader.end()?;
                Geometry { count, closed, numbers: Numbers::Binary(numbers) }
            }
            Datum::Text(text) => {
                let closed = text.first() != Some(&b'[') || self != Self::Path;
                let count = words(text).count();
                words(text).try_for_each(|word| number::<f64>(word, self.what()).map(drop))?;
                Geometry { count, closed, numbers: Numbers::Text(text) }
            }
        };
        let sound = match self.fixed() {
            Some(count) => geometry.count == count,
            None => geometry.count % 2 == 0,
        };
        if sound { Ok(geometry) } else { Err(fault) }
    }

    /// As Postgres writes it, of its binary form.
    pub(crate) fn write_text(self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        let geometry = self.parse(Datum::Binary(bytes))?;
        let (open, close) = match self {
            Self::Point | Self::Box => ("", ""),
            Self::Line => ("{", "}"),
            Self::Lseg => ("[", "]"),
            Self::Path if !geometry.closed => ("[", "]"),
            Self::Path | Self::Polygon => ("(", ")"),
            Self::Circle => ("<", ">"),
        };
        put!(out, "{open}");
        let pairs = match self {
            Self::Line => 0,
            Self::Circle => 2,
            _ => geometry.count,
        };
        let mut at = 0;
        geometry.each(|value| {
            let paired = at < pairs;
            put!(out, "{}", if at > 0 { "," } else { "" });
            put!(out, "{}", if paired && at % 2 == 0 { "(" } else { "" });
            write_float8(value, out);
            put!(out, "{}", if paired && at % 2 == 1 { ")" } else { "" });
            at += 1;
        });
        put!(out, "{close}");
        Ok(())
    }
}

impl Geometry<'_> {
    /// Gives each number to `each`, in the order of both forms.
    pub(crate) fn each(&self, mut each: impl FnMut(f64)) {
        match self.numbers {
            Numbers::Binary(bytes) => {
                let doubles = bytes.chunks_exact(8).filter_map(|bytes| bytes.try_into().ok());
                doubles.map(f64::from_be_bytes).for_each(each);
            }
            Numbers::Text(text) => {
                words(text).filter_map(|word| number(word, &"").ok()).for_each(&mut each);
            }
        }
    }
}

/// The numbers between all the brackets and commas.
fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| b"()[]{}<>,".contains(byte)).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_hold_the_same_numbers() {
        let binary = |head: &[u8], numbers: &[f64]| {
            let mut bytes = head.to_vec();
            numbers.iter().for_each(|number| bytes.extend(number.to_be_bytes()));
            bytes
        };
        for (shape, head, numbers, text) in [
            (Shape::Point, &[][..], &[1.0, 2.5][..], "(1,2.5)"),
            (Shape::Line, &[], &[1.0, -1.0, 0.0], "{1,-1,0}"),
            (Shape::Lseg, &[], &[0.0, 0.0, 1.0, 1e20], "[(0,0),(1,1e+20)]"),
            (Shape::Box, &[], &[1.0, 1.0, 0.0, 0.0], "(1,1),(0,0)"),
            (Shape::Path, &[1, 0, 0, 0, 2], &[0.0, 0.0, 1.0, 1.0], "((0,0),(1,1))"),
            (Shape::Path, &[0, 0, 0, 0, 2], &[0.0, 0.0, 1.0, 1.0], "[(0,0),(1,1)]"),
            (Shape::Polygon, &[0, 0, 0, 1], &[0.5, f64::INFINITY], "((0.5,Infinity))"),
            (Shape::Circle, &[], &[1.0, 2.0, 3.0], "<(1,2),3>"),
        ] {
            let bytes = binary(head, numbers);
            let mut out = Vec::new();
            shape.write_text(&bytes, &mut out).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), text);
            for datum in [Datum::Binary(&bytes), Datum::Text(text.as_bytes())] {
                let geometry = shape.parse(datum).unwrap();
                let mut read = Vec::new();
                geometry.each(|number| read.push(number));
                assert_eq!(read, numbers);
                assert_eq!(geometry.closed, !text.starts_with('[') || shape != Shape::Path);
            }
        }
        assert!(Shape::Point.parse(Datum::Text(b"(1,x)")).is_err());
        assert!(Shape::Box.parse(Datum::Text(b"(1,2)")).is_err());
    }
}
