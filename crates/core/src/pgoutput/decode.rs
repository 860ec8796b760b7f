//! One message from its bytes. On the row path: nothing here allocates.
//!
//! The dangerous part of this protocol is that a message does not say in which form it is
//! written. Between Stream Start and Stream Stop seven kinds carry a transaction id in front
//! that they lack elsewhere, so a decoder that has missed a Stream Stop reads four bytes of a
//! relation's OID as a transaction, and the row as whatever follows. Two things keep that from
//! passing in silence: every byte must be accounted for, unknown flags and trailing bytes
//! being errors, and a message that the server cannot send where it stands is refused.

use super::PgTimestamp;
use super::reader::Reader;
use super::{
    Begin, Columns, Commit, CommitPrepared, DecodeError, Fault, LogicalMessage, Message, OldTuple,
    Origin, Prepare, RelationBody, RelationId, ReplicaIdentity, RollbackPrepared, StreamAbort,
    Truncate, Tuple, TypeBody, Xid,
};
use crate::lsn::{CommitLsn, EndLsn};

/// Where a message stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// Between Stream Start and Stream Stop.
    pub in_stream: bool,
}

/// Decodes the messages of one connection in order, and remembers where it stands.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    context: Context,
}

impl Decoder {
    /// For a connection on which nothing has been sent yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Where the next message stands.
    #[must_use]
    pub const fn context(&self) -> Context {
        self.context
    }

    /// Decodes the next message. After an error the connection is of no use any more: what
    /// follows cannot be told from what was missed.
    #[inline]
    pub fn decode<'a>(&mut self, bytes: &'a [u8]) -> Result<Message<'a>, DecodeError> {
        let message = decode(bytes, self.context)?;
        match message {
            Message::StreamStart { .. } => self.context.in_stream = true,
            Message::StreamStop => self.context.in_stream = false,
            _ => {}
        }
        Ok(message)
    }
}

/// Decodes one message that stands in the given context.
#[inline]
pub fn decode(bytes: &[u8], context: Context) -> Result<Message<'_>, DecodeError> {
    let mut reader = Reader::new(bytes);
    let message = match reader.byte("tag")? {
        tag @ (b'I' | b'U' | b'D') => row(tag, &mut reader, context),
        tag => other(tag, &mut reader, context),
    }?;
    reader.finish()?;
    Ok(message)
}

/// Insert, Update, Delete.
#[inline]
fn row<'a>(tag: u8, reader: &mut Reader<'a>, context: Context) -> Result<Message<'a>, DecodeError> {
    let xid = streamed_xid(reader, context)?;
    let relation = RelationId(reader.int32("relation OID")?);
    let here = *reader;
    let kind = reader.byte("kind of tuple")?;
    match (tag, kind) {
        (b'I', b'N') => Ok(Message::Insert(xid, relation, Tuple::read(reader)?)),
        (b'U', b'N') => Ok(Message::Update(xid, relation, None, Tuple::read(reader)?)),
        (b'U', b'K') => {
            let old = OldTuple::Key(Tuple::read(reader)?);
            Ok(Message::Update(xid, relation, Some(old), new_tuple(reader)?))
        }
        (b'U', b'O') => {
            let old = OldTuple::Full(Tuple::read(reader)?);
            Ok(Message::Update(xid, relation, Some(old), new_tuple(reader)?))
        }
        (b'D', b'K') => Ok(Message::Delete(xid, relation, OldTuple::Key(Tuple::read(reader)?))),
        (b'D', b'O') => Ok(Message::Delete(xid, relation, OldTuple::Full(Tuple::read(reader)?))),
        _ => Err(here.fault(Fault::Unknown("kind of tuple", kind))),
    }
}

/// The tuple that follows the old one of an Update.
#[inline]
fn new_tuple<'a>(reader: &mut Reader<'a>) -> Result<Tuple<'a>, DecodeError> {
    let here = *reader;
    match reader.byte("kind of tuple")? {
        b'N' => Tuple::read(reader),
        kind => Err(here.fault(Fault::Unknown("kind of tuple", kind))),
    }
}

