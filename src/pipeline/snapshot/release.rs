// Hot path: `Engine::put_read` runs for each row that was read.
//! Rows that were read join the stream.

use tokio::time::Instant;
use waltide_core::avro::{self, RecordMeta, Snapshot, Written, write_header};
use waltide_core::change::{Position, Row, Transaction};
use waltide_core::lsn::{CommitLsn, Lsn};
use waltide_core::pgoutput::{PgTimestamp, Relation, RelationId, Tuple, Xid};
use waltide_core::snapshot::{END_SCHEMA, End, Filter, Word, key_of};
use waltide_core::watermark::Ticket;

use super::super::diagnosis;
use super::super::keeper::now_us;
use super::super::routes::{Known, Route};
use super::super::rows::{Again, partition};
use super::super::stream::Engine;
use super::reader::Chunk;
use super::target::Target;
use super::{STREAM_SHARE, mend, place};
use crate::fault::Fault;
use crate::kafka::Record;
use crate::status;

/// Lives of a pipeline are told apart by the bits of an ordinal above these.
const ORDINAL_BITS: u32 = 40;

/// How many bytes of a key say which schema it has: tables are compared without.
pub(in super::super) const KEY_HEADER: usize = 5;

impl Engine {
    /// Does what snapshots need, between transactions: compiles routes, registers more, releases a
    /// chunk, tells the end of a table.
    pub(in super::super) async fn advance_snapshots(&mut self) -> Result<(), Fault> {
        if self.snapshots.is_none() || self.sink.book.is_idle() || self.draining {
            return Ok(());
        }
        // Behind transactions that follow one another nobody else takes them.
        if let Some(snapshots) = &mut self.snapshots {
            while let Ok(event) = snapshots.events.try_recv() {
                snapshots.enter(&mut self.sink.book, event);
            }
        }
        self.compile_routes().await?;
        // Before rows are released, so that the next chunk is read meanwhile.
        if let Some(snapshots) = &mut self.snapshots {
            snapshots.advance(&mut self.sink.book);
        }
        self.release_next().await?;
        if let Some((table, rows)) = self.sink.book.done() {
            self.tell_the_end(table, rows).await?;
        }
        if self.snapshots.as_ref().is_some_and(|snapshots| snapshots.whole.is_some()) {
            Box::pin(self.read_whole()).await?;
        }
        Ok(())
    }

    /// A table that has been measured gets its topic and its schemas.
    async fn compile_routes(&mut self) -> Result<(), Fault> {
        let Some(snapshots) = &mut self.snapshots else { return Ok(()) };
        let mut misnamed = Vec::new();
        for (id, table) in &mut snapshots.tables {
            let (None, Some(target)) = (&table.route, &table.target) else { continue };
            match self.compiler.compile(&target.relation).await? {
                Known::Captured(route) => {
                    self.sink.book.set_keyless(*id, route.key_id.is_none());
                    if let Some(fault) = mend::misnamed(&self.sink.book, *id, &route) {
                        misnamed.push((*id, fault));
                    }
                    table.route = Some(route);
                }
                Known::Described | Known::LeftOut => self.sink.book.forget(*id),
            }
        }
        for (id, fault) in misnamed {
            snapshots.give_up(&mut self.sink.book, id, &fault);
        }
        // Those that have come to their end are told of a little later.
        let (book, ended) = (&self.sink.book, &self.sink.ended);
        snapshots.tables.retain(|id, _| book.reads(*id) || ended.contains(id));
        Ok(())
    }

