//! Every kind of change that a table can go through: rows before and after it, in transactions of
//! their own and in one, on every version.

use std::collections::BTreeMap;

use waltide_stack::{Stack, Version};

use super::{each, row, rows};
use crate::support::{Pipeline, SOON, on_each_version};

/// A change of a table `t`, with a row before it and a row after it.
struct Kind {
    /// What there is.
    table: &'static str,
    before: &'static str,
    change: &'static str,
    after: &'static str,
    /// Key and row of each record that arrives, by the table of whose topic it is.
    arrives: &'static [(&'static str, &'static str)],
}

const KINDS: &[Kind] = &[
    Kind {
        table: "CREATE TABLE t (id int PRIMARY KEY)",
        before: "INSERT INTO t VALUES (1)",
        change: "ALTER TABLE t ADD c int",
        after: "INSERT INTO t VALUES (2, 5)",
        arrives: &[("t", r#"{"id":1} {"id":1}"#), ("t", r#"{"id":2} {"c":5,"id":2}"#)],
    },
    // What the old row got without being written comes with its next change; a null stays one.
    Kind {
        table: "CREATE TABLE t (id int PRIMARY KEY, n int)",
        before: "INSERT INTO t VALUES (1)",
        change: "ALTER TABLE t ADD c int DEFAULT 7",
        after: "INSERT INTO t VALUES (2, 0, NULL); UPDATE t SET n = 1 WHERE id = 1",
        arrives: &[
            ("t", r#"{"id":1} {"id":1,"n":null}"#),
            ("t", r#"{"id":2} {"c":null,"id":2,"n":0}"#),
            ("t", r#"{"id":1} {"c":7,"id":1,"n":1}"#),
        ],
    },
    Kind {
        table: "CREATE TABLE t (id int PRIMARY KEY)",
        before: "INSERT INTO t VALUES (1)",
        change: "ALTER TABLE t ADD c text NOT NULL DEFAULT 'a'",
        after: "INSERT INTO t VALUES (2)",
        arrives: &[("t", r#"{"id":1} {"id":1}"#), ("t", r#"{"id":2} {"c":"a","id":2}"#)],
    },
    // The server does not send what it computes.
    Kind {
        table: "CREATE TABLE t (id int PRIMARY KEY)",
        before: "INSERT INTO t VALUES (1)",
        change: "ALTER TABLE t ADD c int GENERATED ALWAYS AS (id * 2) STORED",
        after: "INSERT INTO t VALUES (2)",
        arrives: &[("t", r#"{"id":1} {"id":1}"#), ("t", r#"{"id":2} {"id":2}"#)],
    },
    Kind {
        table: "CREATE TABLE t (id int PRIMARY KEY)",
        before: "INSERT INTO t VALUES (1)",
        change: "ALTER TABLE t ADD c int GENERATED ALWAYS AS IDENTITY (START 8)",
        after: "INSERT INTO t VALUES (2)",
        arrives: &[("t", r#"{"id":1} {"id":1}"#), ("t", r#"{"id":2} {"c":9,"id":2}"#)],
    },
    Kind {
        table: "CREATE TABLE t (a text, id int PRIMARY KEY, b text)",
        before: "INSERT INTO t VALUES ('a', 1, 'b')",
        change: "ALTER TABLE t DROP a",
        after: "INSERT INTO t VALUES (2, 'c')",
        arrives: &[
            ("t", r#"{"id":1} {"a":"a","b":"b","id":1}"#),
            ("t", r#"{"id":2} {"b":"c","id":2}"#),
        ],
    },
    Kind {
        table: "CREATE TABLE t (a text, id int PRIMARY KEY, b text)",
        before: "INSERT INTO t VALUES ('a', 1, 'b')",
        change: "ALTER TABLE t DROP a; ALTER TABLE t RENAME b TO a",
        after: "INSERT INTO t VALUES (2, 'c')",
        arrives: &[
            ("t", r#"{"id":1} {"a":"a","b":"b","id":1}"#),
            ("t", r#"{"id":2} {"a":"c","id":2}"#),
        ],
    },
    Kind {
        table: "CREATE TABLE t (id int PRIMARY KEY)",
        before: "INSERT INTO t VALUES (1)",
        change: "ALTER TABLE t RENAME id TO number",
        after: "INSERT INTO t VALUES (2)",
        arrives: &[("t", r#"{"id":1} {"id":1}"#), ("t", r#"{"number":2} {"number":2}"#)],
    },
    // Wider, narrower, and another kind altogether.
    Kind {
        table: "CREATE TABLE t (id int PRIMARY KEY, c int)",
        before: "INSERT INTO t VALUES (1, 1)",
        change: "ALTER TABLE t ALTER c TYPE bigint",
        after: "INSERT INTO t VALUES (2, 5000000000)",
        arrives: &[
            ("t", r#"{"id":1} {"c":1,"id":1}"#),
            ("t", r#"{"id":2} {"c":5000000000,"id":2}"#),
        ],
    },
    Kind {
        table: "CREATE TABLE t (id bigint PRIMARY KEY, c numeric(12,4))",
        before: "INSERT INTO t VALUES (5000000000, 1.2345)",
        change: "UPDATE t SET id = 1; ALTER TABLE t ALTER id TYPE int, ALTER c TYPE numeric(6,1)",
        after: "INSERT INTO t VALUES (2, 7.5)",
        arrives: &[
            ("t", r#"{"id":5000000000} {"c":"1.2345","id":5000000000}"#),
            ("t", r#"{"id":5000000000} null"#),
            ("t", r#"{"id":5000000000} null"#),
            ("t", r#"{"id":1} {"c":"1.2345","id":1}"#),
            ("t", r#"{"id":2} {"c":"7.5","id":2}"#),
        ],
    },
    Kind {
        table: "CREATE TABLE t (id int PRIMARY KEY, c text)",
        before: "INSERT INTO t VALUES (1, '12')",
        change: "ALTER TABLE t ALTER c TYPE int USING c::int",
        after: "INSERT INTO t VALUES (2, 13)",
        arrives: &[("t", r#"{"id":1} {"c":"12","id":1}"#), ("t", r#"{"id":2} {"c":13,"id":2}"#)],
    },
    Kind {
        table: "CREATE TYPE t_mood AS ENUM ('fine'); CREATE TABLE t (id int PRIMARY KEY, c t_mood)",
        before: "INSERT INTO t VALUES (1, 'fine')",
        change: "ALTER TYPE t_mood ADD VALUE 'sad' BEFORE 'fine'",
        after: "INSERT INTO t VALUES (2, 'fine')",
        arrives: &[
            ("t", r#"{"id":1} {"c":"fine","id":1}"#),
            ("t", r#"{"id":2} {"c":"fine","id":2}"#),
        ],
    },
    Kind {
        table: "CREATE TABLE t (id int NOT NULL)",
        before: "INSERT INTO t VALUES (1)",
        change: "ALTER TABLE t ADD PRIMARY KEY (id)",
        after: "INSERT INTO t VALUES (2)",
        arrives: &[("t", r#"null {"id":1}"#), ("t", r#"{"id":2} {"id":2}"#)],
    },
    Kind {
        table: "CREATE TABLE t (id int CONSTRAINT t_key PRIMARY KEY)",
        before: "INSERT INTO t VALUES (1)",
        change: "ALTER TABLE t DROP CONSTRAINT t_key",
        after: "INSERT INTO t VALUES (2)",
        arrives: &[("t", r#"{"id":1} {"id":1}"#), ("t", r#"null {"id":2}"#)],
    },
    Kind {
        table: "CREATE TABLE t (id int PRIMARY KEY, c int)",
        before: "INSERT INTO t VALUES (1, 1)",
        change: "ALTER TABLE t REPLICA IDENTITY FULL",
        after: "UPDATE t SET c = 2",
        arrives: &[("t", r#"{"id":1} {"c":1,"id":1}"#), ("t", r#"{"id":1} {"c":2,"id":1}"#)],
    },
    Kind {
        table: "CREATE TABLE t (id int PRIMARY KEY, c int NOT NULL CONSTRAINT t_c UNIQUE)",
        before: "INSERT INTO t VALUES (1, 1)",
        change: "ALTER TABLE t REPLICA IDENTITY USING INDEX t_c",
        after: "UPDATE t SET id = 2",
        arrives: &[("t", r#"{"id":1} {"c":1,"id":1}"#), ("t", r#"{"c":1} {"c":1,"id":2}"#)],
    },
    Kind {
        table: "CREATE TABLE t (id int PRIMARY KEY)",
        before: "INSERT INTO t VALUES (1)",
        change: "ALTER TABLE t RENAME TO t_new",
        after: "INSERT INTO t_new VALUES (2)",
        arrives: &[("t", r#"{"id":1} {"id":1}"#), ("t_new", r#"{"id":2} {"id":2}"#)],
    },
    Kind {
        table: "CREATE TABLE t (id int PRIMARY KEY)",
        before: "INSERT INTO t VALUES (1)",
        change: "ALTER TABLE t SET SCHEMA other",
        after: "INSERT INTO other.t VALUES (2)",
        arrives: &[("t", r#"{"id":1} {"id":1}"#), ("other.t", r#"{"id":2} {"id":2}"#)],
    },
];

on_each_version! {
    every_kind_of_change_stands_between_the_rows_it_stood_between
    a_table_that_is_dropped_and_made_again_goes_on_with_its_new_columns
    partitions_that_come_and_go_take_their_rows_along
}

/// Every kind twice: as transactions of their own, and as one.
fn every_kind_of_change_stands_between_the_rows_it_stood_between(version: Version) {
    let shop = Stack::shared().database(version, "kinds of change");
    shop.execute("CREATE SCHEMA other");
    let named = |sql: &str, name: &str| {
        // `t` as a name of its own, alone or with something behind it.
        let parts = sql.split_inclusive(|c: char| !c.is_ascii_alphanumeric());
        let part = |part: &str| match part.strip_prefix('t') {
            Some(rest) if !rest.starts_with(|c: char| c.is_ascii_alphanumeric()) => {
                format!("{name}{rest}")
            }
            _ => part.to_owned(),
        };
        parts.map(part).collect::<String>()
    };
    let tables: Vec<(String, &Kind, bool)> = KINDS
        .iter()
        .enumerate()
        .flat_map(|(number, kind)| {
            [(format!("apart{number}"), kind, false), (format!("at_once{number}"), kind, true)]
        })
        .collect();
    for (table, kind, _) in &tables {
        shop.execute(&named(kind.table, table));
    }
    let pipeline = Pipeline::of(&shop).with("kafka.partitions", 1);
    let daemon = pipeline.start();
    for (table, kind, at_once) in &tables {
        let [before, change, after] =
            [kind.before, kind.change, kind.after].map(|sql| named(sql, table));
        match at_once {
            true => shop.execute(&format!("BEGIN; {before}; {change}; {after}; COMMIT")),
            false => each(&shop, &[&before, &change, &after]),
        }
    }
    pipeline.wait_until_delivered();
    for (table, kind, _) in &tables {
        let mut arrives: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for (place, told) in kind.arrives {
            let place = named(place, table);
            let place = if place.contains('.') { place } else { format!("public.{place}") };
            arrives.entry(place).or_default().push(told);
        }
        for (place, expected) in arrives {
            let mut changes = pipeline.changes(&place);
            changes.sort_by_key(|change| change.position);
            let told: Vec<String> = changes
                .iter()
                .map(|change| {
                    let (_, key, after) = row(change);
                    let after = after.as_object().map(|row| row.iter().collect::<BTreeMap<_, _>>());
                    let after = waltide_stack::serde_json::json!(after);
                    format!("{key} {after}")
                })
                .collect();
            assert_eq!(told, expected, "{place}: {}", kind.change);
        }
    }
    assert_eq!(daemon.status()["retries"], 0, "no change of a table may end the connection");
    daemon.terminate();
}

/// Its rows from before, and all that it has after, in one topic.
fn a_table_that_is_dropped_and_made_again_goes_on_with_its_new_columns(version: Version) {
    let shop = Stack::shared().database(version, "made again");
    shop.execute("CREATE TABLE orders (id int PRIMARY KEY, item text)");
    let pipeline = Pipeline::of(&shop).with("kafka.partitions", 1).with("snapshot", "initial");
    let daemon = pipeline.start();
    shop.execute("INSERT INTO orders VALUES (1, 'tea')");
    pipeline.wait_until_delivered();
    shop.execute(
        "BEGIN; INSERT INTO orders VALUES (2, 'milk'); DROP TABLE orders;
         CREATE TABLE orders (item int, id int PRIMARY KEY); INSERT INTO orders VALUES (30, 3);
         COMMIT",
    );
    shop.execute("INSERT INTO orders VALUES (40, 4)");
    // Until the new table is published as well, its rows wait to be read.
    pipeline.topic("public.orders").wait_for(4, SOON);
    shop.execute("INSERT INTO orders VALUES (50, 5)");
    assert_eq!(
        rows(&pipeline, "public.orders"),
        [
            r#"{"id":1,"item":"tea"}"#,
            r#"{"id":2,"item":"milk"}"#,
            r#"{"id":3,"item":30}"#,
            r#"{"id":4,"item":40}"#,
            r#"{"id":5,"item":50}"#,
        ]
    );
    daemon.terminate();
}

/// What a partition holds belongs to the table above it for as long as it is attached.
fn partitions_that_come_and_go_take_their_rows_along(version: Version) {
    let shop = Stack::shared().database(version, "come and go");
    shop.execute(
        "CREATE TABLE readings (region int, id int, PRIMARY KEY (region, id))
           PARTITION BY LIST (region);
         CREATE TABLE readings_1 PARTITION OF readings FOR VALUES IN (1);
         CREATE TABLE readings_2 (id int NOT NULL, region int NOT NULL)",
    );
    let pipeline = Pipeline::of(&shop).with("kafka.partitions", 1);
    let daemon = pipeline.start();
    each(
        &shop,
        &[
            "INSERT INTO readings VALUES (1, 1)",
            "BEGIN; INSERT INTO readings_2 VALUES (7, 2);
             ALTER TABLE readings_2 ADD PRIMARY KEY (region, id);
             ALTER TABLE readings ATTACH PARTITION readings_2 FOR VALUES IN (2);
             INSERT INTO readings VALUES (2, 1); COMMIT",
            "INSERT INTO readings_2 VALUES (2, 2)",
            "BEGIN; INSERT INTO readings VALUES (2, 3);
             ALTER TABLE readings DETACH PARTITION readings_2;
             INSERT INTO readings_2 VALUES (8, 2); COMMIT",
            "INSERT INTO readings VALUES (1, 2)",
        ],
    );
    assert_eq!(
        rows(&pipeline, "public.readings"),
        [
            r#"{"id":1,"region":1}"#,
            r#"{"id":1,"region":2}"#,
            r#"{"id":2,"region":2}"#,
            r#"{"id":3,"region":2}"#,
            r#"{"id":2,"region":1}"#,
        ]
    );
    let alone = rows(&pipeline, "public.readings_2");
    assert_eq!(alone, [r#"{"id":7,"region":2}"#, r#"{"id":8,"region":2}"#]);
    assert_eq!(daemon.status()["retries"], 0, "no partition may end the connection");
    daemon.terminate();
}
