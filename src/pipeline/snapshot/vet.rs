//! Looks at what somebody wants to have read before anything of it is: whether the table is one of
//! ours, whether the role may read it, and whether a condition is one that can be used.
//!
//! The server judges conditions. It evaluates none here, but for what it computes while it plans;
//! that, as every read, is in a transaction that cannot write, under a time-out.

use tokio::time::timeout;
use waltide_core::pgoutput::RelationId;
use waltide_core::snapshot::Filter;

use super::super::diagnosis;
use super::super::source::ANSWER;
use super::scout::{Member, covered};
use super::{Event, Wanted, mend};
use crate::config::TableName;
use crate::config::settled::Source;
use crate::fault::{Code, Fault};
use crate::postgres::catalog::PublishedTable;
use crate::postgres::sql::{identifier, literal, qualified};
use crate::postgres::{Connection, Error, SqlState};

/// The server's limits for a look: a lock is not waited for, because others queue behind it.
pub(super) const BEGIN: &str = "BEGIN TRANSACTION READ ONLY; SET LOCAL lock_timeout = '1s'; \
                     SET LOCAL statement_timeout = '3s'";

/// What a subquery is called whose plan tells whether a condition is volatile.
const PROBE: &str = "waltide_condition";

/// Sees to it that what is wanted can be read; all that is published then.
pub(super) async fn look(
    on: &mut Connection,
    source: &Source,
    wanted: &Wanted,
) -> Result<Event, Error> {
    let members = match covered(on, source).await? {
        Event::Covered(members) => members,
        other => return Ok(other),
    };
    let Some(name) = &wanted.table else { return Ok(Event::Covered(members)) };
    let fault = match members.iter().find(|one| one.is_called(name)) {
        None => Some(not_ours(on, source, name, &members).await?),
        Some(member) => match rows(on, &member.published, wanted.filter()).await? {
            Err(fault) => Some(fault),
            Ok(()) => mend::look(on, &member.published, wanted.keys()).await?,
        },
    };
    Ok(fault.map_or(Event::Covered(members), |fault| Event::Unanswered(None, fault)))
}

/// A table that is none of the stream's, and why.
async fn not_ours(
    on: &mut Connection,
    source: &Source,
    name: &TableName,
    members: &[Member],
) -> Result<Fault, Error> {
    let quoted = literal(&qualified(&name.schema, &name.table));
    let there = on.simple_query(&format!("SELECT to_regclass({quoted})")).await?;
    if there.single().is_none() {
        let near = members.iter().map(Member::name).find(|one| one.ends_with(&name.table));
        let near = near.map_or(String::new(), |near| format!(" ({near}?)"));
        let what = format!("there is no table {name} in {}", on.peer());
        let mend = format!("name it as schema.table, as it is written there{near}");
        return Ok(Fault::new(Code::SnapshotTableUnknown, what, mend));
    }
    if !source.captures(&name.schema, &name.table) {
        let what = format!("table {name} is not captured by this pipeline");
        let mend = "add it to `source.tables`, and see that `source.exclude` leaves it; then its \
                    rows are read by themselves";
        return Ok(Fault::new(Code::SnapshotTableUnknown, what, mend));
    }
    let what = format!("table {name} is not published by publication {}", source.publication);
    let mend = "add it to the publication; of a partitioned table name that at the top";
    Ok(Fault::new(Code::SnapshotTableUnknown, what, mend))
}

/// Whether rows of a table can be read, and told by a condition.
pub(super) async fn rows(
    on: &mut Connection,
    table: &PublishedTable,
    filter: Option<&Filter>,
) -> Result<Result<(), Fault>, Error> {
    let name = TableName { schema: table.schema.clone(), table: table.name.clone() };
    on.simple_query(BEGIN).await?;
    let looked = probe(on, table, filter).await;
    let error = match looked {
        Err(error) if !on.in_transaction() => return Err(error),
        Err(error @ Error::Server { .. }) => Some(error),
        Err(error) => return Err(error),
        Ok(found) => {
            on.simple_query("ROLLBACK").await?;
            return Ok(found.map_or(Ok(()), |what| Err(unusable(&name, what))));
        }
    };
    on.simple_query("ROLLBACK").await?;
    let Some(error) = error else { return Ok(Ok(())) };
    let fault = diagnosis::of_source(&error);
    if error.sqlstate() == Some(SqlState::INSUFFICIENT_PRIVILEGE) {
        let explained = of_privilege(on, table.id, &name, fault.clone()).await;
        return Ok(Err(explained.unwrap_or(fault)));
    }
    let of_filter = filter.and_then(|_| of_filter(&name, &error));
    Ok(Err(of_filter.unwrap_or(fault)))
}

