//! Snapshots beside the stream: the owner's part.
//!
//! ```text
//!   scout  --- what is published, who writes, how large a table is --.
//!                                                                     v
//!   reader <-- chunk registered between transactions ---------------- owner -> records with op r
//!      '------ rows, held; what their snapshot saw ------------------^
//! ```
//!
//! The rules are in `waltide_core::snapshot`; here their facts are gathered and their decisions
//! carried out. Scout and readers run on the control runtime, with connections of their own. The
//! owner never waits for them: what they send is taken when the stream leaves time for it.

mod reader;
mod release;
mod scout;
mod target;
mod whole;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use waltide_core::avro::{DataError, Notes, Record};
use waltide_core::lsn::Lsn;
use waltide_core::pgoutput::{Relation, RelationId};
use waltide_core::snapshot::{Book, ChunkId, Seen, Sight};

use super::diagnosis;
use super::routes::{OwnTopic, Route};
use crate::config::settled::{SnapshotOptions, Source};
use crate::fault::{Class, Fault};
use crate::postgres::Params;
use crate::status::{self, Pipeline};
use reader::{Chunk, Reader, Work};
pub(super) use release::KEY_HEADER;
use scout::{Ask, Measured, Member, Scout};
use target::Target;
use whole::Whole;

/// What a chunk reads of a table's file. With what is held of it at most (`reader.rs`), this keeps
/// a transaction to milliseconds and memory to a few megabytes.
const CHUNK_BLOCKS: u32 = 128;

/// What is held for each connection before no more is read.
const HELD_BYTES: usize = 6 << 20;

/// How often, behind transactions that follow one another, it is seen what there is to do.
const ADVANCE_EVERY: Duration = Duration::from_millis(10);

/// Between looks at who is writing, while somebody is waited for or is not yet visible.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Between attempts at a table that cannot be read.
const AGAIN: Duration = Duration::from_secs(3);

/// While the stream is behind, chunks are released for one part in so many of the time.
const STREAM_SHARE: u32 = 4;

/// What scout and readers tell the owner.
#[derive(Debug)]
pub(super) enum Event {
    /// What is published of what is captured.
    Covered(Vec<Member>),
    /// Who is writing.
    Active { open: BTreeSet<u64>, seen: Seen },
    /// What a table is made of.
    Measured(Box<Measured>),
    /// There is no such table any more.
    Gone(RelationId),
    /// The scout cannot say.
    Unanswered(Option<RelationId>, Fault),
    /// A reader is free again, and what became of its chunk.
    Idle(usize, Box<Event>),
    /// Its rows.
    Read(Box<Chunk>),
    /// Its snapshot does not show what it must.
    Unseen(ChunkId, Sight),
    /// The table is not what it was.
    Moved(RelationId),
    /// It cannot be read.
    Failed(ChunkId, RelationId, Fault),
}

/// A table that is being read.
struct Table {
    member: Member,
    target: Option<Arc<Target>>,
    route: Option<Box<Route>>,
    measuring: bool,
    /// The stream's last word on what it looks like.
    described: Option<Relation>,
    /// Not before then: it could not be read.
    not_before: Instant,
    failed: Option<Fault>,
    began: Instant,
}

