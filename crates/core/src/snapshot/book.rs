//! The books of all snapshots of a pipeline, kept by the owner of its stream.

use std::collections::{BTreeMap, BTreeSet};

use super::job::{Hand, Job, Stage, Unsettled, Waits};
use super::{Assignment, ChunkId, Key, Part, Sight, Span, widen};
use crate::lsn::Lsn;
use crate::pgoutput::{RelationId, Xid};
use crate::watermark::Ticket;

/// A table that has been read, or need not be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// What made it a member of the publication when it was read.
    pub fingerprint: u64,
    /// Of a partitioned table: those that have rows, and were there then.
    pub leaves: BTreeSet<RelationId>,
}

/// What is being read, and what has been.
#[derive(Clone, Debug, Default)]
pub struct Book {
    /// Counts the starts of the pipeline, so that rows of two of them are told apart.
    pub(super) life: u64,
    /// The tables that are found first need not be read.
    pub(super) adopts: bool,
    pub(super) jobs: BTreeMap<RelationId, Job>,
    pub(super) known: BTreeMap<RelationId, Known>,
    pub(super) unsettled: Unsettled,
    /// An id of a transaction of about now; zero until one is known.
    pub(super) near: u64,
    /// Where the primary's log ended when this life began.
    floor: Lsn,
    next_chunk: u64,
    /// The last boundary between transactions.
    boundary: Lsn,
    in_transaction: bool,
    /// Something that belongs into a checkpoint has changed.
    changed: bool,
}

impl Book {
    /// Books that take what they find as read: those of a stream that ran before there were any.
    #[must_use]
    pub fn adopting() -> Self {
        Self { adopts: true, ..Self::default() }
    }

    /// Books for a stream that goes on behind a gap. What a chunk must be held against is not known
    /// across it, so tables that were being read start over; those that were read stay read.
    #[must_use]
    pub fn after_gap(self) -> Self {
        Self { life: self.life, adopts: self.adopts, known: self.known, ..Self::default() }
    }

    /// Books in which nothing is read yet. Rows of before keep their numbers.
    #[must_use]
    pub fn read_again(self) -> Self {
        Self { life: self.life, ..Self::default() }
    }

    /// Whether what is found is taken as read. From now on it is not.
    pub fn take_adopts(&mut self) -> bool {
        self.changed |= self.adopts;
        std::mem::take(&mut self.adopts)
    }

    /// A start of the pipeline, while the primary's log ended there: rows of this life have a
    /// number that those before did not, and stand behind all that was published in those.
    pub fn begin_life(&mut self, log_end: Lsn) -> u64 {
        self.life += 1;
        self.floor = log_end;
        self.life
    }

    /// Whether there is nothing to read: then nothing need be told.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Whether the table is being read.
    #[must_use]
    pub fn reads(&self, table: RelationId) -> bool {
        self.jobs.contains_key(&table)
    }

