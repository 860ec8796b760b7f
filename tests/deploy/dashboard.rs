//! The dashboard: that it asks for what is exported, and that Grafana finds it.

use waltide_stack::Tools;
use waltide_stack::serde_json::{self, Value};

use crate::support::{Scratch, assert_exported, outcome, text, yaml_file};

const DASHBOARD: &str = "deploy/grafana/waltide.json";

fn dashboard() -> Value {
    serde_json::from_str(&text(DASHBOARD)).expect("JSON")
}

/// The panels that show something.
fn panels(dashboard: &Value) -> Vec<&Value> {
    let all = dashboard["panels"].as_array().expect("panels");
    all.iter().filter(|panel| panel["type"] != "row").collect()
}

fn expressions(dashboard: &Value) -> Vec<&str> {
    let targets = panels(dashboard).into_iter().flat_map(|panel| panel["targets"].as_array());
    targets.flatten().map(|target| target["expr"].as_str().expect("an expression")).collect()
}

#[test]
fn panels_ask_for_metrics_that_the_daemon_exports() {
    let dashboard = dashboard();
    assert_exported(expressions(&dashboard));
    let variables = dashboard["templating"]["list"].as_array().expect("variables");
    let queries = variables.iter().filter(|variable| variable["type"] == "query");
    assert_exported(queries.map(|variable| variable["query"].as_str().expect("a query")));
}

#[test]
fn expressions_are_what_prometheus_takes() {
    let dashboard = dashboard();
    // A rule for each, since promtool reads rules; variables as Grafana would fill them in.
    let rules = expressions(&dashboard).into_iter().enumerate().map(|(number, expression)| {
        let filled = expression.replace("$__rate_interval", "1m").replace("$pipeline", ".*");
        assert!(!filled.contains('$'), "{filled}");
        format!("  - {{ record: \"r{number}\", expr: {} }}\n", Value::from(filled))
    });
    let rules: String = rules.collect();
    let file = Scratch::of("yml", &format!("groups:\n- name: dashboard\n  rules:\n{rules}"));
    let mut check = Tools::shared().program("promtool");
    let said = outcome(check.args(["check", "rules"]).arg(file.path()));
    said.unwrap_or_else(|said| panic!("{said}"));
}

#[test]
fn panels_lie_beside_each_other_and_say_what_they_show() {
    let dashboard = dashboard();
    let mut taken = Vec::new();
    let mut ids = Vec::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        let at = |key: &str| panel["gridPos"][key].as_u64().expect("a number");
        for x in at("x")..at("x") + at("w") {
            assert!(x < 24, "{panel} is wider than the screen");
            taken.extend((at("y")..at("y") + at("h")).map(|y| (x, y)));
        }
        ids.push(panel["id"].as_u64());
        assert!(panel["title"].as_str().is_some_and(|title| !title.is_empty()));
    }
    for panel in panels(&dashboard) {
        assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{panel} has no unit");
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{panel}");
    }
    let (cells, panels) = (taken.len(), ids.len());
    taken.sort_unstable();
    taken.dedup();
    assert_eq!(taken.len(), cells, "panels overlap");
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), panels, "an id is there twice");
}

#[test]
fn grafana_of_the_compose_file_finds_it() {
    let compose = text("docker-compose.yml");
    let provider = yaml_file("deploy/grafana/provisioning/dashboards/waltide.yml");
    let place = provider["providers"][0]["options"]["path"].as_str().expect("a path");
    assert!(compose.contains(&format!("./{DASHBOARD}:{place}/waltide.json:ro")), "{place}");
    let source = yaml_file("deploy/grafana/provisioning/datasources/prometheus.yml");
    assert_eq!(source["datasources"][0]["url"], "http://prometheus:9090");
}
