// Hot path: `Engine::apply` runs once a message.
//! One owner carries changes from the socket to the producer and positions back.
//!
//! ```text
//!   socket -> frame -> message -> intake (which transaction, which row)
//!                                   |-> route (plan, topic, ids) -> Avro bytes -> producer
//!   server <- positions <- watermark <- delivery reports
//! ```
//!
//! Everything that decides runs here, on one thread, without locks. What must not wait for it
//! (telling the server where we are) runs elsewhere and only reads numbers. Rows are read as fast
//! as the producer has room: when its queue is full the owner waits for reports, nothing is read
//! from the socket, and the server slows down.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use waltide_core::change::Row;
use waltide_core::logical::Form;
use waltide_core::lsn::Lsn;
use waltide_core::pgoutput::{
    Begin, Commit, Decoder, Frame, Message, Relation, RelationBody, RelationCache, Truncate,
};

use super::commits::Place;
use super::diagnosis;
use super::heartbeats::Heartbeats;
use super::messages::Messages;
use super::pace::Pace;
use super::routes::{Compiler, Known};
use super::rows::Buffers;
use super::sink::{BEHIND_BYTES, SHOW_EVERY, Sink};
use super::snapshot::{self, Snapshots};
use super::stopwatch::Stopwatch;
use super::streamed::Streamed;
use super::transactions::{Means, Transactions};
use crate::control::{Asked, Orders};
use crate::fault::Fault;
use crate::postgres::StreamReader;
use crate::status::{Pipeline, State};

/// How long a daemon that was asked to end waits for the open transaction and for Kafka. Kubernetes
/// kills after 30 s.
const DRAIN: Duration = Duration::from_secs(20);

/// Why a stream ended without a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Everything that was read is delivered.
    Drained,
    /// Time ran out; what is not confirmed is read again by the next start.
    OutOfTime,
}

/// The owner of one connection's stream.
pub(super) struct Engine {
    pub(super) sink: Sink,
    pub(super) relations: RelationCache<Known>,
    pub(super) out: Buffers,
    pub(super) compiler: Compiler,
    /// Where they are told of, if that is wanted.
    pub(super) transactions: Option<Transactions>,
    /// Where messages go, if they are wanted.
    pub(super) messages: Option<Messages>,
    pub(super) heartbeats: Option<Heartbeats>,
    /// Where the rows that were there before are read, if that is wanted.
    pub(super) snapshots: Option<Box<Snapshots>>,
    /// Transactions that come before they are committed.
    pub(super) streamed: Streamed,
    /// It was asked to end, or to make room for another stream, and begins nothing new.
    pub(super) draining: bool,
    /// Who asks for the end.
    shutdown: Option<watch::Receiver<bool>>,
    /// That, or somebody has asked for a pause.
    resting: bool,
    pub(super) status: Arc<Pipeline>,
    /// Where the transaction before this one ends.
    pub(super) last_commit: Option<Lsn>,
    decoder: Decoder,
}

impl Engine {
    pub(super) fn new(
        sink: Sink,
        compiler: Compiler,
        snapshots: Option<Box<Snapshots>>,
        status: Arc<Pipeline>,
    ) -> Self {
        let told = compiler.settings.transactions;
        let transactions = told.then(|| Transactions::new(compiler.common_options().profile));
        let wanted = compiler.settings.messages;
        let messages = wanted.then(|| Messages::new(Form::new(&compiler.common_options())));
        let heartbeats = Heartbeats::new(&compiler.settings, compiler.common_options().profile);
        Self {
            sink,
            heartbeats,
            snapshots,
            streamed: Streamed::default(),
            draining: false,
            shutdown: None,
            resting: false,
            transactions,
            messages,
            relations: RelationCache::new(),
            out: Buffers::default(),
            status,
            last_commit: None,
            compiler,
            decoder: Decoder::new(),
        }
    }

    /// Whether it was asked to end, and may not have seen it yet.
    pub(super) fn is_to_end(&self) -> bool {
        self.shutdown.as_ref().is_some_and(|asked| *asked.borrow())
    }

    /// Gives back what outlives the connection.
    pub(super) fn into_compiler(self) -> Compiler {
        self.compiler
    }

    /// Streams until asked to end, then delivers what it holds.
    pub(super) async fn run(
        &mut self,
        reader: &mut StreamReader,
        shutdown: &watch::Receiver<bool>,
        orders: &mut Orders,
    ) -> Result<Ended, Fault> {
        self.shutdown = Some(shutdown.clone());
        let mut asked = shutdown.clone();
        let out_of_time = async {
            // A sender that is gone asks for nothing.
            match asked.wait_for(|asked| *asked).await {
                Ok(_) => sleep_until(Instant::now() + DRAIN).await,
                Err(_) => std::future::pending().await,
            }
        };
        let mut asked = shutdown.clone();
        tokio::select! {
            ended = self.stream(reader, &mut asked, orders) => ended.map(|()| Ended::Drained),
            () = out_of_time => Ok(Ended::OutOfTime),
        }
    }

