//! The daemon under measurement.

#![allow(dead_code, reason = "each bench takes what it needs")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use waltide_stack::serde_json::{self, Value, json};
use waltide_stack::{Database, Process, Stack};

/// Where it answers.
const HTTP: &str = "127.0.0.1:19464";

/// Nothing takes longer on any machine worth measuring on.
const PATIENCE: Duration = Duration::from_secs(600);

/// The name of a pipeline, and the prefix of its topics.
pub(crate) fn pipeline(database: &Database, name: &str) -> String {
    format!("{}-{name}", database.prefix())
}

/// Starts it, and waits until it streams.
pub(crate) fn start(
    stack: &Stack,
    database: &Database,
    (slot, name): (&str, &str),
    delivery: &str,
    snapshot: Value,
) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_waltide"));
    let path = config(stack, database, (slot, name), delivery, snapshot);
    command.arg("run").arg("--config").arg(path);
    let daemon = Process::start("waltide", &command);
    until("changes flow", || status().filter(|status| status["state"] == "streaming"));
    daemon
}

/// A file that goes with the database's name into the build's own directory.
fn config(
    stack: &Stack,
    database: &Database,
    (slot, name): (&str, &str),
    delivery: &str,
    snapshot: Value,
) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = directory.join(format!("{}.yaml", database.prefix()));
    let source = json!({
        "url": database.url(), "tables": ["public.*"], "slot": slot, "publication": slot,
    });
    let text = json!({
        "pipelines": { pipeline(database, name): {
            "source": source,
            "kafka": {
                "bootstrap_servers": stack.kafka().bootstrap(), "partitions": 1,
                "properties": properties(),
            },
            "registry": { "url": stack.registry().url() },
            "snapshot": snapshot,
            "delivery": delivery,
        }},
        "http": { "listen": HTTP },
    });
    fs::write(&path, text.to_string()).expect("the build's directory can be written");
    path
}

pub(crate) fn stop(daemon: &Process) {
    daemon.signal("TERM");
    assert_eq!(daemon.wait(PATIENCE), Some(0), "{}", daemon.log());
}

/// What the daemon says of its pipeline; none while it does not answer.
pub(crate) fn status() -> Option<Value> {
    let mut stream = TcpStream::connect(HTTP).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET /api/status HTTP/1.1\r\nHost: {HTTP}\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    let mut status: Value = serde_json::from_str(body).ok()?;
    Some(status["pipelines"][0].take())
}

/// A figure of the environment.
pub(crate) fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// What a consumer may rely on.
pub(crate) fn delivery() -> String {
    std::env::var("WALTIDE_BENCH_DELIVERY").unwrap_or_else(|_| "at_least_once".to_owned())
}

/// What librdkafka is told besides, for a comparison: `{"linger.ms": "50"}`.
fn properties() -> Value {
    let text = std::env::var("WALTIDE_BENCH_PROPERTIES").unwrap_or_else(|_| "{}".to_owned());
    waltide_stack::serde_json::from_str(&text).expect("properties are a JSON object")
}

/// Drops a slot, of which the last reader's walsender lets go a moment after the reader has left.
pub(crate) fn drop_slot(database: &Database, slot: &str) {
    let free = format!("SELECT NOT active FROM pg_replication_slots WHERE slot_name = '{slot}'");
    until("the slot is free", || (database.value(&free) == "t").then_some(()));
    database.execute(&format!("SELECT pg_drop_replication_slot('{slot}')"));
}

pub(crate) fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    waltide_stack::eventually(what, PATIENCE, &mut ask)
}

/// CPU seconds and the largest resident size of a process.
pub(crate) fn used(pid: &str) -> (f64, u64) {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rsplit(") ").next().unwrap_or_default();
    let ticks: u64 =
        after_name.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|text| text.split_whitespace().next()?.parse().ok());
    #[expect(clippy::cast_precision_loss, reason = "ticks of one run are far below 2^52")]
    let seconds = ticks as f64 / 100.0;
    (seconds, peak.unwrap_or(0))
}
