//! The header `waltide.position`, read as its documentation says.

use std::fmt;
use std::str::FromStr;

/// Which record of which change of which transaction: `COMMIT_LSN:ORDINAL:SUB_INDEX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the words of the documentation")]
pub struct Position {
    pub commit_lsn: u64,
    pub ordinal: u64,
    pub sub_index: u32,
}

/// A position in the log, as Postgres writes it.
pub(crate) fn lsn(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    let half = |digits| u32::from_str_radix(digits, 16).ok().map(u64::from);
    Some(half(high)? << 32 | half(low)?)
}

impl FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let mut parts = text.split(':');
            let (commit, ordinal, sub) = (parts.next()?, parts.next()?, parts.next()?);
            let position = Self {
                commit_lsn: lsn(commit)?,
                ordinal: ordinal.parse().ok()?,
                sub_index: sub.parse().ok()?,
            };
            parts.next().is_none().then_some(position)
        };
        parse().ok_or_else(|| format!("{text:?} is no position of a record"))
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (high, low) = (self.commit_lsn >> 32, self.commit_lsn & 0xFFFF_FFFF);
        write!(f, "{high:X}/{low:X}:{}:{}", self.ordinal, self.sub_index)
    }
}
