//! Logs that are made up: what committed, and the records a faultless daemon makes of it.

use serde_json::{Value, json};
use waltide_torture::{
    Allowance, Change, Checker, Kind, Mode, Position, Random, Row, Seen, Violation, What,
};

/// What committed, and what arrived.
#[derive(Clone)]
pub(crate) struct Log {
    pub(crate) changes: Vec<Change>,
    pub(crate) records: Vec<Seen>,
    rows: std::collections::BTreeMap<String, Row>,
    commit: u64,
    ordinal: u64,
    number: i64,
}

/// Partitions of the one table.
pub(crate) const PARTITIONS: i32 = 2;

pub(crate) fn row(of: &Value) -> Row {
    of.as_object().expect("an object").clone()
}

impl Log {
    pub(crate) fn new() -> Self {
        let rows = std::collections::BTreeMap::new();
        let (changes, records) = (Vec::new(), Vec::new());
        Self { changes, records, rows, commit: 1000, ordinal: 0, number: 0 }
    }

    /// The same at random.
    pub(crate) fn random(random: &mut Random, count: u64) -> Self {
        let mut log = Self::new();
        for _ in 0..count {
            let key = format!("{}", random.of(0..6));
            match random.of(0..12) {
                0 => log.truncate(),
                1 | 2 => log.commit(),
                3 | 4 if log.rows.contains_key(&key) => log.delete(&key),
                5 if log.rows.contains_key(&key) => log.leave_unchanged(&key),
                _ if log.rows.contains_key(&key) => log.update(&key),
                _ => log.create(&key),
            }
        }
        log
    }

    /// What follows is of the next transaction.
    pub(crate) fn commit(&mut self) {
        self.commit += 10;
        self.ordinal = 0;
    }

    pub(crate) fn create(&mut self, key: &str) {
        let made = self.next_row(key, "made");
        self.changed(key, Kind::Create, Some(made.clone()), None);
        self.record(key, What::Create(made.clone()), 0);
        self.rows.insert(key.to_owned(), made);
    }

    pub(crate) fn update(&mut self, key: &str) {
        let (old, new) = (self.rows.get(key).cloned(), self.next_row(key, "changed"));
        self.changed(key, Kind::Update, Some(new.clone()), old);
        self.record(key, What::Update(new.clone(), Vec::new()), 0);
        self.rows.insert(key.to_owned(), new);
    }

    /// An update that the server tells without the note, as it was not touched.
    pub(crate) fn leave_unchanged(&mut self, key: &str) {
        let old = self.rows.get(key).cloned().expect("a row");
        let mut new = self.next_row(key, "");
        new["note"] = old["note"].clone();
        self.changed(key, Kind::Update, Some(new.clone()), Some(old));
        let mut told = new.clone();
        told["note"] = Value::Null;
        self.record(key, What::Update(told, vec!["note".into()]), 0);
        self.rows.insert(key.to_owned(), new);
    }

    pub(crate) fn delete(&mut self, key: &str) {
        let old = self.rows.remove(key);
        self.changed(key, Kind::Delete, None, old);
        self.record(key, What::Delete, 0);
        self.ordinal -= 1;
        self.record(key, What::Tombstone, 1);
    }

    pub(crate) fn truncate(&mut self) {
        self.rows.clear();
        self.changed("", Kind::Truncate, None, None);
        for partition in 0..PARTITIONS {
            let sub_index = u32::try_from(partition).expect("a small number");
            let at = self.here(sub_index);
            self.push(partition, None, at, What::Truncate);
        }
        self.ordinal += 1;
    }

    /// A snapshot finds the row as it is.
    pub(crate) fn read(&mut self, key: &str) {
        let row = self.rows.get(key).cloned().expect("a row");
        self.record(key, What::Read(row), 0);
    }

    /// The records so far of a partition come again from the one that many before its end.
    pub(crate) fn repeat(&mut self, partition: i32, back: usize) {
        let of_it =
            |seen: &&Seen| seen.partition == partition && !matches!(seen.what, What::Read(_));
        let mut known: Vec<Seen> = self.records.iter().filter(of_it).cloned().collect();
        known.sort_by_key(|seen| seen.position);
        known.dedup_by_key(|seen| seen.position);
        let from = known.len().saturating_sub(back);
        self.records.extend_from_slice(&known[from..]);
    }

    fn next_row(&mut self, key: &str, note: &str) -> Row {
        let number = self.number + 1;
        row(&json!({ "id": key, "v": number, "note": note }))
    }

    fn changed(&mut self, key: &str, kind: Kind, row: Option<Row>, old: Option<Row>) {
        self.number += 1;
        let (number, table, key) = (self.number, "public.items".to_owned(), key.to_owned());
        self.changes.push(Change { number, table, kind, key, row, old });
    }

    fn record(&mut self, key: &str, what: What, sub_index: u32) {
        let partition = i32::from(key.ends_with(['1', '3', '5']));
        let at = self.here(sub_index);
        self.push(partition, Some(key.to_owned()), at, what);
        self.ordinal += 1;
    }

    fn here(&self, sub_index: u32) -> Position {
        Position { commit_lsn: self.commit, ordinal: self.ordinal, sub_index }
    }

    fn push(&mut self, partition: i32, key: Option<String>, position: Position, what: What) {
        let digest = position.commit_lsn * 1_000_000 + position.ordinal;
        let (table, offset) =
            ("public.items".to_owned(), i64::try_from(self.records.len()).expect("small"));
        let seen = Seen { table, partition, offset, key, position, what, digest };
        self.records.push(seen);
    }

    /// What a checker says of all of it.
    pub(crate) fn judged(&self, mode: Mode, allowed: Allowance) -> Vec<Violation> {
        let mut checker = Checker::new(mode);
        checker.has_partitions("public.items", 0..PARTITIONS);
        self.tell(&mut checker, allowed);
        checker.conclude();
        checker.take_violations()
    }

    pub(crate) fn tell(&self, checker: &mut Checker, allowed: Allowance) {
        checker.allow(allowed);
        for change in &self.changes {
            checker.committed(change.clone());
        }
        for seen in &self.records {
            checker.arrived(seen.clone());
        }
    }

    /// The same, as words: the kinds of violations, each once.
    #[track_caller]
    pub(crate) fn kinds(&self, mode: Mode, allowed: Allowance) -> Vec<&'static str> {
        let mut names: Vec<_> = self.judged(mode, allowed).iter().map(Violation::name).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}
