//! What the schemas of tables are, before any row of them comes, and what the registry would say.
//!
//! For a person who wonders, and for a CI job that has applied a migration to a database of its own.
//! Nothing is registered, and the database is only read.

mod definitions;
mod migration;
mod scratch;
mod script;

use std::collections::hash_map::Entry;

use waltide_core::avro::Plan;
use waltide_core::pgoutput::RelationId;

use crate::config::settled::Pipeline;
use crate::config::{TableName, TablePattern};
use crate::fault::{Code, Fault};
use crate::pipeline;
use crate::postgres::catalog::TableFacts;
use crate::postgres::{self, Connection, Mode, Params};
use crate::registry::{Client, Error, Verdict, changes};

pub use migration::{Asked, Failure, Found, Outcome, Script, plan};

/// A table as consumers would know it.
#[derive(Clone, Debug)]
pub struct Preview {
    /// What the table keeps when it is renamed.
    pub id: RelationId,
    /// The table.
    pub table: TableName,
    /// Its topic.
    pub topic: String,
    /// Of key and value, as far as there are any.
    pub schemas: Vec<Subject>,
    /// What its schema cannot say well.
    pub warnings: Vec<String>,
}

/// A schema and what it is registered under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The name.
    pub name: String,
    /// The Avro schema, as JSON.
    pub schema: String,
}

/// What would happen to a subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing: the registry has this schema.
    None,
    /// It would be the first.
    New,
    /// Readers can follow.
    Compatible {
        /// What is different from the newest.
        changes: Vec<String>,
    },
    /// The registry would refuse it.
    Incompatible {
        /// What is different from the newest.
        changes: Vec<String>,
        /// What the registry says.
        reasons: Vec<String>,
    },
}

impl Change {
    /// In one word.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::None => "unchanged",
            Self::New => "new",
            Self::Compatible { .. } => "compatible",
            Self::Incompatible { .. } => "incompatible",
        }
    }

    /// What is different, and what the registry says against it.
    #[must_use]
    pub fn told(&self) -> (&[String], &[String]) {
        match self {
            Self::None | Self::New => (&[], &[]),
            Self::Compatible { changes } => (changes, &[]),
            Self::Incompatible { changes, reasons } => (changes, reasons),
        }
    }
}

/// The captured tables of a database, or those of them that a pattern names.
///
/// # Errors
/// Where the database cannot be read, a table has no schema, or nothing matches.
pub async fn tables(
    settings: &Pipeline,
    params: &Params,
    wanted: &[TablePattern],
) -> Result<Vec<Preview>, Fault> {
    let opened = Connection::open(params, Mode::Plain).await;
    let mut on = opened.map_err(|error| pipeline::of_source(&error))?;
    let previews = compiled(&mut on, settings, wanted).await?;
    if previews.is_empty() {
        return Err(Fault::new(
            Code::NoTables,
            format!("no captured table of {} is asked for", on.peer()),
            "correct --table, or source.tables and source.exclude",
        ));
    }
    on.close().await;
    Ok(previews)
}

/// What it comes to on a connection, where there may be none.
async fn compiled(
    on: &mut Connection,
    settings: &Pipeline,
    wanted: &[TablePattern],
) -> Result<Vec<Preview>, Fault> {
    let source = |error| pipeline::of_source(&error);
    let all = on.list_tables(&["*"]).await.map_err(source)?;
    let captured = |table: &&TableFacts| {
        let one = |pattern: &TablePattern| pattern.matches(&table.schema, &table.name);
        settings.source.captures(&table.schema, &table.name)
            && (wanted.is_empty() || wanted.iter().any(one))
            && table.is_streamed()
    };
    let facts: Vec<&TableFacts> = all.iter().filter(captured).collect();
    let mut described = on.described(&facts, false).await.map_err(source)?;
    // What is published already says itself which columns the stream has.
    let publication = on.load_publication(&settings.source.publication).await.map_err(source)?;
    for table in publication.iter().flat_map(|publication| &publication.tables) {
        if let Entry::Occupied(mut known) = described.entry(table.id)
            && let Some(relation) = on.as_published(table).await.map_err(source)?
        {
            known.insert(relation);
        }
    }
    let ids: Vec<_> = facts.iter().map(|table| table.id).collect();
    let mut known = on.load_relations(&ids).await.map_err(source)?;
    // Rows say which database they are of: the pipeline's own, wherever it is tried.
    let database = pipeline::params(&settings.source)?.database;
    let mut previews = Vec::new();
    for table in facts {
        let name = TableName { schema: table.schema.clone(), table: table.name.clone() };
        let found = (described.remove(&table.id), known.tables.remove(&table.id));
        let (Some(relation), Some(catalog)) = found else { continue };
        let options = pipeline::table_options(settings, &database, &name);
        let plan = Plan::compile(&relation, &catalog, &known.types, &options);
        let plan = plan.map_err(|error| pipeline::of_plan(&error))?;
        let topic = settings.topic_of(&name);
        let warnings = plan.warnings().iter().map(ToString::to_string).collect();
        let schemas = pipeline::subjects(settings, &topic, &plan);
        let schemas = schemas
            .into_iter()
            .map(|(name, schema)| Subject { name, schema: schema.to_owned() })
            .collect();
        previews.push(Preview { id: table.id, table: name, topic, schemas, warnings });
    }
    Ok(previews)
}

fn of_scratch(error: &postgres::Error) -> Fault {
    unusable(
        format!("the server of --scratch does not serve: {error}"),
        "name a server on which the role may make a database, such as a service of the CI job",
    )
}

fn unusable(what: impl Into<String>, mend: impl Into<String>) -> Fault {
    Fault::new(Code::ScratchUnusable, what, mend)
}

/// Asks the registry what it would say to a schema.
///
/// # Errors
/// Where it does not answer.
pub async fn compare(client: &mut Client, subject: &Subject) -> Result<Change, Error> {
    if client.look_up(&subject.name, &subject.schema).await?.is_some() {
        return Ok(Change::None);
    }
    let latest = match client.latest(&subject.name).await {
        Ok(latest) => latest,
        Err(Error::Unknown { .. }) => return Ok(Change::New),
        Err(error) => return Err(error),
    };
    let changes = changes(&latest, &subject.schema);
    Ok(match client.would_take(&subject.name, &subject.schema).await? {
        Verdict::Taken => Change::Compatible { changes },
        Verdict::Refused { reasons } => Change::Incompatible { changes, reasons },
    })
}
