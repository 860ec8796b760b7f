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
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::util::Timeout;
use tokio::sync::oneshot;

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

/// How long a broker may take to tell a topic's settings.
const ANSWER: Duration = Duration::from_secs(4);

/// What a call that keeps its own deadline may exceed it by, before it is given up from outside.
const GRACE: Duration = Duration::from_millis(500);

/// A pipeline's checkpoint topic, which exists and is fit for it.
#[derive(Clone, Debug)]
pub struct CheckpointTopic {
    settings: Settings,
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
        settings: &Settings,
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
        let partitions = Admin::new(settings)?.ensure(name, &options).await?;
        if partitions != 1 {
            let reason = format!("it has {partitions} partitions, a checkpoint topic has one");
            return Err(Error::Topic { topic: name.to_owned(), reason });
        }
        let topic = Self::there(settings, name);
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
    pub async fn existing(settings: &Settings, name: &str) -> Result<Option<Self>, Error> {
        let partitions = Admin::new(settings)?.partitions(Some(name)).await?;
        Ok(partitions.map(|_| Self::there(settings, name)))
    }

    fn there(settings: &Settings, name: &str) -> Self {
        Self { settings: settings.clone(), name: name.to_owned() }
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
        let (answer, answered) = oneshot::channel();
        let (settings, name, key) = (self.settings.clone(), self.name.clone(), key.to_vec());
        let _detached = tokio::task::spawn_blocking(move || {
            let mut reader = Reader::new(settings, name, deadline);
            // Nobody may be waiting any more; then there is nothing to tell.
            let _ = answer.send(reader.last(&key));
            // Only now the clients are closed, which may take its time.
            drop(reader);
        });
        match tokio::time::timeout(within + GRACE, answered).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Err(Error::NotInTime {
                what: format!("read the last checkpoint from topic {}", self.name),
                reason: "the reader does not answer".to_owned(),
            }),
        }
    }

    /// `None` where we may not ask.
    async fn cleanup_policy(&self) -> Result<Option<String>, Error> {
        if let Login::Token(_) = self.settings.login {
            self.warn_of_policy();
            return Ok(None);
        }
        let brokers = &self.settings.bootstrap_servers;
        let failed =
            |error| Error::of_call(&error, brokers, "", "describe the settings of a topic");
        let client: AdminClient<DefaultClientContext> =
            self.settings.client()?.create().map_err(failed)?;
        let wait = AdminOptions::new().request_timeout(Some(Timeout::After(ANSWER)));
        let answers = client.describe_configs(&[ResourceSpecifier::Topic(&self.name)], &wait).await;
        // Its end waits for a thread of its own.
        tokio::task::spawn_blocking(move || drop(client));
        let answers = answers.map_err(failed)?;
        for answer in answers {
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
