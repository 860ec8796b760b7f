// Hot path: `Engine::release_all` runs for each row that was read.
//! Tables without a key: one read in one transaction, while the stream waits.
//!
//! Nothing tells a row of such a table from another, so rows that were read cannot be held against
//! what the stream says of them. Instead the stream waits while they are read and published, and
//! leaves out afterwards what the read has seen of it. The server hears from us meanwhile: that is
//! another thread's work. A read that comes to nothing begins anew, and what it had published of
//! the rows by then is published again.

use tokio::sync::mpsc;
use tokio::time::{Instant, interval, sleep_until};
use waltide_core::lsn::Lsn;
use waltide_core::pgoutput::RelationId;
use waltide_core::snapshot::{Book, ChunkId, HeldRows, Sight};
use waltide_core::watermark::Ticket;

use super::super::routes::Route;
use super::super::sink::SHOW_EVERY;
use super::super::stream::Engine;
use super::limits::cost;
use super::reader::Work;
use super::target::Target;
use super::{Event, Hand, Snapshots, place};
use crate::fault::{Code, Fault};
use crate::status;

/// Batches of rows between a reader and the owner.
const BATCHES: usize = 2;

/// A table that is being read while the stream waits.
pub(super) struct Whole {
    pub(super) chunk: ChunkId,
    table: RelationId,
    rows: mpsc::Receiver<HeldRows>,
}

impl Snapshots {
    /// Lets a reader begin with a table without a key, where there is one; whether it waits for a
    /// reader. The stream waits while such a table is read, so it is never given to one that has
    /// something else to finish, for which that may have to wait long.
    pub(super) fn register_whole(&mut self, book: &mut Book, now: Instant) -> bool {
        let keyless = |table: &&RelationId| {
            self.tables.get(table).is_some_and(|table| {
                let route = table.route.as_ref();
                table.not_before <= now && route.is_some_and(|route| route.key_id.is_none())
            })
        };
        let ready: Vec<RelationId> = book.ready().map(|(id, _)| id).collect();
        let Some(id) = ready.iter().find(keyless).copied() else { return false };
        let target = self.tables.get(&id).and_then(|table| table.target.clone());
        let Some(target) = target else { return false };
        let Some(reader) = Hand::with_less_than(1, &mut self.readers) else { return true };
        let bytes = target.blocks.saturating_mul(status::BLOCK_BYTES);
        if target.is_partial() {
            let fault = only_whole(&target.name.to_string());
            self.fail(id, fault);
            return false;
        }
        if self.options.keyless_max_bytes.is_some_and(|most| bytes > most) {
            let fault = too_large(&target.name.to_string(), bytes);
            self.fail(id, fault);
            return false;
        }
        let Some(assignment) = book.register_all(id) else { return false };
        let (give, rows) = mpsc::channel(BATCHES);
        let chunk = assignment.chunk;
        let (key, most, all) = (Vec::new(), usize::MAX, Some(give));
        let work = Work { assignment, target, key, most, mends: false, all };
        if reader.give(work) {
            self.whole = Some(Whole { chunk, table: id, rows });
        } else {
            book.abandon(chunk);
        }
        false
    }
}

/// The stream leaves out afterwards what was read, and could not tell what was not.
fn only_whole(table: &str) -> Fault {
    Fault::new(
        Code::SnapshotFilter,
        format!("{table} has no key: it is read whole, and not by a condition"),
        "give it a primary key or a replica identity by an index; or cancel this, and have all of it \
         read",
    )
}

fn too_large(table: &str, bytes: u64) -> Fault {
    Fault::new(
        Code::SnapshotTooLarge,
        format!(
            "{table} has no key and {} MiB: the stream would wait while it is read",
            bytes >> 20
        ),
        "give it a primary key or a replica identity by an index; or let the stream wait: raise \
         `snapshot.keyless_max_bytes`, 0 for no limit",
    )
}

