//! What `waltide schema plan` says of a migration is what happens when it is applied.

use std::fs;
use std::path::PathBuf;

use waltide_stack::serde_json::{Value, json};
use waltide_stack::{Database, Registry, Stack, Version, eventually};

use crate::cli::{Ended, waltide};
use crate::support::{Daemon, Pipeline, SOON};

const SHOP: &str = "
CREATE TYPE state AS ENUM ('new', 'paid');
CREATE TYPE place AS (street text, town text);
CREATE DOMAIN amount AS numeric(10, 2) CHECK (VALUE >= 0);
CREATE FUNCTION vat(numeric) RETURNS numeric LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 0.19';
CREATE SCHEMA archive;
CREATE TABLE customers (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL,
    home place, nick text COLLATE \"C\");
CREATE TABLE orders (id serial PRIMARY KEY, customer int REFERENCES customers, item text,
    pieces int NOT NULL DEFAULT 1, state state DEFAULT 'new', price amount,
    tax numeric GENERATED ALWAYS AS (vat(price)) STORED, CHECK (pieces > 0));
CREATE INDEX orders_item ON orders (lower(item));
COMMENT ON COLUMN orders.item IS 'what is ordered';
CREATE TABLE events (id int, day date, what text, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE events_2025 PARTITION OF events FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE notes (id int PRIMARY KEY, note text);
CREATE TABLE internal_log (id int PRIMARY KEY, line text);
CREATE VIEW open_orders AS SELECT id, item FROM orders WHERE state = 'new';
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER touched BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION touch();";

/// A row of each table that can be.
const ROWS: [&str; 4] = [
    "INSERT INTO customers (name) VALUES ('Ada')",
    "INSERT INTO orders (item, price) VALUES ('tea', 2)",
    "INSERT INTO events SELECT count(*), '2025-05-05', 'came' FROM events",
    "INSERT INTO notes SELECT count(*), 'a' FROM notes",
];

/// A migration, and rows of the tables it changes as they are then.
struct Migration {
    statements: &'static [&'static str],
    rows: &'static [&'static str],
}

const fn migration(
    statements: &'static [&'static str],
    rows: &'static [&'static str],
) -> Migration {
    Migration { statements, rows }
}

const ORDER: &[&str] = &["INSERT INTO orders (customer) VALUES (1)"];

