//! The books: what was committed against what was read.
//!
//! Writers enter a change when its COMMIT has returned, the consumer enters each record as it
//! comes; either may be first. Each row counts its versions, so a change is known by table, key
//! and version, and the two sides must hold the same ones with the same operation and the same
//! values. What is settled on both sides is forgotten, so the books stay as small as the shop.
//!
//! A record that comes again under a position already passed is a repeat, as at-least-once delivery
//! permits; it is counted and changes nothing. Everything else that is not exactly once, in order
//! and as committed is a finding, and a run with one finding is not a good one.

use std::collections::HashMap;
use std::fmt;

use crate::shop::{Op, Table};

/// Findings kept for a person to read; the counts tell of all.
const MAX_FINDINGS: usize = 12;

/// Versions a row may leap ahead before its number is called garbage rather than a gap.
const MAX_GAP: u64 = 10_000;

/// A change whose transaction is committed.
#[derive(Clone, Debug)]
pub(crate) struct Committed {
    pub(crate) table: Table,
    pub(crate) key: String,
    pub(crate) op: Op,
    pub(crate) version: u64,
    /// Of the new row, or of the old one that was deleted.
    pub(crate) digest: u64,
}

/// A change as a consumer read it.
#[derive(Clone, Debug)]
pub(crate) struct Read {
    pub(crate) table: Table,
    pub(crate) key: String,
    pub(crate) op: Op,
    /// None where the record has no row but its key: the next one is meant.
    pub(crate) version: Option<u64>,
    /// None where the record has no row but its key.
    pub(crate) digest: Option<u64>,
    pub(crate) partition: i32,
    pub(crate) position: Position,
}

/// What `waltide.position` says: commit position, ordinal, sub-index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position(u64, u64, u32);

impl Position {
    /// Reads `16/B374D848:7:0`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let (high, low) = parts.next()?.split_once('/')?;
        let half = |digits| u32::from_str_radix(digits, 16).ok().map(u64::from);
        let position = Self(
            half(high)? << 32 | half(low)?,
            parts.next()?.parse().ok()?,
            parts.next()?.parse().ok()?,
        );
        parts.next().is_none().then_some(position)
    }
}

/// One side of a change that waits for the other.
#[derive(Debug)]
struct Entry {
    version: u64,
    op: Op,
    digest: Option<u64>,
}

#[derive(Debug, Default)]
struct Row {
    partition: Option<i32>,
    /// The highest version that was read.
    last: u64,
    /// Of that version.
    digest: Option<u64>,
    is_deleted: bool,
    /// Versions that were passed over.
    skipped: Vec<u64>,
    committed: Vec<Entry>,
    read: Vec<Entry>,
}

impl Row {
    fn is_settled(&self) -> bool {
        self.committed.is_empty() && self.read.is_empty() && self.skipped.is_empty()
    }
}

/// What the arrival of a version means.
enum Arrival {
    Next,
    Late,
    Repeat,
    Again,
    Garbage,
}

/// The books.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    rows: HashMap<(Table, String), Row>,
    passed: HashMap<(Table, i32), Position>,
    counts: Verdict,
}

impl Ledger {
    /// Enters a transaction whose COMMIT has returned.
    pub(crate) fn commit(&mut self, changes: Vec<Committed>) {
        for Committed { table, key, op, version, digest } in changes {
            self.counts.committed += 1;
            let entry = Entry { version, op, digest: Some(digest) };
            let id = (table, key);
            let row = self.rows.entry(id.clone()).or_default();
            match row.read.iter().position(|read| read.version == version) {
                Some(place) => {
                    let read = row.read.swap_remove(place);
                    self.counts.compare(&id, &entry, &read);
                }
                None => row.committed.push(entry),
            }
            self.forget(&id);
        }
    }

