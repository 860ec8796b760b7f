//! The source and we do not agree on TLS, or its certificate will not do.

use std::fs;
use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair,
};
use waltide_stack::{Database, PostgresOptions, Version};

use super::{arrive, fails_fast_as, logged_once, order, set_up, tells};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::new(Vec::new()).expect("a certificate without names");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    CertifiedIssuer::self_signed(params, key).expect("a certificate of an authority")
}

/// Gives the server a certificate for a host, and has it speak TLS from now on.
fn certify(database: &Database, host: &str, by: &Authority) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(vec![host.to_owned()]).expect("a host's name");
    params.distinguished_name = DistinguishedName::new();
    params.not_after = rcgen::date_time_ymd(2099, 1, 1);
    let certificate = params.signed_by(&key, by).expect("a certificate");
    // Postgres wants the files to be its own, so it writes them itself.
    for (file, pem) in [("server.key", key.serialize_pem()), ("server.crt", certificate.pem())] {
        database.execute(&format!(
            "COPY (SELECT unnest(string_to_array('{pem}', E'\\n'))) \
             TO PROGRAM 'umask 077; cat > {file}'"
        ));
    }
    database.execute("ALTER SYSTEM SET ssl = on");
    database.execute("SELECT pg_reload_conf()");
}

#[test]
fn tls_is_mended_step_by_step_as_the_messages_say() {
    let postgres = PostgresOptions::new(Version::NEWEST).start();
    let database = postgres.database("tls");
    database.execute(super::ORDERS);
    let (ours, other) = (authority("ours"), authority("another"));
    let root = RootFile::of(&database);
    root.write(&other);
    let parameters = format!("sslmode=verify-full&sslrootcert={}", root.0.display());
    let pipeline = set_up(&database).with("source.url", format!("{}?{parameters}", database.url()));
    order(&database, 1);
    let daemon = pipeline.launch();

    let told = tells(&daemon, "WT202", &["does not offer TLS", "ssl = on", "sslmode"]);
    fails_fast_as(&pipeline, &told);
    certify(&database, "db.example", &ours);

    let told = tells(&daemon, "WT203", &["not trusted", "sslrootcert"]);
    fails_fast_as(&pipeline, &told);
    root.write(&ours);

    let told = tells(&daemon, "WT203", &["for other hosts: db.example", "by a name"]);
    fails_fast_as(&pipeline, &told);
    certify(&database, "127.0.0.1", &ours);

    order(&database, 2);
    arrive(&pipeline, &[1, 2]);
    logged_once(&daemon, &["WT202", "WT203", "WT203"]);
    let (_, metrics) = daemon.get("/metrics").expect("an answer");
    let expiry = "waltide_source_certificate_expiry_timestamp_seconds";
    let line = metrics.lines().find(|line| line.starts_with(expiry)).expect(expiry);
    assert!(line.ends_with(" 4070908800"), "the first of 2099: {line}");
    daemon.terminate();
}

/// What `sslrootcert` names; it goes away with its owner.
struct RootFile(PathBuf);

impl RootFile {
    fn of(database: &Database) -> Self {
        let name = format!("{}.root.crt", database.prefix());
        Self(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name))
    }

    fn write(&self, authority: &Authority) {
        fs::write(&self.0, authority.pem()).expect("a file for sslrootcert");
    }
}

impl Drop for RootFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
