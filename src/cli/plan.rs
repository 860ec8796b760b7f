//! `waltide schema plan`: what a migration would make of the topics, before it is deployed.

use std::io::Read as _;
use std::path::Path;

use serde_json::{Value, json};

use super::args::SchemaPlan;
use super::schema::{as_text, parsed, refusal};
use super::terminal::{Paint, Style};
use super::{Failure, chosen, runtime, say, stop};
use crate::config::{Config, TableName};
use crate::fault::{Code, Fault};
use crate::pipeline;
use crate::preview::{self, Asked, Change, Found, Outcome, Script};
use crate::registry::Client;

/// Fails where the migration does, and where the registry would refuse a schema.
pub(super) fn plan(config: Config, typed: &SchemaPlan) -> Result<(), Failure> {
    let chosen = chosen(config, typed.looked.pipeline.as_deref())?;
    let [settings] = chosen.as_slice() else {
        let what = "a migration is of one database, and there are several pipelines";
        let mend = "name the pipeline: waltide schema plan PIPELINE ...";
        return Err(Fault::new(Code::ConfigInvalid, what, mend).into());
    };
    let asked = Asked {
        migration: script(&typed.migration)?,
        dump: typed.dump.as_deref().map(script).transpose()?,
        scratch: parsed("--scratch", &typed.scratch)?,
    };
    let url = settings.registry.address();
    let registry = pipeline::registry_settings(&settings.registry);
    let mut client = Client::new(registry).map_err(|error| pipeline::of_registry(&error, &url))?;
    let found = runtime()?.block_on(async {
        let stop = stop()?;
        preview::plan(settings, &mut client, &asked, stop).await
    })?;
    if typed.looked.json {
        say(&as_lines(&settings.name, &found))?;
    } else {
        say(&as_page(&asked.migration.name, &found, Style::of_output()))?;
    }
    judge(&asked.migration.name, &found)
}

fn judge(name: &str, found: &Found) -> Result<(), Failure> {
    if let Some(failure) = &found.failure {
        let what = format!(
            "{name}:{}: {}: {}; what comes before it is applied as far as it was committed",
            failure.line, failure.statement, failure.error
        );
        let mend =
            "correct the migration; where only the scratch server lacks something, have it there";
        return Err(Fault::new(Code::MigrationFails, what, mend).into());
    }
    let all = found.changed.iter().flat_map(|outcome| &outcome.subjects);
    let refused = all.filter(|(_, change)| matches!(change, Change::Incompatible { .. })).count();
    if refused > 0 { Err(refusal(refused).into()) } else { Ok(()) }
}

fn script(path: &Path) -> Result<Script, Failure> {
    let mut text = String::new();
    let read = match path.to_str() {
        Some("-") => std::io::stdin().lock().read_to_string(&mut text).map(|_| text),
        _ => std::fs::read_to_string(path),
    };
    let name = path.display().to_string();
    let text = read.map_err(|error| {
        let what = format!("{name} cannot be read: {error}");
        Fault::new(Code::MigrationFails, what, "name a file of SQL, in UTF-8")
    })?;
    Ok(Script { name, text })
}

fn as_lines(pipeline: &str, found: &Found) -> String {
    let mut lines: Vec<Value> = Vec::new();
    for outcome in &found.changed {
        let name = |one: &Option<(TableName, String)>| {
            one.as_ref().map(|(table, topic)| (table.to_string(), topic.clone())).unzip()
        };
        let ((was, was_topic), (table, topic)) = (name(&outcome.was), name(&outcome.is));
        let line = |rest: Value| {
            let mut line = json!({
                "pipeline": pipeline, "was": was, "was_topic": was_topic, "table": table,
                "topic": topic,
            });
            if let (Value::Object(line), Value::Object(rest)) = (&mut line, rest) {
                line.extend(rest);
            }
            line
        };
        if outcome.is.is_none() {
            lines.push(line(json!({ "result": "gone" })));
        }
        for (subject, change) in &outcome.subjects {
            let schema: Value = serde_json::from_str(&subject.schema).unwrap_or_default();
            let (changes, reasons) = change.told();
            lines.push(line(json!({
                "subject": subject.name, "result": change.as_str(), "changes": changes,
                "reasons": reasons, "schema": schema,
            })));
        }
    }
    let failure = found.failure.as_ref().map(|failure| {
        json!({ "line": failure.line, "statement": failure.statement, "error": failure.error })
    });
    lines.push(json!({
        "pipeline": pipeline, "applied": found.applied, "unchanged_tables": found.unchanged,
        "notes": found.notes, "failure": failure,
    }));
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn as_page(name: &str, found: &Found, style: Style) -> String {
    let mut page = String::new();
    for outcome in &found.changed {
        page.push_str(&moved(outcome, style));
        let Some((table, _)) = &outcome.is else { continue };
        for (subject, change) in &outcome.subjects {
            page.push_str(&as_text(table, &subject.name, change, style));
        }
    }
    for note in &found.notes {
        page.push_str(&format!("{}\n", style.paint(Paint::Aside, note)));
    }
    let end = match &found.failure {
        None => format!("{} statements of {name} applied to a copy", found.applied),
        Some(failure) => {
            format!("{} statements of {name} applied, line {} fails", found.applied, failure.line)
        }
    };
    let tables = |count| if count == 1 { "1 table".to_owned() } else { format!("{count} tables") };
    let (changed, same) = (tables(found.changed.len()), tables(found.unchanged));
    page + &format!("{end}: {changed} changed, {same} as before\n")
}

/// Where rows go from then on, if not where they went.
fn moved(outcome: &Outcome, style: Style) -> String {
    let word = |word: &str| style.paint(Paint::Doubtful, &format!("{word:<12}"));
    match (&outcome.was, &outcome.is) {
        (Some((table, topic)), None) => {
            format!("{}  {table}  nothing more comes to {topic}\n", word("gone"))
        }
        (Some((was, old)), Some((is, topic))) if old != topic => {
            format!("{}  {was} is {is}: its rows go to {topic}, not to {old}\n", word("moved"))
        }
        _ => String::new(),
    }
}
