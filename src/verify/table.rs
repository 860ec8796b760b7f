//! The table: what it is, and its rows, in short transactions.

use std::time::Duration;

use waltide_core::avro::{Plan, Record, RecordMeta, Snapshot, Written};
use waltide_core::change::Position;
use waltide_core::checkpoint::fingerprint;
use waltide_core::lsn::{CommitLsn, Lsn};
use waltide_core::pgoutput::{PgTimestamp, RelationId, Tuple};
use waltide_core::read_back::{Note, Schema, Seed, Told, ValueReader};
use waltide_core::snapshot::{HeldRows, Span, Tid, reachable};

use crate::config::TableName;
use crate::config::settled::{Envelope, Pipeline};
use crate::fault::{Code, Fault};
use crate::pipeline::{self, ANSWER, Target, answered};
use crate::postgres::catalog::{Leaf, PublishedTable};
use crate::postgres::publication::inserts_only;
use crate::postgres::{Connection, Error, Peer, SqlState};

/// What one transaction reads of a table's file: at most 8 MiB, some tens of milliseconds.
const CHUNK_BLOCKS: u32 = 1024;

/// How long a table's lock is waited for: others queue behind whoever waits.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// How long the server may be silent while rows come.
const SILENCE: Duration = Duration::from_secs(30);

/// How many rows are asked for by their keys at once.
const KEYS_AT_ONCE: usize = 1_000;

/// More than there are in a chunk.
const MOST_ROWS: usize = CHUNK_BLOCKS as usize * 1_000;

/// So many rows are held before they are looked at.
const ROWS_AT_ONCE: usize = 256;

/// A table that is verified.
pub(super) struct Table {
    pub(super) name: TableName,
    target: Target,
    pub(super) id: RelationId,
    pub(super) publications: Vec<String>,
    shape: u64,
    leaves: Vec<Leaf>,
    /// How its rows are compared.
    pub(super) rows: Rows,
}

/// Why the table cannot be read on.
pub(super) enum Trouble {
    /// It is not what it was.
    Moved,
    Failed(Fault),
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        Self::Failed(fault)
    }
}

/// What a transaction saw beside its rows.
#[derive(Clone, Copy)]
struct Look {
    /// Everything that is visible in it lies before.
    bound: Lsn,
    fits: bool,
}

impl Table {
    /// Finds a table that a pipeline captures.
    pub(super) async fn find(
        on: &mut Connection,
        settings: &Pipeline,
        name: &TableName,
        seed: Seed,
    ) -> Result<Self, Fault> {
        let source = |error: Error| pipeline::of_source(&error);
        let mut publications = Vec::new();
        let mut found: Option<PublishedTable> = None;
        for publication in
            [settings.source.publication.clone(), inserts_only(&settings.source.publication)]
        {
            let Some(loaded) = on.load_publication(&publication).await.map_err(source)? else {
                continue;
            };
            publications.push(publication);
            let is_it = |one: &PublishedTable| one.schema == name.schema && one.name == name.table;
            found = found.or(loaded.tables.into_iter().find(is_it));
        }
        let captured = settings.source.captures(&name.schema, &name.table);
        let Some(published) = found.filter(|_| captured) else {
            return Err(unknown(on, settings, name, captured).await);
        };
        let gone = || Fault::new(Code::NoTables, format!("{name} went away"), "name another one");
        // The shape first: if the rest is already that of another one, no chunk will fit it.
        let shape = on.shape_of(published.id).await.map_err(source)?.ok_or_else(gone)?;
        let relation = on.as_published(&published).await.map_err(source)?.ok_or_else(gone)?;
        let oids: Vec<u32> = relation.columns.iter().map(|column| column.type_oid).collect();
        let types = on.load_types(&oids).await.map_err(source)?;
        let mut known = on.load_relations(&[published.id]).await.map_err(source)?;
        let catalog = known.tables.remove(&published.id).ok_or_else(gone)?;
        let leaves = on.leaves(published.id).await.map_err(source)?;
        let mut options = pipeline::table_options(settings, on.peer().database(), name);
        // What is too large for a record is compared all the same.
        options.max_row_bytes = 1 << 30;
        let plan = Plan::compile(&relation, &catalog, &types, &options);
        let plan = plan.map_err(|error| pipeline::of_plan(&error))?;
        let target = Target::new(&published, relation, &types, &leaves, None);
        let shape = fingerprint(shape.as_bytes());
        let envelope = settings.envelope == Envelope::Full;
        let rows = Rows::new(name, plan, envelope, seed)?;
        let id = published.id;
        Ok(Self { name: name.clone(), target, id, publications, shape, leaves, rows })
    }