/// All that is not a row.
fn other<'a>(
    tag: u8,
    reader: &mut Reader<'a>,
    context: Context,
) -> Result<Message<'a>, DecodeError> {
    match tag {
        b'R' => Ok(Message::Relation(streamed_xid(reader, context)?, relation(reader)?)),
        b'Y' => Ok(Message::Type(streamed_xid(reader, context)?, type_name(reader)?)),
        b'T' => Ok(Message::Truncate(streamed_xid(reader, context)?, Truncate::read(reader)?)),
        b'M' => Ok(Message::Logical(streamed_xid(reader, context)?, logical(reader)?)),
        b'O' => Ok(Message::Origin(Origin {
            commit_lsn: reader.lsn("origin's commit LSN")?,
            name: reader.string("origin's name")?,
        })),
        b'E' if context.in_stream => Ok(Message::StreamStop),
        b'E' => Err(misplaced(*reader, context)),
        b'B' | b'C' | b'S' | b'c' | b'A' | b'b' | b'P' | b'K' | b'r' | b'p' => {
            if context.in_stream {
                return Err(misplaced(*reader, context));
            }
            boundary(tag, reader)
        }
        _ => Err(DecodeError { tag: Some(tag), offset: 0, fault: Fault::Unknown("tag", tag) }),
    }
}

/// Where transactions, and blocks of them, start and end.
fn boundary<'a>(tag: u8, reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    match tag {
        b'B' => Ok(Message::Begin(Begin {
            commit_lsn: CommitLsn(reader.lsn("commit LSN")?),
            commit_time: time(reader)?,
            xid: xid(reader)?,
        })),
        b'C' => Ok(Message::Commit(commit(reader)?)),
        b'S' => Ok(Message::StreamStart {
            xid: xid(reader)?,
            first: reader.flags("first-block flag", 1)? == 1,
        }),
        b'c' => Ok(Message::StreamCommit(xid(reader)?, commit(reader)?)),
        b'A' => Ok(Message::StreamAbort(stream_abort(reader)?)),
        b'b' => Ok(Message::BeginPrepare(prepare(reader)?)),
        b'P' => {
            reader.flags("prepare flags", 0)?;
            Ok(Message::Prepare(prepare(reader)?))
        }
        b'p' => {
            reader.flags("prepare flags", 0)?;
            Ok(Message::StreamPrepare(prepare(reader)?))
        }
        b'K' => Ok(Message::CommitPrepared(CommitPrepared {
            commit: commit(reader)?,
            xid: xid(reader)?,
            gid: reader.string("gid")?,
        })),
        _ => Ok(Message::RollbackPrepared(rollback_prepared(reader)?)),
    }
}

/// The transaction id that most messages carry inside a stream, and nowhere else.
#[inline]
fn streamed_xid(reader: &mut Reader<'_>, context: Context) -> Result<Option<Xid>, DecodeError> {
    if context.in_stream { xid(reader).map(Some) } else { Ok(None) }
}

#[inline]
fn xid(reader: &mut Reader<'_>) -> Result<Xid, DecodeError> {
    reader.int32("transaction id").map(Xid)
}

fn time(reader: &mut Reader<'_>) -> Result<PgTimestamp, DecodeError> {
    reader.signed64("time").map(PgTimestamp)
}

fn commit(reader: &mut Reader<'_>) -> Result<Commit, DecodeError> {
    reader.flags("commit flags", 0)?;
    Ok(Commit {
        commit_lsn: CommitLsn(reader.lsn("commit LSN")?),
        end_lsn: EndLsn(reader.lsn("end LSN")?),
        commit_time: time(reader)?,
    })
}

