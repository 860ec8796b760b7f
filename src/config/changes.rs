//! What another configuration changes, and whether a daemon that runs can take it.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use super::Loaded;
use super::document::{Node, Value};
use super::error::Place;
use super::keys::KeyPath;
use super::settled::{LogLevel, Pipeline, Snapshot};

/// What a pipeline takes on while the daemon runs, below its name. It starts its stream anew with
/// it, as after any interruption; what says where it reads and writes is not among them.
pub const TAKEN: [&str; 12] = [
    "source.tables",
    "source.exclude",
    "snapshot.parallelism",
    "snapshot.max_rate",
    "snapshot.max_rows",
    "snapshot.max_replica_lag_bytes",
    "snapshot.from",
    "table_options",
    "max_row_bytes",
    "large_rows",
    "heartbeat_seconds",
    "standby_yield_seconds",
];

/// Every value that was given, by its key: where it stands, and what tells it from another.
pub(super) type Leaves = BTreeMap<String, (Place, u64)>;

/// A change that needs a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Untaken {
    /// The key.
    pub key: String,
    /// Where it stands, or stood.
    pub place: Place,
}

/// What can be taken on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Pipelines that change.
    pub pipelines: Vec<Pipeline>,
    /// Another level of the log.
    pub level: Option<LogLevel>,
    /// The keys that differ.
    pub keys: Vec<String>,
}

/// Gathers the values of a tree.
pub(super) fn leaves(root: &Node) -> Leaves {
    let mut leaves = Leaves::new();
    gather(root, &KeyPath::root(), &mut leaves);
    leaves
}

fn gather(node: &Node, path: &KeyPath, leaves: &mut Leaves) {
    match &node.value {
        Value::Null | Value::Broken => {}
        Value::Scalar(scalar) => {
            // Not the text itself, which may be a secret.
            let mut hasher = DefaultHasher::new();
            scalar.text.hash(&mut hasher);
            let leaf = (node.mark.place.clone(), hasher.finish());
            leaves.insert(path.as_str().to_owned(), leaf);
        }
        Value::List(items) => {
            for (index, item) in items.iter().enumerate() {
                gather(item, &path.item(index), leaves);
            }
        }
        Value::Map(entries) => {
            for entry in entries {
                gather(&entry.value, &path.child(&entry.key), leaves);
            }
        }
    }
}

impl Loaded {
    /// What is to be done for a daemon that runs with this configuration to run with another.
    ///
    /// # Errors
    /// Everything that needs a restart.
    pub fn changes(&self, to: &Self) -> Result<Changes, Vec<Untaken>> {
        let mut changes = Changes { keys: self.differing(to, ""), ..Changes::default() };
        let mut untaken = Vec::new();
        for pipeline in &to.config.pipelines {
            let known = self.config.pipelines.iter().find(|one| one.name == pipeline.name);
            match known {
                Some(known) if known == pipeline => {}
                Some(known) if takes(known, pipeline) => changes.pipelines.push(pipeline.clone()),
                _ => untaken.extend(self.untaken(to, &below("pipelines", &pipeline.name))),
            }
        }
        for known in &self.config.pipelines {
            if !to.config.pipelines.iter().any(|one| one.name == known.name) {
                untaken.extend(self.untaken(to, &below("pipelines", &known.name)));
            }
        }
        if self.config.http != to.config.http {
            untaken.extend(self.untaken(to, "http"));
        }
        if self.config.log.format != to.config.log.format {
            untaken.extend(self.untaken(to, "log.format"));
        }
        let level = to.config.log.level;
        changes.level = (self.config.log.level != level).then_some(level);
        if untaken.is_empty() { Ok(changes) } else { Err(untaken) }
    }

    /// The keys below one that are not the same in both.
    fn differing(&self, to: &Self, prefix: &str) -> Vec<String> {
        let mut keys = BTreeSet::new();
        let both = self.leaves.keys().chain(to.leaves.keys());
        for key in both.filter(|key| is_below(key, prefix)) {
            let value = |of: &Self| of.leaves.get(key).map(|(_, value)| *value);
            if value(self) != value(to) {
                keys.insert(key.clone());
            }
        }
        keys.into_iter().collect()
    }

