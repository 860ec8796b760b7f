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

/// How the reading of a table came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All of it has been read.
    Done,
    /// Somebody has taken it back.
    Cancelled,
    /// The table went away.
    Gone,
}

/// How far the reading of a table is.
#[derive(Clone, Debug, Default, PartialEq)]
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
    /// Rows that came in a second, as of late.
    pub rows_per_second: Option<f64>,
    /// How long the rest takes at the pace of late; none while that is not known.
    pub left_seconds: Option<f64>,
    /// Somebody has asked for it.
    pub asked: bool,
    /// Which rows are read, where not all.
    pub filter: Option<String>,
    /// How many rows were named by their keys, where only those are read.
    pub keys: Option<usize>,
    /// Nothing more is read until somebody says so.
    pub paused: bool,
    /// How it ended.
    pub end: Option<End>,
}

/// What a block of a table has, unless somebody built the server otherwise.
pub const BLOCK_BYTES: u64 = 8192;

impl Snapshot {
    /// How much of it is read, from zero to one; none before it is measured.
    #[must_use]
    pub fn part(&self) -> Option<f64> {
        let (blocks, left) = (self.blocks?, self.blocks_left?);
        if self.end == Some(End::Done) {
            return Some(1.0);
        }
        Some(blocks.saturating_sub(left) as f64 / blocks.max(1) as f64)
    }

    /// Bytes of the table that were read, and all there were when it was measured.
    #[must_use]
    pub fn bytes(&self) -> Option<(u64, u64)> {
        let (blocks, left) = (self.blocks?, self.blocks_left?);
        Some((blocks.saturating_sub(left) * BLOCK_BYTES, blocks * BLOCK_BYTES))
    }

    /// How many rows it will have been, as far as can be told by what was read.
    #[must_use]
    pub fn rows_expected(&self) -> Option<u64> {
        let (blocks, left) = (self.blocks?, self.blocks_left?);
        self.rows.saturating_mul(blocks).checked_div(blocks.saturating_sub(left))
    }

    /// How it ended, where what it was is kept.
    #[must_use]
    pub fn ended(&self, end: End) -> Self {
        Self {
            rows: self.rows,
            blocks: self.blocks,
            blocks_left: if end == End::Done { self.blocks.map(|_| 0) } else { self.blocks_left },
            running_s: self.running_s,
            asked: self.asked,
            filter: self.filter.clone(),
            end: Some(end),
            ..Self::default()
        }
    }

    /// As metrics and the API write it.
    #[must_use]
    pub fn state(&self) -> &'static str {
        match self {
            Self { end: Some(End::Done), .. } => "done",
            Self { end: Some(End::Cancelled), .. } => "cancelled",
            Self { end: Some(End::Gone), .. } => "gone",
            Self { paused: true, .. } => "paused",
            Self { fault: Some(_), .. } => "failing",
            Self { waits: true, .. } => "waiting",
            _ => "reading",
        }
    }
}
