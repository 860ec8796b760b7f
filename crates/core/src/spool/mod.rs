//! The books of transactions that the server sends before they are committed.
//!
//! Which are open, how much is kept of each, and which parts of them were rolled back. What is
//! kept lies elsewhere; its form is in [`batch`].

pub mod batch;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::pgoutput::{PgTimestamp, Xid};

/// Open transactions at a time, far above what a server has sessions for: each is an entry here and
/// a file.
pub const MAX_OPEN: usize = 1 << 14;

/// Subtransactions that were rolled back, of all open transactions: some ten bytes each.
pub const MAX_ROLLED_BACK: usize = 1 << 19;

/// The stream of open transactions contradicts itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disorder {
    /// A transaction goes on that never began.
    Unknown(Xid),
    /// A transaction begins that is open already.
    Again(Xid),
    /// A change that is in no block of a transaction.
    Outside,
}

impl fmt::Display for Disorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(xid) => write!(f, "open transaction {} goes on and never began", xid.0),
            Self::Again(xid) => write!(f, "open transaction {} begins twice", xid.0),
            Self::Outside => f.write_str("a change of an open transaction is in no block of one"),
        }
    }
}

impl std::error::Error for Disorder {}

/// There is more than may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outgrown {
    /// More bytes.
    Bytes,
    /// More open transactions.
    Transactions,
    /// More subtransactions that were rolled back.
    RolledBack,
}

/// What is known of an open transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// What is kept of it.
    pub bytes: u64,
    /// When the server sent the first of it.
    pub since: PgTimestamp,
    /// The subtransactions of it that are rolled back: what is kept of them is void.
    pub rolled_back: BTreeSet<Xid>,
}

/// What an abort ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aborted {
    /// The transaction: nothing of it is needed any more.
    Whole,
    /// A subtransaction of it.
    Part,
    /// Nothing of it was ever sent.
    Nothing,
}

/// All open transactions of a connection.
#[derive(Debug)]
pub struct Books {
    limit: u64,
    /// Kept of all, including those that are being published.
    bytes: u64,
    rolled_back: usize,
    open: BTreeMap<Xid, Open>,
    block: Option<Xid>,
}

impl Books {
    /// For a connection on which nothing has been sent yet, and so many bytes at most.
    #[must_use]
    pub const fn new(limit: u64) -> Self {
        Self { limit, bytes: 0, rolled_back: 0, open: BTreeMap::new(), block: None }
    }

    /// A block of a transaction starts.
    ///
    /// # Errors
    /// Where it does not fit what came before.
    pub fn start(&mut self, xid: Xid, first: bool, at: PgTimestamp) -> Result<(), Disorder> {
        match (self.open.contains_key(&xid), first) {
            (true, true) => return Err(Disorder::Again(xid)),
            (false, false) => return Err(Disorder::Unknown(xid)),
            (true, false) => {}
            (false, true) => {
                let rolled_back = BTreeSet::new();
                self.open.insert(xid, Open { bytes: 0, since: at, rolled_back });
            }
        }
        self.block = Some(xid);
        Ok(())
    }

    /// The block ends.
    pub const fn stop(&mut self) {
        self.block = None;
    }

    /// The transaction whose block is being read, and where in its file its next bytes stand.
    ///
    /// # Errors
    /// Where there is none.
    pub fn place(&self) -> Result<(Xid, u64), Disorder> {
        let xid = self.block.ok_or(Disorder::Outside)?;
        let open = self.open.get(&xid).ok_or(Disorder::Unknown(xid))?;
        Ok((xid, open.bytes))
    }

    /// Whether so many bytes more may be kept.
    ///
    /// # Errors
    /// Where they may not.
    pub fn make_room(&self, bytes: u64) -> Result<(), Outgrown> {
        let total = self.bytes.saturating_add(bytes);
        if total > self.limit {
            return Err(Outgrown::Bytes);
        }
        if self.open.len() > MAX_OPEN {
            return Err(Outgrown::Transactions);
        }
        if self.rolled_back > MAX_ROLLED_BACK {
            return Err(Outgrown::RolledBack);
        }
        Ok(())
    }

    /// So many bytes more are kept of the transaction whose block is being read.
    pub fn kept(&mut self, bytes: u64) {
        if let Some(open) = self.block.and_then(|xid| self.open.get_mut(&xid)) {
            open.bytes += bytes;
            self.bytes += bytes;
        }
    }

    /// A transaction is rolled back, or a part of it.
    pub fn abort(&mut self, xid: Xid, part: Xid) -> Aborted {
        if xid == part {
            return match self.open.remove(&xid) {
                Some(gone) => {
                    self.rolled_back -= gone.rolled_back.len();
                    self.bytes -= gone.bytes;
                    Aborted::Whole
                }
                None => Aborted::Nothing,
            };
        }
        match self.open.get_mut(&xid) {
            Some(open) => {
                self.rolled_back += usize::from(open.rolled_back.insert(part));
                Aborted::Part
            }
            None => Aborted::Nothing,
        }
    }

