//! The job of reading one table: what is left of it, and the chunks in hand.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::touched::{Recent, Touch, Touched, filled};
use super::{Filter, Keys, Known, Seen, Sight, Span};
use crate::lsn::Lsn;
use crate::pgoutput::encode::TupleBuf;
use crate::pgoutput::{RelationId, Tuple};
use crate::watermark::Ticket;

/// What the keys to read again may take. With more than these the table starts over: they are in
/// every checkpoint.
pub(super) const MAX_AGAIN_BYTES: usize = 256 << 10;

/// What the keys may take that need not be read again any more. With more than these all of them
/// are forgotten, and read once more if need be.
const MAX_WHOLE_BYTES: usize = 8 << 20;

/// Keys that are read with one query.
pub(super) const KEYS_A_CHUNK: usize = 256;

/// A chunk's name, never given twice in a life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkId(pub u64);

/// The values of a key's columns, in the form of a tuple.
pub type Key = Box<[u8]>;

/// What a chunk is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Rows by where they lie.
    Span(Span),
    /// Rows by their keys.
    Keys(Vec<Key>),
    /// All rows of a table without a key, while the stream waits.
    All(Vec<Span>),
}

/// A chunk that is to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Its name.
    pub chunk: ChunkId,
    /// The table, as the stream names it.
    pub table: RelationId,
    /// What to read.
    pub part: Part,
    /// What the table's columns must be.
    pub shape: u64,
    /// What a replica must have replayed: where the chunk was registered, and the table measured.
    pub replayed: Lsn,
    /// What the snapshot must show.
    pub published: Vec<u64>,
}

impl Assignment {
    /// Whether all that was published before it was registered can be seen.
    #[must_use]
    pub fn may_be_read_with(&self, sight: &Sight) -> bool {
        match sight {
            Sight::Primary(seen) => self.published.iter().all(|xid| seen.shows(*xid)),
            Sight::Replica { replayed } => *replayed >= self.replayed,
        }
    }
}

/// How far a chunk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It is being read.
    Reading,
    /// It is held; all that is visible in it lies before this position.
    Held(Lsn),
    /// Its rows are on their way.
    Released(Ticket),
}

/// What a row of a chunk is where it is released.
#[derive(Clone)]
pub enum Word {
    /// As it was read: it is the last word on its key.
    Row,
    /// As the stream had it since, which left out values; with those that were read.
    Filled(TupleBuf),
    /// Not to be released: the stream has said more.
    Not,
}

/// A chunk in hand.
#[derive(Clone, Debug)]
pub(super) struct Hand {
    pub(super) part: Part,
    pub(super) stage: Stage,
    /// What was touched before it was registered does not count.
    since: u64,
    /// Once it is held: its keys, and what was done to them.
    rows: HashMap<Box<[u8]>, Option<Touched>>,
    /// All rows have gone.
    emptied: bool,
    /// More was touched while it was read than is remembered.
    spoiled: bool,
    /// Keys that need not be read again once its rows have arrived.
    whole: Vec<Key>,
}

impl Hand {
    fn new(part: Part, since: u64) -> Self {
        let (stage, rows, whole) = (Stage::Reading, HashMap::new(), Vec::new());
        Self { part, stage, since, rows, emptied: false, spoiled: false, whole }
    }

    const fn is_reading(&self) -> bool {
        matches!(self.stage, Stage::Reading)
    }

    const fn is_open(&self) -> bool {
        !matches!(self.stage, Stage::Released(_))
    }

    pub(super) const fn is_spoiled(&self) -> bool {
        self.is_open() && self.spoiled
    }

    /// Its rows are on their way; what touches a key from now on comes after them.
    pub(super) fn release(&mut self, ticket: Ticket) {
        self.stage = Stage::Released(ticket);
        self.rows = HashMap::new();
    }

    /// Whether nothing was done to the row with a key.
    pub(super) fn is_untouched(&self, key: &[u8]) -> Option<bool> {
        let touched = self.rows.get(key)?;
        Some(touched.is_none() && !self.emptied && !self.spoiled)
    }

