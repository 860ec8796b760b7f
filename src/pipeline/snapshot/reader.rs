//! Reads chunks, each in one short transaction, on a connection of its own.
//!
//! The order is what makes a chunk true: the table's lock, then the snapshot, then the end of the
//! log, then the rows. The rows are held here and go to the owner whole.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;
use waltide_core::checkpoint::fingerprint;
use waltide_core::lsn::Lsn;
use waltide_core::pgoutput::{CopyRows, Field, RelationId, Tuple};
use waltide_core::snapshot::{
    Assignment, ChunkId, HeldKeys, HeldRows, Key, Part, Sight, Span, Tid, reachable,
};

use super::super::diagnosis;
use super::super::source::{ANSWER, answered};
use super::replica::Replica;
use super::spare::Spare;
use super::target::Target;
use super::{Event, mend, replica, vet};
use crate::fault::{Code, Fault};
use crate::postgres::{Connection, Error, Mode, Params, SqlState};

/// What is held of one chunk: more than this is another chunk's. A row alone may be larger.
const HELD_BYTES: usize = 2 << 20;

/// Rows of a table without a key are handed over in batches of so many bytes.
const BATCH_BYTES: usize = 512 << 10;

/// How many rows are asked for where nothing is known of their size, and at most.
const ROWS: (usize, usize) = (1_000, 40_000);

/// How long a table's lock is waited for: others queue behind whoever waits.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// How long the server may be silent while rows come.
const SILENCE: Duration = Duration::from_secs(30);

/// How often a snapshot is taken that does not show what it must, before others get their turn.
pub(super) const TRIES: u32 = 10;

/// `55P03 lock_not_available`
const LOCK_NOT_AVAILABLE: &str = "55P03";

/// `42P01 undefined_table`
const UNDEFINED_TABLE: &str = "42P01";

/// A chunk to read, and how.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) assignment: Assignment,
    pub(super) target: Arc<Target>,
    /// The key's columns.
    pub(super) key: Vec<usize>,
    /// How many rows are asked for at most.
    pub(super) most: usize,
    /// Keys of which there is no row are told as well.
    pub(super) mends: bool,
    /// Where rows go that are not held.
    pub(super) all: Option<mpsc::Sender<HeldRows>>,
}

/// A chunk that has been read.
#[derive(Debug)]
pub(in super::super) struct Chunk {
    pub(super) chunk: ChunkId,
    pub(super) table: RelationId,
    pub(super) rows: HeldRows,
    /// Those of the rows, which the owner knows how to write.
    pub(super) keys: HeldKeys,
    /// The keys that were asked for, as rows would have them; once it is held, those without a row.
    pub(super) asked: Vec<Key>,
    pub(super) sight: Sight,
    pub(super) bound: Lsn,
    pub(super) rest: Option<Span>,
}

pub(super) struct Reader {
    pub(super) number: usize,
    pub(super) params: Params,
    /// Where parts are read, if not there.
    pub(super) replica: Option<Arc<Replica>>,
    pub(super) spare: Spare,
    pub(super) work: mpsc::Receiver<Work>,
    pub(super) events: mpsc::Sender<Event>,
}

/// What a reader has at hand for one chunk after another.
pub(super) struct Kit {
    /// How large the rows of a file were.
    row_bytes: BTreeMap<RelationId, usize>,
    spare: Spare,
}

/// What becomes of a chunk.
pub(super) enum Outcome {
    Read(Chunk),
    Unseen(Sight),
    Moved,
    /// The server is none that is read from.
    Refused(Fault),
}

/// What a transaction sees of a table.
struct Look {
    sight: Sight,
    bound: Lsn,
    /// Whether the table is what the chunk was made of.
    fits: bool,
    /// Whether the server is a replica.
    in_recovery: bool,
}

