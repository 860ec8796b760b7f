//! What is kept of a row or a record until both sides are there, as bytes.

use super::Place;
use crate::lsn::Lsn;
use crate::read_back::Told;

/// A key as a record has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The id of its schema; zero for the table's own, as it is now.
    pub schema: u32,
    /// Its Avro bytes.
    pub bytes: Box<[u8]>,
}

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowEntry<'a> {
    /// The key's digest.
    pub digest: u128,
    /// The key, under the table's own schema.
    pub key: &'a [u8],
    /// The columns' digests.
    pub columns: Columns<'a>,
}

/// A record of the topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicEntry<'a> {
    /// The key's digest.
    pub digest: u128,
    /// The id of the key's schema.
    pub schema: u32,
    /// The key.
    pub key: &'a [u8],
    /// Where it lies.
    pub place: Place,
    /// What it says.
    pub told: Told,
    /// The columns' digests, where it says that there is a row.
    pub columns: Columns<'a>,
}

/// Digests: as they were made, or as they are kept.
#[derive(Clone, Copy, Debug)]
pub enum Columns<'a> {
    /// As numbers.
    Made(&'a [u64]),
    /// Eight bytes each.
    Kept(&'a [u8]),
}

impl PartialEq for Columns<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.to_vec() == other.to_vec()
    }
}

impl Eq for Columns<'_> {}

impl Columns<'_> {
    /// As numbers.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u64> {
        match self {
            Self::Made(numbers) => numbers.to_vec(),
            Self::Kept(bytes) => {
                let (numbers, _) = bytes.as_chunks();
                numbers.iter().map(|number| u64::from_le_bytes(*number)).collect()
            }
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Made(numbers) => {
                numbers.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
            }
            Self::Kept(bytes) => out.extend_from_slice(bytes),
        }
    }
}

/// In which of so many buckets a key is.
#[must_use]
pub fn bucket(digest: u128, buckets: usize) -> usize {
    let buckets = u128::try_from(buckets.max(1)).unwrap_or(1);
    usize::try_from(digest % buckets).unwrap_or(0)
}

impl<'a> RowEntry<'a> {
    /// Appends it.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.digest.to_le_bytes());
        sized(self.key, out);
        self.columns.write(out);
    }

    /// Takes one of so many columns off the front; none at the end, or where there is none.
    #[must_use]
    pub fn take(from: &mut &'a [u8], columns: usize) -> Option<Self> {
        let digest = u128::from_le_bytes(number(from)?);
        Some(Self {
            digest,
            key: take_sized(from)?,
            columns: Columns::Kept(take(from, columns * 8)?),
        })
    }
}

impl<'a> TopicEntry<'a> {
    /// Appends it.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.digest.to_le_bytes());
        out.extend_from_slice(&self.schema.to_le_bytes());
        sized(self.key, out);
        out.extend_from_slice(&self.place.partition.to_le_bytes());
        out.extend_from_slice(&self.place.offset.to_le_bytes());
        out.extend_from_slice(&self.place.commit.0.to_le_bytes());
        out.push(u8::from(self.told == Told::Row));
        if self.told == Told::Row {
            self.columns.write(out);
        }
    }

    /// Takes one of so many columns off the front; none at the end, or where there is none.
    #[must_use]
    pub fn take(from: &mut &'a [u8], columns: usize) -> Option<Self> {
        let digest = u128::from_le_bytes(number(from)?);
        let schema = u32::from_le_bytes(number(from)?);
        let key = take_sized(from)?;
        let place = Place {
            partition: u32::from_le_bytes(number(from)?),
            offset: i64::from_le_bytes(number(from)?),
            commit: Lsn(u64::from_le_bytes(number(from)?)),
        };
        let (told, columns) = match number(from)? {
            [0] => (Told::Gone, 0),
            [_] => (Told::Row, columns),
        };
        let columns = Columns::Kept(take(from, columns * 8)?);
        Some(Self { digest, schema, key, place, told, columns })
    }
}

fn sized(bytes: &[u8], out: &mut Vec<u8>) {
    // No record is larger.
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn take_sized<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = u32::from_le_bytes(number(from)?);
    take(from, usize::try_from(len).ok()?)
}

fn take<'a>(from: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = from.split_at_checked(count)?;
    *from = rest;
    Some(taken)
}

fn number<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = from.split_first_chunk()?;
    *from = rest;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_back_as_they_were_kept() {
        let place = Place { partition: 3, offset: 1 << 40, commit: Lsn(77) };
        let columns = Columns::Made(&[1, u64::MAX]);
        let said =
            TopicEntry { digest: 1 << 100, schema: 9, key: b"k", place, told: Told::Row, columns };
        let gone = TopicEntry { told: Told::Gone, columns: Columns::Made(&[]), ..said };
        let mut bytes = Vec::new();
        said.write(&mut bytes);
        gone.write(&mut bytes);
        let mut rest = bytes.as_slice();
        assert_eq!(TopicEntry::take(&mut rest, 2), Some(said));
        assert_eq!(TopicEntry::take(&mut rest, 2), Some(gone));
        assert_eq!((TopicEntry::take(&mut rest, 2), rest), (None, &[][..]));
        let row = RowEntry { digest: 5, key: b"", columns };
        bytes.clear();
        row.write(&mut bytes);
        assert_eq!(RowEntry::take(&mut bytes.as_slice(), 2), Some(row));
        assert_eq!(RowEntry::take(&mut &bytes[..bytes.len() - 1], 2), None);
    }

    #[test]
    fn every_key_has_one_bucket() {
        assert_eq!(bucket(u128::MAX, 128), 127);
        assert_eq!((bucket(256, 128), bucket(5, 0)), (0, 0));
    }
}
