//! What was typed: every key there is, each optional here, with its description.
//!
//! What a value means, which keys must be given and what the others default to is settled in
//! `settling`; `Fallback` says it for the reference.

use std::path::PathBuf;

use super::document::{Node, Value};
use super::error::Problems;
use super::keys::Fallback::{Derived, Is, Optional, Required};
use super::keys::{Group, KeyInfo, Shape, Word};
use super::reading::{
    At, Fields, Given, Key, Map, Pipeline as ByPipeline, Property as ByProperty, Read,
    Table as ByTable, choice, group,
};
use super::scalars::{Count, Url, Verbatim, choose};
use super::secret::Secret;

/// A list of texts, each with its place.
pub(super) type Texts = Vec<Given<String>>;

group! {
    /// The file as a whole.
    Config {
        /// The pipelines of this daemon, by name. They run isolated from each other. A name is
        /// made of lower-case letters and digits, in parts joined by `-` or `_`, and names the
        /// pipeline's slot, publication, topics and transactional id; so it stays as it is for
        /// the pipeline's life.
        pipelines: Map<ByPipeline, Pipeline> = Required,
        /// The endpoint of metrics, health and the status page.
        http: Http = Optional,
        /// What the daemon says while it runs.
        log: Log = Optional,
    }
}

group! {
    /// One way from a database to Kafka.
    Pipeline {
        /// The database, and what of it is captured.
        source: Source = Required,
        /// The cluster, and how topics are made.
        kafka: Kafka = Required,
        /// The schema registry.
        registry: Registry = Required,
        /// How rows become Avro.
        profile: Profile = Is("waltide"),
        /// In the debezium profile, what Debezium calls `topic.prefix`: it stands in the names of
        /// topics and schemas where otherwise the pipeline's name does. Letters, digits, dots, `_`
        /// and `-`.
        prefix: String = Derived("the pipeline's name"),
        /// How a change becomes a record.
        envelope: Envelope = Is("full"),
        /// Whether a delete is followed by a tombstone, a record with its key and without a value,
        /// which lets a compacted topic forget the key. In the flat envelope the tombstone is the
        /// delete, and stays.
        tombstones: bool = Is("true"),
        /// Whether a TRUNCATE is published, to every partition of the table's topic. The flat
        /// envelope has no form for it.
        truncates: bool = Is("true"),
        /// Whether `{pipeline}.transaction` says where each transaction begins and ends and how
        /// many changes of which tables it has. The full envelope then says of every change which
        /// of its transaction it is.
        transactions: bool = Is("false"),
        /// Whether what applications write with `pg_logical_emit_message` is published on
        /// `{pipeline}.message`.
        messages: bool = Is("false"),
        /// How often `{pipeline}.waltide.heartbeat` (in the debezium profile
        /// `__debezium-heartbeat.{pipeline}`) says that the pipeline lives and how far it is, in
        /// seconds; 0 for never.
        heartbeat_seconds: Count<0, 86_400> = Is("0"),
        /// After how long without Kafka a daemon that holds the slot gives it up to a standby, in
        /// seconds; 0 for never. It stays away from it for ten seconds then.
        standby_yield_seconds: Count<0, 86_400> = Is("0"),
        /// What a consumer may rely on after a failure.
        delivery: Delivery = Is("at_least_once"),
        /// What happens to the rows that were there before the pipeline.
        snapshot: SnapshotOrWord = Is("initial"),
        /// A directory for large open transactions, which are kept there until they commit. Each
        /// pipeline has a directory of its own below it. What is in it is disposable and bounded.
        spool: PathBuf = Is("/var/lib/waltide"),
        /// The most bytes that the open transactions of this pipeline may take there. One that
        /// takes more is read again once it is committed.
        spool_max_bytes: Count<1_000_000, 1_099_511_627_776> = Is("1073741824"),
        /// The most bytes that the value of a row's record may take. With `dead_letter` below it
        /// should be less than Kafka takes (`message.max.bytes`, a million unless raised): what
        /// only Kafka refuses halts the pipeline.
        max_row_bytes: Count<1_000, 1_073_741_824> = Is("1073741824"),
        /// What happens to a row that takes more than `max_row_bytes`.
        large_rows: LargeRows = Is("halt"),
        /// Exceptions for single tables, by `schema.table`. A table named here must be captured.
        table_options: Map<ByTable, TableOptions> = Optional,
    }
}

