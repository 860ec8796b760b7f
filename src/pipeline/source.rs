//! What the source must have before there is a stream: logical WAL, a publication, a slot.
//!
//! What is missing is made where we may, and otherwise said as the SQL that makes it. Whether a
//! slot that is missing may be made is not decided here: that could be a gap.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use waltide_core::lsn::Lsn;

use super::access;
use super::diagnosis::{self, WAL_LEVEL_MEND};
use super::topics;
use crate::config;
use crate::fault::{Code, Fault};
use crate::postgres::catalog::TableFacts;
use crate::postgres::publication::{self, Candidate, Coverage};
use crate::postgres::sql::{identifier, literal, qualified};
use crate::postgres::{Connection, Error, Peer, Slot, SqlState, WalStatus};

/// The oldest server whose pgoutput we read: the first with streaming, binary and messages.
pub(crate) const OLDEST_VERSION: u32 = 140_000;

/// The first server whose standbys keep copies of slots.
const FAILOVER_VERSION: u32 = 170_000;

/// How long making a slot may wait for old transactions before we say whose they are. `run`
/// promises to name what is wrong within ten seconds.
const SLOT_WAIT: Duration = Duration::from_secs(6);

/// How long another may still be at making the slot before we say so. Two daemons that begin
/// together are no failure.
const MAKING_WAIT: Duration = Duration::from_secs(2);

/// Between looks at it.
const LOOK: Duration = Duration::from_millis(100);

/// How long making a publication may wait for a lock on a table before we say whose it is. Longer
/// than `deadlock_timeout`, after which an autovacuum that is in the way gives up by itself.
const LOCK_WAIT: Duration = Duration::from_secs(3);

/// How long the server may be silent beyond that. It let us in just before, so it was quick then.
const MARGIN: Duration = Duration::from_secs(2);

/// How long a server that is otherwise well may take to answer a question.
pub(crate) const ANSWER: Duration = Duration::from_secs(8);

/// `55P03 lock_not_available`
const LOCK_NOT_AVAILABLE: &str = "55P03";

/// What of a source is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Published {
    /// To be named when streaming starts.
    pub(super) publications: Vec<String>,
    /// What they cover of what is captured.
    pub(super) tables: Vec<config::TableName>,
}

/// Looks at a source, and makes the publications it lacks.
pub(super) async fn prepare(
    on: &mut Connection,
    settings: &config::settled::Pipeline,
) -> Result<Published, Fault> {
    let peer = on.peer().clone();
    let published = async {
        fit(on, settings.source.failover).await?;
        publish(on, settings).await
    };
    within(LOCK_WAIT + MARGIN, &peer, published).await
}

/// The 64-bit id that the next transaction gets, or one shortly before.
pub(super) async fn current_xid(on: &mut Connection) -> Result<u64, Fault> {
    let peer = on.peer().clone();
    let sql = "SELECT pg_snapshot_xmax(pg_current_snapshot())";
    let found = answered(ANSWER, &peer, on.simple_query(sql)).await;
    let found = found.map_err(|error| diagnosis::of_source(&error))?;
    Ok(found.single().and_then(|xid| xid.parse().ok()).unwrap_or(0))
}

/// Where the slot stands; `None` where there is none.
pub(super) async fn find_slot(on: &mut Connection, name: &str) -> Result<Option<Lsn>, Fault> {
    let peer = on.peer().clone();
    let since = Instant::now();
    loop {
        let slot = answered(ANSWER, &peer, on.read_slot(name)).await;
        match slot.map_err(|error| diagnosis::of_source(&error))? {
            Some(slot) if is_being_made(&slot) && since.elapsed() < MAKING_WAIT => {
                tokio::time::sleep(LOOK).await;
            }
            Some(slot) => return usable(on, &slot).map(Some),
            None => return Ok(None),
        }
    }
}

/// Whether somebody is at it, and waits for transactions that were open before.
fn is_being_made(slot: &Slot) -> bool {
    slot.database.is_some() && slot.confirmed_flush_lsn.is_none() && slot.active_pid.is_some()
}

/// Makes the slot, and says where it starts.
pub(super) async fn make_slot(
    on: &mut Connection,
    source: &config::settled::Source,
) -> Result<Lsn, Fault> {
    let peer = on.peer().clone();
    within(SLOT_WAIT + MARGIN, &peer, make(on, source)).await
}

/// A server that stops answering in the middle must not keep us from saying so.
async fn within<T>(
    after: Duration,
    peer: &Peer,
    work: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    let late = |_| Err(diagnosis::of_source(&too_late(peer, after)));
    tokio::time::timeout(after, work).await.unwrap_or_else(late)
}

