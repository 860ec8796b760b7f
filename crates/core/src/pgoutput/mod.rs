//! Bytes of the logical replication stream become messages; nothing is copied.
//!
//! A message borrows from the bytes it was decoded from: a tuple is a view on them whose
//! fields are found again by walking. Decoding checks every length once, so walking a decoded
//! tuple cannot fail, and no input makes it panic or allocate more than a small constant.

mod copy;
mod decode;
pub mod encode;
mod error;
mod frame;
mod reader;
mod relation;
mod view;

pub use copy::{CopyError, CopyRows};
pub use decode::{Context, Decoder, decode};
pub use error::{DecodeError, Fault};
pub use frame::{Frame, write_status_update};
pub use relation::{
    MAX_RELATIONS, Relation, RelationCache, RelationColumn, Relations, TooManyRelations,
};
pub use view::{ColumnsIter, Fields};

use crate::lsn::{CommitLsn, EndLsn, Lsn};

/// A relation's OID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelationId(pub u32);

/// A 32-bit transaction id as the protocol carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Xid(pub u32);

/// Microseconds since 2000-01-01 00:00 UTC, as the server's clock had them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PgTimestamp(pub i64);

/// One message of pgoutput, protocol versions 1 to 4.
///
/// Inside a streamed transaction most messages carry the (sub)transaction's id; outside it is `None`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Message<'a> {
    /// A transaction starts.
    Begin(Begin),
    /// A transaction ends.
    Commit(Commit),
    /// What a relation looks like from here on.
    Relation(Option<Xid>, RelationBody<'a>),
    /// The name of a type that is not built in.
    Type(Option<Xid>, TypeBody<'a>),
    /// A row came to be.
    Insert(Option<Xid>, RelationId, Tuple<'a>),
    /// A row changed; the old one is there where the replica identity gives it.
    Update(Option<Xid>, RelationId, Option<OldTuple<'a>>, Tuple<'a>),
    /// A row went.
    Delete(Option<Xid>, RelationId, OldTuple<'a>),
    /// Tables were emptied.
    Truncate(Option<Xid>, Truncate<'a>),
    /// `pg_logical_emit_message`.
    Logical(Option<Xid>, LogicalMessage<'a>),
    /// The transaction came from another node.
    Origin(Origin<'a>),
    /// A block of an open transaction starts; `first` says whether it is the first one.
    StreamStart {
        /// The top-level transaction.
        xid: Xid,
        /// Whether this is the first block of it.
        first: bool,
    },
    /// The block ends.
    StreamStop,
    /// The streamed transaction is committed.
    StreamCommit(Xid, Commit),
    /// A streamed (sub)transaction is rolled back.
    StreamAbort(StreamAbort),
    /// A two-phase transaction starts.
    BeginPrepare(Prepare<'a>),
    /// `PREPARE TRANSACTION`.
    Prepare(Prepare<'a>),
    /// `COMMIT PREPARED`.
    CommitPrepared(CommitPrepared<'a>),
    /// `ROLLBACK PREPARED`.
    RollbackPrepared(RollbackPrepared<'a>),
    /// `PREPARE TRANSACTION` of a streamed transaction.
    StreamPrepare(Prepare<'a>),
}

/// A transaction starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begin {
    /// Where its commit record starts.
    pub commit_lsn: CommitLsn,
    /// When it was committed.
    pub commit_time: PgTimestamp,
    /// Its id.
    pub xid: Xid,
}

/// A transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Where its commit record starts.
    pub commit_lsn: CommitLsn,
    /// Where its commit record ends.
    pub end_lsn: EndLsn,
    /// When it was committed.
    pub commit_time: PgTimestamp,
}

/// A relation as the stream describes it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RelationBody<'a> {
    /// Its OID.
    pub id: RelationId,
    /// Its schema (empty on the wire means `pg_catalog`; decoded to that name).
    pub schema: &'a str,
    /// Its name.
    pub name: &'a str,
    /// How old rows are identified.
    pub identity: ReplicaIdentity,
    /// Its columns, in the order of every tuple.
    pub columns: Columns<'a>,
}

/// `REPLICA IDENTITY` of a relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaIdentity {
    /// The primary key.
    Default,
    /// Nothing: updates and deletes are refused by the server.
    Nothing,
    /// The whole old row.
    Full,
    /// A unique index.
    Index,
}

/// A checked view on the columns of a relation message.
#[derive(Clone, Copy, PartialEq)]
pub struct Columns<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) count: u16,
}

/// One column of a relation message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column<'a> {
    /// Whether it is part of the replica identity.
    pub key: bool,
    /// Its name.
    pub name: &'a str,
    /// Its type's OID.
    pub type_oid: u32,
    /// Its type modifier; -1 for none.
    pub type_modifier: i32,
}

/// The name of a type that is not built in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TypeBody<'a> {
    /// Its OID.
    pub oid: u32,
    /// Its schema.
    pub schema: &'a str,
    /// Its name.
    pub name: &'a str,
}

/// A checked view on a row: one field for each column of its relation.
#[derive(Clone, Copy, PartialEq)]
pub struct Tuple<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) count: u16,
}

/// A column's value as it came.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Field<'a> {
    /// SQL NULL.
    Null,
    /// A TOASTed value that the statement did not touch, so the server did not send it.
    Unchanged,
    /// The type's text form, in the client encoding (UTF-8 unless the database is SQL_ASCII).
    Text(&'a [u8]),
    /// The type's binary form.
    Binary(&'a [u8]),
}

/// The row as it was before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum OldTuple<'a> {
    /// Only the replica identity's columns have values; the others are null.
    Key(Tuple<'a>),
    /// The whole row (`REPLICA IDENTITY FULL`).
    Full(Tuple<'a>),
}

/// Tables were emptied.
#[derive(Clone, Copy, PartialEq)]
pub struct Truncate<'a> {
    /// `CASCADE` was given.
    pub cascade: bool,
    /// `RESTART IDENTITY` was given.
    pub restart_identity: bool,
    pub(crate) relations: &'a [u8],
}

/// `pg_logical_emit_message`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LogicalMessage<'a> {
    /// Whether it belongs to its transaction's fate.
    pub transactional: bool,
    /// Where it ends in the log.
    pub lsn: Lsn,
    /// What the writer called it.
    pub prefix: &'a str,
    /// What the writer said.
    pub content: &'a [u8],
}

/// The transaction came from another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin<'a> {
    /// Its commit position there.
    pub commit_lsn: Lsn,
    /// The node's name.
    pub name: &'a str,
}

