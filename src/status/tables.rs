//! What was published and read of tables.

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
