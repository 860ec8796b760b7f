//! Everything that real servers sent for one scenario, from each supported version.
#![expect(clippy::unwrap_used, reason = "tests")]

mod corpus;

use std::collections::{BTreeMap, HashMap, HashSet};

use corpus::{Recording, recordings};
use waltide_core::lsn::{CommitLsn, Lsn};
use waltide_core::pgoutput::{
    Context, Decoder, Field, Frame, LogicalMessage, Message, OldTuple, Relation, RelationCache,
    RelationId, ReplicaIdentity, Tuple, Xid, encode,
};

/// The messages of a recording, keepalives left out.
fn messages(recording: &Recording) -> Vec<Message<'_>> {
    let mut decoder = Decoder::new();
    let frames = recording.payloads().into_iter().map(|bytes| Frame::decode(bytes).unwrap());
    frames
        .filter_map(|frame| match frame {
            Frame::XLogData { body, .. } => Some(decoder.decode(body).unwrap()),
            Frame::Keepalive { .. } => None,
        })
        .collect()
}

/// Runs `check` on the messages of each recording whose name `select` likes; at least one must be.
fn each(select: impl Fn(&str) -> bool, check: impl Fn(&str, &[Message<'_>])) {
    let mut seen = 0;
    for recording in recordings().iter().filter(|recording| select(&recording.name)) {
        check(&recording.name, &messages(recording));
        seen += 1;
    }
    assert_ne!(seen, 0);
}

/// All but the recording that is there for the bench.
fn scenario(name: &str) -> bool {
    !name.ends_with("/ten")
}

fn kind(message: &Message<'_>) -> &'static str {
    match message {
        Message::Begin(_) => "begin",
        Message::Commit(_) => "commit",
        Message::Relation(..) => "relation",
        Message::Type(..) => "type",
        Message::Insert(..) => "insert",
        Message::Update(..) => "update",
        Message::Delete(..) => "delete",
        Message::Truncate(..) => "truncate",
        Message::Logical(..) => "logical",
        Message::Origin(_) => "origin",
        Message::StreamStart { .. } => "stream start",
        Message::StreamStop => "stream stop",
        Message::StreamCommit(..) => "stream commit",
        Message::StreamAbort(_) => "stream abort",
        Message::BeginPrepare(_) => "begin prepare",
        Message::Prepare(_) => "prepare",
        Message::CommitPrepared(_) => "commit prepared",
        Message::RollbackPrepared(_) => "rollback prepared",
        Message::StreamPrepare(_) => "stream prepare",
    }
}

fn row<'a>(message: &Message<'a>) -> Option<(RelationId, Vec<Tuple<'a>>)> {
    let tuple = |old: &OldTuple<'a>| match old {
        OldTuple::Key(tuple) | OldTuple::Full(tuple) => *tuple,
    };
    match message {
        Message::Insert(_, id, new) => Some((*id, vec![*new])),
        Message::Update(_, id, old, new) => {
            Some((*id, old.iter().map(tuple).chain([*new]).collect()))
        }
        Message::Delete(_, id, old) => Some((*id, vec![tuple(old)])),
        _ => None,
    }
}

fn value(field: Field<'_>) -> &[u8] {
    match field {
        Field::Text(value) | Field::Binary(value) => value,
        Field::Null | Field::Unchanged => b"",
    }
}

/// Relations by name, as first described.
fn relations<'a>(messages: &[Message<'a>]) -> HashMap<&'a str, Relation> {
    let mut relations = HashMap::new();
    for message in messages {
        if let Message::Relation(_, body) = message {
            relations.entry(body.name).or_insert_with(|| Relation::from(body));
        }
    }
    relations
}

