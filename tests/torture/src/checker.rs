//! Compares what committed with what arrived. Pure: it is told both.
//!
//! Per key, the records that are new must be the committed changes, one by one, in their order, with their
//! values. Rows whose table joined a running pipeline may instead have been read from the table, from some
//! change on: see [`joins`](Checker::joins).

mod join;
mod key;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

use crate::Row;
use crate::partition::{Allowance, Fault, Mode, Partition, Place, Seen, What};
use key::Key;

/// What the audit says was done to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "SQL's own words")]
pub enum Kind {
    Create,
    Update,
    Delete,
    Truncate,
}

/// One committed change, from the audit.
#[derive(Debug, Clone)]
pub struct Change {
    /// Grows with each change of a key, and stands between changes and truncates of a table.
    pub number: i64,
    /// Its table.
    pub table: String,
    /// What was done.
    pub kind: Kind,
    /// The key in the form in which records have it; empty for a truncate.
    pub key: String,
    /// The row as it was left.
    pub row: Option<Row>,
    /// The row as it was before.
    pub old: Option<Row>,
}

/// What was promised and is not so.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Violation {
    /// A committed change that did not arrive.
    Loss(String),
    /// Changes of a key, or around a truncate, in another order than they committed in.
    Reorder(String),
    /// A record that comes again and may not, or not so.
    Repeat(String),
    /// A record of a change that did not commit.
    Phantom(String),
    /// A record with other values than committed, or with other content than when it came first.
    WrongValue(String),
    /// A record that its schema does not fit, or without what every record has.
    Schema(String),
    /// The daemon does not come back by itself.
    Stuck(String),
}

impl Violation {
    /// Its kind in a word.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Loss(_) => "loss",
            Self::Reorder(_) => "reorder",
            Self::Repeat(_) => "repeat",
            Self::Phantom(_) => "phantom",
            Self::WrongValue(_) => "wrong value",
            Self::Schema(_) => "schema",
            Self::Stuck(_) => "stuck",
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Loss(text)
        | Self::Reorder(text)
        | Self::Repeat(text)
        | Self::Phantom(text)
        | Self::WrongValue(text)
        | Self::Schema(text)
        | Self::Stuck(text)) = self;
        write!(f, "{}: {text}", self.name())
    }
}

/// What a consumer and the audit have told so far.
#[derive(Debug)]
pub struct Checker {
    mode: Mode,
    allowed: Allowance,
    partitions: BTreeMap<(String, i32), Partition>,
    tables: BTreeMap<String, Table>,
    violations: Vec<Violation>,
    counts: Counts,
}

/// What was counted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    /// Records of any kind.
    pub records: u64,
    /// Committed changes.
    pub changes: u64,
    /// Records that came again, as they may.
    pub repeats: u64,
    /// Records of a predecessor that came late.
    pub late: u64,
}

#[derive(Debug, Default)]
struct Table {
    /// Its rows may have been read; none where it was empty when the pipeline began.
    joined: bool,
    /// And they have been, where that is so.
    read: bool,
    /// Truncates that committed.
    truncates: u64,
    keys: BTreeMap<String, Key>,
    /// Where each key lives.
    homes: BTreeMap<String, i32>,
    /// Keys with something to compare.
    open: BTreeSet<String>,
}

