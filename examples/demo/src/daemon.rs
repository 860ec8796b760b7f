//! The daemon: the real program, with a configuration of a few lines. It hangs on the stack's
//! keeper like the servers, so it cannot outlive us.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use waltide_stack::Process;

use crate::live;
use crate::servers::Servers;
use crate::shop::{DATABASE, PIPELINE};

/// Where the daemon listens unless somebody else does.
const USUAL_PORT: u16 = 9464;

/// It starts within a second; this is for a machine that is busy with other things.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// More than it gives itself to deliver what it holds.
const STOP_DEADLINE: Duration = Duration::from_secs(40);

/// The daemon is on this machine, and the screen waits for its answer.
const ANSWER: Duration = Duration::from_millis(200);

pub(crate) struct Daemon {
    process: Process,
    address: String,
    agent: ureq::Agent,
    pub(crate) config: PathBuf,
    log: PathBuf,
}

impl Daemon {
    /// Writes the configuration and starts the program with it.
    pub(crate) fn start(
        program: &Path,
        directory: &Path,
        servers: &Servers,
    ) -> Result<Self, String> {
        let address = format!("127.0.0.1:{}", free_port());
        let because = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
        fs::create_dir_all(directory).map_err(|error| because(directory, error))?;
        let directory = directory.canonicalize().map_err(|error| because(directory, error))?;
        let config = directory.join("waltide.yaml");
        fs::write(&config, configuration(servers, &address))
            .map_err(|error| because(&config, error))?;
        let mut command = Command::new(program);
        command.arg("run").arg("--config").arg(&config);
        // The file shall be all there is to it.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("WALTIDE_") || text.starts_with("PG") {
                command.env_remove(&name);
            }
        }
        let agent = ureq::Agent::config_builder().timeout_global(Some(ANSWER)).build().into();
        let process = Process::start("waltide", &command);
        Ok(Self { process, address, agent, config, log: directory.join("waltide.log") })
    }

    /// Where a browser finds it.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Waits until changes flow.
    pub(crate) fn wait_until_streaming(&self) -> Result<(), String> {
        let end = Instant::now() + START_DEADLINE;
        let mut last = live::Daemon::default();
        while Instant::now() < end {
            if let Some(status) = self.exit_status() {
                return Err(format!("the daemon ended with status {status}"));
            }
            if let Some(now) = self.look() {
                if now.state == "streaming" {
                    return Ok(());
                }
                last = now;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let why = last.error.unwrap_or(last.state);
        Err(format!("the daemon does not stream after {START_DEADLINE:?}: {why}"))
    }

    /// What it says of itself; none where it does not answer.
    pub(crate) fn look(&self) -> Option<live::Daemon> {
        let mut response = self.agent.get(format!("{}api/status", self.url())).call().ok()?;
        let text = response.body_mut().read_to_string().ok()?;
        let status: Value = serde_json::from_str(&text).ok()?;
        let pipeline = status["pipelines"].get(0)?;
        let error = &pipeline["error"];
        let error = error["code"]
            .as_str()
            .map(|code| format!("{code}: {}", error["what"].as_str().unwrap_or_default()));
        Some(live::Daemon {
            state: pipeline["state"].as_str()?.to_owned(),
            error,
            lag_ms: pipeline["lag_seconds"].as_f64()? * 1000.0,
            lag_bytes: pipeline["lag_bytes"].as_u64()?,
            in_flight: pipeline["records_in_flight"].as_u64()?,
        })
    }

    /// Its exit status, once it has ended.
    pub(crate) fn exit_status(&self) -> Option<i32> {
        self.process.exit_status()
    }

    /// Asks it to end, as Kubernetes would, and waits until it has.
    pub(crate) fn stop(&self) -> Result<(), String> {
        self.process.signal("TERM");
        match self.process.wait(STOP_DEADLINE) {
            Some(0) => Ok(()),
            Some(status) => Err(format!("the daemon ended with status {status}")),
            None => Err(format!("the daemon did not end within {STOP_DEADLINE:?}")),
        }
    }

    /// Leaves its log where it can be read afterwards.
    pub(crate) fn save_log(&self) -> PathBuf {
        // Without the log there is still the verdict.
        let _ = fs::write(&self.log, self.process.log());
        self.log.clone()
    }

    /// The last lines of its log.
    pub(crate) fn last_words(&self) -> Vec<String> {
        let log = self.process.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(8)..].iter().map(|line| (*line).to_owned()).collect()
    }
}

fn configuration(servers: &Servers, address: &str) -> String {
    let (postgres, kafka) = (servers.postgres.url(DATABASE), servers.kafka.bootstrap());
    let registry = servers.registry.url();
    format!(
        "# Written by the demo; the servers in it live as long as the demo does.
pipelines:
  {PIPELINE}:
    source:
      url: {postgres}
      tables: [public.*]
    kafka:
      bootstrap_servers: {kafka}
      partitions: 3
    registry:
      url: {registry}
    snapshot: never
http:
  listen: {address}
log:
  format: text
"
    )
}

/// The usual port, or one that is free.
fn free_port() -> u16 {
    let port = |port| TcpListener::bind(("127.0.0.1", port)).and_then(|it| it.local_addr());
    let free = port(USUAL_PORT).or_else(|_| port(0));
    free.map_or(USUAL_PORT, |address| address.port())
}
