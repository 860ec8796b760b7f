//! Rows that were there before the pipeline, and those of tables that join it, arrive beside the
//! stream: whatever happens meanwhile, a consumer that skips what repeats holds what the table
//! holds.
//!
//! `WALTIDE_SNAPSHOT_ROWS` says how many rows the large tables have.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use waltide_stack::{Database, Stack, Version, eventually};

use crate::random::write;
use crate::random::writer::SCHEMA;
use crate::support::{
    Change, Op, Pipeline, Random, SOON, Table, assert_table_is, beyond_the_last, on_each_version,
};

/// Rows of a large table. A few chunks, and enough to be killed in the midst of.
const ROWS: u64 = 20_000;

/// Daemons that are killed while they read.
const KILLS: u64 = 4;

fn rows() -> u64 {
    number("WALTIDE_SNAPSHOT_ROWS", ROWS)
}

fn number(name: &str, default: u64) -> u64 {
    let given = std::env::var(name).ok().filter(|text| !text.is_empty());
    given.map_or(default, |text| text.parse().expect("a number"))
}

/// A pipeline that reads what is there.
fn initial(shop: &Database) -> Pipeline<'_> {
    Pipeline::of(shop).with("snapshot", "initial")
}

/// Waits until each of these tables has been read whole, as its consumers are told.
#[track_caller]
fn wait_until_read(pipeline: &Pipeline<'_>, tables: &[&str]) {
    eventually(&format!("{tables:?} are read"), SOON, || {
        let read = pipeline.read_whole();
        tables.iter().all(|table| read.iter().any(|one| one == table)).then_some(())
    });
}

/// A table's topic holds what the table holds.
#[track_caller]
fn assert_arrived(shop: &Database, pipeline: &Pipeline<'_>, table: &str) -> Vec<Change> {
    let (taken, skipped) = beyond_the_last(&pipeline.changes(table));
    let read = taken.iter().filter(|change| change.op == Op::Read).count();
    eprintln!("{table}: {read} read, {} streamed, {skipped} skipped", taken.len() - read);
    assert_table_is(&shop.session(), table, &Table::fold_with_snapshot(&taken));
    taken
}

const KEYED: [&str; 5] =
    ["public.items", "public.lines", "public.documents", "public.readings", "public.journal"];

/// Rows from before, in every table that has a key; some with large values.
fn fill(shop: &Database) {
    let rows = rows();
    shop.execute(SCHEMA);
    shop.execute(&format!(
        "INSERT INTO items SELECT g, 'item ' || g, g % 7, g / 8.0, now(), g % 3 = 0,
             md5(g::text)::uuid, decode(md5(g::text), 'hex'), jsonb_build_object('g', g), ARRAY[g]
             FROM generate_series(1, {rows}) g;
         INSERT INTO lines SELECT g % 5, g / 5, 'note', date '2020-01-01' + g
             FROM generate_series(1, {rows} / 4) g;
         INSERT INTO documents SELECT 0, g, repeat(md5(g::text), 80), repeat('x', 2100)
             FROM generate_series(1, {rows} / 20) g;
         INSERT INTO readings SELECT g % 4, g, g / 3.0, 'mm' FROM generate_series(1, {rows} / 2) g"
    ));
}

on_each_version!(tables_that_are_written_to_all_the_while_arrive_whole);

fn tables_that_are_written_to_all_the_while_arrive_whole(version: Version) {
    let test = format!("snapshot {version}");
    let random = Random::from_environment(&test);
    let shop = Stack::shared().database(version, &test);
    fill(&shop);
    let pipeline = initial(&shop);
    let daemon = while_writing(&shop, &random, || {
        let daemon = pipeline.launch();
        daemon.wait_for_state("streaming");
        wait_until_read(&pipeline, &KEYED);
        daemon
    });
    pipeline.wait_until_delivered();
    daemon.terminate();
    let read = KEYED.map(|table| assert_arrived(&shop, &pipeline, table));
    let read = read.iter().flatten().filter(|change| change.op == Op::Read).count();
    assert!(read > 0, "nothing was read");
}

/// Lets writers write while something else happens.
fn while_writing<T>(shop: &Database, random: &Random, then: impl FnOnce() -> T) -> T {
    let enough = AtomicBool::new(false);
    thread::scope(|scope| {
        let wanted = |_| {
            // What is read waits until the stream has come so far: an endless backlog would only
            // make the test longer.
            thread::sleep(Duration::from_millis(40));
            !enough.load(Ordering::Relaxed)
        };
        let writers = scope.spawn(move || write(shop, random, 300, wanted));
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(then));
        enough.store(true, Ordering::Relaxed);
        writers.join().expect("the writers");
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[test]
fn a_snapshot_goes_on_where_a_killed_daemon_left_it() {
    let test = "snapshot with kills";
    let mut random = Random::from_environment(test);
    let shop = Stack::shared().database(Version::NEWEST, test);
    fill(&shop);
    let pipeline = initial(&shop);
    let writing = random.branch(99);
    let daemon = while_writing(&shop, &writing, || {
        for _ in 0..number("WALTIDE_SNAPSHOT_KILLS", KILLS) {
            let daemon = if random.once_in(4) { pipeline.launch() } else { pipeline.start() };
            thread::sleep(Duration::from_millis(random.of(0..800)));
            daemon.kill();
        }
        let daemon = pipeline.start();
        wait_until_read(&pipeline, &KEYED);
        daemon
    });
    pipeline.wait_until_delivered();
    daemon.terminate();
    for table in KEYED {
        assert_arrived(&shop, &pipeline, table);
    }
}