impl Checker {
    /// Nothing has been told.
    pub fn new(mode: Mode) -> Self {
        Self {
            mode,
            allowed: Allowance::Nothing,
            partitions: BTreeMap::new(),
            tables: BTreeMap::new(),
            violations: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// What may come again from now on.
    pub fn allow(&mut self, allowed: Allowance) {
        self.allowed = allowed;
    }

    /// A topic's partitions, so that a truncate that does not reach one is noticed.
    pub fn has_partitions(&mut self, table: &str, partitions: impl IntoIterator<Item = i32>) {
        for partition in partitions {
            self.partitions.entry((table.to_owned(), partition)).or_default();
        }
    }

    /// A table that was filled before the pipeline knew of it: its rows may be read.
    pub fn joins(&mut self, table: &str) {
        self.tables.entry(table.to_owned()).or_default().joined = true;
    }

    /// What committed; in the order of numbers.
    pub fn committed(&mut self, change: Change) {
        self.counts.changes += 1;
        let table = self.tables.entry(change.table.clone()).or_default();
        if change.kind == Kind::Truncate {
            table.truncates += 1;
            return;
        }
        table.open.insert(change.key.clone());
        let known = table.read;
        let key = table.keys.entry(change.key.clone());
        key.or_insert_with(|| Key::new(known)).expect(change, table.truncates);
    }

    /// What arrived; in the order of each partition.
    pub fn arrived(&mut self, seen: Seen) {
        self.counts.records += 1;
        let place = (seen.table.clone(), seen.partition);
        let partition = self.partitions.entry(place).or_default();
        let outcome = partition.take(&seen, self.mode, self.allowed);
        match outcome {
            Ok(Place::Fresh) => {}
            Ok(Place::Repeat) => {
                self.counts.repeats += 1;
                return;
            }
            Ok(Place::Late) => {
                self.counts.late += 1;
                return;
            }
            Err(fault) => {
                self.violations.push(told(&fault, &seen));
                if fault != Fault::BreaksOff {
                    return;
                }
            }
        }
        self.fresh(seen);
    }

    /// A record that could not be read.
    pub fn unreadable(&mut self, what: String) {
        self.violations.push(Violation::Schema(what));
    }

    fn fresh(&mut self, seen: Seen) {
        let place = (seen.table.clone(), seen.partition);
        let partition = self.partitions.entry(place).or_default();
        if matches!(seen.what, What::Truncate) {
            partition.truncates += 1;
            return;
        }
        let truncates = partition.truncates;
        let table = self.tables.entry(seen.table.clone()).or_default();
        let keyless = seen.key.is_none();
        let Some(name) = seen.key.clone().or_else(|| number_of(&seen.what)) else {
            self.violations.push(Violation::Schema(format!("{} has no key", at(&seen))));
            return;
        };
        if !keyless {
            let home = *table.homes.entry(name.clone()).or_insert(seen.partition);
            if home != seen.partition {
                let text = format!("{} has been in partition {home}", at(&seen));
                self.violations.push(Violation::Reorder(text));
            }
        }
        table.open.insert(name.clone());
        table.keys.entry(name).or_default().see(seen, truncates);
    }

    /// Compares what can be compared, and says whether nothing is open. What is wrong for sure is a
    /// violation at once; what may only be late is one with [`conclude`](Self::conclude).
    pub fn is_settled(&mut self) -> bool {
        for table in self.tables.values_mut().filter(|table| !table.joined) {
            let keys = &mut table.keys;
            let violations = &mut self.violations;
            table.open.retain(|name| {
                let Some(key) = keys.get_mut(name) else { return false };
                key.compare(violations);
                let open = !key.is_even();
                if !open {
                    keys.remove(name);
                }
                open
            });
        }
        let behind = |((table, _), partition): (&(String, i32), &Partition)| {
            self.tables.get(table).is_some_and(|table| table.truncates != partition.truncates)
        };
        let truncated = !self.partitions.iter().any(behind);
        let mode = self.mode;
        let joined = self.tables.values_mut().filter(|table| table.joined);
        let even = joined.fold(true, |even, table| {
            let open = table.open.iter();
            even & open.filter_map(|name| table.keys.get(name)).all(|key| key.joins(mode).is_ok())
        });
        even && truncated && self.tables.values().all(|table| table.joined || table.open.is_empty())
    }

    /// Everything that will come has come: what is open is a violation.
    pub fn conclude(&mut self) {
        let settled = self.is_settled();
        for table in self.tables.values_mut() {
            table.read |= table.joined;
            for name in std::mem::take(&mut table.open) {
                let Some(key) = table.keys.get_mut(&name) else { continue };
                if table.joined {
                    self.violations.extend(key.joins(self.mode).err());
                    key.joined();
                } else {
                    key.conclude(&mut self.violations);
                    table.keys.remove(&name);
                }
            }
        }
        for ((name, number), partition) in &mut self.partitions {
            if partition.settle(self.allowed) {
                let text = format!("{name}/{number}: a repetition does not reach its end");
                self.violations.push(Violation::Repeat(text));
            }
            let Some(table) = self.tables.get(name).filter(|_| !settled) else { continue };
            let (is, shall) = (partition.truncates, table.truncates);
            let text = format!("{name}/{number} has {is} truncates, and {shall} committed");
            match is.cmp(&shall) {
                std::cmp::Ordering::Less => self.violations.push(Violation::Loss(text)),
                std::cmp::Ordering::Greater => self.violations.push(Violation::Phantom(text)),
                std::cmp::Ordering::Equal => {}
            }
            partition.truncates = shall;
        }
    }

    /// What is wrong so far, and not told before.
    pub fn take_violations(&mut self) -> Vec<Violation> {
        std::mem::take(&mut self.violations)
    }

    /// What was counted so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }
}

fn told(fault: &Fault, seen: &Seen) -> Violation {
    let at = at(seen);
    match fault {
        Fault::OutOfOrder => {
            Violation::Reorder(format!("{at} comes behind records that stand after it"))
        }
        Fault::BreaksOff => Violation::Repeat(format!("before {at} a repetition breaks off")),
        Fault::Repeated(why) => Violation::Repeat(format!("{at} ({why})")),
        Fault::Different => Violation::WrongValue(format!("{at} is not the same again")),
    }
}

/// Where a record is, for people.
fn at(seen: &Seen) -> String {
    let Seen { table, partition, offset, key, position, .. } = seen;
    let key = key.as_deref().unwrap_or("without a key");
    format!("{table}/{partition} at {offset}, {position}, {key}")
}

/// The number that every change gives its row, which stands for rows without a key.
fn number_of(what: &What) -> Option<String> {
    match what {
        What::Read(row) | What::Create(row) | What::Moved(row, _) | What::Update(row, _) => {
            row.get("v").and_then(Value::as_i64).map(|number| number.to_string())
        }
        _ => None,
    }
}

/// Whether a record's row is a committed one, and if not, in what.
pub(crate) fn difference(
    record: &Row,
    unchanged: &[String],
    row: &Row,
    old: Option<&Row>,
) -> Option<String> {
    let names: BTreeSet<&String> = record.keys().chain(row.keys()).collect();
    for name in names {
        if unchanged.contains(name) {
            if old.and_then(|old| old.get(name)) != row.get(name) {
                return Some(format!("{name} is told to be unchanged, and was changed"));
            }
            continue;
        }
        let (is, shall) = (record.get(name), row.get(name));
        if is != shall {
            let text = |value: Option<&Value>| {
                let text = value.map_or_else(|| "no such column".to_owned(), Value::to_string);
                text.chars().take(60).collect::<String>()
            };
            return Some(format!("{name} is {}, and {} committed", text(is), text(shall)));
        }
    }
    None
}