/// What is wrong with a condition that the server takes.
async fn probe(
    on: &mut Connection,
    table: &PublishedTable,
    filter: Option<&Filter>,
) -> Result<Option<&'static str>, Error> {
    let of = format!("{} AS {}", qualified(&table.schema, &table.name), identifier(&table.name));
    let columns: Vec<String> = table.columns.iter().map(|name| identifier(name)).collect();
    let condition = filter.map_or("true", Filter::as_str);
    // What it may do is seen when it begins to run, before the first row.
    let run = format!("SELECT {} FROM {of} WHERE ({condition}) LIMIT 0", columns.join(", "));
    on.simple_query(&run).await?;
    // A subquery is made one with what is around it, unless it computes something volatile.
    let plan = format!(
        "EXPLAIN (COSTS off, FORMAT json) \
         SELECT FROM (SELECT ({condition}) AS yes FROM {of}) AS {PROBE} WHERE yes"
    );
    let plan = on.simple_query(&plan).await?;
    let volatile = plan.single().is_some_and(|plan| plan.contains(&format!("\"{PROBE}\"")));
    Ok(volatile.then_some("it calls a volatile function, whose answer is never twice the same"))
}

fn unusable(table: &TableName, what: &str) -> Fault {
    Fault::new(
        Code::SnapshotFilter,
        format!("the condition for rows of {table} cannot be used: {what}"),
        "give a condition on the table's columns, as it stands behind WHERE; for a time use now() or \
         a constant",
    )
}

/// What the server says of a condition; none where it is not that.
pub(super) fn of_filter(table: &TableName, error: &Error) -> Option<Fault> {
    let state = error.sqlstate()?;
    let Error::Server { error: said, .. } = error else { return None };
    match (state.class(), state) {
        (_, SqlState::QUERY_CANCELED) => {
            Some(unusable(table, "it takes too long; a chunk is to be read in moments"))
        }
        // Its message may have the value of a row in it.
        ("22", _) if said.severity == "ERROR" => Some(unusable(
            table,
            &format!("it fails on a value (SQLSTATE {state}); the server's log has more"),
        )),
        ("42" | "21" | "0A" | "25" | "54" | "P0" | "38" | "39", _) => {
            Some(unusable(table, &said.to_string()))
        }
        _ => None,
    }
}

/// Why a table may not be read; none where nobody can say.
pub(super) async fn of_privilege(
    on: &mut Connection,
    table: RelationId,
    name: &TableName,
    fault: Fault,
) -> Option<Fault> {
    let asked = async {
        let hidden = on.hides_rows(table).await?;
        Ok::<_, Error>((on.unreadable(table).await?, hidden))
    };
    let (unreadable, hidden) = timeout(ANSWER, asked).await.ok()?.ok()?;
    if unreadable.is_empty() && hidden {
        return Some(Fault::new(
            Code::SnapshotRowSecurity,
            format!("row-level security hides rows of {name} from the daemon's role"),
            "let the role see all of them (ALTER ROLE ... BYPASSRLS, or a policy of its own), or \
             exclude the table; the stream is not filtered and goes on",
        ));
    }
    if unreadable.is_empty() {
        return Some(Fault { what: format!("{name} cannot be read: {}", fault.what), ..fault });
    }
    let tables: Vec<&str> = unreadable.iter().map(String::as_str).collect();
    let role = identifier(on.peer().user());
    Some(Fault::new(
        Code::SnapshotPrivilege,
        format!("the role may not read {name}: {}", fault.what),
        format!(
            "have an owner run: GRANT SELECT ON {} TO {role}; and GRANT USAGE on their schemas",
            tables.join(", ")
        ),
    ))
}
