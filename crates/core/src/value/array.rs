//! Arrays: their bounds, and their elements one after the other, the last dimension fastest.

use super::quoted::item;
use super::read::Reader;
use super::{Datum, Fault, What, put};

const WHAT: What = &"array";
/// Postgres has no more dimensions.
const MAX_DIMENSIONS: usize = 6;

/// Length and lower bound of each dimension.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    dimensions: [(i64, i64); MAX_DIMENSIONS],
    count: usize,
}

impl Shape {
    pub(crate) fn dimensions(&self) -> &[(i64, i64)] {
        self.dimensions.get(..self.count).unwrap_or_default()
    }

    fn push(&mut self, length: i64, lower: i64) -> Result<(), Fault> {
        let fault = Fault::Malformed(WHAT);
        if length < 0 {
            return Err(fault);
        }
        *self.dimensions.get_mut(self.count).ok_or(fault)? = (length, lower);
        self.count += 1;
        Ok(())
    }

    /// Empty, or one dimension that counts from 1: what SQL calls an array.
    pub(crate) fn is_plain(&self) -> bool {
        matches!(self.dimensions(), [] | [(_, 1)])
    }

    fn elements(&self) -> Option<i64> {
        if self.count == 0 {
            return Some(0);
        }
        self.dimensions()
            .iter()
            .try_fold(1_i64, |product, (length, _)| product.checked_mul(*length))
    }

    /// `[1:2][0:3]`.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        for (length, lower) in self.dimensions() {
            put!(out, "[{lower}:{}]", lower + length - 1);
        }
    }

    /// Whether Postgres writes the bounds in the text form.
    pub(crate) fn shows_bounds(&self) -> bool {
        self.dimensions().iter().any(|(_, lower)| *lower != 1)
    }

    /// How many braces close behind the element with this number (from 1), or open before it.
    pub(crate) fn braces(&self, element: i64) -> usize {
        let mut size = 1_i64;
        let turns = self.dimensions().iter().rev().take_while(|(length, _)| {
            size = size.saturating_mul(*length);
            size > 0 && element % size == 0
        });
        turns.count()
    }
}

/// An array, its elements not read yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Array<'a> {
    pub(crate) shape: Shape,
    elements: Elements<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Elements<'a> {
    Binary(Reader<'a>),
    Text {
        braces: &'a [u8],
        delimiter: u8,
    },
    /// `1 2 3`, as `int2vector` is written.
    Spaced(&'a [u8]),
}

/// Reads the head of an array.
pub(crate) fn parse<'a>(
    datum: Datum<'a>,
    delimiter: u8,
    scratch: &mut Vec<u8>,
) -> Result<Array<'a>, Fault> {
    match datum {
        Datum::Binary(bytes) => binary(bytes),
        Datum::Text(text) => {
            let (bounds, braces) = bounds(text)?;
            let shape = shape_of(braces, delimiter, bounds, scratch)?;
            Ok(Array { shape, elements: Elements::Text { braces, delimiter } })
        }
    }
}

/// Reads the head of an `int2vector` or `oidvector`: an array that counts from 0 and whose text
/// form is numbers and spaces. That is their only shape, so it is not told.
pub(crate) fn parse_vector(datum: Datum<'_>) -> Result<Array<'_>, Fault> {
    match datum {
        Datum::Binary(bytes) => {
            let vector = binary(bytes)?;
            match vector.shape.dimensions() {
                [] | [_] => Ok(Array { shape: Shape::default(), ..vector }),
                _ => Err(Fault::Malformed(&"int2vector")),
            }
        }
        Datum::Text(text) => {
            Ok(Array { shape: Shape::default(), elements: Elements::Spaced(text) })
        }
    }
}

fn binary(bytes: &[u8]) -> Result<Array<'_>, Fault> {
    let mut reader = Reader::new(bytes, WHAT);
    let count = reader.len()?;
    let (_has_nulls, _element_oid) = (reader.u32()?, reader.u32()?);
    let mut shape = Shape::default();
    for _ in 0..count {
        let (length, lower) = (reader.i32()?, reader.i32()?);
        shape.push(length.into(), lower.into())?;
    }
    Ok(Array { shape, elements: Elements::Binary(reader) })
}

