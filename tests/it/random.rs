//! Whatever an application does, its topics hold exactly what its tables hold.
//!
//! Several writers run random transactions over tables of every kind. Each transaction ends with a
//! row in `journal`, so that a transaction that is missing in part or as a whole is noticed even
//! where later ones have hidden its traces.
//!
//! `WALTIDE_RANDOM_TRANSACTIONS` says how many transactions each version gets; `WALTIDE_SEED`
//! replays what the writers did (not how their transactions fell among each other).

mod writer;

use std::collections::BTreeSet;
use std::time::Instant;

use waltide_stack::{Stack, Version};

use crate::support::{
    Pipeline, Random, Table, assert_each_once_and_in_order, assert_table_is,
    assert_transactions_are_whole, on_each_version,
};
use writer::{SCHEMA, Writer};

/// Enough to meet every kind of table and change on each version in a few seconds.
const TRANSACTIONS: u64 = 60;

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
    let committed: BTreeSet<String> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|number| {
                let mut writer = Writer::new(number, shop.session(), random.branch(number));
                scope.spawn(move || writer.run(transactions() / WRITERS))
            })
            .collect();
        writers.into_iter().flat_map(|writer| writer.join().expect("a writer")).collect()
    });
    let written = began.elapsed();
    pipeline.wait_until_delivered();
    let delivered = began.elapsed();
    daemon.terminate();

    let topics = pipeline.all_changes();
    for changes in topics.values() {
        assert_each_once_and_in_order(changes);
    }
    let records: usize = topics.values().map(Vec::len).sum();
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
    assert_eq!(seen.collect::<BTreeSet<_>>(), committed, "transactions");
    assert_eq!(highest.len(), committed.len(), "transactions that never committed");
    for (table, changes) in &topics {
        assert_table_is(&shop.session(), table, &Table::fold(changes));
    }
    eprintln!(
        "{test}: {} transactions, {} records; written in {written:.1?}, delivered after \
         {delivered:.1?}, checked after {:.1?}",
        committed.len(),
        records,
        began.elapsed()
    );
}

fn transactions() -> u64 {
    let given = std::env::var("WALTIDE_RANDOM_TRANSACTIONS").ok().filter(|text| !text.is_empty());
    given.map_or(TRANSACTIONS, |text| text.parse().expect("a number of transactions"))
}