    async fn stream(
        &mut self,
        reader: &mut StreamReader,
        shutdown: &mut watch::Receiver<bool>,
        orders: &mut Orders,
    ) -> Result<(), Fault> {
        let mut show = interval(SHOW_EVERY);
        show.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pace = Pace::new();
        let mut stopwatch = Stopwatch::start();
        loop {
            self.sink.settle()?;
            // What is begun is delivered with the settings it was begun with.
            self.draining |= orders.renewed();
            let draining = self.draining;
            if draining {
                self.sink.hurry();
            }
            if !self.sink.is_to_look() {
                self.sink.rest(Place::CaughtUp)?;
            }
            if draining && self.sink.is_settled() {
                self.sink.offer(self.snapshots.is_some());
                return self.show();
            }
            let paused = orders.paused();
            if self.sink.held && !paused && !draining {
                // What was read before the pause is not behind anything that will be read.
                self.sink.held = false;
                self.drain(reader, draining).await?;
                self.worked(&mut stopwatch);
            }
            self.sink.held = paused && !self.sink.intake.in_transaction();
            let resting = draining || paused;
            self.resting = resting;
            if self.snapshots.is_some() && !paused {
                stopwatch.waited(self.status.stages());
                Box::pin(self.advance_snapshots()).await?;
                self.worked(&mut stopwatch);
            }
            // An open transaction is read to its end even while resting: left half-way, all of it
            // would be repeated.
            let publishing = self.streamed.is_publishing();
            let reading = !publishing && (!resting || self.sink.intake.in_transaction());
            tokio::select! {
                biased;
                // Reports first: they cost little and make room.
                () = self.sink.producer.reported() => {}
                _ = shutdown.wait_for(|asked| *asked), if !draining => {
                    self.draining = true;
                    self.status.enter(State::Draining);
                }
                asked = orders.next(), if !draining => self.obey(asked),
                () = self.sink.due(), if !self.sink.is_to_look() => {}
                _ = show.tick() => {
                    stopwatch.waited(self.status.stages());
                    self.show()?;
                    if !resting {
                        self.beat().await?;
                    }
                }
                // Few, and a stream that is always ready must not keep them waiting.
                Some(event) = snapshot::event(&mut self.snapshots), if !resting => {
                    if let Some(snapshots) = &mut self.snapshots {
                        snapshots.enter(&mut self.sink.book, event);
                    }
                }
                read = pace.fill(reader), if reading => {
                    let count = read.map_err(|error| diagnosis::of_source(&error))?;
                    if let Some(snapshots) = &mut self.snapshots {
                        snapshots.behind = count >= BEHIND_BYTES;
                    }
                    stopwatch.waited(self.status.stages());
                    self.sink.came(count);
                    self.drain(reader, resting).await?;
                    self.worked(&mut stopwatch);
                    self.sink.read(count);
                }
                // Nothing has come meanwhile.
                () = std::future::ready(()), if self.sink.is_to_look() && !publishing => {
                    self.sink.came(0);
                }
                // Nothing waits for it, so all else has its turn before.
                () = std::future::ready(()), if publishing => {
                    stopwatch.waited(self.status.stages());
                    self.sink.looked();
                    Box::pin(self.publish_some()).await?;
                    self.worked(&mut stopwatch);
                }
            }
        }
    }

    /// Does what somebody has asked for.
    fn obey(&mut self, asked: Option<Asked>) {
        // A wish is seen by whoever looks.
        let Some(asked) = asked.filter(Asked::is_wanted) else { return };
        match &mut self.snapshots {
            Some(snapshots) => snapshots.obey(&mut self.sink.book, asked),
            None => asked.answer(Err(snapshot::never(&self.status.name))),
        }
    }

    fn worked(&mut self, stopwatch: &mut Stopwatch) {
        let (kafka, schemas) = (self.sink.take_waited(), self.compiler.take_waited());
        stopwatch.worked(self.status.stages(), kafka, schemas);
    }

    /// Applies what is in the reader's buffer.
    async fn drain(&mut self, reader: &mut StreamReader, resting: bool) -> Result<(), Fault> {
        while let Some(payload) = reader.next_frame() {
            let payload = payload.map_err(|error| diagnosis::of_source(&error))?;
            self.apply(payload).await?;
            let between = resting && !self.sink.intake.in_transaction();
            if between || self.streamed.holds_up() {
                break;
            }
        }
        Ok(())
    }

    pub(super) fn show(&mut self) -> Result<(), Fault> {
        if let Some(spool) = &self.streamed.spool {
            let (bytes, open, oldest) = spool.standing();
            self.status.spooled(bytes, open, oldest);
        }
        let counts = self.relations.payloads_mut().filter_map(|known| match known {
            Known::Captured(route) => route.take_counts(),
            Known::Described | Known::LeftOut => None,
        });
        self.status.published(counts);
        if let Some(snapshots) = &mut self.snapshots {
            self.sink.ended.drain(..).for_each(|table| snapshots.ended(&self.sink.book, table));
            snapshots.show(&self.sink.book);
            snapshots.answer(self.sink.editions());
        }
        self.sink.show()
    }

