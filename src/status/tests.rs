use super::clock::POSTGRES_EPOCH_US;
use super::*;
use crate::fault::Code;

#[test]
fn tables_beyond_the_bound_are_counted_together_and_those_within_stay() {
    let pipeline = Pipeline::new("shop");
    let one = Counts { inserts: 1, ..Counts::default() };
    for _ in 0..2 {
        pipeline
            .published((0..MAX_TABLES + 500).map(|table| (format!("s.t{table}"), one, Some(7))));
    }
    let tables = pipeline.tables();
    assert_eq!(tables.len(), MAX_TABLES + 1);
    assert_eq!(tables.get("s.t0").map(|table| table.counts.inserts), Some(2));
    assert_eq!(tables.get(OTHER_TABLES).map(|table| table.counts.inserts), Some(1_000));
}

#[test]
fn an_outage_is_counted_once_and_its_end_says_how_long_it_took() {
    let pipeline = Pipeline::new("shop");
    assert_eq!((pipeline.outages().count, pipeline.outages().last), (0, None));
    pipeline.enter(State::Streaming);
    // The start is no outage.
    assert_eq!((pipeline.outages().count, pipeline.outages().last), (0, None));
    let streamed = pipeline.outages().time;
    assert_eq!(pipeline.outages().time, streamed);
    pipeline.enter(State::Waiting(fault()));
    pipeline.enter(State::Waiting(fault()));
    assert_eq!((pipeline.outages().count, pipeline.outages().last), (1, None));
    pipeline.enter(State::Streaming);
    let after = pipeline.outages();
    assert!(after.count == 1 && after.last.is_some() && after.time >= streamed, "{after:?}");
}

fn fault() -> Fault {
    Fault::new(Code::KafkaUnreachable, "no broker answers", "start one")
}

#[test]
fn lag_is_zero_when_all_the_server_has_is_delivered() {
    let pipeline = Pipeline::new("shop");
    pipeline.enter(State::Streaming);
    pipeline.heard(Lsn(100), now());
    pipeline.progress(Lsn(100), Lsn(100), None, 0);
    assert_eq!((pipeline.lag_bytes(), pipeline.lag()), (0, Duration::ZERO));
}

#[test]
fn lag_is_the_age_of_the_oldest_commit_in_flight_by_the_servers_clock() {
    let pipeline = Pipeline::new("shop");
    pipeline.enter(State::Streaming);
    let hour_ahead = PgTimestamp(now().0 + 3_600_000_000);
    pipeline.heard(Lsn(100), hour_ahead);
    pipeline.progress(Lsn(100), Lsn(50), Some(PgTimestamp(hour_ahead.0 - 5_000_000)), 1);
    assert_eq!(pipeline.lag().as_secs(), 5);
    assert_eq!(pipeline.lag_bytes(), 50);
}

#[test]
fn a_server_that_is_heard_hides_no_commit_that_kafka_does_not_take() {
    let pipeline = Pipeline::new("shop");
    pipeline.enter(State::Waiting(fault()));
    let committed = PgTimestamp(now().0 - 12_000_000);
    pipeline.progress(Lsn(100), Lsn(50), Some(committed), 1);
    pipeline.heard(Lsn(100), now());
    assert!(pipeline.lag() > Duration::from_secs(11), "{:?}", pipeline.lag());
}

#[test]
fn what_was_long_on_its_way_does_not_make_a_lag_smaller() {
    let pipeline = Pipeline::new("shop");
    pipeline.enter(State::Streaming);
    pipeline.heard(Lsn(50), now());
    // It was sent ten seconds ago, and waited to be read.
    pipeline.heard(Lsn(100), PgTimestamp(now().0 - 10_000_000));
    let committed = PgTimestamp(now().0 - 12_000_000);
    pipeline.progress(Lsn(100), Lsn(50), Some(committed), 1);
    assert!(pipeline.lag() > Duration::from_secs(11));
}

#[test]
fn the_same_failure_again_counts_but_does_not_restart_its_clock() {
    let pipeline = Pipeline::new("shop");
    pipeline.enter(State::Waiting(fault()));
    let since = pipeline.since();
    pipeline.enter(State::Waiting(fault()));
    assert_eq!(pipeline.since(), since);
    assert_eq!(pipeline.errors(), [(Code::KafkaUnreachable, 2)]);
}

#[test]
fn a_commit_time_becomes_milliseconds_since_1970_also_before_it() {
    assert_eq!(unix_ms(PgTimestamp(0)), 946_684_800_000);
    assert_eq!(unix_ms(PgTimestamp(-POSTGRES_EPOCH_US - 1)), -1);
}

#[test]
fn the_last_failures_are_remembered_and_the_same_one_in_a_row_once() {
    let pipeline = Pipeline::new("shop");
    for number in 0..30 {
        let fault = Fault::new(Code::KafkaUnreachable, format!("broker {number}"), "start one");
        for _ in 0..=number % 3 {
            pipeline.enter(State::Waiting(fault.clone()));
        }
    }
    let recent = pipeline.recent();
    assert_eq!(recent.len(), 20);
    assert_eq!((recent[0].fault.what.as_str(), recent[0].times), ("broker 29", 3));
    assert_eq!((recent[19].fault.what.as_str(), recent[19].times), ("broker 10", 2));
}

#[test]
fn how_much_of_a_table_there_is_is_told_by_what_was_read() {
    let at = |blocks_left| Snapshot {
        rows: 50,
        blocks: Some(100),
        blocks_left: Some(blocks_left),
        ..Snapshot::default()
    };
    assert_eq!((at(100).part(), at(100).rows_expected()), (Some(0.0), None));
    assert_eq!((at(75).part(), at(75).rows_expected()), (Some(0.25), Some(200)));
    assert_eq!(at(75).bytes(), Some((25 * 8192, 100 * 8192)));
    let done = at(75).ended(End::Done);
    assert_eq!((done.part(), done.rows_expected(), done.state()), (Some(1.0), Some(50), "done"));
    let cancelled = at(75).ended(End::Cancelled);
    assert_eq!((cancelled.part(), cancelled.state()), (Some(0.25), "cancelled"));
    assert_eq!((Snapshot::default().part(), Snapshot::default().bytes()), (None, None));
}

#[test]
fn the_oldest_open_transaction_ages_by_the_servers_clock() {
    let pipeline = Pipeline::new("shop");
    assert_eq!((pipeline.spool(), pipeline.oldest_open()), ((0, 0), None));
    let hour_ahead = PgTimestamp(now().0 + 3_600_000_000);
    pipeline.heard(Lsn(1), hour_ahead);
    pipeline.spooled(7, 2, Some(PgTimestamp(hour_ahead.0 - 9_000_000)));
    assert_eq!(pipeline.spool(), (7, 2));
    assert_eq!(pipeline.oldest_open().map(|age| age.as_secs()), Some(9));
    pipeline.spooled(0, 0, None);
    assert_eq!(pipeline.oldest_open(), None);
}
