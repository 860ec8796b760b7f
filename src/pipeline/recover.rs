//! `waltide recover`: goes on where continuity cannot be proved, because somebody decided so.
//!
//! Nothing is decided here for people. What is lost is worked out with the slot in hand and said;
//! only then it is recorded, first for consumers and then as a checkpoint, and the next daemon
//! goes on.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use waltide_core::avro;
use waltide_core::checkpoint::{Checkpoint, Stop, TopicEnd, resume};
use waltide_core::delivery::birth;
use waltide_core::gap::{self, Gap};
use waltide_core::lsn::EndLsn;
use waltide_core::snapshot::Book;
use waltide_core::watermark::Ticket;

use super::clusters::Clusters;
use super::holding::{self, Ask, Held};
use super::keeper::{Keeper, Writer, now_us};
use super::reach::{params, registry_settings};
use super::source::{self, Published};
use super::starting::instance;
use super::{diagnosis, recovery};
use crate::config::settled::{Pipeline, Snapshot};
use crate::fault::{Code, Fault};
use crate::kafka::{self, Admin, CheckpointTopic, Headers, Producer, Record, TopicOptions};
use crate::postgres::sql::literal;
use crate::postgres::{Connection, Error, Mode};
use crate::registry::Client;
use crate::status;

/// How long Kafka may take for the one record of a gap.
const DELIVERY: Duration = Duration::from_secs(10);

/// What somebody decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Changes since the checkpoint may be missing.
    AcceptGap,
    /// There is no checkpoint, and the topics are as they should be.
    Adopt,
    /// Whatever is missing, all tables are read again.
    Resnapshot,
}

/// What will be done, and what is lost. The slot is ours as long as this lives.
pub struct Decision {
    settings: Pipeline,
    admin: Arc<Admin>,
    held: Held,
    published: Published,
    before: Option<Checkpoint>,
    gap: Option<Gap>,
    made_slot: bool,
    way: Way,
}

/// Works out what going on would mean.
///
/// # Errors
/// Where something is away or in use, or where there is nothing to decide.
pub async fn consider(settings: &Pipeline, way: Way, control: &Handle) -> Result<Decision, Fault> {
    if way == Way::Resnapshot && settings.snapshot == Snapshot::Never {
        return Err(Fault::new(
            Code::ConfigInvalid,
            format!("pipeline {} reads no tables: it has snapshot: never", settings.name),
            "set snapshot: initial, or decide for --accept-gap or --adopt",
        ));
    }
    let source = |error: Error| diagnosis::of_source(&error);
    let params = params(&settings.source)?;
    let mut catalog = Connection::open(&params, Mode::Plain).await.map_err(source)?;
    let published = source::prepare(&mut catalog, settings).await?;
    let admin = Clusters::default().admin(&settings.kafka)?;
    let before = recovery::look(settings, &admin).await?;
    match (way, &before) {
        (Way::AcceptGap, None) => return Err(nothing(settings, "has no checkpoint: see --adopt")),
        (Way::Adopt, Some(at)) => {
            let what = format!("has a checkpoint, at {}: see --accept-gap", at.end_lsn.0);
            return Err(nothing(settings, &what));
        }
        _ => {}
    }
    let made = renew_slot(&mut catalog, settings).await?;
    let made_now = made.is_some();
    // Nothing is read.
    let streaming = false;
    let ask = Ask { settings, params: &params, published: &published, made: made_now, streaming };
    let Some(held) = holding::hold(&mut catalog, control, ask).await? else {
        return Err(Fault::new(
            Code::SlotTaken,
            format!("slot {} is in use", settings.source.slot),
            "end the daemon that runs this pipeline, and its standby, and try again",
        ));
    };
    let stop = resume(before.as_ref(), &held.facts, true).err();
    let topics = recovery::topics_of(settings, &published);
    let lost = match &before {
        Some(checkpoint) => recovery::verify_topics(&admin, checkpoint, topics).await.err(),
        None => None,
    };
    let adopted = (before.is_none()).then(|| "there is no checkpoint".to_owned());
    let Some(reason) = made
        .or_else(|| stop.as_ref().map(ToString::to_string))
        .or_else(|| lost.map(|fault| fault.what))
        .or(adopted.filter(|_| way == Way::Resnapshot))
    else {
        return Err(nothing(settings, "can go on as it is: start the daemon"));
    };
    let gap = before.as_ref().map(|before| Gap {
        pipeline: settings.name.clone(),
        database: held.facts.database.clone(),
        from: Some(before.end_lsn.0),
        to: held.facts.slot_confirmed,
        same_history: !stop.as_ref().is_some_and(is_another_history),
        reason: reason.clone(),
        recorded_at_us: now_us(),
    });
    let (settings, made_slot) = (settings.clone(), ask.made);
    Ok(Decision { settings, admin, held, published, before, gap, made_slot, way })
}

