//! The directory of one server: its data, its configuration, its log.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::error::Error;
use crate::keeper::{self, Keeper};
use crate::poll::poll;

/// A directory below the keeper's that is removed on drop.
#[derive(Debug)]
pub(crate) struct Home {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

impl Home {
    /// Makes a directory named after the server.
    pub(crate) fn new(name: &str) -> Result<Self, Error> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("{name}-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let path = Keeper::get()?.root.join(&name);
        keeper::make_directory(&path)?;
        Ok(Self { name, path })
    }

    pub(crate) fn join(&self, file: &str) -> PathBuf {
        self.path.join(file)
    }

    /// All that the server has written so far.
    pub(crate) fn log(&self) -> String {
        let bytes = fs::read(self.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Copies the log to where it can be read after we are gone, and says where that is.
    pub(crate) fn save_log(&self) {
        let directory = log_directory();
        let target = directory.join(format!("{}.log", self.name));
        let copied = fs::create_dir_all(&directory)
            .and_then(|()| fs::copy(self.join("log"), &target).map(|_| ()));
        // Past the test harness's capture, which would swallow it in another test's output.
        let _ = match copied {
            Ok(()) => writeln!(io::stderr(), "stack: log kept in {}", target.display()),
            Err(error) => writeln!(io::stderr(), "stack: cannot keep {}: {error}", self.name),
        };
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.save_log();
        }
        // A process that is just being killed may still add a file while we remove them.
        poll(Duration::from_secs(5), || match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => None,
            _ => Some(()),
        });
    }
}

/// `target/stack-logs` of the workspace.
fn log_directory() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let workspace = workspace.canonicalize().unwrap_or(workspace);
    target.unwrap_or_else(|| workspace.join("target")).join("stack-logs")
}
