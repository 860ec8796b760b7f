//! What the pipeline remembers, against what it finds: from where it may go on.
//!
//! The decision itself is `waltide_core::checkpoint::resume`. Here its facts are gathered, in the
//! order that makes them true: the slot is held, earlier writers are shut out, and only then the
//! checkpoint is read.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

use waltide_core::checkpoint::{
    Checkpoint, Partial, Progress, Resume, SourceFacts, TopicEnd, resume,
};
use waltide_core::lsn::{CommitLsn, DurableLsn, EndLsn, Lsn};
use waltide_core::snapshot::Book;

use super::diagnosis;
use super::holding::Holding;
use super::keeper::{Keeper, Memory, Writer, now_us};
use super::source::Published;
use crate::config::settled::{Delivery, Pipeline, Snapshot};
use crate::fault::{Code, Fault};
use crate::kafka::{self, CheckpointTopic};

/// How long brokers may take to say where topics end.
const ANSWER: Duration = Duration::from_secs(5);

/// From where to go on, and who writes down how far.
pub(super) struct Recovered {
    pub(super) keeper: Keeper,
    pub(super) resume: DurableLsn,
    /// What of the transaction behind that is published already, where that counts: at least once
    /// publishes it from its start.
    pub(super) inside: Option<Partial>,
    /// What is read of tables, and has been; none where that is not wanted.
    pub(super) book: Option<Book>,
    pub(super) life: u64,
}

/// Decides from where to go on, once the slot is ours.
///
/// # Errors
/// Where it cannot be proved that nothing is left out.
pub(super) async fn recover(
    settings: &Pipeline,
    kafka: &kafka::Settings,
    facts: &SourceFacts,
    published: &Published,
    slot: Holding,
) -> Result<Recovered, Fault> {
    let name = settings.checkpoint_topic();
    let topic = CheckpointTopic::open(kafka, &name, settings.kafka.replication_factor).await;
    let topic = topic.map_err(|error| diagnosis::of_kafka(&error))?;
    let memory = memory(settings, topic);
    let writer = match settings.delivery {
        Delivery::AtLeastOnce => memory.become_writer().await.map(Writer::Apart),
        Delivery::ExactlyOnce => {
            memory.become_producer(kafka).await.map(|it| Writer::Within(Box::new(it)))
        }
    };
    let writer = writer.map_err(|error| diagnosis::of_kafka(&error))?;
    let found = memory.recall().await?;
    let topics = topics_of(settings, published);
    let hold_records = match &found {
        Some(checkpoint) => {
            verify_topics(kafka, checkpoint, topics).await?;
            false
        }
        None => ends(kafka, topics).await?.values().flatten().any(|end| *end > 0),
    };
    let decision = resume(found.as_ref(), facts, hold_records);
    let decision = decision.map_err(|stop| diagnosis::of_stop(&stop, &settings.name))?;
    let coverage = fingerprint(published);
    let is_new = found.is_none();
    let base = found.as_ref().map(|found| (found.instance.clone(), found.written_at_us));
    let mut last = found.unwrap_or_else(|| birth(settings, facts));
    if !is_new && last.publication_fingerprint != coverage {
        tracing::info!(
            pipeline = settings.name,
            "the publication covers other tables than it did at the last checkpoint"
        );
    }
    last.topics.sort_by(|one, other| one.name.cmp(&other.name));
    last.schemas.sort_by(|one, other| one.subject.cmp(&other.subject));
    // What the checkpoint is compared with from now on; the same history, or we were not here.
    let mut next = Checkpoint {
        timeline: facts.timeline,
        slot: slot.slot.clone(),
        publication_fingerprint: coverage,
        instance: instance(),
        ..last
    };
    let mut book = books(settings, &next, is_new, memory.topic.name())?;
    let life = book.as_mut().map_or(0, |book| book.begin_life(facts.flushed));
    if let Some(book) = &book {
        let mut bytes = Vec::new();
        book.encode(&mut bytes);
        next.snapshot = Some(bytes);
    }
    let mut keeper = Keeper { memory, writer, last: next.clone(), base, slot };
    let start = decision.start();
    let inside = match decision {
        Resume::Continue { inside, .. } => inside,
        Resume::Birth { .. } | Resume::Adopt { .. } => None,
    };
    let inside = inside.filter(|_| settings.delivery == Delivery::ExactlyOnce);
    if let Resume::Birth { .. } | Resume::Adopt { .. } = decision {
        next.end_lsn = EndLsn(start.lsn());
        let adopted = matches!(decision, Resume::Adopt { .. });
        keeper.write(next).await.map_err(|error| diagnosis::of_kafka(&error))?;
        // That it cannot be read must show now, and not when it is needed.
        keeper.memory.recall().await?;
        tracing::info!(pipeline = settings.name, from = %start.lsn(), adopted, "a new pipeline");
    } else if book.is_some() {
        // Rows of this life have its number, so no other may have it.
        keeper.write(next).await.map_err(|error| diagnosis::of_kafka(&error))?;
    }
    Ok(Recovered { keeper, resume: start, inside, book, life })
}

