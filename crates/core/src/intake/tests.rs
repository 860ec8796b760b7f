//! Books of one connection, step by step.

use super::*;
use crate::pgoutput::{Decoder, Xid};

fn begin(at: u64) -> Begin {
    Begin { commit_lsn: CommitLsn(Lsn(at)), commit_time: PgTimestamp(0), xid: Xid(7) }
}

fn commit(at: u64, end: u64) -> Commit {
    Commit {
        commit_lsn: CommitLsn(Lsn(at)),
        end_lsn: EndLsn(Lsn(end)),
        commit_time: PgTimestamp(0),
    }
}

fn from(lsn: u64) -> Intake {
    Intake::resume(DurableLsn::proven(Lsn(lsn)))
}

#[test]
fn rows_of_a_transaction_are_counted_from_zero() {
    let mut intake = from(0);
    intake.begin(&begin(10)).unwrap();
    let ordinals: Vec<_> =
        (0..3).map(|_| intake.row().unwrap().unwrap().position.ordinal).collect();
    assert_eq!(ordinals, [0, 1, 2]);
    let mut behind = || intake.behind().unwrap().unwrap().position.ordinal;
    assert_eq!([behind(), behind()], [3, 3], "looking counts nothing");
    intake.commit(&commit(10, 12)).unwrap();
    intake.begin(&begin(12)).unwrap();
    assert_eq!(intake.row().unwrap().unwrap().position.ordinal, 0);
}

#[test]
fn back_to_back_commits_are_told_apart_at_the_resume_point() {
    // The second commit record starts where the first ends. Resuming at that point must leave
    // out the first and publish the second.
    let mut intake = from(20);
    intake.begin(&begin(10)).unwrap();
    assert_eq!(intake.row(), Ok(None));
    intake.commit(&commit(10, 20)).unwrap();
    assert_eq!(intake.durable().lsn(), Lsn(20));
    intake.begin(&begin(20)).unwrap();
    let place = intake.row().unwrap().expect("it is new");
    intake.produced();
    intake.commit(&commit(20, 30)).unwrap();
    assert_eq!(intake.durable().lsn(), Lsn(20));
    intake.delivered(place.ticket, 1).unwrap();
    assert_eq!(intake.durable().lsn(), Lsn(30));
}

#[test]
fn a_stream_that_contradicts_itself_is_refused() {
    let mut intake = from(0);
    assert_eq!(intake.row(), Err(Disorder::Outside));
    assert_eq!(intake.commit(&commit(5, 6)), Err(Disorder::Outside));
    intake.begin(&begin(10)).unwrap();
    assert_eq!(intake.begin(&begin(20)), Err(Disorder::NestedBegin(CommitLsn(Lsn(20)))));
    assert!(matches!(intake.commit(&commit(11, 12)), Err(Disorder::ForeignCommit { .. })));
    let mut intake = from(0);
    intake.begin(&begin(10)).unwrap();
    intake.commit(&commit(10, 12)).unwrap();
    assert!(matches!(intake.begin(&begin(10)), Err(Disorder::BackwardBegin { .. })));
}

#[test]
fn messages_of_a_transaction_count_no_rows() {
    let mut intake = from(0);
    intake.begin(&begin(10)).unwrap();
    let mut places = Vec::new();
    for is_row in [false, false, true, false, true, false] {
        let place = if is_row { intake.row() } else { intake.message() };
        let Position { ordinal, sub_index, .. } = place.unwrap().unwrap().position;
        places.push((is_row, ordinal, sub_index));
    }
    let expected =
        [(false, 0, 0), (false, 0, 1), (true, 0, 0), (false, 1, 0), (true, 1, 0), (false, 2, 0)];
    assert_eq!(places, expected);
    assert_eq!(from(0).message(), Err(Disorder::Outside));
}

#[test]
fn a_message_of_no_transaction_is_confirmed_once_it_is_delivered() {
    let mut intake = from(5);
    let ticket = intake.begin_alone(Lsn(10), PgTimestamp(0)).unwrap().expect("it is new");
    assert!(!intake.is_settled());
    intake.passed(Lsn(50)).unwrap();
    intake.produced();
    intake.end_alone(Lsn(10));
    assert_eq!((intake.durable().lsn(), intake.is_settled()), (Lsn(5), false));
    intake.delivered(ticket, 1).unwrap();
    assert_eq!((intake.durable().lsn(), intake.is_settled()), (Lsn(11), true));
    assert_eq!(intake.last_durable(), None, "it is no commit");
}