/// The same for what the server alone decides.
pub(crate) async fn answered<T>(
    after: Duration,
    peer: &Peer,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::time::timeout(after, work).await.unwrap_or_else(|_| Err(too_late(peer, after)))
}

fn too_late(peer: &Peer, after: Duration) -> Error {
    Error::Timeout { peer: peer.clone(), waiting_for: "an answer", after }
}

async fn fit(on: &mut Connection, failover: bool) -> Result<(), Fault> {
    let version = on.server_version_num();
    if version < OLDEST_VERSION {
        return Err(Fault::new(
            Code::SourceVersion,
            format!("{} is PostgreSQL {}", on.peer(), version / 10_000),
            "upgrade the server to PostgreSQL 14 or later",
        ));
    }
    if failover && version < FAILOVER_VERSION {
        return Err(Fault::new(
            Code::SourceVersion,
            format!("{} is PostgreSQL {}: its standbys keep no slots", on.peer(), version / 10_000),
            "upgrade the server to PostgreSQL 17 or later, or take source.failover away",
        ));
    }
    let facts = on
        .simple_query("SELECT pg_is_in_recovery(), current_setting('wal_level')")
        .await
        .map_err(|error| diagnosis::of_source(&error))?;
    let fact = |index: usize| facts.rows.first().and_then(|row| row.get(index)?.as_deref());
    if fact(0) == Some("t") {
        return Err(Fault::new(
            Code::SourceUnfit,
            format!("{} is a standby: it takes no new slot or publication", on.peer()),
            "give source.url the primary, or all hosts with target_session_attrs=read-write",
        ));
    }
    if fact(1) != Some("logical") {
        let level = fact(1).unwrap_or("unknown");
        let what = format!("{} runs with wal_level = {level}, not logical", on.peer());
        return Err(Fault::new(Code::WalLevel, what, WAL_LEVEL_MEND));
    }
    Ok(())
}

/// What is captured, and whether it is published.
struct Captured(Coverage);

impl Captured {
    async fn read(on: &mut Connection, source: &config::settled::Source) -> Result<Self, Fault> {
        let coverage = on.load_coverage(&source.publication).await;
        let mut coverage = coverage.map_err(|error| diagnosis::of_source(&error))?;
        coverage.candidates.retain(|table| source.captures(&table.schema, &table.name));
        if coverage.candidates.is_empty() {
            return Err(no_tables(on, source));
        }
        Ok(Self(coverage))
    }

    /// What makes the publications cover all of it.
    fn statements(&self, source: &config::settled::Source) -> Vec<String> {
        let missing: Vec<&Candidate> =
            self.0.candidates.iter().filter(|table| !table.published).collect();
        publication::statements(&source.publication, &self.0.existing, &missing)
    }

    /// Who holds a lock on one of the tables that keeps it from being published.
    async fn lock_holders(&self, on: &mut Connection) -> String {
        let missing = self.0.candidates.iter().filter(|table| !table.published);
        let tables: Vec<String> = missing
            .map(|table| {
                format!("to_regclass({})", literal(&qualified(&table.schema, &table.name)))
            })
            .collect();
        // Weaker locks than these are not in the way.
        let sql = format!(
            "SELECT string_agg(DISTINCT 'process ' || pid, ', ') FROM pg_locks
              WHERE granted AND pid <> pg_backend_pid() AND relation IN ({})
                AND mode NOT IN ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock')",
            tables.join(", ")
        );
        named(on, &sql).await
    }
}

/// The names a query finds, for a message that is of use without them as well.
async fn named(on: &mut Connection, sql: &str) -> String {
    let found = on.simple_query(sql).await.ok();
    let found = found.and_then(|rows| rows.single().map(ToOwned::to_owned));
    found.unwrap_or_else(|| "the server does not show whose".to_owned())
}

/// Makes the publications cover tables that have come to match while the stream runs: their
/// changes are seen from then on. Called every few seconds, so all tables are looked at only where
/// there is one that may be missing.
pub(super) async fn cover(
    on: &mut Connection,
    source: &config::settled::Source,
) -> Result<(), Fault> {
    let outside = on.list_unpublished(&source.publication).await;
    let outside = outside.map_err(|error| diagnosis::of_source(&error))?;
    if outside.iter().any(|table| source.captures(&table.schema, &table.name)) {
        let captured = Captured::read(on, source).await?;
        complete(on, source, &captured).await?;
    }
    Ok(())
}