/// In this order; each is planned, and then applied for good.
const MIGRATIONS: [Migration; 21] = [
    migration(&["ALTER TABLE orders ADD COLUMN remark text"], ORDER),
    migration(&["ALTER TABLE orders ADD COLUMN gift boolean NOT NULL DEFAULT false"], ORDER),
    // Two steps of which only the second is refused: the first stands.
    migration(
        &["ALTER TABLE orders ADD COLUMN kept int", "ALTER TABLE nothing ADD COLUMN lost int"],
        ORDER,
    ),
    // In a transaction neither does.
    migration(
        &[
            "BEGIN",
            "ALTER TABLE orders ADD COLUMN neither int",
            "ALTER TABLE nothing ADD COLUMN lost int",
            "COMMIT",
        ],
        ORDER,
    ),
    migration(
        &[
            "BEGIN",
            "ALTER TABLE orders ADD COLUMN first int",
            "ALTER TABLE customers ADD COLUMN born date",
            "COMMIT",
        ],
        &[
            "INSERT INTO orders (customer) VALUES (1)",
            "INSERT INTO customers (name) VALUES ('Bob')",
        ],
    ),
    migration(
        &[
            "CREATE INDEX CONCURRENTLY orders_remark ON orders (remark)",
            "VACUUM orders",
            "ALTER TABLE orders ADD COLUMN after_index int",
        ],
        ORDER,
    ),
    // A label alone does not make the server describe the table anew; the default does.
    migration(
        &[
            "ALTER TYPE state ADD VALUE 'sent'",
            "UPDATE orders SET state = 'sent'",
            "ALTER TABLE orders ALTER state SET DEFAULT 'sent'",
        ],
        ORDER,
    ),
    migration(&["ALTER TABLE orders RENAME COLUMN remark TO remarks"], ORDER),
    migration(&["ALTER TABLE orders DROP COLUMN kept"], ORDER),
    migration(&["ALTER TABLE orders ALTER COLUMN pieces TYPE bigint"], ORDER),
    migration(
        &["ALTER TABLE notes ALTER COLUMN note TYPE int USING length(note)"],
        &["INSERT INTO notes SELECT count(*), 1 FROM notes"],
    ),
    migration(&["ALTER TABLE internal_log ADD COLUMN more int", "DROP VIEW open_orders"], &[]),
    migration(
        &["ALTER TABLE notes RENAME TO remarks"],
        &["INSERT INTO remarks SELECT count(*), 1 FROM remarks"],
    ),
    migration(
        &["ALTER TABLE remarks SET SCHEMA archive"],
        &["INSERT INTO archive.remarks SELECT count(*), 1 FROM archive.remarks"],
    ),
    migration(&["DROP TABLE archive.remarks"], &[]),
    migration(
        &["CREATE TABLE parcels (id int PRIMARY KEY, sent timestamptz DEFAULT now())"],
        &["INSERT INTO parcels VALUES (1)"],
    ),
    // Another key.
    migration(
        &[
            "ALTER TABLE parcels ADD COLUMN code text NOT NULL DEFAULT 'x'",
            "ALTER TABLE parcels DROP CONSTRAINT parcels_pkey",
            "ALTER TABLE parcels ADD PRIMARY KEY (id, code)",
        ],
        &["INSERT INTO parcels VALUES (2)"],
    ),
    migration(
        &[
            "DO $do$ BEGIN EXECUTE 'ALTER TABLE customers ADD COLUMN by_code int; SELECT 1'; END $do$",
            "CREATE FUNCTION one() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT 1; END",
            "CREATE OR REPLACE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS \
           $$ BEGIN RETURN NEW; END; $$",
        ],
        &["INSERT INTO customers (name) VALUES ('Cy')"],
    ),
    migration(
        &[
            "CREATE TABLE events_2026 PARTITION OF events FOR VALUES FROM ('2026-01-01') TO \
           ('2027-01-01')",
            "ALTER TABLE events DETACH PARTITION events_2025",
        ],
        &[
            "INSERT INTO events VALUES (1, '2026-02-02', 'came')",
            "INSERT INTO events_2025 VALUES (70, '2025-02-02', 'came')",
        ],
    ),
    migration(
        &[
            "ALTER TYPE place ADD ATTRIBUTE country text",
            "ALTER TABLE customers ADD COLUMN doubled int GENERATED ALWAYS AS (id * 2) STORED",
        ],
        &["INSERT INTO customers (name, home) VALUES ('Eve', ROW('a', 'b', 'c'))"],
    ),
    migration(&["SELEC 1"], &[]),
];

struct Plan {
    /// Tables whose schemas or topics change.
    lines: Vec<Value>,
    end: Value,
    ran: Ended,
}

/// A file that goes away with the test.
struct File(PathBuf);

impl File {
    fn of(shop: &Database, text: &str) -> Self {
        Self::named(shop, "migration", text)
    }

