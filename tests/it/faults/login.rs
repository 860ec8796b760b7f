//! The server does not let us in.

use std::fs;

use waltide_stack::{Database, PostgresOptions, Version};

use super::rotation::SecretFile;
use super::{arrive, fails_fast_as, logged_once, order, set_up, shop, tells, tries_again};

/// The name of a test's own role.
fn role(database: &Database) -> String {
    format!("{}_cdc", database.prefix())
}

#[test]
fn a_wrong_password_is_told_from_a_rule_that_does_not_let_us_in() {
    let rules = "host all +admitted 127.0.0.1/32 scram-sha-256";
    let postgres = PostgresOptions::new(Version::NEWEST).hba(rules).start();
    postgres.execute("CREATE ROLE admitted");
    let database = postgres.database("not admitted");
    database.execute(super::ORDERS);
    let role = role(&database);
    database.execute(&format!("CREATE ROLE {role} LOGIN REPLICATION PASSWORD 'right'"));
    let file = SecretFile::of(&database, "password", "wrong");
    let pipeline = set_up(&database)
        .with("source.url", database.url_as(&role, None))
        .with("source.password_file", file.path());
    order(&database, 1);

    let daemon = pipeline.launch();
    let told = tells(&daemon, "WT204", &["no pg_hba.conf entry", &role, "pg_hba.conf"]);
    assert!(!told.mend.contains("password"), "{told:?}");
    fails_fast_as(&pipeline, &told);
    let rules = database.value("SHOW hba_file");
    let admitting = format!("host {} {role} 127.0.0.1/32 scram-sha-256\n", database.name());
    fs::write(&rules, fs::read_to_string(&rules).unwrap() + &admitting).unwrap();
    database.execute("SELECT pg_reload_conf()");

    let told = tells(&daemon, "WT204", &["password authentication failed", "password_file", &role]);
    fails_fast_as(&pipeline, &told);
    tries_again(&daemon);
    file.write("right");

    order(&database, 2);
    arrive(&pipeline, &[1, 2]);
    logged_once(&daemon, &["WT204", "WT204"]);
    daemon.terminate();
}

#[test]
fn a_missing_role_is_named() {
    let database = shop(Version::NEWEST, "missing role");
    let role = role(&database);
    let pipeline = set_up(&database).with("source.url", database.url_as(&role, None));
    order(&database, 1);
    let daemon = pipeline.launch();
    let told = tells(&daemon, "WT204", &[&format!("role \"{role}\" does not exist"), "create"]);
    fails_fast_as(&pipeline, &told);
    database.execute(&format!("CREATE ROLE {role} LOGIN REPLICATION"));
    order(&database, 2);
    arrive(&pipeline, &[1, 2]);
    logged_once(&daemon, &["WT204"]);
}
