//! The server lets us in and lacks something.

use waltide_stack::{PostgresOptions, Session, Stack, Version, eventually};

use super::{
    FailingFast, SOON, arrive, fails_fast, fails_fast_as, logged_once, order, pipeline, set_up,
    shop, tells,
};

#[test]
fn a_missing_database_is_waited_for() {
    let postgres = Stack::shared().postgres(Version::NEWEST);
    let database = shop(Version::NEWEST, "missing database");
    let pipeline = set_up(&database);
    order(&database, 1);
    let (name, away) = (database.name(), format!("{}_away", database.name()));
    let rename = |from: &str, to: &str| {
        postgres.execute(&format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{from}'"
        ));
        postgres.execute(&format!("ALTER DATABASE {from} RENAME TO {to}"));
    };
    rename(name, &away);
    let daemon = pipeline.launch();
    let told = tells(&daemon, "WT205", &[&format!("database \"{name}\" does not exist"), "create"]);
    fails_fast_as(&pipeline, &told);
    rename(&away, name);
    order(&database, 2);
    arrive(&pipeline, &[1, 2]);
    logged_once(&daemon, &["WT205"]);
    daemon.terminate();
}

#[test]
fn a_role_that_may_not_connect_or_replicate_is_told_what_it_lacks() {
    for version in [Version::V14, Version::NEWEST] {
        let database = shop(version, "may not replicate");
        let role = format!("{}_cdc", database.prefix());
        database.execute(&format!("CREATE ROLE {role} LOGIN"));
        database.execute(&format!("REVOKE CONNECT ON DATABASE {} FROM PUBLIC", database.name()));
        let pipeline = set_up(&database).with("source.url", database.url_as(&role, None));
        order(&database, 1);
        let daemon = pipeline.launch();

        let told = tells(&daemon, "WT209", &["permission denied for database", "GRANT CONNECT"]);
        fails_fast_as(&pipeline, &told);
        database.execute(told.mend_after("run: "));

        let told = tells(&daemon, "WT209", &["REPLICATION"]);
        fails_fast_as(&pipeline, &told);
        database.execute(told.mend_after("run: "));

        order(&database, 2);
        arrive(&pipeline, &[1, 2]);
        logged_once(&daemon, &["WT209", "WT209"]);
        daemon.terminate();
    }
}

#[test]
fn the_sql_for_what_the_role_may_not_make_is_in_the_message() {
    for version in [Version::V14, Version::NEWEST] {
        let database = shop(version, "may not publish");
        database.execute("CREATE TABLE \"no Key\" (a int)");
        let role = format!("{}_cdc", database.prefix());
        database.execute(&format!("CREATE ROLE {role} LOGIN"));
        let pipeline = pipeline(&database).with("source.url", database.url_as(&role, None));
        let daemon = pipeline.launch();

        let told = tells(&daemon, "WT209", &["may not make the publication", "no Key"]);
        fails_fast_as(&pipeline, &told);
        database.execute(told.mend_after("run: "));

        let told = tells(&daemon, "WT209", &["cannot be created", "ALTER ROLE"]);
        fails_fast_as(&pipeline, &told);
        database.execute(told.mend_after("run: "));

        daemon.wait_ready();
        order(&database, 1);
        arrive(&pipeline, &[1]);
        logged_once(&daemon, &["WT209", "WT209"]);
        daemon.terminate();
    }
}

#[test]
fn a_publication_that_covers_none_of_the_tables_is_not_streamed_from() {
    let database = shop(Version::NEWEST, "covers none");
    let pipeline = pipeline(&database);
    database.execute(&format!("CREATE PUBLICATION {}", pipeline.slot()));
    let daemon = pipeline.launch();
    let told = tells(&daemon, "WT213", &["covers none", "DROP PUBLICATION"]);
    fails_fast_as(&pipeline, &told);
    database.execute(told.mend_after("make its own: "));
    daemon.wait_ready();
    order(&database, 1);
    arrive(&pipeline, &[1]);
    logged_once(&daemon, &["WT213"]);
    daemon.terminate();
}

