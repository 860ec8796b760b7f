//! Transactions that the server sends before they are committed.
//!
//! `logical_decoding_work_mem` is as small as it can be here, so that everything beyond 64 kB is
//! sent at once. `WALTIDE_SAVEPOINTS` says how many savepoints a storm has, and
//! `WALTIDE_LARGE_MEGABYTES` how large the large transactions are.

mod failures;
mod large;
mod same;

use waltide_stack::{Database, Session, Stack, Version, eventually};

use crate::support::{Daemon, Pipeline, SOON, on_each_version};

/// A database whose transactions are streamed from 64 kB on.
fn shop(version: Version, test: &str) -> Database {
    let shop = Stack::shared().database(version, test);
    let name = shop.name();
    shop.execute(&format!("ALTER DATABASE {name} SET logical_decoding_work_mem = '64kB'"));
    shop.execute("CREATE TABLE orders (id int PRIMARY KEY, item text)");
    shop
}

/// Rows of a kilobyte each.
fn insert(ids: std::ops::Range<u32>) -> String {
    let (first, last) = (ids.start, ids.end - 1);
    format!(
        "INSERT INTO orders SELECT id, repeat(md5(id::text), 32) FROM generate_series({first}, {last}) id"
    )
}

/// Waits until the server has begun to send so many transactions that are open still.
#[track_caller]
fn wait_until_open(daemon: &Daemon, count: u64) {
    eventually(&format!("{count} open transactions are kept"), SOON, || {
        let status = daemon.status();
        let something = status["spool_bytes"].as_u64()? > 0;
        (status["open_transactions"] == count && something == (count > 0)).then_some(())
    });
}

/// The orders of the topic, in its order; it has one partition.
#[track_caller]
fn ids(pipeline: &Pipeline<'_>) -> Vec<u64> {
    let records = pipeline.topic("public.orders").read_json().into_iter();
    records.map(|record| record.value["after"]["id"].as_u64().expect("an id")).collect()
}

fn one_partition(shop: &Database) -> Pipeline<'_> {
    Pipeline::of(shop).with("kafka.partitions", 1)
}

fn begun(shop: &Database, ids: std::ops::Range<u32>) -> Session {
    let session = shop.session();
    session.execute("BEGIN");
    session.execute(&insert(ids));
    session
}

on_each_version! {
    large_transactions_that_interleave_come_in_the_order_of_their_commits
    prepared_transactions_appear_when_they_are_committed
}

fn large_transactions_that_interleave_come_in_the_order_of_their_commits(version: Version) {
    let shop = shop(version, &format!("interleaved on {version}"));
    let pipeline = one_partition(&shop);
    let daemon = pipeline.start();
    let first = begun(&shop, 1_000..1_400);
    let second = begun(&shop, 2_000..2_400);
    let never = begun(&shop, 3_000..3_400);
    wait_until_open(&daemon, 3);
    // Small ones do not wait for them, and are confirmed.
    shop.execute("INSERT INTO orders VALUES (1, 'tea')");
    pipeline.wait_until_delivered();
    assert_eq!(ids(&pipeline), [1]);
    assert_eq!(pipeline.spool_files().len(), 3);
    first.execute(&insert(1_400..1_600));
    second.execute(&insert(2_400..2_600));
    never.execute("ROLLBACK");
    wait_until_open(&daemon, 2);
    second.execute("COMMIT");
    shop.execute("INSERT INTO orders VALUES (2, 'milk')");
    pipeline.wait_until_delivered();
    first.execute("COMMIT");
    pipeline.wait_until_delivered();
    wait_until_open(&daemon, 0);
    assert_eq!(pipeline.spool_files().len(), 0, "nothing is left of what was published");
    daemon.terminate();
    let expected: Vec<u64> =
        [1].into_iter().chain(2_000..2_600).chain([2]).chain(1_000..1_600).collect();
    assert_eq!(ids(&pipeline), expected);
}

fn prepared_transactions_appear_when_they_are_committed(version: Version) {
    let shop = shop(version, &format!("prepared on {version}"));
    let pipeline = one_partition(&shop);
    let daemon = pipeline.start();
    let gid = |name: &str| format!("{}_{name}", shop.name());
    let prepare = |name: &str, ids| {
        let session = begun(&shop, ids);
        session.execute(&format!("PREPARE TRANSACTION '{}'", gid(name)));
    };
    prepare("large", 1_000..1_400);
    prepare("small", 10..12);
    prepare("never", 3_000..3_400);
    wait_until_open(&daemon, 2);
    shop.execute("INSERT INTO orders VALUES (1, 'tea')");
    pipeline.wait_until_delivered();
    assert_eq!(ids(&pipeline), [1], "a prepared transaction is not committed");
    // What is prepared outlives the connection.
    daemon.terminate();
    let daemon = pipeline.start();
    shop.execute(&format!("COMMIT PREPARED '{}'", gid("small")));
    shop.execute(&format!("ROLLBACK PREPARED '{}'", gid("never")));
    shop.execute(&format!("COMMIT PREPARED '{}'", gid("large")));
    shop.execute("INSERT INTO orders VALUES (2, 'milk')");
    pipeline.wait_until_delivered();
    daemon.terminate();
    let expected: Vec<u64> = [1, 10, 11].into_iter().chain(1_000..1_400).chain([2]).collect();
    assert_eq!(ids(&pipeline), expected);
}