impl Reader {
    /// Reads until there is no more to read.
    pub(super) async fn run(mut self) {
        let (mut connection, mut to_replica) = (None, None);
        let mut kit = Kit { row_bytes: BTreeMap::new(), spare: self.spare.clone() };
        while let Some(mut work) = self.work.recv().await {
            let (chunk, table) = (work.assignment.chunk, work.assignment.table);
            let replica = self.replica.as_deref().filter(|_| is_span(&work));
            let read = match replica {
                Some(of) => self.read_from_replica(of, &mut to_replica, &work, &mut kit).await,
                None => self.attempt(&mut connection, &work, &mut kit).await,
            };
            // Whoever takes the rows waits for their end, and then for what became of them.
            work.all = None;
            let event = match read {
                Ok(Outcome::Read(chunk)) => Event::Read(Box::new(chunk)),
                Ok(Outcome::Unseen(sight)) => Event::Unseen(chunk, sight),
                Ok(Outcome::Moved) => Event::Moved(table),
                Ok(Outcome::Refused(fault)) => Event::Failed(chunk, table, fault),
                Err(error) => {
                    let of_replica = replica.and_then(|_| replica::explain(&error));
                    let fault = match of_replica {
                        Some(fault) => Some(fault),
                        None => self.explain(&mut connection, &work, &error).await,
                    };
                    match fault {
                        Some(fault) => Event::Failed(chunk, table, fault),
                        None => Event::Moved(table),
                    }
                }
            };
            if self.events.send(Event::Idle(self.number, Box::new(event))).await.is_err() {
                return;
            }
        }
    }

    /// What keeps a chunk from being read, as the source knows, which has the same roles and tables.
    async fn explain(
        &self,
        connection: &mut Option<Connection>,
        work: &Work,
        error: &Error,
    ) -> Option<Fault> {
        if connection.is_none() && self.replica.is_some() {
            *connection = Connection::open(&self.params, Mode::Plain).await.ok();
        }
        explain(connection, work, error).await
    }

    async fn attempt(
        &self,
        connection: &mut Option<Connection>,
        work: &Work,
        kit: &mut Kit,
    ) -> Result<Outcome, Error> {
        let mut seen = None;
        for attempt in 0..TRIES {
            // A connection on which something went wrong is not used again.
            let mut on = match connection.take() {
                Some(open) => open,
                None => Connection::open(&self.params, Mode::Plain).await?,
            };
            let outcome = once(&mut on, work, kit, None).await;
            match outcome {
                Ok((outcome, free)) => {
                    if free {
                        let peer = on.peer().clone();
                        answered(ANSWER, &peer, on.simple_query("ROLLBACK")).await?;
                        *connection = Some(on);
                    }
                    match outcome {
                        Outcome::Unseen(sight) => seen = Some(sight),
                        done => return Ok(done),
                    }
                }
                Err(error @ Error::Server { .. }) if on.in_transaction() => {
                    let peer = on.peer().clone();
                    answered(ANSWER, &peer, on.simple_query("ROLLBACK")).await?;
                    *connection = Some(on);
                    return Err(error);
                }
                Err(error) => return Err(error),
            }
            sleep(Duration::from_millis(10 << attempt.min(4))).await;
        }
        Ok(seen.map_or(Outcome::Moved, Outcome::Unseen))
    }
}

/// Whether it is a part of a file, which a replica can give.
const fn is_span(work: &Work) -> bool {
    matches!(work.assignment.part, Part::Span(_))
}