group! {
    /// The database, and what of it is captured.
    Source {
        /// The database as a URL, as libpq takes it: `postgres://user@host:5432/database`. User
        /// and database must be in it. Several hosts are separated by commas. Parameters after
        /// `?` are libpq's, such as `sslmode`, `sslrootcert` or `target_session_attrs`; one that
        /// is not supported is refused.
        url: Url = Required,
        /// A file that holds the password. It is read for each new connection, so that the
        /// password can be changed while the daemon runs. Without it, the password is the URL's,
        /// or that in the environment variable `PGPASSWORD`.
        password_file: PathBuf = Optional,
        /// A command that prints the password, as a list of the program and its arguments:
        /// `[aws, rds, generate-db-auth-token, ...]`. It is run, without a shell and for five
        /// seconds at most, when a connection needs a password; connections within 15 seconds share
        /// one that is not refused. So short-lived passwords are no trouble. Keep secrets
        /// out of its arguments, which anybody on the machine can see; what it prints is shown
        /// nowhere.
        password_command: Texts = Optional,
        /// The tables to capture, as patterns of `schema.table` in which `*` stands for any
        /// characters. They are compared as written: `public.Orders` is not `public.orders`. A
        /// name with a dot or star in it goes in double quotes: `public."a.b"`.
        tables: Texts = Required,
        /// Patterns of tables to leave out of those.
        exclude: Texts = Optional,
        /// The replication slot: lower-case letters, digits and `_`, up to 63 characters.
        slot: String = Derived("`waltide_` and the pipeline's name, with `_` for `-`"),
        /// Whether standbys keep a copy of the slot (PostgreSQL 17 and later), so that a pipeline goes
        /// on after one of them is promoted. They need `sync_replication_slots = on`,
        /// `hot_standby_feedback = on`, `primary_slot_name`, and a database in `primary_conninfo`; name
        /// their physical slots in the primary's `synchronized_standby_slots`, or consumers may see
        /// changes that the promoted server never had.
        failover: bool = Is("false"),
        /// The publication. One that exists is used as it is.
        publication: String = Derived("`waltide_` and the pipeline's name, with `_` for `-`"),
        /// Whether the server sends large transactions before they are committed (those beyond its
        /// `logical_decoding_work_mem`), so that they can be published as soon as they are. They
        /// wait in `spool`. Otherwise the server keeps them on its own disk, and sends them then.
        streaming: bool = Derived("`true`, and `false` with `messages`"),
        /// Whether values travel in Postgres' binary format. It is cheaper, and the only one that
        /// carries values of more than 512 MB; `false` is for tables with arrays, composites or
        /// ranges over a type that has no binary output.
        binary: bool = Is("true"),
    }
}

group! {
    /// The cluster, and how topics are made.
    Kafka {
        /// Brokers to begin with, separated by commas: `kafka-1:9092,kafka-2:9092`.
        bootstrap_servers: String = Required,
        /// The name of a table's topic. `{pipeline}`, `{schema}` and `{table}` stand for the
        /// names; what a topic's name cannot hold becomes `_`.
        topic: String = Is("{pipeline}.{schema}.{table}"),
        /// Partitions of a topic that is made. More of them later would move keys to others.
        partitions: Count<1, 100_000> = Derived("the brokers' `num.partitions`"),
        /// Replicas of a topic that is made.
        replication_factor: Count<1, 1_000> = Derived("the brokers' `default.replication.factor`"),
        /// Configuration of a topic that is made, with Kafka's names: `min.insync.replicas: 2`.
        topic_config: Map<ByProperty, Verbatim> = Optional,
        /// Properties for librdkafka, with its names: `security.protocol: sasl_ssl`. Those that
        /// keep the delivery guarantee are refused here.
        properties: Map<ByProperty, Verbatim> = Optional,
        /// A file that holds the password of `sasl.username`, instead of `sasl.password` under
        /// `properties`. It is read for each new client, and a client that is refused is made anew,
        /// so the password can be changed while the daemon runs.
        password_file: PathBuf = Optional,
        /// A file that holds a token, for `sasl.mechanism: OAUTHBEARER`. It is read again before the
        /// token expires, as its `exp` says, or every few minutes where it says nothing. The topics
        /// of a pipeline that logs in with a token must be there: it cannot make them.
        token_file: PathBuf = Optional,
        /// A command that prints such a token, as a list of the program and its arguments, run as
        /// `source.password_command` is.
        token_command: Texts = Optional,
    }
}

