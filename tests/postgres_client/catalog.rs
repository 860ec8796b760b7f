//! The catalog, against tables made of everything it has.

use waltide::postgres::catalog::{Persistence, RelationKind, Relations, TableFacts};
use waltide_core::catalog::{Kind, PgType, TableColumn};
use waltide_core::pgoutput::ReplicaIdentity;
use waltide_stack::{Database, Version};

use crate::{database, open, shared};

fn named<'a>(relations: &'a Relations, db: &Database, name: &str) -> &'a PgType {
    let oid = db.value(&format!("SELECT '{name}'::regtype::oid")).parse().unwrap();
    relations.types.get(oid).unwrap_or_else(|| panic!("no {name}"))
}

async fn tables(db: &Database, pattern: &str) -> Vec<TableFacts> {
    open(&db.url()).await.list_tables(&[pattern]).await.unwrap()
}

async fn relations(db: &Database) -> Relations {
    let mut connection = open(&db.url()).await;
    let ids: Vec<_> =
        connection.list_tables(&["*"]).await.unwrap().iter().map(|table| table.id).collect();
    let relations = connection.load_relations(&ids).await.unwrap();
    assert!(!connection.in_transaction());
    relations
}

#[tokio::test]
async fn types_are_followed_to_what_they_are_made_of() {
    for version in Version::ALL {
        let db = database(version, "types");
        db.execute(
            "CREATE EXTENSION hstore;
             CREATE TYPE mood AS ENUM ('sad', 'happy'); ALTER TYPE mood ADD VALUE 'meh' BEFORE 'happy';
             CREATE DOMAIN price AS numeric(10, 2) CHECK (value > 0);
             CREATE DOMAIN moods AS mood[];
             CREATE TYPE address AS (street varchar(20), gone int, m moods);
             ALTER TYPE address DROP ATTRIBUTE gone;
             CREATE TYPE span AS RANGE (subtype = float8);
             CREATE TABLE t (a address[], p price, h hstore, s span, ms span_multirange,
                             b box[], iv int2vector, acl aclitem[], xy point)",
        );
        let relations = relations(&db).await;
        let oid = |name: &str| named(&relations, &db, name).oid;
        let kind = |name: &str| named(&relations, &db, name).kind.clone();
        let array = |element: &str, delimiter| Kind::Array { element: oid(element), delimiter };
        assert_eq!(kind("address[]"), array("address", b','));
        assert_eq!(kind("box[]"), array("box", b';'));
        let Kind::Composite(attributes) = kind("address") else { panic!("{version}") };
        let attributes: Vec<_> = attributes
            .iter()
            .map(|attribute| (attribute.name.as_str(), attribute.type_oid, attribute.modifier))
            .collect();
        assert_eq!(attributes, [("street", oid("varchar"), 24), ("m", oid("moods"), -1)]);
        assert_eq!(kind("moods"), Kind::Domain { base: oid("mood[]"), modifier: -1 });
        assert_eq!(
            kind("price"),
            Kind::Domain { base: oid("numeric"), modifier: (10 << 16 | 2) + 4 }
        );
        let labels = ["sad", "meh", "happy"].map(str::to_owned).to_vec();
        assert_eq!(kind("mood"), Kind::Enum(labels));
        assert_eq!(kind("span"), Kind::Range { subtype: oid("float8") });
        assert_eq!(kind("span_multirange"), Kind::Multirange { range: oid("span") });
        // They have elements and are no arrays: their text form is their own.
        assert_eq!((kind("int2vector"), kind("point")), (Kind::Base, Kind::Base));
        let hstore = named(&relations, &db, "hstore");
        assert_eq!(
            (hstore.extension.as_deref(), hstore.schema.as_str()),
            (Some("hstore"), "public")
        );
        assert!(hstore.has_send);
        assert!(!named(&relations, &db, "aclitem").has_send);
        assert!(named(&relations, &db, "aclitem[]").has_send);
    }
}

