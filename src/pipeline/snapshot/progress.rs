//! How fast a table is being read, as of late.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Between two notes, and how many are kept: what is told is the pace of half a minute.
const EVERY: Duration = Duration::from_secs(1);
const NOTES: usize = 30;

/// How far a table was, some times.
#[derive(Debug, Default)]
pub(super) struct Pace {
    notes: VecDeque<Note>,
}

#[derive(Clone, Copy, Debug)]
struct Note {
    at: Instant,
    rows: u64,
    blocks_left: u64,
}

impl Pace {
    /// Notes how far it is; a table that is not measured is at no place.
    pub(super) fn note(&mut self, at: Instant, rows: u64, blocks_left: Option<u64>) {
        let Some(blocks_left) = blocks_left else { return self.notes.clear() };
        let Some(last) = self.notes.back().copied() else {
            return self.notes.push_back(Note { at, rows, blocks_left });
        };
        // It was begun anew.
        if blocks_left > last.blocks_left {
            self.notes.clear();
        } else if at.duration_since(last.at) < EVERY {
            return;
        } else if self.notes.len() == NOTES {
            self.notes.pop_front();
        }
        self.notes.push_back(Note { at, rows, blocks_left });
    }

    /// Rows that come in a second; none while that is not known.
    pub(super) fn rows_per_second(&self) -> Option<f64> {
        let (first, last, seconds) = self.ends()?;
        Some(last.rows.saturating_sub(first.rows) as f64 / seconds)
    }

    /// How long the rest takes at that pace; none where it does not move.
    pub(super) fn left_seconds(&self) -> Option<f64> {
        let (first, last, seconds) = self.ends()?;
        let read = first.blocks_left.saturating_sub(last.blocks_left);
        (read > 0).then(|| last.blocks_left as f64 * seconds / read as f64)
    }

    fn ends(&self) -> Option<(Note, Note, f64)> {
        let (first, last) = (*self.notes.front()?, *self.notes.back()?);
        let seconds = last.at.duration_since(first.at).as_secs_f64();
        (seconds > 0.0).then_some((first, last, seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_that_of_late() {
        let (start, mut pace) = (Instant::now(), Pace::default());
        let at = |seconds| start + Duration::from_secs(seconds);
        pace.note(at(0), 0, None);
        pace.note(at(0), 0, Some(1_000));
        assert_eq!((pace.rows_per_second(), pace.left_seconds()), (None, None));
        for second in 1..=100 {
            pace.note(at(second), 10 * second, Some(1_000 - second));
        }
        assert_eq!((pace.rows_per_second(), pace.left_seconds()), (Some(10.0), Some(900.0)));
        for second in 101..=140 {
            pace.note(at(second), 1_000, Some(900));
        }
        assert_eq!((pace.rows_per_second(), pace.left_seconds()), (Some(0.0), None));
        // Read from the start.
        pace.note(at(141), 1_000, Some(1_000));
        assert_eq!((pace.rows_per_second(), pace.left_seconds()), (None, None));
    }
}
