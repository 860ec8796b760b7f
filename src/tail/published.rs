//! Through which publication changes are seen. One that is there is used; else one is made for as
//! long as we look, and taken away at the end. Publications cannot be temporary, so one that was
//! left behind by somebody who was killed is taken away by the next one that comes.

use std::collections::HashSet;

use super::Asked;
use crate::fault::{Code, Fault};
use crate::pipeline;
use crate::postgres::publication::{self, Candidate, inserts_only};
use crate::postgres::sql::identifier;
use crate::postgres::{Connection, Error, Mode, Params, SqlState};

/// What ours are called, with the server's process after it.
const PREFIX: &str = "waltide_tail_";

/// Of many publications so many are looked into.
const LOOK_INTO: usize = 20;

/// How long a table may keep us from publishing it.
const LOCK_WAIT_MS: u32 = 3_000;

/// The publications that are used.
#[derive(Debug)]
pub(super) struct Published {
    names: Vec<String>,
    tables: usize,
    made: bool,
    temporary: String,
}

impl Published {
    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    pub(super) const fn tables(&self) -> usize {
        self.tables
    }

    pub(super) const fn is_made(&self) -> bool {
        self.made
    }

    /// A name that nobody else has at the same time.
    pub(super) fn temporary_name(&self) -> &str {
        &self.temporary
    }

    /// Takes away what was made. A connection in the middle of an answer is of no use for it.
    pub(super) async fn tidy(&self, mut on: Connection, params: &Params) -> Result<(), Fault> {
        if !self.made {
            on.close().await;
            return Ok(());
        }
        let sql = self.drop_statement();
        if on.simple_query(&sql).await.is_ok() {
            on.close().await;
            return Ok(());
        }
        let gone = |_| self.left_behind();
        let mut another = Connection::open(params, Mode::Plain).await.map_err(gone)?;
        another.simple_query(&sql).await.map_err(gone)?;
        another.close().await;
        Ok(())
    }

    pub(super) fn left_behind(&self) -> Fault {
        Fault::new(
            Code::SourceLost,
            format!("publication {} could not be taken away", self.names.join(", ")),
            format!("run: {};", self.drop_statement()),
        )
    }

    fn drop_statement(&self) -> String {
        let names: Vec<String> = self.names.iter().map(|name| identifier(name)).collect();
        format!("DROP PUBLICATION IF EXISTS {}", names.join(", "))
    }
}

/// Finds a publication that shows all that was asked for, or makes one.
pub(super) async fn find_or_make(on: &mut Connection, asked: &Asked) -> Result<Published, Fault> {
    let source = |error: Error| pipeline::of_source(&error);
    let pid = on.simple_query("SELECT pg_backend_pid()").await.map_err(source)?;
    let temporary = format!("{PREFIX}{}", pid.single().unwrap_or("0"));
    let found = |names: Vec<String>, tables: usize| Published {
        names,
        tables,
        made: false,
        temporary: temporary.clone(),
    };
    if let Some(name) = &asked.publication {
        let candidates = candidates(on, asked, name).await?;
        let shown = candidates.iter().filter(|table| table.published).count();
        if shown == 0 {
            return Err(Fault::new(
                Code::PublicationUnusable,
                format!("publication {name} is not there, or shows none of the tables"),
                "name another one, or none: then one is made for as long as it is needed",
            ));
        }
        return Ok(found(of_pipeline(on, name).await?, shown));
    }
    take_away_old_ones(on).await.map_err(source)?;
    // The best there is: all rows, all operations, partitions under the name of their table.
    let sql = format!(
        "SELECT pubname FROM pg_publication
          WHERE pubinsert AND pubupdate AND pubdelete AND pubtruncate AND pubviaroot
            AND pubname !~ '^{PREFIX}' ORDER BY puballtables DESC, pubname LIMIT {LOOK_INTO}"
    );
    let names = on.simple_query(&sql).await.map_err(source)?;
    for name in names.rows.iter().filter_map(|row| row.first()?.clone()) {
        if is_whole(on, asked, &name).await? {
            let names = of_pipeline(on, &name).await?;
            let tables = candidates(on, asked, &name).await?.len();
            return Ok(found(names, tables));
        }
    }
    let tables = candidates(on, asked, &temporary).await?;
    let statements = publication::statements(&temporary, &[], &tables.iter().collect::<Vec<_>>());
    let sql = format!(
        "BEGIN; SET LOCAL lock_timeout = {LOCK_WAIT_MS}; {}; COMMIT",
        statements.join("; ")
    );
    if let Err(error) = on.simple_query(&sql).await {
        let _ = on.simple_query("ROLLBACK").await;
        return Err(cannot_make(&error));
    }
    let names = vec![temporary.clone(), inserts_only(&temporary)];
    Ok(Published { names, tables: tables.len(), made: true, temporary })
}

