//! A table, rebuilt from its topic alone.
//!
//! The rules are strict: a create of a row that is there, a change of one that is not, an old row
//! that is not what the records before it made, each is a failure.

use std::collections::BTreeMap;

use waltide_stack::serde_json;

use super::change::{Change, Op, Row};

/// A rebuilt table.
#[derive(Debug, Default)]
pub(crate) struct Table {
    keyed: BTreeMap<String, Row>,
    /// Rows of a table without a key, and how many of each.
    keyless: BTreeMap<String, (Row, usize)>,
    /// Rows may be there of which no record has told yet.
    lenient: bool,
    /// Columns of which nobody has told the value yet, by key.
    untold: BTreeMap<String, Vec<String>>,
    /// A row on its way from one key to another, and whence it came.
    moving: Option<(Change, Row)>,
}

impl Table {
    /// Folds records, each once. They are taken in the order of their positions, which is the
    /// order of each partition; that a key stays in its partition is checked.
    #[track_caller]
    pub(crate) fn fold(changes: &[Change]) -> Self {
        let mut sorted: Vec<&Change> = changes.iter().collect();
        sorted.sort_by_key(|change| change.position);
        let mut table = Self::default();
        let mut partitions = BTreeMap::new();
        for change in sorted {
            if let Some(key) = change.key.clone() {
                let partition = change.partition;
                let home = *partitions.entry(key).or_insert(partition);
                assert_eq!(home, partition, "a key moved to another partition: {change:?}");
            }
            match change.key.clone() {
                Some(key) => table.apply(key, change),
                None => table.apply_keyless(change),
            }
        }
        table
    }

    /// The same for topics of which a snapshot is a part. Until a row has been read, it may change
    /// without having been created; once it is known, the same rules hold.
    #[track_caller]
    pub(crate) fn fold_with_snapshot(changes: &[Change]) -> Self {
        let mut table = Self { lenient: true, ..Self::default() };
        for change in changes {
            match change.key.clone() {
                Some(key) => table.apply(key, change),
                None => table.apply_keyless(change),
            }
        }
        assert!(table.untold.is_empty(), "values nobody has told: {:?}", table.untold);
        table
    }

