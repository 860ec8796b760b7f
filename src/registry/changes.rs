//! What is new in a schema, in words for the person who has to decide about it.
//!
//! Whether readers can follow is the registry's to say; this says only what there is to follow.

use std::collections::BTreeMap;

use serde_json::Value;

/// The full name of a schema's record.
#[must_use]
pub fn full_name(schema: &str) -> Option<String> {
    let schema: Value = serde_json::from_str(schema).ok()?;
    let name = schema.get("name")?.as_str()?;
    match schema.get("namespace").and_then(Value::as_str) {
        Some(space) if !space.is_empty() && !name.contains('.') => Some(format!("{space}.{name}")),
        _ => Some(name.to_owned()),
    }
}

/// The fields that are gone, new, or of another type, each as a sentence's part.
#[must_use]
pub fn changes(before: &str, after: &str) -> Vec<String> {
    let (before, after) = (fields(before), fields(after));
    let gone = before.iter().filter(|(name, _)| !after.contains_key(*name));
    let mut found: Vec<String> = gone.map(|(name, _)| format!("{name} is gone")).collect();
    for (name, new) in &after {
        match before.get(name) {
            None => found.push(format!("{name} is new: {}", new.kind)),
            Some(old) if old.kind != new.kind => {
                found.push(format!("{name} was {}, is {}", old.kind, new.kind));
            }
            Some(old) if old.has_default != new.has_default => {
                let now = if new.has_default { "has a default now" } else { "has no default now" };
                found.push(format!("{name} {now}"));
            }
            Some(_) => {}
        }
    }
    found
}

#[derive(Debug, PartialEq, Eq)]
struct Field {
    kind: String,
    has_default: bool,
}

/// Fields by path. A record that is named again has its fields at its first place only.
fn fields(schema: &str) -> BTreeMap<String, Field> {
    let mut found = BTreeMap::new();
    if let Ok(schema) = serde_json::from_str(schema) {
        collect(&schema, "", &mut found);
    }
    found
}

fn collect(schema: &Value, path: &str, found: &mut BTreeMap<String, Field>) {
    match schema {
        Value::Array(branches) => branches.iter().for_each(|one| collect(one, path, found)),
        Value::Object(object) => {
            let inner = object.get("fields").and_then(Value::as_array);
            for field in inner.into_iter().flatten() {
                let Some(name) = field.get("name").and_then(Value::as_str) else { continue };
                let Some(kind) = field.get("type") else { continue };
                // Before and after are one record; what is said of one is said of both.
                let below = match (path, name) {
                    ("", "before" | "after") => String::new(),
                    ("", _) => name.to_owned(),
                    _ => format!("{path}.{name}"),
                };
                if !below.is_empty() {
                    let has_default = field.get("default").is_some();
                    found.insert(below.clone(), Field { kind: written(kind), has_default });
                }
                collect(kind, &below, found);
            }
            for part in ["items", "values", "type"] {
                if let Some(part @ (Value::Object(_) | Value::Array(_))) = object.get(part) {
                    collect(part, path, found);
                }
            }
        }
        _ => {}
    }
}

/// `string or null`, `decimal(10,2)`, `array of int`.
fn written(kind: &Value) -> String {
    match kind {
        Value::String(name) => name.clone(),
        Value::Array(branches) => {
            let (nulls, others): (Vec<_>, Vec<_>) =
                branches.iter().partition(|branch| *branch == "null");
            let mut parts: Vec<String> = others.into_iter().map(written).collect();
            parts.extend(nulls.first().map(|_| "null".to_owned()));
            parts.join(" or ")
        }
        Value::Object(object) => of_object(object),
        other => other.to_string(),
    }
}

fn of_object(object: &serde_json::Map<String, Value>) -> String {
    let text = |key: &str| object.get(key).and_then(Value::as_str);
    if text("logicalType") == Some("decimal") {
        let number = |key: &str| object.get(key).and_then(Value::as_u64).unwrap_or_default();
        return format!("decimal({},{})", number("precision"), number("scale"));
    }
    if let Some(named) = text("logicalType").or_else(|| text("connect.name")) {
        return named.to_owned();
    }
    match (text("type"), object.get("items"), object.get("values"), text("name")) {
        (Some("array"), Some(items), ..) => format!("array of {}", written(items)),
        (Some("map"), _, Some(values), _) => format!("map of {}", written(values)),
        (Some("enum"), _, _, Some(name)) => {
            let symbols = object.get("symbols").map(ToString::to_string).unwrap_or_default();
            format!("enum {name} {symbols}")
        }
        (Some(kind), _, _, Some(name)) => format!("{kind} {name}"),
        (Some(kind), ..) => kind.to_owned(),
        (None, ..) => object.get("type").map(written).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = r#"{"type":"record","name":"Envelope","namespace":"shop.orders","fields":[
        {"name":"before","type":["null",{"type":"record","name":"Row","fields":[
            {"name":"id","type":"long"},
            {"name":"price","type":["null",{"type":"bytes","logicalType":"decimal","precision":10,"scale":2}],"default":null},
            {"name":"tags","type":{"type":"array","items":["null","string"]}},
            {"name":"note","type":["null","string"],"default":null}]}],"default":null},
        {"name":"after","type":["null","Row"],"default":null},
        {"name":"op","type":"string"}]}"#;

    #[test]
    fn what_changed_is_told_by_field() {
        assert_eq!(changes(BEFORE, BEFORE), Vec::<String>::new());
        let after = BEFORE
            .replace("\"precision\":10", "\"precision\":12")
            .replace("[\"null\",\"string\"]}}", "[\"null\",\"int\"]}}")
            .replace(
                "\"name\":\"note\",\"type\":[\"null\",\"string\"],\"default\":null",
                "\"name\":\"memo\",\"type\":\"string\"",
            )
            .replace(
                "{\"name\":\"id\",\"type\":\"long\"}",
                "{\"name\":\"id\",\"type\":\"long\",\"default\":0}",
            );
        assert_eq!(
            changes(BEFORE, &after),
            [
                "note is gone",
                "id has a default now",
                "memo is new: string",
                "price was decimal(10,2) or null, is decimal(12,2) or null",
                "tags was array of string or null, is array of int or null",
            ]
        );
    }

    #[test]
    fn a_name_may_have_a_space_of_its_own() {
        assert_eq!(full_name(BEFORE).as_deref(), Some("shop.orders.Envelope"));
        assert_eq!(
            full_name(r#"{"type":"record","name":"a.B","fields":[]}"#).as_deref(),
            Some("a.B")
        );
        assert_eq!(full_name(r#"{"type":"record","name":"B","fields":[]}"#).as_deref(), Some("B"));
        assert_eq!(full_name("\"string\""), None);
    }
}
