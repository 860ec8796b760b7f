//! A table's schemas get their ids, and a topic where readers can follow them.
//!
//! The registry is asked before the first row of a schema is published. Where it says that readers
//! of the subject could not follow, configuration decides: to stop, to go on in another topic, or
//! to go on all the same.

use waltide_core::avro::Plan;
use waltide_core::checkpoint::{RegisteredSchema, fingerprint};

use super::diagnosis;
use super::routes::Compiler;
use crate::config::TableName;
use crate::config::settled::{OnIncompatible, Pipeline, Subjects};
use crate::fault::{Code, Fault};
use crate::kafka;
use crate::registry::{Error, SchemaId, changes, full_name};

/// Of what changed, how much a message says.
const MAX_CHANGES: usize = 5;

/// A way of a table's rows, as far as schemas decide it.
#[derive(Debug)]
pub(super) struct Registered {
    pub(super) topic: String,
    pub(super) partitions: i32,
    pub(super) key_id: Option<SchemaId>,
    pub(super) value_id: SchemaId,
}

/// Which of a record's two schemas.
#[derive(Clone, Copy, Debug)]
enum Half {
    Key,
    Value,
}

/// The subjects of a plan's schemas with these, the value's first.
pub(crate) fn subjects<'a>(
    settings: &Pipeline,
    topic: &str,
    plan: &'a Plan,
) -> Vec<(String, &'a str)> {
    let named = settings.registry.subjects;
    let value = Some((Half::Value, plan.value_schema()));
    let key = plan.key_schema().map(|schema| (Half::Key, schema));
    let both = value.into_iter().chain(key);
    both.map(|(half, schema)| (subject(named, topic, half, schema), schema)).collect()
}

fn subject(named: Subjects, topic: &str, half: Half, schema: &str) -> String {
    let suffix = match half {
        Half::Key => "key",
        Half::Value => "value",
    };
    let record = || full_name(schema).unwrap_or_else(|| format!("{topic}-{suffix}"));
    match named {
        Subjects::Topic => format!("{topic}-{suffix}"),
        Subjects::Record => record(),
        Subjects::TopicRecord => format!("{topic}-{}", record()),
    }
}

impl Compiler {
    /// Registers a plan's schemas for a topic, or for what follows it.
    pub(super) async fn registered(
        &mut self,
        topic: String,
        plan: &Plan,
        table: &TableName,
    ) -> Result<Registered, Fault> {
        match self.settings.registry.on_incompatible {
            OnIncompatible::Fork => self.forked(topic, plan, table).await,
            OnIncompatible::Halt | OnIncompatible::Force => {
                let partitions = self.partitions(&topic).await?;
                let (key_id, value_id) = self.ids(&topic, plan, table).await?;
                Ok(Registered { topic, partitions, key_id, value_id })
            }
        }
    }

    /// The ids of a plan's schemas under a topic.
    async fn ids(
        &mut self,
        topic: &str,
        plan: &Plan,
        table: &TableName,
    ) -> Result<(Option<SchemaId>, SchemaId), Fault> {
        let value = plan.value_schema();
        let value_id = self.id(&self.subject(topic, Half::Value, value), value, table).await?;
        let Some(key) = plan.key_schema() else { return Ok((None, value_id)) };
        let key_id = self.id(&self.subject(topic, Half::Key, key), key, table).await?;
        Ok((Some(key_id), value_id))
    }

    /// In which topic the table goes on: where its schema is known already, which is where rows
    /// lie that are read again; else in the newest, or in one more.
    async fn forked(
        &mut self,
        base: String,
        plan: &Plan,
        table: &TableName,
    ) -> Result<Registered, Fault> {
        let mut topics = vec![base.clone()];
        loop {
            let next = format!("{base}.v{}", topics.len() + 1);
            let there = match self.admin.partitions(&next).await {
                Ok(there) => there.is_some(),
                // As with a topic's partitions: what was known has to do.
                Err(kafka::Error::Unreachable { .. }) => self.partitions.contains_key(&next),
                Err(error) => return Err(diagnosis::of_kafka(&error)),
            };
            if !there {
                break;
            }
            topics.push(next);
        }
        let mut chosen = topics.last().cloned().unwrap_or_else(|| base.clone());
        for topic in topics.iter().rev() {
            match self.knows(topic, plan).await {
                Ok(false) => {}
                Ok(true) => {
                    chosen.clone_from(topic);
                    break;
                }
                Err(error) => {
                    // While it is away, what the checkpoint knows has to do.
                    let known = topics.iter().rev().find(|topic| self.remembers(topic, plan));
                    let known = known.filter(|_| error.is_away());
                    let fault = || diagnosis::of_registry(&error, self.registry.url());
                    chosen.clone_from(known.ok_or_else(fault)?);
                    break;
                }
            }
        }
        match self.ids(&chosen, plan, table).await {
            Ok((key_id, value_id)) => {
                let partitions = self.partitions(&chosen).await?;
                Ok(Registered { topic: chosen, partitions, key_id, value_id })
            }
            Err(fault) if fault.code == Code::SchemaIncompatible => {
                let topic = format!("{base}.v{}", topics.len() + 1);
                tracing::warn!(%table, from = chosen, to = topic, "{}; it goes on in a new topic", fault.what);
                // The topic before its schemas: where it is not made, the next look finds as few.
                let partitions = self.partitions(&topic).await?;
                let (key_id, value_id) = self.ids(&topic, plan, table).await?;
                Ok(Registered { topic, partitions, key_id, value_id })
            }
            Err(fault) => Err(fault),
        }
    }