    /// All rows; one that is there twice comes twice.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &Row> {
        let keyless = self.keyless.values();
        let keyless = keyless.flat_map(|(row, count)| std::iter::repeat_n(row, *count));
        self.keyed.values().chain(keyless)
    }

    #[track_caller]
    fn apply(&mut self, key: String, change: &Change) {
        if self.lenient && self.apply_untold(&key, change) {
            return;
        }
        match change.op {
            Op::Read => panic!("read, but no snapshot was asked for: {change:?}"),
            Op::Create => {
                let moved = self.moving.take().filter(|(from, _)| {
                    let (from, to) = (from.position, change.position);
                    from.commit == to.commit && from.ordinal == to.ordinal
                });
                let row = completed(change, moved.as_ref().map(|(_, row)| row));
                let there = self.keyed.insert(key, row);
                assert!(there.is_none(), "created, but it was there: {change:?}");
            }
            Op::Update => {
                let old = self.keyed.get(&key);
                let old = old.unwrap_or_else(|| panic!("updated, but not there: {change:?}"));
                assert_before(change, old);
                let row = completed(change, Some(old));
                self.keyed.insert(key, row);
            }
            Op::Delete => {
                let old = self.keyed.remove(&key);
                let old = old.unwrap_or_else(|| panic!("deleted, but not there: {change:?}"));
                assert_before(change, &old);
                self.moving = Some((change.clone(), old));
            }
            Op::Tombstone => {
                let of = self.moving.as_ref().map(|(delete, _)| delete);
                let of = of.unwrap_or_else(|| panic!("a tombstone without delete: {change:?}"));
                assert_eq!(of.key.as_ref(), Some(&key), "a tombstone of another: {change:?}");
                assert_eq!(of.position.ordinal, change.position.ordinal);
                assert_eq!(of.position.sub_index + 1, change.position.sub_index);
            }
            Op::Truncate => panic!("a truncate with a key: {change:?}"),
        }
    }

    /// What only snapshots bring about: rows that are read, and changes of rows that nobody has
    /// told of yet. False where the strict rules hold.
    #[track_caller]
    fn apply_untold(&mut self, key: &str, change: &Change) -> bool {
        let known = self.keyed.get(key).cloned();
        let untold = self.untold.remove(key).unwrap_or_default();
        match (change.op, known) {
            (Op::Read, known) => {
                let row = change.after.clone().expect("a row");
                if let Some(known) = known {
                    for (column, value) in &known {
                        let told = !untold.contains(column);
                        let same = row.get(column) == Some(value);
                        assert!(!told || same, "read, but another than {known:?}: {change:?}");
                    }
                }
                self.keyed.insert(key.to_owned(), row);
                true
            }
            (Op::Delete, known) => {
                self.keyed.remove(key);
                let mut row = known.unwrap_or_default();
                row.retain(|column, _| !untold.contains(column));
                self.moving = Some((change.clone(), row));
                true
            }
            (Op::Tombstone, _) => true,
            (Op::Create | Op::Update, known) => {
                let moved = self.moving.take().map(|(from, row)| (from.position, row));
                let moved = moved.filter(|(from, _)| {
                    (from.commit, from.ordinal) == (change.position.commit, change.position.ordinal)
                });
                let old = match change.op {
                    Op::Create => {
                        assert!(known.is_none(), "created, but it was there: {change:?}");
                        moved.map(|(_, row)| row).unwrap_or_default()
                    }
                    _ => known.unwrap_or_default(),
                };
                let mut row = change.after.clone().expect("a row");
                let mut still = Vec::new();
                for column in &change.unchanged {
                    match old.get(column) {
                        Some(value) if !untold.contains(column) => row[column] = value.clone(),
                        _ => still.push(column.clone()),
                    }
                }
                if !still.is_empty() {
                    self.untold.insert(key.to_owned(), still);
                }
                self.keyed.insert(key.to_owned(), row);
                true
            }
            _ => false,
        }
    }

    #[track_caller]
    fn apply_keyless(&mut self, change: &Change) {
        match change.op {
            Op::Truncate => {
                self.keyed.clear();
                self.untold.clear();
                self.keyless.clear();
                return;
            }
            Op::Create | Op::Read => {}
            Op::Update | Op::Delete => {
                let old = change.before.as_ref().expect("a row without key has its old values");
                assert!(!change.before_is_key, "a row without key is told by a key: {change:?}");
                self.take(old, change);
            }
            Op::Tombstone => panic!("a tombstone without a key: {change:?}"),
        }
        if change.after.is_some() {
            let row = completed(change, None);
            self.keyless.entry(text(&row)).or_insert((row, 0)).1 += 1;
        }
    }

    #[track_caller]
    fn take(&mut self, old: &Row, change: &Change) {
        let entry = self.keyless.get_mut(&text(old));
        let entry = entry.unwrap_or_else(|| panic!("not there: {change:?}"));
        entry.1 -= 1;
        if entry.1 == 0 {
            self.keyless.remove(&text(old));
        }
    }
}

fn text(row: &Row) -> String {
    serde_json::to_string(row).expect("JSON")
}

/// The new row, with what did not change taken from the old one.
#[track_caller]
fn completed(change: &Change, old: Option<&Row>) -> Row {
    let mut row = change.after.clone().unwrap_or_else(|| panic!("no row: {change:?}"));
    for column in &change.unchanged {
        assert!(row[column].is_null(), "unchanged, but there: {column} of {change:?}");
        let old = old.unwrap_or_else(|| panic!("unchanged of nothing: {change:?}"));
        row[column] = old[column].clone();
    }
    row
}

/// What a record says of the old row must be what the records before it made.
#[track_caller]
fn assert_before(change: &Change, known: &Row) {
    let Some(before) = &change.before else { return };
    if change.before_is_key {
        let key = change.key.as_deref().unwrap_or("null");
        let key: Row = serde_json::from_str(key).expect("the key is a record");
        for column in key.keys() {
            assert_eq!(before[column], known[column], "the old key is another: {change:?}");
        }
    } else {
        assert_eq!(before, known, "the old row is another: {change:?}");
    }
}
