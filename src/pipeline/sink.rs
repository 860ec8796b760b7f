// Hot path: `Sink::put` runs once a record.
//! The sink's side of the ring: records go out, reports come in, the books are kept, and what
//! they say is stored for the server and shown to whoever watches.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use waltide_core::delivery::Offer;
use waltide_core::intake::Intake;
use waltide_core::lsn::Lsn;
use waltide_core::pgoutput::{PgTimestamp, RelationId};
use waltide_core::snapshot::Book;
use waltide_core::watermark::Ticket;

use super::commits::{Commits, Place};
use super::desk::{Desk, Trouble};
use super::diagnosis;
use super::positions::Positions;
use super::standing::{GIVEN_UP_AFTER, SILENT_AFTER, STALLED_AFTER, Standing, Verdict};
use super::yielding::Yielding;
use crate::fault::{Code, Fault};
use crate::kafka::{Producer, Record, Refusal};
use crate::status::{Pipeline, State};

/// How often what moved is shown to whoever watches.
pub(super) const SHOW_EVERY: Duration = Duration::from_millis(250);

/// How often the books of snapshots are written anew, at most: a checkpoint is not more frequent.
const OFFER_EVERY: Duration = Duration::from_millis(100);

/// A stream of which so much can be read at once is behind.
pub(super) const BEHIND_BYTES: usize = 64 << 10;

/// How often it is looked what has come while there was no room.
const LOOKS: u8 = 2;

/// How long what is on its way is waited for when a stream ends with a failure.
const WIND_UP: Duration = Duration::from_secs(2);

/// Where records go, and the books of those on their way.
pub(super) struct Sink {
    pub(super) intake: Intake,
    pub(super) producer: Producer,
    /// The books of snapshots, which go into checkpoints together with the position.
    pub(super) book: Book,
    /// Whether they do: a pipeline without snapshots leaves alone what is written of them.
    keeps_book: bool,
    books: Option<Arc<Vec<u8>>>,
    /// Counts them.
    edition: u64,
    /// Where records count only once they are committed.
    commits: Option<Commits>,
    /// When transactions were committed whose records have arrived, and are not committed.
    arrived: Vec<(Ticket, PgTimestamp)>,
    offered_at: Instant,
    positions: Arc<Positions>,
    desk: Arc<Desk>,
    offered: Option<Offer>,
    status: Arc<Pipeline>,
    servers: Servers,
    received: Lsn,
    moved: Moved,
    /// For how long there was no room, since it was last asked.
    waited: Duration,
    /// There was none until a moment ago, and it is not known what has come meanwhile: that belongs
    /// to the Kafka transaction that has begun, not to the next. So often it is to be looked.
    looks: u8,
    /// Tables that have been read, and nobody has said so yet.
    pub(super) ended: Vec<RelationId>,
    strictness: Strictness,
    /// Whether somebody has asked for a pause, and the stream is therefore not read.
    pub(super) held: bool,
}

/// What is borne, and what ends the stream.
pub(super) struct Strictness {
    pub(super) standing: Standing,
    pub(super) yielding: Yielding,
    /// What is in the way ends the stream instead of being waited for.
    pub(super) fail_fast: bool,
}

/// Who is on both sides, for messages.
#[derive(Clone, Debug)]
pub(super) struct Servers {
    pub(super) source: String,
    pub(super) brokers: String,
}

/// What was read and handed over since it was last shown.
#[derive(Debug, Default)]
struct Moved {
    wal_bytes: u64,
    records: u64,
    record_bytes: u64,
}

impl Sink {
    pub(super) fn new(
        intake: Intake,
        producer: Producer,
        positions: Arc<Positions>,
        desk: Arc<Desk>,
        status: Arc<Pipeline>,
        servers: Servers,
        strictness: Strictness,
    ) -> Self {
        Self {
            received: intake.durable().lsn(),
            intake,
            producer,
            keeps_book: false,
            book: Book::default(),
            books: None,
            edition: 0,
            commits: None,
            arrived: Vec::new(),
            offered_at: Instant::now(),
            positions,
            desk,
            offered: None,
            status,
            servers,
            moved: Moved::default(),
            waited: Duration::ZERO,
            looks: 0,
            ended: Vec::new(),
            strictness,
            held: false,
        }
    }

    /// Keeps these books of snapshots as well.
    pub(super) fn keep(&mut self, book: Book) {
        (self.book, self.keeps_book) = (book, true);
    }

