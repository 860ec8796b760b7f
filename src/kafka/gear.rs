// Hot path: `Gearbox::next` and `sent` run once a record.
//! Which of two producers takes a record: the quick one, or the one for bulk.
//!
//! librdkafka lets an idempotent partition have one request in flight. While records wait behind
//! it and have waited for `linger.ms`, its broker thread asks over and over whether it may go on,
//! with a whole core. With `linger.ms=0`, which a quiet stream needs, that is all the time of a
//! stream that is behind, and most of its cost. So there are two producers that differ in
//! `linger.ms` alone. They are changed only when nothing is on its way: what was handed over
//! before is acknowledged before what comes after is sent, and the order holds.

use std::time::{Duration, Instant};

/// A producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gear {
    /// A record leaves at once.
    Quick,
    /// Records are waited for, a few milliseconds.
    Bulk,
}

/// Records on their way at which the stream counts as behind: more than an ordinary transaction
/// has, and what a broker takes in a millisecond or two.
const BEHIND: u64 = 500;

/// Records on their way below which it has nearly caught up.
const FEW: u64 = 50;

/// So many records delivered one after another with few on their way: it has caught up. More than
/// few, or the tail of every batch would look like it.
const CALM: u64 = 200;

/// Nothing on its way for so long: it has caught up. Less may be a reader that had to wait for its
/// turn on a busy machine.
const REST: Duration = Duration::from_millis(10);

/// After many records that came at once, more such are likely for so long: parts of a table come one
/// after another, and a change of producers between them costs more than it saves.
const MORE: Duration = Duration::from_millis(200);

/// Follows what is on its way, and chooses.
#[derive(Debug)]
pub(super) struct Gearbox {
    engaged: Gear,
    wanted: Gear,
    on_the_way: u64,
    /// Delivered since there were more than few on their way.
    calm: u64,
    /// When the last record on its way arrived.
    resting_since: Instant,
    /// Until then it is not quick again.
    bulk_until: Instant,
}

impl Gearbox {
    pub(super) fn new() -> Self {
        let (engaged, wanted, now) = (Gear::Quick, Gear::Quick, Instant::now());
        let (resting_since, bulk_until) = (now, now);
        Self { engaged, wanted, on_the_way: 0, calm: 0, resting_since, bulk_until }
    }

    /// So many records come at once now, and they are no changes that somebody waits for.
    pub(super) fn expect(&mut self, records: u64) {
        if records >= BEHIND {
            self.wanted = Gear::Bulk;
            self.bulk_until = Instant::now() + MORE;
        }
    }

    /// Where the next record goes; `None` while what is on its way must arrive first.
    #[inline]
    pub(super) fn next(&mut self) -> Option<Gear> {
        if self.on_the_way == 0 && self.engaged == Gear::Bulk {
            let now = Instant::now();
            if now >= self.bulk_until && now - self.resting_since >= REST {
                self.wanted = Gear::Quick;
            }
        }
        if self.wanted != self.engaged {
            if self.on_the_way > 0 {
                return None;
            }
            (self.engaged, self.calm) = (self.wanted, 0);
        }
        Some(self.engaged)
    }

    /// A record was handed over.
    #[inline]
    pub(super) fn sent(&mut self) {
        self.on_the_way += 1;
        if self.on_the_way >= BEHIND {
            self.wanted = Gear::Bulk;
        }
    }

    /// There was no room for a record: few and large ones can be behind as well.
    pub(super) fn full(&mut self) {
        self.wanted = Gear::Bulk;
    }

    /// Records have arrived.
    pub(super) fn delivered(&mut self, count: u64) {
        self.on_the_way = self.on_the_way.saturating_sub(count);
        if self.engaged == Gear::Quick {
            return;
        }
        self.calm = if self.on_the_way < FEW { self.calm + count.min(FEW) } else { 0 };
        if self.calm >= CALM && Instant::now() >= self.bulk_until {
            self.wanted = Gear::Quick;
        }
        if self.on_the_way == 0 {
            self.resting_since = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send(gears: &mut Gearbox, count: u64) -> u64 {
        (0..count).take_while(|_| gears.next().map(|_| gears.sent()).is_some()).count() as u64
    }

    #[test]
    fn a_quiet_stream_stays_quick() {
        let mut gears = Gearbox::new();
        for _ in 0..10 * BEHIND {
            assert_eq!(send(&mut gears, 9), 9);
            assert_eq!(gears.next(), Some(Gear::Quick));
            gears.delivered(9);
        }
    }

    #[test]
    fn the_producer_changes_only_when_nothing_is_on_its_way() {
        let mut gears = Gearbox::new();
        assert_eq!(send(&mut gears, 2 * BEHIND), BEHIND, "then it waits");
        gears.delivered(BEHIND - 1);
        assert_eq!(gears.next(), None);
        gears.delivered(1);
        assert_eq!(gears.next(), Some(Gear::Bulk));
    }

    #[test]
    fn a_stream_that_has_caught_up_is_quick_again() {
        let mut gears = Gearbox::new();
        send(&mut gears, BEHIND);
        gears.delivered(BEHIND);
        assert_eq!(send(&mut gears, 9 * BEHIND), 9 * BEHIND);
        gears.delivered(9 * BEHIND - 1);
        assert_eq!(gears.next(), Some(Gear::Bulk), "the tail of a batch");
        for _ in FEW..CALM {
            assert_eq!(gears.next(), Some(Gear::Bulk));
            gears.sent();
            gears.delivered(1);
        }
        assert_eq!(gears.next(), None);
        gears.delivered(1);
        assert_eq!(gears.next(), Some(Gear::Quick));
    }

    #[test]
    fn a_stream_that_rested_is_quick_again() {
        let mut gears = Gearbox::new();
        send(&mut gears, BEHIND);
        gears.delivered(BEHIND);
        assert_eq!(send(&mut gears, BEHIND), BEHIND);
        gears.delivered(BEHIND);
        assert_eq!(gears.next(), Some(Gear::Bulk), "a short rest says nothing");
        std::thread::sleep(REST);
        assert_eq!(gears.next(), Some(Gear::Quick));
    }

    #[test]
    fn it_stays_in_bulk_for_what_comes_in_parts() {
        let mut gears = Gearbox::new();
        gears.expect(BEHIND - 1);
        assert_eq!(gears.next(), Some(Gear::Quick), "that is no more than a transaction has");
        for _ in 0..3 {
            gears.expect(BEHIND);
            assert_eq!(send(&mut gears, BEHIND), BEHIND);
            assert_eq!(gears.next(), Some(Gear::Bulk));
            gears.delivered(BEHIND);
            std::thread::sleep(REST);
        }
        gears.bulk_until = Instant::now();
        assert_eq!(gears.next(), Some(Gear::Quick), "nothing came for long enough");
    }

    #[test]
    fn a_full_queue_is_behind_however_few_records_fill_it() {
        let mut gears = Gearbox::new();
        assert_eq!(send(&mut gears, 3), 3);
        gears.full();
        assert_eq!(gears.next(), None);
        gears.delivered(3);
        assert_eq!(gears.next(), Some(Gear::Bulk));
    }
}