#[test]
fn every_recorded_payload_is_written_again_byte_for_byte() {
    let (mut keepalives, mut asking) = (0, 0);
    for recording in recordings() {
        let mut decoder = Decoder::new();
        for payload in recording.payloads() {
            let frame = Frame::decode(payload).unwrap();
            let mut written = Vec::new();
            encode::frame(&mut written, &frame);
            assert_eq!(written, payload, "{}: {frame:?}", recording.name);
            match frame {
                Frame::XLogData { start, end, body, .. } => {
                    assert_eq!(start, end);
                    let message = decoder.decode(body).unwrap();
                    let mut written = Vec::new();
                    encode::message(&mut written, &message);
                    assert_eq!(written, body, "{}: {message:?}", recording.name);
                }
                Frame::Keepalive { reply_requested, .. } => {
                    keepalives += 1;
                    asking += u32::from(reply_requested);
                }
            }
        }
        assert_eq!(decoder.context(), Context::default(), "{}", recording.name);
    }
    assert!(asking > 0 && asking < keepalives, "both kinds were recorded");
}

#[test]
fn the_messages_of_each_kind_are_as_many_as_the_scenario_makes() {
    each(scenario, |name, messages| {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        messages.iter().for_each(|message| *counts.entry(kind(message)).or_default() += 1);
        let count = |kind: &str| counts.get(kind).copied().unwrap_or_default();

        let of = |plain, streamed, twophase| match name.split_once('/').unwrap().1 {
            "plain" => plain,
            "twophase" => twophase,
            _ => streamed,
        };
        // What is rolled back by a savepoint (5) or whole (5) is seen only where it is streamed,
        // and what is rolled back once prepared (1) only where transactions are prepared.
        for (kind, expected) in [
            ("insert", of(53, 63, 64)),
            ("update", 16),
            ("delete", 8),
            ("truncate", 3),
            ("logical", of(5, 6, 6)),
            ("origin", 2),
            ("stream commit", of(0, 6, 5)),
            ("stream abort", of(0, 2, 2)),
            ("begin prepare", of(0, 0, 2)),
            ("prepare", of(0, 0, 2)),
            ("commit prepared", of(0, 0, 2)),
            ("rollback prepared", of(0, 0, 1)),
            ("stream prepare", of(0, 0, 1)),
        ] {
            assert_eq!(count(kind), expected, "{name}: {kind}");
        }
        // The server describes again whenever it is not sure, and 14 sends empty transactions.
        assert!(count("relation") >= of(23, 31, 31), "{name}: {counts:?}");
        assert!(count("type") >= of(4, 7, 7), "{name}: {counts:?}");
        assert!(count("begin") >= of(35, 30, 29), "{name}: {counts:?}");
        assert_eq!(count("begin"), count("commit"), "{name}");
        assert!(count("stream start") >= of(0, 6, 6), "{name}: {counts:?}");
        assert_eq!(count("stream start"), count("stream stop"), "{name}");
    });
}

#[test]
fn every_row_fits_the_relation_that_the_cache_holds() {
    each(
        |_| true,
        |name, messages| {
            let mut cache = RelationCache::new();
            for message in messages {
                match message {
                    Message::Relation(_, body) => cache.insert(Relation::from(body), ()).unwrap(),
                    Message::StreamStart { xid, .. } => cache.stream_start(*xid),
                    Message::StreamStop => cache.stream_stop(),
                    Message::StreamCommit(xid, _) => cache.stream_commit(*xid),
                    Message::StreamAbort(abort) => cache.stream_abort(abort.xid),
                    Message::StreamPrepare(prepare) => cache.stream_abort(prepare.xid),
                    Message::Truncate(_, truncate) => {
                        assert!(truncate.relations().all(|id| cache.get(id).is_some()), "{name}");
                    }
                    _ => {}
                }
                let Some((id, tuples)) = row(message) else { continue };
                let (relation, ()) = cache.get(id).unwrap();
                for tuple in tuples {
                    assert_eq!(tuple.len(), relation.columns.len(), "{name}: {message:?}");
                }
            }
        },
    );
}

