//! Whatever goes wrong, no secret is shown.

use waltide_stack::serde_json::{self, Value, json};
use waltide_stack::{Database, PostgresOptions, Version};

use super::{set_up, tells};
use crate::cli;
use crate::support::Pipeline;

/// Planted wherever a secret can stand; part of no other word.
const PLANTED: [&str; 4] = ["zq1source", "zq2sasl", "zq3registry", "zq4file"];

/// A pipeline with a secret in each place that can hold one.
fn planted<'a>(database: &'a Database, role: &str, password: &str) -> Pipeline<'a> {
    Pipeline::of(database)
        .with("source.url", database.url_as(role, Some(password)))
        .with("registry.username", "reader")
        .with("registry.password", "zq3registry")
}

#[test]
fn no_secret_is_shown_whatever_fails() {
    let rules = "host all all 127.0.0.1/32 scram-sha-256";
    let postgres = PostgresOptions::new(Version::NEWEST).hba(rules).start();
    let database = postgres.database("secrets");
    database.execute(super::ORDERS);
    let role = format!("{}_cdc", database.prefix());
    database.execute(&format!("CREATE ROLE {role} SUPERUSER LOGIN PASSWORD 'zq1source'"));
    drop(set_up(&database));
    let sasl = json!({
        "security.protocol": "sasl_plaintext",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "waltide",
        "sasl.password": "zq2sasl",
        "debug": "all",
    });
    let nowhere = "http://reader:zq3registry@127.0.0.1:1/apis";
    let cases = [
        (planted(&database, &role, "zq4file"), "WT204"),
        (planted(&database, &role, "zq1source").with("kafka.properties", sasl), "WT302"),
        (
            planted(&database, &role, "zq1source").with("registry", json!({ "url": nowhere })),
            "WT401",
        ),
    ];
    for (pipeline, code) in cases {
        let said = said(&pipeline, code);
        for secret in PLANTED {
            let shown = said.lines().find(|line| line.contains(secret));
            assert_eq!(shown, None, "{secret}");
        }
        // What is masked is there all the same.
        assert!(said.contains("********"));
    }
}

/// Everything the daemon and the command line say of a pipeline that fails with this code.
fn said(pipeline: &Pipeline<'_>, code: &str) -> String {
    let file = pipeline.file();
    let text = std::fs::read_to_string(file.path()).expect("the file");
    let chatty = text.replace("\"http\":", "\"log\":{\"level\":\"trace\"},\"http\":");
    assert_ne!(text, chatty);
    std::fs::write(file.path(), &chatty).expect("the file");
    let path = file.path().to_string_lossy().into_owned();
    let mut said = String::new();
    for command in [
        &["config", "show"] as &[&str],
        &["config", "check"],
        &["setup"],
        &["check"],
        &["check", "--json"],
        &["slot", "list"],
        &["slot", "show", "--json"],
        &["checkpoint", "show"],
    ] {
        let arguments = [command, &["--config", &path]].concat();
        said += &cli::waltide(&arguments).everything;
    }
    // The URL of the source, right and wrong in several places.
    let settings: Value = serde_json::from_str(&text).expect("JSON");
    let pipeline = settings["pipelines"].as_object().and_then(|all| all.values().next());
    let url = pipeline.and_then(|of| of["source"]["url"].as_str()).expect("a URL").to_owned();
    for url in [&url, &url.replace("127.0.0.1", "127.0.0.1:x"), &url.replace("@", "@@")] {
        for table in ["public.nothing", "no table"] {
            let ended = cli::waltide(&["tail", "--source", url, "--table", table]);
            assert_eq!(ended.status, Some(1), "{}", ended.everything);
            said += &ended.everything;
        }
        said += &cli::waltide(&["tail", "--source", url, "--tabel", "x"]).everything;
    }
    let daemon = crate::support::Daemon::launch(file, &["run"]);
    tells(&daemon, code, &[]);
    for path in ["/readyz", "/livez", "/api/status", "/api/history", "/metrics", "/"] {
        let (_, body) = daemon.get(path).expect("the daemon answers");
        said += &body;
    }
    // What a reload refuses is told with its place, and a secret may stand there.
    let file = daemon.config();
    let damaged = chatty.replace("zq3registry", "zq3registry\nzq3registry");
    std::fs::write(file, damaged.replace("\"source\"", "\"sauce\"")).expect("the file");
    let ended = cli::waltide(&["reload", "--url", &daemon.url()]);
    assert_eq!(ended.status, Some(1), "{}", ended.everything);
    said += &ended.everything;
    for command in ["status", "healthcheck"] {
        said += &cli::waltide(&[command, "--url", &daemon.url()]).everything;
    }
    said += &daemon.log();
    daemon.terminate();
    said
}
