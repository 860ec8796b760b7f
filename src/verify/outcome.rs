//! What came of it.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use waltide_core::lsn::Lsn;

use super::MOST_NAMED;
use crate::config::TableName;

/// What is the matter with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The row has other values than the topic says.
    Changed,
    /// The table has a row that the topic does not have.
    Missing,
    /// The topic has a row that the table does not have.
    Extra,
    /// The same as missing, where records have been removed from the topic: it may have been there.
    Removed,
    /// The same as missing, while the table's rows are still being read.
    Unread,
    /// The topic does not tell the value of a column: a later record says that it has not changed,
    /// and the record that had it is gone.
    Untold,
    /// It changes all the time, or the daemon did not come so far.
    Unsettled,
    /// It has changed since the checkpoint of a daemon that does not run.
    Pending,
}

/// What it comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Result {
    /// The topic holds what the table holds.
    Equal,
    /// It does not.
    Different,
    /// Nothing that was found differs, but of some keys it cannot be known.
    Unproven,
}

impl Kind {
    /// All of them, the worst first.
    pub const ALL: [Self; 8] = [
        Self::Changed,
        Self::Missing,
        Self::Extra,
        Self::Removed,
        Self::Unread,
        Self::Untold,
        Self::Unsettled,
        Self::Pending,
    ];

    /// As it is printed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Missing => "missing",
            Self::Extra => "extra",
            Self::Removed => "removed",
            Self::Unread => "unread",
            Self::Untold => "untold",
            Self::Unsettled => "unsettled",
            Self::Pending => "pending",
        }
    }

    /// What it makes of the whole.
    #[must_use]
    pub const fn means(self) -> Result {
        match self {
            Self::Changed | Self::Missing | Self::Extra => Result::Different,
            Self::Removed | Self::Unread | Self::Untold | Self::Unsettled => Result::Unproven,
            Self::Pending => Result::Equal,
        }
    }

    /// Whether reading the row again mends it, or burying its key.
    #[must_use]
    pub const fn is_mendable(self) -> bool {
        use Kind::{Changed, Extra, Missing, Removed, Untold};
        matches!(self, Changed | Missing | Extra | Removed | Untold)
    }

    /// In a few words.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Changed => "the topic has other values",
            Self::Missing => "the topic does not have the row",
            Self::Extra => "the table does not have the row",
            Self::Removed => "not in the topic, from which records have been removed",
            Self::Unread => "not in the topic yet: the table's rows are still being read",
            Self::Untold => "no record is left that tells a value",
            Self::Unsettled => "not known",
            Self::Pending => "changed since the checkpoint, and not yet published",
        }
    }
}

impl Result {
    /// As it is printed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::Different => "different",
            Self::Unproven => "unproven",
        }
    }
}

/// A key and what is the matter with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// What.
    pub kind: Kind,
    /// The key's columns.
    pub key: Value,
    /// The columns that differ, or are not told.
    pub columns: Vec<String>,
    /// The key's values as SQL writes them; none where it cannot be asked for.
    pub values: Option<Vec<String>>,
}

/// The order in which keys are named: by their columns, numbers as numbers.
pub(super) fn in_order(one: &Value, other: &Value) -> Ordering {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            let pairs = one.values().zip(other.values());
            let differs = pairs.map(|(one, other)| in_order(one, other));
            differs.into_iter().find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
        }
        (Value::Number(one), Value::Number(other)) => match (one.as_i64(), other.as_i64()) {
            (Some(one), Some(other)) => one.cmp(&other),
            _ => one.as_f64().partial_cmp(&other.as_f64()).unwrap_or(Ordering::Equal),
        },
        (Value::String(one), Value::String(other)) => one.cmp(other),
        (one, other) => one.to_string().cmp(&other.to_string()),
    }
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The pipeline.
    pub pipeline: String,
    /// The table.
    pub table: TableName,
    /// Its topics: one, or those in which it has gone on.
    pub topics: Vec<String>,
    /// Nothing that the table showed lies behind this position.
    pub position: Lsn,
    /// Up to where the daemon had published, where it does not run.
    pub down_at: Option<Lsn>,
    /// Whether records have been removed from the topic.
    pub removed: bool,
    /// Rows of the table, as it was read.
    pub rows: u64,
    /// Keys of which the topic says that there is a row, as it was read.
    pub keys: u64,
    /// Keys that are equal.
    pub equal: u64,
    /// How many keys of each kind there are.
    pub counts: BTreeMap<Kind, u64>,
    /// Some of them.
    pub named: Vec<Finding>,
    /// The columns of the table's key.
    pub key_columns: Vec<String>,
    /// What kept keys from being settled.
    pub why: Option<String>,
    /// How often keys were looked at again.
    pub rounds: u32,
    /// How long it took.
    pub took: Duration,
}

impl Outcome {
    /// What it comes to.
    #[must_use]
    pub fn result(&self) -> Result {
        let worst = |result| self.counts.iter().any(|(kind, _)| kind.means() == result);
        match (worst(Result::Different), worst(Result::Unproven)) {
            (true, _) => Result::Different,
            (false, true) => Result::Unproven,
            (false, false) => Result::Equal,
        }
    }

    /// How many keys are of a kind.
    #[must_use]
    pub fn count(&self, kind: Kind) -> u64 {
        self.counts.get(&kind).copied().unwrap_or_default()
    }

    /// For programs.
    #[must_use]
    pub fn json(&self) -> Value {
        let counts = Kind::ALL.map(|kind| (kind.as_str().to_owned(), self.count(kind).into()));
        let named: Vec<Value> = self
            .named
            .iter()
            .take(MOST_NAMED)
            .map(|one| json!({ "kind": one.kind.as_str(), "key": one.key, "columns": one.columns }))
            .collect();
        json!({
            "pipeline": self.pipeline,
            "table": self.table.to_string(),
            "topics": self.topics,
            "result": self.result().as_str(),
            "position": self.position.to_string(),
            "daemon": if self.down_at.is_some() { "down" } else { "running" },
            "checkpoint": self.down_at.map(|at| at.to_string()),
            "records_removed": self.removed,
            "rows": self.rows,
            "keys": self.keys,
            "equal": self.equal,
            "counts": serde_json::Map::from_iter(counts),
            "named": named,
            "why": self.why,
            "rounds": self.rounds,
            "milliseconds": u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX),
        })
    }
}
