//! Positions, read back from text without the product's own code.

use std::fmt;
use std::str::FromStr;

use waltide_stack::JsonRecord;

/// A position in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Lsn(pub(crate) u64);

impl FromStr for Lsn {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let halves = text.split_once('/').and_then(|(high, low)| {
            let half = |digits| u32::from_str_radix(digits, 16).ok().map(u64::from);
            Some(half(high)? << 32 | half(low)?)
        });
        halves.map(Self).ok_or_else(|| format!("{text:?} is no position"))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// The header `waltide.position`: which record of which change of which transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Position {
    pub(crate) commit: Lsn,
    pub(crate) ordinal: u64,
    pub(crate) sub_index: u32,
}

impl Position {
    /// The position of a record.
    #[track_caller]
    pub(crate) fn of(record: &JsonRecord) -> Self {
        Self::in_header(record.header("waltide.position"))
    }

    /// The same, of its header.
    #[track_caller]
    pub(crate) fn in_header(text: Option<String>) -> Self {
        let text = text.expect("a record has its position");
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }
}

impl FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no position of a record");
        let parts: Vec<&str> = text.split(':').collect();
        let [commit, ordinal, sub_index] = parts.as_slice() else { return Err(wrong()) };
        Ok(Self {
            commit: commit.parse()?,
            ordinal: ordinal.parse().map_err(|_| wrong())?,
            sub_index: sub_index.parse().map_err(|_| wrong())?,
        })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.commit, self.ordinal, self.sub_index)
    }
}
