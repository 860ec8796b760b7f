//! A table whose rows all stay of interest, and writers that never empty it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use waltide_stack::{Database, Session};

use crate::support::Random;

/// Some of the large values are out of line, and are left out of the log where they do not change.
const TABLE: &str = "
    CREATE TABLE accounts (n int NOT NULL, id bigint PRIMARY KEY, note text, large text);
    ALTER TABLE accounts ALTER large SET STORAGE EXTERNAL";

/// Rows are spread over blocks, so that a row that changes moves to another.
const CHANGES: &[&str] = &[
    "UPDATE accounts SET n = n + 1, note = 'changed' WHERE id BETWEEN {k} AND {k} + 20",
    "UPDATE accounts SET n = n + 1 WHERE id % 997 = {k} % 997",
    "UPDATE accounts SET large = repeat('{k} ', 900) WHERE id BETWEEN {k} AND {k} + 3",
    "UPDATE accounts SET id = id + 100000000 WHERE id BETWEEN {k} AND {k} + 5",
    "UPDATE accounts SET id = 2 * {k} + 1 - id WHERE id BETWEEN {k} AND {k} + 1",
    "DELETE FROM accounts WHERE id BETWEEN {k} AND {k} + 2",
    "INSERT INTO accounts SELECT 0, g, 'new', repeat('n', 2500) FROM generate_series({k}, {k} + 4) g
       ON CONFLICT (id) DO UPDATE SET n = accounts.n + 1",
    "INSERT INTO accounts SELECT 0, {k} * 1000 + 500000000 + g, 'more', NULL
       FROM generate_series(1, 20) g ON CONFLICT DO NOTHING",
];

pub(crate) fn fill(shop: &Database, rows: u64) {
    shop.execute(TABLE);
    insert(shop, rows);
}

fn insert(shop: &Database, rows: u64) {
    shop.execute(&format!(
        "INSERT INTO accounts (n, id, note, large) SELECT 0, g, md5(g::text),
             CASE WHEN g % 50 = 0 THEN repeat(md5(g::text), 80) END
             FROM generate_series(1, {rows}) g"
    ));
}

/// The same in partitions, between which rows move with their keys.
pub(crate) fn fill_in_partitions(shop: &Database, rows: u64) {
    shop.execute(
        "CREATE TABLE accounts (n int NOT NULL, id bigint PRIMARY KEY, note text, large text)
             PARTITION BY HASH (id);
         CREATE TABLE accounts_0 PARTITION OF accounts FOR VALUES WITH (MODULUS 3, REMAINDER 0);
         CREATE TABLE accounts_1 (large text, note text, id bigint PRIMARY KEY, n int NOT NULL);
         ALTER TABLE accounts ATTACH PARTITION accounts_1 FOR VALUES WITH (MODULUS 3, REMAINDER 1);
         CREATE TABLE accounts_2 PARTITION OF accounts FOR VALUES WITH (MODULUS 3, REMAINDER 2)",
    );
    for part in 0..3 {
        shop.execute(&format!("ALTER TABLE accounts_{part} ALTER large SET STORAGE EXTERNAL"));
    }
    insert(shop, rows);
}

/// Lets writers write, each with a pause after each transaction, while something else happens.
pub(crate) fn while_writing<T>(
    shop: &Database,
    random: &Random,
    (rows, pause): (u64, Duration),
    then: impl FnOnce() -> T,
) -> T {
    let work = |session: &Session, random: &mut Random| {
        transaction(session, random, rows);
        thread::sleep(pause);
    };
    beside(shop, random, 3, work, then)
}

/// The same without a pause, unless the stream is so far behind.
pub(crate) fn at_full_speed<T>(
    shop: &Database,
    random: &Random,
    (rows, backlog): (u64, u64),
    then: impl FnOnce() -> T,
) -> T {
    let work = |session: &Session, random: &mut Random| {
        if !waits_for_the_stream(session, backlog) {
            transaction(session, random, rows);
        }
    };
    beside(shop, random, 3, work, then)
}

/// What the stream is kept behind by: more would only make a test longer.
const BACKLOG_BYTES: u64 = 2 << 20;

/// Lets writers change every row again and again, so that the stream of the database's one slot
/// stays behind, while something else happens. Large values stay as they are.
pub(crate) fn while_updating<T>(
    shop: &Database,
    random: &Random,
    rows: u64,
    then: impl FnOnce() -> T,
) -> T {
    let work = |session: &Session, random: &mut Random| {
        if !waits_for_the_stream(session, BACKLOG_BYTES) {
            let from = random.of(1..rows);
            // Whoever is in the other's way is ended, and goes on.
            let _ = session.try_query(&format!(
                "UPDATE accounts SET n = n + 1 WHERE id BETWEEN {from} AND {from} + 300"
            ));
        }
    };
    beside(shop, random, 2, work, then)
}

/// Whether the stream of the database's one slot is behind by more than that; then some time has
/// passed.
fn waits_for_the_stream(session: &Session, bytes: u64) -> bool {
    let answer = session.query(&format!(
        "SELECT coalesce(pg_current_wal_lsn() - confirmed_flush_lsn, 0) > {bytes}
         FROM pg_replication_slots WHERE database = current_database()"
    ));
    let waits = answer.first().is_none_or(|row| row[0].as_deref() == Some("t"));
    if waits {
        thread::sleep(Duration::from_millis(5));
    }
    waits
}

/// Lets so many writers do their work again and again while something else happens.
fn beside<T>(
    shop: &Database,
    random: &Random,
    writers: u64,
    work: impl Fn(&Session, &mut Random) + Sync,
    then: impl FnOnce() -> T,
) -> T {
    let enough = AtomicBool::new(false);
    thread::scope(|scope| {
        for number in 0..writers {
            let (session, mut random) = (shop.session(), random.branch(number));
            let (enough, work) = (&enough, &work);
            scope.spawn(move || {
                session.execute("SET deadlock_timeout = '20ms'; SET lock_timeout = '500ms'");
                while !enough.load(Ordering::Relaxed) {
                    work(&session, &mut random);
                }
            });
        }
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(then));
        enough.store(true, Ordering::Relaxed);
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn transaction(session: &Session, random: &mut Random, rows: u64) {
    session.execute("BEGIN");
    for _ in 0..random.of(1..4) {
        let key = random.of(1..rows).to_string();
        let change = random.pick(CHANGES).replace("{k}", &key);
        session.execute("SAVEPOINT s");
        if session.try_query(&change).is_err() || random.once_in(8) {
            session.execute("ROLLBACK TO SAVEPOINT s");
        }
    }
    let end = if random.once_in(8) { "ROLLBACK" } else { "COMMIT" };
    session.execute(end);
}
