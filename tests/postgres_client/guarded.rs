//! Servers that ask who is there: TLS, and a login method for each role.

use std::sync::OnceLock;

use waltide_stack::{Postgres, PostgresOptions, Version};

use crate::certificates::{Authority, Directory, Pair};
use crate::launch;

/// The only host in the server's certificate.
pub(crate) const HOST: &str = "db.example";

/// The password of every role that has one.
pub(crate) const PASSWORD: &str = "pässword";

const HBA: &str = "\
hostssl   all cert_user all cert
hostssl   all tls_only  all scram-sha-256
hostnossl all plain_only all trust
host      all tls_only,plain_only,rejected all reject
host      all clear_user all password
host      all md5_user   all md5
host      all scram_user all scram-sha-256
host      all trusted,postgres,nobody_knows all trust
";

pub(crate) struct Guarded {
    pub(crate) postgres: Postgres,
    /// Has signed the server's certificate and that of `cert_user`.
    pub(crate) authority: Authority,
    /// Has signed neither.
    pub(crate) stranger: Authority,
    pub(crate) client: Pair,
    pub(crate) strange_client: Pair,
    pub(crate) directory: Directory,
}

/// The oldest and the newest: the rules of login are the same in between.
pub(crate) fn guarded() -> [&'static Guarded; 2] {
    static OLDEST: OnceLock<Guarded> = OnceLock::new();
    static NEWEST: OnceLock<Guarded> = OnceLock::new();
    [
        OLDEST.get_or_init(|| Guarded::start(Version::V14)),
        NEWEST.get_or_init(|| Guarded::start(Version::NEWEST)),
    ]
}

impl Guarded {
    fn start(version: Version) -> Self {
        let directory = Directory::new(&format!("guarded-{version}"));
        let authority = Authority::new(&directory, "authority");
        let stranger = Authority::new(&directory, "stranger");
        let server = authority.sign(&directory, "server", &[HOST]);
        let postgres = launch(
            PostgresOptions::new(version)
                .hba(HBA)
                .tls(&server.certificate, &server.key)
                .client_ca(&authority.certificate),
        );
        postgres.execute(&format!(
            "CREATE ROLE cert_user LOGIN; CREATE ROLE rejected LOGIN; CREATE ROLE trusted LOGIN;
             CREATE ROLE plain_only LOGIN;
             CREATE ROLE tls_only LOGIN PASSWORD '{PASSWORD}';
             CREATE ROLE clear_user LOGIN PASSWORD '{PASSWORD}';
             CREATE ROLE scram_user LOGIN REPLICATION PASSWORD '{PASSWORD}';
             SET password_encryption = 'md5';
             CREATE ROLE md5_user LOGIN PASSWORD '{PASSWORD}'"
        ));
        let client = authority.sign(&directory, "cert_user", &[]);
        let strange_client = stranger.sign(&directory, "cert_user", &[]);
        Self { postgres, authority, stranger, client, strange_client, directory }
    }

    /// A URL for a role with the right password, by the name in the certificate.
    pub(crate) fn url(&self, role: &str, settings: &str) -> String {
        self.url_with(role, PASSWORD, settings)
    }

    pub(crate) fn url_with(&self, role: &str, password: &str, settings: &str) -> String {
        let port = self.postgres.port();
        format!("postgres://{role}:{password}@{HOST}:{port}/postgres?hostaddr=127.0.0.1&{settings}")
    }

    /// Settings that check the server fully.
    pub(crate) fn verified(&self) -> String {
        format!("sslmode=verify-full&sslrootcert={}", self.authority.certificate.display())
    }
}