group! {
    /// The schema registry.
    Registry {
        /// Its address, as `http://` or `https://`. Any registry with Confluent's API will do;
        /// with Apicurio it ends in `/apis/ccompat/v7`. Several addresses of one registry are
        /// separated by commas; where one does not answer the next one is asked.
        ///
        /// Either this or `directory` is needed.
        url: Url = Optional,
        /// A directory that the daemon keeps schemas in, instead of a registry elsewhere: it
        /// answers consumers itself, in Confluent's API, on `listen`. Records name schemas by ids
        /// that only this directory knows, so it must outlive the container, and belongs into
        /// backups. Pipelines may share one.
        directory: PathBuf = Optional,
        /// Address and port on which the registry of `directory` answers. In a container this is
        /// `0.0.0.0:8081`. Reading needs no login; writing over the network needs the token of
        /// `token_file`, and without one it is refused. TLS is a proxy's to add.
        listen: String = Derived("`127.0.0.1:8081`"),
        /// The URL under which consumers reach the registry of `directory`, for messages.
        announce: Url = Derived("`http://` and the address of `listen`"),
        /// A user, for basic authentication.
        username: String = Optional,
        /// The user's password. `password_file` keeps it out of the configuration.
        password: Secret = Optional,
        /// A file that holds the user's password.
        password_file: PathBuf = Optional,
        /// A file that holds a bearer token, instead of a user. With `directory`, whoever writes
        /// over the network must show it.
        token_file: PathBuf = Optional,
        /// Another server that gives tokens, instead of a user (OAuth 2, client credentials).
        oauth: OAuth = Optional,
        /// A file with the certificates of the authorities to trust, in PEM, instead of the
        /// system's.
        ca_file: PathBuf = Optional,
        /// Files with our certificate and its key, in PEM, for a registry that asks for one.
        certificate_file: PathBuf = Optional,
        /// The key of `certificate_file`.
        key_file: PathBuf = Optional,
        /// What a schema's subject is named after.
        subjects: Subjects = Is("topic"),
        /// What happens when the registry says that a changed schema breaks the subject's rule.
        on_incompatible: OnIncompatible = Is("halt"),
        /// Whether the registry must give schemas the ids that the checkpoint remembers. One that was
        /// restored, or another one, may give other ids, and records that are published already would
        /// be read with the wrong schema; `false` goes on with the new ids.
        verify_ids: bool = Is("true"),
    }
}

group! {
    /// A server that gives tokens for the registry.
    OAuth {
        /// Where tokens are asked for.
        token_url: String = Required,
        /// Who we are to it.
        client_id: String = Required,
        /// What proves it. `client_secret_file` keeps it out of the configuration.
        client_secret: Secret = Optional,
        /// A file that holds it.
        client_secret_file: PathBuf = Optional,
        /// What the token shall be good for, where the server wants to know.
        scope: String = Optional,
    }
}

