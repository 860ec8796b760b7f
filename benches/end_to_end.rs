//! From a backlog in Postgres to records that Kafka has acknowledged, beside what
//! `pg_recvlogical` takes to drain the same backlog to /dev/null.
//!
//! `make bench`; `WALTIDE_BENCH_ROWS` (1,000,000) and `WALTIDE_BENCH_ROUNDS` (5) scale it,
//! `WALTIDE_BENCH_PROPERTIES` is told to librdkafka besides: `{"linger.ms": "50"}`,
//! `WALTIDE_BENCH_WORKLOAD` asks for other rows: see [`workload`], and `WALTIDE_BENCH_DELIVERY` for
//! `exactly_once`. The backlog is written once, and each that drains it gets a copy of the slot that
//! stands before it. Clocks of shared machines are noisy: judge by the ratio within a round and by
//! CPU seconds.

mod daemon;

use std::fmt::Write as _;
use std::process::{Command, Stdio};
use std::time::Instant;

use daemon::{delivery, drop_slot, number, status, stop, until, used};
use waltide_stack::serde_json::json;
use waltide_stack::{Database, Process, Stack, Version};

/// Rows and how they are written.
struct Workload {
    columns: String,
    /// Written before the backlog, for it to change.
    seed: Option<String>,
    /// One transaction: `n` is its first row, less one, and `g` counts its rows.
    statement: String,
    per_transaction: u64,
}

fn workload(name: &str, rows: u64) -> Workload {
    let ten = "id bigint PRIMARY KEY, a int, b int, c bigint, d text, e text,
               f numeric(12,2), g timestamptz, h boolean, i text";
    let ten_values = "n + g, g, g * 2, g * 1000000::bigint, md5(g::text) || md5((g + 1)::text),
                      'some text for row ' || g, g * 1.25, now(), g % 2 = 0, repeat('x', 60)";
    let list = |text: fn(u32) -> String| (1..100).map(text).collect::<Vec<_>>().join(", ");
    let (columns, values, per_transaction) = match name {
        "ten" => (ten.to_owned(), ten_values.to_owned(), 1_000),
        "updates" => (ten.to_owned(), ten_values.to_owned(), 10),
        "one-transaction" => (ten.to_owned(), ten_values.to_owned(), rows),
        "tiny" => ("id bigint PRIMARY KEY, a int".to_owned(), "n + g, g".to_owned(), 1_000),
        "wide" => {
            let columns = list(|column| format!("c{column} int"));
            let values = list(|column| format!("g + {column}"));
            (format!("id bigint PRIMARY KEY, {columns}"), format!("n + g, {values}"), 100)
        }
        // 100 kB that do not compress, so that they are stored as long as they are.
        "toast" => {
            let text =
                "(SELECT string_agg(md5((g * i)::text), '') FROM generate_series(1, 3125) i)";
            ("id bigint PRIMARY KEY, a text".to_owned(), format!("n + g, {text}"), 10)
        }
        _ => panic!("workloads are ten, updates, one-transaction, tiny, wide and toast"),
    };
    let insert =
        |step| format!("INSERT INTO rows SELECT {values} FROM generate_series(1, {step}) g");
    let (seed, statement) = match name {
        "updates" => {
            let update = "UPDATE rows SET a = a + 1 WHERE id BETWEEN n + 1 AND n + 10".to_owned();
            (Some(insert(per_transaction)), update)
        }
        _ => (None, insert(per_transaction)),
    };
    Workload { columns, seed, statement, per_transaction }
}

/// One round's figures.
struct Round {
    rival_s: Option<f64>,
    rival_unix_s: Option<f64>,
    ours_s: f64,
    cpu_s: f64,
    walsender_s: f64,
    peak_kib: u64,
}

/// A backlog, and a slot that stands before it.
struct Bench {
    stack: &'static Stack,
    database: Database,
    rows: u64,
    /// Of the daemon; its publication is called the same.
    slot: String,
}

fn main() {
    let rows = number("WALTIDE_BENCH_ROWS", 1_000_000);
    let rounds = number("WALTIDE_BENCH_ROUNDS", 5);
    let name = std::env::var("WALTIDE_BENCH_WORKLOAD").unwrap_or_else(|_| "ten".to_owned());
    eprintln!("{rounds} rounds of {rows} rows, workload {name}");
    let bench = Bench::prepare(Stack::shared(), &workload(&name, rows), rows);
    let measured: Vec<Round> = (0..rounds).map(|round| bench.measure(round)).collect();
    report(&name, rows, &measured);
}

impl Bench {
    fn prepare(stack: &'static Stack, workload: &Workload, rows: u64) -> Self {
        let database = stack.database(Version::V17, "bench");
        database.execute(&format!("CREATE TABLE rows ({})", workload.columns));
        let step = workload.per_transaction;
        if let Some(seed) = &workload.seed {
            write(&database, seed, rows, step);
        }
        let slot = format!("waltide_{}", database.prefix().replace('-', "_"));
        let bench = Self { stack, database, rows: rows / step * step, slot };
        // The first run makes publication and slot; the backlog is written behind them.
        let daemon = bench.start("before");
        stop(&daemon);
        bench.copy_slot(&bench.slot, &bench.other_slot("before"));
        write(&bench.database, &workload.statement, rows, step);
        bench
    }

    fn other_slot(&self, what: &str) -> String {
        format!("{}_{what}", self.slot)
    }

    /// The daemon, once it streams.
    fn start(&self, pipeline: &str) -> Process {
        let never = json!("never");
        daemon::start(self.stack, &self.database, (&self.slot, pipeline), &delivery(), never)
    }

    fn copy_slot(&self, from: &str, to: &str) {
        self.database
            .execute(&format!("SELECT pg_copy_logical_replication_slot('{from}', '{to}')"));
    }

