//! `waltide pause`, `resume` and `reload`: the running daemon is told what to do.

use reqwest::Method;
use serde_json::Value;

use super::args::{Ordered, Running};
use super::daemon::Daemon;
use super::{Failure, say};
use crate::fault::{Code, Fault};

/// `waltide pause`
pub(super) fn pause(asked: &Ordered) -> Result<(), Failure> {
    order(asked, "pause", "paused", "it holds the slot, and the source keeps its log meanwhile")
}

/// `waltide resume`
pub(super) fn resume(asked: &Ordered) -> Result<(), Failure> {
    order(asked, "resume", "streaming", "changes flow")
}

/// `waltide reload`
pub(super) fn reload(asked: &Running) -> Result<(), Failure> {
    let answer = Daemon::find(asked)?.change(Method::POST, "/api/reload", None)?;
    let keys = answer["changed"].as_array().into_iter().flatten();
    let keys: Vec<&str> = keys.filter_map(Value::as_str).collect();
    match keys.as_slice() {
        [] => say("nothing has changed\n"),
        keys => say(&format!("taken on: {}\n", keys.join(", "))),
    }
}

fn order(asked: &Ordered, order: &str, wanted: &str, then: &str) -> Result<(), Failure> {
    let daemon = Daemon::find(&asked.daemon)?;
    let name = chosen(&daemon, asked.pipeline.as_deref())?;
    let path = format!("/api/pipelines/{name}/{order}");
    let answer = daemon.change(Method::POST, &path, None)?;
    let word = |of: &Value| of.as_str().unwrap_or_default().to_owned();
    let state = word(&answer["state"]);
    if state == wanted {
        return say(&format!("pipeline {name} is {state}: {then}\n"));
    }
    let error = &answer["error"];
    let why = if error.is_null() {
        String::new()
    } else {
        format!(": {} {}", word(&error["code"]), word(&error["what"]))
    };
    say(&format!("pipeline {name} was told to {order}, and is still {state}{why}\n"))
}

/// The pipeline that was named, or the only one.
pub(super) fn chosen(daemon: &Daemon, named: Option<&str>) -> Result<String, Failure> {
    if let Some(name) = named {
        return Ok(name.to_owned());
    }
    let status = daemon.status()?;
    let pipelines = status["pipelines"].as_array().into_iter().flatten();
    let names: Vec<&str> = pipelines.filter_map(|one| one["name"].as_str()).collect();
    match names.as_slice() {
        [one] => Ok((*one).to_owned()),
        several => Err(Fault::new(
            Code::RequestInvalid,
            "the daemon has several pipelines",
            format!("name one of: {}", several.join(", ")),
        )
        .into()),
    }
}
