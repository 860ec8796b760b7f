//! Apicurio Registry, spoken to through Confluent's API.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use crate::artifacts;
use crate::avro::Decoder;
use crate::error::Error;
use crate::jvm::{self, Classes};
use crate::ports::free_port;
use crate::server::{Failure, Server, Use};

const HEAP: &str = "256m";
const PATH: &str = "/apis/ccompat/v7";
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// What a private registry shall be like.
#[derive(Debug, Clone, Default)]
pub struct RegistryOptions {
    settings: Vec<(String, String)>,
}

impl RegistryOptions {
    /// As the shared one is.
    pub fn new() -> Self {
        Self::default()
    }

    /// A property of Apicurio or Quarkus.
    #[must_use]
    pub fn setting(mut self, key: &str, value: &str) -> Self {
        self.settings.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Starts it.
    ///
    /// # Panics
    /// When it does not come up.
    #[track_caller]
    pub fn start(self) -> Registry {
        match Registry::launch("registry-private", self, Use::Private) {
            Ok(registry) => registry,
            Err(error) => panic!("{error}"),
        }
    }
}

/// A schema registry. A handle: the last one to go stops a private server.
#[derive(Clone, Debug)]
pub struct Registry(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// None where somebody else has started it.
    application: Option<Application>,
    external: String,
    decoders: Mutex<HashMap<u32, Arc<Decoder>>>,
}

/// An answer of the registry.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body; null when it is not JSON.
    pub body: Value,
}

impl Registry {
    pub(crate) fn launch(name: &str, options: RegistryOptions, usage: Use) -> Result<Self, Error> {
        let application = Application::start(name, options, usage)?;
        Ok(Self::new(Some(application), String::new()))
    }

    /// One that runs already, by the base URL of Confluent's API.
    pub fn at(url: &str) -> Self {
        Self::external(url)
    }

    pub(crate) fn external(url: &str) -> Self {
        Self::new(None, url.trim_end_matches('/').to_owned())
    }

    fn new(application: Option<Application>, external: String) -> Self {
        Self(Arc::new(Inner { application, external, decoders: Mutex::default() }))
    }

    /// The base URL of Confluent's API.
    pub fn url(&self) -> String {
        match &self.0.application {
            Some(application) => format!("http://{}{PATH}", application.address()),
            None => self.0.external.clone(),
        }
    }

    /// Host and port, for a [`Proxy`](crate::Proxy) in front of it.
    pub fn address(&self) -> String {
        match &self.0.application {
            Some(application) => application.address(),
            None => {
                let rest = self.0.external.split_once("://").map_or("", |(_, rest)| rest);
                rest.split('/').next().unwrap_or_default().to_owned()
            }
        }
    }

    /// Registers an Avro schema under a subject and returns its id.
    ///
    /// # Panics
    /// When the registry refuses.
    #[track_caller]
    pub fn register(&self, subject: &str, schema: &Value) -> u32 {
        let body = json!({ "schema": schema.to_string() });
        let answer = self.call("POST", &format!("/subjects/{subject}/versions"), Some(&body));
        let id = answer.body["id"].as_u64().and_then(|id| u32::try_from(id).ok());
        id.unwrap_or_else(|| panic!("schema refused for {subject}: {answer:?}"))
    }

