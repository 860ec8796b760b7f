//! What must hold for the positions of records, whatever the rows are.

use std::collections::{BTreeMap, BTreeSet};

use super::change::{Change, by_partition};
use super::{Lsn, Position};

/// Without a restart, positions grow in every partition: commit order is kept and nothing comes
/// twice.
#[track_caller]
pub(crate) fn assert_each_once_and_in_order(changes: &[Change]) {
    for (partition, changes) in by_partition(changes) {
        for pair in changes.windows(2) {
            assert!(
                pair[0].position < pair[1].position,
                "partition {partition}: {} is followed by {}",
                pair[0].position,
                pair[1].position
            );
        }
    }
}

/// After restarts, what comes again is the end of what was there, without a gap, in the same order
/// and the same bytes. Returns each record once, in the order of positions, and how many came
/// again.
#[track_caller]
pub(crate) fn without_repeats(changes: &[Change], restarts: usize) -> (Vec<Change>, usize) {
    let mut once = Vec::new();
    let mut repeats = 0;
    for (partition, changes) in by_partition(changes) {
        let mut known: Vec<&Change> = Vec::new();
        let mut next = 0;
        let mut jumps = 0;
        for change in changes {
            let at = change.position;
            if next < known.len() && known[next].position == at
                || known.last().is_none_or(|last| last.position < at) && next == known.len()
            {
            } else {
                let place = known.binary_search_by_key(&at, |change| change.position);
                let place = place.unwrap_or_else(|_| {
                    panic!("partition {partition}: {at} comes late, behind records after it")
                });
                assert!(
                    place < next,
                    "partition {partition}: a repetition skips from {} to {at}",
                    known[next].position
                );
                jumps += 1;
                next = place;
            }
            if next == known.len() {
                known.push(change);
            } else {
                assert_eq!(known[next].digest, change.digest, "{at} is not the same again");
                repeats += 1;
            }
            next += 1;
        }
        assert_eq!(next, known.len(), "partition {partition}: a repetition breaks off");
        assert!(
            jumps <= restarts,
            "partition {partition}: {jumps} repetitions after {restarts} restarts"
        );
        once.extend(known.into_iter().cloned());
    }
    once.sort_by_key(|change| change.position);
    (once, repeats)
}

/// What a consumer takes that skips, in each partition, every record whose position is not beyond
/// all it has seen there; in the order of positions. Also returns how many it skipped.
pub(crate) fn beyond_the_last(changes: &[Change]) -> (Vec<Change>, usize) {
    let (mut taken, mut skipped) = (Vec::new(), 0);
    for changes in by_partition(changes).into_values() {
        let mut last = None;
        for change in changes {
            if last.is_some_and(|last| change.position <= last) {
                skipped += 1;
            } else {
                last = Some(change.position);
                taken.push(change.clone());
            }
        }
    }
    taken.sort_by_key(|change| change.position);
    (taken, skipped)
}

/// Of every transaction, all changes are there: ordinals count from zero without a gap, and so do
/// the sub-indexes of each. `changes` are those of all topics of a pipeline, each once. Returns
/// the highest ordinal of each transaction.
#[track_caller]
pub(crate) fn assert_transactions_are_whole<'a>(
    changes: impl IntoIterator<Item = &'a Change>,
) -> BTreeMap<Lsn, u64> {
    let mut seen = BTreeSet::new();
    for change in changes {
        assert!(seen.insert(change.position), "{} is there twice", change.position);
    }
    let mut last: Option<Position> = None;
    let mut highest = BTreeMap::new();
    for at in seen {
        let expected = match last {
            Some(last) if last.commit == at.commit => [
                Position { sub_index: last.sub_index + 1, ..last },
                Position { ordinal: last.ordinal + 1, sub_index: 0, ..last },
            ],
            _ => [Position { ordinal: 0, sub_index: 0, ..at }; 2],
        };
        assert!(expected.contains(&at), "{at} comes after {last:?}: something is missing");
        highest.insert(at.commit, at.ordinal);
        last = Some(at);
    }
    highest
}
