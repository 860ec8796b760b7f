//! From what was typed to what it means. Everything wrong is collected before anything is given
//! up, so one run shows all there is to mend.

mod http;
mod options;
mod own_registry;
mod registry;
mod sink;
mod source;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::environment::Environment;
use super::error::{Kind, Place, Problems};
use super::keys::Naming;
use super::reading::{At, Key, MapEntry};
use super::settled::{self, Delivery, LogFormat, LogLevel, Snapshot, SnapshotOptions};
use super::tables::MAX_IDENTIFIER_BYTES;
use super::typed::{self, Envelope, LargeRows, Profile, SnapshotMode, value_or};

/// One chunk is read while another is published.
const DEFAULT_PARALLELISM: u8 = 2;

/// As the reference says.
const DEFAULT_KEYLESS_BYTES: u64 = 1_000_000_000;

/// Where open transactions are spooled unless told otherwise.
const DEFAULT_SPOOL: &str = "/var/lib/waltide";

/// What they may take there unless told otherwise. Half of what the chart gives.
const DEFAULT_SPOOL_MAX_BYTES: u64 = 1 << 30;

/// No field of Postgres is larger; Kafka takes far less unless it is told otherwise.
const DEFAULT_MAX_ROW_BYTES: usize = 1 << 30;

/// What slots and publications are called, before the pipeline's name.
const DEFAULT_NAME_PREFIX: &str = "waltide_";

/// The longest name of a pipeline: a slot's name made from it still fits.
const MAX_NAME_BYTES: usize = MAX_IDENTIFIER_BYTES - DEFAULT_NAME_PREFIX.len();

/// Something that is allowed and may not be meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Where, as far as there is a place.
    pub place: Place,
    /// The key it is about.
    pub key: String,
    /// What to think about.
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Nowhere => write!(f, "{}", self.message),
            place => write!(f, "{} ({place})", self.message),
        }
    }
}

/// What settling needs at hand.
struct Settling<'a> {
    environment: &'a Environment,
    problems: &'a mut Problems,
    warnings: &'a mut Vec<Warning>,
}

/// Settles a whole configuration; nothing where a problem was collected.
pub(super) fn settle(
    typed: &typed::Config,
    root: &At,
    environment: &Environment,
    problems: &mut Problems,
    warnings: &mut Vec<Warning>,
) -> Option<settled::Config> {
    let mut settling = Settling { environment, problems, warnings };
    let pipelines = settling.pipelines(typed, root);
    let http = settling.http(&typed.http);
    let log = settling.log(&typed.log);
    Some(settled::Config { pipelines: pipelines?, http: http?, log })
}

