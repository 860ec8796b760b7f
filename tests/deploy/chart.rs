//! What in the chart is made from something else: its README from its values, its copy of the alerts,
//! its version. `UPDATE_DOCS=1 cargo test --test deploy` writes them anew.

use std::fmt::Write as _;
use std::fs;

use waltide_stack::serde_json::Value;

use crate::kubernetes::CHART;
use crate::prometheus::RULES;
use crate::support::{path, text, yaml_file};

const INTRODUCTION: &str = "\
# The chart `waltide`

<!-- Made from values.yaml by `UPDATE_DOCS=1 cargo test --test deploy`; changes belong there. -->

One daemon, and with `standby.enabled` a second one that takes over. The password of the source's role is in
a Secret of yours; the rest is the daemon's own configuration, under `config`.

```text
kubectl create secret generic waltide-source --from-file=password
helm install waltide deploy/helm/waltide --values my-values.yaml
helm test waltide
```

```yaml
# my-values.yaml
config:
  pipelines:
    shop:
      source:
        url: postgres://waltide@db.example.org:5432/shop?sslmode=verify-full
        password_file: /run/secrets/waltide/source/password
        tables: [\"public.*\"]
      kafka:
        bootstrap_servers: kafka:9092
      registry:
        url: http://registry:8081
      snapshot: never
secrets:
  - name: waltide-source
    as: source
```

- A roll-out has no gap: the new pod is ready as a standby before the old one is asked to end, and takes over
  when that has delivered what it holds. It waits where the new configuration does not come to run.
- A pod whose servers are away is not ready and is not restarted. Alerts, not restarts, are for that.
- Pods pass the restricted Pod Security Standard.
- `helm uninstall` leaves the replication slot in the source, on purpose. Drop it if it is for good:
  docs/runbook.md, \"Removing a pipeline\".

For the daemon beside the database in one pod see `deploy/kubernetes/sidecar`; for CloudNativePG
`deploy/kubernetes/cloudnative-pg`.

## Values

| value | default | meaning |
| --- | --- | --- |
";

/// Rows of the table, from the comments that begin with `# -- `.
fn rows() -> String {
    let values = yaml_file(&format!("{CHART}/values.yaml"));
    let mut rows = String::new();
    let mut above = String::new();
    let mut said = None;
    for line in text(format!("{CHART}/values.yaml")).lines() {
        let bare = line.trim_start();
        if let Some(comment) = bare.strip_prefix("# -- ") {
            said = Some(comment.to_owned());
            continue;
        }
        let Some((key, _)) = bare.split_once(':') else { continue };
        if line == bare && !bare.starts_with('#') {
            above = key.to_owned();
        }
        if let Some(meaning) = said.take() {
            let (name, value) = if line == bare {
                (key.to_owned(), &values[key])
            } else {
                (format!("{above}.{key}"), &values[&above][key])
            };
            let shown = shown(value);
            writeln!(rows, "| `{name}` | {shown} | {meaning} |").expect("a string");
        }
    }
    rows
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) if text.is_empty() => String::new(),
        Value::Object(map) if map.is_empty() => String::new(),
        Value::Array(list) if list.is_empty() => String::new(),
        Value::Object(_) | Value::Array(_) => "see values.yaml".to_owned(),
        Value::String(text) => format!("`{text}`"),
        other => format!("`{other}`"),
    }
}

#[track_caller]
fn assert_made(file: &str, wanted: &str) {
    let file = format!("{CHART}/{file}");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(path(&file), wanted).expect("written");
    }
    let found = fs::read_to_string(path(&file)).unwrap_or_default();
    assert!(found == wanted, "{file} is not up to date: UPDATE_DOCS=1 cargo test --test deploy");
}

#[test]
fn its_readme_lists_every_value() {
    let rows = rows();
    assert_made("README.md", &format!("{INTRODUCTION}{rows}"));
    let values = yaml_file(&format!("{CHART}/values.yaml"));
    for (key, value) in values.as_object().expect("values") {
        // Groups are listed by what is in them.
        let listed = rows.contains(&format!("| `{key}` |"))
            || value.as_object().is_some_and(|inside| {
                inside.keys().all(|inner| rows.contains(&format!("| `{key}.{inner}` |")))
            });
        assert!(listed, "{key} has no comment that begins with `# -- `");
    }
}

#[test]
fn its_alerts_are_those_of_the_repository() {
    assert_made("files/waltide.rules.yml", &text(RULES));
}

#[test]
fn its_version_and_every_image_are_those_of_the_daemon() {
    let chart = yaml_file(&format!("{CHART}/Chart.yaml"));
    assert_eq!(chart["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
    for file in ["base/deployment.yaml", "sidecar/waltide.patch.yaml"] {
        let image = format!("image: ghcr.io/waltide/waltide:{}\n", env!("CARGO_PKG_VERSION"));
        assert!(text(format!("deploy/kubernetes/{file}")).contains(&image), "{file}");
    }
}
