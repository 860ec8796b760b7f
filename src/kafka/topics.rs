//! Topics are made on purpose, never by accident of a first record.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::{MetadataBroker, MetadataPartition};
use rdkafka::producer::Producer as _;
use rdkafka::util::Timeout;

use super::connection::Listening;
use super::login::Login;
use super::polled::Polled;
use super::{Error, Settings, TopicFacts};

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

impl fmt::Display for TopicOptions {
    /// What the brokers were asked for. What else is configured may be a secret by mistake.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_default = |count: Option<i32>| {
            count.map_or("the brokers' default".to_owned(), |it| it.to_string())
        };
        let (partitions, factor) =
            (or_default(self.partitions), or_default(self.replication_factor));
        write!(f, "partitions: {partitions}, replication_factor: {factor}")?;
        for key in self.config.keys() {
            write!(f, ", {key}")?;
        }
        Ok(())
    }
}

/// A cluster at a glance.
pub(super) struct Overview {
    pub(super) brokers: usize,
    /// One of them.
    pub(super) broker: Option<i32>,
    pub(super) topics: Vec<(String, TopicFacts)>,
}

/// Asks Kafka about itself and makes topics.
///
/// It asks with a producer that never sends: librdkafka's administrative client, as it is wrapped,
/// keeps what librdkafka has to say in a queue that nobody reads, where it is of no use to the
/// message of a failure and grows as long as a broker is away. So there is one of those only while
/// a topic is made.
pub struct Admin {
    client: Arc<Polled<Listening>>,
    settings: Settings,
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("brokers", &self.brokers()).finish_non_exhaustive()
    }
}

impl Admin {
    /// A client that has not yet spoken to a broker.
    ///
    /// # Errors
    /// Where librdkafka refuses a setting.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        let client = Polled::new(&settings.client()?, settings.listening())
            .map_err(|error| Error::of_call(&error, &settings.bootstrap_servers, "", ""))?;
        Ok(Self { client: Arc::new(client), settings: settings.clone() })
    }

    /// Partitions of a topic, or `None` where there is no such topic. With no topic it only
    /// shows that Kafka answers.
    ///
    /// # Errors
    /// Where Kafka cannot be reached or does not allow it.
    pub async fn partitions(&self, topic: Option<&str>) -> Result<Option<i32>, Error> {
        let client = Arc::clone(&self.client);
        let name = topic.map(ToOwned::to_owned);
        // librdkafka's metadata call blocks its thread.
        let answer =
            tokio::task::spawn_blocking(move || {
                let metadata = client.client().fetch_metadata(name.as_deref(), ANSWER)?;
                let found = metadata.topics().iter().find(|of| Some(of.name()) == name.as_deref());
                Ok::<_, KafkaError>(found.map(|topic| {
                    (topic.error().map(RDKafkaErrorCode::from), topic.partitions().len())
                }))
            })
            .await
            .map_err(|error| self.unreachable(&error.to_string()))?;
        match answer {
            Err(error) => {
                Err(Error::of_call(&error, self.brokers(), &self.said(), "describe topics"))
            }
            Ok(None) => Ok(None),
            Ok(Some((None, count))) => Ok(Some(i32::try_from(count).unwrap_or(i32::MAX))),
            Ok(Some((Some(RDKafkaErrorCode::UnknownTopicOrPartition), _))) => Ok(None),
            Ok(Some((Some(code), _))) => Err(self.of_topic(topic.unwrap_or_default(), code)),
        }
    }

    /// What would make a topic asks for no token: nobody reads its queue, as is said above.
    fn refuse_with_tokens(&self, topic: &str, options: &TopicOptions) -> Result<(), Error> {
        let Login::Token(_) = self.settings.login else { return Ok(()) };
        let reason = format!(
            "it is not there, and with OAUTHBEARER topics are not made by the daemon: one with {options}"
        );
        Err(Error::Topic { topic: topic.to_owned(), reason })
    }

    /// Makes a topic unless it is there, and says how many partitions it has.
    ///
    /// # Errors
    /// Where Kafka cannot be reached, does not allow it, or refuses the options.
    pub async fn ensure(&self, topic: &str, options: &TopicOptions) -> Result<i32, Error> {
        if let Some(count) = self.partitions(Some(topic)).await? {
            return Ok(count);
        }
        self.make(topic, options, false).await?;
        self.appeared(topic).await
    }

    /// Asks Kafka for a topic; or, where it shall only be tried, whether it would make it. One that
    /// is there will do.
    pub(super) async fn make(
        &self,
        topic: &str,
        options: &TopicOptions,
        only_try: bool,
    ) -> Result<(), Error> {
        self.refuse_with_tokens(topic, options)?;
        let replication = TopicReplication::Fixed(options.replication_factor.unwrap_or(-1));
        let mut new = NewTopic::new(topic, options.partitions.unwrap_or(-1), replication);
        for (key, value) in &options.config {
            new = new.set(key, value);
        }
        let wait = AdminOptions::new()
            .request_timeout(Some(Timeout::After(ANSWER)))
            .operation_timeout(Some(Timeout::After(ANSWER)))
            .validate_only(only_try);
        let failed = |error| Error::of_call(&error, self.brokers(), &self.said(), "create topics");
        let maker: AdminClient<DefaultClientContext> =
            self.settings.client()?.create().map_err(failed)?;
        let answers = maker.create_topics([&new], &wait).await;
        // Its end waits for a thread of its own.
        tokio::task::spawn_blocking(move || drop(maker));
        let answers = answers.map_err(failed)?;
        for answer in answers {
            match answer {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => return Err(self.of_creation(&topic, code, options)),
            }
        }
        Ok(())
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

    fn of_creation(&self, topic: &str, code: RDKafkaErrorCode, options: &TopicOptions) -> Error {
        match self.of_topic(topic, code) {
            Error::Topic { topic, reason } => {
                Error::Topic { topic, reason: format!("{reason}, for a new topic with {options}") }
            }
            other => other,
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
        Error::Unreachable { brokers: self.brokers().to_owned(), reason: reason.to_owned() }
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// All topics and brokers, without their settings.
    pub(super) async fn metadata(&self) -> Result<Overview, Error> {
        let client = Arc::clone(&self.client);
        // librdkafka's metadata call blocks its thread.
        let answer = tokio::task::spawn_blocking(move || {
            let metadata = client.client().fetch_metadata(None, ANSWER)?;
            let topics = metadata.topics().iter().map(|topic| {
                let fewest = |count: fn(&MetadataPartition) -> usize| {
                    topic.partitions().iter().map(count).min().unwrap_or(0)
                };
                let facts = TopicFacts {
                    partitions: topic.partitions().len(),
                    replicas: fewest(|partition| partition.replicas().len()),
                    in_sync: fewest(|partition| partition.isr().len()),
                    ..TopicFacts::default()
                };
                (topic.name().to_owned(), facts)
            });
            let brokers = metadata.brokers();
            let broker = brokers.first().map(MetadataBroker::id);
            let topics = topics.collect();
            Ok::<_, KafkaError>(Overview { brokers: brokers.len(), broker, topics })
        });
        let answer = answer.await.map_err(|error| self.unreachable(&error.to_string()))?;
        answer.map_err(|error| {
            Error::of_call(&error, self.brokers(), &self.said(), "describe topics")
        })
    }

    fn brokers(&self) -> &str {
        &self.settings.bootstrap_servers
    }

    fn said(&self) -> String {
        let silent = || format!("no answer within {ANSWER:?}");
        self.client.context().0.recent().unwrap_or_else(silent)
    }
}
