//! Tickets in, one durable position out.
//!
//! Every transaction that makes records takes a ticket. Records of different partitions are
//! delivered in any order, so transactions finish in any order; but only a prefix of the log can
//! be confirmed to the server. The watermark is the end of the longest prefix of transactions of
//! which every record was acknowledged, and no other code makes a [`DurableLsn`] from it.
//!
//! Positions between transactions count too: while no transaction is open, what the server says
//! it has sent (a keepalive, a transaction without records) lies behind all we were given, so it
//! moves the end of the last ticket, or the durable position itself when nothing is in flight.
//! That is how an idle database lets go of its log.

use std::collections::VecDeque;

use crate::lsn::{CommitLsn, DurableLsn, EndLsn, Lsn};
use crate::pgoutput::PgTimestamp;

/// A transaction's place in the order of commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Deliveries that do not fit what was produced: the books are wrong, so nothing they say counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unaccounted(pub Ticket);

#[derive(Clone, Copy, Debug)]
struct Entry {
    outstanding: u64,
    /// `None` while the transaction is open.
    end: Option<Lsn>,
    /// `None` for a message that belongs to no transaction.
    commit_lsn: Option<CommitLsn>,
    commit_time: PgTimestamp,
}

/// The books of what is in flight.
#[derive(Debug)]
pub struct Watermark {
    /// The ticket of `entries.front()`.
    first: u64,
    entries: VecDeque<Entry>,
    durable: Lsn,
    last: Option<CommitLsn>,
    /// The end of what was handed over whole, and the last transaction of it.
    handed: Lsn,
    last_handed: Option<CommitLsn>,
}

impl Watermark {
    /// Books that start where everything before is durable already.
    #[must_use]
    pub fn new(start: DurableLsn) -> Self {
        let durable = start.lsn();
        let (entries, last, last_handed) = (VecDeque::new(), None, None);
        Self { first: 0, entries, durable, last, handed: durable, last_handed }
    }

    /// A transaction starts; at most one is open at a time, for commits come one after another.
    pub fn begin(&mut self, commit_lsn: CommitLsn, commit_time: PgTimestamp) -> Ticket {
        self.open(Some(commit_lsn), commit_time)
    }

    /// A message that belongs to no transaction comes; it is open as a transaction is.
    pub fn begin_alone(&mut self, sent_at: PgTimestamp) -> Ticket {
        self.open(None, sent_at)
    }

    fn open(&mut self, commit_lsn: Option<CommitLsn>, commit_time: PgTimestamp) -> Ticket {
        let ticket = Ticket(self.first + self.entries.len() as u64);
        self.entries.push_back(Entry { outstanding: 0, end: None, commit_lsn, commit_time });
        ticket
    }

    /// A record of the open transaction was handed to the sink.
    pub fn produced(&mut self) {
        if let Some(entry) = self.entries.back_mut() {
            entry.outstanding += 1;
        }
    }

    /// The open transaction ended there.
    pub fn commit(&mut self, end: EndLsn) {
        if let Some(entry) = self.entries.back_mut() {
            entry.end = Some(end.0);
            self.handed = self.handed.max(end.0);
            self.last_handed = entry.commit_lsn.or(self.last_handed);
        }
        self.advance();
    }

    /// Whether a transaction is open.
    #[must_use]
    pub fn in_transaction(&self) -> bool {
        self.entries.back().is_some_and(|entry| entry.end.is_none())
    }

    /// All the server has sent lies before this position. Without effect inside a transaction.
    pub fn passed(&mut self, lsn: Lsn) {
        if self.in_transaction() {
            return;
        }
        self.handed = self.handed.max(lsn);
        match self.entries.back_mut() {
            Some(last) => last.end = last.end.max(Some(lsn)),
            None => self.durable = self.durable.max(lsn),
        }
    }

    /// The sink acknowledged some of a ticket's records.
    ///
    /// # Errors
    /// [`Unaccounted`] where more is acknowledged than was produced.
    pub fn delivered(&mut self, ticket: Ticket, count: u64) -> Result<(), Unaccounted> {
        let entry = ticket
            .0
            .checked_sub(self.first)
            .and_then(|index| usize::try_from(index).ok())
            .and_then(|index| self.entries.get_mut(index))
            .ok_or(Unaccounted(ticket))?;
        entry.outstanding = entry.outstanding.checked_sub(count).ok_or(Unaccounted(ticket))?;
        self.advance();
        Ok(())
    }

    /// When a transaction in flight was committed.
    #[must_use]
    pub fn commit_time(&self, ticket: Ticket) -> Option<PgTimestamp> {
        let index = usize::try_from(ticket.0.checked_sub(self.first)?).ok()?;
        self.entries.get(index).map(|entry| entry.commit_time)
    }

    /// Everything before this position is delivered.
    #[must_use]
    pub fn durable(&self) -> DurableLsn {
        DurableLsn::proven(self.durable)
    }

    /// Everything before this position was handed to the sink, and the last transaction of that.
    /// It is durable only once all of that is.
    #[must_use]
    pub fn handed_over(&self) -> (EndLsn, Option<CommitLsn>) {
        (EndLsn(self.handed), self.last_handed)
    }

    /// The last transaction of which everything is delivered; none before the first one here.
    #[must_use]
    pub fn last_durable(&self) -> Option<CommitLsn> {
        self.last
    }

