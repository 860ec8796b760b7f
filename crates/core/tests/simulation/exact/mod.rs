//! The rules of exactly once: records and checkpoint in one Kafka transaction.
//!
//! Two daemons that share a transactional id; either may be killed, frozen or cut off between any
//! two steps, with records on their way. A commit is done, refused, or its outcome is not known: it
//! never came, or came and nobody heard, or comes late. Kafka rolls back what is open for long.
//! After every step a reader of what is committed must have each change at most once and in order,
//! and in the end exactly once.

mod daemon;

use std::collections::{BTreeSet, VecDeque};

use waltide_core::checkpoint::{Checkpoint, SourceFacts};
use waltide_core::lsn::Lsn;

use crate::daemon::Record;
use crate::world::{PARTITIONS, Random, Slot, Transaction};
use daemon::Daemon;

/// Steps before everything is left to settle.
const STEPS: u32 = 160;

/// Steps in which it must have settled.
const SETTLING: u32 = 4_000;

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plant {
    None,
    /// The checkpoint is read before the predecessor is shut out.
    ReadBeforeInit,
    /// A commit of unknown outcome is taken as lost: what it had is published again.
    UnknownIsLost,
    /// After one the producer goes on as it is, and the late commit hits what it does next.
    UnknownIsGoneOnWith,
    /// A checkpoint says nothing of a part.
    OrdinalLeftOut,
    /// It says one too many.
    OrdinalTooFar,
    /// It says one too few.
    OrdinalTooNear,
    /// Nobody is shut out.
    NoFence,
    /// Postgres is told when the commit is sent.
    ToldBeforeCommit,
    /// A part ends without its last record.
    LastOfPartDropped,
    /// The checkpoint of an idle stream forgets a part that has not come again yet.
    IdleForgetsPart,
    /// The checkpoint is written on its own, behind the records.
    CheckpointApart,
}

impl Plant {
    pub(crate) const ALL: [Self; 11] = [
        Self::ReadBeforeInit,
        Self::UnknownIsLost,
        Self::UnknownIsGoneOnWith,
        Self::OrdinalLeftOut,
        Self::OrdinalTooFar,
        Self::OrdinalTooNear,
        Self::NoFence,
        Self::ToldBeforeCommit,
        Self::LastOfPartDropped,
        Self::IdleForgetsPart,
        Self::CheckpointApart,
    ];
}

/// A Kafka transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Open,
    Committed,
    RolledBack,
}

/// What is on its way to Kafka from a producer.
#[derive(Clone, Debug)]
enum Sent {
    Record(usize, Record),
    Checkpoint(Vec<u8>),
}

/// Kafka, as the holder of one transactional id and a reader of what is committed see it.
#[derive(Default)]
struct Kafka {
    epoch: u64,
    fates: Vec<Fate>,
    /// By partition, in the order in which they came.
    topic: Vec<Vec<(usize, Record)>>,
    checkpoints: Vec<(usize, Vec<u8>)>,
    /// Commits that are still on their way, with the epoch of who sent them.
    late: Vec<u64>,
}

/// A producer of an older epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fenced;

impl Kafka {
    /// Shuts out whoever wrote before, and rolls back what he had begun.
    fn init(&mut self, plant: Plant) -> u64 {
        if plant != Plant::NoFence {
            self.epoch += 1;
            self.end(Fate::RolledBack);
        }
        self.epoch
    }

    fn end(&mut self, fate: Fate) {
        if let Some(last) = self.fates.last_mut().filter(|last| **last == Fate::Open) {
            *last = fate;
        }
    }

    fn takes(&mut self, epoch: u64, sent: Sent) -> Result<(), Fenced> {
        if epoch != self.epoch {
            return Err(Fenced);
        }
        if self.fates.last() != Some(&Fate::Open) {
            self.fates.push(Fate::Open);
        }
        let transaction = self.fates.len() - 1;
        match sent {
            Sent::Record(partition, record) => self.topic[partition].push((transaction, record)),
            Sent::Checkpoint(bytes) => self.checkpoints.push((transaction, bytes)),
        }
        Ok(())
    }

