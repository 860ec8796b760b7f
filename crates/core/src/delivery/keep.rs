//! At least once: a checkpoint is written behind the delivery of what it covers.
//!
//! ```text
//!   offer -> Write -- Written --------> Confirm -> (the next offer)
//!             ^ |
//!             | '---- Unknown --------> AskForSlot -- not ours -----> End
//!             |                          ^   '------- ours -> Fence -> Recall -- another's -> End
//!             |                          '-- Unknown ----------'---------' |
//!             '------------------------------- ours, or what we began with -'
//! ```

use std::sync::Arc;

use super::follow::{Seen, following};
use crate::checkpoint::{Checkpoint, Progress};
use crate::lsn::{CommitLsn, DurableLsn, EndLsn};

/// How far everything is delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Everything before there.
    pub durable: DurableLsn,
    /// The last transaction before that; none before the first on this connection.
    pub last: Option<CommitLsn>,
    /// The books of snapshots at that moment, where they are kept.
    pub books: Option<Arc<Vec<u8>>>,
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Write this.
    Write(Box<Checkpoint>),
    /// Let the server know, and wait for the next offer.
    Confirm(DurableLsn),
    /// Ask the server whether the slot is still ours. After a pause: something is away.
    AskForSlot,
    /// Shut out whoever wrote before, our own last writer among them.
    Fence,
    /// Read the last checkpoint.
    Recall,
    /// The stream may not go on.
    End(End),
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Came {
    /// The checkpoint is written, by all in-sync replicas' word.
    Written,
    /// Kafka refuses this writer: another has taken its place.
    Refused,
    /// Nobody knows whether it is written, or something could not be reached.
    Unknown,
    /// Whether the server says that the slot is held by our connection.
    Slot {
        /// It does.
        ours: bool,
    },
    /// Whoever wrote before is shut out.
    Fenced,
    /// The last checkpoint.
    Checkpoint(Option<Box<Checkpoint>>),
}

/// Why the stream may not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Another writer has taken our place.
    Refused,
    /// The slot is not ours any more.
    SlotLost,
    /// Another daemon has written a checkpoint.
    Superseded {
        /// Which.
        by: String,
    },
    /// The checkpoint we began with is gone.
    CheckpointLost,
    /// It was told of something that it had not asked for.
    OutOfOrder,
}

/// Keeps checkpoints.
#[derive(Debug)]
pub struct Keep {
    /// As it was last written, or begun with.
    last: Checkpoint,
    /// Who wrote the checkpoint this life began with, and when.
    base: Option<(String, i64)>,
    pending: Option<(Box<Checkpoint>, DurableLsn)>,
    awaited: Awaited,
}

/// What it wants to hear of next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaited {
    Offer,
    Write,
    Slot,
    Fence,
    Recall,
    /// It has ended.
    Nothing,
}

impl Keep {
    /// Goes on from what a start began with.
    #[must_use]
    pub const fn new(last: Checkpoint, base: Option<(String, i64)>) -> Self {
        Self { last, base, pending: None, awaited: Awaited::Offer }
    }

    /// Writes down how far everything is delivered.
    pub fn write(&mut self, offer: &Offer, seen: Seen) -> Act {
        if self.awaited != Awaited::Offer {
            return self.end(End::OutOfOrder);
        }
        let mut next = following(&self.last, seen);
        next.end_lsn = EndLsn(offer.durable.lsn());
        next.commit_lsn = offer.last.unwrap_or(next.commit_lsn);
        next.progress = Progress::Complete;
        if let Some(books) = &offer.books {
            next.snapshot = Some(books.to_vec());
        }
        self.pending = Some((Box::new(next), offer.durable));
        self.write_pending()
    }

    /// What follows from what came.
    pub fn on(&mut self, came: Came) -> Act {
        match (self.awaited, came) {
            (Awaited::Write, Came::Written) => {
                let Some((written, durable)) = self.pending.take() else {
                    return self.end(End::OutOfOrder);
                };
                self.last = *written;
                self.awaited = Awaited::Offer;
                Act::Confirm(durable)
            }
            (Awaited::Write, Came::Refused) => self.end(End::Refused),
            (Awaited::Write | Awaited::Fence | Awaited::Recall, Came::Unknown) => {
                self.awaited = Awaited::Slot;
                Act::AskForSlot
            }
            // Without it another daemon may be at work, and must not be shut out.
            (Awaited::Slot, Came::Slot { ours: false }) => self.end(End::SlotLost),
            (Awaited::Slot, Came::Slot { ours: true }) => {
                self.awaited = Awaited::Fence;
                Act::Fence
            }
            (Awaited::Fence, Came::Fenced) => {
                self.awaited = Awaited::Recall;
                Act::Recall
            }
            (Awaited::Recall, Came::Checkpoint(found)) => self.recalled(found),
            _ => self.end(End::OutOfOrder),
        }
    }

    /// Whether nobody else has written since.
    fn recalled(&mut self, found: Option<Box<Checkpoint>>) -> Act {
        let Some(found) = found else { return self.end(End::CheckpointLost) };
        // Before the first of this life there is the one that it began with.
        let base = self.base.as_ref().is_some_and(|(instance, at)| {
            *instance == found.instance && *at == found.written_at_us
        });
        if found.instance == self.last.instance || base {
            return self.write_pending();
        }
        self.end(End::Superseded { by: found.instance })
    }

    fn write_pending(&mut self) -> Act {
        match &self.pending {
            Some((next, _)) => {
                self.awaited = Awaited::Write;
                Act::Write(next.clone())
            }
            None => self.end(End::OutOfOrder),
        }
    }

    fn end(&mut self, why: End) -> Act {
        self.awaited = Awaited::Nothing;
        Act::End(why)
    }
}

#[cfg(test)]
mod tests;
