//! `waltide healthcheck`: whether the running daemon is well, as an exit code.

use serde_json::Value;

use super::Failure;
use super::args::Healthcheck;
use super::daemon::Daemon;
use crate::fault::{Code, Fault};

/// `waltide healthcheck`
pub(super) fn check(asked: &Healthcheck) -> Result<(), Failure> {
    let path = if asked.live { "/livez" } else { "/readyz" };
    let (status, body) = Daemon::find(&asked.daemon)?.ask(path)?;
    if status == 200 {
        return Ok(());
    }
    let pipelines = body["pipelines"].as_array().into_iter().flatten();
    let troubles: Vec<String> = pipelines.filter_map(trouble).collect();
    let what = match troubles.as_slice() {
        [] => format!("{path} answers {status}"),
        troubles => troubles.join("; "),
    };
    let mend = "look up the code that is named in docs/errors.md, or run waltide check";
    Err(Fault::new(Code::NotReady, what, mend).into())
}

/// What keeps a pipeline from being ready.
fn trouble(pipeline: &Value) -> Option<String> {
    let word = |of: &Value| of.as_str().unwrap_or_default().to_owned();
    let (name, state) = (word(&pipeline["name"]), word(&pipeline["state"]));
    let error = &pipeline["error"];
    match state.as_str() {
        "streaming" | "standby" => None,
        _ if error.is_null() => Some(format!("pipeline {name} is {state}")),
        _ => Some(format!(
            "pipeline {name} is {state}: {} {}",
            word(&error["code"]),
            word(&error["what"])
        )),
    }
}
