//! The document of the API says what the daemon answers: every field, and no other.

use waltide_stack::serde_json::{self, Value, json};
use waltide_stack::{Stack, Version, eventually};

use super::tell;
use crate::support::{Pipeline, Request, SOON};

const DOCUMENT: &str = include_str!("../../../src/http/openapi.json");

/// What is wrong with a value by a schema of the document; only what the document uses is known.
fn wrong(document: &Value, schema: &Value, value: &Value, at: &str) -> Option<String> {
    if let Some(name) = schema["$ref"].as_str() {
        let path = name.trim_start_matches('#');
        let schema = document.pointer(path).unwrap_or_else(|| panic!("{name} is not there"));
        return wrong(document, schema, value, at);
    }
    if let Some(any) = schema["anyOf"].as_array() {
        let wrongs: Vec<String> =
            any.iter().filter_map(|one| wrong(document, one, value, at)).collect();
        return (wrongs.len() == any.len()).then(|| wrongs.join(" and "));
    }
    if let Some(words) = schema["enum"].as_array() {
        return (!words.contains(value)).then(|| format!("{at}: {value}"));
    }
    let types = match &schema["type"] {
        Value::Array(types) => types.clone(),
        one => vec![one.clone()],
    };
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let is = |known: &Value| known == kind || (known == "number" && kind == "integer");
    if !types.iter().any(is) {
        return Some(format!("{at} is of type {kind}, and not {types:?}"));
    }
    if value.as_f64().zip(schema["minimum"].as_f64()).is_some_and(|(value, least)| value < least) {
        return Some(format!("{at} is {value}"));
    }
    match value {
        Value::Array(items) => items.iter().enumerate().find_map(|(index, item)| {
            wrong(document, &schema["items"], item, &format!("{at}[{index}]"))
        }),
        Value::Object(fields) => {
            let named = schema["properties"].as_object();
            let missing = schema["required"].as_array().into_iter().flatten();
            let mut missing = missing.filter_map(Value::as_str);
            if let Some(name) = missing.find(|name| !fields.contains_key(*name)) {
                return Some(format!("{at} has no {name}"));
            }
            fields.iter().find_map(|(name, value)| {
                let at = format!("{at}.{name}");
                let of = named.and_then(|named| named.get(name));
                match of.or(Some(&schema["additionalProperties"])) {
                    // Nothing is said of other fields: they may be there.
                    Some(Value::Bool(true) | Value::Null) | None => None,
                    Some(Value::Object(_)) => {
                        wrong(document, of.unwrap_or(&schema["additionalProperties"]), value, &at)
                    }
                    Some(_) => Some(format!("{at} is not in the document")),
                }
            })
        }
        _ => None,
    }
}

/// Sees to it that an answer is as the document says, and returns it.
#[track_caller]
fn as_documented(document: &Value, method: &str, path: &str, answer: (u16, String)) -> Value {
    let (status, body) = answer;
    let of = &document["paths"][path][method]["responses"][status.to_string()];
    assert!(of.is_object(), "{method} {path} answers {status}: {body}");
    let value: Value = serde_json::from_str(&body).expect("JSON");
    let schema = &of["content"]["application/json"]["schema"];
    let wrong = wrong(document, schema, &value, "the answer");
    assert_eq!(wrong, None, "{method} {path}: {value:#}");
    value
}

#[test]
fn every_answer_has_the_fields_of_the_document_and_no_others() {
    let document: Value = serde_json::from_str(DOCUMENT).expect("JSON");
    let database = Stack::shared().database(Version::NEWEST, "openapi");
    database.execute("CREATE TABLE orders (id int PRIMARY KEY); CREATE TABLE notes (a int)");
    database.execute("INSERT INTO orders SELECT generate_series(1, 1000)");
    let kafka = Stack::shared().kafka();
    let pipeline = Pipeline::of(&database).with("snapshot", "initial");
    let daemon = pipeline.start();
    let get =
        |path: &str| as_documented(&document, "get", path, daemon.get(path).expect("it answers"));
    eventually("a table is read", SOON, || {
        let status = get("/api/status");
        (status["pipelines"][0]["snapshots"]["public.orders"]["state"] == "done").then_some(())
    });
    database.execute("INSERT INTO orders VALUES (0)");
    pipeline.wait_until_delivered();
    eventually("the schema of the table is told", SOON, || {
        let status = get("/api/status");
        status["pipelines"][0]["tables"]["public.orders"]["schema_id"].is_u64().then_some(())
    });
    assert!(!get("/api/history")["pipelines"][pipeline.name()].is_null());
    get("/readyz");
    let path = format!("/api/pipelines/{}/snapshots", pipeline.name());
    let list = daemon.get(&path).expect("it answers");
    as_documented(&document, "get", "/api/pipelines/{name}/snapshots", list);
    for order in ["start", "pause", "resume", "cancel"] {
        let path = format!("/api/pipelines/{{name}}/snapshots/{order}");
        let at = path.replace("{name}", pipeline.name());
        let of = json!({ "table": "public.orders" }).to_string();
        let answer = Request::post(&at).of_its_user(&daemon).body(&of).send(&daemon);
        as_documented(&document, "post", &path, answer);
    }
    assert_eq!(get("/api/openapi.json"), document);
    // What is asked for without a token, for nobody, and in a wrong way.
    let send = |request: Request, method, path| {
        as_documented(&document, method, path, request.send(&daemon))
    };
    for (method, verb, path) in [
        ("post", "POST", "/api/pipelines/{name}/pause"),
        ("post", "POST", "/api/pipelines/{name}/resume"),
        ("post", "POST", "/api/pipelines/{name}/snapshots/start"),
        ("post", "POST", "/api/pipelines/{name}/snapshots/cancel"),
        ("post", "POST", "/api/reload"),
        ("put", "PUT", "/api/log-level"),
    ] {
        let at = path.replace("{name}", pipeline.name());
        send(Request::of(verb, &at), method, path);
        let evil = Request::of(verb, &at).with(&[("Host", "evil.example")]);
        send(evil, method, path);
    }
    // With a failure in the way, which is remembered.
    tell(&daemon, &pipeline, "pause");
    kafka.delete_topic(pipeline.topic("public.orders").name());
    tell(&daemon, &pipeline, "resume");
    database.execute(&format!(
        "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots
        WHERE slot_name = '{}'",
        pipeline.slot()
    ));
    eventually("a failure is remembered", SOON, || {
        get("/readyz");
        let status = get("/api/status");
        status["pipelines"][0]["errors"].as_array().filter(|errors| !errors.is_empty()).map(drop)
    });
    daemon.terminate();
}

#[test]
fn the_checker_of_answers_finds_what_is_wrong() {
    let document = json!({ "components": { "schemas": { "A": {
        "type": "object", "properties": { "n": { "type": ["integer", "null"], "minimum": 0 } },
        "required": ["n"], "additionalProperties": false,
    } } } });
    let schema = json!({ "$ref": "#/components/schemas/A" });
    let wrong = |value: Value| wrong(&document, &schema, &value, "it");
    assert_eq!(wrong(json!({ "n": 1 })), None);
    assert_eq!(wrong(json!({ "n": null })), None);
    for bad in
        [json!({}), json!({ "n": "x" }), json!({ "n": -1 }), json!({ "n": 1, "m": 2 }), json!(7)]
    {
        assert!(wrong(bad.clone()).is_some(), "{bad}");
    }
}
