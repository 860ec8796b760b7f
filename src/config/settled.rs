//! What a configuration means: every default filled in, everything checked and cross-checked.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use waltide_core::snapshot::Filter;

use super::secret::{Credential, Secret};
use super::tables::{TableName, TablePattern};
use super::topic::TopicTemplate;
pub use super::typed::{
    Envelope, LargeRows, LogFormat, LogLevel, OnIncompatible, Profile, Subjects,
};
use super::url::DatabaseUrl;

/// The whole configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// At least one, in the order of the file.
    pub pipelines: Vec<Pipeline>,
    /// The endpoint of metrics, health and the status page.
    pub http: Http,
    /// What the daemon says while it runs.
    pub log: Log,
}

/// One way from a database to Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pipeline {
    /// Its name, unique also when `-` and `_` are taken for the same.
    pub name: String,
    /// The database, and what of it is captured.
    pub source: Source,
    /// The cluster, and how topics are made.
    pub kafka: Kafka,
    /// The schema registry.
    pub registry: Registry,
    /// How rows become Avro.
    pub profile: Profile,
    /// What topics and schemas of tables are named after: the pipeline, or Debezium's prefix.
    pub prefix: String,
    /// How a change becomes a record.
    pub envelope: Envelope,
    /// Whether a delete is followed by a tombstone.
    pub tombstones: bool,
    /// Whether a TRUNCATE is published.
    pub truncates: bool,
    /// Whether begins and ends of transactions are published.
    pub transactions: bool,
    /// Whether messages that applications write into the log are published.
    pub messages: bool,
    /// How often a heartbeat says how far it is.
    pub heartbeat: Option<Duration>,
    /// After how long without Kafka the slot is given up to a standby.
    pub standby_yield: Option<Duration>,
    /// What a consumer may rely on after a failure.
    pub delivery: Delivery,
    /// What happens to the rows that were there before the pipeline.
    pub snapshot: Snapshot,
    /// The directory below which this pipeline has one of its own.
    pub spool: PathBuf,
    /// The most bytes in it.
    pub spool_max_bytes: u64,
    /// The most bytes that the value of a row's record may take.
    pub max_row_bytes: usize,
    /// What happens to a row that takes more.
    pub large_rows: LargeRows,
    /// Exceptions for single tables.
    pub table_options: BTreeMap<TableName, TableOptions>,
}

impl Pipeline {
    /// This pipeline's own directory for large open transactions.
    #[must_use]
    pub fn spool_directory(&self) -> PathBuf {
        self.spool.join(&self.name)
    }

    /// The topic of what is published in place of a record that cannot be.
    #[must_use]
    pub fn dead_letter_topic(&self) -> String {
        format!("{}.waltide.deadletter", self.name)
    }

    /// The topic of begins and ends of transactions.
    #[must_use]
    pub fn transaction_topic(&self) -> String {
        format!("{}.transaction", self.prefix)
    }

    /// The topic of heartbeats.
    #[must_use]
    pub fn heartbeat_topic(&self) -> String {
        match self.profile {
            Profile::Waltide => format!("{}.waltide.heartbeat", self.name),
            Profile::Debezium => format!("__debezium-heartbeat.{}", self.prefix),
        }
    }

    /// The topic of messages that applications write into the log.
    #[must_use]
    pub fn message_topic(&self) -> String {
        format!("{}.message", self.prefix)
    }

    /// The topics beside those of tables whose records are acknowledged before the source is told,
    /// as far as they are wanted.
    #[must_use]
    pub fn topics_beside_tables(&self) -> Vec<String> {
        let transactions = self.transactions.then(|| self.transaction_topic());
        let messages = self.messages.then(|| self.message_topic());
        transactions.into_iter().chain(messages).collect()
    }

    /// Names that no table's topic may have.
    #[must_use]
    pub fn reserved_topics(&self) -> Vec<String> {
        let mut topics = self.topics_beside_tables();
        topics.extend([self.checkpoint_topic(), self.dead_letter_topic(), self.gap_topic()]);
        topics.extend([self.heartbeat_topic(), self.snapshot_topic()]);
        topics
    }

