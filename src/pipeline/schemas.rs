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
            let there = match self.admin.partitions(Some(&next)).await {
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
            if self.knows(topic, plan).await? {
                chosen.clone_from(topic);
                break;
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
    async fn knows(&mut self, topic: &str, plan: &Plan) -> Result<bool, Fault> {
        let subject = self.subject(topic, Half::Value, plan.value_schema());
        let known = self.registry.look_up(&subject, plan.value_schema()).await;
        known
            .map(|id| id.is_some())
            .map_err(|error| diagnosis::of_registry(&error, self.registry.url()))
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
        let id = self.registry.register(subject, schema).await;
        Ok(id.map(|id| self.noted(subject, schema, id)))
    }

    /// The id of a schema that the checkpoint remembers, seen to be the same still. Nothing is
    /// registered for that: it would be in the way of a registry that is restored.
    async fn recorded(&mut self, subject: &str, schema: &str) -> Result<Option<SchemaId>, Fault> {
        let fingerprint = format!("{:016x}", fingerprint(schema.as_bytes()));
        let known = self.recorded.get(subject).filter(|known| known.fingerprint == fingerprint);
        let Some(was) = known.map(|known| SchemaId(known.id)) else { return Ok(None) };
        let found = self.registry.look_up(subject, schema).await;
        let found = found.map_err(|error| diagnosis::of_registry(&error, self.registry.url()))?;
        if found == Some(was) {
            return Ok(Some(self.noted(subject, schema, was)));
        }
        self.registry.forget(subject, schema);
        let is = found.map(|id| id.0);
        Err(diagnosis::of_other_id(subject, was.0, is, self.registry.url()))
    }

    /// Remembers for the checkpoint what is in use.
    fn noted(&self, subject: &str, schema: &str, id: SchemaId) -> SchemaId {
        self.desk.uses(RegisteredSchema {
            subject: subject.to_owned(),
            id: id.0,
            fingerprint: format!("{:016x}", fingerprint(schema.as_bytes())),
        });
        id
    }
}
