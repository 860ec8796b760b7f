//! What the daemon says about itself over HTTP: probes and metrics.

mod metrics;
mod process;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State as Shared;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::fault::{Code, Fault};
use crate::status::{Pipeline, Snapshot, State};

/// The pipelines a server speaks for.
#[derive(Clone, Debug)]
struct Board {
    pipelines: Arc<[Arc<Pipeline>]>,
}

/// Listens, so that a taken address is known before anything is started.
///
/// # Errors
/// Where the address cannot be had.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, Fault> {
    TcpListener::bind(address).await.map_err(|error| {
        Fault::new(
            Code::ListenFailed,
            format!("cannot listen on {address}: {error}"),
            "set http.listen to an address and port of this host that is free",
        )
    })
}

/// Answers until the process ends.
pub async fn serve(listener: TcpListener, pipelines: Vec<Arc<Pipeline>>) {
    let board = Board { pipelines: pipelines.into() };
    let router = Router::new()
        .route("/", get(index))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(scrape))
        .route("/api/status", get(status))
        .with_state(board);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the http server ended");
    }
}

async fn index(Shared(board): Shared<Board>) -> String {
    let mut text = format!("waltide {}\n\n", env!("CARGO_PKG_VERSION"));
    for pipeline in &*board.pipelines {
        text.push_str(&format!("{}: {}\n", pipeline.name, pipeline.state().as_str()));
    }
    text + "\n/readyz /livez /metrics /api/status\n"
}

/// Ready means that changes flow, or would: every pipeline streams, or stands by for another daemon.
async fn readyz(Shared(board): Shared<Board>) -> Response {
    let ready = board.pipelines.iter().all(|pipeline| pipeline.state().is_ready());
    let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let pipelines: Vec<Value> = board.pipelines.iter().map(|pipeline| brief(pipeline)).collect();
    (code, Json(json!({ "ready": ready, "pipelines": pipelines }))).into_response()
}

async fn status(Shared(board): Shared<Board>) -> Json<Value> {
    let pipelines: Vec<Value> = board.pipelines.iter().map(|pipeline| in_full(pipeline)).collect();
    Json(json!({ "version": env!("CARGO_PKG_VERSION"), "pipelines": pipelines }))
}

async fn scrape(Shared(board): Shared<Board>) -> Response {
    match metrics::render(&board.pipelines) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

fn brief(pipeline: &Pipeline) -> Value {
    let state = pipeline.state();
    let mut about = json!({ "name": pipeline.name, "state": state.as_str() });
    if let State::Waiting(fault) | State::Stopped(fault) = state {
        about["error"] = json!({
            "code": fault.code.id(),
            "class": fault.code.class().as_str(),
            "what": fault.what,
            "mend": fault.mend,
        });
    }
    about
}

fn in_full(pipeline: &Pipeline) -> Value {
    let mut about = brief(pipeline);
    let (records, record_bytes) = pipeline.records();
    about["received_lsn"] = json!(pipeline.received().to_string());
    about["durable_lsn"] = json!(pipeline.durable().to_string());
    about["lag_bytes"] = json!(pipeline.lag_bytes());
    about["lag_seconds"] = json!(pipeline.lag().as_secs_f64());
    about["records"] = json!(records);
    about["record_bytes"] = json!(record_bytes);
    about["records_in_flight"] = json!(pipeline.in_flight());
    about["checkpoint_age_seconds"] = json!(pipeline.checkpoint_age().map(|age| age.as_secs_f64()));
    about["retries"] = json!(pipeline.retries());
    let (spool_bytes, open_transactions) = pipeline.spool();
    about["spool_bytes"] = json!(spool_bytes);
    about["open_transactions"] = json!(open_transactions);
    about["open_transaction_age_seconds"] =
        json!(pipeline.oldest_open().map(|age| age.as_secs_f64()));
    let slot = pipeline.slot();
    about["slot"] = json!({
        "retained_wal_bytes": slot.retained_bytes,
        "safe_wal_bytes": slot.safe_bytes,
        "wal_status": slot.wal_status,
    });
    about["snapshots"] = pipeline.snapshots().into_iter().map(snapshot).collect();
    about["tables"] = pipeline
        .tables()
        .into_iter()
        .map(|(table, counts)| (table, counts.by_op().into_iter().collect::<Value>()))
        .collect();
    about
}

fn snapshot((table, of): (String, Snapshot)) -> (String, Value) {
    let mut about = json!({
        "state": of.state(),
        "rows": of.rows,
        "blocks": of.blocks,
        "blocks_left": of.blocks_left,
        "running_seconds": of.running_s,
    });
    if let Some(fault) = of.fault {
        about["error"] = json!({ "code": fault.code.id(), "what": fault.what, "mend": fault.mend });
    }
    (table, about)
}
