//! Rows between their reading and their release: one buffer, however many.

use super::{Key, Tid};
use crate::pgoutput::encode::TupleBuf;
use crate::pgoutput::{Field, Tuple};

/// Rows of one chunk.
#[derive(Clone, Debug, Default)]
pub struct HeldRows {
    bytes: Vec<u8>,
    /// Where each row ends.
    ends: Vec<usize>,
    columns: u16,
}

impl HeldRows {
    /// Takes a row that COPY or a query sent, of which the first field is its place in the file;
    /// none where that is not one.
    pub fn push(&mut self, row: Tuple<'_>) -> Option<Tid> {
        let mut fields = row.fields();
        let Some(Field::Binary(&[a, b, c, d, e, f])) = fields.next() else { return None };
        // A kind, a length and the six bytes.
        let rest = row.bytes.get(11..)?;
        self.bytes.extend_from_slice(rest);
        self.ends.push(self.bytes.len());
        self.columns = row.count.saturating_sub(1);
        Some(Tid::new(u32::from_be_bytes([a, b, c, d]), u16::from_be_bytes([e, f])))
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The memory they take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len() + self.ends.len() * size_of::<usize>()
    }

    /// The memory they would have without growing.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.bytes.capacity() + self.ends.capacity() * size_of::<usize>()
    }

    /// Leaves none, and the memory to use again.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// The row of this number, without its place.
    #[must_use]
    pub fn get(&self, row: usize) -> Option<Tuple<'_>> {
        let end = *self.ends.get(row)?;
        let start = row.checked_sub(1).and_then(|before| self.ends.get(before)).copied();
        let bytes = self.bytes.get(start.unwrap_or(0)..end)?;
        Some(Tuple { bytes, count: self.columns })
    }
}

/// The keys of a chunk's rows, as records have them: one buffer, however many.
#[derive(Clone, Debug, Default)]
pub struct HeldKeys {
    bytes: Vec<u8>,
    /// Where each key ends.
    ends: Vec<usize>,
}

impl HeldKeys {
    /// Takes the next row's, which `write` appends.
    ///
    /// # Errors
    /// That of `write`.
    pub fn push<E>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        write(&mut self.bytes)?;
        self.ends.push(self.bytes.len());
        Ok(())
    }

    /// That of the row of this number; nothing where there is no such row.
    #[must_use]
    pub fn get(&self, row: usize) -> &[u8] {
        let start = row.checked_sub(1).and_then(|before| self.ends.get(before)).copied();
        let end = self.ends.get(row).copied().unwrap_or_default();
        self.bytes.get(start.unwrap_or(0)..end).unwrap_or_default()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.ends.len()).map(|row| self.get(row))
    }
}

/// A row's key, to be told apart and to be asked for: its columns in the form of a tuple. None
/// where one of them was not sent.
#[must_use]
pub fn key_of(row: Tuple<'_>, columns: &[usize]) -> Option<Key> {
    let mut tuple = TupleBuf::default();
    for at in columns {
        match row.fields().nth(*at)? {
            Field::Unchanged => return None,
            field => tuple.push(field),
        }
    }
    let tuple = tuple.tuple();
    let mut key = tuple.count.to_be_bytes().to_vec();
    key.extend_from_slice(tuple.bytes);
    Some(key.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_without_their_place() {
        let mut held = HeldRows::default();
        let fields = [Field::Binary(&[0, 0, 0, 3, 0, 9]), Field::Text(b"x"), Field::Null];
        assert_eq!(held.push(TupleBuf::new(fields).tuple()), Some(Tid::new(3, 9)));
        let second = [Field::Binary(&[0, 0, 0, 4, 0, 1]), Field::Null, Field::Binary(b"yz")];
        assert_eq!(held.push(TupleBuf::new(second).tuple()), Some(Tid::new(4, 1)));
        assert_eq!(held.len(), 2);
        let row = |at| held.get(at).map(|row| row.fields().collect::<Vec<_>>());
        assert_eq!(row(0).unwrap(), &fields[1..]);
        assert_eq!(row(1).unwrap(), &second[1..]);
        assert_eq!(row(2), None);
        assert_eq!(held.push(TupleBuf::new([Field::Null]).tuple()), None);
    }

    #[test]
    fn keys_come_back_in_their_order() {
        let mut keys = HeldKeys::default();
        for key in [b"a".as_slice(), b"", b"bc"] {
            let write = |out: &mut Vec<u8>| -> Result<(), ()> {
                out.extend_from_slice(key);
                Ok(())
            };
            keys.push(write).unwrap();
        }
        assert_eq!(keys.iter().collect::<Vec<_>>(), [b"a".as_slice(), b"", b"bc"]);
        assert_eq!(keys.get(3), b"");
    }

    #[test]
    fn a_key_is_a_tuple_of_its_columns() {
        let row = TupleBuf::new([Field::Text(b"a"), Field::Unchanged, Field::Binary(b"bc")]);
        let key = key_of(row.tuple(), &[2, 0]).expect("a key");
        let fields: Vec<_> = Tuple::decode(&key).expect("a tuple").fields().collect();
        assert_eq!(fields, [Field::Binary(b"bc"), Field::Text(b"a")]);
        assert_eq!(key_of(row.tuple(), &[1]), None);
        assert_eq!(key_of(row.tuple(), &[3]), None);
    }
}
