//! Confluent's own deserialiser, in Python, reads what is published.
//!
//! It and the fuzzer of the API are installed from `python/requirements.txt` into an environment
//! below the target directory when they are first needed. Without Python the test fails: `make deps` installs it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use waltide_stack::serde_json::{self, Value, json};
use waltide_stack::{Registry, Stack, Version};

use crate::support::Pipeline;

/// The interpreter in whose environment the deserialiser is.
pub(crate) fn python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let wanted = include_str!("python/requirements.txt");
        let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python");
        let (python, done) = (home.join("bin/python"), home.join("installed"));
        if std::fs::read_to_string(&done).is_ok_and(|installed| installed == wanted) {
            return python;
        }
        let requirements = sources().join("requirements.txt");
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&home));
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"];
        run(Command::new(&python).args(pip).arg(&requirements));
        std::fs::write(done, wanted).expect("a mark that it is installed");
        python
    })
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/python")
}

/// What a command prints.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| {
        panic!("{command:?}: {error}. Python 3 with venv is needed: `make deps` installs it")
    });
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} ended with {}:\n{said}", output.status);
    String::from_utf8(output.stdout).expect("a text")
}

/// All records of a table, in the order of their only partition.
#[track_caller]
fn read(pipeline: &Pipeline<'_>, table: &str) -> Vec<Value> {
    read_through(Stack::shared().registry(), pipeline, table)
}

/// All records of a table, as the schemas of this registry say.
#[track_caller]
pub(crate) fn read_through(
    registry: &Registry,
    pipeline: &Pipeline<'_>,
    table: &str,
) -> Vec<Value> {
    printed(registry, pipeline, table, &[])
}

/// All records of a table, read by somebody who knows its first schema only.
#[track_caller]
pub(crate) fn read_with_first_schema(pipeline: &Pipeline<'_>, table: &str) -> Vec<Value> {
    printed(Stack::shared().registry(), pipeline, table, &["1"])
}

#[track_caller]
fn printed(
    registry: &Registry,
    pipeline: &Pipeline<'_>,
    table: &str,
    version: &[&str],
) -> Vec<Value> {
    pipeline.wait_until_delivered();
    let (topic, bootstrap) = (pipeline.topic(table), Stack::shared().kafka().bootstrap());
    let arguments = [bootstrap.as_str(), &registry.url(), topic.name()];
    let printed =
        run(Command::new(python()).arg(sources().join("read.py")).args(arguments).args(version));
    printed.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

const SQL: &str = "
    CREATE TYPE mood AS ENUM ('fine', 'so-so');
    CREATE TYPE spot AS (name text, at point);
    CREATE TABLE orders (
        id int PRIMARY KEY, item text DEFAULT 'tea', price numeric(9,2), weight numeric, ok boolean,
        raw bytea, day date, clock time, local timestamp, at timestamptz, tag uuid, doc jsonb,
        mood mood, sizes int[], spot spot, span int4range, took interval);";

const ROWS: &str = "
    INSERT INTO orders VALUES (1, 'milk', 1.50, 1.250, true, '\\x00ff', '2024-02-29', '12:34:56.789',
      '2024-02-29 12:34:56.789', '2024-02-29 12:34:56.789+00',
      'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{\"a\": [1, null]}', 'so-so', '{1,NULL,3}',
      ('here', '(1,2.5)'), '[1,5)', '1 day 02:03:04');
    INSERT INTO orders (id, item, price) VALUES (2, NULL, 'NaN');
    DELETE FROM orders WHERE id = 1;";

/// Starts a pipeline with one partition in a profile, and reads what it makes of the rows.
fn published(profile: &str) -> Vec<Value> {
    let shop = Stack::shared().database(Version::NEWEST, &format!("python {profile}"));
    shop.execute(SQL);
    let pipeline = Pipeline::of(&shop).with("profile", profile).with("kafka.partitions", 1);
    let daemon = pipeline.start();
    shop.execute(ROWS);
    let records = read(&pipeline, "public.orders");
    daemon.terminate();
    let ops: Vec<&Value> = records.iter().map(|record| &record["value"]["op"]).collect();
    assert_eq!(ops, [&json!("c"), &json!("c"), &json!("d"), &Value::Null]);
    let keys: Vec<&Value> = records.iter().map(|record| &record["key"]["id"]).collect();
    assert_eq!(keys, [1, 2, 1, 1]);
    assert_eq!(records[3]["value"], Value::Null, "a tombstone");
    records
}

/// The second row has nothing but its key.
#[track_caller]
fn assert_only_a_key(row: &Value) {
    let filled = row.as_object().expect("a row").iter().filter(|(_, value)| !value.is_null());
    assert_eq!(filled.map(|(name, _)| name).collect::<Vec<_>>(), ["id"]);
}

#[test]
fn confluents_deserialiser_reads_the_waltide_profile() {
    let records = published("waltide");
    let mut expected = json!({
        "id": 1, "item": "milk", "price": {"Decimal": "1.50"}, "weight": "1.250", "ok": true,
        "raw": {"bytes": "00ff"}, "day": {"date": "2024-02-29"},
        "clock": {"time": "12:34:56.789000"}, "local": {"datetime": "2024-02-29T12:34:56.789000"},
        "at": {"datetime": "2024-02-29T12:34:56.789000+00:00"},
        "tag": {"UUID": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"}, "doc": "{\"a\": [1, null]}",
        "mood": "so-so", "sizes": [1, null, 3],
    });
    // One by one: a macro of this depth is more than the compiler wants.
    expected["spot"] = json!({"name": "here", "at": {"x": 1.0, "y": 2.5}});
    expected["span"] = json!({"lower": 1, "upper": 5, "bounds": "[)"});
    expected["took"] = json!({"months": 0, "days": 1, "micros": 7_384_000_000_i64});
    assert_eq!(records[0]["value"]["after"], expected);
    assert_only_a_key(&records[1]["value"]["after"]);
    assert_eq!(records[1]["value"]["unrepresentable"], json!({"after.price": "NaN"}));
    assert!(records[1]["value"]["ts_us"]["datetime"].is_string(), "{}", records[1]);
}

#[test]
fn confluents_deserialiser_reads_the_debezium_profile() {
    let records = published("debezium");
    let row = &records[0]["value"]["after"];
    let expected = json!({
        "id": 1, "item": "milk", "price": {"Decimal": "1.50"},
        "weight": {"scale": 2, "value": {"bytes": "7d"}}, "ok": true, "raw": {"bytes": "00ff"},
        "day": 19782, "clock": 45_296_789_000_i64, "local": 1_709_210_096_789_000_i64,
        "at": "2024-02-29T12:34:56.789000Z", "tag": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        "doc": "{\"a\": [1, null]}", "mood": "so-so", "sizes": [1, null, 3],
        "spot": "(here,\"(1,2.5)\")", "span": "[1,5)", "took": 93_784_000_000_i64,
    });
    assert_eq!(row, &expected);
    assert_only_a_key(&records[1]["value"]["after"]);
    let header = &records[1]["headers"]["waltide.unrepresentable"];
    assert_eq!(header, r#"{"after.price":"NaN"}"#);
}
