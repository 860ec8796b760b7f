//! What goes wrong is said, and goes on once it is mended.
//!
//! Each test here makes a fault in real servers and holds the daemon to its promise: it stays up
//! and is not ready; within ten seconds log, `/readyz` and metrics name one code, with what
//! happened and what to do; with `--fail-fast` it ends with the same words; and once somebody has
//! done what they say, it goes on by itself and nothing is missing.

mod access;
mod bearer;
mod directory;
mod kafka;
mod login;
mod names;
mod registry;
pub(crate) mod rotation;
mod rows;
mod secrets;
mod source;
mod streaming;
mod table;
mod tls;
mod unreachable;

use std::time::Duration;

use waltide_stack::serde_json::{self, Value};
use waltide_stack::{Database, Stack, Version, eventually};

use crate::support::{Daemon, Pipeline, SOON};

/// Within this time the reason is said.
const PROMISE: Duration = Duration::from_secs(10);

/// The table of these tests.
const ORDERS: &str = "CREATE TABLE orders (id int PRIMARY KEY, item text)";

/// What a person is told.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Told {
    code: String,
    what: String,
    mend: String,
}

impl Told {
    /// As the command line prints it.
    fn line(&self) -> String {
        format!("error: {} {}. What to do: {}", self.code, self.what, self.mend)
    }

    fn has(&self, words: &[&str]) -> bool {
        words.iter().all(|word| self.what.contains(word) || self.mend.contains(word))
    }

    /// What follows these words of the advice.
    #[track_caller]
    fn mend_after(&self, words: &str) -> &str {
        let found = self.mend.split_once(words);
        found.unwrap_or_else(|| panic!("no {words:?} in: {}", self.mend)).1
    }
}

/// A database on the shared server, with the table.
fn shop(version: Version, test: &str) -> Database {
    let database = Stack::shared().database(version, test);
    database.execute(ORDERS);
    database
}

/// A pipeline that has nothing yet. One partition keeps all orders in order.
fn pipeline(database: &Database) -> Pipeline<'_> {
    Pipeline::of(database).with("source.tables", vec!["public.*"]).with("kafka.partitions", 1)
}

/// A pipeline whose publication and slot are there already, so that what is committed before the
/// daemon first connects is published too.
fn set_up(database: &Database) -> Pipeline<'_> {
    let pipeline = pipeline(database);
    let slot = pipeline.slot();
    database.execute(&format!("CREATE PUBLICATION {slot} FOR TABLE orders"));
    database.execute(&format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"));
    pipeline
}

fn order(database: &Database, id: u32) {
    database.execute(&format!("INSERT INTO orders VALUES ({id}, 'tea')"));
}

/// Waits until the topic has exactly these orders, each once and in this order.
#[track_caller]
fn arrive(pipeline: &Pipeline<'_>, ids: &[u64]) {
    let records = pipeline.topic("public.orders").wait_for_json(ids.len(), SOON);
    let found: Vec<u64> =
        records.iter().filter_map(|record| record.value["after"]["id"].as_u64()).collect();
    assert_eq!(found, ids);
}

/// Waits for what the daemon has to say, and sees to it that it says the same everywhere.
#[track_caller]
fn tells(daemon: &Daemon, code: &str, words: &[&str]) -> Told {
    let what = format!("the daemon says {code} with {words:?}, not {:?}", reason(daemon));
    let told = eventually(&what, PROMISE, || {
        if let Some(status) = daemon.process().exit_status() {
            panic!("the daemon ended with {status}:\n{}", daemon.log());
        }
        // Another failure may have come before, so the words count as well.
        reason(daemon).filter(|told| told.code == code && told.has(words))
    });
    eprintln!("{}", told.line());
    eventually("it is in the log", SOON, || logged(daemon).contains(&told).then_some(()));
    let (_, metrics) = daemon.get("/metrics").expect("the daemon answers");
    let counted = metrics.lines().any(|line| {
        line.starts_with("waltide_errors_total") && line.contains(&format!("code=\"{code}\""))
    });
    assert!(counted, "{metrics}");
    table::is_documented(daemon, &told);
    told
}

/// Which systems are held back from, as metrics tell it.
fn open_circuits(daemon: &Daemon) -> Vec<String> {
    let (_, metrics) = daemon.get("/metrics").expect("the daemon answers");
    let circuits = metrics.lines().filter(|line| line.starts_with("waltide_circuit_open{"));
    let open = circuits.filter(|line| line.ends_with(" 1"));
    open.filter_map(|line| Some(line.split_once("system=\"")?.1.split_once('"')?.0.to_owned()))
        .collect()
}

/// What `/readyz` gives as the reason, while it says no.
fn reason(daemon: &Daemon) -> Option<Told> {
    let (status, body) = daemon.get("/readyz")?;
    if status != 503 {
        return None;
    }
    let body: Value = serde_json::from_str(&body).ok()?;
    let error = &body["pipelines"][0]["error"];
    let text = |key: &str| error[key].as_str().map(str::to_owned);
    Some(Told { code: text("code")?, what: text("what")?, mend: text("mend")? })
}

/// The failures it has logged.
fn logged(daemon: &Daemon) -> Vec<Told> {
    let failures = daemon.events().into_iter().filter(|event| event["level"] == "ERROR");
    let text = |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_owned();
    failures
        .map(|event| Told {
            code: text(&event, "code"),
            what: text(&event, "message"),
            mend: text(&event, "mend"),
        })
        .collect()
}

/// Sees to it that it has logged these failures and no other, each once.
#[track_caller]
fn logged_once(daemon: &Daemon, codes: &[&str]) {
    let logged = logged(daemon);
    let found: Vec<&str> = logged.iter().map(|told| told.code.as_str()).collect();
    assert_eq!(found, codes, "{}", daemon.log());
}

/// Waits until it has tried in vain once more, and never called itself ready meanwhile.
#[track_caller]
fn tries_again(daemon: &Daemon) {
    let retries = || daemon.status()["retries"].as_u64().expect("a number of retries");
    let before = retries();
    eventually("it is tried again", SOON, || {
        let (ready, body) = daemon.get("/readyz")?;
        assert_eq!(ready, 503, "{body}");
        (retries() >= before + 2).then_some(())
    });
}

/// Sees to it that `--fail-fast` ends at once with a failure of this code, and returns its words.
#[track_caller]
fn fails_fast(pipeline: &Pipeline<'_>, code: &str) -> String {
    FailingFast::launch(pipeline).ends_with(code)
}

/// Sees to it that `--fail-fast` ends with the same words.
#[track_caller]
fn fails_fast_as(pipeline: &Pipeline<'_>, told: &Told) {
    assert_eq!(fails_fast(pipeline, &told.code), told.line());
}

/// A daemon that shall end with its first failure.
struct FailingFast(Daemon);

impl FailingFast {
    #[track_caller]
    fn launch(pipeline: &Pipeline<'_>) -> Self {
        Self(Daemon::launch(pipeline.file(), &["run", "--fail-fast"]))
    }

    #[track_caller]
    fn ends_with(self, code: &str) -> String {
        let process = self.0.process();
        let status = process.wait(SOON);
        assert_eq!(status, Some(1), "{}", self.0.log());
        let log = self.0.log();
        let line = log.lines().last().unwrap_or_default();
        assert!(line.starts_with(&format!("error: {code} ")), "{log}");
        eprintln!("{line}");
        line.to_owned()
    }
}
