//! Each fault is planted once: a bad run must not be able to say that it was good.

use super::*;

/// A row of `orders` in the books: what the database committed, and the records of it.
#[derive(Clone)]
struct Story {
    committed: Vec<Committed>,
    read: Vec<Read>,
    tombstones: Vec<Position>,
    /// The table at the end.
    table: Vec<(String, u64, u64)>,
}

fn change(key: &str, op: Op, version: u64) -> Committed {
    Committed { table: Table::Orders, key: key.to_owned(), op, version, digest: 1000 + version }
}

fn record(of: &Committed, partition: i32, at: u64) -> Read {
    Read {
        table: of.table,
        key: of.key.clone(),
        op: of.op,
        version: Some(of.version),
        digest: Some(of.digest),
        partition,
        position: Position(at, 0, 0),
    }
}

/// Order 1 is placed, changes twice and stays; order 2 comes and goes, in the same partition.
fn good() -> Story {
    use Op::{Delete, Insert, Update};
    let committed = vec![
        change("1", Insert, 1),
        change("2", Insert, 1),
        change("1", Update, 2),
        change("2", Delete, 2),
        change("1", Update, 3),
    ];
    let read = committed.iter().zip(1..).map(|(change, at)| record(change, 0, at)).collect();
    let tombstones = vec![Position(4, 0, 1)];
    Story { committed, read, tombstones, table: vec![("1".to_owned(), 3, 1003)] }
}

impl Story {
    /// All that is committed is entered before all that is read.
    fn verdict(&self) -> Verdict {
        self.told(|ledger, story| {
            ledger.commit(story.committed.clone());
            story.read.iter().for_each(|read| ledger.read(read.clone()));
        })
    }

    fn told(&self, tell: impl Fn(&mut Ledger, &Self)) -> Verdict {
        let mut ledger = Ledger::default();
        tell(&mut ledger, self);
        for position in &self.tombstones {
            ledger.tombstone(Table::Orders, 9, *position);
        }
        ledger.compare_with(Table::Orders, self.table.clone());
        ledger.verdict()
    }
}

/// The verdict of a run in which something went wrong.
#[track_caller]
fn bad(verdict: &Verdict) {
    assert!(!verdict.is_good(), "{verdict}");
    assert!(verdict.to_string().ends_with(": FAILED"), "{verdict}");
}

#[test]
fn what_was_committed_and_read_once_in_order_is_good() {
    let verdict = good().verdict();
    assert!(verdict.is_good(), "{verdict} {:?}", verdict.findings);
    assert_eq!(verdict.to_string(), "5 changes committed, 5 consumed, 0 missing");
}

#[test]
fn a_record_may_be_read_before_its_commit_has_returned() {
    let story = good();
    let verdict = story.told(|ledger, story| {
        story.read.iter().for_each(|read| ledger.read(read.clone()));
        ledger.commit(story.committed.clone());
    });
    assert!(verdict.is_good(), "{verdict} {:?}", verdict.findings);
    let verdict = story.told(|ledger, story| {
        for (change, read) in story.committed.iter().zip(&story.read) {
            ledger.read(read.clone());
            ledger.commit(vec![change.clone()]);
        }
    });
    assert!(verdict.is_good(), "{verdict} {:?}", verdict.findings);
}

#[test]
fn any_one_record_missing_is_found() {
    for place in 0..5 {
        let mut story = good();
        story.read.remove(place);
        let verdict = story.verdict();
        bad(&verdict);
        assert_eq!((verdict.consumed, verdict.missing), (4, 1), "without {place}: {verdict}");
        assert_eq!(verdict.committed, 5);
    }
}

#[test]
fn a_wrong_value_is_found_also_when_a_later_one_is_right() {
    for place in 0..5 {
        let mut story = good();
        story.read[place].digest = Some(7);
        let verdict = story.verdict();
        bad(&verdict);
        assert_eq!((verdict.wrong, verdict.missing), (1, 0), "{place}: {verdict}");
    }
}

#[test]
fn a_wrong_operation_is_found() {
    let mut story = good();
    story.read[2].op = Op::Insert;
    let verdict = story.verdict();
    bad(&verdict);
    assert_eq!(verdict.wrong, 1);
}

#[test]
fn a_row_that_lacks_its_values_is_found_unless_it_was_deleted() {
    let mut story = good();
    story.read[3].digest = None;
    story.read[3].version = None;
    assert!(story.verdict().is_good());
    story.read[4].digest = None;
    bad(&story.verdict());
}

#[test]
fn a_suffix_that_comes_again_is_counted_and_is_no_fault() {
    for from in 0..5 {
        let mut story = good();
        story.read.extend_from_within(from..);
        let verdict = story.verdict();
        assert!(verdict.is_good(), "from {from}: {verdict} {:?}", verdict.findings);
        assert_eq!((verdict.consumed, verdict.repeated), (5, 5 - from as u64));
        let end = format!(", {} repeated", 5 - from);
        assert!(verdict.to_string().ends_with(&end), "{verdict}");
    }
}

