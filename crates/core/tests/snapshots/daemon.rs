//! A daemon: the real books, and the glue between them in few words.

use std::collections::{BTreeSet, VecDeque};

use waltide_core::intake::Intake;
use waltide_core::lsn::{CommitLsn, DurableLsn, EndLsn, Lsn};
use waltide_core::pgoutput::encode::TupleBuf;
use waltide_core::pgoutput::{Begin, Commit, Field, PgTimestamp, RelationId, Tuple, Xid};
use waltide_core::snapshot::{
    Assignment, Book, ChunkId, Keys, Known, Part, Seen, Sight, Span, Terms, Tid, Touch, Word,
};
use waltide_core::watermark::Ticket;

use crate::table::{Event, Logged, Row, Version, visible};
use crate::world::{KEYS, Plant, Reads, World};

const TABLE: RelationId = RelationId(1);

/// A record, by its position.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) position: (u64, u64, u8),
    pub(crate) what: What,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum What {
    Set(u8, Row),
    /// The large value is as it was under the former key.
    Partial {
        from: u8,
        to: u8,
        small: u64,
    },
    Gone(u8),
    Emptied,
}

/// One that reads chunks, a step at a time.
enum Reader {
    Idle,
    /// Only where the bug is planted: a snapshot without an assignment.
    Early(Look),
    Assigned(Assignment, Look),
    Locked(Assignment, Look),
    Seen(Assignment, Look),
}

/// What a reader has seen so far.
#[derive(Clone, Default)]
struct Look {
    /// Keys are read from the primary, wherever the rest is.
    primary: bool,
    file: Option<u32>,
    sight: Option<Sight>,
    /// Of a replica: what is in its snapshot.
    replayed: u64,
    bound: Option<u64>,
}

/// Rows by their keys; none of a key that was asked for and has none.
type Rows = Vec<(u8, Option<Row>)>;

pub(crate) struct Daemon {
    intake: Intake,
    book: Book,
    life: u64,
    /// The next transaction of the log, and its next event.
    at: (usize, usize),
    in_flight: VecDeque<(Ticket, Record)>,
    reports: Vec<Ticket>,
    reader: Reader,
    held: Vec<(ChunkId, Rows)>,
    ordinal: u64,
    /// The books as they were some time ago.
    older: Vec<u8>,
    /// It has been told to repair.
    told: bool,
}

impl Daemon {
    pub(crate) fn start(world: &mut World) -> Result<Self, String> {
        let slot = world.slot.expect("there is one");
        let (from, mut book) = match &world.checkpoint {
            Some((end, bytes)) => {
                let book = Book::decode(bytes);
                (*end, book.map_err(|error| format!("no books: {error}"))?)
            }
            None => (slot, Book::default()),
        };
        let seen: Seen = world.snapshot().parse().expect("a snapshot");
        book.now_near(seen.xmax);
        if world.plant == Plant::UnsettledNotRemembered {
            let all = format!("1:{}:", seen.xmax + 1000);
            book.settle(&Sight::Primary(all.parse().expect("a snapshot")));
        }
        let life = book.begin_life(Lsn(world.written));
        book.boundary(Lsn(from));
        let life = if world.plant == Plant::SameNumbersInEachLife { 1 } else { life };
        // A life is written down before anything of it is published.
        let mut bytes = Vec::new();
        book.encode(&mut bytes);
        world.checkpoint = Some((from, bytes.clone()));
        let first = world.log.iter().position(|it| it.commit >= slot);
        Ok(Self {
            intake: Intake::resume(DurableLsn::proven(Lsn(from))),
            book,
            life,
            at: (first.unwrap_or(world.log.len()), 0),
            in_flight: VecDeque::new(),
            reports: Vec::new(),
            reader: Reader::Idle,
            held: Vec::new(),
            ordinal: 0,
            older: bytes,
            told: false,
        })
    }

    /// Some of what was on its way still arrives.
    pub(crate) fn die(&mut self, world: &mut World) {
        let arrive = world.random.index(self.in_flight.len() + 1);
        world.topic.extend(self.in_flight.drain(..arrive).map(|(_, record)| record));
    }

