//! Private servers fail on request and come back with their data; the proxy fails for them.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use waltide_stack::serde_json::json;
use waltide_stack::{
    KafkaOptions, PostgresOptions, Process, Proxy, RegistryOptions, Session, Stack, Version,
    eventually,
};

use crate::kafka::{is_delivered, producer};

const SOON: Duration = Duration::from_secs(30);

#[test]
fn postgres_comes_back_with_its_data_on_its_port_after_a_stop_a_restart_and_a_crash() {
    let postgres = PostgresOptions::new(Version::V17).start();
    let database = postgres.database("comes_back");
    database.execute("CREATE TABLE t (a int)");
    let url = database.url();
    let cycles: [&dyn Fn(); 3] = [
        &|| postgres.restart(),
        &|| {
            postgres.kill();
            postgres.start_again();
        },
        &|| {
            postgres.stop();
            postgres.start_again();
        },
    ];
    for (done, cycle) in (1..).zip(cycles) {
        database.execute("INSERT INTO t VALUES (1)");
        cycle();
        assert_eq!(database.url(), url);
        assert_eq!(database.value("SELECT count(*) FROM t"), done.to_string());
    }
}

#[test]
fn a_frozen_postgres_answers_nobody_until_it_is_resumed() {
    let postgres = PostgresOptions::new(Version::V18).start();
    let database = postgres.database("frozen");
    database.execute("SELECT 1");
    postgres.pause();
    let pending = database.send("SELECT 1");
    assert!(pending.is_blocked_for(Duration::from_millis(300)));
    postgres.resume();
    assert_eq!(pending.wait().len(), 1);
}

#[test]
fn postgres_is_reconfigured_by_a_reload_or_where_it_must_by_a_restart() {
    let options = PostgresOptions::new(Version::V14).setting("logical_decoding_work_mem", "64kB");
    let postgres = options.start();
    assert_eq!(postgres.query("SHOW logical_decoding_work_mem")[0][0].as_deref(), Some("64kB"));
    let started = postgres.query("SELECT pg_postmaster_start_time()");
    postgres.reconfigure(&[("max_slot_wal_keep_size", "1MB")]);
    assert_eq!(postgres.session("postgres").value("SHOW max_slot_wal_keep_size"), "1MB");
    assert_eq!(postgres.query("SELECT pg_postmaster_start_time()"), started);
    postgres.reconfigure(&[("max_wal_senders", "3")]);
    assert_eq!(postgres.query("SHOW max_wal_senders")[0][0].as_deref(), Some("3"));
    assert_ne!(postgres.query("SELECT pg_postmaster_start_time()"), started);
}

#[test]
fn postgres_asks_for_a_password_where_it_is_told_to() {
    let rules = "host all all 127.0.0.1/32 scram-sha-256";
    let postgres = PostgresOptions::new(Version::V16).hba(rules).start();
    let database = postgres.database("password");
    let role = format!("{}_app", database.prefix());
    database.execute(&format!("CREATE ROLE {role} LOGIN PASSWORD 'secret'"));
    let session = Session::connect(&database.url_as(&role, Some("secret")));
    assert_eq!(session.value("SELECT current_user"), role);
    let refused = std::panic::catch_unwind(|| Session::connect(&database.url_as(&role, None)));
    assert!(refused.is_err());
}

#[test]
fn a_standby_follows_its_primary_and_takes_over_on_a_new_timeline() {
    for version in [Version::V14, Version::NEWEST] {
        let primary = PostgresOptions::new(version).start();
        primary.execute("CREATE TABLE t (a int); INSERT INTO t VALUES (1)");
        let standby = PostgresOptions::new(version)
            .setting("hot_standby_feedback", "on")
            .standby_of(&primary)
            .start();
        primary.execute("INSERT INTO t VALUES (2)");
        let count = "SELECT count(*) FROM t";
        eventually("the standby to follow", SOON, || {
            (standby.query(count) == primary.query(count)).then_some(())
        });
        primary.kill();
        standby.promote();
        standby.execute("INSERT INTO t VALUES (3)");
        let timeline = "SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)";
        assert_eq!(standby.query(timeline)[0][0].as_deref(), Some("00000002"));
    }
}

