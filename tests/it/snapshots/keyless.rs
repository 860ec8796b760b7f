//! Tables without a key: nothing of them is missing, and what comes twice is what the stream had
//! before they were read.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use waltide_stack::{Database, Stack, Version, eventually};

use super::{assert_fails_with, initial, rows, wait_until_read};
use crate::support::{Change, Op, Pipeline, Random, SOON};

/// How often each row is there.
type Bag = BTreeMap<String, i64>;

fn fill(shop: &Database, rows: u64) {
    shop.execute("CREATE TABLE visits (page int, note text)");
    // Some rows are the same.
    let sql = "INSERT INTO visits SELECT g / 3, md5((g / 3)::text) FROM generate_series(1, $) g";
    shop.execute(&sql.replace('$', &rows.to_string()));
}

fn in_table(shop: &Database) -> Bag {
    let rows =
        shop.session().query("SELECT page || ' ' || note, count(*)::text FROM visits GROUP BY 1");
    let count = |row: Vec<Option<String>>| {
        let mut cells = row.into_iter().flatten();
        let (row, count) = (cells.next().expect("a row"), cells.next().expect("a count"));
        (row, count.parse().expect("a number"))
    };
    rows.into_iter().map(count).collect()
}

fn bag<'a>(changes: impl IntoIterator<Item = &'a Change>) -> Bag {
    let mut bag = Bag::new();
    for change in changes {
        let row = change.after.as_ref().expect("a row that is there");
        let note = row["note"].as_str().expect("text");
        *bag.entry(format!("{} {note}", row["page"])).or_default() += 1;
    }
    bag
}

