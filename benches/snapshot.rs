//! Reading a table into Kafka, beside what `COPY ... TO STDOUT` of it takes through `psql` to
//! /dev/null on one connection.
//!
//! `make snapshot-bench`; `WALTIDE_BENCH_ROWS` (1,000,000) and `WALTIDE_BENCH_ROUNDS` (5) scale it,
//! `WALTIDE_BENCH_DELIVERY` asks for `exactly_once`. Each round reads the same table with one
//! connection and with two, each time by a new pipeline. Clocks of shared machines are noisy: judge
//! by the ratio within a round and by CPU seconds.

mod daemon;

use std::process::{Command, Stdio};
use std::time::Instant;

use daemon::{delivery, drop_slot, number, status, stop, until, used};
use waltide_stack::serde_json::{Value, json};
use waltide_stack::{Database, Stack, Version};

/// Ten columns of the usual kinds, 250 bytes a row.
const TABLE: &str = "
    CREATE TABLE rows (id bigint PRIMARY KEY, a int, b int, c bigint, d text, e text,
                       f numeric(12,2), g timestamptz, h boolean, i text)";
const ROWS: &str = "
    INSERT INTO rows SELECT g, g, g * 2, g * 1000000::bigint, md5(g::text) || md5((g + 1)::text),
        'some text for row ' || g, g * 1.25, now(), g % 2 = 0, repeat('x', 60)
        FROM generate_series(1, $) g";

/// Who reads, and what that took.
struct Reading {
    who: &'static str,
    seconds: f64,
    cpu_s: f64,
}

fn main() {
    let rows = number("WALTIDE_BENCH_ROWS", 1_000_000);
    let rounds = number("WALTIDE_BENCH_ROUNDS", 5);
    eprintln!("{rounds} rounds of {rows} rows");
    let database = Stack::shared().database(Version::V17, "bench");
    database.execute(TABLE);
    database.execute(&ROWS.replace('$', &rows.to_string()));
    // Hint bits and the map of what is visible are not set by whoever comes first.
    database.execute("VACUUM ANALYZE rows");
    let mut all = Vec::new();
    for round in 1..=rounds {
        all.push(copy(&database, "COPY as text", "text"));
        all.push(copy(&database, "COPY in binary", "binary"));
        all.push(read(&database, "snapshot, 1 connection", &format!("one-{round}"), 1));
        all.push(read(&database, "snapshot, 2 connections", &format!("two-{round}"), 2));
        eprintln!("round {round} of {rounds}");
    }
    report(rows, &all);
}

/// The table through `psql`, whose own CPU time counts.
fn copy(database: &Database, who: &'static str, format: &str) -> Reading {
    let sql = format!("COPY rows TO STDOUT (FORMAT {format})");
    let started = Instant::now();
    let ended = Command::new("bash")
        .args(["-c", "TIMEFORMAT='%U %S'; time psql -X -q -c \"$1\" \"$2\" >/dev/null", "bash"])
        .args([&sql, &database.url()])
        .stdin(Stdio::null())
        .output()
        .expect("bash");
    let seconds = started.elapsed().as_secs_f64();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "psql: {said}");
    let cpu_s = said.split_whitespace().filter_map(|text| text.parse::<f64>().ok()).sum();
    Reading { who, seconds, cpu_s }
}

/// The table by a new pipeline, until Kafka has all of it and consumers are told.
fn read(database: &Database, who: &'static str, name: &str, connections: u32) -> Reading {
    let slot = format!("waltide_{}_{}", database.prefix(), name).replace('-', "_");
    let snapshot = json!({ "mode": "initial", "parallelism": connections });
    let daemon = daemon::start(Stack::shared(), database, (&slot, name), &delivery(), snapshot);
    let pid = daemon.pid().to_string();
    let (started, (before_s, _)) = (Instant::now(), used(&pid));
    until("the table is read", || {
        status().filter(|status| status["snapshots"]["public.rows"]["state"] == "done")
    });
    let seconds = started.elapsed().as_secs_f64();
    let cpu_s = used(&pid).0 - before_s;
    stop(&daemon);
    drop_slot(database, &slot);
    Reading { who, seconds, cpu_s }
}

/// The middle of the rounds, beside that of COPY as text.
#[expect(clippy::print_stdout, reason = "the figures are what was asked for")]
#[expect(clippy::cast_precision_loss, reason = "rows of one run are far below 2^52")]
fn report(rows: u64, all: &[Reading]) {
    let middle = |who: &str, figure: fn(&Reading) -> f64| {
        let mut values: Vec<f64> = all.iter().filter(|one| one.who == who).map(figure).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let mut who: Vec<&str> = all.iter().map(|one| one.who).collect();
    who.sort_unstable();
    who.dedup();
    println!("{:<24} {:>10} {:>22} {:>8}", "", "rows/s", "CPU s/million (client)", "of COPY");
    let mut summary = Vec::<Value>::new();
    for who in who {
        let seconds = middle(who, |one| one.seconds);
        let cpu = middle(who, |one| one.cpu_s) * 1e6 / rows as f64;
        let (rate, ratio) =
            (rows as f64 / seconds, middle("COPY as text", |one| one.seconds) / seconds);
        println!("{who:<24} {rate:>10.0} {cpu:>22.2} {ratio:>8.2}");
        summary.push(json!({ "who": who, "rows_per_second": rate, "cpu_seconds_per_million": cpu,
                             "of_copy_as_text": ratio }));
    }
    println!("{}", json!({ "rows": rows, "readings": summary }));
}
