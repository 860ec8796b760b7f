//! The server, Kafka, and what may happen.

use std::collections::HashSet;

use waltide_core::checkpoint::{Checkpoint, SourceFacts};
use waltide_core::lsn::Lsn;

use crate::daemon::{Daemon, Record};

pub(crate) const PARTITIONS: usize = 2;

/// Steps before everything is left to settle.
const STEPS: u32 = 120;

/// Steps in which it must have settled.
const SETTLING: u32 = 2_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// One daemon at a time, which is killed and started again.
    Alone,
    /// Two, which may freeze and wake.
    WithStandby,
}

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plant {
    None,
    ConfirmBeforeCheckpoint,
    CheckpointWhatWasReceived,
    DeliveredOnceQueued,
    KeepaliveConfirmsAll,
    ResumeOneTooFar,
    NoBirthCheckpoint,
    UnknownIsLost,
    ReadBeforeFence,
    NoFence,
}

/// Numbers that look random and come again with the seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ mixed >> 31) % limit
    }

    pub(crate) fn once_in(&mut self, limit: u64) -> bool {
        self.below(limit) == 0
    }

    pub(crate) fn index(&mut self, limit: usize) -> usize {
        usize::try_from(self.below(limit as u64)).expect("it was one")
    }
}

/// A committed transaction: where its commit record lies, and the partition of each row.
#[derive(Clone, Debug)]
pub(crate) struct Transaction {
    pub(crate) commit: u64,
    pub(crate) end: u64,
    pub(crate) rows: Vec<usize>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    pub(crate) confirmed: u64,
    /// What a crash puts it back to.
    pub(crate) on_disk: u64,
    pub(crate) holder: Option<usize>,
}

/// The only partition of the checkpoint topic, and who may write to it.
#[derive(Default)]
pub(crate) struct Checkpoints {
    pub(crate) epoch: u64,
    pub(crate) log: Vec<Vec<u8>>,
    /// Commits on their way, with their writer's epoch.
    pub(crate) late: Vec<(u64, Vec<u8>)>,
}

pub(crate) struct World {
    pub(crate) random: Random,
    pub(crate) plant: Plant,
    mode: Mode,
    pub(crate) log: Vec<Transaction>,
    pub(crate) wal_end: u64,
    pub(crate) slot: Option<Slot>,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) topic: Vec<Vec<Record>>,
    published: HashSet<Record>,
    daemons: Vec<Daemon>,
    /// Where the first slot started.
    birth: u64,
    /// Transactions that were seen to be published, from the first on: they stay so.
    seen: usize,
    /// Checkpoints that were looked at, and the position of the last.
    looked_at: usize,
    reached: u64,
}

impl World {
    pub(crate) fn new(mode: Mode, plant: Plant, seed: u64) -> Self {
        let daemons = if mode == Mode::Alone { 1 } else { 2 };
        Self {
            random: Random::new(seed),
            plant,
            mode,
            log: Vec::new(),
            wal_end: 100,
            slot: None,
            checkpoints: Checkpoints::default(),
            topic: vec![Vec::new(); PARTITIONS],
            published: HashSet::new(),
            daemons: (0..daemons).map(|id| Daemon::new(id, format!("daemon {id}"))).collect(),
            birth: 0,
            seen: 0,
            looked_at: 0,
            reached: 0,
        }
    }