group! {
    /// Exceptions for one table.
    TableOptions {
        /// The name of its topic; may hold `{pipeline}`, `{schema}` and `{table}`.
        topic: String = Derived("as `kafka.topic` says"),
        /// The columns that make the record's key, in this order.
        key: Texts = Derived("the primary key"),
        /// Columns to leave out.
        exclude_columns: Texts = Optional,
        /// Columns to publish; the others are left out. A table has this or `exclude_columns`.
        include_columns: Texts = Optional,
        /// What happens to the rows that the table had before it was captured.
        snapshot: TableSnapshot = Derived("as `snapshot.mode` says"),
        /// Only rows for which this is true are read, unless a request says otherwise: a condition
        /// as it stands behind WHERE. The stream has changes of all rows.
        snapshot_where: String = Optional,
        /// Of the tables that are to be read, those with a higher number come first.
        snapshot_priority: Count<-1_000, 1_000> = Is("0"),
    }
}

group! {
    /// The endpoint of metrics, health and the status page.
    Http {
        /// Address and port. In a container this is `0.0.0.0:9464`.
        listen: String = Is("127.0.0.1:9464"),
        /// What a request must send, as `Authorization: Bearer TOKEN`, to change something: pause
        /// and resume. `token_file` keeps it out of the configuration. Without either the daemon
        /// makes one when it starts, and writes it to a file that only its user can read; the
        /// command line finds it there.
        token: Secret = Optional,
        /// A file that holds the token. It is read for each request that needs it.
        token_file: PathBuf = Optional,
        /// Whether reading needs the token as well: for an address that others reach. Browsers ask
        /// for it as a password. Probes and `/metrics` do not need it.
        protect_reads: bool = Is("false"),
        /// Speaks HTTPS instead of HTTP, also to probes and Prometheus.
        tls: HttpTls = Optional,
    }
}

group! {
    /// The certificate of the endpoint. Both files are read again when they change.
    HttpTls {
        /// A file with the certificate, followed by those that issued it, in PEM.
        certificate: PathBuf = Required,
        /// A file with its key, in PEM.
        key: PathBuf = Required,
    }
}

group! {
    /// What the daemon says while it runs.
    Log {
        /// The least important messages that are written.
        level: LogLevel = Is("info"),
        /// How they are written.
        format: LogFormat = Is("auto"),
    }
}

choice! {
    /// How rows become Avro.
    pub Profile {
        /// Avro's own logical types, and columns that may be null, so that a migration does not
        /// stop the pipeline.
        Waltide = "waltide",
        /// What Debezium publishes, for consumers that move over.
        Debezium = "debezium",
    }
}

choice! {
    /// How a change becomes a record.
    pub Envelope {
        /// The row before and after, the operation and its source.
        Full = "full",
        /// The row, with the rest in headers; a delete is a tombstone.
        Flat = "flat",
    }
}

choice! {
    /// What a schema's subject is named after.
    pub Subjects {
        /// The topic, with `-key` or `-value` behind it.
        Topic = "topic",
        /// The record's full name.
        Record = "record",
        /// The topic and the record's full name, with `-` in between.
        TopicRecord = "topic_record",
    }
}

choice! {
    /// What happens when the registry says that a changed schema breaks the subject's rule.
    pub OnIncompatible {
        /// The pipeline stops before the first row of that schema, and says what changed.
        Halt = "halt",
        /// The table goes on in a new topic, with `.v2`, `.v3` and so on behind the name.
        Fork = "fork",
        /// The subject's rule is lifted for this schema, and put back.
        Force = "force",
    }
}

choice! {
    /// What a consumer may rely on after a failure.
    pub(super) Delivery {
        /// Nothing is lost; what was last published may come again, in the same order.
        AtLeastOnce = "at_least_once",
        /// Each change once, for a consumer that reads committed records
        /// (`isolation.level=read_committed`).
        ExactlyOnce = "exactly_once",
    }
}

choice! {
    /// What happens to the rows that were there before the pipeline.
    pub(super) SnapshotMode {
        /// They are not published; the topics hold what changes from the slot's start on.
        Never = "never",
        /// They are read beside the running stream and published with op `r`; so are those of a
        /// table that joins later.
        Initial = "initial",
        /// They are read so when `waltide snapshot start` asks for it.
        OnRequest = "on_request",
    }
}

