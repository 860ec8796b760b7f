//! Many pipelines in one daemon, and many tables in one database: the first row comes soon.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use waltide_stack::serde_json::{self, Value, json};
use waltide_stack::{PostgresOptions, Stack, Version, eventually};

use crate::support::{ConfigFile, Daemon, Pipeline, SOON};

/// From the start of a process whose slot and topics are there to the first row in Kafka, of a table
/// whose schema was not registered before. A release build on a quiet machine takes less than two
/// seconds; this is a debug build beside other tests.
const FIRST_ROW: Duration = Duration::from_secs(30);

/// A pipeline's series without those of tables: what docs/metrics.md says.
const SERIES: usize = 65;

/// Threads of a pipeline that streams: its own, and four or five for each of its three clients of
/// Kafka. Who asks Kafka is shared by all pipelines.
const THREADS: usize = 16;

/// A figure that a long run raises.
fn figure(variable: &str, usual: usize) -> usize {
    std::env::var(variable).map_or(usual, |text| text.parse().expect("a number"))
}

#[test]
fn a_database_of_many_tables_streams_its_first_row_soon() {
    let tables = figure("WALTIDE_SCALE_TABLES", 2_000);
    // Publishing a table takes a lock, and all of them are published at once.
    let locks = (tables / 50).max(64).to_string();
    let server =
        PostgresOptions::new(Version::NEWEST).setting("max_locks_per_transaction", &locks).start();
    let shop = server.database("many tables");
    shop.execute(&format!(
        "CREATE PROCEDURE make() LANGUAGE plpgsql AS $$ BEGIN FOR i IN 1..{tables} LOOP \
         EXECUTE format('CREATE TABLE t_%s (id int PRIMARY KEY, a text, b int)', i); \
         IF i % 100 = 0 THEN COMMIT; END IF; END LOOP; END $$"
    ));
    shop.execute("CALL make()");
    let pipeline = Pipeline::of(&shop);
    let daemon = pipeline.start();
    shop.execute("INSERT INTO t_1 VALUES (1)");
    pipeline.topic("public.t_1").wait_for(1, SOON);
    daemon.terminate();
    shop.execute("INSERT INTO t_2 VALUES (1)");
    let from = Instant::now();
    let daemon = pipeline.launch();
    pipeline.topic("public.t_2").wait_for(1, SOON);
    let took = from.elapsed();
    eprintln!("{tables} tables: the first row after {took:?}");
    assert!(took < FIRST_ROW, "the first row came after {took:?}");
    // A table that comes now is found among all of them.
    shop.execute("CREATE TABLE late (id int PRIMARY KEY)");
    eventually("it is published", SOON, || {
        let published = "SELECT count(*) FROM pg_publication_tables WHERE tablename = 'late'";
        (shop.value(published) == "1").then_some(())
    });
    shop.execute("INSERT INTO late VALUES (1)");
    pipeline.topic("public.late").wait_for(1, SOON);
    daemon.terminate();
}

#[test]
fn a_daemon_with_many_pipelines_streams_the_first_row_of_each_soon() {
    let count = figure("WALTIDE_SCALE_PIPELINES", 8);
    let (slots, connections) = ((count + 10).to_string(), (4 * count + 50).to_string());
    let server = PostgresOptions::new(Version::NEWEST)
        .setting("max_replication_slots", &slots)
        .setting("max_wal_senders", &slots)
        .setting("max_connections", &connections)
        .start();
    let shop = server.database("many pipelines");
    let (prefix, stack) = (shop.prefix(), Stack::shared());
    let mut pipelines = BTreeMap::new();
    for number in 0..count {
        shop.execute(&format!(
            "CREATE TABLE t_{number} (id int PRIMARY KEY); CREATE TABLE u_{number} (id int PRIMARY KEY)"
        ));
        let tables = [format!("public.t_{number}"), format!("public.u_{number}")];
        pipelines.insert(
            format!("{prefix}_{number}"),
            json!({
                "source": { "url": shop.url(), "tables": tables },
                "kafka": { "bootstrap_servers": stack.kafka().bootstrap(), "partitions": 1 },
                "registry": { "url": stack.registry().url() },
                "snapshot": "never",
            }),
        );
    }
    let config = json!({ "pipelines": pipelines, "http": { "listen": "127.0.0.1:0" } }).to_string();
    let launch = || Daemon::launch(ConfigFile::of(prefix, &config), &["run"]);
    let insert = |table: &str| {
        (0..count).for_each(|of| shop.execute(&format!("INSERT INTO {table}_{of} VALUES (1)")));
    };
    let daemon = launch();
    all(&daemon, "streams", count, |pipeline| pipeline["state"] == "streaming");
    insert("t");
    all(&daemon, "has published", count, has_published);
    daemon.terminate();
    // Tables of which no row has come yet: their schemas are registered now.
    insert("u");
    let from = Instant::now();
    let daemon = launch();
    let first = eventually("a row was published", SOON, || {
        pipelines_of(&daemon)?.iter().any(has_published).then(|| from.elapsed())
    });
    all(&daemon, "has published", count, has_published);
    let took = from.elapsed();
    let per_pipeline = took / u32::try_from(count).expect("a count");
    eprintln!("{count} pipelines: the first row after {first:?}, of the last after {took:?}");
    // Clients that were there for a step of the start take some seconds to end.
    let threads = eventually("only those that are needed are left", SOON, || {
        Some(of_process(&daemon, "Threads:")).filter(|threads| *threads < THREADS * count + 20)
    });
    let peak = of_process(&daemon, "VmHWM:") / 1024;
    eprintln!("{threads} threads, at most {peak} MiB resident");
    let scraped = Instant::now();
    let (_, metrics) = daemon.get("/metrics").expect("an answer");
    let scraped = scraped.elapsed();
    let series = metrics.lines().filter(|line| !line.starts_with('#')).count();
    eprintln!("{series} series in {scraped:?}");
    assert!(first < FIRST_ROW && per_pipeline < FIRST_ROW / 8, "{first:?}, {took:?}");
    assert!(series < SERIES * count, "{series} series");
    daemon.terminate();
}

/// A number of the daemon's process.
#[track_caller]
fn of_process(daemon: &Daemon, name: &str) -> usize {
    let file = format!("/proc/{}/status", daemon.process().pid());
    let status = std::fs::read_to_string(file).expect("a process");
    let line = status.lines().find(|line| line.starts_with(name)).expect("a line");
    let number = line.split_ascii_whitespace().nth(1).expect("a number");
    number.parse().expect("a number")
}

fn has_published(pipeline: &Value) -> bool {
    pipeline["records"].as_u64() >= Some(1) && pipeline["records_in_flight"] == 0
}

fn pipelines_of(daemon: &Daemon) -> Option<Vec<Value>> {
    let (_, body) = daemon.get("/api/status")?;
    let mut status: Value = serde_json::from_str(&body).ok()?;
    serde_json::from_value(status["pipelines"].take()).ok()
}

#[track_caller]
fn all(daemon: &Daemon, what: &str, count: usize, is_so: impl Fn(&Value) -> bool) {
    // With a hundred of them a busy machine needs a while.
    eventually(&format!("every pipeline {what}"), 3 * SOON, || {
        let pipelines = pipelines_of(daemon)?;
        assert_eq!(pipelines.len(), count);
        pipelines.iter().all(&is_so).then_some(())
    });
}