/// A streamed (sub)transaction is rolled back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamAbort {
    /// The top-level transaction.
    pub xid: Xid,
    /// The subtransaction; equal to `xid` where the whole transaction is gone.
    pub subxid: Xid,
    /// Where and when (protocol 4 with parallel streaming only).
    pub at: Option<(Lsn, PgTimestamp)>,
}

/// Part of a two-phase commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prepare<'a> {
    /// Where the prepare record starts.
    pub prepare_lsn: Lsn,
    /// Where it ends.
    pub end_lsn: EndLsn,
    /// When it was prepared.
    pub time: PgTimestamp,
    /// Its id.
    pub xid: Xid,
    /// Its global id.
    pub gid: &'a str,
}

/// `COMMIT PREPARED`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitPrepared<'a> {
    /// The transaction's end.
    pub commit: Commit,
    /// Its id.
    pub xid: Xid,
    /// Its global id.
    pub gid: &'a str,
}

/// `ROLLBACK PREPARED`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RollbackPrepared<'a> {
    /// Where the prepare record ended.
    pub prepare_end_lsn: EndLsn,
    /// Where the rollback record ends.
    pub rollback_end_lsn: EndLsn,
    /// When it was prepared.
    pub prepare_time: PgTimestamp,
    /// When it was rolled back.
    pub rollback_time: PgTimestamp,
    /// Its id.
    pub xid: Xid,
    /// Its global id.
    pub gid: &'a str,
}
