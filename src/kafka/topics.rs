//! Topics are made on purpose, never by accident of a first record.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResourceResult, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::{MetadataBroker, MetadataPartition};
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
/// It asks with a consumer that never consumes: librdkafka's administrative client, as it is wrapped,
/// keeps what librdkafka has to say in a queue that nobody reads, where it is of no use to the
/// message of a failure and grows as long as a broker is away. So there is one of those only while
/// a topic is made or looked at.
///
/// Pipelines of one cluster share an `Admin`: a client is three threads, two connections and a round
/// of metadata, and a hundred pipelines that get ready would have hundreds of them.
pub struct Admin {
    client: Mutex<Arc<Asking>>,
    maker: Mutex<Weak<Maker>>,
    settings: Settings,
}

/// Who asks.
pub(super) type Asking = Polled<BaseConsumer<Listening>>;

/// Who makes topics, and sees their settings.
pub(super) type Maker = AdminClient<DefaultClientContext>;

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
        let client = Mutex::new(Arc::new(asking(settings)?));
        Ok(Self { client, maker: Mutex::default(), settings: settings.clone() })
    }

    /// Asks something that blocks its thread. Who gets no answer is not asked again: another client
    /// may know another password, or find the brokers where they are now.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        what: &str,
        question: impl FnOnce(&Asking) -> Result<T, KafkaError> + Send + 'static,
    ) -> Result<T, Error> {
        let client = Arc::clone(&self.client.lock().unwrap_or_else(PoisonError::into_inner));
        let asked = Arc::clone(&client);
        let answer = tokio::task::spawn_blocking(move || question(&asked)).await;
        let answer = answer.map_err(|error| self.unreachable(&error.to_string()))?;
        answer.map_err(|error| {
            let silent = || format!("no answer within {ANSWER:?}");
            let said = client.context().0.recent().unwrap_or_else(silent);
            self.replace(&client);
            Error::of_call(&error, self.brokers(), &said, what)
        })
    }

    fn replace(&self, failed: &Arc<Asking>) {
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&client, failed) {
            // Settings that are refused now may be right again at the next question.
            if let Ok(other) = asking(&self.settings) {
                *client = Arc::new(other);
            }
        }
    }

    /// The client that makes topics, which is there while somebody uses it.
    fn maker(&self) -> Result<Arc<Maker>, Error> {
        let mut maker = self.maker.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(maker) = maker.upgrade() {
            return Ok(maker);
        }
        let failed = |error| Error::of_call(&error, self.brokers(), "", "");
        let made: Arc<Maker> = Arc::new(self.settings.client()?.create().map_err(failed)?);
        *maker = Arc::downgrade(&made);
        Ok(made)
    }

    /// The settings of topics and brokers, those that we may see.
    pub(super) async fn describe(
        &self,
        what: &[ResourceSpecifier<'_>],
    ) -> Result<Vec<ConfigResourceResult>, Error> {
        let failed = |error| {
            let what = "describe the settings of a topic";
            Error::of_call(&error, self.brokers(), "", what)
        };
        let maker = self.maker()?;
        let answers = maker.describe_configs(what, &patience()).await;
        end(maker);
        answers.map_err(failed)
    }

    /// Partitions of a topic, or `None` where there is no such topic.
    ///
    /// # Errors
    /// Where Kafka cannot be reached or does not allow it.
    pub async fn partitions(&self, topic: &str) -> Result<Option<i32>, Error> {
        let name = topic.to_owned();
        let answer = self.ask("describe topics", move |client| {
            let metadata = client.fetch_metadata(Some(&name), ANSWER)?;
            let found = metadata.topics().iter().find(|of| of.name() == name);
            Ok(found
                .map(|topic| (topic.error().map(RDKafkaErrorCode::from), topic.partitions().len())))
        });
        match answer.await? {
            None | Some((Some(RDKafkaErrorCode::UnknownTopicOrPartition), _)) => Ok(None),
            Some((None, count)) => Ok(Some(i32::try_from(count).unwrap_or(i32::MAX))),
            Some((Some(code), _)) => Err(self.of_topic(topic, code)),
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
        if let Some(count) = self.partitions(topic).await? {
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
        let failed = |error| Error::of_call(&error, self.brokers(), &self.said(), "create topics");
        let maker = self.maker()?;
        let answers = maker.create_topics([&new], &patience().validate_only(only_try)).await;
        end(maker);
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
            if let Some(count) = self.partitions(topic).await? {
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

    pub(super) fn of_topic(&self, topic: &str, code: RDKafkaErrorCode) -> Error {
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

    /// How the cluster is reached.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// All topics and brokers, without their settings.
    pub(super) async fn metadata(&self) -> Result<Overview, Error> {
        let answer = self.ask("describe topics", |client| {
            let metadata = client.fetch_metadata(None, ANSWER)?;
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
            Ok(Overview { brokers: brokers.len(), broker, topics })
        });
        answer.await
    }

    fn brokers(&self) -> &str {
        &self.settings.bootstrap_servers
    }

    fn said(&self) -> String {
        let silent = || format!("no answer within {ANSWER:?}");
        let client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        client.context().0.recent().unwrap_or_else(silent)
    }
}

fn asking(settings: &Settings) -> Result<Asking, Error> {
    let mut config = settings.client()?;
    // Where a topic ends is where its last record is, whether its transaction is committed or not:
    // one of somebody else's that stays open would otherwise hide what was acknowledged.
    config.set("isolation.level", "read_uncommitted");
    Polled::new(&config, settings.listening())
        .map_err(|error| Error::of_call(&error, &settings.bootstrap_servers, "", ""))
}

/// Its end waits for a thread of its own.
fn end(maker: Arc<Maker>) {
    tokio::task::spawn_blocking(move || drop(maker));
}

fn patience() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(Timeout::After(ANSWER)))
        .operation_timeout(Some(Timeout::After(ANSWER)))
}
