//! The rules of at least once: a server, Kafka, and what may happen.

use std::collections::{HashSet, VecDeque};

use waltide_core::checkpoint::Checkpoint;
use waltide_core::watermark::Ticket;

use crate::daemon::Daemon;
use crate::random::Random;
use crate::server::{PARTITIONS, Record, Server, offset};
use crate::starting;

/// Steps before everything is left to settle.
const STEPS: u32 = 160;

/// Steps in which it must have settled.
const SETTLING: u32 = 20_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// One daemon at a time, which is killed and started again.
    Alone,
    /// Two, which may freeze and wake.
    WithStandby,
}

/// A bug of who drives the machines.
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

/// The topic, the only partition of the checkpoint topic, and who may write to it.
pub(crate) struct Kafka {
    no_fence: bool,
    epoch: u64,
    checkpoints: Vec<Vec<u8>>,
    /// Commits on their way, with their writer's epoch.
    late: Vec<(u64, Vec<u8>)>,
    topic: Vec<Vec<Record>>,
    published: HashSet<Record>,
    /// A checkpoint that nobody could read was to be written.
    contradicted: bool,
}

impl Kafka {
    fn new(no_fence: bool) -> Self {
        Self {
            no_fence,
            epoch: 0,
            checkpoints: Vec::new(),
            late: Vec::new(),
            topic: vec![Vec::new(); PARTITIONS],
            published: HashSet::new(),
            contradicted: false,
        }
    }

    /// Whether a writer of that epoch is shut out.
    pub(crate) fn refuses(&self, epoch: u64) -> bool {
        epoch != self.epoch && !self.no_fence
    }

    /// Where it lies.
    fn append(&mut self, partition: usize, record: Record) -> i64 {
        self.topic[partition].push(record);
        self.published.insert(record);
        offset(self.topic[partition].len()) - 1
    }

    /// A commit that was on its way arrives, or is refused.
    fn land_late(&mut self, random: &mut Random) {
        if self.late.is_empty() {
            return;
        }
        let place = random.index(self.late.len());
        let (epoch, bytes) = self.late.swap_remove(place);
        if !self.refuses(epoch) {
            self.checkpoints.push(bytes);
        }
    }
}

impl starting::Kafka for Kafka {
    fn fence(&mut self) -> u64 {
        if !self.no_fence {
            self.epoch += 1;
        }
        self.epoch
    }

    fn last_checkpoint(&self) -> Option<Checkpoint> {
        let bytes = self.checkpoints.last()?;
        Some(Checkpoint::decode(bytes).expect("it is one of ours"))
    }

    fn ends(&self) -> Vec<i64> {
        self.topic.iter().map(|partition| offset(partition.len())).collect()
    }

    fn write(&mut self, epoch: u64, checkpoint: &Checkpoint, random: &mut Random) -> bool {
        if self.refuses(epoch) {
            return false;
        }
        let mut bytes = Vec::new();
        checkpoint.encode(&mut bytes);
        if Checkpoint::decode(&bytes).is_err() {
            self.contradicted = true;
            return false;
        }
        match random.below(8) {
            0 => self.late.push((epoch, bytes)),
            1 => self.checkpoints.push(bytes),
            2 => {}
            _ => {
                self.checkpoints.push(bytes);
                return true;
            }
        }
        false
    }
}

pub(crate) struct World {
    pub(crate) random: Random,
    pub(crate) plant: Plant,
    mode: Mode,
    pub(crate) server: Server,
    pub(crate) kafka: Kafka,
    daemons: Vec<Daemon>,
    /// Nobody is frozen any more.
    calm: bool,
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
            server: Server::new(),
            kafka: Kafka::new(plant == Plant::NoFence),
            daemons: (0..daemons).map(|id| Daemon::new(id, format!("daemon {id}"))).collect(),
            calm: false,
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
            0..12 => self.server.commit(&mut self.random, 4),
            12..14 => self.server.write(&mut self.random),
            14..15 => self.server.crash(),
            15..17 => self.server.lose_the_connection(who),
            17..18 => self.kill(who),
            18..21 if self.mode == Mode::WithStandby => {
                self.daemons[who].frozen = !self.daemons[who].frozen;
            }
            21..23 => self.kafka.land_late(&mut self.random),
            23..25 => self.server.flush(),
            25..40 => self.deliver(who),
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
        // Between two steps of a start, and of getting a new writer, is when others get into its way.
        let moment = self.mode == Mode::WithStandby && daemon.is_between_steps();
        if moment && !self.calm && self.random.once_in(20) {
            daemon.frozen = true;
            self.server.lose_the_connection(who);
        }
        self.daemons[who] = daemon;
        done
    }

    fn kill(&mut self, who: usize) {
        // What a producer that is given up had sent may still arrive, from the front.
        let queues = std::mem::take(&mut self.daemons[who].in_flight);
        self.land(queues);
        self.server.lose_the_connection(who);
        let life = self.random.below(u64::MAX);
        self.daemons[who] = Daemon::new(who, format!("daemon {who} {life}"));
    }

    pub(crate) fn land(&mut self, queues: Vec<VecDeque<(Ticket, Record)>>) {
        for (partition, queue) in queues.into_iter().enumerate() {
            let arrive = self.random.index(queue.len() + 1);
            for (_, record) in queue.into_iter().take(arrive) {
                self.kafka.append(partition, record);
            }
        }
    }

    /// Kafka takes the next record of one partition, and reports it.
    fn deliver(&mut self, who: usize) {
        let partition = self.random.index(PARTITIONS);
        let taken =
            self.daemons[who].in_flight.get_mut(partition).and_then(|queue| queue.pop_front());
        if let Some((ticket, record)) = taken {
            let offset = self.kafka.append(partition, record);
            self.daemons[who].reports.push((ticket, partition, offset));
        }
    }

    /// What must hold after every step.
    fn check(&mut self) -> Result<(), String> {
        if self.kafka.contradicted {
            return Err("a checkpoint contradicts itself".to_owned());
        }
        if self.looked_at == self.kafka.checkpoints.len() {
            return Ok(());
        }
        self.looked_at = self.kafka.checkpoints.len();
        let Some(checkpoint) = starting::Kafka::last_checkpoint(&self.kafka) else {
            return Ok(());
        };
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
        while let Some(transaction) = self.server.log.get(self.seen).filter(|it| it.end <= up_to) {
            let missing =
                self.server.due(transaction).find(|it| !self.kafka.published.contains(it));
            if let Some(record) = missing {
                return Err(record);
            }
            self.seen += 1;
        }
        Ok(())
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
            self.check()?;
            if self.server.is_settled() {
                return Ok(());
            }
        }
        Err(format!("it does not settle: {:?} of {}", self.server.slot, self.server.wal_end))
    }

    fn check_all_arrived(&mut self) -> Result<(), String> {
        self.all_there(self.server.wal_end).map_err(|record| format!("{record:?} is lost"))
    }

    /// In each partition what comes again is the end of what was there, in the same order.
    fn check_repeats(&self) -> Result<(), String> {
        for records in &self.kafka.topic {
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
