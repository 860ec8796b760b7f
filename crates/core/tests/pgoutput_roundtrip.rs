//! Every message that can be written is read back as it was, and nothing near it is.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use waltide_core::lsn::{CommitLsn, EndLsn, Lsn};
use waltide_core::pgoutput::encode::{self, ColumnsBuf, TruncateBuf, TupleBuf};
use waltide_core::pgoutput::{
    Begin, Column, Commit, CommitPrepared, Context, Fault, Field, Frame, LogicalMessage, Message,
    OldTuple, Origin, PgTimestamp, Prepare, RelationBody, RelationId, ReplicaIdentity,
    RollbackPrepared, StreamAbort, Tuple, TypeBody, Xid, decode,
};

/// A field that owns its value.
#[derive(Clone, Debug)]
enum Value {
    Null,
    Unchanged,
    Text(Vec<u8>),
    Binary(Vec<u8>),
}

impl Value {
    fn field(&self) -> Field<'_> {
        match self {
            Self::Null => Field::Null,
            Self::Unchanged => Field::Unchanged,
            Self::Text(value) => Field::Text(value),
            Self::Binary(value) => Field::Binary(value),
        }
    }
}

/// All that any message is made of; each kind takes what it has.
#[derive(Clone, Debug)]
struct Parts {
    in_stream: bool,
    oids: [u32; 3],
    lsns: [u64; 2],
    times: [i64; 2],
    flags: [bool; 2],
    identity: u8,
    old: u8,
    schema: String,
    name: String,
    columns: Vec<(bool, String, u32, i32)>,
    values: [Vec<Value>; 2],
    ids: Vec<u32>,
    content: Vec<u8>,
}

/// How many kinds of message there are.
const KINDS: u8 = 21;
/// From here on they cannot stand in a stream.
const FIRST_BOUNDARY: u8 = 10;

impl Parts {
    /// Builds the message of a kind and hands it over, since it borrows.
    fn with(&self, kind: u8, check: impl FnOnce(Message<'_>)) {
        let xid = self.in_stream.then_some(Xid(self.oids[0]));
        let id = RelationId(self.oids[1]);
        let tuples =
            self.values.each_ref().map(|values| TupleBuf::new(values.iter().map(Value::field)));
        let [old, new] = tuples.each_ref().map(TupleBuf::tuple);
        let old = if self.old.is_multiple_of(2) { OldTuple::Key(old) } else { OldTuple::Full(old) };
        match kind {
            0 => {
                let columns = self.columns.iter().map(|(key, name, oid, modifier)| Column {
                    key: *key,
                    name,
                    type_oid: *oid,
                    type_modifier: *modifier,
                });
                let columns = ColumnsBuf::new(columns);
                check(Message::Relation(xid, self.relation(&columns)));
            }
            1 => {
                let (schema, name) = (self.schema.as_str(), self.name.as_str());
                check(Message::Type(xid, TypeBody { oid: self.oids[1], schema, name }));
            }
            2 => check(Message::Insert(xid, id, new)),
            3 => check(Message::Update(xid, id, None, new)),
            4 => check(Message::Update(xid, id, Some(old), new)),
            5 => check(Message::Delete(xid, id, old)),
            6 => {
                let ids = TruncateBuf::new(self.ids.iter().map(|id| RelationId(*id)));
                check(Message::Truncate(xid, ids.truncate(self.flags[0], self.flags[1])));
            }
            7 => check(Message::Logical(xid, self.logical())),
            8 => {
                let (commit_lsn, name) = (Lsn(self.lsns[0]), self.name.as_str());
                check(Message::Origin(Origin { commit_lsn, name }));
            }
            9 => check(Message::StreamStop),
            _ => check(self.boundary(kind)),
        }
    }

    fn boundary(&self, kind: u8) -> Message<'_> {
        let xid = Xid(self.oids[0]);
        match kind {
            10 => Message::Begin(Begin {
                commit_lsn: CommitLsn(Lsn(self.lsns[0])),
                commit_time: PgTimestamp(self.times[0]),
                xid,
            }),
            11 => Message::Commit(self.commit()),
            12 => Message::StreamStart { xid, first: self.flags[0] },
            13 => Message::StreamCommit(xid, self.commit()),
            14 => Message::StreamAbort(StreamAbort { xid, subxid: Xid(self.oids[2]), at: None }),
            15 => {
                let at = Some((Lsn(self.lsns[0]), PgTimestamp(self.times[0])));
                Message::StreamAbort(StreamAbort { xid, subxid: Xid(self.oids[2]), at })
            }
            16 => Message::BeginPrepare(self.prepare()),
            17 => Message::Prepare(self.prepare()),
            18 => Message::StreamPrepare(self.prepare()),
            19 => {
                let (commit, gid) = (self.commit(), self.name.as_str());
                Message::CommitPrepared(CommitPrepared { commit, xid, gid })
            }
            _ => Message::RollbackPrepared(RollbackPrepared {
                prepare_end_lsn: EndLsn(Lsn(self.lsns[0])),
                rollback_end_lsn: EndLsn(Lsn(self.lsns[1])),
                prepare_time: PgTimestamp(self.times[0]),
                rollback_time: PgTimestamp(self.times[1]),
                xid,
                gid: &self.name,
            }),
        }
    }

