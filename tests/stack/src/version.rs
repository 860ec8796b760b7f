//! The PostgreSQL versions we support, each with the release that is pinned in `pom.xml`.

use std::fmt;
use std::str::FromStr;

use crate::artifacts;
use crate::error::Error;

/// A major version of PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "a number is its own explanation")]
pub enum Version {
    V14,
    V15,
    V16,
    V17,
    V18,
}

impl Version {
    /// All of them, oldest first.
    pub const ALL: [Self; 5] = [Self::V14, Self::V15, Self::V16, Self::V17, Self::V18];
    /// The newest.
    pub const NEWEST: Self = Self::V18;

    /// The major version as a number.
    pub fn number(self) -> u32 {
        match self {
            Self::V14 => 14,
            Self::V15 => 15,
            Self::V16 => 16,
            Self::V17 => 17,
            Self::V18 => 18,
        }
    }

    /// The pinned release, such as "16.15".
    pub fn release(self) -> &'static str {
        artifacts::pinned(&format!("postgres.{self}"))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number().fmt(f)
    }
}

impl FromStr for Version {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::ALL
            .into_iter()
            .find(|version| version.to_string() == text)
            .ok_or_else(|| Error::new(format!("no PostgreSQL {text} here, only 14 to 18")))
    }
}
