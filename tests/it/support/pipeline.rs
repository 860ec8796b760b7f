//! The configuration of a test's one pipeline, and where its results are.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use waltide_stack::serde_json::{Value, json};
use waltide_stack::{Database, Kafka, Stack, Topic, eventually};

use super::change::{Change, changes};
use super::{Daemon, Lsn, SOON};

/// A pipeline from a test's database to the shared Kafka and registry, unless told otherwise. Its
/// name is the database's prefix, so its topics go away with the database.
pub(crate) struct Pipeline<'a> {
    database: &'a Database,
    name: String,
    kafka: Kafka,
    settings: Value,
}

/// Where daemons keep open transactions: a directory of this run's own, as what an earlier one left
/// goes away.
fn spools() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let place = Path::new(env!("CARGO_TARGET_TMPDIR"));
        for left in fs::read_dir(place).expect("a directory").filter_map(Result::ok) {
            let name = left.file_name().into_string().unwrap_or_default();
            let run = name.strip_prefix("spool-").map(|pid| Path::new("/proc").join(pid));
            if run.is_some_and(|run| !run.exists()) {
                let _ = fs::remove_dir_all(left.path());
            }
        }
        place.join(format!("spool-{}", std::process::id()))
    })
}

impl<'a> Pipeline<'a> {
    /// Captures every table of every schema.
    pub(crate) fn of(database: &'a Database) -> Self {
        let stack = Stack::shared();
        let settings = json!({
            "source": { "url": database.url(), "tables": ["*.*"] },
            "kafka": { "bootstrap_servers": stack.kafka().bootstrap(), "partitions": 3 },
            "registry": { "url": stack.registry().url() },
            // Tests of the stream have rows of their own from before.
            "snapshot": "never",
            "spool": spools(),
        });
        let name = database.prefix().to_owned();
        Self { database, name, kafka: stack.kafka().clone(), settings }
    }

    /// Another pipeline of the same database.
    #[must_use]
    pub(crate) fn beside(mut self, suffix: &str) -> Self {
        self.name = format!("{}_{suffix}", self.name);
        self
    }

    /// The files in which it keeps open transactions, by name.
    pub(crate) fn spool_files(&self) -> BTreeMap<String, PathBuf> {
        let Ok(entries) = fs::read_dir(self.spool()) else { return BTreeMap::new() };
        let files = entries.map(|entry| entry.expect("an entry").path());
        let spooled = files.filter(|path| path.extension().is_some_and(|it| it == "spool"));
        let name = |path: &Path| path.file_name().map(|it| it.to_string_lossy().into_owned());
        spooled.filter_map(|path| Some((name(&path)?, path))).collect()
    }

    /// Its own directory for them.
    pub(crate) fn spool(&self) -> PathBuf {
        let parent = self.settings["spool"].as_str().expect("a path");
        Path::new(parent).join(&self.name)
    }

    /// Sets a key, such as `kafka.partitions`.
    #[must_use]
    pub(crate) fn with(self, key: &str, value: impl Into<Value>) -> Self {
        self.with_path(&key.split('.').collect::<Vec<_>>(), value)
    }

    /// Sets a key whose parts may have dots.
    #[must_use]
    pub(crate) fn with_path<T: AsRef<str>>(mut self, key: &[T], value: impl Into<Value>) -> Self {
        let mut place = &mut self.settings;
        for part in key {
            place = &mut place[part.as_ref()];
        }
        *place = value.into();
        self
    }

    /// Publishes to another Kafka.
    #[must_use]
    pub(crate) fn into_kafka(mut self, kafka: &Kafka) -> Self {
        self.kafka = kafka.clone();
        self.with("kafka.bootstrap_servers", kafka.bootstrap())
    }

    /// Its name, with which its topics begin.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its slot.
    pub(crate) fn slot(&self) -> String {
        match &self.settings["source"]["slot"] {
            Value::String(name) => name.clone(),
            _ => format!("waltide_{}", self.name()),
        }
    }

    /// The topic of a table, named as `schema.table`.
    pub(crate) fn topic(&self, table: &str) -> Topic {
        self.kafka.topic(&format!("{}.{table}", self.name()))
    }

