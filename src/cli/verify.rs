//! `waltide verify`: whether a topic holds what its table holds.

use std::fmt::Write as _;
use std::time::Duration;

use tokio::runtime::Runtime;

use super::args::Verify;
use super::terminal::{Paint, Style};
use super::{Failure, chosen, repair, runtime, say};
use crate::config::settled::Pipeline;
use crate::config::{Config, TableName, TablePattern};
use crate::fault::{Code, Fault};
use crate::verify::{self, Asked, Finding, Kind, Outcome, Result as Found};

/// So many keys are printed for people.
pub(super) const MOST_PRINTED: usize = 20;

pub(super) fn verify(config: Config, typed: &Verify) -> Result<(), Failure> {
    let table = table(&typed.table)?;
    let named = if typed.repair { verify::MOST_REPAIRED } else { verify::MOST_NAMED };
    let asked = Asked { table, patience: Duration::from_secs(typed.wait), named };
    let mut pipelines = chosen(config, typed.pipeline.as_deref())?;
    // Of several, those that have it; none of them says why not.
    let captures = |one: &Pipeline| one.source.captures(&asked.table.schema, &asked.table.table);
    if pipelines.iter().any(captures) {
        pipelines.retain(captures);
    }
    let (runtime, style) = (runtime()?, Style::of_output());
    let ended = each(&runtime, pipelines, &asked, (typed, style));
    // What is still being read of a topic is of no use any more.
    runtime.shutdown_background();
    ended
}

fn each(
    runtime: &Runtime,
    pipelines: Vec<Pipeline>,
    asked: &Asked,
    (typed, style): (&Verify, Style),
) -> Result<(), Failure> {
    let mut worst = None;
    for settings in pipelines {
        let look = || runtime.block_on(Box::pin(verify::verify(&settings, asked)));
        let mut outcome = look()?;
        let repaired = match typed.repair {
            true => repair::repair(&mut outcome, typed, style, look)?,
            false => None,
        };
        say(&match (typed.json, &repaired) {
            (true, repaired) => {
                let mut object = outcome.json();
                if let Some(repaired) = repaired {
                    object["repaired"] = repaired.json();
                }
                format!("{object}\n")
            }
            (false, Some(repaired)) => as_text(&outcome, style) + &repaired.as_text(),
            (false, None) => as_text(&outcome, style),
        })?;
        worst = match (worst, fault(&outcome)) {
            (Some(first), Some(next)) if first_is_worse(&first, &next) => Some(first),
            (first, next) => next.or(first),
        };
    }
    worst.map_or(Ok(()), |fault| Err(fault.into()))
}

fn first_is_worse(first: &Fault, next: &Fault) -> bool {
    first.code == Code::VerifyDiffers || next.code != Code::VerifyDiffers
}

fn table(typed: &str) -> Result<TableName, Fault> {
    let pattern = TablePattern::parse(typed).map_err(|why| why.to_string());
    let name = pattern.and_then(|pattern| pattern.exact().ok_or("it has a *".to_owned()));
    name.map_err(|why| {
        let mend = "--table is one table, as schema.table";
        Fault::new(Code::ConfigInvalid, format!("--table {typed}: {why}"), mend)
    })
}

fn fault(outcome: &Outcome) -> Option<Fault> {
    let of = |result| {
        let kinds = Kind::ALL.into_iter().filter(move |kind| kind.means() == result);
        let counted = kinds.filter(|kind| outcome.count(*kind) > 0);
        let told = counted.map(|kind| format!("{} {}", outcome.count(kind), kind.as_str()));
        told.collect::<Vec<_>>().join(", ")
    };
    let (table, topics) = (&outcome.table, outcome.topics.join(", "));
    match outcome.result() {
        Found::Equal => None,
        Found::Different => Some(Fault::new(
            Code::VerifyDiffers,
            format!("{topics} does not hold what {table} holds: {}", of(Found::Different)),
            "look who else writes to the topic, and what happened to it; docs/verify.md says what \
             each kind can come from",
        )),
        Found::Unproven => {
            let why = outcome.why.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
            Some(Fault::new(
                Code::VerifyUnproven,
                format!(
                    "nothing differs, but it cannot be proved that {topics} holds {table}: {}{why}",
                    of(Found::Unproven)
                ),
                "docs/verify.md says what each kind comes from, and what would settle it",
            ))
        }
    }
}

pub(super) fn as_text(of: &Outcome, style: Style) -> String {
    let mut text = String::new();
    // A string takes everything.
    let _ = writeln!(text, "table {}, topic {}", of.table, of.topics.join(", "));
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "  {name:<10} {value}");
    };
    let paint = match of.result() {
        Found::Equal => Paint::Good,
        Found::Different => Paint::Bad,
        Found::Unproven => Paint::Doubtful,
    };
    line("result", style.paint(paint, of.result().as_str()));
    line("rows", format!("{} in the table, {} in the topic", of.rows, of.keys));
    line("equal", of.equal.to_string());
    for kind in Kind::ALL {
        if of.count(kind) > 0 {
            line(kind.as_str(), format!("{}: {}", of.count(kind), kind.meaning()));
        }
    }
    if of.removed {
        line("note", "records have been removed from the front of the topic".to_owned());
    }
    if let Some(at) = of.down_at {
        line("note", format!("the daemon does not run: it had published up to {at}"));
    }
    if let Some(why) = &of.why {
        line("unsettled", why.clone());
    }
    line("position", of.position.to_string());
    line("took", format!("{:.1} s, {} rounds", of.took.as_secs_f64(), of.rounds));
    for one in of.named.iter().take(MOST_PRINTED) {
        let _ = writeln!(text, "  {}", finding(one));
    }
    let all: u64 = of.counts.values().sum();
    let printed = of.named.len().min(MOST_PRINTED) as u64;
    if all > printed {
        let _ = writeln!(text, "  and {} more; --json names up to 1000", all - printed);
    }
    text
}

fn finding(of: &Finding) -> String {
    let columns = match of.columns.is_empty() {
        true => String::new(),
        false => format!(" in {}", of.columns.join(", ")),
    };
    format!("{:<9} {}{columns}", of.kind.as_str(), of.key)
}
