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

pub(super) fn fill(shop: &Database, rows: u64) {
    shop.execute(TABLE);
    shop.execute(&format!(
        "INSERT INTO accounts SELECT 0, g, md5(g::text),
             CASE WHEN g % 50 = 0 THEN repeat(md5(g::text), 80) END
             FROM generate_series(1, {rows}) g"
    ));
}

/// Lets writers write, each with a pause after each transaction, while something else happens.
pub(super) fn while_writing<T>(
    shop: &Database,
    random: &Random,
    (rows, pause): (u64, Duration),
    then: impl FnOnce() -> T,
) -> T {
    let enough = AtomicBool::new(false);
    thread::scope(|scope| {
        for number in 0..3 {
            let (session, mut random) = (shop.session(), random.branch(number));
            let enough = &enough;
            scope.spawn(move || {
                session.execute("SET deadlock_timeout = '20ms'; SET lock_timeout = '500ms'");
                while !enough.load(Ordering::Relaxed) {
                    transaction(&session, &mut random, rows);
                    thread::sleep(pause);
                }
            });
        }
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(then));
        enough.store(true, Ordering::Relaxed);
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// What the stream is kept behind by: more would only make a test longer.
const BACKLOG_BYTES: u64 = 2 << 20;

/// Lets writers change every row again and again, so that the stream of the database's one slot
/// stays behind, while something else happens. Large values stay as they are.
pub(super) fn while_updating<T>(
    shop: &Database,
    random: &Random,
    rows: u64,
    then: impl FnOnce() -> T,
) -> T {
    let enough = AtomicBool::new(false);
    let is_behind = format!(
        "SELECT coalesce(pg_current_wal_lsn() - confirmed_flush_lsn, 0) > {BACKLOG_BYTES}
         FROM pg_replication_slots WHERE database = current_database()"
    );
    thread::scope(|scope| {
        for number in 0..2 {
            let (session, mut random) = (shop.session(), random.branch(number));
            let (enough, is_behind) = (&enough, &is_behind);
            scope.spawn(move || {
                session.execute("SET deadlock_timeout = '20ms'; SET lock_timeout = '500ms'");
                while !enough.load(Ordering::Relaxed) {
                    let answer = session.query(is_behind);
                    if answer.first().is_none_or(|row| row[0].as_deref() == Some("t")) {
                        thread::sleep(Duration::from_millis(5));
                        continue;
                    }
                    let from = random.of(1..rows);
                    // Whoever is in the other's way is ended, and goes on.
                    let _ = session.try_query(&format!(
                        "UPDATE accounts SET n = n + 1 WHERE id BETWEEN {from} AND {from} + 300"
                    ));
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