fn prepare<'a>(reader: &mut Reader<'a>) -> Result<Prepare<'a>, DecodeError> {
    Ok(Prepare {
        prepare_lsn: reader.lsn("prepare LSN")?,
        end_lsn: EndLsn(reader.lsn("end LSN")?),
        time: time(reader)?,
        xid: xid(reader)?,
        gid: reader.string("gid")?,
    })
}

fn rollback_prepared<'a>(reader: &mut Reader<'a>) -> Result<RollbackPrepared<'a>, DecodeError> {
    reader.flags("rollback flags", 0)?;
    Ok(RollbackPrepared {
        prepare_end_lsn: EndLsn(reader.lsn("prepare's end LSN")?),
        rollback_end_lsn: EndLsn(reader.lsn("rollback's end LSN")?),
        prepare_time: time(reader)?,
        rollback_time: time(reader)?,
        xid: xid(reader)?,
        gid: reader.string("gid")?,
    })
}

fn stream_abort(reader: &mut Reader<'_>) -> Result<StreamAbort, DecodeError> {
    let xid_top = xid(reader)?;
    let subxid = xid(reader)?;
    // Whether these two follow depends on the options the stream was started with
    // (`streaming 'parallel'`); the length tells as surely.
    let at = if reader.rest().is_empty() {
        None
    } else {
        Some((reader.lsn("abort LSN")?, time(reader)?))
    };
    Ok(StreamAbort { xid: xid_top, subxid, at })
}

fn relation<'a>(reader: &mut Reader<'a>) -> Result<RelationBody<'a>, DecodeError> {
    let id = RelationId(reader.int32("relation OID")?);
    let schema = reader.schema()?;
    let name = reader.string("relation's name")?;
    let here = *reader;
    let identity = match reader.byte("replica identity")? {
        b'd' => ReplicaIdentity::Default,
        b'n' => ReplicaIdentity::Nothing,
        b'f' => ReplicaIdentity::Full,
        b'i' => ReplicaIdentity::Index,
        byte => return Err(here.fault(Fault::Unknown("replica identity", byte))),
    };
    Ok(RelationBody { id, schema, name, identity, columns: Columns::read(reader)? })
}

fn type_name<'a>(reader: &mut Reader<'a>) -> Result<TypeBody<'a>, DecodeError> {
    Ok(TypeBody {
        oid: reader.int32("type OID")?,
        schema: reader.schema()?,
        name: reader.string("type's name")?,
    })
}

fn logical<'a>(reader: &mut Reader<'a>) -> Result<LogicalMessage<'a>, DecodeError> {
    let transactional = reader.flags("message flags", 1)? == 1;
    let lsn = reader.lsn("message LSN")?;
    let prefix = reader.string("prefix")?;
    let length = reader.count32("content length")?;
    Ok(LogicalMessage { transactional, lsn, prefix, content: reader.bytes(length, "content")? })
}