    fn commit(&mut self, epoch: u64) -> Result<(), Fenced> {
        if epoch != self.epoch {
            return Err(Fenced);
        }
        self.end(Fate::Committed);
        Ok(())
    }

    fn is_committed(&self, transaction: usize) -> bool {
        self.fates[transaction] == Fate::Committed
    }

    /// The last committed one: who reads has shut out the others, so nothing is open.
    fn last_checkpoint(&self) -> Option<Checkpoint> {
        let last = self.checkpoints.iter().rev().find(|(of, _)| self.is_committed(*of));
        last.map(|(_, bytes)| Checkpoint::decode(bytes).expect("it is one of ours"))
    }

    fn holds_records(&self) -> bool {
        self.topic.iter().any(|partition| !partition.is_empty())
    }
}

pub(crate) struct World {
    random: Random,
    plant: Plant,
    log: Vec<Transaction>,
    wal_end: u64,
    slot: Option<Slot>,
    kafka: Kafka,
    daemons: Vec<Daemon>,
    birth: u64,
    /// Fates that were decided when a reader last looked.
    looked_at: usize,
}

impl World {
    pub(crate) fn new(plant: Plant, seed: u64) -> Self {
        let kafka = Kafka { topic: vec![Vec::new(); PARTITIONS], ..Kafka::default() };
        Self {
            random: Random::new(seed),
            plant,
            log: Vec::new(),
            wal_end: 100,
            slot: None,
            kafka,
            daemons: (0..2).map(Daemon::new).collect(),
            birth: 0,
            looked_at: 0,
        }
    }

