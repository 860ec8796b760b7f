//! What a pipeline remembers, as one record on a compacted topic of its own.
//!
//! The checkpoint, not the slot, is the authority on how far the source is published: a server
//! that crashes may put its slot back, never forward, and a slot cannot say which half of a large
//! transaction is out. So on every start the two are compared, and [`resume`] decides. It lets a
//! pipeline go on only where continuity is proved:
//!
//! ```text
//!            commit_lsn  end_lsn
//!                 v         v
//!  WAL  ..........[commit...]....[ a large transaction's commit ]....
//!       ^slot                     ^ partial: its first `ordinal` messages are published too
//!       '--- sent again and left out --'
//! ```
//!
//! The hazards, and what answers each:
//! - the slot is *behind* the checkpoint: normal; what repeats is left out by position;
//! - the slot is *ahead*: something between the two was confirmed and is in no topic; stop;
//! - the slot was made anew: it starts now, whatever happened since the checkpoint is gone; stop;
//! - another server, or one that left our history before the checkpoint (a restore, a promoted
//!   standby that had not received everything): equal positions mean other data; stop;
//! - no checkpoint although our topics hold records: it was lost, and to begin anew would look
//!   like a success; stop.

pub(crate) mod codec;
mod fingerprint;
mod recovery;

use crate::lsn::{CommitLsn, EndLsn};

pub use codec::Unreadable;
pub use fingerprint::fingerprint;
pub use recovery::{Resume, SourceFacts, Stop, TimelineEnd, resume};

/// The format this code writes, and the newest it reads.
pub const FORMAT_VERSION: i32 = 1;

/// How far a pipeline is. Its Avro form is `schemas/checkpoint.avsc`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The cluster that was read.
    pub system_identifier: u64,
    /// Its timeline at that time.
    pub timeline: u32,
    /// The database that was read.
    pub database: String,
    /// The slot it was read through.
    pub slot: String,
    /// What the publication covered; opaque here.
    pub publication_fingerprint: String,
    /// The last transaction that is wholly published; zero before the first.
    pub commit_lsn: CommitLsn,
    /// Everything before this position is published. At or past the end of that transaction: an
    /// idle source moves it on.
    pub end_lsn: EndLsn,
    /// Whether a part of the next transaction is published as well.
    pub progress: Progress,
    /// The topics that hold what is published.
    pub topics: Vec<TopicEnd>,
    /// The schemas it was written with.
    pub schemas: Vec<RegisteredSchema>,
    /// When everything before `end_lsn` had been acknowledged, in microseconds since 1970.
    pub settled_at_us: i64,
    /// What snapshots remember, in an encoding of their own. Who writes the next checkpoint
    /// carries it over even where it cannot read it.
    pub snapshot: Option<Vec<u8>>,
    /// The daemon that wrote this.
    pub instance: String,
    /// When it did, in microseconds since 1970.
    pub written_at_us: i64,
}

/// Whether what is published ends between transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It does.
    Complete,
    /// It ends inside the first transaction after `end_lsn`.
    Partial(Partial),
}

/// The published part of a transaction that was too large for one Kafka transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partial {
    /// Where the transaction's commit record starts.
    pub commit_lsn: CommitLsn,
    /// Its messages with a smaller ordinal are published.
    pub ordinal: u64,
    /// Of those messages; when they come again they must hash to it.
    pub hash: u64,
}

/// A topic, and where our last records in it end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicEnd {
    /// Its name.
    pub name: String,
    /// Kafka's id of it, where the broker tells.
    pub topic_id: Option<String>,
    /// By partition: the offset after our last record, zero where there is none.
    pub end_offsets: Vec<i64>,
}

/// A schema and what the registry calls it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredSchema {
    /// Its subject.
    pub subject: String,
    /// Its id.
    pub id: u32,
    /// Its fingerprint; opaque here.
    pub fingerprint: String,
}

#[cfg(test)]
pub(crate) use tests::checkpoint as smallest;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lsn::Lsn;

    /// The smallest that can be true.
    pub(crate) fn checkpoint() -> Checkpoint {
        Checkpoint {
            system_identifier: 7,
            timeline: 1,
            database: "shop".to_owned(),
            slot: "waltide_shop".to_owned(),
            publication_fingerprint: String::new(),
            commit_lsn: CommitLsn(Lsn::ZERO),
            end_lsn: EndLsn(Lsn(100)),
            progress: Progress::Complete,
            topics: Vec::new(),
            schemas: Vec::new(),
            settled_at_us: 0,
            snapshot: None,
            instance: String::new(),
            written_at_us: 0,
        }
    }
}