    fn relation<'a>(&'a self, columns: &'a ColumnsBuf) -> RelationBody<'a> {
        let identity = match self.identity % 4 {
            0 => ReplicaIdentity::Default,
            1 => ReplicaIdentity::Nothing,
            2 => ReplicaIdentity::Full,
            _ => ReplicaIdentity::Index,
        };
        let (schema, name) = (self.schema.as_str(), self.name.as_str());
        let columns = columns.columns();
        RelationBody { id: RelationId(self.oids[1]), schema, name, identity, columns }
    }

    fn logical(&self) -> LogicalMessage<'_> {
        LogicalMessage {
            transactional: self.flags[0],
            lsn: Lsn(self.lsns[0]),
            prefix: &self.name,
            content: &self.content,
        }
    }

    fn commit(&self) -> Commit {
        Commit {
            commit_lsn: CommitLsn(Lsn(self.lsns[0])),
            end_lsn: EndLsn(Lsn(self.lsns[1])),
            commit_time: PgTimestamp(self.times[0]),
        }
    }

    fn prepare(&self) -> Prepare<'_> {
        Prepare {
            prepare_lsn: Lsn(self.lsns[0]),
            end_lsn: EndLsn(Lsn(self.lsns[1])),
            time: PgTimestamp(self.times[0]),
            xid: Xid(self.oids[0]),
            gid: &self.name,
        }
    }

    /// The context in which the message of this kind stands.
    fn context(&self, kind: u8) -> Context {
        Context { in_stream: kind == 9 || kind < FIRST_BOUNDARY && self.in_stream }
    }
}

fn parts() -> impl Strategy<Value = Parts> {
    let value = prop_oneof![
        Just(Value::Null),
        Just(Value::Unchanged),
        vec(any::<u8>(), 0..20).prop_map(Value::Text),
        vec(any::<u8>(), 0..20).prop_map(Value::Binary),
    ];
    let values = || vec(value.clone(), 0..12);
    let numbers = (any::<[u32; 3]>(), any::<[u64; 2]>(), any::<[i64; 2]>());
    let choices = (any::<bool>(), any::<[bool; 2]>(), any::<u8>(), any::<u8>());
    let names = (prop_oneof![Just("pg_catalog".to_owned()), "[^\0]{1,9}"], "[^\0]{0,9}");
    let columns = vec((any::<bool>(), "[^\0]{0,9}", any::<u32>(), any::<i32>()), 0..12);
    let lists = (columns, [values(), values()], vec(any::<u32>(), 0..9), vec(any::<u8>(), 0..20));
    (numbers, choices, names, lists).prop_map(|(numbers, choices, names, lists)| {
        let (oids, lsns, times) = numbers;
        let (in_stream, flags, identity, old) = choices;
        let (schema, name) = names;
        let (columns, values, ids, content) = lists;
        Parts {
            in_stream,
            oids,
            lsns,
            times,
            flags,
            identity,
            old,
            schema,
            name,
            columns,
            values,
            ids,
            content,
        }
    })
}

fn written(message: &Message<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode::message(&mut bytes, message);
    bytes
}

fn fields(tuple: &Tuple<'_>) -> Vec<Value> {
    let owned = tuple.fields().map(|field| match field {
        Field::Null => Value::Null,
        Field::Unchanged => Value::Unchanged,
        Field::Text(value) => Value::Text(value.to_vec()),
        Field::Binary(value) => Value::Binary(value.to_vec()),
    });
    owned.collect()
}

