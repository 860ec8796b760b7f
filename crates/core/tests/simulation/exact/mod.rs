//! The rules of exactly once: records and checkpoint in one Kafka transaction.
//!
//! Two daemons that share two transactional ids, which take turns; either may be killed, frozen or
//! cut off between any two steps, with records on their way. A commit is done, refused, or its
//! outcome is not known: it never came, or came and nobody heard, or comes late. Kafka rolls back
//! what is open for long.
//! After every step a reader of what is committed must have each change at most once and in order,
//! and in the end exactly once.

mod daemon;

use std::collections::{BTreeSet, VecDeque};

use waltide_core::checkpoint::Checkpoint;

use crate::random::Random;
use crate::server::{PARTITIONS, Record, Server, offset};
use crate::starting;
use daemon::Daemon;

/// Steps before everything is left to settle.
const STEPS: u32 = 160;

/// Steps in which it must have settled.
const SETTLING: u32 = 20_000;

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
    /// Of the two transactional ids one is not taken from the predecessor.
    FenceOne,
    /// A transaction is committed before the outcome of the one before it is known.
    CommitBeside,
}

impl Plant {
    pub(crate) const ALL: [Self; 13] = [
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
        Self::FenceOne,
        Self::CommitBeside,
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

/// Who sends: an epoch, and which of the two transactional ids.
type By = (u64, usize);

/// Kafka, as the holder of two transactional ids and a reader of what is committed see it.
struct Kafka {
    no_fence: bool,
    fence_one: bool,
    /// The last epoch that was given.
    epoch: u64,
    /// Of each id.
    epochs: [u64; 2],
    /// The transaction that each id has open.
    open: [Option<usize>; 2],
    fates: Vec<Fate>,
    /// By partition, in the order in which they came.
    topic: Vec<Vec<(usize, Record)>>,
    checkpoints: Vec<(usize, Vec<u8>)>,
    /// Commits that are still on their way.
    late: Vec<By>,
}

/// A producer of an older epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fenced;

impl Kafka {
    fn new(plant: Plant) -> Self {
        Self {
            no_fence: plant == Plant::NoFence,
            fence_one: plant == Plant::FenceOne,
            epoch: 0,
            epochs: [0, 0],
            open: [None, None],
            fates: Vec::new(),
            topic: vec![Vec::new(); PARTITIONS],
            checkpoints: Vec::new(),
            late: Vec::new(),
        }
    }

    fn end(&mut self, id: usize, fate: Fate) {
        if let Some(open) = self.open[id].take() {
            self.fates[open] = fate;
        }
    }

    fn refuses(&self, (epoch, id): By) -> bool {
        epoch != self.epochs[id] && !(self.fence_one && id == 1)
    }

    fn takes(&mut self, by: By, sent: Sent) -> Result<(), Fenced> {
        if self.refuses(by) {
            return Err(Fenced);
        }
        let fates = &mut self.fates;
        let transaction = *self.open[by.1].get_or_insert_with(|| {
            fates.push(Fate::Open);
            fates.len() - 1
        });
        match sent {
            Sent::Record(partition, record) => self.topic[partition].push((transaction, record)),
            Sent::Checkpoint(bytes) => self.checkpoints.push((transaction, bytes)),
        }
        Ok(())
    }

    fn commit(&mut self, by: By) -> Result<(), Fenced> {
        if self.refuses(by) {
            return Err(Fenced);
        }
        self.end(by.1, Fate::Committed);
        Ok(())
    }

    /// Whether it is known to be committed.
    fn asked_to_commit(&mut self, by: By, random: &mut Random) -> bool {
        match random.below(12) {
            0 => self.late.push(by),
            1 => {
                let _ = self.commit(by);
            }
            2 => {}
            _ => return self.commit(by).is_ok(),
        }
        false
    }

    fn is_committed(&self, transaction: usize) -> bool {
        self.fates[transaction] == Fate::Committed
    }

    /// A commit that was on its way arrives, or is refused.
    fn land_late(&mut self, random: &mut Random) {
        if !self.late.is_empty() {
            let place = random.index(self.late.len());
            let by = self.late.swap_remove(place);
            let _ = self.commit(by);
        }
    }
}

impl starting::Kafka for Kafka {
    /// What the one before had begun is rolled back.
    fn fence(&mut self) -> u64 {
        if !self.no_fence {
            self.epoch += 1;
            self.epochs[0] = self.epoch;
            self.end(0, Fate::RolledBack);
        }
        self.epoch
    }

    fn fence_rest(&mut self, epoch: u64) {
        if !self.no_fence && !self.fence_one {
            self.epochs[1] = epoch;
            self.end(1, Fate::RolledBack);
        }
    }

    /// The last committed one: who reads has shut out the others, so nothing is open.
    fn last_checkpoint(&self) -> Option<Checkpoint> {
        let last = self.checkpoints.iter().rev().find(|(of, _)| self.is_committed(*of));
        last.map(|(_, bytes)| Checkpoint::decode(bytes).expect("it is one of ours"))
    }

    fn ends(&self) -> Vec<i64> {
        self.topic.iter().map(|partition| offset(partition.len())).collect()
    }

    /// Sends the checkpoint and commits.
    fn write(&mut self, epoch: u64, checkpoint: &Checkpoint, random: &mut Random) -> bool {
        let mut bytes = Vec::new();
        checkpoint.encode(&mut bytes);
        let by = (epoch, 0);
        self.takes(by, Sent::Checkpoint(bytes)).is_ok() && self.asked_to_commit(by, random)
    }
}

pub(crate) struct World {
    random: Random,
    plant: Plant,
    server: Server,
    kafka: Kafka,
    daemons: Vec<Daemon>,
    /// Nobody is frozen any more.
    calm: bool,
    /// Fates that were decided when a reader last looked.
    looked_at: usize,
}

impl World {
    pub(crate) fn new(plant: Plant, seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            plant,
            server: Server::new(),
            kafka: Kafka::new(plant),
            daemons: (0..2).map(|id| Daemon::new(id, format!("daemon {id}"))).collect(),
            calm: false,
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
            0..10 => {
                // Some are large enough to be published in parts.
                let rows = if self.random.once_in(4) { 12 } else { 4 };
                self.server.commit(&mut self.random, rows);
            }
            10..12 => self.server.write(&mut self.random),
            12..13 => self.server.crash(),
            13..15 => self.server.lose_the_connection(who),
            15..17 => self.kill(who),
            17..19 => self.daemons[who].frozen = !self.daemons[who].frozen,
            19..22 => self.kafka.land_late(&mut self.random),
            22..23 => self.roll_back_for_being_open_too_long(),
            23..25 => self.server.flush(),
            25..42 => self.deliver(who),
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
        // Between two steps of a start is when others get into its way.
        daemon.frozen = !self.calm && daemon.is_starting() && self.random.once_in(20);
        self.daemons[who] = daemon;
        done
    }

    fn kill(&mut self, who: usize) {
        self.server.lose_the_connection(who);
        // What it had sent may still arrive, from the front.
        let (by, mut queue) = self.daemons[who].give_up();
        for _ in 0..self.random.index(queue.len() + 1) {
            self.arrives(by, &mut queue);
        }
        let life = self.random.below(u64::MAX);
        self.daemons[who] = Daemon::new(who, format!("daemon {who} {life}"));
    }

    fn arrives(&mut self, by: By, queue: &mut VecDeque<Sent>) -> bool {
        let Some(sent) = queue.pop_front() else { return false };
        let fate = self.kafka.takes(by, sent);
        fate == Err(Fenced)
    }

    /// Kafka takes the next record of a daemon, frozen or not.
    fn deliver(&mut self, who: usize) {
        let mut queue = std::mem::take(&mut self.daemons[who].queue);
        let fenced = self.arrives(self.daemons[who].by(), &mut queue);
        self.daemons[who].queue = queue;
        self.daemons[who].fenced |= fenced;
    }

    fn roll_back_for_being_open_too_long(&mut self) {
        let id = self.random.index(2);
        if self.kafka.open[id].is_some() {
            self.kafka.epoch += 1;
            self.kafka.epochs[id] = self.kafka.epoch;
            self.kafka.end(id, Fate::RolledBack);
        }
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
        let last = starting::Kafka::last_checkpoint(&self.kafka);
        let end = last.map_or(0, |last| last.end_lsn.0.0);
        self.missing(&there, end).map_or(Ok(()), |record| {
            Err(format!("the checkpoint at {end} covers {record:?}, which is not committed"))
        })
    }

    fn missing(&self, there: &BTreeSet<Record>, up_to: u64) -> Option<Record> {
        let due = self.server.log.iter().filter(|it| it.end <= up_to);
        due.flat_map(|transaction| self.server.due(transaction))
            .find(|record| !there.contains(record))
    }

    /// Nothing more goes wrong.
    fn settle(&mut self) -> Result<(), String> {
        self.calm = true;
        for daemon in &mut self.daemons {
            daemon.frozen = false;
        }
        while !self.kafka.late.is_empty() {
            self.kafka.land_late(&mut self.random);
        }
        for _ in 0..SETTLING {
            let who = self.random.index(self.daemons.len());
            if self.random.once_in(3) {
                self.deliver(who)
            } else {
                self.act(who)?
            }
            self.look()?;
            if self.server.is_settled() {
                return Ok(());
            }
        }
        Err(format!("it does not settle: {:?} of {}", self.server.slot, self.server.wal_end))
    }

    fn all_arrived(&self) -> Result<(), String> {
        let records = self.kafka.topic.iter().flatten();
        let committed = records.filter(|(of, _)| self.kafka.is_committed(*of));
        let there: BTreeSet<Record> = committed.map(|(_, record)| *record).collect();
        match self.missing(&there, self.server.wal_end) {
            Some(record) => Err(format!("{record:?} is lost")),
            None => Ok(()),
        }
    }
}