#[tokio::test]
async fn columns_come_with_what_the_stream_does_not_tell() {
    for version in Version::ALL {
        let db = database(version, "columns");
        db.execute(
            "CREATE TABLE t (b int, gone int, \"A b\" text NOT NULL DEFAULT 'x''y', id bigint GENERATED ALWAYS AS IDENTITY,
                             g int GENERATED ALWAYS AS (1 + 1) STORED, s serial,
                             PRIMARY KEY (id, b) INCLUDE (g));
             ALTER TABLE t DROP gone;
             COMMENT ON TABLE t IS 'a table'; COMMENT ON COLUMN t.b IS 'a ''b'''",
        );
        let relations = relations(&db).await;
        let table = relations.tables.values().next().unwrap();
        assert_eq!(table.comment.as_deref(), Some("a table"));
        assert_eq!(table.primary_key, ["id", "b"]);
        let column = |name: &str, not_null| TableColumn {
            name: name.to_owned(),
            not_null,
            default: None,
            identity: false,
            generated: false,
            comment: None,
        };
        let default = |text: &str| Some(text.to_owned());
        let expected = [
            TableColumn { comment: default("a 'b'"), ..column("b", true) },
            TableColumn { default: default("'x''y'::text"), ..column("A b", true) },
            TableColumn { identity: true, ..column("id", true) },
            TableColumn { generated: true, ..column("g", false) },
            TableColumn {
                default: default("nextval('public.t_s_seq'::regclass)"),
                ..column("s", true)
            },
        ];
        assert_eq!(table.columns, expected, "{version}");
    }
}

#[tokio::test]
async fn a_not_null_that_was_never_checked_is_none() {
    let db = database(Version::V18, "not valid");
    db.execute(
        "CREATE TABLE t (a int, b int NOT NULL); INSERT INTO t VALUES (NULL, 1);
         ALTER TABLE t ADD CONSTRAINT later NOT NULL a NOT VALID",
    );
    let relations = relations(&db).await;
    let table = relations.tables.values().next().unwrap();
    let not_null: Vec<bool> = table.columns.iter().map(|column| column.not_null).collect();
    assert_eq!(not_null, [false, true]);
}

#[tokio::test]
async fn the_index_that_identifies_rows_counts_only_while_it_is_used() {
    let db = database(Version::V14, "identity index");
    db.execute(
        "CREATE TABLE t (a int NOT NULL, b int NOT NULL, c int);
         CREATE UNIQUE INDEX t_ba ON t (b, a) INCLUDE (c);
         ALTER TABLE t REPLICA IDENTITY USING INDEX t_ba",
    );
    let identity =
        |relations: &Relations| relations.tables.values().next().unwrap().identity_index.clone();
    assert_eq!(identity(&relations(&db).await), ["b", "a"]);
    assert_eq!(tables(&db, "*").await[0].identity, ReplicaIdentity::Index);
    db.execute("ALTER TABLE t REPLICA IDENTITY FULL");
    assert_eq!(identity(&relations(&db).await), Vec::<String>::new());
    assert_eq!(tables(&db, "*").await[0].identity, ReplicaIdentity::Full);
    db.execute("ALTER TABLE t REPLICA IDENTITY USING INDEX t_ba; DROP INDEX t_ba");
    assert_eq!(tables(&db, "*").await[0].identity, ReplicaIdentity::Nothing);
}

