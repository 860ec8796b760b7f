//! Keys of a table that joined a running pipeline.
//!
//! Its changes come from some moment on; before it they may be missing, where the row as they left it is
//! read instead, or the row is gone, or a change that came made reading it needless. Once the table has
//! been read all rules hold, but that a row may be read again (at least once), as it is at that place.

use super::key::Key;
use super::{Violation, at};
use crate::checker::Kind;
use crate::partition::{Mode, What};

impl Key {
    /// Whether all that committed is told by what came.
    pub(super) fn joins(&self, mode: Mode) -> Result<(), Violation> {
        let streamed = self
            .came
            .iter()
            .filter(|came| !matches!(came.seen.what, What::Read(_) | What::Tombstone));
        let streamed = streamed.count();
        let lost = || {
            let first = self.expected.front().map_or_else(String::new, |it| it.told());
            Violation::Loss(format!("of a table that joined: {first}"))
        };
        let missing = self.expected.len().checked_sub(streamed);
        let missing = match missing {
            None => return Err(self.invented()),
            Some(missing) if self.known && missing > 0 => return Err(lost()),
            Some(missing) => missing,
        };
        let number = |row: &crate::Row| row.get("v").and_then(|v| v.as_i64());
        let of = |index: usize| {
            let change = self.expected.get(index).map(|it| &it.change);
            change.and_then(|change| change.row.as_ref()).and_then(number)
        };
        let mut read = self.read.clone();
        // How much is told so far, and whether what is before the first streamed change was told.
        let (mut next, mut told) = (missing, missing == 0 || self.is_gone_after(missing));
        let mut began = false;
        for came in &self.came {
            match &came.seen.what {
                What::Read(row) => {
                    let of_record = number(row);
                    let shows = (0..next).rev().find(|index| of(*index) == of_record);
                    let current = next == 0 && self.row == of_record
                        || shows.is_some_and(|index| index + 1 == next);
                    if !current && !began && shows.is_some() {
                        // What changed after it was read must have come.
                        return Err(lost());
                    }
                    if !current {
                        let text =
                            format!("{} was read, and is not as it was then", at(&came.seen));
                        return Err(Violation::Reorder(text));
                    }
                    if let Some(expected) = shows.and_then(|index| self.expected.get(index)) {
                        expected.differs(&came.seen).map_or(Ok(()), Err)?;
                        told |= shows == missing.checked_sub(1);
                    }
                    let again = of_record.is_some_and(|number| read.contains(&number));
                    if again && mode == Mode::ExactlyOnce {
                        return Err(Violation::Repeat(format!("{} is read twice", at(&came.seen))));
                    }
                    read.extend(of_record);
                }
                What::Tombstone => {}
                what => {
                    let Some(expected) = self.expected.get(next) else { return Err(lost()) };
                    if !expected.is(what) {
                        return Err(lost());
                    }
                    expected.differs(&came.seen).map_or(Ok(()), Err)?;
                    (next, told, began) = (next + 1, true, true);
                }
            }
        }
        if told && next == self.expected.len() { Ok(()) } else { Err(lost()) }
    }

    /// What was compared is done with.
    pub(super) fn joined(&mut self) {
        if let Some(last) = self.expected.back() {
            let row = last.change.row.as_ref();
            self.row = row.and_then(|row| row.get("v")).and_then(|v| v.as_i64());
        }
        for came in &self.came {
            if let What::Read(row) = &came.seen.what {
                self.read.extend(row.get("v").and_then(|v| v.as_i64()));
            }
        }
        self.expected.clear();
        self.came.clear();
        self.known = true;
    }

    fn is_gone_after(&self, count: usize) -> bool {
        let last = count.checked_sub(1).and_then(|index| self.expected.get(index));
        last.is_some_and(|last| last.change.kind == Kind::Delete)
    }

    fn invented(&self) -> Violation {
        let first = self.came.front().map_or_else(String::new, |came| at(&came.seen));
        Violation::Phantom(format!("more came than was committed, from {first} on"))
    }
}
