// Hot path: `Firsts::admits` and `took` run once a record.
//! Where a record goes, and that the first one of a partition goes alone.
//!
//! Kafka takes what an idempotent producer sends to a partition in the order of its numbers; but of
//! a producer that it does not know there, whatever comes first. Where the first request is refused,
//! because the broker has yet to hear of a new partition, and the one on its heels is taken, then
//! librdkafka concludes that the first was taken as well, and reports what is lost as delivered. So
//! nothing follows a first record before that has arrived.

use std::time::Instant;

/// Kafka forgets who has sent nothing to a partition for a day, unless it is told otherwise
/// (`producer.id.expiration.ms`). Who comes back after less than that is a stranger to us.
const PAUSE_MINUTES: u32 = 60;

/// The partition of a key, as Java's producers choose it.
#[must_use]
pub fn partition_of(key: &[u8], partitions: i32) -> i32 {
    i32::try_from(murmur2(key) & 0x7fff_ffff).unwrap_or(0) % partitions.max(1)
}

fn murmur2(key: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let length = u32::try_from(key.len()).unwrap_or(u32::MAX);
    let mut hash = 0x9747_b28c ^ length;
    let mut words = key.chunks_exact(4);
    for word in &mut words {
        let word = word.try_into().map_or(0, u32::from_le_bytes).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ (word ^ (word >> 24)).wrapping_mul(M);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        let bytes = rest.iter().rev().fold(0, |bytes, byte| bytes << 8 | u32::from(*byte));
        hash = (hash ^ bytes).wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// What one client has sent where.
#[derive(Debug)]
pub(super) struct Firsts {
    /// By lane and partition.
    lanes: Vec<Vec<Partition>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Partition {
    standing: Standing,
    /// The minute of its last record, from 1; 0 where it has none.
    used: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Standing {
    /// No record was sent there.
    #[default]
    New,
    /// One is about to be, or was. So many had arrived there before, of any client.
    First(u64),
    /// The first has arrived.
    Known,
}

impl Firsts {
    pub(super) const fn new() -> Self {
        Self { lanes: Vec::new() }
    }

    /// Whether a record may go there now, of which is told whether it did by [`Firsts::took`].
    /// `arrived` says how many have arrived there.
    #[inline]
    pub(super) fn admits(
        &mut self,
        (lane, partition): (usize, i32),
        minute: u32,
        arrived: impl Fn() -> u64,
    ) -> bool {
        let partition = usize::try_from(partition).unwrap_or(0);
        let known = self.lanes.get_mut(lane).and_then(|lane| lane.get_mut(partition));
        let known = match known {
            Some(known) => known,
            None => self.add(lane, partition),
        };
        let has_paused = known.used > 0 && minute - known.used > PAUSE_MINUTES;
        match known.standing {
            Standing::Known if !has_paused => {}
            Standing::First(before) if known.used > 0 && arrived() == before => return false,
            Standing::First(_) if known.used > 0 && !has_paused => {
                known.standing = Standing::Known;
            }
            // Whether it goes is not known yet.
            _ => (known.standing, known.used) = (Standing::First(arrived()), 0),
        }
        true
    }

    /// A record has gone there.
    #[inline]
    pub(super) fn took(&mut self, (lane, partition): (usize, i32), minute: u32) {
        let partition = usize::try_from(partition).unwrap_or(0);
        let known = self.lanes.get_mut(lane).and_then(|lane| lane.get_mut(partition));
        if let Some(known) = known {
            known.used = minute;
        }
    }

    #[cold]
    fn add(&mut self, lane: usize, partition: usize) -> &mut Partition {
        if self.lanes.len() <= lane {
            self.lanes.resize(lane + 1, Vec::new());
        }
        let lane = &mut self.lanes[lane];
        if lane.len() <= partition {
            lane.resize(partition + 1, Partition::default());
        }
        &mut lane[partition]
    }
}

/// A clock that is looked at now and then.
#[derive(Debug)]
pub(super) struct Minutes {
    since: Instant,
    /// From 1.
    pub(super) now: u32,
}

impl Minutes {
    pub(super) fn new() -> Self {
        Self { since: Instant::now(), now: 1 }
    }

    pub(super) fn look(&mut self) {
        self.now = 1 + u32::try_from(self.since.elapsed().as_secs() / 60).unwrap_or(u32::MAX - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_lie_where_javas_producers_put_them() {
        for (key, hash) in [
            ("kafka", 0xd067_cf64_u32),
            ("giberish123456789", 0x8f55_2b0c),
            ("1234", 0x9fc9_7b14),
            ("234", 0xe7c0_09ca),
            ("34", 0x8739_30da),
            ("4", 0x5a4b_5ca1),
            ("PreAmbleWillBeRemoved,ThePrePartThatIs", 0x7842_4f1c),
            ("reAmbleWillBeRemoved,ThePrePartThatIs", 0x4a62_b377),
            ("", 0x106e_08d9),
        ] {
            assert_eq!(murmur2(key.as_bytes()), hash, "{key}");
        }
        assert_eq!(partition_of(b"kafka", 3), (0x5067_cf64 % 3));
        assert_eq!(partition_of(b"kafka", 0), 0);
    }

    #[test]
    fn nothing_follows_the_first_record_before_it_has_arrived() {
        let mut firsts = Firsts::new();
        let (one, other, third) = ((1, 2), (1, 0), (0, 2));
        assert!(firsts.admits(one, 1, || 7), "the other client has sent there");
        assert!(firsts.admits(one, 1, || 7), "there was no room for it");
        firsts.took(one, 1);
        assert!(!firsts.admits(one, 1, || 7));
        assert!(firsts.admits(other, 1, || 0), "another partition");
        firsts.took(other, 1);
        assert!(firsts.admits(third, 1, || 0), "another topic");
        assert!(!firsts.admits(other, 1, || 0));
        assert!(firsts.admits(one, 1, || 8));
        firsts.took(one, 1);
        assert!(firsts.admits(one, 1, || 8), "that is not the first");
        assert!(!firsts.admits(other, 1, || 0), "that is still on its way");
    }

    #[test]
    fn after_a_long_pause_a_record_is_the_first_again() {
        let mut firsts = Firsts::new();
        let to = (0, 0);
        let mut put = |minute, arrived| {
            let admitted = firsts.admits(to, minute, || arrived);
            if admitted {
                firsts.took(to, minute);
            }
            admitted
        };
        assert!(put(5, 0) && !put(5, 0) && put(5, 1));
        assert!(put(5 + PAUSE_MINUTES, 2) && put(5 + PAUSE_MINUTES, 2), "not so long");
        let later = 6 + 2 * PAUSE_MINUTES;
        assert!(put(later, 4) && !put(later, 4) && put(later, 5) && put(later, 5));
    }
}
