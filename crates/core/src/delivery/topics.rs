//! Whether the topics still hold what was acknowledged: one that was deleted, made again or cut
//! back has lost records that nobody will send again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::checkpoint::{Checkpoint, TopicEnd};

/// A topic that does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostTopic {
    /// Its name.
    pub name: String,
    /// What it looks like.
    pub what: Loss,
}

/// What has become of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// It does not exist any more.
    Gone,
    /// A partition ends before our last record.
    EndsAt {
        /// Which.
        partition: usize,
        /// Where it ends.
        end: i64,
        /// Where it ended.
        was: i64,
    },
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("it does not exist any more"),
            Self::EndsAt { partition, end, was } => {
                write!(f, "partition {partition} ends at {end}, and ended at {was}")
            }
        }
    }
}

/// Which of these topics hold records that the checkpoint vouches for. Topics of tables that are
/// not captured any more are their owners' business.
#[must_use]
pub fn held_by(checkpoint: &Checkpoint, mut topics: BTreeSet<String>) -> BTreeSet<String> {
    let held = checkpoint.topics.iter().filter(|topic| holds_any(topic));
    let held: BTreeSet<&str> = held.map(|topic| topic.name.as_str()).collect();
    topics.retain(|name| held.contains(name.as_str()));
    topics
}

fn holds_any(topic: &TopicEnd) -> bool {
    topic.end_offsets.iter().any(|end| *end > 0)
}

/// Whether these topics, which end there now, still hold what the checkpoint says.
///
/// # Errors
/// Where one does not.
pub fn still_hold(
    checkpoint: &Checkpoint,
    topics: &BTreeSet<String>,
    ends: &BTreeMap<String, Vec<i64>>,
) -> Result<(), LostTopic> {
    for topic in checkpoint.topics.iter().filter(|topic| topics.contains(&topic.name)) {
        let lost = |what| LostTopic { name: topic.name.clone(), what };
        let now = ends.get(&topic.name).ok_or_else(|| lost(Loss::Gone))?;
        for (partition, was) in topic.end_offsets.iter().copied().enumerate() {
            let end = now.get(partition).copied().unwrap_or(0);
            if end < was {
                return Err(lost(Loss::EndsAt { partition, end, was }));
            }
        }
    }
    Ok(())
}
