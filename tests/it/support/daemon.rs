//! The real program, run as a child that cannot outlive the test.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use waltide_stack::serde_json::{self, Value};
use waltide_stack::{Process, Registry, eventually};

use super::pipeline::ConfigFile;
use super::{SOON, runtime_directory};

/// How long an ordered end may take: the drain of 20 s, the farewell, and a busy machine.
const END: Duration = Duration::from_secs(40);

/// A running `waltide`. It is killed on drop; when a test fails, its log is kept in
/// `target/stack-logs`.
pub(crate) struct Daemon {
    process: Process,
    file: ConfigFile,
    http: OnceLock<String>,
}

impl Daemon {
    /// Runs the program with `arguments` and `--config FILE`.
    #[track_caller]
    pub(crate) fn launch(file: ConfigFile, arguments: &[&str]) -> Self {
        Self::launch_in(&runtime_directory(), file, arguments)
    }

    /// The same, with another directory for what only its user shall read.
    #[track_caller]
    pub(crate) fn launch_in(directory: &Path, file: ConfigFile, arguments: &[&str]) -> Self {
        // Another build of it may be measured.
        let other = std::env::var_os("WALTIDE_BINARY");
        let program = other.unwrap_or_else(|| env!("CARGO_BIN_EXE_waltide").into());
        let mut command = Command::new(program);
        command.args(arguments).arg("--config").arg(file.path());
        // What a developer has set must not reach the daemon.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("WALTIDE_") || name.starts_with("PG") {
                command.env_remove(&*name);
            }
        }
        command.env("XDG_RUNTIME_DIR", directory);
        Self::of(&command, file)
    }

    /// Runs a command that becomes the program, on a configuration that it knows where to find.
    #[track_caller]
    pub(crate) fn of(command: &Command, file: ConfigFile) -> Self {
        let process = Process::start("waltide", command);
        Self { process, file, http: OnceLock::new() }
    }

    /// Waits until `/readyz` says yes.
    #[track_caller]
    pub(crate) fn wait_ready(&self) {
        self.until("the daemon is ready", || {
            let (code, _) = self.get("/readyz")?;
            (code == 200).then_some(())
        });
    }

    /// Waits until its pipeline is in this state, and returns what it says of itself then.
    #[track_caller]
    pub(crate) fn wait_for_state(&self, state: &str) -> Value {
        self.until(&format!("the pipeline is {state}"), || {
            self.look().filter(|pipeline| pipeline["state"] == state)
        })
    }

    /// What it says of its one pipeline now.
    #[track_caller]
    pub(crate) fn status(&self) -> Value {
        self.look().expect("the daemon answers")
    }

    fn look(&self) -> Option<Value> {
        let (_, body) = self.get("/api/status")?;
        let mut status: Value = serde_json::from_str(&body).ok()?;
        Some(status["pipelines"][0].take())
    }

    /// Asks it over HTTP; none while it does not answer.
    pub(crate) fn get(&self, path: &str) -> Option<(u16, String)> {
        let url = format!("http://{}{path}", self.address()?);
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(10)))
            .build()
            .new_agent();
        let mut response = agent.get(&url).call().ok()?;
        let body = response.body_mut().read_to_string().ok()?;
        Some((response.status().as_u16(), body))
    }

    /// Where it listens: it chose the port itself and has logged it.
    fn address(&self) -> Option<&str> {
        if self.http.get().is_none() {
            let events = self.events();
            let starts = events.iter().find(|event| event["message"] == "waltide starts")?;
            let _ = self.http.set(starts["http"].as_str()?.to_owned());
        }
        self.http.get().map(String::as_str)
    }

    /// Where the registry of its own answers.
    #[track_caller]
    pub(crate) fn registry(&self) -> Registry {
        let address = self.until("its registry answers", || {
            let events = self.events();
            let answers =
                events.iter().find(|event| event["message"] == "the schema registry answers")?;
            Some(answers["address"].as_str()?.to_owned())
        });
        Registry::at(&format!("http://{address}"))
    }

    /// Its configuration.
    pub(crate) fn config(&self) -> &Path {
        self.file.path()
    }

    /// Where it is asked.
    #[track_caller]
    pub(crate) fn url(&self) -> String {
        self.until("the daemon listens", || self.address().map(|at| format!("http://{at}")))
    }

    /// What it has logged, as one value for each line.
    pub(crate) fn events(&self) -> Vec<Value> {
        let log = self.process.log();
        log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits until it has logged this message so many times.
    #[track_caller]
    pub(crate) fn wait_for_event(&self, message: &str, times: usize) {
        self.until(&format!("{message:?} is logged"), || {
            let events = self.events();
            let count = events.iter().filter(|event| event["message"] == message).count();
            (count >= times).then_some(())
        });
    }

    /// What it has written.
    pub(crate) fn log(&self) -> String {
        self.process.log()
    }

    /// The process, to be frozen or looked at.
    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    /// Asks it to end, as Kubernetes does, and sees to it that it does so in order.
    #[track_caller]
    pub(crate) fn terminate(self) {
        self.process.signal("TERM");
        match self.process.wait(END) {
            Some(0) => {}
            Some(status) => panic!("the daemon ended with {status}:\n{}", self.log()),
            None => panic!("the daemon did not end within {END:?}:\n{}", self.log()),
        }
    }

    /// Kills it without warning.
    pub(crate) fn kill(self) {
        self.process.kill();
    }

    /// Waits for something that a daemon which has ended will never do.
    #[track_caller]
    fn until<T>(&self, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
        eventually(what, SOON, || {
            let answer = ask();
            if answer.is_none()
                && let Some(status) = self.process.exit_status()
            {
                panic!("the daemon ended with {status} before {what}:\n{}", self.log());
            }
            answer
        })
    }
}

impl std::fmt::Debug for Daemon {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Daemon").field("config", &self.file.path()).finish_non_exhaustive()
    }
}
