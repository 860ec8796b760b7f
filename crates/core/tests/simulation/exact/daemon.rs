//! A daemon that publishes exactly once: the real books, the real recovery and checkpoint, and the
//! glue between them in few words.

use std::collections::VecDeque;

use waltide_core::checkpoint::{Checkpoint, Progress, Resume, resume};
use waltide_core::intake::{HandedOver, Intake};
use waltide_core::lsn::{CommitLsn, EndLsn, Lsn};
use waltide_core::pgoutput::{Begin, Commit, Decoder, PgTimestamp, Xid};

use super::{Fenced, Plant, Sent, World};
use crate::daemon::Record;

pub(super) struct Daemon {
    id: usize,
    pub(super) frozen: bool,
    /// It has met a successor, and knows.
    pub(super) fenced: bool,
    stream: Option<Stream>,
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
    /// What a committed checkpoint covers.
    written: u64,
    last: Checkpoint,
}

impl Daemon {
    pub(super) fn new(id: usize) -> Self {
        let queue = VecDeque::new();
        Self { id, frozen: false, fenced: false, stream: None, queue, remembered: None }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.stream.as_ref().map_or(0, |stream| stream.epoch)
    }

    /// Everything of it that Kafka may still hear of.
    pub(super) fn give_up(&mut self) -> (u64, VecDeque<Sent>) {
        (self.epoch(), std::mem::take(&mut self.queue))
    }

    pub(super) fn act(&mut self, world: &mut World) -> Result<(), String> {
        if self.stream.is_none() {
            return self.start(world);
        }
        if self.fenced {
            self.disconnect(world);
            return Ok(());
        }
        let holds = world.slot.is_some_and(|slot| slot.holder == Some(self.id));
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
        let (epoch, mut queue) = self.give_up();
        for _ in 0..world.random.index(queue.len() + 1) {
            world.arrives(epoch, &mut queue);
        }
        self.stream = None;
        self.fenced = false;
        world.lose_the_connection(self.id);
    }

    /// From nothing to a stream.
    fn start(&mut self, world: &mut World) -> Result<(), String> {
        let mut made = false;
        if world.slot.is_none() {
            if world.kafka.last_checkpoint().is_some() {
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
        let too_early = world.kafka.last_checkpoint();
        world.land_late();
        let epoch = world.kafka.init(world.plant);
        world.land_late();
        let found = match world.plant {
            Plant::ReadBeforeInit => too_early,
            Plant::UnknownIsLost => {
                self.remembered.clone().or_else(|| world.kafka.last_checkpoint())
            }
            _ => world.kafka.last_checkpoint(),
        };
        let hold = found.is_none() && world.kafka.holds_records();
        let decided = resume(found.as_ref(), &world.facts(confirmed, made), hold);
        let decided = decided.map_err(|stop| format!("stopped without need: {stop}"))?;
        let inside = match decided {
            Resume::Continue { inside, .. } => inside,
            Resume::Birth { .. } | Resume::Adopt { .. } => None,
        };
        let inside = inside.filter(|_| world.plant != Plant::OrdinalLeftOut);
        let last = found.unwrap_or_else(|| birth(confirmed));
        let start = decided.start();
        // The server sends what was committed at or past the slot's position.
        let first = world.log.iter().position(|it| it.commit >= confirmed);
        let mut stream = Stream {
            intake: Intake::resume_inside(start, inside),
            epoch,
            at: (first.unwrap_or(world.log.len()), 0),
            written: start.lsn().0,
            last,
        };
        let is_new = !matches!(decided, Resume::Continue { .. });
        if is_new && !stream.write(world, stream.last.clone()) {
            self.disconnect(world);
            return Ok(());
        }
        self.stream = Some(stream);
        Ok(())
    }

    /// The next message of the stream.
    fn read(&mut self, world: &mut World) -> Result<(), String> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        let refused = |disorder| format!("stopped without need: {disorder}");
        let (transaction, row) = stream.at;
        let Some(next) = world.log.get(transaction) else {
            return stream.intake.passed(Lsn(world.wal_end)).map_err(refused);
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

    /// Ends the Kafka transaction, wherever the stream is.
    fn cut(&mut self, world: &mut World) {
        let Some(stream) = &mut self.stream else { return };
        let HandedOver { end, last, progress } = stream.intake.handed_over();
        let next = Checkpoint { end_lsn: end, progress, ..stream.last.clone() };
        let mut next = Checkpoint { commit_lsn: last.unwrap_or(next.commit_lsn), ..next };
        match (&mut next.progress, world.plant) {
            (Progress::Partial(partial), Plant::OrdinalTooFar) => partial.ordinal += 1,
            (Progress::Partial(partial), Plant::OrdinalTooNear) => partial.ordinal -= 1,
            (Progress::Partial(_), Plant::LastOfPartDropped) => {
                self.queue.pop_back();
            }
            (progress, Plant::IdleForgetsPart) if !stream.intake.in_transaction() => {
                *progress = Progress::Complete;
            }
            _ => {}
        }
        // It waits until all of it has arrived.
        let epoch = stream.epoch;
        while !self.queue.is_empty() {
            if world.arrives(epoch, &mut self.queue) {
                return self.disconnect(world);
            }
        }
        if world.plant == Plant::CheckpointApart && world.kafka.commit(epoch).is_err() {
            return self.disconnect(world);
        }
        if world.plant == Plant::CheckpointApart && world.random.once_in(8) {
            return self.disconnect(world);
        }
        if world.plant == Plant::ToldBeforeCommit {
            stream.written = stream.written.max(end.0.0);
            self.tell(world);
        }
        let Some(stream) = &mut self.stream else { return };
        let remembered = stream.last.clone();
        if stream.write(world, next) {
            return;
        }
        if world.plant == Plant::UnknownIsGoneOnWith {
            return;
        }
        self.remembered = Some(remembered);
        self.disconnect(world);
    }

    /// Tells the server what may go.
    fn tell(&mut self, world: &mut World) {
        let Some(stream) = &self.stream else { return };
        if let Some(slot) = &mut world.slot {
            slot.confirmed = slot.confirmed.max(stream.written);
        }
    }
}

impl Stream {
    /// Sends the checkpoint and commits; false where the outcome is not known, or is a refusal.
    fn write(&mut self, world: &mut World, next: Checkpoint) -> bool {
        let mut bytes = Vec::new();
        next.encode(&mut bytes);
        if world.kafka.takes(self.epoch, Sent::Checkpoint(bytes)) == Err(Fenced) {
            return false;
        }
        match world.random.below(12) {
            0 => world.kafka.late.push(self.epoch),
            1 => {
                let _ = world.kafka.commit(self.epoch);
            }
            2 => {}
            _ => {
                let done = world.kafka.commit(self.epoch).is_ok();
                if done {
                    self.written = self.written.max(next.end_lsn.0.0);
                    self.last = next;
                    let durable = self.intake.durable().lsn().0;
                    assert!(durable >= self.last.end_lsn.0.0, "what is committed is delivered");
                }
                return done;
            }
        }
        false
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

fn birth(at: u64) -> Checkpoint {
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
        instance: String::new(),
        written_at_us: 0,
    }
}
