//! A daemon that publishes exactly once: the machines, the books and the checkpoint as they
//! are, and hands for this world.

use std::collections::VecDeque;

use waltide_core::checkpoint::{Checkpoint, Progress};
use waltide_core::delivery::{Began, Commit as Commits, Seen};
use waltide_core::intake::Intake;
use waltide_core::lsn::{CommitLsn, EndLsn, Lsn};
use waltide_core::pgoutput::{Begin, Commit, Decoder, PgTimestamp, Xid};

use super::{By, Plant, Sent, World};
use crate::server::{Record, Server};
use crate::starting::{Kafka, Phase, Slips, Starting, TOPIC};

pub(super) struct Daemon {
    id: usize,
    instance: String,
    pub(super) frozen: bool,
    /// It has met a successor, and knows.
    pub(super) fenced: bool,
    phase: Phase<Stream>,
    /// On its way to Kafka.
    pub(super) queue: VecDeque<Sent>,
    /// What it wrote last, for a plant.
    remembered: Option<Checkpoint>,
}

/// A connection that streams, and its producer.
struct Stream {
    intake: Intake,
    epoch: u64,
    /// The next transaction of the log, and its next row.
    at: (usize, usize),
    commits: Commits,
    /// Through which transactional id records go.
    turn: usize,
    /// What is sent with a commit that is on its way, and whether its outcome will be known.
    committing: Option<(Checkpoint, bool)>,
    /// What is to be committed behind that, through the other id.
    waiting: Option<(Checkpoint, usize)>,
    /// What a committed checkpoint covers.
    written: u64,
    /// As it was last committed, for a plant.
    last: Checkpoint,
}

impl Daemon {
    pub(super) fn new(id: usize, instance: String) -> Self {
        let (phase, queue) = (Phase::Off, VecDeque::new());
        Self { id, instance, frozen: false, fenced: false, phase, queue, remembered: None }
    }

    /// Who sends what it has in its queue.
    pub(super) fn by(&self) -> By {
        match &self.phase {
            Phase::Off => (0, 0),
            Phase::Starting(starting) => (starting.epoch, 0),
            Phase::Streaming(stream) => stream.by(),
        }
    }

    /// Everything of it that Kafka may still hear of.
    pub(super) fn give_up(&mut self) -> (By, VecDeque<Sent>) {
        (self.by(), std::mem::take(&mut self.queue))
    }

    pub(super) fn is_starting(&self) -> bool {
        matches!(self.phase, Phase::Starting(_))
    }

    pub(super) fn act(&mut self, world: &mut World) -> Result<(), String> {
        match &mut self.phase {
            Phase::Off => {
                let starting = Starting::new(&self.instance, true);
                self.phase = Phase::Starting(Box::new(starting));
                Ok(())
            }
            Phase::Starting(_) => self.start(world),
            Phase::Streaming(_) => self.stream(world),
        }
    }

    fn start(&mut self, world: &mut World) -> Result<(), String> {
        let slips = Slips {
            reads_early: world.plant == Plant::ReadBeforeInit,
            remembered: self.remembered.clone().filter(|_| world.plant == Plant::UnknownIsLost),
            ..Slips::default()
        };
        let World { server, kafka, random, .. } = world;
        if !self.phase.go_on(self.id, server, kafka, random, &slips, Stream::new)? {
            self.disconnect(world);
        }
        Ok(())
    }

    fn stream(&mut self, world: &mut World) -> Result<(), String> {
        if self.fenced {
            self.disconnect(world);
            return Ok(());
        }
        let holds = world.server.holds(self.id);
        // That the connection is lost shows late.
        match world.random.below(10) {
            0..6 if holds => return self.read(world),
            0..6 => self.disconnect(world),
            6..9 => self.cut(world),
            _ if holds => self.tell(world),
            _ => {}
        }
        Ok(())
    }

    /// What is on its way is dropped with the producer.
    fn disconnect(&mut self, world: &mut World) {
        let (by, mut queue) = self.give_up();
        for _ in 0..world.random.index(queue.len() + 1) {
            world.arrives(by, &mut queue);
        }
        self.phase = Phase::Off;
        self.fenced = false;
        world.server.lose_the_connection(self.id);
    }

    /// The next message of the stream.
    fn read(&mut self, world: &mut World) -> Result<(), String> {
        let Phase::Streaming(stream) = &mut self.phase else { return Ok(()) };
        // Neither id takes anything.
        if stream.waiting.is_some() {
            return Ok(());
        }
        let refused = |disorder| format!("stopped without need: {disorder}");
        let (transaction, row) = stream.at;
        let Some(next) = world.server.log.get(transaction) else {
            return stream.intake.passed(Lsn(world.server.wal_end)).map_err(refused);
        };
        let commit_lsn = CommitLsn(Lsn(next.commit));
        if row == 0 && !stream.intake.in_transaction() {
            let begin = Begin { commit_lsn, commit_time: PgTimestamp(0), xid: Xid(1) };
            return stream.intake.begin(&begin).map_err(refused);
        }
        if let Some(partition) = next.rows.get(row) {
            stream.at.1 += 1;
            let bytes = message(next.commit, row);
            stream.intake.sees(&Decoder::new().decode(&bytes).expect("an insert"));
            let Some(place) = stream.intake.row().map_err(refused)? else { return Ok(()) };
            if stream.intake.is_muted() {
                return Ok(());
            }
            let record = Record { commit: next.commit, ordinal: place.position.ordinal };
            self.queue.push_back(Sent::Record(*partition, record));
            stream.intake.produced();
            // When exactly it is reported makes no difference: a commit waits for all of them.
            stream.intake.delivered(place.ticket, 1).expect("it was produced");
            return Ok(());
        }
        let end_lsn = EndLsn(Lsn(next.end));
        let commit = Commit { commit_lsn, end_lsn, commit_time: PgTimestamp(0) };
        stream.at = (transaction + 1, 0);
        stream.intake.commit(&commit).map_err(refused)
    }