    /// Enters a record.
    pub(crate) fn read(&mut self, read: Read) {
        let Read { table, key, op, version, digest, partition, position } = read;
        let is_new = self.pass(table, partition, position);
        let id = (table, key);
        if !is_new && !self.rows.contains_key(&id) {
            // Of a row that is deleted and settled.
            self.counts.repeated += 1;
            return;
        }
        let row = self.rows.entry(id.clone()).or_default();
        if *row.partition.get_or_insert(partition) != partition {
            self.counts.wrong += 1;
            self.counts.find(&id, "came in another partition than before");
        }
        let next = if row.is_deleted { row.last } else { row.last + 1 };
        let version = version.unwrap_or(next);
        match arrival(row, version, is_new) {
            Arrival::Next => {
                (row.last, row.digest, row.is_deleted) = (version, digest, op == Op::Delete);
            }
            Arrival::Late => {
                self.counts.reordered += 1;
                self.counts.find(&id, &format!("version {version} came out of its order"));
            }
            Arrival::Repeat => {
                self.counts.repeated += 1;
                if version == row.last && digest != row.digest {
                    self.counts.wrong += 1;
                    self.counts.find(&id, &format!("version {version} came again, but different"));
                }
                return;
            }
            Arrival::Again => {
                self.counts.unexpected += 1;
                let text = format!("version {version} came again under a new position");
                self.counts.find(&id, &text);
                return;
            }
            Arrival::Garbage => {
                self.counts.wrong += 1;
                self.counts.find(&id, &format!("version {version} cannot be"));
                return;
            }
        }
        self.counts.consumed += 1;
        let entry = Entry { version, op, digest };
        match row.committed.iter().position(|committed| committed.version == version) {
            Some(place) => {
                let committed = row.committed.swap_remove(place);
                self.counts.compare(&id, &committed, &entry);
            }
            None => row.read.push(entry),
        }
        self.forget(&id);
    }

    /// Enters the null behind a delete.
    pub(crate) fn tombstone(&mut self, table: Table, partition: i32, position: Position) {
        if self.pass(table, partition, position) {
            self.counts.tombstones += 1;
        }
    }

    /// Enters a record that could not be understood.
    pub(crate) fn unreadable(&mut self, table: Table, why: &str) {
        self.counts.wrong += 1;
        self.counts.note(format!("{}: a record cannot be read: {why}", table.name()));
    }

    /// Compares what was last read of each row with the table itself. Comes last.
    pub(crate) fn compare_with(&mut self, table: Table, rows: Vec<(String, u64, u64)>) {
        let mut seen = 0;
        for (key, version, digest) in rows {
            let id = (table, key);
            match self.rows.get(&id) {
                Some(row) if row.last > 0 && !row.is_deleted => {
                    seen += 1;
                    let last = row.last;
                    if last != version {
                        let text = format!("is at version {version}; {last} was read last");
                        self.differs(&id, &text);
                    } else if row.digest != Some(digest) {
                        self.differs(&id, "has other values than were read last");
                    }
                }
                _ => self.differs(&id, "is in the table; what was read says it is not"),
            }
        }
        let alive = self
            .rows
            .iter()
            .filter(|((of, _), row)| *of == table && row.last > 0 && !row.is_deleted);
        let more = alive.count().saturating_sub(seen);
        if more > 0 {
            self.counts.differing += more as u64;
            let text = format!("{more} rows that were read are not in the table");
            self.counts.note(format!("{}: {text}", table.name()));
        }
    }

    /// Changes that are committed and were not read yet.
    pub(crate) fn outstanding(&self) -> usize {
        self.rows.values().map(|row| row.committed.len()).sum()
    }

    /// What to think of it all, once nothing more can come.
    pub(crate) fn verdict(&self) -> Verdict {
        let mut verdict = self.counts.clone();
        for (id, row) in &self.rows {
            for entry in &row.committed {
                verdict.missing += 1;
                let Entry { version, op, .. } = entry;
                let text = format!("version {version} ({}) was committed, never read", op.word());
                verdict.find(id, &text);
            }
            for entry in &row.read {
                verdict.unexpected += 1;
                let Entry { version, op, .. } = entry;
                let text = format!("version {version} ({}) was read, never committed", op.word());
                verdict.find(id, &text);
            }
        }
        verdict
    }

