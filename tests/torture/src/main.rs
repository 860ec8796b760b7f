//! Runs the torture: `waltide-torture --help`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::Parser;
use waltide_stack::Version;
use waltide_torture::{Mode, Options, schedule::Cycle, soak, torture};

/// Lets everything go wrong, and looks whether all that committed arrived as promised.
#[derive(Debug, Parser)]
#[command(name = "waltide-torture")]
struct Arguments {
    /// No cycle begins after so many minutes.
    #[arg(long)]
    minutes: Option<u64>,
    /// So many cycles; 20 where neither is given.
    #[arg(long)]
    cycles: Option<u64>,
    /// Replays the schedule of that run; else one at random.
    #[arg(long)]
    seed: Option<u64>,
    /// What was promised: `at_least_once` or `exactly_once`.
    #[arg(long, default_value = "at_least_once", value_parser = mode)]
    mode: Mode,
    /// PostgreSQL's version, 14 to 18.
    #[arg(long, default_value = "18", value_parser = version)]
    version: Version,
    /// The daemon's program; else the one beside this.
    #[arg(long)]
    daemon: Option<PathBuf>,
    /// Writes the report to this name with `.json` and `.md`.
    #[arg(long)]
    report: Option<PathBuf>,
    /// No faults: looks at memory, descriptors, spool and slot lag, for an hour or --minutes.
    #[arg(long)]
    soak: bool,
    /// Only prints what would happen.
    #[arg(long)]
    schedule: bool,
}

fn mode(text: &str) -> Result<Mode, String> {
    match text {
        "at_least_once" => Ok(Mode::AtLeastOnce),
        "exactly_once" => Ok(Mode::ExactlyOnce),
        _ => Err("at_least_once or exactly_once".into()),
    }
}

fn version(text: &str) -> Result<Version, String> {
    let found = Version::ALL.into_iter().find(|version| version.to_string() == text);
    found.ok_or_else(|| "14, 15, 16, 17 or 18".into())
}

#[expect(clippy::print_stdout, reason = "the page is what was asked for")]
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let limited = arguments.minutes.is_some() || arguments.soak;
    let cycles = arguments.cycles.or((!limited).then_some(20));
    let seed = arguments.seed.unwrap_or_else(|| {
        use std::hash::{BuildHasher as _, Hasher as _, RandomState};
        RandomState::new().build_hasher().finish() >> 40
    });
    if arguments.schedule {
        (1..=cycles.unwrap_or(20)).for_each(|number| println!("{}", Cycle::of(seed, number)));
        return ExitCode::SUCCESS;
    }
    let ends = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // The second one does not wait.
        let _ = signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&ends));
        let _ = signal_hook::flag::register(signal, Arc::clone(&ends));
    }
    let beside = std::env::current_exe().unwrap_or_default().with_file_name("waltide");
    let daemon = arguments.daemon.clone().unwrap_or(beside);
    if !daemon.exists() {
        eprintln!("waltide-torture: {} is not there: cargo build", daemon.display());
        return ExitCode::from(2);
    }
    let time = arguments.minutes.map(|minutes| Duration::from_secs(60 * minutes));
    let Arguments { mode, version, .. } = arguments;
    let options = Options { mode, version, seed, cycles, time, daemon, ends };
    eprintln!("waltide-torture: {}, PostgreSQL {version}, --seed {seed}", mode.as_str());
    let outcome = if arguments.soak {
        soak(&options).map(|(page, flat)| (None, page, flat))
    } else {
        torture(&options)
            .map(|report| (Some(report.json()), report.markdown(), report.violations.is_empty()))
    };
    let (json, page, good) = match outcome {
        Ok(outcome) => outcome,
        Err(error) => {
            eprintln!("waltide-torture: {error}");
            return ExitCode::from(3);
        }
    };
    println!("{page}");
    if let Some(stem) = &arguments.report {
        let json = json.map(|json| format!("{json:#}\n"));
        let files = [(".json", json), (".md", Some(page))];
        for (end, text) in files.into_iter().filter_map(|(end, text)| Some((end, text?))) {
            write(stem, end, &text);
        }
    }
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn write(stem: &Path, end: &str, text: &str) {
    let file = format!("{}{end}", stem.display());
    if let Err(error) = std::fs::write(&file, text) {
        eprintln!("waltide-torture: {file}: {error}");
    }
}
