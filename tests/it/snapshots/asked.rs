//! Tables that are read because somebody asks for it, and what becomes of that.

use std::thread;
use std::time::Duration;

use waltide_stack::serde_json::{self, Value, json};
use waltide_stack::{Database, PostgresOptions, Stack, Version, eventually};

use super::{assert_arrived, assert_fails_with, initial, shop, wait_until_read};
use crate::cli::{Ended, waltide};
use crate::support::{Change, Daemon, Op, Pipeline, Random, Request, SOON};

/// Says something about snapshots on the command line.
#[track_caller]
fn snapshot(daemon: &Daemon, arguments: &[&str]) -> Ended {
    waltide(&[&["snapshot"], arguments, &["--url", &daemon.url()]].concat())
}

/// The same, where it is done.
#[track_caller]
fn tell(daemon: &Daemon, arguments: &[&str]) -> String {
    let ended = snapshot(daemon, arguments);
    assert_eq!(ended.status, Some(0), "{arguments:?}: {}", ended.everything);
    ended.out
}

/// What is said of a table.
#[track_caller]
fn of(daemon: &Daemon, table: &str) -> Value {
    let out = tell(daemon, &["list", "--json"]);
    let list: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}"));
    list["snapshots"][table].clone()
}

fn read(changes: &[Change]) -> usize {
    changes.iter().filter(|change| change.op == Op::Read).count()
}

#[test]
fn a_table_that_was_read_is_read_again_on_request_whole_or_by_a_condition() {
    for delivery in ["at_least_once", "exactly_once"] {
        let test = format!("snapshot asked {delivery}");
        let random = Random::from_environment(&test);
        let shop = Stack::shared().database(Version::NEWEST, &test);
        shop::fill(&shop, 5_000);
        shop.execute(
            "CREATE TABLE parts (id int PRIMARY KEY, n int) PARTITION BY RANGE (id);
             CREATE TABLE part_1 PARTITION OF parts FOR VALUES FROM (0) TO (500);
             CREATE TABLE part_2 (n int, id int PRIMARY KEY);
             INSERT INTO part_2 SELECT 0, g FROM generate_series(500, 999) g;
             ALTER TABLE parts ATTACH PARTITION part_2 FOR VALUES FROM (500) TO (1000);
             INSERT INTO parts SELECT g, 0 FROM generate_series(0, 499) g",
        );
        let pipeline = initial(&shop).with("delivery", delivery);
        let daemon = pipeline.start();
        wait_until_read(&pipeline, &["public.accounts", "public.parts"]);
        let before = read(&pipeline.changes("public.accounts"));
        assert_eq!(before, 5_000);
        let by = ["start", "--table", "public.accounts", "--where", "accounts.id <= 100", "--wait"];
        let out = tell(&daemon, &by);
        assert!(out.contains("public.accounts is read: 100 rows"), "{out}");
        let of_accounts = of(&daemon, "public.accounts");
        assert_eq!(
            [&of_accounts["state"], &of_accounts["asked"], &of_accounts["where"]],
            [&json!("done"), &json!(true), &json!("accounts.id <= 100")]
        );
        let changes = pipeline.changes("public.accounts");
        assert_eq!(read(&changes), before + 100);

        // A condition on a partitioned table, under the name of the table at the top.
        tell(
            &daemon,
            &["start", "--table", "public.parts", "--where", "parts.id % 100 = 7", "--wait"],
        );
        assert_eq!(read(&pipeline.changes("public.parts")), 1_010);

        // All of them, while somebody writes.
        let pace = (5_000, Duration::from_millis(20));
        shop::while_writing(&shop, &random, pace, || {
            tell(&daemon, &["start", "--all", "--wait"]);
        });
        pipeline.wait_until_delivered();
        daemon.terminate();
        assert!(read(&pipeline.changes("public.accounts")) > before + 100 + 2_500);
        for table in ["public.accounts", "public.parts"] {
            assert_arrived(&shop, &pipeline, table);
        }
    }
}

/// A table of several chunks, and few rows.
fn fill(shop: &Database) {
    shop.execute(
        "CREATE TABLE accounts (n int NOT NULL, id bigint PRIMARY KEY, note text, large text);
         ALTER TABLE accounts ALTER note SET STORAGE PLAIN;
         INSERT INTO accounts SELECT 0, g, repeat(md5(g::text), 40), NULL
             FROM generate_series(1, 3000) g",
    );
}

/// Half a minute for each chunk, but for the first of each start.
fn slowly(shop: &Database) -> Pipeline<'_> {
    let slowly = json!({"mode": "initial", "parallelism": 1, "max_rate": 20_000});
    Pipeline::of(shop).with("snapshot", slowly)
}

