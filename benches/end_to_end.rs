//! From a backlog in Postgres to records that Kafka has acknowledged, beside what
//! `pg_recvlogical` takes to drain the same backlog to /dev/null.
//!
//! `make bench`; `WALTIDE_BENCH_ROWS` (1,000,000) and `WALTIDE_BENCH_ROUNDS` (5) scale it. Clocks
//! of shared machines are noisy: judge by the ratio within a round and by CPU seconds.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use waltide_stack::serde_json::{self, Value, json};
use waltide_stack::{Database, Process, Stack, Version};

/// Where the daemon under measurement answers.
const HTTP: &str = "127.0.0.1:19464";

/// No round takes longer on any machine worth measuring on.
const PATIENCE: Duration = Duration::from_secs(600);

const TABLE: &str =
    "CREATE TABLE rows (id bigint PRIMARY KEY, a int, b int, c bigint, d text, e text,
                     f numeric(12,2), g timestamptz, h boolean, i text)";

/// One round's figures.
struct Round {
    rival_s: Option<f64>,
    ours_s: f64,
    cpu_s: f64,
    peak_kib: u64,
}

fn main() {
    let number = |name: &str, default: u64| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let rows = number("WALTIDE_BENCH_ROWS", 1_000_000);
    let rounds = number("WALTIDE_BENCH_ROUNDS", 5);
    let stack = Stack::shared();
    eprintln!("{rounds} rounds of {rows} rows of ten columns, in transactions of 1,000");
    let measured: Vec<Round> = (0..rounds).map(|round| measure(stack, rows, round)).collect();
    report(rows, &measured);
}

fn measure(stack: &Stack, rows: u64, round: u64) -> Round {
    let database = stack.database(Version::V17, "bench");
    database.execute(TABLE);
    let config = config(stack, &database);
    // The first run makes publication and slot; the backlog is written behind them.
    let daemon = start(&config);
    until("the daemon is ready", || status().filter(|status| status["state"] == "streaming"));
    daemon.signal("TERM");
    assert_eq!(daemon.wait(PATIENCE), Some(0), "{}", daemon.log());
    let name = database.prefix().replace('-', "_");
    database
        .execute(&format!("SELECT pg_create_logical_replication_slot('{name}_rival', 'pgoutput')"));
    database.execute(&format!(
        "DO $$ BEGIN FOR k IN 0..{last} LOOP
           INSERT INTO rows SELECT k * 1000 + g, g, g * 2, g * 1000000,
             md5(g::text) || md5((g + 1)::text), 'some text for row ' || g, g * 1.25, now(),
             g % 2 = 0, repeat('x', 60) FROM generate_series(1, 1000) g;
           COMMIT; END LOOP; END $$",
        last = rows / 1_000 - 1
    ));
    let rival_s = rival(&database, &name);
    let daemon = start(&config);
    until("changes flow", || status().filter(|status| status["state"] == "streaming"));
    let started = Instant::now();
    until("everything is delivered", || {
        status().filter(|status| {
            status["records"].as_u64() >= Some(rows) && status["records_in_flight"] == 0
        })
    });
    let ours_s = started.elapsed().as_secs_f64();
    let (cpu_s, peak_kib) = used(daemon.pid());
    daemon.signal("TERM");
    assert_eq!(daemon.wait(PATIENCE), Some(0), "{}", daemon.log());
    let figures = Round { rival_s, ours_s, cpu_s, peak_kib };
    eprintln!("round {}: {}", round + 1, line(rows, &figures));
    figures
}