    /// A schedule, and the peace after it.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        for _ in 0..STEPS {
            self.step()?;
            self.look()?;
        }
        self.settle()?;
        self.all_arrived()
    }

    fn step(&mut self) -> Result<(), String> {
        let who = self.random.index(self.daemons.len());
        match self.random.below(100) {
            0..10 => self.commit(),
            10..12 => self.wal_end += self.random.below(20),
            12..13 => self.crash_of_the_server(),
            13..15 => self.lose_the_connection(who),
            15..17 => self.kill(who),
            17..19 => self.daemons[who].frozen = !self.daemons[who].frozen,
            19..22 => self.land_late(),
            22..23 => self.roll_back_for_being_open_too_long(),
            23..25 => {
                if let Some(slot) = &mut self.slot {
                    slot.on_disk = slot.confirmed;
                }
            }
            25..45 => self.deliver(who),
            _ => self.act(who)?,
        }
        Ok(())
    }

    /// A daemon does one thing, unless it is frozen.
    fn act(&mut self, who: usize) -> Result<(), String> {
        if self.daemons[who].frozen {
            return Ok(());
        }
        let mut daemon = std::mem::replace(&mut self.daemons[who], Daemon::new(who));
        let done = daemon.act(self);
        self.daemons[who] = daemon;
        done
    }

    fn commit(&mut self) {
        // Often without a byte in between.
        let gap = if self.random.once_in(2) { 0 } else { self.random.below(9) };
        let commit = self.wal_end + gap;
        let end = commit + 1 + self.random.below(9);
        // Some are large enough to be published in parts.
        let rows = if self.random.once_in(4) { 12 } else { 4 };
        let rows = self.random.below(rows);
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
        self.lose_the_connection(who);
        // What it had sent may still arrive, from the front.
        let (epoch, mut queue) = self.daemons[who].give_up();
        for _ in 0..self.random.index(queue.len() + 1) {
            self.arrives(epoch, &mut queue);
        }
        self.daemons[who] = Daemon::new(who);
    }

    fn arrives(&mut self, epoch: u64, queue: &mut VecDeque<Sent>) -> bool {
        let Some(sent) = queue.pop_front() else { return false };
        let fate = self.kafka.takes(epoch, sent);
        fate == Err(Fenced)
    }

    /// Kafka takes the next record of a daemon, frozen or not.
    fn deliver(&mut self, who: usize) {
        let mut queue = std::mem::take(&mut self.daemons[who].queue);
        let fenced = self.arrives(self.daemons[who].epoch(), &mut queue);
        self.daemons[who].queue = queue;
        self.daemons[who].fenced |= fenced;
    }

    /// A commit that was on its way arrives, or is refused.
    fn land_late(&mut self) {
        if !self.kafka.late.is_empty() {
            let place = self.random.index(self.kafka.late.len());
            let epoch = self.kafka.late.swap_remove(place);
            let _ = self.kafka.commit(epoch);
        }
    }

    fn roll_back_for_being_open_too_long(&mut self) {
        if self.kafka.fates.last() == Some(&Fate::Open) {
            self.kafka.epoch += 1;
            self.kafka.end(Fate::RolledBack);
        }
    }

    fn facts(&self, slot_confirmed: u64, slot_created_now: bool) -> SourceFacts {
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

    fn make_slot(&mut self) {
        let confirmed = self.wal_end;
        self.slot = Some(Slot { confirmed, on_disk: confirmed, holder: None });
        self.birth = confirmed;
    }

    /// What a reader of committed records has must be in order, without anything twice; and what
    /// the checkpoint covers must be there.
    fn look(&mut self) -> Result<(), String> {
        let decided = self.kafka.fates.iter().filter(|fate| **fate != Fate::Open).count();
        if decided == self.looked_at {
            return Ok(());
        }
        self.looked_at = decided;
        let mut there = BTreeSet::new();
        for partition in &self.kafka.topic {
            let mut last = None;
            for (of, record) in partition {
                if !self.kafka.is_committed(*of) {
                    continue;
                }
                if last.is_some_and(|last| last >= *record) {
                    return Err(format!("{record:?} comes behind {last:?}"));
                }
                last = Some(*record);
                there.insert(*record);
            }
        }
        let end = self.kafka.last_checkpoint().map_or(0, |last| last.end_lsn.0.0);
        self.missing(&there, end).map_or(Ok(()), |record| {
            Err(format!("the checkpoint at {end} covers {record:?}, which is not committed"))
        })
    }

    fn missing(&self, there: &BTreeSet<Record>, up_to: u64) -> Option<Record> {
        let due = self.log.iter().filter(|it| it.commit >= self.birth && it.end <= up_to);
        due.flat_map(|it| {
            let count = it.rows.len() as u64;
            (0..count).map(|ordinal| Record { commit: it.commit, ordinal })
        })
        .find(|record| !there.contains(record))
    }

    /// Nothing more goes wrong.
    fn settle(&mut self) -> Result<(), String> {
        for daemon in &mut self.daemons {
            daemon.frozen = false;
        }
        while !self.kafka.late.is_empty() {
            self.land_late();
        }
        for _ in 0..SETTLING {
            let who = self.random.index(self.daemons.len());
            if self.random.once_in(3) {
                self.deliver(who)
            } else {
                self.act(who)?
            }
            self.look()?;
            let confirmed = self.slot.map_or(0, |slot| slot.confirmed);
            if confirmed >= self.wal_end && self.slot.is_some() {
                return Ok(());
            }
        }
        Err(format!("it does not settle: {:?} of {}", self.slot, self.wal_end))
    }

    fn all_arrived(&self) -> Result<(), String> {
        let records = self.kafka.topic.iter().flatten();
        let committed = records.filter(|(of, _)| self.kafka.is_committed(*of));
        let there: BTreeSet<Record> = committed.map(|(_, record)| *record).collect();
        match self.missing(&there, self.wal_end) {
            Some(record) => Err(format!("{record:?} is lost")),
            None => Ok(()),
        }
    }
}
