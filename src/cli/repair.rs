//! `waltide verify --repair`: the running daemon publishes what differs as the table has it.
//!
//! Nothing is written from here. The daemon reads these rows beside its stream, as it does in every
//! snapshot, so that what it publishes of them is never older than what the stream has. What came
//! of it is not asked either: the table is verified again.

use std::fmt::Write as _;

use serde_json::{Value, json};
use waltide_core::snapshot::Keys;

use super::args::Verify;
use super::daemon::Daemon;
use super::snapshot::{LOOK_EVERY, given_up, send, snapshots};
use super::terminal::Style;
use super::verify::{MOST_PRINTED, as_text};
use super::{Failure, agreed, say};
use crate::fault::{Code, Fault};
use crate::verify::{Finding, Kind, Outcome};

/// What was repaired, and how each key is now.
pub(super) struct Repaired(Vec<(Finding, Option<Kind>)>);

/// Repairs what was found, and verifies again into the outcome. None where there is nothing that
/// could be.
pub(super) fn repair(
    outcome: &mut Outcome,
    typed: &Verify,
    style: Style,
    verify: impl Fn() -> Result<Outcome, Fault>,
) -> Result<Option<Repaired>, Failure> {
    let mendable = |one: &&Finding| one.kind.is_mendable() && one.values.is_some();
    let found: Vec<Finding> = outcome.named.iter().filter(mendable).cloned().collect();
    if found.is_empty() {
        return Ok(None);
    }
    if let Some(at) = outcome.down_at {
        let pipeline = &outcome.pipeline;
        let what = format!(
            "{} keys can be repaired, and no daemon reads the slot of pipeline {pipeline}, which had \
             published up to {at}: it is the daemon that publishes them",
            found.len()
        );
        return Err(Fault::new(Code::DaemonAway, what, "start it, and repair then").into());
    }
    if !typed.json {
        say(&(as_text(outcome, style) + &plan(&found)))?;
    }
    if !typed.yes && (typed.json || !agreed()) {
        let mend = "answer yes, or add --yes where nobody can be asked";
        return Err(Fault::new(Code::Declined, "nothing was done".to_owned(), mend).into());
    }
    let daemon = Daemon::find(&typed.daemon)?;
    let table = outcome.table.to_string();
    for values in batches(&outcome.key_columns, &found) {
        order(&daemon, &outcome.pipeline, &table, &outcome.key_columns, &values)?;
    }
    *outcome = verify()?;
    let now = |of: &Finding| outcome.named.iter().find(|one| one.key == of.key).map(|one| one.kind);
    let each = found.into_iter().map(|one| {
        let now = now(&one);
        (one, now)
    });
    Ok(Some(Repaired(each.collect())))
}

fn plan(found: &[Finding]) -> String {
    let extra = found.iter().filter(|one| one.kind == Kind::Extra).count();
    format!(
        "to be repaired: {} rows are published as the table has them, {extra} keys as deleted\n",
        found.len() - extra
    )
}

/// What the daemon takes at once.
fn batches<'a>(columns: &[String], found: &'a [Finding]) -> Vec<Vec<&'a [String]>> {
    let empty = || Keys { columns: columns.to_vec(), ..Keys::default() };
    let (mut all, mut batch, mut keys) = (Vec::new(), Vec::new(), empty());
    for values in found.iter().filter_map(|one| one.values.as_deref()) {
        if !keys.push(values.iter().map(String::as_str)) && !batch.is_empty() {
            all.push(std::mem::take(&mut batch));
            keys = empty();
            keys.push(values.iter().map(String::as_str));
        }
        batch.push(values);
    }
    all.push(batch);
    all
}

/// Has the daemon read these rows again, and waits for the end of it.
fn order(
    daemon: &Daemon,
    pipeline: &str,
    table: &str,
    columns: &[String],
    values: &[&[String]],
) -> Result<(), Failure> {
    let keys = json!({ "columns": columns, "values": values });
    send(daemon, pipeline, "start", &json!({ "table": table, "keys": keys }))?;
    loop {
        let all = snapshots(daemon, pipeline)?;
        let of = &all["snapshots"][table];
        let state = of["state"].as_str().unwrap_or("gone");
        if state == "done" {
            return Ok(());
        }
        if let Some(fault) = given_up(table, state, &of["error"]) {
            // What cannot be done is not left behind. Perhaps it is over by itself.
            let _ = send(daemon, pipeline, "cancel", &json!({ "table": table }));
            return Err(fault.into());
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// What the daemon was asked for.
const fn done(kind: Kind) -> &'static str {
    if matches!(kind, Kind::Extra) { "buried" } else { "published" }
}

impl Repaired {
    pub(super) fn json(&self) -> Value {
        let each = self.0.iter().map(|(one, now)| {
            let now = now.map_or("equal", Kind::as_str);
            json!({ "key": one.key, "was": one.kind.as_str(), "done": done(one.kind), "now": now })
        });
        each.collect()
    }

    pub(super) fn as_text(&self) -> String {
        let mut text = String::new();
        for (one, now) in self.0.iter().take(MOST_PRINTED) {
            let (was, now) = (one.kind.as_str(), now.map_or("equal", Kind::as_str));
            // A string takes everything.
            let _ = writeln!(text, "  {:<9} {}: was {was}, is {now}", done(one.kind), one.key);
        }
        if self.0.len() > MOST_PRINTED {
            let more = self.0.len() - MOST_PRINTED;
            let _ = writeln!(text, "  and {more} more were repaired; --json has them all");
        }
        text
    }
}
