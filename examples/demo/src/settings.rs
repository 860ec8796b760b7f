//! What was asked for, and where things are.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// The time after which the demo ends by itself.
const SECONDS: &str = "DEMO_SECONDS";

/// The daemon to run instead of the one beside us.
const DAEMON: &str = "DEMO_DAEMON";

/// A week: nobody means more.
const MAX_SECONDS: f64 = 7.0 * 86_400.0;

/// When the migration comes: soon enough to be seen, late enough to be seen as a change.
const MIGRATION: Duration = Duration::from_secs(6);

pub(crate) struct Settings {
    /// None: until Ctrl-C.
    pub(crate) run_for: Option<Duration>,
    pub(crate) daemon: PathBuf,
    /// Where the configuration and the daemon's log are left to look at.
    pub(crate) directory: PathBuf,
}

impl Settings {
    pub(crate) fn from_environment() -> Result<Self, String> {
        let given = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let run_for = given(SECONDS).map(|text| seconds(&text)).transpose()?;
        let program = std::env::current_exe().map_err(|error| format!("who am I? {error}"))?;
        let release = program.parent().unwrap_or(Path::new("."));
        let daemon = match given(DAEMON) {
            Some(path) => PathBuf::from(path),
            None => release.join("waltide"),
        };
        let daemon = daemon.canonicalize().map_err(|error| {
            let daemon = daemon.display();
            format!("there is no daemon to show at {daemon} ({error}); `make demo` builds it")
        })?;
        let directory = release.parent().unwrap_or(release).join("demo");
        Ok(Self { run_for, daemon, directory })
    }

    /// When the migration comes, after the shop has opened.
    pub(crate) fn migrate_after(&self) -> Duration {
        self.run_for.map_or(MIGRATION, |all| MIGRATION.min(all.mul_f64(0.4)))
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.trim().parse::<f64>() {
        Ok(seconds) if (1.0..=MAX_SECONDS).contains(&seconds) => {
            Ok(Duration::from_secs_f64(seconds))
        }
        _ => Err(format!("{SECONDS} must be a number of seconds from 1 on, not `{text}`")),
    }
}

/// A path as a person would type it here.
pub(crate) fn short(path: &Path) -> String {
    let here = std::env::current_dir().ok().and_then(|here| here.canonicalize().ok());
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let inside = here.and_then(|here| path.strip_prefix(here).ok().map(Path::to_owned));
    inside.unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_number_of_seconds_or_it_is_refused() {
        assert_eq!(seconds("20"), Ok(Duration::from_secs(20)));
        assert_eq!(seconds("1.5"), Ok(Duration::from_millis(1500)));
        for bad in ["0", "-1", "20s", "NaN", "inf", "1e9"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
