//! The rules of snapshots, driven through random schedules.
//!
//! A small world (a table with its versions, transactions that write it, a log, a topic) whose
//! daemon uses the real books of snapshots, the real books of delivery and the real bytes of a
//! checkpoint. Everything may happen between any two steps: commits that wait for a standby after
//! they are in the log, rows that move to other blocks, TRUNCATE, tables that are rewritten, reads
//! that take long, replicas that lag, kills. At the end a consumer that skips repeats by position
//! must hold exactly what the table holds. So it must where somebody else has written to the topic,
//! and its keys are repaired while everything goes on.
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
#[path = "../random/mod.rs"]
mod random;
mod table;
mod world;

use random::{catch, hold};
use world::{Plant, Reads, World};

/// In each of the two ways to read.
const SCHEDULES: u64 = 60_000;

/// A planted bug must show within so many.
const ENOUGH: u64 = 200_000;

fn run(reads: Reads, plant: Plant, seed: u64) -> Result<(), String> {
    World::new(reads, plant, seed).run()
}

/// Where a topic is repaired.
fn run_and_repair(plant: Plant, seed: u64) -> Result<(), String> {
    World::new(Reads::Primary, plant, seed).run_and_repair()
}

fn holds(reads: Reads) {
    hold(reads, SCHEDULES, |seed| run(reads, Plant::None, seed));
}

#[test]
fn a_table_read_from_the_primary_arrives_as_it_is() {
    holds(Reads::Primary);
}

#[test]
fn a_table_read_from_a_replica_that_lags_arrives_as_it_is() {
    holds(Reads::Replica);
}

#[test]
fn a_topic_that_somebody_else_wrote_to_is_repaired_while_everything_goes_on() {
    hold("repairs", SCHEDULES / 2, |seed| run_and_repair(Plant::None, seed));
}

#[test]
fn every_bug_planted_in_a_repair_is_caught() {
    for plant in [
        Plant::BuriedThoughTouched,
        Plant::NothingBuried,
        Plant::TouchedForgotten,
        Plant::VisibilityUnchecked,
        Plant::RepairForgottenByAKill,
    ] {
        catch(("in a repair", plant), (1, ENOUGH), |seed| run_and_repair(plant, seed));
    }
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
        catch((plant, reads), (seed, ENOUGH), |seed| run(reads, plant, seed));
    }
}
