//! While others write, without the daemon, and where nothing can be proved.

use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use waltide_stack::PostgresOptions;

use super::*;
use crate::snapshots::shop as accounts;
use crate::support::Random;

/// How often a table is verified that changes meanwhile.
fn rounds() -> u32 {
    let given = std::env::var("WALTIDE_VERIFY_ROUNDS").ok().filter(|text| !text.is_empty());
    given.map_or(3, |text| text.parse().expect("a number"))
}

fn is_equal_while_others_write(delivery: &str, rounds: u32) {
    let test = &format!("verify beside writers {delivery}");
    let random = Random::from_environment(test);
    let shop = Stack::shared().database(Version::NEWEST, test);
    let pipeline = Pipeline::of(&shop).with("delivery", delivery).with("snapshot", "initial");
    accounts::fill(&shop, 2_000);
    // Else no record under its new key tells the large value of a row whose key changed.
    shop.execute("ALTER TABLE accounts REPLICA IDENTITY FULL");
    let daemon = pipeline.start();
    waltide_stack::eventually("its rows are read", SOON, || {
        (!pipeline.read_whole().is_empty()).then_some(())
    });
    let pause = Duration::from_millis(10);
    accounts::while_writing(&shop, &random, (2_000, pause), || {
        for round in 0..rounds {
            let found = verify(&pipeline, "public.accounts", &[]);
            assert_eq!(found.status, Some(0), "round {round}: {}", found.everything);
            assert_eq!(found.json["result"], "equal", "{}", found.everything);
            assert!(found.json["equal"].as_u64() > Some(1_500), "{}", found.everything);
            eprintln!("{} rounds, {} ms", found.json["rounds"], found.json["milliseconds"]);
        }
        // What is wrong stays wrong, whatever others do: nobody has this key.
        let intruder = Intruder::of(&pipeline, "public.accounts");
        shop.execute("INSERT INTO accounts VALUES (1, -1, 'a', 'b'), (1, -2, 'a', 'b')");
        shop.execute("DELETE FROM accounts WHERE id = -2");
        pipeline.wait_until_delivered();
        intruder.buries(&json!({"id": -1}));
        intruder.repeats_the_first(&json!({"id": -2}));
        verify(&pipeline, "public.accounts", &[]).names(
            "WT121",
            json!([
                {"kind": "missing", "key": {"id": -1}, "columns": []},
                {"kind": "extra", "key": {"id": -2}, "columns": []},
            ]),
        );
    });
    daemon.terminate();
}

#[test]
fn a_table_is_equal_while_others_write() {
    is_equal_while_others_write("at_least_once", rounds());
}

#[test]
fn a_table_is_equal_while_others_write_with_exactly_once() {
    is_equal_while_others_write("exactly_once", 1);
}

/// One row that is changed without a pause has a last word all the same.
#[test]
fn a_row_that_never_rests_is_settled() {
    let shop = shop("verify a hot row");
    let pipeline = Pipeline::of(&shop);
    let daemon = pipeline.start();
    shop.execute("INSERT INTO orders VALUES (1, '0')");
    let enough = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let session = shop.session();
            let mut number = 0_u64;
            while !enough.load(std::sync::atomic::Ordering::Relaxed) {
                number += 1;
                session.execute(&format!("UPDATE orders SET item = '{number}'"));
            }
        });
        for _ in 0..2 {
            let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                verify(&pipeline, "public.orders", &[]).is_equal(1);
            }));
            if let Err(panic) = found {
                enough.store(true, std::sync::atomic::Ordering::Relaxed);
                std::panic::resume_unwind(panic);
            }
        }
        enough.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    daemon.terminate();
}

#[test]
fn without_the_daemon_what_is_not_yet_published_is_told_apart_from_what_is_wrong() {
    for version in [Version::V14, Version::NEWEST] {
        let shop = Stack::shared().database(version, "verify without daemon");
        shop.execute(ORDERS);
        let pipeline = Pipeline::of(&shop);
        let daemon = pipeline.start();
        shop.execute("INSERT INTO orders SELECT g, 'tea' FROM generate_series(1, 20) g");
        pipeline.wait_until_delivered();
        daemon.terminate();
        let found = verify(&pipeline, "public.orders", &[]);
        assert_eq!(found.is_equal(20).json["daemon"], "down", "{}", found.everything);
        shop.execute("INSERT INTO orders VALUES (30, 'late')");
        shop.execute("UPDATE orders SET item = 'late' WHERE id = 3");
        let pending = |id: u32| json!({"kind": "pending", "key": {"id": id}, "columns": []});
        let found = verify(&pipeline, "public.orders", &[]);
        assert_eq!(found.status, Some(0), "{}", found.everything);
        assert_eq!(found.json["daemon"], "down", "{}", found.everything);
        assert_eq!(found.json["named"], json!([pending(3), pending(30)]), "{}", found.everything);
        assert_eq!(found.json["equal"], 19, "{}", found.everything);
        Intruder::of(&pipeline, "public.orders").buries(&json!({"id": 8}));
        let missing = json!({"kind": "missing", "key": {"id": 8}, "columns": []});
        let found = verify(&pipeline, "public.orders", &[]);
        found.names("WT121", json!([missing, pending(3), pending(30)]));
        // Nothing of it was taken from the slot.
        let daemon = pipeline.start();
        pipeline.wait_until_delivered();
        verify(&pipeline, "public.orders", &[]).names("WT121", json!([missing]));
        daemon.terminate();
    }
}

