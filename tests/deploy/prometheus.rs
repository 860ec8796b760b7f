//! Alerts: what fires when, that it asks for metrics that exist, and who hears of it.

use waltide_stack::serde_json::Value;

use crate::support::{assert_exported, outcome, path, text, texts, tool, yaml_file};
use waltide_stack::Tools;

pub(crate) const RULES: &str = "deploy/prometheus/waltide.rules.yml";
const TESTS: &str = "deploy/prometheus/waltide.test.yml";
const ALERTMANAGER: &str = "deploy/prometheus/alertmanager.example.yml";

/// The alerts, as they stand in the file.
pub(crate) fn alerts() -> Vec<Value> {
    let rules = yaml_file(RULES);
    let groups = rules["groups"].as_array().expect("groups");
    groups.iter().flat_map(|group| group["rules"].as_array().expect("rules").clone()).collect()
}

fn names() -> Vec<String> {
    let name = |alert: &Value| alert["alert"].as_str().expect("an alert's name").to_owned();
    alerts().iter().map(name).collect()
}

#[test]
fn alerts_fire_when_they_should_and_only_then() {
    tool("promtool", ["check", "rules", "--lint-fatal", RULES]);
    tool("promtool", ["test", "rules", TESTS]);
    let cases = text(TESTS);
    for name in names() {
        assert!(cases.contains(&format!("alertname=\"{name}\"")), "no case in which {name} fires");
    }
}

#[test]
fn alerts_ask_for_metrics_that_the_daemon_exports() {
    let alerts = alerts();
    assert!(alerts.len() >= 10, "{}", alerts.len());
    assert_exported(alerts.iter().map(|alert| alert["expr"].as_str().expect("an expression")));
}

#[test]
fn alerts_say_how_bad_it_is_for_whom_and_where_to_read_on() {
    for alert in alerts() {
        let name = alert["alert"].as_str().expect("a name");
        let severity = alert["labels"]["severity"].as_str().expect("a severity");
        assert!(["critical", "warning", "info"].contains(&severity), "{name}: {severity}");
        let notes = &alert["annotations"];
        let url = notes["runbook_url"].as_str().expect("a link");
        assert!(url.ends_with(&format!("/docs/runbook.md#{}", name.to_lowercase())), "{url}");
        assert!(notes["description"].as_str().is_some_and(|text| text.len() > 40), "{name}");
        let summary = notes["summary"].as_str().expect("a summary");
        // Of a process there is one endpoint, however many pipelines it has.
        let whose = match name {
            "WaltideAbsent" => "daemon",
            "WaltideEndpointCertificateExpires" => "$labels.instance",
            _ => "$labels.pipeline",
        };
        assert!(summary.contains(whose), "{name}: {summary}");
    }
}

#[test]
fn the_example_of_alertmanager_sends_each_severity_where_it_belongs() {
    tool("amtool", ["check-config", ALERTMANAGER]);
    for (severity, receivers) in [("critical", "pager,chat"), ("warning", "chat"), ("info", "mail")]
    {
        let file = format!("--config.file={ALERTMANAGER}");
        let label = format!("severity={severity}");
        let said = tool("amtool", ["config", "routes", "test", &file, "pipeline=shop", &label]);
        assert_eq!(said.trim(), receivers, "{severity}");
    }
    // What it holds back exists.
    let example = yaml_file(ALERTMANAGER);
    let known = names();
    for rule in example["inhibit_rules"].as_array().expect("rules") {
        for key in ["source_matchers", "target_matchers"] {
            let matchers = texts(&rule[key]);
            let quoted = matchers.iter().filter_map(|matcher| matcher.split('"').nth(1));
            for name in quoted.flat_map(|names| names.split('|')) {
                assert!(known.iter().any(|one| one == name), "no alert {name}");
            }
        }
    }
}

#[test]
fn prometheus_of_the_compose_file_reads_these_rules() {
    let name = "deploy/compose/prometheus.yml";
    // The place in the container is another one than here.
    let here =
        text(name).replace("/etc/prometheus/", &path("deploy/prometheus/").to_string_lossy());
    let file = crate::support::Scratch::of("yml", &here);
    let mut check = Tools::shared().program("promtool");
    let said = outcome(check.args(["check", "config"]).arg(file.path()));
    let said = said.unwrap_or_else(|said| panic!("{said}"));
    assert!(said.contains("rules found"), "{said}");
}
