//! What comes through the package managers of Python and of Debian or Ubuntu. It is unpacked into
//! the cache and not installed: a test has no business to put a service on somebody's machine.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::artifacts::run;
use crate::error::Error;

/// Unpacks wheels into `target`, as `pip install --target` does; options of pip may be among them.
pub(crate) fn unpack_wheels(wheels: &[&str], target: &Path) -> Result<(), Error> {
    let python = target.with_extension("venv");
    run("python3", Command::new("python3").args(["-m", "venv"]).arg(&python))?;
    let mut pip = Command::new(python.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    pip.args(["--only-binary", ":all:"]).args(wheels).arg("--target").arg(target);
    run("pip", &mut pip)?;
    fs::remove_dir_all(&python).map_err(Error::because(python.display()))
}

/// Unpacks packages of the distribution into `directory`.
pub(crate) fn unpack_debian<S: AsRef<str>>(names: &[S], directory: &Path) -> Result<(), Error> {
    let archives = directory.join("archives");
    fs::create_dir(&archives).map_err(Error::because(archives.display()))?;
    with_lists(|| {
        let mut download = Command::new("apt-get");
        download.args(["download", "--quiet"]).args(names.iter().map(S::as_ref));
        run("apt-get", download.current_dir(&archives))
    })?;
    for archive in entries(&archives)? {
        run("dpkg-deb", Command::new("dpkg-deb").arg("-x").arg(&archive).arg(directory))?;
    }
    fs::remove_dir_all(&archives).map_err(Error::because(archives.display()))
}

/// What a package needs that is not installed, itself included where that is so.
pub(crate) fn missing_for(package: &str) -> Result<Vec<String>, Error> {
    let install = ["install", "--simulate", "--no-install-recommends", package];
    let simulated = with_lists(|| ask("apt-get", &install)).map_err(Error::because(format!(
        "the tests need Debian's or Ubuntu's package {package}; where apt-get does not know it, \
         run `apt-get update` first"
    )))?;
    let missing =
        simulated.lines().filter_map(|line| line.strip_prefix("Inst ")?.split(' ').next());
    Ok(missing.map(str::to_owned).collect())
}

/// The packages that a package depends on, by name.
pub(crate) fn dependencies_of(package: &str) -> Result<Vec<String>, Error> {
    let said = ask("apt-cache", &["depends", package])?;
    Ok(said.split_whitespace().map(str::to_owned).collect())
}

/// For `LD_LIBRARY_PATH`: the directories of shared libraries in what was unpacked, Postgres' own
/// left out.
pub(crate) fn libraries(directory: &Path) -> Result<OsString, Error> {
    let mut found = Vec::new();
    let usual = directory.join("usr/lib");
    if usual.is_dir() {
        find_libraries(&usual, &mut found)?;
    }
    std::env::join_paths(found).map_err(Error::because("library paths"))
}

fn find_libraries(directory: &Path, found: &mut Vec<PathBuf>) -> Result<(), Error> {
    let inside = entries(directory)?;
    if inside.iter().any(|path| path.to_string_lossy().contains(".so.")) {
        found.push(directory.to_owned());
    }
    for path in inside {
        if path.is_dir() && !path.ends_with("postgresql") && !path.is_symlink() {
            find_libraries(&path, found)?;
        }
    }
    Ok(())
}

/// What is in a directory.
pub(crate) fn entries(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let listed = fs::read_dir(directory).map_err(Error::because(directory.display()))?;
    Ok(listed.flatten().map(|entry| entry.path()).collect())
}

/// A minimal image has no lists of packages; where they cannot be fetched, the second try says so.
fn with_lists<T>(attempt: impl Fn() -> Result<T, Error>) -> Result<T, Error> {
    attempt().or_else(|_| {
        let _ = run("apt-get", Command::new("apt-get").args(["update", "--quiet"]));
        attempt()
    })
}

/// What a question to the package manager is answered.
fn ask(program: &str, arguments: &[&str]) -> Result<String, Error> {
    let mut command = Command::new(program);
    command.args(arguments).env("LC_ALL", "C").stdin(Stdio::null());
    let output = command.output().map_err(Error::because(program))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(said);
    }
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(Error::new(format!("{program} failed ({}): {}", output.status, complaint.trim())))
}