/// Rows and truncates of each transaction by its commit, those of aborted subtransactions left out.
fn changes(messages: &[Message<'_>]) -> BTreeMap<CommitLsn, Vec<String>> {
    let mut committed = BTreeMap::new();
    let mut open: HashMap<Xid, Vec<(Option<Xid>, String)>> = HashMap::new();
    let mut current = None;
    for message in messages {
        match message {
            Message::Begin(begin) => current = Some(begin.xid),
            Message::StreamStart { xid, .. } => current = Some(*xid),
            Message::StreamAbort(abort) => {
                let rows = open.entry(abort.xid).or_default();
                rows.retain(|(xid, _)| *xid != Some(abort.subxid) && abort.xid != abort.subxid);
            }
            Message::Commit(commit) => {
                let rows = open.remove(&current.unwrap()).unwrap_or_default();
                committed.insert(commit.commit_lsn, rows.into_iter().map(|(_, row)| row).collect());
            }
            Message::StreamCommit(xid, commit) => {
                let rows = open.remove(xid).unwrap_or_default();
                committed.insert(commit.commit_lsn, rows.into_iter().map(|(_, row)| row).collect());
            }
            _ => {}
        }
        let (xid, what) = match message {
            Message::Insert(xid, id, _)
            | Message::Update(xid, id, ..)
            | Message::Delete(xid, id, _) => (*xid, format!("{} {id:?}", kind(message))),
            Message::Truncate(xid, of) => {
                (*xid, format!("{:?}", of.relations().collect::<Vec<_>>()))
            }
            _ => continue,
        };
        open.entry(current.unwrap()).or_default().push((xid, what));
    }
    committed.retain(|_, rows: &mut Vec<String>| !rows.is_empty());
    committed
}

#[test]
fn streamed_or_not_a_transaction_holds_the_same_changes_in_the_same_order() {
    let recordings = recordings();
    let of = |name: String| recordings.iter().find(|recording| recording.name == name);
    for release in ["14", "15", "16", "17", "18"] {
        let plain = changes(&messages(of(format!("{release}/plain")).unwrap()));
        assert!(plain.len() > 30);
        for other in ["streamed", "parallel"] {
            let Some(other) = of(format!("{release}/{other}")) else { continue };
            assert_eq!(plain, changes(&messages(other)), "{}", other.name);
        }
    }
}

#[test]
fn a_transaction_ends_where_its_begin_said_it_would() {
    each(scenario, |name, messages| {
        let mut begun = None;
        for message in messages {
            match message {
                Message::Begin(begin) => begun = Some((begin.commit_lsn, begin.commit_time)),
                Message::Commit(commit) => {
                    assert_eq!(
                        begun.take(),
                        Some((commit.commit_lsn, commit.commit_time)),
                        "{name}"
                    );
                    assert!(commit.commit_lsn.0 < commit.end_lsn.0, "{name}");
                }
                _ => {}
            }
        }
        assert_eq!(begun, None);
    });
}

#[test]
fn relations_and_types_come_with_their_names_identities_and_keys() {
    each(scenario, |name, messages| {
        let relations = relations(messages);
        let keys = |relation: &str| -> Vec<bool> {
            relations[relation].columns.iter().map(|column| column.key).collect()
        };
        assert_eq!(relations["plain"].identity, ReplicaIdentity::Default);
        assert_eq!(keys("plain"), [true, false, false], "{name}");
        assert_eq!(relations["whole"].identity, ReplicaIdentity::Full);
        assert_eq!(keys("whole"), [true, true, true], "{name}");
        assert_eq!(relations["indexed"].identity, ReplicaIdentity::Index);
        assert_eq!(keys("indexed"), [false, true], "{name}");
        assert_eq!(relations["keyless"].identity, ReplicaIdentity::Nothing);
        assert_eq!(relations["nothing"].columns, []);
        assert!(relations.contains_key("parted_low") && !relations.contains_key("parted"));

        let odd = &relations["Odd \"name\" 日本"];
        assert_eq!(odd.schema, "Other");
        let columns: Vec<_> = odd.columns.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(columns, ["id", "a b", "é.c"]);
        // varchar(7) counts four bytes of header, and varchar is 1043 in every version.
        assert_eq!((odd.columns[1].type_oid, odd.columns[1].type_modifier), (1043, 11));
        assert_eq!(odd.columns[0].type_modifier, -1);

        let types: HashSet<_> = messages
            .iter()
            .filter_map(|message| match message {
                Message::Type(_, body) => Some((body.schema, body.name)),
                _ => None,
            })
            .collect();
        let expected = [("public", "mood"), ("pg_catalog", "pg_stat_activity")];
        assert_eq!(types, HashSet::from(expected), "{name}");
    });
}

#[test]
fn old_rows_come_as_the_replica_identity_says() {
    each(scenario, |name, messages| {
        let relations = relations(messages);
        let id = |relation: &str| relations[relation].id;
        let (plain, whole, indexed) = (id("plain"), id("whole"), id("indexed"));
        let fields = |tuple: &Tuple<'_>| -> Vec<Vec<u8>> {
            tuple.fields().map(|field| value(field).to_vec()).collect()
        };
        for message in messages {
            match message {
                Message::Update(_, id, Some(OldTuple::Full(old)), new) => {
                    assert_eq!(*id, whole, "{name}");
                    assert_eq!(fields(old)[1], b"one");
                    assert_eq!(fields(old)[2].len(), 3000, "TOAST comes with the old row");
                    assert_eq!(new.fields().last(), Some(Field::Unchanged));
                }
                Message::Delete(_, id, OldTuple::Full(_)) => assert_eq!(*id, whole, "{name}"),
                Message::Delete(_, id, OldTuple::Key(key)) if *id == indexed => {
                    assert_eq!(fields(key), [b"".to_vec(), b"b".to_vec()], "{name}");
                }
                Message::Update(_, id, Some(OldTuple::Key(key)), _)
                | Message::Delete(_, id, OldTuple::Key(key)) => {
                    assert!([plain, indexed].contains(id), "{name}");
                    let known = key.fields().filter(|field| *field != Field::Null);
                    assert_eq!(known.count(), 1, "{name}");
                }
                _ => {}
            }
        }
    });
}

