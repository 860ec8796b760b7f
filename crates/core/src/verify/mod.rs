//! Whether a topic holds what its table holds: the part of it that is a function of its arguments.
//!
//! ```text
//!   topic, from its first record -> entries by key -.
//!                                                    >- compared, bucket by bucket -> keys that are
//!   table, in short chunks       -> entries by key -'    equal, and keys to look at again
//!
//!   those: rows by key in one snapshot, held against what the topic said around that snapshot,
//!          round after round, until each is equal, or stands still and differs
//! ```
//!
//! Nothing here holds a row: keys and, for each column, a digest. The first comparison has no
//! moment of its own, and needs none: a key whose last record in the topic is what a snapshot of
//! the table showed is equal, whatever happened in between. What differs may only have been on its
//! way, and is judged with a moment: a key is equal where its row, in a snapshot taken between the
//! positions `low` and `high` of the log, is what the topic said of it at a position between the
//! two; and it differs only where the topic has said nothing of it since `low`, although it has
//! come past `high`, and that twice.

mod compare;
mod entry;
mod settle;

pub use compare::{Compared, Open, compare};
pub use entry::{Columns, Key, RowEntry, TopicEntry, bucket};
pub use settle::{Settling, Verdict};

use crate::lsn::Lsn;
use crate::read_back::{Told, UNTOLD};

/// Where a record lies, and where in the log what it says begins to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The partition, counted over all topics of the table.
    pub partition: u32,
    /// The offset in it.
    pub offset: i64,
    /// The position of the transaction; zero where the record has none.
    pub commit: Lsn,
}

/// The last that a topic says of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Where it says so.
    pub place: Place,
    /// The digests of the row's columns; none where there is no row.
    pub row: Option<Box<[u64]>>,
}

impl Standing {
    /// What a record says of a key of which nothing was said before.
    #[must_use]
    pub fn first(place: Place, told: Told, columns: &[u64]) -> Self {
        Self { place, row: (told == Told::Row).then(|| columns.into()) }
    }

    /// What a later record says. A value that it does not tell is the one before. In a partition
    /// the later record is the one that lies behind; only where the number of partitions has grown,
    /// or the table has gone on in another topic, are positions asked.
    pub fn apply(&mut self, place: Place, told: Told, columns: &[u64]) {
        if place.partition != self.place.partition && place.commit < self.place.commit {
            return;
        }
        let before = self.row.take();
        self.place = place;
        if told != Told::Row {
            return;
        }
        let mut row: Box<[u64]> = columns.into();
        for (value, before) in row.iter_mut().zip(before.iter().flatten()) {
            if *value == UNTOLD {
                *value = *before;
            }
        }
        self.row = Some(row);
    }

    /// How it compares with the table's row.
    fn compared(&self, row: Option<&[u64]>) -> Match {
        let (Some(said), Some(row)) = (&self.row, row) else {
            return match (&self.row, row) {
                (None, None) => Match::Equal,
                (None, Some(_)) => Match::Missing,
                (Some(_), _) => Match::Extra,
            };
        };
        let mut pairs = said.iter().zip(row).enumerate();
        let differs = pairs.clone().filter(|(_, (said, is))| **said != UNTOLD && said != is);
        let differs: Vec<usize> = differs.map(|(at, _)| at).collect();
        if !differs.is_empty() || said.len() != row.len() {
            return Match::Changed(differs);
        }
        if pairs.all(|(_, (said, _))| *said != UNTOLD) {
            return Match::Equal;
        }
        let untold = said.iter().enumerate().filter(|(_, said)| **said == UNTOLD);
        Match::Untold(untold.map(|(at, _)| at).collect())
    }
}

/// How a key's last record and its row compare.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Match {
    Equal,
    /// These columns differ.
    Changed(Vec<usize>),
    /// The topic has no such row.
    Missing,
    /// The table has no such row.
    Extra,
    /// Nothing differs, but the topic does not tell these columns.
    Untold(Vec<usize>),
}