/// Lets writers insert while something else happens.
fn while_inserting<T>(shop: &Database, random: &Random, then: impl FnOnce() -> T) -> T {
    let enough = AtomicBool::new(false);
    thread::scope(|scope| {
        for number in 0..3 {
            let (session, mut random) = (shop.session(), random.branch(number));
            let enough = &enough;
            scope.spawn(move || {
                while !enough.load(Ordering::Relaxed) {
                    let end = if random.once_in(5) { "ROLLBACK" } else { "COMMIT" };
                    session.execute("BEGIN; INSERT INTO visits VALUES (-1, 'same'); SAVEPOINT s");
                    let page = random.of(1..1_000_000);
                    session.execute(&format!("INSERT INTO visits VALUES ({page}, 'new')"));
                    thread::sleep(Duration::from_millis(random.of(0..20)));
                    session.execute(end);
                }
            });
        }
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(then));
        enough.store(true, Ordering::Relaxed);
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// What was read, with what the stream had behind it, is the table; nothing else comes twice than
/// what the stream had before.
#[test]
fn a_table_without_a_key_arrives_with_each_row_as_often_as_it_is_there() {
    let test = "snapshot without a key";
    let random = Random::from_environment(test);
    let shop = Stack::shared().database(Version::NEWEST, test);
    fill(&shop, rows());
    let pipeline = initial(&shop);
    let daemon = while_inserting(&shop, &random, || {
        let daemon = pipeline.start();
        wait_until_read(&pipeline, &["public.visits"]);
        thread::sleep(Duration::from_millis(500));
        daemon
    });
    pipeline.wait_until_delivered();
    daemon.terminate();
    let changes = pipeline.changes("public.visits");
    assert_eq!(read_and_behind(&changes), in_table(&shop));
}

/// What was read, and what the stream had behind that.
#[track_caller]
fn read_and_behind(changes: &[Change]) -> Bag {
    let read: Vec<&Change> = changes.iter().filter(|change| change.op == Op::Read).collect();
    let at = read.iter().map(|change| change.position).max().expect("rows that were read");
    let behind = |change: &&Change| change.op == Op::Create && change.position > at;
    let streamed: Vec<&Change> = changes.iter().filter(behind).collect();
    eprintln!("{} read, {} behind, {} in all", read.len(), streamed.len(), changes.len());
    assert!(read.len() as u64 >= rows() && !streamed.is_empty(), "nobody wrote");
    bag(read.into_iter().chain(streamed))
}

#[test]
fn nothing_of_a_table_without_a_key_is_missing_where_daemons_are_killed_while_they_read_it() {
    let (changes, known) = after_kills("snapshot without a key with kills", "at_least_once");
    let arrived = bag(&changes);
    for (row, count) in &known {
        let there = arrived.get(row).copied().unwrap_or(0);
        assert!(there >= *count, "{row}: {there} instead of {count}");
    }
    assert!(arrived.keys().all(|row| known.contains_key(row)), "a row that never was");
}

/// A read that was cut off has left nothing.
#[test]
fn with_exactly_once_it_is_equal_even_then() {
    let (changes, known) = after_kills("snapshot without a key with kills once", "exactly_once");
    assert_eq!(read_and_behind(&changes), known);
}

/// What arrived, and what is there, after daemons were killed while they read.
fn after_kills(test: &str, delivery: &str) -> (Vec<Change>, Bag) {
    let mut random = Random::from_environment(test);
    let shop = Stack::shared().database(Version::NEWEST, test);
    fill(&shop, rows());
    let pipeline = initial(&shop).with("delivery", delivery);
    let daemon = while_inserting(&shop, &random.branch(99), || {
        for _ in 0..4 {
            let daemon = pipeline.start();
            thread::sleep(Duration::from_millis(random.of(0..1_500)));
            daemon.kill();
        }
        let daemon = pipeline.start();
        wait_until_read(&pipeline, &["public.visits"]);
        daemon
    });
    pipeline.wait_until_delivered();
    daemon.terminate();
    (pipeline.changes("public.visits"), in_table(&shop))
}

#[test]
fn a_table_without_a_key_is_read_no_faster_than_is_allowed() {
    let shop = Stack::shared().database(Version::NEWEST, "snapshot without a key slowly");
    shop.execute("CREATE TABLE visits (page int, note text)");
    shop.execute(
        "INSERT INTO visits SELECT g, repeat(md5(g::text), 60) FROM generate_series(1, 1000) g",
    );
    // Two megabytes, in batches of half of one.
    let slowly = waltide_stack::serde_json::json!({ "mode": "initial", "max_rate": 500_000 });
    let pipeline = Pipeline::of(&shop).with("snapshot", slowly);
    let since = Instant::now();
    let daemon = pipeline.start();
    wait_until_read(&pipeline, &["public.visits"]);
    // What the last batch costs nobody waits for.
    assert!(since.elapsed() > Duration::from_secs(2), "it took {:?}", since.elapsed());
    assert_eq!(pipeline.changes("public.visits").len(), 1_000);
    daemon.terminate();
}

#[test]
fn a_large_table_without_a_key_is_not_read_and_the_stream_goes_on() {
    let shop = Stack::shared().database(Version::NEWEST, "snapshot too large");
    fill(&shop, 1_000);
    let limited = |bytes| {
        Pipeline::of(&shop)
            .with("snapshot", waltide_stack::serde_json::json!({"keyless_max_bytes": bytes}))
    };
    let pipeline = limited(8192);
    let daemon = pipeline.start();
    assert_fails_with(&daemon, "public.visits", "WT232");
    shop.execute("INSERT INTO visits VALUES (0, 'later')");
    pipeline.wait_until_delivered();
    assert_eq!(pipeline.changes("public.visits").len(), 1);
    assert_eq!(pipeline.read_whole(), [""; 0]);
    daemon.terminate();
    let daemon = pipeline.with("snapshot.keyless_max_bytes", 0).start();
    eventually("it is read", SOON, || {
        limited(0).read_whole().contains(&"public.visits".to_owned()).then_some(())
    });
    daemon.terminate();
    assert_eq!(limited(0).changes("public.visits").len(), 1_002);
}
