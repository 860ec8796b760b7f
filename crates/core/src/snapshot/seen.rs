//! What a transaction that reads a chunk can see, compared with what was published.

use std::fmt;
use std::str::FromStr;

use crate::lsn::Lsn;
use crate::pgoutput::Xid;

/// A snapshot of the primary, with 64-bit ids of top-level transactions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Nothing at or above this is visible.
    pub xmax: u64,
    /// Below it, and not visible; in order.
    in_progress: Box<[u64]>,
}

/// The text was not of the form `10:20:10,14`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadSnapshot;

impl fmt::Display for BadSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a snapshot has the form 10:20:10,14")
    }
}

impl std::error::Error for BadSnapshot {}

impl Seen {
    /// Whether a transaction that has committed is visible. Only for top-level ids: a
    /// subtransaction's is in no list.
    #[must_use]
    pub fn shows(&self, xid: u64) -> bool {
        xid < self.xmax && self.in_progress.binary_search(&xid).is_err()
    }
}

impl FromStr for Seen {
    type Err = BadSnapshot;

    /// As `pg_current_snapshot()` prints it.
    fn from_str(text: &str) -> Result<Self, BadSnapshot> {
        let mut parts = text.split(':');
        let (Some(_), Some(xmax), Some(list), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(BadSnapshot);
        };
        let number = |text: &str| text.parse().map_err(|_| BadSnapshot);
        let list = list.split(',').filter(|xid| !xid.is_empty());
        let mut in_progress = list.map(number).collect::<Result<Vec<u64>, _>>()?;
        in_progress.sort_unstable();
        Ok(Self { xmax: number(xmax)?, in_progress: in_progress.into() })
    }
}

/// What a read could see, by the server it was made on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sight {
    /// The primary's snapshot.
    Primary(Seen),
    /// A replica's snapshots list nothing in progress; what it had replayed before the snapshot
    /// was taken is in it.
    Replica {
        /// Up to where.
        replayed: Lsn,
    },
}

/// The 64-bit id that a 32-bit one stands for, being that nearest to a known one: no transaction
/// is two thousand million older or younger than another that is still of interest.
#[must_use]
pub fn widen(xid: Xid, near: u64) -> u64 {
    let [low, _] = [near & 0xFFFF_FFFF, 0];
    let distance = u64::from(xid.0).wrapping_sub(low) & 0xFFFF_FFFF;
    if distance < 1 << 31 {
        near.wrapping_add(distance)
    } else {
        near.wrapping_sub((1 << 32) - distance)
    }
}

/// Where the log was last written, as a position that the stream reaches even if nothing follows.
///
/// The server counts a page's header as written before anything stands behind it, and a walsender
/// does not: it stays at the page's start until then.
#[must_use]
pub fn reachable(insert: Lsn, page_bytes: u64, segment_bytes: u64) -> Lsn {
    /// Of the first page of a segment, and of any other.
    const HEADERS: [u64; 2] = [40, 24];
    let behind = |of: u64, header: u64| of != 0 && insert.0 % of == header;
    let [long, short] = HEADERS;
    if behind(segment_bytes, long) {
        Lsn(insert.0 - long)
    } else if behind(page_bytes, short) {
        Lsn(insert.0 - short)
    } else {
        insert
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_shows_what_is_below_its_end_and_not_in_progress() {
        let seen: Seen = "10:20:14,10".parse().unwrap();
        let shown: Vec<u64> = (8..22).filter(|xid| seen.shows(*xid)).collect();
        assert_eq!(shown, [8, 9, 11, 12, 13, 15, 16, 17, 18, 19]);
        assert!("7:7:".parse::<Seen>().unwrap().shows(6));
        for text in ["", "1", "1:2", "1:x:", "1:2:3:4", "1:2:y"] {
            assert_eq!(text.parse::<Seen>(), Err(BadSnapshot), "{text:?}");
        }
    }

    #[test]
    fn a_short_id_is_the_nearest_long_one() {
        let near = 7 << 32 | 100;
        assert_eq!(widen(Xid(100), near), near);
        assert_eq!(widen(Xid(300), near), near + 200);
        assert_eq!(widen(Xid(90), near), near - 10);
        assert_eq!(widen(Xid(u32::MAX), near), (7 << 32) - 1);
        assert_eq!(widen(Xid(3), (7 << 32) - 1), (7 << 32) + 3);
        assert_eq!(widen(Xid(5), 3), 5);
    }

    #[test]
    fn a_position_behind_a_header_is_that_before_it() {
        let (page, segment) = (8192, 16 << 20);
        let at = |lsn| reachable(Lsn(lsn), page, segment).0;
        assert_eq!(at(5 * page + 24), 5 * page);
        assert_eq!(at(2 * segment + 40), 2 * segment);
        assert_eq!(at(5 * page + 40), 5 * page + 40);
        assert_eq!(at(5 * page + 25), 5 * page + 25);
        assert_eq!(at(5 * page), 5 * page);
    }
}
