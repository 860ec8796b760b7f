// Hot path: `Commits::handed` and `Commits::is_due` run once a record and once a message.
//! When records are published exactly once: a checkpoint is the last record of the Kafka
//! transaction that has the records it covers, so a reader of committed records sees both or
//! neither, and so does the next start.
//!
//! ```text
//!   records of whole transactions -> checkpoint -> commit -> positions -> server
//! ```
//!
//! A transaction is cut as soon as the stream has nothing more to say, and what comes while its
//! records are on their way goes into the next one: batches grow because work is waiting. While the
//! stream is behind a commit may take a tenth of the time. It falls between two transactions where
//! it can; a transaction that is larger than that is published in parts.
//!
//! Every failure ends the stream, for a producer that does not know what became of a commit is of
//! no use: the next start makes another, which shuts this one out, and then reads the checkpoint.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use waltide_core::checkpoint::Checkpoint;
use waltide_core::delivery::Commit;
use waltide_core::intake::Intake;
use waltide_core::lsn::DurableLsn;
use waltide_core::pgoutput::PgTimestamp;
use waltide_core::watermark::Ticket;

use super::desk::Desk;
use super::diagnosis;
use super::keeper::{Memory, seen};
use crate::fault::Fault;
use crate::kafka::{Ends, Producer, Refusal};

/// While the stream is behind, one commit in so many times as long as it takes.
const COMMIT_SHARE: u32 = 10;

/// The shortest and the longest time between two commits while it is: consumers of committed
/// records see nothing in between.
const BULK: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(1)];

/// Bytes after which a commit is due whatever the time.
const LARGE_BYTES: u64 = 64 << 20;

/// How many records may come between two looks at the clock.
const LOOK_EVERY: u64 = 32;

/// Bytes of checkpoints a second: with thousands of topics one is large, and commits are rarer.
const BYTES_PER_SECOND: u32 = 4 << 20;

/// The shortest time before a checkpoint that has no records with it.
const IDLE: Duration = Duration::from_millis(200);

/// The longest without any. A pipeline with nothing to say shows that it could.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// A Kafka transaction that is cut, and not known to be committed.
struct Sealed {
    at: Instant,
    /// When the first of what is in it was committed at the source.
    committed: Option<PgTimestamp>,
    /// The last transaction of the source that has records in it.
    upto: Ticket,
    /// Which books are in it.
    edition: u64,
}

/// What has come to be committed.
pub(super) struct Done {
    /// The server may be told this much.
    pub(super) durable: DurableLsn,
    /// The last transaction of the source that has records in it.
    pub(super) upto: Ticket,
}

/// The Kafka transaction that is open, and those that are being committed.
pub(super) struct Commits {
    memory: Memory,
    desk: Arc<Desk>,
    ends: Ends,
    /// What is committed, and what is on its way.
    commit: Commit,
    records: u64,
    bytes: u64,
    /// When the first record was handed over, and when its transaction was committed at the source.
    opened: Option<(Instant, Option<PgTimestamp>)>,
    /// Whose the last record was.
    upto: Ticket,
    sealed: VecDeque<Sealed>,
    /// When the last one was cut, and how long one took.
    cut_at: Instant,
    took: Duration,
    /// The last checkpoint was so large.
    not_before: Instant,
    /// The stream is behind.
    behind: bool,
    /// It ends: whatever there is to write is written now.
    hurried: bool,
    /// Which books are in a checkpoint.
    kept: u64,
}

/// Where the stream is when it is asked whether a commit is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Behind a message, and more may be at hand.
    Midway,
    /// All that has come is dealt with.
    CaughtUp,
}

impl Commits {
    pub(super) fn new(memory: Memory, last: Checkpoint, desk: Arc<Desk>, ends: Ends) -> Self {
        let now = Instant::now();
        Self {
            memory,
            desk,
            ends,
            commit: Commit::new(last),
            records: 0,
            bytes: 0,
            opened: None,
            upto: Ticket(0),
            sealed: VecDeque::new(),
            cut_at: now,
            took: Duration::ZERO,
            not_before: now,
            behind: false,
            hurried: false,
            kept: 0,
        }
    }

    /// A record was handed over; `committed` is asked only for the first.
    #[inline]
    pub(super) fn handed(
        &mut self,
        ticket: Ticket,
        bytes: u64,
        committed: impl FnOnce() -> Option<PgTimestamp>,
    ) {
        if self.records == 0 {
            self.opened = Some((Instant::now(), committed()));
        }
        self.upto = ticket;
        self.records += 1;
        self.bytes += bytes;
    }

    /// So much could be read at once.
    pub(super) const fn read(&mut self, behind: bool) {
        self.behind = behind;
    }

    /// Nothing more will come.
    pub(super) const fn hurry(&mut self) {
        self.hurried = true;
    }

