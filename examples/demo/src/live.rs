//! What is known at this moment, written by all threads and read by the screen.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::ledger::Ledger;
use crate::shop::{Op, Table};

/// Rates are taken over this time: short enough to follow, long enough to stand still.
const RATE_WINDOW: Duration = Duration::from_secs(2);

/// Sample records kept; no screen shows more.
const MAX_SAMPLES: usize = 16;

/// Delays kept between two looks at them; more would not change the median.
const MAX_DELAYS: usize = 20_000;

/// What all threads share.
pub(crate) struct Shared {
    live: Mutex<Live>,
    ledger: Mutex<Ledger>,
    closing: AtomicBool,
}

impl Shared {
    pub(crate) fn new(sample_every: Duration) -> Self {
        Self {
            live: Mutex::new(Live::new(sample_every)),
            ledger: Mutex::default(),
            closing: AtomicBool::new(false),
        }
    }

    pub(crate) fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the writers to end their transactions and go.
    pub(crate) fn close_shop(&self) {
        self.closing.store(true, Ordering::Release);
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }
}

/// A record for a person to look at.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// Counts the samples.
    pub(crate) number: u64,
    pub(crate) table: Table,
    pub(crate) op: Op,
    pub(crate) key: String,
    pub(crate) text: String,
}

/// Something that happens once.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) after: Duration,
    pub(crate) text: String,
}

/// A table's topic as a consumer sees it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Topic {
    pub(crate) partitions: usize,
    pub(crate) records: u64,
    pub(crate) schema: Option<u32>,
    pub(crate) columns: Vec<String>,
}

/// What the daemon says of itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Daemon {
    pub(crate) state: String,
    pub(crate) error: Option<String>,
    pub(crate) lag_ms: f64,
    pub(crate) lag_bytes: u64,
    pub(crate) in_flight: u64,
}

/// Changes a second.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rates {
    pub(crate) committed: f64,
    pub(crate) read: f64,
    pub(crate) records: [f64; 4],
}

#[derive(Clone, Copy, Debug)]
struct Reading {
    at: Instant,
    committed: u64,
    read: u64,
    records: [u64; 4],
}

/// The numbers.
pub(crate) struct Live {
    pub(crate) opened: Option<Instant>,
    pub(crate) transactions: u64,
    pub(crate) rolled_back: u64,
    /// Changes whose COMMIT has returned.
    pub(crate) committed: u64,
    /// Changes that a consumer has read.
    pub(crate) read: u64,
    pub(crate) topics: [Topic; 4],
    pub(crate) samples: VecDeque<Sample>,
    pub(crate) events: Vec<Event>,
    pub(crate) daemon: Daemon,
    pub(crate) rates: Rates,
    /// From commit to consumer, in the middle and at the 99th of a hundred.
    pub(crate) delay_ms: Option<(f64, f64)>,
    readings: VecDeque<Reading>,
    delays_us: Vec<u32>,
    sample_every: Duration,
    sampled: Option<Instant>,
    sample_number: u64,
}

impl Live {
    fn new(sample_every: Duration) -> Self {
        Self {
            opened: None,
            transactions: 0,
            rolled_back: 0,
            committed: 0,
            read: 0,
            topics: Default::default(),
            samples: VecDeque::new(),
            events: Vec::new(),
            daemon: Daemon::default(),
            rates: Rates::default(),
            delay_ms: None,
            readings: VecDeque::new(),
            delays_us: Vec::new(),
            sample_every,
            sampled: None,
            sample_number: 0,
        }
    }

    /// Since the shop was opened.
    pub(crate) fn elapsed(&self) -> Duration {
        self.opened.map_or(Duration::ZERO, |opened| opened.elapsed())
    }

    pub(crate) fn event(&mut self, text: String) {
        self.events.push(Event { after: self.elapsed(), text });
    }

    pub(crate) fn delay(&mut self, delay_us: i64) {
        if self.delays_us.len() < MAX_DELAYS {
            self.delays_us.push(u32::try_from(delay_us.max(0)).unwrap_or(u32::MAX));
        }
    }

    /// Whether a record of this table should be shown now: they take turns, but a quiet table
    /// does not hold up the others.
    pub(crate) fn wants_sample(&self, table: Table) -> bool {
        let Some(sampled) = self.sampled else { return true };
        let turn = self.samples.back().is_none_or(|last| {
            let turns = Table::ALL.len();
            let place = |of: Table| Table::ALL.iter().position(|one| *one == of).unwrap_or(0);
            (place(last.table) + 1) % turns == place(table)
        });
        let waited = sampled.elapsed();
        waited >= self.sample_every * 2 || turn && waited >= self.sample_every
    }

    pub(crate) fn sample(&mut self, table: Table, op: Op, key: String, text: String) {
        self.sampled = Some(Instant::now());
        self.sample_number += 1;
        self.samples.push_back(Sample { number: self.sample_number, table, op, key, text });
        if self.samples.len() > MAX_SAMPLES {
            self.samples.pop_front();
        }
    }

    /// Takes the rates and delays anew.
    pub(crate) fn tick(&mut self, now: Instant) {
        let records = [0, 1, 2, 3].map(|place: usize| self.topics[place].records);
        let (committed, read) = (self.committed, self.read);
        self.readings.push_back(Reading { at: now, committed, read, records });
        while self.readings.get(1).is_some_and(|second| now - second.at >= RATE_WINDOW) {
            self.readings.pop_front();
        }
        let first = self.readings[0];
        let seconds = (now - first.at).as_secs_f64();
        if seconds > 0.0 {
            let rate = |now: u64, before: u64| per_second(now - before, seconds);
            self.rates = Rates {
                committed: rate(committed, first.committed),
                read: rate(read, first.read),
                records: [0, 1, 2, 3]
                    .map(|place: usize| rate(records[place], first.records[place])),
            };
        }
        if !self.delays_us.is_empty() {
            self.delays_us.sort_unstable();
            let at = |hundredth: usize| {
                let last = self.delays_us.len() - 1;
                f64::from(self.delays_us[(last * hundredth) / 100]) / 1000.0
            };
            self.delay_ms = Some((at(50), at(99)));
            self.delays_us.clear();
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "for a person to read")]
fn per_second(count: u64, seconds: f64) -> f64 {
    count as f64 / seconds
}
