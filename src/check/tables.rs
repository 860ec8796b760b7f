//! The captured tables: whether rows of each can be identified, sent and written as Avro.

use waltide_core::avro::{Plan, Warning};
use waltide_core::catalog::{Table, Types};
use waltide_core::pgoutput::{Relation, ReplicaIdentity};

use super::finding::Finding;
use crate::config::TableName;
use crate::config::settled::{Columns, Pipeline, Snapshot};
use crate::fault::Code;
use crate::pipeline;
use crate::postgres::catalog::{Persistence, Preflight, RelationKind, TableFacts};
use crate::postgres::publication::{Candidate, inserts_only};
use crate::postgres::sql::{identifier, qualified};
use crate::postgres::{Connection, Error};

/// A table that is captured.
#[derive(Clone, Debug)]
pub(super) struct Captured {
    pub(super) facts: TableFacts,
    /// Whether a publication covers it.
    pub(super) published: bool,
    /// Whether one that publishes updates or deletes does.
    pub(super) updates_published: bool,
    /// The published columns, where it is published.
    pub(super) columns: Option<Vec<String>>,
    /// Whether only some rows are published.
    pub(super) filtered: bool,
    /// Whether its records have a key, as far as it is known.
    pub(super) keyed: Option<bool>,
}

impl Captured {
    pub(super) fn name(&self) -> TableName {
        TableName { schema: self.facts.schema.clone(), table: self.facts.name.clone() }
    }

    pub(super) fn candidate(&self) -> Candidate {
        Candidate {
            schema: self.facts.schema.clone(),
            name: self.facts.name.clone(),
            identifiable: self.is_identifiable(),
            published: self.published,
        }
    }

    fn sql_name(&self) -> String {
        qualified(&self.facts.schema, &self.facts.name)
    }

    /// Where it is not, the server refuses UPDATE and DELETE once they are published.
    fn is_identifiable(&self) -> bool {
        match self.facts.identity {
            ReplicaIdentity::Full | ReplicaIdentity::Index => true,
            ReplicaIdentity::Nothing => false,
            ReplicaIdentity::Default => self.has_usable_key(),
        }
    }

    fn has_usable_key(&self) -> bool {
        !self.facts.primary_key.is_empty() && !self.facts.deferrable_key
    }
}

/// Of all tables those that are captured, and those that match and cannot be.
pub(super) fn captured(all: Vec<TableFacts>, settings: &Pipeline) -> (Vec<Captured>, Vec<Finding>) {
    let mut findings = Vec::new();
    let mut tables = Vec::new();
    for facts in all {
        let matches = settings.source.captures(&facts.schema, &facts.name);
        if !matches || facts.root.is_some() {
            continue;
        }
        if facts.kind == RelationKind::Foreign || facts.persistence == Persistence::Unlogged {
            findings.push(unseen(&facts, settings));
            continue;
        }
        tables.push(Captured {
            facts,
            published: false,
            updates_published: false,
            columns: None,
            filtered: false,
            keyed: None,
        });
    }
    let patterns: Vec<String> = settings.source.tables.iter().map(ToString::to_string).collect();
    let patterns = patterns.join(", ");
    findings.push(if tables.is_empty() {
        let mut finding = Finding::error("source.tables", format!("no table matches {patterns}"));
        finding.code = Some(Code::NoTables.id());
        finding.advice("correct source.tables and source.exclude, or create the table")
    } else {
        Finding::ok("source.tables", format!("{} tables match {patterns}", tables.len()))
    });
    (tables, findings)
}

fn unseen(facts: &TableFacts, settings: &Pipeline) -> Finding {
    let name = TableName { schema: facts.schema.clone(), table: facts.name.clone() };
    let finding = |kind: &str| {
        let what = format!("{name} is {kind}: its changes are in no log, and are not captured");
        Finding::warning("table.not_captured", what).of(name.to_string())
    };
    if facts.persistence == Persistence::Unlogged {
        let table = qualified(&facts.schema, &facts.name);
        return finding("an unlogged table").sql(format!("ALTER TABLE {table} SET LOGGED"));
    }
    let mut exclude: Vec<String> =
        settings.source.exclude.iter().map(ToString::to_string).collect();
    exclude.push(name.to_string());
    finding("a foreign table").configure("source.exclude", exclude)
}