/// Makes the publications cover what is captured; false where they do.
async fn complete(
    on: &mut Connection,
    source: &config::settled::Source,
    captured: &Captured,
) -> Result<bool, Fault> {
    let statements = captured.statements(source);
    if statements.is_empty() {
        return Ok(false);
    }
    let sql = format!(
        "BEGIN; SET LOCAL lock_timeout = '{}ms'; {}; COMMIT",
        LOCK_WAIT.as_millis(),
        statements.join("; ")
    );
    match on.simple_query(&sql).await {
        Ok(_) => {
            tracing::info!(sql = statements.join("; "), "published");
            Ok(true)
        }
        Err(error) => {
            // A daemon that begins at the same moment makes the same. A connection that was lost is
            // not asked.
            let refused = on.simple_query("ROLLBACK").await.is_ok();
            if refused && Captured::read(on, source).await?.statements(source).is_empty() {
                return Ok(true);
            }
            Err(cannot_publish(on, &error, captured, &statements).await)
        }
    }
}

/// Makes the publications cover what is captured, and names those there are.
async fn publish(
    on: &mut Connection,
    settings: &config::settled::Pipeline,
) -> Result<Published, Fault> {
    let source = &settings.source;
    let mut captured = Captured::read(on, source).await?;
    if complete(on, source, &captured).await? {
        captured = Captured::read(on, source).await?;
    }
    let Captured(coverage) = captured;
    warn_of_gaps(&coverage);
    let published = coverage.candidates.iter().filter(|table| table.published);
    topics::check(
        settings,
        published.map(|table| config::TableName {
            schema: table.schema.clone(),
            table: table.name.clone(),
        }),
    )?;
    if coverage.candidates.iter().all(|table| !table.published) {
        return Err(Fault::new(
            Code::PublicationUnusable,
            format!("publication {} covers none of the captured tables", source.publication),
            format!(
                "add them to it, or drop it and let the daemon make its own: DROP PUBLICATION {};",
                identifier(&source.publication)
            ),
        ));
    }
    let tables = coverage.candidates.into_iter().filter(|table| table.published);
    Ok(Published {
        publications: coverage.existing.into_iter().map(|one| one.name).collect(),
        tables: tables
            .map(|table| config::TableName { schema: table.schema, table: table.name })
            .collect(),
    })
}

fn warn_of_gaps(coverage: &Coverage) {
    for table in &coverage.candidates {
        let name = format!("{}.{}", table.schema, table.name);
        if !table.published {
            tracing::warn!(table = name, "captured but not published: its changes are not seen");
        } else if !table.identifiable {
            tracing::warn!(
                table = name,
                "has no primary key or replica identity: only its inserts and truncates are published"
            );
        }
    }
    let inserts = |name: &str| name.ends_with("_inserts");
    for publication in coverage.existing.iter().filter(|one| !one.lacks.is_empty()) {
        if !(publication.ours && inserts(&publication.name)) {
            tracing::warn!(
                publication = publication.name,
                lacks = publication.lacks.join(", "),
                "the publication leaves out operations: they are not seen"
            );
        }
    }
}