    /// Where a reader has its lock.
    pub(crate) fn lock(&self, world: &World) -> Option<Reads> {
        match &self.reader {
            Reader::Locked(_, look) | Reader::Seen(_, look) => Some(look.reads(world)),
            Reader::Early(look) => look.file.map(|_| look.reads(world)),
            Reader::Idle | Reader::Assigned(..) => None,
        }
    }

    /// Before which position a replica stops while a reader has its lock.
    pub(crate) fn holds_off(&self, world: &World) -> Option<u64> {
        let ends = world.files.iter().filter_map(|(_, xid)| world.ended_at(*xid));
        let next = ends.filter(|end| *end > world.replayed).min()?;
        (self.lock(world) == Some(Reads::Replica)).then_some(next - 1)
    }

    /// Whether all there is has arrived.
    pub(crate) fn is_quiet(&self, world: &World) -> bool {
        let known = self.book.known(TABLE).is_some() && self.book.is_idle();
        known && !world.ordered && self.at.0 == world.log.len() && self.intake.is_settled()
    }

    pub(crate) fn act(&mut self, world: &mut World) -> Result<(), String> {
        match world.random.below(14) {
            0..4 if world.slow_stream && !world.random.once_in(5) => {}
            0..4 => self.read(world),
            4 | 5 => self.deliver(world),
            6 => self.write(world),
            7 => self.prepare(world),
            _ => self.snapshot(world),
        }
        Ok(())
    }

    /// The next message of the stream.
    fn read(&mut self, world: &mut World) {
        let (transaction, event) = self.at;
        let next = world.log.get(transaction).filter(|next| next.end <= world.flushed);
        let Some(next) = next.cloned() else {
            self.intake.passed(Lsn(world.flushed)).expect("nothing is awaited");
            if !self.intake.in_transaction() {
                self.boundary(world, world.flushed);
            }
            return;
        };
        let commit_lsn = CommitLsn(Lsn(next.commit));
        if event == 0 && !self.intake.in_transaction() {
            let shown = if world.plant == Plant::SubtransactionsChecked { next.sub } else { None };
            let short = |xid: u64| Xid(u32::try_from(xid & 0xFFFF_FFFF).expect("half of it"));
            let begin = Begin { commit_lsn, commit_time: PgTimestamp(0), xid: short(next.xid) };
            self.intake.begin(&begin).expect("the server's order");
            self.book.begin(short(shown.unwrap_or(next.xid)));
        } else if let Some((lsn, event)) = next.events.get(event) {
            self.at.1 += 1;
            // Before that the table was not published.
            if world.joined.is_some_and(|joined| *lsn > joined) {
                self.event(world, &next, *event);
            }
        } else {
            let end_lsn = EndLsn(Lsn(next.end));
            let commit = Commit { commit_lsn, end_lsn, commit_time: PgTimestamp(0) };
            self.intake.commit(&commit).expect("the server's order");
            self.at = (transaction + 1, 0);
            self.boundary(world, next.end);
        }
    }

