//! The same questions, asked of a registry that others have made and of ours: the same answers.

use waltide_stack::serde_json::{Map, Value, json};
use waltide_stack::{Registry, Stack};

use super::{Schemas, as_body, serve};

/// A registry of others, and ours; what is asked of both gives the same answer.
struct Both {
    theirs: Registry,
    ours: Registry,
    /// What our own subjects begin with, so that tests beside this one keep theirs.
    prefix: String,
}

impl Both {
    /// Runs a test with both.
    fn answer(test: &str, ask: impl FnOnce(&Self)) {
        let schemas = Schemas::new();
        let (daemon, ours) = serve(&schemas.guarded("t"));
        let theirs = Stack::shared().registry().clone();
        let prefix = format!("{test}-{}", std::process::id());
        ask(&Self { theirs, ours, prefix });
        daemon.terminate();
    }

    fn subject(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    /// What both answer.
    #[track_caller]
    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let theirs = call(&self.theirs, method, path, body);
        let ours = call(&self.ours, method, path, body);
        assert_eq!(told(&ours), told(&theirs), "{method} {path} {body:?}: {ours:?}, {theirs:?}");
        ours
    }

    /// Registers a schema with both; their ids are their own.
    #[track_caller]
    fn register(&self, subject: &str, schema: &Value) -> (u16, u64) {
        let (path, body) = (format!("/subjects/{subject}/versions"), as_body(schema));
        let (status, _) = self.ask("POST", &path, Some(&body));
        let (_, answer) = call(&self.ours, "POST", &path, Some(&body));
        (status, answer["id"].as_u64().unwrap_or_default())
    }

    #[track_caller]
    fn rule(&self, subject: &str, level: &str) {
        let body = json!({ "compatibility": level });
        let (status, _) = self.ask("PUT", &format!("/config/{subject}"), Some(&body));
        assert_eq!(status, 200);
    }
}

fn call(registry: &Registry, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
    let agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .allow_non_standard_methods(true)
        .build()
        .new_agent();
    let request = ureq::http::Request::builder()
        .method(method)
        .uri(format!("{}{path}", registry.url()))
        .header("content-type", "application/vnd.schemaregistry.v1+json")
        .header("authorization", "Bearer t")
        .body(body.map(Value::to_string).unwrap_or_default())
        .expect("a request");
    let mut response = agent.run(request).expect("an answer");
    let text = response.body_mut().read_to_string().expect("a text");
    (response.status().as_u16(), text.parse().unwrap_or_default())
}

/// Of an answer, what does not differ between registries: ids, words and what is said beside.
fn told((status, body): &(u16, Value)) -> Value {
    let keep =
        ["subject", "version", "compatibility", "compatibilityLevel", "is_compatible", "mode"];
    let mut told = match body {
        Value::Array(_) => body.clone(),
        body => {
            let kept =
                keep.iter().filter_map(|name| Some((name.to_string(), body.get(name)?.clone())));
            let mut kept: Map<String, Value> = kept.collect();
            // One schema may be written in more than one way.
            let schema = body.get("schema").and_then(Value::as_str);
            let schema = schema.map(|text| text.parse().unwrap_or_default());
            kept.extend(schema.map(|schema: Value| ("schema".to_owned(), schema)));
            Value::Object(kept)
        }
    };
    if *status >= 400 {
        told = json!({ "error_code": body["error_code"] });
    }
    json!([status, told])
}

fn record(fields: Value) -> Value {
    json!({ "type": "record", "name": "shop.R", "fields": fields })
}

