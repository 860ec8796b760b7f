//! Passwords, tokens and certificates that change while the daemon runs.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair,
};
use waltide_stack::serde_json::json;
use waltide_stack::{Database, KafkaOptions, Postgres, PostgresOptions, Version, eventually};

use super::{arrive, fails_fast_as, logged, order, set_up, shop, tells, tries_again};
use crate::support::{Daemon, Pipeline, SOON};

/// A file with a secret in it; it goes away with its owner.
pub(crate) struct SecretFile(PathBuf);

impl SecretFile {
    pub(crate) fn of(database: &Database, name: &str, text: &str) -> Self {
        let name = format!("{}.{name}", database.prefix());
        let file = Self(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name));
        file.write(text);
        file
    }

    pub(crate) fn path(&self) -> &str {
        self.0.to_str().expect("a path in UTF-8")
    }

    /// In one step: a half-written secret would be a wrong one.
    pub(crate) fn write(&self, text: &str) {
        let beside = self.0.with_extension("new");
        fs::write(&beside, text).expect("a file with a secret");
        fs::set_permissions(&beside, fs::Permissions::from_mode(0o600)).expect("its owner's only");
        fs::rename(&beside, &self.0).expect("a file with a secret");
    }
}

impl Drop for SecretFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A server that wants passwords.
fn guarded() -> Postgres {
    PostgresOptions::new(Version::NEWEST).hba("host all all 127.0.0.1/32 scram-sha-256").start()
}

/// A role with a password, on a database with the table.
fn with_role(postgres: &Postgres, test: &str) -> (Database, String) {
    let database = postgres.database(test);
    database.execute(super::ORDERS);
    let role = format!("{}_cdc", database.prefix());
    database.execute(&format!("CREATE ROLE {role} LOGIN REPLICATION PASSWORD 'zq1secret'"));
    (database, role)
}

/// Ends all connections of a role.
fn cut(database: &Database, role: &str) {
    let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = ";
    assert_ne!(database.value(&format!("{sql}'{role}'")), "0", "nobody was connected");
}

/// Sees to it that it comes back with the second password, and names none anywhere.
#[track_caller]
fn comes_back(
    pipeline: &Pipeline<'_>,
    database: &Database,
    role: &str,
    change: impl FnOnce(),
) -> Daemon {
    let daemon = pipeline.start();
    order(database, 1);
    arrive(pipeline, &[1]);
    database.execute(&format!("ALTER ROLE {role} PASSWORD 'zq2secret'"));
    cut(database, role);
    // Until somebody says the new one, the old one is refused.
    tells(&daemon, "WT204", &["password authentication failed"]);
    change();
    order(database, 2);
    arrive(pipeline, &[1, 2]);
    daemon.wait_ready();
    let codes: Vec<String> = logged(&daemon).into_iter().map(|told| told.code).collect();
    assert_eq!(codes, ["WT215", "WT204"], "{}", daemon.log());
    for secret in ["zq1secret", "zq2secret"] {
        assert!(!daemon.log().contains(secret), "{secret} is in the log");
    }
    daemon
}

#[test]
fn a_password_that_is_changed_in_its_file_is_used_at_the_next_connection() {
    let postgres = guarded();
    let (database, role) = with_role(&postgres, "password file");
    let file = SecretFile::of(&database, "password", "zq1secret\n");
    let pipeline = set_up(&database)
        .with("source.url", database.url_as(&role, None))
        .with("source.password_file", file.path());
    comes_back(&pipeline, &database, &role, || file.write("zq2secret\n")).terminate();
}

#[test]
fn a_password_that_is_changed_in_a_passfile_is_used_at_the_next_connection() {
    let postgres = guarded();
    let (database, role) = with_role(&postgres, "passfile");
    let file = SecretFile::of(&database, "pgpass", "*:*:*:*:zq1secret\n");
    let url = format!("{}?passfile={}", database.url_as(&role, None), file.path());
    let pipeline = set_up(&database).with("source.url", url);
    comes_back(&pipeline, &database, &role, || file.write("*:*:*:*:zq2secret\n")).terminate();
}

