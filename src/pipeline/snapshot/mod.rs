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

mod limits;
mod mend;
mod orders;
mod progress;
mod reader;
mod release;
mod replica;
mod scout;
mod spare;
mod tables;
mod target;
mod vet;
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
use waltide_core::pgoutput::RelationId;
use waltide_core::snapshot::{Book, ChunkId, Seen, Sight};

use super::diagnosis;
use super::routes::{OwnTopic, Route};
use crate::config::TableName;
use crate::config::settled::{SnapshotOptions, Source, TableSnapshot};
use crate::fault::{Code, Fault};
use crate::postgres::Params;
use crate::status::{self, Pipeline};
use limits::{Courtesy, Furthest};
pub(super) use orders::never;
use orders::{Answer, Wanted};
use reader::{Chunk, Reader, Work};
pub(super) use release::KEY_HEADER;
pub(crate) use replica::Replica;
use scout::{Ask, Measured, Member, Scout};
use spare::Spare;
use tables::{AGAIN, Table};
pub(crate) use target::Target;
use whole::Whole;

/// What a chunk reads of a table's file. With what is held of it at most (`reader.rs`), this keeps
/// a transaction to milliseconds and memory to a few megabytes.
const CHUNK_BLOCKS: u32 = 128;

/// What is held for each connection before no more is read.
const HELD_BYTES: usize = 2 << 20;

/// How often, behind transactions that follow one another, it is seen what there is to do.
const ADVANCE_EVERY: Duration = Duration::from_millis(10);

/// Chunks that a reader is given at a time: it goes on with the next while the owner is busy with
/// the one before. Where rates are kept, what is read is known only afterwards: one at a time.
const AHEAD: usize = 2;

/// Between looks at who is writing, while somebody is waited for or is not yet visible.
const LOOK_EVERY: Duration = Duration::from_millis(250);

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
    /// What somebody wants to have read has been looked at.
    Vetted(Box<Wanted>, Result<Vec<Member>, Fault>),
    /// A reader is free again, and what became of its chunk.
    Idle(usize, Box<Event>),
    /// Its rows.
    Read(Box<Chunk>),
    /// Its snapshot does not show what it must.
    Unseen(ChunkId, Sight),
    /// The table is not what it was.
    Moved(RelationId),
    /// It is read as soon as that is over.
    Waits(RelationId, Fault),
    /// How far the furthest of the source's replicas is behind, or why that is not known.
    Replicas(Result<Option<Furthest>, Fault>),
    /// It cannot be read.
    Failed(ChunkId, RelationId, Fault),
}

/// What it takes to read tables, and how far that is.
pub(super) struct Snapshots {
    options: SnapshotOptions,
    plans: BTreeMap<TableName, TableSnapshot>,
    life: u64,
    /// Counts the rows of this life.
    ordinal: u64,
    events: mpsc::Receiver<Event>,
    scout: mpsc::Sender<Ask>,
    readers: Vec<Hand>,
    members: BTreeMap<RelationId, Member>,
    tables: BTreeMap<RelationId, Table>,
    held: BTreeMap<ChunkId, Chunk>,
    spare: Spare,
    /// One without a key, for which the stream is to wait.
    whole: Option<Whole>,
    looked_at: Option<Instant>,
    looking: bool,
    /// A table is read since that look was asked for, so that it says nothing of it.
    looked_too_early: bool,
    courtesy: Courtesy,
    /// What people wait for.
    answers: Vec<Answer>,
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

/// A reader, as the owner knows it.
struct Hand {
    give: mpsc::Sender<Work>,
    /// So many chunks it has been given, and has not told of.
    given: usize,
}

impl Hand {
    /// The one with the least to do, where one has less than that.
    fn with_less_than(most: usize, of: &mut [Self]) -> Option<&mut Self> {
        of.iter_mut().min_by_key(|reader| reader.given).filter(|reader| reader.given < most)
    }

