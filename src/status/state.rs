//! What a pipeline is doing, in a word.

use crate::fault::Fault;

/// What a pipeline is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It has not yet reached its servers.
    Starting,
    /// Another daemon reads the slot; this one takes over when it is free.
    Standby,
    /// Changes flow, or would if there were any.
    Streaming,
    /// Somebody has asked it to publish nothing; it holds the slot.
    Paused,
    /// Something is in the way; it is tried again by itself.
    Waiting(Fault),
    /// It was asked to end and delivers what it holds.
    Draining,
    /// It does not go on without a decision.
    Stopped(Fault),
}

impl State {
    /// Whether changes flow, or would, or another daemon sees to it.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        matches!(self, Self::Streaming | Self::Standby)
    }

    /// Whether the server sends, as far as it is read.
    #[must_use]
    pub const fn has_stream(&self) -> bool {
        matches!(self, Self::Streaming | Self::Paused | Self::Draining)
    }

    /// As metrics, logs and the API write it.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Standby => "standby",
            Self::Streaming => "streaming",
            Self::Paused => "paused",
            Self::Waiting(_) => "waiting",
            Self::Draining => "draining",
            Self::Stopped(_) => "stopped",
        }
    }

    /// The names of all states.
    pub const NAMES: &'static [&'static str] =
        &["starting", "standby", "streaming", "paused", "waiting", "draining", "stopped"];
}
