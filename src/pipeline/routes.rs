//! A relation's way to Kafka: its plan, topic and schema ids, compiled when the server describes it.
//!
//! Everything a row needs is looked up here once, so that the row path finds it by relation id.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use waltide_core::avro::{self, ColumnFilter, DataError, Options, Plan, Problem};
use waltide_core::change::Row;
use waltide_core::checkpoint::RegisteredSchema;
use waltide_core::dead_letter;
use waltide_core::pgoutput::{Relation, RelationId};

use super::desk::Desk;
use super::diagnosis;
use super::schemas::Registered;
use super::source::{ANSWER, answered};
use super::topics::{self, Topics};
use crate::config;
use crate::config::settled::LargeRows;
use crate::fault::Fault;
use crate::kafka::{self, Admin, Ends, Lane, TopicOptions};
use crate::postgres::Connection;
use crate::registry::{Client, SchemaId};
use crate::status::Counts;

/// What is known of a relation of the stream.
#[derive(Debug)]
pub(super) enum Known {
    /// It was described, and no row of it has come yet. The server describes a partition whose
    /// rows come as those of the table at the top, too: it needs no topic.
    Described,
    /// It is captured.
    Captured(Box<Route>),
    /// The publication covers it, configuration does not.
    LeftOut,
}

/// The way of one table's rows.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) plan: Plan,
    pub(super) topic: String,
    pub(super) lane: Lane,
    pub(super) partitions: i32,
    pub(super) key_id: Option<SchemaId>,
    pub(super) value_id: SchemaId,
    /// Where rows go that are too large, if they may.
    pub(super) dead_letters: Option<DeadLetters>,
    pub(super) table: config::TableName,
    /// Columns that the catalog calls required, and a row of the stream had no value there.
    loosened: Vec<String>,
    counts: Counts,
}

impl Route {
    pub(super) fn count(&mut self, row: &Row<'_>) {
        match row {
            Row::Read(_) | Row::Insert(_) => self.counts.inserts += 1,
            Row::Update { .. } => self.counts.updates += 1,
            Row::Delete(_) => self.counts.deletes += 1,
        }
    }

    pub(super) fn count_truncate(&mut self) {
        self.counts.truncates += 1;
    }

    /// What was counted since the last call.
    pub(super) fn take_counts(&mut self) -> Option<(String, Counts, Option<u32>)> {
        let counts = std::mem::take(&mut self.counts);
        (counts != Counts::default())
            .then(|| (self.table.to_string(), counts, Some(self.value_id.0)))
    }
}

/// The way of what is published in place of a record that cannot be.
#[derive(Debug)]
pub(super) struct DeadLetters {
    pub(super) topic: String,
    pub(super) lane: Lane,
    pub(super) partitions: i32,
    pub(super) value_id: SchemaId,
}

/// The way of records that are of no table.
#[derive(Debug)]
pub(super) struct OwnTopic {
    pub(super) name: String,
    pub(super) lane: Lane,
    pub(super) key_id: Option<SchemaId>,
    pub(super) value_id: SchemaId,
}

/// What it takes to compile a route.
#[derive(Debug)]
pub(super) struct Compiler {
    pub(super) settings: config::settled::Pipeline,
    pub(super) catalog: Connection,
    pub(super) admin: Arc<Admin>,
    pub(super) registry: Client,
    pub(super) topics: Topics,
    /// How many partitions they had when Kafka was first asked.
    pub(super) partitions: HashMap<String, i32>,
    /// Where topics get the numbers by which their reports are counted.
    pub(super) ends: Ends,
    /// What the checkpoint knows of schemas, by subject; nothing where other ids are all right.
    pub(super) recorded: HashMap<String, RegisteredSchema>,
    /// Schemas, by subject, that are used under the checkpoint's id while the registry is away.
    pub(super) unverified: BTreeMap<String, String>,
    /// Where schemas are noted for the checkpoint.
    pub(super) desk: Arc<Desk>,
    /// How long others took to answer, since somebody asked.
    pub(super) waited: Duration,
}

impl Compiler {
    /// Asks the catalog, Kafka and the registry what a relation needs.
    pub(super) async fn compile(&mut self, relation: &Relation) -> Result<Known, Fault> {
        let name =
            config::TableName { schema: relation.schema.clone(), table: relation.name.clone() };
        if !self.settings.source.captures(&name.schema, &name.table) {
            tracing::debug!(table = %name, "published but not captured");
            return Ok(Known::LeftOut);
        }
        Ok(Known::Captured(Box::new(self.route(relation, name, Vec::new()).await?)))
    }

