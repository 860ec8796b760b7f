//! Where a pipeline goes on: what it remembers against what the source says.

use std::fmt;

use super::{Checkpoint, Partial, Progress};
use crate::lsn::{CommitLsn, DurableLsn, Lsn};

/// What the source says of itself, read after the slot is ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFacts {
    /// The cluster.
    pub system_identifier: u64,
    /// The timeline it is on.
    pub timeline: u32,
    /// The timelines before that one, as `TIMELINE_HISTORY` lists them; empty on the first.
    pub timeline_history: Vec<TimelineEnd>,
    /// How far its log is flushed. Nothing is sent before it is, so on one history this is never
    /// before what was read.
    pub flushed: Lsn,
    /// The database.
    pub database: String,
    /// Where the slot stands. Where this daemon made it, where it starts.
    pub slot_confirmed: Lsn,
    /// Whether this attempt to start made the slot. The next attempt finds it, and says no.
    pub slot_created_now: bool,
}

/// A timeline that was left, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimelineEnd {
    /// The timeline.
    pub timeline: u32,
    /// The first position that belongs to its successor.
    pub switch_lsn: Lsn,
}

/// Where to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// A new pipeline on a new slot. A checkpoint of this position is written before the first
    /// record.
    Birth {
        /// Where the slot starts.
        at: DurableLsn,
    },
    /// A new pipeline on a slot that was there before: what it confirmed is not ours to publish.
    /// A checkpoint of this position is written before the first record.
    Adopt {
        /// Where the slot stands.
        at: DurableLsn,
    },
    /// A pipeline that goes on.
    Continue {
        /// What the source repeats up to here is left out.
        discard_up_to: DurableLsn,
        /// Of the first transaction after that, this much is left out too, once its hash is seen
        /// to be the same.
        inside: Option<Partial>,
    },
}

impl Resume {
    /// Everything before this position is published, or was never ours to publish.
    #[must_use]
    pub const fn start(&self) -> DurableLsn {
        match *self {
            Self::Birth { at } | Self::Adopt { at } | Self::Continue { discard_up_to: at, .. } => {
                at
            }
        }
    }
}

/// Why continuity cannot be proved. Nothing may be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Our topics hold records, and no checkpoint says up to where.
    CheckpointLost {
        /// Where the slot stands.
        slot: Lsn,
    },
    /// The source is another cluster.
    AnotherSystem {
        /// The checkpoint's.
        recorded: u64,
        /// The source's.
        found: u64,
    },
    /// The source is another database.
    AnotherDatabase {
        /// The checkpoint's.
        recorded: String,
        /// The source's.
        found: String,
    },
    /// The source is on an older timeline: it is a former primary, or was restored.
    OlderTimeline {
        /// The checkpoint's.
        recorded: u32,
        /// The source's.
        found: u32,
    },
    /// The source's history does not pass through the checkpoint.
    ForkedTimeline {
        /// The checkpoint's timeline.
        recorded: u32,
        /// The source's.
        found: u32,
        /// Where the source's history left the checkpoint's timeline; `None` where it never was
        /// on it.
        left_at: Option<Lsn>,
        /// How far the checkpoint's reaches.
        checkpoint: Lsn,
    },
    /// The source's log ends before what was read from it.
    LogEndsBefore {
        /// Where it ends.
        end: Lsn,
        /// How far the checkpoint's reaches.
        checkpoint: Lsn,
    },
    /// The slot was missing and had to be made, although the pipeline had one.
    SlotRecreated {
        /// Where the new one starts.
        slot: Lsn,
        /// Where the pipeline was.
        checkpoint: Lsn,
    },
    /// The slot has moved past what is published.
    SlotAhead {
        /// Where it stands.
        slot: Lsn,
        /// Where the pipeline was.
        checkpoint: Lsn,
    },
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CheckpointLost { slot } => write!(
                f,
                "the checkpoint topic is empty although this pipeline's topics hold records: how far they reach is not known (the slot stands at {slot})"
            ),
            Self::AnotherSystem { recorded, found } => write!(
                f,
                "the source is another cluster: its system identifier is {found}, the checkpoint was written for {recorded}"
            ),
            Self::AnotherDatabase { recorded, found } => write!(
                f,
                "the source is database {found:?}, the checkpoint was written for {recorded:?}"
            ),
            Self::OlderTimeline { recorded, found } => write!(
                f,
                "the source is on timeline {found}, the checkpoint was written on timeline {recorded}: this server is a former primary, or was restored to an earlier state"
            ),
            Self::ForkedTimeline { recorded, found, left_at: Some(left_at), checkpoint } => write!(
                f,
                "the source's timeline {found} left timeline {recorded} at {left_at}, before the checkpoint at {checkpoint}: changes are published that this server never had"
            ),
            Self::ForkedTimeline { recorded, found, left_at: None, checkpoint } => write!(
                f,
                "the source's timeline {found} does not descend from timeline {recorded}, on which the checkpoint at {checkpoint} was written"
            ),
            Self::LogEndsBefore { end, checkpoint } => write!(
                f,
                "the source's log ends at {end}, before the checkpoint at {checkpoint}: the server was restored to an earlier state, or lost a part of its log"
            ),
            Self::SlotRecreated { slot, checkpoint } => write!(
                f,
                "the slot was missing and a new one starts at {slot}: changes since the checkpoint at {checkpoint} cannot be read any more"
            ),
            Self::SlotAhead { slot, checkpoint } => write!(
                f,
                "the slot stands at {slot}, ahead of the checkpoint at {checkpoint}: changes in between were confirmed to the server and may be in no topic"
            ),
        }
    }
}