    pub(super) fn word(&self, key: &[u8], row: Tuple<'_>) -> Option<Word> {
        Some(match self.rows.get(key)? {
            _ if self.emptied || self.spoiled => Word::Not,
            None => Word::Row,
            Some(Touched::Partly(newer)) => Word::Filled(filled(newer.tuple(), row)),
            Some(Touched::Whole | Touched::Moved) => Word::Not,
        })
    }
}

/// What is known of transactions that were open when the job began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Waits {
    /// Nobody has looked yet.
    Unknown,
    /// These have neither ended nor been published.
    For(BTreeSet<u64>),
}

/// On what terms a table is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Only rows for which this is true.
    pub filter: Option<Filter>,
    /// Somebody has asked for it, whatever was read before.
    pub asked: bool,
    /// Nothing more of it is read until that is taken back.
    pub paused: bool,
    /// Only rows with these keys; and of those that are not there, that they are not.
    pub keys: Option<Keys>,
}

/// The job of one table.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) known: Known,
    pub(super) terms: Terms,
    /// Tables with a lower one are read first. Not in the checkpoint: it is configured.
    pub(super) rank: i32,
    /// The partitions to read; none for all there are.
    pub(super) only: BTreeSet<RelationId>,
    pub(super) waits: Waits,
    /// The transactions that were open when the job began.
    pub(super) first: BTreeSet<u64>,
    /// What its columns were when it was measured.
    pub(super) shape: u64,
    /// Where the primary's log was when the table was measured. Whoever was waited for had ended
    /// by then; a replica that has not come so far may not have them.
    pub(super) floor: Lsn,
    /// None until the table is measured.
    pub(super) left: Option<Vec<Span>>,
    pub(super) again: BTreeSet<Key>,
    again_bytes: usize,
    /// Keys that were to be read again, and that consumers have whole since: what leaves out their
    /// values after that leaves out nothing that they do not have. Else a row that is updated all
    /// the time would be read again for ever.
    whole: HashSet<Key>,
    whole_bytes: usize,
    pub(super) hands: BTreeMap<ChunkId, Hand>,
    /// What was touched while some of them are being read.
    recent: Recent,
    /// Its rows have no key, so that nothing can be held against the stream row by row.
    pub(super) keyless: bool,
    /// What was visible when all of it was read, and the position that bounds it.
    pub(super) seen: Option<(Seen, Lsn)>,
    /// Where its rows were, until the stream is past that position.
    pub(super) unsaid: Vec<Span>,
    /// Rows released so far.
    pub(super) rows: u64,
    /// What says that it has come to its end, on its way.
    pub(super) closing: Option<Ticket>,
}

impl Job {
    pub(super) fn new(known: Known, only: BTreeSet<RelationId>) -> Self {
        Self {
            known,
            terms: Terms::default(),
            rank: 0,
            only,
            waits: Waits::Unknown,
            first: BTreeSet::new(),
            shape: 0,
            floor: Lsn::ZERO,
            left: None,
            again: BTreeSet::new(),
            again_bytes: 0,
            whole: HashSet::new(),
            whole_bytes: 0,
            hands: BTreeMap::new(),
            recent: Recent::default(),
            keyless: false,
            seen: None,
            unsaid: Vec::new(),
            rows: 0,
            closing: None,
        }
    }

    /// Everything is to be read again. Chunks in hand come to nothing; rows on their way arrive,
    /// and do no harm.
    pub(super) fn start_over(&mut self) {
        self.left = None;
        self.again.clear();
        self.again_bytes = 0;
        self.whole.clear();
        self.whole_bytes = 0;
        self.hands.clear();
        self.recent.tidy(None);
        self.seen = None;
        self.closing = None;
    }

    /// Whether only rows are read that somebody has named.
    pub(super) const fn mends(&self) -> bool {
        self.terms.keys.is_some()
    }

    /// What is to be read is known.
    pub(super) fn measured(&mut self, shape: u64, at: Lsn, spans: Vec<Span>) {
        (self.shape, self.floor, self.left) = (shape, at, Some(spans));
        if let Some(keys) = self.terms.keys.clone() {
            self.left = Some(Vec::new());
            keys.rows.into_iter().for_each(|key| self.read_again(key));
        }
    }