fn no_tables(on: &Connection, source: &config::settled::Source) -> Fault {
    let patterns = |of: &[config::TablePattern]| {
        of.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    let without = match source.exclude.as_slice() {
        [] => String::new(),
        exclude => format!(" without {}", patterns(exclude)),
    };
    Fault::new(
        Code::NoTables,
        format!("no table of {} matches {}{without}", on.peer(), patterns(&source.tables)),
        "correct source.tables and source.exclude, or create the table",
    )
}

async fn cannot_publish(
    on: &mut Connection,
    error: &Error,
    captured: &Captured,
    statements: &[String],
) -> Fault {
    let fault = diagnosis::of_source(error);
    match error.sqlstate() {
        Some(SqlState::INSUFFICIENT_PRIVILEGE) => Fault::new(
            Code::SourcePrivilege,
            format!("the role may not make the publication: {}", fault.what),
            format!("have an owner of the tables or a superuser run: {};", statements.join("; ")),
        ),
        Some(state) if state.as_str() == LOCK_NOT_AVAILABLE => Fault::new(
            Code::SourceRefused,
            format!(
                "making the publication waits for a lock on a table that another session holds: {}",
                captured.lock_holders(on).await
            ),
            "wait, or end it: SELECT pg_terminate_backend(PID)",
        ),
        _ => fault,
    }
}

async fn make(on: &mut Connection, source: &config::settled::Source) -> Result<Lsn, Fault> {
    let name = &source.slot;
    match create_slot(on, source).await {
        Ok(()) => {
            tracing::info!(slot = name, "slot created: changes committed from now on are published")
        }
        // A daemon that begins at the same moment was a little faster.
        Err(error) if error.sqlstate() == Some(SqlState::DUPLICATE_OBJECT) => {}
        Err(error) if error.sqlstate() == Some(SqlState::QUERY_CANCELED) => {
            return Err(blocked(on, name).await);
        }
        Err(error) => return Err(cannot_create(on, name, &error).await),
    }
    find_slot(on, name).await?.ok_or_else(|| {
        Fault::new(
            Code::SlotUnusable,
            format!("slot {name} was created and is gone"),
            "look in the server's log who dropped it",
        )
    })
}

/// Bounded by the server itself: a creation that it cancels leaves no half-made slot behind, a
/// client that goes away while it waits does.
async fn create_slot(on: &mut Connection, source: &config::settled::Source) -> Result<(), Error> {
    on.simple_query(&format!("SET statement_timeout = '{}ms'", SLOT_WAIT.as_millis())).await?;
    let created = on.simple_query(&creation(source)).await;
    let reset = on.simple_query("SET statement_timeout = 0").await;
    created.and(reset).map(|_| ())
}

/// The SQL that makes the slot.
fn creation(source: &config::settled::Source) -> String {
    let slot = literal(&source.slot);
    // Versions before 17 do not have the argument.
    let failover = if source.failover { ", failover => true" } else { "" };
    format!("SELECT pg_create_logical_replication_slot({slot}, 'pgoutput'{failover})")
}

fn usable(on: &Connection, slot: &Slot) -> Result<Lsn, Fault> {
    let name = &slot.name;
    let unusable = |what: String, mend: String| Err(Fault::new(Code::SlotUnusable, what, mend));
    if slot.plugin.as_deref() != Some("pgoutput") {
        let is =
            slot.plugin.as_deref().map_or("physical".to_owned(), |plugin| format!("for {plugin}"));
        return unusable(
            format!("slot {name} is {is}, not for pgoutput"),
            "give source.slot the name of another slot, or one that does not exist yet".to_owned(),
        );
    }
    if slot.database.as_deref() != Some(on.peer().database()) {
        let database = slot.database.as_deref().unwrap_or("no database");
        return unusable(
            format!("slot {name} belongs to {database}, not to {}", on.peer().database()),
            "give source.slot the name of another slot, or one that does not exist yet".to_owned(),
        );
    }
    if slot.two_phase {
        return unusable(
            format!("slot {name} sends prepared transactions before they are committed"),
            "give source.slot the name of another slot, or one that does not exist yet".to_owned(),
        );
    }
    if slot.wal_status == Some(WalStatus::Lost) || slot.invalidation_reason.is_some() {
        let why =
            slot.invalidation_reason.as_deref().unwrap_or("it fell behind max_slot_wal_keep_size");
        return unusable(
            format!("slot {name} is lost: {why}; changes since its position may be gone"),
            "decide what to do about the changes in between; `waltide recover PIPELINE --accept-gap` \
             makes a new slot, and says what is missing"
                .to_owned(),
        );
    }
    match (slot.confirmed_flush_lsn, slot.active_pid) {
        (Some(confirmed), _) => Ok(confirmed),
        (None, Some(pid)) => Err(Fault::new(
            Code::SlotTaken,
            format!("slot {name} is only being made: process {pid} waits for old transactions"),
            "nothing where that is another daemon: this one then stands by; otherwise end it with \
             SELECT pg_terminate_backend(PID)",
        )),
        (None, None) => unusable(
            format!("slot {name} is not ready: it has no confirmed position"),
            format!(
                "drop it: SELECT pg_drop_replication_slot({}); and restart the daemon",
                literal(name)
            ),
        ),
    }
}

async fn cannot_create(on: &mut Connection, name: &str, error: &Error) -> Fault {
    let fault = diagnosis::of_source(error);
    let what = format!("slot {name} cannot be created: {}", fault.what);
    match error.sqlstate() {
        Some(SqlState::INSUFFICIENT_PRIVILEGE) => {
            Fault::new(Code::SourcePrivilege, what, diagnosis::replication_mend(on.peer()))
        }
        Some(SqlState::CONFIGURATION_LIMIT_EXCEEDED) => {
            let sql = "SELECT string_agg(quote_literal(slot_name), ', ' ORDER BY slot_name)
                         FROM pg_replication_slots WHERE NOT active";
            let unused = named(on, sql).await;
            let mend = format!(
                "drop a slot that is not needed any more with SELECT pg_drop_replication_slot(NAME); \
                 nobody reads now: {unused}; or raise max_replication_slots and restart the server"
            );
            Fault::new(Code::NoFreeSlot, what, mend)
        }
        _ => Fault { what, ..fault },
    }
}

/// Whose transactions were open all the while: of those that began meanwhile none is in the way.
async fn blocked(on: &mut Connection, name: &str) -> Fault {
    // Who may not look into others' sessions sees no `xact_start` there.
    let sql = format!(
        "SELECT string_agg(holder, ', ') FROM (
           SELECT 'process ' || pid AS holder FROM pg_stat_activity
            WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()
              AND coalesce(xact_start <= now() - interval '{wait} ms', true)
           UNION ALL
           SELECT 'prepared transaction ' || quote_literal(gid) FROM pg_prepared_xacts
            WHERE prepared <= now() - interval '{wait} ms') held",
        wait = SLOT_WAIT.as_millis()
    );
    let holders = named(on, &sql).await;
    Fault::new(
        Code::SlotBlocked,
        format!("creating slot {name} waits for transactions that were open before it: {holders}"),
        "end them, or wait: SELECT pg_terminate_backend(PID) ends a process, ROLLBACK PREPARED 'GID' \
         a prepared transaction",
    )
}