#[tokio::test]
async fn tables_are_listed_by_pattern_with_what_decides_about_capturing_them() {
    for version in Version::ALL {
        let db = database(version, "tables");
        db.execute(
            "CREATE SCHEMA shop; CREATE SCHEMA shop_2; CREATE SCHEMA shopx2;
             CREATE TABLE shop.t (id int PRIMARY KEY);
             CREATE UNLOGGED TABLE shop.u (id int PRIMARY KEY DEFERRABLE);
             CREATE TABLE shop.p (id int, k int) PARTITION BY RANGE (id);
             CREATE TABLE shop.p1 PARTITION OF shop.p FOR VALUES FROM (0) TO (10) PARTITION BY LIST (k);
             CREATE TABLE shop.p1a PARTITION OF shop.p1 DEFAULT;
             ALTER TABLE shop.p1a ENABLE ROW LEVEL SECURITY;
             CREATE VIEW shop.v AS SELECT 1; CREATE TEMP TABLE temporary ();
             CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w;
             CREATE FOREIGN TABLE shop.f () SERVER s;
             CREATE TABLE shop_2.t (); CREATE TABLE shopx2.t ()",
        );
        let listed = tables(&db, "shop").await;
        let facts: Vec<_> = listed
            .iter()
            .map(|table| (table.name.as_str(), table.kind, table.persistence))
            .collect();
        let (table, partitioned) = (RelationKind::Table, RelationKind::Partitioned);
        let (logged, unlogged) = (Persistence::Logged, Persistence::Unlogged);
        let expected = [
            ("f", RelationKind::Foreign, logged),
            ("p", partitioned, logged),
            ("p1", partitioned, logged),
            ("p1a", table, logged),
            ("t", table, logged),
            ("u", table, unlogged),
        ];
        assert_eq!(facts, expected, "{version}");
        let by_name = |name: &str| listed.iter().find(|table| table.name == name).unwrap();
        assert_eq!(by_name("p1a").root, Some(by_name("p").id));
        assert_eq!((by_name("p").root, by_name("p1").root), (None, Some(by_name("p").id)));
        assert!(by_name("p1a").row_security && !by_name("t").row_security);
        assert_eq!(by_name("t").primary_key, ["id"]);
        assert!(by_name("u").deferrable_key && !by_name("t").deferrable_key);
        assert_eq!((by_name("t").owner.as_str(), by_name("t").readable), ("postgres", true));
        let schemas = |listed: Vec<TableFacts>| {
            listed.into_iter().map(|table| table.schema).collect::<Vec<_>>()
        };
        assert_eq!(schemas(tables(&db, "shop_?").await), ["shop_2"]);
        assert_eq!(schemas(tables(&db, "shop?2").await), ["shop_2", "shopx2"]);
        assert_eq!(tables(&db, "*").await.len(), 8);
    }
}

#[tokio::test]
async fn what_a_role_may_not_read_is_known() {
    let db = database(Version::NEWEST, "privileges");
    let role = format!("{}_role", db.prefix());
    db.execute(&format!(
        "CREATE ROLE {role} LOGIN; CREATE TABLE a (); CREATE TABLE b (); GRANT SELECT ON a TO {role}"
    ));
    let listed = open(&db.url_as(&role, None)).await.list_tables(&["public"]).await.unwrap();
    let readable: Vec<bool> = listed.iter().map(|table| table.readable).collect();
    assert_eq!(readable, [true, false]);
}

#[tokio::test]
async fn a_publication_is_known_by_what_it_covers() {
    for version in Version::ALL {
        let db = database(version, "publication");
        db.execute(
            "CREATE TABLE t (id int PRIMARY KEY, a int, g int GENERATED ALWAYS AS (1) STORED, d int);
             ALTER TABLE t DROP d;
             CREATE TABLE p (id int) PARTITION BY RANGE (id);
             CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
             CREATE PUBLICATION leaves FOR TABLE t, p WITH (publish = 'insert, truncate');
             CREATE PUBLICATION roots FOR TABLE p WITH (publish_via_partition_root);
             CREATE PUBLICATION everything FOR ALL TABLES",
        );
        let mut connection = open(&db.url()).await;
        assert_eq!(connection.load_publication("missing").await.unwrap(), None);
        let leaves = connection.load_publication("leaves").await.unwrap().unwrap();
        let operations = (leaves.inserts, leaves.updates, leaves.deletes, leaves.truncates);
        assert_eq!(operations, (true, false, false, true));
        assert_eq!((leaves.all_tables, leaves.via_root), (false, false));
        let covered: Vec<_> = leaves
            .tables
            .iter()
            .map(|table| (table.name.as_str(), table.columns.join(",")))
            .collect();
        assert_eq!(covered, [("p1", "id".to_owned()), ("t", "id,a".to_owned())], "{version}");
        assert!(leaves.tables.iter().all(|table| table.memberships.len() == 1));
        assert!(leaves.tables.iter().all(|table| !table.column_list && table.filter.is_none()));
        let roots = connection.load_publication("roots").await.unwrap().unwrap();
        assert_eq!((roots.via_root, roots.tables[0].name.as_str()), (true, "p"));
        let everything = connection.load_publication("everything").await.unwrap().unwrap();
        assert_eq!((everything.all_tables, everything.tables.len()), (true, 2));
        assert!(everything.tables.iter().all(|table| table.memberships.is_empty()));
        // Taken out and put in again, a table looks the same and is not.
        db.execute("ALTER PUBLICATION leaves DROP TABLE t; ALTER PUBLICATION leaves ADD TABLE t");
        let again = connection.load_publication("leaves").await.unwrap().unwrap();
        assert_eq!(again.tables[0], leaves.tables[0]);
        assert_ne!(again.tables[1].memberships, leaves.tables[1].memberships);
    }
}