#[cold]
fn misplaced(reader: Reader<'_>, context: Context) -> DecodeError {
    let fault = if context.in_stream { Fault::InsideStream } else { Fault::OutsideStream };
    DecodeError { offset: 0, ..reader.fault(fault) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTSIDE: Context = Context { in_stream: false };
    const INSIDE: Context = Context { in_stream: true };

    fn refused(bytes: &[u8], context: Context) -> (usize, Fault) {
        let error = decode(bytes, context).unwrap_err();
        assert_eq!(error.tag, bytes.first().copied());
        (error.offset, error.fault)
    }

    #[test]
    fn what_the_protocol_does_not_have_is_named_with_its_place_and_byte() {
        for (bytes, offset, fault) in [
            (b"".as_slice(), 0, Fault::Truncated("tag")),
            (b"Z", 0, Fault::Unknown("tag", b'Z')),
            (b"I\0\0\0\x01K\0\0", 5, Fault::Unknown("kind of tuple", b'K')),
            (b"U\0\0\0\x01X\0\0", 5, Fault::Unknown("kind of tuple", b'X')),
            (b"U\0\0\0\x01K\0\0O\0\0", 8, Fault::Unknown("kind of tuple", b'O')),
            (b"D\0\0\0\x01N\0\0", 5, Fault::Unknown("kind of tuple", b'N')),
            (b"C\x01", 1, Fault::Unknown("commit flags", 1)),
            (b"S\0\0\0\x01\x02", 5, Fault::Unknown("first-block flag", 2)),
            (b"T\0\0\0\0\x04", 5, Fault::Unknown("truncate flags", 4)),
            (b"T\x80\0\0\0\0", 1, Fault::Negative("number of relations")),
            (b"M\x02", 1, Fault::Unknown("message flags", 2)),
            (b"R\0\0\0\x01s\0t\0x", 9, Fault::Unknown("replica identity", b'x')),
            (b"R\0\0\0\x01s\0t\0d\x80\0", 10, Fault::Negative("number of columns")),
            (b"R\0\0\0\x01s\0t\0d\0\x01\x02", 12, Fault::Unknown("column flags", 2)),
        ] {
            assert_eq!(refused(bytes, OUTSIDE), (offset, fault), "{bytes:?}");
        }
    }

    #[test]
    fn a_name_that_is_not_utf8_is_refused_where_it_starts() {
        for (bytes, offset, part) in [
            (b"Y\0\0\0\x01\xff\0t\0".as_slice(), 5, "schema"),
            (b"Y\0\0\0\x01s\0\xc3\0", 7, "type's name"),
            (b"R\0\0\0\x01s\0t\0d\0\x01\0\xe4\0\0\0\0\0\0\0\0\0", 13, "column name"),
            (b"O\0\0\0\0\0\0\0\0\x80\0", 9, "origin's name"),
        ] {
            assert_eq!(refused(bytes, OUTSIDE), (offset, Fault::NotUtf8(part)), "{bytes:?}");
        }
    }

    #[test]
    fn a_schema_left_empty_is_pg_catalog() {
        let of_type = TypeBody { oid: 1, schema: "pg_catalog", name: "t" };
        assert_eq!(decode(b"Y\0\0\0\x01\0t\0", OUTSIDE), Ok(Message::Type(None, of_type)));
    }

    #[test]
    fn a_decoder_follows_the_blocks_of_a_stream() {
        let insert = b"I\0\0\0\x07N\0\0";
        let streamed = b"I\0\0\0\x09\0\0\0\x07N\0\0";
        let mut decoder = Decoder::new();
        let xid_of = |message| match message {
            Ok(Message::Insert(xid, RelationId(7), _)) => Some(xid),
            _ => None,
        };
        assert_eq!(xid_of(decoder.decode(insert)), Some(None));
        assert!(decoder.decode(b"E").is_err(), "no block is open");
        assert!(decoder.decode(b"S\0\0\0\x09\x01").is_ok());
        assert_eq!(decoder.context(), INSIDE);
        assert_eq!(xid_of(decoder.decode(streamed)), Some(Some(Xid(9))));
        assert!(decoder.decode(insert).is_err(), "the form it has outside");
        assert!(decoder.decode(b"S\0\0\0\x09\0").is_err(), "a block within a block");
        assert!(decoder.decode(b"E").is_ok());
        assert!(decoder.decode(streamed).is_err(), "the form it has inside");
        assert_eq!(xid_of(decoder.decode(insert)), Some(None));
    }

    #[test]
    fn an_error_says_which_message_and_where() {
        let error = decode(b"I\0\0\0\x01N\0\x01?", OUTSIDE).unwrap_err();
        assert_eq!(error.to_string(), "Insert message, byte 8: unknown kind of field 0x3f");
        let error = decode(b"", OUTSIDE).unwrap_err();
        assert_eq!(error.to_string(), "empty message: it ends before its tag does");
        assert_eq!(refused(b"E", OUTSIDE), (0, Fault::OutsideStream));
        assert_eq!(refused(b"B", INSIDE), (0, Fault::InsideStream));
    }
}
