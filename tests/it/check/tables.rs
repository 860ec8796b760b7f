//! Publications and tables.

use waltide_stack::{Stack, Version};

use super::{Found, ORDERS, Patient};
use crate::support::Pipeline;

#[test]
fn a_table_whose_rows_cannot_be_identified_is_mended() {
    for version in [Version::V14, Version::NEWEST] {
        let database = Stack::shared().database(version, "check identity");
        database.execute("CREATE TABLE keyless (a int)");
        let patient = Patient::new(&database, Pipeline::of(&database));
        // Not published yet: the daemon would publish its inserts.
        patient
            .mended("table.identity", "warning", &["neither primary key", "only its inserts"])
            .is_sound();
        database.execute("CREATE TABLE nothing (id int PRIMARY KEY)");
        database.execute("ALTER TABLE nothing REPLICA IDENTITY NOTHING");
        let patient = Patient::new(&database, Pipeline::of(&database));
        patient.mended("table.identity", "warning", &["NOTHING", "DEFAULT"]).is_sound();
        database.execute("CREATE TABLE late (id int PRIMARY KEY DEFERRABLE)");
        let patient = Patient::new(&database, Pipeline::of(&database));
        patient.mended("table.identity", "warning", &["deferrable", "FULL"]).is_sound();

        // Published for its inserts, as the daemon does.
        database.execute("CREATE TABLE \"Another One\" (a int)");
        let pipeline = Pipeline::of(&database);
        let daemon = pipeline.start();
        daemon.terminate();
        let patient = Patient::new(&database, pipeline);
        patient.mended("table.identity", "warning", &["only its inserts", "DROP TABLE"]).is_sound();

        // Published as a whole, by somebody else: the application fails already.
        let other = Pipeline::of(&database).with("source.publication", "everything");
        database.execute("CREATE TABLE broken (a int)");
        database.execute(
            "CREATE PUBLICATION everything FOR ALL TABLES WITH (publish_via_partition_root)",
        );
        database.execute("INSERT INTO broken VALUES (1)");
        assert!(database.try_query("UPDATE broken SET a = 2").is_err());
        let patient = Patient::new(&database, other);
        patient.mended("table.identity", "error", &["refuses the application's UPDATE"]).is_sound();
        database.execute("UPDATE broken SET a = 2");
    }
}

#[test]
fn a_publication_of_somebody_else_is_made_to_cover_what_is_captured() {
    for version in [Version::V14, Version::NEWEST] {
        let database = Stack::shared().database(version, "check coverage");
        database.execute(ORDERS);
        database.execute("CREATE TABLE \"Odd \"\"name\" (id int PRIMARY KEY)");
        let publish = "CREATE PUBLICATION theirs WITH (publish = 'insert')";
        database.execute(publish);
        let pipeline = Pipeline::of(&database).with("source.publication", "theirs");
        Patient::new(&database, pipeline)
            .mended("source.publication", "warning", &["leaves out update, delete, truncate"])
            .mended("source.publication", "warning", &["publish_via_partition_root"])
            .mended("source.publication", "error", &["does not cover", "WT213"])
            .is_sound();
        database.execute("CREATE TABLE later (id int PRIMARY KEY)");
        let pipeline = Pipeline::of(&database).with("source.publication", "theirs");
        let patient = Patient::new(&database, pipeline);
        patient.mended("source.publication", "warning", &["does not cover", "later"]).is_sound();
    }
}

#[test]
fn a_table_that_is_in_no_log_is_told() {
    let database = Stack::shared().database(Version::NEWEST, "check unlogged");
    database.execute(ORDERS);
    database.execute("CREATE UNLOGGED TABLE unlogged (id int PRIMARY KEY)");
    let patient = Patient::new(&database, Pipeline::of(&database));
    patient.mended("table.not_captured", "warning", &["unlogged"]).is_sound();
    database.execute("CREATE FOREIGN DATA WRAPPER nowhere");
    database.execute("CREATE SERVER nowhere FOREIGN DATA WRAPPER nowhere");
    database.execute("CREATE FOREIGN TABLE \"a.way\" (id int) SERVER nowhere");
    let patient = Patient::new(&database, Pipeline::of(&database));
    patient.mended("table.not_captured", "warning", &["a foreign table"]).is_sound();
    database.execute("CREATE SEQUENCE numbers");
    database.execute("SELECT lo_create(0)");
    let found = Found::of(&Pipeline::of(&database));
    let told = found.at("ok").find(|it| it["check"] == "source.not_captured").expect("a finding");
    let what = told["what"].as_str().expect("words");
    assert!(what.starts_with("1 sequences and 1 large objects"), "{what}");
}

#[test]
fn a_type_that_cannot_be_sent_is_found_wherever_it_hides() {
    for version in Version::ALL {
        let database = Stack::shared().database(version, "check types");
        database.execute("CREATE TYPE pair AS (a int, b aclitem)");
        database.execute("CREATE DOMAIN pairs AS pair[]");
        for (table, column) in
            [("elements", "aclitem[]"), ("attributes", "pair"), ("deep", "pairs")]
        {
            database.execute(&format!("CREATE TABLE {table} (id int PRIMARY KEY, v {column})"));
            let found = Found::of(&Pipeline::of(&database));
            let wrong = found.wrong("table.unsendable").expect("a finding");
            assert_eq!(wrong["of"], format!("public.{table}"));
            let patient = Patient::new(&database, Pipeline::of(&database));
            patient.mended("table.unsendable", "error", &["aclitem", "no binary form"]);
            database.execute(&format!("DROP TABLE {table}"));
        }
    }
}

#[test]
fn what_would_stop_a_table_at_its_first_row_is_told_before() {
    let database = Stack::shared().database(Version::NEWEST, "check columns");
    database.execute(
        "CREATE TYPE own; \
         CREATE FUNCTION own_in(cstring) RETURNS own LANGUAGE internal IMMUTABLE STRICT AS 'textin'; \
         CREATE FUNCTION own_out(own) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'textout'; \
         CREATE TYPE own (input = own_in, output = own_out)",
    );
    database.execute("CREATE TABLE unknown (id int PRIMARY KEY, one own, also own)");
    let patient = Patient::new(&database, Pipeline::of(&database));
    let patient = patient.mended("table.values", "warning", &["own", "exclude_columns"]);
    patient.mended("table.values", "warning", &["also"]).is_sound();
    database.execute("DROP TABLE unknown");
    database.execute("CREATE TABLE meet (id int PRIMARY KEY, \"a-b\" int, \"a_b\" int)");
    let found = Found::of(&Pipeline::of(&database).with("profile", "debezium"));
    let wrong = found.wrong("table.columns").expect("a finding");
    assert_eq!(wrong["code"], "WT502", "{wrong}");
    database.execute("CREATE TABLE \"a b\" (id int PRIMARY KEY)");
    database.execute("CREATE TABLE \"a/b\" (id int PRIMARY KEY)");
    let found = Found::of(&Pipeline::of(&database));
    let wrong = found.wrong("table.topic").expect("a finding");
    assert_eq!(wrong["code"], "WT502", "{wrong}");
}
