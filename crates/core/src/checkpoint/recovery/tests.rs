use super::*;
use crate::checkpoint::tests::checkpoint;
use crate::lsn::EndLsn;

/// A source that fits [`checkpoint`], with its slot a little behind.
fn source() -> SourceFacts {
    SourceFacts {
        system_identifier: 7,
        timeline: 1,
        flushed: Lsn(1_000),
        timeline_history: Vec::new(),
        database: "shop".to_owned(),
        slot_confirmed: Lsn(90),
        slot_created_now: false,
    }
}

fn ended(timeline: u32, at: u64) -> TimelineEnd {
    TimelineEnd { timeline, switch_lsn: Lsn(at) }
}

fn durable(at: u64) -> DurableLsn {
    DurableLsn::proven(Lsn(at))
}

fn at_end(end: u64) -> Checkpoint {
    Checkpoint { end_lsn: EndLsn(Lsn(end)), ..checkpoint() }
}

fn inside(commit: u64) -> (Checkpoint, Partial) {
    let partial = Partial { commit_lsn: CommitLsn(Lsn(commit)), ordinal: 5, hash: 9 };
    (Checkpoint { progress: Progress::Partial(partial), ..at_end(100) }, partial)
}

#[test]
fn a_pipeline_goes_on_where_its_checkpoint_ends_and_the_slot_may_be_behind() {
    let expected = Resume::Continue { discard_up_to: durable(100), inside: None };
    for slot in [1, 99, 100] {
        let source = SourceFacts { slot_confirmed: Lsn(slot), ..source() };
        for held in [false, true] {
            assert_eq!(resume(Some(&at_end(100)), &source, held), Ok(expected));
        }
    }
    assert_eq!(expected.start(), durable(100));
}

#[test]
fn a_log_that_ends_before_what_was_read_from_it_is_another_one() {
    let source = SourceFacts { flushed: Lsn(99), ..source() };
    let stop = Stop::LogEndsBefore { end: Lsn(99), checkpoint: Lsn(100) };
    assert_eq!(resume(Some(&at_end(100)), &source, true), Err(stop));
    let source = SourceFacts { flushed: Lsn(100), ..source };
    assert!(resume(Some(&at_end(100)), &source, true).is_ok());
    // Inside a large transaction its commit record had been read.
    let (checkpoint, _) = inside(200);
    let stop = Stop::LogEndsBefore { end: Lsn(100), checkpoint: Lsn(200) };
    assert_eq!(resume(Some(&checkpoint), &source, true), Err(stop));
}

#[test]
fn a_partial_transaction_is_left_out_up_to_its_ordinal() {
    let (checkpoint, partial) = inside(100);
    assert_eq!(
        resume(Some(&checkpoint), &source(), true),
        Ok(Resume::Continue { discard_up_to: durable(100), inside: Some(partial) })
    );
}

#[test]
fn a_new_slot_without_a_checkpoint_is_a_birth() {
    let source = SourceFacts { slot_created_now: true, ..source() };
    assert_eq!(resume(None, &source, false), Ok(Resume::Birth { at: durable(90) }));
}

#[test]
fn an_existing_slot_without_a_checkpoint_is_adopted_where_it_stands() {
    assert_eq!(resume(None, &source(), false), Ok(Resume::Adopt { at: durable(90) }));
}

#[test]
fn records_without_a_checkpoint_mean_that_it_was_lost_whatever_the_slot_is() {
    for slot_created_now in [false, true] {
        let source = SourceFacts { slot_created_now, ..source() };
        assert_eq!(resume(None, &source, true), Err(Stop::CheckpointLost { slot: Lsn(90) }));
    }
}

#[test]
fn another_cluster_is_told_before_what_its_slot_says() {
    let source = SourceFacts {
        system_identifier: 8,
        database: "other".to_owned(),
        slot_confirmed: Lsn(500),
        slot_created_now: true,
        ..source()
    };
    assert_eq!(
        resume(Some(&at_end(100)), &source, true),
        Err(Stop::AnotherSystem { recorded: 7, found: 8 })
    );
}

#[test]
fn another_database_of_the_same_cluster_is_refused() {
    let source = SourceFacts { database: "other".to_owned(), ..source() };
    assert_eq!(
        resume(Some(&at_end(100)), &source, true),
        Err(Stop::AnotherDatabase { recorded: "shop".to_owned(), found: "other".to_owned() })
    );
}

