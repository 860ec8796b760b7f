//! Rows that somebody names by their keys, because a topic does not hold what its table holds.
//!
//! They are read like every chunk of keys. What is told beside the rows is which of the keys have
//! none: that is the table's word as well, and it is released by the same rule. A key that has no
//! row in S, and that nothing has touched between p0 and R, has none at R: what was published up to
//! p0 is visible in S, and what S shows lies before R.

use std::collections::BTreeSet;

use super::job::Job;
use super::{Book, ChunkId, Key};
use crate::pgoutput::encode::TupleBuf;
use crate::pgoutput::{Field, RelationId, Tuple};

/// The rows that are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    /// The columns of the key, in the order in which the rows have them.
    pub columns: Vec<String>,
    /// The key's values of each, as text.
    pub rows: BTreeSet<Key>,
}

impl Keys {
    /// So many rows at once.
    pub const MOST: usize = 1_000;

    /// What these may take: they are in every checkpoint until they have been read.
    pub const MOST_BYTES: usize = 64 << 10;

    /// Takes a row's values, as SQL writes them; false where they are not one for each column, or
    /// more than can be taken.
    pub fn push<'a>(&mut self, values: impl ExactSizeIterator<Item = &'a str>) -> bool {
        if values.len() != self.columns.len() {
            return false;
        }
        let row = TupleBuf::new(values.map(|value| Field::Text(value.as_bytes())));
        self.rows.insert(encoded(row.tuple()));
        self.rows.len() <= Self::MOST && self.bytes() <= Self::MOST_BYTES
    }

    /// What they take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.rows.iter().map(|row| row.len()).sum()
    }
}

fn encoded(tuple: Tuple<'_>) -> Key {
    let mut key = tuple.count.to_be_bytes().to_vec();
    key.extend_from_slice(tuple.bytes);
    key.into()
}

/// A row of so many columns of which nothing is there but its key; none where that is not one.
#[must_use]
pub fn row_of_key(key: &Key, columns: &[usize], count: usize) -> Option<TupleBuf> {
    let key = Tuple::decode(key).ok()?;
    let field = |at: usize| match columns.iter().position(|column| *column == at) {
        Some(place) => key.fields().nth(place),
        None => Some(Field::Null),
    };
    let fields: Option<Vec<Field<'_>>> = (0..count).map(field).collect();
    Some(TupleBuf::new(fields?))
}

impl Book {
    /// Whether a table is read by keys that somebody has named, and those alone.
    #[must_use]
    pub fn mends(&self, table: RelationId) -> bool {
        self.jobs.get(&table).is_some_and(Job::mends)
    }

    /// Whether it may be told here that there is no row with a key of a chunk, of which there was
    /// none when it was read; none where the chunk has no such key, and may not be released.
    #[must_use]
    pub fn may_bury(&self, table: RelationId, chunk: ChunkId, key: &[u8]) -> Option<bool> {
        self.jobs.get(&table)?.hands.get(&chunk)?.is_untouched(key)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Assignment, Known, Part, Terms, Touch};
    use super::*;
    use crate::lsn::Lsn;
    use crate::watermark::Ticket;

    const TABLE: RelationId = RelationId(7);

    fn keys() -> Keys {
        let mut keys = Keys { columns: vec!["id".to_owned()], ..Keys::default() };
        assert!(keys.push(["1"].into_iter()) && keys.push(["2"].into_iter()));
        keys
    }

    fn mending() -> (Book, Assignment) {
        let mut book = Book::default();
        book.take_as_read(TABLE, Known { fingerprint: 7, ..Known::default() });
        let terms = Terms { keys: Some(keys()), asked: true, ..Terms::default() };
        book.start_on(TABLE, Known { fingerprint: 7, ..Known::default() }, [].into(), terms);
        book.open_now(&BTreeSet::new());
        let span = super::super::Span::whole(TABLE, 3, 90);
        book.measured(TABLE, 0, Lsn(1), span.into_iter().collect());
        book.boundary(Lsn(10));
        let chunk = book.register(1, |_| true).expect("the keys");
        (book, chunk)
    }

    #[test]
    fn nothing_is_read_but_what_was_named() {
        let (mut book, chunk) = mending();
        assert_eq!(chunk.part, Part::Keys(keys().rows.into_iter().collect()));
        assert!(book.register(1, |_| true).is_none() && book.mends(TABLE));
        // Another row that leaves out its large value is none of its business.
        let row = TupleBuf::new([Field::Text(b"3"), Field::Unchanged]);
        book.touched(TABLE, b"3", Touch::Partly(row.tuple()), || Some(b"3".as_slice().into()));
        assert!(book.held(chunk.chunk, Lsn(10), None, [b"1".as_slice(), b"2"].into_iter()));
        book.released(chunk.chunk, Ticket(1), 2);
        book.delivered(|_| true);
        assert_eq!(book.done(), Some((TABLE, 2)));
    }

    #[test]
    fn a_key_that_was_touched_is_not_buried() {
        let (mut book, Assignment { chunk, .. }) = mending();
        book.touched(TABLE, b"1", Touch::Whole, || None);
        assert!(book.held(chunk, Lsn(20), None, [b"1".as_slice(), b"2", b"3"].into_iter()));
        book.touched(TABLE, b"2", Touch::Whole, || None);
        let may = |key: &[u8]| book.may_bury(TABLE, chunk, key);
        assert_eq!(
            [b"1", b"2", b"3", b"4"].map(|key| may(key)),
            [Some(false), Some(false), Some(true), None]
        );
        book.truncated(TABLE);
        assert_eq!(book.may_bury(TABLE, chunk, b"3"), Some(false));
    }

    #[test]
    fn a_table_that_is_mended_stays_known_and_starts_over_with_its_keys() {
        let (mut book, _) = mending();
        book.start_over(TABLE);
        book.measured(TABLE, 0, Lsn(2), Vec::new());
        let again = book.register(1, |_| true).expect("the keys");
        assert_eq!(again.part, Part::Keys(keys().rows.into_iter().collect()));
        let mut bytes = Vec::new();
        book.encode(&mut bytes);
        let mut read = Book::decode(&bytes).expect("the books");
        assert_eq!(read.terms(TABLE), book.terms(TABLE));
        read.boundary(Lsn(10));
        assert_eq!(read.register(1, |_| true).map(|chunk| chunk.part), Some(again.part));
        let known = read.after_gap().known(TABLE).map(|known| known.fingerprint);
        assert_eq!(known, Some(7), "it is not read anew");
    }

    #[test]
    fn no_more_keys_are_taken_than_a_checkpoint_can_hold() {
        let mut keys = keys();
        assert!(!keys.push(["1", "2"].into_iter()));
        let large = "x".repeat(Keys::MOST_BYTES);
        assert!(!keys.push([large.as_str()].into_iter()));
    }

    #[test]
    fn a_row_of_a_key_has_nothing_else() {
        let key = encoded(TupleBuf::new([Field::Text(b"b"), Field::Binary(b"a")]).tuple());
        let row = row_of_key(&key, &[2, 0], 3).expect("a row");
        let fields: Vec<_> = row.tuple().fields().collect();
        assert_eq!(fields, [Field::Binary(b"a"), Field::Null, Field::Text(b"b")]);
        assert!(row_of_key(&key, &[2, 0, 1], 3).is_none());
    }
}