#[test]
fn a_server_without_logical_wal_is_told_how_to_write_it() {
    let postgres = PostgresOptions::new(Version::NEWEST).setting("wal_level", "replica").start();
    let database = postgres.database("wal level");
    database.execute(super::ORDERS);
    let pipeline = pipeline(&database);
    let daemon = pipeline.launch();
    let told = tells(&daemon, "WT206", &["wal_level = replica", "restart"]);
    fails_fast_as(&pipeline, &told);
    let sql = told.mend_after("run ").split_once(" on the server").expect("where to run it").0;
    database.execute(sql);
    postgres.restart();
    daemon.wait_ready();
    order(&database, 1);
    arrive(&pipeline, &[1]);
    daemon.terminate();
}

#[test]
fn a_server_without_a_free_slot_or_walsender_is_waited_for() {
    let postgres = PostgresOptions::new(Version::NEWEST)
        .setting("max_replication_slots", "2")
        .setting("max_wal_senders", "1")
        .start();
    let (first, second) = (postgres.database("limits first"), postgres.database("limits second"));
    first.execute(super::ORDERS);
    second.execute(super::ORDERS);
    let holder = set_up(&first).start();
    first.execute("SELECT pg_create_logical_replication_slot('left_behind', 'pgoutput')");

    let pipeline = pipeline(&second);
    let daemon = pipeline.launch();
    let told = tells(&daemon, "WT207", &["max_replication_slots", "left_behind"]);
    fails_fast_as(&pipeline, &told);
    first.execute("SELECT pg_drop_replication_slot('left_behind')");

    let told = tells(&daemon, "WT208", &["max_wal_senders"]);
    fails_fast_as(&pipeline, &told);
    order(&second, 1);
    holder.terminate();

    order(&second, 2);
    arrive(&pipeline, &[1, 2]);
    logged_once(&daemon, &["WT207", "WT208"]);
    daemon.terminate();
}

#[test]
fn a_role_whose_connections_are_all_taken_is_waited_for() {
    let database = shop(Version::NEWEST, "connection limit");
    let role = format!("{}_cdc", database.prefix());
    database.execute(&format!("CREATE ROLE {role} LOGIN REPLICATION CONNECTION LIMIT 1"));
    let pipeline = set_up(&database).with("source.url", database.url_as(&role, None));
    let taken = Session::connect(&database.url_as(&role, None));
    order(&database, 1);
    let daemon = pipeline.launch();
    let told = tells(&daemon, "WT208", &["too many connections for role", "CONNECTION LIMIT"]);
    fails_fast_as(&pipeline, &told);
    drop(taken);
    database.execute(&format!("ALTER ROLE {role} CONNECTION LIMIT 2"));
    order(&database, 2);
    arrive(&pipeline, &[1, 2]);
    daemon.terminate();
}

#[test]
fn a_slot_of_another_plugin_or_database_is_left_alone() {
    let database = shop(Version::NEWEST, "foreign slot");
    let other = shop(Version::NEWEST, "owner of the slot");
    let named = |kind: &str| format!("{}_{kind}", database.prefix());
    let make = "SELECT pg_create_logical_replication_slot";
    database.execute(&format!("{make}('{}', 'test_decoding')", named("plugin")));
    other.execute(&format!("{make}('{}', 'pgoutput')", named("database")));
    database
        .execute(&format!("SELECT pg_create_physical_replication_slot('{}')", named("physical")));
    for (slot, words) in [
        (named("plugin"), "test_decoding".to_owned()),
        (named("database"), other.name().to_owned()),
        (named("physical"), "physical".to_owned()),
    ] {
        let pipeline = pipeline(&database).with("source.slot", slot.as_str());
        let daemon = pipeline.launch();
        let told = tells(&daemon, "WT211", &[&slot, &words, "source.slot"]);
        daemon.wait_for_state("stopped");
        fails_fast_as(&pipeline, &told);
        logged_once(&daemon, &["WT211"]);
        daemon.terminate();
    }
    let pipeline = pipeline(&database).with("source.slot", named("own"));
    let daemon = pipeline.start();
    order(&database, 1);
    arrive(&pipeline, &[1]);
    daemon.terminate();
}