fn nothing(settings: &Pipeline, what: &str) -> Fault {
    Fault::new(
        Code::NothingToRecover,
        format!("pipeline {} {what}", settings.name),
        "nothing was done",
    )
}

fn is_another_history(stop: &Stop) -> bool {
    match stop {
        Stop::AnotherSystem { .. }
        | Stop::AnotherDatabase { .. }
        | Stop::OlderTimeline { .. }
        | Stop::ForkedTimeline { .. }
        | Stop::LogEndsBefore { .. } => true,
        Stop::CheckpointLost { .. } | Stop::SlotRecreated { .. } | Stop::SlotAhead { .. } => false,
    }
}

/// Makes the slot anew where it is missing or of no use, and says what was wrong with it.
async fn renew_slot(
    catalog: &mut Connection,
    settings: &Pipeline,
) -> Result<Option<String>, Fault> {
    let name = &settings.source.slot;
    let what = match source::find_slot(catalog, name).await {
        Ok(Some(_)) => return Ok(None),
        Ok(None) => format!("slot {name} was missing"),
        Err(fault) if fault.code == Code::SlotUnusable => {
            // Only what this pipeline could have lost; a slot that is somebody else's is refused.
            let drop = format!(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots \
                 WHERE slot_name = {} AND plugin = 'pgoutput' AND database = current_database() \
                   AND wal_status = 'lost'",
                literal(name)
            );
            let dropped = catalog.simple_query(&drop).await;
            if dropped.map_err(|error| diagnosis::of_source(&error))?.rows.is_empty() {
                return Err(fault);
            }
            fault.what
        }
        Err(fault) => return Err(fault),
    };
    source::make_slot(catalog, &settings.source).await?;
    Ok(Some(what))
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, to) = (&self.settings.name, self.held.facts.slot_confirmed);
        let slot = &self.settings.source.slot;
        if self.made_slot {
            writeln!(f, "slot {slot} is made anew; it starts at {to}")?;
        }
        let Some(gap) = &self.gap else {
            writeln!(
                f,
                "pipeline {name} has no checkpoint, and its topics may hold records\n\
                 it goes on from where slot {slot} stands, {to}; whether the topics reach as far \
                 is not known"
            )?;
            return self.reading(f);
        };
        writeln!(f, "pipeline {name}: {}", gap.reason)?;
        match gap.from {
            Some(from) if gap.same_history => writeln!(
                f,
                "lost: what was committed between {from} and {to} may be in no topic, and will not \
                 come"
            )?,
            _ => writeln!(
                f,
                "lost: what this source committed before {to} and the topics do not hold; and the \
                 topics may hold what this source never had"
            )?,
        }
        writeln!(
            f,
            "it goes on from {to}, and says so to consumers on {}",
            self.settings.gap_topic()
        )?;
        self.reading(f)
    }
}

