//! Writes down how far the pipeline is, and only then lets the server be told.
//!
//! ```text
//!   owner -> desk (delivered up to here) -> keeper -> checkpoint topic
//!                                             '-> positions -> server
//! ```
//!
//! A task of the control runtime: neither a full queue nor a slow row delays it, and it delays
//! nobody. A write that fails uses its writer up; a new one shuts out whoever else wrote meanwhile,
//! so before that the server is asked whether the slot is still ours.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use waltide_core::checkpoint::{Checkpoint, Progress, RegisteredSchema, TopicEnd};
use waltide_core::lsn::EndLsn;

use super::desk::{Desk, Trouble};
use super::diagnosis;
use super::holding::Holding;
use super::positions::Positions;
use crate::fault::{Class, Code, Fault};
use crate::kafka::{self, CheckpointTopic, CheckpointWriter, Ends, Producer, Refusal};
use crate::status::Pipeline;

/// The shortest time between two checkpoints: they bound what a crash repeats and how much log the
/// server keeps, and neither is worth more writes than this.
const PAUSE: Duration = Duration::from_millis(200);

/// The longest. A pipeline with nothing to say shows that it could.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// Bytes of checkpoints a second: with thousands of topics one is large.
const BYTES_PER_SECOND: u32 = 1 << 20;

/// How long a write may take before it is given up, and with it the writer.
const WRITE: Duration = Duration::from_secs(5);

/// Between attempts to write again.
const AGAIN: Duration = Duration::from_millis(500);

/// What a keeper works with.
pub(super) struct Keeper {
    pub(super) memory: Memory,
    pub(super) writer: Writer,
    /// What was last written, and what the next one carries over.
    pub(super) last: Checkpoint,
    /// Who wrote the checkpoint this life began with, and when.
    pub(super) base: Option<(String, i64)>,
    pub(super) slot: Holding,
}

/// Through whom checkpoints are written.
pub(super) enum Writer {
    /// A producer of their own, behind the delivery reports of the records.
    Apart(CheckpointWriter),
    /// That of the records, in their transactions. A keeper with this one writes only before there
    /// are any.
    Within(Box<Producer>),
}

impl Writer {
    async fn write(&mut self, memory: &Memory, bytes: &[u8]) -> Result<(), kafka::Error> {
        let producer = match self {
            Self::Apart(writer) => return writer.write(&memory.key, bytes, WRITE).await,
            Self::Within(producer) => producer,
        };
        let sent = producer.commit_with(memory.topic.name(), &memory.key, bytes);
        sent.map_err(|refusal| match refusal {
            Refusal::Failed(error) => error,
            Refusal::Full => memory.too_late(),
        })?;
        let committed = async {
            loop {
                if let Some(outcome) = producer.committed() {
                    return outcome;
                }
                producer.reported().await;
            }
        };
        timeout(WRITE, committed).await.unwrap_or_else(|_| Err(memory.too_late()))
    }
}

/// Where checkpoints are and who writes them.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    pub(super) topic: CheckpointTopic,
    pub(super) key: Vec<u8>,
    pub(super) transactional_id: String,
}

impl Memory {
    /// Shuts out whoever wrote before.
    pub(super) async fn become_writer(&self) -> Result<CheckpointWriter, kafka::Error> {
        CheckpointWriter::init(&self.topic, &self.transactional_id, WRITE).await
    }

    /// The same, for who writes checkpoints and records together.
    pub(super) async fn become_producer(
        &self,
        settings: &kafka::Settings,
    ) -> Result<Producer, kafka::Error> {
        Producer::transactional(settings, &self.transactional_id, self.topic.name(), WRITE).await
    }

    fn too_late(&self) -> kafka::Error {
        kafka::Error::NotInTime {
            what: format!("write a checkpoint to topic {}", self.topic.name()),
            reason: "the broker does not answer".to_owned(),
        }
    }