impl<'a> Array<'a> {
    /// Gives each element to `each`, and returns how many there were. An element with escapes is
    /// put together in `scratch`.
    pub(crate) fn each(
        self,
        scratch: &mut Vec<u8>,
        mut each: impl FnMut(Option<Datum<'_>>) -> Result<(), Fault>,
    ) -> Result<usize, Fault> {
        let mut count = 0;
        match self.elements {
            Elements::Binary(mut reader) => {
                while !reader.is_empty() {
                    each(reader.item()?.map(Datum::Binary))?;
                    count += 1;
                }
            }
            Elements::Text { braces, delimiter } => {
                let mut tokens = Tokens { rest: braces, delimiter };
                while let Some(token) = tokens.next(scratch)? {
                    if let Token::Item(item) = token {
                        each(item.map(Datum::Text))?;
                        count += 1;
                    }
                }
            }
            Elements::Spaced(text) => {
                for number in text.split(|byte| *byte == b' ').filter(|number| !number.is_empty()) {
                    each(Some(Datum::Text(number)))?;
                    count += 1;
                }
                return Ok(count);
            }
        }
        let expected = self.shape.elements();
        let told = self.shape.count == 0 || expected == i64::try_from(count).ok();
        // A vector's shape is not kept, so its elements are not counted against it.
        if told { Ok(count) } else { Err(Fault::Malformed(WHAT)) }
    }
}

/// The bounds that may stand before the braces, `[0:1][-3:4]=`.
fn bounds(text: &[u8]) -> Result<(Option<Shape>, &[u8]), Fault> {
    let fault = Fault::Malformed(WHAT);
    if text.first() != Some(&b'[') {
        return Ok((None, text));
    }
    let equals = text.iter().position(|byte| *byte == b'=').ok_or(fault)?;
    let (bounds, braces) = text.split_at_checked(equals).ok_or(fault)?;
    let mut shape = Shape::default();
    for bound in std::str::from_utf8(bounds).map_err(|_| fault)?.split_inclusive(']') {
        let inner = bound.strip_prefix('[').and_then(|bound| bound.strip_suffix(']'));
        let (lower, upper) = inner.and_then(|inner| inner.split_once(':')).ok_or(fault)?;
        let lower: i32 = lower.parse().map_err(|_| fault)?;
        let upper: i32 = upper.parse().map_err(|_| fault)?;
        shape.push(i64::from(upper) - i64::from(lower) + 1, lower.into())?;
    }
    Ok((Some(shape), braces.get(1..).unwrap_or_default()))
}

/// The lengths that the braces show: those of the first of each level, as all are alike.
fn shape_of(
    braces: &[u8],
    delimiter: u8,
    bounds: Option<Shape>,
    scratch: &mut Vec<u8>,
) -> Result<Shape, Fault> {
    let fault = Fault::Malformed(WHAT);
    if braces == b"{}" {
        return Ok(Shape::default());
    }
    let depth = braces.iter().take_while(|byte| **byte == b'{').count();
    let mut lengths = [0_i64; MAX_DIMENSIONS];
    let mut closed = [false; MAX_DIMENSIONS];
    let mut level = 0_usize;
    let mut tokens = Tokens { rest: braces, delimiter };
    while let Some(token) = tokens.next(scratch)? {
        let parent = level.checked_sub(1);
        match token {
            Token::Open | Token::Item(_) => {
                if let Some(parent) = parent
                    && closed.get(parent) == Some(&false)
                    && let Some(length) = lengths.get_mut(parent)
                {
                    *length += 1;
                }
                match token {
                    Token::Open => level += 1,
                    _ if level != depth => return Err(fault),
                    _ => {}
                }
            }
            Token::Close => {
                level = parent.ok_or(fault)?;
                *closed.get_mut(level).ok_or(fault)? = true;
            }
        }
    }
    if level != 0 {
        return Err(fault);
    }
    let mut shape = Shape::default();
    for length in lengths.get(..depth).ok_or(fault)? {
        shape.push(*length, 1)?;
    }
    match bounds {
        None => Ok(shape),
        Some(bounds) => {
            let lengths = |shape: &Shape| shape.dimensions.map(|(length, _)| length);
            if lengths(&bounds) == lengths(&shape) { Ok(bounds) } else { Err(fault) }
        }
    }
}

enum Token<'s> {
    Open,
    Close,
    Item(Option<&'s [u8]>),
}

/// What is left of an array's text form.
struct Tokens<'a> {
    rest: &'a [u8],
    delimiter: u8,
}

