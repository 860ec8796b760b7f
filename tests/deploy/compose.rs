//! `docker compose up`, as far as it can be seen without an engine: the file as the loader of
//! Docker's own compose reads it, and what it says.

use std::fs;

use waltide::config::{self, Environment};
use waltide_stack::serde_json::{self, Value};

use crate::support::{path, text, tool, yaml_file};

fn project() -> Value {
    serde_json::from_str(&tool("compose", ["-format", "json", "docker-compose.yml"])).expect("JSON")
}

/// The version that the servers of the tests have.
fn pinned(property: &str) -> String {
    let pom = text("tests/stack/pom.xml");
    let (_, rest) = pom.split_once(&format!("<{property}>")).expect("a pinned version");
    rest.split_once('<').expect("its end").0.to_owned()
}

#[test]
fn versions_are_those_of_the_test_stack() {
    let project = project();
    let image = |service: &str| project["services"][service]["image"].as_str().expect("an image");
    assert_eq!(image("postgres"), format!("postgres:{}", pinned("postgres.18")));
    assert_eq!(image("workload"), image("postgres"));
    assert_eq!(image("kafka"), format!("apache/kafka:{}", pinned("kafka")));
    let registry = format!("apicurio/apicurio-registry-mem:{}", pinned("apicurio"));
    assert_eq!(image("registry"), registry);
    assert_eq!(image("waltide"), format!("waltide:{}", env!("CARGO_PKG_VERSION")));
    for (name, service) in project["services"].as_object().expect("services") {
        let (_, tag) = service["image"].as_str().and_then(|i| i.rsplit_once(':')).expect("a tag");
        assert!(tag.contains(|c: char| c.is_ascii_digit()), "{name} is not pinned");
    }
}

#[test]
fn every_service_is_watched_and_every_file_is_there() {
    let project = project();
    for (name, service) in project["services"].as_object().expect("services") {
        // The daemon's is in its image; the workload is done when it is done.
        if !["waltide", "workload"].contains(&name.as_str()) {
            assert!(service["healthcheck"]["test"].is_array(), "{name} has no health check");
        }
        for volume in service["volumes"].as_array().into_iter().flatten() {
            if volume["type"] == "bind" {
                let source = volume["source"].as_str().expect("a path");
                assert!(fs::exists(source).is_ok_and(|is| is), "{name} mounts {source}");
                assert_eq!(volume["read_only"], true, "{name} may write to {source}");
            }
        }
    }
    assert!(path("Dockerfile").exists());
}

#[test]
fn the_daemon_may_do_nothing_but_its_work() {
    let project = project();
    let daemon = &project["services"]["waltide"];
    assert_eq!(daemon["read_only"], true);
    assert_eq!(daemon["cap_drop"][0], "ALL");
    assert_eq!(daemon["security_opt"][0], "no-new-privileges:true");
    assert_eq!(daemon["stop_grace_period"], "30s");
    assert!(daemon["depends_on"].is_null(), "it waits by itself");
}

#[test]
fn its_configuration_holds_and_names_the_other_services() {
    let name = "deploy/compose/waltide.yaml";
    let loaded = config::parse(name, &text(name), &Environment::default());
    let loaded = loaded.unwrap_or_else(|errors| panic!("{errors}"));
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let project = project();
    let pipeline = &yaml_file(name)["pipelines"]["shop"];
    for (key, url) in [
        ("postgres", &pipeline["source"]["url"]),
        ("kafka", &pipeline["kafka"]["bootstrap_servers"]),
        ("registry", &pipeline["registry"]["url"]),
    ] {
        let url = url.as_str().expect("an address");
        assert!(url.contains(&format!("{key}:")), "{url}");
        assert!(project["services"][key].is_object(), "no service {key}");
    }
    assert_eq!(
        yaml_file("deploy/compose/prometheus.yml")["scrape_configs"][0]["static_configs"][0]["targets"]
            [0],
        "waltide:9464"
    );
}