#[test]
fn a_daemon_killed_inside_a_stream_has_all_of_it_sent_again() {
    let shop = shop(Version::NEWEST, "killed inside a stream");
    let pipeline = one_partition(&shop);
    let daemon = pipeline.start();
    let open = begun(&shop, 1_000..1_400);
    wait_until_open(&daemon, 1);
    let files = pipeline.spool_files();
    assert_eq!(files.len(), 1);
    daemon.kill();
    assert_eq!(pipeline.spool_files(), files, "a kill leaves them");
    // Ours alone goes away, and a transaction of that number is not known to have been kept.
    let (name, path) = files.iter().next().expect("a file");
    let alien = path.with_file_name("notes.txt");
    std::fs::write(&alien, "somebody's").expect("a file");
    std::fs::write(path.with_file_name("1.spool"), "of an earlier run").expect("a file");
    let daemon = pipeline.start();
    wait_until_open(&daemon, 1);
    assert_eq!(pipeline.spool_files().keys().collect::<Vec<_>>(), [name]);
    assert!(alien.exists(), "what is not ours stays");
    open.execute(&insert(1_400..1_500));
    open.execute("COMMIT");
    pipeline.wait_until_delivered();
    daemon.terminate();
    assert_eq!(ids(&pipeline), (1_000..1_500).collect::<Vec<u64>>());
    assert_eq!(pipeline.spool_files().len(), 0);
}

#[test]
fn a_daemon_that_is_asked_to_end_does_not_wait_for_open_transactions() {
    let shop = shop(Version::NEWEST, "ended inside a stream");
    let pipeline = one_partition(&shop);
    let daemon = pipeline.start();
    let open = begun(&shop, 1_000..1_400);
    wait_until_open(&daemon, 1);
    daemon.terminate();
    assert_eq!(pipeline.spool_files().len(), 0, "it leaves nothing behind");
    open.execute("COMMIT");
    let daemon = pipeline.start();
    pipeline.wait_until_delivered();
    daemon.terminate();
    assert_eq!(ids(&pipeline), (1_000..1_400).collect::<Vec<u64>>());
}

#[test]
fn a_slot_that_would_send_prepared_transactions_is_refused() {
    let shop = shop(Version::NEWEST, "a two-phase slot");
    let pipeline = one_partition(&shop);
    shop.execute(&format!(
        "SELECT pg_create_logical_replication_slot('{}', 'pgoutput', false, true)",
        pipeline.slot()
    ));
    let daemon = pipeline.launch();
    let status = daemon.wait_for_state("stopped");
    assert_eq!(status["error"]["code"], "WT211");
    let what = status["error"]["what"].as_str().expect("a text");
    assert!(what.contains("prepared transactions"), "{what}");
}

#[test]
fn what_is_open_is_told_while_it_is_and_for_how_long() {
    let shop = shop(Version::NEWEST, "open transactions are told");
    let pipeline = one_partition(&shop);
    let daemon = pipeline.start();
    let metric = |name: &str| -> f64 {
        let (_, text) = daemon.get("/metrics").expect("the daemon answers");
        let line = text.lines().find(|line| line.starts_with(&format!("{name}{{")));
        line.and_then(|line| line.rsplit_once(' ')?.1.parse().ok()).expect("a number")
    };
    assert_eq!(metric("waltide_open_transactions") + metric("waltide_spool_bytes"), 0.0);
    let open = begun(&shop, 1_000..1_400);
    wait_until_open(&daemon, 1);
    eventually("all that has come of it is kept", SOON, || {
        (metric("waltide_spool_bytes") > 300_000.0).then_some(())
    });
    eventually("the oldest is of some age", SOON, || {
        (metric("waltide_open_transaction_age_seconds") > 1.0).then_some(())
    });
    open.execute("ROLLBACK");
    wait_until_open(&daemon, 0);
    assert_eq!(metric("waltide_open_transaction_age_seconds"), 0.0);
    daemon.terminate();
}