impl Engine {
    /// Reads the table that was registered, and publishes its rows here.
    pub(super) async fn read_whole(&mut self) -> Result<(), Fault> {
        let Some(snapshots) = &mut self.snapshots else { return Ok(()) };
        let Some(Whole { chunk, table, mut rows }) = snapshots.whole.take() else { return Ok(()) };
        let Some(boundary) = self.sink.book.between() else { return Ok(()) };
        let reading = snapshots.tables.get_mut(&table);
        let found = reading.and_then(|table| Some((table.route.take()?, table.target.clone()?)));
        let Some((mut route, target)) = found else {
            self.sink.book.abandon(chunk);
            return Ok(());
        };
        let ticket = self.sink.intake.begin_aside(status::now());
        let to = (place(boundary), ticket);
        let released = self.release_all(&mut rows, to, (&target, &mut route)).await;
        self.sink.intake.end_aside();
        // Its sender gives up where nobody takes what it has.
        drop(rows);
        let released = released?;
        let Some(snapshots) = &mut self.snapshots else { return Ok(()) };
        if let Some(table) = snapshots.tables.get_mut(&table) {
            table.route = Some(route);
        }
        let Some(released) = released else {
            self.sink.book.abandon(chunk);
            return Ok(());
        };
        while let Some(event) = snapshots.events.recv().await {
            let (number, event) = match event {
                Event::Idle(number, event) => (number, event),
                other => {
                    snapshots.enter(&mut self.sink.book, other);
                    continue;
                }
            };
            match *event {
                Event::Read(of) if of.chunk == chunk => {
                    snapshots.is_free(number);
                    self.sink.book.settle(&of.sight);
                    if let Sight::Primary(seen) = of.sight {
                        let seen = (seen, of.bound);
                        self.sink.book.released_all(chunk, seen, ticket, released);
                    }
                    break;
                }
                other => snapshots.enter(&mut self.sink.book, Event::Idle(number, Box::new(other))),
            }
            if !self.sink.book.holds(chunk) {
                break;
            }
        }
        Ok(())
    }

    /// Publishes rows as they come; how many. None where the daemon is to end.
    async fn release_all(
        &mut self,
        rows: &mut mpsc::Receiver<HeldRows>,
        (at, ticket): (Lsn, Ticket),
        (target, route): (&Target, &mut Route),
    ) -> Result<Option<u64>, Fault> {
        let mut show = interval(SHOW_EVERY);
        let mut released = 0;
        let options = self.snapshots.as_ref().map(|snapshots| snapshots.options.clone());
        // So that the rate is kept: nothing is taken before.
        let mut take_at = Instant::now();
        loop {
            let may_take = take_at <= Instant::now();
            tokio::select! {
                biased;
                () = self.sink.producer.reported() => self.sink.settle()?,
                _ = show.tick() => {
                    if self.is_to_end() {
                        return Ok(None);
                    }
                    // Nobody listens to the server meanwhile.
                    self.sink.read(0);
                    self.sink.show()?;
                }
                () = sleep_until(take_at), if !may_take => {}
                batch = rows.recv(), if may_take => {
                    let Some(batch) = batch else { return Ok(Some(released)) };
                    if let Some(options) = &options {
                        take_at = Instant::now() + cost(options, batch.len(), batch.bytes());
                    }
                    released += batch.len() as u64;
                    self.release_batch(&batch, (at, ticket), (target, &mut *route)).await?;
                }
            }
        }
    }

    async fn release_batch(
        &mut self,
        batch: &HeldRows,
        (at, ticket): (Lsn, Ticket),
        (target, route): (&Target, &mut Route),
    ) -> Result<(), Fault> {
        let now = status::now();
        self.out.position.start(at);
        self.sink.producer.expect(batch.len());
        for number in 0..batch.len() {
            let Some(tuple) = batch.get(number) else { break };
            self.put_read(tuple, (at, now, ticket), (&target.relation, &mut *route)).await?;
        }
        self.out.shrink();
        Ok(())
    }
}