impl Settling<'_> {
    fn pipelines(&mut self, typed: &typed::Config, root: &At) -> Option<Vec<settled::Pipeline>> {
        let entries = match &typed.pipelines {
            Key::Given(given) if given.value.entries.is_empty() => {
                self.problems.add(given.at.key_error(Kind::MissingKey, "there is no pipeline"));
                return None;
            }
            Key::Given(given) => &given.value.entries,
            Key::Broken => return None,
            Key::Absent => {
                let error = root.missing("pipelines");
                self.problems.add(match root.key.place {
                    Place::Nowhere => error.help(
                        "name a file with --config or WALTIDE_CONFIG, or give the keys in variables: \
                         WALTIDE_PIPELINES__<NAME>__SOURCE__URL and so on",
                    ),
                    Place::File { .. } | Place::Variable(_) => error,
                });
                return None;
            }
        };
        let settled: Vec<_> = entries.iter().map(|entry| self.pipeline(entry)).collect();
        self.refuse_names_that_fold_alike(entries);
        self.refuse_shared_slots(entries, &settled);
        self.warn_of_shared_topics(entries, &settled);
        self.refuse_registries_that_meet(entries, &settled);
        settled.into_iter().collect()
    }

    fn pipeline(&mut self, entry: &MapEntry<typed::Pipeline>) -> Option<settled::Pipeline> {
        let MapEntry { name, at, value } = entry;
        let nothing = typed::Pipeline::default();
        let typed = match value {
            Key::Given(given) => &given.value,
            Key::Absent => &nothing,
            Key::Broken => return None,
        };
        let named = self.name(name, at);
        let source = typed.source.required("source", at, self.problems);
        let source = source.and_then(|given| self.source(name, given, &typed.messages));
        let kafka = typed.kafka.required("kafka", at, self.problems);
        let kafka = kafka.and_then(|given| self.kafka(given));
        let registry = typed.registry.required("registry", at, self.problems);
        let registry = registry.and_then(|given| self.registry(given));
        let delivery = Self::delivery(&typed.delivery);
        let snapshot = self.snapshot(&typed.snapshot);
        let prefix = self.prefix(name, typed);
        let options = prefix
            .as_deref()
            .and_then(|prefix| self.table_options((name, prefix), typed, source.as_ref()));
        self.refuse_one_topic_for_all(typed, source.as_ref(), kafka.as_ref());
        Some(settled::Pipeline {
            name: named?,
            source: source?,
            kafka: kafka?,
            registry: registry?,
            profile: value_or(&typed.profile, Profile::Waltide),
            prefix: prefix?,
            envelope: value_or(&typed.envelope, Envelope::Full),
            tombstones: value_or(&typed.tombstones, true),
            truncates: value_or(&typed.truncates, true),
            transactions: value_or(&typed.transactions, false),
            messages: value_or(&typed.messages, false),
            heartbeat: seconds(&typed.heartbeat_seconds),
            standby_yield: seconds(&typed.standby_yield_seconds),
            delivery: delivery?,
            snapshot: snapshot?,
            spool: typed.spool.value().cloned().unwrap_or_else(|| PathBuf::from(DEFAULT_SPOOL)),
            spool_max_bytes: typed
                .spool_max_bytes
                .value()
                .and_then(|count| u64::try_from(count.0).ok())
                .unwrap_or(DEFAULT_SPOOL_MAX_BYTES),
            max_row_bytes: typed
                .max_row_bytes
                .value()
                .and_then(|count| usize::try_from(count.0).ok())
                .unwrap_or(DEFAULT_MAX_ROW_BYTES),
            large_rows: value_or(&typed.large_rows, LargeRows::Halt),
            table_options: options?,
        })
    }

    /// What stands for the pipeline in the names of its tables' topics.
    fn prefix(&mut self, name: &str, typed: &typed::Pipeline) -> Option<String> {
        let given = match &typed.prefix {
            Key::Given(given) => given,
            Key::Absent => return Some(name.to_owned()),
            Key::Broken => return None,
        };
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if given.value.is_empty() || !given.value.chars().all(legal) {
            let message = "this cannot begin a topic's name";
            let error = given.at.error(Kind::InvalidValue, message);
            self.problems.add(error.help("use letters, digits, dots, `_` and `-`"));
            return None;
        }
        if value_or(&typed.profile, Profile::Waltide) != Profile::Debezium {
            let error = given.at.error(Kind::Conflict, "only the debezium profile has a prefix");
            self.problems
                .add(error.help(
                    "set `profile: debezium`, or say in `kafka.topic` how topics are called",
                ));
            return None;
        }
        Some(given.value.clone())
    }

    fn name(&mut self, name: &str, at: &At) -> Option<String> {
        let is_word = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        };
        if !name.split(['-', '_']).all(is_word) {
            let error = at.key_error(Kind::InvalidValue, "this cannot be a pipeline's name");
            self.problems.add(error.help(
                "a name is made of lower-case letters and digits, in parts joined by a single `-` \
                 or `_`: it becomes part of the names of slot, publication and topics",
            ));
            return None;
        }
        if name.len() > MAX_NAME_BYTES {
            let message = format!("a pipeline's name has at most {MAX_NAME_BYTES} characters");
            let error = at.key_error(Kind::InvalidValue, message);
            self.problems.add(error.help("the name of the replication slot is made from it"));
            return None;
        }
        Some(name.to_owned())
    }

    fn refuse_names_that_fold_alike(&mut self, entries: &[MapEntry<typed::Pipeline>]) {
        for (index, entry) in entries.iter().enumerate() {
            let folded = Naming::Pipeline.folded(&entry.name);
            let mut before = entries.iter().take(index);
            let Some(first) = before.find(|one| Naming::Pipeline.folded(&one.name) == folded)
            else {
                continue;
            };
            let message = "this name differs from another only in `-` and `_`";
            let error = entry.at.key_error(Kind::Conflict, message);
            self.problems.add(error.help(format!(
                "both would have one slot and the same environment variables; rename this one or \
                 the one at {}",
                first.at.key.place
            )));
        }
    }

    /// Slots belong to a server, not to a database: two pipelines on one server need two.
    fn refuse_shared_slots(
        &mut self,
        entries: &[MapEntry<typed::Pipeline>],
        settled: &[Option<settled::Pipeline>],
    ) {
        for (index, (entry, pipeline)) in entries.iter().zip(settled).enumerate() {
            let Some(pipeline) = pipeline else { continue };
            let before = entries.iter().zip(settled).take(index);
            let same = |other: &settled::Pipeline| {
                other.source.slot == pipeline.source.slot
                    && other.source.url.servers() == pipeline.source.url.servers()
            };
            let Some((first, _)) =
                before.into_iter().find(|(_, other)| other.as_ref().is_some_and(same))
            else {
                continue;
            };
            let typed = entry.value.value().and_then(|pipeline| pipeline.source.value());
            let slot = typed.and_then(|source| source.slot.given());
            let at = slot.map_or(&entry.at, |slot| &slot.at);
            let message = format!(
                "slot `{}` is that of another pipeline on the same server",
                pipeline.source.slot
            );
            let error = if slot.is_some() {
                at.error(Kind::Conflict, message)
            } else {
                at.key_error(Kind::Conflict, message)
            };
            self.problems.add(error.help(format!(
                "give one of them another `source.slot`; the other pipeline is at {}",
                first.at.key.place
            )));
        }
    }

    /// Two databases that write one topic are allowed, where somebody splits one by hand; the
    /// keys of their tables then share an order that neither of them knows.
    fn warn_of_shared_topics(
        &mut self,
        entries: &[MapEntry<typed::Pipeline>],
        settled: &[Option<settled::Pipeline>],
    ) {
        for (index, (entry, pipeline)) in entries.iter().zip(settled).enumerate() {
            let Some(pipeline) = pipeline else { continue };
            let kafka = &pipeline.kafka;
            let shared = settled.iter().take(index).flatten().any(|other| {
                other.kafka.topic == kafka.topic
                    && other.kafka.bootstrap_servers == kafka.bootstrap_servers
                    && (other.prefix == pipeline.prefix || !kafka.topic.names_pipeline())
            });
            if shared {
                self.warnings.push(Warning {
                    place: entry.at.key.place.clone(),
                    key: entry.at.path.child("kafka").child("topic").as_str().to_owned(),
                    message: format!(
                        "pipeline `{}` writes topics of the same names as another; `{{pipeline}}` \
                         in `kafka.topic` keeps them apart",
                        entry.name
                    ),
                });
            }
        }
    }

    fn delivery(typed: &Key<typed::Delivery>) -> Option<Delivery> {
        let Key::Given(given) = typed else {
            return matches!(typed, Key::Absent).then_some(Delivery::AtLeastOnce);
        };
        Some(match given.value {
            typed::Delivery::AtLeastOnce => Delivery::AtLeastOnce,
            typed::Delivery::ExactlyOnce => Delivery::ExactlyOnce,
        })
    }

    fn snapshot(&mut self, typed: &Key<typed::SnapshotOrWord>) -> Option<Snapshot> {
        let nothing = typed::SnapshotOrWord::default();
        let typed::SnapshotOrWord(typed) = match typed {
            Key::Broken => return None,
            Key::Absent => &nothing,
            Key::Given(given) => &given.value,
        };
        let mode = value_or(&typed.mode, SnapshotMode::Initial);
        if mode == SnapshotMode::Never {
            return Some(Snapshot::Never);
        }
        let parallelism = typed.parallelism.value().and_then(|count| u8::try_from(count.0).ok());
        let from = match &typed.from {
            Key::Broken => return None,
            Key::Absent => None,
            Key::Given(given) => Some(Box::new(self.replica(given)?)),
        };
        let keyless = typed.keyless_max_bytes.value().and_then(|count| u64::try_from(count.0).ok());
        let keyless = keyless.map(|bytes| Some(bytes).filter(|bytes| *bytes > 0));
        Some(Snapshot::Initial(SnapshotOptions {
            on_request: mode == SnapshotMode::OnRequest,
            parallelism: parallelism.unwrap_or(DEFAULT_PARALLELISM),
            max_rate: limit(&typed.max_rate),
            max_rows: limit(&typed.max_rows),
            max_replica_lag: limit(&typed.max_replica_lag_bytes),
            from,
            keyless_max_bytes: keyless.unwrap_or(Some(DEFAULT_KEYLESS_BYTES)),
        }))
    }

    fn log(&mut self, typed: &Key<typed::Log>) -> settled::Log {
        let nothing = typed::Log::default();
        let typed = typed.value().unwrap_or(&nothing);
        settled::Log {
            level: value_or(&typed.level, LogLevel::Info),
            format: value_or(&typed.format, LogFormat::Auto),
        }
    }
}

/// A limit, where it is not zero.
fn limit<const MAX: i64>(typed: &Key<super::scalars::Count<0, MAX>>) -> Option<u64> {
    let limit = typed.value().and_then(|count| u64::try_from(count.0).ok());
    limit.filter(|limit| *limit > 0)
}

/// A time, where it is not zero.
fn seconds<const MAX: i64>(typed: &Key<super::scalars::Count<0, MAX>>) -> Option<Duration> {
    let seconds = typed.value().and_then(|count| u64::try_from(count.0).ok());
    seconds.filter(|seconds| *seconds > 0).map(Duration::from_secs)
}
