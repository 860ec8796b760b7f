//! Kafka Connect with Debezium's connector for Postgres: what people come from.
//!
//! The worker is Kafka's own, from the same files as the broker; `connect.xml` pins the connector and
//! an Avro converter for the registry.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::artifacts::{self, cache_directory, fingerprint, made_once, maven, run, say};
use crate::error::Error;
use crate::jvm::{self, Classes};
use crate::keeper;
use crate::poll::eventually;
use crate::ports::free_port;
use crate::server::{Failure, Server, Use};
use crate::{Database, Kafka, Registry};

const POM: &str = include_str!("../connect.xml");

/// Raised when the layout of an entry changes although the pom does not.
const LAYOUT: &str = "2";

/// A fork of Confluent's that writes schemas and frames records as that does.
const CONVERTER: &str = "io.apicurio.registry.utils.converter.AvroConverter";

const LOG4J: &str = include_str!("kafka/log4j2.properties");

const HEAP: &str = "512m";

/// A worker joins its group of one, and a connector starts its task, in a few seconds.
const DEADLINE: Duration = Duration::from_secs(120);

const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// A Kafka Connect of one worker, for one test.
#[derive(Debug)]
pub struct Connect {
    server: Server,
    port: AtomicU16,
}

impl Connect {
    /// Starts a worker whose own topics begin with the database's prefix.
    ///
    /// # Panics
    /// When it does not come up.
    #[track_caller]
    pub fn start(kafka: &Kafka, database: &Database) -> Self {
        match Self::launch(kafka, database.prefix()) {
            Ok(connect) => connect,
            Err(error) => panic!("{error}"),
        }
    }

    fn launch(kafka: &Kafka, prefix: &str) -> Result<Self, Error> {
        let plugins = plugins()?;
        let server = Server::new("connect", Use::Private)?;
        keeper::write_file(&server.home.join("log4j2.properties"), LOG4J)?;
        let connect = Self { server, port: AtomicU16::new(0) };
        Server::with_free_ports(|| {
            let port = free_port();
            connect.port.store(port, Ordering::Relaxed);
            let plugins = plugins.display();
            let text = format!(
                "bootstrap.servers={}\ngroup.id={prefix}\nlisteners=http://127.0.0.1:{port}\n\
                 plugin.path={plugins}\nplugin.discovery=service_load\n\
                 key.converter=org.apache.kafka.connect.json.JsonConverter\n\
                 value.converter=org.apache.kafka.connect.json.JsonConverter\n\
                 config.storage.topic={prefix}.connect.configs\n\
                 offset.storage.topic={prefix}.connect.offsets\n\
                 status.storage.topic={prefix}.connect.status\n\
                 offset.storage.partitions=1\nstatus.storage.partitions=1\n\
                 config.storage.replication.factor=1\noffset.storage.replication.factor=1\n\
                 status.storage.replication.factor=1\nscheduled.rebalance.max.delay.ms=0\n",
                kafka.direct()
            );
            keeper::write_file(&connect.server.home.join("worker.properties"), &text)?;
            connect.run()
        })?;
        Ok(connect)
    }

    fn run(&self) -> Result<(), Failure> {
        let home = &self.server.home;
        let mut command = jvm::command(HEAP, &Classes::Shared(None), &home.path);
        command
            .arg("-XX:TieredStopAtLevel=1")
            .arg(format!("-Dlog4j2.configurationFile={}", home.join("log4j2.properties").display()))
            .arg("-cp")
            .arg(artifacts::servers()?.join("kafka/*"))
            .arg("org.apache.kafka.connect.cli.ConnectDistributed")
            .arg(home.join("worker.properties"));
        // It listens long before it has joined its group; until then it answers 500 or nothing.
        self.server.launch(&command, || {
            self.try_call("GET", "/connectors", None).is_ok_and(|(status, _)| status == 200)
        })
    }