    /// Gives each row's digests to `each`, chunk by chunk, and says which position all that it saw
    /// lies before. A row that moves meanwhile may come twice, or not at all.
    pub(super) async fn scan(
        &mut self,
        on: &mut Connection,
        mut each: impl FnMut(&Digested<'_>) -> Result<(), Fault>,
    ) -> Result<Lsn, Trouble> {
        let mut seen = Lsn::ZERO;
        for leaf in self.leaves.clone() {
            let mut from = 0;
            while from < leaf.blocks {
                let to = from.saturating_add(CHUNK_BLOCKS).min(leaf.blocks);
                let (low, high) = (Tid::new(from, 0), Tid::new(to, 0));
                let span = Span { leaf: leaf.id, file: leaf.file, from: low, to: high };
                seen = seen.max(self.chunk(on, &span, &mut each).await?);
                from = to;
            }
        }
        Ok(seen)
    }

    async fn chunk(
        &mut self,
        on: &mut Connection,
        span: &Span,
        each: &mut impl FnMut(&Digested<'_>) -> Result<(), Fault>,
    ) -> Result<Lsn, Trouble> {
        let Some(of) = self.target.leaf(span.leaf).map(str::to_owned) else {
            return Err(Trouble::Moved);
        };
        let look = self.begin(on, &format!("ONLY {of}"), &of, Some(span.file)).await?;
        if !look.fits {
            return Err(Trouble::Moved);
        }
        let sql = self.target.copy(&of, span, MOST_ROWS);
        let copied = copy(on, &self.target, &sql, &mut self.rows, each).await;
        if let Err(error) = copied {
            return Err(self.explain(on, error).await);
        }
        self.end(on).await?;
        Ok(look.bound)
    }

    /// The digests of these rows, in one snapshot, and a position that all of it lies before. The
    /// keys are values as SQL writes them.
    pub(super) async fn by_keys(
        &mut self,
        on: &mut Connection,
        keys: &[Vec<String>],
        mut each: impl FnMut(&Digested<'_>) -> Result<(), Fault>,
    ) -> Result<Lsn, Trouble> {
        let root = self.target.root();
        let look = self.begin(on, &root, &root, None).await?;
        if !look.fits {
            return Err(Trouble::Moved);
        }
        let sql = self.target.by_key(self.rows.plan.key_columns());
        for keys in keys.chunks(KEYS_AT_ONCE) {
            let values: Vec<_> = keys.iter().map(|key| values(key)).collect();
            let (mut held, mut reader) = (HeldRows::default(), self.target.queried());
            let peer = on.peer().clone();
            let fetching = on.fetch(&sql, &values, |body| {
                let row = reader.decode(body).map_err(|_| "a row")?;
                row.and_then(|row| held.push(row)).map(|_| ()).ok_or("a row's place")
            });
            if let Err(error) = answered(SILENCE, &peer, fetching).await {
                return Err(self.explain(on, Stop::Source(error)).await);
            }
            self.rows.each(&held, &mut each)?;
        }
        self.end(on).await?;
        Ok(look.bound)
    }

    /// A transaction whose snapshot is taken when the table cannot be rewritten any more.
    async fn begin(
        &self,
        on: &mut Connection,
        lock: &str,
        of: &str,
        file: Option<u32>,
    ) -> Result<Look, Trouble> {
        let peer = on.peer().clone();
        let begin = self.target.begin(lock, LOCK_WAIT.as_millis());
        let looking = async {
            on.simple_query(&begin).await?;
            on.simple_query(&self.target.look(of, false)).await
        };
        let rows = match answered(ANSWER, &peer, looking).await {
            Ok(rows) => rows,
            Err(error) => return Err(self.explain(on, Stop::Source(error)).await),
        };
        let cell = |at: usize| rows.rows.first()?.get(at)?.as_deref();
        let number = |at: usize| cell(at)?.parse::<u64>().ok();
        let read = || {
            let bound = reachable(cell(1)?.parse().ok()?, number(5)?, number(6)?);
            let shape = cell(4).map(|shape| fingerprint(shape.as_bytes()));
            let same = file.is_none_or(|file| number(3) == Some(file.into()));
            Some(Look { bound, fits: same && shape == Some(self.shape) })
        };
        read().ok_or_else(|| {
            let what = "what a transaction sees cannot be read";
            pipeline::of_source(&Error::protocol(&peer, what)).into()
        })
    }

    async fn end(&self, on: &mut Connection) -> Result<(), Trouble> {
        let peer = on.peer().clone();
        let ended = answered(ANSWER, &peer, on.simple_query("ROLLBACK")).await;
        ended.map(|_| ()).map_err(|error| pipeline::of_source(&error).into())
    }

    /// What keeps the table from being read.
    async fn explain(&self, on: &mut Connection, stop: Stop) -> Trouble {
        let error = match stop {
            Stop::Source(error) => error,
            Stop::Failed(fault) => return fault.into(),
        };
        let fault = pipeline::of_source(&error);
        let Some(state) = error.sqlstate() else { return fault.into() };
        let name = &self.name;
        match state.as_str() {
            // It was there a moment ago.
            "42P01" | "3F000" => return Trouble::Moved,
            "55P03" => {
                return Fault::new(
                    Code::SnapshotBlocked,
                    format!("reading {name} waits for a lock that another session has on it"),
                    "try again once that session has ended; pg_locks has it",
                )
                .into();
            }
            _ if state != SqlState::INSUFFICIENT_PRIVILEGE => {
                let what = format!("{name} cannot be read: {}", fault.what);
                return Fault { what, ..fault }.into();
            }
            _ => {}
        }
        let peer = on.peer().clone();
        let looking = async {
            on.simple_query("ROLLBACK").await?;
            on.unreadable(self.id).await
        };
        let Ok(unreadable) = answered(ANSWER, &peer, looking).await else { return fault.into() };
        if unreadable.is_empty() {
            let what = format!("row-level security hides rows of {name} from the pipeline's role");
            let mend = "let the role see all of them (ALTER ROLE ... BYPASSRLS, or a policy of its \
                        own): a part of a table proves nothing";
            return Fault::new(Code::SnapshotRowSecurity, what, mend).into();
        }
        let tables: Vec<&str> = unreadable.iter().map(String::as_str).collect();
        let role = crate::postgres::sql::identifier(peer.user());
        Fault::new(
            Code::SnapshotPrivilege,
            format!("the role may not read {name}: {}", fault.what),
            format!(
                "have an owner run: GRANT SELECT ON {} TO {role}; and GRANT USAGE on their schemas",
                tables.join(", ")
            ),
        )
        .into()
    }
}

/// A key's values as parameters, in text form.
fn values(key: &[String]) -> Vec<crate::postgres::Value<'_>> {
    key.iter().map(|value| (false, value.as_bytes())).collect()
}

/// Why there is no such table to verify.
async fn unknown(
    on: &mut Connection,
    settings: &Pipeline,
    name: &TableName,
    captured: bool,
) -> Fault {
    let pipeline = &settings.name;
    let tables = match on.list_tables(&["*"]).await {
        Ok(tables) => tables,
        Err(error) => return pipeline::of_source(&error),
    };
    let found = tables.iter().find(|one| one.schema == name.schema && one.name == name.table);
    let Some(found) = found else {
        let what = format!("there is no table {name} in {}", on.peer());
        return Fault::new(Code::NoTables, what, "give --table as schema.table, as \\dt has it");
    };
    if !captured {
        let what = format!("table {name} is not captured by pipeline {pipeline}");
        let mend = "name one that source.tables matches and source.exclude does not";
        return Fault::new(Code::NoTables, what, mend);
    }
    let what = format!("table {name} is in no publication of pipeline {pipeline}");
    let mend = match found.root {
        Some(_) => "name the table at the top: its partitions' rows are published as that one's",
        None => "run `waltide check`, and start the daemon: it publishes what it captures",
    };
    Fault::new(Code::NoTables, what, mend)
}

/// Why a COPY did not come to its end.
enum Stop {
    Source(Error),
    Failed(Fault),
}

async fn copy(
    on: &mut Connection,
    target: &Target,
    sql: &str,
    rows: &mut Rows,
    each: &mut impl FnMut(&Digested<'_>) -> Result<(), Fault>,
) -> Result<(), Stop> {
    let peer: Peer = on.peer().clone();
    let (mut reader, mut held) = (target.copied(), HeldRows::default());
    let copying = answered(SILENCE, &peer, on.copy_out(sql)).await;
    let mut copy = copying.map_err(Stop::Source)?;
    while answered(SILENCE, &peer, copy.fill()).await.map_err(Stop::Source)? > 0 {
        while let Some(data) = copy.next_frame() {
            let row = reader.decode(data.map_err(Stop::Source)?);
            let row = row.map_err(|error| Error::protocol(&peer, error.to_string()));
            let Some(row) = row.map_err(Stop::Source)? else { continue };
            let place = held.push(row).ok_or_else(|| Error::protocol(&peer, "a row has no place"));
            place.map_err(Stop::Source)?;
            if held.len() >= ROWS_AT_ONCE || held.bytes() > 1 << 20 {
                rows.each(&held, each).map_err(Stop::Failed)?;
                held = HeldRows::default();
            }
        }
    }
    if !reader.is_complete() {
        let what = "a COPY ended without its trailer";
        return Err(Stop::Source(Error::protocol(&peer, what)));
    }
    rows.each(&held, each).map_err(Stop::Failed)
}

/// A row, as it is compared.
pub(super) struct Digested<'a> {
    pub(super) digest: u128,
    pub(super) key: &'a [u8],
    pub(super) columns: &'a [u64],
}

/// Rows go the way of the daemon: they are written as its records would be, and read back.
pub(super) struct Rows {
    pub(super) plan: Plan,
    pub(super) seed: Seed,
    /// What is compared.
    pub(super) columns: Vec<String>,
    /// Of the keys as they are now.
    pub(super) key_schema: Schema,
    values: ValueReader,
    notes: waltide_core::avro::Notes,
    value: Vec<u8>,
    key: Vec<u8>,
    digests: Vec<u64>,
}

impl Rows {
    fn new(name: &TableName, plan: Plan, envelope: bool, seed: Seed) -> Result<Self, Fault> {
        let Some(key) = plan.key_schema() else {
            return Err(Fault::new(
                Code::VerifyImpossible,
                format!("table {name} has no key: nothing tells its rows apart"),
                "give it a primary key, name a key under table_options, or compare what its topic \
                 holds as a multiset yourself: with delivery at_least_once records may repeat",
            ));
        };
        let broken = || {
            let what = format!("the schema of {name} cannot be read back");
            Fault::new(Code::Internal, what, "report it with the table's definition")
        };
        let key_schema = Schema::parse(key).ok_or_else(broken)?;
        let schema = Schema::parse(plan.value_schema()).ok_or_else(broken)?;
        let columns = schema.columns(envelope).ok_or_else(broken)?;
        let values = ValueReader::new(schema, envelope, &columns).ok_or_else(broken)?;
        let (value, key, digests) = (Vec::new(), Vec::new(), Vec::new());
        let notes = waltide_core::avro::Notes::new();
        Ok(Self { plan, seed, columns, key_schema, values, notes, value, key, digests })
    }

    fn each(
        &mut self,
        held: &HeldRows,
        each: &mut impl FnMut(&Digested<'_>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        for number in 0..held.len() {
            if let Some(tuple) = held.get(number) {
                each(&self.digested(tuple)?)?;
            }
        }
        Ok(())
    }

    fn digested(&mut self, tuple: Tuple<'_>) -> Result<Digested<'_>, Fault> {
        let broken = || {
            let what = "a row cannot be read back as it would be published";
            Fault::new(Code::Internal, what, "report it with the table's definition")
        };
        let digest = self.digest_of_key(&Record::Read(tuple))?.ok_or_else(broken)?;
        let record = Record::Read(tuple);
        self.value.clear();
        let written = self.plan.encode(&record, &META, &mut self.notes, &mut self.value);
        match written.map_err(|error| pipeline::of_row(&error))? {
            Written::Value => {}
            Written::Null | Written::TooLarge { .. } => return Err(broken()),
        }
        let beside = (!self.plan.envelope_has_notes()).then_some(&self.notes);
        let notes = beside.into_iter().flat_map(|notes| {
            let said = notes.unrepresentable().chain(notes.shapes());
            said.map(|(path, text)| Note::Said { path, text })
        });
        let told = self.values.digest(self.seed, &self.value, notes, &mut self.digests);
        if told != Some(Told::Row) {
            return Err(broken());
        }
        Ok(Digested { digest, key: &self.key, columns: &self.digests })
    }

    /// The names of the key's columns, in its order.
    pub(super) fn key_columns(&self) -> Vec<String> {
        let names = self.plan.key_columns().iter().filter_map(|at| self.plan.column_name(*at));
        names.map(ToOwned::to_owned).collect()
    }

    /// The digest of a record's key, whose bytes are kept until the next.
    pub(super) fn digest_of_key(&mut self, record: &Record<'_>) -> Result<Option<u128>, Fault> {
        self.key.clear();
        let written = self.plan.encode_key(record, &mut self.notes, &mut self.key);
        written.map_err(|error| pipeline::of_row(&error))?;
        Ok(self.key_schema.digest_of_key(self.seed, &self.key))
    }
}

/// Nothing beside the row is compared.
const META: RecordMeta<'static> = RecordMeta {
    transaction: None,
    position: Position { commit_lsn: CommitLsn(Lsn::ZERO), ordinal: 0, sub_index: 0 },
    lsn: Lsn::ZERO,
    snapshot: Snapshot::Incremental,
    now: PgTimestamp(0),
    order: None,
    last_commit: None,
    origin: None,
};
