//! One writer of random transactions.

use std::collections::BTreeSet;

use waltide_stack::Session;

use crate::support::Random;

/// A table of each kind. The partitions' columns stand in another order than their parent's.
pub(super) const SCHEMA: &str = "
    CREATE TABLE items (
        id bigint PRIMARY KEY, label text, n int NOT NULL, amount numeric(12,3),
        at timestamptz, ok boolean, tag uuid, raw bytea, doc jsonb, sizes int[]);
    CREATE TABLE lines (
        number int, item int, note text, day date, PRIMARY KEY (item, number));
    ALTER TABLE lines REPLICA IDENTITY FULL;
    CREATE TABLE events (at timestamp, what text, n int);
    CREATE TABLE notes (a int, b text, c numeric);
    ALTER TABLE notes REPLICA IDENTITY FULL;
    CREATE TABLE documents (version int NOT NULL, id int PRIMARY KEY, body text, extra text);
    ALTER TABLE documents ALTER body SET STORAGE EXTERNAL, ALTER extra SET STORAGE EXTERNAL;
    CREATE TABLE readings (
        region int, id int, value numeric, unit text, PRIMARY KEY (region, id))
        PARTITION BY LIST (region);
    CREATE TABLE readings_0 PARTITION OF readings FOR VALUES IN (0);
    CREATE TABLE readings_1 (unit text, value numeric, id int NOT NULL, gone int, region int NOT NULL);
    ALTER TABLE readings_1 DROP COLUMN gone;
    ALTER TABLE readings ATTACH PARTITION readings_1 FOR VALUES IN (1);
    CREATE TABLE readings_2 PARTITION OF readings FOR VALUES IN (2, 3);
    CREATE TABLE journal (writer int, number int, PRIMARY KEY (writer, number));
";

/// What can be done to a table. `{lo}` and `{hi}` bound the rows, `{r}` is a random number.
const CHANGES: &[&str] = &[
    "INSERT INTO items SELECT g, 'item ' || g, g % 7, g / 8.0, now() - g * interval '1 s',
       g % 3 = 0, md5(g::text || {r})::uuid, decode(md5(g::text), 'hex'),
       jsonb_build_object('g', g, 'r', {r}), ARRAY[g, NULL, {r}]
       FROM generate_series({lo}, {hi}) g ON CONFLICT DO NOTHING",
    "INSERT INTO items SELECT g, NULL, {r}, NULL, NULL, NULL, NULL, NULL, NULL, NULL
       FROM generate_series({lo}, {hi}) g ON CONFLICT (id) DO UPDATE SET n = items.n + 1",
    "UPDATE items SET n = n + {r}, label = label || '.', at = clock_timestamp()
       WHERE id BETWEEN {lo} AND {hi}",
    "UPDATE items SET id = id + {r} * 100000 WHERE id BETWEEN {lo} AND {hi}",
    "UPDATE items SET id = {lo} + {hi} - id WHERE id BETWEEN {lo} AND {lo} + 50",
    "DELETE FROM items WHERE id BETWEEN {lo} AND {hi}",
    "INSERT INTO lines SELECT g % 5, g / 5, 'note ' || {r}, date '2020-01-01' + g
       FROM generate_series({lo}, {hi}) g ON CONFLICT DO NOTHING",
    "UPDATE lines SET note = NULL, day = day + 1 WHERE item BETWEEN {lo} / 5 AND {hi} / 5",
    "UPDATE lines SET number = number + 5 WHERE item BETWEEN {lo} / 5 AND {hi} / 5",
    "DELETE FROM lines WHERE item BETWEEN {lo} / 5 AND {hi} / 5",
    "INSERT INTO events SELECT now(), 'event', g % 3 FROM generate_series({lo}, {hi}) g",
    "COPY events (n) FROM PROGRAM 'seq {lo} {hi}'",
    "INSERT INTO notes SELECT g % 10, 'note', {r} FROM generate_series({lo}, {hi}) g",
    "UPDATE notes SET b = b || 's', c = NULL WHERE a = {r} % 10",
    "DELETE FROM notes WHERE a = {r} % 10",
    "INSERT INTO documents SELECT 0, g, repeat(md5(g::text || {r}), 80), repeat('x', 2100)
       FROM generate_series({lo}, least({hi}, {lo} + 100)) g ON CONFLICT DO NOTHING",
    "UPDATE documents SET version = version + 1 WHERE id BETWEEN {lo} AND {hi}",
    "UPDATE documents SET body = repeat('{r} ', 1200) WHERE id BETWEEN {lo} AND {hi}",
    "UPDATE documents SET id = id + {r} * 100000 WHERE id BETWEEN {lo} AND {hi}",
    "DELETE FROM documents WHERE id BETWEEN {lo} AND {lo} + 10",
    "INSERT INTO readings SELECT g % 4, g, g / 3.0, 'mm' FROM generate_series({lo}, {hi}) g
       ON CONFLICT DO NOTHING",
    "UPDATE readings SET value = value * 2, unit = 'm' WHERE id BETWEEN {lo} AND {hi}",
    "UPDATE readings SET region = (region + {r}) % 4 WHERE id BETWEEN {lo} AND {hi}",
    "DELETE FROM readings WHERE id BETWEEN {lo} AND {hi}",
];

