//! What applications write into the log arrives on a topic of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::Duration;

use waltide_stack::serde_json::{self, Value, json};
use waltide_stack::{Database, JsonRecord, Stack, Version};

use crate::support::{Pipeline, Position, Random, on_each_version};

/// Daemons that are killed in one test, so that some leave messages half told.
const KILLS: u64 = 6;

fn shop(version: Version, test: &str) -> Database {
    let shop = Stack::shared().database(version, test);
    shop.execute("CREATE TABLE orders (id int PRIMARY KEY)");
    shop
}

/// Messages of every fate among rows: `y` is of its transaction, `n` of none.
fn say(shop: &Database) {
    let say = |transactional: char, what: &str| {
        format!("SELECT pg_logical_emit_message('{transactional}', 'shop', '{what}');")
    };
    shop.execute(&say('n', "alone"));
    shop.execute(&format!(
        "BEGIN; {} INSERT INTO orders VALUES (1); {}{} SAVEPOINT s; {}{} ROLLBACK TO s;
         INSERT INTO orders VALUES (2); COMMIT",
        say('y', "first"),
        say('y', "second"),
        say('y', "third"),
        say('y', "rolled back"),
        say('n', "whatever happens"),
    ));
    shop.execute(&format!("BEGIN; {} ROLLBACK", say('y', "rolled back")));
    // The commit starts where the second message ends.
    shop.execute(&format!("BEGIN; {}{} COMMIT", say('y', "without rows"), say('n', "before it")));
}

/// The ordinals of rows, which must not depend on messages.
fn ordinals(pipeline: &Pipeline<'_>) -> BTreeSet<u64> {
    let orders = pipeline.changes("public.orders");
    orders.iter().map(|order| order.position.ordinal).collect()
}

fn text(content: &Value) -> String {
    let hex = content.as_str().expect("hexadecimal digits");
    let digits = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16));
    String::from_utf8(digits.collect::<Result<_, _>>().expect("bytes")).expect("text")
}

on_each_version!(messages_arrive_in_the_order_of_the_log_and_count_no_rows);

fn messages_arrive_in_the_order_of_the_log_and_count_no_rows(version: Version) {
    let shop = shop(version, "messages");
    let pipeline = Pipeline::of(&shop).with("messages", true);
    let daemon = pipeline.start();
    say(&shop);
    pipeline.wait_until_delivered();
    daemon.terminate();
    let records = pipeline.topic("message").read_json();
    let said: Vec<(String, u64, u32)> = records
        .iter()
        .map(|record| {
            assert_eq!((record.partition, &record.key), (0, &Value::Null));
            assert_eq!(record.value["prefix"], "shop");
            let Position { commit, ordinal, sub_index } = Position::of(record);
            let transactional = record.value["transactional"] == true;
            let (place, byte) = if transactional { ("commit_lsn", 0) } else { ("lsn", 1) };
            assert_eq!(record.value[place], json!(commit.0 + byte));
            for name in ["transaction", "commit_lsn", "xid", "commit_us"] {
                assert_eq!(record.value[name].is_null(), !transactional, "{name}");
            }
            (text(&record.value["content"]), ordinal, sub_index)
        })
        .collect();
    let expected = [
        ("alone", 0, 0),
        // It is in the log before the commit of the transaction that it was written in.
        ("whatever happens", 0, 0),
        ("first", 0, 0),
        ("second", 1, 0),
        ("third", 1, 1),
        ("before it", 0, 0),
        ("without rows", 0, 0),
    ];
    let positions: BTreeSet<Position> = records.iter().map(Position::of).collect();
    assert_eq!(positions.len(), records.len(), "a position tells a message apart");
    assert_eq!(said, expected.map(|(what, ordinal, sub)| (what.to_owned(), ordinal, sub)));
    assert_eq!(ordinals(&pipeline), BTreeSet::from([0, 1]));
}

#[test]
fn the_debezium_profile_has_messages_in_debeziums_own_records() {
    let shop = shop(Version::NEWEST, "messages to debezium's readers");
    let pipeline = Pipeline::of(&shop).with("messages", true).with("profile", "debezium");
    let pipeline = pipeline.with("transactions", true);
    let daemon = pipeline.start();
    say(&shop);
    pipeline.wait_until_delivered();
    daemon.terminate();
    let records = pipeline.topic("message").read_json();
    let said: Vec<String> =
        records.iter().map(|record| text(&record.value["message"]["content"])).collect();
    let expected = ["alone", "whatever happens", "first", "second", "third"];
    assert_eq!(said, [&expected[..], &["before it", "without rows"]].concat());
    for record in &records {
        assert_eq!((&record.value["op"], &record.key["prefix"]), (&json!("m"), &json!("shop")));
        assert_eq!(record.value["source"]["db"], shop.name());
        assert_eq!(record.value["ts_ms"].as_i64(), record.timestamp_ms);
    }
    // Messages count among the changes of their transaction, and of no table's.
    let orders = |of: &JsonRecord| of.value["transaction"]["total_order"].as_u64();
    let expected = [None, None, Some(1), Some(3), Some(4), None, Some(1)];
    assert_eq!(records.iter().map(orders).collect::<Vec<_>>(), expected);
    let told = pipeline.topic("transaction").read_json();
    let ends: Vec<&Value> =
        told.iter().map(|it| &it.value["event_count"]).filter(|it| !it.is_null()).collect();
    assert_eq!(ends, [5, 1]);
    assert_eq!(told[1].value["data_collections"][0]["event_count"], 2);
    assert_commits_follow_each_other(&pipeline, &records);
}

