//! What applications do: several writers, every operation, all that transactions can be.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use postgres::{Client, NoTls};

use crate::audit::watch;
use crate::{Random, Seen};

/// A table of each kind, and its key. The partitions' columns stand in another order than their parent's.
const TABLES: &str = "
    CREATE TABLE items (id bigint PRIMARY KEY, v bigint, n int, label text, ok boolean);
    CREATE TABLE lines (v bigint, number int, item int, note text, PRIMARY KEY (item, number));
    ALTER TABLE lines REPLICA IDENTITY FULL;
    CREATE TABLE documents (version int, id int PRIMARY KEY, v bigint, body text, extra text);
    ALTER TABLE documents ALTER body SET STORAGE EXTERNAL, ALTER extra SET STORAGE EXTERNAL;
    CREATE TABLE readings (region int, id int, v bigint, value int, PRIMARY KEY (region, id))
        PARTITION BY LIST (region);
    CREATE TABLE readings_0 PARTITION OF readings FOR VALUES IN (0);
    CREATE TABLE readings_1 (value int, v bigint, id int NOT NULL, region int NOT NULL);
    ALTER TABLE readings ATTACH PARTITION readings_1 FOR VALUES IN (1, 2);
    CREATE TABLE events (v bigint, what text, n int);
";

const KEYS: [(&str, &str); 5] = [
    ("items", "id"),
    ("lines", "item,number"),
    ("documents", "id"),
    ("readings", "region,id"),
    ("events", ""),
];

/// How many these are, that of the partitions being one.
pub(crate) const TABLE_COUNT: usize = KEYS.len();

/// What can be done. `{lo}` and `{hi}` bound the rows, `{r}` is a random number.
const CHANGES: &[&str] = &[
    "INSERT INTO items SELECT g, 0, {r}, 'item ' || {r}, g % 3 = 0
       FROM generate_series({lo}, {hi}) g ON CONFLICT (id) DO UPDATE SET n = items.n + 1",
    "INSERT INTO items SELECT g, 0, {r}, NULL, NULL FROM generate_series({lo}, {hi}) g
       ON CONFLICT DO NOTHING",
    "UPDATE items SET n = n + {r}, label = label || '.' WHERE id BETWEEN {lo} AND {hi}",
    "UPDATE items SET id = id + 1000 * {r} WHERE id = {lo}",
    "UPDATE items SET id = {lo} WHERE id = (SELECT min(id) FROM items WHERE id > 1000)",
    "DELETE FROM items WHERE id BETWEEN {lo} AND {hi}",
    "DELETE FROM items WHERE id > 1000",
    "INSERT INTO lines SELECT 0, g % 5, g / 5, 'note ' || {r} FROM generate_series({lo}, {hi}) g
       ON CONFLICT DO NOTHING",
    "UPDATE lines SET note = {r} WHERE item BETWEEN {lo} / 5 AND {hi} / 5",
    "UPDATE lines SET number = number + 5 WHERE item = {lo} / 5 AND number < 5",
    "DELETE FROM lines WHERE item BETWEEN {lo} / 5 AND {hi} / 5",
    "INSERT INTO documents SELECT 0, g, 0, repeat(md5(g::text || {r}), 70), repeat('x', 2100)
       FROM generate_series({lo}, least({hi}, {lo} + 20)) g ON CONFLICT DO NOTHING",
    "UPDATE documents SET version = version + 1 WHERE id BETWEEN {lo} AND {hi}",
    "UPDATE documents SET body = repeat('{r} ', 1200) WHERE id BETWEEN {lo} AND {hi}",
    "UPDATE documents SET id = id + 1000 * {r} WHERE id = {lo}",
    "DELETE FROM documents WHERE id BETWEEN {lo} AND {lo} + 10 OR id > 1000",
    "INSERT INTO readings SELECT g % 3, g, 0, {r} FROM generate_series({lo}, {hi}) g
       ON CONFLICT DO NOTHING",
    "UPDATE readings SET value = value + {r} WHERE id BETWEEN {lo} AND {hi}",
    "UPDATE readings SET region = (region + 1) % 3 WHERE id = {lo}",
    "DELETE FROM readings WHERE id BETWEEN {lo} AND {hi}",
    "INSERT INTO events SELECT 0, 'event', g FROM generate_series({lo}, {hi}) g",
    "COPY events (n) FROM PROGRAM 'seq {lo} {hi}'",
    "COPY items (id, n) FROM PROGRAM 'seq -f \"%.0f\t{r}\" {far} {farther}'",
];

/// Rarely done.
const SELDOM: &[&str] = &[
    "TRUNCATE items",
    "TRUNCATE lines, documents",
    "TRUNCATE events",
    "TRUNCATE readings",
    "ALTER TABLE items ADD COLUMN IF NOT EXISTS c{c} int DEFAULT {r}",
    "ALTER TABLE items DROP COLUMN IF EXISTS c{c}",
    "ALTER TABLE documents ADD COLUMN IF NOT EXISTS c{c} text",
    "ALTER TABLE documents DROP COLUMN IF EXISTS c{c}",
    "ALTER TABLE lines ADD COLUMN IF NOT EXISTS c{c} boolean DEFAULT true",
    "ALTER TABLE lines DROP COLUMN IF EXISTS c{c}",
];

