//! The server's side of the protocol, for tests, benches and fuzzing: Waltide itself only reads.
//!
//! Names must not hold a zero byte, and lengths must fit the protocol's integers; what does not
//! fit is written as something that the decoder refuses.

use super::{
    Column, Columns, Commit, Field, Frame, Message, OldTuple, Prepare, RelationBody, RelationId,
    ReplicaIdentity, Truncate, Tuple, Xid,
};

/// Owns what a [`Tuple`] views.
#[derive(Clone, Default)]
pub struct TupleBuf {
    bytes: Vec<u8>,
    count: u16,
}

impl TupleBuf {
    /// A tuple of these fields.
    #[must_use]
    pub fn new<'a>(fields: impl IntoIterator<Item = Field<'a>>) -> Self {
        let mut tuple = Self::default();
        fields.into_iter().for_each(|field| tuple.push(field));
        tuple
    }

    /// Adds a field at the end.
    pub fn push(&mut self, field: Field<'_>) {
        let (kind, value) = match field {
            Field::Null => (b'n', None),
            Field::Unchanged => (b'u', None),
            Field::Text(value) => (b't', Some(value)),
            Field::Binary(value) => (b'b', Some(value)),
        };
        self.bytes.push(kind);
        if let Some(value) = value {
            self.bytes.extend_from_slice(&length32(value.len()));
            self.bytes.extend_from_slice(value);
        }
        self.count = self.count.saturating_add(1);
    }

    /// The view on it.
    #[must_use]
    pub fn tuple(&self) -> Tuple<'_> {
        Tuple { bytes: &self.bytes, count: self.count }
    }
}

/// Owns what [`Columns`] view.
#[derive(Clone, Default)]
pub struct ColumnsBuf {
    bytes: Vec<u8>,
    count: u16,
}

impl ColumnsBuf {
    /// These columns.
    #[must_use]
    pub fn new<'a>(columns: impl IntoIterator<Item = Column<'a>>) -> Self {
        let mut buf = Self::default();
        for column in columns {
            buf.bytes.push(u8::from(column.key));
            string(&mut buf.bytes, column.name);
            buf.bytes.extend_from_slice(&column.type_oid.to_be_bytes());
            buf.bytes.extend_from_slice(&column.type_modifier.to_be_bytes());
            buf.count = buf.count.saturating_add(1);
        }
        buf
    }

    /// The view on them.
    #[must_use]
    pub fn columns(&self) -> Columns<'_> {
        Columns { bytes: &self.bytes, count: self.count }
    }
}

/// Owns what a [`Truncate`] views.
#[derive(Clone, Default)]
pub struct TruncateBuf {
    relations: Vec<u8>,
}

impl TruncateBuf {
    /// These relations.
    #[must_use]
    pub fn new(relations: impl IntoIterator<Item = RelationId>) -> Self {
        Self { relations: relations.into_iter().flat_map(|id| id.0.to_be_bytes()).collect() }
    }

    /// The view on them.
    #[must_use]
    pub fn truncate(&self, cascade: bool, restart_identity: bool) -> Truncate<'_> {
        Truncate { cascade, restart_identity, relations: &self.relations }
    }
}

/// Appends the payload of one CopyData message.
pub fn frame(out: &mut Vec<u8>, frame: &Frame<'_>) {
    match *frame {
        Frame::XLogData { start, end, sent_at, body } => {
            out.push(b'w');
            int64(out, start.0);
            int64(out, end.0);
            time(out, sent_at.0);
            out.extend_from_slice(body);
        }
        Frame::Keepalive { wal_end, sent_at, reply_requested } => {
            out.push(b'k');
            int64(out, wal_end.0);
            time(out, sent_at.0);
            out.push(u8::from(reply_requested));
        }
    }
}

