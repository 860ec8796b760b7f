//! Whatever an application does, its topics hold exactly what its tables hold.
//!
//! Several writers run random transactions over tables of every kind. Each transaction ends with a
//! row in `journal`, so that a transaction that is missing in part or as a whole is noticed even
//! where later ones have hidden its traces.
//!
//! `WALTIDE_RANDOM_TRANSACTIONS` says how many transactions each version gets; `WALTIDE_SEED`
//! replays what the writers did (not how their transactions fell among each other).

pub(crate) mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use waltide_stack::{Database, Stack, Version};

use crate::support::{
    Change, Daemon, Pipeline, Random, Table, assert_each_once_and_in_order, assert_table_is,
    assert_transactions_are_whole, on_each_version,
};
use writer::{SCHEMA, Writer};

/// Enough to meet every kind of table and change on each version in a few seconds.
const TRANSACTIONS: u64 = 60;

/// One statement changes up to this many rows.
const MOST_ROWS: u64 = 5_000;

const WRITERS: u64 = 3;

on_each_version!(topics_hold_exactly_what_the_tables_hold);

fn topics_hold_exactly_what_the_tables_hold(version: Version) {
    let test = format!("random transactions on {version}");
    let random = Random::from_environment(&test);
    let shop = Stack::shared().database(version, &format!("random {version}"));
    shop.execute(SCHEMA);
    let pipeline = Pipeline::of(&shop);
    let daemon = pipeline.start();
    let began = Instant::now();
    let committed = write(&shop, &random, MOST_ROWS, |number| number < transactions() / WRITERS);
    let written = began.elapsed();
    pipeline.wait_until_delivered();
    let delivered = began.elapsed();
    daemon.terminate();

    let topics = pipeline.all_changes();
    for changes in topics.values() {
        assert_each_once_and_in_order(changes);
    }
    // Should something be missing, this says where.
    for (table, changes) in &topics {
        for partition in 0..3 {
            let of = changes.iter().filter(|change| change.partition == partition);
            let at = of.map(|change| change.position);
            let (count, first, last) = (at.clone().count(), at.clone().min(), at.max());
            eprintln!("{table} {partition}: {count} records, {first:?} to {last:?}");
        }
    }
    assert_nothing_is_missing(&shop, &committed, &topics);
    eprintln!(
        "{test}: {} transactions, {} records; written in {written:.1?}, delivered after \
         {delivered:.1?}, checked after {:.1?}",
        committed.len(),
        topics.values().map(Vec::len).sum::<usize>(),
        began.elapsed()
    );
}

/// Lets several writers run, each while `wanted` with the number of its next transaction, and
/// returns the names of all transactions that were committed.
pub(crate) fn write(
    shop: &Database,
    random: &Random,
    most_rows: u64,
    wanted: impl Fn(u64) -> bool + Sync,
) -> BTreeSet<String> {
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|number| {
                let random = random.branch(number);
                let mut writer = Writer::new(number, shop.session(), random, most_rows);
                let wanted = &wanted;
                scope.spawn(move || writer.run(wanted))
            })
            .collect();
        writers.into_iter().flat_map(|writer| writer.join().expect("a writer")).collect()
    })
}

/// Lets writers write while `disturb` has its way with the daemon. `patience` is theirs before each
/// transaction; it ends early where enough was written.
pub(crate) fn under_load(
    shop: &Database,
    random: &Random,
    most_rows: u64,
    patience: impl Fn(&AtomicBool) + Sync,
    disturb: impl FnOnce() -> Daemon,
) -> (Daemon, BTreeSet<String>) {
    let enough = AtomicBool::new(false);
    let (enough, patience) = (&enough, &patience);
    std::thread::scope(|scope| {
        let wanted = |_| {
            patience(enough);
            !enough.load(Ordering::Relaxed)
        };
        let writers = scope.spawn(move || write(shop, random, most_rows, wanted));
        // However this ends, the writers must.
        let daemon = std::panic::catch_unwind(std::panic::AssertUnwindSafe(disturb));
        enough.store(true, Ordering::Relaxed);
        let committed = writers.join().expect("the writers");
        match daemon {
            Ok(daemon) => (daemon, committed),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Topics that hold each record once hold all of what was committed, and nothing else.
#[track_caller]
pub(crate) fn assert_nothing_is_missing(
    shop: &Database,
    committed: &BTreeSet<String>,
    topics: &BTreeMap<String, Vec<Change>>,
) {
    let highest = assert_transactions_are_whole(topics.values().flatten());
    let journal = &topics["public.journal"];
    for change in journal {
        // The last row of its transaction: with ordinals from 0 to here, nothing is missing.
        assert_eq!(highest[&change.position.commit], change.position.ordinal);
    }
    let seen = journal.iter().map(|change| {
        let row = change.after.as_ref().expect("a row of the journal");
        format!("{}/{}", row["writer"], row["number"])
    });
    assert_eq!(&seen.collect::<BTreeSet<_>>(), committed, "transactions");
    assert_eq!(highest.len(), committed.len(), "transactions that never committed");
    for (table, changes) in topics {
        assert_table_is(&shop.session(), table, &Table::fold(changes));
    }
}

fn transactions() -> u64 {
    let given = std::env::var("WALTIDE_RANDOM_TRANSACTIONS").ok().filter(|text| !text.is_empty());
    given.map_or(TRANSACTIONS, |text| text.parse().expect("a number of transactions"))
}
