//! Confluent's API, as much of it as clients use that register and read Avro.
//!
//! Nothing is deleted: records may name any schema for as long as they lie in a topic.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use waltide_core::registry::{Book, Level, Refusal, Version};

use super::{Directory, Trouble};

/// A question, with its path in parts.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) path: Vec<String>,
    pub(crate) query: String,
    pub(crate) body: Vec<u8>,
}

/// An answer: its status, and its body.
pub(crate) type Answer = (StatusCode, Value);

impl Asked {
    /// Whether it may change something.
    pub(super) fn writes(&self) -> bool {
        let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        match self.method {
            Method::GET | Method::HEAD => false,
            Method::POST => !matches!(*path, ["subjects", _] | ["compatibility", ..]),
            _ => true,
        }
    }

    fn has(&self, name: &str) -> bool {
        self.query.split('&').any(|pair| pair.split_once('=') == Some((name, "true")))
    }

    fn value(&self, name: &str) -> Option<String> {
        let url = reqwest::Url::parse(&format!("query:?{}", self.query)).ok()?;
        let mut pairs = url.query_pairs();
        pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }

    /// The schema it brings.
    fn schema(&self) -> Result<String, Answer> {
        let body: Value = serde_json::from_slice(&self.body)
            .map_err(|error| said(422, 42201, &format!("the body is not JSON: {error}")))?;
        let kind = body.get("schemaType").and_then(Value::as_str).unwrap_or("AVRO");
        let references = body.get("references").and_then(Value::as_array);
        if kind != "AVRO" || references.is_some_and(|references| !references.is_empty()) {
            let message = "only Avro is held here, and only schemas that refer to no other";
            return Err(said(422, 42201, message));
        }
        let schema = body.get("schema").and_then(Value::as_str);
        schema.map(str::to_owned).ok_or_else(|| said(422, 42201, "the body has no schema"))
    }

    fn level(&self) -> Result<Level, Answer> {
        let body: Option<Value> = serde_json::from_slice(&self.body).ok();
        let level = body.as_ref().and_then(|body| body.get("compatibility")?.as_str());
        level.and_then(Level::parse).ok_or_else(|| {
            let levels = Level::ALL.map(Level::as_str).join(", ");
            said(422, 42203, &format!("compatibility is one of {levels}"))
        })
    }
}

/// Answers, from what is in the directory now.
///
/// # Errors
/// Where the directory cannot be used.
pub(crate) fn answer(directory: &Directory, asked: &Asked) -> Result<Answer, Trouble> {
    let path: Vec<&str> = asked.path.iter().map(String::as_str).collect();
    match (asked.method.as_str(), &*path) {
        ("POST", ["subjects", subject, "versions"]) => register(directory, asked, subject),
        ("PUT" | "DELETE", ["config", subject @ ..]) if subject.len() < 2 => {
            rule(directory, asked, subject.first().copied())
        }
        ("GET", ["schemas", "ids", id, what @ ..]) => by_id(directory, id, what),
        _ => directory.look(|book| look(book, asked, &path)),
    }
}

fn look(book: &Book, asked: &Asked, path: &[&str]) -> Answer {
    match (asked.method.as_str(), path) {
        ("GET", [] | [""]) => done(json!({})),
        ("GET", ["schemas", "types"]) => done(json!(["AVRO"])),
        ("GET", ["mode"] | ["mode", _]) => done(json!({ "mode": "READWRITE" })),
        ("GET", ["config"]) => done(json!({ "compatibilityLevel": book.level().as_str() })),
        ("GET", ["config", subject]) => config(book, asked, subject),
        ("GET", ["subjects"]) => {
            let prefix = asked.value("subjectPrefix").unwrap_or_default();
            done(book.subjects().filter(|subject| subject.starts_with(&prefix)).collect())
        }
        ("GET", ["subjects", subject, "versions"]) => match book.versions(subject) {
            Some(versions) => done(versions.iter().map(|version| version.version).collect()),
            None => no_subject(subject),
        },
        ("GET", ["subjects", subject, "versions", which]) => {
            version(book, subject, which).map_or_else(|no| no, |found| done(full(subject, &found)))
        }
        ("GET", ["subjects", subject, "versions", which, "schema"]) => {
            let text =
                |found: Version<'_>| done(serde_json::from_str(found.text).unwrap_or_default());
            version(book, subject, which).map_or_else(|no| no, text)
        }
        ("POST", ["subjects", subject]) => look_up(book, asked, subject),
        ("POST", ["compatibility", "subjects", subject, "versions", which @ ..])
            if which.len() < 2 =>
        {
            compatible(book, asked, subject, which.first().copied())
        }
        ("DELETE", ["subjects", ..]) => {
            said(422, 42205, "nothing is deleted here: records may name any schema")
        }
        ("PUT" | "DELETE", ["mode", ..]) => said(422, 42205, "the mode is always READWRITE"),
        _ => said(404, 404, "HTTP 404 Not Found"),
    }
}

