//! A transaction of any size takes little memory.

use std::fs;
use std::time::Instant;

use waltide_stack::{Stack, Version, eventually};

use crate::support::{Daemon, Pipeline, SOON};

/// The most memory that may ever be resident.
const MEMORY_KIB: u64 = 64 * 1024;

/// The largest that is read again, in megabytes.
const READ_AGAIN: u64 = 200;

/// How large a transaction is: `WALTIDE_LARGE_MEGABYTES`.
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

#[test]
fn a_large_transaction_that_is_streamed_takes_little_memory() {
    takes_little_memory(true);
}

#[test]
fn a_large_transaction_that_is_not_streamed_takes_little_memory() {
    takes_little_memory(false);
}

/// A row has a kilobyte, and each hundredth one 100 more, out of line.
fn takes_little_memory(streaming: bool) {
    let shop = Stack::shared().database(Version::NEWEST, &format!("large {streaming}"));
    shop.execute("CREATE TABLE large (id int PRIMARY KEY, text text, long text)");
    shop.execute("ALTER TABLE large ALTER long SET STORAGE EXTERNAL");
    shop.execute("CREATE TABLE orders (id int PRIMARY KEY, item text)");
    let pipeline = Pipeline::of(&shop)
        .with("source.streaming", streaming)
        .with("spool_max_bytes", 20_000_000_000_u64);
    let daemon = pipeline.start();
    let rows = megabytes() * 500;
    let began = Instant::now();
    let large = shop.session();
    large.execute(&format!(
        "BEGIN; INSERT INTO large
           SELECT id, repeat(md5(id::text), 32),
                  CASE WHEN id % 100 = 0 THEN repeat(md5(id::text), 3200) END
             FROM generate_series(1, {rows}) id"
    ));
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
    let end = pipeline.end_of_log();
    eventually("all commits are confirmed", SOON * 20, || {
        (pipeline.confirmed() >= end).then_some(())
    });
    let peak = peak_kib(&daemon);
    eprintln!(
        "{} MB, streaming {streaming}: written in {:?}, first row after {first:?}, all after {:?}, \
         at most {} MiB",
        megabytes(),
        committed - began,
        committed.elapsed(),
        peak / 1024
    );
    assert!(peak <= MEMORY_KIB, "{peak} KiB");
    daemon.terminate();
    // Larger ones would not fit into the test: that as many arrived as were sent was seen above.
    if megabytes() > READ_AGAIN {
        return;
    }
    let ids: u64 = pipeline
        .changes("public.large")
        .iter()
        .map(|change| change.after.as_ref().and_then(|row| row["id"].as_u64()).expect("an id"))
        .sum();
    assert_eq!(ids, rows * (rows + 1) / 2, "each once");
}
