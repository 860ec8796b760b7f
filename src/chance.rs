//! Chance where daemons that failed together should not come back together.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

/// Evenly from zero to one. The standard library seeds its hasher from the system.
pub(crate) fn spread() -> f64 {
    f64::from(u32::try_from(number() >> 32).unwrap_or(0)) / f64::from(u32::MAX)
}

/// One of all numbers, so that no two are alike.
pub(crate) fn number() -> u64 {
    RandomState::new().build_hasher().finish()
}
