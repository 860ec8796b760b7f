//! The servers' files: fetched once by Maven as `pom.xml` says, kept in a cache that all clones
//! of the repository share.
//!
//! A cache entry is named after what it was made from and appears by a rename, so an entry that
//! exists is whole. A lock file keeps two processes from fetching the same thing at once.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::error::Error;
use crate::identity;
use crate::kafka::broker;
use crate::version::Version;

const POM: &str = include_str!("../pom.xml");

/// Raised when the layout of an entry changes although the pom does not.
const LAYOUT: u32 = 1;

/// The version pinned in the servers' pom under a property's name.
pub(crate) fn pinned(property: &str) -> &'static str {
    POM.split_once(&format!("<{property}>"))
        .and_then(|(_, rest)| rest.split_once("</"))
        .map(|(version, _)| version)
        .unwrap_or_else(|| panic!("pom.xml pins no `{property}`"))
}

/// The directory with all servers, fetched on first need.
pub(crate) fn servers() -> Result<&'static Path, Error> {
    static SERVERS: OnceLock<Result<PathBuf, Error>> = OnceLock::new();
    SERVERS.get_or_init(find_or_fetch).as_deref().map_err(Clone::clone)
}

fn find_or_fetch() -> Result<PathBuf, Error> {
    let platform = Platform::ours()?;
    let name = format!("{:016x}", fingerprint(&[POM, platform.artifact, &LAYOUT.to_string()]));
    let entry = cache_directory()?.join(name);
    made_once(&entry, |partial| fetch(&platform, partial))?;
    if identity::is_root() && !identity::is_open_to_all(&entry) {
        return Err(Error::new(format!(
            "Postgres runs as `nobody`, who cannot read {}: set WALTIDE_STACK_CACHE to a directory \
             open to all",
            entry.display()
        )));
    }
    Ok(entry)
}

/// Makes a directory under a temporary name and renames it, unless it is there already or another
/// process makes it meanwhile.
pub(crate) fn made_once(
    directory: &Path,
    make: impl FnOnce(&Path) -> Result<(), Error>,
) -> Result<(), Error> {
    if directory.exists() {
        return Ok(());
    }
    let lock_path = directory.with_extension("lock");
    let lock = File::create(&lock_path).map_err(Error::because(lock_path.display()))?;
    if lock.try_lock().is_err() {
        say(&format!("another process prepares {}; waiting for it", directory.display()));
        lock.lock().map_err(Error::because(lock_path.display()))?;
    }
    if directory.exists() {
        return Ok(());
    }
    // Ours alone while we hold the lock; what is there is from a process that was interrupted.
    let partial = directory.with_extension("partial");
    let _ = fs::remove_dir_all(&partial);
    fs::create_dir(&partial).map_err(Error::because(partial.display()))?;
    make(&partial)?;
    run("chmod", Command::new("chmod").args(["-R", "a+rX"]).arg(&partial))?;
    fs::rename(&partial, directory).map_err(Error::because(directory.display()))
}

/// `$WALTIDE_STACK_CACHE`, else a place for the whole machine or, unprivileged, for the user.
pub(crate) fn cache_directory() -> Result<PathBuf, Error> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let directory = if let Some(chosen) = variable("WALTIDE_STACK_CACHE") {
        PathBuf::from(chosen)
    } else if identity::is_root() {
        PathBuf::from("/var/cache/waltide-stack")
    } else if let Some(cache) = variable("XDG_CACHE_HOME") {
        Path::new(&cache).join("waltide-stack")
    } else {
        let home: OsString = variable("HOME")
            .ok_or_else(|| Error::new("no HOME: set WALTIDE_STACK_CACHE to a directory"))?;
        Path::new(&home).join(".cache/waltide-stack")
    };
    fs::create_dir_all(&directory).map_err(Error::because(directory.display()))?;
    if identity::is_root() {
        run("chmod", Command::new("chmod").arg("a+rx").arg(&directory))?;
    }
    directory.canonicalize().map_err(Error::because(directory.display()))
}

fn fetch(platform: &Platform, directory: &Path) -> Result<(), Error> {
    say(&format!(
        "fetching PostgreSQL {}, Kafka {} and Apicurio Registry {} with Maven into {} \
         (about 270 MB; once, for all clones)",
        Version::ALL.map(Version::release).join(", "),
        pinned("kafka"),
        pinned("apicurio"),
        directory.display()
    ));
    maven(POM, directory, &[&format!("-Dpostgres.platform={}", platform.artifact)])?;
    for version in Version::ALL {
        unpack_postgres(platform, &directory.join(format!("postgres-{version}")))?;
    }
    broker::format_template(directory)?;
    say("fetched");
    Ok(())
}

/// Lets Maven bring what a pom names into the directory.
pub(crate) fn maven(pom: &str, directory: &Path, options: &[&str]) -> Result<(), Error> {
    let file = directory.join("pom.xml");
    fs::write(&file, pom).map_err(Error::because(file.display()))?;
    let mut maven = Command::new("mvn");
    maven.args(["-q", "-B", "generate-resources", "-f"]).arg(&file);
    maven.arg(format!("-Dstack.directory={}", directory.display()));
    run("mvn", maven.args(options))?;
    let _ = fs::remove_dir_all(directory.join("maven"));
    Ok(())
}

fn unpack_postgres(platform: &Platform, directory: &Path) -> Result<(), Error> {
    let archive = directory.join(platform.archive);
    run("tar", Command::new("tar").arg("-xJf").arg(&archive).arg("-C").arg(directory))?;
    let _ = fs::remove_dir_all(directory.join("META-INF"));
    fs::remove_file(&archive).map_err(Error::because(archive.display()))
}

/// Runs a tool to its end; what it said is in the error.
pub(crate) fn run(name: &str, command: &mut Command) -> Result<(), Error> {
    let output = command.stdin(Stdio::null()).output().map_err(Error::because(format!(
        "cannot run {name} (scripts/deps.sh installs what the stack needs)"
    )))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    Err(Error::new(format!("{name} failed ({}):\n{}", output.status, tail(&said, 30))))
}

/// The last lines of a text.
pub(crate) fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.trim_end().lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Tells the person at the terminal, past the capture of the test harness: what is told here
/// takes long, and silence would look like a hang.
pub(crate) fn say(message: &str) {
    let _ = writeln!(io::stderr(), "stack: {message}");
}

/// A name for content: FNV-1a, which is the same in every build, unlike the standard library's.
pub(crate) fn fingerprint(parts: &[&str]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0xff]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// What the Postgres binaries of a platform are called.
struct Platform {
    artifact: &'static str,
    archive: &'static str,
}

impl Platform {
    fn ours() -> Result<Self, Error> {
        let (artifact, archive) = match (std::env::consts::OS, std::env::consts::ARCH) {
            ("linux", "x86_64") => ("linux-amd64", "postgres-linux-x86_64.txz"),
            ("linux", "aarch64") => ("linux-arm64v8", "postgres-linux-arm_64.txz"),
            ("macos", "x86_64") => ("darwin-amd64", "postgres-darwin-x86_64.txz"),
            ("macos", "aarch64") => ("darwin-arm64v8", "postgres-darwin-arm_64.txz"),
            (os, arch) => {
                return Err(Error::new(format!(
                    "no servers for {os} on {arch}: give addresses in WALTIDE_TEST_PG18_URL, \
                     WALTIDE_TEST_KAFKA and WALTIDE_TEST_REGISTRY"
                )));
            }
        };
        Ok(Self { artifact, archive })
    }
}
