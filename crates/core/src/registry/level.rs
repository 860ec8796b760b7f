//! The rule of a subject: who must be able to read what, and back to which version.

/// A compatibility level, in Confluent's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Anything goes.
    None,
    /// The new schema reads what the last one wrote.
    Backward,
    /// The new schema reads what any before wrote.
    BackwardTransitive,
    /// The last schema reads what the new one writes.
    Forward,
    /// Every schema before reads what the new one writes.
    ForwardTransitive,
    /// Both ways, with the last one.
    Full,
    /// Both ways, with every one before.
    FullTransitive,
}

impl Level {
    /// Every level.
    pub const ALL: [Self; 7] = [
        Self::None,
        Self::Backward,
        Self::BackwardTransitive,
        Self::Forward,
        Self::ForwardTransitive,
        Self::Full,
        Self::FullTransitive,
    ];

    /// As Confluent's API writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Backward => "BACKWARD",
            Self::BackwardTransitive => "BACKWARD_TRANSITIVE",
            Self::Forward => "FORWARD",
            Self::ForwardTransitive => "FORWARD_TRANSITIVE",
            Self::Full => "FULL",
            Self::FullTransitive => "FULL_TRANSITIVE",
        }
    }

    /// The level of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str() == name)
    }

    /// Whether the new schema must read what is there.
    pub(super) const fn looks_back(self) -> bool {
        matches!(
            self,
            Self::Backward | Self::BackwardTransitive | Self::Full | Self::FullTransitive
        )
    }

    /// Whether what is there must read what the new schema writes.
    pub(super) const fn looks_forward(self) -> bool {
        matches!(self, Self::Forward | Self::ForwardTransitive | Self::Full | Self::FullTransitive)
    }

    /// Whether all versions count, not the last alone.
    pub(super) const fn is_transitive(self) -> bool {
        matches!(self, Self::BackwardTransitive | Self::ForwardTransitive | Self::FullTransitive)
    }
}