/// The seconds that `pg_recvlogical` takes with the same options, where it is installed.
fn rival(database: &Database, name: &str) -> Option<f64> {
    let end = database.value("SELECT pg_current_wal_lsn()");
    let started = Instant::now();
    let ended = Command::new("pg_recvlogical")
        .args([
            "-d",
            &database.url(),
            "--slot",
            &format!("{name}_rival"),
            "--start",
            "-f",
            "/dev/null",
        ])
        .args(["-o", "proto_version=4", "-o", "binary=true"])
        .args(["-o", &format!("publication_names=waltide_{name}"), "--endpos", &end, "--no-loop"])
        .stdin(Stdio::null())
        .status();
    match ended {
        Ok(status) if status.success() => Some(started.elapsed().as_secs_f64()),
        Ok(status) => panic!("pg_recvlogical ended with {status}"),
        Err(error) => {
            eprintln!("without pg_recvlogical there is no ratio: {error}");
            None
        }
    }
}

/// A file that goes with the database's name into the build's own directory.
fn config(stack: &Stack, database: &Database) -> std::path::PathBuf {
    let directory = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = directory.join(format!("{}.yaml", database.prefix()));
    let text = json!({
        "pipelines": { database.prefix(): {
            "source": { "url": database.url(), "tables": ["public.*"] },
            "kafka": { "bootstrap_servers": stack.kafka().bootstrap(), "partitions": 1 },
            "registry": { "url": stack.registry().url() },
            "snapshot": "never",
        }},
        "http": { "listen": HTTP },
    });
    fs::write(&path, text.to_string()).expect("the build's directory can be written");
    path
}

fn start(config: &std::path::Path) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_waltide"));
    command.arg("run").arg("--config").arg(config);
    Process::start("waltide", &command)
}

/// What the daemon says of its pipeline; none while it does not answer.
fn status() -> Option<Value> {
    let mut stream = TcpStream::connect(HTTP).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET /api/status HTTP/1.1\r\nHost: {HTTP}\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    let mut status: Value = serde_json::from_str(body).ok()?;
    Some(status["pipelines"][0].take())
}

fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    waltide_stack::eventually(what, PATIENCE, &mut ask)
}

/// CPU seconds and the largest resident size of a process.
fn used(pid: u32) -> (f64, u64) {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rsplit(") ").next().unwrap_or_default();
    let ticks: u64 =
        after_name.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|text| text.split_whitespace().next()?.parse().ok());
    #[expect(clippy::cast_precision_loss, reason = "ticks of one run are far below 2^52")]
    let seconds = ticks as f64 / 100.0;
    (seconds, peak.unwrap_or(0))
}

#[expect(clippy::cast_precision_loss, reason = "rows of one run are far below 2^52")]
fn line(rows: u64, round: &Round) -> String {
    let per_s = |seconds: f64| rows as f64 / seconds;
    let mut text = format!(
        "{:>9.0} rows/s | {:>5.2} CPU s per million | {:>5.1} MiB peak",
        per_s(round.ours_s),
        round.cpu_s * 1e6 / rows as f64,
        round.peak_kib as f64 / 1024.0,
    );
    if let Some(rival_s) = round.rival_s {
        let ratio = rival_s / round.ours_s;
        let _ = write!(text, " | pg_recvlogical {:>9.0} rows/s | ratio {ratio:.2}", per_s(rival_s));
    }
    text
}

#[expect(clippy::print_stdout, reason = "the figures are what was asked for")]
fn report(rows: u64, rounds: &[Round]) {
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    };
    let of = |figure: fn(&Round) -> Option<f64>| median(rounds.iter().filter_map(figure).collect());
    let middle = Round {
        rival_s: of(|round| round.rival_s),
        ours_s: of(|round| Some(round.ours_s)).unwrap_or(0.0),
        cpu_s: of(|round| Some(round.cpu_s)).unwrap_or(0.0),
        peak_kib: rounds.iter().map(|round| round.peak_kib).max().unwrap_or(0),
    };
    let ratio = of(|round| Some(round.rival_s? / round.ours_s));
    eprintln!("median:  {}", line(rows, &middle));
    let summary = json!({
        "rows": rows, "rounds": rounds.len(), "seconds": middle.ours_s, "cpu_seconds": middle.cpu_s,
        "peak_kib": middle.peak_kib, "pg_recvlogical_seconds": middle.rival_s, "ratio": ratio,
    });
    println!("{summary}");
}