    fn event(&mut self, world: &World, of: &Logged, event: Event) {
        let Some(place) = self.intake.row().expect("inside") else { return };
        let records: Vec<What> = match event {
            Event::Insert(key, row) => vec![What::Set(key, row)],
            Event::Update(from, to, row, true) => {
                vec![What::Partial { from, to, small: row.small }]
            }
            Event::Update(from, to, row, false) if from != to => {
                vec![What::Gone(from), What::Set(to, row)]
            }
            Event::Update(_, to, row, false) => vec![What::Set(to, row)],
            Event::Delete(key) => vec![What::Gone(key)],
            Event::Truncate => vec![What::Emptied],
        };
        for (sub, what) in (0..).zip(records) {
            let position = (of.commit, place.position.ordinal, sub);
            self.in_flight.push_back((place.ticket, Record { position, what }));
            self.intake.produced();
        }
        if world.plant == Plant::TouchedForgotten {
            return;
        }
        let mut touched = |key: u8, touch: Touch<'_>| {
            self.book.touched(TABLE, &[key], touch, || Some([key].into()));
        };
        match event {
            Event::Insert(key, _) | Event::Delete(key) => touched(key, Touch::Whole),
            Event::Update(from, to, row, unchanged) => {
                if from != to {
                    touched(from, Touch::Whole);
                }
                let left_out = tuple(Row { large: UNCHANGED, ..row });
                let moved = from != to && world.plant != Plant::MovedTakenForFilled;
                let in_a_chunk = !matches!(self.reader, Reader::Idle) || !self.held.is_empty();
                let noted = in_a_chunk || world.plant != Plant::UnchangedPerChunkOnly;
                match unchanged && noted {
                    true if moved => touched(to, Touch::Moved),
                    true => touched(to, Touch::Partly(left_out.tuple())),
                    false => touched(to, Touch::Whole),
                }
            }
            Event::Truncate if world.plant == Plant::TruncateForgotten => {}
            Event::Truncate => self.book.truncated(TABLE),
        }
    }

    fn boundary(&mut self, world: &mut World, at: u64) {
        self.book.boundary(Lsn(at));
        if world.random.once_in(2) {
            self.release(world.plant);
        }
    }

    /// Kafka takes some, and says so.
    fn deliver(&mut self, world: &mut World) {
        for _ in 0..world.random.below(3) {
            if let Some((ticket, record)) = self.in_flight.pop_front() {
                world.topic.push(record);
                self.reports.push(ticket);
            }
        }
        if world.random.once_in(2) {
            for ticket in self.reports.drain(..) {
                self.intake.delivered(ticket, 1).expect("it was produced");
            }
        }
        let early = world.plant == Plant::DoneOnceReleased;
        let intake = &self.intake;
        self.book.delivered(|ticket| early || intake.is_delivered(ticket));
        if let Some((table, _)) = self.book.done() {
            let ticket = self.intake.begin_aside(PgTimestamp(0));
            self.intake.end_aside();
            self.book.closing(table, ticket);
        }
    }

    /// Position and books, of one moment.
    fn write(&mut self, world: &mut World) {
        let mut bytes = Vec::new();
        self.book.encode(&mut bytes);
        let newer = bytes.clone();
        if world.plant == Plant::BooksOlderThanThePosition {
            bytes = std::mem::replace(&mut self.older, newer);
        }
        world.checkpoint = Some((self.intake.durable().lsn().0, bytes));
        // Whoever ordered it is answered.
        world.ordered &= !self.told;
    }

    /// What comes before the first chunk.
    fn prepare(&mut self, world: &mut World) {
        if world.joined.is_some() && self.book.known(TABLE).is_none() {
            self.book.start(TABLE, Known::default(), BTreeSet::new());
        }
        if world.ordered && !self.told && self.book.is_idle() && self.book.known(TABLE).is_some() {
            let rows = (0..KEYS).map(|key| [u8::try_from(key).expect("small")].into()).collect();
            let terms =
                Terms { keys: Some(Keys { columns: Vec::new(), rows }), ..Terms::default() };
            self.book.start_on(TABLE, Known::default(), BTreeSet::new(), terms);
            self.told = true;
            world.ordered &= world.plant != Plant::RepairForgottenByAKill;
        }
        if self.book.waits().is_none_or(|waits| !waits.is_empty()) && !self.book.is_idle() {
            let ignored = world.plant == Plant::OpenTransactionsIgnored;
            let open = if ignored { BTreeSet::new() } else { world.holders() };
            self.book.open_now(&open);
        }
        let unmeasured = self.book.ready().any(|(_, unmeasured)| unmeasured);
        if unmeasured {
            let file = world.file();
            let in_file = world.heap.iter().filter(|version| version.file == file);
            let places = in_file.map(|version| version.place + 1).max().unwrap_or(0);
            let span = Span::whole(TABLE, file, places.div_ceil(2));
            self.book.measured(TABLE, 0, Lsn(world.written), span.into_iter().collect());
        }
    }

    /// One step of reading.
    fn snapshot(&mut self, world: &mut World) {
        if world.random.once_in(3) {
            return self.release(world.plant);
        }
        let plant = world.plant;
        match std::mem::replace(&mut self.reader, Reader::Idle) {
            Reader::Idle if plant == Plant::RegisteredAfterTheSnapshot => {
                let mut look = Look { file: Some(file_of(world, world.reads)), ..Look::default() };
                look.see(world);
                look.bound(world);
                self.reader = Reader::Early(look);
            }
            Reader::Idle => {
                if let Some(assignment) = self.book.register(1, |_| true) {
                    let look = Look::of(&assignment);
                    self.reader = Reader::Assigned(assignment, look);
                }
            }
            Reader::Early(look) => {
                if let Some(assignment) = self.book.register(1, |_| true) {
                    self.reader = Reader::Seen(assignment, look);
                }
            }
            Reader::Assigned(assignment, mut look)
                if plant == Plant::SnapshotBeforeTheLock && look.sight.is_none() =>
            {
                look.file = Some(file_of(world, look.reads(world)));
                look.see(world);
                self.reader = Reader::Assigned(assignment, look);
            }
            Reader::Assigned(assignment, mut look) => {
                look.file.get_or_insert(file_of(world, look.reads(world)));
                if plant == Plant::BoundBeforeTheSnapshot {
                    look.bound(world);
                }
                self.reader = Reader::Locked(assignment, look);
            }
            Reader::Locked(assignment, mut look) => {
                if look.sight.is_none() {
                    look.see(world);
                }
                self.reader = Reader::Seen(assignment, look);
            }
            Reader::Seen(assignment, mut look) => {
                look.bound(world);
                self.copy(world, assignment, &look);
            }
        }
    }

    /// The rows of a chunk, or why not.
    fn copy(&mut self, world: &mut World, assignment: Assignment, look: &Look) {
        let (Some(file), Some(sight), Some(bound)) = (look.file, &look.sight, look.bound) else {
            return;
        };
        let chunk = assignment.chunk;
        let moved = matches!(&assignment.part, Part::Span(span) if span.file != file);
        if moved && world.plant != Plant::RewriteUnseen {
            return self.book.start_over(assignment.table);
        }
        self.book.settle(sight);
        if !assignment.may_be_read_with(sight) && world.plant != Plant::VisibilityUnchecked {
            // Tried again with the same window, or with another.
            if world.random.once_in(2) {
                let look = Look::of(&assignment);
                self.reader = Reader::Assigned(assignment, look);
            } else {
                self.book.abandon(chunk);
            }
            return;
        }
        let sees = |xid: u64| match sight {
            Sight::Primary(seen) => seen.shows(xid),
            Sight::Replica { .. } => {
                xid == 0 || world.ended_at(xid).is_some_and(|end| end <= look.replayed)
            }
        };
        let tid = |place: u32| Tid::new(place / 2, u16::try_from(place % 2).expect("small"));
        let wanted = |version: &&Version| match &assignment.part {
            Part::Span(span) => (span.from..span.to).contains(&tid(version.place)),
            Part::Keys(keys) => keys.iter().any(|key| **key == [version.key]),
            Part::All(_) => true,
        };
        // The lock holds off whoever would change it.
        let file = file_of(world, look.reads(world));
        let mut rows: Vec<&Version> = visible(&world.heap, file, sees).filter(wanted).collect();
        rows.sort_by_key(|version| version.place);
        // What is held is bounded.
        let mut rest = None;
        if let (Part::Span(span), true) = (&assignment.part, rows.len() > 1) {
            rows.truncate(1);
            rest = span.behind(tid(rows[0].place));
        }
        let mut rows: Rows =
            rows.into_iter().map(|version| (version.key, Some(version.row))).collect();
        if let (Part::Keys(keys), true) = (&assignment.part, self.book.mends(assignment.table)) {
            let gone = keys.iter().map(|key| key[0]);
            let there: BTreeSet<u8> = rows.iter().map(|(key, _)| *key).collect();
            rows.extend(gone.filter(|key| !there.contains(key)).map(|key| (key, None)));
        }
        let early = world.plant == Plant::ReleasedOneBoundaryEarly;
        let before = world.log.iter().map(|it| it.commit).filter(|commit| *commit < bound).max();
        let bound = if early { before.unwrap_or(0) } else { bound };
        let keys: Vec<[u8; 1]> = rows.iter().map(|(key, _)| [*key]).collect();
        if self.book.held(chunk, Lsn(bound), rest, keys.iter().map(<[u8; 1]>::as_slice)) {
            self.held.push((chunk, rows));
        }
    }

    /// Whether it is told here that there is no row with a key.
    fn may_bury(&self, plant: Plant, table: RelationId, chunk: ChunkId, key: u8) -> bool {
        match plant {
            Plant::NothingBuried => false,
            Plant::BuriedThoughTouched => true,
            _ => self.book.may_bury(table, chunk, &[key]) == Some(true),
        }
    }

    /// Hands over what is due here.
    fn release(&mut self, plant: Plant) {
        if self.intake.in_transaction() {
            return;
        }
        let Some((table, chunk)) = self.book.releasable() else { return };
        let Some(boundary) = self.book.between() else { return };
        let Some(at) = self.held.iter().position(|(held, _)| *held == chunk) else { return };
        let (_, rows) = self.held.swap_remove(at);
        let ticket = self.intake.begin_aside(PgTimestamp(0));
        let mut count = 0;
        for (key, row) in rows {
            let what = match row {
                Some(row) => match self.book.word(table, chunk, &[key], tuple(row).tuple()) {
                    Some(Word::Row) => What::Set(key, row),
                    Some(Word::Filled(newer)) => What::Set(key, row_of(newer.tuple())),
                    Some(Word::Not) | None => continue,
                },
                None if self.may_bury(plant, table, chunk, key) => What::Gone(key),
                None => continue,
            };
            if row.is_some() {
                self.book.releases(table, chunk, || Some([key].into()));
            }
            self.ordinal += 1;
            let position = (boundary.0 - 1, self.life << 40 | self.ordinal, 0);
            self.in_flight.push_back((ticket, Record { position, what }));
            self.intake.produced();
            count += 1;
        }
        self.intake.end_aside();
        self.book.released(chunk, ticket, count);
    }
}

