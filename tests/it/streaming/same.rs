//! Streamed or not, the records are the same: their bytes, their order and their positions.

use std::collections::BTreeSet;

use waltide_stack::serde_json::Value;
use waltide_stack::{Database, JsonRecord, Session, Version};

use crate::support::{
    Daemon, Pipeline, Position, Table, assert_each_once_and_in_order, assert_table_is,
    on_each_version,
};

use super::{one_partition, shop, wait_until_open};

/// Savepoints of a storm: `WALTIDE_SAVEPOINTS`.
fn savepoints() -> u32 {
    let count = std::env::var("WALTIDE_SAVEPOINTS").ok();
    count.map_or(600, |count| count.parse().expect("WALTIDE_SAVEPOINTS is a number"))
}

on_each_version! { savepoint_storms_are_the_same_streamed_or_not }

/// A table with values that are stored out of line.
const TABLES: &str = "
    CREATE TABLE notes (id int PRIMARY KEY, text text, long text, number int);
    ALTER TABLE notes ALTER long SET STORAGE EXTERNAL;
    CREATE TABLE others (id int PRIMARY KEY, text text)";

/// Rows with long values, which the storm changes without touching those.
const LONG: &str = "
    INSERT INTO notes
      SELECT -id, 'before', repeat(md5(id::text), 200), id FROM generate_series(1, 50) id";

/// Each third one is rolled back. Some of those are large enough to have been sent by then, some
/// have subtransactions of their own that were released, and some of both are updates whose long
/// values are not sent, changed keys and deletes.
fn storm(count: u32) -> String {
    format!(
        "DO $$ BEGIN FOR i IN 1..{count} LOOP
           BEGIN
             INSERT INTO notes VALUES (i, repeat(md5(i::text), 8));
             IF i % 7 = 0 THEN
               BEGIN
                 INSERT INTO notes SELECT 1000000 + i * 100 + n, repeat('x', 1000), repeat(md5(n::text), 100)
                   FROM generate_series(1, 10) n;
               END;
             END IF;
             IF i % 30 = 0 THEN
               INSERT INTO notes SELECT 9000000 + i * 100 + n, repeat('y', 1500) FROM generate_series(1, 90) n;
             END IF;
             IF i % 5 = 0 THEN UPDATE notes SET number = i WHERE id = -(i % 50) - 1; END IF;
             IF i % 11 = 0 THEN UPDATE notes SET id = 2000000 + i WHERE id = i; END IF;
             IF i % 13 = 0 THEN DELETE FROM notes WHERE id = i - 1; END IF;
             IF i % 3 = 0 THEN RAISE EXCEPTION 'never'; END IF;
           EXCEPTION WHEN raise_exception THEN NULL;
           END;
         END LOOP; END $$"
    )
}

/// The table changes inside: once for good, and once not.
fn change_the_table(on: &Session) {
    on.execute("SAVEPOINT a; ALTER TABLE notes ADD COLUMN never int DEFAULT 7");
    on.execute(
        "INSERT INTO notes SELECT 5000000 + n, repeat('z', 1000) FROM generate_series(1, 200) n",
    );
    on.execute("ROLLBACK TO a");
    on.execute(
        "INSERT INTO notes SELECT 6000000 + n, repeat('z', 1000) FROM generate_series(1, 200) n",
    );
    on.execute("SAVEPOINT b; ALTER TABLE notes ADD COLUMN stays int; RELEASE b");
    on.execute(
        "INSERT INTO notes SELECT 7000000 + n, repeat('z', 1000), NULL, n, n FROM generate_series(1, 200) n",
    );
}

fn go_through(shop: &Database, streamed: &Daemon) {
    shop.execute(LONG);
    let (storming, beside, never) = (shop.session(), shop.session(), shop.session());
    for session in [&storming, &beside, &never] {
        session.execute("BEGIN");
    }
    never.execute("INSERT INTO others SELECT -n, repeat('n', 900) FROM generate_series(1, 300) n");
    storming.execute(&storm(savepoints()));
    beside.execute("INSERT INTO others SELECT n, repeat('b', 900) FROM generate_series(1, 300) n");
    wait_until_open(streamed, 3);
    shop.execute("INSERT INTO others VALUES (100000, 'small')");
    change_the_table(&storming);
    beside.execute("UPDATE others SET text = 'c' WHERE id BETWEEN 1 AND 20");
    beside.execute("COMMIT");
    never.execute("ROLLBACK");
    shop.execute("UPDATE others SET text = 'later' WHERE id = 100000");
    storming.execute("COMMIT");
    // What was described inside counts for the connection.
    shop.execute("INSERT INTO notes VALUES (8000000, 'after', NULL, 1, 2)");
    let emptied = shop.session();
    emptied.execute(
        "BEGIN; INSERT INTO others SELECT n, repeat('t', 900) FROM generate_series(400, 700) n",
    );
    emptied.execute("TRUNCATE others; INSERT INTO others VALUES (1, 'left'); COMMIT");
}

fn savepoint_storms_are_the_same_streamed_or_not(version: Version) {
    let shop = shop(version, &format!("storm on {version}"));
    shop.execute(TABLES);
    let on = one_partition(&shop);
    let off = one_partition(&shop).beside("off").with("source.streaming", false);
    let (streamed, unstreamed) = (on.start(), off.start());
    go_through(&shop, &streamed);
    on.wait_until_delivered();
    off.wait_until_delivered();
    assert_eq!(unstreamed.status()["open_transactions"], 0);
    streamed.terminate();
    unstreamed.terminate();
    for table in ["public.notes", "public.others"] {
        let [on, off] = [&on, &off].map(|pipeline| told(pipeline, table));
        assert_eq!(on.len(), off.len(), "{table}");
        for ((at, on), (as_well, off)) in on.iter().zip(&off) {
            assert_eq!(at, as_well, "{table}");
            assert!(on == off, "{table} at {at}: {} and {}", end_of(on), end_of(off));
        }
    }
    let notes = on.changes("public.notes");
    assert_each_once_and_in_order(&notes);
    let survivors: BTreeSet<u64> =
        notes.iter().filter_map(|it| it.after.as_ref()?["id"].as_u64()).collect();
    let expected = (1..=u64::from(savepoints())).filter(|id| id % 3 != 0);
    assert!(expected.clone().all(|id| survivors.contains(&id)));
    let rolled_back = (1..=u64::from(savepoints())).filter(|id| id % 3 == 0);
    assert!(rolled_back.clone().all(|id| !survivors.contains(&id)));
    assert!(notes.iter().any(|change| change.unchanged == ["long"]), "updates of long rows");
    assert_table_is(&shop.session(), "notes", &Table::fold(&notes));
}

/// Where values are long, it is the end that tells.
fn end_of(text: &str) -> &str {
    text.get(text.len().saturating_sub(1_000)..).unwrap_or(text)
}

/// All that a record says, but for the name of its pipeline.
fn told(pipeline: &Pipeline<'_>, table: &str) -> Vec<(Position, String)> {
    let records = pipeline.topic(table).read_json().into_iter();
    let told = |mut record: JsonRecord| {
        let position = Position::of(&record);
        if let Some(name) = record.value.pointer_mut("/source/name") {
            *name = Value::Null;
        }
        let JsonRecord { timestamp_ms, key, value, headers, .. } = record;
        let all = format!("{key} {value} {timestamp_ms:?} {headers:?}");
        (position, all)
    };
    records.map(told).collect()
}