    /// The tables that are being read.
    pub fn tables(&self) -> impl Iterator<Item = RelationId> + '_ {
        self.jobs.keys().copied()
    }

    /// Of a table that has been read, what it was then.
    #[must_use]
    pub fn known(&self, table: RelationId) -> Option<&Known> {
        let in_work = self.jobs.get(&table).map(|job| &job.known);
        in_work.or_else(|| self.known.get(&table))
    }

    /// A table need not be read.
    pub fn take_as_read(&mut self, table: RelationId, known: Known) {
        self.jobs.remove(&table);
        self.known.insert(table, known);
        self.changed = true;
    }

    /// A table is gone, or not captured any more.
    pub fn forget(&mut self, table: RelationId) {
        self.changed |= self.jobs.remove(&table).is_some() | self.known.remove(&table).is_some();
    }

    /// The tables of which anything is known.
    #[must_use]
    pub fn all(&self) -> BTreeSet<RelationId> {
        self.jobs.keys().chain(self.known.keys()).copied().collect()
    }

    /// A table is to be read from the beginning, or only these of its partitions.
    pub fn start(&mut self, table: RelationId, known: Known, only: BTreeSet<RelationId>) {
        self.known.remove(&table);
        self.jobs.insert(table, Job::new(known, only));
        self.changed = true;
    }

    /// Of a table that is being read, the partitions that are: none for all there are.
    #[must_use]
    pub fn only(&self, table: RelationId) -> Option<&BTreeSet<RelationId>> {
        self.jobs.get(&table).map(|job| &job.only).filter(|only| !only.is_empty())
    }

    /// A table's rows are elsewhere than they were: it is read from the beginning.
    pub fn start_over(&mut self, table: RelationId) {
        if let Some(job) = self.jobs.get_mut(&table) {
            job.start_over();
            self.changed = true;
        }
    }

    /// Takes an id of a transaction of about now, by which short ids are told.
    pub fn now_near(&mut self, xid: u64) {
        self.near = self.near.max(xid);
    }

    /// The transactions that are open now, asked for after the job of each waiting table began.
    pub fn open_now(&mut self, open: &BTreeSet<u64>) {
        for job in self.jobs.values_mut() {
            job.waits = match &job.waits {
                Waits::Unknown => Waits::For(open - &self.unsettled.0),
                Waits::For(waits) => Waits::For(waits & open),
            };
            self.changed = true;
        }
    }

    /// Transactions that some table waits for, and that may have ended meanwhile; none where
    /// nobody has looked yet.
    #[must_use]
    pub fn waits(&self) -> Option<BTreeSet<u64>> {
        let mut all = BTreeSet::new();
        for job in self.jobs.values() {
            match &job.waits {
                Waits::Unknown => return None,
                Waits::For(open) => all.extend(open),
            }
        }
        Some(all)
    }

    /// The tables that wait for nobody, and whether they must be measured before they can be read.
    pub fn ready(&self) -> impl Iterator<Item = (RelationId, bool)> + '_ {
        let ready = |job: &Job| matches!(&job.waits, Waits::For(open) if open.is_empty());
        let jobs = self.jobs.iter().filter(move |(_, job)| ready(job));
        jobs.map(|(table, job)| (*table, job.left.is_none()))
    }

    /// What a table is made of on the primary, whose log was so far then: its columns, told by a
    /// number, and where its rows lie.
    pub fn measured(&mut self, table: RelationId, shape: u64, at: Lsn, spans: Vec<Span>) {
        if let Some(job) = self.jobs.get_mut(&table).filter(|job| job.left.is_none()) {
            (job.shape, job.floor, job.left) = (shape, at, Some(spans));
            self.changed = true;
        }
    }

    /// A transaction of the stream begins: with its end it is published.
    pub fn begin(&mut self, xid: Xid) {
        self.in_transaction = true;
        if self.jobs.is_empty() {
            return;
        }
        let xid = widen(xid, self.near);
        self.unsettled.0.insert(xid);
        for job in self.jobs.values_mut() {
            if let Waits::For(open) = &mut job.waits {
                open.remove(&xid);
            }
        }
        self.changed = true;
    }

    /// What is published touches a key, in the form in which [`Book::keeps`] is asked for it.
    pub fn touched(&mut self, table: RelationId, key: &[u8]) {
        if let Some(job) = self.jobs.get_mut(&table) {
            job.touch(key);
        }
    }

    /// What is published leaves out values of the row with this key.
    pub fn unchanged(&mut self, table: RelationId, key: Key) {
        if let Some(job) = self.jobs.get_mut(&table) {
            job.read_again(key);
            self.changed = true;
        }
    }

    /// What is published empties a table.
    pub fn truncated(&mut self, table: RelationId) {
        if let Some(job) = self.jobs.get_mut(&table) {
            job.truncate();
        }
    }

    /// The stream has come to a position between transactions.
    pub fn boundary(&mut self, at: Lsn) {
        self.in_transaction = false;
        self.boundary = self.boundary.max(at);
    }

    /// Where the stream stands; none inside a transaction.
    #[must_use]
    pub fn between(&self) -> Option<Lsn> {
        (!self.in_transaction).then_some(self.boundary)
    }

    /// Registers the next chunk to be read, of up to so many blocks, of a table that may be read
    /// now. Only between transactions.
    pub fn register(
        &mut self,
        blocks: u32,
        may: impl Fn(RelationId) -> bool,
    ) -> Option<Assignment> {
        let registered = self.between()?;
        let mut jobs = self.jobs.iter_mut().filter(|(table, _)| may(**table));
        let (table, part) = jobs.find_map(|(table, job)| Some((*table, job.next(blocks)?)))?;
        let chunk = ChunkId(self.next_chunk);
        self.next_chunk += 1;
        let job = self.jobs.get_mut(&table)?;
        job.hands.insert(chunk, Hand::new(part.clone()));
        let (shape, replayed) = (job.shape, registered.max(job.floor).max(self.floor));
        let published = self.unsettled.0.iter().copied().collect();
        Some(Assignment { chunk, table, part, shape, replayed, published })
    }

    /// What a read could see tells which transactions need not be remembered any more.
    pub fn settle(&mut self, sight: &Sight) {
        if let Sight::Primary(seen) = sight {
            self.near = self.near.max(seen.xmax);
            self.unsettled.settle(seen);
            self.changed = true;
        }
    }

    /// A chunk has been read, but for `rest`: nothing in it is newer than `bound`. False where
    /// nobody wants it any more.
    pub fn held(&mut self, chunk: ChunkId, bound: Lsn, rest: Option<Span>) -> bool {
        let Some(job) = self.job_of(chunk) else { return false };
        let Some(hand) = job.hands.get_mut(&chunk) else { return false };
        hand.stage = Stage::Held(bound);
        if let (Part::Span(span), Some(rest)) = (&mut hand.part, rest) {
            span.to = rest.from;
            job.put_back(Part::Span(rest));
        }
        true
    }

    /// A chunk could not be read, or not be released: it is left again.
    pub fn abandon(&mut self, chunk: ChunkId) {
        if let Some(job) = self.job_of(chunk)
            && let Some(hand) = job.hands.remove(&chunk)
        {
            job.put_back(hand.part);
        }
    }

    /// Whether a chunk is still wanted.
    #[must_use]
    pub fn holds(&self, chunk: ChunkId) -> bool {
        self.jobs.values().any(|job| job.hands.contains_key(&chunk))
    }

    /// Whether something was published that no snapshot has shown yet.
    #[must_use]
    pub fn has_unsettled(&self) -> bool {
        !self.unsettled.0.is_empty()
    }

    /// A chunk that nobody can release because more was touched than is remembered.
    #[must_use]
    pub fn spoiled(&self) -> Option<ChunkId> {
        let mut hands = self.jobs.values().flat_map(|job| &job.hands);
        hands
            .find(|(_, hand)| hand.is_spoiled() && matches!(hand.stage, Stage::Held(_)))
            .map(|(chunk, _)| *chunk)
    }

    /// A chunk that is to be released here.
    #[must_use]
    pub fn releasable(&self) -> Option<(RelationId, ChunkId)> {
        let at = self.between()?;
        let due = |hand: &Hand| matches!(hand.stage, Stage::Held(bound) if bound <= at);
        self.jobs.iter().find_map(|(table, job)| {
            let (chunk, _) = job.hands.iter().find(|(_, hand)| due(hand) && !hand.is_spoiled())?;
            Some((*table, *chunk))
        })
    }

    /// Whether a row of a chunk with this key is the last word on it.
    #[must_use]
    pub fn keeps(&self, table: RelationId, chunk: ChunkId, key: &[u8]) -> bool {
        let hand = self.jobs.get(&table).and_then(|job| job.hands.get(&chunk));
        hand.is_some_and(|hand| hand.keeps(key))
    }

    /// A chunk's rows are on their way, so many.
    pub fn released(&mut self, chunk: ChunkId, ticket: Ticket, rows: u64) {
        if let Some(job) = self.job_of(chunk) {
            job.rows += rows;
            if let Some(hand) = job.hands.get_mut(&chunk) {
                hand.release(ticket);
            }
        }
    }

    /// Chunks whose rows have all been acknowledged, with everything before them, are done; and so
    /// is a table whose end was told. Returns those.
    pub fn delivered(&mut self, is_delivered: impl Fn(Ticket) -> bool) -> Vec<RelationId> {
        let mut ended = Vec::new();
        for (table, job) in &mut self.jobs {
            let before = job.hands.len();
            let done = |hand: &Hand| matches!(hand.stage, Stage::Released(of) if is_delivered(of));
            job.hands.retain(|_, hand| !done(hand));
            self.changed |= job.hands.len() != before;
            if job.closing.is_some_and(&is_delivered) {
                ended.push(*table);
            }
        }
        for table in &ended {
            if let Some(job) = self.jobs.remove(table) {
                self.known.insert(*table, job.known);
            }
            self.changed = true;
        }
        if self.jobs.is_empty() {
            self.unsettled = Unsettled::default();
        }
        ended
    }

    /// A table of which nothing is left, with the number of rows that were released. It has come
    /// to its end once that is told. Only between transactions.
    #[must_use]
    pub fn done(&self) -> Option<(RelationId, u64)> {
        self.between()?;
        let done = |job: &Job| job.is_done() && job.closing.is_none();
        self.jobs.iter().find_map(|(table, job)| done(job).then_some((*table, job.rows)))
    }

    /// That a table has come to its end is on its way.
    pub fn closing(&mut self, table: RelationId, ticket: Ticket) {
        if let Some(job) = self.jobs.get_mut(&table) {
            job.closing = Some(ticket);
        }
    }

    /// Blocks that are left of a table, and rows that were released; none before it is measured.
    #[must_use]
    pub fn progress(&self, table: RelationId) -> Option<(u64, u64)> {
        let job = self.jobs.get(&table)?;
        let blocks = job.spans_left()?.iter().map(|span| span.blocks()).sum();
        Some((blocks, job.rows))
    }

    /// Whether a checkpoint would say something new.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        self.changed
    }

    /// It is said now.
    pub fn take_changed(&mut self) {
        self.changed = false;
    }

    fn job_of(&mut self, chunk: ChunkId) -> Option<&mut Job> {
        self.jobs.values_mut().find(|job| job.hands.contains_key(&chunk))
    }
}
