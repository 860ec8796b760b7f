//! How a pipeline comes to publish, and how it writes down what is published: what is done when,
//! and what follows from each answer.
//!
//! Machines without hands. Each says what to do next and is told what came of it; whoever drives
//! one does the work (the daemon on servers, the simulation in a world of its own), and may be
//! killed, frozen or cut off between any two steps. What must never happen is impossible for them
//! to ask for:
//!
//! - [`Start`], from nothing to a stream. Holding the slot is leadership, so nothing is written
//!   before; who wrote earlier is shut out before the checkpoint is read, so that what is read is
//!   the last; and no slot is made for a pipeline that had one.
//! - [`Keep`], at least once. A position is confirmed only once a checkpoint of it is known to be
//!   written. A write of which nobody knows uses its writer up; before another takes its place the
//!   slot must still be ours, and the last checkpoint of our own making.
//! - [`Commit`], exactly once. What counts is committed together with its checkpoint, one at a
//!   time, and nothing goes on from a commit of which nobody knows: a new start finds out.

mod commit;
mod follow;
mod keep;
mod start;
mod topics;

pub use commit::{BooksBehind, Commit};
pub use follow::Seen;
pub use keep::{Act, Came, End, Keep, Offer};
pub use start::{Began, Event, Halt, Start, Step, Wanted, birth};
pub use topics::{LostTopic, held_by, still_hold};