    /// Releases a chunk that is due here. While the stream is behind it has most of the time.
    async fn release_next(&mut self) -> Result<(), Fault> {
        let Some(snapshots) = &mut self.snapshots else { return Ok(()) };
        let now = Instant::now();
        if snapshots.behind && now < snapshots.release_at {
            return Ok(());
        }
        let Some((table, id)) = self.sink.book.releasable() else { return Ok(()) };
        let Some(boundary) = self.sink.book.between() else { return Ok(()) };
        let held = snapshots.held.remove(&id);
        let reading = snapshots.tables.get_mut(&table);
        let found = reading.and_then(|table| Some((table.route.take()?, table.target.clone()?)));
        let (Some(chunk), Some((mut route, target))) = (held, found) else {
            self.sink.book.abandon(id);
            return Ok(());
        };
        let ticket = self.sink.intake.begin_aside(status::now());
        let at = place(boundary);
        let released = self.release_rows(&chunk, table, at, ticket, (&target, &mut route)).await;
        self.sink.intake.end_aside();
        match released? {
            Some(rows) => self.sink.book.released(id, ticket, rows),
            // Its keys have another form since it was read.
            None => self.sink.book.abandon(id),
        }
        if let Some(snapshots) = &mut self.snapshots {
            snapshots.spare.give(chunk.rows);
            snapshots.release_at = Instant::now() + now.elapsed() * STREAM_SHARE;
            if let Some(table) = snapshots.tables.get_mut(&table) {
                table.route = Some(route);
                table.failed = None;
            }
        }
        Ok(())
    }

    /// The rows of a chunk that nothing has touched since, or that are to be filled; how many. None
    /// where that cannot be told of one.
    async fn release_rows(
        &mut self,
        chunk: &Chunk,
        table: RelationId,
        at: Lsn,
        ticket: Ticket,
        (target, route): (&Target, &mut Route),
    ) -> Result<Option<u64>, Fault> {
        let now = status::now();
        let mut released = 0;
        self.out.position.start(at);
        self.sink.producer.expect(chunk.rows.len());
        for number in 0..chunk.rows.len() {
            let Some(tuple) = chunk.rows.get(number) else { break };
            let key = chunk.keys.get(number);
            let Some(word) = self.sink.book.word(table, chunk.chunk, key, tuple) else {
                return Ok(None);
            };
            let newer;
            let tuple = match word {
                Word::Not => continue,
                Word::Row => tuple,
                Word::Filled(row) => {
                    newer = row;
                    newer.tuple()
                }
            };
            let columns = route.plan.key_columns();
            self.sink.book.releases(table, chunk.chunk, || key_of(tuple, columns));
            self.put_read(tuple, (at, now, ticket), (&target.relation, &mut *route)).await?;
            released += 1;
        }
        let to = (at, now, ticket);
        let buried = self.release_gone(chunk, table, to, (&target.relation, route)).await?;
        self.out.shrink();
        Ok(buried.map(|buried| released + buried))
    }

    /// Publishes a row that was read.
    pub(super) async fn put_read(
        &mut self,
        tuple: Tuple<'_>,
        to: (Lsn, PgTimestamp, Ticket),
        how: (&Relation, &mut Route),
    ) -> Result<(), Fault> {
        let ordinal = self.next_ordinal();
        let (row, record) = (Row::Read(tuple), avro::Record::Read(tuple));
        self.put_aside((&row, &record), (ordinal, 0), to, how).await
    }

