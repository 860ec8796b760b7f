//! What the daemon says about itself over HTTP, and what it can be asked to do.

mod actions;
mod guard;
mod history;
mod metrics;
mod page;
mod process;
mod report;
mod server;
mod snapshots;
mod tls;

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
pub use tls::Identity;

/// The largest body of a request. Ours have a line.
const BODY_BYTES: usize = 16 << 10;

/// What the control runtime may take to do nothing, before it is said to be stuck.
const TURN: Duration = Duration::from_secs(5);

/// What can be asked for, for programs.
const OPENAPI: &str = include_str!("openapi.json");

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
    /// What it shows of itself, where it speaks TLS.
    pub tls: Option<Arc<Identity>>,
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
    tls: Option<Arc<Identity>>,
}

/// Answers until the process ends.
///
/// # Errors
/// Where the system gives no thread.
pub fn start(listener: std::net::TcpListener, service: Service) -> Result<(), Fault> {
    let history = History::of(service.pipelines.len());
    let (router, board) = router(service, history);
    let keep = board.history.keep(Arc::clone(&board.pipelines));
    server::start(listener, router, board.tls, keep)
}

fn router(service: Service, history: History) -> (Router, Board) {
    let Service { pipelines, control, listen, token, protect_reads, tls, reloader } = service;
    let board = Board { pipelines: pipelines.into(), control, history, reloader, tls };
    let guard = Guard { listen, token, protect_reads };
    let router = Router::new()
        .route("/", get(page::page))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(scrape))
        .route("/api/openapi.json", get(openapi))
        .route("/api/status", get(status))
        .route("/api/history", get(history_of))
        .route("/api/pipelines/{name}/pause", post(actions::pause))
        .route("/api/pipelines/{name}/resume", post(actions::resume))
        .route("/api/pipelines/{name}/snapshots", get(snapshots::list))
        .route("/api/pipelines/{name}/snapshots/start", post(snapshots::start))
        .route("/api/pipelines/{name}/snapshots/pause", post(snapshots::pause))
        .route("/api/pipelines/{name}/snapshots/resume", post(snapshots::resume))
        .route("/api/pipelines/{name}/snapshots/cancel", post(snapshots::cancel))
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

async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI)
}

async fn status(Shared(board): Shared<Board>) -> Json<Value> {
    let pipelines: Vec<Value> = board.pipelines.iter().map(report::in_full).collect();
    Json(json!({ "version": env!("CARGO_PKG_VERSION"), "pipelines": pipelines }))
}

async fn history_of(Shared(board): Shared<Board>) -> Json<Value> {
    Json(board.history.show(&board.pipelines))
}

async fn scrape(Shared(board): Shared<Board>) -> Response {
    let certificate = board.tls.as_ref().and_then(|tls| tls.expires());
    match metrics::render(board.pipelines.iter().map(|one| &*one.status), certificate) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn nothing(uri: Uri) -> Response {
    let what = format!("there is nothing at {}", uri.path());
    refusal(StatusCode::NOT_FOUND, &invalid(&what, "see docs/api.md for what there is"))
}

/// Where TLS is spoken, to whoever does not.
async fn in_the_clear() -> Response {
    let fault = invalid("this port speaks HTTPS, and the request is plain HTTP", "ask at https://");
    refusal(StatusCode::BAD_REQUEST, &fault)
}

async fn otherwise() -> Response {
    let fault = invalid("this is not asked in this way", "see docs/api.md for the method");
    refusal(StatusCode::METHOD_NOT_ALLOWED, &fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_every_route_and_no_other() {
        let document: Value = serde_json::from_str(OPENAPI).expect("JSON");
        let paths = document["paths"].as_object().expect("paths");
        let documented = paths.iter().flat_map(|(path, methods)| {
            methods.as_object().into_iter().flatten().map(move |(method, _)| (&**path, &**method))
        });
        let (code, _) = include_str!("mod.rs").split_once("mod tests").expect("these lines");
        let routes = code.split(".route(\"").skip(1);
        let routes = routes.filter_map(|route| {
            let (path, rest) = route.split_once("\", ")?;
            Some((path, rest.split_once('(')?.0))
        });
        let (mut documented, mut routes): (Vec<_>, Vec<_>) =
            (documented.collect(), routes.collect());
        documented.sort_unstable();
        routes.sort_unstable();
        assert_eq!(documented, routes);
        assert!(routes.len() > 10, "{routes:?}");
    }
}
