//! `waltide snapshot`: rows that are there, read when somebody asks for them, and how far that is.

use std::collections::BTreeSet;
use std::io::IsTerminal as _;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::args::{List, OfTables, SnapshotCommand, Start, Tables};
use super::daemon::Daemon;
use super::ordering::chosen;
use super::overview;
use super::status::{Screen, width};
use super::terminal::Style;
use super::{Failure, runtime, say, stop};
use crate::fault::{Code, Fault};

/// How often the daemon is asked while somebody waits.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What is well enough to be waited for.
const UNDER_WAY: [&str; 4] = ["reading", "waiting", "paused", "failing"];

pub(super) fn perform(command: &SnapshotCommand) -> Result<(), Failure> {
    match command {
        SnapshotCommand::Start(asked) => start(asked),
        SnapshotCommand::Pause(of) => order(of, "pause", "paused: nothing more is read of"),
        SnapshotCommand::Resume(of) => order(of, "resume", "goes on reading"),
        SnapshotCommand::Cancel(of) => order(of, "cancel", "does not read any more"),
        SnapshotCommand::List(asked) => list(asked),
    }
}

fn start(asked: &Start) -> Result<(), Failure> {
    let mut body = body(&asked.of.tables);
    if let Some(condition) = &asked.condition {
        body["where"] = condition.as_str().into();
    }
    let daemon = Daemon::find(&asked.of.daemon)?;
    let pipeline = chosen(&daemon, asked.of.pipeline.as_deref())?;
    let tables = send(&daemon, &pipeline, "start", &body)?;
    say(&format!("pipeline {pipeline} reads {}\n", tables.join(", ")))?;
    if asked.wait { wait(&daemon, &pipeline, tables) } else { Ok(()) }
}

fn order(of: &OfTables, order: &str, done: &str) -> Result<(), Failure> {
    let daemon = Daemon::find(&of.daemon)?;
    let pipeline = chosen(&daemon, of.pipeline.as_deref())?;
    let tables = send(&daemon, &pipeline, order, &body(&of.tables))?;
    say(&format!("pipeline {pipeline} {done} {}\n", tables.join(", ")))
}

fn body(tables: &Tables) -> Value {
    match &tables.table {
        Some(table) => json!({ "table": table }),
        None => json!({ "all": tables.all }),
    }
}

/// The tables that it holds for.
pub(super) fn send(
    daemon: &Daemon,
    pipeline: &str,
    order: &str,
    body: &Value,
) -> Result<Vec<String>, Failure> {
    let path = format!("/api/pipelines/{pipeline}/snapshots/{order}");
    let answer = daemon.change(Method::POST, &path, Some(body))?;
    let tables = answer["tables"].as_array().into_iter().flatten();
    Ok(tables.filter_map(Value::as_str).map(ToOwned::to_owned).collect())
}

/// Shows how far tables are until they are read. On a terminal bars are drawn in place; elsewhere
/// each table has a line once it is done.
fn wait(daemon: &Daemon, pipeline: &str, tables: Vec<String>) -> Result<(), Failure> {
    let mut left: BTreeSet<String> = tables.into_iter().collect();
    let (drawn, style) = (std::io::stdout().is_terminal(), Style::of_output());
    let mut lines = 0;
    while !left.is_empty() {
        std::thread::sleep(LOOK_EVERY);
        let all = snapshots(daemon, pipeline)?;
        let all = &all["snapshots"];
        if drawn {
            // Back to where the bars begin; what is below goes.
            let up = if lines > 0 { format!("\x1b[{lines}A\x1b[J") } else { String::new() };
            let bars: Vec<String> = left
                .iter()
                .flat_map(|table| overview::reading(table, &all[table], width(), style))
                .collect();
            lines = bars.len();
            let bars: String = bars.into_iter().map(|line| line + "\n").collect();
            say(&(up + &bars))?;
        }
        for table in left.clone() {
            let of = &all[&table];
            let state = of["state"].as_str().unwrap_or("gone");
            if state == "done" {
                left.remove(&table);
                if !drawn {
                    say(&format!("{table} is read: {} rows\n", of["rows"]))?;
                }
            } else if let Some(fault) = given_up(&table, state, &of["error"]) {
                return Err(fault.into());
            }
        }
    }
    Ok(())
}

/// Why a table is not waited for any longer.
pub(super) fn given_up(table: &str, state: &str, error: &Value) -> Option<Fault> {
    let word = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
    if !UNDER_WAY.contains(&state) {
        let code = if state == "gone" { Code::SnapshotTableGone } else { Code::RequestUntimely };
        let what = format!("{table} is not read to its end: it is {state}");
        return Some(Fault::new(code, what, "start it again if that was not meant"));
    }
    // What passes by itself is waited for.
    let code = Code::ALL.iter().find(|code| code.id() == word("code"));
    let code = code.filter(|_| word("class") != "transient")?;
    Some(Fault::new(*code, word("what"), word("mend")))
}

pub(super) fn snapshots(daemon: &Daemon, pipeline: &str) -> Result<Value, Failure> {
    daemon.look(&format!("/api/pipelines/{pipeline}/snapshots"))
}

fn list(asked: &List) -> Result<(), Failure> {
    let daemon = Daemon::find(&asked.daemon)?;
    let pipeline = chosen(&daemon, asked.pipeline.as_deref())?;
    let body = snapshots(&daemon, &pipeline)?;
    let Some(seconds) = asked.watch else { return say(&shown(&body, asked.json).concat()) };
    let screen = Screen::enter(!asked.json && std::io::stdout().is_terminal())?;
    let runtime = runtime()?;
    let stop = runtime.block_on(async { stop() })?;
    let mut stop = std::pin::pin!(stop);
    let mut body = Ok(body);
    loop {
        let lines = match &body {
            Ok(body) => shown(body, asked.json),
            Err(failure) => vec![format!("{failure}\n")],
        };
        say(&if asked.json { lines.concat() } else { screen.page(&lines) })?;
        let ended = runtime.block_on(async {
            tokio::select! {
                () = &mut stop => true,
                () = tokio::time::sleep(Duration::from_secs(seconds.max(1))) => false,
            }
        });
        if ended || screen.is_gone() {
            return Ok(());
        }
        body = snapshots(&daemon, &pipeline);
    }
}

fn shown(body: &Value, json: bool) -> Vec<String> {
    if json {
        return vec![format!("{body}\n")];
    }
    let tables = body["snapshots"].as_object().into_iter().flatten();
    let style = Style::of_output();
    let mut lines: Vec<String> =
        tables.flat_map(|(table, of)| overview::reading(table, of, width(), style)).collect();
    if lines.is_empty() {
        lines.push("no table is being read, and none was since the daemon began".to_owned());
    }
    lines.into_iter().map(|line| line + "\n").collect()
}
