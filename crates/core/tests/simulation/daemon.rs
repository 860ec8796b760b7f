//! A daemon: the real books and the real recovery, and the glue between them in few words.

use std::collections::VecDeque;

use waltide_core::checkpoint::{Checkpoint, Progress, Resume, resume};
use waltide_core::intake::Intake;
use waltide_core::lsn::{CommitLsn, DurableLsn, EndLsn, Lsn};
use waltide_core::pgoutput::{Begin, Commit, PgTimestamp, Xid};
use waltide_core::watermark::Ticket;

use crate::world::{PARTITIONS, Plant, World};

/// A record, by its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Record {
    pub(crate) commit: u64,
    pub(crate) ordinal: u64,
}

pub(crate) type Queue = VecDeque<(Ticket, Record)>;

pub(crate) struct Daemon {
    id: usize,
    instance: String,
    pub(crate) frozen: bool,
    stream: Option<Stream>,
    /// By partition: records on their way.
    pub(crate) in_flight: Vec<Queue>,
    /// Reports nobody has looked at, in any order.
    pub(crate) reports: Vec<Ticket>,
}

/// A connection that streams.
struct Stream {
    intake: Intake,
    /// The next transaction of the log, and its next row.
    at: (usize, usize),
    received: u64,
    /// What the last keepalive said.
    heard: u64,
    epoch: u64,
    /// What a checkpoint covers.
    written: u64,
    last: Checkpoint,
    /// The checkpoint this life began with, as it lies in the topic.
    base: Option<Vec<u8>>,
}

impl Daemon {
    pub(crate) fn new(id: usize, instance: String) -> Self {
        let in_flight = vec![Queue::new(); PARTITIONS];
        Self { id, instance, frozen: false, stream: None, in_flight, reports: Vec::new() }
    }

    pub(crate) fn act(&mut self, world: &mut World) -> Result<(), String> {
        let holds = world.slot.is_some_and(|slot| slot.holder == Some(self.id));
        if self.stream.is_none() {
            return self.start(world);
        }
        // That the connection is lost shows late.
        match world.random.below(10) {
            0..5 if holds => self.read(world),
            0..5 => self.disconnect(world),
            5..7 => self.settle(world),
            7..9 => self.write(world)?,
            _ if holds => self.tell(world),
            _ => {}
        }
        Ok(())
    }

    fn disconnect(&mut self, world: &mut World) {
        self.stream = None;
        self.reports.clear();
        let queues = std::mem::replace(&mut self.in_flight, vec![Queue::new(); PARTITIONS]);
        world.land(queues);
        if let Some(slot) = &mut world.slot
            && slot.holder == Some(self.id)
        {
            slot.holder = None;
        }
    }

    /// From nothing to a stream.
    fn start(&mut self, world: &mut World) -> Result<(), String> {
        let mut made = false;
        if world.slot.is_none() {
            if world.last_checkpoint().is_some() {
                return Err("the slot is missing".to_owned());
            }
            world.make_slot();
            made = true;
        }
        let Some(slot) = &mut world.slot else { return Ok(()) };
        if slot.holder.is_some() {
            return Ok(());
        }
        slot.holder = Some(self.id);
        let confirmed = slot.confirmed;
        let too_early = world.last_checkpoint();
        world.meanwhile();
        let epoch = fence(world);
        world.meanwhile();
        let found = match world.plant {
            Plant::ReadBeforeFence => too_early,
            _ => world.last_checkpoint(),
        };
        // A crash between these two is a birth that was not written down.
        let facts = world.facts(confirmed, made);
        let hold = world.topics_hold_records();
        let decided = match resume(found.as_ref(), &facts, hold) {
            Ok(decided) => decided,
            Err(stop) => return Err(format!("stopped without need: {stop}")),
        };
        let mut start = decided.start();
        if world.plant == Plant::ResumeOneTooFar {
            start = DurableLsn::proven(Lsn(start.lsn().0 + 1));
        }
        let last = found.unwrap_or_else(|| self.birth(confirmed));
        let last = Checkpoint { instance: self.instance.clone(), ..last };
        let is_new = matches!(decided, Resume::Birth { .. } | Resume::Adopt { .. });
        if is_new && world.plant != Plant::NoBirthCheckpoint {
            let mut bytes = Vec::new();
            last.encode(&mut bytes);
            world.checkpoints.log.push(bytes);
        }
        // The server sends what was committed at or past the slot's position.
        let first = world.log.iter().position(|it| it.commit >= confirmed);
        self.stream = Some(Stream {
            intake: Intake::resume(start),
            at: (first.unwrap_or(world.log.len()), 0),
            received: confirmed,
            heard: 0,
            epoch,
            written: start.lsn().0,
            last,
            base: world.checkpoints.log.last().cloned(),
        });
        Ok(())
    }