/// A pipeline that has read its table, and would read it slowly again.
fn read_and_slow(shop: &Database) -> (Pipeline<'_>, Daemon) {
    fill(shop);
    let first = initial(shop);
    let daemon = first.start();
    wait_until_read(&first, &["public.accounts"]);
    daemon.terminate();
    let pipeline = slowly(shop);
    let daemon = pipeline.start();
    (pipeline, daemon)
}

#[test]
fn a_request_survives_kills_with_its_condition_and_its_pause_and_its_end() {
    let shop = Stack::shared().database(Version::NEWEST, "snapshot asked and killed");
    let (pipeline, daemon) = read_and_slow(&shop);
    let before = read(&pipeline.changes("public.accounts"));
    let table = "public.accounts";
    let condition = "id % 2 = 0";
    tell(&daemon, &["start", "--table", table, "--where", condition]);
    // What was said is in a checkpoint, whatever happens next.
    daemon.kill();
    let daemon = pipeline.start();
    eventually("some of it is read", SOON, || {
        of(&daemon, table)["rows"].as_u64().filter(|n| *n > 0)
    });
    let again = snapshot(&daemon, &["start", "--table", table]);
    assert!(again.everything.contains("WT110") && again.status == Some(1), "{}", again.everything);
    let out = tell(&daemon, &["pause", "--table", table]);
    assert!(out.contains("paused: nothing more is read of public.accounts"), "{out}");
    daemon.kill();

    let daemon = pipeline.start();
    let seen = eventually("what was asked for is known", SOON, || {
        Some(of(&daemon, table)).filter(|of| of["state"] == "paused")
    });
    assert_eq!([&seen["asked"], &seen["where"]], [&json!(true), &json!(condition)]);
    let rows_now = || read(&pipeline.changes(table));
    let paused = rows_now();
    thread::sleep(Duration::from_secs(2));
    assert_eq!(rows_now(), paused, "it is read while it is paused");
    let shown = tell(&daemon, &["list"]);
    assert!(shown.contains(", paused, ") && shown.contains("where id % 2 = 0"), "{shown}");
    assert!(!shown.contains('\x1b'), "{shown}");

    tell(&daemon, &["resume", "--all"]);
    eventually("it goes on", SOON, || (of(&daemon, table)["state"] == "reading").then_some(()));
    tell(&daemon, &["cancel", "--table", table]);
    assert_eq!(of(&daemon, table)["state"], "cancelled");
    daemon.kill();
    let daemon = pipeline.start();
    // Long enough for a look at what is published.
    thread::sleep(Duration::from_secs(2));
    assert_eq!(of(&daemon, table), Value::Null, "it is read although that was cancelled");
    let ended = snapshot(&daemon, &["cancel", "--table", table]);
    assert!(ended.everything.contains("table public.accounts is not being read"));
    assert!(rows_now() < before + 1_500);
    assert_eq!(pipeline.read_whole().len(), 1, "an end was told of what has none");
    // And from the start, to its end.
    let faster = initial(&shop);
    daemon.terminate();
    let daemon = faster.start();
    let cancelled = rows_now();
    tell(&daemon, &["start", "--table", table, "--where", condition, "--wait"]);
    assert_eq!(rows_now() - cancelled, 1_500);
    daemon.terminate();
    assert_arrived(&shop, &faster, table);
}

#[test]
fn what_cannot_be_read_is_refused_by_code_and_the_stream_goes_on() {
    refuses(Version::NEWEST);
}

#[test]
fn so_it_is_on_the_oldest_server() {
    refuses(Version::V14);
}