    /// Whether it could be given that.
    fn give(&mut self, work: Work) -> bool {
        let given = self.give.try_send(work).is_ok();
        self.given += usize::from(given);
        given
    }
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
    /// Where chunks are read, if not there.
    pub(super) replica: Option<Replica>,
    pub(super) options: SnapshotOptions,
    /// What is configured of single tables.
    pub(super) plans: BTreeMap<TableName, TableSnapshot>,
    pub(super) life: u64,
}

impl Snapshots {
    pub(super) fn start(control: &Handle, start: Start, status: Arc<Pipeline>) -> Self {
        let Start { params, source, replica, options, plans, life } = start;
        let replica = replica.map(Arc::new);
        let count = usize::from(options.parallelism);
        // What readers were given, and the scout, have one event each to tell: whoever reads for
        // us does not wait until those before are taken.
        let (tell, events) = mpsc::channel(AHEAD * count + 1);
        let (scout, asked) = mpsc::channel(count + 1);
        let mut tasks = Vec::new();
        let scouting = Scout { params: params.clone(), source, asked, events: tell.clone() };
        tasks.push(control.spawn(scouting.run()));
        let spare = Spare::default();
        let mut readers = Vec::new();
        for number in 0..count {
            let (give, work) = mpsc::channel(AHEAD);
            let (params, replica, events) = (params.clone(), replica.clone(), tell.clone());
            let spare = spare.clone();
            let reader = Reader { number, params, replica, spare, work, events };
            tasks.push(control.spawn(reader.run()));
            readers.push(Hand { give, given: 0 });
        }
        let now = Instant::now();
        Self {
            options,
            plans,
            life,
            ordinal: 0,
            events,
            scout,
            readers,
            members: BTreeMap::new(),
            tables: BTreeMap::new(),
            held: BTreeMap::new(),
            spare,
            whole: None,
            looked_at: None,
            looking: false,
            looked_too_early: false,
            courtesy: Courtesy::default(),
            answers: Vec::new(),
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
                if std::mem::take(&mut self.looked_too_early) {
                    self.looked_at = None;
                } else {
                    book.open_now(&open);
                }
            }
            Event::Measured(measured) => self.measured(book, *measured),
            Event::Gone(table) => {
                self.end(book, table, "the table is gone");
                book.forget(table);
            }
            Event::Vetted(wanted, found) => self.vetted(book, *wanted, found),
            Event::Unanswered(Some(table), fault) if fault.code == Code::SnapshotFilter => {
                if let Some(table) = self.tables.get_mut(&table) {
                    table.measuring = false;
                }
                self.fail(table, fault);
            }
            Event::Unanswered(table, fault) => {
                (self.looking, self.looked_too_early) = (false, false);
                self.replicas_unseen();
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
            Event::Waits(table, fault) => self.say(table, fault),
            Event::Replicas(seen) => self.replicas_are(seen),
            Event::Moved(table) => self.start_over(book, table, "the table has changed"),
            Event::Failed(chunk, table, fault) => {
                book.abandon(chunk);
                self.fail(table, fault);
            }
        }
    }

    /// A reader has told what became of a chunk.
    fn is_free(&mut self, number: usize) {
        if let Some(reader) = self.readers.get_mut(number) {
            reader.given = reader.given.saturating_sub(1);
        }
    }

    /// Takes the rows of a chunk, to be released where the stream has come so far.
    fn hold(&mut self, book: &mut Book, mut chunk: Chunk) {
        book.settle(&chunk.sight);
        let cost = limits::cost(&self.options, chunk.rows.len(), chunk.rows.bytes());
        self.register_at = self.register_at.max(Instant::now()) + cost;
        let route = self.tables.get(&chunk.table).and_then(|table| table.route.as_ref());
        let Some(route) = route else { return book.abandon(chunk.chunk) };
        if let Err(error) =
            write_keys(route, &mut chunk).and_then(|()| mend::keep(route, &mut chunk))
        {
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
        if !self.replicas_allow(now) {
            return;
        }
        if self.whole.is_none() && self.register_whole(book, now) {
            return;
        }
        let limited = self.options.max_rate.is_some() || self.options.max_rows.is_some();
        let ahead = if limited { 1 } else { AHEAD };
        // A stream that is behind comes to the release of what is read now only when it has caught
        // up so far: the more is held, the more goes out then.
        while self.has_room() && self.register_at <= now {
            let Some(reader) = Hand::with_less_than(ahead, &mut self.readers) else { return };
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
            let (Some(target), Some(route)) = (target, key) else {
                return book.abandon(assignment.chunk);
            };
            let key = route.plan.key_columns().to_vec();
            let most = self.options.max_rows.and_then(|rows| usize::try_from(rows).ok());
            let most = most.unwrap_or(usize::MAX);
            let (chunk, mends) = (assignment.chunk, book.mends(assignment.table));
            if !reader.give(Work { assignment, target, key, most, mends, all: None }) {
                return book.abandon(chunk);
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
        // Those of a higher rank are not even measured before the others can be read, so that they
        // do not come first by chance.
        let unread = |id: RelationId, unmeasured: bool| {
            let table = self.tables.get(&id).filter(|table| table.not_before <= now);
            table.is_some_and(|table| unmeasured || table.route.is_none())
        };
        let ready: Vec<(RelationId, bool)> = book.ready().collect();
        let unread = ready.iter().filter(|(id, unmeasured)| unread(*id, *unmeasured));
        let first = unread.map(|(id, _)| book.rank(*id)).min();
        for (id, unmeasured) in ready {
            let Some(table) = self.tables.get_mut(&id) else { continue };
            let wanted = unmeasured || table.target.is_none();
            let turn = Some(book.rank(id)) == first;
            if wanted && turn && !table.measuring && table.not_before <= now {
                let filter = book.terms(id).and_then(|terms| terms.filter.clone());
                table.measuring = self.scout.try_send(Ask::Measure(id, filter)).is_ok();
            }
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
