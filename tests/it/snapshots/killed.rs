//! Daemons that are killed while they read: the next goes on at the chunk, and nothing of a table
//! is missing or too much, whatever else happens meanwhile.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use waltide_stack::serde_json::json;
use waltide_stack::{Database, Postgres, PostgresOptions, Stack, Version, eventually};

use super::{ROWS, assert_arrived, initial, number, rows, shop};
use crate::support::{Op, Pipeline, Random, SOON};

/// Daemons that are killed while they read.
const KILLS: u64 = 3;

/// What a daemon has at least of the time in which a table is read, so that each is killed in the
/// midst of it.
const LIFE: Duration = Duration::from_secs(5);

/// Writers stop only while the stream is behind by so much for each row.
const BACKLOG_BYTES: u64 = 48;

/// The dedicated test has the limit of a quiet machine.
const LONG_TRANSACTION: f64 = 5.0;

const TABLE: &str = "public.accounts";

/// Whoever compares a large table.
static ALONE: Mutex<()> = Mutex::new(());

/// Rows of a table in whose midst a daemon can be killed.
fn large() -> u64 {
    rows().max(3 * ROWS)
}

#[test]
fn a_snapshot_goes_on_where_a_killed_daemon_left_it() {
    let test = "snapshot with kills";
    let mut random = Random::from_environment(test);
    let shop = Stack::shared().database(Version::NEWEST, test);
    shop::fill(&shop, large());
    survives(&shop, &mut random, "at_least_once", None);
}

#[test]
fn so_does_one_of_partitions_between_which_rows_move_exactly_once() {
    let test = "snapshot of partitions with kills";
    let mut random = Random::from_environment(test);
    let shop = Stack::shared().database(Version::NEWEST, test);
    shop::fill_in_partitions(&shop, large());
    survives(&shop, &mut random, "exactly_once", None);
}

/// Commits wait in every second life, and are in the stream before anybody can see them.
#[test]
fn so_does_one_while_a_synchronous_standby_does_not_answer() {
    let test = "snapshot without standby with kills";
    let mut random = Random::from_environment(test);
    let server = PostgresOptions::new(Version::V14).start();
    let shop = server.database(test);
    shop::fill(&shop, large());
    survives(&shop, &mut random, "at_least_once", Some(&server));
}

/// Kills one daemon after another in the midst of reading a table that is written to at full speed,
/// and holds what arrived against what is there.
#[track_caller]
fn survives(shop: &Database, random: &mut Random, delivery: &str, standby: Option<&Postgres>) {
    let kills = number("WALTIDE_SNAPSHOT_KILLS", KILLS);
    let size = "SELECT sum(pg_total_relation_size(oid)) FROM pg_class
                WHERE relname LIKE 'accounts%' AND relkind = 'r'";
    let bytes: u64 = shop.value(size).parse().expect("a number");
    let rate = bytes * 1000 / (u64::try_from(LIFE.as_millis()).expect("short") * kills);
    let slowly = json!({ "mode": "initial", "max_rate": rate, "parallelism": 1 });
    let slow = Pipeline::of(shop).with("snapshot", slowly).with("delivery", delivery);
    let pipeline = initial(shop).with("delivery", delivery);
    let is_read = || pipeline.read_whole().iter().any(|table| table == TABLE);
    let writing = random.branch(99);
    let since = Instant::now();
    let (daemon, oldest) = while_watching(shop, || {
        shop::at_full_speed(shop, &writing, (large(), BACKLOG_BYTES * large()), || {
            for life in 0..kills {
                let away = standby.filter(|_| life % 2 == 1);
                let daemon = if random.once_in(4) { slow.launch() } else { slow.start() };
                if let Some(server) = away {
                    server.reconfigure(&[("synchronous_standby_names", "nobody")]);
                }
                thread::sleep(Duration::from_millis(random.of(100..1_500)));
                assert!(!is_read(), "it was read before kill {life}");
                daemon.kill();
                if let Some(server) = away {
                    server.reconfigure(&[("synchronous_standby_names", "")]);
                }
            }
            let daemon = pipeline.start();
            eventually("it is read", 10 * SOON, || is_read().then_some(()));
            daemon
        })
    });
    eprintln!(
        "{bytes} bytes in {:?} with {kills} kills; the oldest transaction was {oldest:.3} s",
        since.elapsed()
    );
    pipeline.wait_until_delivered();
    daemon.terminate();
    // A million rows take much memory.
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let taken = assert_arrived(shop, &pipeline, TABLE);
    let read = taken.iter().filter(|change| change.op == Op::Read).count() as u64;
    // Rows that are written to before they are read come by the stream instead.
    assert!(read > large() / 2, "{read} rows were read");
    assert!(taken.len() as u64 > read, "nobody wrote");
    assert!(oldest < LONG_TRANSACTION, "a transaction was open for {oldest} s");
}

/// The age of the oldest transaction in which the daemon read something meanwhile, by the server's
/// own clock; making a slot, which waits for writers, is not reading.
fn while_watching<T>(shop: &Database, then: impl FnOnce() -> T) -> (T, f64) {
    let enough = AtomicBool::new(false);
    thread::scope(|scope| {
        let (session, ended) = (shop.session(), &enough);
        let watching = scope.spawn(move || {
            let mut oldest = 0.0_f64;
            while !ended.load(Ordering::Relaxed) {
                let age = session.value(
                    "SELECT coalesce(extract(epoch FROM max(clock_timestamp() - xact_start)), 0)
                       FROM pg_stat_activity
                      WHERE application_name = 'waltide' AND datname = current_database()
                        AND backend_type = 'client backend'
                        AND query NOT LIKE '%pg_create_logical_replication_slot%'",
                );
                oldest = oldest.max(age.parse().expect("a number"));
                thread::sleep(Duration::from_millis(20));
            }
            oldest
        });
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(then));
        enough.store(true, Ordering::Relaxed);
        let oldest = watching.join().expect("whoever watches");
        (done.unwrap_or_else(|panic| std::panic::resume_unwind(panic)), oldest)
    })
}
