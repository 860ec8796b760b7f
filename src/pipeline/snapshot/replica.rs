//! Chunks come from a replica of the source where one is configured, and are as true as those of
//! the primary:
//!
//! - it has replayed all that was published when a chunk was registered, which is looked at before
//!   the snapshot is taken: its snapshots list nothing in progress;
//! - it is still a replica when the snapshot has been taken;
//! - it is on the pipeline's timeline once the rows have been read, so it had no other history
//!   before. A server says that on a replication connection alone, so that is what is read through.
//!
//! What the stream is to be held against row by row comes from the replica; keys that are read
//! again, which needs parameters, and tables without a key come from the primary.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use waltide_core::lsn::Lsn;
use waltide_core::snapshot::Sight;

use super::super::diagnosis;
use super::super::source::{ANSWER, answered};
use super::Event;
use super::reader::{Kit, Outcome, Reader, TRIES, Work, once};
use crate::config::TableName;
use crate::fault::{Code, Fault};
use crate::postgres::{Connection, Error, Mode, Params, Peer, SqlState, SystemIdentity};

/// Between looks at how far it is, while it is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How long it is waited for before that is said.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where chunks are read, and whose rows they must be.
#[derive(Clone, Debug)]
pub(crate) struct Replica {
    params: Params,
    system: u64,
    timeline: u32,
    database: String,
}

impl Replica {
    /// One that is to be a replica of a source, which has said who it is.
    pub(crate) fn of(params: Params, source: &SystemIdentity) -> Self {
        let SystemIdentity { system_identifier, timeline, database, .. } = source.clone();
        Self { params, system: system_identifier, timeline, database }
    }

    /// A connection to it, through which it has shown that it is one.
    pub(crate) async fn open(&self) -> Result<Connection, Fault> {
        let opened = Connection::open(&self.params, Mode::Replication).await;
        let mut on = opened.map_err(|error| broken(&error))?;
        self.prove(&mut on).await?;
        Ok(on)
    }

    /// Whether all that it has shown so far is of the pipeline's history.
    async fn prove(&self, on: &mut Connection) -> Result<(), Fault> {
        let peer = on.peer().clone();
        let is = answered(ANSWER, &peer, on.identify_system()).await;
        let is = is.map_err(|error| broken(&error))?;
        if is.system_identifier != self.system {
            return Err(unfit(&peer, "has another system identifier than the source"));
        }
        if is.timeline != self.timeline {
            let (theirs, ours) = (is.timeline, self.timeline);
            let what = format!("is on timeline {theirs}, and the source on {ours}");
            return Err(unfit(&peer, &what));
        }
        if is.database != self.database {
            return Err(unfit(&peer, &format!("shows another database than {}", self.database)));
        }
        Ok(())
    }

    /// How far it has replayed the log. Asked before a snapshot is taken, all of that is in it.
    pub(crate) async fn replayed(&self, on: &mut Connection) -> Result<Lsn, Fault> {
        let peer = on.peer().clone();
        let sql = "SELECT pg_last_wal_replay_lsn() WHERE pg_is_in_recovery()";
        let rows = answered(ANSWER, &peer, on.simple_query(sql)).await;
        let rows = rows.map_err(|error| broken(&error))?;
        let replayed = rows.single().and_then(|text| text.parse().ok());
        replayed.ok_or_else(|| no_replica(&peer))
    }
}

