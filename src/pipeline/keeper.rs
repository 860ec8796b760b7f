//! Writes down how far the pipeline is, and only then lets the server be told.
//!
//! ```text
//!   owner -> desk (delivered up to here) -> keeper -> checkpoint topic
//!                                             '-> positions -> server
//! ```
//!
//! A task of the control runtime: neither a full queue nor a slow row delays it, and it delays
//! nobody. What follows from what is `waltide_core::delivery::Keep`; these are its hands.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use waltide_core::checkpoint::Checkpoint;
use waltide_core::delivery::{Act, Came, End, Keep, Seen};

use super::desk::{Desk, Trouble};
use super::diagnosis;
use super::holding::Holding;
use super::positions::Positions;
use crate::fault::{Class, Fault};
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

/// What checkpoints are written with.
pub(super) struct Keeper {
    pub(super) memory: Memory,
    pub(super) writer: Writer,
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
    pub(super) transactional_ids: [String; 2],
}

impl Memory {
    /// Shuts out whoever wrote before.
    pub(super) async fn become_writer(&self) -> Result<CheckpointWriter, kafka::Error> {
        let [first, _] = &self.transactional_ids;
        CheckpointWriter::init(&self.topic, first, WRITE).await
    }

    /// The same, where it is not known that whoever wrote before wrote apart from records as well.
    pub(super) async fn become_only_writer(&self) -> Result<CheckpointWriter, kafka::Error> {
        let [_, second] = &self.transactional_ids;
        let shut_out = CheckpointWriter::init(&self.topic, second, WRITE);
        let (writer, _) = tokio::try_join!(self.become_writer(), shut_out)?;
        Ok(writer)
    }

    /// The same, for who writes checkpoints and records together.
    pub(super) async fn become_producer(
        &self,
        settings: &kafka::Settings,
    ) -> Result<Producer, kafka::Error> {
        let ids = self.transactional_ids.each_ref().map(String::as_str);
        Producer::transactional(settings, ids, self.topic.name(), WRITE).await
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
    /// Starts to keep, from what a start began with.
    pub(super) fn start(
        self,
        keep: Keep,
        control: &tokio::runtime::Handle,
        desk: Arc<Desk>,
        positions: Arc<Positions>,
        ends: Ends,
        status: Arc<Pipeline>,
    ) -> Keeping {
        let (stop, stopped) = oneshot::channel();
        let work = Work { keeper: self, keep, desk, positions, ends, status };
        Keeping { stop, task: control.spawn(work.run(stopped)) }
    }

    /// Writes a checkpoint, and says how large it is.
    pub(super) async fn write(&mut self, next: &Checkpoint) -> Result<usize, kafka::Error> {
        let mut bytes = Vec::new();
        next.encode(&mut bytes);
        self.writer.write(&self.memory, &bytes).await?;
        Ok(bytes.len())
    }
}

struct Work {
    keeper: Keeper,
    keep: Keep,
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
        let started = Instant::now();
        let (offer, edition) = self.desk.latest();
        let mut act = self.keep.write(&offer, seen(&self.ends, &self.desk));
        let mut size = 0;
        loop {
            let came = match act {
                Act::Confirm(durable) => {
                    self.desk.set_trouble(None);
                    self.status.checkpointed();
                    self.positions.confirm(durable);
                    self.desk.keep(edition);
                    tracing::trace!(took = ?started.elapsed(), bytes = size, "checkpoint");
                    return Ok(size);
                }
                Act::End(end) => return Err(self.ended(end)),
                Act::Write(next) => match self.keeper.write(&next).await {
                    Ok(bytes) => {
                        size = bytes;
                        Came::Written
                    }
                    Err(kafka::Error::Fenced { .. }) => Came::Refused,
                    Err(error) => self.in_trouble(diagnosis::of_kafka(&error)).await?,
                },
                Act::AskForSlot => Came::Slot { ours: self.keeper.slot.is_ours().await? },
                Act::Fence => match self.keeper.memory.become_writer().await {
                    Ok(writer) => {
                        self.keeper.writer = Writer::Apart(writer);
                        Came::Fenced
                    }
                    Err(error) => self.in_trouble(diagnosis::of_kafka(&error)).await?,
                },
                Act::Recall => match self.keeper.memory.recall().await {
                    Ok(found) => Came::Checkpoint(found.map(Box::new)),
                    Err(fault) => self.in_trouble(fault).await?,
                },
            };
            act = self.keep.on(came);
        }
    }

    /// Something is away, and nobody knows what came of it. After a pause it is tried again.
    ///
    /// # Errors
    /// Where that would be of no use.
    async fn in_trouble(&self, fault: Fault) -> Result<Came, Fault> {
        if fault.code.class() == Class::Stop {
            return Err(fault);
        }
        self.desk.set_trouble(Some(Trouble::Passing(fault)));
        sleep(AGAIN).await;
        Ok(Came::Unknown)
    }

    fn ended(&self, end: End) -> Fault {
        let Keeper { memory, slot, .. } = &self.keeper;
        match end {
            End::Refused => {
                let [transactional_id, _] = memory.transactional_ids.clone();
                diagnosis::of_kafka(&kafka::Error::Fenced { transactional_id })
            }
            End::SlotLost => diagnosis::of_lost_slot(&slot.slot),
            End::Superseded { by } => diagnosis::of_successor(&by),
            End::CheckpointLost => diagnosis::of_lost_checkpoint(memory.topic.name()),
            End::OutOfOrder => diagnosis::of_machine(),
        }
    }
}

/// What the next checkpoint says of topics and schemas.
pub(super) fn seen(ends: &Ends, desk: &Desk) -> Seen {
    Seen { ends: ends.so_far(), schemas: desk.schemas(), now_us: now_us() }
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
