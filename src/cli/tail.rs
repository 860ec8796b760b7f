//! `waltide tail`: changes on the terminal.

use std::io::{BufWriter, Write};

use serde_json::{Map, Value};

use super::args::Tail;
use super::terminal::{Paint, Style};
use super::{Failure, runtime, stop};
use crate::config::TablePattern;
use crate::fault::{Code, Fault};
use crate::tail::{self, Asked, Change, Event};

pub(super) fn tail(typed: Tail) -> Result<(), Failure> {
    let tables = typed.tables.iter().map(|table| {
        TablePattern::parse(table).map_err(|why| {
            let mend = "--table is schema.table, and * stands for any characters";
            Fault::new(Code::ConfigInvalid, format!("--table {table}: {why}"), mend)
        })
    });
    let asked = Asked {
        url: typed.source,
        password: std::env::var("PGPASSWORD").ok().filter(|text| !text.is_empty()),
        tables: tables.collect::<Result<_, _>>()?,
        publication: typed.publication,
        count: typed.count,
    };
    let runtime = runtime()?;
    let mut printer = Printer { json: typed.json, style: Style::of_output(), xid: None };
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut gone = false;
    let ended = runtime.block_on(async {
        let stop = stop()?;
        let tell = |event: Event<'_>| match printer.print(&mut out, &event) {
            Ok(()) => Ok(()),
            Err(error) => {
                // A reader that has seen enough (`| head`) is not a failure.
                gone = error.kind() == std::io::ErrorKind::BrokenPipe;
                let what = format!("cannot print: {error}");
                Err(Fault::new(Code::Internal, what, "look at where the output goes"))
            }
        };
        tail::tail(&asked, tell, stop).await
    });
    match ended {
        Err(_) if gone => Ok(()),
        ended => Ok(ended?),
    }
}

struct Printer {
    json: bool,
    style: Style,
    /// The transaction whose changes are being printed.
    xid: Option<u32>,
}

impl Printer {
    fn print(&mut self, out: &mut impl Write, event: &Event<'_>) -> std::io::Result<()> {
        match event {
            Event::Pause => out.flush(),
            Event::Begun { tables, publications, made } => {
                let how = if *made { "made for as long as this runs" } else { "already there" };
                eprintln!("{tables} tables, by publication {}, {how}", publications.join(", "));
                Ok(())
            }
            Event::Change(change) if self.json => writeln!(out, "{}", change.json()),
            Event::Change(change) => {
                if self.xid.replace(change.xid) != Some(change.xid) {
                    let at = change.value.get("ts_us").and_then(Value::as_str).unwrap_or_default();
                    let heading = format!("transaction {} {at}", change.xid);
                    writeln!(out, "{}", self.style.paint(Paint::Aside, &heading))?;
                }
                writeln!(out, "{}", self.line(change))
            }
        }
    }

    fn line(&self, change: &Change) -> String {
        let name = format!("{}.{}", change.schema, change.table);
        let (sign, paint) = match change.op.as_str() {
            "c" | "r" => ("+", Paint::Good),
            "u" => ("~", Paint::Doubtful),
            "d" => ("-", Paint::Bad),
            _ => ("!", Paint::Bad),
        };
        let sign = self.style.paint(paint, sign);
        if change.op == "t" {
            return format!("{sign} {name} truncated");
        }
        let image = |name: &str| change.value.get(name).and_then(Value::as_object);
        let before_is_key = change.value.get("before_is_key") == Some(&Value::Bool(true));
        let text = match (image("before"), image("after")) {
            (before, Some(after)) => {
                let before = before.filter(|_| !before_is_key);
                row(change, after, before, false)
            }
            (Some(before), None) => row(change, before, None, before_is_key),
            (None, None) => String::new(),
        };
        format!("{sign} {name}{text}{}", notes(change))
    }
}

/// A row's values, and with each the one before where it is known and was another.
fn row(
    change: &Change,
    row: &Map<String, Value>,
    before: Option<&Map<String, Value>>,
    key_only: bool,
) -> String {
    let unchanged = change.value.get("unchanged").and_then(Value::as_array);
    let is_unchanged = |name: &String| {
        unchanged.is_some_and(|names| names.iter().any(|one| one.as_str() == Some(name)))
    };
    let columns = if key_only { &change.key } else { &change.columns };
    let mut text = String::new();
    for name in columns {
        let Some(value) = row.get(name).filter(|_| !is_unchanged(name)) else { continue };
        let old = before.and_then(|before| before.get(name)).filter(|old| *old != value);
        text.push_str(&format!(" {name}="));
        if let Some(old) = old {
            text.push_str(&format!("{}->", plain(old)));
        }
        text.push_str(&plain(value));
    }
    text
}

/// What is not in the row.
fn notes(change: &Change) -> String {
    let mut text = String::new();
    if let Some(names) = change.value.get("unchanged").and_then(Value::as_array) {
        let names: Vec<&str> = names.iter().filter_map(Value::as_str).collect();
        if !names.is_empty() {
            text.push_str(&format!(" (unchanged: {})", names.join(", ")));
        }
    }
    if let Some(values) = change.value.get("unrepresentable").and_then(Value::as_object) {
        for (path, value) in values {
            text.push_str(&format!(" ({path}: {})", plain(value)));
        }
    }
    text
}

/// Words as they are; what could be taken for something else, or moves the cursor, as JSON.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::String(text) => {
            let is_plain = |char: char| char.is_alphanumeric() || "-_.:+/@\\".contains(char);
            let plain = !text.is_empty() && text != "NULL" && text.chars().all(is_plain);
            if plain { text.clone() } else { value.to_string() }
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nothing_from_a_row_moves_the_cursor_or_reads_as_something_else() {
        assert_eq!(plain(&json!("tea")), "tea");
        assert_eq!(plain(&json!("NULL")), "\"NULL\"");
        assert_eq!(plain(&json!("")), "\"\"");
        assert_eq!(plain(&json!("a b=c")), "\"a b=c\"");
        assert_eq!(plain(&json!("\x1b[2J")), "\"\\u001b[2J\"");
        assert_eq!(plain(&Value::Null), "NULL");
    }
}