    /// The schema with this id.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn schema(&self, id: u32) -> Value {
        match self.try_schema(id) {
            Ok(schema) => schema,
            Err(error) => panic!("{error}"),
        }
    }

    /// The latest schema of a subject, if it has one.
    ///
    /// # Panics
    /// When the registry does not answer.
    #[track_caller]
    pub fn latest(&self, subject: &str) -> Option<Value> {
        let answer = self.call("GET", &format!("/subjects/{subject}/versions/latest"), None);
        answer.body["schema"].as_str().and_then(|schema| serde_json::from_str(schema).ok())
    }

    /// All subjects.
    ///
    /// # Panics
    /// When the registry does not answer.
    #[track_caller]
    pub fn subjects(&self) -> Vec<String> {
        let answer = self.call("GET", "/subjects", None);
        let subjects = answer.body.as_array().map(Vec::as_slice).unwrap_or_default();
        subjects.iter().filter_map(|subject| subject.as_str().map(str::to_owned)).collect()
    }

    /// Sets a subject's compatibility level.
    ///
    /// # Panics
    /// When the registry refuses.
    #[track_caller]
    pub fn set_compatibility(&self, subject: &str, level: &str) {
        let body = json!({ "compatibility": level });
        let answer = self.call("PUT", &format!("/config/{subject}"), Some(&body));
        assert!(answer.status == 200, "compatibility {level} refused for {subject}: {answer:?}");
    }

    /// Calls the API, with a path below [`url`](Self::url).
    ///
    /// # Panics
    /// When the registry does not answer.
    #[track_caller]
    pub fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        match self.try_call(method, path, body) {
            Ok(answer) => answer,
            Err(error) => panic!("{error}"),
        }
    }

    /// Decodes Avro in Confluent's framing; gives the schema's id too.
    ///
    /// # Errors
    /// When the bytes are not that, or not all of a value of the schema, or the registry has none.
    pub fn decode(&self, bytes: &[u8]) -> Result<(u32, Value), Error> {
        let Some((&[0, a, b, c, d], datum)) = bytes.split_first_chunk() else {
            return Err(Error::new(format!("{} bytes that are not framed Avro", bytes.len())));
        };
        let id = u32::from_be_bytes([a, b, c, d]);
        Ok((id, self.decoder(id)?.decode(datum)?))
    }

    fn decoder(&self, id: u32) -> Result<Arc<Decoder>, Error> {
        let mut decoders = self.0.decoders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(decoder) = decoders.get(&id) {
            return Ok(Arc::clone(decoder));
        }
        let decoder = Arc::new(Decoder::new(&self.try_schema(id)?)?);
        decoders.insert(id, Arc::clone(&decoder));
        Ok(decoder)
    }

    fn try_schema(&self, id: u32) -> Result<Value, Error> {
        let answer = self.try_call("GET", &format!("/schemas/ids/{id}"), None)?;
        let schema = answer.body["schema"].as_str();
        let schema = schema.and_then(|schema| serde_json::from_str(schema).ok());
        schema.ok_or_else(|| Error::new(format!("no schema {id} in the registry: {answer:?}")))
    }

    fn try_call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer, Error> {
        let url = format!("{}{path}", self.url());
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(&url)
            .header("content-type", "application/vnd.schemaregistry.v1+json");
        let because = || format!("{method} {url}");
        let request = request
            .body(body.map(Value::to_string).unwrap_or_default())
            .map_err(Error::because(because()))?;
        let mut response = agent(CALL_TIMEOUT).run(request).map_err(Error::because(because()))?;
        let text = response.body_mut().read_to_string().map_err(Error::because(because()))?;
        Ok(Answer {
            status: response.status().as_u16(),
            body: serde_json::from_str(&text).unwrap_or_default(),
        })
    }

    /// Stops it in an orderly way.
    #[track_caller]
    pub fn stop(&self) {
        self.application().server.stop("TERM");
    }

    /// Starts it after [`stop`](Self::stop) or [`kill`](Self::kill), on the same port and data.
    #[track_caller]
    pub fn start_again(&self) {
        let application = self.application();
        application.server.check_private();
        if let Err(failure) = application.launch(&Classes::Shared(application.archive.clone())) {
            panic!("{}", failure.into_error());
        }
    }

    /// Kills it without warning.
    #[track_caller]
    pub fn kill(&self) {
        self.application().server.kill();
    }

    /// Freezes it: connections stay, nobody answers.
    #[track_caller]
    pub fn pause(&self) {
        self.application().server.pause();
    }

    /// Lets it go on.
    #[track_caller]
    pub fn resume(&self) {
        self.application().server.resume();
    }

    /// What it has logged.
    #[track_caller]
    pub fn log(&self) -> String {
        self.application().server.home.log()
    }

    pub(crate) fn save_log(&self) {
        if let Some(application) = &self.0.application {
            application.server.home.save_log();
        }
    }

    #[track_caller]
    fn application(&self) -> &Application {
        let application = self.0.application.as_ref();
        application.expect("a registry that others have started is not ours to control")
    }
}