#[test]
fn a_message_of_no_transaction_waits_for_the_transaction_before_it() {
    let mut intake = from(0);
    intake.begin(&begin(10)).unwrap();
    let row = intake.row().unwrap().unwrap().ticket;
    intake.produced();
    intake.commit(&commit(10, 12)).unwrap();
    let message = intake.begin_alone(Lsn(12), PgTimestamp(0)).unwrap().unwrap();
    intake.produced();
    assert_eq!(intake.end_alone(Lsn(12)), Lsn(13));
    intake.delivered(message, 1).unwrap();
    assert_eq!(intake.durable().lsn(), Lsn(0));
    intake.delivered(row, 1).unwrap();
    assert_eq!(intake.durable().lsn(), Lsn(13));
    assert_eq!(intake.last_durable(), Some(CommitLsn(Lsn(10))));
}

#[test]
fn resuming_behind_a_message_repeats_neither_it_nor_leaves_out_what_follows() {
    let mut intake = from(11);
    assert_eq!(intake.begin_alone(Lsn(10), PgTimestamp(0)), Ok(None));
    // The message ends at 11, and so the next commit may start there.
    intake.begin(&begin(11)).unwrap();
    assert!(intake.row().unwrap().is_some());
    let inside = intake.begin_alone(Lsn(12), PgTimestamp(0));
    assert_eq!(inside, Err(Disorder::Inside(Lsn(12))));
    intake.commit(&commit(11, 20)).unwrap();
    assert!(intake.begin_alone(Lsn(24), PgTimestamp(0)).unwrap().is_some());
    intake.end_alone(Lsn(24));
    let backward = intake.begin_alone(Lsn(24), PgTimestamp(0));
    assert!(matches!(backward, Err(Disorder::BackwardBegin { .. })));
}

#[test]
fn a_record_that_is_none_of_the_sources_confirms_nothing_and_holds_nothing_up_for_long() {
    let mut intake = from(5);
    let ticket = intake.begin_aside(PgTimestamp(0));
    intake.produced();
    intake.end_aside();
    intake.passed(Lsn(50)).unwrap();
    assert_eq!((intake.durable().lsn(), intake.is_settled()), (Lsn(5), false));
    intake.delivered(ticket, 1).unwrap();
    assert_eq!((intake.durable().lsn(), intake.is_settled()), (Lsn(50), true));
    let ticket = intake.begin_aside(PgTimestamp(0));
    intake.produced();
    intake.end_aside();
    intake.delivered(ticket, 1).unwrap();
    assert_eq!(intake.durable().lsn(), Lsn(50), "it has no position of its own");
}

#[test]
fn a_keepalive_between_rows_confirms_nothing() {
    let mut intake = from(0);
    intake.begin(&begin(10)).unwrap();
    intake.passed(Lsn(50)).unwrap();
    assert_eq!(intake.durable().lsn(), Lsn(0));
    intake.commit(&commit(10, 12)).unwrap();
    intake.passed(Lsn(50)).unwrap();
    assert_eq!(intake.durable().lsn(), Lsn(50));
}

/// A row of one short column.
fn row(number: u8) -> [u8; 15] {
    [b'I', 0, 0, 0, 7, b'N', 0, 1, b't', 0, 0, 0, 2, b'r', number]
}

/// The next row of the open transaction, as the stream gives it.
fn takes(intake: &mut Intake, number: u8) -> Result<bool, Disorder> {
    let bytes = row(number);
    intake.sees(&Decoder::new().decode(&bytes).unwrap());
    let place = intake.row()?.expect("it is not repeated as a whole");
    assert!(intake.may_part());
    let published = !intake.is_muted();
    if published {
        intake.produced();
        intake.delivered(place.ticket, 1).unwrap();
    }
    Ok(published)
}

fn partial(intake: &Intake) -> Partial {
    match intake.handed_over().progress {
        Progress::Partial(partial) => partial,
        Progress::Complete => panic!("a part is published"),
    }
}

/// Of a transaction at 10, the first three rows.
fn three_rows() -> Partial {
    let mut intake = Intake::resume_inside(DurableLsn::proven(Lsn(5)), None);
    assert_eq!(intake.handed_over().progress, Progress::Complete);
    intake.begin(&begin(10)).unwrap();
    assert_eq!(intake.handed_over().progress, Progress::Complete, "there is no row yet");
    for number in 0..3 {
        assert_eq!(takes(&mut intake, number), Ok(true));
    }
    let HandedOver { end, last, .. } = intake.handed_over();
    assert_eq!((end, last), (EndLsn(Lsn(5)), None));
    partial(&intake)
}

