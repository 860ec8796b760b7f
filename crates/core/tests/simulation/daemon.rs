//! A daemon: the machines, the books and the checkpoint as they are, and hands for this world.

use std::collections::VecDeque;

use waltide_core::checkpoint::Checkpoint;
use waltide_core::delivery::{Act, Began, Came, End, Keep, Offer, Seen};
use waltide_core::intake::Intake;
use waltide_core::lsn::{CommitLsn, DurableLsn, EndLsn, Lsn};
use waltide_core::pgoutput::{Begin, Commit, PgTimestamp, Xid};
use waltide_core::watermark::Ticket;

use crate::server::{PARTITIONS, Record, Server};
use crate::starting::{Kafka, Phase, Slips, Starting, TOPIC};
use crate::world::{Plant, World};

pub(crate) type Queue = VecDeque<(Ticket, Record)>;

pub(crate) struct Daemon {
    id: usize,
    instance: String,
    pub(crate) frozen: bool,
    phase: Phase<Stream>,
    /// By partition: records on their way.
    pub(crate) in_flight: Vec<Queue>,
    /// Reports nobody has looked at, in any order: of what, and where it lies.
    pub(crate) reports: Vec<(Ticket, usize, i64)>,
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
    keep: Keep,
    /// What the keeper is about to do.
    act: Option<Act>,
    /// What was confirmed.
    written: u64,
    ends: Vec<i64>,
    /// What the keeper began with, for a plant.
    last: Checkpoint,
}

impl Daemon {
    pub(crate) fn new(id: usize, instance: String) -> Self {
        let in_flight = vec![Queue::new(); PARTITIONS];
        let phase = Phase::Off;
        Self { id, instance, frozen: false, phase, in_flight, reports: Vec::new() }
    }

    pub(crate) fn is_between_steps(&self) -> bool {
        match &self.phase {
            Phase::Off => false,
            Phase::Starting(_) => true,
            Phase::Streaming(stream) => stream.act.is_some(),
        }
    }

    pub(crate) fn act(&mut self, world: &mut World) -> Result<(), String> {
        match &mut self.phase {
            Phase::Off => {
                let starting = Starting::new(&self.instance, false);
                self.phase = Phase::Starting(Box::new(starting));
                Ok(())
            }
            Phase::Starting(_) => self.start(world),
            Phase::Streaming(_) => self.stream(world),
        }
    }

    fn start(&mut self, world: &mut World) -> Result<(), String> {
        let slips = Slips {
            reads_early: world.plant == Plant::ReadBeforeFence,
            no_birth: world.plant == Plant::NoBirthCheckpoint,
            one_too_far: world.plant == Plant::ResumeOneTooFar,
            remembered: None,
        };
        let World { server, kafka, random, .. } = world;
        if !self.phase.go_on(self.id, server, kafka, random, &slips, Stream::new)? {
            self.disconnect(world);
        }
        Ok(())
    }

    fn stream(&mut self, world: &mut World) -> Result<(), String> {
        let holds = world.server.holds(self.id);
        // That the connection is lost shows late.
        match world.random.below(10) {
            0..5 if holds => self.read(world),
            0..5 if world.random.once_in(6) => self.disconnect(world),
            5..7 => self.settle(world),
            7..9 => return self.keep(world),
            _ if holds => self.tell(world),
            _ => {}
        }
        Ok(())
    }

    fn disconnect(&mut self, world: &mut World) {
        self.phase = Phase::Off;
        self.reports.clear();
        let queues = std::mem::replace(&mut self.in_flight, vec![Queue::new(); PARTITIONS]);
        world.land(queues);
        world.server.lose_the_connection(self.id);
    }

