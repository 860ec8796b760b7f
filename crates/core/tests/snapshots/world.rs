//! The server, its replica, and what may happen.

use std::collections::BTreeSet;

use crate::daemon::{Daemon, Record, What};
use crate::random::Random;
use crate::table::{Event, Logged, Row, State, Table, Transaction, Version, visible};

/// Steps before everything is left to settle.
const STEPS: u32 = 150;

/// Steps in which it must have settled.
const SETTLING: u32 = 20_000;

/// Daemons are still killed in so many of those, while nobody writes.
const LAST_KILL: u32 = 60;

/// A slow standby is slow from then on: before, somebody has begun to read.
const SLOW_AFTER: u32 = 20;

pub(crate) const KEYS: u64 = 6;

/// That of a record that somebody else wrote.
const NO_POSITION: (u64, u64, u8) = (0, 0, 0);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reads {
    Primary,
    Replica,
}

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plant {
    None,
    RegisteredAfterTheSnapshot,
    VisibilityUnchecked,
    SubtransactionsChecked,
    SnapshotBeforeTheLock,
    BoundBeforeTheSnapshot,
    TouchedForgotten,
    TruncateForgotten,
    ReleasedOneBoundaryEarly,
    UnchangedPerChunkOnly,
    MovedTakenForFilled,
    OpenTransactionsIgnored,
    UnsettledNotRemembered,
    DoneOnceReleased,
    BooksOlderThanThePosition,
    RewriteUnseen,
    SameNumbersInEachLife,
    BuriedThoughTouched,
    NothingBuried,
    RepairForgottenByAKill,
}

/// What a schedule has more of than others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Theme {
    Plain,
    /// Commits that wait for long.
    SlowStandby,
    /// A table that is emptied and rewritten again and again.
    Rewrites,
    /// A table of one chunk, and a stream that is far behind.
    Small,
}

impl Theme {
    /// Where a bug shows soonest; none where no bug is planted.
    fn that_shows(plant: Plant) -> Option<Self> {
        match plant {
            Plant::None => None,
            Plant::VisibilityUnchecked
            | Plant::SubtransactionsChecked
            | Plant::UnsettledNotRemembered => Some(Self::SlowStandby),
            Plant::SnapshotBeforeTheLock | Plant::RewriteUnseen | Plant::TruncateForgotten => {
                Some(Self::Rewrites)
            }
            Plant::BoundBeforeTheSnapshot | Plant::ReleasedOneBoundaryEarly => Some(Self::Small),
            _ => Some(Self::Plain),
        }
    }
}

pub(crate) struct World {
    pub(crate) random: Random,
    pub(crate) plant: Plant,
    pub(crate) reads: Reads,
    pub(crate) heap: Vec<Version>,
    /// The files of the table so far, each with the transaction that made it.
    pub(crate) files: Vec<(u32, u64)>,
    pub(crate) transactions: Vec<Transaction>,
    pub(crate) log: Vec<Logged>,
    pub(crate) written: u64,
    /// What the stream and the replica can have of it.
    pub(crate) flushed: u64,
    /// How far the replica is.
    pub(crate) replayed: u64,
    next_xid: u64,
    /// The end of the highest transaction that has ended, which is where snapshots end.
    completed: u64,
    /// Changes before are not published: the table joined here.
    pub(crate) joined: Option<u64>,
    /// Where the slot starts: transactions that are in the log before are not in the stream.
    pub(crate) slot: Option<u64>,
    daemon: Option<Daemon>,
    pub(crate) checkpoint: Option<(u64, Vec<u8>)>,
    pub(crate) topic: Vec<Record>,
    values: u64,
    /// The stream is far behind.
    pub(crate) slow_stream: bool,
    theme: Theme,
    steps: u32,
    /// Somebody has ordered that all keys are repaired, and no checkpoint has it.
    pub(crate) ordered: bool,
}

