//! Our end of the keeper, the small shell process (`keeper.sh`) that starts every server and
//! outlives us by just long enough to remove them all.
//!
//! The dangerous case is our own death: a destructor does not run after SIGKILL, nor for a static,
//! nor after `process::exit`. What does happen, always, is that the kernel closes our end of the
//! pipe on which the keeper waits. Therefore the keeper makes the directory everything lives in,
//! is the ancestor of every server, and is told of a server before the server exists.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::error::Error;
use crate::identity;

const SCRIPT: &str = include_str!("keeper.sh");

/// The running keeper of this process.
pub(crate) struct Keeper {
    /// The directory that goes away with us.
    pub(crate) root: PathBuf,
    orders: Mutex<ChildStdin>,
    _child: Child,
}

impl Keeper {
    /// The keeper, started on first need.
    pub(crate) fn get() -> Result<&'static Self, Error> {
        static KEEPER: OnceLock<Result<Keeper, Error>> = OnceLock::new();
        KEEPER.get_or_init(Self::start).as_ref().map_err(Clone::clone)
    }

    fn start() -> Result<Self, Error> {
        let mut child = Command::new("sh")
            .args(["-c", SCRIPT, "waltide-stack-keeper"])
            .arg(temporary_directory()?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .process_group(0)
            .spawn()
            .map_err(Error::because("cannot start the keeper with sh"))?;
        let (Some(orders), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error::new("the keeper has no pipes"));
        };
        let mut root = String::new();
        BufReader::new(stdout)
            .read_line(&mut root)
            .map_err(Error::because("the keeper does not answer"))?;
        if root.trim_end().is_empty() {
            return Err(Error::new("the keeper could not make its directory"));
        }
        let root = PathBuf::from(root.trim_end());
        Ok(Self { root, orders: Mutex::new(orders), _child: child })
    }

    /// Runs the script `run` in `home`, as a child of the keeper.
    pub(crate) fn run(&self, home: &Path) -> Result<(), Error> {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(orders, "{}", home.display())
            .and_then(|()| orders.flush())
            .map_err(Error::because("the keeper has gone"))
    }
}

/// Where the keeper makes its directory: the server user must be able to walk there.
fn temporary_directory() -> Result<PathBuf, Error> {
    let usual = std::env::temp_dir();
    if !identity::is_root() {
        return Ok(usual);
    }
    [usual, "/tmp".into(), "/var/tmp".into()]
        .into_iter()
        .find(|directory| identity::is_open_to_all(directory))
        .ok_or_else(|| Error::new("no temporary directory is open to the user `nobody`"))
}

/// Makes a directory that others may enter, whatever our umask.
pub(crate) fn make_directory(path: &Path) -> Result<(), Error> {
    fs::create_dir(path)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)))
        .map_err(Error::because(path.display()))
}

/// Writes a file that others may read, whatever our umask.
pub(crate) fn write_file(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o644)))
        .map_err(Error::because(path.display()))
}
