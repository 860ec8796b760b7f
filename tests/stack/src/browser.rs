//! What drives a browser and judges a page: playwright-core and axe-core from the npm registry. The
//! browser itself is the system's Chromium, which `make deps` installs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::artifacts::{cache_directory, fingerprint, made_once, run, say};
use crate::error::Error;

/// Packages, pinned.
const PACKAGES: [&str; 2] = ["playwright-core@1.56.1", "axe-core@4.11.0"];

/// What Chromium is called by distributions.
const CHROMIUM: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// Raised when what is made of the above changes.
const LAYOUT: &str = "1";

/// Node with the packages at hand and a browser to drive.
#[derive(Clone, Debug)]
pub struct Browser {
    directory: PathBuf,
    chromium: PathBuf,
}

impl Browser {
    /// The one that all tests use, fetched when it is first asked for.
    ///
    /// # Panics
    /// When it cannot be had.
    #[track_caller]
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Result<Browser, Error>> = OnceLock::new();
        match SHARED.get_or_init(Self::find_or_fetch) {
            Ok(browser) => browser,
            Err(error) => panic!("{error}"),
        }
    }

    /// Node, for a script that finds its packages in `PACKAGES` and the browser in `CHROMIUM`.
    pub fn node(&self) -> Command {
        let mut command = Command::new("node");
        command.env("PACKAGES", self.directory.join("node_modules"));
        command.env("CHROMIUM", &self.chromium);
        command
    }

    fn find_or_fetch() -> Result<Self, Error> {
        let chromium = found().ok_or_else(|| {
            Error::new("there is no Chromium: `make deps` installs it, or apt-get install chromium")
        })?;
        let named = [PACKAGES.as_slice(), &[LAYOUT]].concat();
        let directory = cache_directory()?.join(format!("browser-{:016x}", fingerprint(&named)));
        made_once(&directory, |partial| {
            say(&format!("fetching playwright-core and axe-core into {}", directory.display()));
            fetch(partial)
        })?;
        Ok(Self { directory, chromium })
    }
}

fn found() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let all = CHROMIUM.iter().flat_map(|name| places.iter().map(move |place| place.join(name)));
    all.into_iter().find(|program| program.is_file())
}

fn fetch(directory: &Path) -> Result<(), Error> {
    let mut npm = Command::new("npm");
    npm.args(["install", "--silent", "--no-save", "--no-audit", "--no-fund", "--ignore-scripts"]);
    run("npm", npm.arg("--prefix").arg(directory).args(PACKAGES))
}
