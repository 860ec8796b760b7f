// Hot path: `Sink::put` runs once a record.
//! The sink's side of the ring: records go out, reports come in, the books are kept, and what
//! they say is stored for the server and shown to whoever watches.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use waltide_core::intake::Intake;
use waltide_core::lsn::Lsn;
use waltide_core::pgoutput::PgTimestamp;

use super::diagnosis;
use super::positions::Positions;
use crate::fault::Fault;
use crate::kafka::{Producer, Record, Refusal};
use crate::status::{Pipeline, State};

/// How often what moved is shown to whoever watches.
pub(super) const SHOW_EVERY: Duration = Duration::from_millis(250);

/// Records in flight and no report for so long: the sink is said to be in the way. A broker that
/// is restarted in an orderly way is back sooner; `run` promises to name what is wrong in ten.
const STALLED_AFTER: Duration = Duration::from_secs(5);

/// Where records go, and the books of those on their way.
pub(super) struct Sink {
    pub(super) intake: Intake,
    pub(super) producer: Producer,
    positions: Arc<Positions>,
    status: Arc<Pipeline>,
    brokers: String,
    received: Lsn,
    moved: Moved,
    /// Since when records have been waiting without a report.
    waiting_since: Option<Instant>,
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
        status: Arc<Pipeline>,
        brokers: String,
    ) -> Self {
        Self {
            received: intake.durable().lsn(),
            intake,
            producer,
            positions,
            status,
            brokers,
            moved: Moved::default(),
            waiting_since: None,
        }
    }

    /// Hands a record over, waiting for room while the queue is full. What comes back meanwhile is
    /// entered into the books at once: it is what makes room, and the server is told of it.
    pub(super) async fn put(&mut self, record: &Record<'_>) -> Result<(), Fault> {
        loop {
            match self.producer.send(record) {
                Ok(()) => break,
                Err(Refusal::Full) => {
                    let _ = timeout(SHOW_EVERY, self.producer.reported()).await;
                    self.settle()?;
                    self.show();
                }
                Err(Refusal::Failed(error)) => return Err(diagnosis::of_kafka(&error)),
            }
        }
        self.intake.produced();
        self.moved.records += 1;
        self.moved.record_bytes += record.key.map_or(0, <[u8]>::len) as u64;
        self.moved.record_bytes += record.value.map_or(0, <[u8]>::len) as u64;
        Ok(())
    }

    /// Enters what was delivered into the books, and lets the server know.
    pub(super) fn settle(&mut self) -> Result<(), Fault> {
        let reports = self.producer.take_reports().map_err(|error| diagnosis::of_kafka(&error))?;
        if !reports.is_empty() {
            self.waiting_since = None;
        }
        for (ticket, count) in reports {
            self.intake.delivered(*ticket, *count).map_err(diagnosis::of_disorder)?;
        }
        self.positions.store(self.received, self.intake.durable());
        Ok(())
    }

    /// Bytes came in.
    pub(super) fn read(&mut self, bytes: usize) {
        self.moved.wal_bytes += bytes as u64;
    }

    /// The stream was received up to there.
    pub(super) fn received(&mut self, lsn: Lsn) {
        self.received = self.received.max(lsn);
    }

    /// The server has sent everything up to there.
    pub(super) fn heard(&mut self, wal_end: Lsn, sent_at: PgTimestamp, reply_requested: bool) {
        self.received(wal_end);
        self.intake.passed(wal_end);
        self.status.heard(wal_end, sent_at);
        self.positions.store(self.received, self.intake.durable());
        if reply_requested {
            self.positions.answer();
        }
    }

    /// Shows where it stands, and whether Kafka is in the way.
    pub(super) fn show(&mut self) {
        let Moved { wal_bytes, records, record_bytes } = std::mem::take(&mut self.moved);
        self.status.moved(wal_bytes, records, record_bytes);
        let in_flight = self.producer.in_flight();
        let durable = self.intake.durable().lsn();
        self.status.progress(self.received, durable, self.intake.oldest_commit(), in_flight);
        if in_flight == 0 {
            self.waiting_since = None;
        } else {
            self.waiting_since.get_or_insert_with(Instant::now);
        }
        let waited = self.waiting_since.map_or(Duration::ZERO, |since| since.elapsed());
        match (self.status.state(), waited >= STALLED_AFTER) {
            (State::Streaming, true) => self.stalled(),
            (State::Waiting(_), false) => {
                tracing::info!(pipeline = self.status.name, "Kafka takes records again");
                self.status.enter(State::Streaming);
            }
            _ => {}
        }
    }

    fn stalled(&self) {
        let said = self.producer.complaint().unwrap_or_else(|| {
            format!("no record was acknowledged for {} s", STALLED_AFTER.as_secs())
        });
        super::report(&self.status, &diagnosis::of_stall(&self.brokers, &said));
    }
}
