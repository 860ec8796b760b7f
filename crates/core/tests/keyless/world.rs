//! The server, and what may happen.

use std::collections::{BTreeMap, BTreeSet};

use waltide_core::snapshot::Seen;

use crate::daemon::{Daemon, Record, What};
use crate::random::Random;

/// Steps before everything is left to settle.
const STEPS: u32 = 120;

/// Steps in which it must have settled.
const SETTLING: u32 = 20_000;

/// Daemons are still killed in so many of those, while nobody writes.
const LAST_KILL: u32 = 40;

/// So many different rows there are: some are there several times.
const VALUES: u64 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    AtLeastOnce,
    ExactlyOnce,
}

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plant {
    None,
    /// The stream does not wait while the table is read.
    StreamGoesOn,
    /// It publishes what was read once more.
    NothingLeftOut,
    /// It knows transactions by the ids of their subtransactions.
    SubtransactionsLeftOut,
    /// It stops leaving out at where the log ended before the snapshot.
    BoundBeforeTheSnapshot,
    /// A kill forgets what was seen, and not that the table was read.
    SnapshotNotRemembered,
    /// A read that came to nothing counts.
    HalfForTheWhole,
    /// Who wrote before the table joined is not waited for.
    OpenTransactionsIgnored,
    /// The table is read once its rows are on their way.
    DoneOnceReleased,
    /// Its rows stand where the stream is, wherever it has been in a former life.
    FormerLivesForgotten,
    /// Who wrote before the table joined counts as seen once it is published.
    PublishedTakenForSeen,
}

/// What the log says happened to a row: another one like it is there, or one less.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    Insert(u64),
    Delete(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// In the log, and not visible: it waits for a standby.
    Waiting,
    Done,
}

#[derive(Clone, Debug)]
struct Transaction {
    xid: u64,
    sub: u64,
    state: State,
    events: Vec<(u64, Event)>,
}

/// A transaction in the log.
#[derive(Clone, Debug)]
pub(crate) struct Logged {
    pub(crate) xid: u64,
    pub(crate) sub: u64,
    pub(crate) commit: u64,
    pub(crate) end: u64,
    pub(crate) events: Vec<(u64, Event)>,
}

/// How often each row is there.
pub(crate) type Bag = BTreeMap<u64, i64>;

pub(crate) struct World {
    pub(crate) random: Random,
    pub(crate) plant: Plant,
    pub(crate) delivery: Delivery,
    transactions: Vec<Transaction>,
    pub(crate) log: Vec<Logged>,
    pub(crate) written: u64,
    pub(crate) flushed: u64,
    next_xid: u64,
    completed: u64,
    /// Changes before are not published: the table joined here.
    pub(crate) joined: Option<u64>,
    pub(crate) slot: Option<u64>,
    daemon: Option<Daemon>,
    pub(crate) checkpoint: Option<(u64, Vec<u8>)>,
    pub(crate) topic: Vec<Record>,
    /// What each read has seen, and from where on the stream was to wait for it.
    pub(crate) reads: BTreeMap<u64, (Seen, u64)>,
    kills: u32,
}

impl World {
    pub(crate) fn new(delivery: Delivery, plant: Plant, seed: u64) -> Self {
        let mut random = Random::new(seed);
        // Some schedules begin just before short ids come round.
        let next_xid = if random.once_in(2) { (3 << 32) - 5 } else { 100 };
        Self {
            random,
            plant,
            delivery,
            transactions: Vec::new(),
            log: Vec::new(),
            written: 100,
            flushed: 100,
            next_xid,
            completed: next_xid,
            joined: None,
            slot: None,
            daemon: None,
            checkpoint: None,
            topic: Vec::new(),
            reads: BTreeMap::new(),
            kills: 0,
        }
    }

