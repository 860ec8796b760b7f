//! Sentences about keys that are looked at again, and a model: writers, a daemon that is late, and
//! somebody who compares meanwhile.

use super::*;

const KEY: &[u8] = b"k";

fn open(digest: u128, standing: Option<(u64, Option<u64>)>) -> Open {
    let standing = standing
        .map(|(commit, row)| Standing { place: place(commit), row: row.map(|row| [row].into()) });
    Open { digest, key: Key { schema: 0, bytes: KEY.into() }, standing }
}

fn place(commit: u64) -> Place {
    Place { partition: 0, offset: commit.cast_signed(), commit: Lsn(commit) }
}

fn verdict(settling: Settling) -> Option<Verdict> {
    settling.into_verdicts().next().and_then(|(_, _, verdict)| verdict)
}

fn said(settling: &mut Settling, commit: u64, row: Option<u64>) {
    let told = if row.is_some() { Told::Row } else { Told::Gone };
    settling.record(1, place(commit), told, row.as_slice());
}

#[test]
fn a_key_that_stands_still_and_differs_twice_differs() {
    let mut settling = Settling::of([open(1, Some((5, Some(7))))]);
    for left in [1, 0] {
        settling.begin(Lsn(10), Lsn(20));
        settling.row(1, &[8]);
        assert_eq!(settling.check(), 1);
        assert_eq!(settling.end(), left);
    }
    assert_eq!(verdict(settling), Some(Verdict::Changed(vec![0])));
}

#[test]
fn each_difference_has_its_name() {
    for (standing, row, expected) in [
        (None, Some(1), Verdict::Missing),
        (Some((5, None)), Some(1), Verdict::Missing),
        (Some((5, Some(1))), None, Verdict::Extra),
        (Some((5, Some(0))), Some(1), Verdict::Untold(vec![0])),
    ] {
        let mut settling = Settling::of([open(1, standing)]);
        for _ in 0..2 {
            settling.begin(Lsn(10), Lsn(20));
            row.iter().for_each(|row| settling.row(1, &[*row]));
            settling.end();
        }
        assert_eq!(verdict(settling), Some(expected));
    }
}

#[test]
fn a_key_that_moves_is_not_judged_by_what_came_later() {
    let mut settling = Settling::of([open(1, Some((5, Some(1))))]);
    settling.begin(Lsn(10), Lsn(20));
    settling.row(1, &[2]);
    // The snapshot's state, and then another one.
    said(&mut settling, 15, Some(2));
    said(&mut settling, 30, Some(3));
    assert_eq!(settling.left(), 0);
    assert_eq!(verdict(settling), Some(Verdict::Equal));
    // What began to hold behind the snapshot says nothing of it, however it looks.
    let mut settling = Settling::of([open(1, Some((5, Some(1))))]);
    settling.begin(Lsn(10), Lsn(20));
    settling.row(1, &[3]);
    said(&mut settling, 30, Some(3));
    assert_eq!((settling.check(), settling.end()), (1, 1));
    // Nor does what had ceased to hold before it.
    let mut settling = Settling::of([open(1, Some((5, Some(3))))]);
    settling.begin(Lsn(10), Lsn(20));
    settling.row(1, &[3]);
    said(&mut settling, 8, Some(1));
    assert_eq!(settling.check(), 1);
}

#[test]
fn a_truncate_takes_every_key_along() {
    let mut settling = Settling::of([open(1, Some((5, Some(1)))), open(2, None)]);
    settling.begin(Lsn(10), Lsn(20));
    settling.truncated(place(12));
    assert_eq!(settling.end(), 0);
}

/// A small generator, so that a failure is replayed by its seed.
struct Random(u64);

impl Random {
    fn of(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % below
    }
}

/// A row's history: at which position it became what.
type History = Vec<(u64, Option<u64>)>;

fn at(history: &History, position: u64) -> Option<u64> {
    history.iter().rev().find(|(commit, _)| *commit < position).and_then(|(_, row)| *row)
}

/// Runs rounds over one key whose changes are published up to some position behind the log's end,
/// and says what came of it. `wrong` is what the topic says falsely at the start.
fn run(seed: u64, wrong: Option<Option<u64>>, busy: bool) -> Option<Verdict> {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut history: History = vec![(1, (random.of(3) > 0).then(|| 1 + random.of(4)))];
    let (mut end, mut published) = (10, 1);
    let mut said_to = 1;
    let first = wrong.unwrap_or(history[0].1);
    let mut settling = Settling::of([open(1, Some((1, first)))]);
    for _ in 0..8 {
        let mut write = |history: &mut History, random: &mut Random, most: u64| {
            for _ in 0..random.of(most + 1) {
                end += 1 + random.of(5);
                if busy {
                    history.push((end, (random.of(4) > 0).then(|| 1 + random.of(3))));
                }
            }
            end += 1;
            end
        };
        let low = write(&mut history, &mut random, 3);
        let seen = write(&mut history, &mut random, 2);
        let row = at(&history, seen);
        let high = write(&mut history, &mut random, 2);
        settling.begin(Lsn(low), Lsn(high));
        row.iter().for_each(|row| settling.row(1, &[*row]));
        // The daemon comes along in its own steps, and in the end past the bound.
        while published < high {
            published += 1 + random.of(6);
            if random.of(3) == 0 {
                write(&mut history, &mut random, 1);
            }
            let new: History = history
                .iter()
                .copied()
                .filter(|(commit, _)| *commit > said_to && *commit <= published)
                .collect();
            for (commit, row) in new {
                said(&mut settling, commit, row);
            }
            said_to = said_to.max(published);
            settling.check();
        }
        if settling.end() == 0 {
            break;
        }
    }
    verdict(settling)
}

#[test]
fn what_is_equal_is_never_said_to_differ() {
    for seed in 0..20_000 {
        for busy in [false, true] {
            let found = run(seed, None, busy);
            assert!(matches!(found, None | Some(Verdict::Equal)), "seed {seed}: {found:?}");
        }
    }
}

#[test]
fn a_key_that_changes_all_the_time_is_settled() {
    let settled = (0..2_000).filter(|seed| run(*seed, None, true).is_some()).count();
    assert!(settled > 1_990, "{settled}");
}

#[test]
fn what_differs_is_never_said_to_be_equal() {
    for seed in 0..20_000 {
        // Five is no value that a row ever has.
        let found = run(seed, Some(Some(5)), false);
        let named = matches!(found, Some(Verdict::Changed(_) | Verdict::Extra));
        assert!(named, "seed {seed}: {found:?}");
    }
}
