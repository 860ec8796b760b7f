//! A registry of our own, in a directory: what others have, and what a kill must not take.

mod kills;
mod suite;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use waltide_stack::serde_json::{Value, json};
use waltide_stack::{Registry, Stack, Version, eventually};

use crate::cli::waltide;
use crate::python::read_through;
use crate::support::{ConfigFile, Daemon, Pipeline, SOON};

/// A directory of schemas that goes away with the test.
pub(crate) struct Schemas(PathBuf);

impl Schemas {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("schemas-{}-{number}", std::process::id());
        Self(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn text(&self) -> &str {
        self.0.to_str().expect("a path in UTF-8")
    }

    /// Settings of a registry in it, on a port that is free.
    pub(crate) fn settings(&self) -> Value {
        json!({ "directory": self.text(), "listen": "127.0.0.1:0" })
    }

    /// With the token, whoever writes over the network has to show it.
    fn guarded(&self, token: &str) -> Value {
        let file = self.0.with_extension("token");
        fs::write(&file, token).expect("a file");
        let mut settings = self.settings();
        settings["token_file"] = file.to_str().expect("a path in UTF-8").into();
        settings
    }

    /// Names and contents of its files.
    fn files(&self) -> Vec<(String, Vec<u8>)> {
        let mut files: Vec<_> = fs::read_dir(&self.0)
            .expect("the directory")
            .map(|entry| entry.expect("an entry"))
            .map(|entry| {
                let name = entry.file_name().into_string().expect("a name in UTF-8");
                (name, fs::read(entry.path()).expect("a file"))
            })
            .collect();
        files.sort();
        files
    }
}

impl Drop for Schemas {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
        let _ = fs::remove_file(self.0.with_extension("token"));
    }
}

/// A daemon whose source is away, and whose registry answers all the same.
fn serve(registry: &Value) -> (Daemon, Registry) {
    let settings = json!({
        "source": { "url": "postgres://nobody@127.0.0.1:1/none", "tables": ["public.*"] },
        "kafka": { "bootstrap_servers": "127.0.0.1:1" },
        "registry": registry,
    });
    let daemon = Daemon::launch(
        ConfigFile::of(
            "keeper",
            &json!({ "pipelines": { "keeper": settings }, "http": { "listen": "127.0.0.1:0" } })
                .to_string(),
        ),
        &["run"],
    );
    let registry = daemon.registry();
    (daemon, registry)
}

/// Writes over the network; the status of the answer, and its body.
fn write(registry: &Registry, token: &str, path: &str, body: &Value) -> Option<(u16, Value)> {
    let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let method = if path.starts_with("/config") { "PUT" } else { "POST" };
    let request = ureq::http::Request::builder()
        .method(method)
        .uri(format!("{}{path}", registry.url()))
        .header("authorization", format!("Bearer {token}"))
        .body(body.to_string())
        .expect("a request");
    let mut response = agent.run(request).ok()?;
    let text = response.body_mut().read_to_string().ok()?;
    Some((response.status().as_u16(), text.parse().ok()?))
}

/// A schema that no other number has.
fn schema(number: u64) -> Value {
    json!({ "type": "record", "name": "R", "fields": [
        { "name": format!("f{number}"), "type": ["null", "long"], "default": null },
    ] })
}

fn as_body(schema: &Value) -> Value {
    json!({ "schema": schema.to_string() })
}

const ORDERS: &str = "CREATE TABLE orders (id int PRIMARY KEY, item text)";

#[test]
fn consumers_read_through_it_and_a_restart_keeps_its_ids() {
    let shop = Stack::shared().database(Version::NEWEST, "own registry");
    shop.execute(ORDERS);
    let schemas = Schemas::new();
    let pipeline =
        Pipeline::of(&shop).with("registry", schemas.settings()).with("kafka.partitions", 1);
    let daemon = pipeline.start();
    shop.execute("INSERT INTO orders VALUES (1, 'tea')");
    let orders = |registry: &Registry| -> Vec<Value> {
        let records = read_through(registry, &pipeline, "public.orders").into_iter();
        records.map(|record| record["value"]["after"].clone()).collect()
    };
    assert_eq!(orders(&daemon.registry()), [json!({ "id": 1, "item": "tea" })]);
    daemon.kill();
    let before = schemas.files();
    let daemon = pipeline.start();
    shop.execute("INSERT INTO orders VALUES (2, 'milk')");
    pipeline.wait_until_delivered();
    assert_eq!(schemas.files(), before, "a restart writes nothing");
    shop.execute("ALTER TABLE orders ADD COLUMN pieces int");
    shop.execute("INSERT INTO orders VALUES (3, 'rice', 7)");
    let rows = orders(&daemon.registry());
    assert_eq!(
        rows[1..],
        [json!({ "id": 2, "item": "milk" }), json!({ "id": 3, "item": "rice", "pieces": 7 }),]
    );
    for (name, bytes) in before.iter().filter(|(name, _)| name.ends_with(".avsc")) {
        assert!(schemas.files().contains(&(name.clone(), bytes.clone())), "{name} has changed");
    }
    // Commands look into it beside the daemon.
    let file = pipeline.file();
    let config = file.path().to_str().expect("a path in UTF-8");
    for command in [&["check"][..], &["schema", "diff"]] {
        let ended = waltide(&[command, &["--config", config]].concat());
        assert_eq!(ended.status, Some(0), "{}", ended.everything);
    }
    daemon.terminate();
}