    /// The topic of tables that have been read whole.
    #[must_use]
    pub fn snapshot_topic(&self) -> String {
        format!("{}.waltide.snapshot", self.name)
    }

    /// The topic of changes that somebody decided to go on without.
    #[must_use]
    pub fn gap_topic(&self) -> String {
        format!("{}.waltide.gap", self.name)
    }

    /// The topic of a table. Two tables can come out at one name, and a name can be too long
    /// for Kafka: see [`TopicTemplate::render`].
    #[must_use]
    pub fn topic_of(&self, table: &TableName) -> String {
        let own = self.table_options.get(table).and_then(|options| options.topic.as_ref());
        own.unwrap_or(&self.kafka.topic).render(&self.prefix, &table.schema, &table.table)
    }

    /// The topic that remembers how far it is.
    #[must_use]
    pub fn checkpoint_topic(&self) -> String {
        format!("{}.waltide.checkpoint", self.name)
    }

    /// Whoever writes checkpoints shuts out, with these, whoever wrote them before. Checkpoints that
    /// are written apart from records go by the first; where they count together, two take turns.
    #[must_use]
    pub fn transactional_ids(&self) -> [String; 2] {
        let first = format!("{}.waltide", self.name);
        let second = format!("{first}.2");
        [first, second]
    }
}

/// The database, and what of it is captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Where it is. A password in it comes before [`Source::password`].
    pub url: DatabaseUrl,
    /// The password, where it is not in the URL: a file's, or that in `PGPASSWORD`.
    pub password: Option<Credential>,
    /// What is captured, before [`Source::exclude`].
    pub tables: Vec<TablePattern>,
    /// What is left out of it.
    pub exclude: Vec<TablePattern>,
    /// The replication slot.
    pub slot: String,
    /// Whether standbys keep a copy of the slot.
    pub failover: bool,
    /// The publication.
    pub publication: String,
    /// Whether large transactions are sent before they are committed.
    pub streaming: bool,
    /// Whether values travel in binary.
    pub binary: bool,
}

impl Source {
    /// Whether a table is captured.
    #[must_use]
    pub fn captures(&self, schema: &str, table: &str) -> bool {
        let any = |patterns: &[TablePattern]| patterns.iter().any(|one| one.matches(schema, table));
        any(&self.tables) && !any(&self.exclude)
    }
}

/// The cluster, and how topics are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kafka {
    /// Brokers to begin with, separated by commas.
    pub bootstrap_servers: String,
    /// The name of a table's topic.
    pub topic: TopicTemplate,
    /// Partitions of a topic that is made; `None` leaves it to the brokers.
    pub partitions: Option<i32>,
    /// Replicas of a topic that is made; `None` leaves it to the brokers.
    pub replication_factor: Option<i32>,
    /// Configuration of a topic that is made. Its names are the brokers' to judge, so a value
    /// may be anything that slipped into it, and is kept like a secret.
    pub topic_config: BTreeMap<String, Secret>,
    /// Properties for librdkafka; none of them touches the delivery guarantee.
    pub properties: BTreeMap<String, Secret>,
    /// Who we are, where that changes while the daemon runs.
    pub login: KafkaLogin,
}

/// Who we are to the brokers, beside what the properties say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum KafkaLogin {
    /// As the properties say.
    #[default]
    AsConfigured,
    /// With this password.
    Password(Credential),
    /// As the bearer of this token.
    Token(Credential),
}

/// The schema registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registry {
    /// A registry of our own, instead of one elsewhere.
    pub own: Option<OwnRegistry>,
    /// Its addresses, without login and without a slash at their ends.
    pub urls: Vec<String>,
    /// Who we are.
    pub login: RegistryLogin,
    /// Authorities to trust, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Our certificate and its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// What subjects are named after.
    pub subjects: Subjects,
    /// What happens to a schema that breaks its subject's rule.
    pub on_incompatible: OnIncompatible,
    /// Whether its ids must be those that the checkpoint remembers.
    pub verify_ids: bool,
}