    /// The last checkpoint, read after nobody else can write one.
    ///
    /// # Errors
    /// Where that cannot be known, or where what is there cannot be read.
    pub(super) async fn recall(&self) -> Result<Option<Checkpoint>, Fault> {
        let read = self.topic.read_last(&self.key, WRITE).await;
        let Some(bytes) = read.map_err(|error| diagnosis::of_kafka(&error))? else {
            return Ok(None);
        };
        let checkpoint = Checkpoint::decode(&bytes);
        checkpoint.map(Some).map_err(|error| diagnosis::of_checkpoint(&error, self.topic.name()))
    }
}

/// A keeper at work.
pub(super) struct Keeping {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Keeping {
    /// Lets it write down what was last delivered, and ends it.
    pub(super) async fn end(mut self, within: Duration) {
        let (stop, _) = oneshot::channel();
        let _ = std::mem::replace(&mut self.stop, stop).send(());
        // Given up half-way, the next start finds the checkpoint before or this one.
        let _ = timeout(within, &mut self.task).await;
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Keeper {
    /// Starts to keep.
    pub(super) fn start(
        self,
        control: &tokio::runtime::Handle,
        desk: Arc<Desk>,
        positions: Arc<Positions>,
        ends: Ends,
        status: Arc<Pipeline>,
    ) -> Keeping {
        let (stop, stopped) = oneshot::channel();
        let work = Work { keeper: self, desk, positions, ends, status };
        Keeping { stop, task: control.spawn(work.run(stopped)) }
    }

    fn base(&self) -> Option<(&String, i64)> {
        self.base.as_ref().map(|(instance, at)| (instance, *at))
    }

    /// Writes a checkpoint.
    pub(super) async fn write(&mut self, mut next: Checkpoint) -> Result<usize, kafka::Error> {
        next.written_at_us = now_us();
        let mut bytes = Vec::new();
        next.encode(&mut bytes);
        self.writer.write(&self.memory, &bytes).await?;
        self.last = next;
        Ok(bytes.len())
    }
}

struct Work {
    keeper: Keeper,
    desk: Arc<Desk>,
    positions: Arc<Positions>,
    ends: Ends,
    status: Arc<Pipeline>,
}

impl Work {
    async fn run(mut self, mut stopped: oneshot::Receiver<()>) {
        loop {
            let asked = tokio::select! {
                _ = &mut stopped => true,
                () = self.desk.offered() => false,
                () = sleep(HEARTBEAT) => false,
            };
            let pause = match self.write().await {
                Ok(bytes) => pause_after(bytes),
                Err(fault) => {
                    self.desk.set_trouble(Some(Trouble::Lasting(fault)));
                    return;
                }
            };
            if asked {
                return;
            }
            tokio::select! {
                _ = &mut stopped => {
                    let _ = self.write().await;
                    return;
                }
                () = sleep(pause) => {}
            }
        }
    }

    /// Writes what is delivered, however long it takes.
    ///
    /// # Errors
    /// Where this stream may not go on.
    async fn write(&mut self) -> Result<usize, Fault> {
        let offer = self.desk.latest();
        let started = Instant::now();
        loop {
            let mut next = following(&self.keeper.last, &self.ends, &self.desk);
            next.end_lsn = EndLsn(offer.durable.lsn());
            next.commit_lsn = offer.last.unwrap_or(next.commit_lsn);
            next.progress = Progress::Complete;
            if let Some(books) = &offer.books {
                next.snapshot = Some(books.to_vec());
            }
            match self.keeper.write(next).await {
                Ok(bytes) => {
                    self.desk.set_trouble(None);
                    self.status.checkpointed();
                    self.positions.confirm(offer.durable);
                    tracing::trace!(took = ?started.elapsed(), bytes, "checkpoint");
                    return Ok(bytes);
                }
                Err(kafka::Error::Fenced { transactional_id }) => {
                    return Err(diagnosis::of_kafka(&kafka::Error::Fenced { transactional_id }));
                }
                Err(error) => {
                    self.desk.set_trouble(Some(Trouble::Passing(diagnosis::of_kafka(&error))))
                }
            }
            self.renew().await?;
        }
    }

    /// A new writer in place of one that is used up, once Kafka answers again.
    async fn renew(&mut self) -> Result<(), Fault> {
        loop {
            sleep(AGAIN).await;
            if !self.keeper.slot.is_ours().await? {
                return Err(Fault::new(
                    Code::SourceLost,
                    format!("slot {} is not ours any more", self.keeper.slot.slot),
                    "nothing: the pipeline starts over, or stands by where another daemon has it",
                ));
            }
            let failed = match self.keeper.memory.become_writer().await {
                Ok(writer) => match self.keeper.memory.recall().await {
                    Ok(found) => {
                        self.keeper.writer = Writer::Apart(writer);
                        return self.still_ours(found);
                    }
                    Err(fault) if fault.code.class() == Class::Stop => {
                        return Err(fault);
                    }
                    Err(fault) => fault,
                },
                Err(error) => diagnosis::of_kafka(&error),
            };
            self.desk.set_trouble(Some(Trouble::Passing(failed)));
        }
    }

    /// Whether nobody else has written since.
    fn still_ours(&self, found: Option<Checkpoint>) -> Result<(), Fault> {
        match found {
            Some(found) if found.instance == self.keeper.last.instance => Ok(()),
            // Nothing of this life has been written yet.
            Some(found) if Some((&found.instance, found.written_at_us)) == self.keeper.base() => {
                Ok(())
            }
            Some(found) => Err(Fault::new(
                Code::Superseded,
                format!("daemon {} has written a checkpoint of this pipeline", found.instance),
                "nothing if another daemon runs this pipeline: this one starts over or stands by",
            )),
            None => Err(Fault::new(
                Code::CheckpointLost,
                format!("topic {} has lost its checkpoint", self.keeper.memory.topic.name()),
                "restart the daemon if the topic was deleted by mistake and is back; otherwise see \
                 `waltide recover`",
            )),
        }
    }
}

/// What the next checkpoint says of topics and schemas.
pub(super) fn following(last: &Checkpoint, ends: &Ends, desk: &Desk) -> Checkpoint {
    let mut next = last.clone();
    merge(&mut next.topics, ends.so_far());
    next.settled_at_us = now_us();
    merge_schemas(&mut next.schemas, desk.schemas());
    next
}

/// Enters where topics end now. With thousands of them this is done often, so they are sorted.
fn merge(known: &mut Vec<TopicEnd>, ends: Vec<(String, Vec<i64>)>) {
    for (name, ends) in ends {
        match known.binary_search_by(|topic| topic.name.cmp(&name)) {
            Ok(place) => {
                let Some(topic) = known.get_mut(place) else { continue };
                let partitions = topic.end_offsets.len().max(ends.len());
                topic.end_offsets.resize(partitions, 0);
                for (known, end) in topic.end_offsets.iter_mut().zip(ends) {
                    *known = (*known).max(end);
                }
            }
            Err(place) => known.insert(place, TopicEnd { name, topic_id: None, end_offsets: ends }),
        }
    }
}

/// Enters the schemas in use. Sorted as well.
fn merge_schemas(known: &mut Vec<RegisteredSchema>, used: Vec<RegisteredSchema>) {
    for schema in used {
        match known.binary_search_by(|one| one.subject.cmp(&schema.subject)) {
            Ok(place) => {
                if let Some(one) = known.get_mut(place) {
                    *one = schema;
                }
            }
            Err(place) => known.insert(place, schema),
        }
    }
}

fn pause_after(bytes: usize) -> Duration {
    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
    PAUSE.max(Duration::from_secs(1) * bytes / BYTES_PER_SECOND)
}

/// Microseconds since 1970.
#[must_use]
pub fn now_us() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_micros()).unwrap_or(i64::MAX)
}
