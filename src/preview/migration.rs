//! What a migration would make of the topics, found out before it is deployed.
//!
//! The tables' definitions are copied into a database of its own, the migration is applied there,
//! and what the tables have become is held against the registry. The source is only read.

use std::collections::{HashMap, HashSet};

use waltide_core::pgoutput::RelationId;

use super::definitions::{self, Definition};
use super::scratch::{self, Scratch};
use super::script::{Statement, statements};
use super::{Change, Preview, Subject, compare, compiled, unusable};
use crate::config::TableName;
use crate::config::settled::Pipeline;
use crate::fault::{Code, Fault};
use crate::pipeline;
use crate::postgres::{Connection, Error, Mode, Params, SqlState};
use crate::registry::Client;

/// A file of SQL.
#[derive(Clone, Debug)]
pub struct Script {
    /// Its name, for messages.
    pub name: String,
    /// What is in it.
    pub text: String,
}

/// What is to be found out.
#[derive(Clone, Debug)]
pub struct Asked {
    /// What would be deployed.
    pub migration: Script,
    /// What `pg_dump --schema-only` wrote, instead of the source itself.
    pub dump: Option<Script>,
    /// A server on which a database may be made.
    pub scratch: Params,
}

/// What was found out.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// How many statements were applied.
    pub applied: usize,
    /// Where it fails.
    pub failure: Option<Failure>,
    /// What was not done, and why, for a person.
    pub notes: Vec<String>,
    /// Tables whose topics change.
    pub changed: Vec<Outcome>,
    /// How many tables stay as they are.
    pub unchanged: usize,
}

/// A statement that fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Its line.
    pub line: usize,
    /// Its beginning.
    pub statement: String,
    /// What the server says.
    pub error: String,
}

/// What becomes of a table.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its name before, where there was one that is captured.
    pub was: Option<(TableName, String)>,
    /// Its name after and its topic, where it is captured then.
    pub is: Option<(TableName, String)>,
    /// Its schemas after.
    pub subjects: Vec<(Subject, Change)>,
}

/// What a copy is made from.
struct Original {
    definitions: Vec<Definition>,
    /// A dump says by itself which role or setting it needs; the source's are known.
    roles: HashSet<String>,
    search_path: Option<String>,
    tables: Vec<Preview>,
    identity: Option<String>,
    /// The server's version, where it was asked.
    version_num: Option<u32>,
}

/// Finds it out. Nothing is left behind, also where `stop` comes first.
///
/// # Errors
/// Where a file cannot be read as SQL, a server does not serve, or a table cannot be copied.
pub async fn plan(
    settings: &Pipeline,
    registry: &mut Client,
    asked: &Asked,
    stop: impl Future<Output = ()>,
) -> Result<Found, Fault> {
    let migration = read(&asked.migration)?;
    let original = match &asked.dump {
        Some(dump) => dumped(dump)?,
        None => look(settings).await?,
    };
    let mut scratch = Scratch::make(&asked.scratch, original.identity.as_deref()).await?;
    let found = tokio::select! {
        found = apply(settings, registry, &mut scratch, &original, &migration) => found,
        () = stop => Err(Fault::new(
            Code::Declined,
            "the plan was stopped before it was whole",
            "run it again",
        )),
    };
    let removed = scratch.remove().await;
    let found = found?;
    removed?;
    Ok(found)
}

fn read(script: &Script) -> Result<Vec<Statement<'_>>, Fault> {
    statements(&script.text).map_err(|error| {
        Fault::new(
            Code::MigrationFails,
            format!("{}:{}: {}", script.name, error.line, error.what),
            "correct the file",
        )
    })
}

fn dumped(dump: &Script) -> Result<Original, Fault> {
    let found = read(dump)?.into_iter().filter(|statement| left_out(statement).is_none());
    let definitions = found
        .map(|statement| Definition {
            object: format!("{}:{}: {statement}", dump.name, statement.line),
            sql: statement.text.to_owned(),
        })
        .collect();
    let (roles, search_path, tables, identity) = (HashSet::new(), None, Vec::new(), None);
    Ok(Original { definitions, roles, search_path, tables, identity, version_num: None })
}

