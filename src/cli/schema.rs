//! `waltide schema`: what consumers would see of a table, and whether the registry would take it.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::args::SchemaOf;
use super::terminal::{Paint, Style};
use super::{Failure, chosen, runtime, say};
use crate::config::settled::Pipeline;
use crate::config::{Config, TableName, TablePattern};
use crate::fault::{Code, Fault};
use crate::pipeline;
use crate::postgres::Params;
use crate::preview::{self, Change, Preview, Subject};
use crate::registry::Client;

/// `waltide schema show`
pub(super) fn show(config: Config, asked: &SchemaOf) -> Result<(), Failure> {
    let wanted = patterns(&asked.tables)?;
    let runtime = runtime()?;
    for settings in chosen(config, asked.looked.pipeline.as_deref())? {
        let params = params(&settings, asked.source.as_deref())?;
        for table in runtime.block_on(preview::tables(&settings, &params, &wanted))? {
            for warning in &table.warnings {
                eprintln!("warning: {}: {warning}", table.table);
            }
            for subject in &table.schemas {
                say(&shown(&settings, &table, subject, asked.looked.json))?;
            }
        }
    }
    Ok(())
}

fn shown(settings: &Pipeline, table: &Preview, subject: &Subject, as_json: bool) -> String {
    let schema: Value = serde_json::from_str(&subject.schema).unwrap_or_default();
    if as_json {
        let line = json!({
            "pipeline": settings.name, "table": table.table.to_string(), "topic": table.topic,
            "subject": subject.name, "schema": schema,
        });
        return format!("{line}\n");
    }
    format!("table {}, topic {}, subject {}\n{schema:#}\n", table.table, table.topic, subject.name)
}

/// `waltide schema diff`: fails where the registry would refuse a schema.
pub(super) fn diff(config: Config, asked: &SchemaOf) -> Result<(), Failure> {
    let wanted = patterns(&asked.tables)?;
    let (runtime, style) = (runtime()?, Style::of_output());
    let mut refused = 0;
    for settings in chosen(config, asked.looked.pipeline.as_deref())? {
        let params = params(&settings, asked.source.as_deref())?;
        let url = settings.registry.address();
        let wrong = |error| pipeline::of_registry(&error, &url);
        let registry = pipeline::registry_settings(&settings.registry);
        let mut client = Client::new(registry).map_err(wrong)?;
        for table in runtime.block_on(preview::tables(&settings, &params, &wanted))? {
            for subject in &table.schemas {
                let compared = runtime.block_on(preview::compare(&mut client, subject));
                let change = compared.map_err(wrong)?;
                refused += usize::from(matches!(change, Change::Incompatible { .. }));
                say(&match asked.looked.json {
                    true => as_line(&settings, &table, subject, &change),
                    false => as_text(&table.table, &subject.name, &change, style),
                })?;
            }
        }
    }
    if refused == 0 {
        return Ok(());
    }
    Err(refusal(refused).into())
}

/// What is wrong where the registry would refuse schemas.
pub(super) fn refusal(schemas: usize) -> Fault {
    Fault::new(
        Code::SchemaIncompatible,
        format!("the registry would refuse {schemas} schemas"),
        "change the migration so that readers can follow, loosen the rules of these subjects, or \
         say with registry.on_incompatible what shall happen",
    )
}

fn as_line(settings: &Pipeline, table: &Preview, subject: &Subject, change: &Change) -> String {
    let (changes, reasons) = change.told();
    let line = json!({
        "pipeline": settings.name, "table": table.table.to_string(), "topic": table.topic,
        "subject": subject.name, "result": change.as_str(), "changes": changes,
        "reasons": reasons,
    });
    format!("{line}\n")
}

pub(super) fn as_text(table: &TableName, subject: &str, change: &Change, style: Style) -> String {
    let paint = match change {
        Change::None => Paint::Aside,
        Change::New | Change::Compatible { .. } => Paint::Good,
        Change::Incompatible { .. } => Paint::Bad,
    };
    let word = style.paint(paint, &format!("{:<12}", change.as_str()));
    let mut text = format!("{word}  {table}  {subject}\n");
    if let Change::Compatible { changes } | Change::Incompatible { changes, .. } = change {
        for change in changes {
            // A string takes everything.
            let _ = writeln!(text, "              {change}");
        }
    }
    if let Change::Incompatible { reasons, .. } = change {
        let said = |it: &str| style.paint(Paint::Aside, &format!("the registry says: {it}"));
        for reason in reasons {
            let _ = writeln!(text, "              {}", said(reason));
        }
    }
    text
}

/// The pipeline's own source, or another database that has the tables.
fn params(settings: &Pipeline, other: Option<&str>) -> Result<Params, Failure> {
    match other {
        Some(url) => parsed("--source", url),
        None => Ok(pipeline::params(&settings.source)?),
    }
}

/// The URL of a database.
pub(super) fn parsed(option: &str, url: &str) -> Result<Params, Failure> {
    url.parse().map_err(|error| {
        let what = format!("{option} is no URL of a database: {error}");
        let mend = "write it as postgres://user@host:5432/database";
        Fault::new(Code::ConfigInvalid, what, mend).into()
    })
}

fn patterns(typed: &[String]) -> Result<Vec<TablePattern>, Failure> {
    let parsed = typed.iter().map(|text| {
        TablePattern::parse(text).map_err(|why| {
            let what = format!("--table {text} names no table: {why}");
            Fault::new(Code::ConfigInvalid, what, "write schema.table, * for any characters")
        })
    });
    Ok(parsed.collect::<Result<_, _>>()?)
}