impl std::error::Error for Stop {}

impl Stop {
    /// What a person can do about it.
    #[must_use]
    pub const fn mend(&self) -> &'static str {
        match self {
            Self::CheckpointLost { .. } => {
                "restore the checkpoint topic if it was deleted by mistake; otherwise decide to go on from where the slot stands"
            }
            Self::AnotherSystem { .. } | Self::AnotherDatabase { .. } => {
                "correct source.url if it points to the wrong place, and for a new source give the pipeline another name; if this source takes the old one's place, accept the gap"
            }
            Self::OlderTimeline { .. } => {
                "point source.url to the present primary; if this server is meant, accept the gap"
            }
            Self::ForkedTimeline { .. } | Self::LogEndsBefore { .. } => {
                "point source.url to a server that continues what was read; if this one is meant, decide what to do about the changes that are only in the topics, and accept the gap"
            }
            Self::SlotRecreated { .. } | Self::SlotAhead { .. } => {
                "find out what moved or dropped the slot (another consumer of the same slot?), then accept the gap if you can"
            }
        }
    }
}

/// Decides where a pipeline goes on.
///
/// `topics_hold_records` says whether topics of this pipeline hold records already; it matters
/// only where there is no checkpoint.
///
/// # Errors
/// Where it cannot be proved that nothing is left out.
pub fn resume(
    checkpoint: Option<&Checkpoint>,
    source: &SourceFacts,
    topics_hold_records: bool,
) -> Result<Resume, Stop> {
    let slot = source.slot_confirmed;
    let at = DurableLsn::proven(slot);
    let Some(checkpoint) = checkpoint else {
        return match (topics_hold_records, source.slot_created_now) {
            (true, _) => Err(Stop::CheckpointLost { slot }),
            (false, true) => Ok(Resume::Birth { at }),
            (false, false) => Ok(Resume::Adopt { at }),
        };
    };
    // Whose history it is comes first: on another one the slot's position means nothing.
    same_history(checkpoint, source)?;
    let end = checkpoint.end_lsn.0;
    if source.slot_created_now {
        return Err(Stop::SlotRecreated { slot, checkpoint: end });
    }
    if slot > end {
        return Err(Stop::SlotAhead { slot, checkpoint: end });
    }
    let inside = match checkpoint.progress {
        Progress::Complete => None,
        Progress::Partial(partial) => Some(partial),
    };
    Ok(Resume::Continue { discard_up_to: DurableLsn::proven(end), inside })
}

fn same_history(checkpoint: &Checkpoint, source: &SourceFacts) -> Result<(), Stop> {
    if source.system_identifier != checkpoint.system_identifier {
        return Err(Stop::AnotherSystem {
            recorded: checkpoint.system_identifier,
            found: source.system_identifier,
        });
    }
    if source.database != checkpoint.database {
        return Err(Stop::AnotherDatabase {
            recorded: checkpoint.database.clone(),
            found: source.database.clone(),
        });
    }
    let reach = match checkpoint.progress {
        Progress::Complete => checkpoint.end_lsn.0,
        Progress::Partial(Partial { commit_lsn: CommitLsn(commit), .. }) => commit,
    };
    let reaches = || match source.flushed < reach {
        true => Err(Stop::LogEndsBefore { end: source.flushed, checkpoint: reach }),
        false => Ok(()),
    };
    let (recorded, found) = (checkpoint.timeline, source.timeline);
    // A former primary or a fork is told as such, however far its log reaches.
    if found == recorded {
        return reaches();
    }
    if found < recorded {
        return Err(Stop::OlderTimeline { recorded, found });
    }
    let left_at = source
        .timeline_history
        .iter()
        .find(|end| end.timeline == recorded)
        .map(|end| end.switch_lsn);
    // What lies before the switch is common to both. The end of a transaction may be the switch
    // itself; a commit record must start before it, and as it is whole, it also ends by then.
    let (checkpoint, is_common) = match checkpoint.progress {
        Progress::Complete => {
            let end = checkpoint.end_lsn.0;
            (end, left_at.is_some_and(|left_at| end <= left_at))
        }
        Progress::Partial(Partial { commit_lsn: CommitLsn(commit), .. }) => {
            (commit, left_at.is_some_and(|left_at| commit < left_at))
        }
    };
    if is_common {
        return reaches();
    }
    Err(Stop::ForkedTimeline { recorded, found, left_at, checkpoint })
}

#[cfg(test)]
mod tests;
