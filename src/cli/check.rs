//! `waltide check`: what is so, and what mends what is not.

use std::fmt::Write as _;

use super::args::Looked;
use super::terminal::{Paint, Style};
use super::{Failure, chosen, runtime, say};
use crate::check::{self, Finding, Level, Step};
use crate::config::Config;
use crate::fault::{Code, Fault};

pub(super) fn check(config: Config, asked: &Looked) -> Result<(), Failure> {
    let runtime = runtime()?;
    let style = Style::of_output();
    let (mut errors, mut warnings) = (0, 0);
    for settings in chosen(config, asked.pipeline.as_deref())? {
        let findings = runtime.block_on(check::look(&settings));
        let count = |level| findings.iter().filter(|found| found.level == level).count();
        errors += count(Level::Error);
        warnings += count(Level::Warning);
        if asked.json {
            for found in &findings {
                say(&format!("{}\n", found.json(&settings.name)))?;
            }
            continue;
        }
        say(&format!("pipeline {}\n", settings.name))?;
        for found in &findings {
            say(&as_text(found, style))?;
        }
    }
    if !asked.json {
        say(&format!("{errors} errors, {warnings} warnings\n"))?;
    }
    if errors == 0 {
        return Ok(());
    }
    let what = format!("check has found {errors} errors");
    let mend = "follow what stands below each error, and check again";
    Err(Fault::new(Code::CheckFailed, what, mend).into())
}

fn as_text(found: &Finding, style: Style) -> String {
    let paint = match found.level {
        Level::Ok => Paint::Good,
        Level::Warning => Paint::Doubtful,
        Level::Error => Paint::Bad,
    };
    let level = style.paint(paint, &format!("{:<7}", found.level.as_str()));
    let code = found.code.map(|code| format!(" ({code})")).unwrap_or_default();
    let of = found.of.as_deref().filter(|of| !found.what.contains(of));
    let of = of.map(|of| format!(": {of}")).unwrap_or_default();
    let mut text = format!("  {level}  {}{of}{code}\n", found.what);
    for step in &found.mend {
        let kind = match step {
            Step::Sql(_) => "run SQL  ",
            Step::Command(_) => "run      ",
            Step::Configure(..) => "configure",
            Step::Restart | Step::Advice(_) => "do       ",
        };
        // A string takes everything.
        let _ = writeln!(text, "             {} {}", style.paint(Paint::Aside, kind), step.text());
    }
    text
}
