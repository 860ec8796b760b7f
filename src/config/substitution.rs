//! `${VAR}`, `${VAR:-default}` and `${file:/path}` inside the values of a file.
//!
//! Filled in after the YAML is parsed, so that what comes in can change a value and never the
//! document's structure. What comes in is taken as it is: it is not looked through again.

use std::path::Path;

use super::document::{Node, Scalar, Style, Value};
use super::environment::Environment;
use super::error::{Error, Kind, Problems};
use super::keys::{KeyPath, shown_value};
use super::secret;

/// Fills in every value of a tree.
pub(super) fn apply(root: &mut Node, environment: &Environment, problems: &mut Problems) {
    fill(root, &KeyPath::root(), environment, problems);
}

fn fill(node: &mut Node, path: &KeyPath, environment: &Environment, problems: &mut Problems) {
    match &mut node.value {
        Value::Scalar(scalar) if scalar.text.contains('$') => match filled(scalar, environment) {
            Ok(filled) => node.value = filled,
            Err(Fault { message, help }) => {
                let place = node.mark.place.clone();
                problems
                    .add(Error::new(Kind::Substitution, place, path.as_str(), message).help(help));
                node.value = Value::Broken;
            }
        },
        Value::List(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                fill(item, &path.item(index), environment, problems);
            }
        }
        Value::Map(entries) => {
            for entry in entries {
                fill(&mut entry.value, &path.child(&entry.key), environment, problems);
            }
        }
        Value::Scalar(_) | Value::Null | Value::Broken => {}
    }
}

struct Fault {
    message: String,
    help: String,
}

impl Fault {
    fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into() }
    }
}

fn filled(scalar: &Scalar, environment: &Environment) -> Result<Value, Fault> {
    let mut text = String::with_capacity(scalar.text.len());
    let mut style = scalar.style;
    let mut hidden = scalar.hidden;
    let mut rest = scalar.text.as_str();
    while let Some(dollar) = rest.find('$') {
        text.push_str(&rest[..dollar]);
        rest = &rest[dollar + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            text.push('$');
            rest = after;
        } else if let Some(after) = rest.strip_prefix('{') {
            let Some(end) = after.find('}') else {
                return Err(Fault::new(
                    "a `${` is not closed",
                    "close it with `}`, or write `$${` for the characters themselves",
                ));
            };
            let reference = reference(&after[..end])?;
            hidden |= matches!(reference, Reference::File(_));
            text.push_str(&reference.resolve(environment)?);
            style = Style::Outside;
            rest = &after[end + 1..];
        } else {
            text.push('$');
        }
    }
    text.push_str(rest);
    if text.is_empty() && style == Style::Outside {
        return Ok(Value::Null);
    }
    Ok(Value::Scalar(Scalar { text, style, hidden }))
}

enum Reference<'a> {
    Variable { name: &'a str, default: Option<&'a str> },
    File(&'a str),
}

/// Reads what stands between the braces. Messages never repeat it where it is not a name: it
/// may be part of a password with an unescaped dollar.
fn reference(inner: &str) -> Result<Reference<'_>, Fault> {
    const FORMS: &str = "the forms are `${VAR}`, `${VAR:-default}` and `${file:/path}`; a dollar \
                         that is part of the value is written `$$`";
    if let Some(path) = inner.strip_prefix("file:") {
        if path.is_empty() {
            return Err(Fault::new("this `${file:}` names no file", FORMS));
        }
        return Ok(Reference::File(path));
    }
    let (name, default) = match inner.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inner, None),
    };
    let is_name = !name.is_empty()
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !name.starts_with(|c: char| c.is_ascii_digit());
    if !is_name {
        return Err(Fault::new("what stands in this `${...}` is not a variable's name", FORMS));
    }
    if default.is_some_and(|default| default.contains("${")) {
        return Err(Fault::new(
            format!("the default of `${{{name}}}` holds another `${{`"),
            "substitutions cannot be nested",
        ));
    }
    Ok(Reference::Variable { name, default })
}

impl Reference<'_> {
    fn resolve(&self, environment: &Environment) -> Result<String, Fault> {
        match *self {
            Self::Variable { name, default } => match (environment.get(name), default) {
                (Some(value), None) => Ok(value.to_owned()),
                (Some(value), Some(_)) if !value.is_empty() => Ok(value.to_owned()),
                (_, Some(default)) => Ok(default.to_owned()),
                (None, None) => Err(Fault::new(
                    format!("the environment variable {name} is not set"),
                    format!("set it, or give a default: `${{{name}:-...}}`"),
                )),
            },
            Self::File(path) => secret::read_file(Path::new(path)).map_err(|error| {
                Fault::new(
                    format!("the file {} cannot be read: {error}", shown_value(path)),
                    "see that it exists and that the daemon's user may read it",
                )
            }),
        }
    }
}
