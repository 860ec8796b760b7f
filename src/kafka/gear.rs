// Hot path: `Gearbox::next` and `sent` run once a record.
//! Which of two producers takes a record: the quick one, or the one for bulk.
//!
//! librdkafka lets an idempotent partition have one request in flight. While records wait behind
//! it and have waited for `linger.ms`, its broker thread asks over and over whether it may go on,
//! with a whole core. With `linger.ms=0`, which a quiet stream needs, that is all the time of a
//! stream that is behind, and most of its cost. So there are two producers that differ in
//! `linger.ms` alone. They are changed only when nothing is on its way: what was handed over
//! before is acknowledged before what comes after is sent, and the order holds.

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

/// Records on their way at which it has caught up.
const CAUGHT_UP: u64 = 50;

/// Follows what is on its way, and chooses.
#[derive(Debug)]
pub(super) struct Gearbox {
    engaged: Gear,
    wanted: Gear,
    on_the_way: u64,
}

impl Gearbox {
    pub(super) fn new() -> Self {
        Self { engaged: Gear::Quick, wanted: Gear::Quick, on_the_way: 0 }
    }

    /// Where the next record goes; `None` while what is on its way must arrive first.
    #[inline]
    pub(super) fn next(&mut self) -> Option<Gear> {
        if self.wanted != self.engaged {
            if self.on_the_way > 0 {
                return None;
            }
            self.engaged = self.wanted;
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
        if self.on_the_way < CAUGHT_UP && self.engaged == Gear::Bulk {
            self.wanted = Gear::Quick;
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
        assert_eq!(send(&mut gears, 9 * BEHIND), 9 * BEHIND);
        gears.delivered(9 * BEHIND - CAUGHT_UP);
        assert_eq!(gears.next(), Some(Gear::Bulk));
        gears.delivered(1);
        assert_eq!(gears.next(), None);
        gears.delivered(CAUGHT_UP - 1);
        assert_eq!(gears.next(), Some(Gear::Quick));
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