    /// The next message of the stream.
    fn read(&mut self, world: &World) {
        let Phase::Streaming(stream) = &mut self.phase else { return };
        let (transaction, row) = stream.at;
        let Some(next) = world.server.log.get(transaction) else {
            let end = world.server.wal_end;
            stream.intake.passed(Lsn(end)).expect("nothing is awaited");
            stream.heard = end;
            stream.received = stream.received.max(end);
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
        let Phase::Streaming(stream) = &mut self.phase else { return };
        while !self.reports.is_empty() && !world.random.once_in(4) {
            let place = world.random.index(self.reports.len());
            let (ticket, partition, offset) = self.reports.swap_remove(place);
            stream.ends[partition] = stream.ends[partition].max(offset + 1);
            if world.plant != Plant::DeliveredOnceQueued {
                stream.intake.delivered(ticket, 1).expect("it was produced");
            }
        }
    }

    /// The keeper takes its next step.
    fn keep(&mut self, world: &mut World) -> Result<(), String> {
        let Phase::Streaming(stream) = &mut self.phase else { return Ok(()) };
        let Some(act) = stream.act.take() else {
            stream.act = Some(stream.offer(world));
            return Ok(());
        };
        let Some(came) = stream.perform(act, self.id, world) else { return Ok(()) };
        if came == Came::Unknown && world.plant == Plant::UnknownIsLost {
            stream.keep = Keep::new(stream.last.clone(), None);
            return Ok(());
        }
        match stream.keep.on(came) {
            Act::Confirm(durable) => stream.written = durable.lsn().0,
            Act::End(End::Refused | End::SlotLost | End::Superseded { .. }) => {
                self.disconnect(world);
            }
            Act::End(end) => return Err(format!("stopped without need: {end:?}")),
            act => stream.act = Some(act),
        }
        Ok(())
    }

    /// Tells the server what may go.
    fn tell(&self, world: &mut World) {
        let Phase::Streaming(stream) = &self.phase else { return };
        world.server.confirm(match world.plant {
            Plant::ConfirmBeforeCheckpoint => stream.intake.durable().lsn().0,
            Plant::KeepaliveConfirmsAll => stream.written.max(stream.heard),
            _ => stream.written,
        });
    }
}

impl Stream {
    fn new(began: Began, epoch: u64, server: &Server) -> Self {
        let Began { resume, last, base, .. } = began;
        Self {
            intake: Intake::resume(resume),
            at: (server.first_to_send(), 0),
            received: server.slot.map_or(0, |slot| slot.confirmed),
            heard: 0,
            epoch,
            keep: Keep::new(last.clone(), base),
            act: None,
            written: 0,
            ends: vec![0; PARTITIONS],
            last,
        }
    }

    /// Everything that is delivered is offered to the keeper.
    fn offer(&mut self, world: &World) -> Act {
        let durable = match world.plant {
            Plant::CheckpointWhatWasReceived => DurableLsn::proven(Lsn(self.received)),
            _ => self.intake.durable(),
        };
        let offer = Offer { durable, last: self.intake.last_durable(), books: None };
        let ends = vec![(TOPIC.to_owned(), self.ends.clone())];
        self.keep.write(&offer, Seen { ends, ..Seen::default() })
    }

    /// None where the keeper has nothing more to hear.
    fn perform(&mut self, act: Act, who: usize, world: &mut World) -> Option<Came> {
        let World { kafka, random, server, .. } = world;
        Some(match act {
            Act::Write(_) if kafka.refuses(self.epoch) => Came::Refused,
            Act::Write(next) if kafka.write(self.epoch, &next, random) => Came::Written,
            Act::Write(_) => Came::Unknown,
            // Kafka or the server may be away.
            Act::AskForSlot | Act::Recall if random.once_in(10) => return self.again(act),
            Act::Fence if random.once_in(10) => Came::Unknown,
            Act::AskForSlot => Came::Slot { ours: server.holds(who) },
            Act::Fence => {
                self.epoch = kafka.fence();
                Came::Fenced
            }
            Act::Recall => Came::Checkpoint(kafka.last_checkpoint().map(Box::new)),
            Act::Confirm(_) | Act::End(_) => return None,
        })
    }

    fn again(&mut self, act: Act) -> Option<Came> {
        if act == Act::Recall {
            return Some(Came::Unknown);
        }
        self.act = Some(act);
        None
    }
}