    fn differs(&mut self, id: &(Table, String), how: &str) {
        self.counts.differing += 1;
        self.counts.find(id, how);
    }

    /// Notes how far a partition has been read, and says whether this is further than before.
    fn pass(&mut self, table: Table, partition: i32, position: Position) -> bool {
        let passed = self.passed.entry((table, partition)).or_default();
        let is_new = position > *passed;
        *passed = position.max(*passed);
        is_new
    }

    fn forget(&mut self, id: &(Table, String)) {
        if self.rows.get(id).is_some_and(|row| row.is_deleted && row.is_settled()) {
            self.rows.remove(id);
        }
    }
}

fn arrival(row: &mut Row, version: u64, is_new: bool) -> Arrival {
    if let Some(place) = row.skipped.iter().position(|skipped| *skipped == version) {
        row.skipped.swap_remove(place);
        return Arrival::Late;
    }
    if version <= row.last {
        return if is_new { Arrival::Again } else { Arrival::Repeat };
    }
    if version - row.last > MAX_GAP {
        return Arrival::Garbage;
    }
    row.skipped.extend(row.last + 1..version);
    // Next in its row, but behind what its partition already had.
    if !is_new {
        row.last = version;
        return Arrival::Late;
    }
    Arrival::Next
}

/// How the two sides compare.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) committed: u64,
    pub(crate) consumed: u64,
    /// Committed and not read.
    pub(crate) missing: u64,
    /// Read and not committed, or read again where no repeat can be.
    pub(crate) unexpected: u64,
    /// Read with another operation or other values, or not to be understood.
    pub(crate) wrong: u64,
    /// Read after a later one of its row or partition.
    pub(crate) reordered: u64,
    /// Rows whose last state is not that of the table.
    pub(crate) differing: u64,
    /// Read again, recognisably.
    pub(crate) repeated: u64,
    pub(crate) deletes: u64,
    pub(crate) tombstones: u64,
    pub(crate) findings: Vec<String>,
}

impl Verdict {
    /// Whether what was committed is what was read. A run in which nothing was committed has
    /// shown nothing.
    pub(crate) fn is_good(&self) -> bool {
        let faults = [self.missing, self.unexpected, self.wrong, self.reordered, self.differing];
        faults.iter().all(|count| *count == 0)
            && self.committed == self.consumed
            && self.deletes == self.tombstones
            && self.committed > 0
    }

    fn compare(&mut self, id: &(Table, String), committed: &Entry, read: &Entry) {
        self.deletes += u64::from(committed.op == Op::Delete);
        let version = committed.version;
        if committed.op != read.op {
            self.wrong += 1;
            let (was, is) = (committed.op.word(), read.op.word());
            self.find(id, &format!("version {version} was committed as {was}, read as {is}"));
        } else if read.digest.is_some() && read.digest != committed.digest {
            self.wrong += 1;
            self.find(id, &format!("version {version} was read with other values"));
        } else if read.digest.is_none() && read.op != Op::Delete {
            self.wrong += 1;
            self.find(id, &format!("version {version} was read without its row"));
        }
    }

    fn find(&mut self, id: &(Table, String), what: &str) {
        self.note(format!("{} {}: {what}", id.0.name(), id.1));
    }

    fn note(&mut self, finding: String) {
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(finding);
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { committed, consumed, missing, .. } = self;
        write!(f, "{committed} changes committed, {consumed} consumed, {missing} missing")?;
        let more = [
            (self.unexpected, "unexpected"),
            (self.wrong, "wrong"),
            (self.reordered, "out of order"),
            (self.differing, "rows unlike the table"),
            (self.deletes.abs_diff(self.tombstones), "tombstones too many or too few"),
            (self.repeated, "repeated"),
        ];
        for (count, what) in more.into_iter().filter(|(count, _)| *count > 0) {
            write!(f, ", {count} {what}")?;
        }
        if self.is_good() { Ok(()) } else { f.write_str(": FAILED") }
    }
}

#[cfg(test)]
mod tests;