#[test]
fn what_clients_ask_is_answered_as_others_answer_it() {
    Both::answer("suite", |both| {
        let (a, b) = (both.subject("a"), both.subject("b"));
        let first = record(json!([{ "name": "id", "type": "long" }]));
        let second = record(json!([
            { "name": "id", "type": "long" },
            { "name": "item", "type": ["null", "string"], "default": null },
        ]));
        let third = record(json!([{ "name": "id", "type": "string" }]));
        both.ask("GET", &format!("/subjects/{a}/versions"), None);
        both.ask("GET", &format!("/subjects/{a}/versions/latest"), None);
        let (_, id) = both.register(&a, &first);
        assert_eq!(both.register(&a, &first), (200, id));
        assert_eq!(both.register(&b, &first), (200, id));
        both.rule(&a, "BACKWARD");
        let (_, other) = both.register(&a, &second);
        assert_ne!(other, id);
        assert_eq!(both.register(&a, &third).0, 409);
        both.ask("GET", &format!("/subjects/{a}/versions"), None);
        for which in ["1", "2", "3", "latest"] {
            both.ask("GET", &format!("/subjects/{a}/versions/{which}"), None);
        }
        for (subject, schema) in
            [(&a, &first), (&a, &second), (&b, &second), (&both.subject("none"), &first)]
        {
            both.ask("POST", &format!("/subjects/{subject}"), Some(&as_body(schema)));
        }
        for schema in [&first, &second, &third] {
            let path = format!("/compatibility/subjects/{a}/versions/latest");
            both.ask("POST", &path, Some(&as_body(schema)));
        }
        both.ask("GET", &format!("/config/{a}"), None);
        // Apicurio refuses what it does not know with a page, and Confluent's registry with this.
        let some = json!({ "compatibility": "SOME" });
        let (status, refused) = call(&both.ours, "PUT", &format!("/config/{a}"), Some(&some));
        assert_eq!((status, &refused["error_code"]), (422, &json!(42203)));
        both.ask("DELETE", &format!("/config/{a}"), None);
        // Apicurio tells the level of all where Confluent's registry says that there is none.
        let (status, none) = call(&both.ours, "GET", &format!("/config/{a}"), None);
        assert_eq!((status, &none["error_code"]), (404, &json!(40408)));
        let path = format!("/config/{a}?defaultToGlobal=true");
        let global = call(&both.ours, "GET", &path, None).1;
        assert_eq!(global["compatibilityLevel"], "BACKWARD");
        both.ask("GET", "/schemas/ids/99999999", None);
        both.ask("GET", "/mode", None);
        for broken in [json!({ "schema": "{\"type\": \"strong\"}" }), json!({ "schema": "{" })] {
            both.ask("POST", &format!("/subjects/{b}/versions"), Some(&broken));
        }
        for registry in [&both.theirs, &both.ours] {
            let versions = registry.subjects().into_iter().filter(|it| *it == a || *it == b);
            assert_eq!(versions.count(), 2);
            let found = registry.call("POST", &format!("/subjects/{a}"), Some(&as_body(&second)));
            let id = found.body["id"].as_u64().expect("an id");
            assert_eq!(registry.schema(u32::try_from(id).expect("an id")), second);
            let answer = registry.call("GET", &format!("/schemas/ids/{id}/versions"), None);
            assert_eq!(answer.body, json!([{ "subject": a, "version": 2 }]));
        }
    });
}

/// Each is what a column may have been and may become.
fn types() -> Vec<Value> {
    let mut types: Vec<Value> =
        ["null", "boolean", "int", "long", "float", "double", "bytes", "string"]
            .iter()
            .map(|name| json!(name))
            .collect();
    types.extend([
        json!(["null", "int"]),
        json!(["null", "long"]),
        json!(["null", "string"]),
        json!({ "type": "array", "items": "int" }),
        json!({ "type": "array", "items": ["null", "long"] }),
        json!({ "type": "map", "values": "string" }),
        json!({ "type": "enum", "name": "E", "symbols": ["a"] }),
        json!({ "type": "enum", "name": "E", "symbols": ["a", "b"] }),
        json!({ "type": "enum", "name": "E", "symbols": ["b"], "default": "b" }),
        json!({ "type": "fixed", "name": "F", "size": 4 }),
        json!({ "type": "fixed", "name": "F", "size": 8 }),
        json!({ "type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 2 }),
        json!({ "type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 4 }),
        json!({ "type": "record", "name": "Q", "fields": [{ "name": "x", "type": "int" }] }),
        json!({ "type": "record", "name": "Q", "fields": [
            { "name": "x", "type": "long" }, { "name": "y", "type": "int", "default": 0 }] }),
        json!({ "type": "record", "name": "Q", "fields": [
            { "name": "x", "type": "int" }, { "name": "y", "type": "int" }] }),
    ]);
    types
}

#[test]
fn a_change_is_judged_as_others_judge_it() {
    Both::answer("verdicts", |both| {
        let of = |kind: &Value| record(json!([{ "name": "f", "type": kind }]));
        for (number, before) in types().iter().enumerate() {
            let subject = both.subject(&number.to_string());
            both.register(&subject, &of(before));
            for level in ["BACKWARD", "FORWARD"] {
                both.rule(&subject, level);
                for after in types() {
                    let path = format!("/compatibility/subjects/{subject}/versions/latest");
                    both.ask("POST", &path, Some(&as_body(&of(&after))));
                }
            }
        }
    });
}

#[test]
fn each_level_looks_back_as_far_as_with_others() {
    let fields = |names: &[&str]| {
        let field = |name: &&str| json!({ "name": name, "type": "int" });
        record(names.iter().map(field).collect())
    };
    let with_default = record(json!([{ "name": "a", "type": "int", "default": 1 }]));
    Both::answer("levels", |both| {
        for level in [
            "NONE",
            "BACKWARD",
            "BACKWARD_TRANSITIVE",
            "FORWARD",
            "FORWARD_TRANSITIVE",
            "FULL",
            "FULL_TRANSITIVE",
        ] {
            let subject = both.subject(level);
            both.register(&subject, &fields(&[]));
            both.rule(&subject, "NONE");
            both.register(&subject, &with_default);
            both.rule(&subject, level);
            for next in [fields(&["a"]), fields(&["a", "b"]), fields(&["b"])] {
                both.register(&subject, &next);
            }
            both.ask("GET", &format!("/subjects/{subject}/versions"), None);
        }
    });
}
