//! What there is to say of a record beside its value. On the row path: the buffers are reused.

use super::wire;
use crate::value::Datum;
use crate::value::form::Form;

/// Filled while a record is encoded; made once and reused.
///
/// The envelope `full` of the waltide profile carries all of it in the record. Otherwise it is for
/// headers and counters.
#[derive(Debug, Default)]
pub struct Notes {
    unchanged: Vec<usize>,
    unrepresentable: Texts,
    shapes: Texts,
    /// Buffers for what must be unescaped before it can be read, one for each level of nesting.
    spare: Vec<Vec<u8>>,
}

impl Notes {
    /// Nothing to say yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The columns (positions in the relation) whose TOASTed value the server did not send.
    pub fn unchanged(&self) -> impl ExactSizeIterator<Item = usize> + '_ {
        self.unchanged.iter().copied()
    }

    /// Values that the schema cannot hold, as path and text: `("after.price", "NaN")`. A null
    /// stands in their place.
    pub fn unrepresentable(&self) -> impl Iterator<Item = (&str, &str)> {
        self.unrepresentable.iter()
    }

    /// Arrays that are not plain, as path and bounds: `("after.matrix", "[1:2][1:3]")`. Their
    /// elements are flat, the last dimension running fastest.
    pub fn shapes(&self) -> impl Iterator<Item = (&str, &str)> {
        self.shapes.iter()
    }

    /// Whether there is nothing to say, as is the rule.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.unchanged.is_empty() && self.unrepresentable.count == 0 && self.shapes.count == 0
    }

    pub(crate) fn clear(&mut self) {
        self.unchanged.clear();
        self.unrepresentable.clear();
        self.shapes.clear();
    }

    pub(crate) fn note_unchanged(&mut self, column: usize) {
        self.unchanged.push(column);
    }

    #[cold]
    pub(crate) fn note_unrepresentable(&mut self, path: &Path<'_>, form: &Form, datum: Datum<'_>) {
        self.unrepresentable.push(path, |out| form.describe(datum, out));
    }

    #[cold]
    pub(crate) fn note_shape(&mut self, path: &Path<'_>, shape: impl FnOnce(&mut Vec<u8>)) {
        self.shapes.push(path, shape);
    }

    pub(crate) fn write_unrepresentable(&self, out: &mut Vec<u8>) {
        self.unrepresentable.write(out);
    }

    pub(crate) fn write_shapes(&self, out: &mut Vec<u8>) {
        self.shapes.write(out);
    }

    /// A buffer to unescape into; give it back afterwards.
    pub(crate) fn borrow(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    pub(crate) fn give_back(&mut self, mut buffer: Vec<u8>) {
        buffer.clear();
        self.spare.push(buffer);
    }
}

/// Pairs of texts, kept as the entries of the Avro map that they become.
#[derive(Debug, Default)]
struct Texts {
    count: usize,
    entries: Vec<u8>,
}

impl Texts {
    fn clear(&mut self) {
        self.count = 0;
        self.entries.clear();
    }

    fn push(&mut self, path: &Path<'_>, text: impl FnOnce(&mut Vec<u8>)) {
        self.count += 1;
        let _ = wire::sized(&mut self.entries, |out| {
            path.write(out);
            Ok::<_, ()>(())
        });
        let _ = wire::sized(&mut self.entries, |out| {
            text(out);
            Ok::<_, ()>(())
        });
    }

    #[inline]
    fn write(&self, out: &mut Vec<u8>) {
        if self.count > 0 {
            wire::size(out, self.count);
            out.extend_from_slice(&self.entries);
        }
        out.push(0);
    }

    fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut rest = self.entries.as_slice();
        std::iter::from_fn(move || {
            let (path, tail) = split_string(rest)?;
            let (text, tail) = split_string(tail)?;
            rest = tail;
            Some((path, text))
        })
    }
}

/// The Avro string that `bytes` start with, and the rest.
fn split_string(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = wire::read_long(bytes)?;
    let (text, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    Some((std::str::from_utf8(text).ok()?, rest))
}

/// Where in a record a value stands; lives on the stack of the functions that went there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    part: Part<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Part<'a> {
    Name(&'a str),
    Index(usize),
}

impl<'a> Path<'a> {
    #[inline]
    pub(crate) fn name(parent: Option<&'a Path<'a>>, name: &'a str) -> Self {
        Self { parent, part: Part::Name(name) }
    }

    #[inline]
    pub(crate) fn index(parent: &'a Path<'a>, index: usize) -> Self {
        Self { parent: Some(parent), part: Part::Index(index) }
    }

    /// `after.address.phones[2]`.
    fn write(&self, out: &mut Vec<u8>) {
        if let Some(parent) = self.parent {
            parent.write(out);
        }
        match self.part {
            Part::Name(name) => {
                if self.parent.is_some() {
                    out.push(b'.');
                }
                out.extend_from_slice(name.as_bytes());
            }
            Part::Index(index) => crate::value::put!(out, "[{index}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::scalar::Scalar;

    #[test]
    fn what_is_noted_reads_back_with_its_path() {
        let mut notes = Notes::new();
        let after = Path::name(None, "after");
        let prices = Path::name(Some(&after), "prices");
        let third = Path::index(&prices, 3);
        notes.note_unrepresentable(&third, &Form::Scalar(Scalar::Numeric), Datum::Text(b"NaN"));
        notes.note_unrepresentable(&prices, &Form::Scalar(Scalar::Text), Datum::Text(b"\xFFa"));
        assert_eq!(
            notes.unrepresentable().collect::<Vec<_>>(),
            [("after.prices[3]", "NaN"), ("after.prices", "\\xff61")]
        );
        assert!(!notes.is_empty());
        notes.clear();
        assert!(notes.is_empty() && notes.unrepresentable().next().is_none());
    }
}
