//! The topic that remembers how far a pipeline is: one partition, compacted, the last record counts.
//!
//! A restart believes what it reads here, so three things must not happen.
//!
//! - *An older checkpoint comes last.* A predecessor may be frozen at any instruction and wake up
//!   much later. So the writer is transactional: [`CheckpointWriter::init`] raises the epoch of its
//!   transactional id, and Kafka refuses whatever the predecessor still sends, a commit that was
//!   already on its way as well. Hence the order: first `init`, then [`CheckpointTopic::read_last`].
//! - *A write is taken as lost that was not, or the other way round.* A commit without an answer is
//!   neither ([`Error::UnknownOutcome`]). A late commit may even hit the writer's next transaction,
//!   so after any error a writer is used up: make a new one, and read again.
//! - *No answer is taken for no checkpoint.* The end is asked for first, and the reader must get
//!   there: past records, markers and what was rolled back. If it does not in time, that is an error.

mod reader;
mod writer;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::ResourceSpecifier;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::RDKafkaErrorCode;
use tokio::sync::oneshot;

use super::topics::Asking;
use super::{Admin, Error, Login, Settings, TopicOptions};
use reader::Reader;
pub use writer::CheckpointWriter;

/// The only partition.
const PARTITION: i32 = 0;

/// Compaction leaves the segment that is written to alone, so it is as small as Kafka allows: what
/// lies in it is all that a reader may have to walk through.
const SEGMENT_BYTES: u32 = 1024 * 1024;

/// Nearly every record is outdated by the next, and cleaning such small segments costs nothing.
const MIN_CLEANABLE_DIRTY_RATIO: &str = "0.01";

/// Between attempts to ask for the end.
const PAUSE: Duration = Duration::from_millis(100);

/// What a call that keeps its own deadline may exceed it by, before it is given up from outside.
const GRACE: Duration = Duration::from_millis(500);

/// A pipeline's checkpoint topic, which exists and is fit for it.
#[derive(Clone, Debug)]
pub struct CheckpointTopic {
    admin: Arc<Admin>,
    name: String,
}

impl CheckpointTopic {
    /// Makes the topic unless it is there. `replication_factor` is used only then; `None` leaves it
    /// to the broker.
    ///
    /// # Errors
    /// Where Kafka cannot be reached or refuses, or where the topic is there and would lose
    /// checkpoints.
    pub async fn open(
        admin: &Arc<Admin>,
        name: &str,
        replication_factor: Option<i32>,
    ) -> Result<Self, Error> {
        let options = TopicOptions {
            partitions: Some(1),
            replication_factor,
            config: BTreeMap::from([
                ("cleanup.policy".to_owned(), "compact".to_owned()),
                ("segment.bytes".to_owned(), SEGMENT_BYTES.to_string()),
                ("min.cleanable.dirty.ratio".to_owned(), MIN_CLEANABLE_DIRTY_RATIO.to_owned()),
            ]),
        };
        let partitions = admin.ensure(name, &options).await?;
        if partitions != 1 {
            let reason = format!("it has {partitions} partitions, a checkpoint topic has one");
            return Err(Error::Topic { topic: name.to_owned(), reason });
        }
        let topic = Self::there(admin, name);
        match topic.cleanup_policy().await? {
            Some(policy) if policy != "compact" => Err(Error::Topic {
                topic: topic.name,
                reason: format!(
                    "its cleanup.policy is {policy:?} and the last checkpoint would expire: set it to compact"
                ),
            }),
            _ => Ok(topic),
        }
    }

    /// The topic, if it is there: for somebody who only wants to look.
    ///
    /// # Errors
    /// Where Kafka cannot be reached or refuses.
    pub async fn existing(admin: &Arc<Admin>, name: &str) -> Result<Option<Self>, Error> {
        let partitions = admin.partitions(name).await?;
        Ok(partitions.map(|_| Self::there(admin, name)))
    }

    fn there(admin: &Arc<Admin>, name: &str) -> Self {
        Self { admin: Arc::clone(admin), name: name.to_owned() }
    }

    fn settings(&self) -> &Settings {
        self.admin.settings()
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The value of the last committed record with that key; `None` where there is none, or where
    /// it was deleted on purpose by a record without a value.
    ///
    /// # Errors
    /// Where it cannot be seen in time that the end was reached. That is never `None`.
    pub async fn read_last(&self, key: &[u8], within: Duration) -> Result<Option<Vec<u8>>, Error> {
        let deadline = Instant::now() + within;
        let bounds = self.bounds(deadline).await?;
        let (answer, answered) = oneshot::channel();
        let (settings, name, key) = (self.settings().clone(), self.name.clone(), key.to_vec());
        let _detached = tokio::task::spawn_blocking(move || {
            let mut reader = Reader::new(settings, name, deadline);
            // Nobody may be waiting any more; then there is nothing to tell.
            let _ = answer.send(reader.last(bounds, &key));
            // Only now the clients are closed, which may take its time.
            drop(reader);
        });
        let left = deadline.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left + GRACE, answered).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Err(Error::NotInTime {
                what: format!("read the last checkpoint from topic {}", self.name),
                reason: "the reader does not answer".to_owned(),
            }),
        }
    }

    /// The first offset, and the one behind the last record that is replicated, whether its
    /// transaction is committed or not.
    async fn bounds(&self, deadline: Instant) -> Result<(i64, i64), Error> {
        let left = || deadline.saturating_duration_since(Instant::now());
        let what = format!("read topic {}", self.name);
        loop {
            let (name, within) = (self.name.clone(), left());
            let question = move |client: &Asking| client.fetch_watermarks(&name, PARTITION, within);
            match self.admin.ask(&what, question).await {
                Ok(bounds) => return Ok(bounds),
                Err(refused @ (Error::Authorization { .. } | Error::Settings { .. })) => {
                    return Err(refused);
                }
                Err(passing) if left() <= PAUSE => return Err(passing),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// `None` where we may not ask.
    async fn cleanup_policy(&self) -> Result<Option<String>, Error> {
        if let Login::Token(_) = self.settings().login {
            self.warn_of_policy();
            return Ok(None);
        }
        for answer in self.admin.describe(&[ResourceSpecifier::Topic(&self.name)]).await? {
            match answer {
                Ok(found) => {
                    let policy = found.entry_map().remove("cleanup.policy");
                    return Ok(policy.and_then(|entry| entry.value.clone()));
                }
                Err(
                    RDKafkaErrorCode::TopicAuthorizationFailed
                    | RDKafkaErrorCode::ClusterAuthorizationFailed,
                ) => self.warn_of_policy(),
                Err(code) => {
                    return Err(Error::Topic {
                        topic: self.name.clone(),
                        reason: code.to_string(),
                    });
                }
            }
        }
        Ok(None)
    }

    fn warn_of_policy(&self) {
        tracing::warn!(
            topic = self.name,
            "kafka does not let us see the checkpoint topic's settings: make sure that its cleanup.policy is compact"
        );
    }
}