impl Look {
    fn of(assignment: &Assignment) -> Self {
        Self { primary: matches!(assignment.part, Part::Keys(_)), ..Self::default() }
    }

    fn reads(&self, world: &World) -> Reads {
        if self.primary { Reads::Primary } else { world.reads }
    }

    /// Takes the snapshot. What a replica had replayed is read before.
    fn see(&mut self, world: &mut World) {
        self.sight = Some(match self.reads(world) {
            Reads::Primary => Sight::Primary(world.snapshot().parse().expect("a snapshot")),
            Reads::Replica => Sight::Replica { replayed: Lsn(world.replayed) },
        });
        self.replayed = world.replayed;
    }

    /// What bounds all that is visible, unless it has been read.
    fn bound(&mut self, world: &World) {
        let now = match self.reads(world) {
            Reads::Primary => world.written,
            Reads::Replica => world.replayed,
        };
        self.bound.get_or_insert(now);
    }
}

/// Stands for a value that the log leaves out.
const UNCHANGED: u64 = u64::MAX;

fn tuple(row: Row) -> TupleBuf {
    let bytes = [row.small, row.large].map(u64::to_be_bytes);
    let [small, large] = [&bytes[0], &bytes[1]].map(|bytes| Field::Binary(bytes));
    TupleBuf::new([small, if row.large == UNCHANGED { Field::Unchanged } else { large }])
}

fn row_of(tuple: Tuple<'_>) -> Row {
    let mut values = tuple.fields().map(|field| match field {
        Field::Binary(bytes) => u64::from_be_bytes(bytes.try_into().expect("eight")),
        other => panic!("{other:?}"),
    });
    let mut next = || values.next().expect("two values");
    Row { small: next(), large: next() }
}

/// The file that a reader finds now.
fn file_of(world: &World, reads: Reads) -> u32 {
    match reads {
        Reads::Primary => world.file(),
        Reads::Replica => {
            let there =
                |xid: u64| xid == 0 || world.ended_at(xid).is_some_and(|end| end <= world.replayed);
            let files = world.files.iter().rev();
            files.clone().find(|(_, xid)| there(*xid)).expect("the first").0
        }
    }
}