    async fn apply(&mut self, payload: &[u8]) -> Result<(), Fault> {
        match Frame::decode(payload).map_err(|error| diagnosis::of_bytes(&error))? {
            Frame::XLogData { start, sent_at, body, .. } => {
                self.sink.received(start);
                let in_stream = self.decoder.context().in_stream;
                let message = self.decoder.decode(body);
                let message = message.map_err(|error| diagnosis::of_bytes(&error))?;
                if in_stream {
                    return self.keep(&message, body, start);
                }
                match &message {
                    Message::Logical(_, logical) => Box::pin(self.logical(logical, sent_at)).await,
                    Message::StreamStart { .. }
                    | Message::StreamCommit(..)
                    | Message::StreamAbort(_) => self.open_transaction(&message, sent_at),
                    message => self.message(message, start).await,
                }
            }
            Frame::Keepalive { wal_end, sent_at, reply_requested } => {
                self.sink.heard(wal_end, sent_at, reply_requested)
            }
        }
    }

    pub(super) async fn message(&mut self, message: &Message<'_>, lsn: Lsn) -> Result<(), Fault> {
        self.sink.intake.sees(message);
        self.deal_with(message, lsn).await?;
        self.sink.rest(Place::Midway)
    }

    async fn deal_with(&mut self, message: &Message<'_>, lsn: Lsn) -> Result<(), Fault> {
        match message {
            Message::Insert(_, relation, new) => self.row(*relation, lsn, Row::Insert(*new)).await,
            Message::Update(_, relation, old, new) => {
                self.row(*relation, lsn, Row::Update { old: *old, new: *new }).await
            }
            Message::Delete(_, relation, old) => self.row(*relation, lsn, Row::Delete(*old)).await,
            Message::Begin(begin) => {
                self.note_awaited(begin.xid);
                self.begin(begin)
            }
            Message::Commit(commit) => self.commit(commit).await,
            Message::Truncate(_, truncate) => self.truncates(truncate, lsn).await,
            Message::Relation(_, body) => self.relation(body),
            // The catalog names types; origins are not filtered.
            Message::Type(..) | Message::Origin(_) => Ok(()),
            other => Err(diagnosis::of_message(other)),
        }
    }

    pub(super) fn begin(&mut self, begin: &Begin) -> Result<(), Fault> {
        self.out.position.start(begin.commit_lsn.0);
        self.sink.book.begin(begin.xid);
        self.sink.intake.begin(begin).map_err(diagnosis::of_disorder)
    }

    pub(super) async fn commit(&mut self, commit: &Commit) -> Result<(), Fault> {
        if let Some(transactions) = &mut self.transactions {
            // What only repeats has no place, and was not begun either.
            if let Some(place) = self.sink.intake.behind().map_err(diagnosis::of_disorder)? {
                let (compiler, sink, out) = (&mut self.compiler, &mut self.sink, &mut self.out);
                transactions.end(Means { compiler, sink, out }, &place).await?;
            }
        }
        self.sink.received(commit.end_lsn.0);
        self.last_commit = Some(commit.end_lsn.0);
        self.sink.intake.commit(commit).map_err(diagnosis::of_disorder)?;
        self.sink.book.boundary(commit.end_lsn.0);
        let due = self.snapshots.as_ref().is_some_and(|of| of.is_due(&self.sink.book));
        if self.sink.book.is_idle() || self.resting || !due {
            return Ok(());
        }
        // A stream that is far behind is rarely read up to a boundary and no further.
        Box::pin(self.advance_snapshots()).await
    }

    async fn truncates(&mut self, truncate: &Truncate<'_>, lsn: Lsn) -> Result<(), Fault> {
        let Some(place) = self.sink.intake.row().map_err(diagnosis::of_disorder)? else {
            return Ok(());
        };
        let mut sub_index = 0;
        for relation in truncate.relations() {
            sub_index = self.truncate(relation, lsn, &place, sub_index).await?;
        }
        Ok(())
    }

    /// The server describes a relation before its first row, and again after every change of it.
    fn relation(&mut self, body: &RelationBody<'_>) -> Result<(), Fault> {
        let relation = Relation::from(body);
        if let Some(snapshots) = &mut self.snapshots {
            snapshots.described(&mut self.sink.book, &relation);
        }
        if let Some((known, Known::Captured(_))) = self.relations.before(relation.id)
            && *known != relation
        {
            self.status.schema_changed();
        }
        // What was counted for the description that this one replaces must not be lost.
        self.show()?;
        let inserted = self.relations.insert(relation, Known::Described);
        inserted.map_err(diagnosis::of_too_many_relations)
    }
}