    /// A schedule, and the peace after it.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        for _ in 0..STEPS {
            self.step()?;
            self.check()?;
        }
        self.settle()?;
        self.check_all_arrived()?;
        if self.mode == Mode::Alone { self.check_repeats() } else { Ok(()) }
    }

    fn step(&mut self) -> Result<(), String> {
        let who = self.random.index(self.daemons.len());
        match self.random.below(100) {
            0..15 => self.commit(),
            15..17 => self.wal_end += self.random.below(20),
            17..18 => self.crash_of_the_server(),
            18..20 => self.lose_the_connection(who),
            20..22 => self.kill(who),
            22..24 if self.mode == Mode::WithStandby => {
                self.daemons[who].frozen = !self.daemons[who].frozen;
            }
            24..26 => self.land_late(),
            26..28 => {
                if let Some(slot) = &mut self.slot {
                    slot.on_disk = slot.confirmed;
                }
            }
            28..45 => self.deliver(who),
            _ => self.act(who)?,
        }
        Ok(())
    }

    /// A daemon does one thing, unless it is frozen.
    fn act(&mut self, who: usize) -> Result<(), String> {
        if self.daemons[who].frozen {
            return Ok(());
        }
        let mut daemon = std::mem::replace(&mut self.daemons[who], Daemon::new(who, String::new()));
        let done = daemon.act(self);
        self.daemons[who] = daemon;
        done
    }

    fn commit(&mut self) {
        // Often without a byte in between.
        let gap = if self.random.once_in(2) { 0 } else { self.random.below(9) };
        let commit = self.wal_end + gap;
        let end = commit + 1 + self.random.below(9);
        let rows = self.random.below(4);
        let rows = (0..rows).map(|_| self.random.index(PARTITIONS)).collect();
        self.log.push(Transaction { commit, end, rows });
        self.wal_end = end;
    }

    fn crash_of_the_server(&mut self) {
        if let Some(slot) = &mut self.slot {
            slot.confirmed = slot.on_disk;
            slot.holder = None;
        }
    }

    fn lose_the_connection(&mut self, who: usize) {
        if let Some(slot) = &mut self.slot
            && slot.holder == Some(who)
        {
            slot.holder = None;
        }
    }

    fn kill(&mut self, who: usize) {
        self.abandon(who);
        self.lose_the_connection(who);
        let life = self.random.below(u64::MAX);
        self.daemons[who] = Daemon::new(who, format!("daemon {who} {life}"));
    }

    /// What a producer that is given up had sent may still arrive, from the front.
    pub(crate) fn abandon(&mut self, who: usize) {
        let queues = std::mem::take(&mut self.daemons[who].in_flight);
        self.land(queues);
    }

    pub(crate) fn land(
        &mut self,
        queues: Vec<std::collections::VecDeque<(waltide_core::watermark::Ticket, Record)>>,
    ) {
        for (partition, queue) in queues.into_iter().enumerate() {
            let arrive = self.random.index(queue.len() + 1);
            for (_, record) in queue.into_iter().take(arrive) {
                self.append(partition, record);
            }
        }
    }

    fn append(&mut self, partition: usize, record: Record) {
        self.topic[partition].push(record);
        self.published.insert(record);
    }

    /// Kafka takes the next record of one partition, and reports it.
    fn deliver(&mut self, who: usize) {
        let partition = self.random.index(PARTITIONS);
        let taken =
            self.daemons[who].in_flight.get_mut(partition).and_then(|queue| queue.pop_front());
        if let Some((ticket, record)) = taken {
            self.append(partition, record);
            self.daemons[who].reports.push(ticket);
        }
    }

    /// A commit that was on its way arrives, or is refused, or never comes.
    fn land_late(&mut self) {
        if self.checkpoints.late.is_empty() {
            return;
        }
        let place = self.random.index(self.checkpoints.late.len());
        let (epoch, bytes) = self.checkpoints.late.swap_remove(place);
        if epoch == self.checkpoints.epoch || self.plant == Plant::NoFence {
            self.checkpoints.log.push(bytes);
        }
    }

    /// Between two steps of one daemon others may take theirs.
    pub(crate) fn meanwhile(&mut self) {
        if self.random.once_in(2) {
            self.land_late();
        }
    }

    pub(crate) fn last_checkpoint(&self) -> Option<Checkpoint> {
        let bytes = self.checkpoints.log.last()?;
        Some(Checkpoint::decode(bytes).expect("it is one of ours"))
    }

    pub(crate) fn facts(&self, slot_confirmed: u64, slot_created_now: bool) -> SourceFacts {
        SourceFacts {
            system_identifier: 7,
            timeline: 1,
            timeline_history: Vec::new(),
            flushed: Lsn(self.wal_end),
            database: "shop".to_owned(),
            slot_confirmed: Lsn(slot_confirmed),
            slot_created_now,
        }
    }

    pub(crate) fn topics_hold_records(&self) -> bool {
        self.topic.iter().any(|partition| !partition.is_empty())
    }

    /// Makes the slot.
    pub(crate) fn make_slot(&mut self) -> u64 {
        let confirmed = self.wal_end;
        self.slot = Some(Slot { confirmed, on_disk: confirmed, holder: None });
        self.birth = confirmed;
        confirmed
    }

    /// What must hold after every step.
    fn check(&mut self) -> Result<(), String> {
        if self.looked_at == self.checkpoints.log.len() {
            return Ok(());
        }
        self.looked_at = self.checkpoints.log.len();
        let Some(checkpoint) = self.last_checkpoint() else { return Ok(()) };
        let end = checkpoint.end_lsn.0.0;
        if end < self.reached {
            return Err(format!("the checkpoint goes back from {} to {end}", self.reached));
        }
        self.reached = end;
        self.all_there(end).map_err(|record| {
            format!("the checkpoint at {end} covers {record:?}, which is in no topic")
        })
    }

    fn all_there(&mut self, up_to: u64) -> Result<(), Record> {
        while let Some(transaction) = self.log.get(self.seen).filter(|it| it.end <= up_to) {
            let due = transaction.commit >= self.birth;
            for ordinal in 0..transaction.rows.len() as u64 {
                let record = Record { commit: transaction.commit, ordinal };
                if due && !self.published.contains(&record) {
                    return Err(record);
                }
            }
            self.seen += 1;
        }
        Ok(())
    }

    /// Nothing more goes wrong.
    fn settle(&mut self) -> Result<(), String> {
        for daemon in &mut self.daemons {
            daemon.frozen = false;
        }
        while !self.checkpoints.late.is_empty() {
            self.land_late();
        }
        for _ in 0..SETTLING {
            let who = self.random.index(self.daemons.len());
            if self.random.once_in(3) {
                self.deliver(who)
            } else {
                self.act(who)?
            }
            self.check()?;
            let confirmed = self.slot.map_or(0, |slot| slot.confirmed);
            if confirmed >= self.wal_end && self.slot.is_some() {
                return Ok(());
            }
        }
        Err(format!("it does not settle: {:?} of {}", self.slot, self.wal_end))
    }

    fn check_all_arrived(&mut self) -> Result<(), String> {
        self.all_there(self.wal_end).map_err(|record| format!("{record:?} is lost"))
    }

    /// In each partition what comes again is the end of what was there, in the same order.
    fn check_repeats(&self) -> Result<(), String> {
        for records in &self.topic {
            let mut known: Vec<Record> = Vec::new();
            let mut next = 0;
            for record in records {
                if known.get(next) != Some(record) {
                    let is_new = known.last().is_none_or(|last| last < record);
                    match known.binary_search(record) {
                        Err(_) if is_new && next == known.len() => known.push(*record),
                        Ok(place) if place < next => next = place,
                        _ => return Err(format!("{record:?} is out of order in {records:?}")),
                    }
                }
                next += 1;
            }
            if next != known.len() {
                return Err(format!("a repetition breaks off in {records:?}"));
            }
        }
        Ok(())
    }
}
