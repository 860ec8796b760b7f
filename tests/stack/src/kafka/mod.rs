//! Apache Kafka.

pub(crate) mod broker;
mod topic;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::client::DefaultClientContext;

pub use self::topic::{Headers, JsonRecord, Record, Topic};
use crate::block_on::block_on;
use crate::error::Error;
use crate::proxy::Proxy;
use crate::server::Use;
use broker::Broker;

/// How long an administrative call may take.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(30);

/// What a private Kafka shall be like.
#[derive(Debug, Clone, Default)]
pub struct KafkaOptions {
    settings: Vec<(String, String)>,
    protocol: Option<String>,
    proxied: bool,
    /// The cluster whose second broker it becomes.
    joins: Option<Kafka>,
}

impl KafkaOptions {
    /// As the shared one is.
    pub fn new() -> Self {
        Self::default()
    }

    /// A line of `server.properties`; it wins over the stack's own.
    #[must_use]
    pub fn setting(mut self, key: &str, value: &str) -> Self {
        self.settings.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Clients of [`Kafka::bootstrap`] use a listener of their own, with this security protocol,
    /// such as `SASL_PLAINTEXT`. Its name for [`setting`](Self::setting) is CLIENT, as in
    /// `listener.name.client.plain.sasl.jaas.config`.
    #[must_use]
    pub fn protocol(mut self, protocol: &str) -> Self {
        self.protocol = Some(protocol.to_owned());
        self
    }

    /// Clients of [`Kafka::bootstrap`] come through a proxy that can be cut or stalled, see
    /// [`Kafka::proxy`]. Topics are created and read past it.
    #[must_use]
    pub fn behind_proxy(mut self) -> Self {
        self.proxied = true;
        self
    }

    /// Becomes the second broker of a cluster of one.
    #[must_use]
    pub fn joining(mut self, first: &Kafka) -> Self {
        self.joins = Some(first.clone());
        self
    }

    /// Starts it.
    ///
    /// # Panics
    /// When it does not come up.
    #[track_caller]
    pub fn start(self) -> Kafka {
        match Kafka::launch("kafka-private", self, Use::Private) {
            Ok(kafka) => kafka,
            Err(error) => panic!("{error}"),
        }
    }
}

/// A Kafka cluster of one broker. A handle: the last one to go stops a private broker.
#[derive(Clone)]
pub struct Kafka(Arc<Inner>);

impl std::fmt::Debug for Kafka {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kafka").field("bootstrap", &self.bootstrap()).finish_non_exhaustive()
    }
}

struct Inner {
    /// None where the environment names a cluster that is not ours.
    broker: Option<Broker>,
    external: String,
    admin: OnceLock<AdminClient<DefaultClientContext>>,
}

impl Kafka {
    pub(crate) fn launch(name: &str, options: KafkaOptions, usage: Use) -> Result<Self, Error> {
        Ok(Self::from_broker(Some(Broker::start(name, options, usage)?), String::new()))
    }

    pub(crate) fn external(bootstrap: &str) -> Self {
        Self::from_broker(None, bootstrap.to_owned())
    }

    fn from_broker(broker: Option<Broker>, external: String) -> Self {
        Self(Arc::new(Inner { broker, external, admin: OnceLock::new() }))
    }

    /// `bootstrap.servers` for the program under test.
    pub fn bootstrap(&self) -> String {
        self.0.broker.as_ref().map_or_else(|| self.0.external.clone(), Broker::bootstrap)
    }

    /// `bootstrap.servers` past any proxy, password or encryption, as the helpers here use it.
    pub fn direct(&self) -> String {
        self.0.broker.as_ref().map_or_else(|| self.0.external.clone(), Broker::direct)
    }

    /// The proxy in front of it.
    ///
    /// # Panics
    /// When it was not started with [`KafkaOptions::behind_proxy`].
    #[track_caller]
    pub fn proxy(&self) -> &Proxy {
        let proxy = self.0.broker.as_ref().and_then(|broker| broker.proxy.as_ref());
        proxy.expect("this Kafka is not behind a proxy")
    }