#[test]
fn a_slot_that_moved_past_the_checkpoint_is_a_gap() {
    let source = SourceFacts { slot_confirmed: Lsn(101), ..source() };
    assert_eq!(
        resume(Some(&at_end(100)), &source, true),
        Err(Stop::SlotAhead { slot: Lsn(101), checkpoint: Lsn(100) })
    );
}

#[test]
fn a_slot_made_anew_is_a_gap_even_where_its_position_looks_right() {
    let source = SourceFacts { slot_created_now: true, ..source() };
    assert_eq!(
        resume(Some(&at_end(100)), &source, true),
        Err(Stop::SlotRecreated { slot: Lsn(90), checkpoint: Lsn(100) })
    );
}

#[test]
fn a_promoted_standby_goes_on_where_it_had_all_that_is_published() {
    let history = vec![ended(1, 100), ended(2, 400)];
    let source = SourceFacts { timeline: 3, timeline_history: history, ..source() };
    assert!(resume(Some(&at_end(100)), &source, true).is_ok(), "the switch is an end");
    assert_eq!(
        resume(Some(&at_end(101)), &source, true),
        Err(Stop::ForkedTimeline {
            recorded: 1,
            found: 3,
            left_at: Some(Lsn(100)),
            checkpoint: Lsn(101)
        })
    );
}

#[test]
fn a_promoted_standby_must_have_the_commit_of_the_partial_transaction() {
    let source = SourceFacts { timeline: 2, timeline_history: vec![ended(1, 150)], ..source() };
    assert!(resume(Some(&inside(149).0), &source, true).is_ok());
    assert_eq!(
        resume(Some(&inside(150).0), &source, true),
        Err(Stop::ForkedTimeline {
            recorded: 1,
            found: 2,
            left_at: Some(Lsn(150)),
            checkpoint: Lsn(150)
        })
    );
}

#[test]
fn a_timeline_that_never_was_on_ours_is_refused() {
    let checkpoint = Checkpoint { timeline: 2, ..at_end(100) };
    for timeline_history in [vec![], vec![ended(1, 300)]] {
        let source = SourceFacts { timeline: 3, timeline_history, ..source() };
        assert_eq!(
            resume(Some(&checkpoint), &source, true),
            Err(Stop::ForkedTimeline {
                recorded: 2,
                found: 3,
                left_at: None,
                checkpoint: Lsn(100)
            })
        );
    }
}

#[test]
fn the_former_primary_is_refused() {
    let checkpoint = Checkpoint { timeline: 2, ..at_end(100) };
    assert_eq!(
        resume(Some(&checkpoint), &source(), true),
        Err(Stop::OlderTimeline { recorded: 2, found: 1 })
    );
}

#[test]
fn every_stop_says_what_was_found_and_what_to_do() {
    let (slot, checkpoint) = (Lsn(0x16_0000_0010), Lsn(0x16_0000_0020));
    let fork = |left_at| Stop::ForkedTimeline { recorded: 31, found: 42, left_at, checkpoint };
    let (db, other) = ("shop".to_owned(), "other".to_owned());
    for (stop, named) in [
        (Stop::CheckpointLost { slot }, &["16/10"] as &[_]),
        (Stop::AnotherSystem { recorded: 31, found: 42 }, &["31", "42"]),
        (Stop::AnotherDatabase { recorded: db, found: other }, &["\"shop\"", "\"other\""]),
        (Stop::OlderTimeline { recorded: 42, found: 31 }, &["31", "42"]),
        (fork(Some(slot)), &["31", "42", "16/10", "16/20"]),
        (fork(None), &["31", "42", "16/20"]),
        (Stop::LogEndsBefore { end: slot, checkpoint }, &["16/10", "16/20"]),
        (Stop::SlotRecreated { slot, checkpoint }, &["16/10", "16/20"]),
        (Stop::SlotAhead { slot, checkpoint }, &["16/10", "16/20"]),
    ] {
        let text = stop.to_string();
        assert!(named.iter().all(|name| text.contains(name)), "{text}");
        assert!(!stop.mend().is_empty() && !stop.mend().ends_with('.'), "{stop:?}");
    }
}

