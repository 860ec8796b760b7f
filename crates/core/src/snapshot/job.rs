//! The job of reading one table: what is left of it, and the chunks in hand.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::{Known, Seen, Sight, Span};
use crate::lsn::Lsn;
use crate::pgoutput::RelationId;
use crate::watermark::Ticket;

/// What a window may take of memory. One that outgrows it is given up, and its chunk read again.
pub(super) const MAX_TOUCHED_BYTES: usize = 4 << 20;

/// What the keys to read again may take. With more than these the table starts over: they are in
/// every checkpoint.
pub(super) const MAX_AGAIN_BYTES: usize = 256 << 10;

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

/// A chunk in hand.
#[derive(Clone, Debug)]
pub(super) struct Hand {
    pub(super) part: Part,
    pub(super) stage: Stage,
    touched: Touched,
}

/// Keys that what is published has touched since a chunk was registered.
#[derive(Clone, Debug)]
enum Touched {
    Keys {
        keys: HashSet<Box<[u8]>>,
        bytes: usize,
    },
    All,
    /// More than is remembered.
    TooMany,
}

impl Hand {
    pub(super) fn new(part: Part) -> Self {
        let touched = Touched::Keys { keys: HashSet::new(), bytes: 0 };
        Self { part, stage: Stage::Reading, touched }
    }

    const fn is_open(&self) -> bool {
        !matches!(self.stage, Stage::Released(_))
    }

    pub(super) const fn is_spoiled(&self) -> bool {
        self.is_open() && matches!(self.touched, Touched::TooMany)
    }

    fn touch(&mut self, key: &[u8]) {
        let Touched::Keys { keys, bytes } = &mut self.touched else { return };
        if !keys.contains(key) {
            // The key, its pointer and its place in the table.
            *bytes += key.len() + 32;
            keys.insert(key.into());
            if *bytes > MAX_TOUCHED_BYTES {
                self.touched = Touched::TooMany;
            }
        }
    }

    /// Its rows are on their way; what touches a key from now on comes after them.
    pub(super) fn release(&mut self, ticket: Ticket) {
        *self = Self { stage: Stage::Released(ticket), ..Self::new(self.part.clone()) };
    }

    pub(super) fn keeps(&self, key: &[u8]) -> bool {
        match &self.touched {
            Touched::Keys { keys, .. } => !keys.contains(key),
            Touched::All | Touched::TooMany => false,
        }
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

/// The job of one table.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) known: Known,
    /// The partitions to read; none for all there are.
    pub(super) only: BTreeSet<RelationId>,
    pub(super) waits: Waits,
    /// What its columns were when it was measured.
    pub(super) shape: u64,
    /// Where the primary's log was when the table was measured. Whoever was waited for had ended
    /// by then; a replica that has not come so far may not have them.
    pub(super) floor: Lsn,
    /// None until the table is measured.
    pub(super) left: Option<Vec<Span>>,
    pub(super) again: BTreeSet<Key>,
    again_bytes: usize,
    pub(super) hands: BTreeMap<ChunkId, Hand>,
    /// Rows released so far.
    pub(super) rows: u64,
    /// What says that it has come to its end, on its way.
    pub(super) closing: Option<Ticket>,
}

impl Job {
    pub(super) const fn new(known: Known, only: BTreeSet<RelationId>) -> Self {
        Self {
            known,
            only,
            waits: Waits::Unknown,
            shape: 0,
            floor: Lsn::ZERO,
            left: None,
            again: BTreeSet::new(),
            again_bytes: 0,
            hands: BTreeMap::new(),
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
        self.hands.clear();
        self.closing = None;
    }

    pub(super) fn may_be_read(&self) -> bool {
        self.left.is_some() && matches!(&self.waits, Waits::For(open) if open.is_empty())
    }

    pub(super) fn is_done(&self) -> bool {
        let nothing_left = self.left.as_ref().is_some_and(Vec::is_empty);
        nothing_left && self.again.is_empty() && self.hands.is_empty()
    }

    /// The next part: keys once there are enough of them, or nothing else.
    pub(super) fn next(&mut self, blocks: u32) -> Option<Part> {
        if !self.may_be_read() {
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

    /// A part is to be read after all.
    pub(super) fn put_back(&mut self, part: Part) {
        match part {
            Part::Span(span) => {
                if let Some(left) = &mut self.left {
                    left.push(span);
                }
            }
            Part::Keys(keys) => keys.into_iter().for_each(|key| self.read_again(key)),
        }
    }

    pub(super) fn touch(&mut self, key: &[u8]) {
        for hand in self.hands.values_mut().filter(|hand| hand.is_open()) {
            hand.touch(key);
        }
    }

    pub(super) fn truncate(&mut self) {
        for hand in self.hands.values_mut().filter(|hand| hand.is_open()) {
            hand.touched = Touched::All;
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
        let in_hand = self.hands.values().filter_map(|hand| match &hand.part {
            Part::Span(span) => Some(*span),
            Part::Keys(_) => None,
        });
        self.left.as_ref().map(|left| left.iter().copied().chain(in_hand).collect())
    }

    /// The same for keys.
    pub(super) fn keys_left(&self) -> BTreeSet<&Key> {
        let in_hand = self.hands.values().flat_map(|hand| match &hand.part {
            Part::Keys(keys) => keys.as_slice(),
            Part::Span(_) => &[],
        });
        self.again.iter().chain(in_hand).collect()
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
