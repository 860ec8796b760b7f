//! The rules of snapshots, driven through random schedules.
//!
//! A small world (a table with its versions, transactions that write it, a log, a topic) whose
//! daemon uses the real books of snapshots, the real books of delivery and the real bytes of a
//! checkpoint. Everything may happen between any two steps: commits that wait for a standby after
//! they are in the log, rows that move to other blocks, TRUNCATE, tables that are rewritten, reads
//! that take long, replicas that lag, kills. At the end a consumer that skips repeats by position
//! must hold exactly what the table holds.
//!
//! `WALTIDE_SEED` and `WALTIDE_SCHEDULES` replay and lengthen.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "it is only for tests"
)]

mod daemon;
mod table;
mod world;

use world::{Plant, Reads, World};

/// In each of the two ways to read.
const SCHEDULES: u64 = 60_000;

/// A planted bug must show within so many.
const ENOUGH: u64 = 200_000;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Runs schedules until one breaks the promise; which one, and how.
fn first_failure(reads: Reads, plant: Plant, seed: u64, schedules: u64) -> Option<(u64, String)> {
    (0..schedules).find_map(|schedule| {
        let seed = seed.wrapping_add(schedule);
        World::new(reads, plant, seed).run().err().map(|broken| (seed, broken))
    })
}

#[track_caller]
fn hold(reads: Reads) {
    let seed = number("WALTIDE_SEED", 0x5EED);
    let schedules = number("WALTIDE_SCHEDULES", SCHEDULES);
    println!("{reads:?}: {schedules} schedules from WALTIDE_SEED={seed}");
    if let Some((seed, broken)) = first_failure(reads, Plant::None, seed, schedules) {
        panic!("WALTIDE_SEED={seed} WALTIDE_SCHEDULES=1: {broken}");
    }
}

#[test]
fn a_table_read_from_the_primary_arrives_as_it_is() {
    hold(Reads::Primary);
}

#[test]
fn a_table_read_from_a_replica_that_lags_arrives_as_it_is() {
    hold(Reads::Replica);
}

#[test]
fn every_planted_bug_is_caught() {
    // The last number is where a schedule that shows it is near; from there on it is looked for.
    for (plant, reads, seed) in [
        (Plant::RegisteredAfterTheSnapshot, Reads::Primary, 2_180),
        (Plant::VisibilityUnchecked, Reads::Primary, 9_460),
        (Plant::SubtransactionsChecked, Reads::Primary, 19_080),
        (Plant::SnapshotBeforeTheLock, Reads::Primary, 1),
        (Plant::BoundBeforeTheSnapshot, Reads::Primary, 131_870),
        (Plant::TouchedForgotten, Reads::Primary, 1),
        (Plant::TruncateForgotten, Reads::Primary, 70_370),
        (Plant::ReleasedOneBoundaryEarly, Reads::Primary, 16_210),
        (Plant::UnchangedPerChunkOnly, Reads::Primary, 5_510),
        (Plant::MovedTakenForFilled, Reads::Primary, 1),
        (Plant::OpenTransactionsIgnored, Reads::Primary, 1_060),
        (Plant::UnsettledNotRemembered, Reads::Primary, 74_630),
        (Plant::DoneOnceReleased, Reads::Primary, 7_550),
        (Plant::BooksOlderThanThePosition, Reads::Primary, 9_780),
        (Plant::RewriteUnseen, Reads::Primary, 171_500),
        (Plant::SameNumbersInEachLife, Reads::Primary, 140_390),
        (Plant::VisibilityUnchecked, Reads::Replica, 940),
    ] {
        let found = first_failure(reads, plant, seed, ENOUGH);
        let (seed, broken) = found.unwrap_or_else(|| panic!("{plant:?} was not caught"));
        println!("{plant:?} with {reads:?}: schedule {seed}: {broken}");
    }
}
