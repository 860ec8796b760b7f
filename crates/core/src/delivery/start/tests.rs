use super::*;
use crate::checkpoint::{TopicEnd, smallest};

fn wanted() -> Wanted {
    Wanted {
        slot: "waltide_shop".to_owned(),
        publication_fingerprint: "tables".to_owned(),
        topics: BTreeSet::from(["shop.orders".to_owned(), "shop.users".to_owned()]),
        instance: "we".to_owned(),
        exactly_once: true,
        snapshots: false,
        now_us: 5,
    }
}

fn facts() -> Event {
    Event::Held(Box::new(SourceFacts {
        system_identifier: 7,
        timeline: 1,
        timeline_history: Vec::new(),
        flushed: Lsn(500),
        database: "shop".to_owned(),
        slot_confirmed: Lsn(100),
        slot_created_now: false,
    }))
}

fn found(checkpoint: Checkpoint) -> Event {
    Event::Checkpoint(Some(Box::new(checkpoint)))
}

/// Orders were published up to there.
fn with_orders(ends: &[i64]) -> Checkpoint {
    let topic =
        TopicEnd { name: "shop.orders".to_owned(), topic_id: None, end_offsets: ends.to_vec() };
    Checkpoint { topics: vec![topic], instance: "before us".to_owned(), ..smallest() }
}

fn ends(of: &[(&str, &[i64])]) -> Event {
    Event::Ends(of.iter().map(|(name, ends)| ((*name).to_owned(), ends.to_vec())).collect())
}

/// Plays it, and says which steps were asked for and how it ended.
fn play(wanted: Wanted, events: Vec<Event>) -> (Vec<String>, Result<Step, Halt>) {
    let (mut start, first) = Start::new(wanted);
    let mut steps = vec![name(&first)];
    let mut last = Ok(first);
    for event in events {
        last = start.on(event);
        let Ok(step) = &last else { break };
        steps.push(name(step));
    }
    (steps, last)
}

fn name(step: &Step) -> String {
    let text = format!("{step:?}");
    text.split(['(', ' ', '{']).next().unwrap_or_default().to_owned()
}

#[test]
fn a_new_pipeline_writes_down_where_it_begins_before_it_does() {
    let ours = Checkpoint { instance: "we".to_owned(), ..smallest() };
    let (steps, last) = play(
        wanted(),
        vec![
            Event::Slot { there: false },
            Event::Checkpoint(None),
            Event::SlotMade,
            facts(),
            Event::Fenced,
            Event::Checkpoint(None),
            ends(&[]),
            Event::Ours(true),
            Event::Written,
            found(ours),
        ],
    );
    let order = "FindSlot Look MakeSlot TakeSlot Fence Recall Measure AskForSlot Write ReadBack \
                 Stream";
    assert_eq!(steps.join(" "), order);
    let Ok(Step::Stream(began)) = last else { panic!("{last:?}") };
    assert_eq!(began.decided, Resume::Birth { at: DurableLsn::proven(Lsn(100)) });
    assert_eq!((began.last.end_lsn.0, began.base), (Lsn(100), None));
}

#[test]
fn a_pipeline_goes_on_without_a_write_once_its_slot_was_seen_to_be_its_own() {
    let (steps, last) = play(
        wanted(),
        vec![
            Event::Slot { there: true },
            facts(),
            Event::Fenced,
            found(with_orders(&[4])),
            ends(&[("shop.orders", &[4, 9])]),
            Event::Ours(true),
        ],
    );
    assert_eq!(steps.join(" "), "FindSlot TakeSlot Fence Recall Measure AskForSlot Stream");
    let Ok(Step::Stream(began)) = last else { panic!("{last:?}") };
    assert_eq!(began.base, Some(("before us".to_owned(), 0)));
    assert_eq!(began.last.instance, "we");
    assert!(began.covers_others, "the checkpoint knew nothing of these tables");
}