#[test]
fn a_password_that_a_command_prints_is_asked_for_at_each_connection() {
    let postgres = guarded();
    let (database, role) = with_role(&postgres, "password command");
    // What the command runs: it prints a password, fails, or does not end.
    let script = SecretFile::of(&database, "sh", "echo zq1secret; echo a notice >&2");
    let pipeline = set_up(&database)
        .with("source.url", database.url_as(&role, None))
        .with("source.password_command", vec!["sh", script.path()]);
    let daemon = comes_back(&pipeline, &database, &role, || script.write("echo zq2secret"));

    script.write("echo zq3secret; echo 'the vault is sealed' >&2; exit 7");
    // What was printed a moment ago will do until it is refused.
    database.execute(&format!("ALTER ROLE {role} PASSWORD 'zq4secret'"));
    cut(&database, &role);
    let told = tells(&daemon, "WT226", &["`sh` ended with exit status 7: the vault is sealed"]);
    fails_fast_as(&pipeline, &told);
    tries_again(&daemon);
    script.write("echo waiting for approval >&2; sleep 600");
    tells(&daemon, "WT226", &["`sh` did not end within 5 s", "source.password_command"]);
    script.write("true");
    tells(&daemon, "WT226", &["`sh` prints nothing"]);
    script.write("echo zq4secret");
    order(&database, 3);
    arrive(&pipeline, &[1, 2, 3]);
    daemon.wait_ready();
    assert!(!daemon.log().contains("zq3secret") && !daemon.log().contains("zq4secret"));
    daemon.terminate();
}

pub(crate) type Authority = CertifiedIssuer<'static, KeyPair>;

pub(crate) fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).expect("a certificate without names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    CertifiedIssuer::self_signed(params, key).expect("a certificate of an authority")
}

/// A certificate for a client of this name, and its key, in PEM.
pub(crate) fn certificate(by: &Authority, name: &str, valid_until: SystemTime) -> (String, String) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name");
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_after = valid_until.into();
    let certificate = params.signed_by(&key, by).expect("a certificate");
    (certificate.pem(), key.serialize_pem())
}

pub(crate) fn after(wait: Duration) -> SystemTime {
    SystemTime::now() + wait
}

pub(crate) const YEAR: Duration = Duration::from_secs(365 * 86_400);

/// Long enough for a daemon to start with it on a busy machine.
const SHORT: Duration = Duration::from_secs(20);

fn wait_until(end: SystemTime) {
    // A certificate's times are whole seconds.
    let left = (end + Duration::from_secs(1)).duration_since(SystemTime::now());
    std::thread::sleep(left.unwrap_or_default());
}

#[test]
fn a_client_certificate_is_read_again_for_each_connection() {
    let authority = authority();
    let database_of_files = shop(Version::NEWEST, "certificate files");
    let file = |name: &str, text: &str| SecretFile::of(&database_of_files, name, text);
    let (server, server_key) = certificate(&authority, "127.0.0.1", after(YEAR));
    let (server, server_key) = (file("server.crt", &server), file("server.key", &server_key));
    let root = file("root.crt", &authority.pem());
    let postgres = PostgresOptions::new(Version::NEWEST)
        .hba("hostssl all all 127.0.0.1/32 cert map=cdc")
        .tls(server.path().as_ref(), server_key.path().as_ref())
        .client_ca(root.path().as_ref())
        .start();
    let map = postgres.query("SHOW ident_file")[0][0].clone().expect("a path");
    fs::write(map, "cdc waltide /^.*$\n").expect("the map");
    postgres.execute("SELECT pg_reload_conf()");
    let (database, role) = with_role(&postgres, "client certificate");
    let end = after(SHORT);
    let (short, short_key) = certificate(&authority, "waltide", end);
    let (crt, key) = (file("client.crt", &short), file("client.key", &short_key));
    let parameters = format!(
        "sslmode=verify-full&sslrootcert={}&sslcert={}&sslkey={}",
        root.path(),
        crt.path(),
        key.path()
    );
    let url = format!("{}?{parameters}", database.url_as(&role, None));
    let pipeline = set_up(&database).with("source.url", url);
    let daemon = pipeline.start();
    order(&database, 1);
    arrive(&pipeline, &[1]);
    wait_until(end);
    cut(&database, &role);
    tells(&daemon, "WT202", &["CertificateExpired"]);
    let (long, long_key) = certificate(&authority, "waltide", after(YEAR));
    key.write(&long_key);
    crt.write(&long);
    order(&database, 2);
    arrive(&pipeline, &[1, 2]);
    daemon.wait_ready();
    daemon.terminate();
}

