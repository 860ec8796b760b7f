//! What a row becomes: one record, or three where its key changes.

use crate::change::{Position, Row, Transaction};
use crate::lsn::Lsn;
use crate::pgoutput::{OldTuple, PgTimestamp, Tuple};

/// A record that a row makes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Record<'a> {
    /// A row that a snapshot read.
    Read(Tuple<'a>),
    /// A new row.
    Create {
        /// The row under its former key, where this is the last of a key change's three.
        old: Option<OldTuple<'a>>,
        /// The row.
        new: Tuple<'a>,
    },
    /// A row that changed and kept its key.
    Update {
        /// As it was, where the replica identity says so.
        old: Option<OldTuple<'a>>,
        /// As it is.
        new: Tuple<'a>,
    },
    /// A row that went, or that goes on under another key.
    Delete(OldTuple<'a>),
    /// The null value behind a delete.
    Tombstone(OldTuple<'a>),
}

impl<'a> From<Row<'a>> for Record<'a> {
    fn from(row: Row<'a>) -> Self {
        match row {
            Row::Read(new) => Self::Read(new),
            Row::Insert(new) => Self::Create { old: None, new },
            Row::Update { old, new } => Self::Update { old, new },
            Row::Delete(old) => Self::Delete(old),
        }
    }
}

/// The records of one row in order, each with its sub-index.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    pub(super) records: [Option<Record<'a>>; 3],
    pub(super) next: u8,
}

impl<'a> Iterator for Records<'a> {
    type Item = (u8, Record<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let sub_index = self.next;
            let record = self.records.get_mut(usize::from(sub_index))?.take();
            self.next += 1;
            if let Some(record) = record {
                return Some((sub_index, record));
            }
        }
    }
}

/// What became of a record's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It was appended.
    Value,
    /// It is null: a tombstone.
    Null,
    /// It is larger than allowed, and nothing was appended.
    TooLarge {
        /// It takes more: how large it had grown when that was seen, or what is allowed.
        bytes: usize,
    },
}

/// What a record says beside its row.
#[derive(Clone, Copy, Debug)]
pub struct RecordMeta<'a> {
    /// The transaction; none for a row that a snapshot read.
    pub transaction: Option<Transaction>,
    /// The record's identity.
    pub position: Position,
    /// Where the change itself stands in the log.
    pub lsn: Lsn,
    /// Whether a snapshot read it.
    pub snapshot: Snapshot,
    /// When it is encoded; the commit time of what has no transaction. Nothing of it is in the
    /// waltide profile's records of a transaction: these are the same byte for byte when repeated.
    pub now: PgTimestamp,
    /// The change's place in its transaction, where transaction metadata is wanted.
    pub order: Option<Order>,
    /// The commit before this transaction's, for Debezium's `source.sequence`.
    pub last_commit: Option<Lsn>,
    /// The replication origin's name and its position, where the transaction has one.
    pub origin: Option<(&'a str, Lsn)>,
}

/// The change's place in its transaction, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// Among all changes.
    pub total: u64,
    /// Among those of its table.
    pub in_table: u64,
}

/// Whether a snapshot read a row, and which of them it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Snapshot {
    /// It comes from the stream.
    #[default]
    No,
    /// The first of all.
    First,
    /// The first of its table.
    FirstInTable,
    /// Any.
    Yes,
    /// The last of its table.
    LastInTable,
    /// The last of all.
    Last,
    /// Of a snapshot beside the running stream.
    Incremental,
}

impl Snapshot {
    /// As Debezium spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::No => "false",
            Self::First => "first",
            Self::FirstInTable => "first_in_data_collection",
            Self::Yes => "true",
            Self::LastInTable => "last_in_data_collection",
            Self::Last => "last",
            Self::Incremental => "incremental",
        }
    }
}