choice! {
    /// What happens to the rows that a table had before it was captured.
    pub(super) TableSnapshot {
        /// They are read as soon as the table is captured.
        Initial = "initial",
        /// They are read when `waltide snapshot start` asks for it.
        OnRequest = "on_request",
    }
}

choice! {
    /// What happens to a row that takes more than is allowed.
    pub LargeRows {
        /// The pipeline stops before it; nothing after it is confirmed.
        Halt = "halt",
        /// A record on `{pipeline}.waltide.deadletter` says which row it was, without the row, and
        /// the pipeline goes on.
        DeadLetter = "dead_letter",
    }
}

choice! {
    /// The least important messages that are written.
    pub LogLevel {
        /// What somebody should look at now.
        Error = "error",
        /// What may become an error.
        Warn = "warn",
        /// What happens in the life of a pipeline.
        Info = "info",
        /// What a developer of the daemon wants to know.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }
}

choice! {
    /// How messages are written.
    pub LogFormat {
        /// `text` where a person reads, on a terminal; `json` elsewhere.
        Auto = "auto",
        /// A line for people.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

group! {
    /// What happens to the rows that were there before the pipeline. Instead of these keys the word
    /// of `mode` may stand alone.
    Snapshot {
        /// Whether they are read.
        mode: SnapshotMode = Is("initial"),
        /// How many chunks are read at once, each on a connection of its own; for each, 6 MiB of rows
        /// are held in memory until the stream has come as far as they are.
        parallelism: Count<1, 16> = Is("2"),
        /// The most bytes of rows that are read in a second; 0 for no limit.
        max_rate: Count<0, 2_000_000_000> = Is("0"),
        /// The most rows that are read in a second; 0 for no limit.
        max_rows: Count<0, 2_000_000_000> = Is("0"),
        /// Nothing is read while a physical replica that is connected to the source has more bytes
        /// of the log to replay than this; 0 for no limit. The role needs `pg_read_all_stats` to see
        /// that.
        max_replica_lag_bytes: Count<0, 1_099_511_627_776> = Is("0"),
        /// The stream waits while a table without a key is read, so larger ones than this are not
        /// read (WT232); 0 for no limit.
        keyless_max_bytes: Count<0, 2_000_000_000> = Is("1000000000"),
        /// A replica from which chunks are read, instead of the source.
        from: Replica = Optional,
    }
}

group! {
    /// A physical replica of the source, to take the load of reading tables from it. A chunk is read
    /// once the replica has replayed what the stream has published by then; while it cannot be used,
    /// what was to be read waits (WT237, WT238). What changed in large values meanwhile, and tables
    /// without a key, are read from the source. Each chunk that is read at once takes one of the
    /// replica's `max_wal_senders`.
    Replica {
        /// The replica as a URL, as that of the source, to the same database.
        url: Url = Required,
        /// A file that holds the password, as that of the source.
        password_file: PathBuf = Optional,
        /// A command that prints the password, as that of the source.
        password_command: Texts = Optional,
    }
}

/// The keys, or the word that stands for the first of them.
#[derive(Clone, Debug, Default)]
pub(super) struct SnapshotOrWord(pub(super) Snapshot);

impl Read for SnapshotOrWord {
    fn shape() -> Shape {
        match Snapshot::shape() {
            Shape::Group(group) => Shape::Short(SnapshotMode::WORDS, group),
            other => other,
        }
    }

    fn read(node: &Node, at: &At, problems: &mut Problems) -> Option<Self> {
        if !matches!(node.value, Value::Scalar(_)) {
            return Snapshot::read(node, at, problems).map(Self);
        }
        let value = SnapshotMode::read(node, at, problems)?;
        let mode = Key::Given(Given { value, at: at.clone() });
        Some(Self(Snapshot { mode, ..Snapshot::default() }))
    }
}

/// The shape of the whole file.
pub(super) fn shape() -> Shape {
    Config::shape()
}

/// The value typed at a key, where one is.
pub(super) fn value_or<T: Copy>(key: &Key<T>, default: T) -> T {
    key.value().copied().unwrap_or(default)
}