/// All of the source that is needed. Its session may not write.
async fn look(settings: &Pipeline) -> Result<Original, Fault> {
    let source = |error: Error| pipeline::of_source(&error);
    let params = pipeline::params(&settings.source)?;
    let mut on = Connection::open(&params, Mode::Plain).await.map_err(source)?;
    on.simple_query("SET default_transaction_read_only = on").await.map_err(source)?;
    let definitions = definitions::of(&mut on).await.map_err(source)?;
    let roles = on.query("SELECT rolname FROM pg_roles WHERE rolname !~ '^pg_'", &[]).await;
    let roles = roles.map_err(source)?.rows.into_iter().flatten().flatten().collect();
    let path = "SELECT substr(one, 13) FROM pg_db_role_setting, unnest(setconfig) AS one
                WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
                  AND setrole = 0 AND one LIKE 'search_path=%'";
    let path = on.query(path, &[]).await.map_err(source)?;
    let search_path = path.single().map(str::to_owned);
    let tables = compiled(&mut on, settings, &[]).await?;
    let identity = scratch::identity(&mut on).await;
    let version_num = Some(on.server_version_num());
    on.close().await;
    Ok(Original { definitions, roles, search_path, tables, identity, version_num })
}

async fn apply(
    settings: &Pipeline,
    registry: &mut Client,
    scratch: &mut Scratch,
    original: &Original,
    migration: &[Statement<'_>],
) -> Result<Found, Fault> {
    let wrong = |error: Error| super::of_scratch(&error);
    let mut found = Found::default();
    let mut on = Connection::open(scratch.params(), Mode::Plain).await.map_err(wrong)?;
    let (version, of_source) = (on.server_version_num() / 10_000, original.version_num);
    if let Some(other) = of_source.map(|num| num / 10_000).filter(|other| *other != version) {
        found.notes.push(format!("--scratch is PostgreSQL {version}, the source is {other}"));
    }
    let missing = copy(&mut on, &original.definitions).await?;
    let before = compiled(&mut on, settings, &[]).await?;
    on.close().await;
    all_copied(&original.tables, &before, &missing)?;
    found.notes.extend(missing.iter().map(|(what, error)| format!("not copied: {what}: {error}")));

    let named: HashSet<&str> = migration
        .iter()
        .flat_map(|one| one.text.split(|char: char| !char.is_alphanumeric() && char != '_'))
        .collect();
    for role in original.roles.iter().filter(|role| named.contains(role.as_str())) {
        scratch.lend_role(role).await.map_err(wrong)?;
    }
    migrate(scratch, original.search_path.as_deref(), migration, &mut found).await?;

    let mut on = Connection::open(scratch.params(), Mode::Plain).await.map_err(wrong)?;
    let after = compiled(&mut on, settings, &[]).await?;
    on.close().await;
    let url = settings.registry.address();
    for (was, is) in pairs(before, after) {
        if let (Some(was), Some(is)) = (&was, &is)
            && was.topic == is.topic
            && was.schemas == is.schemas
        {
            found.unchanged += 1;
            continue;
        }
        let mut subjects = Vec::new();
        for subject in is.iter().flat_map(|is| &is.schemas) {
            let compared = compare(registry, subject).await;
            let change = compared.map_err(|error| pipeline::of_registry(&error, &url))?;
            subjects.push((subject.clone(), change));
        }
        let named = |table: Preview| (table.table, table.topic);
        found.changed.push(Outcome { was: was.map(named), is: is.map(named), subjects });
    }
    Ok(found)
}

/// Makes all that can be made, each as soon as what it needs is there; what is left, and why.
async fn copy(
    on: &mut Connection,
    definitions: &[Definition],
) -> Result<Vec<(String, String)>, Fault> {
    // Bodies of functions may name what is not there yet; a dump says itself where things are.
    let ready = "SET check_function_bodies = off; SET synchronous_commit = off; \
                 SET search_path = public";
    on.simple_query(ready).await.map_err(|error| super::of_scratch(&error))?;
    let mut left: Vec<(&Definition, String)> =
        definitions.iter().map(|one| (one, String::new())).collect();
    loop {
        let before = left.len();
        let mut again = Vec::new();
        for (definition, _) in left {
            match on.simple_query(&definition.sql).await {
                Ok(_) => {}
                Err(Error::Server { error, .. }) => again.push((definition, error.message)),
                Err(error) => return Err(super::of_scratch(&error)),
            }
        }
        if again.is_empty() || again.len() == before {
            let told = again.into_iter().map(|(one, error)| (one.object.clone(), error));
            return Ok(told.collect());
        }
        left = again;
    }
}

/// A captured table that is not in the copy would pass as dropped.
fn all_copied(
    wanted: &[Preview],
    made: &[Preview],
    missing: &[(String, String)],
) -> Result<(), Fault> {
    let made: HashSet<&TableName> = made.iter().map(|one| &one.table).collect();
    let Some(lost) = wanted.iter().find(|one| !made.contains(&one.table)) else { return Ok(()) };
    let why: Vec<String> =
        missing.iter().take(3).map(|(what, error)| format!("{what}: {error}")).collect();
    Err(unusable(
        format!("table {} cannot be copied to it: {}", lost.table, why.join("; ")),
        "install there what the table needs, such as its extensions, or name a server that has it",
    ))
}

/// Applies the statements one after the other, as psql would, up to the first that fails.
async fn migrate(
    scratch: &mut Scratch,
    search_path: Option<&str>,
    migration: &[Statement<'_>],
    found: &mut Found,
) -> Result<(), Fault> {
    let wrong = |error: Error| super::of_scratch(&error);
    let mut on = Connection::open(scratch.params(), Mode::Plain).await.map_err(wrong)?;
    let path = search_path.unwrap_or("\"$user\", public");
    let set = "SELECT set_config('search_path', $1, false)";
    on.query(set, &[Some(path)]).await.map_err(wrong)?;
    on.simple_query("SET row_security = on").await.map_err(wrong)?;
    for statement in migration {
        if let Some(why) = left_out(statement) {
            found.notes.push(format!("left out: line {}: {statement}: {why}", statement.line));
            continue;
        }
        let mut result = on.simple_query(statement.text).await;
        if let Err(error) = &result
            && let Some(role) = missing_role(error)
            && !on.in_transaction()
        {
            scratch.lend_role(&role).await.map_err(wrong)?;
            result = on.simple_query(statement.text).await;
        }
        match result {
            Ok(_) => found.applied += 1,
            Err(Error::Server { error, .. }) => {
                let (line, statement) = (statement.line, statement.brief());
                found.failure = Some(Failure { line, statement, error: error.to_string() });
                break;
            }
            Err(error) => return Err(wrong(error)),
        }
    }
    if found.failure.is_none() && on.in_transaction() {
        found
            .notes
            .push("the last transaction is never committed: nothing of it stands".to_owned());
    }
    on.close().await;
    Ok(())
}

/// Why a statement is not applied: it would reach beyond the database, or is about rows.
fn left_out(statement: &Statement<'_>) -> Option<&'static str> {
    let beyond = "it belongs to the server, not to the database";
    if statement.is("COPY") && statement.text.to_uppercase().contains("FROM STDIN") {
        return Some("rows change no schema");
    }
    let of_the_server = statement.is("CREATE|ALTER|DROP ROLE|USER|GROUP|DATABASE|TABLESPACE")
        || statement.is("ALTER SYSTEM")
        || statement.is("DROP|REASSIGN OWNED");
    // Of one role in another; everything else is granted on something.
    let on = |text: &str| text.split_whitespace().any(|word| word.eq_ignore_ascii_case("on"));
    let membership = statement.is("GRANT|REVOKE") && !on(statement.text);
    if (of_the_server && !statement.is("CREATE|ALTER|DROP USER MAPPING")) || membership {
        return Some(beyond);
    }
    statement.is("CREATE|ALTER|DROP SUBSCRIPTION").then_some("it would reach another server")
}

/// The role a statement names and the server lacks.
fn missing_role(error: &Error) -> Option<String> {
    let Error::Server { error, .. } = error else { return None };
    if error.sqlstate != SqlState::UNDEFINED_OBJECT {
        return None;
    }
    let rest = error.message.strip_prefix("role \"")?;
    Some(rest.strip_suffix("\" does not exist")?.to_owned())
}

/// Each table before with what it is after: the same one, or another of that name.
fn pairs(before: Vec<Preview>, after: Vec<Preview>) -> Vec<(Option<Preview>, Option<Preview>)> {
    let mut after: HashMap<RelationId, Preview> =
        after.into_iter().map(|table| (table.id, table)).collect();
    let mut pairs: Vec<(Option<Preview>, Option<Preview>)> = Vec::new();
    let mut lost = Vec::new();
    for was in before {
        match after.remove(&was.id) {
            Some(is) => pairs.push((Some(was), Some(is))),
            None => lost.push(was),
        }
    }
    for was in lost {
        let again = after.values().find(|is| is.table == was.table).map(|is| is.id);
        let is = again.and_then(|id| after.remove(&id));
        pairs.push((Some(was), is));
    }
    pairs.extend(after.into_values().map(|is| (None, Some(is))));
    let name = |pair: &(Option<Preview>, Option<Preview>)| {
        let either = pair.0.as_ref().or(pair.1.as_ref());
        either.map(|table| (table.table.schema.clone(), table.table.table.clone()))
    };
    pairs.sort_by_key(name);
    pairs
}