    pub(super) fn may_be_read(&self) -> bool {
        self.left.is_some() && matches!(&self.waits, Waits::For(open) if open.is_empty())
    }

    pub(super) fn is_done(&self) -> bool {
        let nothing_left = self.left.as_ref().is_some_and(Vec::is_empty);
        let told_apart = self.seen.is_none();
        nothing_left && told_apart && self.again.is_empty() && self.hands.is_empty()
    }

    /// The next part: keys once there are enough of them, or nothing else.
    pub(super) fn next(&mut self, blocks: u32) -> Option<Part> {
        if !self.may_be_read() || self.keyless || self.terms.paused {
            return None;
        }
        let left = self.left.as_mut()?;
        if self.again.len() < KEYS_A_CHUNK
            && let Some(span) = left.pop()
        {
            let (piece, rest) = span.split(blocks);
            left.extend(rest);
            return Some(Part::Span(piece));
        }
        let mut keys = Vec::new();
        while keys.len() < KEYS_A_CHUNK
            && let Some(key) = self.again.pop_first()
        {
            self.again_bytes = self.again_bytes.saturating_sub(key.len());
            keys.push(key);
        }
        (!keys.is_empty()).then_some(Part::Keys(keys))
    }

    /// All of it, where it has no key.
    pub(super) fn all(&mut self) -> Option<Part> {
        let may = self.keyless && self.may_be_read() && self.hands.is_empty() && !self.terms.paused;
        let left = self.left.as_mut().filter(|left| may && !left.is_empty())?;
        Some(Part::All(std::mem::take(left)))
    }

    /// A part is to be read after all.
    pub(super) fn put_back(&mut self, part: Part) {
        match part {
            Part::Span(span) => {
                if let Some(left) = &mut self.left {
                    left.push(span);
                }
            }
            Part::All(spans) => {
                if let Some(left) = &mut self.left {
                    left.extend(spans);
                }
            }
            Part::Keys(keys) => keys.into_iter().for_each(|key| self.read_again(key)),
        }
    }

    pub(super) fn register(&mut self, chunk: ChunkId, part: Part) {
        self.hands.insert(chunk, Hand::new(part, self.recent.number()));
    }

