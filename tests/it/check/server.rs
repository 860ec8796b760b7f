//! What the server and our role are like.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::process::Command;

use waltide_stack::serde_json::json;
use waltide_stack::{PostgresOptions, Process, Proxy, Stack, Tools, Version, eventually};

use super::{Found, ORDERS, Patient};
use crate::support::{Pipeline, SOON};

#[test]
fn a_server_that_is_set_up_wrongly_is_mended_by_what_is_printed() {
    let mut options = PostgresOptions::new(Version::NEWEST)
        .setting("wal_level", "replica")
        .setting("max_wal_senders", "0")
        .setting("max_replication_slots", "1")
        .setting("wal_sender_timeout", "0");
    options = options.setting("idle_replication_slot_timeout", "1d");
    let postgres = options.start();
    let database = postgres.database("set up wrongly");
    database.execute(ORDERS);
    database.execute("SELECT pg_create_physical_replication_slot('left_behind')");
    let patient = Patient::new(&database, Pipeline::of(&database));
    patient
        .mended("source.wal_level", "error", &["replica, not logical", "WT206"])
        .mended("source.wal_senders", "error", &["all 0 walsenders", "WT208"])
        .mended("source.slots", "error", &["all 1 replication slots", "WT207"])
        .mended("source.other_slots", "warning", &["left_behind"])
        .mended("source.wal_retention", "warning", &["has no limit"])
        .mended("source.idle_timeout", "warning", &["86400 s"])
        .mended("source.wal_sender_timeout", "warning", &["is 0"])
        .is_sound();
    let slots = database.query("SELECT FROM pg_replication_slots");
    assert!(slots.is_empty());
    database.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '100MB'");
    database.execute("ALTER SYSTEM SET wal_sender_timeout = '1s'");
    database.execute("SELECT pg_reload_conf()");
    let patient = Patient::new(&database, Pipeline::of(&database));
    eventually("the settings are read", SOON, || {
        let found = Found::of(&patient.pipeline);
        found.wrong("source.wal_sender_timeout").map(|_| ())
    });
    patient.mended("source.wal_retention", "warning", &["100 MB"]).mended(
        "source.wal_sender_timeout",
        "warning",
        &["1000 ms"],
    );
}

#[test]
fn a_role_gets_what_it_lacks() {
    for version in [Version::V14, Version::NEWEST] {
        let database = Stack::shared().database(version, "check role");
        database.execute(ORDERS);
        database.execute("CREATE TABLE \"Odd \"\"name\" (id int PRIMARY KEY)");
        let role = format!("{}_cdc", database.prefix());
        database.execute(&format!("REVOKE CONNECT ON DATABASE {} FROM PUBLIC", database.name()));
        database.execute(&format!("CREATE ROLE {role} NOLOGIN"));
        let pipeline = Pipeline::of(&database).with("source.url", database.url_as(&role, None));
        Patient::new(&database, pipeline)
            .mended("source.connect", "error", &["not permitted to log in", "WT204"])
            .mended("source.connect", "error", &["permission denied for database", "WT209"])
            .mended("source.role", "error", &["may not replicate", "WT209"])
            .mended("source.publication", "error", &["does not own", "WT209"])
            .is_sound();
    }
}

#[test]
fn a_server_that_does_not_let_us_in_does_not_hide_the_others() {
    let database = Stack::shared().database(Version::NEWEST, "check away");
    let proxy = Proxy::to(("127.0.0.1", database.postgres().port()));
    proxy.cut();
    let url = format!("postgres://postgres@{}/{}", proxy.addr(), database.name());
    let pipeline = Pipeline::of(&database).with("source.url", url);
    let found = Found::of(&pipeline);
    let wrong = found.wrong("source.connect").expect("a finding");
    assert_eq!(wrong["code"], "WT201", "{wrong}");
    assert!(found.at("ok").any(|it| it["check"] == "kafka.connect"), "{}", found.ended.everything);
    assert!(found.at("ok").any(|it| it["check"] == "registry.connect"));
    let missing = format!("{}_new", database.name());
    let url = database.url().replace(database.name(), &missing);
    let pipeline = Pipeline::of(&database).with("source.url", url);
    let patient = Patient::new(&database, pipeline);
    patient.mended("source.connect", "error", &["does not exist", "WT205"]);
    database.execute(&format!("DROP DATABASE {missing}"));
}

