//! What people ask of snapshots: a table once more, a pause, an end.

use std::collections::BTreeSet;

use super::job::{Job, Terms};
use super::{Book, Known};
use crate::pgoutput::RelationId;

impl Book {
    /// A table is to be read from the beginning, or only these of its partitions, on these terms.
    pub fn start_on(
        &mut self,
        table: RelationId,
        known: Known,
        only: BTreeSet<RelationId>,
        terms: Terms,
    ) {
        // Who is read by some keys is as well known as before.
        if terms.keys.is_none() {
            self.known.remove(&table);
        }
        let mut job = Job::new(known, only);
        job.terms = terms;
        self.jobs.insert(table, job);
        self.changed = true;
    }

    /// On what terms a table is being read.
    #[must_use]
    pub fn terms(&self, table: RelationId) -> Option<&Terms> {
        self.jobs.get(&table).map(|job| &job.terms)
    }

    /// Tables with a lower rank are read first.
    pub fn set_rank(&mut self, table: RelationId, rank: i32) {
        if let Some(job) = self.jobs.get_mut(&table) {
            job.rank = rank;
        }
    }

    /// A table's rank.
    #[must_use]
    pub fn rank(&self, table: RelationId) -> i32 {
        self.jobs.get(&table).map_or(0, |job| job.rank)
    }

    /// Nothing more of a table is read until that is taken back; what is in hand goes on. False
    /// where it is not being read.
    pub fn set_paused(&mut self, table: RelationId, paused: bool) -> bool {
        let Some(job) = self.jobs.get_mut(&table) else { return false };
        self.changed |= job.terms.paused != paused;
        job.terms.paused = paused;
        true
    }

    /// A table is not read to its end, and taken as read. False where nothing of it is left to be
    /// read: one without a key must then stay until the stream is past what was seen of it.
    pub fn cancel(&mut self, table: RelationId) -> bool {
        let Some(job) = self.jobs.get(&table) else { return false };
        if job.seen.is_some() || job.closing.is_some() {
            return false;
        }
        let known = job.known.clone();
        self.take_as_read(table, known);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Part, Seen, Span};
    use super::*;
    use crate::lsn::Lsn;
    use crate::watermark::Ticket;

    const FIRST: RelationId = RelationId(1);
    const SECOND: RelationId = RelationId(2);

    fn reading() -> Book {
        let mut book = Book::default();
        for table in [FIRST, SECOND] {
            book.start(table, Known { fingerprint: 7, ..Known::default() }, BTreeSet::new());
            book.open_now(&BTreeSet::new());
            book.measured(table, 0, Lsn(1), Span::whole(table, 3, 2).into_iter().collect());
        }
        book.boundary(Lsn(10));
        book
    }

    #[test]
    fn what_is_paused_is_not_registered_and_what_is_in_hand_goes_on() {
        let mut book = reading();
        let chunk = book.register(1, |_| true).expect("a chunk");
        assert_eq!(chunk.table, FIRST);
        assert!(book.set_paused(FIRST, true));
        assert!(book.holds(chunk.chunk));
        let tables: Vec<_> =
            std::iter::from_fn(|| book.register(1, |_| true)).map(|it| it.table).collect();
        assert_eq!(tables, [SECOND, SECOND]);
        assert!(book.set_paused(FIRST, false));
        assert_eq!(book.register(1, |_| true).map(|it| it.table), Some(FIRST));
        assert!(!book.set_paused(RelationId(3), true));
    }

    #[test]
    fn what_is_cancelled_is_taken_as_read_and_its_chunks_come_to_nothing() {
        let mut book = reading();
        let chunk = book.register(1, |_| true).expect("a chunk").chunk;
        book.take_changed();
        assert!(book.cancel(FIRST) && book.has_changed());
        assert!(!book.reads(FIRST) && !book.cancel(FIRST));
        assert_eq!(book.known(FIRST).map(|known| known.fingerprint), Some(7));
        assert!(!book.holds(chunk));
        assert!(!book.held(chunk, Lsn(1), None, std::iter::empty()));
    }

    #[test]
    fn a_table_without_a_key_that_has_been_read_is_not_cancelled() {
        let mut book = reading();
        book.set_keyless(FIRST, true);
        let chunk = book.register_all(FIRST).expect("all of it").chunk;
        let seen: Seen = "1:5:".parse().expect("a snapshot");
        book.released_all(chunk, (seen, Lsn(50)), Ticket(1), 7);
        assert!(!book.cancel(FIRST) && book.reads(FIRST), "the stream is not past what was seen");
    }

    #[test]
    fn tables_of_a_lower_rank_come_first() {
        let mut book = reading();
        book.set_rank(SECOND, -1);
        let order: Vec<_> = std::iter::from_fn(|| book.register(9, |_| true)).collect();
        let tables: Vec<_> =
            order.iter().map(|it| (it.table, matches!(it.part, Part::Span(_)))).collect();
        assert_eq!(tables, [(SECOND, true), (FIRST, true)]);
        // All of both arrives before anybody looks.
        for assignment in &order {
            assert!(book.held(assignment.chunk, Lsn(1), None, std::iter::empty()));
        }
        for (table, ticket) in [(SECOND, Ticket(1)), (FIRST, Ticket(2))] {
            let (of, chunk) = book.releasable().expect("a chunk");
            assert_eq!(of, table);
            book.released(chunk, ticket, 1);
        }
        assert!(book.delivered(|_| true).is_empty());
        assert_eq!(book.done(), Some((SECOND, 1)));
    }
}