fn inside(published: Partial) -> Intake {
    Intake::resume_inside(DurableLsn::proven(Lsn(5)), Some(published))
}

#[test]
fn a_transaction_that_is_published_in_part_goes_on_behind_that_part() {
    let published = three_rows();
    assert_eq!((published.commit_lsn, published.ordinal), (CommitLsn(Lsn(10)), 3));
    let mut intake = inside(published);
    // However little of it has come again, a checkpoint does not go back.
    assert_eq!(partial(&intake), published);
    intake.passed(Lsn(10)).unwrap();
    intake.begin(&begin(10)).unwrap();
    for number in 0..3 {
        assert_eq!(partial(&intake), published);
        assert_eq!(takes(&mut intake, number), Ok(false));
    }
    assert_eq!(partial(&intake), published);
    assert_eq!(takes(&mut intake, 3), Ok(true));
    assert_eq!(partial(&intake).ordinal, 4);
    intake.commit(&commit(10, 12)).unwrap();
    let HandedOver { end, last, progress } = intake.handed_over();
    assert_eq!((end, last), (EndLsn(Lsn(12)), Some(CommitLsn(Lsn(10)))));
    assert_eq!(progress, Progress::Complete);
    intake.begin(&begin(12)).unwrap();
    assert_eq!(takes(&mut intake, 0), Ok(true));
}

#[test]
fn what_follows_the_published_rows_of_a_transaction_is_new_and_what_lies_between_them_is_not() {
    let mut intake = inside(three_rows());
    intake.begin(&begin(10)).unwrap();
    let mut muted = Vec::new();
    for number in 0..3 {
        intake.message().unwrap();
        muted.push(intake.is_muted());
        assert!(!intake.may_part(), "the message would be told again");
        assert_eq!(takes(&mut intake, number), Ok(false));
    }
    assert_eq!(muted, [true; 3]);
    intake.message().unwrap();
    assert!(!intake.is_muted(), "a message behind the rows");
    let place = intake.behind().unwrap().unwrap();
    assert_eq!((place.position.ordinal, intake.is_muted()), (3, false), "the end");
    intake.commit(&commit(10, 12)).unwrap();
    assert!(!intake.is_muted());
}

#[test]
fn a_transaction_that_comes_again_as_another_is_refused() {
    let published = three_rows();
    let refused = |why| Err(Disorder::Another { commit: CommitLsn(Lsn(10)), published: 3, why });

    let mut intake = inside(published);
    intake.begin(&begin(10)).unwrap();
    assert_eq!(takes(&mut intake, 0), Ok(false));
    assert_eq!(takes(&mut intake, 9), Ok(false));
    assert_eq!(takes(&mut intake, 2), refused(Differs::Rows).map(|()| true));

    let mut intake = inside(published);
    intake.begin(&begin(10)).unwrap();
    takes(&mut intake, 0).unwrap();
    assert_eq!(intake.commit(&commit(10, 12)), refused(Differs::Ends { after: 1 }));

    assert_eq!(inside(published).begin(&begin(11)), refused(Differs::Missing));
    assert_eq!(inside(published).passed(Lsn(11)), refused(Differs::Missing));
    let alone = inside(published).begin_alone(Lsn(11), PgTimestamp(0));
    assert_eq!(alone.map(|_| ()), refused(Differs::Missing));

    // Between what is published whole and that one there was nothing.
    let mut intake = inside(published);
    intake.begin(&begin(7)).unwrap();
    assert_eq!(intake.row().map(|_| ()), refused(Differs::Rows));
    let mut intake = inside(published);
    intake.begin(&begin(7)).unwrap();
    intake.commit(&commit(7, 8)).unwrap();
    intake.begin(&begin(10)).unwrap();
    assert_eq!(takes(&mut intake, 0), Ok(false), "an empty transaction shows nothing");
}

#[test]
fn what_is_repeated_before_a_part_is_left_out_as_ever() {
    let mut intake = inside(three_rows());
    intake.begin(&begin(3)).unwrap();
    assert_eq!(intake.row(), Ok(None));
    intake.commit(&commit(3, 5)).unwrap();
    intake.begin(&begin(10)).unwrap();
    assert_eq!(takes(&mut intake, 0), Ok(false));
}
