//! `waltide checkpoint`: what pipelines remember.

use std::fmt::Write as _;

use serde_json::{Value, json};
use waltide_core::checkpoint::{Checkpoint, Progress};

use super::{Failure, chosen, runtime, say};
use crate::config::Config;
use crate::pipeline;

/// `waltide checkpoint show`
pub(super) fn show(config: Config, pipeline: Option<&str>, json: bool) -> Result<(), Failure> {
    let runtime = runtime()?;
    for settings in chosen(config, pipeline)? {
        let found = runtime.block_on(pipeline::remembered(&settings))?;
        if json {
            let checkpoint = found.as_ref().map_or(Value::Null, as_json);
            say(&format!("{}\n", json!({ "pipeline": settings.name, "checkpoint": checkpoint })))?;
            continue;
        }
        say(&match &found {
            Some(checkpoint) => as_text(&settings.name, checkpoint),
            None => format!("pipeline {}: no checkpoint; it has not begun\n", settings.name),
        })?;
    }
    Ok(())
}

fn as_text(pipeline: &str, of: &Checkpoint) -> String {
    let records: i64 = of.topics.iter().flat_map(|topic| &topic.end_offsets).sum();
    let mut text = format!("pipeline {pipeline}\n");
    let mut line = |name: &str, value: &dyn std::fmt::Display| {
        // A string takes everything.
        let _ = writeln!(text, "  {name:<18} {value}");
    };
    line("published up to", &of.end_lsn.0);
    line("last transaction", &of.commit_lsn.0);
    if let Progress::Partial(partial) = &of.progress {
        line("and a part of", &format!("{}, {} changes", partial.commit_lsn.0, partial.ordinal));
    }
    line("database", &of.database);
    line("system identifier", &of.system_identifier);
    line("timeline", &of.timeline);
    line("slot", &of.slot);
    line("topics", &format!("{} with {records} offsets", of.topics.len()));
    line("schemas", &of.schemas.len());
    line("written by", &of.instance);
    line("written", &format!("{} s ago", age_s(of)));
    text
}

fn age_s(of: &Checkpoint) -> i64 {
    (pipeline::now_us() - of.written_at_us).max(0) / 1_000_000
}

fn as_json(of: &Checkpoint) -> Value {
    let partial = match &of.progress {
        Progress::Complete => Value::Null,
        Progress::Partial(partial) => json!({
            "commit_lsn": partial.commit_lsn.0.to_string(),
            "ordinal": partial.ordinal,
            "hash": format!("{:016x}", partial.hash),
        }),
    };
    let topics: Vec<Value> = of
        .topics
        .iter()
        .map(|topic| json!({ "name": topic.name, "end_offsets": topic.end_offsets }))
        .collect();
    let schemas: Vec<Value> = of
        .schemas
        .iter()
        .map(|one| json!({ "subject": one.subject, "id": one.id, "fingerprint": one.fingerprint }))
        .collect();
    json!({
        "system_identifier": of.system_identifier.to_string(),
        "timeline": of.timeline,
        "database": of.database,
        "slot": of.slot,
        "publication_fingerprint": of.publication_fingerprint,
        "commit_lsn": of.commit_lsn.0.to_string(),
        "end_lsn": of.end_lsn.0.to_string(),
        "partial": partial,
        "topics": topics,
        "schemas": schemas,
        "settled_at_us": of.settled_at_us,
        "instance": of.instance,
        "written_at_us": of.written_at_us,
    })
}
