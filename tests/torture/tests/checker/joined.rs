//! Tables that joined a running pipeline: rows are read, or change, or are gone; none is missing.

use waltide_torture::{Allowance, Checker, Mode, What};

use super::logs::Log;

fn judged(log: &Log, mode: Mode) -> Vec<&'static str> {
    let mut checker = Checker::new(mode);
    checker.joins("public.items");
    log.tell(&mut checker, Allowance::Suffix);
    checker.conclude();
    checker.take_violations().iter().map(|violation| violation.name()).collect()
}

/// Created and changed before the pipeline knew of it, read, and changed again.
fn read_and_changed() -> Log {
    let mut log = Log::new();
    log.create("0");
    log.update("0");
    log.records.clear();
    log.commit();
    log.read("0");
    log.commit();
    log.update("0");
    log.delete("0");
    log
}

#[test]
fn a_row_may_be_read_and_changed_from_there() {
    let log = read_and_changed();
    assert_eq!(judged(&log, Mode::AtLeastOnce), [""; 0]);
    assert_eq!(judged(&log, Mode::ExactlyOnce), [""; 0]);
}

#[test]
fn a_row_need_not_be_read_where_it_has_changed_or_is_gone() {
    let mut log = read_and_changed();
    log.records.remove(0);
    assert_eq!(judged(&log, Mode::AtLeastOnce), [""; 0]);
    // Gone before anybody looked.
    log.records.clear();
    assert_eq!(judged(&log, Mode::AtLeastOnce), [""; 0]);
}

#[test]
fn a_row_that_was_neither_read_nor_changed_is_a_loss() {
    let mut log = Log::new();
    log.create("0");
    log.update("0");
    log.records.clear();
    assert_eq!(judged(&log, Mode::AtLeastOnce), ["loss"]);
}

#[test]
fn a_change_that_is_missing_behind_a_read_row_is_a_loss() {
    let mut log = read_and_changed();
    log.commit();
    log.create("0");
    let lost = log.records.iter().position(|seen| matches!(seen.what, What::Update(..)));
    log.records.remove(lost.expect("an update"));
    assert_eq!(judged(&log, Mode::AtLeastOnce), ["loss"]);
}

#[test]
fn a_row_that_is_read_older_than_what_came_is_noticed() {
    let mut log = read_and_changed();
    let mut read = log.records.remove(0);
    read.position.commit_lsn += 11;
    log.records.push(read);
    // It would come back to life.
    assert_eq!(judged(&log, Mode::AtLeastOnce), ["reorder"]);
}

#[test]
fn rows_are_read_twice_at_least_once_only() {
    let mut log = Log::new();
    log.create("0");
    log.records.clear();
    log.commit();
    log.read("0");
    log.commit();
    log.read("0");
    assert_eq!(judged(&log, Mode::AtLeastOnce), [""; 0]);
    assert_eq!(judged(&log, Mode::ExactlyOnce), ["repeat"]);
}

#[test]
fn once_it_was_read_everything_must_come() {
    let log = read_and_changed();
    let mut checker = Checker::new(Mode::AtLeastOnce);
    checker.joins("public.items");
    log.tell(&mut checker, Allowance::Suffix);
    checker.conclude();
    assert_eq!(checker.take_violations(), []);
    let mut later = log.clone();
    later.commit();
    later.create("0");
    later.update("0");
    for change in &later.changes[log.changes.len()..] {
        checker.committed(change.clone());
    }
    // The create is missing; the update came.
    checker.arrived(later.records.last().expect("a record").clone());
    checker.conclude();
    let names: Vec<_> = checker.take_violations().iter().map(|it| it.name()).collect();
    assert_eq!(names, ["loss"]);
}