fn register(directory: &Directory, asked: &Asked, subject: &str) -> Result<Answer, Trouble> {
    let schema = match asked.schema() {
        Ok(schema) => schema,
        Err(no) => return Ok(no),
    };
    Ok(match directory.register(subject, &schema)? {
        Ok(id) => done(json!({ "id": id })),
        Err(Refusal::Invalid(why)) => said(422, 42201, &format!("this is no Avro schema: {why}")),
        Err(Refusal::Incompatible { level, obstacles }) => {
            let level = level.as_str();
            let message = format!("at level {level}: {}", obstacles.join("; "));
            said(409, 409, &message)
        }
    })
}

fn rule(directory: &Directory, asked: &Asked, subject: Option<&str>) -> Result<Answer, Trouble> {
    if asked.method == Method::PUT {
        return Ok(match asked.level() {
            Ok(level) => {
                directory.rule(subject, Some(level))?;
                done(json!({ "compatibility": level.as_str() }))
            }
            Err(no) => no,
        });
    }
    let before = directory.look(|book| match subject {
        Some(subject) => book.own_level(subject),
        None => Some(book.level()),
    })?;
    Ok(match (before, subject) {
        (Some(level), _) => {
            directory.rule(subject, None)?;
            done(json!({ "compatibilityLevel": level.as_str() }))
        }
        (None, subject) => no_rule(subject.unwrap_or_default()),
    })
}

fn by_id(directory: &Directory, id: &str, what: &[&str]) -> Result<Answer, Trouble> {
    let none = || said(404, 40403, &format!("Schema {id} not found"));
    let Ok(number) = id.parse() else { return Ok(none()) };
    let Some(text) = directory.text(number)? else { return Ok(none()) };
    Ok(match what {
        [] => done(json!({ "schema": text })),
        ["schema"] => done(serde_json::from_str(&text).unwrap_or_default()),
        ["subjects"] => directory
            .look(|book| done(book.places(number).map(|(subject, _)| subject).collect()))?,
        ["versions"] => directory.look(|book| {
            let place = |(subject, version)| json!({ "subject": subject, "version": version });
            done(book.places(number).map(place).collect())
        })?,
        _ => said(404, 404, "HTTP 404 Not Found"),
    })
}

fn config(book: &Book, asked: &Asked, subject: &str) -> Answer {
    let own = book.own_level(subject);
    match own.or_else(|| asked.has("defaultToGlobal").then(|| book.level())) {
        Some(level) => done(json!({ "compatibilityLevel": level.as_str() })),
        None => no_rule(subject),
    }
}

fn look_up(book: &Book, asked: &Asked, subject: &str) -> Answer {
    let schema = match asked.schema() {
        Ok(schema) => schema,
        Err(no) => return no,
    };
    if book.versions(subject).is_none() {
        return no_subject(subject);
    }
    match book.find(subject, &schema) {
        Some(found) => done(full(subject, &found)),
        None => said(404, 40403, "Schema not found"),
    }
}

fn compatible(book: &Book, asked: &Asked, subject: &str, which: Option<&str>) -> Answer {
    let schema = match asked.schema() {
        Ok(schema) => schema,
        Err(no) => return no,
    };
    let beside = match which {
        // The last one of none is no obstacle.
        Some("latest" | "-1") if book.versions(subject).is_none() => None,
        Some(which) => match version(book, subject, which) {
            Ok(found) => Some(found.id),
            Err(no) => return no,
        },
        None => None,
    };
    match book.hinders(subject, &schema, beside) {
        Err(why) => said(422, 42201, &format!("this is no Avro schema: {why}")),
        Ok(found) if asked.has("verbose") => {
            done(json!({ "is_compatible": found.is_empty(), "messages": found }))
        }
        Ok(found) => done(json!({ "is_compatible": found.is_empty() })),
    }
}

/// The version of a subject that is named so, or the answer that there is none.
fn version<'a>(book: &'a Book, subject: &str, which: &str) -> Result<Version<'a>, Answer> {
    let versions = book.versions(subject).ok_or_else(|| no_subject(subject))?;
    if let "latest" | "-1" = which {
        return versions.last().copied().ok_or_else(|| no_subject(subject));
    }
    let number: u32 = which.parse().ok().filter(|number| *number > 0).ok_or_else(|| {
        said(422, 42202, &format!("{which} is no version: it is a number from 1, or latest"))
    })?;
    let found = versions.into_iter().find(|version| version.version == number);
    found.ok_or_else(|| said(404, 40402, &format!("Version {which} not found.")))
}

fn full(subject: &str, found: &Version<'_>) -> Value {
    json!({
        "subject": subject, "version": found.version, "id": found.id, "schema": found.text,
    })
}

fn done(body: Value) -> Answer {
    (StatusCode::OK, body)
}

fn no_subject(subject: &str) -> Answer {
    said(404, 40401, &format!("Subject '{subject}' not found."))
}

fn no_rule(subject: &str) -> Answer {
    let message =
        format!("Subject '{subject}' does not have subject-level compatibility configured");
    said(404, 40408, &message)
}

pub(super) fn said(status: u16, code: u32, message: &str) -> Answer {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, json!({ "error_code": code, "message": message }))
}