#[test]
fn a_toasted_value_that_was_not_touched_is_marked_and_not_null() {
    each(scenario, |name, messages| {
        let toasted = relations(messages)["toasted"].id;
        let updates: Vec<_> = messages
            .iter()
            .filter_map(|message| match message {
                Message::Update(_, id, old, new) if *id == toasted => {
                    Some((*old, new.fields().nth(2)))
                }
                _ => None,
            })
            .collect();
        assert_eq!(updates, [(None, Some(Field::Unchanged))], "{name}");
    });
}

#[test]
fn binary_and_text_come_where_they_were_asked_for() {
    each(
        |_| true,
        |name, messages| {
            let plain = name.ends_with("/plain");
            for tuple in messages.iter().filter_map(row).flat_map(|(_, tuples)| tuples) {
                for field in tuple.fields() {
                    match field {
                        Field::Text(_) => assert!(plain, "{name}"),
                        Field::Binary(_) => assert!(!plain, "{name}"),
                        Field::Null | Field::Unchanged => {}
                    }
                }
            }
        },
    );
}

#[test]
fn truncates_name_the_tables_that_cascade_reached() {
    each(scenario, |name, messages| {
        let relations = relations(messages);
        let id = |relation: &str| relations[relation].id;
        let truncates: Vec<_> = messages
            .iter()
            .filter_map(|message| match message {
                Message::Truncate(_, of) => {
                    Some((of.cascade, of.restart_identity, of.relations().collect::<Vec<_>>()))
                }
                _ => None,
            })
            .collect();
        let expected = [
            (true, false, vec![id("parent"), id("child")]),
            (false, true, vec![id("keyless")]),
            (false, false, vec![id("keyless"), id("child")]),
        ];
        assert_eq!(truncates, expected, "{name}");
    });
}

