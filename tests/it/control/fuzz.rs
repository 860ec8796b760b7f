//! Schemathesis asks the API whatever its document allows, and what it does not: what comes back is
//! always what the document says, and the stream goes on.

use std::path::Path;
use std::process::Command;

use waltide_stack::{Stack, Version};

use crate::python::{python, run};
use crate::support::{Pipeline, Random, Request};

/// What is asked of each way in; `test-full` asks for more.
fn examples() -> String {
    let given = std::env::var("WALTIDE_API_EXAMPLES").ok().filter(|text| !text.is_empty());
    given.unwrap_or_else(|| "15".to_owned())
}

#[test]
fn the_document_is_one_of_openapi() {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http/openapi.json");
    run(Command::new(python()).args(["-m", "openapi_spec_validator"]).arg(document));
}

#[test]
fn whatever_is_asked_is_answered_as_the_document_says() {
    let database = Stack::shared().database(Version::NEWEST, "fuzzed");
    database.execute("CREATE TABLE orders (id int PRIMARY KEY)");
    let pipeline = Pipeline::of(&database);
    let http = [("token", "the-token".into()), ("protect_reads", true.into())];
    let daemon = pipeline.launch_with_http(&http);
    daemon.wait_ready();
    let right = [("Authorization", "Bearer the-token")];
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http/openapi.json");
    let seed = Random::from_environment("fuzzed").of(0..1 << 32);
    let program = python().with_file_name("schemathesis");
    let mut fuzz = Command::new(program);
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/control/schemathesis.toml");
    fuzz.arg("--config-file").arg(config).arg("run").arg(document).args(["--url", &daemon.url()]);
    fuzz.args(["--header", "Authorization: Bearer the-token", "--max-examples", &examples()]);
    fuzz.args(["--seed", &seed.to_string(), "--generation-database", "none"]);
    fuzz.args(["--continue-on-failure", "--no-color"]).current_dir(env!("CARGO_TARGET_TMPDIR"));
    // That a probe answers 503 is in the document; any other failure of a server is not.
    let output = fuzz.args(["--exclude-checks", "not_a_server_error"]).output();
    let output = output.expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    eprintln!("{said}");
    assert!(output.status.success(), "{said}\n{}", daemon.log());
    assert!(said.contains("16 selected") && said.contains("generated"), "{said}");

    let resume = format!("/api/pipelines/{}/resume", pipeline.name());
    let (status, body) = Request::post(&resume).with(&right).send(&daemon);
    assert_eq!(status, 200, "{body}");
    database.execute("INSERT INTO orders VALUES (1)");
    pipeline.wait_until_delivered();
    assert_eq!(pipeline.changes("public.orders").len(), 1);
    daemon.terminate();
}