/// Appends one message, in the form in which it stands inside a stream where it has an [`Xid`]
/// in front.
pub fn message(out: &mut Vec<u8>, message: &Message<'_>) {
    match message {
        Message::Begin(begin) => {
            out.push(b'B');
            int64(out, begin.commit_lsn.0.0);
            time(out, begin.commit_time.0);
            int32(out, begin.xid.0);
        }
        Message::Commit(of) => {
            out.push(b'C');
            commit(out, of);
        }
        Message::Relation(xid, body) => {
            in_stream(out, b'R', *xid);
            relation(out, body);
        }
        Message::Type(xid, body) => {
            in_stream(out, b'Y', *xid);
            int32(out, body.oid);
            schema(out, body.schema);
            string(out, body.name);
        }
        Message::Insert(xid, id, new) => {
            in_stream(out, b'I', *xid);
            int32(out, id.0);
            tuple(out, b'N', new);
        }
        Message::Update(xid, id, old, new) => {
            in_stream(out, b'U', *xid);
            int32(out, id.0);
            if let Some(old) = old {
                old_tuple(out, old);
            }
            tuple(out, b'N', new);
        }
        Message::Delete(xid, id, old) => {
            in_stream(out, b'D', *xid);
            int32(out, id.0);
            old_tuple(out, old);
        }
        Message::Truncate(xid, of) => {
            in_stream(out, b'T', *xid);
            out.extend_from_slice(&length32(of.relations().len()));
            let cascade = if of.cascade { Truncate::CASCADE } else { 0 };
            let restart = if of.restart_identity { Truncate::RESTART_IDENTITY } else { 0 };
            out.push(cascade | restart);
            of.relations().for_each(|id| int32(out, id.0));
        }
        Message::Logical(xid, of) => {
            in_stream(out, b'M', *xid);
            out.push(u8::from(of.transactional));
            int64(out, of.lsn.0);
            string(out, of.prefix);
            out.extend_from_slice(&length32(of.content.len()));
            out.extend_from_slice(of.content);
        }
        Message::Origin(of) => {
            out.push(b'O');
            int64(out, of.commit_lsn.0);
            string(out, of.name);
        }
        Message::StreamStart { .. }
        | Message::StreamStop
        | Message::StreamCommit(..)
        | Message::StreamAbort(..) => stream(out, message),
        Message::BeginPrepare(of) => prepare(out, b'b', None, of),
        Message::Prepare(of) => prepare(out, b'P', Some(0), of),
        Message::StreamPrepare(of) => prepare(out, b'p', Some(0), of),
        Message::CommitPrepared(of) => {
            out.push(b'K');
            commit(out, &of.commit);
            int32(out, of.xid.0);
            string(out, of.gid);
        }
        Message::RollbackPrepared(of) => {
            out.extend_from_slice(b"r\0");
            int64(out, of.prepare_end_lsn.0.0);
            int64(out, of.rollback_end_lsn.0.0);
            time(out, of.prepare_time.0);
            time(out, of.rollback_time.0);
            int32(out, of.xid.0);
            string(out, of.gid);
        }
    }
}

/// Where blocks of streamed transactions start and end, and what becomes of them.
fn stream(out: &mut Vec<u8>, message: &Message<'_>) {
    match message {
        Message::StreamStart { xid, first } => {
            out.push(b'S');
            int32(out, xid.0);
            out.push(u8::from(*first));
        }
        Message::StreamCommit(xid, of) => {
            out.push(b'c');
            int32(out, xid.0);
            commit(out, of);
        }
        Message::StreamAbort(abort) => {
            out.push(b'A');
            int32(out, abort.xid.0);
            int32(out, abort.subxid.0);
            if let Some((lsn, at)) = abort.at {
                int64(out, lsn.0);
                time(out, at.0);
            }
        }
        _ => out.push(b'E'),
    }
}

fn relation(out: &mut Vec<u8>, body: &RelationBody<'_>) {
    int32(out, body.id.0);
    schema(out, body.schema);
    string(out, body.name);
    out.push(match body.identity {
        ReplicaIdentity::Default => b'd',
        ReplicaIdentity::Nothing => b'n',
        ReplicaIdentity::Full => b'f',
        ReplicaIdentity::Index => b'i',
    });
    out.extend_from_slice(&body.columns.count.to_be_bytes());
    out.extend_from_slice(body.columns.bytes);
}

fn old_tuple(out: &mut Vec<u8>, old: &OldTuple<'_>) {
    match old {
        OldTuple::Key(key) => tuple(out, b'K', key),
        OldTuple::Full(row) => tuple(out, b'O', row),
    }
}

fn tuple(out: &mut Vec<u8>, kind: u8, of: &Tuple<'_>) {
    out.push(kind);
    out.extend_from_slice(&of.count.to_be_bytes());
    out.extend_from_slice(of.bytes);
}

/// The flags follow the end of a commit's tag everywhere, and are always zero.
fn commit(out: &mut Vec<u8>, of: &Commit) {
    out.push(0);
    int64(out, of.commit_lsn.0.0);
    int64(out, of.end_lsn.0.0);
    time(out, of.commit_time.0);
}

fn prepare(out: &mut Vec<u8>, tag: u8, flags: Option<u8>, of: &Prepare<'_>) {
    out.push(tag);
    out.extend(flags);
    int64(out, of.prepare_lsn.0);
    int64(out, of.end_lsn.0.0);
    time(out, of.time.0);
    int32(out, of.xid.0);
    string(out, of.gid);
}

fn in_stream(out: &mut Vec<u8>, tag: u8, xid: Option<Xid>) {
    out.push(tag);
    if let Some(xid) = xid {
        int32(out, xid.0);
    }
}

fn schema(out: &mut Vec<u8>, name: &str) {
    string(out, if name == "pg_catalog" { "" } else { name });
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
    out.push(0);
}

fn int32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

fn int64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_be_bytes());
}

fn time(out: &mut Vec<u8>, micros: i64) {
    out.extend_from_slice(&micros.to_be_bytes());
}

fn length32(length: usize) -> [u8; 4] {
    i32::try_from(length).unwrap_or(-1).to_be_bytes()
}