    /// Compiles a route again for a row that does not fit it, with what the catalog says now.
    ///
    /// A row without what the catalog calls required was written when the column was nullable; so
    /// it stays until the server describes the relation again. A value that does not look like its
    /// type may be of a composite type that has changed since: the server does not tell of that.
    #[cold]
    pub(super) async fn compile_again(
        &mut self,
        relation: &Relation,
        route: &mut Route,
        error: &DataError,
    ) -> Result<Route, Fault> {
        let table = route.table.clone();
        let mut loosened = std::mem::take(&mut route.loosened);
        match (&error.column, error.problem) {
            (Some(column), Problem::Null) => {
                tracing::info!(%table, column, "rows are older than a column's NOT NULL");
                loosened.push(column.clone());
            }
            (Some(column), Problem::Malformed(_)) => {
                tracing::info!(%table, column, "a column's type is read again");
            }
            _ => return Err(diagnosis::of_row(error)),
        }
        let counts = std::mem::take(&mut route.counts);
        Ok(Route { counts, ..self.route(relation, table, loosened).await? })
    }

    /// How long others took to answer, since the last call.
    pub(super) fn take_waited(&mut self) -> Duration {
        std::mem::take(&mut self.waited)
    }

    /// The way of a relation's rows, some columns of which may be null whatever the catalog says.
    async fn route(
        &mut self,
        relation: &Relation,
        name: config::TableName,
        loosened: Vec<String>,
    ) -> Result<Route, Fault> {
        let since = Instant::now();
        let route = self.look_up(relation, name, loosened).await;
        self.waited += since.elapsed();
        route
    }

    async fn look_up(
        &mut self,
        relation: &Relation,
        name: config::TableName,
        loosened: Vec<String>,
    ) -> Result<Route, Fault> {
        let source = |error| diagnosis::of_source(&error);
        // The catalog is as it is now, the relation as it was when the row was written: a table
        // that is gone meanwhile, or columns that have changed, leave the stream's word alone.
        let oids: Vec<u32> = relation.columns.iter().map(|column| column.type_oid).collect();
        let peer = self.catalog.peer().clone();
        let look = async {
            let known = self.catalog.load_relations(&[relation.id]).await?;
            Ok((known, self.catalog.load_types(&oids).await?))
        };
        let (mut known, types) = answered(ANSWER, &peer, look).await.map_err(source)?;
        let mut table = known.tables.remove(&relation.id).unwrap_or_default();
        loosened.iter().for_each(|column| table.loosen(column));
        let topic = self.topic(relation.id, &name).await?;
        let options = self.options(&name);
        let plan = Plan::compile(relation, &table, &types, &options)
            .map_err(|error| diagnosis::of_plan(&error))?;
        for warning in plan.warnings() {
            tracing::warn!(table = %name, "{warning}");
        }
        let Registered { topic, partitions, key_id, value_id } =
            self.registered(topic, &plan, &name).await?;
        let dead_letters = match self.settings.large_rows {
            LargeRows::Halt => None,
            LargeRows::DeadLetter => Some(self.dead_letters().await?),
        };
        let (lane, counts) = (self.ends.lane(&topic), Counts::default());
        Ok(Route {
            plan,
            topic,
            lane,
            partitions,
            key_id,
            value_id,
            dead_letters,
            table: name,
            loosened,
            counts,
        })
    }

    /// How many a table's topic has, which is made where it is not there.
    pub(super) async fn partitions(&mut self, topic: &str) -> Result<i32, Fault> {
        self.partitions_of(topic, &self.topic_options()).await
    }

    /// The server describes tables again whenever it likes. While Kafka is away what was known then
    /// has to do, or the stream would end and nobody would feed the server. And for as long as it
    /// lasts keys stay where they are: the producers have yet to hear of new partitions.
    async fn partitions_of(&mut self, topic: &str, options: &TopicOptions) -> Result<i32, Fault> {
        match self.admin.ensure(topic, options).await {
            Ok(now) => {
                let known = *self.partitions.entry(topic.to_owned()).or_insert(now);
                if now != known {
                    tracing::warn!(
                        topic,
                        known,
                        now,
                        "a topic's partitions have changed: keys move when the pipeline connects again"
                    );
                }
                Ok(known.min(now))
            }
            Err(error @ kafka::Error::Unreachable { .. }) => {
                let known = self.partitions.get(topic).copied();
                known.ok_or_else(|| diagnosis::of_kafka(&error))
            }
            Err(error) => Err(diagnosis::of_kafka(&error)),
        }
    }