    fn measure(&self, round: u64) -> Round {
        let url = self.database.url();
        let socket = self.database.postgres().socket_directory();
        let unix = url.rsplit_once('/').map(|(_, name)| {
            let port = self.database.postgres().port();
            format!("host={} port={port} user=postgres dbname={name}", socket.display())
        });
        let rival_s = self.rival(&url);
        let rival_unix_s = unix.and_then(|unix| self.rival(&unix));
        drop_slot(&self.database, &self.slot);
        self.copy_slot(&self.other_slot("before"), &self.slot);
        // A pipeline of its own: to one that knows from its checkpoint that all of this is
        // published already, a slot that was put back brings nothing new.
        let daemon = self.start(&format!("round-{}", round + 1));
        let started = Instant::now();
        let walsender = self.database.value(&format!(
            "SELECT active_pid FROM pg_replication_slots WHERE slot_name = '{}'",
            self.slot
        ));
        until("everything is delivered", || {
            status().filter(|status| {
                status["records"].as_u64() >= Some(self.rows) && status["records_in_flight"] == 0
            })
        });
        let ours_s = started.elapsed().as_secs_f64();
        let (cpu_s, peak_kib) = used(&daemon.pid().to_string());
        let (walsender_s, _) = used(&walsender);
        stop(&daemon);
        let figures = Round { rival_s, rival_unix_s, ours_s, cpu_s, walsender_s, peak_kib };
        eprintln!("round {}: {}", round + 1, line(self.rows, &figures));
        figures
    }

    /// The seconds that `pg_recvlogical` takes with the same options, where it is installed.
    fn rival(&self, url: &str) -> Option<f64> {
        let slot = self.other_slot("rival");
        self.copy_slot(&self.other_slot("before"), &slot);
        let end = self.database.value("SELECT pg_current_wal_lsn()");
        let publication = format!("publication_names={}", self.slot);
        let started = Instant::now();
        let ended = Command::new("pg_recvlogical")
            .args(["-d", url, "--slot", &slot, "--start", "-f", "/dev/null"])
            .args(["-o", "proto_version=4", "-o", "binary=true", "-o", &publication])
            .args(["--endpos", &end, "--no-loop"])
            .stdin(Stdio::null())
            .status();
        let took = started.elapsed().as_secs_f64();
        drop_slot(&self.database, &slot);
        match ended {
            Ok(status) if status.success() => Some(took),
            Ok(status) => panic!("pg_recvlogical ended with {status}"),
            Err(error) => {
                eprintln!("without pg_recvlogical there is no ratio: {error}");
                None
            }
        }
    }
}

/// Runs a statement of so many rows until all are written, each time in a transaction.
fn write(database: &Database, statement: &str, rows: u64, step: u64) {
    let last = rows / step - 1;
    database.execute(&format!(
        "DO $$ DECLARE n bigint; BEGIN FOR k IN 0..{last} LOOP
           n := k::bigint * {step}; {statement}; COMMIT; END LOOP; END $$"
    ));
}

#[expect(clippy::cast_precision_loss, reason = "rows of one run are far below 2^52")]
fn line(rows: u64, round: &Round) -> String {
    let per_s = |seconds: f64| rows as f64 / seconds;
    let per_million = |seconds: f64| seconds * 1e6 / rows as f64;
    let mut text = format!(
        "{:>9.0} rows/s | {:>5.2} CPU s per million | {:>5.1} MiB peak | walsender {:>5.2}",
        per_s(round.ours_s),
        per_million(round.cpu_s),
        round.peak_kib as f64 / 1024.0,
        per_million(round.walsender_s),
    );
    if let Some(rival_s) = round.rival_s {
        let ratio = rival_s / round.ours_s;
        let _ = write!(text, " | pg_recvlogical {:>9.0} rows/s | ratio {ratio:.2}", per_s(rival_s));
    }
    if let Some(rival_s) = round.rival_unix_s {
        let _ = write!(text, " | over its Unix socket {:>9.0}", per_s(rival_s));
    }
    text
}

#[expect(clippy::print_stdout, reason = "the figures are what was asked for")]
fn report(workload: &str, rows: u64, rounds: &[Round]) {
    let sorted = |figure: fn(&Round) -> Option<f64>| {
        let mut values: Vec<f64> = rounds.iter().filter_map(figure).collect();
        values.sort_by(f64::total_cmp);
        values
    };
    let median = |figure| {
        let values = sorted(figure);
        values.get(values.len() / 2).copied()
    };
    let middle = Round {
        rival_s: median(|round| round.rival_s),
        rival_unix_s: median(|round| round.rival_unix_s),
        ours_s: median(|round| Some(round.ours_s)).unwrap_or(0.0),
        cpu_s: median(|round| Some(round.cpu_s)).unwrap_or(0.0),
        walsender_s: median(|round| Some(round.walsender_s)).unwrap_or(0.0),
        peak_kib: rounds.iter().map(|round| round.peak_kib).max().unwrap_or(0),
    };
    eprintln!("median:  {}", line(rows, &middle));
    // Each list from the smallest to the largest: median and spread can be read off.
    let summary = json!({
        "workload": workload, "rows": rows, "rounds": rounds.len(), "peak_kib": middle.peak_kib,
        "seconds": sorted(|round| Some(round.ours_s)),
        "cpu_seconds": sorted(|round| Some(round.cpu_s)),
        "walsender_cpu_seconds": sorted(|round| Some(round.walsender_s)),
        "pg_recvlogical_seconds": sorted(|round| round.rival_s),
        "pg_recvlogical_unix_seconds": sorted(|round| round.rival_unix_s),
        "ratio": sorted(|round| Some(round.rival_s? / round.ours_s)),
    });
    println!("{summary}");
}
