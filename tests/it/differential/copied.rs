//! A row that COPY reads and the same row out of the stream become the same bytes.
//!
//! The same plan writes both, so a consumer cannot tell a row that a snapshot read from one that
//! was streamed, whatever its types. COPY is always binary; the stream is either.

use waltide::postgres::catalog::Relations;
use waltide::postgres::{Connection, Mode};
use waltide_core::avro::{DataError, Written};
use waltide_core::avro::{Envelope, Notes, Options, Plan, Profile, Record, RecordMeta, Snapshot};
use waltide_core::catalog::Table;
use waltide_core::change::{Position, Row};
use waltide_core::lsn::{CommitLsn, Lsn};
use waltide_core::pgoutput::encode::TupleBuf;
use waltide_core::pgoutput::{
    CopyRows, Decoder, Message, PgTimestamp, Relation, RelationColumn, Tuple,
};
use waltide_stack::{Database, Stack, Version};

use super::kinds::Kind;
use super::{create, kinds, values, write};
use crate::support::{Random, on_each_version};

on_each_version! {
    a_copied_row_has_the_bytes_of_one_streamed_in_binary
    a_copied_row_has_the_bytes_of_one_streamed_in_text
}

fn a_copied_row_has_the_bytes_of_one_streamed_in_binary(version: Version) {
    assert_same_bytes(version, true);
}

fn a_copied_row_has_the_bytes_of_one_streamed_in_text(version: Version) {
    assert_same_bytes(version, false);
}

/// Each is encoded some ten times, column by column: so there are fewer.
const SHARE: usize = 3;
const MOST_VALUES: usize = 10_000;

fn assert_same_bytes(version: Version, binary: bool) {
    let test = format!("copied {version} {}", if binary { "binary" } else { "text" });
    let mut random = Random::from_environment(&test);
    let shop = Stack::shared().database(version, &test);
    shop.execute(kinds::TYPES);
    assert_same_bytes_in(&shop, &kinds::all(version), binary, &mut random);
}

pub(super) fn assert_same_bytes_in(
    shop: &Database,
    kinds: &[Kind],
    binary: bool,
    random: &mut Random,
) {
    create(shop, kinds);
    shop.execute("CREATE PUBLICATION every FOR TABLE every");
    let slot = shop.prefix();
    shop.execute(&format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"));
    let rows = (values() / SHARE).min(MOST_VALUES).div_ceil(kinds.len());
    write(&shop.session(), kinds, rows, random);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let read = runtime.expect("a runtime").block_on(read(shop, binary));
    assert_eq!((read.streamed.len(), read.copied.len()), (rows, rows));
    shop.execute(&format!("SELECT pg_drop_replication_slot('{slot}')"));
    for profile in [Profile::Waltide, Profile::Debezium] {
        let mut different = read.different_columns(profile, binary);
        different.sort_unstable();
        different.dedup();
        let types = different.iter().map(|at| at.checked_sub(1).map_or("id", |at| &kinds[at].sql));
        let types: Vec<&str> = types.collect();
        assert!(types.is_empty(), "not the same in {profile:?}: {types:?}");
        read.assert_whole_rows_are_the_same(profile, binary);
    }
}

/// The table's rows, twice.
struct Read {
    relation: Relation,
    known: Relations,
    streamed: Vec<TupleBuf>,
    copied: Vec<TupleBuf>,
}

/// Reads with the settings that every connection of the daemon has.
async fn read(shop: &Database, binary: bool) -> Read {
    let params = shop.url().parse().expect("a URL");
    let mut connection = Connection::open(&params, Mode::Plain).await.expect("a connection");
    let (relation, streamed) = streamed(&mut connection, shop.prefix(), binary).await;
    let known = connection.load_relations(&[relation.id]).await.expect("its catalog");
    let copied = copied(&mut connection, &relation, &known).await;
    Read { relation, known, streamed, copied }
}

/// What the slot's plugin makes of the rows, which is what a walsender would send.
async fn streamed(
    connection: &mut Connection,
    slot: &str,
    binary: bool,
) -> (Relation, Vec<TupleBuf>) {
    let sql = format!(
        "SELECT encode(data, 'hex') FROM pg_logical_slot_peek_binary_changes('{slot}', NULL, NULL,
             'proto_version', '1', 'publication_names', 'every', 'binary', '{binary}')"
    );
    let messages = connection.simple_query(&sql).await.expect("the slot's changes");
    let (mut decoder, mut relation, mut rows) = (Decoder::new(), None, Vec::new());
    for message in &messages.rows {
        let message = unhex(message[0].as_deref().expect("a message"));
        match decoder.decode(&message).expect("a message of pgoutput") {
            Message::Relation(_, body) => relation = Some(Relation::from(&body)),
            Message::Insert(_, _, new) => rows.push(TupleBuf::new(new.fields())),
            _ => {}
        }
    }
    (relation.expect("a relation"), rows)
}

fn unhex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("hex"));
    pairs.map(|pair| u8::from_str_radix(pair, 16).expect("hex")).collect()
}

