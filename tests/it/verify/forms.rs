//! In whatever form records are, and however the table is made.

use super::*;

/// A key of two columns, values of every kind, and one that is left out of the log where it does
/// not change.
const GOODS: &str = "
    CREATE TYPE colour AS ENUM ('red', 'green');
    CREATE TABLE goods (
        note text, tenant text NOT NULL, no bigint NOT NULL, price numeric(9, 2), any_price numeric,
        made timestamptz, day date, tags text[], colour colour, about jsonb, raw bytea,
        took interval, large text, PRIMARY KEY (tenant, no));
    ALTER TABLE goods ALTER large SET STORAGE EXTERNAL";

fn fill(shop: &Database) {
    shop.execute(
        "INSERT INTO goods SELECT 'n' || g, 'a', g, g / 3.0, g / 7.0, now(), '2026-01-01', \
         ARRAY['x', NULL, g::text], 'red', '{\"a\": 1}', '\\x00ff', '1 month 2 days', \
         repeat(md5(g::text), 100) FROM generate_series(1, 200) g",
    );
    // Values that a decimal cannot hold, an array that is not plain, and nothing at all.
    shop.execute("UPDATE goods SET price = 'NaN', tags = '[0:1]={p,q}' WHERE no % 10 = 3");
    shop.execute("INSERT INTO goods (tenant, no) VALUES ('b', 1)");
    // The large values are not sent again.
    shop.execute("UPDATE goods SET note = 'changed' WHERE no % 5 = 0 AND tenant = 'a'");
    shop.execute("UPDATE goods SET large = 'small' WHERE no % 15 = 0");
    shop.execute("DELETE FROM goods WHERE no BETWEEN 11 AND 19");
}

fn key(tenant: &str, no: u32) -> Value {
    json!({"tenant": tenant, "no": no})
}

fn holds_in_the_form(profile: &str, envelope: &str, version: Version) {
    let shop = Stack::shared().database(version, &format!("verify {profile} {envelope}"));
    shop.execute(GOODS);
    let pipeline = Pipeline::of(&shop).with("profile", profile).with("envelope", envelope);
    let daemon = pipeline.start();
    fill(&shop);
    pipeline.wait_until_delivered();
    verify(&pipeline, "public.goods", &[]).is_equal(192);
    // A value, a row too few in the topic, one too many, and one that the daemon never saw.
    let intruder = Intruder::of(&pipeline, "public.goods");
    intruder.repeats_the_first(&key("a", 10));
    intruder.buries(&key("a", 20));
    intruder.repeats_the_first(&key("a", 11));
    verify(&pipeline, "public.goods", &[]).names(
        "WT121",
        json!([
            {"kind": "changed", "key": key("a", 10), "columns": ["note"]},
            {"kind": "missing", "key": key("a", 20), "columns": []},
            {"kind": "extra", "key": key("a", 11), "columns": []},
        ]),
    );
    daemon.terminate();
}

#[test]
fn differences_are_named_in_the_waltide_profile() {
    holds_in_the_form("waltide", "full", Version::V14);
    holds_in_the_form("waltide", "flat", Version::NEWEST);
}

#[test]
fn differences_are_named_in_the_debezium_profile() {
    holds_in_the_form("debezium", "full", Version::NEWEST);
    holds_in_the_form("debezium", "flat", Version::V14);
}

#[test]
fn a_partitioned_table_with_a_column_list_and_a_filter_is_equal() {
    let shop = Stack::shared().database(Version::NEWEST, "verify partitions");
    shop.execute(
        "CREATE TABLE visits (at date, id int, who text, secret text, PRIMARY KEY (at, id))
           PARTITION BY RANGE (at);
         CREATE TABLE visits_1 PARTITION OF visits FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
         CREATE TABLE visits_2 (id int NOT NULL, secret text, who text, at date NOT NULL,
           PRIMARY KEY (at, id));
         ALTER TABLE visits ATTACH PARTITION visits_2 FOR VALUES FROM ('2026-02-01') TO ('2026-03-01')",
    );
    let publication = format!("waltide_{}", shop.prefix());
    shop.execute(&format!(
        "CREATE PUBLICATION {publication} FOR TABLE visits (at, id, who) WHERE (id % 2 = 0)
           WITH (publish_via_partition_root)"
    ));
    let pipeline = Pipeline::of(&shop).with("source.tables", vec!["public.visits"]);
    let daemon = pipeline.start();
    shop.execute(
        "INSERT INTO visits SELECT date '2026-01-01' + g % 59, g, 'w' || g, 'hush'
           FROM generate_series(1, 300) g",
    );
    // From one partition to the other, and out of sight of the filter.
    shop.execute("UPDATE visits SET at = '2026-02-03' WHERE id < 40 AND at < '2026-02-01'");
    pipeline.wait_until_delivered();
    verify(&pipeline, "public.visits", &[]).is_equal(150);
    let intruder = Intruder::of(&pipeline, "public.visits");
    intruder.buries(&json!({"at": 20_487, "id": 2}));
    let found = verify(&pipeline, "public.visits", &[]);
    let named = json!([{"kind": "missing", "key": {"at": "2026-02-03", "id": 2}, "columns": []}]);
    found.names("WT121", named);
    verify(&pipeline, "public.visits_2", &[]).fails("WT217", &["not captured"]);
    daemon.terminate();
}