    fn birth(&self, at: u64) -> Checkpoint {
        Checkpoint {
            system_identifier: 7,
            timeline: 1,
            database: "shop".to_owned(),
            slot: "shop".to_owned(),
            publication_fingerprint: String::new(),
            commit_lsn: CommitLsn(Lsn(0)),
            end_lsn: EndLsn(Lsn(at)),
            progress: Progress::Complete,
            topics: Vec::new(),
            schemas: Vec::new(),
            settled_at_us: 0,
            snapshot: None,
            instance: self.instance.clone(),
            written_at_us: 0,
        }
    }

    /// The next message of the stream.
    fn read(&mut self, world: &mut World) {
        let Some(stream) = &mut self.stream else { return };
        let (transaction, row) = stream.at;
        let Some(next) = world.log.get(transaction) else {
            stream.intake.passed(Lsn(world.wal_end)).expect("nothing is awaited");
            stream.heard = world.wal_end;
            stream.received = stream.received.max(world.wal_end);
            return;
        };
        let commit_lsn = CommitLsn(Lsn(next.commit));
        if row == 0 && !stream.intake.in_transaction() {
            let begin = Begin { commit_lsn, commit_time: PgTimestamp(0), xid: Xid(1) };
            stream.intake.begin(&begin).expect("the server's order");
        } else if let Some(partition) = next.rows.get(row) {
            stream.at.1 += 1;
            let Some(place) = stream.intake.row().expect("inside") else { return };
            let record = Record { commit: next.commit, ordinal: place.position.ordinal };
            self.in_flight[*partition].push_back((place.ticket, record));
            stream.intake.produced();
            if world.plant == Plant::DeliveredOnceQueued {
                stream.intake.delivered(place.ticket, 1).expect("it was produced");
            }
        } else {
            let commit =
                Commit { commit_lsn, end_lsn: EndLsn(Lsn(next.end)), commit_time: PgTimestamp(0) };
            stream.intake.commit(&commit).expect("the server's order");
            stream.received = stream.received.max(next.end);
            stream.at = (transaction + 1, 0);
        }
    }

    /// Enters some reports into the books.
    fn settle(&mut self, world: &mut World) {
        let Some(stream) = &mut self.stream else { return };
        while !self.reports.is_empty() && !world.random.once_in(4) {
            let place = world.random.index(self.reports.len());
            let ticket = self.reports.swap_remove(place);
            if world.plant != Plant::DeliveredOnceQueued {
                stream.intake.delivered(ticket, 1).expect("it was produced");
            }
        }
    }

    /// Writes a checkpoint.
    fn write(&mut self, world: &mut World) -> Result<(), String> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        let end = match world.plant {
            Plant::CheckpointWhatWasReceived => stream.received,
            _ => stream.intake.durable().lsn().0,
        };
        let next = Checkpoint { end_lsn: EndLsn(Lsn(end)), ..stream.last.clone() };
        let mut bytes = Vec::new();
        next.encode(&mut bytes);
        if stream.epoch != world.checkpoints.epoch && world.plant != Plant::NoFence {
            self.disconnect(world);
            return Ok(());
        }
        match world.random.below(8) {
            0 => world.checkpoints.late.push((stream.epoch, bytes)),
            1 => world.checkpoints.log.push(bytes),
            2 => {}
            _ => {
                world.checkpoints.log.push(bytes);
                stream.written = end;
                stream.last = next;
                return Ok(());
            }
        }
        // Nobody knows whether it is there.
        if world.plant != Plant::UnknownIsLost {
            self.renew(world);
        }
        Ok(())
    }

    /// A new writer in place of one that is used up.
    fn renew(&mut self, world: &mut World) {
        let holds = world.slot.is_some_and(|slot| slot.holder == Some(self.id));
        if !holds {
            return self.disconnect(world);
        }
        let epoch = fence(world);
        let ours = world.last_checkpoint().is_some_and(|found| found.instance == self.instance);
        let Some(stream) = &mut self.stream else { return };
        // Before the first checkpoint of this life the last one is the one it began with.
        let untouched = world.checkpoints.log.last() == stream.base.as_ref();
        if ours || untouched {
            stream.epoch = epoch;
        } else {
            self.disconnect(world);
        }
    }

    /// Tells the server what may go.
    fn tell(&mut self, world: &mut World) {
        let Some(stream) = &self.stream else { return };
        let told = match world.plant {
            Plant::ConfirmBeforeCheckpoint => stream.intake.durable().lsn().0,
            Plant::KeepaliveConfirmsAll => stream.written.max(stream.heard),
            _ => stream.written,
        };
        if let Some(slot) = &mut world.slot {
            slot.confirmed = slot.confirmed.max(told);
        }
    }
}

/// Shuts out whoever wrote before.
fn fence(world: &mut World) -> u64 {
    if world.plant != Plant::NoFence {
        world.checkpoints.epoch += 1;
    }
    world.checkpoints.epoch
}