/// A type that cannot be sent in binary is copied as text, which is how the stream sends it.
async fn copied(
    connection: &mut Connection,
    relation: &Relation,
    known: &Relations,
) -> Vec<TupleBuf> {
    let as_text =
        |column: &RelationColumn| known.types.get(column.type_oid).is_some_and(|of| !of.has_send);
    let selected = relation.columns.iter().map(|column| match as_text(column) {
        true => format!("{}::text", column.name),
        false => column.name.clone(),
    });
    let selected = selected.collect::<Vec<_>>().join(", ");
    let sql =
        format!("COPY (SELECT {selected} FROM public.every ORDER BY id) TO STDOUT (FORMAT binary)");
    let mut reader = CopyRows::new(relation.columns.iter().map(as_text));
    let mut rows = Vec::new();
    let mut copy = connection.copy_out(&sql).await.expect("a copy");
    while copy.fill().await.expect("more of the copy") > 0 {
        while let Some(data) = copy.next_frame() {
            let row = reader.decode(data.expect("a row of the copy")).expect("a binary row");
            rows.extend(row.map(|tuple| TupleBuf::new(tuple.fields())));
        }
    }
    assert!(reader.is_complete());
    rows
}

impl Read {
    fn pairs(&self) -> impl Iterator<Item = (Tuple<'_>, Tuple<'_>)> {
        let pairs = self.streamed.iter().zip(&self.copied);
        pairs.map(|(streamed, copied)| (streamed.tuple(), copied.tuple()))
    }

    /// The positions of columns of which some value is written in two ways: each alone, to know
    /// its type.
    fn different_columns(&self, profile: Profile, binary: bool) -> Vec<usize> {
        let plans: Vec<Plan> = (0..self.relation.columns.len())
            .map(|at| {
                let columns = vec![self.relation.columns[at].clone()];
                let relation = Relation { columns, ..self.relation.clone() };
                self.plan(&relation, &Table::default(), profile, Envelope::Flat, binary)
            })
            .collect();
        let differs = |plan: &Plan, streamed, copied| {
            let [streamed, copied] = [streamed, copied].map(|field| TupleBuf::new([field]));
            written(plan, Row::Insert(streamed.tuple())) != written(plan, Row::Read(copied.tuple()))
        };
        let mut different = Vec::new();
        for (streamed, copied) in self.pairs() {
            let fields = plans.iter().zip(streamed.fields().zip(copied.fields())).enumerate();
            let fields = fields.filter(|(_, (plan, (one, other)))| differs(plan, *one, *other));
            different.extend(fields.map(|(at, _)| at));
        }
        different
    }

    fn assert_whole_rows_are_the_same(&self, profile: Profile, binary: bool) {
        let table = &self.known.tables[&self.relation.id];
        let plan = |envelope| self.plan(&self.relation, table, profile, envelope, binary);
        let (flat, full) = (plan(Envelope::Flat), plan(Envelope::Full));
        for (streamed, copied) in self.pairs() {
            let [streamed, copied] = [Row::Insert(streamed), Row::Read(copied)];
            let row = written(&flat, streamed).expect("a row");
            let other = written(&flat, copied).expect("the same row");
            assert!((&row.key, &row.value) == (&other.key, &other.value));
            // In the envelope the row stands behind the two bytes of its unions.
            for value in [streamed, copied].map(|row| written(&full, row).expect("a value").value) {
                assert!(value.starts_with(&[&[0, 2], &row.value[..]].concat()));
            }
        }
    }

    fn plan(
        &self,
        relation: &Relation,
        table: &Table,
        profile: Profile,
        envelope: Envelope,
        binary: bool,
    ) -> Plan {
        let options = Options { profile, envelope, binary, ..Options::default() };
        Plan::compile(relation, table, &self.known.types, &options).expect("a plan")
    }
}

/// What becomes of a row.
#[derive(Clone, Debug, PartialEq)]
struct Encoded {
    key: Vec<u8>,
    value: Vec<u8>,
    /// What the flat envelope has no place for.
    beside: Vec<(String, String)>,
}

fn written(plan: &Plan, row: Row<'_>) -> Result<Encoded, DataError> {
    let (mut notes, mut key, mut value) = (Notes::new(), Vec::new(), Vec::new());
    let record = Record::from(row);
    plan.encode_key(&record, &mut notes, &mut key)?;
    assert_eq!(plan.encode(&record, &meta(), &mut notes, &mut value)?, Written::Value);
    let beside = notes.unrepresentable().chain(notes.shapes());
    let beside = beside.map(|(path, text)| (path.to_owned(), text.to_owned())).collect();
    Ok(Encoded { key, value, beside })
}

fn meta() -> RecordMeta<'static> {
    let commit_lsn = CommitLsn(Lsn(1));
    RecordMeta {
        transaction: None,
        position: Position { commit_lsn, ordinal: 0, sub_index: 0 },
        lsn: Lsn(1),
        snapshot: Snapshot::Yes,
        now: PgTimestamp(0),
        order: None,
        last_commit: None,
        origin: None,
    }
}