impl<'a> Tokens<'a> {
    fn next<'s>(&mut self, scratch: &'s mut Vec<u8>) -> Result<Option<Token<'s>>, Fault>
    where
        'a: 's,
    {
        let delimiter = self.delimiter;
        if let Some((first, tail)) = self.rest.split_first()
            && *first == delimiter
        {
            self.rest = tail;
        }
        match self.rest {
            [] => Ok(None),
            [b'{', tail @ ..] => {
                self.rest = tail;
                Ok(Some(Token::Open))
            }
            [b'}', tail @ ..] => {
                self.rest = tail;
                Ok(Some(Token::Close))
            }
            _ => {
                let stop = |byte| byte == delimiter || byte == b'}' || byte == b'{';
                let (text, quoted) = item(&mut self.rest, scratch, stop)?;
                let null = !quoted && text == b"NULL";
                if text.is_empty() && !quoted {
                    return Err(Fault::Malformed(WHAT));
                }
                Ok(Some(Token::Item((!null).then_some(text))))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(String, Vec<Option<String>>), Fault> {
        let array = parse(Datum::Text(text.as_bytes()), b',', &mut Vec::new())?;
        let mut shape = Vec::new();
        array.shape.write(&mut shape);
        let mut items = Vec::new();
        array.each(&mut Vec::new(), |item| {
            let text = |datum| match datum {
                Datum::Text(text) => String::from_utf8(text.to_vec()).unwrap(),
                Datum::Binary(_) => panic!("text stays text"),
            };
            items.push(item.map(text));
            Ok(())
        })?;
        Ok((String::from_utf8(shape).unwrap(), items))
    }

    fn some(items: &[&str]) -> Vec<Option<String>> {
        items.iter().map(|item| Some((*item).to_owned())).collect()
    }

    #[test]
    fn the_text_form_keeps_elements_nulls_and_bounds() {
        assert_eq!(read("{}"), Ok((String::new(), vec![])));
        assert_eq!(read("{1,2}"), Ok(("[1:2]".into(), some(&["1", "2"]))));
        assert_eq!(
            read(r#"{"a b",NULL,"","NULL","q\"\\"}"#),
            Ok((
                "[1:5]".into(),
                vec![
                    Some("a b".into()),
                    None,
                    Some(String::new()),
                    Some("NULL".into()),
                    Some("q\"\\".into())
                ]
            ))
        );
        assert_eq!(
            read("{{1,2,3},{4,5,6}}"),
            Ok(("[1:2][1:3]".into(), some(&["1", "2", "3", "4", "5", "6"])))
        );
        assert_eq!(
            read("[0:1][-1:0]={{1,2},{3,4}}"),
            Ok(("[0:1][-1:0]".into(), some(&["1", "2", "3", "4"])))
        );
    }

    #[test]
    fn what_is_no_array_is_refused() {
        for text in ["{1,2", "{1,,2}", "{{1},2}", "{{1,2},{3}}", "[0:1]={1}", "[0:1={1}", "{\"a}"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
