//! A daemon: the real books, and the glue between them in few words.

use std::collections::{BTreeSet, VecDeque};

use waltide_core::intake::Intake;
use waltide_core::lsn::{CommitLsn, DurableLsn, EndLsn, Lsn};
use waltide_core::pgoutput::{Begin, Commit, PgTimestamp, RelationId, Xid};
use waltide_core::snapshot::{Book, ChunkId, Known, Seen, Sight, Span};
use waltide_core::watermark::Ticket;

use crate::world::{Delivery, Event, Logged, Plant, World};

const TABLE: RelationId = RelationId(1);

/// A record, by its position.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) position: (u64, u64, u8),
    pub(crate) what: What,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum What {
    /// What a transaction did.
    Change(u64, Event),
    /// What a read has found.
    Row(u64, u64),
    /// A read has been published whole. Nobody is told: the check must know.
    Whole(u64),
}

/// A read, while the stream waits.
enum Reading {
    Registered(ChunkId, u64),
    /// Its snapshot is taken; what it shows, and what bounds that.
    Seen {
        chunk: ChunkId,
        read: u64,
        seen: Seen,
        bound: u64,
        rows: Vec<u64>,
    },
}

pub(crate) struct Daemon {
    intake: Intake,
    book: Book,
    life: u64,
    /// The next transaction of the log, and its next event.
    at: (usize, usize),
    in_flight: VecDeque<(Ticket, Record)>,
    reports: Vec<Ticket>,
    reading: Option<Reading>,
    reads: u64,
    ordinal: u64,
    /// Where it is planted that this is not in the books.
    unsaved: Option<(Seen, u64)>,
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
        let forgotten = world.plant == Plant::FormerLivesForgotten;
        let life = book.begin_life(Lsn(if forgotten { 0 } else { world.flushed }));
        book.boundary(Lsn(from));
        let mut bytes = Vec::new();
        book.encode(&mut bytes);
        world.checkpoint = Some((from, bytes));
        let first = world.log.iter().position(|it| it.commit >= slot);
        Ok(Self {
            intake: Intake::resume(DurableLsn::proven(Lsn(from))),
            book,
            life,
            at: (first.unwrap_or(world.log.len()), 0),
            in_flight: VecDeque::new(),
            reports: Vec::new(),
            reading: None,
            reads: 0,
            ordinal: 0,
            unsaved: None,
        })
    }

    /// Some of what was on its way still arrives, unless nobody reads what is not committed.
    pub(crate) fn die(&mut self, world: &mut World) {
        if world.delivery == Delivery::AtLeastOnce {
            let arrive = world.random.index(self.in_flight.len() + 1);
            world.topic.extend(self.in_flight.drain(..arrive).map(|(_, record)| record));
        }
    }

    /// Whether all there is has arrived.
    pub(crate) fn is_quiet(&self, world: &World) -> bool {
        let known = self.book.known(TABLE).is_some() && self.book.is_idle();
        known && self.at.0 == world.log.len() && self.intake.is_settled()
    }

    pub(crate) fn act(&mut self, world: &mut World) {
        match world.random.below(10) {
            0..3 if self.reading.is_none() || world.plant == Plant::StreamGoesOn => {
                self.read(world);
            }
            0..5 if world.delivery == Delivery::AtLeastOnce => self.deliver(world),
            5 if world.delivery == Delivery::AtLeastOnce => self.write(world),
            3..6 => self.commit(world),
            6 => self.prepare(world),
            _ => self.snapshot(world),
        }
    }

    /// The next message of the stream.
    fn read(&mut self, world: &World) {
        let (transaction, event) = self.at;
        let next = world.log.get(transaction).filter(|next| next.end <= world.flushed);
        let Some(next) = next else {
            self.intake.passed(Lsn(world.flushed)).expect("nothing is awaited");
            if !self.intake.in_transaction() {
                self.boundary(world.flushed);
            }
            return;
        };
        let commit_lsn = CommitLsn(Lsn(next.commit));
        if event == 0 && !self.intake.in_transaction() {
            let begin = Begin { commit_lsn, commit_time: PgTimestamp(0), xid: short(next.xid) };
            self.intake.begin(&begin).expect("the server's order");
            self.book.begin(short(next.xid));
        } else if let Some((lsn, event)) = next.events.get(event) {
            self.at.1 += 1;
            // Before that the table was not published.
            if world.joined.is_some_and(|joined| *lsn > joined) {
                self.event(world.plant, next, *event);
            }
        } else {
            let end_lsn = EndLsn(Lsn(next.end));
            let commit = Commit { commit_lsn, end_lsn, commit_time: PgTimestamp(0) };
            self.intake.commit(&commit).expect("the server's order");
            self.at = (transaction + 1, 0);
            self.boundary(next.end);
        }
    }

    fn boundary(&mut self, at: u64) {
        self.book.boundary(Lsn(at));
        self.unsaved.take_if(|(_, bound)| *bound <= at);
    }

    fn event(&mut self, plant: Plant, of: &Logged, event: Event) {
        let Some(place) = self.intake.row().expect("inside") else { return };
        let shown = if plant == Plant::SubtransactionsLeftOut { of.sub } else { of.xid };
        let unsaved = self.unsaved.as_ref().is_some_and(|(seen, _)| seen.shows(of.xid));
        let left_out = self.book.leaves_out(TABLE, short(shown)) || unsaved;
        if left_out && plant != Plant::NothingLeftOut {
            return;
        }
        let position = (of.commit, place.position.ordinal, 0);
        let what = What::Change(of.xid, event);
        self.in_flight.push_back((place.ticket, Record { position, what }));
        self.intake.produced();
    }

    /// Kafka takes some, and says so.
    fn deliver(&mut self, world: &mut World) {
        for _ in 0..world.random.below(4) {
            if let Some((ticket, record)) = self.in_flight.pop_front() {
                world.topic.push(record);
                self.reports.push(ticket);
            }
        }
        if world.random.once_in(2) {
            self.settle(world.plant);
        }
    }

    fn settle(&mut self, plant: Plant) {
        for ticket in self.reports.drain(..) {
            self.intake.delivered(ticket, 1).expect("it was produced");
        }
        let early = plant == Plant::DoneOnceReleased;
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
        world.checkpoint = Some((self.intake.durable().lsn().0, bytes));
    }

    /// Records and checkpoint at once, between two transactions. The owner has no time for it while
    /// it reads.
    fn commit(&mut self, world: &mut World) {
        if self.reading.is_some() || self.intake.in_transaction() {
            return;
        }
        let mut before = Vec::new();
        self.book.encode(&mut before);
        for (ticket, record) in self.in_flight.drain(..) {
            world.topic.push(record);
            self.reports.push(ticket);
        }
        self.settle(world.plant);
        // The books as they were when it was sent, or as they are when it is answered.
        let position = self.intake.durable().lsn().0;
        match world.random.once_in(2) {
            true => world.checkpoint = Some((position, before)),
            false => self.write(world),
        }
    }

    /// What comes before the read.
    fn prepare(&mut self, world: &mut World) {
        if world.joined.is_some() && self.book.known(TABLE).is_none() {
            self.book.start(TABLE, Known::default(), BTreeSet::new());
        }
        if self.book.waits().is_none_or(|waits| !waits.is_empty()) && !self.book.is_idle() {
            let ignored = world.plant == Plant::OpenTransactionsIgnored;
            let open = if ignored { BTreeSet::new() } else { world.holders() };
            self.book.open_now(&open);
        }
        // Who looks sees as well who has ended.
        let mut seen: Seen = world.snapshot().parse().expect("a snapshot");
        if world.plant == Plant::PublishedTakenForSeen {
            seen = format!("1:{}:", seen.xmax + 1000).parse().expect("a snapshot");
        }
        self.book.settle(&Sight::Primary(seen));
        if self.book.ready().any(|(_, unmeasured)| unmeasured) {
            let span = Span::whole(TABLE, 1, 1);
            self.book.measured(TABLE, 0, Lsn(world.written), span.into_iter().collect());
        }
        self.book.set_keyless(TABLE, true);
    }

    /// One step of reading.
    fn snapshot(&mut self, world: &mut World) {
        match self.reading.take() {
            None => {
                let assignment = self.book.register_all(TABLE);
                let from = self.book.between().map_or(0, |at| at.0);
                self.reading = assignment.map(|it| Reading::Registered(it.chunk, from));
            }
            Some(Reading::Registered(chunk, from)) => {
                let early = world.flushed.saturating_sub(8);
                let seen: Seen = world.snapshot().parse().expect("a snapshot");
                let bag = world.visible(|xid| seen.shows(xid));
                let rows = bag.into_iter().flat_map(|(row, count)| (0..count).map(move |_| row));
                let rows = rows.collect();
                self.reads += 1;
                let read = self.life << 20 | self.reads;
                world.reads.insert(read, (seen.clone(), from));
                let planted = world.plant == Plant::BoundBeforeTheSnapshot;
                let bound = if planted { early } else { world.written };
                self.reading = Some(Reading::Seen { chunk, read, seen, bound, rows });
            }
            Some(Reading::Seen { chunk, read, seen, bound, mut rows }) => {
                if self.intake.in_transaction() {
                    self.reading = Some(Reading::Seen { chunk, read, seen, bound, rows });
                    return;
                }
                if world.plant == Plant::HalfForTheWhole {
                    rows.truncate(rows.len() / 2);
                }
                let ticket = self.intake.begin_aside(PgTimestamp(0));
                rows.into_iter().for_each(|row| self.put(ticket, What::Row(read, row)));
                self.put(ticket, What::Whole(read));
                self.intake.end_aside();
                self.book.settle(&Sight::Primary(seen.clone()));
                if world.plant == Plant::SnapshotNotRemembered {
                    self.unsaved = Some((seen, bound));
                    self.book.released(chunk, ticket, 0);
                } else {
                    self.book.released_all(chunk, (seen, Lsn(bound)), ticket, 0);
                }
            }
        }
    }

    fn put(&mut self, ticket: Ticket, what: What) {
        let boundary = self.book.between().map_or(0, |at| at.0);
        self.ordinal += 1;
        let position = (boundary.saturating_sub(1), self.life << 40 | self.ordinal, 0);
        self.in_flight.push_back((ticket, Record { position, what }));
        self.intake.produced();
    }
}

fn short(xid: u64) -> Xid {
    Xid(u32::try_from(xid & 0xFFFF_FFFF).expect("half of it"))
}
