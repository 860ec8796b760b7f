//! The configuration, read again while the daemon runs: what can be taken on is, the rest is refused
//! by name, and then nothing is taken on.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::Handle;
use crate::config::settled::LogLevel;
use crate::config::{self, Changes, Environment, Errors, Kind, Loaded, Untaken};
use crate::fault::{Code, Fault};

/// How many changes that need a restart are named; the rest are counted.
const NAMED: usize = 5;

/// Sets the least important messages that are written.
pub type SetLevel = Box<dyn Fn(LogLevel) + Send + Sync>;

/// What reads the configuration again.
pub struct Reloader {
    file: Option<PathBuf>,
    running: Mutex<Loaded>,
    pipelines: Vec<Handle>,
    set_level: SetLevel,
}

impl fmt::Debug for Reloader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloader").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Reloader {
    /// For a daemon that runs with what was read from this file.
    #[must_use]
    pub fn new(
        file: Option<PathBuf>,
        running: Loaded,
        pipelines: Vec<Handle>,
        set_level: SetLevel,
    ) -> Self {
        Self { file, running: Mutex::new(running), pipelines, set_level }
    }

    /// Reads it again and takes on what has changed; the keys that have.
    ///
    /// # Errors
    /// Where it is not valid, or something in it needs a restart.
    pub fn reload(&self) -> Result<Vec<String>, Fault> {
        // One at a time, from the file to the pipelines.
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let read = config::load(self.file.as_deref(), &Environment::of_process());
        let new = read.map_err(|errors| of_errors(&errors))?;
        let changes = running.changes(&new).map_err(|untaken| of_untaken(&untaken))?;
        let Changes { pipelines, level, keys } = changes;
        for settings in pipelines {
            let handle = self.pipelines.iter().find(|one| one.status.name == settings.name);
            if let Some(handle) = handle {
                handle.renew(settings);
            }
        }
        if let Some(level) = level {
            (self.set_level)(level);
        }
        *running = new;
        tracing::info!(changed = keys.join(", "), "the configuration was read again");
        Ok(keys)
    }

    /// Sets the level of the log, until the configuration says another.
    pub fn set_level(&self, level: LogLevel) {
        (self.set_level)(level);
        tracing::info!(level = level.as_str(), "the log was set to another level");
    }
}

fn of_errors(errors: &Errors) -> Fault {
    let code = match errors.iter().next() {
        Some(first) if first.kind == Kind::Unreadable => Code::ConfigUnreadable,
        _ => Code::ConfigInvalid,
    };
    let mut named: Vec<String> = errors
        .iter()
        .take(NAMED)
        .map(|error| format!("{} ({})", error.message, error.place))
        .collect();
    if errors.count() > NAMED {
        named.push(format!("and {} more", errors.count() - NAMED));
    }
    let mend = "`waltide config check` says it in full; nothing was changed";
    Fault::new(code, named.join("; "), mend)
}

fn of_untaken(untaken: &[Untaken]) -> Fault {
    let mut named: Vec<String> =
        untaken.iter().take(NAMED).map(|one| format!("{} ({})", one.key, one.place)).collect();
    if untaken.len() > NAMED {
        named.push(format!("{} more", untaken.len() - NAMED));
    }
    Fault::new(
        Code::NeedsRestart,
        format!("this cannot change while the daemon runs: {}", named.join(", ")),
        "restart the daemon, or take these changes back and reload; nothing was changed",
    )
}
