//! Numbers that look random and repeat with their seed.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::Range;

/// SplitMix64: enough for tests, and a dozen lines.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// From `WALTIDE_SEED`, else anew. The seed is printed, which shows when the test fails.
    ///
    /// # Panics
    /// When that is not a number.
    pub fn from_environment(test: &str) -> Self {
        let given = std::env::var("WALTIDE_SEED").ok().filter(|text| !text.is_empty());
        let seed = match given {
            Some(text) => text.parse().expect("WALTIDE_SEED is a number"),
            None => RandomState::new().build_hasher().finish() >> 32,
        };
        eprintln!("{test}: WALTIDE_SEED={seed}");
        Self(seed)
    }

    /// Another sequence, which depends on this one and on `number` only.
    #[must_use]
    pub fn branch(&self, number: u64) -> Self {
        let mut branch = Self(self.0 ^ number.wrapping_mul(0xD6E8_FEB8_6659_FD93));
        branch.next();
        branch
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    /// A number of a range that is not empty.
    pub fn of(&mut self, range: Range<u64>) -> u64 {
        range.start + self.next() % (range.end - range.start)
    }

    /// True once in so many times.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.of(0..times) == 0
    }

    /// One of several.
    ///
    /// # Panics
    /// When there is none.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        let index = self.of(0..from.len() as u64);
        &from[usize::try_from(index).expect("an index")]
    }
}