    /// Publishes one record of a row that no transaction of the stream has brought.
    pub(super) async fn put_aside(
        &mut self,
        (row, record): (&Row<'_>, &avro::Record<'_>),
        (ordinal, sub_index): (u64, u32),
        (at, now, ticket): (Lsn, PgTimestamp, Ticket),
        (description, route): (&Relation, &mut Route),
    ) -> Result<(), Fault> {
        let position = Position { commit_lsn: CommitLsn(at), ordinal, sub_index };
        let meta = meta(position, now);
        let (keyed, written) = match self.out.encode(route, row, record, &meta) {
            Ok(written) => written,
            Err(error) => {
                let again = Again { compiler: &mut self.compiler, description, route };
                Box::pin(self.out.encode_again(again, row, record, &meta, error)).await?
            }
        };
        let valued = written != Written::Null;
        let mut to = (route.topic.as_str(), route.partitions, route.lane);
        if let Written::TooLarge { bytes } = written {
            let Some(dead) = &route.dead_letters else {
                return Err(diagnosis::of_large_row(&route.topic, bytes));
            };
            let commit_lsn = CommitLsn(at);
            let nobody = Transaction { commit_lsn, commit_time: now, xid: Xid(0) };
            self.out.dead_letter(dead, route, &nobody, &meta, bytes);
            to = (&dead.topic, dead.partitions, dead.lane);
        }
        let (topic, partitions, lane) = to;
        let key = keyed.then_some(self.out.key.as_slice());
        let out = Record {
            topic,
            partition: partition(key, &position, partitions),
            key,
            value: valued.then_some(self.out.value.as_slice()),
            timestamp_ms: status::unix_ms(now),
            position: self.out.position.at(ordinal, sub_index),
            headers: &self.out.headers,
            ticket,
            lane,
        };
        self.sink.put(&out).await
    }

    /// Says on a topic of its own that a table has been read whole.
    async fn tell_the_end(&mut self, id: RelationId, rows: u64) -> Result<(), Fault> {
        let Some(position) = self.sink.book.between() else { return Ok(()) };
        if self.sink.book.mends(id) {
            // Consumers are told of tables that have been read whole, or by a condition.
            let ticket = self.sink.intake.begin_aside(status::now());
            self.sink.intake.end_aside();
            self.sink.book.closing(id, ticket);
            return Ok(());
        }
        let ordinal = self.next_ordinal();
        let Some(snapshots) = &mut self.snapshots else { return Ok(()) };
        let Some(table) = snapshots.tables.get(&id) else { return Ok(()) };
        let published = &table.member.published;
        let settings = &self.compiler.settings;
        let (pipeline, name) = (settings.name.clone(), settings.snapshot_topic());
        let database = self.compiler.catalog.peer().database().to_owned();
        let topic = match &mut snapshots.topic {
            Some(topic) => topic,
            none => none.insert(self.compiler.own_topic(name, (None, END_SCHEMA)).await?),
        };
        let terms = self.sink.book.terms(id);
        let filter = terms.and_then(|terms| terms.filter.as_ref()).map(Filter::as_str);
        let end = End {
            pipeline: &pipeline,
            database: &database,
            schema: &published.schema,
            table: &published.name,
            rows,
            position,
            at_us: now_us(),
            filter,
        };
        let out = &mut self.out;
        out.headers.clear();
        out.value.clear();
        write_header(topic.value_id.0, &mut out.value);
        end.write(&mut out.value);
        out.position.start(place(position));
        let ticket = self.sink.intake.begin_aside(status::now());
        let record = Record {
            topic: &topic.name,
            partition: 0,
            key: None,
            value: Some(out.value.as_slice()),
            timestamp_ms: end.at_us.div_euclid(1000),
            position: out.position.at(ordinal, 0),
            headers: &out.headers,
            ticket,
            lane: topic.lane,
        };
        let put = self.sink.put(&record).await;
        self.sink.intake.end_aside();
        put?;
        if let Some(snapshots) = &mut self.snapshots {
            // What is shown last of it stays.
            snapshots.show_one(&self.sink.book, id);
        }
        self.sink.book.closing(id, ticket);
        Ok(())
    }

    /// A number that no row of this or another life has.
    pub(super) fn next_ordinal(&mut self) -> u64 {
        self.snapshots.as_mut().map_or(0, |snapshots| {
            snapshots.ordinal += 1;
            snapshots.life << ORDINAL_BITS | snapshots.ordinal
        })
    }
}

fn meta(position: Position, now: PgTimestamp) -> RecordMeta<'static> {
    RecordMeta {
        transaction: None,
        position,
        lsn: position.commit_lsn.0,
        snapshot: Snapshot::Incremental,
        now,
        order: None,
        last_commit: None,
        origin: None,
    }
}
