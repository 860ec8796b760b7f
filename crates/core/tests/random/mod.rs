//! Random schedules: numbers that come again with their seed, and runs of one after another.

use std::fmt::Debug;

pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ mixed >> 31) % limit
    }

    pub(crate) fn once_in(&mut self, limit: u64) -> bool {
        self.below(limit) == 0
    }

    pub(crate) fn index(&mut self, limit: usize) -> usize {
        usize::try_from(self.below(limit as u64)).expect("it was one")
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Runs schedules until one breaks a promise; which one, and how.
fn first_failure(
    (seed, schedules): (u64, u64),
    run: impl Fn(u64) -> Result<(), String>,
) -> Option<(u64, String)> {
    (0..schedules).find_map(|schedule| {
        let seed = seed.wrapping_add(schedule);
        run(seed).err().map(|broken| (seed, broken))
    })
}

/// So many schedules keep the promises. `WALTIDE_SEED` and `WALTIDE_SCHEDULES` replay and lengthen.
#[track_caller]
pub(crate) fn hold(what: impl Debug, schedules: u64, run: impl Fn(u64) -> Result<(), String>) {
    let seed = number("WALTIDE_SEED", 0x5EED);
    let schedules = number("WALTIDE_SCHEDULES", schedules);
    println!("{what:?}: {schedules} schedules from WALTIDE_SEED={seed}");
    if let Some((seed, broken)) = first_failure((seed, schedules), run) {
        panic!("WALTIDE_SEED={seed} WALTIDE_SCHEDULES=1: {broken}");
    }
}

/// A planted bug breaks one within so many schedules from a seed on.
#[track_caller]
pub(crate) fn catch(plant: impl Debug, from: (u64, u64), run: impl Fn(u64) -> Result<(), String>) {
    let found = first_failure(from, run);
    let (seed, broken) = found.unwrap_or_else(|| panic!("{plant:?} was not caught"));
    println!("{plant:?}: schedule {seed}: {broken}");
}