/// Keys lie below this, where rows were not moved.
const KEY_RANGE: u64 = 300;

/// One statement changes so many rows.
const ROWS: [u64; 12] = [1, 1, 1, 1, 2, 2, 3, 3, 5, 5, 8, 20];

/// Or so many, seldom: these are streamed before they commit.
const MANY_ROWS: [u64; 3] = [60, 200, 600];

const WRITERS: u64 = 3;

/// Makes the tables.
pub(crate) fn create_tables(client: &mut Client) -> Result<(), postgres::Error> {
    client.batch_execute(TABLES)
}

/// Changes that leave nothing behind, so that the stream has something to carry.
pub(crate) fn stir(client: &mut Client) -> Result<(), postgres::Error> {
    client.batch_execute("INSERT INTO items (id) VALUES (-1); DELETE FROM items WHERE id = -1")
}

/// Whether a record is of these, which may be read late.
pub(crate) fn is_stirred(seen: &Seen) -> bool {
    seen.key.as_deref() == Some("id=-1")
}

/// From here on the audit sees what is done to the tables.
pub(crate) fn watch_tables(client: &mut Client) -> Result<(), postgres::Error> {
    let watches: String = KEYS.iter().map(|(table, key)| watch(table, key)).collect();
    client.batch_execute(&watches)
}

/// The name of the table that joins in a cycle.
pub(crate) fn joined(cycle: u64) -> String {
    format!("joined_{cycle}")
}

/// Whether a table, named with its schema, is one that joined.
pub(crate) fn is_joined(table: &str) -> bool {
    table.starts_with("public.joined_")
}

/// A table joins, with rows from before.
pub(crate) fn join(client: &mut Client, cycle: u64) -> Result<(), postgres::Error> {
    let table = joined(cycle);
    client.batch_execute(&format!(
        "CREATE TABLE {table} (id int PRIMARY KEY, v bigint, label text);
         {} INSERT INTO {table} SELECT g, 0, 'before' FROM generate_series(1, 100) g;
         UPDATE {table} SET label = 'changed' WHERE id % 3 = 0;
         DELETE FROM {table} WHERE id % 10 = 0",
        watch(&table, "id")
    ))
}

/// Ends all transactions that wait for their second phase, most with a commit.
pub(crate) fn finish_prepared(client: &mut Client) -> Result<(), String> {
    let told = |error: postgres::Error| format!("prepared transactions: {error}");
    let open = client.query("SELECT gid FROM pg_prepared_xacts ORDER BY gid", &[]).map_err(told)?;
    for row in open {
        let name: String = row.get(0);
        let how = if name.ends_with(['0', '5']) { "ROLLBACK" } else { "COMMIT" };
        client.batch_execute(&format!("{how} PREPARED '{name}'")).map_err(told)?;
    }
    Ok(())
}

/// What the next tables that joined are written with.
const CHANGES_OF_JOINED: &[&str] = &[
    "INSERT INTO {t} SELECT g, 0, {r} FROM generate_series({lo}, {hi}) g ON CONFLICT DO NOTHING",
    "UPDATE {t} SET label = {r} WHERE id BETWEEN {lo} AND {hi}",
    "DELETE FROM {t} WHERE id BETWEEN {lo} AND {hi}",
];

/// Lets writers write, or has them pause.
#[derive(Default)]
struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    paused: bool,
    ended: bool,
    /// Writers that are in the middle of something.
    busy: u64,
    /// The table that joined last.
    joined: Option<String>,
    transactions: u64,
}

impl Gate {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, wanted: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let waited = self.changed.wait_while(self.state(), |state| !wanted(state));
        waited.unwrap_or_else(PoisonError::into_inner)
    }
}

/// The writers at work.
pub(crate) struct Workload {
    gate: Arc<Gate>,
    writers: Vec<JoinHandle<()>>,
}

impl Workload {
    /// Lets them begin; each rests so long between two transactions, about.
    pub(crate) fn start(url: &str, seed: u64, rest_ms: u64) -> Self {
        let gate = Arc::new(Gate::default());
        let writers = (0..WRITERS).map(|number| {
            let random = Random::new(seed ^ 0x57A7).branch(number);
            let (url, gate) = (url.to_owned(), Arc::clone(&gate));
            let prepared = Vec::new();
            let mut writer = Writer { number, url, random, gate, prepared, rest_ms, count: 0 };
            thread::spawn(move || writer.run())
        });
        let writers = writers.collect();
        Self { gate, writers }
    }

    /// Waits until all writers are between two transactions, and keeps them there.
    pub(crate) fn pause(&self) {
        self.gate.state().paused = true;
        drop(self.gate.wait(|state| state.busy == 0));
    }