#[test]
fn a_record_that_comes_again_under_a_new_position_is_found() {
    for place in [0, 2, 4] {
        let mut story = good();
        let mut again = story.read[place].clone();
        again.position = Position(99, 0, 0);
        story.read.push(again);
        let verdict = story.verdict();
        bad(&verdict);
        assert_eq!(verdict.unexpected, 1, "{place}: {verdict}");
    }
}

#[test]
fn a_deleted_row_that_comes_back_under_a_new_position_is_found() {
    let mut story = good();
    let mut again = story.read[1].clone();
    again.position = Position(99, 0, 0);
    story.read.push(again);
    bad(&story.verdict());
}

#[test]
fn a_repeat_that_differs_from_the_first_is_found() {
    let mut story = good();
    let mut again = story.read[4].clone();
    again.digest = Some(7);
    story.read.push(again);
    bad(&story.verdict());
}

#[test]
fn two_records_of_a_key_in_the_wrong_order_are_found() {
    let mut story = good();
    story.read.swap(2, 4);
    let verdict = story.verdict();
    bad(&verdict);
    assert!(verdict.reordered > 0, "{verdict}");
    assert_eq!((verdict.consumed, verdict.missing), (5, 0), "{verdict}");
}

#[test]
fn an_order_that_is_wrong_is_found_although_the_positions_claim_it() {
    let mut story = good();
    story.read.swap(2, 4);
    let (first, last) = (story.read[2].position, story.read[4].position);
    (story.read[2].position, story.read[4].position) = (last, first);
    bad(&story.verdict());
}

#[test]
fn keys_of_one_partition_in_the_wrong_order_are_found() {
    let mut story = good();
    story.read.swap(0, 1);
    let verdict = story.verdict();
    bad(&verdict);
    assert_eq!(verdict.reordered, 1, "{verdict}");
}

#[test]
fn what_was_rolled_back_must_not_be_read() {
    let mut story = good();
    story.read.push(record(&change("3", Op::Insert, 1), 0, 6));
    let verdict = story.verdict();
    bad(&verdict);
    assert_eq!((verdict.unexpected, verdict.consumed), (1, 6), "{verdict}");
}

#[test]
fn a_key_that_moves_to_another_partition_is_found() {
    let mut story = good();
    story.read[4].partition = 1;
    bad(&story.verdict());
}

#[test]
fn a_version_that_cannot_be_is_found_and_costs_no_memory() {
    let mut story = good();
    story.read[4].version = Some(u64::MAX);
    let verdict = story.verdict();
    bad(&verdict);
    assert_eq!((verdict.wrong, verdict.missing), (1, 1));
}

#[test]
fn a_table_that_holds_other_rows_than_were_read_is_found() {
    let same = ("1".to_owned(), 3, 1003);
    let other = ("2".to_owned(), 1, 1001);
    for table in [
        vec![],
        vec![other.clone()],
        vec![same.clone(), other],
        vec![("1".to_owned(), 2, 1002)],
        vec![("1".to_owned(), 3, 7)],
    ] {
        let story = Story { table: table.clone(), ..good() };
        let verdict = story.verdict();
        bad(&verdict);
        assert!(verdict.differing > 0, "{table:?}: {verdict}");
    }
}

#[test]
fn a_missing_tombstone_is_found() {
    let story = Story { tombstones: vec![], ..good() };
    bad(&story.verdict());
}

#[test]
fn a_record_that_nobody_understands_is_found() {
    let verdict = good().told(|ledger, story| {
        ledger.commit(story.committed.clone());
        story.read.iter().for_each(|read| ledger.read(read.clone()));
        ledger.unreadable(Table::Orders, "no schema 7");
    });
    bad(&verdict);
}

#[test]
fn a_run_without_any_change_shows_nothing() {
    bad(&Ledger::default().verdict());
}

#[test]
fn findings_name_the_row_and_are_bounded() {
    let mut ledger = Ledger::default();
    for key in 0..1000 {
        ledger.commit(vec![change(&key.to_string(), Op::Insert, 1)]);
    }
    let verdict = ledger.verdict();
    assert_eq!((verdict.missing, verdict.findings.len()), (1000, MAX_FINDINGS));
    assert!(verdict.findings[0].contains("version 1 (insert) was committed, never read"));
}

#[test]
fn the_books_forget_what_is_settled() {
    let mut ledger = Ledger::default();
    for at in 1..1000 {
        let key = at.to_string();
        let changes = [change(&key, Op::Insert, 1), change(&key, Op::Delete, 2)];
        for (change, sub) in changes.iter().zip(0..) {
            let position = Position(at, 0, sub);
            ledger.read(Read { position, ..record(change, 0, at) });
        }
        ledger.commit(changes.to_vec());
        assert_eq!(ledger.outstanding(), 0);
    }
    assert!(ledger.rows.is_empty());
}

#[test]
fn a_position_is_read_as_the_daemon_writes_it() {
    let position = Position::parse("16/B374D848:7:1");
    assert_eq!(position, Some(Position(0x16_b374_d848, 7, 1)));
    assert!(Position::parse("16/B374D848:10:0") > position);
    for bad in ["", "16/B374D848", "16/B374D848:7", "x/1:7:1", "1/1:7:1:2", "1/1:7:"] {
        assert_eq!(Position::parse(bad), None, "{bad}");
    }
}