/// What lets a role read the captured tables. The rows of a partitioned one are in its partitions.
async fn grants(
    on: &mut Connection,
    captured: &Captured,
    role: &str,
) -> Result<Vec<String>, Fault> {
    let tables = on.list_tables(&["*"]).await.map_err(|error| diagnosis::of_source(&error))?;
    let names: BTreeSet<(&str, &str)> = captured
        .0
        .candidates
        .iter()
        .map(|table| (table.schema.as_str(), table.name.as_str()))
        .collect();
    let is_named = |table: &TableFacts| names.contains(&(&*table.schema, &*table.name));
    let roots: BTreeSet<_> =
        tables.iter().filter(|table| is_named(table)).map(|it| it.id).collect();
    let read = tables
        .iter()
        .filter(|table| is_named(table) || table.root.is_some_and(|root| roots.contains(&root)));
    let (mut schemas, mut list) = (BTreeSet::new(), Vec::new());
    for table in read {
        schemas.insert(identifier(&table.schema));
        list.push(qualified(&table.schema, &table.name));
    }
    let schemas: Vec<String> = schemas.into_iter().collect();
    Ok(vec![
        format!("GRANT USAGE ON SCHEMA {} TO {role}", schemas.join(", ")),
        format!("GRANT SELECT ON {} TO {role}", list.join(", ")),
    ])
}

/// The SQL that gives a pipeline what it needs, for somebody with more rights to run.
///
/// # Errors
/// Where the source cannot be looked at.
pub(super) async fn setup_sql(
    on: &mut Connection,
    settings: &config::settled::Pipeline,
) -> Result<String, Fault> {
    let source = &settings.source;
    let captured = Captured::read(on, source).await?;
    let role = identifier(on.peer().user());
    let mut lines = vec![
        format!("-- pipeline {}: what its role needs", settings.name),
        format!("ALTER ROLE {role} LOGIN REPLICATION"),
    ];
    if let config::settled::Snapshot::Initial(options) = &settings.snapshot {
        lines.push("-- what it reads of the rows that are there".to_owned());
        lines.extend(grants(on, &captured, &role).await?);
        if options.max_replica_lag.is_some() {
            lines.push(format!("GRANT pg_read_all_stats TO {role}"));
        }
    }
    lines.push("-- what it captures; run by the owner of the tables".to_owned());
    lines.extend(captured.statements(source));
    if on.read_slot(&source.slot).await.map_err(|error| diagnosis::of_source(&error))?.is_none() {
        lines.push(
            "-- from where on; after the publication, and not in one transaction with it (psql -1)"
                .to_owned(),
        );
        lines.push(creation(source));
    }
    lines.extend(access::lines(
        settings,
        captured.0.candidates.iter().map(|table| config::TableName {
            schema: table.schema.clone(),
            table: table.name.clone(),
        }),
    ));
    let end = |line: &String| {
        if line.starts_with("--") { format!("{line}\n") } else { format!("{line};\n") }
    };
    Ok(lines.iter().map(end).collect())
}
