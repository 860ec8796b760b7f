//! A second daemon with the same configuration waits for the slot and takes over.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use waltide_stack::{Stack, Version};

use crate::support::{Pipeline, assert_each_once_and_in_order, on_each_version, without_repeats};

/// What we promise.
const TAKEOVER: Duration = Duration::from_secs(10);

on_each_version!(a_second_daemon_stands_by_and_takes_over_when_the_first_is_killed);

fn a_second_daemon_stands_by_and_takes_over_when_the_first_is_killed(version: Version) {
    let shop = Stack::shared().database(version, "takeover");
    shop.execute("CREATE TABLE orders (id int PRIMARY KEY)");
    let pipeline = Pipeline::of(&shop);
    let first = pipeline.start();
    let second = pipeline.launch();
    second.wait_for_state("standby");
    second.wait_ready();
    shop.execute("INSERT INTO orders SELECT generate_series(1, 1000)");
    pipeline.wait_until_delivered();
    assert_eq!(second.status()["state"], "standby");
    shop.execute("INSERT INTO orders SELECT generate_series(1001, 2000)");
    first.kill();
    let killed = Instant::now();
    second.wait_for_state("streaming");
    let took = killed.elapsed();
    assert!(took < TAKEOVER, "the takeover took {took:?}");
    shop.execute("INSERT INTO orders SELECT generate_series(2001, 3000)");
    pipeline.wait_until_delivered();
    second.terminate();
    let (once, _) = without_repeats(&pipeline.changes("public.orders"), 1);
    assert_eq!(once.len(), 3000);
}

#[test]
fn a_second_daemon_takes_over_when_the_first_ends_and_nothing_comes_again() {
    let shop = Stack::shared().database(Version::NEWEST, "handover");
    shop.execute("CREATE TABLE orders (id int PRIMARY KEY)");
    let pipeline = Pipeline::of(&shop);
    let first = pipeline.start();
    let second = pipeline.launch();
    second.wait_for_state("standby");
    shop.execute("INSERT INTO orders SELECT generate_series(1, 5000)");
    first.terminate();
    second.wait_for_state("streaming");
    shop.execute("INSERT INTO orders SELECT generate_series(5001, 6000)");
    pipeline.wait_until_delivered();
    let changes = pipeline.changes("public.orders");
    assert_eq!(changes.len(), 6000);
    assert_each_once_and_in_order(&changes);
    second.terminate();
}

#[test]
fn a_daemon_that_lost_its_slot_while_frozen_stands_by_when_it_wakes() {
    let shop = Stack::shared().database(Version::NEWEST, "frozen");
    shop.execute("CREATE TABLE orders (id int PRIMARY KEY)");
    let pipeline = Pipeline::of(&shop);
    let first = pipeline.start();
    let second = pipeline.launch();
    second.wait_for_state("standby");
    first.process().pause();
    shop.execute("INSERT INTO orders SELECT generate_series(1, 1000)");
    // The server gives a silent daemon's slot away after the time the daemon itself has asked for.
    second.wait_for_state("streaming");
    pipeline.wait_until_delivered();
    first.process().resume();
    first.wait_for_state("standby");
    shop.execute("INSERT INTO orders SELECT generate_series(1001, 2000)");
    pipeline.wait_until_delivered();
    first.terminate();
    second.terminate();
    // What the server had sent to the frozen daemon it publishes when it wakes, late.
    let mut seen = BTreeMap::new();
    for change in pipeline.changes("public.orders") {
        let first = *seen.entry(change.position).or_insert(change.digest);
        assert_eq!(first, change.digest, "{} is not the same again", change.position);
    }
    assert_eq!(seen.len(), 2000);
}
