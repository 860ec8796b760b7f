//! The way from Debezium, as docs/runbook.md tells it: Debezium's own connector captures a table
//! under load, and the daemon takes over on the same topics, with the runbook's own configuration
//! and commands.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use waltide_stack::serde_json::json;
use waltide_stack::{Connect, Database, JsonRecord, Session, Stack, Topic, Version, eventually};

use crate::cli::waltide;
use crate::documents::blocks;
use crate::support::{ConfigFile, Daemon, SOON};

const SECTION: &str = "From Debezium";

/// Columns whose values the two would write differently if they could.
const ORDERS: &str = "CREATE TABLE orders (id int PRIMARY KEY, serial bigint NOT NULL, \
    price numeric(10, 2) DEFAULT 9.50, share double precision, placed timestamptz DEFAULT now(), \
    note text DEFAULT 'none', tags text[], more jsonb, day date, by uuid)";

/// Rows that are there before anybody captures the table.
const BEFORE: u64 = 20;

/// An order changes once, so many orders later, and goes so many orders later.
const CHANGES_AFTER: u64 = 5;
const GOES_AFTER: u64 = 20;

/// Between transactions.
const PAUSE: Duration = Duration::from_millis(4);

/// One of the things that happen to an order. Insert and update have a serial of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Write(u64),
    Delete,
    Tombstone,
}

/// The example's pipeline with this database's names.
struct Example<'a> {
    shop: &'a Database,
    file: String,
    name: String,
}

impl<'a> Example<'a> {
    fn of(shop: &'a Database) -> Self {
        let (prefix, stack) = (shop.prefix(), Stack::shared());
        let name = format!("{prefix}_shop");
        let yaml = blocks("yaml").into_iter().find(|(heading, _)| heading == SECTION);
        let (_, mut file) = yaml.expect("a configuration");
        for (theirs, ours) in [
            ("  shop:", format!("  {name}:")),
            ("postgres://debezium@db:5432/shop", shop.url()),
            ("slot: debezium", format!("slot: {prefix}")),
            ("kafka:9092", stack.kafka().bootstrap()),
            ("http://registry:8081", stack.registry().url()),
            ("prefix: dbz", format!("prefix: {prefix}")),
        ] {
            assert!(file.contains(theirs), "{theirs} in\n{file}");
            file = file.replace(theirs, &ours);
        }
        file.push_str("http:\n  listen: 127.0.0.1:0\n");
        Self { shop, file, name }
    }

    fn topic(&self) -> Topic {
        Stack::shared().kafka().topic(&format!("{}.public.orders", self.shop.prefix()))
    }

    fn launch(&self) -> Daemon {
        Daemon::launch(ConfigFile::of(&self.name, &self.file), &["run"])
    }

    /// Runs the section's command that begins so.
    #[track_caller]
    fn run(&self, command: &str, more: &[&str]) {
        let lines = blocks("sh").into_iter().filter(|(heading, _)| heading == SECTION);
        let line =
            lines.flat_map(|(_, block)| block.lines().map(str::to_owned).collect::<Vec<_>>());
        let line = line.into_iter().find(|line| line.starts_with(command)).expect(command);
        let file = ConfigFile::of(&self.name, &self.file);
        let path = file.path().to_str().expect("UTF-8");
        let line =
            line.replace("waltide.yaml", path).replace(" shop ", &format!(" {} ", self.name));
        let words = line.split_whitespace().skip(1).chain(more.iter().copied());
        let ended = waltide(&words.collect::<Vec<_>>());
        assert_eq!(ended.status, Some(0), "{line}\n{}", ended.everything);
    }

    /// Waits until the slot is free, as the section's query says it.
    #[track_caller]
    fn wait_for_free_slot(&self) {
        let (_, sql) = blocks("sql").into_iter().find(|(it, _)| it == SECTION).expect("a query");
        eventually("the slot is free", SOON, || {
            let slots = self.shop.query(&sql);
            let ours = slots.iter().find(|row| row[0].as_deref() == Some(self.shop.prefix()))?;
            (ours[1].as_deref() == Some("f")).then_some(())
        });
    }

    /// Waits until everything committed so far is delivered by whoever captures the table.
    #[track_caller]
    fn wait_for(&self, orders: u64) {
        let last = last_write(orders);
        eventually("the last change is there", SOON, || {
            let records = self.topic().read_json();
            records.iter().any(|it| it.value["after"]["serial"] == last).then_some(())
        });
    }
}

const fn last_write(orders: u64) -> u64 {
    2 * orders + 1
}

/// Takes the next order: one comes, one changes, one goes.
fn order(session: &Session, id: u64) {
    let mut sql = format!(
        "INSERT INTO orders (id, serial, share, tags, more, day, by) VALUES ({id}, {}, {id} / 3.0, \
         '{{a,b}}', '{{\"n\": {id}}}', '2026-11-21', md5('{id}')::uuid)",
        2 * id
    );
    if id > CHANGES_AFTER {
        let (changed, serial) = (id - CHANGES_AFTER, 2 * id + 1);
        sql += &format!("; UPDATE orders SET serial = {serial}, price = NULL WHERE id = {changed}");
    }
    if id > GOES_AFTER {
        sql += &format!("; DELETE FROM orders WHERE id = {}", id - GOES_AFTER);
    }
    session.execute(&sql);
}

