//! One of the two daemons of a pipeline, whatever has become of it.

use std::cell::{Cell, OnceCell, RefCell};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use waltide_stack::{Process, Proxy};

/// Bytes of the disk of its spool.
const SPOOL_BYTES: u32 = 32_000_000;

pub(crate) struct Daemon {
    pub(crate) name: String,
    /// In front of Postgres.
    pub(crate) proxy: Proxy,
    program: PathBuf,
    config: PathBuf,
    spool: PathBuf,
    directory: PathBuf,
    run: RefCell<Option<Run>>,
    runs: Cell<u32>,
}

struct Run {
    process: Process,
    http: OnceCell<String>,
    /// Whether its end was ours.
    ended: Cell<bool>,
}

impl Daemon {
    pub(crate) fn new(
        name: &str,
        proxy: Proxy,
        program: &Path,
        directory: &Path,
        settings: impl FnOnce(&str) -> Value,
    ) -> Result<Self, String> {
        let spool = directory.join(format!("spool-{name}"));
        let config = directory.join(format!("{name}.yaml"));
        let because = |error: std::io::Error| format!("{}: {error}", directory.display());
        fs::create_dir_all(&spool).map_err(because)?;
        // JSON is YAML.
        fs::write(&config, settings(&spool.to_string_lossy()).to_string()).map_err(because)?;
        let (name, directory) = (name.to_owned(), directory.to_owned());
        let (program, run) = (program.to_owned(), RefCell::new(None));
        Ok(Self { name, proxy, program, config, spool, directory, run, runs: Cell::new(0) })
    }

    /// Starts it where it does not run. Its spool is a small disk that others do not see.
    pub(crate) fn start(&self) {
        if self.run.borrow().is_some() {
            return;
        }
        self.runs.set(self.runs.get() + 1);
        let root = fs::metadata("/proc/self")
            .is_ok_and(|it| std::os::unix::fs::MetadataExt::uid(&it) == 0);
        let mut command = Command::new("unshare");
        command.args(if root { &["--mount"] as &[&str] } else { &["--map-root-user", "--mount"] });
        command.args(["--propagation", "private", "sh", "-c"]);
        command.arg("mount -t tmpfs -o size=$1 disk \"$2\" && shift 2 && exec \"$@\"");
        command.arg("sh").arg(SPOOL_BYTES.to_string()).arg(&self.spool).arg(&self.program);
        command.args(["run", "--config"]).arg(&self.config);
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("WALTIDE_") || name.starts_with("PG") {
                command.env_remove(&*name);
            }
        }
        command.env("XDG_RUNTIME_DIR", &self.directory);
        let process = Process::start("waltide", &command);
        let run = Run { process, http: OnceCell::new(), ended: Cell::new(false) };
        *self.run.borrow_mut() = Some(run);
    }

    /// Kills it without warning.
    pub(crate) fn kill(&self) {
        if let Some(run) = self.run.take() {
            self.keep_log(&run.process);
            run.process.kill();
        }
    }

    /// Asks it to end, as Kubernetes does.
    pub(crate) fn ask_to_end(&self) {
        if let Some(run) = &*self.run.borrow() {
            run.ended.set(true);
            run.process.signal("TERM");
        }
    }

    /// Waits until it has ended, as it was asked to. One that was killed instead may run again by now.
    pub(crate) fn wait_for_end(&self) -> Result<(), String> {
        let Some(run) = self.run.borrow_mut().take_if(|run| run.ended.get()) else { return Ok(()) };
        let status = run.process.wait(Duration::from_secs(60));
        self.keep_log(&run.process);
        match status {
            Some(0) => Ok(()),
            Some(status) => Err(format!("{} ended with {status} when asked to", self.name)),
            None => Err(format!("{} did not end when asked to", self.name)),
        }
    }

    /// Freezes it.
    pub(crate) fn pause(&self) {
        if let Some(run) = &*self.run.borrow() {
            run.process.pause();
        }
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) {
        if let Some(run) = &*self.run.borrow() {
            run.process.resume();
        }
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.run.borrow().as_ref().map(|run| run.process.pid())
    }

    /// Where its spool's disk is for us.
    pub(crate) fn disk(&self) -> Option<PathBuf> {
        let inside = self.spool.strip_prefix("/").ok()?;
        Some(PathBuf::from(format!("/proc/{}/root", self.pid()?)).join(inside))
    }

    /// The status with which it has ended though nobody wanted it to.
    pub(crate) fn has_died(&self) -> Option<i32> {
        let run = self.run.borrow();
        run.as_ref().filter(|run| !run.ended.get())?.process.exit_status()
    }

    /// What it says of its pipeline; none while it does not answer.
    pub(crate) fn status(&self) -> Option<Value> {
        let run = self.run.borrow();
        let run = run.as_ref().filter(|run| !run.process.is_paused())?;
        if run.http.get().is_none() {
            let log = run.process.log();
            let mut events =
                log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let starts = events.find(|event| event["message"] == "waltide starts")?;
            let _ = run.http.set(starts["http"].as_str()?.to_owned());
        }
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(2)))
            .build()
            .new_agent();
        let mut answer = agent.get(format!("http://{}/api/status", run.http.get()?)).call().ok()?;
        let text = answer.body_mut().read_to_string().ok()?;
        let mut status: Value = serde_json::from_str(&text).ok()?;
        Some(status["pipelines"][0].take())
    }

    /// The state of its pipeline in a word.
    pub(crate) fn state(&self) -> String {
        let status = self.status();
        let state = status.as_ref().and_then(|status| status["state"].as_str());
        state.unwrap_or("silent").to_owned()
    }

    /// Keeps what it has logged so far.
    pub(crate) fn keep_logs(&self) {
        if let Some(run) = &*self.run.borrow() {
            self.keep_log(&run.process);
        }
    }

    fn keep_log(&self, process: &Process) {
        let file = self.directory.join(format!("{}-{:03}.log", self.name, self.runs.get()));
        let _ = fs::write(file, process.log());
    }
}