    /// Creates a connector that captures a database with Debezium's own names in this prefix, as
    /// its documentation says, and waits until it runs. More of its configuration may be given.
    ///
    /// # Panics
    /// When it does not come up.
    #[track_caller]
    pub fn capture(&self, name: &str, database: &Database, registry: &Registry, more: &Value) {
        let mut config = json!({
            "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
            "tasks.max": "1",
            "plugin.name": "pgoutput",
            "database.hostname": "127.0.0.1",
            "database.port": database.postgres().port().to_string(),
            "database.user": "postgres",
            "database.password": "not asked for",
            "database.dbname": database.name(),
            "topic.creation.default.replication.factor": "1",
            "topic.creation.default.partitions": "3",
            "schema.name.adjustment.mode": "avro",
            "field.name.adjustment.mode": "avro",
        });
        for side in ["key", "value"] {
            for (key, value) in [
                ("", CONVERTER.to_owned()),
                (
                    ".apicurio.registry.url",
                    format!("http://{}/apis/registry/v2", registry.address()),
                ),
                (".apicurio.registry.auto-register", "true".to_owned()),
                (".apicurio.registry.find-latest", "true".to_owned()),
                // As Confluent's converter frames them: a zero, four bytes, nothing in headers.
                (".apicurio.registry.as-confluent", "true".to_owned()),
                (".apicurio.registry.headers.enabled", "false".to_owned()),
                (".apicurio.registry.use-id", "contentId".to_owned()),
            ] {
                config[format!("{side}.converter{key}")] = value.into();
            }
        }
        for (key, value) in more.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        let (status, body) = self.call("PUT", &format!("/connectors/{name}/config"), Some(&config));
        assert!(status == 201 || status == 200, "connector {name} refused: {status} {body}");
        self.wait_for_state(name, "RUNNING");
    }

    /// Stops a connector, as `PUT /connectors/NAME/stop` does, and waits until it has.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn stop(&self, name: &str) {
        let (status, body) = self.call("PUT", &format!("/connectors/{name}/stop"), None);
        assert!(status < 300, "connector {name} does not stop: {status} {body}");
        self.wait_for_state(name, "STOPPED");
    }

    /// The state of a connector and of its task: `RUNNING`, `STOPPED`, `FAILED`.
    ///
    /// # Panics
    /// When the worker does not answer.
    #[track_caller]
    pub fn states(&self, name: &str) -> (String, Option<String>) {
        let (_, body) = self.call("GET", &format!("/connectors/{name}/status"), None);
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let connector = text(&body["connector"]["state"]).unwrap_or_default();
        (connector, text(&body["tasks"][0]["state"]))
    }

    #[track_caller]
    fn wait_for_state(&self, name: &str, state: &str) {
        eventually(&format!("connector {name} is {state}"), DEADLINE, || {
            let (connector, task) = self.states(name);
            if task.as_deref() == Some("FAILED") {
                let (_, body) = self.call("GET", &format!("/connectors/{name}/status"), None);
                panic!("connector {name} failed: {body}");
            }
            // One that is stopped has no task, one that runs has one.
            let task_is_so = if state == "STOPPED" {
                task.is_none()
            } else {
                task.is_some_and(|it| it == state)
            };
            (connector == state && task_is_so).then_some(())
        });
    }

    #[track_caller]
    fn call(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        match self.try_call(method, path, body) {
            Ok(answer) => answer,
            Err(error) => {
                panic!("{error}; the worker's log:\n{}", artifacts::tail(&self.log(), 40))
            }
        }
    }

    fn try_call(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(u16, Value), Error> {
        let url = format!("http://127.0.0.1:{}{path}", self.port.load(Ordering::Relaxed));
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_global(Some(CALL_TIMEOUT))
            .http_status_as_error(false)
            .allow_non_standard_methods(true)
            .build()
            .into();
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(&url)
            .header("content-type", "application/json")
            .body(body.map(Value::to_string).unwrap_or_default())
            .map_err(Error::because(&url))?;
        let mut response = agent.run(request).map_err(Error::because(&url))?;
        let text = response.body_mut().read_to_string().map_err(Error::because(&url))?;
        Ok((response.status().as_u16(), serde_json::from_str(&text).unwrap_or_default()))
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.server.home.log()
    }
}

/// The connector and the converter, fetched on first need.
fn plugins() -> Result<PathBuf, Error> {
    let name = format!("connect-{:016x}", fingerprint(&[POM, LAYOUT]));
    let entry = cache_directory()?.join(name);
    made_once(&entry, |partial| {
        say(&format!("fetching Debezium's connector with Maven into {}", entry.display()));
        maven(POM, partial, &[])?;
        declare_converter(&partial.join("plugins/converter"))
    })?;
    Ok(entry.join("plugins"))
}

/// Says which class the converter is, as its own files do not: Connect would otherwise look through
/// all classes of all files, which takes it a quarter of a minute.
fn declare_converter(plugin: &Path) -> Result<(), Error> {
    let services = plugin.join("META-INF/services");
    fs::create_dir_all(&services).map_err(Error::because(services.display()))?;
    let file = services.join("org.apache.kafka.connect.storage.Converter");
    fs::write(&file, format!("{CONVERTER}\n")).map_err(Error::because(file.display()))?;
    let mut zip = Command::new("python3");
    zip.args(["-m", "zipfile", "-c", "declared.jar", "META-INF"]).current_dir(plugin);
    run("python3", &mut zip)
}
