//! `waltide tail`: what it shows, and that nothing of it stays.

use std::process::Command;

use waltide_stack::serde_json::{self, Value, json};
use waltide_stack::{Database, Process, Stack, Version, eventually};

use crate::cli::waltide;
use crate::support::SOON;

const ORDERS: &str = "CREATE TABLE orders (id int PRIMARY KEY, item text)";

/// A running `waltide tail`.
struct Tail(Process);

impl Tail {
    /// Starts it and waits until changes are seen from then on.
    #[track_caller]
    fn start(url: &str, arguments: &[&str]) -> Self {
        let tail = Self::launch(url, arguments);
        eventually("the stream begins", SOON, || {
            assert_eq!(tail.0.exit_status(), None, "{}", tail.0.log());
            tail.0.log().contains(" tables, by publication ").then_some(())
        });
        tail
    }

    fn launch(url: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_waltide"));
        command.args(["tail", "--source", url]).args(arguments);
        Self(Process::start("tail", &command))
    }

    #[track_caller]
    fn wait_for(&self, count: usize) -> Vec<Value> {
        eventually(&format!("{count} changes"), SOON, || {
            let log = self.0.log();
            let changes = log.lines().filter(|line| line.starts_with('{'));
            let changes: Vec<Value> =
                changes.filter_map(|line| serde_json::from_str(line).ok()).collect();
            (changes.len() >= count).then_some(changes)
        })
    }

    #[track_caller]
    fn ends(&self, status: i32) {
        assert_eq!(self.0.wait(SOON), Some(status), "{}", self.0.log());
    }
}

/// Nothing of ours is in the database.
#[track_caller]
fn is_clean(database: &Database) {
    eventually("nothing is left", SOON, || {
        let slots = "SELECT FROM pg_replication_slots WHERE database = current_database()";
        let publications = "SELECT FROM pg_publication WHERE pubname LIKE 'waltide_tail_%'";
        let left = database.query(slots).len() + database.query(publications).len();
        (left == 0).then_some(())
    });
}

#[test]
fn changes_are_shown_as_a_consumer_reads_them_and_nothing_stays() {
    for version in Version::ALL {
        let database = Stack::shared().database(version, "tail");
        database.execute(
            "CREATE TYPE pair AS (a int, \"b-c\" numeric(5,2));
             CREATE TABLE \"Odd-one\" (id int PRIMARY KEY, n numeric(20,2), free numeric, day date,
               at timestamptz, u uuid, \"tags-x\" text[], p pair, r int4range, b bytea, f float4,
               big text)",
        );
        database.execute("ALTER TABLE \"Odd-one\" ALTER big SET STORAGE EXTERNAL");
        let tail = Tail::start(&database.url(), &["--table", "public.*", "--json", "--count", "6"]);
        database.execute(
            "INSERT INTO \"Odd-one\" VALUES (1, -12.50, 1e30, '2026-11-21', '2026-11-21 09:00:00.5Z',
               '0e37df36-f698-11e6-8dd4-cb9ced3df976', '{a,NULL}', '(1,2.5)', '[1,5)', '\\x00ff',
               0.1, repeat('x', 10000))",
        );
        database.execute("UPDATE \"Odd-one\" SET n = 'NaN' WHERE id = 1");
        database.execute("UPDATE \"Odd-one\" SET id = 2, big = 'small'");
        database.execute("DELETE FROM \"Odd-one\"");
        database.execute("TRUNCATE \"Odd-one\"");
        let changes = tail.wait_for(6);
        tail.ends(0);
        let ops: Vec<&str> = changes.iter().filter_map(|change| change["op"].as_str()).collect();
        assert_eq!(ops, ["c", "u", "d", "c", "d", "t"], "{changes:#?}");
        let row = &changes[0]["after"];
        assert_eq!(row["big"].as_str().map(str::len), Some(10_000));
        let rest = json!({
            "id": 1, "n": "-12.50", "free": "1000000000000000000000000000000",
            "day": "2026-11-21", "at": "2026-11-21T09:00:00.5Z",
            "u": "0e37df36-f698-11e6-8dd4-cb9ced3df976", "tags-x": ["a", null],
            "p": {"a": 1, "b-c": "2.50"}, "r": {"lower": 1, "upper": 5, "bounds": "[)"},
            "b": "\\x00ff", "f": 0.1,
        });
        for (name, value) in rest.as_object().expect("an object") {
            assert_eq!(&row[name], value, "{name}");
        }
        assert_eq!(changes[0]["key"], json!({"id": 1}));
        assert_eq!(changes[1]["unchanged"], json!(["big"]));
        assert_eq!(changes[1]["unrepresentable"], json!({"after.n": "NaN"}));
        assert_eq!(
            (&changes[2]["key"], &changes[3]["key"]),
            (&json!({"id": 1}), &json!({"id": 2}))
        );
        assert_eq!(changes[5]["table"], "Odd-one");
        let xid = |at: usize| changes[at]["xid"].as_u64().expect("an id");
        assert_eq!(xid(2), xid(3));
        assert!(xid(0) < xid(1));
        is_clean(&database);
    }
}