    /// Where the proxy in front of it leads, for who wants to stand in between.
    #[track_caller]
    pub fn behind(&self) -> SocketAddr {
        self.broker().client()
    }

    /// Stops it in an orderly way.
    #[track_caller]
    pub fn stop(&self) {
        self.broker().server.stop("TERM");
    }

    /// Starts it after [`stop`](Self::stop) or [`kill`](Self::kill), on the same port and data.
    #[track_caller]
    pub fn start_again(&self) {
        let broker = self.broker();
        broker.server.check_private();
        if let Err(error) = broker.start_again() {
            panic!("{error}");
        }
    }

    /// Kills it without warning.
    #[track_caller]
    pub fn kill(&self) {
        self.broker().server.kill();
    }

    /// Freezes it: connections stay, nobody answers.
    #[track_caller]
    pub fn pause(&self) {
        self.broker().server.pause();
    }

    /// Lets it go on.
    #[track_caller]
    pub fn resume(&self) {
        self.broker().server.resume();
    }

    /// What it has logged.
    #[track_caller]
    pub fn log(&self) -> String {
        self.broker().server.home.log()
    }

    /// Lets the first replica of each partition be its leader again; false where one is not in
    /// sync yet.
    #[track_caller]
    pub fn elect_preferred_leaders(&self) -> bool {
        let arguments = ["--election-type", "preferred", "--all-topic-partitions"];
        self.broker().tool("org.apache.kafka.tools.LeaderElectionCommand", arguments).is_ok()
    }

    fn home(&self) -> Result<PathBuf, Error> {
        let ours = self.0.broker.as_ref().map(|broker| broker.server.home.path.clone());
        ours.ok_or_else(|| Error::new("a cluster that is not ours cannot be joined".to_owned()))
    }

    fn controller_port(&self) -> u16 {
        self.0.broker.as_ref().map_or(0, Broker::controller_port)
    }

    #[track_caller]
    fn broker(&self) -> &Broker {
        self.0.broker.as_ref().expect("the Kafka of WALTIDE_TEST_KAFKA is not ours to control")
    }

    pub(crate) fn save_log(&self) {
        if let Some(broker) = &self.0.broker {
            broker.server.home.save_log();
        }
    }

    /// A handle on a topic, whether it exists or not.
    pub fn topic(&self, name: &str) -> Topic {
        Topic::new(self.clone(), name)
    }

    /// Creates a topic and returns a handle on it.
    ///
    /// # Panics
    /// When Kafka refuses.
    #[track_caller]
    pub fn create_topic(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) -> Topic {
        self.create_replicated_topic(name, partitions, 1, settings)
    }

