//! A transaction of any size takes little memory, and a kill in its middle costs nothing.

use std::collections::BTreeMap;
use std::fs;
use std::time::Instant;

use waltide_stack::{Database, Session, Stack, Version, eventually};

use crate::support::{Daemon, Pipeline, Position, SOON};

/// The most memory that may ever be resident.
const MEMORY_KIB: u64 = 64 * 1024;

/// How large all transactions of a test are together: `WALTIDE_LARGE_MEGABYTES`.
fn megabytes() -> u64 {
    let megabytes = std::env::var("WALTIDE_LARGE_MEGABYTES").ok();
    megabytes.map_or(100, |size| size.parse().expect("WALTIDE_LARGE_MEGABYTES is a number"))
}

fn peak_kib(daemon: &Daemon) -> u64 {
    let path = format!("/proc/{}/status", daemon.process().pid());
    let status = fs::read_to_string(path).expect("the daemon lives");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a peak");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}

#[track_caller]
fn assert_takes_little(daemon: &Daemon) -> u64 {
    let peak = peak_kib(daemon);
    assert!(peak <= MEMORY_KIB, "{peak} KiB");
    peak / 1024
}

fn shop(test: &str) -> Database {
    let shop = Stack::shared().database(Version::NEWEST, test);
    shop.execute("CREATE TABLE large (id int PRIMARY KEY, text text, long text)");
    shop.execute("ALTER TABLE large ALTER long SET STORAGE EXTERNAL");
    shop.execute("CREATE TABLE orders (id int PRIMARY KEY, item text)");
    shop
}

fn pipeline<'a>(shop: &'a Database) -> Pipeline<'a> {
    Pipeline::of(shop).with("spool_max_bytes", 20_000_000_000_u64)
}

/// A row has a kilobyte, and each hundredth one 100 more, out of line.
fn insert(on: &Session, first: u64, last: u64) {
    on.execute(&format!(
        "INSERT INTO large
           SELECT id, repeat(md5(id::text), 32),
                  CASE WHEN id % 100 = 0 THEN repeat(md5(id::text), 3200) END
             FROM generate_series({first}, {last}) id"
    ));
}

fn wait_until_confirmed(pipeline: &Pipeline<'_>) {
    let end = pipeline.end_of_log();
    eventually("all commits are confirmed", SOON * 40, || {
        (pipeline.confirmed() >= end).then_some(())
    });
}

/// Sees to it that consumers have as many records of the table, each once or, where that may be,
/// again from some place on.
fn assert_there(pipeline: &Pipeline<'_>, table: &str, rows: u64, once: bool) {
    let (mut last, mut known, mut again) = (BTreeMap::new(), 0, 0);
    pipeline.topic(table).for_each(|record| {
        let position = Position::in_header(record.header("waltide.position"));
        if last.get(&record.partition).is_none_or(|last| position > *last) {
            last.insert(record.partition, position);
            known += 1;
        } else {
            again += 1;
        }
    });
    assert!(!once || again == 0, "{again} records of {table} came again");
    assert_eq!(known, rows, "records of {table}");
}

#[test]
fn a_large_transaction_that_is_streamed_takes_little_memory() {
    takes_little_memory(true, "at_least_once");
}

#[test]
fn a_large_transaction_that_is_not_streamed_takes_little_memory() {
    takes_little_memory(false, "at_least_once");
}

#[test]
fn a_large_transaction_that_is_published_exactly_once_takes_little_memory() {
    takes_little_memory(true, "exactly_once");
}

fn takes_little_memory(streaming: bool, delivery: &str) {
    let shop = shop(&format!("large {streaming} {delivery}"));
    let pipeline = pipeline(&shop).with("source.streaming", streaming).with("delivery", delivery);
    let daemon = pipeline.start();
    let rows = megabytes() * 500;
    let began = Instant::now();
    let large = shop.session();
    large.execute("BEGIN");
    insert(&large, 1, rows);
    let open = u64::from(streaming);
    eventually("it is sent", SOON * 20, || {
        (daemon.status()["open_transactions"] == open).then_some(())
    });
    shop.execute("INSERT INTO orders VALUES (1, 'meanwhile')");
    large.execute("COMMIT");
    let committed = Instant::now();
    // Consumers see it grow; the server hears from us all the while.
    let first = eventually("the first rows are there", SOON * 20, || {
        let records = daemon.status()["records"].as_u64()?;
        (records > 1).then_some(committed.elapsed())
    });
    eventually("all are there", SOON * 20, || {
        (daemon.status()["records"] == rows + 1).then_some(())
    });
    wait_until_confirmed(&pipeline);
    let peak = assert_takes_little(&daemon);
    eprintln!(
        "{} MB, streaming {streaming}, {delivery}: written in {:?}, first row after {first:?}, all \
         after {:?}, at most {peak} MiB",
        megabytes(),
        committed - began,
        committed.elapsed(),
    );
    daemon.terminate();
    assert_there(&pipeline, "public.large", rows, true);
}

/// Three that grow at the same time, small ones between their parts, and a kill when some of what
/// they hold is published.
fn interleaved_and_killed(delivery: &str) {
    let shop = shop(&format!("three large {delivery}"));
    // Each is sent, and not only the largest.
    let name = shop.name();
    shop.execute(&format!("ALTER DATABASE {name} SET logical_decoding_work_mem = '64kB'"));
    let pipeline = pipeline(&shop).with("delivery", delivery);
    let daemon = pipeline.start();
    let (parts, each) = (10, megabytes() * 500 / 30);
    let sessions: Vec<Session> = (0..3).map(|_| shop.session()).collect();
    sessions.iter().for_each(|session| session.execute("BEGIN"));
    for part in 0..parts {
        for (number, session) in (0..).zip(&sessions) {
            let first = (number * parts + part) * each;
            insert(session, first + 1, first + each);
        }
        shop.execute(&format!("INSERT INTO orders VALUES ({part}, 'meanwhile')"));
    }
    eventually("all are sent", SOON * 20, || {
        (daemon.status()["open_transactions"] == 3).then_some(())
    });
    sessions.iter().for_each(|session| session.execute("COMMIT"));
    let half = 3 * parts * each / 2;
    eventually("half of it is published", SOON * 20, || {
        (daemon.status()["records"].as_u64()? > half).then_some(())
    });
    let before = assert_takes_little(&daemon);
    daemon.kill();
    let daemon = pipeline.start();
    wait_until_confirmed(&pipeline);
    let after = assert_takes_little(&daemon);
    eprintln!("three of {} MB, {delivery}: {before} and {after} MiB", megabytes() / 3);
    daemon.terminate();
    let once = delivery == "exactly_once";
    assert_there(&pipeline, "public.large", 3 * parts * each, once);
    assert_there(&pipeline, "public.orders", parts, once);
}

#[test]
fn three_large_transactions_at_once_and_a_kill_take_little_memory_and_come_once() {
    interleaved_and_killed("exactly_once");
}

#[test]
fn three_large_transactions_at_once_and_a_kill_take_little_memory() {
    interleaved_and_killed("at_least_once");
}