#[test]
fn the_rules_of_subjects_hold_and_are_loosened_over_the_network() {
    let shop = Stack::shared().database(Version::NEWEST, "own rules");
    shop.execute(ORDERS);
    let schemas = Schemas::new();
    let pipeline =
        Pipeline::of(&shop).with("registry", schemas.guarded("s3cret")).with("kafka.partitions", 1);
    let daemon = pipeline.start();
    shop.execute("INSERT INTO orders VALUES (1, 'tea')");
    pipeline.wait_until_delivered();
    let registry = daemon.registry();
    let config = format!("/config/{}-value", pipeline.topic("public.orders").name());
    let put = |level: &str| {
        let answer = write(&registry, "s3cret", &config, &json!({ "compatibility": level }));
        assert_eq!(answer, Some((200, json!({ "compatibility": level }))));
    };
    put("FULL");
    shop.execute("ALTER TABLE orders ALTER item TYPE int USING length(item)");
    shop.execute("INSERT INTO orders VALUES (2, 2)");
    let told = eventually("the refusal is told", SOON, || {
        let status = daemon.status();
        (status["error"]["code"] == "WT403").then(|| status["error"].to_string())
    });
    for words in ["item was string or null, is int or null", "at level FULL", "/after"] {
        assert!(told.contains(words), "{words} is not in {told}");
    }
    put("NONE");
    assert_eq!(read_through(&registry, &pipeline, "public.orders").len(), 2);
    assert!(!daemon.log().contains("s3cret"));
    daemon.terminate();
    // As somebody may who does not want to be asked.
    let pipeline = pipeline.with("registry.on_incompatible", "force");
    let daemon = pipeline.start();
    let registry = daemon.registry();
    let answer = write(&registry, "s3cret", &config, &json!({ "compatibility": "FULL" }));
    assert_eq!(answer.map(|(status, _)| status), Some(200));
    shop.execute("ALTER TABLE orders ALTER item TYPE boolean USING item > 2");
    shop.execute("INSERT INTO orders VALUES (3, true)");
    assert_eq!(read_through(&registry, &pipeline, "public.orders").len(), 3);
    let rule = registry.call("GET", &config, None);
    assert_eq!(rule.body["compatibilityLevel"], "FULL");
    daemon.terminate();
}

#[test]
fn nobody_writes_over_the_network_without_the_token() {
    let schemas = Schemas::new();
    let body = as_body(&schema(1));
    let refused = |registry: &Registry, token: &str| {
        for path in ["/subjects/s/versions", "/config/s", "/config"] {
            let body = if path.starts_with("/config") {
                json!({ "compatibility": "NONE" })
            } else {
                body.clone()
            };
            let (status, answer) = write(registry, token, path, &body).expect("an answer");
            assert!(
                answer["message"].as_str().is_some_and(|it| it.contains("registry.token_file"))
            );
            assert!(!answer.to_string().contains("s3cret"));
            assert_eq!(answer["error_code"], u32::from(status) * 100 + 1);
            assert!([401, 403].contains(&status), "{status}");
        }
        assert_eq!(
            registry.call("DELETE", "/config/s", None).body["error_code"]
                .as_u64()
                .map(|it| it / 10_000),
            Some(4)
        );
        assert_eq!(registry.subjects(), [""; 0]);
    };
    let (daemon, registry) = serve(&schemas.settings());
    refused(&registry, "s3cret");
    refused(&registry, "");
    daemon.terminate();
    let (daemon, registry) = serve(&schemas.guarded("s3cret\n"));
    refused(&registry, "s3cre");
    refused(&registry, "");
    let written = write(&registry, "s3cret", "/subjects/s/versions", &body);
    assert_eq!(written, Some((200, json!({ "id": 1 }))));
    assert_eq!(registry.latest("s"), Some(schema(1)));
    daemon.terminate();
}