/// One transaction, on a replica with what it had replayed before. Also tells whether its
/// connection is free again.
pub(super) async fn once(
    on: &mut Connection,
    work: &Work,
    kit: &mut Kit,
    replayed: Option<Lsn>,
) -> Result<(Outcome, bool), Error> {
    let Work { assignment, target, key, .. } = work;
    let root = target.root();
    let of = match &assignment.part {
        Part::Keys(_) | Part::All(_) => root.as_str(),
        Part::Span(span) => match target.leaf(span.leaf) {
            Some(leaf) => leaf,
            None => return Ok((Outcome::Moved, true)),
        },
    };
    let lock = match &assignment.part {
        Part::Keys(_) | Part::All(_) => root.clone(),
        Part::Span(_) => format!("ONLY {of}"),
    };
    let peer = on.peer().clone();
    let begin = target.begin(&lock, LOCK_WAIT.as_millis());
    answered(ANSWER, &peer, on.simple_query(&begin)).await?;
    let look = answered(ANSWER, &peer, look(on, work, of, replayed)).await?;
    if replayed.is_some() && !look.in_recovery {
        return Ok((Outcome::Refused(replica::no_replica(&peer)), true));
    }
    if !look.fits {
        return Ok((Outcome::Moved, true));
    }
    if !assignment.may_be_read_with(&look.sight) {
        return Ok((Outcome::Unseen(look.sight), true));
    }
    let mut asked = Vec::new();
    let (rows, rest, free) = match &assignment.part {
        Part::Span(span) => {
            let known = kit.row_bytes.get(&span.leaf).copied();
            let rows = known.map_or(ROWS.0, |bytes| (HELD_BYTES / bytes).clamp(1, ROWS.1));
            let rows = rows.min(work.most);
            let sql = target.copy(of, span, rows);
            let read = copy(on, target, &sql, (*span, rows), kit.spare.take()).await?;
            if let Some(bytes) = read.0.bytes().checked_div(read.0.len()) {
                kit.row_bytes.insert(span.leaf, bytes.max(1));
            }
            read
        }
        Part::All(_) => {
            for leaf in target.leaves() {
                send(on, target, &target.copy_all(leaf), work.all.as_ref()).await?;
            }
            (HeldRows::default(), None, true)
        }
        Part::Keys(keys) => {
            let by_key = target.by_key(key);
            let rows = timeout_of(&peer, fetch(on, target, &by_key, keys)).await?;
            if work.mends {
                asked = timeout_of(&peer, mend::written(on, target, key, keys)).await?;
            }
            (rows, None, true)
        }
    };
    let Look { sight, bound, .. } = look;
    let (chunk, table, keys) = (assignment.chunk, assignment.table, HeldKeys::default());
    let chunk = Chunk { chunk, table, rows, keys, asked, sight, bound, rest };
    Ok((Outcome::Read(chunk), free))
}

async fn timeout_of<T>(
    peer: &crate::postgres::Peer,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    answered(SILENCE, peer, work).await
}

/// The snapshot, and what must be read behind it.
async fn look(
    on: &mut Connection,
    work: &Work,
    of: &str,
    replayed: Option<Lsn>,
) -> Result<Look, Error> {
    let rows = on.simple_query(&work.target.look(of, replayed.is_some())).await?;
    let cell = |at: usize| rows.rows.first()?.get(at)?.as_deref();
    let number = |at: usize| cell(at)?.parse::<u64>().ok();
    let read = || {
        let end: Lsn = cell(1)?.parse().ok()?;
        let (sight, bound) = match replayed {
            Some(replayed) => (Sight::Replica { replayed }, end),
            None => {
                let seen = cell(0)?.parse().ok()?;
                (Sight::Primary(seen), reachable(end, number(5)?, number(6)?))
            }
        };
        let in_recovery = cell(7)? == "t";
        let shape = cell(4).map_or(0, |shape| fingerprint(shape.as_bytes()));
        let (id, file) = (number(2).unwrap_or(0), number(3)?);
        let same = match &work.assignment.part {
            Part::Span(span) => id == u64::from(span.leaf.0) && file == u64::from(span.file),
            Part::Keys(_) | Part::All(_) => id == u64::from(work.assignment.table.0),
        };
        Some(Look { sight, bound, fits: same && shape == work.assignment.shape, in_recovery })
    };
    read().ok_or_else(|| Error::protocol(on.peer(), "what a transaction sees cannot be read"))
}

/// Rows by where they lie; what is left of the part; and whether the connection is free.
async fn copy(
    on: &mut Connection,
    target: &Target,
    sql: &str,
    (span, most): (Span, usize),
    mut rows: HeldRows,
) -> Result<(HeldRows, Option<Span>, bool), Error> {
    let peer = on.peer().clone();
    let mut reader = target.copied();
    let mut last = None;
    let mut copy = timeout_of(&peer, on.copy_out(sql)).await?;
    while timeout_of(&peer, copy.fill()).await? > 0 {
        while let Some(data) = copy.next_frame() {
            let data = match data {
                Ok(data) => data,
                Err(error) => {
                    // What follows the error is read, so that the connection is free again.
                    timeout_of(&peer, copy.finish()).await?;
                    return Err(error);
                }
            };
            let row = reader.decode(data);
            let row = row.map_err(|error| Error::protocol(&peer, error.to_string()))?;
            let Some(row) = row else { continue };
            let place = rows.push(row);
            last = Some(place.ok_or_else(|| Error::protocol(&peer, "a row has no place"))?);
            // Rows may be much larger than those before them. Behind the last there is no more.
            if rows.bytes() > 2 * HELD_BYTES && rows.len() < most {
                return Ok((rows, last.and_then(|last: Tid| span.behind(last)), false));
            }
        }
    }
    if !reader.is_complete() {
        return Err(Error::protocol(&peer, "a COPY ended without its trailer"));
    }
    let more = last.filter(|_| rows.len() == most);
    Ok((rows, more.and_then(|last| span.behind(last)), true))
}