    /// Lets them go on.
    pub(crate) fn resume(&self) {
        self.gate.state().paused = false;
        self.gate.changed.notify_all();
    }

    /// They write to this table as well.
    pub(crate) fn joined(&self, table: String) {
        self.gate.state().joined = Some(table);
    }

    /// How many transactions they have begun.
    pub(crate) fn transactions(&self) -> u64 {
        self.gate.state().transactions
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        self.gate.state().ended = true;
        self.gate.changed.notify_all();
        for writer in self.writers.drain(..) {
            let _ = writer.join();
        }
    }
}

struct Writer {
    number: u64,
    url: String,
    random: Random,
    gate: Arc<Gate>,
    /// Transactions that wait for their second phase.
    prepared: Vec<String>,
    rest_ms: u64,
    count: u64,
}

impl Writer {
    fn run(&mut self) {
        loop {
            let Some(mut client) = self.connect() else { return };
            // The connection is lost: what was under way did or did not commit, the audit knows.
            while self.turn(&mut client) {}
        }
    }

    /// None when it is over.
    fn connect(&self) -> Option<Client> {
        loop {
            if self.gate.state().ended {
                return None;
            }
            if let Ok(mut client) = Client::connect(&self.url, NoTls) {
                // Writers get in each other's way, and then one of them gives up soon.
                let limits = "SET deadlock_timeout = '20ms'; SET lock_timeout = '300ms'";
                if client.batch_execute(limits).is_ok() {
                    return Some(client);
                }
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// One transaction, when it may; false when the connection is lost or it is over.
    fn turn(&mut self, client: &mut Client) -> bool {
        let joined = {
            let mut state = self.gate.wait(|state| state.ended || !state.paused);
            if state.ended {
                return false;
            }
            state.busy += 1;
            state.transactions += 1;
            state.joined.clone()
        };
        let done = self.second_phase(client).and_then(|()| self.transaction(client, joined));
        self.gate.state().busy -= 1;
        self.gate.changed.notify_all();
        thread::sleep(Duration::from_millis(self.random.of(0..2 * self.rest_ms + 1)));
        done.is_ok() || !client.is_closed()
    }

    fn transaction(
        &mut self,
        client: &mut Client,
        joined: Option<String>,
    ) -> Result<(), postgres::Error> {
        self.count += 1;
        client.batch_execute("BEGIN")?;
        for _ in 0..self.random.of(1..5) {
            let change = self.change(joined.as_deref());
            client.batch_execute("SAVEPOINT s")?;
            let done = client.batch_execute(&change).is_ok();
            if !done || self.random.once_in(6) {
                client.batch_execute("ROLLBACK TO SAVEPOINT s")?;
            } else if self.random.once_in(2) {
                client.batch_execute("RELEASE SAVEPOINT s")?;
            }
        }
        match self.random.of(0..16) {
            0 | 1 => client.batch_execute("ROLLBACK"),
            2 => {
                let name = format!("w{}_{}", self.number, self.count);
                // It may be prepared though we never hear of it.
                self.prepared.push(name.clone());
                client.batch_execute(&format!("PREPARE TRANSACTION '{name}'"))
            }
            _ => client.batch_execute("COMMIT"),
        }
    }

    /// Some time after the first phase.
    fn second_phase(&mut self, client: &mut Client) -> Result<(), postgres::Error> {
        let open = std::mem::take(&mut self.prepared);
        for name in open {
            if !self.random.once_in(3) {
                self.prepared.push(name);
                continue;
            }
            let how = if self.random.once_in(4) { "ROLLBACK" } else { "COMMIT" };
            if let Err(error) = client.batch_execute(&format!("{how} PREPARED '{name}'"))
                && error.as_db_error().is_none()
            {
                // Without an answer it may be there still.
                self.prepared.push(name);
                return Err(error);
            }
        }
        Ok(())
    }

    fn change(&mut self, joined: Option<&str>) -> String {
        let change = match (self.random.of(0..50), joined) {
            (0, _) => *self.random.pick(SELDOM),
            (1..6, Some(_)) => *self.random.pick(CHANGES_OF_JOINED),
            _ => *self.random.pick(CHANGES),
        };
        let low = self.random.of(0..KEY_RANGE);
        let rows = if self.random.once_in(40) { &MANY_ROWS[..] } else { &ROWS[..] };
        let high = low + self.random.pick(rows) - 1;
        let far = 1_000_000 + 10_000 * self.random.of(0..1_000_000);
        change
            .replace("{lo}", &low.to_string())
            .replace("{hi}", &high.to_string())
            .replace("{farther}", &(far + high - low).to_string())
            .replace("{far}", &far.to_string())
            .replace("{r}", &self.random.of(1..100).to_string())
            .replace("{c}", &self.random.of(0..3).to_string())
            .replace("{t}", joined.unwrap_or_default())
    }
}
