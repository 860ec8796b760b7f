// Hot path: `Gearbox::next` and `sent` run once a record.
//! Which of two producers takes a record: the quick one, or the one for bulk; and when that one
//! takes none.
//!
//! librdkafka lets an idempotent partition have one request in flight. While records wait behind
//! it and have waited for `linger.ms`, its broker thread asks over and over whether it may go on,
//! with a whole core. So a stream that is behind goes in loads: so many records are handed over, in
//! less time than they linger; they leave together, and the next load is begun when all of them
//! have arrived. Nothing ever waits behind a request, and each is large.
//!
//! A quiet stream must not linger, and there are two producers that differ in `linger.ms` alone.
//! They are changed only when nothing is on its way: what was handed over before is acknowledged
//! before what comes after is sent, and the order holds.

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
/// has, and what a broker takes in a millisecond or two. A load of fewer has caught up.
const BEHIND: u64 = 500;

/// Nothing on its way for so long: it has caught up. Less may be a reader that had to wait for its
/// turn on a busy machine.
const REST: Duration = Duration::from_millis(10);

/// After many records that came at once, more such are likely for so long: parts of a table come one
/// after another, and a change of producers between them costs more than it saves.
const MORE: Duration = Duration::from_millis(200);

/// How long the producer for bulk lets the first record of a load wait for others.
pub(super) const BULK_LINGER_MS: &str = "5";

/// For how long a load is added to. Less than its records linger, or some would be left behind.
pub(super) const LOADING: Duration = Duration::from_millis(4);

/// The clock is read once in so many records.
const LOOK: u64 = 32;

/// Records of a full load: it leaves without waiting, for it is a full batch of librdkafka's as well.
/// Ordinary rows fit into one request. How many large ones may be on their way is said in bytes
/// (`producer.rs`).
pub(super) const LOAD: u64 = 2_000;

/// Follows what is on its way, and chooses.
#[derive(Debug)]
pub(super) struct Gearbox {
    engaged: Gear,
    wanted: Gear,
    on_the_way: u64,
    /// When the last record on its way arrived.
    resting_since: Instant,
    /// Until then it is not quick again.
    bulk_until: Instant,
    load: Load,
    /// For how long a load is added to; without end where it does not go in loads.
    loading: Option<Duration>,
}

/// What was handed over in bulk since all before it had arrived.
#[derive(Debug)]
struct Load {
    records: u64,
    begun: Instant,
    full: bool,
    /// There was no room for more of it. Then it goes on with what comes back: for large records
    /// Kafka is what costs, not how often it is asked.
    overflows: bool,
}

impl Load {
    const fn new(begun: Instant) -> Self {
        Self { records: 0, begun, full: false, overflows: false }
    }

    fn add(&mut self, loading: Option<Duration>) {
        if self.records == 0 {
            self.begun = Instant::now();
        }
        self.records += 1;
        let Some(loading) = loading else { return };
        let look = !self.overflows && self.records.is_multiple_of(LOOK);
        self.full = self.records >= LOAD || look && self.begun.elapsed() >= loading;
    }
}

impl Gearbox {
    pub(super) fn new(loading: Option<Duration>) -> Self {
        let now = Instant::now();
        Self {
            engaged: Gear::Quick,
            wanted: Gear::Quick,
            on_the_way: 0,
            resting_since: now,
            bulk_until: now,
            load: Load::new(now),
            loading,
        }
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
        if self.on_the_way == 0 && self.load.records > 0 {
            self.unloaded();
        }
        if self.load.full {
            return None;
        }
        if self.wanted != self.engaged {
            if self.on_the_way > 0 {
                return None;
            }
            self.engaged = self.wanted;
        }
        Some(self.engaged)
    }

    /// All of a load has arrived, and there is another record.
    fn unloaded(&mut self) {
        let now = Instant::now();
        let was_small = self.load.records < BEHIND && !self.load.overflows;
        let has_caught_up = was_small || now - self.resting_since >= REST;
        if has_caught_up && now >= self.bulk_until {
            self.wanted = Gear::Quick;
        }
        self.load = Load::new(now);
    }

    /// A record was handed over.
    #[inline]
    pub(super) fn sent(&mut self) {
        self.on_the_way += 1;
        if self.engaged == Gear::Bulk {
            self.load.add(self.loading);
        } else if self.on_the_way >= BEHIND {
            self.wanted = Gear::Bulk;
        }
    }

    /// There was no room for a record: few and large ones can be behind as well, and there are
    /// more of them.
    pub(super) fn full(&mut self) {
        self.wanted = Gear::Bulk;
        self.load.overflows = true;
    }