#[test]
fn whoever_ends_it_in_whatever_way_finds_nothing_left_and_the_application_goes_on() {
    let database = Stack::shared().database(Version::NEWEST, "tail ends");
    database.execute(ORDERS);
    database.execute("CREATE TABLE keyless (a int)");
    database.execute("INSERT INTO keyless VALUES (1)");
    for signal in ["INT", "TERM", "HUP"] {
        let tail = Tail::start(&database.url(), &["--table", "public.*", "--json"]);
        // It has no key, so its updates must not be published.
        database.execute("UPDATE keyless SET a = a + 1");
        database.execute(
            "INSERT INTO orders VALUES (1, 'tea') ON CONFLICT (id) DO UPDATE SET item = 'x'",
        );
        tail.wait_for(1);
        tail.0.signal(signal);
        tail.ends(0);
        is_clean(&database);
    }
    // Killed, it leaves a publication, which the next one takes away.
    let tail = Tail::start(&database.url(), &["--table", "public.*"]);
    tail.0.kill();
    let left = "SELECT FROM pg_publication WHERE pubname LIKE 'waltide_tail_%'";
    assert_eq!(database.query(left).len(), 2);
    database.execute("UPDATE keyless SET a = a + 1");
    eventually("the next one takes it away", SOON, || {
        let tail = Tail::start(&database.url(), &["--table", "public.orders"]);
        tail.0.signal("TERM");
        tail.ends(0);
        database.query(left).is_empty().then_some(())
    });
    is_clean(&database);
}

#[test]
fn two_look_at_once_and_only_at_what_they_asked_for() {
    let database = Stack::shared().database(Version::NEWEST, "tail two");
    database.execute(ORDERS);
    database.execute("CREATE TABLE items (id int PRIMARY KEY)");
    let url = database.url();
    let orders = Tail::start(&url, &["--table", "public.orders", "--json", "--count", "1"]);
    let items = Tail::start(&url, &["--table", "public.items", "--json", "--count", "1"]);
    database.execute("INSERT INTO items VALUES (7)");
    database.execute("INSERT INTO orders VALUES (8, 'tea')");
    assert_eq!(orders.wait_for(1)[0]["after"], json!({"id": 8, "item": "tea"}));
    assert_eq!(items.wait_for(1)[0]["after"], json!({"id": 7}));
    orders.ends(0);
    items.ends(0);
    // One that shows everything is used, and left alone.
    database.execute("CREATE PUBLICATION theirs FOR ALL TABLES WITH (publish_via_partition_root)");
    let tail = Tail::start(&url, &["--table", "public.orders"]);
    assert!(
        tail.0.log().contains("1 tables, by publication theirs, already there"),
        "{}",
        tail.0.log()
    );
    database.execute("INSERT INTO items VALUES (9)");
    database.execute("UPDATE orders SET item = 'no tea'");
    eventually("a person reads a line", SOON, || {
        tail.0.log().contains("~ public.orders id=8 item=\"no tea\"\n").then_some(())
    });
    assert!(!tail.0.log().contains("items"), "{}", tail.0.log());
    tail.0.signal("INT");
    tail.ends(0);
    assert_eq!(database.query("SELECT FROM pg_publication").len(), 1);
}

#[test]
fn a_role_that_may_not_publish_is_told_the_ways_there_are() {
    let database = Stack::shared().database(Version::NEWEST, "tail role");
    database.execute(ORDERS);
    let role = format!("{}_reader", database.prefix());
    database.execute(&format!("CREATE ROLE {role} LOGIN REPLICATION"));
    let url = database.url_as(&role, None);
    let refused = waltide(&["tail", "--source", &url, "--table", "public.orders"]);
    assert_eq!(refused.status, Some(1));
    for word in ["error: WT209 ", "--publication"] {
        assert!(refused.everything.contains(word), "{}", refused.everything);
    }
    database.execute("CREATE PUBLICATION given FOR TABLE orders");
    let arguments =
        ["--table", "public.orders", "--publication", "given", "--json", "--count", "1"];
    let tail = Tail::start(&url, &arguments);
    database.execute("INSERT INTO orders VALUES (1, 'tea')");
    assert_eq!(tail.wait_for(1)[0]["op"], "c");
    tail.ends(0);
    let missing = waltide(&["tail", "--source", &url, "--table", "public.nothing"]);
    assert_eq!(missing.status, Some(1));
    assert!(missing.everything.contains("error: WT217 "), "{}", missing.everything);
    let wrong = waltide(&["tail", "--source", &url, "--table", "nothing"]);
    assert_eq!(wrong.status, Some(1));
    assert!(wrong.everything.contains("error: WT102 --table nothing"), "{}", wrong.everything);
}
