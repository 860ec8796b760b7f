//! Rows that are already there join the stream: which, when, and what proves that none is lost.
//!
//! A table is read in chunks beside the running stream. Each is read in one short transaction with
//! snapshot S, its rows are held, and they are released at one point of the stream:
//!
//! ```text
//!            p0              S        L            R
//!  stream ---|---------------+--------+------------|--------------->
//!            registered      |        '- bounds S  released here, as `r`
//!                            '- everything published up to p0 is visible in it
//!            |<-- what touches a key is noted; rows with such a key are dropped -->|
//! ```
//!
//! A row that is released is the last word on its key at R: nothing between p0 and R touched it,
//! and S, which lies in between, saw everything before p0. The hazards, and what answers each:
//! - a commit that waits for a synchronous standby is in the stream and not yet visible: S must
//!   show every transaction that was published up to p0, else the chunk waits ([`Seen`]);
//! - a transaction that was published before anybody kept books of it: those that are open when a
//!   table's job begins have ended, or have been published, before its first chunk;
//! - a row that S sees and whose change has not been streamed: R is at or past L;
//! - an update whose large value the server leaves out: the row may have moved to a block that has
//!   been read already, so its key is read again, unless consumers have it whole meanwhile. A row
//!   that nothing but such updates has touched is released as they left it, with the values that
//!   were read: else one that is updated all the time would never be read ([`Word::Filled`]);
//! - a table that was rewritten: its rows are elsewhere, and it starts over;
//! - a kill: the checkpoint holds a position, and with it what is left, what is to be read again
//!   and which transactions S must show. A chunk counts as left until its rows are acknowledged.
//!
//! `tests/snapshots` drives this code through random schedules, and shows what each rule is for.

mod asked;
mod book;
mod codec;
mod end;
mod filter;
mod held;
mod job;
mod mend;
mod seen;
mod span;
mod touched;

pub use book::{Book, Known};
pub use end::{END_SCHEMA, End};
pub use filter::{BadFilter, Filter};
pub use held::{HeldKeys, HeldRows, key_of};
pub use job::{Assignment, ChunkId, Key, Part, Terms, Word};
pub use mend::{Keys, row_of_key};
pub use seen::{BadSnapshot, Seen, Sight, reachable, widen};
pub use span::{Span, Tid};
pub use touched::Touch;