/// All rows of a file, handed over as they come.
async fn send(
    on: &mut Connection,
    target: &Target,
    sql: &str,
    to: Option<&mpsc::Sender<HeldRows>>,
) -> Result<(), Error> {
    let peer = on.peer().clone();
    let gone = || Error::protocol(&peer, "nobody takes the rows any more");
    let to = to.ok_or_else(gone)?;
    let mut reader = target.copied();
    let mut rows = HeldRows::default();
    let mut copy = timeout_of(&peer, on.copy_out(sql)).await?;
    while timeout_of(&peer, copy.fill()).await? > 0 {
        while let Some(data) = copy.next_frame() {
            let data = match data {
                Ok(data) => data,
                Err(error) => {
                    // What follows the error is read, so that the connection is free again.
                    timeout_of(&peer, copy.finish()).await?;
                    return Err(error);
                }
            };
            let row = reader.decode(data);
            let row = row.map_err(|error| Error::protocol(&peer, error.to_string()))?;
            let Some(row) = row else { continue };
            rows.push(row).ok_or_else(|| Error::protocol(&peer, "a row has no place"))?;
            if rows.bytes() > BATCH_BYTES {
                to.send(std::mem::take(&mut rows)).await.map_err(|_| gone())?;
            }
        }
    }
    if !reader.is_complete() {
        return Err(Error::protocol(&peer, "a COPY ended without its trailer"));
    }
    to.send(rows).await.map_err(|_| gone())
}

/// Rows by their keys.
async fn fetch(
    on: &mut Connection,
    target: &Target,
    sql: &str,
    keys: &[Key],
) -> Result<HeldRows, Error> {
    let mut rows = HeldRows::default();
    let mut reader: CopyRows = target.queried();
    let keys: Vec<_> = keys.iter().filter_map(values).collect();
    on.fetch(sql, &keys, |body| {
        let row = reader.decode(body).map_err(|_| "a row")?;
        row.and_then(|row| rows.push(row)).map(|_| ()).ok_or("a row's place")
    })
    .await?;
    Ok(rows)
}

pub(super) fn values(key: &Key) -> Option<Vec<crate::postgres::Value<'_>>> {
    let tuple = Tuple::decode(key).ok()?;
    let value = |field| match field {
        Field::Binary(bytes) => Some((true, bytes)),
        Field::Text(text) => Some((false, text)),
        Field::Null | Field::Unchanged => None,
    };
    tuple.fields().map(value).collect()
}

/// What keeps a chunk from being read; none where the table is not what it was.
async fn explain(connection: &mut Option<Connection>, work: &Work, error: &Error) -> Option<Fault> {
    let name = &work.target.name;
    let fault = diagnosis::of_source(error);
    let Some(state) = error.sqlstate() else { return Some(fault) };
    if state.as_str() == UNDEFINED_TABLE || state.as_str() == "3F000" {
        return None;
    }
    if state.as_str() == LOCK_NOT_AVAILABLE {
        return Some(Fault::new(
            Code::SnapshotBlocked,
            format!("reading {name} waits for a lock that another session has on it"),
            "nothing if that session ends by itself; otherwise find it in pg_locks",
        ));
    }
    if state == SqlState::INSUFFICIENT_PRIVILEGE {
        return match connection {
            Some(on) => vet::of_privilege(on, work.assignment.table, name, fault).await,
            None => Some(fault),
        };
    }
    if work.target.is_partial()
        && let Some(fault) = vet::of_filter(name, error)
    {
        return Some(fault);
    }
    Some(Fault { what: format!("{name} cannot be read: {}", fault.what), ..fault })
}