    /// A chunk has been read, and has rows with these keys.
    pub(super) fn held<'k>(
        &mut self,
        chunk: ChunkId,
        bound: Lsn,
        rest: Option<Span>,
        keys: impl Iterator<Item = &'k [u8]>,
    ) -> bool {
        let Some(hand) = self.hands.get_mut(&chunk) else { return false };
        hand.stage = Stage::Held(bound);
        let since = hand.since;
        hand.rows = keys.map(|key| (key.into(), self.recent.since(since, key))).collect();
        if let (Part::Span(span), Some(rest)) = (&mut hand.part, rest) {
            span.to = rest.from;
            self.put_back(Part::Span(rest));
        }
        self.tidy();
        true
    }

    pub(super) fn abandon(&mut self, chunk: ChunkId) {
        if let Some(hand) = self.hands.remove(&chunk) {
            self.put_back(hand.part);
            hand.whole.into_iter().for_each(|key| self.read_again(key));
            self.tidy();
        }
    }

    fn tidy(&mut self) {
        let reading = self.hands.values().filter(|hand| hand.is_reading());
        self.recent.tidy(reading.map(|hand| hand.since).min());
    }

    /// What is published says something of a row. `row` is its key as one asks for it.
    pub(super) fn touch(
        &mut self,
        key: &[u8],
        touch: Touch<'_>,
        row: impl FnOnce() -> Option<Key>,
    ) -> bool {
        let (mut whole, mut reading) = (false, false);
        for hand in self.hands.values_mut() {
            match hand.stage {
                Stage::Reading => reading = true,
                Stage::Held(_) => {
                    if let Some(touched) = hand.rows.get_mut(key) {
                        whole |= Touched::enter(touched, touch);
                    }
                }
                Stage::Released(_) => {}
            }
        }
        if reading {
            whole |= self.recent.touch(key, touch);
            if self.recent.is_too_large() {
                let reading = self.hands.values_mut().filter(|hand| hand.is_reading());
                reading.for_each(|hand| hand.spoiled = true);
                self.recent.tidy(None);
            }
        }
        let row = match touch {
            Touch::Whole if self.again.is_empty() || self.mends() => return false,
            // Consumers have had the values since the chunk was registered.
            Touch::Partly(_) if whole => return false,
            // What is read by its key is found wherever its row has gone.
            Touch::Partly(_) if self.mends() => return false,
            _ => row(),
        };
        match (touch, row) {
            (Touch::Whole, row) => return row.is_some_and(|key| self.take_again(&key)),
            (Touch::Partly(_), Some(key)) if self.whole.contains(&key) => return false,
            (_, Some(key)) => {
                self.whole.remove(&key);
                self.read_again(key);
            }
            // Its key was left out as well.
            (_, None) => self.start_over(),
        }
        true
    }

    /// A row of a chunk is released: it need not be read again, once it has arrived.
    pub(super) fn releases(&mut self, chunk: ChunkId, row: impl FnOnce() -> Option<Key>) {
        let hand = self.hands.get(&chunk);
        let was_asked_for = hand.is_some_and(|hand| matches!(hand.part, Part::Keys(_)));
        if self.again.is_empty() && !was_asked_for {
            return;
        }
        let Some(key) = row() else { return };
        let again = self.take_again(&key);
        if was_asked_for {
            self.remember_whole(key);
        } else if again && let Some(hand) = self.hands.get_mut(&chunk) {
            hand.whole.push(key);
        }
    }

    fn take_again(&mut self, key: &Key) -> bool {
        let was_there = self.again.remove(key);
        if was_there {
            self.again_bytes = self.again_bytes.saturating_sub(key.len());
            self.remember_whole(key.clone());
        }
        was_there
    }

    fn remember_whole(&mut self, key: Key) {
        if self.whole.contains(&key) {
            return;
        }
        self.whole_bytes += key.len() + 48;
        if self.whole_bytes > MAX_WHOLE_BYTES {
            self.whole.clear();
            self.whole_bytes = key.len() + 48;
        }
        self.whole.insert(key);
    }

    pub(super) fn truncate(&mut self) {
        for hand in self.hands.values_mut().filter(|hand| hand.is_open()) {
            hand.emptied = true;
        }
    }

    /// A key whose row was not sent whole. Before the table is measured nothing of it has been
    /// read, so it is read later anyway; when it has been read whole, consumers have the row.
    pub(super) fn read_again(&mut self, key: Key) {
        if self.left.is_none() || self.closing.is_some() {
            return;
        }
        let bytes = key.len();
        if self.again.insert(key) {
            self.again_bytes += bytes;
        }
        if self.again_bytes > MAX_AGAIN_BYTES {
            self.start_over();
        }
    }

    /// All that must be read if everything in hand comes to nothing.
    pub(super) fn spans_left(&self) -> Option<Vec<Span>> {
        let in_hand = self.hands.values().flat_map(|hand| match &hand.part {
            Part::Span(span) => std::slice::from_ref(span),
            Part::All(spans) => spans,
            Part::Keys(_) => &[],
        });
        // Nobody can tell any more what of the stream was in the rows that were read: all of them
        // are read again, by a life that finds it so.
        let unsaid = self.seen.iter().flat_map(|_| &self.unsaid);
        let left = self.left.as_ref()?.iter();
        Some(left.chain(in_hand).chain(unsaid).copied().collect())
    }

    /// The same for keys.
    pub(super) fn keys_left(&self) -> BTreeSet<&Key> {
        let in_hand = self.hands.values().flat_map(|hand| match &hand.part {
            Part::Keys(keys) => keys.as_slice(),
            Part::Span(_) | Part::All(_) => &[],
        });
        let on_their_way = self.hands.values().flat_map(|hand| &hand.whole);
        self.again.iter().chain(in_hand).chain(on_their_way).collect()
    }
}

/// Transactions that were published and that no snapshot has shown yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Unsettled(pub(super) BTreeSet<u64>);

impl Unsettled {
    pub(super) fn settle(&mut self, seen: &Seen) {
        self.0.retain(|xid| !seen.shows(*xid));
    }
}
