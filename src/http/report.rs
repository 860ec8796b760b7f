//! What a pipeline says of itself, as JSON.

use std::time::Duration;

use serde_json::{Value, json};

use super::guard::error;
use crate::control::Handle;
use crate::status::{Pipeline, SlotHealth, Snapshot, State, Table, Trouble};

/// What tells whether somebody has to look.
pub(super) fn brief(handle: &Handle) -> Value {
    let pipeline = &handle.status;
    let state = pipeline.state();
    let mut about = json!({
        "name": pipeline.name,
        "state": state.as_str(),
        "paused": handle.is_paused(),
    });
    about["error"] = match state {
        State::Waiting(fault) | State::Stopped(fault) => error(&fault),
        _ => Value::Null,
    };
    about
}

/// Everything.
pub(super) fn in_full(handle: &Handle) -> Value {
    let pipeline: &Pipeline = &handle.status;
    let mut about = brief(handle);
    let Value::Object(keys) = &mut about else { return about };
    let (records, record_bytes) = pipeline.records();
    let state_s = pipeline.since().elapsed().unwrap_or_default();
    keys.extend([
        ("state_seconds".to_owned(), json!(state_s.as_secs_f64())),
        ("received_lsn".to_owned(), json!(pipeline.received().to_string())),
        ("durable_lsn".to_owned(), json!(pipeline.durable().to_string())),
        ("lag_bytes".to_owned(), json!(pipeline.lag_bytes())),
        ("lag_seconds".to_owned(), json!(pipeline.lag().as_secs_f64())),
        ("records".to_owned(), json!(records)),
        ("record_bytes".to_owned(), json!(record_bytes)),
        ("records_in_flight".to_owned(), json!(pipeline.in_flight())),
        ("checkpoint_age_seconds".to_owned(), seconds(pipeline.checkpoint_age())),
        ("retries".to_owned(), json!(pipeline.retries())),
        ("spool_bytes".to_owned(), json!(pipeline.spool().0)),
        ("open_transactions".to_owned(), json!(pipeline.spool().1)),
        ("open_transaction_age_seconds".to_owned(), seconds(pipeline.oldest_open())),
        ("outages".to_owned(), json!(pipeline.outages().count)),
        ("slot".to_owned(), slot(&pipeline.slot())),
        ("errors".to_owned(), pipeline.recent().iter().map(trouble).collect()),
        ("snapshots".to_owned(), snapshots(pipeline)),
        ("tables".to_owned(), pipeline.tables().into_iter().map(table).collect()),
    ]);
    about
}

fn seconds(time: Option<Duration>) -> Value {
    json!(time.map(|time| time.as_secs_f64()))
}

fn slot(slot: &SlotHealth) -> Value {
    json!({
        "retained_wal_bytes": slot.retained_bytes,
        "safe_wal_bytes": slot.safe_bytes,
        "wal_status": slot.wal_status,
    })
}

fn trouble(of: &Trouble) -> Value {
    let mut about = error(&of.fault);
    about["times"] = json!(of.times);
    about["seconds_ago"] = json!(of.last.elapsed().as_secs_f64());
    about
}

fn table((name, of): (String, Table)) -> (String, Value) {
    let mut about: Value = of.counts.by_op().into_iter().collect();
    about["schema_id"] = json!(of.schema);
    about["changed_seconds"] = json!(of.counted.elapsed().as_secs_f64());
    (name, about)
}

/// How far the reading of tables is.
pub(super) fn snapshots(pipeline: &Pipeline) -> Value {
    pipeline.snapshots().into_iter().map(snapshot).collect()
}

fn snapshot((table, of): (String, Snapshot)) -> (String, Value) {
    let bytes = of.bytes();
    let about = json!({
        "state": of.state(),
        "asked": of.asked,
        "where": of.filter,
        "keys": of.keys,
        "rows": of.rows,
        "rows_expected": of.rows_expected(),
        "rows_per_second": of.rows_per_second,
        "bytes": bytes.map(|(read, _)| read),
        "bytes_expected": bytes.map(|(_, all)| all),
        "blocks": of.blocks,
        "blocks_left": of.blocks_left,
        "running_seconds": of.running_s,
        "part": of.part(),
        "left_seconds": of.left_seconds,
        "error": of.fault.as_ref().map(error),
    });
    (table, about)
}