impl Decision {
    /// Says what is read again.
    fn reading(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.way, &self.settings.snapshot) {
            (Way::Resnapshot, _) => writeln!(
                f,
                "all captured tables are read again, beside the stream; rows that were deleted \
                 meanwhile stay in the topics"
            ),
            (Way::AcceptGap, Snapshot::Initial(_)) => writeln!(
                f,
                "tables that had not been read to their end are read again from the start; the \
                 others are not"
            ),
            _ => Ok(()),
        }
    }

    /// The books of what is read, from here on.
    fn books(&self) -> Result<Option<Vec<u8>>, Fault> {
        let before = self.before.as_ref().and_then(|before| before.snapshot.as_deref());
        let topic = self.settings.checkpoint_topic();
        let book = before.map(Book::decode).transpose();
        let book = book.map_err(|error| diagnosis::of_checkpoint(&error, &topic))?;
        let book = match self.way {
            Way::Resnapshot => Some(book.unwrap_or_default().read_again()),
            Way::AcceptGap | Way::Adopt => book.map(Book::after_gap),
        };
        Ok(book.map(|book| {
            let mut bytes = Vec::new();
            book.encode(&mut bytes);
            bytes
        }))
    }

    /// Leaves things as they were.
    ///
    /// # Errors
    /// Where a slot that was made for this cannot be dropped again.
    pub async fn decline(self) -> Result<(), Fault> {
        let Self { settings, held, made_slot, .. } = self;
        let Held { reader, told, holding, .. } = held;
        let _ = tokio::time::timeout(Duration::from_secs(2), told.end(reader)).await;
        if !made_slot {
            return Ok(());
        }
        let source = |error: Error| diagnosis::of_source(&error);
        let mut catalog = Connection::open(&holding.params, Mode::Plain).await.map_err(source)?;
        let drop = format!("SELECT pg_drop_replication_slot({})", literal(&settings.source.slot));
        catalog.simple_query(&drop).await.map_err(source)?;
        Ok(())
    }

    /// Does it.
    ///
    /// # Errors
    /// Where Kafka or the registry refuse or are away. It can be done again.
    pub async fn carry_out(self) -> Result<(), Fault> {
        let books = self.books()?;
        if let Some(gap) = &self.gap {
            self.tell(gap).await?;
        }
        let failed = |error: kafka::Error| diagnosis::of_kafka(&error);
        let (settings, name) = (&self.settings, self.settings.checkpoint_topic());
        let factor = settings.kafka.replication_factor;
        let topic = CheckpointTopic::open(&self.admin, &name, factor).await.map_err(failed)?;
        let memory = recovery::memory(settings, topic);
        let writer = Writer::Apart(memory.become_writer().await.map_err(failed)?);
        let topics = recovery::topics_of(settings, &self.published);
        let ends = recovery::ends(&self.admin, topics).await?;
        let last = Checkpoint {
            topics: ends.into_iter().map(topic_end).collect(),
            schemas: self.before.map(|before| before.schemas).unwrap_or_default(),
            end_lsn: EndLsn(self.held.facts.slot_confirmed),
            snapshot: books,
            ..birth(&settings.source.slot, &self.held.facts, &instance(), now_us())
        };
        let slot = self.held.holding;
        let mut keeper = Keeper { memory, writer, slot };
        keeper.write(&last).await.map_err(failed)?;
        // Whether the server hears the last word or not: the checkpoint counts.
        let _ = tokio::time::timeout(Duration::from_secs(2), self.held.told.end(self.held.reader))
            .await;
        Ok(())
    }

    /// Writes the gap where consumers can see it.
    async fn tell(&self, gap: &Gap) -> Result<(), Fault> {
        let failed = |error: kafka::Error| diagnosis::of_kafka(&error);
        let topic = self.settings.gap_topic();
        let registry = registry_settings(&self.settings.registry);
        let url = self.settings.registry.address();
        let wrong = |error| diagnosis::of_registry(&error, &url);
        let mut registry = Client::new(registry).map_err(wrong)?;
        let id = registry.register(&format!("{topic}-value"), gap::SCHEMA).await.map_err(wrong)?;
        let options = TopicOptions {
            partitions: Some(1),
            replication_factor: self.settings.kafka.replication_factor,
            config: BTreeMap::from([("retention.ms".to_owned(), "-1".to_owned())]),
        };
        self.admin.ensure(&topic, &options).await.map_err(failed)?;
        let mut value = Vec::new();
        avro::write_header(id.0, &mut value);
        gap.encode(&mut value);
        let mut producer = Producer::new(self.admin.settings()).map_err(failed)?;
        let position = format!("{}:0:0", gap.to);
        let record = Record {
            topic: &topic,
            partition: 0,
            key: None,
            value: Some(&value),
            timestamp_ms: status::unix_ms(status::now()),
            position: position.as_bytes(),
            headers: &Headers::default(),
            ticket: Ticket(0),
            lane: producer.ends().lane(&topic),
        };
        producer.send(&record).map_err(|refusal| match refusal {
            kafka::Refusal::Failed(error) => diagnosis::of_kafka(&error),
            kafka::Refusal::Full => {
                diagnosis::of_stall(&self.settings.kafka.bootstrap_servers, "no room")
            }
        })?;
        let delivered = async {
            loop {
                producer.reported().await;
                if !producer.take_reports().map_err(failed)?.is_empty() {
                    return Ok(());
                }
            }
        };
        tokio::time::timeout(DELIVERY, delivered).await.unwrap_or_else(|_| {
            Err(diagnosis::of_stall(
                &self.settings.kafka.bootstrap_servers,
                "the gap was not acknowledged",
            ))
        })
    }
}

fn topic_end((name, end_offsets): (String, Vec<i64>)) -> TopicEnd {
    TopicEnd { name, topic_id: None, end_offsets }
}
