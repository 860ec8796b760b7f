//! What snapshots need of replicas: that from which they are read, and those that hold them back.

use super::finding::Finding;
use crate::config::settled::{self, Pipeline, Snapshot};
use crate::fault::{Code, Fault};
use crate::pipeline::{self, ANSWER, Replica, answered};
use crate::postgres::sql::identifier;
use crate::postgres::{Connection, Error, Mode};

/// Looks at them, where they are configured; what keeps us out of the source is told elsewhere.
pub(super) async fn look(settings: &Pipeline) -> Vec<Finding> {
    let Snapshot::Initial(options) = &settings.snapshot else { return Vec::new() };
    if options.from.is_none() && options.max_replica_lag.is_none() {
        return Vec::new();
    }
    let Ok(params) = pipeline::params(&settings.source) else { return Vec::new() };
    let Ok(mut source) = Connection::open(&params, Mode::Replication).await else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    if options.max_replica_lag.is_some() {
        findings.extend(lag(&mut source).await);
    }
    if let Some(from) = &options.from {
        const CHECK: &str = "snapshot.from";
        findings.push(match replica(&mut source, from).await {
            Ok(what) => Finding::ok(CHECK, what),
            Err(fault) => Finding::fault(CHECK, &fault).advice(fault.mend.clone()),
        });
    }
    source.close().await;
    findings
}

/// Whether the role sees how far replicas are.
async fn lag(source: &mut Connection) -> Option<Finding> {
    const CHECK: &str = "snapshot.max_replica_lag_bytes";
    let sql = "SELECT pg_has_role('pg_read_all_stats', 'USAGE')";
    let role = identifier(source.peer().user());
    let rows = in_time(source, async |on| on.simple_query(sql).await).await.ok()?;
    if rows.single() == Some("t") {
        return Some(Finding::ok(CHECK, "the role sees how far replicas are"));
    }
    let mut finding = Finding::error(CHECK, "the role may not see how far replicas are");
    finding.code = Some(Code::SourcePrivilege.id());
    Some(finding.sql(format!("GRANT pg_read_all_stats TO {role}")))
}

/// Whether rows can be read from a replica, as the daemon finds out itself.
async fn replica(source: &mut Connection, from: &settled::Replica) -> Result<String, Fault> {
    let is = in_time(source, async |on| on.identify_system().await).await;
    let is = is.map_err(|error| pipeline::of_source(&error))?;
    let replica = Replica::of(pipeline::params_of_replica(from)?, &is);
    let mut on = replica.open().await?;
    replica.replayed(&mut on).await?;
    let what = format!("{} is a replica of the source", on.peer());
    on.close().await;
    Ok(what)
}

async fn in_time<T>(
    on: &mut Connection,
    ask: impl AsyncFnOnce(&mut Connection) -> Result<T, Error>,
) -> Result<T, Error> {
    let peer = on.peer().clone();
    answered(ANSWER, &peer, ask(on)).await
}