    /// Whether a plan's schema is registered for a topic.
    async fn knows(&mut self, topic: &str, plan: &Plan) -> Result<bool, Error> {
        let subject = self.subject(topic, Half::Value, plan.value_schema());
        self.registry.look_up(&subject, plan.value_schema()).await.map(|id| id.is_some())
    }

    /// Whether the checkpoint knows a plan's schema for a topic.
    fn remembers(&self, topic: &str, plan: &Plan) -> bool {
        let subject = self.subject(topic, Half::Value, plan.value_schema());
        let known = self.recorded.get(&subject);
        known.is_some_and(|known| known.fingerprint == written(plan.value_schema()))
    }

    fn subject(&self, topic: &str, half: Half, schema: &str) -> String {
        subject(self.settings.registry.subjects, topic, half, schema)
    }

    /// The id of a table's schema.
    async fn id(
        &mut self,
        subject: &str,
        schema: &str,
        table: &TableName,
    ) -> Result<SchemaId, Fault> {
        let error = match self.asked(subject, schema).await? {
            Ok(id) => return Ok(id),
            Err(error) => error,
        };
        let url = self.registry.url().to_owned();
        let fault = diagnosis::of_registry(&error, &url);
        let Error::Incompatible { .. } = error else { return Err(fault) };
        let fault = self.with_changes(fault, subject, schema, table).await;
        if self.settings.registry.on_incompatible != OnIncompatible::Force {
            return Err(fault);
        }
        tracing::warn!(%table, subject, "{}; it is registered all the same", fault.what);
        let id = self.registry.force(subject, schema).await;
        let id = id.map_err(|error| diagnosis::of_registry(&error, &url))?;
        Ok(self.noted(subject, schema, id))
    }

    /// Says of a refused schema whose it is and what is new in it.
    async fn with_changes(
        &mut self,
        fault: Fault,
        subject: &str,
        schema: &str,
        table: &TableName,
    ) -> Fault {
        // What cannot be had is left out: the refusal itself is told in any case.
        let latest = self.registry.latest(subject).await.ok();
        let mut found = latest.map(|latest| changes(&latest, schema)).unwrap_or_default();
        if found.len() > MAX_CHANGES {
            let more = found.len() - MAX_CHANGES;
            found.truncate(MAX_CHANGES);
            found.push(format!("and {more} more"));
        }
        let said = match found.is_empty() {
            true => String::new(),
            false => format!(" ({})", found.join("; ")),
        };
        Fault { what: format!("table {table} has changed{said}: {}", fault.what), ..fault }
    }

    /// The id of a schema that is ours alone.
    pub(super) async fn register(
        &mut self,
        subject: &str,
        schema: &str,
    ) -> Result<SchemaId, Fault> {
        let id = self.asked(subject, schema).await?;
        id.map_err(|error| diagnosis::of_registry(&error, self.registry.url()))
    }

    /// The id that the checkpoint remembers or the registry gives; inside, that it gives none.
    async fn asked(
        &mut self,
        subject: &str,
        schema: &str,
    ) -> Result<Result<SchemaId, Error>, Fault> {
        if let Some(id) = self.recorded(subject, schema).await? {
            return Ok(Ok(id));
        }
        self.verify_late().await?;
        let id = self.registry.register(subject, schema).await;
        Ok(id.map(|id| self.noted(subject, schema, id)))
    }

    /// The id of a schema that the checkpoint remembers, seen to be the same still. Nothing is
    /// registered for that: it would be in the way of a registry that is restored.
    async fn recorded(&mut self, subject: &str, schema: &str) -> Result<Option<SchemaId>, Fault> {
        let fingerprint = written(schema);
        let known = self.recorded.get(subject).filter(|known| known.fingerprint == fingerprint);
        let Some(was) = known.map(|known| SchemaId(known.id)) else { return Ok(None) };
        let found = match self.registry.look_up(subject, schema).await {
            // What is there was published under this id. Whether it still means the same is asked
            // before anything else is registered.
            Err(error) if error.is_away() => {
                tracing::info!(subject, id = was.0, "the checkpoint's id: the registry is away");
                self.unverified.insert(subject.to_owned(), schema.to_owned());
                Some(was)
            }
            found => found.map_err(|error| diagnosis::of_registry(&error, self.registry.url()))?,
        };
        if found == Some(was) {
            return Ok(Some(self.noted(subject, schema, was)));
        }
        self.registry.forget(subject, schema);
        let is = found.map(|id| id.0);
        Err(diagnosis::of_other_id(subject, was.0, is, self.registry.url()))
    }

    /// Sees of ids that were used while the registry was away whether they are the same still.
    async fn verify_late(&mut self) -> Result<(), Fault> {
        while let Some((subject, schema)) = self.unverified.pop_first() {
            let found = self.registry.look_up(&subject, &schema).await;
            let was = self.recorded.get(&subject).map(|known| known.id);
            let fault = match found {
                Ok(found) if found.map(|id| id.0) == was => continue,
                Ok(found) => {
                    self.registry.forget(&subject, &schema);
                    let (was, is) = (was.unwrap_or_default(), found.map(|id| id.0));
                    diagnosis::of_other_id(&subject, was, is, self.registry.url())
                }
                Err(error) => diagnosis::of_registry(&error, self.registry.url()),
            };
            self.unverified.insert(subject, schema);
            return Err(fault);
        }
        Ok(())
    }

    /// Remembers for the checkpoint what is in use.
    fn noted(&self, subject: &str, schema: &str, id: SchemaId) -> SchemaId {
        self.desk.uses(RegisteredSchema {
            subject: subject.to_owned(),
            id: id.0,
            fingerprint: written(schema),
        });
        id
    }
}

/// A schema's fingerprint, as checkpoints write it.
fn written(schema: &str) -> String {
    format!("{:016x}", fingerprint(schema.as_bytes()))
}