    /// Records count only once they are committed.
    pub(super) fn commit_with(&mut self, commits: Commits) {
        self.commits = Some(commits);
    }

    /// Hands a record over, waiting for room while the queue is full. What comes back meanwhile is
    /// entered into the books at once: it is what makes room, and the server is told of it.
    pub(super) async fn put(&mut self, record: &Record<'_>) -> Result<(), Fault> {
        if self.intake.is_muted() {
            return Ok(());
        }
        loop {
            match self.producer.send(record) {
                Ok(()) => break,
                Err(Refusal::Full) => {
                    let since = Instant::now();
                    self.looks = if self.commits.is_some() { LOOKS } else { 0 };
                    let _ = timeout(SHOW_EVERY, self.producer.reported()).await;
                    self.settle()?;
                    // Nobody listens to the server meanwhile, so its silence means nothing.
                    let now = Instant::now();
                    self.strictness.standing.heard(now);
                    self.waited += now.duration_since(since);
                    self.show()?;
                }
                Err(Refusal::Failed(error)) => return Err(diagnosis::of_kafka(&error)),
            }
        }
        self.intake.produced();
        let bytes = record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
        self.moved.records += 1;
        self.moved.record_bytes += bytes as u64;
        if let Some(commits) = &mut self.commits {
            let committed = || self.intake.commit_time(record.ticket);
            commits.handed(record.ticket, bytes as u64, committed);
        }
        Ok(())
    }

    /// For how long there was no room for records, since the last call.
    pub(super) fn take_waited(&mut self) -> Duration {
        std::mem::take(&mut self.waited)
    }

    /// Between messages: commits what was handed over where that is due. Never within the records
    /// of one message, or of one chunk of a table: they belong together.
    #[inline]
    pub(super) fn rest(&mut self, place: Place) -> Result<(), Fault> {
        let Some(commits) = &self.commits else { return Ok(()) };
        let news = self.keeps_book && self.book.has_changed();
        if commits.is_due(place, &self.intake, news) { self.cut() } else { Ok(()) }
    }

    #[cold]
    fn cut(&mut self) -> Result<(), Fault> {
        // They are there once this is committed; and if it is not, neither are these books.
        if !self.book.is_idle() {
            self.ended.extend(self.book.delivered(|_| true));
        }
        if self.keeps_book && self.book.has_changed() {
            self.write_books();
        }
        let Some(commits) = &mut self.commits else { return Ok(()) };
        let books = (self.books.as_ref(), self.edition);
        commits.cut(&mut self.producer, &self.intake, books).map(drop)
    }

