//! A change on its way from the stream to a record: borrowed, never owned.

use crate::lsn::CommitLsn;
use crate::pgoutput::{OldTuple, PgTimestamp, Tuple, Xid};
use crate::value::put;

/// The transaction a change belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Where its commit record starts.
    pub commit_lsn: CommitLsn,
    /// When it was committed.
    pub commit_time: PgTimestamp,
    /// Its id.
    pub xid: Xid,
}

impl Transaction {
    /// Appends the id by which records of tables and of the transaction topic name it. The commit
    /// is in it because ids of transactions come round.
    pub(crate) fn write_id(&self, out: &mut Vec<u8>) {
        put!(out, "{}:{}", self.xid.0, self.commit_lsn.0.0);
    }
}

/// What happened to a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Row<'a> {
    /// It was read by a snapshot.
    Read(Tuple<'a>),
    /// It came to be.
    Insert(Tuple<'a>),
    /// It changed.
    Update {
        /// As it was, where the replica identity says so.
        old: Option<OldTuple<'a>>,
        /// As it is.
        new: Tuple<'a>,
    },
    /// It went.
    Delete(OldTuple<'a>),
}

/// The identity of a record in its topic: the same whenever the same transaction is decoded again.
///
/// The ordinal counts row and truncate messages of the transaction as sent, before any filter of
/// ours; the sub-index tells apart the records that one message makes (a key change makes three).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Where the transaction's commit record starts.
    pub commit_lsn: CommitLsn,
    /// Counts from zero within the transaction.
    pub ordinal: u64,
    /// Counts from zero within the message.
    pub sub_index: u32,
}
