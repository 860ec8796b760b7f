//! Each kind of violation is found, wherever it stands.

use serde_json::json;
use waltide_torture::{Allowance, Checker, Kind, Mode, Position, Random, Seen, What};

use super::logs::{Log, PARTITIONS};

/// A log long enough to have everything, and the places of its records of one kind.
fn log(seed: u64) -> (Log, Random) {
    let mut random = Random::new(seed);
    let log = Log::random(&mut random, 60);
    (log, random)
}

fn any(random: &mut Random, log: &Log, which: impl Fn(&Seen) -> bool) -> Option<usize> {
    let places: Vec<usize> =
        (0..log.records.len()).filter(|place| which(&log.records[*place])).collect();
    (!places.is_empty()).then(|| *random.pick(&places))
}

const SEEDS: std::ops::Range<u64> = 0..500;

#[test]
fn a_record_that_is_missing_is_a_loss() {
    for seed in SEEDS {
        let (mut log, mut random) = log(seed);
        let place = any(&mut random, &log, |_| true).expect("a record");
        // Without these, what is left of them makes no sense either.
        let lost = log.records.remove(place).what;
        let tears = matches!(lost, What::Truncate | What::Delete | What::Tombstone);
        for mode in [Mode::AtLeastOnce, Mode::ExactlyOnce] {
            let kinds = log.kinds(mode, Allowance::Suffix);
            assert!(kinds.contains(&"loss"), "seed {seed}: {kinds:?}");
            assert!(tears || kinds == ["loss"], "seed {seed}: {kinds:?}");
        }
    }
}

#[test]
fn a_transaction_that_is_missing_is_a_loss() {
    for seed in SEEDS {
        let (mut log, mut random) = log(seed);
        let commit = random.pick(&log.records).position.commit_lsn;
        log.records.retain(|seen| seen.position.commit_lsn != commit);
        assert!(log.kinds(Mode::AtLeastOnce, Allowance::Late).contains(&"loss"), "seed {seed}");
    }
}

#[test]
fn what_never_committed_is_a_phantom() {
    for seed in SEEDS {
        let (mut log, mut random) = log(seed);
        let row = |seen: &Seen| matches!(seen.what, What::Create(_) | What::Update(..));
        let Some(place) = any(&mut random, &log, row) else { continue };
        let key = log.records[place].key.clone();
        let Some(gone) = log
            .changes
            .iter()
            .rposition(|change| Some(&change.key) == key.as_ref() && change.kind != Kind::Delete)
        else {
            continue;
        };
        log.changes.remove(gone);
        let kinds = log.kinds(Mode::ExactlyOnce, Allowance::Nothing);
        assert!(kinds.contains(&"phantom"), "seed {seed}: {kinds:?}");
    }
}

#[test]
fn another_value_than_committed_is_noticed() {
    for seed in SEEDS {
        let (mut log, mut random) = log(seed);
        let row = |seen: &Seen| matches!(seen.what, What::Create(_));
        let Some(place) = any(&mut random, &log, row) else { continue };
        let What::Create(row) = &mut log.records[place].what else { unreachable!() };
        match seed % 3 {
            0 => row["note"] = json!("another"),
            1 => drop(row.remove("note")),
            _ => drop(row.insert("more".into(), json!(null))),
        }
        assert_eq!(log.kinds(Mode::AtLeastOnce, Allowance::Suffix), ["wrong value"]);
    }
}

#[test]
fn a_value_that_is_told_to_be_unchanged_and_was_changed_is_noticed() {
    let mut log = Log::new();
    log.create("0");
    log.update("0");
    let What::Update(_, unchanged) = &mut log.records[1].what else { unreachable!() };
    unchanged.push("note".into());
    assert_eq!(log.kinds(Mode::AtLeastOnce, Allowance::Suffix), ["wrong value"]);
}

/// Two records of a key change places; so do their positions, or not.
#[test]
fn changes_of_a_key_in_another_order_are_noticed() {
    for seed in SEEDS {
        let (mut log, mut random) = log(seed);
        let row = |seen: &Seen| matches!(seen.what, What::Create(_) | What::Update(..));
        let Some(first) = any(&mut random, &log, row) else { continue };
        let second = (first + 1..log.records.len()).find(|place| {
            row(&log.records[*place]) && log.records[*place].key == log.records[first].key
        });
        let Some(second) = second else { continue };
        let mut others = log.clone();
        log.records.swap(first, second);
        assert!(log.kinds(Mode::AtLeastOnce, Allowance::Late).contains(&"reorder"), "seed {seed}");
        let positions = (others.records[first].position, others.records[second].position);
        others.records.swap(first, second);
        others.records[first].position = positions.0;
        others.records[second].position = positions.1;
        let kinds = others.kinds(Mode::AtLeastOnce, Allowance::Late);
        assert!(kinds.contains(&"reorder"), "seed {seed}: {kinds:?}");
    }
}

