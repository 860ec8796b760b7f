//! Looks at the source from outside, while it is streamed from: what the server keeps for the
//! slot, how far the server has gone on, and whether tables have come to match.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::diagnosis;
use super::positions::Positions;
use super::source::{self, ANSWER, answered};
use crate::config::settled::Source;
use crate::postgres::{Connection, Error, Mode, Params, SqlState, WalStatus};
use crate::status::{Pipeline, SlotHealth};

/// How often. Prometheus scrapes every 15 s or so.
const EVERY: Duration = Duration::from_secs(5);

/// How often it connects anew: a certificate that was renewed shows only then.
const ANEW: Duration = Duration::from_secs(3600);

/// Watches until it is dropped. Its own failures end nothing.
pub(super) async fn watch_source(
    params: Params,
    source: Source,
    positions: Arc<Positions>,
    status: Arc<Pipeline>,
) {
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut connection: Option<Connection> = None;
    // Said once, and again when it is another failure.
    let mut said = None;
    let mut opened_at = Instant::now();
    loop {
        tick.tick().await;
        let opened = match connection.take() {
            Some(open) => Ok(open),
            None => {
                opened_at = Instant::now();
                Connection::open(&params, Mode::Plain).await
            }
        };
        let mut open = match opened {
            Ok(open) => open,
            Err(error) => {
                tracing::debug!(%error, "cannot look at the source");
                // A server that shuts down waits until its log is read, for ever where a pipeline
                // that is paused does not read it.
                if error.sqlstate() == Some(SqlState::CANNOT_CONNECT_NOW) {
                    positions.lose(diagnosis::of_source(&error));
                }
                continue;
            }
        };
        status.certificate_seen(open.certificate_expires());
        let peer = open.peer().clone();
        if let Err(error) = answered(ANSWER, &peer, look(&mut open, &source.slot, &status)).await {
            tracing::debug!(%error, "cannot look at the slot");
            continue;
        }
        match timeout(ANSWER, source::cover(&mut open, &source)).await {
            // A connection with half an answer on it is of no use.
            Err(_) => continue,
            Ok(Ok(())) => said = None,
            Ok(Err(fault)) if said.as_ref() != Some(&fault) => {
                let (code, mend) = (fault.code.id(), &fault.mend);
                tracing::warn!(pipeline = status.name, code, mend, "{}", fault.what);
                said = Some(fault);
            }
            Ok(Err(_)) => {}
        }
        connection = Some(open).filter(|_| opened_at.elapsed() < ANEW);
    }
}

async fn look(on: &mut Connection, name: &str, status: &Pipeline) -> Result<(), Error> {
    let end = on.current_wal_lsn().await?;
    let Some(slot) = on.read_slot(name).await? else { return Ok(()) };
    let word = |status: &WalStatus| match status {
        WalStatus::Reserved => "reserved".to_owned(),
        WalStatus::Extended => "extended".to_owned(),
        WalStatus::Unreserved => "unreserved".to_owned(),
        WalStatus::Lost => "lost".to_owned(),
        WalStatus::Other(word) => word.clone(),
    };
    let health = SlotHealth {
        retained_bytes: slot.restart_lsn.map(|restart| end.bytes_since(restart)),
        safe_bytes: slot.safe_wal_size,
        wal_status: slot.wal_status.as_ref().map(word),
    };
    status.slot_seen(health, end);
    Ok(())
}
