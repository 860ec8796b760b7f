//! Looks at the slot from outside, while it is streamed from: what the server keeps for it, and
//! how far the server has gone on.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use waltide_core::lsn::Lsn;

use crate::postgres::{Connection, Error, Mode, Params, WalStatus};
use crate::status::{Pipeline, SlotHealth};

/// How often. Prometheus scrapes every 15 s or so.
const EVERY: Duration = Duration::from_secs(5);

/// Watches until it is dropped. It only informs: its own failures end nothing.
pub(super) async fn watch_slot(params: Params, slot: String, status: Arc<Pipeline>) {
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut connection: Option<Connection> = None;
    loop {
        tick.tick().await;
        let looked = match connection.as_mut() {
            Some(open) => look(open, &slot, &status).await,
            None => match Connection::open(&params, Mode::Plain).await {
                Ok(mut fresh) => {
                    let looked = look(&mut fresh, &slot, &status).await;
                    connection = Some(fresh);
                    looked
                }
                Err(error) => Err(error),
            },
        };
        if let Err(error) = looked {
            tracing::debug!(%error, "cannot look at the slot");
            connection = None;
        }
    }
}

async fn look(on: &mut Connection, name: &str, status: &Pipeline) -> Result<(), Error> {
    let end = on.simple_query("SELECT pg_current_wal_lsn()").await?;
    let end = end.single().and_then(|text| text.parse::<Lsn>().ok()).unwrap_or(Lsn::ZERO);
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