/// What Debezium calls a sequence: where the last commit stands, and where this is. A message of no
/// transaction is a commit to it.
#[track_caller]
fn assert_commits_follow_each_other(pipeline: &Pipeline<'_>, messages: &[JsonRecord]) {
    let rows = pipeline.topic("public.orders").read_json();
    let mut commits = BTreeSet::new();
    for record in messages.iter().chain(&rows) {
        let source = &record.value["source"];
        let text = source["sequence"].as_str().expect("a sequence");
        let both: [String; 2] = serde_json::from_str(text).expect("two positions");
        let [commit, at] = both.map(|it| it.parse::<u64>().expect("a position"));
        assert_eq!(source["lsn"].as_u64(), Some(at));
        commits.insert(commit);
    }
    let lone = messages.iter().filter(|message| message.value["transaction"].is_null());
    let lone: BTreeSet<u64> =
        lone.map(|message| message.value["source"]["lsn"].as_u64().expect("a position")).collect();
    assert_eq!(commits, lone, "each transaction here comes behind such a message");
}

#[test]
fn messages_stay_away_unless_they_are_asked_for() {
    let shop = shop(Version::NEWEST, "messages unasked for");
    let pipeline = Pipeline::of(&shop);
    let daemon = pipeline.start();
    say(&shop);
    pipeline.wait_until_delivered();
    daemon.terminate();
    assert_eq!(ordinals(&pipeline), BTreeSet::from([0, 1]));
    let name = pipeline.topic("message").name().to_owned();
    assert!(!Stack::shared().kafka().topics().contains(&name));
}

/// What was said, once each, in the order of its first coming; and how much came again.
fn once(records: &[JsonRecord]) -> (Vec<String>, usize) {
    let mut known: BTreeMap<Position, (usize, &Value)> = BTreeMap::new();
    let (mut said, mut expected, mut repeats) = (Vec::new(), 0, 0);
    for record in records {
        let at = Position::of(record);
        match known.get(&at) {
            Some((place, value)) => {
                assert_eq!(**value, record.value, "{at} is not the same again");
                assert!(*place <= expected, "a repetition skips to {at}");
                expected = place + 1;
                repeats += 1;
            }
            None => {
                let last = known.last_key_value();
                assert!(last.is_none_or(|(last, _)| *last < at), "{at} comes late");
                assert_eq!(expected, known.len(), "a repetition breaks off at {at}");
                known.insert(at, (expected, &record.value));
                expected += 1;
                said.push(text(&record.value["content"]));
            }
        }
    }
    (said, repeats)
}

#[test]
fn daemons_killed_amid_messages_lose_none_and_tell_them_again_at_the_same_positions() {
    let test = "messages told again";
    let mut random = Random::from_environment(test);
    let shop = shop(Version::NEWEST, test);
    let pipeline = Pipeline::of(&shop).with("messages", true);
    pipeline.start().terminate();
    let mut written = Vec::new();
    for _ in 0..KILLS {
        let daemon = pipeline.start();
        for _ in 0..40 {
            let number = written.len();
            written.push(number.to_string());
            shop.execute(&if random.once_in(2) {
                format!("SELECT pg_logical_emit_message(false, 'n', '{number}')")
            } else {
                format!(
                    "BEGIN; INSERT INTO orders VALUES ({number});
                     SELECT pg_logical_emit_message(true, 'y', '{number}'); COMMIT"
                )
            });
        }
        thread::sleep(Duration::from_millis(random.of(0..60)));
        daemon.kill();
    }
    let daemon = pipeline.start();
    pipeline.wait_until_delivered();
    daemon.terminate();
    let records = pipeline.topic("message").read_json();
    let (said, repeats) = once(&records);
    eprintln!("{} messages, {repeats} came again", said.len());
    assert_eq!(said, written);
    assert_eq!(ordinals(&pipeline), BTreeSet::from([0]));
    // What is delivered and confirmed does not come again, be a message the last of it or not.
    for number in 0..3 {
        let daemon = pipeline.start();
        shop.execute(&format!("SELECT pg_logical_emit_message(false, 'n', 'last {number}')"));
        pipeline.topic("message").wait_for_json(records.len() + number + 1, crate::support::SOON);
        daemon.terminate();
    }
    pipeline.start().terminate();
    assert_eq!(pipeline.topic("message").read().len(), records.len() + 3);
}
