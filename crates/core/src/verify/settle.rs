//! Keys that are looked at again, until it is known what they are.

use rustc_hash::FxHashMap;

use super::{Key, Match, Open, Place, Standing};
use crate::lsn::Lsn;
use crate::read_back::Told;

/// How often a key that stands still must differ.
const CONFIRMED: u8 = 2;

/// What became of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The topic holds what the table holds.
    Equal,
    /// The values of these columns differ, by their position.
    Changed(Vec<usize>),
    /// The topic has no such row.
    Missing,
    /// The table has no such row.
    Extra,
    /// The topic does not tell the values of these columns, and the others are equal.
    Untold(Vec<usize>),
}

/// A key, and what is known of it.
#[derive(Debug)]
struct Tracked {
    key: Key,
    standing: Option<Standing>,
    /// In this round's snapshot.
    row: Option<Box<[u64]>>,
    /// Whether the topic has said something of it since the round's lower bound.
    moves: bool,
    /// In how many rounds it stood still and differed.
    differed: u8,
    verdict: Option<Verdict>,
}

/// Keys that are looked at again, in rounds.
#[derive(Debug, Default)]
pub struct Settling {
    keys: FxHashMap<u128, Tracked>,
    low: Lsn,
    high: Lsn,
    left: usize,
}

impl Settling {
    /// To settle these.
    #[must_use]
    pub fn of(open: impl IntoIterator<Item = Open>) -> Self {
        let tracked = |open: Open| {
            let Open { digest, key, standing } = open;
            let of = Tracked { key, standing, row: None, moves: false, differed: 0, verdict: None };
            (digest, of)
        };
        let keys: FxHashMap<_, _> = open.into_iter().map(tracked).collect();
        Self { left: keys.len(), keys, low: Lsn::ZERO, high: Lsn::ZERO }
    }

    /// How many are not settled.
    #[must_use]
    pub const fn left(&self) -> usize {
        self.left
    }

    /// Those that are not settled.
    pub fn unsettled(&self) -> impl Iterator<Item = (u128, &Key)> {
        let open = self.keys.iter().filter(|(_, of)| of.verdict.is_none());
        open.map(|(digest, of)| (*digest, &of.key))
    }

    /// Everything, once there is no more to be done.
    pub fn into_verdicts(self) -> impl Iterator<Item = (u128, Key, Option<Verdict>)> {
        self.keys.into_iter().map(|(digest, of)| (digest, of.key, of.verdict))
    }

    /// Takes a key out: it cannot be settled. None where it is, or is not among them.
    pub fn take(&mut self, digest: u128) -> Option<Key> {
        self.keys.get(&digest).filter(|of| of.verdict.is_none())?;
        self.left = self.left.saturating_sub(1);
        self.keys.remove(&digest).map(|of| of.key)
    }

    /// A round begins. Its snapshot shows every commit before `low` and none at or after `high`.
    pub fn begin(&mut self, low: Lsn, high: Lsn) {
        (self.low, self.high) = (low, high);
        for tracked in self.keys.values_mut().filter(|of| of.verdict.is_none()) {
            tracked.row = None;
            tracked.moves = tracked.standing.as_ref().is_some_and(|of| of.place.commit >= low);
        }
    }

    /// The snapshot shows this row.
    pub fn row(&mut self, digest: u128, columns: &[u64]) {
        if let Some(tracked) = self.keys.get_mut(&digest) {
            tracked.row = Some(columns.into());
        }
    }

    /// The topic says something of a key. What it said before held up to there.
    pub fn record(&mut self, digest: u128, place: Place, told: Told, columns: &[u64]) {
        let (low, high) = (self.low, self.high);
        let Some(tracked) = self.keys.get_mut(&digest) else { return };
        if tracked.verdict.is_none() {
            if place.commit > low && tracked.holds_by(high) && tracked.compared() == Match::Equal {
                tracked.verdict = Some(Verdict::Equal);
                self.left = self.left.saturating_sub(1);
            }
            tracked.moves |= place.commit >= low;
        }
        match &mut tracked.standing {
            Some(standing) => standing.apply(place, told, columns),
            none => *none = Some(Standing::first(place, told, columns)),
        }
    }

    /// The topic says that there are no rows any more.
    pub fn truncated(&mut self, place: Place) {
        let here = |of: &Tracked| {
            of.standing.as_ref().is_none_or(|of| of.place.partition == place.partition)
        };
        let keys: Vec<u128> =
            self.keys.iter().filter(|(_, of)| here(of)).map(|(digest, _)| *digest).collect();
        keys.into_iter().for_each(|digest| self.record(digest, place, Told::Gone, &[]));
    }

    /// Settles those that are equal by now; how many are left.
    pub fn check(&mut self) -> usize {
        for tracked in self.keys.values_mut().filter(|of| of.verdict.is_none()) {
            if tracked.holds_by(self.high) && tracked.compared() == Match::Equal {
                tracked.verdict = Some(Verdict::Equal);
                self.left = self.left.saturating_sub(1);
            }
        }
        self.left
    }

    /// The topic has come past `high`: what stands still and differs has differed.
    pub fn end(&mut self) -> usize {
        self.check();
        for tracked in self.keys.values_mut().filter(|of| of.verdict.is_none() && !of.moves) {
            let found = match tracked.compared() {
                Match::Equal => Verdict::Equal,
                Match::Changed(columns) => Verdict::Changed(columns),
                Match::Missing => Verdict::Missing,
                Match::Extra => Verdict::Extra,
                Match::Untold(columns) => Verdict::Untold(columns),
            };
            tracked.differed += 1;
            if tracked.differed >= CONFIRMED {
                tracked.verdict = Some(found);
                self.left = self.left.saturating_sub(1);
            }
        }
        self.left
    }
}

impl Tracked {
    /// Whether what the topic says of it began to hold by then.
    fn holds_by(&self, high: Lsn) -> bool {
        self.standing.as_ref().is_none_or(|of| of.place.commit < high)
    }

    fn compared(&self) -> Match {
        match (&self.standing, &self.row) {
            (Some(standing), row) => standing.compared(row.as_deref()),
            (None, None) => Match::Equal,
            (None, Some(_)) => Match::Missing,
        }
    }
}

#[cfg(test)]
mod tests;
