//! The changes of one key, and the records of it.

use std::collections::VecDeque;

use super::{Change, Kind, Violation, at, difference};
use crate::partition::{Seen, What};

/// What must come.
#[derive(Debug)]
pub(super) struct Expected {
    pub(super) change: Change,
    /// How many truncates of the table committed before.
    truncates: u64,
    /// A delete has come, and its tombstone has not.
    tombstone: bool,
}

/// What has come and is new.
#[derive(Debug)]
pub(super) struct Came {
    pub(super) seen: Seen,
    truncates: u64,
}

/// What is known of a key and has not been compared.
#[derive(Debug, Default)]
pub(super) struct Key {
    pub(super) expected: VecDeque<Expected>,
    pub(super) came: VecDeque<Came>,
    /// The number of the row as it is, for tables that joined.
    pub(super) row: Option<i64>,
    /// Whether its table had been read when it was compared before.
    pub(super) known: bool,
    /// The rows that were read of it.
    pub(super) read: Vec<i64>,
}

impl Key {
    /// One of a table whose rows have been read, or not.
    pub(super) fn new(known: bool) -> Self {
        Self { known, ..Self::default() }
    }

    pub(super) fn expect(&mut self, change: Change, truncates: u64) {
        self.expected.push_back(Expected { change, truncates, tombstone: false });
    }

    pub(super) fn see(&mut self, seen: Seen, truncates: u64) {
        self.came.push_back(Came { seen, truncates });
    }

    pub(super) fn is_even(&self) -> bool {
        self.expected.is_empty() && self.came.is_empty()
    }

    /// Takes off both what belongs together. Stops at what does not: it may be early or late.
    pub(super) fn compare(&mut self, violations: &mut Vec<Violation>) {
        while let (Some(expected), Some(came)) = (self.expected.front_mut(), self.came.front()) {
            if !expected.is(&came.seen.what) {
                return;
            }
            violations.extend(expected.wrong(came));
            if expected.change.kind == Kind::Delete && !expected.tombstone {
                expected.tombstone = true;
            } else {
                self.expected.pop_front();
            }
            self.came.pop_front();
        }
    }

    /// Nothing more comes: what is left is wrong, and this says how.
    pub(super) fn conclude(&mut self, violations: &mut Vec<Violation>) {
        let mut missing: Vec<Expected> = self.expected.drain(..).collect();
        let mut reordered = None;
        for came in self.came.drain(..) {
            match missing.iter().position(|expected| expected.is(&came.seen.what)) {
                Some(place) => {
                    let mut expected = missing.remove(place);
                    violations.extend(expected.wrong(&came));
                    if expected.change.kind == Kind::Delete && !expected.tombstone {
                        expected.tombstone = true;
                        missing.insert(place, expected);
                    }
                    reordered = reordered.or((place > 0).then_some(came.seen));
                }
                None => violations.push(Violation::Phantom(format!(
                    "{} says what was never committed: {}",
                    at(&came.seen),
                    said(&came.seen.what)
                ))),
            }
        }
        if missing.is_empty() {
            let told =
                |seen: &Seen| format!("{} comes before what was committed before it", at(seen));
            violations.extend(reordered.map(|seen| Violation::Reorder(told(&seen))));
        }
        violations.extend(missing.iter().map(|expected| Violation::Loss(expected.told())));
    }
}

impl Expected {
    /// Whether a record is of this change: a row tells by its number, a delete only by being one.
    pub(super) fn is(&self, what: &What) -> bool {
        let number = |row: Option<&crate::Row>| row.and_then(|row| row.get("v").cloned());
        match (self.change.kind, what) {
            (Kind::Create, What::Create(row) | What::Moved(row, _))
            | (Kind::Update, What::Update(row, _)) => {
                number(Some(row)) == number(self.change.row.as_ref())
            }
            (Kind::Delete, What::Delete) => !self.tombstone,
            (Kind::Delete, What::Tombstone) => self.tombstone,
            _ => false,
        }
    }

    /// What is wrong with a record of this change.
    fn wrong(&self, came: &Came) -> Option<Violation> {
        if came.truncates != self.truncates {
            let (is, shall) = (came.truncates, self.truncates);
            let text = format!("{} stands behind {is} truncates, not {shall}", at(&came.seen));
            return Some(Violation::Reorder(text));
        }
        self.differs(&came.seen)
    }

    /// In what a record's row is not what was committed.
    pub(super) fn differs(&self, seen: &Seen) -> Option<Violation> {
        let (record, unchanged) = match &seen.what {
            What::Create(row) | What::Read(row) => (row, &[] as &[String]),
            What::Moved(row, unchanged) | What::Update(row, unchanged) => {
                (row, unchanged.as_slice())
            }
            _ => return None,
        };
        let row = self.change.row.as_ref()?;
        let difference = difference(record, unchanged, row, self.change.old.as_ref())?;
        Some(Violation::WrongValue(format!("{}: {difference}", at(seen))))
    }

    pub(super) fn told(&self) -> String {
        let Change { number, table, kind, key, .. } = &self.change;
        let what = match (kind, self.tombstone) {
            (Kind::Delete, true) => "the tombstone of a delete".to_owned(),
            (kind, _) => format!("{kind:?}").to_lowercase(),
        };
        format!("{table} {key}: change {number}, {what}")
    }
}

fn said(what: &What) -> String {
    match what {
        What::Read(row) | What::Create(row) | What::Moved(row, _) | What::Update(row, _) => {
            let text = serde_json::Value::from(row.clone()).to_string();
            text.chars().take(200).collect()
        }
        other => format!("{other:?}").to_lowercase(),
    }
}
