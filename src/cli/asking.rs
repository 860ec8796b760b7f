//! `waltide status` and `waltide healthcheck`: the running daemon is asked over HTTP.

use serde_json::Value;

use super::args::{Healthcheck, Status};
use super::daemon::Daemon;
use super::terminal::{Paint, Style};
use super::{Failure, say};
use crate::fault::{Code, Fault};

/// `waltide status`
pub(super) fn status(asked: &Status) -> Result<(), Failure> {
    let body = Daemon::find(&asked.daemon)?.status()?;
    if asked.json {
        return say(&format!("{body}\n"));
    }
    let style = Style::of_output();
    let text = |of: &Value| of.as_str().unwrap_or_default().to_owned();
    say(&format!("waltide {}\n", text(&body["version"])))?;
    for pipeline in body["pipelines"].as_array().into_iter().flatten() {
        say(&as_text(pipeline, style))?;
    }
    Ok(())
}

/// `waltide healthcheck`
pub(super) fn healthcheck(asked: &Healthcheck) -> Result<(), Failure> {
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

fn as_text(pipeline: &Value, style: Style) -> String {
    let word = |of: &Value| of.as_str().unwrap_or_default().to_owned();
    let (name, state) = (word(&pipeline["name"]), word(&pipeline["state"]));
    let paint = match state.as_str() {
        "streaming" | "standby" => Paint::Good,
        "stopped" => Paint::Bad,
        _ => Paint::Doubtful,
    };
    let lag = pipeline["lag_seconds"].as_f64().unwrap_or_default();
    let mut text = format!(
        "pipeline {name}  {}\n  lag       {lag:.1} s, {} bytes\n  delivered {}, {} records, {} in flight\n",
        style.paint(paint, &state),
        pipeline["lag_bytes"],
        word(&pipeline["durable_lsn"]),
        pipeline["records"],
        pipeline["records_in_flight"],
    );
    if let Some(retained) = pipeline["slot"]["retained_wal_bytes"].as_u64() {
        let status = word(&pipeline["slot"]["wal_status"]);
        text.push_str(&format!("  slot      keeps {retained} bytes of WAL, {status}\n"));
    }
    let error = &pipeline["error"];
    if !error.is_null() {
        text.push_str(&format!(
            "  {} {}. What to do: {}\n",
            style.paint(Paint::Bad, &word(&error["code"])),
            word(&error["what"]),
            word(&error["mend"]),
        ));
    }
    text
}