    async fn dead_letters(&mut self) -> Result<DeadLetters, Fault> {
        let topic = self.settings.dead_letter_topic();
        // What suits a table's topic, such as compaction, need not suit this one.
        let options = TopicOptions { config: BTreeMap::new(), ..self.topic_options() };
        let partitions = self.partitions_of(&topic, &options).await?;
        let value_id = self.register(&format!("{topic}-value"), dead_letter::SCHEMA).await?;
        let lane = self.ends.lane(&topic);
        Ok(DeadLetters { topic, lane, partitions, value_id })
    }

    /// A topic of records that are of no table. It is made with one partition, as they are in
    /// order among themselves; what suits a table's topic, such as compaction, need not suit it.
    pub(super) async fn own_topic(
        &mut self,
        name: String,
        (key, value): (Option<&str>, &str),
    ) -> Result<OwnTopic, Fault> {
        let (partitions, config) = (Some(1), BTreeMap::new());
        let options = TopicOptions { partitions, config, ..self.topic_options() };
        let made = self.admin.ensure(&name, &options).await;
        made.map_err(|error| diagnosis::of_kafka(&error))?;
        let key_id = match key {
            Some(schema) => Some(self.register(&format!("{name}-key"), schema).await?),
            None => None,
        };
        let value_id = self.register(&format!("{name}-value"), value).await?;
        Ok(OwnTopic { lane: self.ends.lane(&name), name, key_id, value_id })
    }

    /// The topic of a table, unless another table has it already. One that is gone has none.
    async fn topic(&mut self, id: RelationId, name: &config::TableName) -> Result<String, Fault> {
        let topic = topics::name(&self.settings, name)?;
        if let Some((other, owner)) = self.topics.get(&topic).filter(|(other, _)| *other != id) {
            let known = self.catalog.load_relations(&[*other]).await;
            let known = known.map_err(|error| diagnosis::of_source(&error))?;
            if known.tables.contains_key(other) {
                return Err(topics::shared(&topic, owner, name));
            }
        }
        self.topics.insert(topic.clone(), (id, name.clone()));
        Ok(topic)
    }

    /// What is the same for all records.
    pub(super) fn common_options(&self) -> Options {
        common_options(&self.settings, self.catalog.peer().database())
    }

    fn options(&self, name: &config::TableName) -> Options {
        table_options(&self.settings, self.catalog.peer().database(), name)
    }

    pub(super) fn topic_options(&self) -> TopicOptions {
        let kafka = &self.settings.kafka;
        TopicOptions {
            partitions: kafka.partitions,
            replication_factor: kafka.replication_factor,
            config: kafka
                .topic_config
                .iter()
                .map(|(key, value)| (key.clone(), value.expose().to_owned()))
                .collect(),
        }
    }
}

/// What is the same for all records of a pipeline.
fn common_options(settings: &config::settled::Pipeline, database: &str) -> Options {
    use config::settled::{Envelope, Profile};
    Options {
        profile: match settings.profile {
            Profile::Waltide => avro::Profile::Waltide,
            Profile::Debezium => avro::Profile::Debezium,
        },
        envelope: match settings.envelope {
            Envelope::Full => avro::Envelope::Full,
            Envelope::Flat => avro::Envelope::Flat,
        },
        prefix: settings.prefix.clone(),
        database: database.to_owned(),
        tombstones: settings.tombstones,
        binary: settings.source.binary,
        max_row_bytes: settings.max_row_bytes,
        ..Options::default()
    }
}

/// How the rows of a table become records.
pub(crate) fn table_options(
    settings: &config::settled::Pipeline,
    database: &str,
    name: &config::TableName,
) -> Options {
    use config::settled::Columns;
    let own = settings.table_options.get(name).cloned().unwrap_or_default();
    Options {
        key: own.key,
        columns: match own.columns {
            Columns::All => ColumnFilter::All,
            Columns::Except(names) => ColumnFilter::Except(names),
            Columns::Only(names) => ColumnFilter::Only(names),
        },
        ..common_options(settings, database)
    }
}