/// Rows that were published before a column was added, widened, renamed or dropped.
#[test]
fn records_of_older_schemas_are_compared_as_their_readers_read_them() {
    let shop = shop("verify schemas");
    shop.execute("ALTER TABLE orders ADD gone text, ADD cents int, ADD price numeric(6, 1)");
    let pipeline = Pipeline::of(&shop);
    let daemon = pipeline.start();
    shop.execute("INSERT INTO orders SELECT g, 'tea', 'x', g, g FROM generate_series(1, 20) g");
    pipeline.wait_until_delivered();
    shop.execute(
        "ALTER TABLE orders DROP gone, ALTER cents TYPE bigint, ALTER id TYPE bigint,
           ALTER price TYPE numeric(9, 3), ADD later text",
    );
    shop.execute("UPDATE orders SET item = 'coffee', later = 'now' WHERE id <= 5");
    pipeline.wait_until_delivered();
    verify(&pipeline, "public.orders", &[]).is_equal(20);
    // What a default gave to rows that were there is in no record.
    shop.execute("ALTER TABLE orders ADD flag int DEFAULT 7");
    shop.execute("UPDATE orders SET item = 'water' WHERE id > 2");
    pipeline.wait_until_delivered();
    let changed = |id: u32| json!({"kind": "changed", "key": {"id": id}, "columns": ["flag"]});
    verify(&pipeline, "public.orders", &[]).names("WT121", json!([changed(1), changed(2)]));
    daemon.terminate();
}

/// After a TRUNCATE, and where a table goes on in another topic.
#[test]
fn a_table_that_was_emptied_and_one_that_goes_on_in_another_topic_are_equal() {
    let shop = shop("verify truncate");
    let pipeline = Pipeline::of(&shop).with("registry.on_incompatible", "fork");
    let daemon = pipeline.start();
    shop.execute("INSERT INTO orders SELECT g, 'tea' FROM generate_series(1, 30) g");
    shop.execute("TRUNCATE orders");
    shop.execute("INSERT INTO orders SELECT g, 'tea' FROM generate_series(20, 40) g");
    pipeline.wait_until_delivered();
    verify(&pipeline, "public.orders", &[]).is_equal(21);
    let registry = Stack::shared().registry();
    let subject = format!("{}-value", pipeline.topic("public.orders").name());
    registry.set_compatibility(&subject, "FULL");
    shop.execute("ALTER TABLE orders ALTER item TYPE int USING length(item)");
    shop.execute("UPDATE orders SET item = 4");
    shop.execute("DELETE FROM orders WHERE id = 20");
    pipeline.wait_until_delivered();
    let found = verify(&pipeline, "public.orders", &[]);
    let topics = found.is_equal(20).json["topics"].as_array().map(Vec::len);
    assert_eq!(topics, Some(2), "{}", found.everything);
    daemon.terminate();
}

/// A key that moved takes its large value along, and no record under the new key tells it.
#[test]
fn a_value_that_no_record_of_the_key_tells_is_not_proved() {
    let shop = shop("verify untold");
    shop.execute("ALTER TABLE orders ALTER item SET STORAGE EXTERNAL");
    let pipeline = Pipeline::of(&shop);
    let daemon = pipeline.start();
    shop.execute("INSERT INTO orders SELECT g, repeat('x', 4000) FROM generate_series(1, 3) g");
    shop.execute("UPDATE orders SET id = 7 WHERE id = 2");
    pipeline.wait_until_delivered();
    let named = json!([{"kind": "untold", "key": {"id": 7}, "columns": ["item"]}]);
    verify(&pipeline, "public.orders", &[]).names("WT122", named);
    daemon.terminate();
}

/// Neither needs a primary key: an index identifies rows, or the configuration says what does.
#[test]
fn a_table_identified_by_an_index_or_by_the_configuration_is_equal() {
    let shop = Stack::shared().database(Version::NEWEST, "verify identity");
    shop.execute(
        "CREATE TABLE by_index (a int NOT NULL, b uuid NOT NULL, c text, UNIQUE (b, a));
         ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_b_a_key;
         CREATE TABLE by_name (a bytea, b timestamptz, c text);
         ALTER TABLE by_name REPLICA IDENTITY FULL",
    );
    let key = ["table_options", "public.by_name", "key"];
    let pipeline = Pipeline::of(&shop).with_path(&key, vec!["a", "b"]);
    let daemon = pipeline.start();
    shop.execute(
        "INSERT INTO by_index SELECT g, md5(g::text)::uuid, 'x' FROM generate_series(1, 9) g;
         INSERT INTO by_name SELECT decode(md5(g::text), 'hex'), '2026-01-01'::date + g, 'x'
           FROM generate_series(1, 9) g",
    );
    shop.execute("UPDATE by_index SET a = a + 20 WHERE a > 5; DELETE FROM by_name WHERE c = 'y'");
    pipeline.wait_until_delivered();
    let intruder = |table: &str| {
        let records = pipeline.topic(table).read_json();
        let is_last = |one: &&waltide_stack::JsonRecord| {
            records.iter().rfind(|it| it.key == one.key) == Some(*one)
        };
        let alive = records.iter().filter(is_last).find(|one| !one.value.is_null());
        Intruder::of(&pipeline, table).buries(&alive.expect("a key that is there").key);
    };
    for table in ["public.by_index", "public.by_name"] {
        verify(&pipeline, table, &[]).is_equal(9);
        intruder(table);
        let found = verify(&pipeline, table, &[]);
        assert_eq!(found.json["counts"]["missing"], 1, "{}", found.everything);
        assert_eq!(found.json["equal"], 8, "{}", found.everything);
    }
    daemon.terminate();
}
