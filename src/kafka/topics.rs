//! Topics are made on purpose, never by accident of a first record.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::util::Timeout;

use super::connection::Listening;
use super::{Error, Settings};

/// How long a broker may take to answer a question.
const ANSWER: Duration = Duration::from_secs(4);

/// How a topic of ours is made.
#[derive(Clone, Debug, Default)]
pub struct TopicOptions {
    /// `None` leaves it to the broker.
    pub partitions: Option<i32>,
    /// `None` leaves it to the broker.
    pub replication_factor: Option<i32>,
    /// Settings of the topic, such as `cleanup.policy`.
    pub config: BTreeMap<String, String>,
}

/// Asks Kafka about itself and makes topics.
pub struct Admin {
    client: std::sync::Arc<AdminClient<Listening>>,
    brokers: String,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").field("brokers", &self.brokers).finish_non_exhaustive()
    }
}

impl Admin {
    /// A client that has not yet spoken to a broker.
    ///
    /// # Errors
    /// Where librdkafka refuses a setting.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        let brokers = settings.bootstrap_servers.clone();
        let client = settings
            .client()
            .create_with_context(Listening::default())
            .map_err(|error| Error::of_call(&error, &brokers, "", ""))?;
        Ok(Self { client: std::sync::Arc::new(client), brokers })
    }

    /// Partitions of a topic, or `None` where there is no such topic. With no topic it only
    /// shows that Kafka answers.
    ///
    /// # Errors
    /// Where Kafka cannot be reached or does not allow it.
    pub async fn partitions(&self, topic: Option<&str>) -> Result<Option<i32>, Error> {
        let client = std::sync::Arc::clone(&self.client);
        let name = topic.map(ToOwned::to_owned);
        // librdkafka's metadata call blocks its thread.
        let answer =
            tokio::task::spawn_blocking(move || {
                let metadata = client.inner().fetch_metadata(name.as_deref(), ANSWER)?;
                let found = metadata.topics().iter().find(|of| Some(of.name()) == name.as_deref());
                Ok::<_, rdkafka::error::KafkaError>(found.map(|topic| {
                    (topic.error().map(RDKafkaErrorCode::from), topic.partitions().len())
                }))
            })
            .await
            .map_err(|error| self.unreachable(&error.to_string()))?;
        match answer {
            Err(error) => {
                Err(Error::of_call(&error, &self.brokers, &self.said(), "describe topics"))
            }
            Ok(None) => Ok(None),
            Ok(Some((None, count))) => Ok(Some(i32::try_from(count).unwrap_or(i32::MAX))),
            Ok(Some((Some(RDKafkaErrorCode::UnknownTopicOrPartition), _))) => Ok(None),
            Ok(Some((Some(code), _))) => Err(self.of_topic(topic.unwrap_or_default(), code)),
        }
    }

    /// Makes a topic unless it is there, and says how many partitions it has.
    ///
    /// # Errors
    /// Where Kafka cannot be reached, does not allow it, or refuses the options.
    pub async fn ensure(&self, topic: &str, options: &TopicOptions) -> Result<i32, Error> {
        if let Some(count) = self.partitions(Some(topic)).await? {
            return Ok(count);
        }
        let replication = TopicReplication::Fixed(options.replication_factor.unwrap_or(-1));
        let mut new = NewTopic::new(topic, options.partitions.unwrap_or(-1), replication);
        for (key, value) in &options.config {
            new = new.set(key, value);
        }
        let wait = AdminOptions::new()
            .request_timeout(Some(Timeout::After(ANSWER)))
            .operation_timeout(Some(Timeout::After(ANSWER)));
        let answers = self.client.create_topics([&new], &wait).await.map_err(|error| {
            Error::of_call(&error, &self.brokers, &self.said(), "create topics")
        })?;
        for answer in answers {
            match answer {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => return Err(self.of_topic(&topic, code)),
            }
        }
        self.appeared(topic).await
    }

    /// A new topic shows in every broker's metadata a moment after its creation was answered.
    async fn appeared(&self, topic: &str) -> Result<i32, Error> {
        let deadline = tokio::time::Instant::now() + ANSWER;
        loop {
            if let Some(count) = self.partitions(Some(topic)).await? {
                return Ok(count);
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(Error::Topic {
                    topic: topic.to_owned(),
                    reason: "it was created but does not appear".to_owned(),
                });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn of_topic(&self, topic: &str, code: RDKafkaErrorCode) -> Error {
        match code {
            RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed => Error::Authorization {
                what: format!("create or describe topic {topic}"),
                reason: code.to_string(),
            },
            RDKafkaErrorCode::RequestTimedOut | RDKafkaErrorCode::OperationTimedOut => {
                self.unreachable(&code.to_string())
            }
            _ => Error::Topic { topic: topic.to_owned(), reason: code.to_string() },
        }
    }

    fn unreachable(&self, reason: &str) -> Error {
        Error::Unreachable { brokers: self.brokers.clone(), reason: reason.to_owned() }
    }

    fn said(&self) -> String {
        self.client.inner().context().0.recent().unwrap_or_default()
    }
}
