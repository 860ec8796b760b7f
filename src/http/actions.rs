//! What changes something.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State as Shared};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Json, Response};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::Board;
use super::guard::{Refused, invalid};
use super::report::brief;
use crate::config::settled::LogLevel;
use crate::control::Handle;
use crate::status::State;

/// How long an answer waits for what was asked to be done. A pipeline that Kafka holds up pauses
/// later, and the answer says so.
const DONE: Duration = Duration::from_secs(5);

/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What the log can be set to.
const LEVELS: [LogLevel; 5] =
    [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace];

pub(super) async fn pause(
    Shared(board): Shared<Board>,
    Path(name): Path<String>,
) -> Result<Response, Refused> {
    let handle = board.find(&name)?;
    handle.pause();
    tracing::info!(pipeline = name, "asked to pause");
    Ok(wait(handle, State::Paused).await)
}

pub(super) async fn resume(
    Shared(board): Shared<Board>,
    Path(name): Path<String>,
) -> Result<Response, Refused> {
    let handle = board.find(&name)?;
    handle.resume();
    tracing::info!(pipeline = name, "asked to go on");
    Ok(wait(handle, State::Streaming).await)
}

/// Reads the configuration again; what has changed is taken on, or nothing of it.
pub(super) async fn reload(Shared(board): Shared<Board>) -> Result<Json<Value>, Refused> {
    let reloader = Arc::clone(&board.reloader);
    // Files are read, and a command may be asked for a secret.
    let read = tokio::task::spawn_blocking(move || reloader.reload()).await;
    let read = read.unwrap_or_else(|_| Err(invalid("the configuration was not read", "try again")));
    let keys = read.map_err(|fault| Refused(StatusCode::CONFLICT, fault))?;
    Ok(Json(json!({ "changed": keys })))
}

/// Sets the level of the log, until the configuration says another.
pub(super) async fn log_level(
    Shared(board): Shared<Board>,
    body: Result<Json<Value>, JsonRejection>,
) -> Result<Json<Value>, Refused> {
    let wrong = |what: &str| {
        let mend = "send {\"level\": \"debug\"}; the level is error, warn, info, debug or trace";
        Refused(StatusCode::BAD_REQUEST, invalid(what, mend))
    };
    let Json(body) = body.map_err(|error| wrong(&error.body_text()))?;
    // A key that means nothing here was meant for something.
    if body.as_object().is_some_and(|keys| keys.keys().any(|key| key != "level")) {
        return Err(wrong("it has another key than `level`"));
    }
    let named = |level: &LogLevel| body["level"].as_str() == Some(level.as_str());
    let level = LEVELS.into_iter().find(named);
    let level = level.ok_or_else(|| wrong("this is no level of the log"))?;
    board.reloader.set_level(level);
    Ok(Json(json!({ "level": level.as_str() })))
}

/// Answers 200 once it is so, and 202 where that takes longer.
async fn wait(handle: &Handle, wanted: State) -> Response {
    let deadline = Instant::now() + DONE;
    loop {
        let done = handle.status.state() == wanted;
        if done || Instant::now() >= deadline {
            let code = if done { StatusCode::OK } else { StatusCode::ACCEPTED };
            return (code, Json(brief(handle))).into_response();
        }
        sleep(LOOK_EVERY).await;
    }
}

impl Board {
    pub(super) fn find(&self, name: &str) -> Result<&Handle, Refused> {
        let found = self.pipelines.iter().find(|one| one.status.name == name);
        found.ok_or_else(|| {
            let names = self.pipelines.iter().map(|one| one.status.name.as_str());
            let names: Vec<&str> = names.collect();
            let mend = format!("name one of: {}", names.join(", "));
            let fault = invalid(&format!("there is no pipeline {name}"), &mend);
            Refused(StatusCode::NOT_FOUND, fault)
        })
    }
}
