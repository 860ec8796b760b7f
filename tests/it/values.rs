//! Values arrive as they are, or are told as text.

use waltide_stack::serde_json::{Value, json};
use waltide_stack::{Stack, Version};

use crate::support::{Change, Pipeline};

/// The records of a table in the order of their positions.
#[track_caller]
fn delivered(pipeline: &Pipeline<'_>, table: &str) -> Vec<Change> {
    pipeline.wait_until_delivered();
    let mut changes = pipeline.changes(table);
    changes.sort_by_key(|change| change.position);
    changes
}

#[test]
fn text_that_is_no_utf8_is_told_as_hex_and_stops_nothing() {
    for binary in [true, false] {
        let postgres = Stack::shared().postgres(Version::NEWEST);
        let shop = postgres.database_with(
            &format!("sql ascii {binary}"),
            "ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0",
        );
        shop.execute("CREATE TABLE notes (id int PRIMARY KEY, body text, tags text[])");
        let pipeline = Pipeline::of(&shop).with("source.binary", binary);
        let daemon = pipeline.start();
        shop.execute(
            "INSERT INTO notes VALUES (1, convert_from('\\xff61', 'SQL_ASCII'),
               ARRAY['plain', convert_from('\\xc328', 'SQL_ASCII')]);
             INSERT INTO notes VALUES (2, 'plain', '{}');",
        );
        let changes = delivered(&pipeline, "public.notes");
        let first = json!({"id": 1, "body": null, "tags": ["plain", null]});
        assert_eq!(changes[0].after, first.as_object().cloned(), "binary: {binary}");
        let told = json!({"after.body": "\\xff61", "after.tags[1]": "\\xc328"});
        assert_eq!(changes[0].unrepresentable, told, "binary: {binary}");
        let second = json!({"id": 2, "body": "plain", "tags": []});
        assert_eq!(changes[1].after, second.as_object().cloned());
        daemon.terminate();
    }
}

#[test]
fn types_and_labels_that_come_while_rows_flow_are_known_with_their_first_row() {
    let shop = Stack::shared().database(Version::NEWEST, "new types");
    shop.execute("CREATE TABLE moods (id int PRIMARY KEY)");
    let pipeline = Pipeline::of(&shop);
    let daemon = pipeline.start();
    // Each row is there before what it must not know of is made.
    for sql in [
        "INSERT INTO moods VALUES (1)",
        "CREATE TYPE mood AS ENUM ('fine')",
        "CREATE DOMAIN percent AS numeric(5,2) CHECK (value <= 100)",
        "CREATE TYPE spell AS (mood mood, parts percent[])",
        "ALTER TABLE moods ADD mood mood DEFAULT 'fine', ADD spells spell[]",
        "INSERT INTO moods VALUES (2, 'fine', ARRAY[ROW('fine', '{1.5,NULL}')::spell])",
        "ALTER TYPE mood ADD VALUE 'so-so'",
        "INSERT INTO moods VALUES (3, 'so-so', NULL)",
        "ALTER TYPE spell ADD ATTRIBUTE since date",
        "INSERT INTO moods VALUES (4, NULL, ARRAY[ROW('so-so', NULL, '2024-02-29')::spell])",
        "ALTER TYPE spell DROP ATTRIBUTE since, ADD ATTRIBUTE days int",
        "INSERT INTO moods VALUES (5, NULL, ARRAY[ROW('fine', NULL, 7)::spell])",
    ] {
        shop.execute(sql);
        pipeline.wait_until_delivered();
    }
    let rows: Vec<Value> = delivered(&pipeline, "public.moods")
        .into_iter()
        .map(|change| change.after.map_or(Value::Null, Value::Object))
        .collect();
    assert_eq!(
        rows,
        [
            json!({"id": 1}),
            json!({"id": 2, "mood": "fine", "spells": [{"mood": "fine", "parts": ["1.50", null]}]}),
            json!({"id": 3, "mood": "so-so", "spells": null}),
            json!({"id": 4, "mood": null,
                   "spells": [{"mood": "so-so", "parts": null, "since": 19782}]}),
            json!({"id": 5, "mood": null, "spells": [{"mood": "fine", "parts": null, "days": 7}]}),
        ]
    );
    assert_eq!(daemon.status()["retries"], 0, "no new type may end the connection");
    daemon.terminate();
}