#[test]
fn a_copy_has_the_same_identity_and_a_life_of_its_own() {
    let original = PostgresOptions::new(Version::V16).start();
    original.execute("CREATE TABLE t (a int); INSERT INTO t VALUES (1)");
    let copy = PostgresOptions::new(Version::V16).copy_of(&original).start();
    let identity = "SELECT system_identifier FROM pg_control_system()";
    assert_eq!(copy.query(identity), original.query(identity));
    copy.execute("INSERT INTO t VALUES (2)");
    assert_eq!(copy.query("SELECT a FROM t ORDER BY a").len(), 2);
    assert_eq!(original.query("SELECT a FROM t").len(), 1);
}

#[test]
fn postgres_speaks_tls_with_the_certificate_it_is_given() {
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("signed");
    let directory = std::env::temp_dir().join(format!("waltide-tls-{}", std::process::id()));
    std::fs::create_dir(&directory).expect("a directory");
    let (certificate, key) = (directory.join("server.crt"), directory.join("server.key"));
    std::fs::write(&certificate, signed.cert.pem()).expect("written");
    std::fs::write(&key, signed.signing_key.serialize_pem()).expect("written");
    let postgres = PostgresOptions::new(Version::V14).tls(&certificate, &key).start();
    let mut stream = TcpStream::connect(("127.0.0.1", postgres.port())).expect("let in");
    // SSLRequest: its length and its number.
    stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).expect("sent");
    let mut answer = [0];
    stream.read_exact(&mut answer).expect("answered");
    assert_eq!(&answer, b"S");
    std::fs::remove_dir_all(directory).expect("removed");
}

#[test]
fn kafka_comes_back_with_its_topics_and_can_be_frozen_and_cut_off() {
    let kafka = KafkaOptions::new().setting("num.partitions", "2").behind_proxy().start();
    let topic = kafka.create_topic("kept", 1, &[]);
    let bootstrap = kafka.bootstrap();
    assert_ne!(bootstrap, kafka.direct());
    let patient = producer(&bootstrap, &[("message.timeout.ms", "30000")]);
    assert!(is_delivered(&patient, &topic, b"1"));

    kafka.stop();
    kafka.start_again();
    assert!(is_delivered(&patient, &topic, b"2"));
    assert_eq!(topic.wait_for(2, SOON).len(), 2);

    kafka.kill();
    kafka.start_again();
    assert_eq!(kafka.bootstrap(), bootstrap);
    assert_eq!(topic.wait_for(2, SOON).len(), 2);

    // The proxy stands in the clients' way, not in that of the reader here.
    let impatient = producer(&bootstrap, &[("message.timeout.ms", "1000")]);
    kafka.proxy().cut();
    assert!(!is_delivered(&impatient, &topic, b"3"));
    kafka.proxy().restore();
    assert!(is_delivered(&impatient, &topic, b"3"));
    assert_eq!(topic.read().len(), 3);

    kafka.pause();
    assert!(!is_delivered(&impatient, &topic, b"3"));
    kafka.resume();
    assert!(is_delivered(&patient, &topic, b"4"));
}

#[test]
fn kafka_asks_its_clients_for_a_password_where_it_is_told_to() {
    let kafka = KafkaOptions::new()
        .protocol("SASL_PLAINTEXT")
        .setting("sasl.enabled.mechanisms", "PLAIN")
        .setting(
            "listener.name.client.plain.sasl.jaas.config",
            "org.apache.kafka.common.security.plain.PlainLoginModule required \
             user_waltide=\"secret\";",
        )
        .start();
    let topic = kafka.create_topic("guarded", 1, &[]);
    let login = |password| {
        let settings = [
            ("security.protocol", "sasl_plaintext"),
            ("sasl.mechanism", "PLAIN"),
            ("sasl.username", "waltide"),
            ("sasl.password", password),
            ("message.timeout.ms", "2000"),
        ];
        producer(&kafka.bootstrap(), &settings)
    };
    assert!(!is_delivered(&login("wrong"), &topic, b"1"));
    assert!(is_delivered(&login("secret"), &topic, b"1"));
    assert_eq!(topic.read().len(), 1);
}

