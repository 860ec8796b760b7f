//! A minute of torture: a few cycles in each mode.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use waltide_stack::Version;
use waltide_torture::{Mode, Options, torture};

/// Other seeds are what `make torture` is for: a run of all tests is to say something of the code alone.
const SEED: u64 = 11;

/// Cycles in each mode; `WALTIDE_TORTURE_CYCLES` says how many otherwise.
const CYCLES: u64 = 5;

fn number(name: &str) -> Option<u64> {
    let given = std::env::var(name).ok().filter(|text| !text.is_empty());
    given.map(|text| text.parse().expect("a number"))
}

/// The daemon, as this workspace has built it: with `cargo test --workspace` it is there and new.
fn daemon() -> PathBuf {
    let ours = std::env::current_exe().expect("a program");
    let built = ours.ancestors().nth(2).expect("a target directory").join("waltide");
    assert!(built.exists(), "{} is not there: cargo test --workspace", built.display());
    built
}

#[track_caller]
fn holds(mode: Mode, version: Version) {
    let seed = number("WALTIDE_SEED").unwrap_or(SEED);
    eprintln!("torture: WALTIDE_SEED={seed}");
    let report = torture(&Options {
        mode,
        version,
        seed,
        cycles: Some(number("WALTIDE_TORTURE_CYCLES").unwrap_or(CYCLES)),
        time: Some(Duration::from_secs(1800)),
        daemon: daemon(),
        ends: Arc::new(AtomicBool::new(false)),
    });
    let report = report.expect("it can be tortured");
    eprintln!("{}", report.markdown());
    assert_eq!(report.violations, [], "{:#}", report.json());
    assert!(report.counts.records > 0 && report.cycles > 0, "nothing was looked at");
}

/// One after the other: there are few processors.
#[test]
fn what_committed_arrives_as_promised_whatever_fails() {
    holds(Mode::AtLeastOnce, Version::NEWEST);
    holds(Mode::ExactlyOnce, Version::NEWEST);
}