fn refuses(version: Version) {
    let server = PostgresOptions::new(version).start();
    let shop = server.database("snapshot asked in vain");
    shop.execute(
        "CREATE TABLE orders (id int PRIMARY KEY, note text, at timestamptz);
         CREATE TABLE hidden (id int PRIMARY KEY); CREATE TABLE secret (id int PRIMARY KEY);
         CREATE TABLE aside (id int PRIMARY KEY); CREATE TABLE later (id int PRIMARY KEY);
         CREATE TABLE bare (id int, note text);
         CREATE FUNCTION fickle(int) RETURNS boolean LANGUAGE sql AS 'SELECT $1 > 5';
         CREATE FUNCTION writes(int) RETURNS boolean LANGUAGE plpgsql STABLE AS
             'BEGIN PERFORM nextval(''public.numbers''); RETURN true; END';
         CREATE SEQUENCE numbers;
         CREATE PUBLICATION tables FOR TABLE orders, hidden, secret, aside, bare;
         CREATE ROLE reader LOGIN REPLICATION;
         GRANT SELECT ON orders, hidden, secret, aside, later, bare TO reader;
         GRANT ALL ON SEQUENCE numbers TO reader;
         INSERT INTO orders SELECT g, 'n' || g, now() FROM generate_series(1, 50) g;
         INSERT INTO hidden VALUES (1); INSERT INTO secret VALUES (1); INSERT INTO bare VALUES (1)",
    );
    let pipeline = initial(&shop)
        .with("source.url", shop.url_as("reader", None))
        .with("source.publication", "tables")
        .with("source.exclude", json!(["public.aside"]));
    let daemon = pipeline.start();
    let tables = ["public.orders", "public.hidden", "public.secret", "public.bare"];
    wait_until_read(&pipeline, &tables);
    shop.execute("REVOKE SELECT ON hidden FROM reader");
    shop.execute("ALTER TABLE secret ENABLE ROW LEVEL SECURITY");
    let count = || read(&pipeline.changes("public.orders"));
    assert_eq!(count(), 50);
    let refused = |table: &str, condition: &str, code: &str| {
        let all = ["start", "--table", table, "--where", condition];
        let few = &all[..3];
        let ended = snapshot(&daemon, if condition.is_empty() { few } else { &all });
        let said = ended.everything.replace('\n', " ");
        eprintln!("{said}");
        assert_eq!(ended.status, Some(1), "{table} {condition}: {said}");
        assert!(said.contains(&format!("error: {code} ")), "{table} {condition}: {said}");
        assert!(said.contains("What to do: "), "{said}");
    };
    for (table, code) in [
        ("public.nothing", "WT235"),
        ("public.aside", "WT235"),
        ("public.later", "WT235"),
        ("public.hidden", "WT227"),
        ("public.secret", "WT228"),
        ("public.*", "WT109"),
        ("orders", "WT109"),
    ] {
        refused(table, "", code);
    }
    for condition in [
        "id >",
        "id",
        "nothing = 1",
        "nothing(id)",
        "id = $1",
        "id = 1; DELETE FROM orders",
        "true) OR (true",
        "true) TO STDOUT; DROP TABLE orders; COPY (SELECT 1 WHERE (true",
        "true -- ",
        "true /* ",
        "id = 1 UNION SELECT 1",
        "id = (SELECT id FROM public.orders FOR UPDATE LIMIT 1)",
        "random() < 0.5",
        "id > 5 OR clock_timestamp() > at",
        "public.fickle(id)",
        "id IN (SELECT g FROM generate_series(1, (random() * 9)::int) g)",
        "count(*) > 1",
        "generate_series(1, id) > 1",
        "pg_sleep(60) IS NULL",
    ] {
        refused("public.orders", condition, "WT236");
    }
    // A body that is none, and keys that nobody knows.
    for body in
        ["", "[]", "{}", "{\"table\": 7}", "{\"all\": true, \"where\": \"a\"}", "{\"tabel\": 1}"]
    {
        let path = format!("/api/pipelines/{}/snapshots/start", pipeline.name());
        let (status, answer) =
            Request::of("POST", &path).of_its_user(&daemon).body(body).send(&daemon);
        assert!(status == 400 && answer.contains("WT109"), "{body}: {status} {answer}");
    }
    // What is stable, and what writes although it says that it does not: nothing is written.
    tell(
        &daemon,
        &["start", "--table", "public.orders", "--where", "at <= now() AND id <= 5", "--wait"],
    );
    assert_eq!(count(), 55);
    let writes = ["start", "--table", "public.orders", "--where", "public.writes(id)", "--wait"];
    let ended = snapshot(&daemon, &writes);
    assert!(ended.everything.contains("WT236"), "{}", ended.everything);
    assert_eq!(shop.value("SELECT is_called FROM numbers"), "f");
    let _ = snapshot(&daemon, &["cancel", "--table", "public.orders"]);
    // One that fails on a row, whose value is not repeated.
    let fails = ["start", "--table", "public.orders", "--where", "note::int > 0", "--wait"];
    let ended = snapshot(&daemon, &fails);
    assert!(ended.everything.contains("WT236") && ended.everything.contains("22P02"));
    assert!(!ended.everything.contains("\"n"), "{}", ended.everything);
    tell(&daemon, &["cancel", "--table", "public.orders"]);
    // One that takes too long.
    let slow = "id < (SELECT count(*) FROM generate_series(1, 2000000000))";
    tell(&daemon, &["start", "--table", "public.orders", "--where", slow]);
    assert_fails_with(&daemon, "public.orders", "WT236");
    tell(&daemon, &["cancel", "--all"]);
    // Without a key there is no telling what the stream has to leave out.
    tell(&daemon, &["start", "--table", "public.bare", "--where", "id = 1"]);
    assert_fails_with(&daemon, "public.bare", "WT236");
    tell(&daemon, &["cancel", "--table", "public.bare"]);
    tell(&daemon, &["start", "--table", "public.bare", "--wait"]);
    assert_eq!(read(&pipeline.changes("public.bare")), 2);

    shop.execute("INSERT INTO orders VALUES (1000, 'last', now())");
    pipeline.wait_until_delivered();
    let status = daemon.status();
    assert_eq!((&status["state"], &status["retries"]), (&json!("streaming"), &json!(0)));
    assert_eq!(
        pipeline.changes("public.orders").iter().filter(|it| it.op == Op::Create).count(),
        1
    );
    assert_eq!(count(), 55);
    daemon.terminate();
}