impl Reader {
    /// Reads a part from the replica, once that has what the part must show.
    pub(super) async fn read_from_replica(
        &self,
        replica: &Replica,
        connection: &mut Option<Connection>,
        work: &Work,
        kit: &mut Kit,
    ) -> Result<Outcome, Error> {
        let mut conflicts = 0;
        loop {
            let open = match connection.take() {
                Some(open) => Ok(open),
                None => replica.open().await,
            };
            let mut on = match open {
                Ok(open) => open,
                Err(fault) => return Ok(Outcome::Refused(fault)),
            };
            let replayed = match self.wait_for(replica, &mut on, work).await {
                Ok(replayed) => replayed,
                Err(fault) => return Ok(Outcome::Refused(fault)),
            };
            let (outcome, free) = match once(&mut on, work, kit, Some(replayed)).await {
                Ok(read) => read,
                Err(error) => {
                    let peer = on.peer().clone();
                    let end = answered(ANSWER, &peer, on.simple_query("ROLLBACK"));
                    *connection = end.await.is_ok().then_some(on);
                    // Replay is in the way for moments, and again for moments.
                    if is_conflict(&error) && conflicts < TRIES {
                        sleep(Duration::from_millis(10 << conflicts.min(4))).await;
                        conflicts += 1;
                        continue;
                    }
                    return Err(error);
                }
            };
            // Rows are larger than was thought. It cannot be asked any more who it is: fewer of them
            // are read again.
            if !free {
                continue;
            }
            let peer = on.peer().clone();
            answered(ANSWER, &peer, on.simple_query("ROLLBACK")).await?;
            if let Err(fault) = replica.prove(&mut on).await {
                return Ok(Outcome::Refused(fault));
            }
            *connection = Some(on);
            return Ok(outcome);
        }
    }

    /// Waits until the replica has replayed what a chunk must show; how far it has.
    ///
    /// However long that takes the chunk stays registered: another would have to show more, and one
    /// that always lags a little would never be read.
    async fn wait_for(
        &self,
        replica: &Replica,
        on: &mut Connection,
        work: &Work,
    ) -> Result<Lsn, Fault> {
        let (since, mut told) = (Instant::now(), false);
        loop {
            let replayed = match replica.replayed(on).await {
                Err(fault) if fault.code == Code::SnapshotReplicaBehind => Lsn::ZERO,
                replayed => replayed?,
            };
            if work.assignment.may_be_read_with(&Sight::Replica { replayed }) {
                return Ok(replayed);
            }
            if !told && since.elapsed() > PATIENCE {
                told = true;
                let fault = behind(on.peer(), &work.target.name);
                // Whoever is not there any more wants no rows either.
                let _ = self.events.send(Event::Waits(work.assignment.table, fault)).await;
            }
            sleep(LOOK_EVERY).await;
        }
    }
}

pub(super) fn no_replica(peer: &Peer) -> Fault {
    unfit(peer, "is no replica, or not any more")
}

fn unfit(peer: &Peer, what: &str) -> Fault {
    Fault::new(
        Code::SnapshotReplicaUnfit,
        format!("nothing is read from {peer}: it {what}"),
        "give `snapshot.from.url` a physical replica of the server that `source.url` leads to, with \
         the same database; or take `snapshot.from` away, and tables are read from the source",
    )
}

fn behind(peer: &Peer, table: &TableName) -> Fault {
    Fault::new(
        Code::SnapshotReplicaBehind,
        format!("{table} is read from {peer} once that has replayed what the stream has published"),
        "nothing if it catches up by itself; else look there at pg_stat_wal_receiver and \
         pg_is_wal_replay_paused(), or take `snapshot.from` away",
    )
}

/// What is wrong with the replica; none where a table is what an error is about.
pub(super) fn explain(error: &Error) -> Option<Fault> {
    let about_it = |state: SqlState| is_conflict(error) || state.as_str().starts_with("57P");
    error.sqlstate().is_none_or(about_it).then(|| broken(error))
}

/// Whether the replica's replay had to go first.
fn is_conflict(error: &Error) -> bool {
    error.sqlstate().is_some_and(|state| state.class() == "40")
}

/// A connection that could not be made, or broke.
fn broken(error: &Error) -> Fault {
    if is_conflict(error) {
        return Fault::new(
            Code::SnapshotReplicaBehind,
            "the replica to read from ends each read so that its replay can go on",
            "let replay wait for the moments that a chunk takes, however far it is behind: set \
             max_standby_streaming_delay = -1 on the replica",
        );
    }
    let Fault { code, what, mend } = diagnosis::of_source(error);
    Fault::new(
        code,
        format!("the replica to read from: {what}"),
        mend.replace("source.", "snapshot.from."),
    )
}
