//! What the server is told, and the task that tells it.
//!
//! A server that hears nothing for `wal_sender_timeout` ends the connection, so feedback may not
//! wait for anything: not for Kafka, not for the registry, not for a row of a gigabyte. The owner
//! of the pipeline only stores numbers here; a task of the control runtime, on another thread,
//! sends them.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval};
use waltide_core::lsn::{DurableLsn, Lsn};

use crate::fault::Fault;
use crate::postgres::{Error, StreamWriter};

/// How often a moved position is worth a message.
const MOVED_EVERY: Duration = Duration::from_millis(200);

/// The longest silence. A second is what `wal_sender_timeout` at its smallest useful values needs.
const SILENCE: Duration = Duration::from_millis(900);

/// How often the server is asked for a sign of life: without changes it has nothing to say.
const ASKED_EVERY: Duration = Duration::from_secs(2);

/// Positions on their way from the owner to the server.
#[derive(Debug)]
pub(super) struct Positions {
    received: AtomicU64,
    durable: AtomicU64,
    asked: Notify,
    lost: OnceLock<Fault>,
}

impl Positions {
    pub(super) fn starting(at: DurableLsn) -> Self {
        Self {
            received: AtomicU64::new(at.lsn().0),
            durable: AtomicU64::new(at.lsn().0),
            asked: Notify::new(),
            lost: OnceLock::new(),
        }
    }

    /// The stream was received up to there.
    pub(super) fn receive(&self, received: Lsn) {
        self.received.fetch_max(received.0, Ordering::Relaxed);
    }

    /// Everything before there is delivered and written down.
    pub(super) fn confirm(&self, durable: DurableLsn) {
        self.durable.fetch_max(durable.lsn().0, Ordering::Relaxed);
    }

    /// The server wants to hear from us now.
    pub(super) fn answer(&self) {
        self.asked.notify_one();
    }

    /// The connection is of no use any more, or stands in the way of a server that shuts down.
    pub(super) fn lose(&self, why: Fault) {
        // The first reason counts.
        let _ = self.lost.set(why);
    }

    /// Why the connection is of no use any more. An owner that reads from it knows without this.
    pub(super) fn lost(&self) -> Option<Fault> {
        self.lost.get().cloned()
    }

    fn load(&self) -> (Lsn, DurableLsn) {
        let durable = Lsn(self.durable.load(Ordering::Relaxed));
        let received = Lsn(self.received.load(Ordering::Relaxed)).max(durable);
        (received, DurableLsn::proven(durable))
    }
}

/// Tells the server where we are until the connection ends.
pub(super) async fn tell(writer: &mut StreamWriter, positions: &Positions) -> Result<(), Error> {
    let mut tick = interval(MOVED_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = None;
    let (mut last, mut last_asked) = (Instant::now(), Instant::now());
    loop {
        let asked = tokio::select! {
            _ = tick.tick() => false,
            () = positions.asked.notified() => true,
        };
        let now = positions.load();
        let ask = last_asked.elapsed() >= ASKED_EVERY;
        if ask {
            last_asked = Instant::now();
        }
        if ask || asked || told != Some(now) || last.elapsed() >= SILENCE {
            send(writer, now, ask).await?;
            told = Some(now);
            last = Instant::now();
        }
    }
}

/// Tells the server where we are, once.
pub(super) async fn tell_last(
    writer: &mut StreamWriter,
    positions: &Positions,
) -> Result<(), Error> {
    send(writer, positions.load(), false).await
}

async fn send(
    writer: &mut StreamWriter,
    (received, durable): (Lsn, DurableLsn),
    ask: bool,
) -> Result<(), Error> {
    writer.status_update(received, durable, durable, ask).await
}