#[test]
fn rows_that_are_read_have_a_number_that_is_written_down_first() {
    let (steps, last) = play(
        Wanted { snapshots: true, ..wanted() },
        vec![
            Event::Slot { there: true },
            facts(),
            Event::Fenced,
            found(smallest()),
            Event::Ours(true),
            Event::Written,
        ],
    );
    assert_eq!(steps.join(" "), "FindSlot TakeSlot Fence Recall AskForSlot Write Stream");
    let Ok(Step::Stream(began)) = last else { panic!("{last:?}") };
    assert_eq!(began.life, 1);
}

#[test]
fn a_slot_that_is_missing_is_made_only_for_a_pipeline_that_had_none() {
    let gone = vec![Event::Slot { there: false }, found(smallest()), Event::Slot { there: false }];
    let (steps, last) = play(wanted(), gone);
    assert_eq!(steps.join(" "), "FindSlot Look FindSlot");
    assert!(matches!(last, Err(Halt::SlotMissing { checkpoint: Lsn(100) })), "{last:?}");
    // Another daemon has begun between the two looks.
    let made = vec![Event::Slot { there: false }, found(smallest()), Event::Slot { there: true }];
    assert_eq!(play(wanted(), made).0.join(" "), "FindSlot Look FindSlot TakeSlot");
}

#[test]
fn what_is_held_against_each_other_is_of_one_time() {
    let lost = vec![
        Event::Slot { there: true },
        facts(),
        Event::Fenced,
        found(Checkpoint { end_lsn: EndLsn(Lsn(900)), ..smallest() }),
        Event::Ours(false),
    ];
    let (_, last) = play(wanted(), lost);
    assert!(matches!(last, Err(Halt::SlotLost)), "not a log that ends too early: {last:?}");
}

#[test]
fn the_slot_of_another_is_left_alone() {
    let (steps, _) = play(wanted(), vec![Event::Slot { there: true }, Event::HeldByAnother]);
    assert_eq!(steps.join(" "), "FindSlot TakeSlot StandBy");
}

#[test]
fn topics_that_lost_records_stop_it() {
    for (now, what) in [
        (ends(&[("shop.orders", &[4])]), "partition 1 ends at 0, and ended at 2"),
        (ends(&[("shop.users", &[9])]), "it does not exist any more"),
    ] {
        let events = vec![
            Event::Slot { there: true },
            facts(),
            Event::Fenced,
            found(with_orders(&[4, 2])),
            now,
            Event::Ours(true),
        ];
        let (_, last) = play(wanted(), events);
        let Err(Halt::LostTopic(lost)) = last else { panic!("{last:?}") };
        assert_eq!((lost.name.as_str(), lost.what.to_string().as_str()), ("shop.orders", what));
    }
}

#[test]
fn records_without_a_checkpoint_stop_it() {
    let events = vec![
        Event::Slot { there: true },
        facts(),
        Event::Fenced,
        Event::Checkpoint(None),
        ends(&[("shop.orders", &[0, 1])]),
        Event::Ours(true),
    ];
    let (_, last) = play(wanted(), events);
    assert!(matches!(last, Err(Halt::Stop(Stop::CheckpointLost { .. }))), "{last:?}");
}

#[test]
fn a_birth_that_another_has_overwritten_is_not_ours() {
    let until_read_back = || {
        vec![
            Event::Slot { there: true },
            facts(),
            Event::Fenced,
            Event::Checkpoint(None),
            ends(&[]),
            Event::Ours(true),
            Event::Written,
        ]
    };
    let mut another = until_read_back();
    another.push(found(with_orders(&[])));
    let (_, last) = play(wanted(), another);
    assert!(matches!(last, Err(Halt::Superseded { by }) if by == "before us"));
    let mut nothing = until_read_back();
    nothing.push(Event::Checkpoint(None));
    let (_, last) = play(wanted(), nothing);
    assert!(matches!(last, Err(Halt::WrittenInVain)), "{last:?}");
}

#[test]
fn what_was_not_asked_for_ends_it() {
    let (_, last) = play(wanted(), vec![Event::Slot { there: true }, Event::Fenced]);
    assert!(matches!(last, Err(Halt::OutOfOrder)), "{last:?}");
}