    /// Creates a topic with several replicas and returns a handle on it.
    ///
    /// # Panics
    /// When Kafka refuses.
    #[track_caller]
    pub fn create_replicated_topic(
        &self,
        name: &str,
        partitions: i32,
        replicas: i32,
        settings: &[(&str, &str)],
    ) -> Topic {
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(replicas));
        for (key, value) in settings {
            topic = topic.set(key, value);
        }
        let created = block_on(self.admin().create_topics([&topic], &admin_options()));
        match created.map(|mut results| results.pop()) {
            Ok(Some(Ok(_))) => self.topic(name),
            Ok(Some(Err((_, code)))) => panic!("cannot create topic {name}: {code}"),
            Ok(None) => panic!("cannot create topic {name}: no answer"),
            Err(error) => panic!("cannot create topic {name}: {error}"),
        }
    }

    /// Gives a topic so many partitions.
    ///
    /// # Panics
    /// When Kafka refuses.
    #[track_caller]
    pub fn set_partitions(&self, name: &str, partitions: usize) {
        let new = NewPartitions::new(name, partitions);
        let made = block_on(self.admin().create_partitions([&new], &admin_options()));
        match made.map(|mut results| results.pop()) {
            Ok(Some(Ok(_))) => {}
            other => panic!("cannot add partitions to topic {name}: {other:?}"),
        }
    }

    /// Changes a setting of a topic.
    ///
    /// # Panics
    /// When Kafka refuses.
    #[track_caller]
    pub fn alter_topic(&self, name: &str, key: &str, value: &str) {
        let change = AlterConfig::new(ResourceSpecifier::Topic(name)).set(key, value);
        let altered = block_on(self.admin().alter_configs([&change], &admin_options()));
        match altered.map(|mut results| results.pop()) {
            Ok(Some(Ok(_))) => {}
            other => panic!("cannot alter topic {name}: {other:?}"),
        }
    }

    /// Runs Kafka's own tool for access control, as in `kafka-acls.sh ARGUMENTS`, on this cluster.
    ///
    /// # Panics
    /// When it fails, or where the cluster is not ours.
    #[track_caller]
    pub fn acls<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) {
        self.tool("org.apache.kafka.tools.AclCommand", arguments);
    }

    /// Runs Kafka's own tool for users, quotas and settings, as in `kafka-configs.sh ARGUMENTS`.
    ///
    /// # Panics
    /// When it fails, or where the cluster is not ours.
    #[track_caller]
    pub fn configs<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) {
        self.tool("kafka.admin.ConfigCommand", arguments);
    }

    #[track_caller]
    fn tool<'a>(&self, class: &str, arguments: impl IntoIterator<Item = &'a str>) {
        if let Err(error) = self.broker().tool(class, arguments) {
            panic!("{error}");
        }
    }

    /// Deletes a topic.
    ///
    /// # Panics
    /// When Kafka refuses.
    #[track_caller]
    pub fn delete_topic(&self, name: &str) {
        if let Err(error) = self.delete_topics(&[name]) {
            panic!("{error}");
        }
    }

    /// The names of all topics.
    ///
    /// # Panics
    /// When Kafka does not answer.
    #[track_caller]
    pub fn topics(&self) -> Vec<String> {
        match self.list_topics(ADMIN_TIMEOUT) {
            Ok(topics) => topics,
            Err(error) => panic!("{error}"),
        }
    }

    fn list_topics(&self, timeout: Duration) -> Result<Vec<String>, Error> {
        let metadata = self.admin().inner().fetch_metadata(None, timeout);
        let metadata = metadata.map_err(Error::because("cannot list topics"))?;
        Ok(metadata.topics().iter().map(|topic| topic.name().to_owned()).collect())
    }

    fn delete_topics(&self, names: &[&str]) -> Result<(), Error> {
        let results = block_on(self.admin().delete_topics(names, &admin_options()))
            .map_err(Error::because("cannot delete topics"))?;
        match results.into_iter().find_map(Result::err) {
            Some((name, code)) => Err(Error::new(format!("cannot delete topic {name}: {code}"))),
            None => Ok(()),
        }
    }

    /// Deletes what a test has left behind; if that fails, so be it.
    pub(crate) fn delete_topics_of(&self, prefix: &str) {
        let topics = self.list_topics(Duration::from_secs(5)).unwrap_or_default();
        let names: Vec<&str> =
            topics.iter().map(String::as_str).filter(|name| name.starts_with(prefix)).collect();
        if !names.is_empty() {
            let _ = self.delete_topics(&names);
        }
    }

    fn admin(&self) -> &AdminClient<DefaultClientContext> {
        self.0.admin.get_or_init(|| {
            client_config(&self.direct()).create().expect("an admin client needs no server")
        })
    }
}

fn admin_options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(ADMIN_TIMEOUT)).request_timeout(Some(ADMIN_TIMEOUT))
}

/// A client that notices at once when a broker is back.
pub(crate) fn client_config(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("reconnect.backoff.ms", "10")
        .set("reconnect.backoff.max.ms", "100")
        .set("log_level", "0");
    config
}