#[test]
fn a_table_that_is_altered_or_dropped_while_it_is_read_by_a_condition_says_so() {
    let shop = Stack::shared().database(Version::NEWEST, "snapshot asked and altered");
    let (_pipeline, daemon) = read_and_slow(&shop);
    let table = "public.accounts";
    let begin = |condition| {
        tell(&daemon, &["start", "--table", table, "--where", condition]);
        eventually("some of it is read", SOON, || {
            of(&daemon, table)["rows"].as_u64().filter(|rows| *rows > 0)
        });
    };
    begin("n >= 0");
    shop.execute("ALTER TABLE accounts RENAME n TO m");
    assert_fails_with(&daemon, table, "WT236");
    tell(&daemon, &["cancel", "--table", table]);
    begin("m >= 0");
    shop.execute("DROP TABLE accounts");
    eventually("it is gone", SOON, || (of(&daemon, table)["state"] == "gone").then_some(()));
    assert!(daemon.log().contains("WT230"), "{}", daemon.log());
    assert_eq!(daemon.status()["state"], "streaming");
    daemon.terminate();
}

/// What is configured of tables: which are read by themselves, and what of them.
#[test]
fn tables_are_read_as_is_configured_of_them() {
    let shop = Stack::shared().database(Version::NEWEST, "snapshot configured");
    for table in ["first", "second", "quiet"] {
        shop.execute(&format!("CREATE TABLE {table} (id int PRIMARY KEY, n int)"));
        shop.execute(&format!(
            "INSERT INTO {table} SELECT g, g % 10 FROM generate_series(1, 100) g"
        ));
    }
    let options = json!({
        "public.first": { "snapshot_priority": -5 },
        "public.second": { "snapshot_where": "n = 3", "snapshot_priority": 7 },
        "public.quiet": { "snapshot": "on_request", "snapshot_where": "n < 2" },
    });
    let one_at_a_time = json!({ "mode": "initial", "parallelism": 1 });
    let pipeline =
        Pipeline::of(&shop).with("snapshot", one_at_a_time).with("table_options", options.clone());
    let daemon = pipeline.start();
    wait_until_read(&pipeline, &["public.first", "public.second"]);
    assert_eq!(pipeline.read_whole(), ["public.second", "public.first"], "by priority");
    let count = |table| read(&pipeline.changes(table));
    assert_eq!([count("public.first"), count("public.second")], [100, 10]);
    assert_eq!(of(&daemon, "public.quiet"), Value::Null);
    // A request reads what is configured, unless it says something else.
    tell(&daemon, &["start", "--table", "public.quiet", "--wait"]);
    assert_eq!(count("public.quiet"), 20);
    tell(&daemon, &["start", "--table", "public.quiet", "--where", "n = 9", "--wait"]);
    assert_eq!(count("public.quiet"), 30);
    daemon.terminate();

    // And where nothing is read by itself: not now, and not after a restart.
    let pipeline = Pipeline::of(&shop).beside("quiet").with("snapshot", "on_request");
    for _ in 0..2 {
        let daemon = pipeline.start();
        shop.execute("UPDATE first SET n = n + 1 WHERE id = 1");
        pipeline.wait_until_delivered();
        assert!(pipeline.changes("public.first").iter().any(|it| it.op == Op::Update));
        daemon.terminate();
    }
    assert_eq!(read(&pipeline.changes("public.first")), 0);
    let daemon = pipeline.start();
    tell(&daemon, &["start", "--table", "public.first", "--wait"]);
    assert_eq!(read(&pipeline.changes("public.first")), 100);
    daemon.terminate();
}

#[test]
fn a_pipeline_without_snapshots_says_how_it_comes_to_have_them() {
    let shop = Stack::shared().database(Version::NEWEST, "snapshot never");
    shop.execute("CREATE TABLE orders (id int PRIMARY KEY)");
    let pipeline = Pipeline::of(&shop);
    let daemon = pipeline.start();
    let ended = snapshot(&daemon, &["start", "--all"]);
    assert!(ended.everything.contains("WT110") && ended.everything.contains("on_request"));
    assert_eq!(snapshot(&daemon, &["start"]).status, Some(2));
    assert!(tell(&daemon, &["list"]).contains("no table is being read"));
    daemon.terminate();
}