proptest! {
    // A failure is kept beside this file and tried first from then on.
    #![proptest_config(ProptestConfig::with_failure_persistence(
        FileFailurePersistence::WithSource("regressions")
    ))]

    #[test]
    fn what_was_written_is_read_back(parts in parts(), kind in 0..KINDS) {
        parts.with(kind, |message| {
            let bytes = written(&message);
            assert_eq!(decode(&bytes, parts.context(kind)), Ok(message));
        });
    }

    #[test]
    fn a_walk_finds_every_field_column_and_relation(parts in parts()) {
        let debug = |values: &[Value]| format!("{values:?}");
        parts.with(4, |message| {
            let bytes = written(&message);
            match decode(&bytes, parts.context(4)).unwrap() {
                Message::Update(_, _, Some(OldTuple::Key(old) | OldTuple::Full(old)), new) => {
                    assert_eq!(debug(&fields(&old)), debug(&parts.values[0]));
                    assert_eq!(debug(&fields(&new)), debug(&parts.values[1]));
                    assert_eq!(old.fields().len(), parts.values[0].len());
                }
                other => panic!("{other:?}"),
            }
        });
        parts.with(0, |message| {
            let bytes = written(&message);
            let decoded = decode(&bytes, parts.context(0));
            let Ok(Message::Relation(_, body)) = decoded else { panic!("{decoded:?}") };
            let columns: Vec<_> = body
                .columns
                .iter()
                .map(|of| (of.key, of.name.to_owned(), of.type_oid, of.type_modifier))
                .collect();
            assert_eq!(columns, parts.columns);
        });
        parts.with(6, |message| {
            let bytes = written(&message);
            let decoded = decode(&bytes, parts.context(6));
            let Ok(Message::Truncate(_, of)) = decoded else { panic!("{decoded:?}") };
            assert_eq!(of.relations().map(|id| id.0).collect::<Vec<_>>(), parts.ids);
            assert_eq!([of.cascade, of.restart_identity], parts.flags);
        });
    }

    #[test]
    fn a_message_cut_short_is_refused_at_its_end(parts in parts(), kind in 0..KINDS) {
        parts.with(kind, |message| {
            let bytes = written(&message);
            for cut in 0..bytes.len() {
                // Without its last part this one is another message that is whole.
                if kind == 15 && cut == 9 {
                    continue;
                }
                let error = decode(&bytes[..cut], parts.context(kind)).unwrap_err();
                assert!(matches!(error.fault, Fault::Truncated(_)), "{error}");
                assert!(error.offset <= cut);
            }
        });
    }

    #[test]
    fn a_message_with_more_behind_it_is_refused(
        parts in parts(),
        kind in 0..KINDS,
        more in vec(any::<u8>(), 1..9),
    ) {
        parts.with(kind, |message| {
            let mut bytes = written(&message);
            let end = bytes.len();
            bytes.extend_from_slice(&more);
            let error = decode(&bytes, parts.context(kind)).unwrap_err();
            // A Stream Abort goes on to read when and where.
            if kind != 14 {
                assert_eq!((error.offset, error.fault), (end, Fault::Trailing(more.len())));
            }
        });
    }

    #[test]
    fn what_starts_or_ends_a_transaction_is_refused_inside_a_stream(
        parts in parts(),
        kind in FIRST_BOUNDARY..KINDS,
    ) {
        parts.with(kind, |message| {
            let error = decode(&written(&message), Context { in_stream: true }).unwrap_err();
            assert_eq!((error.offset, error.fault), (0, Fault::InsideStream));
        });
    }

    #[test]
    fn a_frame_is_read_back(
        lsns in any::<[u64; 2]>(),
        time: i64,
        reply_requested: bool,
        body in vec(any::<u8>(), 0..20),
    ) {
        let [start, end] = lsns.map(Lsn);
        let sent_at = PgTimestamp(time);
        let data = Frame::XLogData { start, end, sent_at, body: &body };
        let keepalive = Frame::Keepalive { wal_end: end, sent_at, reply_requested };
        for frame in [data, keepalive] {
            let mut bytes = Vec::new();
            encode::frame(&mut bytes, &frame);
            assert_eq!(Frame::decode(&bytes), Ok(frame));
        }
    }
}
