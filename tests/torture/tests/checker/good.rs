//! What holds is not complained of.

use waltide_torture::{Allowance, Checker, Mode, Random};

use super::logs::{Log, PARTITIONS};

#[test]
fn a_good_log_is_good_in_both_modes() {
    for seed in 0..2_000 {
        let log = Log::random(&mut Random::new(seed), 60);
        assert_eq!(log.judged(Mode::AtLeastOnce, Allowance::Nothing), [], "seed {seed}");
        assert_eq!(log.judged(Mode::ExactlyOnce, Allowance::Nothing), [], "seed {seed}");
    }
}

#[test]
fn a_suffix_may_come_again_at_least_once() {
    for seed in 0..2_000 {
        let mut random = Random::new(seed);
        let mut log = Log::random(&mut random, 40);
        log.repeat(0, usize::try_from(random.of(0..9)).expect("small"));
        log.repeat(1, usize::try_from(random.of(0..9)).expect("small"));
        // And once more, further back.
        log.repeat(0, usize::try_from(random.of(0..15)).expect("small"));
        assert_eq!(log.judged(Mode::AtLeastOnce, Allowance::Suffix), [], "seed {seed}");
    }
}

#[test]
fn what_a_predecessor_held_may_come_late_where_there_was_one() {
    let mut log = Log::new();
    log.create("0");
    for _ in 0..6 {
        log.commit();
        log.update("0");
    }
    let late = log.records[2..4].to_vec();
    log.commit();
    log.update("0");
    log.records.extend(late);
    log.commit();
    log.update("0");
    let mut checker = Checker::new(Mode::AtLeastOnce);
    log.tell(&mut checker, Allowance::Late);
    checker.conclude();
    assert_eq!(checker.take_violations(), []);
    assert_eq!((checker.counts().repeats, checker.counts().late), (1, 1));
    assert_eq!(log.kinds(Mode::AtLeastOnce, Allowance::Suffix), ["repeat"]);
}

/// Cycle by cycle, as a run tells it, with what is left to compare.
#[test]
fn what_has_been_compared_is_forgotten_and_the_next_cycle_is_judged_as_well() {
    let log = Log::random(&mut Random::new(7), 200);
    let mut checker = Checker::new(Mode::AtLeastOnce);
    checker.has_partitions("public.items", 0..PARTITIONS);
    checker.allow(Allowance::Suffix);
    let mut records = log.records.iter().cloned();
    for changes in log.changes.chunks(10) {
        changes.iter().cloned().for_each(|change| checker.committed(change));
        while !checker.is_settled() {
            checker.arrived(records.next().expect("a record"));
        }
        checker.conclude();
        assert_eq!(checker.take_violations(), []);
    }
}
