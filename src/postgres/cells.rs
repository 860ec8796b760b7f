//! Takes a row's values one after the other. `None` means that a value is not of the kind that
//! was asked for, which no server of ours does.

use std::str::FromStr;

/// What is left of a row.
pub(super) struct Cells<'a>(pub(super) std::slice::Iter<'a, Option<String>>);

impl<'a> Cells<'a> {
    pub(super) fn of(row: &'a [Option<String>]) -> Self {
        Self(row.iter())
    }

    /// A value that is never NULL.
    pub(super) fn get<T: FromStr>(&mut self) -> Option<T> {
        self.0.next()?.as_deref()?.parse().ok()
    }

    /// A value that may be NULL.
    pub(super) fn maybe<T: FromStr>(&mut self) -> Option<Option<T>> {
        match self.0.next()? {
            None => Some(None),
            Some(text) => text.parse().ok().map(Some),
        }
    }

    /// A boolean that is never NULL.
    pub(super) fn flag(&mut self) -> Option<bool> {
        self.maybe_flag()?
    }

    /// A boolean that may be NULL, as a column or as JSON.
    pub(super) fn maybe_flag(&mut self) -> Option<Option<bool>> {
        match self.0.next()?.as_deref() {
            None => Some(None),
            Some("t" | "true") => Some(Some(true)),
            Some("f" | "false") => Some(Some(false)),
            Some(_) => None,
        }
    }
}
