//! How the servers written in Java are started, and started fast.
//!
//! Most of their start-up is loading some ten thousand classes. The JVM can keep them parsed and
//! linked in an archive (class data sharing), which it writes at the end of a training run and
//! maps at the next start: that takes more than half of the time away. An archive fits one build
//! of the JVM, so it is kept under a name made from that; a JVM that dislikes it starts without.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::artifacts;
use crate::error::Error;

/// What is done about a server's class archive in this run.
pub(crate) enum Classes {
    /// Write it at exit.
    Train(PathBuf),
    /// Use it if it is there.
    Shared(Option<PathBuf>),
}

/// A `java` command with the options that all servers share. Temporary files go to `home`, and
/// the JVM's own, which monitoring tools would read, nowhere, so that they do not outlive us.
pub(crate) fn command(heap: &str, classes: &Classes, home: &Path) -> Command {
    let mut command = Command::new(java());
    command.arg(format!("-Xmx{heap}")).args(["-XX:+UseSerialGC", "-Xshare:auto"]);
    command.arg("-XX:-UsePerfData").arg(format!("-Djava.io.tmpdir={}", home.display()));
    match classes {
        Classes::Train(file) => {
            command.arg(format!("-XX:ArchiveClassesAtExit={}", file.display()));
            // Which classes do not fit into the archive fills pages and hides what matters.
            command.arg("-Xlog:cds=error");
        }
        Classes::Shared(Some(file)) => {
            command.arg(format!("-XX:SharedArchiveFile={}", file.display()));
        }
        Classes::Shared(None) => {}
    }
    command
}

/// `$JAVA_HOME`'s java, else the one on the path.
fn java() -> OsString {
    match std::env::var_os("JAVA_HOME").filter(|home| !home.is_empty()) {
        Some(home) => Path::new(&home).join("bin/java").into_os_string(),
        None => "java".into(),
    }
}

/// The archive for a server, made by `train` if there is none for this JVM yet. Without it the
/// server merely starts slowly, so nothing here is an error.
pub(crate) fn archive(
    server: &str,
    train: impl FnOnce(&Path) -> Result<(), Error>,
) -> Option<PathBuf> {
    let directory = artifacts::servers().ok()?.join(format!("{server}-classes-{:016x}", build()?));
    let made = artifacts::made_once(&directory, |partial| {
        artifacts::say(&format!("preparing {server} for fast starts (once for this JVM)"));
        train(&partial.join("classes.jsa"))
    });
    match made {
        Ok(()) => Some(directory.join("classes.jsa")).filter(|archive| archive.exists()),
        Err(error) => {
            artifacts::say(&format!("{server} starts slowly this time: {error}"));
            None
        }
    }
}

/// Tells one build of the JVM from another without running it: by its file.
fn build() -> Option<u64> {
    let java = PathBuf::from(java());
    let path = std::env::var_os("PATH").unwrap_or_default();
    let file = std::env::split_paths(&path).map(|dir| dir.join(&java)).find(|file| file.is_file());
    let file = file?.canonicalize().ok()?;
    let changed = file.metadata().ok()?.modified().ok()?;
    Some(artifacts::fingerprint(&[&file.to_string_lossy(), &format!("{changed:?}")]))
}