#[test]
fn the_registry_comes_back_with_its_schemas() {
    let registry = RegistryOptions::new().start();
    let id = registry.register("kept-value", &json!("string"));
    let url = registry.url();
    registry.kill();
    registry.start_again();
    assert_eq!(registry.url(), url);
    assert_eq!(registry.schema(id), json!("string"));
    registry.stop();
    registry.start_again();
    assert_eq!(registry.register("kept-value", &json!("string")), id);
    registry.set_compatibility("kept-value", "FULL");
    let refused = std::panic::catch_unwind(|| registry.register("kept-value", &json!("int")));
    assert!(refused.is_err());
}

#[test]
fn the_shared_servers_refuse_to_be_disturbed() {
    let postgres = Stack::shared().postgres(Version::V15);
    assert!(std::panic::catch_unwind(|| postgres.pause()).is_err());
    assert!(std::panic::catch_unwind(|| postgres.reconfigure(&[("fsync", "on")])).is_err());
    assert_eq!(postgres.query("SHOW fsync")[0][0].as_deref(), Some("off"));
}

/// A server that sends back what it gets.
fn echo() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let ours = listener.try_clone().expect("a second handle");
    std::thread::spawn(move || {
        for stream in ours.incoming().flatten() {
            std::thread::spawn(move || {
                let mut back = stream.try_clone().expect("a second handle");
                std::io::copy(&mut &stream, &mut back)
            });
        }
    });
    listener
}

fn round_trip(stream: &mut TcpStream) -> std::io::Result<u8> {
    let mut answer = [0];
    stream.write_all(&[7])?;
    stream.read_exact(&mut answer)?;
    Ok(answer[0])
}

#[test]
fn the_proxy_passes_cuts_stalls_delays_and_resets() {
    let server = echo();
    let proxy = Proxy::to(server.local_addr().expect("an address"));
    let connect = || {
        let stream = TcpStream::connect(proxy.addr());
        stream.inspect(|stream| stream.set_read_timeout(Some(SOON)).expect("a time-out"))
    };
    let mut stream = connect().expect("let in");
    assert_eq!(round_trip(&mut stream).ok(), Some(7));

    proxy.cut();
    assert!(round_trip(&mut stream).is_err());
    assert!(connect().is_err());
    proxy.restore();
    let mut stream = connect().expect("let in again");
    assert_eq!(round_trip(&mut stream).ok(), Some(7));

    proxy.stall();
    stream.set_read_timeout(Some(Duration::from_millis(200))).expect("a time-out");
    assert!(
        round_trip(&mut stream).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    );
    proxy.restore();
    stream.set_read_timeout(Some(SOON)).expect("a time-out");
    stream.read_exact(&mut [0]).expect("what was held back comes");

    proxy.delay(50);
    let before = Instant::now();
    assert_eq!(round_trip(&mut stream).ok(), Some(7));
    assert!(before.elapsed() >= Duration::from_millis(100), "there and back");
    proxy.delay(0);

    proxy.reset();
    assert!(round_trip(&mut stream).is_err());
    assert!(round_trip(&mut connect().expect("let in")).is_ok());
}

#[test]
fn a_program_under_test_is_started_signalled_and_heard() {
    let mut command = std::process::Command::new("sh");
    command.args([
        "-c",
        "trap 'echo bye; exit 3' INT; echo \"it's $WORD\"; while :; do sleep 0.05; done",
    ]);
    let process = Process::start("program", command.env("WORD", "a 'quoted' word"));
    eventually("its first line", SOON, || process.log().contains('\n').then_some(()));
    assert_eq!(process.log(), "it's a 'quoted' word\n");
    process.pause();
    process.signal("INT");
    assert_eq!(process.wait(Duration::from_millis(200)), None);
    process.resume();
    assert_eq!(process.wait(SOON), Some(3));
    assert!(process.log().ends_with("bye\n"));
}
