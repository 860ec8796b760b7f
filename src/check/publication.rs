//! Whether the publications cover what is captured, or our role may see to it.

use std::collections::HashMap;

use super::finding::Finding;
use super::tables::Captured;
use crate::config::settled::Pipeline;
use crate::fault::Code;
use crate::postgres::catalog::{Preflight, Publication};
use crate::postgres::publication::{self, Existing};
use crate::postgres::sql::{identifier, qualified};
use crate::postgres::{Connection, Error};

const CHECK: &str = "source.publication";

/// Looks at the two publications of a pipeline and notes with each table how it is published.
pub(super) async fn look(
    on: &mut Connection,
    settings: &Pipeline,
    role: &Preflight,
    mut captured: Vec<Captured>,
    findings: &mut Vec<Finding>,
) -> Result<Vec<Captured>, Error> {
    let name = settings.source.publication.as_str();
    let coverage = on.load_coverage(name).await?;
    let mut found: Vec<Publication> = Vec::new();
    for existing in &coverage.existing {
        found.extend(on.load_publication(&existing.name).await?);
    }
    let places: HashMap<_, usize> =
        captured.iter().enumerate().map(|(place, table)| (table.facts.id, place)).collect();
    for publication in &found {
        for table in &publication.tables {
            if let Some(one) = places.get(&table.id).and_then(|place| captured.get_mut(*place)) {
                one.published = true;
                one.updates_published |= publication.updates || publication.deletes;
                one.columns.get_or_insert_default().extend(table.columns.iter().cloned());
                one.filtered |= table.filter.is_some();
            }
        }
    }
    findings.extend(shape(&found, &coverage.existing, name));
    findings.push(cover(settings, role, &captured, &coverage.existing));
    Ok(captured)
}

/// What somebody else's publication leaves out.
fn shape(found: &[Publication], existing: &[Existing], first: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for publication in found {
        let name = publication.name.as_str();
        let lacks = existing.iter().find(|one| one.name == name).map(|one| &one.lacks);
        if let Some(lacks) = lacks.filter(|lacks| !lacks.is_empty() && name == first) {
            let what =
                format!("publication {name} leaves out {}: they are not seen", lacks.join(", "));
            findings.push(Finding::warning(CHECK, what).of(name).sql(format!(
                "ALTER PUBLICATION {} SET (publish = 'insert, update, delete, truncate')",
                identifier(name)
            )));
        }
        if !publication.via_root {
            let what = format!(
                "publication {name} publishes rows of partitions under the partitions' names: each \
                 would get a topic of its own"
            );
            findings.push(Finding::warning(CHECK, what).of(name).sql(format!(
                "ALTER PUBLICATION {} SET (publish_via_partition_root = true)",
                identifier(name)
            )));
        }
    }
    findings
}

fn cover(
    settings: &Pipeline,
    role: &Preflight,
    captured: &[Captured],
    existing: &[Existing],
) -> Finding {
    let name = settings.source.publication.as_str();
    let missing: Vec<&Captured> = captured.iter().filter(|table| !table.published).collect();
    let theirs = existing.iter().any(|one| one.name == name && !one.ours);
    if missing.is_empty() && !existing.is_empty() {
        let what = format!("publication {name} covers all {} captured tables", captured.len());
        return Finding::ok(CHECK, what);
    }
    if theirs {
        let list = missing
            .iter()
            .map(|table| qualified(&table.facts.schema, &table.facts.name))
            .collect::<Vec<_>>()
            .join(", ");
        let sql = format!("ALTER PUBLICATION {} ADD TABLE {list}", identifier(name));
        let none = missing.len() == captured.len();
        let what = format!("publication {name} does not cover {list}: their changes are not seen");
        let mut finding =
            if none { Finding::error(CHECK, what) } else { Finding::warning(CHECK, what) };
        finding.code = none.then(|| Code::PublicationUnusable.id());
        return finding.sql(sql);
    }
    let candidates: Vec<_> = missing.iter().map(|table| table.candidate()).collect();
    let statements =
        publication::statements(name, existing, &candidates.iter().collect::<Vec<_>>());
    let owns = |owner: &String| role.superuser || role.owners.contains(owner);
    let strange = missing.iter().find(|table| !owns(&table.facts.owner));
    let may = strange.is_none() && (role.superuser || role.may_create || !existing.is_empty());
    if may {
        let what = format!("the daemon adds {} tables to publication {name}", missing.len());
        return Finding::ok(CHECK, what);
    }
    let why = match strange {
        Some(table) => format!("does not own {}", table.name()),
        None => "may not create in this database".to_owned(),
    };
    let what = format!("publication {name} lacks {} tables, and our role {why}", missing.len());
    let mut finding = Finding::error(CHECK, what);
    finding.code = Some(Code::SourcePrivilege.id());
    statements.into_iter().fold(finding, Finding::sql)
}
