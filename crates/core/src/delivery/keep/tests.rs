use super::*;
use crate::checkpoint::smallest;
use crate::lsn::Lsn;

fn keep() -> Keep {
    let last = Checkpoint { instance: "we".to_owned(), ..smallest() };
    Keep::new(last, Some(("before us".to_owned(), 3)))
}

fn offer(durable: u64) -> Offer {
    Offer { durable: DurableLsn::proven(Lsn(durable)), last: None, books: None }
}

fn by(instance: &str, written_at_us: i64) -> Came {
    let instance = instance.to_owned();
    Came::Checkpoint(Some(Box::new(Checkpoint { instance, written_at_us, ..smallest() })))
}

/// A write of which nobody knows, and a new writer.
fn renewed() -> Keep {
    let mut keep = keep();
    let _ = keep.write(&offer(200), Seen::default());
    assert_eq!(keep.on(Came::Unknown), Act::AskForSlot);
    assert_eq!(keep.on(Came::Slot { ours: true }), Act::Fence);
    assert_eq!(keep.on(Came::Fenced), Act::Recall);
    keep
}

#[test]
fn a_position_is_confirmed_once_it_is_written() {
    let mut keep = keep();
    let Act::Write(next) = keep.write(&offer(200), Seen::default()) else { panic!("not written") };
    assert_eq!((next.end_lsn.0, next.instance.as_str()), (Lsn(200), "we"));
    assert_eq!(keep.on(Came::Written), Act::Confirm(DurableLsn::proven(Lsn(200))));
    assert!(matches!(keep.write(&offer(300), Seen::default()), Act::Write(_)));
}

#[test]
fn what_nobody_knows_is_written_again_where_nobody_else_has_written() {
    for author in [by("we", 8), by("before us", 3)] {
        let mut keep = renewed();
        let Act::Write(next) = keep.on(author) else { panic!("not written again") };
        assert_eq!(next.end_lsn.0, Lsn(200));
        assert_eq!(keep.on(Came::Written), Act::Confirm(DurableLsn::proven(Lsn(200))));
    }
}

#[test]
fn whoever_else_has_written_is_left_to_it() {
    let end = renewed().on(by("a successor", 9));
    assert_eq!(end, Act::End(End::Superseded { by: "a successor".to_owned() }));
    // The daemon we took over from, awake again.
    let end = renewed().on(by("before us", 4));
    assert_eq!(end, Act::End(End::Superseded { by: "before us".to_owned() }));
    assert_eq!(renewed().on(Came::Checkpoint(None)), Act::End(End::CheckpointLost));
}

#[test]
fn nobody_is_shut_out_by_who_has_lost_the_slot() {
    let mut keep = keep();
    let _ = keep.write(&offer(200), Seen::default());
    let _ = keep.on(Came::Unknown);
    assert_eq!(keep.on(Came::Slot { ours: false }), Act::End(End::SlotLost));
}

#[test]
fn a_failure_on_the_way_to_a_new_writer_begins_with_the_slot_again() {
    assert_eq!(renewed().on(Came::Unknown), Act::AskForSlot);
    let mut keep = renewed();
    let _ = keep.on(Came::Unknown);
    let _ = keep.on(Came::Slot { ours: true });
    assert_eq!(keep.on(Came::Unknown), Act::AskForSlot);
}

#[test]
fn who_is_refused_ends_and_says_nothing_more() {
    let mut keep = keep();
    let _ = keep.write(&offer(200), Seen::default());
    assert_eq!(keep.on(Came::Refused), Act::End(End::Refused));
    assert_eq!(keep.write(&offer(300), Seen::default()), Act::End(End::OutOfOrder));
    assert_eq!(keep.on(Came::Written), Act::End(End::OutOfOrder));
}
