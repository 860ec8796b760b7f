//! `docs/faults.md`: what each fault looks like from everywhere, made by the tests that make the
//! faults.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, thread};

use waltide_stack::serde_json::{self, Value};

use super::Told;
use crate::cli::waltide;
use crate::support::Daemon;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/faults.md");

/// Within this time check has found what is wrong.
const PROMISE: Duration = Duration::from_secs(15);

/// Sees to it that the page says what `waltide check` and the status say of the fault that this
/// test has made. With `UPDATE_DOCS=1` the page is changed instead.
#[track_caller]
pub(super) fn is_documented(daemon: &Daemon, told: &Told) {
    let current = thread::current();
    // Only a test's own thread has its name.
    let Some((_, name)) = current.name().and_then(|name| name.rsplit_once("::")) else { return };
    let status = daemon.status();
    assert_eq!(status["error"]["code"], told.code.as_str(), "{status}");
    let state = status["state"].as_str().unwrap_or_default();
    let fault = name.replace('_', " ");
    let start = format!("| {fault} | {} | ", told.code);
    let row = format!("{start}{state} | {} |", found(daemon.config()));
    if std::env::var_os("UPDATE_DOCS").is_some() {
        return update(row);
    }
    let page = fs::read_to_string(PAGE).expect("the page");
    // A test may make several faults of one code.
    let documented: Vec<&str> = page.lines().filter(|line| line.starts_with(&start)).collect();
    assert!(
        documented.contains(&row.as_str()),
        "docs/faults.md is stale, UPDATE_DOCS=1 renews it: {row} is none of {documented:?}"
    );
}

/// The errors that a look finds, each with its code.
fn found(config: &Path) -> String {
    let began = Instant::now();
    let ended = waltide(&["check", "--json", "--config", config.to_str().expect("UTF-8")]);
    let took = began.elapsed();
    assert!(took < PROMISE, "check took {took:?}: {}", ended.everything);
    let lines = ended.out.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let errors = lines.filter(|found| found["level"] == "error");
    let names: BTreeSet<String> = errors
        .map(|found| {
            let check = found["check"].as_str().unwrap_or_default();
            let code = found["code"].as_str().map(|code| format!(" {code}")).unwrap_or_default();
            format!("`{check}`{code}")
        })
        .collect();
    match names.is_empty() {
        true => "nothing".to_owned(),
        false => names.into_iter().collect::<Vec<_>>().join(", "),
    }
}

fn update(row: String) {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let page = fs::read_to_string(PAGE).expect("the page");
    let (head, table) = page.split_once("| --- | --- | --- | --- |\n").expect("a table");
    let by_code =
        |line: &str| (line.split('|').nth(2).unwrap_or_default().to_owned(), line.to_owned());
    let mut rows: BTreeSet<(String, String)> = table.lines().map(by_code).collect();
    rows.insert(by_code(&row));
    let rows: Vec<String> = rows.into_iter().map(|(_, row)| row).collect();
    fs::write(PAGE, format!("{head}| --- | --- | --- | --- |\n{}\n", rows.join("\n")))
        .expect("a page");
}
