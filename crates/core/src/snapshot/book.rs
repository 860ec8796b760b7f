//! The books of all snapshots of a pipeline, kept by the owner of its stream.

use std::collections::{BTreeMap, BTreeSet};

use super::job::{Hand, Job, Stage, Terms, Unsettled, Waits, Word};
use super::{Assignment, ChunkId, Key, Part, Seen, Sight, Span, Touch, widen};
use crate::lsn::Lsn;
use crate::pgoutput::{RelationId, Tuple, Xid};
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
    pub(super) changed: bool,
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
        self.start_on(table, known, only, Terms::default());
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
                Waits::Unknown => {
                    job.first.clone_from(open);
                    Waits::For(open - &self.unsettled.0)
                }
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
            job.measured(shape, at, spans);
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

    /// What is published says something of the row with a key, in the form in which
    /// [`Book::word`] is asked for it. `row` is the key as one asks the server for it.
    pub fn touched(
        &mut self,
        table: RelationId,
        key: &[u8],
        touch: Touch<'_>,
        row: impl FnOnce() -> Option<Key>,
    ) {
        if let Some(job) = self.jobs.get_mut(&table) {
            self.changed |= job.touch(key, touch, row);
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
        let at = self.boundary;
        for job in self.jobs.values_mut() {
            if job.seen.take_if(|(_, bound)| *bound <= at).is_some() {
                job.unsaid = Vec::new();
                self.changed = true;
            }
        }
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
        // What former lives have published may come again up to there. Who skips what repeats must
        // not take that for the last word on a row that is to be mended.
        let repeats = registered < self.floor;
        let jobs = self.jobs.iter_mut();
        let jobs = jobs.filter(|(table, job)| may(**table) && !(repeats && job.mends()));
        let mut jobs: Vec<_> = jobs.collect();
        jobs.sort_by_key(|(_, job)| job.rank);
        let mut jobs = jobs.into_iter();
        let (table, part) = jobs.find_map(|(table, job)| Some((*table, job.next(blocks)?)))?;
        let chunk = ChunkId(self.next_chunk);
        self.next_chunk += 1;
        let job = self.jobs.get_mut(&table)?;
        job.register(chunk, part.clone());
        let (shape, replayed) = (job.shape, registered.max(job.floor).max(self.floor));
        let published = self.unsettled.0.iter().copied().collect();
        Some(Assignment { chunk, table, part, shape, replayed, published })
    }

    /// Whether a table's rows have a key, which is known before any of them is read.
    pub fn set_keyless(&mut self, table: RelationId, keyless: bool) {
        if let Some(job) = self.jobs.get_mut(&table) {
            job.keyless = keyless;
        }
    }

    /// Registers all of a table without a key. The stream has to wait from here until its rows are
    /// on their way. Only between transactions.
    pub fn register_all(&mut self, table: RelationId) -> Option<Assignment> {
        // Its rows stand here: behind all that was published in former lives, or who skips what
        // repeats would skip them.
        let registered = self.between().filter(|at| *at >= self.floor)?;
        let job = self.jobs.get_mut(&table)?;
        // Who wrote before the table joined has not published that: it must be seen.
        if job.first.iter().any(|xid| self.unsettled.0.contains(xid)) {
            return None;
        }
        let part = job.all()?;
        let chunk = ChunkId(self.next_chunk);
        self.next_chunk += 1;
        job.register(chunk, part.clone());
        let (shape, replayed) = (job.shape, registered.max(job.floor).max(self.floor));
        // What is in the topic and cannot be seen yet is not missing.
        Some(Assignment { chunk, table, part, shape, replayed, published: Vec::new() })
    }

    /// All rows of a table without a key are on their way, as this snapshot showed them. Nothing
    /// that it shows lies behind `bound`.
    pub fn released_all(
        &mut self,
        chunk: ChunkId,
        (seen, bound): (Seen, Lsn),
        ticket: Ticket,
        rows: u64,
    ) {
        let Some(job) = self.job_of(chunk) else { return };
        let Some(hand) = job.hands.get_mut(&chunk) else { return };
        if let Part::All(spans) = &hand.part {
            job.unsaid.clone_from(spans);
        }
        hand.release(ticket);
        job.rows += rows;
        job.seen = Some((seen, bound));
    }

    /// Whether what a transaction did to a table without a key was in its rows when they were read.
    #[must_use]
    pub fn leaves_out(&self, table: RelationId, xid: Xid) -> bool {
        let seen = self.jobs.get(&table).and_then(|job| job.seen.as_ref());
        seen.is_some_and(|(seen, _)| seen.shows(widen(xid, self.near)))
    }

    /// What a read could see tells which transactions need not be remembered any more.
    pub fn settle(&mut self, sight: &Sight) {
        if let Sight::Primary(seen) = sight {
            self.near = self.near.max(seen.xmax);
            self.unsettled.settle(seen);
            self.changed = true;
        }
    }

    /// A chunk has been read, but for `rest`: nothing in it is newer than `bound`, and it has rows
    /// with these keys, in the form of [`Book::touched`]. False where nobody wants it any more.
    pub fn held<'k>(
        &mut self,
        chunk: ChunkId,
        bound: Lsn,
        rest: Option<Span>,
        keys: impl Iterator<Item = &'k [u8]>,
    ) -> bool {
        self.job_of(chunk).is_some_and(|job| job.held(chunk, bound, rest, keys))
    }

    /// A chunk could not be read, or not be released: it is left again.
    pub fn abandon(&mut self, chunk: ChunkId) {
        if let Some(job) = self.job_of(chunk) {
            job.abandon(chunk);
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

    /// A chunk that is to be released here, of a table of the lowest rank.
    #[must_use]
    pub fn releasable(&self) -> Option<(RelationId, ChunkId)> {
        let at = self.between()?;
        let due = |hand: &Hand| matches!(hand.stage, Stage::Held(bound) if bound <= at);
        let found = self.jobs.iter().filter_map(|(table, job)| {
            let (chunk, _) = job.hands.iter().find(|(_, hand)| due(hand) && !hand.is_spoiled())?;
            Some((job.rank, *table, *chunk))
        });
        found.min_by_key(|(rank, ..)| *rank).map(|(_, table, chunk)| (table, chunk))
    }

    /// What is to be said of a row of a chunk with this key; none where the chunk has no such key,
    /// and may not be released.
    #[must_use]
    pub fn word(
        &self,
        table: RelationId,
        chunk: ChunkId,
        key: &[u8],
        row: Tuple<'_>,
    ) -> Option<Word> {
        self.jobs.get(&table)?.hands.get(&chunk)?.word(key, row)
    }

    /// A row of a chunk is released whole; `row` is its key as one asks the server for it.
    pub fn releases(
        &mut self,
        table: RelationId,
        chunk: ChunkId,
        row: impl FnOnce() -> Option<Key>,
    ) {
        if let Some(job) = self.jobs.get_mut(&table) {
            job.releases(chunk, row);
        }
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

    /// A table of which nothing is left, with the number of rows that were released: that of the
    /// lowest rank. It has come to its end once that is told. Only between transactions.
    #[must_use]
    pub fn done(&self) -> Option<(RelationId, u64)> {
        self.between()?;
        let done = self.jobs.iter().filter(|(_, job)| job.is_done() && job.closing.is_none());
        done.min_by_key(|(_, job)| job.rank).map(|(table, job)| (*table, job.rows))
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

#[cfg(test)]
mod tests {
    use super::super::Word;
    use super::*;
    use crate::pgoutput::Field;
    use crate::pgoutput::encode::TupleBuf;

    const TABLE: RelationId = RelationId(7);

    /// Books of a table that is being read, and its first chunk.
    fn reading() -> (Book, Assignment) {
        let mut book = Book::default();
        book.start(TABLE, Known::default(), BTreeSet::new());
        book.open_now(&BTreeSet::new());
        book.measured(TABLE, 0, Lsn(1), Span::whole(TABLE, 3, 1).into_iter().collect());
        book.boundary(Lsn(10));
        let chunk = book.register(1, |_| true).expect("a chunk");
        (book, chunk)
    }

    fn row(number: u32) -> TupleBuf {
        TupleBuf::new([Field::Binary(&number.to_be_bytes()), Field::Text(b"large")])
    }

    fn left_out(number: u32) -> TupleBuf {
        TupleBuf::new([Field::Binary(&number.to_be_bytes()), Field::Unchanged])
    }

    #[test]
    fn a_chunk_waits_for_a_stream_that_is_far_behind_however_much_that_touches() {
        let (mut book, Assignment { chunk, .. }) = reading();
        assert!(book.held(chunk, Lsn(1_000_000), None, [b"k".as_slice()].into_iter()));
        for number in 0..1_000_000_u32 {
            book.touched(TABLE, &number.to_be_bytes(), Touch::Whole, || None);
        }
        book.boundary(Lsn(1_000_000));
        assert_eq!((book.spoiled(), book.releasable()), (None, Some((TABLE, chunk))));
        assert!(matches!(book.word(TABLE, chunk, b"k", row(0).tuple()), Some(Word::Row)));
        assert!(book.word(TABLE, chunk, b"other", row(0).tuple()).is_none());
    }

    #[test]
    fn a_row_whose_large_value_is_left_out_all_the_time_is_read_to_its_end() {
        let (mut book, first) = reading();
        let key: Key = b"k".as_slice().into();
        let touch = |book: &mut Book, number| {
            let row = left_out(number);
            book.touched(TABLE, b"k", Touch::Partly(row.tuple()), || Some(key.clone()));
        };
        let nothing = || std::iter::empty::<&[u8]>();
        assert!(book.held(first.chunk, Lsn(10), None, nothing()));
        touch(&mut book, 1);
        book.released(first.chunk, Ticket(1), 0);
        let again = book.register(1, |_| true).expect("the key");
        assert_eq!(again.part, Part::Keys(vec![key.clone()]));
        touch(&mut book, 2);
        assert!(book.held(again.chunk, Lsn(10), None, [b"k".as_slice()].into_iter()));
        touch(&mut book, 3);
        let Some(Word::Filled(filled)) = book.word(TABLE, again.chunk, b"k", row(1).tuple()) else {
            panic!("it is not released")
        };
        assert!(filled.tuple().fields().eq(row(3).tuple().fields()), "not the newest");
        book.releases(TABLE, again.chunk, || Some(key.clone()));
        book.released(again.chunk, Ticket(2), 1);
        touch(&mut book, 4);
        book.delivered(|_| true);
        assert_eq!(book.done(), Some((TABLE, 1)), "it is not asked for again");
    }

    #[test]
    fn a_table_without_a_key_is_read_at_once_and_leaves_out_what_it_has_seen() {
        let whole = Span::whole(TABLE, 3, 9);
        let mut book = Book::default();
        book.now_near(100);
        book.start(TABLE, Known::default(), BTreeSet::new());
        book.open_now(&BTreeSet::new());
        book.measured(TABLE, 0, Lsn(1), whole.into_iter().collect());
        book.boundary(Lsn(10));
        book.set_keyless(TABLE, true);
        assert!(book.register(1, |_| true).is_none(), "no part of it alone");
        let chunk = book.register_all(TABLE).expect("all of it").chunk;
        assert!(book.register_all(TABLE).is_none(), "and that once");
        let seen: Seen = "90:120:110".parse().expect("a snapshot");
        book.released_all(chunk, (seen, Lsn(50)), Ticket(1), 7);
        let left_out =
            |book: &Book| [100, 110, 119, 120].map(|xid| book.leaves_out(TABLE, Xid(xid)));
        assert_eq!(left_out(&book), [true, false, true, false]);
        book.delivered(|_| true);
        assert_eq!(book.done(), None, "the stream is not past what was seen");
        // A life that finds it so cannot tell what was seen, and reads all of it again.
        let mut bytes = Vec::new();
        book.encode(&mut bytes);
        let mut again = Book::decode(&bytes).expect("the books");
        again.boundary(Lsn(60));
        again.set_keyless(TABLE, true);
        assert_eq!((again.done(), left_out(&again)), (None, [false; 4]));
        assert!(again.register_all(TABLE).is_some());
        book.boundary(Lsn(50));
        assert_eq!((book.done(), left_out(&book)), (Some((TABLE, 7)), [false; 4]));
        book.closing(TABLE, Ticket(2));
        assert_eq!(book.delivered(|_| true), [TABLE]);
    }
}