/// The books of snapshots, as they were written down last. Those of a pipeline that began without
/// snapshots begin with what there is taken as read.
fn books(
    settings: &Pipeline,
    last: &Checkpoint,
    is_new: bool,
    topic: &str,
) -> Result<Option<Book>, Fault> {
    match (settings.snapshot, &last.snapshot) {
        (Snapshot::Never, _) => Ok(None),
        (Snapshot::Initial(_), Some(bytes)) => {
            let book = Book::decode(bytes);
            book.map(Some).map_err(|error| diagnosis::of_checkpoint(&error, topic))
        }
        (Snapshot::Initial(_), None) if is_new => Ok(Some(Book::default())),
        (Snapshot::Initial(_), None) => Ok(Some(Book::adopting())),
    }
}

/// Refuses to make a slot for a pipeline that has a checkpoint: it had one.
///
/// # Errors
/// Where it has, or where that cannot be known.
pub(super) async fn refuse_new_slot(
    settings: &Pipeline,
    kafka: &kafka::Settings,
) -> Result<(), Fault> {
    let Some(checkpoint) = look(settings, kafka).await? else { return Ok(()) };
    Err(Fault::new(
        Code::SlotMissing,
        format!(
            "slot {} is gone; the checkpoint says that everything before {} is published",
            settings.source.slot, checkpoint.end_lsn.0
        ),
        format!(
            "find out who dropped it; if the gap is acceptable: waltide recover {} --accept-gap",
            settings.name
        ),
    ))
}

/// The last checkpoint, for somebody who only looks.
///
/// # Errors
/// Where it cannot be known.
pub(super) async fn look(
    settings: &Pipeline,
    kafka: &kafka::Settings,
) -> Result<Option<Checkpoint>, Fault> {
    let topic = CheckpointTopic::existing(kafka, &settings.checkpoint_topic()).await;
    match topic.map_err(|error| diagnosis::of_kafka(&error))? {
        Some(topic) => memory(settings, topic).recall().await,
        None => Ok(None),
    }
}

pub(super) fn memory(settings: &Pipeline, topic: CheckpointTopic) -> Memory {
    Memory {
        topic,
        key: settings.name.as_bytes().to_vec(),
        transactional_id: settings.transactional_id(),
    }
}

/// What a pipeline remembers that has not published anything.
pub(super) fn birth(settings: &Pipeline, facts: &SourceFacts) -> Checkpoint {
    Checkpoint {
        system_identifier: facts.system_identifier,
        timeline: facts.timeline,
        database: facts.database.clone(),
        slot: settings.source.slot.clone(),
        publication_fingerprint: String::new(),
        commit_lsn: CommitLsn(Lsn::ZERO),
        end_lsn: EndLsn(facts.slot_confirmed),
        progress: Progress::Complete,
        topics: Vec::new(),
        schemas: Vec::new(),
        settled_at_us: now_us(),
        snapshot: None,
        instance: instance(),
        written_at_us: now_us(),
    }
}

/// The topics that hold what the checkpoint vouches for.
pub(super) fn topics_of(settings: &Pipeline, published: &Published) -> BTreeSet<String> {
    let tables = published.tables.iter().map(|table| settings.topic_of(table));
    tables.chain(settings.topics_beside_tables()).collect()
}

pub(super) async fn ends(
    kafka: &kafka::Settings,
    topics: BTreeSet<String>,
) -> Result<std::collections::BTreeMap<String, Vec<i64>>, Fault> {
    let ends = kafka::end_offsets(kafka, topics, ANSWER).await;
    ends.map_err(|error| diagnosis::of_kafka(&error))
}

/// Sees to it that the topics still hold what was acknowledged: one that was deleted, made again
/// or cut back has lost records that nobody will send again. Topics of tables that are not
/// captured any more are their owners' business.
pub(super) async fn verify_topics(
    kafka: &kafka::Settings,
    checkpoint: &Checkpoint,
    mut topics: BTreeSet<String>,
) -> Result<(), Fault> {
    let held = |topic: &&TopicEnd| topic.end_offsets.iter().any(|end| *end > 0);
    let known: Vec<&TopicEnd> = checkpoint.topics.iter().filter(held).collect();
    topics.retain(|name| known.iter().any(|topic| topic.name == *name));
    if topics.is_empty() {
        return Ok(());
    }
    let ends = ends(kafka, topics.clone()).await?;
    for topic in known.into_iter().filter(|topic| topics.contains(&topic.name)) {
        let Some(now) = ends.get(&topic.name) else {
            return Err(diagnosis::of_lost_topic(&topic.name, "it does not exist any more"));
        };
        for (partition, was) in topic.end_offsets.iter().enumerate() {
            let end = now.get(partition).copied().unwrap_or(0);
            if end < *was {
                let what = format!("partition {partition} ends at {end}, and ended at {was}");
                return Err(diagnosis::of_lost_topic(&topic.name, &what));
            }
        }
    }
    Ok(())
}

/// A name for this process that no other has.
fn instance() -> String {
    let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
    format!("{}-{random:016x}", std::process::id())
}

/// Changes when what the publications cover changes.
fn fingerprint(published: &Published) -> String {
    let mut names: Vec<String> = published.tables.iter().map(ToString::to_string).collect();
    names.extend(published.publications.iter().cloned());
    names.sort();
    format!("{:016x}", waltide_core::checkpoint::fingerprint(names.join("\n").as_bytes()))
}