/// Takes orders until it is told that it is enough; returns how many there were.
fn trade(shop: &Database, from: u64, enough: &AtomicBool) -> u64 {
    let session = shop.session();
    let mut id = from;
    while !enough.load(Ordering::Relaxed) {
        order(&session, id);
        id += 1;
        thread::sleep(PAUSE);
    }
    id - 1
}

/// What happened to an order after `BEFORE` orders were there already.
fn expected(id: u64, orders: u64) -> Vec<Event> {
    let mut events = Vec::new();
    let changed = id + CHANGES_AFTER;
    // What was there is read as it is; what had gone is not there.
    if id > BEFORE {
        events.push(Event::Write(2 * id));
    } else if id + GOES_AFTER > BEFORE {
        events.push(Event::Write(if changed <= BEFORE { 2 * changed + 1 } else { 2 * id }));
    }
    if changed > BEFORE && changed <= orders {
        events.push(Event::Write(2 * changed + 1));
    }
    let gone = id + GOES_AFTER;
    if gone > BEFORE && gone <= orders {
        events.extend([Event::Delete, Event::Tombstone]);
    }
    events
}

fn event(record: &JsonRecord) -> Event {
    match record.value["op"].as_str() {
        None => Event::Tombstone,
        Some("d") => Event::Delete,
        Some(_) => {
            let serial = record.value["after"]["serial"].as_u64();
            Event::Write(serial.unwrap_or_else(|| panic!("{:?}", record.value)))
        }
    }
}

/// Which of the two has written a record: ours say where they stand.
fn is_ours(record: &JsonRecord) -> bool {
    record.header("waltide.position").is_some()
}

/// What a consumer sees that has read both: every change of every order in its order, in one
/// partition, under one key. What comes twice at a change of hands is left out.
#[track_caller]
fn nothing_is_missing(records: &[JsonRecord], orders: u64) {
    let mut seen: BTreeMap<u64, (BTreeSet<i32>, Vec<Event>)> = BTreeMap::new();
    let mut repeated = 0;
    for record in records {
        let id = record.key["id"].as_u64().unwrap_or_else(|| panic!("{:?}", record.key));
        let (partitions, events) = seen.entry(id).or_default();
        partitions.insert(record.partition);
        let event = event(record);
        if events.contains(&event) {
            repeated += 1;
        } else {
            events.push(event);
        }
    }
    eprintln!("{} records, {repeated} of them repeated", records.len());
    for id in 1..=orders {
        let (partitions, events) = seen.remove(&id).unwrap_or_default();
        assert_eq!(events, expected(id, orders), "order {id}");
        assert!(partitions.len() <= 1, "order {id} is in partitions {partitions:?}");
    }
    assert!(seen.is_empty(), "{seen:?}");
}

#[test]
fn the_daemon_takes_over_from_debezium_under_load_as_the_runbook_says() {
    let shop = Stack::shared().database(Version::NEWEST, "from debezium");
    shop.execute(ORDERS);
    let session = shop.session();
    (1..=BEFORE).for_each(|id| order(&session, id));
    let (stack, prefix) = (Stack::shared(), shop.prefix());
    let example = Example::of(&shop);
    let connect = Connect::start(stack.kafka(), &shop);
    let settings = json!({
        "topic.prefix": prefix, "slot.name": prefix, "publication.name": "dbz_publication",
    });
    connect.capture(prefix, &shop, stack.registry(), &settings);
    let enough = AtomicBool::new(false);
    let (daemon, orders) = thread::scope(|scope| {
        let trader = scope.spawn(|| trade(&shop, BEFORE + 1, &enough));
        let moved = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            example.topic().wait_for(500, SOON);
            example.run("waltide config check", &[]);
            connect.stop(prefix);
            example.wait_for_free_slot();
            let daemon = example.launch();
            let status = daemon.wait_for_state("stopped");
            assert_eq!(status["error"]["code"], "WT309", "{status}");
            daemon.terminate();
            example.run("waltide recover", &["--yes"]);
            let daemon = example.launch();
            daemon.wait_for_state("streaming");
            eventually("it goes on", SOON, || {
                (daemon.status()["records"].as_u64()? >= 1000).then_some(())
            });
            daemon
        }));
        enough.store(true, Ordering::Relaxed);
        let orders = trader.join().expect("the trader");
        (moved.unwrap_or_else(|panic| std::panic::resume_unwind(panic)), orders)
    });
    example.wait_for(orders);
    daemon.terminate();
    let records = example.topic().read_json();
    let (ours, theirs): (Vec<_>, Vec<_>) = records.iter().partition(|record| is_ours(record));
    eprintln!("{} records of Debezium's, {} of ours", theirs.len(), ours.len());
    assert!(theirs.len() >= 500 && ours.len() >= 1000);
    nothing_is_missing(&records, orders);
    // A key is its bytes: with another schema's number it would be another key to Kafka. And what
    // reads Debezium's values reads ours, since they have the very same schema.
    let ids = |of: fn(&JsonRecord) -> Option<u32>| -> BTreeSet<u32> {
        records.iter().filter_map(of).collect()
    };
    assert_eq!(ids(|record| record.key_schema_id).len(), 1, "key schemas");
    assert_eq!(ids(|record| record.value_schema_id).len(), 1, "value schemas");
}
