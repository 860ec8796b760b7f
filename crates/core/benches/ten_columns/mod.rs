//! The recorded rows of the benches: ten columns in binary, some 220 bytes each.
#![expect(clippy::expect_used, reason = "without its recording a bench has nothing to measure")]
#![allow(dead_code, reason = "not every bench uses all of it")]

#[path = "../../tests/corpus/mod.rs"]
mod corpus;

use waltide_core::avro::{Envelope, Options, Plan, Profile, RecordMeta, Snapshot};
use waltide_core::catalog::{Table, Types};
use waltide_core::change::{Position, Transaction};
use waltide_core::lsn::{CommitLsn, Lsn};
use waltide_core::pgoutput::{Decoder, Frame, Message, PgTimestamp, Relation, Tuple, Xid};

/// A table and its rows.
pub(crate) struct TenColumns {
    relation: Relation,
    /// Of CopyData, one for each row.
    pub(crate) payloads: Vec<Vec<u8>>,
}

impl TenColumns {
    pub(crate) fn load() -> Self {
        let recordings = corpus::recordings();
        let recording = recordings.iter().find(|recording| recording.name == "18/ten");
        let mut decoder = Decoder::new();
        let (mut relation, mut payloads) = (None, Vec::new());
        for payload in recording.expect("the recording is there").payloads() {
            let Ok(Frame::XLogData { body, .. }) = Frame::decode(payload) else { continue };
            match decoder.decode(body) {
                Ok(Message::Relation(_, body)) => relation = Some(Relation::from(&body)),
                Ok(Message::Insert(..)) => payloads.push(payload.to_vec()),
                _ => {}
            }
        }
        Self { relation: relation.expect("its relation is recorded"), payloads }
    }

    pub(crate) fn plan(&self, profile: Profile, envelope: Envelope) -> Plan {
        let options =
            Options { profile, envelope, prefix: "shop".to_owned(), ..Options::default() };
        let table = Table { primary_key: vec!["id".to_owned()], ..Table::default() };
        Plan::compile(&self.relation, &table, &Types::default(), &options).expect("it compiles")
    }
}

/// The row of an insert.
pub(crate) fn decode(payload: &[u8]) -> Option<Tuple<'_>> {
    let Ok(Frame::XLogData { body, .. }) = Frame::decode(payload) else { return None };
    match Decoder::new().decode(body) {
        Ok(Message::Insert(_, _, new)) => Some(new),
        _ => None,
    }
}

/// Of a change in a transaction as a running server has them.
pub(crate) fn meta() -> RecordMeta<'static> {
    let commit_lsn = CommitLsn(Lsn(0x16_B374_D848));
    RecordMeta {
        transaction: Some(Transaction {
            commit_lsn,
            commit_time: PgTimestamp(842_054_400_123_456),
            xid: Xid(4_000_000),
        }),
        position: Position { commit_lsn, ordinal: 7, sub_index: 0 },
        lsn: Lsn(0x16_B374_D000),
        snapshot: Snapshot::No,
        now: PgTimestamp(842_054_400_200_000),
        order: None,
        last_commit: None,
        origin: None,
    }
}