/// Looks at each table.
pub(super) async fn look(
    on: &mut Connection,
    settings: &Pipeline,
    role: &Preflight,
    mut captured: Vec<Captured>,
    findings: &mut Vec<Finding>,
) -> Result<Vec<Captured>, Error> {
    let facts: Vec<&TableFacts> = captured.iter().map(|table| &table.facts).collect();
    let mut described = on.described(&facts, true).await?;
    let ids: Vec<_> = facts.iter().map(|table| table.id).collect();
    let mut known = on.load_relations(&ids).await?;
    let database = on.peer().database().to_owned();
    if let Err(fault) = pipeline::check_topics(settings, captured.iter().map(Captured::name)) {
        findings.push(Finding::fault("table.topic", &fault).advice(fault.mend.clone()));
    }
    for table in &mut captured {
        let mut told = identity(table, settings);
        told.extend(privileges(table, settings, role));
        let found = (described.remove(&table.facts.id), known.tables.remove(&table.facts.id));
        if let (Some(mut relation), Some(catalog)) = found {
            if let Some(columns) = &table.columns {
                relation.columns.retain(|column| columns.contains(&column.name));
            }
            let seen = (&relation, &catalog, &known.types);
            told.extend(values(table, settings, &database, seen));
        }
        if told.is_empty() {
            let what = match (&table.facts.identity, table.facts.primary_key.is_empty()) {
                (ReplicaIdentity::Full, true) => {
                    "has no key: its records have none either; every UPDATE and DELETE logs the \
                     whole old row"
                }
                (ReplicaIdentity::Full, false) => {
                    "has REPLICA IDENTITY FULL: every UPDATE and DELETE logs the whole old row"
                }
                (ReplicaIdentity::Index, _) => "is identified by an index",
                _ => "is identified by its primary key",
            };
            let what = format!("{} {what}", table.name());
            told.push(Finding::ok("table.identity", what).of(table.name().to_string()));
        }
        findings.extend(told);
    }
    Ok(captured)
}

/// Whether updates and deletes can be published.
fn identity(table: &Captured, settings: &Pipeline) -> Vec<Finding> {
    const CHECK: &str = "table.identity";
    let (name, sql_name) = (table.name().to_string(), table.sql_name());
    let (first, second) =
        (settings.source.publication.as_str(), inserts_only(&settings.source.publication));
    let mut findings = Vec::new();
    if table.filtered {
        let what = format!("{name} is published with a row filter: other rows are not seen");
        findings.push(Finding::ok("table.filter", what).of(name.as_str()));
    }
    let to = if table.has_usable_key() { "DEFAULT" } else { "FULL" };
    let identify = format!("ALTER TABLE {sql_name} REPLICA IDENTITY {to}");
    if !table.is_identifiable() {
        let has = match table.facts.identity {
            ReplicaIdentity::Nothing => "REPLICA IDENTITY NOTHING",
            _ if table.facts.deferrable_key => "a deferrable primary key only",
            _ => "neither primary key nor replica identity",
        };
        if table.updates_published {
            let what = format!(
                "{name} has {has} and its updates are published: the server refuses the \
                 application's UPDATE and DELETE"
            );
            findings.push(Finding::error(CHECK, what).of(name).sql(identify));
            return findings;
        }
        let what = format!("{name} has {has}: only its inserts and truncates are published");
        let finding = Finding::warning(CHECK, what).of(name).sql(identify);
        findings.push(if table.published {
            moved(finding, &sql_name, first, &second)
        } else {
            finding
        });
    } else if table.published && !table.updates_published {
        let what = format!("only inserts and truncates of {name} are published");
        let finding = Finding::warning(CHECK, what).of(name);
        findings.push(moved(finding, &sql_name, first, &second));
    }
    findings
}