/// What it takes to read tables, and how far that is.
pub(super) struct Snapshots {
    options: SnapshotOptions,
    life: u64,
    /// Counts the rows of this life.
    ordinal: u64,
    events: mpsc::Receiver<Event>,
    scout: mpsc::Sender<Ask>,
    readers: Vec<(mpsc::Sender<Work>, bool)>,
    members: BTreeMap<RelationId, Member>,
    tables: BTreeMap<RelationId, Table>,
    held: BTreeMap<ChunkId, Chunk>,
    /// One without a key, for which the stream is to wait.
    whole: Option<Whole>,
    looked_at: Option<Instant>,
    looking: bool,
    /// So that rates are kept: nothing is registered before.
    register_at: Instant,
    /// So that the stream has its share: nothing is released before.
    release_at: Instant,
    advance_at: Instant,
    /// The stream has more than can be published at once.
    pub(super) behind: bool,
    topic: Option<OwnTopic>,
    /// What kept the scout from answering, when it last was said.
    said: Option<Fault>,
    status: Arc<Pipeline>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Snapshots {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// What is known when a pipeline starts.
pub(super) struct Start {
    pub(super) params: Params,
    pub(super) source: Source,
    pub(super) options: SnapshotOptions,
    pub(super) life: u64,
}

impl Snapshots {
    pub(super) fn start(control: &Handle, start: Start, status: Arc<Pipeline>) -> Self {
        let Start { params, source, options, life } = start;
        let count = usize::from(options.parallelism);
        // Each reader and the scout have one event to tell at a time.
        let (tell, events) = mpsc::channel(count + 1);
        let (scout, asked) = mpsc::channel(count + 1);
        let mut tasks = Vec::new();
        let scouting = Scout { params: params.clone(), source, asked, events: tell.clone() };
        tasks.push(control.spawn(scouting.run()));
        let mut readers = Vec::new();
        for number in 0..count {
            let (give, work) = mpsc::channel(1);
            let (params, events) = (params.clone(), tell.clone());
            tasks.push(control.spawn(Reader { number, params, work, events }.run()));
            readers.push((give, true));
        }
        let now = Instant::now();
        Self {
            options,
            life,
            ordinal: 0,
            events,
            scout,
            readers,
            members: BTreeMap::new(),
            tables: BTreeMap::new(),
            held: BTreeMap::new(),
            whole: None,
            looked_at: None,
            looking: false,
            register_at: now,
            release_at: now,
            advance_at: now,
            behind: false,
            topic: None,
            said: None,
            status,
            tasks,
        }
    }

    /// Enters an event into the books.
    pub(super) fn enter(&mut self, book: &mut Book, event: Event) {
        match event {
            Event::Idle(number, event) => {
                self.is_free(number);
                self.enter(book, *event);
            }
            Event::Covered(members) => self.covered(book, members),
            Event::Active { open, seen } => {
                self.looking = false;
                book.now_near(seen.xmax);
                book.settle(&Sight::Primary(seen));
                book.open_now(&open);
            }
            Event::Measured(measured) => self.measured(book, *measured),
            Event::Gone(table) => {
                self.end(book, table, "the table is gone");
                book.forget(table);
            }
            Event::Unanswered(table, fault) => {
                self.looking = false;
                if self.said.as_ref() != Some(&fault) {
                    let (code, mend) = (fault.code.id(), fault.mend.as_str());
                    tracing::warn!(pipeline = self.status.name, code, mend, "{}", fault.what);
                    self.said = Some(fault);
                }
                if let Some(table) = table.and_then(|table| self.tables.get_mut(&table)) {
                    table.measuring = false;
                    table.not_before = Instant::now() + AGAIN;
                }
            }
            Event::Read(chunk) => self.hold(book, *chunk),
            Event::Unseen(chunk, sight) => {
                book.settle(&sight);
                book.abandon(chunk);
            }
            Event::Moved(table) => self.start_over(book, table, "the table has changed"),
            Event::Failed(chunk, table, fault) => {
                book.abandon(chunk);
                self.fail(table, fault);
            }
        }
    }

    /// A reader has told what became of its chunk.
    fn is_free(&mut self, number: usize) {
        if let Some((_, free)) = self.readers.get_mut(number) {
            *free = true;
        }
    }

    /// Takes the rows of a chunk, to be released where the stream has come so far.
    fn hold(&mut self, book: &mut Book, mut chunk: Chunk) {
        book.settle(&chunk.sight);
        if let Some(rate) = self.options.max_rate {
            let cost = Duration::from_secs_f64(chunk.rows.bytes() as f64 / rate as f64);
            self.register_at = self.register_at.max(Instant::now()) + cost;
        }
        let route = self.tables.get(&chunk.table).and_then(|table| table.route.as_ref());
        let Some(route) = route else { return book.abandon(chunk.chunk) };
        if let Err(error) = write_keys(route, &mut chunk) {
            // Perhaps the catalog says something else by now.
            if let Some(table) = self.tables.get_mut(&chunk.table) {
                table.route = None;
            }
            book.abandon(chunk.chunk);
            return self.fail(chunk.table, diagnosis::of_row(&error));
        }
        if book.held(chunk.chunk, chunk.bound, chunk.rest, chunk.keys.iter()) {
            self.held.insert(chunk.chunk, chunk);
        }
    }

    /// What is published is compared with what has been read.
    fn covered(&mut self, book: &mut Book, members: Vec<Member>) {
        let adopt = book.take_adopts();
        self.members = members.into_iter().map(|one| (one.published.id, one)).collect();
        if adopt {
            let names = self.members.len();
            tracing::warn!(
                pipeline = self.status.name,
                tables = names,
                "the pipeline began without snapshots: rows from before are not read, those of \
                 tables that join are"
            );
            for (id, member) in &self.members {
                book.take_as_read(*id, member.known.clone());
            }
            return;
        }
        let mut gone = book.all();
        gone.retain(|table| !self.members.contains_key(table));
        for gone in gone {
            self.end(book, gone, "the table is not published any more");
            book.forget(gone);
        }
        for (id, member) in self.members.clone() {
            let only = match book.known(id) {
                Some(known) if known.fingerprint == member.known.fingerprint => {
                    let new: BTreeSet<_> = &member.known.leaves - &known.leaves;
                    if new.is_empty() {
                        self.follow(book, id, &member);
                        continue;
                    }
                    // One that is being read starts over with all it has now.
                    if book.reads(id) { BTreeSet::new() } else { new }
                }
                _ => BTreeSet::new(),
            };
            book.start(id, member.known.clone(), only);
            self.tables.remove(&id);
            self.follow(book, id, &member);
        }
    }

    /// Sees to a table that is being read.
    fn follow(&mut self, book: &Book, id: RelationId, member: &Member) {
        if !book.reads(id) || self.tables.contains_key(&id) {
            return;
        }
        let table = member.name();
        tracing::info!(pipeline = self.status.name, table, "its rows are read beside the stream");
        let now = Instant::now();
        let read = Table {
            member: member.clone(),
            target: None,
            route: None,
            measuring: false,
            described: None,
            not_before: now,
            failed: None,
            began: now,
        };
        self.tables.insert(id, read);
    }

    fn measured(&mut self, book: &mut Book, measured: Measured) {
        let Measured { target, shape, at, mut spans } = measured;
        let id = target.relation.id;
        let Some(table) = self.tables.get_mut(&id) else { return };
        table.measuring = false;
        if let Some(only) = book.only(id) {
            spans.retain(|span| only.contains(&span.leaf));
        }
        // The first blocks come last off the list.
        spans.reverse();
        book.measured(id, shape, at, spans);
        table.route = None;
        table.target = Some(target);
    }

    /// A table's rows are elsewhere than they were.
    fn start_over(&mut self, book: &mut Book, id: RelationId, why: &str) {
        let Some(table) = self.tables.get_mut(&id).filter(|_| book.reads(id)) else { return };
        if table.target.take().is_some() {
            let name = table.member.name();
            tracing::info!(
                pipeline = self.status.name,
                table = name,
                "{why}: it is read from the start"
            );
        }
        table.route = None;
        book.start_over(id);
    }

    fn end(&mut self, book: &Book, id: RelationId, why: &str) {
        if let Some(table) = self.tables.remove(&id).filter(|_| book.reads(id)) {
            let name = table.member.name();
            let code = crate::fault::Code::SnapshotTableGone.id();
            tracing::warn!(
                pipeline = self.status.name,
                table = name,
                code,
                "{why}: it is not read to its end"
            );
            self.status.snapshot_ended(&name, false);
        }
    }

    fn fail(&mut self, id: RelationId, fault: Fault) {
        let Some(table) = self.tables.get_mut(&id) else { return };
        table.not_before = Instant::now() + AGAIN;
        if table.failed.as_ref() == Some(&fault) {
            return;
        }
        let name = table.member.name();
        let (code, mend) = (fault.code.id(), fault.mend.as_str());
        if fault.code.class() == Class::Transient {
            tracing::info!(pipeline = self.status.name, table = name, code, mend, "{}", fault.what);
        } else {
            tracing::warn!(pipeline = self.status.name, table = name, code, mend, "{}", fault.what);
        }
        table.failed = Some(fault);
    }

    /// The stream describes a relation: what is held of it was read as something else.
    pub(super) fn described(&mut self, book: &mut Book, relation: &Relation) {
        let Some(table) = self.tables.get_mut(&relation.id) else { return };
        let columns = |of: &Relation| {
            let columns = of.columns.iter().map(|column| (column.name.clone(), column.type_oid));
            columns.collect::<Vec<_>>()
        };
        let differs = match (&table.described, &table.target) {
            (Some(before), _) => before != relation,
            (None, Some(target)) => columns(&target.relation) != columns(relation),
            (None, None) => false,
        };
        table.described = Some(relation.clone());
        if differs {
            self.start_over(book, relation.id, "the stream describes the table anew");
        }
    }

    /// Asks and registers what is due, between transactions.
    pub(super) fn advance(&mut self, book: &mut Book) {
        if book.is_idle() || book.between().is_none() {
            return;
        }
        let now = Instant::now();
        while let Some(chunk) = book.spoiled() {
            book.abandon(chunk);
            self.held.remove(&chunk);
        }
        self.held.retain(|chunk, _| book.holds(*chunk));
        self.ask(book, now);
        self.advance_at = now + ADVANCE_EVERY;
        if self.whole.is_none() {
            self.register_whole(book, now);
        }
        // A stream that is behind comes to the release of what is read now only when it has caught
        // up so far: the more is held, the more goes out then.
        while self.has_room() && self.register_at <= now {
            let Some(free) = self.readers.iter().position(|(_, free)| *free) else { return };
            let tables = &self.tables;
            let may = |id| {
                tables
                    .get(&id)
                    .is_some_and(|table: &Table| table.route.is_some() && table.not_before <= now)
            };
            let Some(assignment) = book.register(CHUNK_BLOCKS, may) else { return };
            let table = self.tables.get(&assignment.table);
            let target = table.and_then(|table| table.target.clone());
            let key = table.and_then(|table| table.route.as_ref());
            let (Some(target), Some(route), Some((reader, free))) =
                (target, key, self.readers.get_mut(free))
            else {
                return book.abandon(assignment.chunk);
            };
            let key = route.plan.key_columns().to_vec();
            let chunk = assignment.chunk;
            match reader.try_send(Work { assignment, target, key, all: None }) {
                Ok(()) => *free = false,
                Err(_) => return book.abandon(chunk),
            }
        }
    }

    /// Whether more may be read. What is being read is held soon.
    fn has_room(&self) -> bool {
        let held: usize = self.held.values().map(|chunk| chunk.rows.bytes()).sum();
        self.held.is_empty() || held < HELD_BYTES * self.readers.len()
    }

    /// Whether there may be something to do. Cheap: it is asked behind each transaction.
    pub(super) fn is_due(&self, book: &Book) -> bool {
        let now = Instant::now();
        let may_release = !self.behind || now >= self.release_at;
        now >= self.advance_at || may_release && book.releasable().is_some()
    }

    fn ask(&mut self, book: &Book, now: Instant) {
        let waits = book.waits().is_none_or(|waits| !waits.is_empty());
        let due = self.looked_at.is_none_or(|at| now - at >= LOOK_EVERY);
        if !self.looking && due && (waits || book.has_unsettled()) {
            self.looking = self.scout.try_send(Ask::Activity).is_ok();
            self.looked_at = Some(now);
        }
        for (id, unmeasured) in book.ready() {
            let Some(table) = self.tables.get_mut(&id) else { continue };
            let wanted = unmeasured || table.target.is_none();
            if wanted && !table.measuring && table.not_before <= now {
                table.measuring = self.scout.try_send(Ask::Measure(id)).is_ok();
            }
        }
    }

    /// Shows how far tables are.
    pub(super) fn show(&self, book: &Book) {
        for (id, table) in &self.tables {
            let name = table.member.name();
            let (left, rows) = book.progress(*id).unwrap_or((0, 0));
            let blocks = table.target.as_ref().map(|target| target.blocks);
            self.status.snapshot_at(
                &name,
                status::Snapshot {
                    rows,
                    blocks_left: blocks.map(|_| left),
                    blocks,
                    waits: book.waits().is_none_or(|waits| !waits.is_empty()),
                    fault: table.failed.clone(),
                    running_s: table.began.elapsed().as_secs(),
                    done: false,
                },
            );
        }
    }

    /// A table has been read, and that has been told.
    pub(super) fn ended(&mut self, id: RelationId) {
        if let Some(table) = self.tables.remove(&id) {
            let name = table.member.name();
            self.status.snapshot_ended(&name, true);
            tracing::info!(pipeline = self.status.name, table = name, "its rows have been read");
        }
    }
}

/// The next thing that scout or readers tell; never, where nothing is read.
pub(super) async fn event(of: &mut Option<Box<Snapshots>>) -> Option<Event> {
    match of {
        Some(snapshots) => snapshots.events.recv().await,
        None => std::future::pending().await,
    }
}

/// Writes the keys of a chunk's rows as their records will have them.
fn write_keys(route: &Route, chunk: &mut Chunk) -> Result<(), DataError> {
    let mut notes = Notes::default();
    for number in 0..chunk.rows.len() {
        let Some(row) = chunk.rows.get(number) else { break };
        let record = Record::Read(row);
        chunk.keys.push(|out| route.plan.encode_key(&record, &mut notes, out).map(drop))?;
    }
    Ok(())
}

/// Where rows that are released stand: behind all that came before that boundary, and before all
/// that follows. The byte is the last of what came before, so no other record of a table has it.
fn place(boundary: Lsn) -> Lsn {
    Lsn(boundary.0.saturating_sub(1))
}