    /// A transaction is committed. What is kept of it counts until [`Books::release`].
    ///
    /// # Errors
    /// Where it never began: its changes are not here.
    pub fn commit(&mut self, xid: Xid) -> Result<Open, Disorder> {
        let open = self.open.remove(&xid).ok_or(Disorder::Unknown(xid))?;
        self.rolled_back -= open.rolled_back.len();
        Ok(open)
    }

    /// What was kept of a transaction is there no more.
    pub const fn release(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// What is kept of all.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The open transactions.
    pub fn open(&self) -> impl Iterator<Item = (Xid, &Open)> {
        self.open.iter().map(|(xid, open)| (*xid, open))
    }

    /// How many are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether none is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// When the server sent the first of the oldest.
    #[must_use]
    pub fn oldest(&self) -> Option<PgTimestamp> {
        self.open.values().map(|open| open.since).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Xid = Xid(700);
    const B: Xid = Xid(800);
    const NOON: PgTimestamp = PgTimestamp(0);

    fn block(books: &mut Books, xid: Xid, first: bool, bytes: u64) {
        books.start(xid, first, NOON).unwrap();
        books.make_room(bytes).unwrap();
        books.kept(bytes);
        books.stop();
    }

    #[test]
    fn interleaved_transactions_are_kept_apart() {
        let mut books = Books::new(100);
        block(&mut books, A, true, 10);
        block(&mut books, B, true, 20);
        block(&mut books, A, false, 30);
        books.start(A, false, NOON).unwrap();
        assert_eq!(books.place(), Ok((A, 40)));
        books.stop();
        assert_eq!((books.bytes(), books.len()), (60, 2));
        assert_eq!(books.commit(B).unwrap().bytes, 20);
        assert_eq!(books.bytes(), 60, "it counts while it is published");
        books.release(20);
        assert_eq!((books.bytes(), books.len()), (40, 1));
    }

    #[test]
    fn an_abort_of_a_part_voids_that_part_alone() {
        let mut books = Books::new(100);
        block(&mut books, A, true, 10);
        block(&mut books, B, true, 5);
        assert_eq!(books.abort(A, Xid(701)), Aborted::Part);
        assert_eq!(books.abort(B, B), Aborted::Whole);
        assert_eq!(books.abort(B, B), Aborted::Nothing);
        assert_eq!(books.bytes(), 10);
        assert_eq!(books.commit(A).unwrap().rolled_back, BTreeSet::from([Xid(701)]));
        // The id may come again in the next age of transactions.
        block(&mut books, A, true, 1);
        assert_eq!(books.commit(A).unwrap().rolled_back, BTreeSet::new());
    }

    #[test]
    fn more_than_may_be_kept_is_said_before_it_is() {
        let mut books = Books::new(100);
        block(&mut books, A, true, 90);
        books.start(B, true, NOON).unwrap();
        assert_eq!(books.make_room(10), Ok(()));
        assert_eq!(books.make_room(11), Err(Outgrown::Bytes));
        assert_eq!(books.make_room(u64::MAX), Err(Outgrown::Bytes));
        books.stop();
        for part in 0..=u32::try_from(MAX_ROLLED_BACK).unwrap() {
            assert_eq!(books.make_room(1), Ok(()));
            books.abort(A, Xid(1_000 + part));
        }
        assert_eq!(books.make_room(1), Err(Outgrown::RolledBack));
        books.abort(A, A);
        assert_eq!(books.make_room(1), Ok(()));
        for xid in 0..=u32::try_from(MAX_OPEN).unwrap() {
            books.start(Xid(1_000_000 + xid), true, NOON).unwrap();
        }
        assert_eq!(books.make_room(1), Err(Outgrown::Transactions));
    }

    #[test]
    fn a_stream_of_open_transactions_that_contradicts_itself_is_refused() {
        let mut books = Books::new(100);
        assert_eq!(books.start(A, false, NOON), Err(Disorder::Unknown(A)));
        assert_eq!(books.commit(A), Err(Disorder::Unknown(A)));
        assert_eq!(books.place(), Err(Disorder::Outside));
        block(&mut books, A, true, 1);
        assert_eq!(books.start(A, true, NOON), Err(Disorder::Again(A)));
        assert_eq!(books.place(), Err(Disorder::Outside));
    }

    #[test]
    fn the_oldest_is_the_one_whose_first_block_came_first() {
        let mut books = Books::new(100);
        assert_eq!(books.oldest(), None);
        books.start(B, true, PgTimestamp(5)).unwrap();
        books.start(A, true, PgTimestamp(7)).unwrap();
        books.start(B, false, PgTimestamp(9)).unwrap();
        assert_eq!(books.oldest(), Some(PgTimestamp(5)));
        books.abort(B, B);
        assert_eq!(books.oldest(), Some(PgTimestamp(7)));
    }
}