    /// Ends the Kafka transaction, wherever the stream is. What comes of it shows later.
    fn cut(&mut self, world: &mut World) {
        let Phase::Streaming(stream) = &mut self.phase else { return };
        let asks = stream.waiting.is_some() || world.random.once_in(2);
        if let Some(sent) = stream.committing.take_if(|_| asks) {
            return self.committed(sent, world);
        }
        let mut handed = stream.intake.handed_over();
        match (&mut handed.progress, world.plant) {
            (Progress::Partial(partial), Plant::OrdinalTooFar) => partial.ordinal += 1,
            (Progress::Partial(partial), Plant::OrdinalTooNear) => {
                partial.ordinal = partial.ordinal.saturating_sub(1)
            }
            (Progress::Partial(_), Plant::LastOfPartDropped) => {
                self.queue.pop_back();
            }
            (progress @ Progress::Partial(_), Plant::OrdinalLeftOut) => {
                *progress = Progress::Complete;
            }
            (progress, Plant::IdleForgetsPart) if !stream.intake.in_transaction() => {
                *progress = Progress::Complete;
            }
            _ => {}
        }
        // It waits until all of it has arrived.
        let by = stream.by();
        while !self.queue.is_empty() {
            if world.arrives(by, &mut self.queue) {
                return self.disconnect(world);
            }
        }
        let apart = world.plant == Plant::CheckpointApart;
        if apart && (world.kafka.commit(by).is_err() || world.random.once_in(8)) {
            return self.disconnect(world);
        }
        let ends = vec![(TOPIC.to_owned(), world.kafka.ends())];
        let end = handed.end.0.0;
        let next = stream.commits.cut(handed, None, Seen { ends, ..Seen::default() });
        let next = next.expect("two may be on their way").clone();
        if world.plant == Plant::ToldBeforeCommit {
            stream.written = stream.written.max(end);
            world.server.confirm(stream.written);
        }
        let mut bytes = Vec::new();
        next.encode(&mut bytes);
        if world.kafka.takes(by, Sent::Checkpoint(bytes)).is_err() {
            return self.disconnect(world);
        }
        stream.turn = 1 - stream.turn;
        if stream.committing.is_none() {
            let known = world.kafka.asked_to_commit(by, &mut world.random);
            stream.committing = Some((next, known));
            return;
        }
        if world.plant == Plant::CommitBeside {
            let _ = world.kafka.commit(by);
        }
        stream.waiting = Some((next, by.1));
    }

    /// The outcome of a commit, or that there is none to be known.
    fn committed(&mut self, (sent, known): (Checkpoint, bool), world: &mut World) {
        let Phase::Streaming(stream) = &mut self.phase else { return };
        if known {
            let told = stream.commits.committed(stream.intake.durable());
            let told = told.expect("what is committed is delivered").expect("it was on its way");
            (stream.written, stream.last) = (told.lsn().0, sent);
        } else if world.plant == Plant::UnknownIsGoneOnWith {
            let told = stream.commits.committed(stream.intake.durable());
            told.expect("what is sent is delivered").expect("it was on its way");
        } else {
            self.remembered = Some(stream.last.clone());
            return self.disconnect(world);
        }
        if let Some((next, id)) = stream.waiting.take() {
            let by = (stream.epoch, id);
            let known = world.kafka.asked_to_commit(by, &mut world.random);
            stream.committing = Some((next, known));
        }
    }

    /// Tells the server what may go.
    fn tell(&self, world: &mut World) {
        let Phase::Streaming(stream) = &self.phase else { return };
        world.server.confirm(stream.written);
    }
}

impl Stream {
    fn by(&self) -> By {
        (self.epoch, self.turn)
    }

    fn new(began: Began, epoch: u64, server: &Server) -> Self {
        let Began { resume, inside, last, .. } = began;
        Self {
            intake: Intake::resume_inside(resume, inside),
            epoch,
            at: (server.first_to_send(), 0),
            commits: Commits::new(last.clone()),
            turn: 0,
            committing: None,
            waiting: None,
            written: 0,
            last,
        }
    }
}

/// A row that no other is.
fn message(commit: u64, row: usize) -> Vec<u8> {
    let text = format!("{commit}:{row}");
    let mut bytes = vec![b'I', 0, 0, 0, 7, b'N', 0, 1, b't'];
    bytes.extend(u32::try_from(text.len()).expect("a short text").to_be_bytes());
    bytes.extend(text.as_bytes());
    bytes
}