/// Takes the first records away, as retention does.
fn retention_removes_the_first(topic: &Topic, before: &[(i32, i64)]) {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", Stack::shared().kafka().bootstrap())
        .create()
        .expect("a client");
    let mut list = TopicPartitionList::new();
    for (partition, offset) in before {
        let offset = rdkafka::Offset::Offset(*offset);
        list.add_partition_offset(topic.name(), *partition, offset).expect("a partition");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let removed =
        runtime.expect("a runtime").block_on(admin.delete_records(&list, &AdminOptions::new()));
    removed.expect("they are removed");
}

#[test]
fn where_retention_has_removed_records_nothing_is_claimed() {
    let shop = shop("verify retention");
    let pipeline = Pipeline::of(&shop).with("kafka.partitions", 1);
    let daemon = pipeline.start();
    for id in 1..=6 {
        shop.execute(&format!("INSERT INTO orders VALUES ({id}, 'tea')"));
    }
    pipeline.wait_until_delivered();
    retention_removes_the_first(&pipeline.topic("public.orders"), &[(0, 2)]);
    let removed = |id: u32| json!({"kind": "removed", "key": {"id": id}, "columns": []});
    let found = verify(&pipeline, "public.orders", &[]);
    found.names("WT122", json!([removed(1), removed(2)]));
    assert_eq!(found.json["records_removed"], true, "{}", found.everything);
    // What is there is proved: each key's last record is.
    shop.execute("UPDATE orders SET item = 'again'");
    pipeline.wait_until_delivered();
    let found = verify(&pipeline, "public.orders", &[]);
    assert_eq!(found.is_equal(6).json["records_removed"], true, "{}", found.everything);
    daemon.terminate();
}

#[test]
fn a_daemon_that_stands_still_leaves_it_open() {
    let shop = shop("verify paused");
    let pipeline = Pipeline::of(&shop);
    let daemon = pipeline.start();
    shop.execute("INSERT INTO orders VALUES (1, 'tea')");
    pipeline.wait_until_delivered();
    // The process neither reads nor ends.
    daemon.process().signal("STOP");
    shop.execute("INSERT INTO orders VALUES (2, 'late')");
    let found = verify(&pipeline, "public.orders", &["--wait", "1"]);
    let named = json!([{"kind": "unsettled", "key": {"id": 2}, "columns": []}]);
    found.names("WT122", named);
    let why = found.json["why"].as_str().expect("why");
    assert!(why.contains("the daemon has the slot"), "{why}");
    daemon.process().signal("CONT");
    pipeline.wait_until_delivered();
    verify(&pipeline, "public.orders", &[]).is_equal(2);
    daemon.terminate();
}

/// Its commit is in the log, and so in the topic, before anybody can see it.
#[test]
fn a_commit_that_waits_for_a_standby_is_no_difference_once_it_is_visible() {
    let server = PostgresOptions::new(Version::NEWEST).start();
    let shop = server.database("verify without standby");
    shop.execute(ORDERS);
    let pipeline = Pipeline::of(&shop);
    let daemon = pipeline.start();
    shop.execute("INSERT INTO orders SELECT g, 'tea' FROM generate_series(1, 9) g");
    pipeline.wait_until_delivered();
    server.reconfigure(&[("synchronous_standby_names", "nobody")]);
    let waiting = waltide_stack::eventually("a commit waits", SOON, || {
        let session = shop.session();
        let pending = session.send("UPDATE orders SET item = 'unseen' WHERE id = 4");
        pending.is_blocked_for(Duration::from_millis(300)).then_some((session, pending))
    });
    server.reconfigure(&[("synchronous_standby_names", "")]);
    drop(waiting.1.wait());
    pipeline.wait_until_delivered();
    verify(&pipeline, "public.orders", &[]).is_equal(9);
    daemon.terminate();
}
