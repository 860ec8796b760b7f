//! What the daemon says about itself over HTTP, and what it can be asked to do.

mod actions;
mod guard;
mod history;
mod metrics;
mod page;
mod process;
mod report;
mod server;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State as Shared};
use axum::http::{StatusCode, Uri, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post, put};
use serde_json::{Value, json};
use tokio::runtime::Handle as Runtime;
use tokio::time::timeout;

use crate::control::Handle;
use crate::control::reload::Reloader;
use crate::control::token::Token;
use crate::fault::Fault;
use guard::{Guard, invalid, refusal};
use history::History;
pub use server::listen;

/// The largest body of a request. Ours have a line.
const BODY_BYTES: usize = 16 << 10;

/// What the control runtime may take to do nothing, before it is said to be stuck.
const TURN: Duration = Duration::from_secs(5);

/// What is served, and to whom.
#[derive(Debug)]
pub struct Service {
    /// The pipelines it speaks for.
    pub pipelines: Vec<Handle>,
    /// What must go on for the process to be alive.
    pub control: Runtime,
    /// Where it listens.
    pub listen: SocketAddr,
    /// What lets somebody change something.
    pub token: Token,
    /// Whether reading needs it as well.
    pub protect_reads: bool,
    /// What reads the configuration again.
    pub reloader: Arc<Reloader>,
}

/// What the handlers know.
#[derive(Clone, Debug)]
struct Board {
    pipelines: Arc<[Handle]>,
    control: Runtime,
    history: History,
    reloader: Arc<Reloader>,
}

/// Answers until the process ends.
///
/// # Errors
/// Where the system gives no thread.
pub fn start(listener: std::net::TcpListener, service: Service) -> Result<(), Fault> {
    let history = History::of(service.pipelines.len());
    let (router, board) = router(service, history);
    let keep = board.history.keep(Arc::clone(&board.pipelines));
    server::start(listener, router, keep)
}

fn router(service: Service, history: History) -> (Router, Board) {
    let Service { pipelines, control, listen, token, protect_reads, reloader } = service;
    let board = Board { pipelines: pipelines.into(), control, history, reloader };
    let guard = Guard { listen, token, protect_reads };
    let router = Router::new()
        .route("/", get(page::page))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(scrape))
        .route("/api/status", get(status))
        .route("/api/history", get(history_of))
        .route("/api/pipelines/{name}/pause", post(actions::pause))
        .route("/api/pipelines/{name}/resume", post(actions::resume))
        .route("/api/reload", post(actions::reload))
        .route("/api/log-level", put(actions::log_level))
        .fallback(nothing)
        .method_not_allowed_fallback(otherwise)
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(from_fn_with_state(guard, guard::watch))
        .with_state(board.clone());
    (router, board)
}

/// The process's own loops turn: this one does, and the one that tells servers where we are.
async fn livez(Shared(board): Shared<Board>) -> (StatusCode, &'static str) {
    match timeout(TURN, board.control.spawn(async {})).await {
        Ok(Ok(())) => (StatusCode::OK, "ok\n"),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "the control runtime is stuck\n"),
    }
}

/// Ready means that changes flow, or would: every pipeline streams, or stands by for another daemon.
async fn readyz(Shared(board): Shared<Board>) -> Response {
    let ready = board.pipelines.iter().all(|pipeline| pipeline.status.state().is_ready());
    let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let pipelines: Vec<Value> = board.pipelines.iter().map(report::brief).collect();
    (code, Json(json!({ "ready": ready, "pipelines": pipelines }))).into_response()
}

async fn status(Shared(board): Shared<Board>) -> Json<Value> {
    let pipelines: Vec<Value> = board.pipelines.iter().map(report::in_full).collect();
    Json(json!({ "version": env!("CARGO_PKG_VERSION"), "pipelines": pipelines }))
}

async fn history_of(Shared(board): Shared<Board>) -> Json<Value> {
    Json(board.history.show(&board.pipelines))
}

async fn scrape(Shared(board): Shared<Board>) -> Response {
    match metrics::render(board.pipelines.iter().map(|pipeline| &*pipeline.status)) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn nothing(uri: Uri) -> Response {
    let what = format!("there is nothing at {}", uri.path());
    refusal(StatusCode::NOT_FOUND, &invalid(&what, "see docs/api.md for what there is"))
}

async fn otherwise() -> Response {
    let fault = invalid("this is not asked in this way", "see docs/api.md for the method");
    refusal(StatusCode::METHOD_NOT_ALLOWED, &fault)
}