impl World {
    pub(crate) fn new(reads: Reads, plant: Plant, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let slow_stream = random.once_in(2);
        let themes = [Theme::Plain, Theme::SlowStandby, Theme::Rewrites, Theme::Small];
        let theme = Theme::that_shows(plant).unwrap_or(themes[random.index(4)]);
        let slow_stream = slow_stream || theme == Theme::Small;
        // Some schedules begin just before short ids come round.
        let next_xid = if random.once_in(2) { (3 << 32) - 5 } else { 100 };
        Self {
            random,
            plant,
            reads,
            heap: Vec::new(),
            files: vec![(1, 0)],
            transactions: Vec::new(),
            log: Vec::new(),
            written: 100,
            flushed: 100,
            replayed: 100,
            next_xid,
            completed: next_xid,
            joined: None,
            slot: None,
            daemon: None,
            checkpoint: None,
            topic: Vec::new(),
            values: 0,
            slow_stream,
            theme,
            steps: 0,
            ordered: false,
        }
    }

    /// A schedule, and the peace after it.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        for _ in 0..STEPS {
            self.steps += 1;
            self.step()?;
        }
        self.settle()?;
        self.check()
    }

    /// The same, and then one in which the topic has what the daemon did not write.
    pub(crate) fn run_and_repair(&mut self) -> Result<(), String> {
        for _ in 0..STEPS {
            self.steps += 1;
            self.step()?;
        }
        self.settle()?;
        self.meddle();
        for _ in 0..STEPS {
            self.step()?;
        }
        self.settle()?;
        self.check()
    }

    /// Somebody else writes to the topic, and somebody orders a repair.
    fn meddle(&mut self) {
        for key in 0..u8::try_from(KEYS).expect("small") {
            let what = match self.random.below(3) {
                0 => What::Gone(key),
                1 => What::Set(key, Row { small: u64::MAX, large: u64::MAX }),
                _ => continue,
            };
            self.topic.push(Record { position: NO_POSITION, what });
        }
        self.ordered = true;
    }

    fn step(&mut self) -> Result<(), String> {
        match self.random.below(100) {
            0..7 => self.begin(),
            7..25 => self.change(),
            25..35 => self.end(),
            35..40 if self.theme == Theme::SlowStandby && !self.random.once_in(4) => {}
            35..40 if self.theme == Theme::Rewrites => self.truncate_or_rewrite(),
            35..40 => self.show(),
            40..43 => self.truncate_or_rewrite(),
            43..45 => self.flush(),
            45..50 => self.replay(),
            50..52 => self.kill(),
            52..54 => self.join(),
            _ => self.act()?,
        }
        Ok(())
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
        let done = daemon.act(self);
        self.daemon = Some(daemon);
        done
    }

    /// The slot is made, or the table joins a stream that runs.
    fn join(&mut self) {
        let open = self.transactions.iter().any(|it| it.state == State::Open);
        if self.slot.is_none() {
            // The server waits for whoever has begun.
            if !open {
                self.slot = Some(self.written);
                self.flushed = self.written;
                if self.random.once_in(2) {
                    self.joined = Some(self.written);
                }
            }
        } else if self.joined.is_none() {
            self.joined = Some(self.written);
            self.written += 1;
        }
    }

    fn begin(&mut self) {
        let most = if self.theme == Theme::Rewrites { 1 } else { 3 };
        if self.transactions.iter().filter(|it| it.state == State::Open).count() < most {
            let xid = self.take_xid();
            let sub = (self.theme == Theme::SlowStandby || self.random.once_in(2))
                .then(|| self.take_xid());
            let state = State::Open;
            self.transactions.push(Transaction { xid, sub, state, events: Vec::new() });
        }
    }

    fn take_xid(&mut self) -> u64 {
        self.next_xid += 1;
        self.next_xid
    }

    fn pick(&mut self, state: State) -> Option<usize> {
        let all: Vec<usize> = (0..self.transactions.len())
            .filter(|at| self.transactions[*at].state == state)
            .collect();
        if all.is_empty() { None } else { Some(all[self.random.index(all.len())]) }
    }

    /// Whether a transaction's changes can be seen by whoever comes.
    pub(crate) fn is_done(&self, xid: u64) -> bool {
        xid == 0 || self.transactions.iter().any(|it| it.xid == xid && it.state == State::Done)
    }

    fn is_over(&self, xid: u64) -> bool {
        let aborted = |it: &Transaction| it.xid == xid && it.state == State::Aborted;
        self.is_done(xid) || self.transactions.iter().any(aborted)
    }

    pub(crate) fn file(&self) -> u32 {
        self.files.last().expect("the first").0
    }

    /// Rows as a new transaction sees them, and as `mine` has left them; none where another
    /// transaction has its hands on the key.
    fn row_for(&self, key: u8, mine: u64) -> Result<Option<usize>, ()> {
        let file = self.file();
        for version in &self.heap {
            if version.key != key || version.file != file {
                continue;
            }
            let free = |xid: u64| xid == mine || self.is_over(xid);
            if !free(version.made) || !version.gone.is_none_or(free) {
                return Err(());
            }
        }
        let sees = |xid: u64| xid == mine || self.is_done(xid);
        let found = self.heap.iter().position(|version| {
            let there = version.key == key && version.file == file;
            there && sees(version.made) && !version.gone.is_some_and(sees)
        });
        Ok(found)
    }

    /// A place that no row has, perhaps in a block in front.
    fn place(&mut self) -> u32 {
        let file = self.file();
        let in_file = || self.heap.iter().filter(|version| version.file == file);
        let taken = |place: u32| {
            in_file().any(|version| {
                version.place == place && !version.gone.is_some_and(|xid| self.is_done(xid))
            })
        };
        let end = in_file().map(|version| version.place + 1).max().unwrap_or(0);
        let free: Vec<u32> = (0..=end).filter(|place| !taken(*place)).collect();
        free[self.random.index(free.len())]
    }

    fn change(&mut self) {
        let Some(at) = self.pick(State::Open) else { return };
        let mine = self.transactions[at].xid;
        // A table that is read with its first chunk has no second one that sees it rewritten.
        let keys = if matches!(self.theme, Theme::Rewrites | Theme::Small) { 2 } else { KEYS };
        let [key, other] = [0; 2].map(|_| u8::try_from(self.random.below(keys)).expect("small"));
        let Ok(found) = self.row_for(key, mine) else { return };
        self.values += 1;
        let new = Row { small: self.values, large: self.values };
        let event = match found {
            None => {
                self.put(key, new, mine);
                Event::Insert(key, new)
            }
            Some(old) if self.random.once_in(8) => {
                self.heap[old].gone = Some(mine);
                Event::Delete(key)
            }
            Some(old) => {
                let to = if self.random.once_in(3) { other } else { key };
                if to != key && self.row_for(to, mine) != Ok(None) {
                    return;
                }
                let unchanged = !self.random.once_in(3);
                let large = if unchanged { self.heap[old].row.large } else { new.large };
                let row = Row { large, ..new };
                self.heap[old].gone = Some(mine);
                self.put(to, row, mine);
                Event::Update(key, to, row, unchanged)
            }
        };
        self.written += 1;
        let lsn = self.written;
        self.transactions[at].events.push((lsn, event));
    }

    fn put(&mut self, key: u8, row: Row, made: u64) {
        let (file, place) = (self.file(), self.place());
        self.heap.push(Version { key, row, file, place, made, gone: None });
    }

    /// A transaction commits, or does not.
    fn end(&mut self) {
        let Some(at) = self.pick(State::Open) else { return };
        if self.random.once_in(10) {
            self.transactions[at].state = State::Aborted;
            let xid = self.transactions[at].xid;
            self.completed = self.completed.max(xid);
            self.heap.retain(|version| version.made != xid);
            for version in &mut self.heap {
                version.gone = version.gone.filter(|gone| *gone != xid);
            }
            return;
        }
        self.commit(at);
        // Most are seen at once; the others when a standby answers.
        let waits = match self.theme {
            Theme::SlowStandby if self.steps > SLOW_AFTER => 1 + self.random.below(2),
            Theme::SlowStandby | Theme::Rewrites => 0,
            Theme::Plain | Theme::Small => 1,
        };
        if self.random.below(3) >= waits {
            self.complete(at);
        }
    }

    fn commit(&mut self, at: usize) {
        let commit = self.written;
        let end = commit + 1 + self.random.below(3);
        let Transaction { xid, sub, ref events, .. } = self.transactions[at];
        let events = events.clone();
        self.log.push(Logged { xid, sub, commit, end, events });
        self.written = end;
        // Unless it is asynchronous.
        if !self.random.once_in(4) {
            self.flushed = self.written;
        }
        self.transactions[at].state = State::Waiting;
    }

    fn complete(&mut self, at: usize) {
        self.transactions[at].state = State::Done;
        let Transaction { xid, sub, .. } = self.transactions[at];
        self.completed = self.completed.max(sub.unwrap_or(xid));
    }

    fn show(&mut self) {
        if let Some(at) = self.pick(State::Waiting) {
            self.complete(at);
        }
    }

    fn flush(&mut self) {
        self.written += u64::from(self.random.once_in(8));
        self.flushed = self.written;
    }

    fn replay(&mut self) {
        let next = self.replayed + 1 + self.random.below(6);
        let mut next = next.min(self.flushed);
        // Whoever reads there holds off what takes the table away.
        if let Some(before) = self.daemon.as_ref().and_then(|daemon| daemon.holds_off(self)) {
            next = next.min(before);
        }
        self.replayed = self.replayed.max(next);
    }

    fn truncate_or_rewrite(&mut self) {
        let busy =
            self.transactions.iter().any(|it| matches!(it.state, State::Open | State::Waiting));
        let lock = self.daemon.as_ref().and_then(|daemon| daemon.lock(self));
        if busy || lock == Some(Reads::Primary) {
            return;
        }
        let xid = self.take_xid();
        let (old, new) = (self.file(), self.file() + 1);
        let empty = self.random.once_in(2);
        let rows: Vec<(u8, Row)> = {
            let rows = visible(&self.heap, old, |xid| self.is_done(xid));
            rows.map(|version| (version.key, version.row)).collect()
        };
        self.files.push((new, xid));
        self.written += 1;
        let mut events = Vec::new();
        if empty {
            events.push((self.written, Event::Truncate));
        } else {
            rows.into_iter().for_each(|(key, row)| self.put(key, row, xid));
        }
        self.transactions.push(Transaction { xid, sub: None, state: State::Open, events });
        self.commit(self.transactions.len() - 1);
        self.complete(self.transactions.len() - 1);
    }

    /// What `pg_current_snapshot()` says.
    pub(crate) fn snapshot(&self) -> String {
        let xmax = self.completed + 1;
        let open = |it: &&Transaction| matches!(it.state, State::Open | State::Waiting);
        let list = self.transactions.iter().filter(open).filter(|it| it.xid < xmax);
        let list: Vec<String> = list.map(|it| it.xid.to_string()).collect();
        format!("1:{xmax}:{}", list.join(","))
    }

    /// Whose ids are locked.
    pub(crate) fn holders(&self) -> BTreeSet<u64> {
        let open = |it: &&Transaction| matches!(it.state, State::Open | State::Waiting);
        self.transactions.iter().filter(open).map(|it| it.xid).collect()
    }

    /// Where a transaction ends in the log; none where it is not in it.
    pub(crate) fn ended_at(&self, xid: u64) -> Option<u64> {
        self.log.iter().find(|it| it.xid == xid).map(|it| it.end)
    }

    fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.die(self);
        }
    }

    fn settle(&mut self) -> Result<(), String> {
        while self.pick(State::Open).is_some() {
            self.end();
        }
        while self.slot.is_none() || self.joined.is_none() {
            self.join();
        }
        for step in 0..SETTLING {
            self.show();
            self.flush();
            self.replay();
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
        let mut held = Table::new();
        let mut last = None;
        for record in &self.topic {
            if record.position != NO_POSITION {
                if last.is_some_and(|last| record.position <= last) {
                    continue;
                }
                last = Some(record.position);
            }
            match record.what {
                What::Set(key, row) => drop(held.insert(key, row)),
                What::Partial { from, to, small } => {
                    let large = held.get(&from).map_or(0, |row| row.large);
                    held.remove(&from);
                    held.insert(to, Row { small, large });
                }
                What::Gone(key) => drop(held.remove(&key)),
                What::Emptied => held.clear(),
            }
        }
        let rows = visible(&self.heap, self.file(), |xid| self.is_done(xid));
        let table: Table = rows.map(|version| (version.key, version.row)).collect();
        if held == table { Ok(()) } else { Err(format!("{held:?} instead of {table:?}")) }
    }
}