/// Rarely done, for nothing is left then.
const TRUNCATES: &[&str] = &[
    "TRUNCATE items",
    "TRUNCATE lines, notes",
    "TRUNCATE events",
    "TRUNCATE documents, items RESTART IDENTITY CASCADE",
    "TRUNCATE readings",
];

/// Keys of rows lie below this, where they were not moved.
const KEYS: u64 = 20_000;

/// One transaction changes up to this many rows at a time.
const MOST_ROWS: u64 = 5_000;

/// A writer with a connection of its own.
pub(super) struct Writer {
    number: u64,
    session: Session,
    random: Random,
}

impl Writer {
    pub(super) fn new(number: u64, session: Session, random: Random) -> Self {
        // Writers get in each other's way, and then one of them gives up soon.
        session.execute("SET deadlock_timeout = '20ms'; SET lock_timeout = '500ms'");
        Self { number, session, random }
    }

    /// Runs transactions and returns the names of those that were committed.
    pub(super) fn run(&mut self, transactions: u64) -> BTreeSet<String> {
        (0..transactions).filter_map(|number| self.transaction(number)).collect()
    }

    fn transaction(&mut self, number: u64) -> Option<String> {
        self.session.execute("BEGIN");
        for _ in 0..self.random.of(1..6) {
            let change = self.change();
            self.session.execute("SAVEPOINT s");
            let done = self.session.try_query(&change).is_ok();
            if !done || self.random.once_in(6) {
                self.session.execute("ROLLBACK TO SAVEPOINT s");
            } else if self.random.once_in(2) {
                self.session.execute("RELEASE SAVEPOINT s");
            }
        }
        let writer = self.number;
        self.session.execute(&format!("INSERT INTO journal VALUES ({writer}, {number})"));
        if self.random.once_in(8) {
            self.session.execute("ROLLBACK");
            return None;
        }
        self.session.execute("COMMIT");
        Some(format!("{writer}/{number}"))
    }

    fn change(&mut self) -> String {
        if self.random.once_in(40) {
            return (*self.random.pick(TRUNCATES)).to_owned();
        }
        let most = *self.random.pick(&[3, 3, 3, 3, 20, 20, 20, 200, 200, MOST_ROWS]);
        let low = self.random.of(0..KEYS);
        let high = low + self.random.of(0..most);
        let change = *self.random.pick(CHANGES);
        change
            .replace("{lo}", &low.to_string())
            .replace("{hi}", &high.to_string())
            .replace("{r}", &self.random.of(1..100).to_string())
    }
}