    /// Whether to commit here, behind a message.
    #[inline]
    pub(super) fn is_due(&self, place: Place, intake: &Intake, news: bool) -> bool {
        if self.commit.is_full() {
            return false;
        }
        if self.records == 0 {
            return place == Place::CaughtUp && self.is_idle_due(intake, news);
        }
        if place == Place::Midway
            && self.bytes < LARGE_BYTES
            && !self.records.is_multiple_of(LOOK_EVERY)
        {
            return false;
        }
        self.is_time(place, intake)
    }

    fn is_time(&self, place: Place, intake: &Intake) -> bool {
        let now = Instant::now();
        let open = intake.in_transaction();
        if now < self.not_before || (open && !intake.may_part()) {
            return false;
        }
        let quiet = place == Place::CaughtUp && !open && !self.behind;
        let age = self.opened.map_or(Duration::ZERO, |(at, _)| now.duration_since(at));
        // A little later there may be an end of a transaction to do it at.
        let patience = if open { 2 } else { 1 };
        quiet
            || age >= self.interval() * patience
            || self.bytes >= LARGE_BYTES * u64::from(patience)
            || (self.hurried && !open)
    }

    fn interval(&self) -> Duration {
        let [least, most] = BULK;
        (self.took * COMMIT_SHARE).clamp(least, most)
    }

    /// A checkpoint without records: the position has moved, or time has passed.
    fn is_idle_due(&self, intake: &Intake, news: bool) -> bool {
        let now = Instant::now();
        if intake.in_transaction() || now < self.not_before {
            return false;
        }
        let since = now.duration_since(self.cut_at);
        let moved = news || self.commit.is_behind(&intake.handed_over());
        since >= HEARTBEAT || (moved && (since >= IDLE || self.hurried))
    }

    /// When it is to be asked again; none where something else will be the reason for that.
    pub(super) fn next_look(&self, in_transaction: bool) -> Option<Instant> {
        let (at, _) = self.opened.filter(|_| !self.commit.is_full() && !in_transaction)?;
        let due = if self.behind { at + self.interval() } else { at };
        Some(due.max(self.not_before))
    }

    /// Commits what was handed over; false where there is no room for the checkpoint just now.
    pub(super) fn cut(
        &mut self,
        producer: &mut Producer,
        intake: &Intake,
        (books, edition): (Option<&Arc<Vec<u8>>>, u64),
    ) -> Result<bool, Fault> {
        let seen = seen(&self.ends, &self.desk);
        let books = books.map(|books| books.as_slice());
        let Some(next) = self.commit.cut(intake.handed_over(), books, seen) else {
            return Ok(false);
        };
        let mut bytes = Vec::new();
        next.encode(&mut bytes);
        let (end, progress) = (next.end_lsn.0, next.progress);
        match producer.commit_with(self.memory.topic.name(), &self.memory.key, &bytes) {
            Ok(()) => {}
            Err(Refusal::Full) => {
                self.commit.not_sent();
                return Ok(false);
            }
            Err(Refusal::Failed(error)) => return Err(diagnosis::of_kafka(&error)),
        }
        let now = Instant::now();
        tracing::trace!(records = self.records, bytes = self.bytes, %end, ?progress, "commit");
        let committed = self.opened.take().and_then(|(_, committed)| committed);
        self.sealed.push_back(Sealed { at: now, committed, upto: self.upto, edition });
        (self.records, self.bytes, self.cut_at) = (0, 0, now);
        let size = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.not_before = now + Duration::from_secs(1) * size / BYTES_PER_SECOND;
        Ok(true)
    }

    /// What has been committed since this was last asked; none where nothing has.
    pub(super) fn committed(
        &mut self,
        producer: &mut Producer,
        intake: &Intake,
    ) -> Result<Option<Done>, Fault> {
        let Some(outcome) = producer.committed() else { return Ok(None) };
        outcome.map_err(|error| diagnosis::of_kafka(&error))?;
        // All of its reports are in the books.
        let told = self.commit.committed(intake.durable());
        let told = told.map_err(|behind| diagnosis::of_books(&behind))?;
        let (Some(durable), Some(sealed)) = (told, self.sealed.pop_front()) else {
            return Ok(None);
        };
        (self.took, self.kept) = (sealed.at.elapsed(), sealed.edition);
        Ok(Some(Done { durable, upto: sealed.upto }))
    }

    /// Which books are in a checkpoint.
    pub(super) const fn kept(&self) -> u64 {
        self.kept
    }

    /// Everything before this position is committed.
    pub(super) const fn end(&self) -> waltide_core::lsn::Lsn {
        self.commit.end()
    }

    /// Whether nothing is left to be written.
    pub(super) fn is_settled(&self, intake: &Intake, news: bool) -> bool {
        self.records == 0 && self.commit.is_settled(&intake.handed_over()) && !news
    }

    /// When the oldest of what is not committed was committed at the source.
    pub(super) fn oldest(&self) -> Option<PgTimestamp> {
        let sealed = self.sealed.iter().find_map(|sealed| sealed.committed);
        sealed.or(self.opened.and_then(|(_, committed)| committed))
    }
}