    /// Whether everything up to this ticket's end is delivered.
    #[must_use]
    pub fn is_delivered(&self, ticket: Ticket) -> bool {
        ticket.0 < self.first
    }

    /// Transactions that are open or wait for a delivery.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.entries.len()
    }

    /// When the oldest transaction in flight was committed.
    #[must_use]
    pub fn oldest_commit(&self) -> Option<PgTimestamp> {
        self.entries.front().map(|entry| entry.commit_time)
    }

    fn advance(&mut self) {
        while let Some(Entry { outstanding: 0, end: Some(end), commit_lsn, .. }) =
            self.entries.front()
        {
            self.last = commit_lsn.or(self.last);
            self.durable = self.durable.max(*end);
            self.entries.pop_front();
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: CommitLsn = CommitLsn(Lsn(1));
    const NOON: PgTimestamp = PgTimestamp(0);

    fn at(lsn: u64) -> Watermark {
        Watermark::new(DurableLsn::proven(Lsn(lsn)))
    }

    fn transaction(books: &mut Watermark, records: u64, end: u64) -> Ticket {
        let ticket = books.begin(COMMIT, NOON);
        for _ in 0..records {
            books.produced();
        }
        books.commit(EndLsn(Lsn(end)));
        ticket
    }

    #[test]
    fn a_transaction_is_durable_only_when_each_of_its_records_is() {
        let mut books = at(10);
        let ticket = transaction(&mut books, 3, 20);
        books.delivered(ticket, 2).unwrap();
        assert_eq!(books.durable().lsn(), Lsn(10));
        books.delivered(ticket, 1).unwrap();
        assert_eq!(books.durable().lsn(), Lsn(20));
    }

    #[test]
    fn a_later_transaction_waits_for_an_earlier_one() {
        let mut books = at(0);
        let first = transaction(&mut books, 1, 20);
        let second = transaction(&mut books, 1, 30);
        books.delivered(second, 1).unwrap();
        assert_eq!(books.durable().lsn(), Lsn(0));
        books.delivered(first, 1).unwrap();
        assert_eq!(books.durable().lsn(), Lsn(30));
    }

    #[test]
    fn an_open_transaction_is_not_durable_even_when_all_it_sent_arrived() {
        let mut books = at(5);
        let ticket = books.begin(COMMIT, NOON);
        books.produced();
        books.delivered(ticket, 1).unwrap();
        assert_eq!(books.durable().lsn(), Lsn(5));
        books.commit(EndLsn(Lsn(9)));
        assert_eq!(books.durable().lsn(), Lsn(9));
    }

    #[test]
    fn an_idle_position_is_durable_only_when_nothing_is_in_flight() {
        let mut books = at(0);
        books.passed(Lsn(7));
        assert_eq!(books.durable().lsn(), Lsn(7));
        let ticket = transaction(&mut books, 1, 20);
        books.passed(Lsn(40));
        assert_eq!(books.durable().lsn(), Lsn(7));
        books.delivered(ticket, 1).unwrap();
        assert_eq!(books.durable().lsn(), Lsn(40), "the keepalive came after the commit");
    }

    #[test]
    fn a_keepalive_inside_a_transaction_says_nothing() {
        let mut books = at(0);
        let ticket = books.begin(COMMIT, NOON);
        books.produced();
        books.passed(Lsn(99));
        books.commit(EndLsn(Lsn(20)));
        books.delivered(ticket, 1).unwrap();
        assert_eq!(books.durable().lsn(), Lsn(20));
    }

    #[test]
    fn the_position_never_goes_back() {
        let mut books = at(50);
        transaction(&mut books, 0, 20);
        books.passed(Lsn(30));
        assert_eq!(books.durable().lsn(), Lsn(50));
    }

    #[test]
    fn an_acknowledgement_nobody_waits_for_is_an_error() {
        let mut books = at(0);
        let ticket = transaction(&mut books, 1, 20);
        assert_eq!(books.delivered(ticket, 2), Err(Unaccounted(ticket)));
        books.delivered(ticket, 1).unwrap();
        assert_eq!(books.delivered(ticket, 1), Err(Unaccounted(ticket)));
        assert_eq!(books.delivered(Ticket(9), 1), Err(Unaccounted(Ticket(9))));
    }

    /// Deliveries in random order against the definition itself: the end of the longest prefix.
    #[test]
    fn any_order_of_deliveries_gives_the_longest_delivered_prefix() {
        let seed: u64 = std::option_env!("WALTIDE_SEED").and_then(|s| s.parse().ok()).unwrap_or(42);
        let mut random = seed;
        let mut next = |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        for schedule in 0..2_000 {
            let mut books = at(0);
            let mut left: Vec<(Ticket, u64, u64)> = Vec::new();
            for step in 0..60 {
                if next(2) == 0 {
                    let (records, end) = (next(4), (step + 1) * 10);
                    left.push((transaction(&mut books, records, end), records, end));
                } else if !left.is_empty() {
                    let index = usize::try_from(next(left.len() as u64)).unwrap();
                    if left[index].1 > 0 {
                        books.delivered(left[index].0, 1).unwrap();
                        left[index].1 -= 1;
                    }
                }
                let prefix = left.iter().take_while(|(_, open, _)| *open == 0).last();
                let expected = prefix.map_or(0, |(_, _, end)| *end);
                assert_eq!(
                    books.durable().lsn(),
                    Lsn(expected),
                    "seed {seed}, schedule {schedule}"
                );
            }
        }
    }
}
