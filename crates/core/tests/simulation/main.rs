//! The rules of delivery, driven through random schedules.
//!
//! A small world (a server with a slot, Kafka with a checkpoint topic, two daemons) whose daemons
//! use the real books, the real recovery and the real record of a checkpoint. Everything may
//! happen between any two steps: commits, reports in any order, kills, freezes, lost connections,
//! a server that forgets what was confirmed, commits of checkpoints that come late or whose answer
//! is lost. After every step what is promised must hold; at the end everything must have arrived.
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
mod world;

use world::{Mode, Plant, World};

/// In each mode.
const SCHEDULES: u64 = 50_000;

/// A planted bug must show within so many.
const ENOUGH: u64 = 20_000;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Runs schedules until one breaks a promise; which one, and how.
fn first_failure(mode: Mode, plant: Plant, seed: u64, schedules: u64) -> Option<(u64, String)> {
    (0..schedules).find_map(|schedule| {
        let mut world = World::new(mode, plant, seed.wrapping_add(schedule));
        world.run().err().map(|broken| (seed.wrapping_add(schedule), broken))
    })
}

#[track_caller]
fn hold(mode: Mode) {
    let seed = number("WALTIDE_SEED", 0x5EED);
    let schedules = number("WALTIDE_SCHEDULES", SCHEDULES);
    println!("{mode:?}: {schedules} schedules from WALTIDE_SEED={seed}");
    if let Some((seed, broken)) = first_failure(mode, Plant::None, seed, schedules) {
        panic!("WALTIDE_SEED={seed} WALTIDE_SCHEDULES=1: {broken}");
    }
}

#[test]
fn one_daemon_keeps_its_promises() {
    hold(Mode::Alone);
}

#[test]
fn a_daemon_and_its_standby_keep_their_promises() {
    hold(Mode::WithStandby);
}

/// The same of the rules of exactly once.
fn first_breach(plant: exact::Plant, seed: u64, schedules: u64) -> Option<(u64, String)> {
    (0..schedules).find_map(|schedule| {
        let mut world = exact::World::new(plant, seed.wrapping_add(schedule));
        world.run().err().map(|broken| (seed.wrapping_add(schedule), broken))
    })
}

#[test]
fn each_change_is_committed_once_and_in_order() {
    let seed = number("WALTIDE_SEED", 0x5EED);
    let schedules = number("WALTIDE_SCHEDULES", SCHEDULES);
    println!("exactly once: {schedules} schedules from WALTIDE_SEED={seed}");
    if let Some((seed, broken)) = first_breach(exact::Plant::None, seed, schedules) {
        panic!("WALTIDE_SEED={seed} WALTIDE_SCHEDULES=1: {broken}");
    }
}

#[test]
fn every_bug_planted_in_exactly_once_is_caught() {
    for plant in exact::Plant::ALL {
        let found = first_breach(plant, 1, ENOUGH);
        let (seed, broken) = found.unwrap_or_else(|| panic!("{plant:?} was not caught"));
        println!("{plant:?}: schedule {seed}: {broken}");
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
        let found = first_failure(mode, plant, 1, ENOUGH);
        let (seed, broken) = found.unwrap_or_else(|| panic!("{plant:?} was not caught"));
        println!("{plant:?}: schedule {seed}: {broken}");
    }
}
