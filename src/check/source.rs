//! The source: whether it lets us in, and all that is there.

use std::time::Duration;

use super::finding::Finding;
use super::tables::Captured;
use super::{publication, server, slots, tables, versions};
use crate::config::settled::Pipeline;
use crate::pipeline;
use crate::postgres::catalog::Preflight;
use crate::postgres::sql::identifier;
use crate::postgres::{Connection, Error, Mode, Slot, SqlState};

/// A transaction that has been open for longer than this would hold up the making of a slot.
const OLD: Duration = Duration::from_secs(10);

/// All of it is catalog queries; a server that takes longer is not well.
const PATIENCE: Duration = Duration::from_secs(60);

/// What was read of the server.
pub(super) struct Seen {
    pub(super) version_num: u32,
    pub(super) facts: Preflight,
    pub(super) slots: Vec<Slot>,
    /// The process that the login named.
    pub(super) process_id: Option<i32>,
}

/// Looks at the source, and says which tables are captured, as far as it could be seen.
pub(super) async fn look(settings: &Pipeline) -> (Vec<Finding>, Vec<Captured>) {
    let mut findings = Vec::new();
    let params = match pipeline::params(&settings.source) {
        Ok(params) => params,
        Err(fault) => {
            let finding = Finding::fault("source.url", &fault).advice(fault.mend.clone());
            return (vec![finding], Vec::new());
        }
    };
    let mut on = match Connection::open(&params, Mode::Plain).await {
        Ok(connection) => connection,
        Err(error) => return (vec![refused("source.connect", &error, None)], Vec::new()),
    };
    findings.push(Finding::ok("source.connect", format!("{} lets us in", on.peer())));
    let reading = Box::pin(read(&mut on, settings, &mut findings));
    let captured = match tokio::time::timeout(PATIENCE, reading).await {
        Ok(Ok(captured)) => captured,
        Ok(Err(error)) => {
            let fault = pipeline::of_source(&error);
            findings.push(Finding::fault("source.catalog", &fault).advice(fault.mend.clone()));
            Vec::new()
        }
        Err(_) => {
            let what = format!("{} takes more than {PATIENCE:?} to show its catalog", on.peer());
            let mend = "look at the server's load and at locks on its catalog";
            findings.push(Finding::error("source.catalog", what).advice(mend));
            return (findings, Vec::new());
        }
    };
    on.close().await;
    // Last, so that what the role lacks is told by its name and not by this refusal.
    let known = findings.iter().any(|it| {
        ["source.role", "source.wal_senders"].contains(&it.check) && it.level == super::Level::Error
    });
    match Connection::open(&params, Mode::Replication).await {
        Ok(connection) => {
            connection.close().await;
            findings.push(Finding::ok("source.replication", "a replication connection is let in"));
        }
        Err(_) if known => {}
        Err(error) => {
            let user = params.user.as_str();
            findings.push(refused("source.replication", &error, Some(user)));
        }
    }
    (findings, captured)
}

async fn read(
    on: &mut Connection,
    settings: &Pipeline,
    findings: &mut Vec<Finding>,
) -> Result<Vec<Captured>, Error> {
    let seen = Seen {
        version_num: on.server_version_num(),
        facts: on.preflight(OLD).await?,
        slots: on.list_slots().await?,
        process_id: on.process_id(),
    };
    findings.push(versions::judge(seen.version_num, &seen.facts.version));
    findings.extend(server::judge(&seen, on.peer().user(), &settings.source.slot));
    findings.extend(slots::judge(&seen, settings, on.peer().database()));
    let candidates = on.list_tables(&["*"]).await?;
    let (captured, told) = tables::captured(candidates, settings);
    findings.extend(told);
    if captured.is_empty() {
        return Ok(Vec::new());
    }
    let published = publication::look(on, settings, &seen.facts, captured, findings).await?;
    let described = tables::look(on, settings, &seen.facts, published, findings).await?;
    Ok(described)
}

/// A connection that was refused; `replication` where it was that kind, and whose.
fn refused(check: &'static str, error: &Error, replication: Option<&str>) -> Finding {
    let fault = pipeline::of_source(error);
    let finding = Finding::fault(check, &fault);
    let (Some(server), Some(peer)) = (error.server(), error.peer()) else {
        return finding.advice(fault.mend);
    };
    let (role, database) = (identifier(peer.user()), identifier(peer.database()));
    let told = |word: &str| server.message.contains(word);
    match error.sqlstate() {
        Some(SqlState::INVALID_CATALOG_NAME) => finding.sql(format!("CREATE DATABASE {database}")),
        Some(SqlState::INSUFFICIENT_PRIVILEGE) if told("permission denied for database") => {
            finding.sql(format!("GRANT CONNECT ON DATABASE {database} TO {role}"))
        }
        Some(SqlState::INSUFFICIENT_PRIVILEGE) if replication.is_some() => {
            finding.sql(format!("ALTER ROLE {role} REPLICATION"))
        }
        Some(SqlState::INVALID_AUTHORIZATION) if told("does not exist") => {
            finding.sql(format!("CREATE ROLE {role} LOGIN REPLICATION"))
        }
        Some(SqlState::INVALID_AUTHORIZATION) if told("not permitted to log in") => {
            finding.sql(format!("ALTER ROLE {role} LOGIN"))
        }
        _ => finding.advice(fault.mend),
    }
}