#[test]
fn a_slot_that_waits_for_an_old_transaction_names_its_process_and_is_not_tripped_over() {
    // An open transaction holds up the slots of all databases, so the server is this test's own.
    let postgres = PostgresOptions::new(Version::NEWEST).start();
    let (database, other) = (postgres.database("old transaction"), postgres.database("other"));
    let role = format!("{}_cdc", database.prefix());
    database.execute(super::ORDERS);
    other.execute(super::ORDERS);
    database.execute(&format!("CREATE ROLE {role} LOGIN REPLICATION"));
    let old = other.session();
    old.execute("BEGIN; INSERT INTO orders VALUES (1, 'tea')");
    let pid = old.value("SELECT pg_backend_pid()");
    // A role that may not look into the sessions of others.
    let pipeline = pipeline(&database).with("source.url", database.url_as(&role, None));
    database.execute(&format!("CREATE PUBLICATION {} FOR TABLE orders", pipeline.slot()));
    let others = super::pipeline(&other);
    let failing = FailingFast::launch(&others);
    let first = pipeline.launch();
    eventually("the slot is being made", SOON, || {
        let sql = "SELECT FROM pg_replication_slots WHERE slot_name =";
        let made = database.query(&format!("{sql} '{}'", pipeline.slot()));
        (!made.is_empty()).then_some(())
    });
    let second = pipeline.launch();
    let slot = pipeline.slot();
    tells(&second, "WT210", &[&slot, "only being made", "stands by"]);
    let told = tells(&first, "WT221", &[&slot, "pg_terminate_backend"]);
    assert!(told.what.ends_with(&format!(": process {pid}")), "{told:?}");
    let line = failing.ends_with("WT221");
    assert_eq!(line, told.line().replace(&slot, &others.slot()));

    database.execute(&format!("SELECT pg_terminate_backend({pid})"));
    eventually("one streams and the other stands by", SOON, || {
        let states = [first.status(), second.status()].map(|it| it["state"].clone());
        (states.contains(&"streaming".into()) && states.contains(&"standby".into())).then_some(())
    });
    order(&database, 2);
    arrive(&pipeline, &[2]);
    first.terminate();
    second.terminate();
}

#[test]
fn a_table_that_does_not_exist_yet_is_waited_for() {
    let database = Stack::shared().database(Version::NEWEST, "no table");
    let pipeline = pipeline(&database).with("source.exclude", vec!["public.secret_*"]);
    let failing = FailingFast::launch(&pipeline);
    let daemon = pipeline.launch();
    let told = tells(&daemon, "WT217", &["public.*", "public.secret_*", "source.tables"]);
    assert_eq!(failing.ends_with("WT217"), told.line());
    database.execute(super::ORDERS);
    daemon.wait_ready();
    order(&database, 1);
    arrive(&pipeline, &[1]);
    logged_once(&daemon, &["WT217"]);
    daemon.terminate();
}

#[test]
fn a_slot_older_than_its_publication_is_told_apart_from_a_missing_publication() {
    let database = shop(Version::V14, "slot before publication");
    let pipeline = pipeline(&database);
    let slot = pipeline.slot();
    database.execute(&format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"));
    order(&database, 1);
    let daemon = pipeline.launch();
    tells(&daemon, "WT213", &[&slot, "before"]);
    println!("{}", daemon.log());
    daemon.terminate();
}

#[test]
fn a_lock_that_keeps_the_publication_from_being_made_is_said() {
    let database = shop(Version::NEWEST, "locked table");
    let holder = database.session();
    holder.execute("BEGIN; LOCK TABLE orders IN SHARE UPDATE EXCLUSIVE MODE");
    let pid = holder.value("SELECT pg_backend_pid()");
    let pipeline = pipeline(&database);
    let daemon = pipeline.launch();
    let told = tells(&daemon, "WT218", &["lock", &pid]);
    fails_fast(&pipeline, &told.code);
    holder.execute("COMMIT");
    daemon.wait_ready();
    order(&database, 1);
    arrive(&pipeline, &[1]);
    logged_once(&daemon, &["WT218"]);
    daemon.terminate();
}

#[test]
fn a_session_that_is_ended_while_it_makes_the_publication_is_replaced() {
    let database = shop(Version::NEWEST, "ended in between");
    let holder = database.session();
    holder.execute("BEGIN; LOCK TABLE orders IN SHARE UPDATE EXCLUSIVE MODE");
    let pipeline = pipeline(&database);
    let daemon = pipeline.launch();
    eventually("its session waits and is ended", SOON, || {
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event_type = 'Lock'";
        (!database.query(sql).is_empty()).then_some(())
    });
    holder.execute("COMMIT");
    daemon.wait_ready();
    order(&database, 1);
    arrive(&pipeline, &[1]);
    assert!(daemon.log().contains("WT215"), "{}", daemon.log());
    daemon.terminate();
}
