//! The configuration, from the outside: what is taken, what is refused and in which words, and
//! what is never shown.

#[path = "config/environment.rs"]
mod environment;
#[path = "config/mistakes.rs"]
mod mistakes;
#[path = "config/mutations.rs"]
mod mutations;
#[path = "config/secrets.rs"]
mod secrets;
#[path = "config/settled.rs"]
mod settled;

use waltide::config::{self, Environment, Errors, Loaded};

/// The example of the design, as it stands there.
const DESIGN: &str = r#"
pipelines:
  shop:                                  # names the slot, publication, topics and transactional.id unless they are given
    source:
      url: postgres://waltide@db:5432/shop        # sslmode as in libpq; password in password_file or PGPASSWORD
      tables: [public.*]                 # also `exclude`; per table (topic, key, columns, where ...) under `table_options`
      slot: waltide_shop                 # these two are the defaults; an existing slot or publication is used as it is
      publication: waltide_shop
    kafka:
      bootstrap_servers: kafka:9092
      topic: "{pipeline}.{schema}.{table}"
      properties: {}                     # any librdkafka property; those that guarantee delivery are refused here
    registry:
      url: http://registry:8081          # or `directory: ./schemas` for the embedded one
    profile: waltide                     # or debezium
    envelope: full                       # or flat
    delivery: at_least_once              # or exactly_once
    snapshot: initial                    # or never; short for {mode: initial}, with parallelism, max_rate ...
    spool: /var/lib/waltide              # bounded, disposable
http:
  listen: 127.0.0.1:9464
"#;

/// The smallest configuration, to which tests add what they are about.
const MINIMAL: &str = include_str!("../examples/minimal.yaml");

fn load(text: &str) -> Loaded {
    match config::parse("waltide.yaml", text, &Environment::default()) {
        Ok(loaded) => loaded,
        Err(errors) => panic!("{errors}"),
    }
}

fn load_with(text: &str, variables: &[(&str, &str)]) -> Loaded {
    match config::parse("waltide.yaml", text, &variables.iter().copied().collect()) {
        Ok(loaded) => loaded,
        Err(errors) => panic!("{errors}"),
    }
}

fn errors(text: &str) -> Errors {
    errors_with(text, &[])
}

fn errors_with(text: &str, variables: &[(&str, &str)]) -> Errors {
    config::parse("waltide.yaml", text, &variables.iter().copied().collect())
        .expect_err("the configuration should be refused")
}

/// The minimal configuration with lines added under one of its groups; `""` is the pipeline.
fn minimal_with(group: &str, lines: &str) -> String {
    let (indent, after) = match group {
        "" => (4, "  shop:\n".to_owned()),
        group => (6, format!("    {group}:\n")),
    };
    let lines: String = lines.lines().map(|line| format!("{:indent$}{line}\n", "")).collect();
    assert!(MINIMAL.contains(&after));
    MINIMAL.replacen(&after, &format!("{after}{lines}"), 1)
}

/// A file that is gone when the test is.
struct TemporaryFile(std::path::PathBuf);

impl TemporaryFile {
    fn new(name: &str, text: &str) -> Self {
        let name = format!("waltide-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