    /// The records of a table's topic, named as `schema.table`, by partition and offset.
    #[track_caller]
    pub(crate) fn changes(&self, table: &str) -> Vec<Change> {
        changes(&self.topic(table))
    }

    /// The records of all its topics.
    #[track_caller]
    pub(crate) fn all_changes(&self) -> BTreeMap<String, Vec<Change>> {
        let prefix = format!("{}.", self.name());
        let topics = self.kafka.topics().into_iter();
        let tables = topics.filter_map(|topic| Some(topic.strip_prefix(&prefix)?.to_owned()));
        // Those are ours, and about the pipeline.
        let tables = tables.filter(|topic| !topic.starts_with("waltide."));
        tables.map(|table| (table.clone(), self.changes(&table))).collect()
    }

    /// The tables that have been read whole, named as `schema.table`, as consumers are told.
    #[track_caller]
    pub(crate) fn read_whole(&self) -> Vec<String> {
        let topic = self.topic("waltide.snapshot");
        if !self.kafka.topics().iter().any(|name| name == topic.name()) {
            return Vec::new();
        }
        let text = |of: &Value| of.as_str().expect("a name").to_owned();
        let name = |end: &Value| format!("{}.{}", text(&end["schema"]), text(&end["table"]));
        topic.read_json().iter().map(|end| name(&end.value)).collect()
    }

    /// The file as the daemon reads it; JSON is YAML. It is removed on drop.
    pub(crate) fn file(&self) -> ConfigFile {
        self.file_with_http(&[])
    }

    /// The same, with keys of `http`.
    pub(crate) fn file_with_http(&self, http: &[(&str, Value)]) -> ConfigFile {
        let mut text = json!({
            "pipelines": { self.name(): self.settings },
            "http": { "listen": "127.0.0.1:0" },
        });
        for (key, value) in http {
            text["http"][key] = value.clone();
        }
        ConfigFile::of(self.name(), &text.to_string())
    }

    /// Starts a daemon.
    #[track_caller]
    pub(crate) fn launch(&self) -> Daemon {
        Daemon::launch(self.file(), &["run"])
    }

    /// Starts a daemon with keys of `http`.
    #[track_caller]
    pub(crate) fn launch_with_http(&self, http: &[(&str, Value)]) -> Daemon {
        Daemon::launch(self.file_with_http(http), &["run"])
    }

    /// Starts a daemon with a directory of its own for what only its user shall read.
    #[track_caller]
    pub(crate) fn launch_in(&self, directory: &Path) -> Daemon {
        Daemon::launch_in(directory, self.file(), &["run"])
    }

    /// Starts a daemon and waits until it streams.
    #[track_caller]
    pub(crate) fn start(&self) -> Daemon {
        let daemon = self.launch();
        daemon.wait_for_state("streaming");
        daemon
    }

    /// What the server has been told is safe.
    #[track_caller]
    pub(crate) fn confirmed(&self) -> Lsn {
        let sql = "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = ";
        lsn(&self.database.value(&format!("{sql}'{}'", self.slot())))
    }

    /// Where the server's log ends now: at or past every commit so far.
    #[track_caller]
    pub(crate) fn end_of_log(&self) -> Lsn {
        lsn(&self.database.value("SELECT pg_current_wal_lsn()"))
    }

    /// Waits until everything committed so far is delivered and the server knows it.
    #[track_caller]
    pub(crate) fn wait_until_delivered(&self) -> Lsn {
        let end = self.end_of_log();
        eventually("all commits are confirmed", SOON, || {
            let confirmed = self.confirmed();
            (confirmed >= end).then_some(confirmed)
        })
    }
}

#[track_caller]
fn lsn(text: &str) -> Lsn {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

/// A configuration file that goes away with its owner.
pub(crate) struct ConfigFile(PathBuf);

impl ConfigFile {
    /// With this text; the name helps people to see whose it is.
    #[track_caller]
    pub(crate) fn of(name: &str, text: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("{name}-{}-{number}.yaml", std::process::id()));
        fs::write(&path, text).expect("a configuration file");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for ConfigFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
