//! What all servers have in common: they start and become ready, stop, die, freeze, come back.

use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::artifacts;
use crate::error::Error;
use crate::home::Home;
use crate::poll::poll;
use crate::process::Process;

/// A server takes five seconds at most on a quiet machine; this one may be busy compiling.
const READY_DEADLINE: Duration = Duration::from_secs(120);
const STOP_DEADLINE: Duration = Duration::from_secs(120);

/// How often a start is tried again because another process took the port first.
const PORT_ATTEMPTS: usize = 5;

/// Who may stop or freeze a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// All tests of the process use it, so none may.
    Shared,
    /// It belongs to one test.
    Private,
}

#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) home: Arc<Home>,
    process: Mutex<Option<Process>>,
    usage: Use,
}

/// Why a server did not come up.
pub(crate) enum Failure {
    PortTaken(Error),
    Other(Error),
}

impl Failure {
    pub(crate) fn into_error(self) -> Error {
        match self {
            Self::PortTaken(error) | Self::Other(error) => error,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl Server {
    pub(crate) fn new(name: &str, usage: Use) -> Result<Self, Error> {
        let home = Arc::new(Home::new(name)?);
        Ok(Self { home, process: Mutex::default(), usage })
    }

    /// Runs the command and waits until the server is ready.
    pub(crate) fn launch(
        &self,
        command: &Command,
        mut ready: impl FnMut() -> bool,
    ) -> Result<(), Failure> {
        let before = self.home.log().len();
        let process = Process::start_in(&self.home, "the server", command)?;
        let outcome = poll(READY_DEADLINE, || match process.exit_status() {
            Some(status) => Some(Err(format!("ended with status {status} instead of starting"))),
            None => ready().then_some(Ok(())),
        });
        let reason = match outcome {
            Some(Ok(())) => {
                *self.process() = Some(process);
                return Ok(());
            }
            Some(Err(reason)) => reason,
            None => format!("was not ready within {READY_DEADLINE:?}"),
        };
        drop(process);
        let log = self.home.log();
        let log = log.get(before..).unwrap_or(&log);
        let name = &self.home.name;
        let error = Error::new(format!("{name} {reason}; its log:\n{}", artifacts::tail(log, 40)));
        let taken = ["Address already in use", "already bound", "in use by another process"];
        if taken.iter().any(|words| log.contains(words)) {
            return Err(Failure::PortTaken(error));
        }
        self.home.save_log();
        Err(Failure::Other(error))
    }

    /// Tries to start, each time on other ports, until no other process has been quicker.
    pub(crate) fn with_free_ports(
        mut start: impl FnMut() -> Result<(), Failure>,
    ) -> Result<(), Error> {
        let mut attempts = 1;
        loop {
            match start() {
                Ok(()) => return Ok(()),
                Err(Failure::PortTaken(_)) if attempts < PORT_ATTEMPTS => attempts += 1,
                Err(failure) => return Err(failure.into_error()),
            }
        }
    }

    pub(crate) fn is_running(&self) -> bool {
        self.process().as_ref().is_some_and(|process| process.exit_status().is_none())
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.process().as_ref().is_some_and(Process::is_paused)
    }

    /// Sends a signal to the server's first process.
    pub(crate) fn signal(&self, signal: &str) {
        if let Some(process) = &*self.process() {
            process.signal(signal);
        }
    }

    /// Asks it to end with a signal and waits until it has.
    #[track_caller]
    pub(crate) fn stop(&self, signal: &str) {
        self.check_private();
        if let Err(error) = self.try_stop(signal) {
            panic!("{error}");
        }
    }

    pub(crate) fn try_stop(&self, signal: &str) -> Result<(), Error> {
        let Some(process) = self.process().take() else { return Ok(()) };
        process.resume();
        process.signal(signal);
        if process.wait(STOP_DEADLINE).is_some() {
            return Ok(());
        }
        self.home.save_log();
        let log = artifacts::tail(&self.home.log(), 20);
        let name = &self.home.name;
        Err(Error::new(format!("{name} did not stop within {STOP_DEADLINE:?}; its log:\n{log}")))
    }

    #[track_caller]
    pub(crate) fn kill(&self) {
        self.check_private();
        self.discard();
    }

    /// Kills it whoever uses it: its own end has come.
    pub(crate) fn discard(&self) {
        if let Some(process) = self.process().take() {
            process.kill();
        }
    }

    #[track_caller]
    pub(crate) fn pause(&self) {
        self.check_private();
        if let Some(process) = &*self.process() {
            process.pause();
        }
    }

    #[track_caller]
    pub(crate) fn resume(&self) {
        self.check_private();
        if let Some(process) = &*self.process() {
            process.resume();
        }
    }

    #[track_caller]
    pub(crate) fn check_private(&self) {
        assert!(
            self.usage == Use::Private,
            "{} is shared with other tests; start a private one to disturb it",
            self.home.name
        );
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
