//! The rules of delivery, driven through random schedules.
//!
//! A small world (a server with a slot, Kafka with a checkpoint topic, two daemons) whose daemons
//! are the machines of `waltide_core::delivery` with the books and the checkpoint, as the product
//! drives them; only the hands are this world's. Between any two steps of a daemon everything may
//! happen: commits, reports in any order, kills, freezes, lost connections, steps that fail, a
//! server that forgets what was confirmed, commits of checkpoints that come late or whose answer is
//! lost. After every step what is promised must hold; at the end everything must have arrived.
//!
//! The bugs that are planted here are those of who drives the machines. Bugs of the machines are
//! patches in `tests/plants`, which want these tests to fail.
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
mod exact;
#[path = "../random/mod.rs"]
mod random;
mod server;
mod starting;
mod world;

use random::{catch, hold};
use world::{Mode, Plant, World};

/// In each mode.
const SCHEDULES: u64 = 50_000;

/// A planted bug must show within so many.
const ENOUGH: u64 = 20_000;

fn run(mode: Mode, plant: Plant, seed: u64) -> Result<(), String> {
    World::new(mode, plant, seed).run()
}

/// By the rules of exactly once.
fn run_exactly_once(plant: exact::Plant, seed: u64) -> Result<(), String> {
    exact::World::new(plant, seed).run()
}

fn holds(mode: Mode) {
    hold(mode, SCHEDULES, |seed| run(mode, Plant::None, seed));
}

#[test]
fn one_daemon_keeps_its_promises() {
    holds(Mode::Alone);
}

#[test]
fn a_daemon_and_its_standby_keep_their_promises() {
    holds(Mode::WithStandby);
}

#[test]
fn each_change_is_committed_once_and_in_order() {
    hold("exactly once", SCHEDULES, |seed| run_exactly_once(exact::Plant::None, seed));
}

#[test]
fn every_bug_planted_in_exactly_once_is_caught() {
    for plant in exact::Plant::ALL {
        catch(plant, (1, ENOUGH), |seed| run_exactly_once(plant, seed));
    }
}

#[test]
fn every_planted_bug_is_caught() {
    for (plant, mode) in [
        (Plant::ConfirmBeforeCheckpoint, Mode::Alone),
        (Plant::CheckpointWhatWasReceived, Mode::Alone),
        (Plant::DeliveredOnceQueued, Mode::Alone),
        (Plant::KeepaliveConfirmsAll, Mode::Alone),
        (Plant::ResumeOneTooFar, Mode::Alone),
        (Plant::NoBirthCheckpoint, Mode::Alone),
        (Plant::UnknownIsLost, Mode::Alone),
        (Plant::ReadBeforeFence, Mode::WithStandby),
        (Plant::NoFence, Mode::WithStandby),
    ] {
        catch(plant, (1, ENOUGH), |seed| run(mode, plant, seed));
    }
}
