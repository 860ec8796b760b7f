//! Rows that were there before the pipeline, and those of tables that join it, arrive beside the
//! stream: whatever happens meanwhile, a consumer that skips what repeats holds what the table
//! holds.
//!
//! `WALTIDE_SNAPSHOT_ROWS` says how many rows the large tables have, `WALTIDE_SNAPSHOT_KILLS` how
//! many daemons are killed while they read one.

mod asked;
mod keyless;
mod killed;
mod replica;
pub(crate) mod shop;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use waltide_stack::serde_json::json;
use waltide_stack::{Database, PostgresOptions, Stack, Version, eventually};

use crate::random::write;
use crate::random::writer::SCHEMA;
use crate::support::{
    Change, Daemon, Op, Pipeline, Random, SOON, Table, assert_table_is, beyond_the_last,
    on_each_version,
};

/// Rows of a large table. A few chunks, and enough to be killed in the midst of.
const ROWS: u64 = 20_000;

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

/// Tables that end at about one time, as empty ones do, while others begin.
#[test]
fn every_table_that_has_been_read_is_shown_as_read() {
    let shop = Stack::shared().database(Version::NEWEST, "shown as read");
    for number in 0..12 {
        shop.execute(&format!("CREATE TABLE t{number} (id int PRIMARY KEY, a text)"));
    }
    let pipeline = initial(&shop);
    let daemon = pipeline.start();
    eventually("all of them are shown as read", SOON, || {
        let status = daemon.status();
        let shown = status["snapshots"].as_object()?;
        (shown.len() == 12 && shown.values().all(|of| of["state"] == "done")).then_some(())
    });
    daemon.terminate();
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

/// The stream is always behind, so that what is read waits for it to come past; and whatever is
/// read has been changed by then, large values that the log leaves out included.
#[test]
fn a_table_is_read_while_the_stream_never_catches_up() {
    let test = "snapshot behind a backlog";
    let random = Random::from_environment(test);
    let shop = Stack::shared().database(Version::NEWEST, test);
    let rows = rows() / 5;
    shop::fill(&shop, rows);
    let pipeline = initial(&shop);
    let daemon = shop::while_updating(&shop, &random, rows, || {
        let daemon = pipeline.start();
        eventually("the table is read", 3 * SOON, || {
            pipeline.read_whole().contains(&"public.accounts".to_owned()).then_some(())
        });
        daemon
    });
    pipeline.wait_until_delivered();
    daemon.terminate();
    assert_arrived(&shop, &pipeline, "public.accounts");
}

/// A commit that waits for a standby is in the stream and not yet to be seen: its rows must not be
/// overwritten by what they were before.
#[test]
fn commits_that_wait_for_a_standby_are_not_overwritten_by_what_was_there_before() {
    let server = PostgresOptions::new(Version::NEWEST).start();
    let shop = server.database("snapshot without standby");
    shop.execute("CREATE TABLE accounts (id int PRIMARY KEY, n int)");
    shop.execute("INSERT INTO accounts SELECT g, 0 FROM generate_series(1, 3000) g");
    let pipeline = initial(&shop);
    let session = shop.session();
    // The pipeline is there first, and the table joins while commits wait.
    let daemon = pipeline.start();
    wait_until_read(&pipeline, &["public.accounts"]);
    shop.execute("CREATE TABLE later (id int PRIMARY KEY, n int)");
    shop.execute("INSERT INTO later SELECT g, 0 FROM generate_series(1, 3000) g");
    eventually("it is published", SOON, || {
        let sql = "SELECT count(*) FROM pg_publication_tables WHERE tablename = 'later'";
        (shop.value(sql) == "1").then_some(())
    });
    server.reconfigure(&[("synchronous_standby_names", "nobody")]);
    // The server takes it up a little later.
    let first = eventually("a commit waits", SOON, || {
        let session = shop.session();
        let pending = session.send("UPDATE accounts SET n = n + 1 WHERE id = 8");
        pending.is_blocked_for(Duration::from_millis(300)).then_some((session, pending))
    });
    let waiting: Vec<_> = (0..4)
        .map(|number| {
            let session = shop.session();
            let of = format!("UPDATE later SET n = {number} + 1 WHERE id % 4 = {number}");
            let pending = session.send(&of);
            (session, pending)
        })
        .collect();
    for (_, pending) in &waiting {
        assert!(pending.is_blocked_for(Duration::from_millis(500)), "it does not wait");
    }
    // Others come and go meanwhile, without waiting.
    for _ in 0..20 {
        session
            .execute("SET synchronous_commit = local; UPDATE accounts SET n = n + 1 WHERE id = 7");
        thread::sleep(Duration::from_millis(100));
    }
    assert!(!pipeline.read_whole().contains(&"public.later".to_owned()), "it was read too early");
    server.reconfigure(&[("synchronous_standby_names", "")]);
    waiting.into_iter().chain([first]).for_each(|(_, pending)| drop(pending.wait()));
    wait_until_read(&pipeline, &["public.later"]);
    pipeline.wait_until_delivered();
    daemon.terminate();
    for table in ["public.accounts", "public.later"] {
        assert_arrived(&shop, &pipeline, table);
    }
}

#[test]
fn no_transaction_of_a_snapshot_is_older_than_a_chunk_takes() {
    let shop = Stack::shared().database(Version::NEWEST, "snapshot transactions");
    shop::fill(&shop, rows().max(5 * ROWS));
    let pipeline = initial(&shop);
    let daemon = pipeline.launch();
    let (mut oldest, mut seen) = (0.0_f64, 0);
    eventually("the table is read", SOON, || {
        // The server's own clock, and only what holds a snapshot.
        let age = shop.value(
            "SELECT coalesce(extract(epoch FROM max(clock_timestamp() - xact_start)), -1)
               FROM pg_stat_activity
              WHERE application_name = 'waltide' AND datname = current_database()
                AND backend_type = 'client backend' AND query LIKE 'COPY (SELECT ctid%'",
        );
        let age: f64 = age.parse().expect("a number");
        seen += u32::from(age >= 0.0);
        oldest = oldest.max(age);
        pipeline.read_whole().contains(&"public.accounts".to_owned()).then_some(())
    });
    daemon.terminate();
    eprintln!("the oldest of {seen} was {oldest:.3} s");
    assert!(oldest < 2.0, "a transaction was open for {oldest} s");
    assert_arrived(&shop, &pipeline, "public.accounts");
}

#[test]
fn a_table_that_joins_a_running_pipeline_is_read_as_well() {
    let test = "snapshot of a table that joins";
    let random = Random::from_environment(test);
    let shop = Stack::shared().database(Version::NEWEST, test);
    shop.execute("CREATE TABLE first (id int PRIMARY KEY)");
    let pipeline = initial(&shop);
    let daemon = pipeline.start();
    wait_until_read(&pipeline, &["public.first"]);
    shop::fill(&shop, rows() / 4);
    shop.execute(
        "CREATE TABLE parts (id int PRIMARY KEY, n int) PARTITION BY RANGE (id);
         CREATE TABLE part_1 PARTITION OF parts FOR VALUES FROM (0) TO (1000);
         INSERT INTO parts SELECT g, g FROM generate_series(0, 999) g;
         CREATE TABLE part_2 (n int, id int PRIMARY KEY);
         INSERT INTO part_2 SELECT g, g FROM generate_series(1000, 1999) g",
    );
    let pace = (rows() / 4, Duration::from_millis(20));
    shop::while_writing(&shop, &random, pace, || {
        wait_until_read(&pipeline, &["public.accounts", "public.parts"]);
        shop.execute("ALTER TABLE parts ATTACH PARTITION part_2 FOR VALUES FROM (1000) TO (2000)");
        eventually("the partition is read", SOON, || {
            let read = pipeline.read_whole();
            (read.iter().filter(|table| *table == "public.parts").count() == 2).then_some(())
        });
    });
    pipeline.wait_until_delivered();
    daemon.terminate();
    assert_arrived(&shop, &pipeline, "public.accounts");
    let parts = assert_arrived(&shop, &pipeline, "public.parts");
    assert_eq!(parts.len(), 2000, "the first partition is not read again");
}

#[test]
fn a_table_that_is_rewritten_or_altered_while_it_is_read_starts_over_and_arrives_whole() {
    let test = "snapshot of a table that changes";
    let random = Random::from_environment(test);
    let shop = Stack::shared().database(Version::NEWEST, test);
    shop::fill(&shop, 4 * ROWS);
    // Some seconds for a few megabytes.
    let slowly = json!({"mode": "initial", "parallelism": 1, "max_rate": 1_500_000});
    let pipeline = Pipeline::of(&shop).with("snapshot", slowly);
    let pace = (4 * ROWS, Duration::from_millis(50));
    let daemon = shop::while_writing(&shop, &random, pace, || {
        let daemon = pipeline.start();
        for statement in [
            "VACUUM FULL accounts",
            "ALTER TABLE accounts ADD COLUMN later int DEFAULT 7",
            "ALTER TABLE accounts ALTER n TYPE bigint",
        ] {
            let rows = || daemon.status()["snapshots"]["public.accounts"]["rows"].as_u64();
            let before = rows().unwrap_or(0);
            eventually("some more is read", SOON, || rows().filter(|rows| *rows > before));
            eventually(statement, SOON, || shop.session().try_query(statement).ok());
        }
        wait_until_read(&pipeline, &["public.accounts"]);
        daemon
    });
    pipeline.wait_until_delivered();
    let said = daemon.log().contains("it is read from the start");
    daemon.terminate();
    assert!(said, "nothing happened while it was read");
    assert_arrived(&shop, &pipeline, "public.accounts");
}

/// What a table's reading waits for, and its code.
#[track_caller]
fn assert_fails_with(daemon: &Daemon, table: &str, code: &str) {
    eventually(&format!("{table}: {code}"), SOON, || {
        let status = daemon.status();
        assert_eq!(status["state"], "streaming", "the stream is harmed");
        (status["snapshots"][table]["error"]["code"] == code).then_some(())
    });
}

#[test]
fn what_keeps_a_table_from_being_read_is_said_and_the_stream_goes_on() {
    let server = PostgresOptions::new(Version::NEWEST).start();
    let shop = server.database("snapshot refused");
    shop.execute(
        "CREATE TABLE hidden (id int PRIMARY KEY); CREATE TABLE secret (id int PRIMARY KEY);
         CREATE TABLE locked (id int PRIMARY KEY); CREATE TABLE gone (id int PRIMARY KEY);
         CREATE TABLE open (id int PRIMARY KEY);
         ALTER TABLE secret ENABLE ROW LEVEL SECURITY;
         CREATE PUBLICATION tables FOR TABLE hidden, secret, locked, gone, open;
         CREATE ROLE reader LOGIN REPLICATION;
         CREATE ROLE allowed; GRANT SELECT ON locked TO allowed;
         GRANT SELECT ON secret, open TO reader",
    );
    for table in ["hidden", "secret", "locked", "gone", "open"] {
        shop.execute(&format!("INSERT INTO {table} SELECT generate_series(1, 100)"));
    }
    let url = shop.url_as("reader", None);
    let pipeline = initial(&shop).with("source.url", url).with("source.publication", "tables");
    let daemon = pipeline.start();
    wait_until_read(&pipeline, &["public.open"]);
    assert_fails_with(&daemon, "public.hidden", "WT227");
    assert_fails_with(&daemon, "public.secret", "WT228");
    assert_fails_with(&daemon, "public.gone", "WT227");
    assert_fails_with(&daemon, "public.locked", "WT227");
    let locker = shop.session();
    locker.execute("BEGIN; LOCK TABLE locked IN ACCESS EXCLUSIVE MODE");
    // A grant on the table itself would wait for that lock.
    shop.execute("GRANT allowed TO reader");
    assert_fails_with(&daemon, "public.locked", "WT229");
    for table in ["hidden", "secret", "gone"] {
        shop.execute(&format!("INSERT INTO {table} VALUES (1000)"));
    }
    pipeline.wait_until_delivered();
    assert_eq!(pipeline.changes("public.hidden").len(), 1);
    // Each mend alone is enough.
    locker.execute("COMMIT");
    shop.execute("GRANT SELECT ON hidden TO reader; ALTER TABLE secret DISABLE ROW LEVEL SECURITY");
    shop.execute("DROP TABLE gone");
    wait_until_read(&pipeline, &["public.hidden", "public.secret", "public.locked"]);
    eventually("the table that is gone is said", SOON, || {
        daemon.log().contains("WT230").then_some(())
    });
    pipeline.wait_until_delivered();
    daemon.terminate();
    for table in ["public.hidden", "public.secret", "public.locked", "public.open"] {
        assert_arrived(&shop, &pipeline, table);
    }
}