    /// Waits until a commit is due that nothing else brings about.
    pub(super) async fn due(&self) {
        let commits = self.commits.as_ref();
        match commits.and_then(|it| it.next_look(self.intake.in_transaction())) {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    /// Nothing more will come.
    pub(super) fn hurry(&mut self) {
        if let Some(commits) = &mut self.commits {
            commits.hurry();
        }
    }

    /// Whether everything that came is delivered, and committed where that is what counts.
    pub(super) fn is_settled(&self) -> bool {
        let news = self.keeps_book && self.book.has_changed();
        let commits = self.commits.as_ref();
        self.intake.is_settled() && commits.is_none_or(|it| it.is_settled(&self.intake, news))
    }

    /// Enters what was delivered into the books, and lets the server know.
    pub(super) fn settle(&mut self) -> Result<(), Fault> {
        let reports = self.producer.take_reports().map_err(|error| diagnosis::of_kafka(&error))?;
        if !reports.is_empty() {
            self.strictness.standing.acknowledged();
        }
        let clock = self.status.server_now();
        for (ticket, count) in reports {
            match (self.intake.commit_time(*ticket), &self.commits) {
                (Some(committed), None) => self.status.delivered(committed, clock),
                (Some(committed), Some(_)) => self.arrived.push((*ticket, committed)),
                (None, _) => {}
            }
            self.intake.delivered(*ticket, *count).map_err(diagnosis::of_disorder)?;
        }
        if let Some(commits) = &mut self.commits {
            self.positions.receive(self.received);
            if let Some(done) = commits.committed(&mut self.producer, &self.intake)? {
                self.strictness.standing.acknowledged();
                self.positions.confirm(done.durable);
                self.status.checkpointed();
                let status = &self.status;
                self.arrived.retain(|(ticket, committed)| {
                    let is_in_it = *ticket <= done.upto;
                    if is_in_it {
                        status.delivered(*committed, clock);
                    }
                    !is_in_it
                });
            }
            return Ok(());
        }
        if !self.book.is_idle() {
            let intake = &self.intake;
            self.ended.extend(self.book.delivered(|ticket| intake.is_delivered(ticket)));
        }
        self.leave_word();
        Ok(())
    }

    /// Ends the sending: what has not left is dropped, and what is on its way is waited for, a
    /// little. The next connection sends the same again, and must not be overtaken by this one.
    pub(super) async fn wind_up(&mut self) {
        if self.commits.is_some() {
            // What is not committed is rolled back, and the next producer shuts this one out.
            return;
        }
        self.producer.drop_unsent();
        let arrive = async {
            while self.producer.in_flight() > 0 {
                let _ = timeout(SHOW_EVERY, self.producer.reported()).await;
                self.enter_what_arrived();
            }
            self.enter_what_arrived();
        };
        if timeout(WIND_UP, arrive).await.is_err() {
            tracing::debug!(
                pipeline = self.status.name,
                "given up while records were on their way"
            );
        }
        self.producer.abandon();
    }

    /// What arrived counts, whatever did not.
    fn enter_what_arrived(&mut self) {
        // The failure comes first, and the reports beside it with the next call.
        for _ in 0..2 {
            let Ok(reports) = self.producer.take_reports() else { continue };
            for (ticket, count) in reports {
                // Books that are wrong stay where they are: nothing more is confirmed by them.
                let _ = self.intake.delivered(*ticket, *count);
            }
        }
        let intake = &self.intake;
        self.ended.extend(self.book.delivered(|ticket| intake.is_delivered(ticket)));
        self.offer(self.keeps_book);
    }

    /// Lets the server know what was received, and the keeper what may be confirmed.
    ///
    /// A position is never older than the books beside it: what they are to remember of what was
    /// published before it must be in them. To write them anew takes its time, so it is not done
    /// with every report.
    fn leave_word(&mut self) {
        self.positions.receive(self.received);
        if self.commits.is_some() {
            return;
        }
        let changes = self.keeps_book && self.book.has_changed();
        if changes && !self.book.is_idle() && self.offered_at.elapsed() < OFFER_EVERY {
            return;
        }
        self.offer(changes);
    }

    /// Everything before the position is delivered, and the books say what is left.
    pub(super) fn offer(&mut self, changes: bool) {
        if changes {
            self.write_books();
        }
        let (durable, last) = (self.intake.durable(), self.intake.last_durable());
        let offer = Offer { durable, last, books: self.books.clone() };
        if self.offered.as_ref() != Some(&offer) {
            self.offered = Some(offer.clone());
            self.desk.offer(offer, self.edition);
        }
    }

    fn write_books(&mut self) {
        let mut bytes = Vec::new();
        self.book.encode(&mut bytes);
        self.book.take_changed();
        // The same books are no other edition: they may not be offered again.
        self.edition += u64::from(self.books.as_deref() != Some(&bytes));
        self.books = Some(Arc::new(bytes));
        self.offered_at = Instant::now();
    }

    /// Which books will have what is in them now, and which are in a checkpoint.
    pub(super) fn editions(&self) -> (u64, u64) {
        let next = self.edition + u64::from(self.book.has_changed());
        let kept = self.commits.as_ref().map_or_else(|| self.desk.kept(), Commits::kept);
        (next, kept)
    }

    /// Whether it is to be read on before anything is committed for want of more.
    pub(super) const fn is_to_look(&self) -> bool {
        self.looks > 0
    }

    /// What there is comes from elsewhere.
    pub(super) const fn looked(&mut self) {
        self.looks = 0;
    }

    /// So much has come. What came in while nobody looked may be much; when there is as much again,
    /// the stream is behind.
    pub(super) fn came(&mut self, bytes: usize) {
        let much = bytes >= BEHIND_BYTES;
        self.looks = if much { self.looks.saturating_sub(1) } else { 0 };
        let behind = much && self.looks == 0;
        if let Some(commits) = &mut self.commits {
            commits.read(behind);
        }
    }

    /// Bytes came in and are dealt with.
    pub(super) fn read(&mut self, bytes: usize) {
        self.moved.wal_bytes += bytes as u64;
        self.strictness.standing.heard(Instant::now());
    }

    /// Whether the stream has got over the failure before it, if there was one.
    pub(super) const fn is_proven(&self) -> bool {
        self.strictness.standing.is_proven()
    }

    /// Whether the stream ended to let a standby have the slot.
    pub(super) const fn has_yielded(&self) -> bool {
        self.strictness.yielding.has_yielded()
    }

    /// The stream was received up to there.
    pub(super) fn received(&mut self, lsn: Lsn) {
        self.received = self.received.max(lsn);
    }

    /// The server has sent everything up to there.
    pub(super) fn heard(
        &mut self,
        wal_end: Lsn,
        sent_at: PgTimestamp,
        reply_requested: bool,
    ) -> Result<(), Fault> {
        self.received(wal_end);
        self.intake.passed(wal_end).map_err(diagnosis::of_disorder)?;
        if !self.intake.in_transaction() {
            self.book.boundary(wal_end);
        }
        self.status.heard(wal_end, sent_at);
        self.leave_word();
        if reply_requested {
            self.positions.answer();
        }
        Ok(())
    }

    /// Shows where it stands, and what is in the way.
    ///
    /// # Errors
    /// Where that is not to be waited for.
    pub(super) fn show(&mut self) -> Result<(), Fault> {
        let Moved { wal_bytes, records, record_bytes } = std::mem::take(&mut self.moved);
        self.status.moved(wal_bytes, records, record_bytes);
        let in_flight = self.producer.in_flight();
        self.status.queue(self.producer.bytes_in_flight());
        let (durable, oldest) = match &self.commits {
            None => (self.intake.durable().lsn(), self.intake.oldest_commit()),
            Some(commits) => (commits.end(), commits.oldest().or(self.intake.oldest_commit())),
        };
        self.status.progress(self.received, durable, oldest, in_flight);
        let now = Instant::now();
        if self.held {
            // Nobody listens to the server, so its silence means nothing; what says that it is gone
            // does.
            self.strictness.standing.heard(now);
            if let Some(fault) = self.positions.lost() {
                return Err(fault);
            }
        }
        let trouble = match self.desk.trouble() {
            Some(Trouble::Lasting(fault)) => return Err(fault),
            Some(Trouble::Passing(fault)) => Some(fault),
            None => None,
        };
        let verdict = self.strictness.standing.judge(now, in_flight, durable);
        let away = trouble.is_some() || verdict == Verdict::KafkaStalled;
        // A standby would publish what is not to be published.
        let yields = self.strictness.yielding.is_due(now, away && !self.held);
        let fault = match verdict {
            Verdict::Well | Verdict::OnTrial if let Some(fault) = trouble => fault,
            Verdict::Well => {
                self.is_well();
                return Ok(());
            }
            Verdict::OnTrial => return Ok(()),
            Verdict::KafkaStalled => self.kafka_stalled(),
            Verdict::SourceSilent => diagnosis::of_silence(&self.servers.source, SILENT_AFTER),
            Verdict::SourceGone => {
                return Err(diagnosis::of_silence(&self.servers.source, GIVEN_UP_AFTER));
            }
        };
        // A client keeps the password and the certificate it was made with; new ones read them anew.
        let refused = matches!(fault.code, Code::KafkaAuthentication | Code::KafkaTls);
        if yields {
            tracing::info!(pipeline = self.status.name, "the slot is given up to a standby");
        }
        if self.strictness.fail_fast || yields || (refused && in_flight > 0) {
            return Err(fault);
        }
        match self.status.state() {
            State::Streaming | State::Paused => super::report(&self.status, &fault),
            State::Waiting(known) if known.code != fault.code => {
                super::report(&self.status, &fault);
            }
            _ => {}
        }
        Ok(())
    }

    /// Nothing is in the way: changes flow, or rest where somebody has asked for it.
    fn is_well(&self) {
        let rests = self.held && self.intake.is_settled();
        let well = if rests { State::Paused } else { State::Streaming };
        let now = self.status.state();
        if now == well || matches!(now, State::Draining | State::Stopped(_)) {
            return;
        }
        let said = if rests { "paused: nothing is published" } else { "changes flow again" };
        tracing::info!(pipeline = self.status.name, "{said}");
        self.status.enter(well);
    }

    fn kafka_stalled(&self) -> Fault {
        let said = self.producer.complaint().unwrap_or_else(|| {
            format!("no record was acknowledged for {} s", STALLED_AFTER.as_secs())
        });
        diagnosis::of_stall(&self.servers.brokers, &said)
    }
}