/// A world to check the rules against by what they are for. Every byte of log was written by one
/// branch of one cluster; two logs agree up to a position where the same branches wrote it all.
/// No rule about timelines or switches is in here.
struct World {
    /// By timeline less one: the parent's index, and where the branch left it.
    branches: Vec<Option<(usize, u64)>>,
}

impl World {
    fn grow(next: &mut impl FnMut(u64) -> u64) -> Self {
        let mut branches = vec![None];
        for _ in 0..next(4) {
            let parent = index(next(branches.len() as u64));
            let earliest = branches[parent].map_or(0, |(_, at)| at);
            branches.push(Some((parent, earliest + next(12))));
        }
        Self { branches }
    }

    fn author(&self, branch: usize, position: u64) -> usize {
        match self.branches[branch] {
            Some((parent, left_at)) if position < left_at => self.author(parent, position),
            _ => branch,
        }
    }

    fn agree_before(&self, one: usize, other: usize, end: u64) -> bool {
        (0..end).all(|at| self.author(one, at) == self.author(other, at))
    }

    fn descends(&self, branch: usize, from: usize) -> bool {
        branch == from
            || self.branches[branch].is_some_and(|(parent, _)| self.descends(parent, from))
    }

    /// As the server of a branch tells it.
    fn history(&self, branch: usize) -> Vec<TimelineEnd> {
        let Some((parent, left_at)) = self.branches[branch] else { return Vec::new() };
        let mut ends = self.history(parent);
        ends.push(ended(timeline(parent), left_at));
        ends
    }
}

fn index(value: u64) -> usize {
    usize::try_from(value).unwrap()
}

fn timeline(branch: usize) -> u32 {
    u32::try_from(branch).unwrap() + 1
}

#[test]
fn a_pipeline_goes_on_exactly_where_the_logs_agree_and_the_slot_left_nothing_out() {
    let seed: u64 = option_env!("WALTIDE_SEED").and_then(|s| s.parse().ok()).unwrap_or(42);
    let mut random = seed;
    let mut next = |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let mut seen = [0_u32; 2];
    for round in 0..40_000 {
        let world = World::grow(&mut next);
        let count = world.branches.len() as u64;
        let (wrote, found) = (index(next(count)), index(next(count)));
        let end = 2 + next(30);
        let partial = (next(3) == 0).then(|| Partial {
            commit_lsn: CommitLsn(Lsn(end + next(5))),
            ordinal: next(9),
            hash: next(99),
        });
        let checkpoint = Checkpoint {
            timeline: timeline(wrote),
            progress: partial.map_or(Progress::Complete, Progress::Partial),
            commit_lsn: CommitLsn(Lsn(1)),
            ..at_end(end)
        };
        let source = SourceFacts {
            system_identifier: if next(8) == 0 { 8 } else { 7 },
            timeline: timeline(found),
            timeline_history: world.history(found),
            flushed: Lsn(end - 1 + next(9)),
            database: if next(8) == 0 { "other" } else { "shop" }.to_owned(),
            slot_confirmed: Lsn(end - 2 + next(4)),
            slot_created_now: next(8) == 0,
        };
        // A commit record is a byte long here.
        let published = partial.map_or(end, |partial| partial.commit_lsn.0.0 + 1);
        let may_go_on = source.system_identifier == 7
            && source.database == "shop"
            && source.flushed.0 >= partial.map_or(end, |partial| partial.commit_lsn.0.0)
            && world.agree_before(wrote, found, published)
            // The logs may agree although the older server came back; that it was never promoted
            // cannot be seen from here.
            && world.descends(found, wrote)
            && source.slot_confirmed.0 <= end
            && !source.slot_created_now;
        let decided = resume(Some(&checkpoint), &source, next(2) == 0);
        let note = format!("seed {seed}, round {round}: {checkpoint:?} {source:?} {decided:?}");
        assert_eq!(decided.is_ok(), may_go_on, "{note}");
        if let Ok(decided) = decided {
            let expected = Resume::Continue { discard_up_to: durable(end), inside: partial };
            assert_eq!(decided, expected, "{note}");
        }
        seen[usize::from(may_go_on)] += 1;
    }
    assert!(seen.iter().all(|cases| *cases > 4_000), "both kinds are tried: {seen:?}");
}
