//! Positions in the write-ahead log, one type for each meaning.
//!
//! A pipeline loses data when it confuses two of them: confirming a commit's own position
//! repeats it, confirming one past its end loses the next one (back-to-back commits have
//! `first.end == second.commit`). So each is a type, and only a [`DurableLsn`] can be told to
//! the server as flushed.

use std::fmt;
use std::str::FromStr;

/// A byte position in the write-ahead log, meaning not yet known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// "No position": what the server writes where there is none.
    pub const ZERO: Self = Self(0);

    /// Bytes from `earlier` to here; zero where `earlier` is ahead.
    #[must_use]
    pub const fn bytes_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// The text was not of the form `16/B374D848`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseLsnError;

impl fmt::Display for ParseLsnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a WAL position has the form 16/B374D848")
    }
}

impl std::error::Error for ParseLsnError {}

impl FromStr for Lsn {
    type Err = ParseLsnError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (high, low) = text.split_once('/').ok_or(ParseLsnError)?;
        let part = |digits: &str| {
            let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
            if plain { u32::from_str_radix(digits, 16).ok() } else { None }
        };
        match (part(high), part(low)) {
            (Some(high), Some(low)) => Ok(Self(u64::from(high) << 32 | u64::from(low))),
            _ => Err(ParseLsnError),
        }
    }
}

/// Where a transaction's commit record starts. Part of a change's identity; never confirmed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitLsn(pub Lsn);

/// Where a transaction's commit record ends: the position to resume at once it is delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndLsn(pub Lsn);

/// A position up to which everything is delivered. Only the watermark makes one, and only
/// this type can be confirmed to the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DurableLsn(Lsn);

impl DurableLsn {
    /// For the watermark and for a position read back from a slot, which was durable before.
    #[must_use]
    pub const fn proven(lsn: Lsn) -> Self {
        Self(lsn)
    }

    /// What of it lies before another position: everything before that is durable as well.
    #[must_use]
    pub fn at_most(self, lsn: Lsn) -> Self {
        Self(self.0.min(lsn))
    }

    /// The position itself.
    #[must_use]
    pub const fn lsn(self) -> Lsn {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_prints_as_postgres_prints_it_and_reads_back() {
        for (text, value) in
            [("0/0", 0), ("16/B374D848", 0x16_B374_D848), ("FFFFFFFF/FFFFFFFF", u64::MAX)]
        {
            assert_eq!(Lsn(value).to_string(), text);
            assert_eq!(text.parse::<Lsn>(), Ok(Lsn(value)));
        }
    }

    #[test]
    fn what_is_no_position_is_refused() {
        for text in ["", "/", "1", "1/", "/1", "+1/0", "1/100000000", "g/0", "1/2/3", " 1/2"] {
            assert_eq!(text.parse::<Lsn>(), Err(ParseLsnError), "{text:?}");
        }
    }
}
