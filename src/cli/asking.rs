//! `waltide status` and `waltide healthcheck`: the running daemon is asked over HTTP.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde_json::Value;

use super::args::{Healthcheck, Running, Status};
use super::terminal::{Paint, Style};
use super::{Failure, load, runtime, say};
use crate::fault::{Code, Fault};

/// A probe that waits longer is of no use.
const ANSWER: Duration = Duration::from_secs(5);

/// `waltide status`
pub(super) fn status(asked: &Status) -> Result<(), Failure> {
    let (_, body) = ask(&asked.daemon, "/api/status")?;
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
    let (status, body) = ask(&asked.daemon, path)?;
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

/// The status of an answer and its body; what is no JSON is null.
fn ask(daemon: &Running, path: &str) -> Result<(u16, Value), Failure> {
    let base = match &daemon.url {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => format!("http://{}", reachable(load(&daemon.config)?.config.http.listen)),
    };
    let runtime = runtime()?;
    let answered = runtime.block_on(async {
        let client = reqwest::Client::builder().timeout(ANSWER).no_proxy().build()?;
        let response = client.get(format!("{base}{path}")).send().await?;
        let status = response.status().as_u16();
        Ok::<_, reqwest::Error>((status, response.text().await?))
    });
    let (status, body) = answered.map_err(|error| {
        let why = error.without_url();
        let what = format!("no daemon answers at {base}: {why}");
        let mend = "start it, or name its address with --url http://HOST:PORT";
        Fault::new(Code::DaemonAway, what, mend)
    })?;
    Ok((status, serde_json::from_str(&body).unwrap_or_default()))
}

/// Who listens everywhere is asked at home.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let home: IpAddr = match listen.ip() {
        IpAddr::V4(all) if all.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(all) if all.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        own => own,
    };
    SocketAddr::new(home, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_everywhere_is_asked_at_home() {
        let at = |text: &str| reachable(text.parse().unwrap()).to_string();
        assert_eq!(at("0.0.0.0:9464"), "127.0.0.1:9464");
        assert_eq!(at("[::]:9464"), "[::1]:9464");
        assert_eq!(at("10.0.0.7:1"), "10.0.0.7:1");
    }
}
