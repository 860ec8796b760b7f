//! What the pipeline remembers, and what it is held against.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use waltide_core::checkpoint::Checkpoint;
use waltide_core::delivery::{held_by, still_hold};

use super::diagnosis;
use super::keeper::Memory;
use super::source::Published;
use crate::config::settled::Pipeline;
use crate::fault::Fault;
use crate::kafka::{Admin, CheckpointTopic};

/// How long brokers may take to say where topics end.
const ANSWER: Duration = Duration::from_secs(5);

/// The last checkpoint, for somebody who only looks.
///
/// # Errors
/// Where it cannot be known.
pub(super) async fn look(
    settings: &Pipeline,
    admin: &Arc<Admin>,
) -> Result<Option<Checkpoint>, Fault> {
    let topic = CheckpointTopic::existing(admin, &settings.checkpoint_topic()).await;
    match topic.map_err(|error| diagnosis::of_kafka(&error))? {
        Some(topic) => memory(settings, topic).recall().await,
        None => Ok(None),
    }
}

pub(super) fn memory(settings: &Pipeline, topic: CheckpointTopic) -> Memory {
    Memory {
        topic,
        key: settings.name.as_bytes().to_vec(),
        transactional_ids: settings.transactional_ids(),
    }
}

/// The topics that hold what the checkpoint vouches for.
pub(super) fn topics_of(settings: &Pipeline, published: &Published) -> BTreeSet<String> {
    let tables = published.tables.iter().map(|table| settings.topic_of(table));
    tables.chain(settings.topics_beside_tables()).collect()
}

pub(super) async fn ends(
    admin: &Admin,
    topics: BTreeSet<String>,
) -> Result<std::collections::BTreeMap<String, Vec<i64>>, Fault> {
    let ends = admin.end_offsets(topics, ANSWER).await;
    ends.map_err(|error| diagnosis::of_kafka(&error))
}

/// Sees to it that the topics still hold what was acknowledged.
pub(super) async fn verify_topics(
    admin: &Admin,
    checkpoint: &Checkpoint,
    topics: BTreeSet<String>,
) -> Result<(), Fault> {
    let topics = held_by(checkpoint, topics);
    if topics.is_empty() {
        return Ok(());
    }
    let ends = ends(admin, topics.clone()).await?;
    still_hold(checkpoint, &topics, &ends).map_err(|lost| diagnosis::of_lost_topic(&lost))
}

/// Changes when what the publications cover changes.
pub(super) fn fingerprint(published: &Published) -> String {
    let mut names: Vec<String> = published.tables.iter().map(ToString::to_string).collect();
    names.extend(published.publications.iter().cloned());
    names.sort();
    format!("{:016x}", waltide_core::checkpoint::fingerprint(names.join("\n").as_bytes()))
}
