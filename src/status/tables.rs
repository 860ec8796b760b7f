//! What was published and read of tables.

use std::time::Instant;

use crate::fault::Fault;

/// Tables that are counted by name, the first ones that rows come of: four series each.
pub const MAX_TABLES: usize = 1_000;

/// The name under which all others are counted. No table is called so, for it has no dot.
pub const OTHER_TABLES: &str = "(other)";

/// Rows published of one table, by what happened to them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows that came to be.
    pub inserts: u64,
    /// Rows that changed.
    pub updates: u64,
    /// Rows that went.
    pub deletes: u64,
    /// Times the table was emptied.
    pub truncates: u64,
}

impl Counts {
    /// Adds what another count holds.
    pub fn add(&mut self, more: Self) {
        self.inserts += more.inserts;
        self.updates += more.updates;
        self.deletes += more.deletes;
        self.truncates += more.truncates;
    }

    /// The counts with the letters of their operations.
    #[must_use]
    pub const fn by_op(&self) -> [(&'static str, u64); 4] {
        [("c", self.inserts), ("u", self.updates), ("d", self.deletes), ("t", self.truncates)]
    }
}

/// What is known of a table.
#[derive(Clone, Debug)]
pub struct Table {
    /// What was published of it.
    pub counts: Counts,
    /// When that was counted last.
    pub counted: Instant,
    /// The registry's id of the schema that its records have now.
    pub schema: Option<u32>,
}

/// How far the reading of a table is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Rows published so far.
    pub rows: u64,
    /// Blocks of the table; none before it is measured.
    pub blocks: Option<u64>,
    /// Those that are left.
    pub blocks_left: Option<u64>,
    /// It waits for transactions to end that were open when it began.
    pub waits: bool,
    /// What keeps it from being read.
    pub fault: Option<Fault>,
    /// For how long it is being read.
    pub running_s: u64,
    /// Whether it has been read.
    pub done: bool,
}

impl Snapshot {
    /// How much of it is read, from zero to one; none before it is measured.
    #[must_use]
    pub fn part(&self) -> Option<f64> {
        let (blocks, left) = (self.blocks?, if self.done { 0 } else { self.blocks_left? });
        let part = blocks.saturating_sub(left) as f64 / blocks.max(1) as f64;
        Some(if self.done { 1.0 } else { part })
    }

    /// How long the rest takes, at the rate so far; none while that says nothing.
    #[must_use]
    pub fn left_seconds(&self) -> Option<f64> {
        let part = self.part().filter(|part| *part > 0.0 && !self.done)?;
        Some(self.running_s as f64 * (1.0 - part) / part)
    }

    /// As metrics and the API write it.
    #[must_use]
    pub fn state(&self) -> &'static str {
        match self {
            Self { done: true, .. } => "done",
            Self { fault: Some(_), .. } => "failing",
            Self { waits: true, .. } => "waiting",
            _ => "reading",
        }
    }
}