    /// Records have arrived.
    pub(super) fn delivered(&mut self, count: u64) {
        self.on_the_way = self.on_the_way.saturating_sub(count);
        if self.on_the_way == 0 && self.engaged == Gear::Bulk {
            self.resting_since = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Longer than any test.
    const LONG: Option<Duration> = Some(Duration::from_secs(60));

    fn send(gears: &mut Gearbox, count: u64) -> u64 {
        let took = |_: &u64| gears.next().map(|_| gears.sent()).is_some();
        (0..count).take_while(took).count() as u64
    }

    /// One that was behind a moment ago.
    fn in_bulk() -> Gearbox {
        let mut gears = Gearbox::new(LONG);
        send(&mut gears, BEHIND);
        gears.delivered(BEHIND);
        assert_eq!(gears.next(), Some(Gear::Bulk));
        gears
    }

    #[test]
    fn a_quiet_stream_stays_quick() {
        let mut gears = Gearbox::new(LONG);
        for _ in 0..10 * BEHIND {
            assert_eq!(send(&mut gears, 9), 9);
            assert_eq!(gears.next(), Some(Gear::Quick));
            gears.delivered(9);
        }
    }

    #[test]
    fn the_producer_changes_only_when_nothing_is_on_its_way() {
        let mut gears = Gearbox::new(LONG);
        assert_eq!(send(&mut gears, 2 * BEHIND), BEHIND, "then it waits");
        gears.delivered(BEHIND - 1);
        assert_eq!(gears.next(), None);
        gears.delivered(1);
        assert_eq!(gears.next(), Some(Gear::Bulk));
    }

    #[test]
    fn a_load_is_followed_by_the_next_when_all_of_it_has_arrived() {
        let mut gears = in_bulk();
        gears.bulk_until = Instant::now() + MORE;
        assert_eq!(send(&mut gears, 2 * LOAD), LOAD);
        gears.delivered(LOAD - 1);
        assert_eq!(gears.next(), None);
        gears.delivered(1);
        assert_eq!(send(&mut gears, 2 * LOAD), LOAD);
    }

    #[test]
    fn a_load_is_not_added_to_for_longer_than_its_records_linger() {
        let mut gears = in_bulk();
        let loading = Duration::from_millis(1);
        gears.loading = Some(loading);
        assert_eq!(send(&mut gears, LOOK - 1), LOOK - 1);
        std::thread::sleep(loading);
        assert_eq!(send(&mut gears, LOOK), 1, "what is added later would be left behind");
    }

    #[test]
    fn without_loads_there_is_no_end_to_what_may_follow() {
        let mut gears = in_bulk();
        gears.loading = None;
        assert_eq!(send(&mut gears, 9 * LOAD), 9 * LOAD);
    }

    #[test]
    fn a_stream_that_has_caught_up_is_quick_again() {
        let mut gears = in_bulk();
        assert_eq!(send(&mut gears, LOAD), LOAD);
        gears.delivered(LOAD);
        assert_eq!(gears.next(), Some(Gear::Bulk), "a full load is followed by others");
        assert_eq!(send(&mut gears, BEHIND - 1), BEHIND - 1);
        assert_eq!(gears.next(), Some(Gear::Bulk));
        gears.delivered(BEHIND - 1);
        assert_eq!(gears.next(), Some(Gear::Quick));
    }

    #[test]
    fn a_stream_that_rested_is_quick_again() {
        let mut gears = in_bulk();
        send(&mut gears, LOAD);
        gears.delivered(LOAD);
        std::thread::sleep(REST);
        assert_eq!(gears.next(), Some(Gear::Quick));
    }

    #[test]
    fn a_load_there_is_no_room_for_goes_on_with_what_comes_back() {
        let mut gears = in_bulk();
        gears.loading = Some(Duration::ZERO);
        assert_eq!(send(&mut gears, 9), 9);
        gears.full();
        for _ in 0..4 * LOOK {
            gears.delivered(1);
            assert_eq!(send(&mut gears, 1), 1);
        }
        gears.delivered(9);
        assert_eq!(gears.next(), Some(Gear::Bulk), "few and large ones have not caught up");
    }

    #[test]
    fn it_stays_in_bulk_for_what_comes_in_parts() {
        let mut gears = Gearbox::new(LONG);
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
        let mut gears = Gearbox::new(LONG);
        assert_eq!(send(&mut gears, 3), 3);
        gears.full();
        assert_eq!(gears.next(), None);
        gears.delivered(3);
        assert_eq!(gears.next(), Some(Gear::Bulk));
    }
}