#[test]
fn a_logical_message_in_a_stream_does_not_say_which_savepoint_it_is_of() {
    each(scenario, |name, messages| {
        let logical: Vec<(Option<Xid>, LogicalMessage<'_>)> = messages
            .iter()
            .filter_map(|message| match message {
                Message::Logical(xid, of) => Some((*xid, *of)),
                _ => None,
            })
            .collect();
        let find = |content: &str| {
            logical.iter().find(|(_, of)| of.content == content.as_bytes()).map(|(xid, _)| *xid)
        };
        let at_once = logical.iter().find(|(_, of)| of.prefix == "at once").unwrap().1;
        assert!(!at_once.transactional);
        assert_eq!(at_once.content, [0x00, 0xff]);
        assert_eq!(find(""), Some(None), "{name}");
        assert_eq!(find("transactional"), Some(None), "{name}");
        if name.ends_with("/plain") {
            assert_eq!(find("of a savepoint"), None, "it was rolled back");
            return;
        }
        let aborted = messages.iter().find_map(|message| match message {
            Message::StreamAbort(abort) => Some((abort.xid, abort.subxid)),
            _ => None,
        });
        let (top, savepoint) = aborted.unwrap();
        assert_ne!(top, savepoint);
        assert_eq!(find("of a savepoint"), Some(Some(top)), "{name}: not the savepoint's own id");
        assert_eq!(find("a stream"), Some(Some(top)), "{name}");
    });
}

#[test]
fn only_parallel_streaming_says_where_a_stream_was_aborted() {
    each(
        |name| scenario(name) && !name.ends_with("/plain"),
        |name, messages| {
            let aborts = messages.iter().filter_map(|message| match message {
                Message::StreamAbort(abort) => Some(abort),
                _ => None,
            });
            let whole: Vec<bool> = aborts
                .inspect(|abort| assert_eq!(abort.at.is_some(), name.ends_with("/parallel")))
                .map(|abort| abort.xid == abort.subxid)
                .collect();
            assert_eq!(whole, [false, true], "{name}: a savepoint, then a transaction");
        },
    );
}

#[test]
fn an_origin_has_its_position_unless_the_transaction_is_streamed() {
    each(scenario, |name, messages| {
        let origins: Vec<_> = messages
            .iter()
            .filter_map(|message| match message {
                Message::Origin(origin) => Some((origin.commit_lsn, origin.name)),
                _ => None,
            })
            .collect();
        let second = if name.ends_with("/plain") { Lsn(0x1_3456_789A) } else { Lsn::ZERO };
        assert_eq!(origins, [(Lsn(0x1_2345_6789), "elsewhere"), (second, "elsewhere")], "{name}");
    });
}

#[test]
fn a_prepared_transaction_is_named_from_its_prepare_to_its_end() {
    each(
        |name| name.ends_with("/twophase"),
        |name, messages| {
            let steps: Vec<_> = messages
                .iter()
                .filter_map(|message| match message {
                    Message::BeginPrepare(of)
                    | Message::Prepare(of)
                    | Message::StreamPrepare(of) => Some((kind(message), of.gid, of.xid)),
                    Message::CommitPrepared(of) => Some((kind(message), of.gid, of.xid)),
                    Message::RollbackPrepared(of) => {
                        assert!(of.prepare_end_lsn.0 < of.rollback_end_lsn.0);
                        assert!(of.prepare_time <= of.rollback_time);
                        Some((kind(message), of.gid, of.xid))
                    }
                    _ => None,
                })
                .collect();
            let named: Vec<_> = steps.iter().map(|(kind, gid, _)| (*kind, *gid)).collect();
            let expected = [
                ("begin prepare", "kept"),
                ("prepare", "kept"),
                ("commit prepared", "kept"),
                ("begin prepare", "dropped"),
                ("prepare", "dropped"),
                ("rollback prepared", "dropped"),
                ("stream prepare", "streamed"),
                ("commit prepared", "streamed"),
            ];
            assert_eq!(named, expected, "{name}");
            let xids: HashSet<_> = steps.iter().map(|(_, gid, xid)| (gid, xid)).collect();
            assert_eq!(xids.len(), 3, "{name}");
        },
    );
}