impl Registry {
    /// Where it is, for messages.
    #[must_use]
    pub fn address(&self) -> String {
        match &self.own {
            Some(own) => own.announced.clone(),
            None => self.urls.join(", "),
        }
    }
}

/// A registry of our own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnRegistry {
    /// Where schemas are kept.
    pub directory: PathBuf,
    /// Where it answers.
    pub listen: SocketAddr,
    /// Under which URL consumers reach it.
    pub announced: String,
    /// What whoever writes over the network must show.
    pub token: Option<Credential>,
}

/// Who we are to the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistryLogin {
    /// Nobody.
    None,
    /// A user with a password.
    Basic {
        /// The user.
        username: String,
        /// The password.
        password: Credential,
    },
    /// The bearer of a token.
    Bearer(Credential),
    /// The bearer of a token that another server gives.
    Client {
        /// Where tokens are given.
        token_url: String,
        /// Who we are to it.
        id: String,
        /// What proves it.
        secret: Credential,
        /// What the token shall be good for.
        scope: Option<String>,
    },
}

/// What a consumer may rely on after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Nothing is lost; what was last published may come again, in the same order.
    AtLeastOnce,
    /// Each change once, for a consumer that reads committed records.
    ExactlyOnce,
}

/// What happens to the rows that were there before the pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Snapshot {
    /// They are not published.
    Never,
    /// They are read beside the stream.
    Initial(SnapshotOptions),
}

/// How tables are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotOptions {
    /// Whether that waits until somebody asks for it.
    pub on_request: bool,
    /// How many chunks at once.
    pub parallelism: u8,
    /// Bytes a second, at most.
    pub max_rate: Option<u64>,
    /// Rows a second, at most.
    pub max_rows: Option<u64>,
    /// Nothing is read while a replica of the source is further behind, in bytes of the log.
    pub max_replica_lag: Option<u64>,
    /// The most bytes that a table without a key may have; none for no limit.
    pub keyless_max_bytes: Option<u64>,
    /// A replica of the source from which chunks are read.
    pub from: Option<Box<Replica>>,
}

/// A replica of the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Where it is. A password in it comes before [`Replica::password`].
    pub url: DatabaseUrl,
    /// The password, where it is not in the URL: a file's, or that in `PGPASSWORD`.
    pub password: Option<Credential>,
}

/// Exceptions for one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableOptions {
    /// Its topic's name.
    pub topic: Option<TopicTemplate>,
    /// The columns that make the key, in order; empty for the primary key.
    pub key: Vec<String>,
    /// Which columns are published.
    pub columns: Columns,
    /// What is read of it.
    pub snapshot: TableSnapshot,
}

/// What is read of the rows that a table had before it was captured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableSnapshot {
    /// Whether that waits until somebody asks for it; none for what holds of all tables.
    pub on_request: Option<bool>,
    /// Only rows for which this is true.
    pub filter: Option<Filter>,
    /// Those with a higher number come first.
    pub priority: i32,
}

/// Which columns of a table are published.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Columns {
    /// All of them.
    #[default]
    All,
    /// All but these.
    Except(Vec<String>),
    /// Only these.
    Only(Vec<String>),
}

/// The endpoint of metrics, health and the status page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// Where it listens.
    pub listen: SocketAddr,
    /// What lets somebody change something; made at the start where none is given.
    pub token: Option<Credential>,
    /// Whether reading needs it as well.
    pub protect_reads: bool,
    /// Files for TLS, where it is spoken.
    pub tls: Option<HttpTls>,
}

/// The certificate of the endpoint, and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpTls {
    /// The file with the certificate, and those that issued it.
    pub certificate: PathBuf,
    /// The file with its key.
    pub key: PathBuf,
}

/// What the daemon says while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// The least important messages that are written.
    pub level: LogLevel,
    /// How they are written.
    pub format: LogFormat,
}
