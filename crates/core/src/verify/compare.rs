//! One bucket of both sides, compared.

use std::collections::BTreeMap;
use std::collections::hash_map::Entry;

use rustc_hash::FxHashMap;

use super::{Key, Match, Place, RowEntry, Standing, TopicEntry};
use crate::read_back::Told;

/// What a bucket comes to.
#[derive(Debug, Default)]
pub struct Compared {
    /// Rows of the table.
    pub rows: u64,
    /// Keys of which the topic says that there is a row.
    pub keys: u64,
    /// Keys whose last record is what the table showed.
    pub equal: u64,
    /// The others: those that differ, and those that have to be looked at again to know.
    pub open: Vec<Open>,
}

/// A key to be looked at again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The key's digest.
    pub digest: u128,
    /// The key.
    pub key: Key,
    /// What the topic says of it; none where it says nothing.
    pub standing: Option<Standing>,
}

/// Compares what the topic says with what the table showed, with so many columns. `truncated` has,
/// by partition, the last place at which it was said that there are no rows any more. None where
/// the bytes are no entries.
#[must_use]
pub fn compare(
    mut topic: &[u8],
    mut table: &[u8],
    columns: usize,
    truncated: &BTreeMap<u32, Place>,
) -> Option<Compared> {
    let mut said: FxHashMap<u128, Open> = FxHashMap::default();
    while !topic.is_empty() {
        let entry = TopicEntry::take(&mut topic, columns)?;
        let row = entry.columns.to_vec();
        match said.entry(entry.digest) {
            Entry::Vacant(new) => {
                let key = Key { schema: entry.schema, bytes: entry.key.into() };
                let standing = Some(Standing::first(entry.place, entry.told, &row));
                new.insert(Open { digest: entry.digest, key, standing });
            }
            Entry::Occupied(mut known) => {
                if let Some(standing) = &mut known.get_mut().standing {
                    standing.apply(entry.place, entry.told, &row);
                }
            }
        }
    }
    for standing in said.values_mut().filter_map(|open| open.standing.as_mut()) {
        let after = truncated.get(&standing.place.partition);
        if let Some(place) = after.filter(|place| place.offset > standing.place.offset) {
            standing.apply(*place, Told::Gone, &[]);
        }
    }
    let mut compared = Compared::default();
    let has_row = |open: &&Open| open.standing.as_ref().is_some_and(|of| of.row.is_some());
    compared.keys = u64::try_from(said.values().filter(has_row).count()).unwrap_or(u64::MAX);
    // A key that was seen twice, as a row that moved while the table was read.
    let mut seen: FxHashMap<u128, bool> = FxHashMap::default();
    while !table.is_empty() {
        let entry = RowEntry::take(&mut table, columns)?;
        compared.rows += 1;
        let open = said.entry(entry.digest).or_insert_with(|| Open {
            digest: entry.digest,
            key: Key { schema: 0, bytes: entry.key.into() },
            standing: None,
        });
        let row = entry.columns.to_vec();
        let equal =
            open.standing.as_ref().is_some_and(|of| of.compared(Some(&row)) == Match::Equal);
        seen.entry(entry.digest).and_modify(|all| *all &= equal).or_insert(equal);
    }
    for (digest, open) in said {
        let is_gone = open.standing.as_ref().is_some_and(|of| of.row.is_none());
        match seen.get(&digest) {
            Some(true) => compared.equal += 1,
            None if is_gone => {}
            Some(false) | None => compared.open.push(open),
        }
    }
    Some(compared)
}

#[cfg(test)]
mod tests {
    use super::super::entry::Columns;
    use super::*;
    use crate::lsn::Lsn;
    use crate::read_back::UNTOLD;