/// From the publication of inserts to that of everything.
fn moved(finding: Finding, table: &str, first: &str, second: &str) -> Finding {
    finding
        .sql(format!("ALTER PUBLICATION {} DROP TABLE {table}", identifier(second)))
        .sql(format!("ALTER PUBLICATION {} ADD TABLE {table}", identifier(first)))
}

/// What a snapshot needs: the stream needs neither.
fn privileges(table: &Captured, settings: &Pipeline, role: &Preflight) -> Vec<Finding> {
    let (name, sql_name) = (table.name().to_string(), table.sql_name());
    let mut findings = Vec::new();
    let user = identifier(&role.role);
    let spared = role.bypasses_row_security || role.owners.contains(&table.facts.owner);
    if table.facts.row_security && (spared || settings.snapshot == Snapshot::Never) {
        let what =
            format!("row-level security of {name} does not filter the stream: all rows are seen");
        findings.push(Finding::ok("table.row_security", what).of(name.as_str()));
    }
    if settings.snapshot == Snapshot::Never {
        return findings;
    }
    if table.facts.row_security && !spared {
        let what = format!("row-level security of {name} keeps a snapshot from our role");
        let mut finding = Finding::error("table.row_security", what).of(name.as_str());
        finding.code = Some(Code::SourcePrivilege.id());
        findings.push(finding.sql(format!("ALTER ROLE {user} BYPASSRLS")));
    }
    if !table.facts.readable {
        let what = format!("our role may not read {name}, which a snapshot does");
        let mut finding = Finding::error("table.select", what).of(name.as_str());
        finding.code = Some(Code::SourcePrivilege.id());
        let schema = identifier(&table.facts.schema);
        findings.push(
            finding
                .sql(format!("GRANT USAGE ON SCHEMA {schema} TO {user}"))
                .sql(format!("GRANT SELECT ON {sql_name} TO {user}")),
        );
    }
    findings
}

/// Whether the columns can be sent and written.
fn values(
    table: &mut Captured,
    settings: &Pipeline,
    database: &str,
    (relation, catalog, types): (&Relation, &Table, &Types),
) -> Vec<Finding> {
    let name = table.name();
    let mut findings = Vec::new();
    if settings.source.binary {
        for column in &relation.columns {
            let Some(found) = types.unsendable_inside(column.type_oid) else { continue };
            let what = format!(
                "column {} of {name} contains type {}.{}, which has no binary form: the server \
                 fails on every row of it, for ever",
                column.name, found.schema, found.name
            );
            findings.push(
                Finding::error("table.unsendable", what)
                    .of(name.to_string())
                    .configure("source.binary", false),
            );
        }
    }
    let options = pipeline::table_options(settings, database, &name);
    match Plan::compile(relation, catalog, types, &options) {
        Ok(plan) => {
            table.keyed = Some(!plan.key_columns().is_empty());
            findings.extend(unknown(&plan, &name, settings));
        }
        Err(error) => {
            let fault = pipeline::of_plan(&error);
            let finding = Finding::fault("table.columns", &fault).of(name.to_string());
            findings.push(finding.advice(fault.mend.clone()));
        }
    }
    findings
}

/// Types that are passed on as they come.
fn unknown(plan: &Plan, name: &TableName, settings: &Pipeline) -> Vec<Finding> {
    let own = settings.table_options.get(name).map(|own| &own.columns);
    let mut excluded = match own {
        Some(Columns::Except(names)) => names.clone(),
        _ => Vec::new(),
    };
    let mut findings = Vec::new();
    for warning in plan.warnings() {
        let finding = Finding::warning("table.values", format!("{name}: {warning}"));
        let finding = finding.of(name.to_string());
        findings.push(match (warning, own) {
            (Warning::OpaqueType { .. }, Some(Columns::Only(_))) => {
                finding.advice("leave the column out of include_columns under table_options")
            }
            (Warning::OpaqueType { column, .. }, _) => {
                excluded.push(column.clone());
                let key = format!("table_options.\"{name}\".exclude_columns");
                finding.configure(key, excluded.clone())
            }
            (Warning::DeletesUnseen, _) => finding.configure("envelope", "full"),
        });
    }
    findings
}