fn agent(timeout: Duration) -> ureq::Agent {
    ureq::Agent::config_builder()
        .timeout_global(Some(timeout))
        .http_status_as_error(false)
        .allow_non_standard_methods(true)
        .build()
        .into()
}

#[derive(Debug)]
struct Application {
    server: Server,
    options: RegistryOptions,
    port: AtomicU16,
    archive: Option<PathBuf>,
}

impl Application {
    fn start(name: &str, options: RegistryOptions, usage: Use) -> Result<Self, Error> {
        let archive = jvm::archive("registry", |file| {
            let options = RegistryOptions::new();
            let application = Self::new("registry-training", options, Use::Private, None)?;
            application.first_launch(&Classes::Train(file.into()))?;
            application.server.try_stop("TERM")
        });
        let application = Self::new(name, options, usage, archive)?;
        application.first_launch(&Classes::Shared(application.archive.clone()))?;
        Ok(application)
    }

    fn new(
        name: &str,
        options: RegistryOptions,
        usage: Use,
        archive: Option<PathBuf>,
    ) -> Result<Self, Error> {
        Ok(Self { server: Server::new(name, usage)?, options, port: AtomicU16::new(0), archive })
    }

    fn first_launch(&self, classes: &Classes) -> Result<(), Error> {
        Server::with_free_ports(|| {
            self.port.store(free_port(), Ordering::Relaxed);
            self.launch(classes)
        })
    }

    fn launch(&self, classes: &Classes) -> Result<(), Failure> {
        let directory = artifacts::servers()?.join("registry");
        let release = artifacts::pinned("apicurio");
        let mut command = jvm::command(HEAP, classes, &self.server.home.path);
        // It has little to compute: not to compile thoroughly saves half a second.
        command.arg("-XX:TieredStopAtLevel=1").arg("-Dquarkus.http.host=127.0.0.1");
        command.arg(format!("-Dquarkus.http.port={}", self.port.load(Ordering::Relaxed)));
        command.args([
            "-Dregistry.rest.artifact.deletion.enabled=true",
            // A run of all tests has more than the thousand that are listed otherwise.
            "-Dregistry.ccompat.max-subjects=1000000",
            "-Dquarkus.datasource.jdbc.initial-size=1",
            "-Dquarkus.datasource.jdbc.min-size=1",
            // Five seconds, the default, are too few on a machine that compiles something.
            "-Dquarkus.datasource.jdbc.acquisition-timeout=60S",
        ]);
        for (key, value) in &self.options.settings {
            command.arg(format!("-D{key}={value}"));
        }
        command
            .arg("-jar")
            .arg(directory.join(format!("apicurio-registry-app-{release}-runner.jar")));
        // Written through at once, so that what it has confirmed survives a kill.
        let database = self.server.home.join("database");
        let url =
            format!("jdbc:h2:file:{};WRITE_DELAY=0;DB_CLOSE_ON_EXIT=FALSE", database.display());
        command.env("REGISTRY_DATASOURCE_URL", url);
        command.current_dir(&self.server.home.path);
        let agent = agent(Duration::from_secs(1));
        let probe = format!("http://{}{PATH}/subjects", self.address());
        self.server.launch(&command, || {
            agent.get(&probe).call().is_ok_and(|response| response.status() == 200)
        })
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port.load(Ordering::Relaxed))
    }
}