    fn said(out: &mut Vec<u8>, digest: u128, (partition, offset): (u32, i64), row: Option<&[u64]>) {
        let place = Place { partition, offset, commit: Lsn(offset.unsigned_abs()) };
        let told = if row.is_some() { Told::Row } else { Told::Gone };
        let columns = Columns::Made(row.unwrap_or_default());
        TopicEntry { digest, schema: 1, key: b"k", place, told, columns }.write(out);
    }

    fn row(out: &mut Vec<u8>, digest: u128, columns: &[u64]) {
        RowEntry { digest, key: b"k", columns: Columns::Made(columns) }.write(out);
    }

    fn open(compared: &Compared) -> Vec<u128> {
        let mut open: Vec<_> = compared.open.iter().map(|open| open.digest).collect();
        open.sort_unstable();
        open
    }

    #[test]
    fn each_kind_of_difference_is_left_open_and_nothing_else() {
        let (mut topic, mut table) = (Vec::new(), Vec::new());
        // Changed and changed back; deleted; told in parts.
        said(&mut topic, 1, (0, 1), Some(&[1, 1]));
        said(&mut topic, 1, (0, 2), Some(&[1, 2]));
        said(&mut topic, 1, (0, 3), Some(&[1, 1]));
        row(&mut table, 1, &[1, 1]);
        said(&mut topic, 2, (0, 4), Some(&[2, 2]));
        said(&mut topic, 2, (0, 5), None);
        said(&mut topic, 3, (0, 6), Some(&[3, 3]));
        said(&mut topic, 3, (0, 7), Some(&[4, UNTOLD]));
        row(&mut table, 3, &[4, 3]);
        // Another value; missing; extra; not told; seen twice, and once as it was.
        said(&mut topic, 4, (0, 8), Some(&[5, 5]));
        row(&mut table, 4, &[5, 6]);
        row(&mut table, 5, &[7, 7]);
        said(&mut topic, 6, (0, 9), Some(&[8, 8]));
        said(&mut topic, 7, (0, 10), Some(&[9, UNTOLD]));
        row(&mut table, 7, &[9, 9]);
        said(&mut topic, 8, (0, 11), Some(&[1, 1]));
        row(&mut table, 8, &[1, 1]);
        row(&mut table, 8, &[1, 2]);
        let compared = compare(&topic, &table, 2, &BTreeMap::new()).expect("entries");
        assert_eq!(open(&compared), [4, 5, 6, 7, 8]);
        assert_eq!((compared.rows, compared.keys, compared.equal), (7, 6, 2));
        assert!(compare(&topic[1..], &table, 2, &BTreeMap::new()).is_none());
    }

    #[test]
    fn a_truncate_ends_what_lies_before_it_in_its_partition() {
        let (mut topic, mut table) = (Vec::new(), Vec::new());
        said(&mut topic, 1, (0, 1), Some(&[1]));
        said(&mut topic, 2, (1, 1), Some(&[1]));
        said(&mut topic, 3, (0, 9), Some(&[1]));
        row(&mut table, 2, &[1]);
        row(&mut table, 3, &[1]);
        let place = Place { partition: 0, offset: 5, commit: Lsn(5) };
        let compared = compare(&topic, &table, 1, &BTreeMap::from([(0, place)]));
        let compared = compared.expect("entries");
        assert_eq!((open(&compared), compared.equal), (vec![], 2));
    }

    #[test]
    fn of_two_partitions_the_later_position_counts_and_of_one_the_later_record() {
        let (mut topic, mut table) = (Vec::new(), Vec::new());
        said(&mut topic, 1, (1, 7), Some(&[2]));
        said(&mut topic, 1, (0, 6), Some(&[1]));
        row(&mut table, 1, &[2]);
        // A late record of a predecessor: compaction keeps it, and readers see it last.
        said(&mut topic, 2, (0, 9), Some(&[2]));
        said(&mut topic, 2, (0, 8), Some(&[1]));
        row(&mut table, 2, &[2]);
        let compared = compare(&topic, &table, 1, &BTreeMap::new()).expect("entries");
        assert_eq!(open(&compared), [2]);
    }
}