fn cannot_make(error: &Error) -> Fault {
    let fault = pipeline::of_source(error);
    if error.sqlstate() != Some(SqlState::INSUFFICIENT_PRIVILEGE) {
        return fault;
    }
    Fault::new(
        Code::SourcePrivilege,
        format!("no publication shows these tables, and the role may not make one: {}", fault.what),
        "have an owner of the tables make one, and name it with --publication; or log in as a role \
         that owns them and may create in the database",
    )
}

/// The tables that were asked for, and whether a publication shows them.
async fn candidates(
    on: &mut Connection,
    asked: &Asked,
    publication: &str,
) -> Result<Vec<Candidate>, Fault> {
    let coverage = on.load_coverage(publication).await;
    let mut candidates = coverage.map_err(|error| pipeline::of_source(&error))?.candidates;
    candidates.retain(|table| asked.captures(&table.schema, &table.name));
    if !candidates.is_empty() {
        return Ok(candidates);
    }
    let patterns: Vec<String> = asked.tables.iter().map(ToString::to_string).collect();
    Err(Fault::new(
        Code::NoTables,
        format!("no table of {} matches {}", on.peer(), patterns.join(", ")),
        "correct --table: it is schema.table, and * stands for any characters",
    ))
}

/// A publication, and the one beside it that a pipeline makes for inserts.
async fn of_pipeline(on: &mut Connection, name: &str) -> Result<Vec<String>, Fault> {
    let coverage = on.load_coverage(name).await;
    let existing = coverage.map_err(|error| pipeline::of_source(&error))?.existing;
    Ok(existing.into_iter().map(|one| one.name).collect())
}

/// Whether all rows and columns of all the tables are in it.
async fn is_whole(on: &mut Connection, asked: &Asked, name: &str) -> Result<bool, Fault> {
    let source = |error: Error| pipeline::of_source(&error);
    let mut whole = HashSet::new();
    for name in [name.to_owned(), inserts_only(name)] {
        let Some(publication) = on.load_publication(&name).await.map_err(source)? else { continue };
        let tables = publication.tables.into_iter();
        let tables = tables.filter(|table| table.filter.is_none() && !table.column_list);
        whole.extend(tables.map(|table| (table.schema, table.name)));
    }
    let wanted = candidates(on, asked, name).await?;
    Ok(wanted.into_iter().all(|table| whole.contains(&(table.schema, table.name))))
}

/// Those of ours whose process is gone.
async fn take_away_old_ones(on: &mut Connection) -> Result<(), Error> {
    let sql = format!(
        "SELECT pubname FROM pg_publication
          WHERE pubname ~ '^{PREFIX}[0-9]+(_inserts)?$' AND pg_has_role(pubowner, 'USAGE')
            AND NOT EXISTS (SELECT FROM pg_stat_activity
                             WHERE pid = CAST(substring(pubname FROM '[0-9]+') AS int))"
    );
    let old = on.simple_query(&sql).await?;
    for name in old.rows.iter().filter_map(|row| row.first()?.as_deref()) {
        on.simple_query(&format!("DROP PUBLICATION IF EXISTS {}", identifier(name))).await?;
    }
    Ok(())
}