    /// A schedule, and the peace after it.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        for _ in 0..STEPS {
            match self.random.below(100) {
                0..8 => self.begin(),
                8..24 => self.change(),
                24..34 => self.commit(),
                34..40 => self.show(),
                40..43 => self.flush(),
                43..46 => self.kill(),
                46..49 => self.join(),
                _ => self.act()?,
            }
        }
        self.settle()?;
        self.check()
    }

    fn act(&mut self) -> Result<(), String> {
        if self.slot.is_none() {
            self.join();
            return Ok(());
        }
        let mut daemon = match self.daemon.take() {
            Some(daemon) => daemon,
            None => Daemon::start(self)?,
        };
        daemon.act(self);
        self.daemon = Some(daemon);
        Ok(())
    }

    /// The slot is made once nobody is at work, or the table joins a stream that runs.
    fn join(&mut self) {
        let open = self.transactions.iter().any(|it| it.state == State::Open);
        if self.slot.is_none() && !open {
            self.slot = Some(self.written);
            self.flushed = self.written;
        } else if self.slot.is_some() && self.joined.is_none() {
            self.joined = Some(self.written);
            self.written += 1;
        }
    }

    fn begin(&mut self) {
        if self.transactions.iter().filter(|it| it.state == State::Open).count() < 3 {
            let (xid, sub) = (self.next_xid + 1, self.next_xid + 2);
            self.next_xid += 2;
            let state = State::Open;
            self.transactions.push(Transaction { xid, sub, state, events: Vec::new() });
        }
    }

    fn pick(&mut self, state: State) -> Option<usize> {
        let of = |at: &usize| self.transactions[*at].state == state;
        let all: Vec<usize> = (0..self.transactions.len()).filter(of).collect();
        if all.is_empty() { None } else { Some(all[self.random.index(all.len())]) }
    }

    fn change(&mut self) {
        let Some(at) = self.pick(State::Open) else { return };
        let value = self.random.below(VALUES);
        // A row that somebody else deletes is none of ours: only what all see, and is not taken.
        let taken = self.transactions.iter().filter(|it| it.state != State::Done);
        let taken = taken.flat_map(|it| &it.events);
        let taken = taken.filter(|(_, event)| matches!(event, Event::Delete(of) if *of == value));
        let there = self.visible(|xid| self.is_done(xid)).get(&value).copied().unwrap_or(0);
        let may_go = there > i64::try_from(taken.count()).expect("few");
        let event = match may_go && self.random.once_in(3) {
            true => Event::Delete(value),
            false => Event::Insert(value),
        };
        self.written += 1;
        let lsn = self.written;
        self.transactions[at].events.push((lsn, event));
    }

    fn commit(&mut self) {
        let Some(at) = self.pick(State::Open) else { return };
        let commit = self.written;
        let end = commit + 1 + self.random.below(3);
        let Transaction { xid, sub, ref events, .. } = self.transactions[at];
        let events = events.clone();
        self.log.push(Logged { xid, sub, commit, end, events });
        self.written = end;
        if !self.random.once_in(4) {
            self.flushed = self.written;
        }
        self.transactions[at].state = State::Waiting;
        if self.random.below(3) > 0 {
            self.complete(at);
        }
    }

    fn complete(&mut self, at: usize) {
        self.transactions[at].state = State::Done;
        self.completed = self.completed.max(self.transactions[at].sub);
    }

    fn show(&mut self) {
        if let Some(at) = self.pick(State::Waiting) {
            self.complete(at);
        }
    }

    fn flush(&mut self) {
        self.flushed = self.written;
    }

    fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            self.kills += 1;
            daemon.die(self);
        }
    }

    fn is_done(&self, xid: u64) -> bool {
        self.transactions.iter().any(|it| it.xid == xid && it.state == State::Done)
    }

    /// The table as one sees it who sees these transactions.
    pub(crate) fn visible(&self, sees: impl Fn(u64) -> bool) -> Bag {
        let mut bag = Bag::new();
        for transaction in self.log.iter().filter(|it| sees(it.xid)) {
            transaction.events.iter().for_each(|(_, event)| enter(&mut bag, *event));
        }
        bag.retain(|_, count| *count != 0);
        bag
    }

    /// What `pg_current_snapshot()` says.
    pub(crate) fn snapshot(&self) -> String {
        let xmax = self.completed + 1;
        let open = self.transactions.iter().filter(|it| it.state != State::Done && it.xid < xmax);
        let list: Vec<String> = open.map(|it| it.xid.to_string()).collect();
        format!("1:{xmax}:{}", list.join(","))
    }

    /// Whose ids are locked.
    pub(crate) fn holders(&self) -> BTreeSet<u64> {
        let open = self.transactions.iter().filter(|it| it.state != State::Done);
        open.map(|it| it.xid).collect()
    }

    fn settle(&mut self) -> Result<(), String> {
        while self.pick(State::Open).is_some() {
            self.commit();
        }
        while self.slot.is_none() || self.joined.is_none() {
            self.join();
        }
        for step in 0..SETTLING {
            self.show();
            self.flush();
            if step < LAST_KILL && self.random.once_in(20) {
                self.kill();
            }
            self.act()?;
            let quiet = self.daemon.as_ref().is_some_and(|daemon| daemon.is_quiet(self));
            if step > LAST_KILL && quiet {
                return Ok(());
            }
        }
        Err("it does not settle".to_owned())
    }

    /// What a consumer has that skips what repeats.
    fn check(&self) -> Result<(), String> {
        let Some((counts, (seen, from))) = self.reads.last_key_value() else {
            return Err("it was never read".to_owned());
        };
        let (mut held, mut all) = (Bag::new(), Bag::new());
        let (mut last, mut is_whole) = (None, false);
        // A kill may let rows come twice, unless they come exactly once.
        let may_not_repeat = self.kills == 0 || self.delivery == Delivery::ExactlyOnce;
        for record in &self.topic {
            if last.is_some_and(|last| record.position <= last) {
                if self.delivery == Delivery::ExactlyOnce {
                    return Err(format!("{record:?} comes again"));
                }
                continue;
            }
            last = Some(record.position);
            match record.what {
                What::Row(read, row) => {
                    let event = Event::Insert(row);
                    enter(&mut all, event);
                    if read == *counts {
                        enter(&mut held, event);
                    }
                }
                What::Whole(read) => is_whole |= read == *counts,
                What::Change(xid, event) => {
                    enter(&mut all, event);
                    if !seen.shows(xid) {
                        enter(&mut held, event);
                    } else if record.position.0 >= *from && may_not_repeat {
                        return Err(format!("{record:?} is in the rows that were read"));
                    }
                }
            }
        }
        held.retain(|_, count| *count != 0);
        let table = self.visible(|xid| self.is_done(xid));
        match is_whole && held == table {
            true => Ok(()),
            false => Err(format!("{held:?} instead of {table:?}; in all {all:?}")),
        }
    }
}

fn enter(bag: &mut Bag, event: Event) {
    match event {
        Event::Insert(value) => *bag.entry(value).or_default() += 1,
        Event::Delete(value) => *bag.entry(value).or_default() -= 1,
    }
}