#[test]
fn a_pooler_in_between_is_found() {
    let database = Stack::shared().database(Version::NEWEST, "check pooler");
    database.execute(ORDERS);
    let port =
        TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port").port();
    // Where an unprivileged user may read it, for the pooler refuses to run as root.
    let file = std::env::temp_dir().join(format!("{}.ini", database.name()));
    let text = format!(
        "[databases]\n{} = user=postgres host=127.0.0.1 port={}\n[pgbouncer]\n\
         listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n",
        database.name(),
        database.postgres().port()
    );
    fs::write(&file, text).expect("a file");
    let pgbouncer = Tools::shared().program("pgbouncer");
    let mut command = Command::new("sh");
    let script = "[ $(id -u) = 0 ] || exec \"$@\"; \
                  exec setpriv --reuid=nobody --regid=nogroup --clear-groups \"$@\"";
    command.args(["-c", script, "sh"]).arg(pgbouncer.get_program()).arg(&file);
    command.envs(pgbouncer.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let pooler = Process::start("pgbouncer", &command);
    eventually("the pooler listens", SOON, || TcpStream::connect(("127.0.0.1", port)).ok());
    let url = format!("postgres://postgres@127.0.0.1:{port}/{}", database.name());
    let found = Found::of(&Pipeline::of(&database).with("source.url", url));
    let wrong = found.wrong("source.direct");
    let wrong = wrong.unwrap_or_else(|| panic!("{}\n{}", found.ended.everything, pooler.log()));
    assert_eq!(wrong["level"], "error", "{wrong}");
    assert!(wrong["what"].as_str().is_some_and(|what| what.contains("pooler")), "{wrong}");
    pooler.kill();
    let _ = fs::remove_file(file);
}

#[test]
fn a_standby_and_an_old_transaction_are_told() {
    // Open transactions hold up the slots of all databases, so the server is this test's own.
    let postgres =
        PostgresOptions::new(Version::NEWEST).setting("max_prepared_transactions", "1").start();
    let database = postgres.database("check old");
    database.execute(ORDERS);
    database.execute("BEGIN; INSERT INTO orders VALUES (1, 'a'); PREPARE TRANSACTION 'old''s'");
    let patient = Patient::new(&database, Pipeline::of(&database));
    eventually("the transaction is old", SOON, || {
        Found::of(&patient.pipeline).wrong("source.old_transactions").map(|_| ())
    });
    let patient = patient.mended("source.old_transactions", "warning", &["prepared transaction"]);
    let session = database.session();
    session.execute("BEGIN; INSERT INTO orders VALUES (2, 'a')");
    let pid = session.value("SELECT pg_backend_pid()");
    eventually("the transaction is old", SOON, || {
        Found::of(&patient.pipeline).wrong("source.old_transactions").map(|_| ())
    });
    patient.mended("source.old_transactions", "warning", &["process", &pid]);
    let standby = PostgresOptions::new(Version::NEWEST).standby_of(&postgres).start();
    let pipeline = Pipeline::of(&database).with("source.url", standby.url(database.name()));
    let found = Found::of(&pipeline);
    let wrong = found.wrong("source.primary").expect("a finding");
    assert_eq!((&wrong["level"], &wrong["code"]), (&"error".into(), &"WT220".into()));
}

#[test]
fn what_snapshots_need_of_replicas_is_looked_at() {
    let source = PostgresOptions::new(Version::NEWEST).start();
    let database = source.database("check replica");
    database.execute(ORDERS);
    let connection = format!(
        "host={} port={} user=postgres",
        source.socket_directory().display(),
        source.port()
    );
    let replica = PostgresOptions::new(Version::NEWEST)
        .standby_of(&source)
        .setting("primary_conninfo", &connection)
        .start();
    let role = format!("{}_cdc", database.prefix());
    database.execute(&format!("CREATE ROLE {role} LOGIN REPLICATION"));
    database.execute(&format!("GRANT SELECT ON orders TO {role}"));
    let publication = "CREATE PUBLICATION tables FOR TABLE orders";
    database.execute(&format!("{publication} WITH (publish_via_partition_root = true)"));
    let from = |url: String| {
        Pipeline::of(&database)
            .with("source.url", database.url_as(&role, None))
            .with("source.publication", "tables")
            .with("snapshot", json!({ "max_replica_lag_bytes": 1_000_000, "from": { "url": url } }))
    };
    Patient::new(&database, from(replica.url_as(&role, None, database.name())))
        .mended("snapshot.max_replica_lag_bytes", "error", &["may not see", "WT209"])
        .is_sound();
    let code = |url: String| {
        let found = Found::of(&from(url));
        let wrong = found.wrong("snapshot.from").expect("a finding");
        wrong["code"].as_str().expect("a code").to_owned()
    };
    assert_eq!(code(source.url_as(&role, None, database.name())), "WT238");
    replica.stop();
    assert_eq!(code(replica.url_as(&role, None, database.name())), "WT201");
}