    fn untaken(&self, to: &Self, prefix: &str) -> Vec<Untaken> {
        let mut keys = self.differing(to, prefix);
        keys.retain(|key| {
            let rest = key.strip_prefix(prefix).unwrap_or(key).trim_start_matches('.');
            !TAKEN.iter().any(|taken| is_below(rest, taken))
        });
        if keys.is_empty() {
            // What a key stands for has changed, and not the key.
            keys.push(prefix.to_owned());
        }
        let place = |key: &String| {
            let at = to.leaves.get(key).or_else(|| self.leaves.get(key));
            at.map_or(Place::Nowhere, |(place, _)| place.clone())
        };
        keys.into_iter().map(|key| Untaken { place: place(&key), key }).collect()
    }
}

/// Whether a pipeline can go on with other settings.
fn takes(known: &Pipeline, other: &Pipeline) -> bool {
    let mut taken = known.clone();
    taken.source.tables.clone_from(&other.source.tables);
    taken.source.exclude.clone_from(&other.source.exclude);
    if matches!((&taken.snapshot, &other.snapshot), (Snapshot::Initial(_), Snapshot::Initial(_))) {
        taken.snapshot = other.snapshot.clone();
    }
    taken.table_options.clone_from(&other.table_options);
    taken.max_row_bytes = other.max_row_bytes;
    taken.large_rows = other.large_rows;
    taken.heartbeat = other.heartbeat;
    taken.standby_yield = other.standby_yield;
    taken == *other
}

fn below(group: &str, name: &str) -> String {
    KeyPath::root().child(group).child(name).as_str().to_owned()
}

fn is_below(key: &str, prefix: &str) -> bool {
    prefix.is_empty()
        || key
            .strip_prefix(prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

#[cfg(test)]
mod tests {
    use super::super::{Environment, parse};
    use super::*;

    const FILE: &str = "\
pipelines:
  shop:
    source:
      url: postgres://waltide@127.0.0.1:1/shop
      tables: [public.*]
    kafka:
      bootstrap_servers: 127.0.0.1:1
    registry:
      url: http://127.0.0.1:1
log:
  level: info
";

    fn loaded(text: &str) -> Loaded {
        parse("w.yaml", text, &Environment::default()).expect("it holds")
    }

    fn changed(from: &str, to: &str) -> Result<Changes, Vec<Untaken>> {
        assert!(FILE.contains(from), "{from}");
        loaded(FILE).changes(&loaded(&FILE.replace(from, to)))
    }

    #[test]
    fn tables_limits_and_the_log_are_taken() {
        let changes = changed("[public.*]", "[public.*, audit.*]").expect("it is taken");
        assert_eq!((changes.pipelines.len(), changes.level), (1, None));
        assert_eq!(changes.keys, ["pipelines.shop.source.tables[1]"]);
        let changes = changed("info", "debug").expect("it is taken");
        assert_eq!((changes.pipelines.len(), changes.level), (0, Some(LogLevel::Debug)));
        let limits = "    snapshot: { max_rate: 5 }\n    standby_yield_seconds: 3\n    registry:";
        assert_eq!(changed("    registry:", limits).expect("it is taken").pipelines.len(), 1);
        // The default, written out.
        let same =
            changed("    registry:", "    profile: waltide\n    registry:").expect("it is taken");
        assert_eq!((same.pipelines.len(), same.level), (0, None));
    }

    #[test]
    fn what_needs_a_restart_is_named_with_its_place_and_nothing_is_taken_beside_it() {
        for (from, to, keys) in [
            ("127.0.0.1:1/shop", "127.0.0.1:1/other", &["pipelines.shop.source.url"] as &[_]),
            (
                "bootstrap_servers: 127",
                "bootstrap_servers: 128",
                &["pipelines.shop.kafka.bootstrap_servers"],
            ),
            ("    registry:", "    snapshot: never\n    registry:", &["pipelines.shop.snapshot"]),
            ("log:", "http:\n  protect_reads: true\nlog:", &["http.protect_reads"]),
            ("level: info", "level: debug\n  format: json", &["log.format"]),
        ] {
            let untaken = changed(from, to).expect_err(to);
            let named: Vec<&str> = untaken.iter().map(|one| one.key.as_str()).collect();
            assert_eq!(named, keys);
            assert!(untaken[0].place.to_string().starts_with("w.yaml:"), "{untaken:?}");
        }
        let untaken = changed("shop:", "store:").expect_err("another pipeline");
        assert!(untaken.iter().any(|one| one.key == "pipelines.store.source.url"), "{untaken:?}");
        assert!(untaken.iter().any(|one| one.key == "pipelines.shop.source.url"), "{untaken:?}");
    }
}