#[tokio::test]
async fn column_lists_filters_and_schemas_of_a_publication_are_known() {
    for version in Version::ALL.into_iter().filter(|version| *version >= Version::V15) {
        let db = database(version, "publication lists");
        db.execute(
            "CREATE TABLE t (id int PRIMARY KEY, a int, b text);
             CREATE SCHEMA s; CREATE TABLE s.u (id int);
             CREATE PUBLICATION lists FOR TABLE t (id, b) WHERE (id > 5 AND b = 'x');
             CREATE PUBLICATION whole FOR TABLES IN SCHEMA s",
        );
        let mut connection = open(&db.url()).await;
        let lists = connection.load_publication("lists").await.unwrap().unwrap();
        let table = &lists.tables[0];
        assert!(table.column_list);
        assert_eq!(table.columns, ["id", "b"], "{version}");
        assert_eq!(table.filter.as_deref(), Some("((id > 5) AND (b = 'x'::text))"));
        let whole = connection.load_publication("whole").await.unwrap().unwrap();
        assert_eq!((whole.schemas.join(","), whole.tables[0].name.as_str()), ("s".to_owned(), "u"));
        assert_eq!(whole.tables[0].memberships.len(), 1);
    }
}

#[tokio::test]
async fn generated_columns_are_published_where_it_is_said_so() {
    let db = database(Version::V18, "generated columns");
    db.execute(
        "CREATE TABLE t (id int, g int GENERATED ALWAYS AS (1) STORED);
         CREATE PUBLICATION p FOR TABLE t WITH (publish_generated_columns = stored)",
    );
    let publication = open(&db.url()).await.load_publication("p").await.unwrap().unwrap();
    assert!(publication.generated_columns);
    assert_eq!(publication.tables[0].columns, ["id", "g"]);
}

#[tokio::test]
async fn a_comment_in_an_unknown_encoding_does_not_make_a_table_unreadable() {
    let server = shared(Version::NEWEST);
    let options = "ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0";
    let db = server.database_with("sql ascii", options);
    db.execute(
        "CREATE TABLE t (); DO $$ BEGIN
           EXECUTE 'COMMENT ON TABLE t IS ' || quote_literal(convert_from('\\x636166e9', 'SQL_ASCII'));
         END $$",
    );
    let relations = relations(&db).await;
    let table = relations.tables.values().next().unwrap();
    assert_eq!(table.comment.as_deref(), Some("caf\u{fffd}"));
}

#[tokio::test]
async fn the_server_tells_what_it_is_set_up_for() {
    for version in Version::ALL {
        let db = database(version, "server facts");
        let role = format!("{}_role", db.prefix());
        db.execute(&format!("CREATE ROLE {role} LOGIN REPLICATION"));
        let facts = open(&db.url_as(&role, None)).await.server_facts().await.unwrap();
        assert_eq!(facts.version_num / 10_000, version.number());
        assert_eq!((facts.wal_level.as_str(), facts.encoding.as_str()), ("logical", "UTF8"));
        assert!(facts.max_replication_slots > 0 && facts.max_wal_senders > 0);
        assert_eq!((facts.superuser, facts.replication, facts.in_recovery), (false, true, false));
    }
}

#[tokio::test]
async fn reading_the_catalog_stays_within_a_transaction_that_is_open() {
    let db = database(Version::NEWEST, "own transaction");
    db.execute("CREATE TABLE t (a int)");
    let mut connection = open(&db.url()).await;
    connection.simple_query("BEGIN ISOLATION LEVEL REPEATABLE READ").await.unwrap();
    let before = connection.list_tables(&["*"]).await.unwrap();
    db.execute("CREATE TABLE later ()");
    assert_eq!(connection.list_tables(&["*"]).await.unwrap(), before);
    assert!(connection.in_transaction());
    connection.simple_query("COMMIT").await.unwrap();
    assert_eq!(connection.list_tables(&["*"]).await.unwrap().len(), 2);
}
