//! A program that cannot outlive us.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::error::Error;
use crate::family;
use crate::home::Home;
use crate::keeper::{self, Keeper};
use crate::poll::poll;

/// How long a program may take from the order to its first instruction. Only a machine in deep
/// trouble needs longer.
const SPAWN_DEADLINE: Duration = Duration::from_secs(30);

/// A running program, be it a server or the daemon under test. It is killed, with all its
/// descendants, on drop, and also when this process ends without running any destructor.
#[derive(Debug)]
pub struct Process {
    home: Arc<Home>,
    pid: u32,
    paused: Mutex<Option<BTreeSet<u32>>>,
}

impl Process {
    /// Starts `command`: its program, arguments, environment and directory count (`env_clear` does
    /// not, as nobody can see it); its output goes to the [log](Self::log), its input is empty.
    ///
    /// # Panics
    /// When it cannot be started.
    #[track_caller]
    pub fn start(name: &str, command: &Command) -> Self {
        let started =
            Home::new(name).and_then(|home| Self::start_in(&Arc::new(home), "run", command));
        match started {
            Ok(process) => process,
            Err(error) => panic!("{error}"),
        }
    }

    /// Starts `command` in a home that may have seen other runs; none may be going on.
    pub(crate) fn start_in(home: &Arc<Home>, what: &str, command: &Command) -> Result<Self, Error> {
        for leftover in ["pid", "exit"] {
            let _ = fs::remove_file(home.join(leftover));
        }
        keeper::write_file(&home.join("run"), &script(home, command))?;
        Keeper::get()?.run(&home.path)?;
        let pid = poll(SPAWN_DEADLINE, || {
            fs::read_to_string(home.join("pid")).ok()?.trim_end().parse().ok()
        });
        let pid = pid.ok_or_else(|| Error::new(format!("{}: {what} did not start", home.name)))?;
        Ok(Self { home: Arc::clone(home), pid, paused: Mutex::new(None) })
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// What it wrote to stdout and stderr, in the order of writing.
    pub fn log(&self) -> String {
        self.home.log()
    }

    /// Its exit status once it has ended; 128 and the signal's number if a signal ended it.
    pub fn exit_status(&self) -> Option<i32> {
        fs::read_to_string(self.home.join("exit")).ok()?.trim_end().parse().ok()
    }

    /// Waits until it has ended; none when it has not within the deadline.
    pub fn wait(&self, deadline: Duration) -> Option<i32> {
        poll(deadline, || self.exit_status())
    }

    /// Sends a signal, by its name without SIG, to the program itself.
    pub fn signal(&self, signal: &str) {
        if self.exit_status().is_none() {
            family::signal(signal, [self.pid]);
        }
    }

    /// Kills it and all its descendants at once, as a power failure would.
    pub fn kill(&self) {
        if self.exit_status().is_none() {
            family::kill(self.pid);
            self.wait(SPAWN_DEADLINE);
        }
    }

    /// Freezes it and all its descendants: connections stay open and nobody answers.
    pub fn pause(&self) {
        let mut paused = self.paused.lock().unwrap_or_else(PoisonError::into_inner);
        if self.exit_status().is_none() {
            *paused = Some(family::stop(self.pid));
        }
    }

    /// Whether it is frozen.
    pub fn is_paused(&self) -> bool {
        self.paused.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Lets it go on after [`pause`](Self::pause).
    pub fn resume(&self) {
        let mut paused = self.paused.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(family) = paused.take() {
            family::resume(&family, self.pid);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The script that becomes the program. The keeper starts its children with some signals ignored,
/// and a shell has no way back, so Perl restores them.
fn script(home: &Home, command: &Command) -> String {
    let mut script = String::new();
    let mut line = |words: &[&str]| {
        script.push_str(&words.concat());
        script.push('\n');
    };
    let pid = quoted(home.join("pid").as_os_str());
    line(&["echo $$ >", &pid, ".new; mv ", &pid, ".new ", &pid]);
    if let Some(directory) = command.get_current_dir() {
        line(&["cd ", &quoted(directory.as_os_str()), " || exit 127"]);
    }
    for (key, value) in command.get_envs() {
        let key = key.to_string_lossy();
        match value {
            Some(value) => line(&["export ", &key, "=", &quoted(value)]),
            None => line(&["unset ", &key]),
        }
    }
    let arguments: Vec<String> = command.get_args().map(quoted).collect();
    line(&[
        "exec perl -e '$SIG{$_} = q(DEFAULT) for qw(HUP INT QUIT TERM); exec { $ARGV[0] } @ARGV; ",
        "die qq($ARGV[0]: $!\\n)' ",
        &quoted(command.get_program()),
        " ",
        &arguments.join(" "),
    ]);
    script
}

/// A word for the shell, whatever it holds.
fn quoted(word: &OsStr) -> String {
    format!("'{}'", word.to_string_lossy().replace('\'', r"'\''"))
}
