//! What changes something.

use std::time::Duration;

use axum::extract::{Path, State as Shared};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Json, Response};
use tokio::time::{Instant, sleep};

use super::Board;
use super::guard::{Refused, invalid};
use super::report::brief;
use crate::control::Handle;
use crate::status::State;

/// How long an answer waits for what was asked to be done. A pipeline that Kafka holds up pauses
/// later, and the answer says so.
const DONE: Duration = Duration::from_secs(5);

/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

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
