//! Chance where daemons that failed together should not come back together.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

/// Evenly from zero to one. The standard library seeds its hasher from the system.
pub(crate) fn spread() -> f64 {
    let bits = RandomState::new().build_hasher().finish();
    f64::from(u32::try_from(bits >> 32).unwrap_or(0)) / f64::from(u32::MAX)
}