#[test]
fn kafka_s_password_is_read_again_when_the_old_one_is_refused() {
    let kafka = KafkaOptions::new()
        .protocol("SASL_PLAINTEXT")
        .behind_proxy()
        .setting("sasl.enabled.mechanisms", "SCRAM-SHA-256")
        .setting(
            "listener.name.client.scram-sha-256.sasl.jaas.config",
            "org.apache.kafka.common.security.scram.ScramLoginModule required;",
        )
        .start();
    let password = |password: &str| {
        let config = format!("SCRAM-SHA-256=[password={password}]");
        let user = ["--alter", "--entity-type", "users", "--entity-name", "waltide"];
        kafka.configs(user.into_iter().chain(["--add-config", config.as_str()]));
    };
    password("zq1secret");
    let database = shop(Version::NEWEST, "kafka password");
    let file = SecretFile::of(&database, "kafka", "zq1secret\n");
    let pipeline = set_up(&database)
        .into_kafka(&kafka)
        .with(
            "kafka.properties",
            json!({
                "security.protocol": "sasl_plaintext",
                "sasl.mechanism": "SCRAM-SHA-256",
                "sasl.username": "waltide",
            }),
        )
        .with("kafka.password_file", file.path());
    let daemon = pipeline.start();
    order(&database, 1);
    arrive(&pipeline, &[1]);
    password("zq2secret");
    kafka.proxy().cut();
    kafka.proxy().restore();
    order(&database, 2);
    // The producer was made with the old one.
    tells(&daemon, "WT302", &["password_file"]);
    tries_again(&daemon);
    file.write("zq2secret\n");
    order(&database, 3);
    let topic = pipeline.topic("public.orders");
    eventually("all three are there", SOON, || (topic.read_json().len() >= 3).then_some(()));
    arrive(&pipeline, &[1, 2, 3]);
    daemon.wait_ready();
    assert!(!daemon.log().contains("zq1secret") && !daemon.log().contains("zq2secret"));
    daemon.terminate();
}

#[test]
fn kafka_s_client_certificate_is_read_again_when_the_old_one_is_refused() {
    let authority = authority();
    let database = shop(Version::NEWEST, "kafka certificate");
    let file = |name: &str, text: &str| SecretFile::of(&database, name, text);
    let (broker, broker_key) = certificate(&authority, "127.0.0.1", after(YEAR));
    let store = file("broker.pem", &format!("{broker_key}{broker}"));
    let root = file("root.pem", &authority.pem());
    let kafka = KafkaOptions::new()
        .protocol("SSL")
        .behind_proxy()
        .setting("ssl.keystore.type", "PEM")
        .setting("ssl.keystore.location", store.path())
        .setting("ssl.truststore.type", "PEM")
        .setting("ssl.truststore.location", root.path())
        .setting("listener.name.client.ssl.client.auth", "required")
        .start();
    let end = after(SHORT);
    let (short, short_key) = certificate(&authority, "waltide", end);
    let (crt, key) = (file("kafka.crt", &short), file("kafka.key", &short_key));
    let pipeline = set_up(&database).into_kafka(&kafka).with(
        "kafka.properties",
        json!({
            "security.protocol": "ssl",
            "ssl.ca.location": root.path(),
            "ssl.certificate.location": crt.path(),
            "ssl.key.location": key.path(),
        }),
    );
    let daemon = pipeline.start();
    order(&database, 1);
    arrive(&pipeline, &[1]);
    wait_until(end);
    kafka.proxy().cut();
    kafka.proxy().restore();
    order(&database, 2);
    tells(&daemon, "WT303", &["certificate"]);
    tries_again(&daemon);
    let (long, long_key) = certificate(&authority, "waltide", after(YEAR));
    key.write(&long_key);
    crt.write(&long);
    order(&database, 3);
    arrive(&pipeline, &[1, 2, 3]);
    daemon.wait_ready();
    daemon.terminate();
}