    fn named(shop: &Database, name: &str, text: &str) -> Self {
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let path = directory.join(format!("{}-{name}.sql", shop.name()));
        fs::write(&path, text).expect("a file");
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("UTF-8")
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn scratch() -> Database {
    Stack::shared().database(Version::NEWEST, "scratch")
}

fn plan_with(pipeline: &Pipeline<'_>, migration: &File, scratch: &str, more: &[&str]) -> Ended {
    let file = pipeline.file();
    let config = file.path().to_str().expect("UTF-8");
    let asked = ["schema", "plan", "--migration", migration.path(), "--scratch", scratch];
    waltide(&[&asked, more, &["--config", config]].concat())
}

fn plan(pipeline: &Pipeline<'_>, migration: &File, scratch: &str) -> Plan {
    let ran = plan_with(pipeline, migration, scratch, &["--json"]);
    let mut lines: Vec<Value> = ran.out.lines().map(|line| line.parse().expect("JSON")).collect();
    let end = lines.pop().unwrap_or_default();
    Plan { lines, end, ran }
}

fn versions(registry: &Registry, subject: &str) -> usize {
    let answer = registry.call("GET", &format!("/subjects/{subject}/versions"), None);
    answer.body.as_array().map_or(0, Vec::len)
}

/// What changes with every write to the catalog or to a table.
fn state(shop: &Database) -> String {
    let catalogs = [
        "pg_class",
        "pg_attribute",
        "pg_type",
        "pg_proc",
        "pg_namespace",
        "pg_constraint",
        "pg_depend",
        "pg_publication_rel",
        "pg_db_role_setting",
    ];
    let of = |catalog: &str| {
        format!("(SELECT md5(string_agg(xmin::text, '' ORDER BY xmin::text)) FROM {catalog})")
    };
    let rows = "(SELECT md5(string_agg(query_to_xml(format('SELECT xmin, ctid FROM %s', oid::regclass), \
                true, true, '')::text, '' ORDER BY oid)) FROM pg_class WHERE relkind = 'r' AND \
                relnamespace IN ('public'::regnamespace, 'archive'::regnamespace))";
    let catalogs: Vec<String> = catalogs.iter().map(|catalog| of(catalog)).collect();
    shop.value(&format!("SELECT concat_ws(' ', {}, {rows})", catalogs.join(", ")))
}

/// Applies statements as psql does with ON_ERROR_STOP; how many were.
fn apply(shop: &Database, statements: &[&str]) -> usize {
    let session = shop.session();
    statements.iter().take_while(|one| session.try_query(one).is_ok()).count()
}

#[test]
fn what_is_planned_is_what_happens() {
    let stack = Stack::shared();
    let (shop, scratch) = (stack.database(Version::V17, "plan"), scratch());
    shop.execute(SHOP);
    let pipeline = Pipeline::of(&shop)
        .with("source.exclude", json!(["public.internal_*"]))
        .with("kafka.partitions", 1);
    let daemon = pipeline.start();
    ROWS.iter().for_each(|row| shop.execute(row));
    pipeline.wait_until_delivered();
    let registry = stack.registry();
    let prefix = pipeline.topic("x").name().trim_end_matches('x').to_owned();
    let (mut seen, mut refused) = (0, 0);
    for (at, migration) in MIGRATIONS.iter().enumerate() {
        let known = registry.subjects();
        for subject in known.iter().filter(|one| one.starts_with(&prefix)) {
            registry.set_compatibility(subject, "FULL");
        }
        let text = format!("-- Migration {at}.\n{};\n", migration.statements.join(";\n"));
        let before = state(&shop);
        let plan = plan(&pipeline, &File::of(&shop, &text), &scratch.url());
        assert_eq!(state(&shop), before, "{at}: the source is as it was");

        let applied = apply(&shop, migration.statements);
        assert_eq!(plan.end["applied"], applied, "{at}: {:?}", plan.end);
        let whole = applied == migration.statements.len();
        assert_eq!(plan.end["failure"].is_null(), whole, "{at}: {:?}", plan.end);
        let is = |result: &'static str| move |line: &&Value| line["result"] == result;
        let incompatible: Vec<&Value> = plan.lines.iter().filter(is("incompatible")).collect();
        let good = whole && incompatible.is_empty();
        assert_eq!(
            plan.ran.status,
            Some(if good { 0 } else { 1 }),
            "{at}: {}",
            plan.ran.everything
        );
        let counted: Vec<usize> = subjects(&plan).map(|one| versions(registry, one)).collect();

        are_published(&shop, &plan);
        migration.rows.iter().for_each(|row| shop.execute(row));
        if !incompatible.is_empty() {
            refused += 1;
            is_refused(&daemon, &incompatible);
            for subject in subjects(&plan) {
                registry.set_compatibility(subject, "NONE");
            }
        }
        pipeline.wait_until_delivered();
        daemon.wait_ready();
        for (line, before) in
            plan.lines.iter().filter(|line| line["subject"].is_string()).zip(counted)
        {
            seen += 1;
            let subject = line["subject"].as_str().expect("a subject");
            assert_eq!(registry.latest(subject).as_ref(), Some(&line["schema"]), "{at}: {subject}");
            let grown = usize::from(line["result"] != "unchanged");
            assert_eq!(versions(registry, subject), before + grown, "{at}: {line}");
        }
        for line in plan.lines.iter().filter(is("gone")) {
            assert!(line["was"].is_string() && line["table"].is_null(), "{at}: {line}");
        }
    }
    assert!(seen > 20 && refused >= 2, "{seen} schemas, {refused} migrations refused");
    daemon.terminate();
    let left = "SELECT count(*) FROM pg_database WHERE datname LIKE 'waltide_plan_%'";
    assert_eq!(scratch.value(left), "0", "nothing is left behind");
}

fn subjects(plan: &Plan) -> impl Iterator<Item = &str> {
    plan.lines.iter().filter_map(|line| line["subject"].as_str())
}

/// A new table is looked for from time to time.
fn are_published(shop: &Database, plan: &Plan) {
    for table in plan.lines.iter().filter_map(|line| line["table"].as_str()) {
        let sql = format!(
            "SELECT count(*) FROM pg_publication_tables WHERE schemaname || '.' || tablename = '{table}'"
        );
        eventually(&format!("{table} is published"), SOON, || {
            (shop.value(&sql) != "0").then_some(())
        });
    }
}

fn is_refused(daemon: &Daemon, incompatible: &[&Value]) {
    eventually("the schema is refused", SOON, || {
        let status = daemon.status();
        let (code, what) = (&status["error"]["code"], status["error"]["what"].as_str()?);
        let named =
            incompatible.iter().any(|one| what.contains(one["table"].as_str().unwrap_or("-")));
        (code == "WT403" && named).then_some(())
    });
}

#[test]
fn a_dump_stands_in_for_the_source_and_roles_and_rows_are_left_out() {
    let stack = Stack::shared();
    let (shop, scratch) = (stack.database(Version::NEWEST, "plan dump"), scratch());
    let role = format!("{}_app", shop.name());
    let nowhere = Pipeline::of(&shop).with("source.url", "postgres://nobody@127.0.0.1:1/nothing");
    let dump = format!(
        "\\restrict abc\nSET statement_timeout = 0;\nSET no_such_setting = on;\n{SHOP}\n\
         ALTER TABLE public.orders OWNER TO {role};\nCOPY public.notes (id, note) FROM stdin;\n\
         1\tit's; one\n\\.\n\\unrestrict abc\n"
    );
    let migration = format!(
        "CREATE ROLE {role}_new LOGIN;\nGRANT SELECT ON orders TO {role}_new;\n\
         GRANT {role} TO {role}_new;\nCOPY notes FROM STDIN;\n1\t'\n\\.\n\
         ALTER TABLE orders ADD COLUMN more int;\n"
    );
    let (dump, migration) = (File::named(&shop, "dump", &dump), File::of(&shop, &migration));
    let from = ["--json", "--dump", dump.path()];
    let ran = plan_with(&nowhere, &migration, &scratch.url(), &from);
    let text = plan_with(&nowhere, &migration, &scratch.url(), &from[1..]);
    assert_eq!(ran.status, Some(0), "{}", ran.everything);
    let lines: Vec<Value> = ran.out.lines().map(|line| line.parse().expect("JSON")).collect();
    let end = lines.last().expect("an end");
    assert_eq!((&end["applied"], end["failure"].is_null()), (&json!(2), true), "{end}");
    let notes = end["notes"].to_string();
    for left_out in ["CREATE ROLE", &format!("GRANT {role} TO"), "COPY notes", "no_such_setting"] {
        assert!(notes.contains(left_out), "{left_out}: {notes}");
    }
    let orders = &lines[0];
    assert_eq!((&orders["result"], &orders["table"]), (&json!("new"), &json!("public.orders")));
    assert!(orders["schema"].to_string().contains("\"more\""), "{orders}");
    let said =
        ["new           public.orders", "left out: line 1: CREATE ROLE", "1 table changed, 4"];
    for said in said {
        assert!(text.out.contains(said), "{said}: {}", text.out);
    }
    let roles = format!("SELECT count(*) FROM pg_roles WHERE rolname LIKE '{role}%'");
    assert_eq!(scratch.value(&roles), "0", "roles that were lent are gone");
}

#[test]
fn what_cannot_be_planned_is_said_and_leaves_nothing() {
    let stack = Stack::shared();
    let (shop, scratch) = (stack.database(Version::V17, "plan errors"), scratch());
    shop.execute("CREATE TABLE orders (id int PRIMARY KEY)");
    let pipeline = Pipeline::of(&shop);
    let says = |migration: &str, scratch: &str, expected: &[&str]| {
        let ran = plan_with(&pipeline, &File::of(&shop, migration), scratch, &[]);
        assert_eq!(ran.status, Some(1), "{}", ran.everything);
        for expected in expected {
            assert!(ran.everything.contains(expected), "{expected}: {}", ran.everything);
        }
    };
    let other = scratch.url();
    says("SELECT 1;\n\\i more.sql\n", &other, &["WT115", ".sql:2: ", "\\i"]);
    says("SELECT 'a", &other, &["WT115", ".sql:1: ", "no end"]);
    says("\n\nALTER TABLE nothing ADD a int", &other, &["WT115", ".sql:3: ", "42P01"]);
    says("SELECT 1", &shop.url(), &["WT116", "the server of the source"]);
    says("SELECT 1", "postgres://nobody@127.0.0.1:1/nothing", &["WT116"]);
    says("SELECT 1", "what?", &["WT102", "--scratch"]);
    let role = format!("{}_poor", shop.name());
    scratch.execute(&format!("CREATE ROLE {role} LOGIN"));
    says("SELECT 1", &scratch.url_as(&role, None), &["WT116", "permission denied"]);
    scratch.execute(&format!("DROP ROLE {role}"));
    let left = "SELECT count(*) FROM pg_database WHERE datname LIKE 'waltide_plan_%'";
    assert_eq!(shop.value(left), "0");
}