#[test]
fn a_row_on_the_wrong_side_of_a_truncate_is_noticed() {
    let mut log = Log::new();
    log.truncate();
    log.create("0");
    let positions = [log.records[0].position, log.records[2].position];
    log.records.swap(0, 2);
    log.records[0].position = positions[0];
    log.records[2].position = positions[1];
    assert_eq!(log.kinds(Mode::ExactlyOnce, Allowance::Nothing), ["reorder"]);
}

#[test]
fn a_truncate_that_does_not_reach_a_partition_is_a_loss() {
    let mut log = Log::new();
    log.create("0");
    log.truncate();
    log.records.pop();
    assert_eq!(log.kinds(Mode::AtLeastOnce, Allowance::Suffix), ["loss"]);
}

#[test]
fn anything_that_comes_twice_is_a_repeat_for_exactly_once_or_where_nothing_failed() {
    for seed in SEEDS {
        let (mut log, mut random) = log(seed);
        let partition = i32::try_from(random.of(0..2)).expect("a partition");
        let before = log.records.len();
        log.repeat(partition, 1 + usize::try_from(random.of(0..5)).expect("small"));
        if log.records.len() == before {
            continue;
        }
        assert_eq!(log.kinds(Mode::ExactlyOnce, Allowance::Late), ["repeat"], "seed {seed}");
        assert_eq!(log.kinds(Mode::AtLeastOnce, Allowance::Nothing), ["repeat"], "seed {seed}");
    }
}

fn long(key: &str) -> Log {
    let mut log = Log::new();
    log.create(key);
    for _ in 0..9 {
        log.commit();
        log.update(key);
    }
    log
}

#[test]
fn a_repetition_that_leaves_some_out_is_noticed() {
    let mut log = long("0");
    log.repeat(0, 5);
    log.records.remove(12);
    assert_eq!(log.kinds(Mode::AtLeastOnce, Allowance::Suffix), ["repeat"]);
}

#[test]
fn a_repetition_that_breaks_off_is_noticed() {
    let mut log = long("0");
    log.repeat(0, 5);
    log.records.pop();
    let mut goes_on = log.clone();
    assert_eq!(log.kinds(Mode::AtLeastOnce, Allowance::Suffix), ["repeat"]);
    goes_on.commit();
    goes_on.update("0");
    assert_eq!(goes_on.kinds(Mode::AtLeastOnce, Allowance::Suffix), ["repeat"]);
}

#[test]
fn a_repetition_with_other_content_is_noticed() {
    let mut log = long("0");
    log.repeat(0, 5);
    log.records[12].digest += 1;
    assert!(log.kinds(Mode::AtLeastOnce, Allowance::Late).contains(&"wrong value"));
}

/// What Postgres may have discarded must not be needed again.
#[test]
fn a_repetition_of_what_was_safe_is_noticed() {
    let first = long("0");
    let mut second = first.clone();
    second.commit();
    second.update("0");
    second.repeat(0, 3);
    let mut checker = Checker::new(Mode::AtLeastOnce);
    checker.has_partitions("public.items", 0..PARTITIONS);
    first.tell(&mut checker, Allowance::Suffix);
    checker.conclude();
    assert_eq!(checker.take_violations(), []);
    for change in &second.changes[first.changes.len()..] {
        checker.committed(change.clone());
    }
    for seen in &second.records[first.records.len()..] {
        checker.arrived(seen.clone());
    }
    checker.conclude();
    let names: Vec<_> = checker.take_violations().iter().map(|it| it.name()).collect();
    assert_eq!(names, ["repeat", "repeat"]);
}

#[test]
fn a_record_that_comes_late_for_the_first_time_is_a_reorder() {
    let mut log = long("0");
    let late = log.records.remove(4);
    log.records.push(late);
    assert!(log.kinds(Mode::AtLeastOnce, Allowance::Late).contains(&"reorder"));
}

#[test]
fn a_key_that_moves_to_another_partition_is_noticed() {
    let mut log = long("0");
    log.records[9].partition = 1;
    assert_eq!(log.kinds(Mode::AtLeastOnce, Allowance::Suffix), ["reorder"]);
}

#[test]
fn a_delete_without_its_tombstone_is_a_loss() {
    let mut log = Log::new();
    log.create("0");
    log.delete("0");
    log.records.pop();
    assert_eq!(log.kinds(Mode::AtLeastOnce, Allowance::Suffix), ["loss"]);
}

#[test]
fn a_record_that_cannot_be_read_is_told() {
    let mut checker = Checker::new(Mode::AtLeastOnce);
    checker.unreadable("public.items/0 at 7: 3 bytes after the value".into());
    let names: Vec<_> = checker.take_violations().iter().map(|it| it.name()).collect();
    assert_eq!(names, ["schema"]);
}

#[test]
fn positions_are_read_as_they_are_written() {
    let at = Position { commit_lsn: 0x1_0000_00AB, ordinal: 7, sub_index: 2 };
    assert_eq!(at.to_string().parse(), Ok(at));
    assert_eq!(at.to_string(), "1/AB:7:2");
    assert!("1/AB:7".parse::<Position>().is_err());
    assert!("1/AB:7:2:1".parse::<Position>().is_err());
}
