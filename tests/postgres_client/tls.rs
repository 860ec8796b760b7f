//! Every `sslmode` against servers that have TLS, have none, or have the wrong certificate.

use waltide::postgres::{Connection, Error, Mode, SqlState};
use waltide_stack::{Postgres, PostgresOptions, Version};

use crate::certificates::{self, Authority, Directory, Pair};
use crate::guarded::{Guarded, guarded};
use crate::middleman::Middleman;
use crate::{launch, open, params, refusal, shared, value};

/// What the server says of the connection.
async fn encrypted(connection: &mut Connection) -> bool {
    let seen = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let by_server = value(connection, seen).await == "t";
    assert_eq!(connection.is_encrypted(), by_server);
    by_server
}

fn root(authority: &Authority) -> String {
    format!("sslrootcert={}", authority.certificate.display())
}

#[tokio::test]
async fn each_mode_encrypts_as_in_libpq_where_the_server_offers_tls() {
    for server in guarded() {
        for (settings, expected) in [
            ("sslmode=disable", false),
            ("sslmode=allow", false),
            ("", true),
            ("sslmode=prefer", true),
            ("sslmode=require", true),
            ("sslmode=require&ssl_min_protocol_version=TLSv1.3", true),
            (&format!("sslmode=verify-ca&{}", root(&server.authority)), true),
            (&server.verified(), true),
        ] {
            let mut connection = open(&server.url("scram_user", settings)).await;
            assert_eq!(encrypted(&mut connection).await, expected, "{settings}");
        }
    }
}

#[tokio::test]
async fn where_the_server_has_no_tls_the_strict_modes_say_so() {
    let url = shared(Version::NEWEST).url("postgres");
    for mode in ["disable", "allow", "prefer"] {
        assert!(!encrypted(&mut open(&format!("{url}?sslmode={mode}")).await).await, "{mode}");
    }
    let [server, _] = guarded();
    for settings in ["sslmode=require", &server.verified()] {
        let error = refusal(&format!("{url}?{settings}")).await;
        assert!(matches!(error, Error::TlsRefused { .. }), "{settings}: {error}");
    }
}

#[tokio::test]
async fn allow_and_prefer_try_the_other_way_where_the_server_refuses_the_first() {
    for server in guarded() {
        assert!(encrypted(&mut open(&server.url("tls_only", "sslmode=allow")).await).await);
        assert!(!encrypted(&mut open(&server.url("plain_only", "sslmode=prefer")).await).await);
        // A wrong password is told, and not what the other way has to say about us.
        for mode in ["allow", "prefer"] {
            let error =
                refusal(&server.url_with("tls_only", "wrong", &format!("sslmode={mode}"))).await;
            assert_eq!(error.sqlstate(), Some(SqlState::INVALID_PASSWORD), "{mode}: {error}");
        }
        let error = refusal(&server.url("tls_only", "sslmode=disable")).await;
        assert_eq!(error.sqlstate(), Some(SqlState::INVALID_AUTHORIZATION), "{error}");
    }
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_is_refused_where_roots_are_named() {
    for server in guarded() {
        for mode in ["require", "verify-ca", "verify-full"] {
            let settings = format!("sslmode={mode}&{}", root(&server.stranger));
            let error = refusal(&server.url("scram_user", &settings)).await;
            assert!(matches!(error, Error::CertificateUntrusted { .. }), "{mode}: {error}");
        }
        // The system does not know our authority either.
        let error = refusal(&server.url("scram_user", "sslmode=verify-full")).await;
        let told = matches!(error, Error::CertificateUntrusted { .. } | Error::File { .. });
        assert!(told, "{error}");
    }
}

#[tokio::test]
async fn the_host_is_checked_by_verify_full_alone() {
    for server in guarded() {
        let url = server.url("scram_user", "").replace("db.example", "other.example");
        for mode in ["require", "verify-ca"] {
            open(&format!("{url}&sslmode={mode}&{}", root(&server.authority))).await;
        }
        match refusal(&format!("{url}&{}", server.verified())).await {
            Error::CertificateWrongHost { peer, names } => {
                assert_eq!(peer.host(), "other.example");
                assert_eq!(names, ["db.example", "server"]);
            }
            other => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named() {
    let [server, _] = guarded();
    let empty = server.directory.write("empty.crt", "");
    let broken = server
        .directory
        .write("broken.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    for path in [empty, broken, "/nowhere/root.crt".into()] {
        let settings = format!("sslmode=verify-full&sslrootcert={}", path.display());
        match refusal(&server.url("scram_user", &settings)).await {
            Error::File { path: named, .. } => assert_eq!(named, path),
            other => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn a_client_certificate_logs_in_and_one_of_a_stranger_does_not() {
    for server in guarded() {
        let url =
            |client: &str| server.url("cert_user", &format!("{}&{client}", server.verified()));
        let mut connection = open(&url(&server.client.as_client())).await;
        assert_eq!(value(&mut connection, "SELECT current_user").await, "cert_user");
        let error = refusal(&url("")).await;
        assert_eq!(error.sqlstate(), Some(SqlState::INVALID_AUTHORIZATION), "{error}");
        let error = refusal(&url(&server.strange_client.as_client())).await;
        assert!(matches!(error, Error::Tls { .. }), "{error}");
    }
}

#[tokio::test]
async fn tls_can_be_started_at_once_where_the_server_knows_how() {
    let [old, new] = guarded();
    let settings = |server: &Guarded| format!("{}&sslnegotiation=direct", server.verified());
    assert!(encrypted(&mut open(&new.url("scram_user", &settings(new))).await).await);
    let error = refusal(&old.url("scram_user", &settings(old))).await;
    assert!(matches!(error, Error::Tls { .. } | Error::Closed { .. }), "{error}");
}

#[tokio::test]
async fn somebody_in_the_middle_is_found_out_by_channel_binding() {
    for server in guarded() {
        let directory = Directory::new(&format!("middleman-{}", server.postgres.version()));
        let pair = server.stranger.sign(&directory, "middleman", &[]);
        let middleman = Middleman::start(&pair, server.postgres.port()).await;
        let url = |settings: &str| {
            let port = server.postgres.port().to_string();
            server.url("scram_user", settings).replace(&port, &middleman.port().to_string())
        };
        for binding in ["require", "prefer"] {
            let settings = format!("sslmode=require&channel_binding={binding}");
            let error = refusal(&url(&settings)).await;
            assert!(error.to_string().contains("channel binding"), "{binding}: {error}");
            assert_eq!(error.sqlstate(), Some(SqlState::INVALID_AUTHORIZATION));
        }
        // Without it nothing tells: sslmode=require checks no certificate.
        open(&url("sslmode=require&channel_binding=disable")).await;
    }
}

/// Starts a server with this certificate, and gives its port.
fn with_certificate(pair: &Pair) -> Postgres {
    let options = PostgresOptions::new(Version::NEWEST);
    let hba = "host all scram_user all scram-sha-256\nhost all all all trust\n";
    let server = launch(options.hba(hba).tls(&pair.certificate, &pair.key));
    server.execute("CREATE ROLE scram_user LOGIN PASSWORD 'p'");
    server
}

fn url_of(server: &Postgres, host: &str, settings: &str) -> String {
    let port = server.port();
    format!("postgres://scram_user:p@{host}:{port}/postgres?hostaddr=127.0.0.1&{settings}")
}

#[tokio::test]
async fn a_self_signed_certificate_with_the_ca_flag_is_trusted_where_it_is_named_itself() {
    let directory = Directory::new("self-signed");
    let pair = certificates::self_signed(&directory, "self", &[]);
    let server = with_certificate(&pair);
    let root = format!("sslrootcert={}", pair.certificate.display());
    open(&url_of(&server, "any", &format!("sslmode=verify-ca&{root}"))).await;
    // It has no alternative names, so the common name counts.
    open(&url_of(&server, "self", &format!("sslmode=verify-full&{root}"))).await;
    let error = refusal(&url_of(&server, "any", &format!("sslmode=verify-full&{root}"))).await;
    assert!(matches!(error, Error::CertificateWrongHost { .. }), "{error}");
    // An Ed25519 signature has no hash to bind to: SCRAM goes on without, unless it must not.
    open(&url_of(&server, "any", "sslmode=require")).await;
    let error = refusal(&url_of(&server, "any", "sslmode=require&channel_binding=require")).await;
    assert!(matches!(error, Error::Auth { .. }), "{error}");
}

#[tokio::test]
async fn an_expired_certificate_is_refused_where_certificates_are_checked() {
    let directory = Directory::new("expired");
    let authority = Authority::new(&directory, "authority");
    let server = with_certificate(&authority.sign_expired(&directory, "server", "db.example"));
    open(&url_of(&server, "db.example", "sslmode=require")).await;
    let settings = format!("sslmode=verify-ca&{}", root(&authority));
    let error = refusal(&url_of(&server, "db.example", &settings)).await;
    assert!(matches!(error, Error::CertificateUntrusted { .. }), "{error}");
    assert!(error.to_string().ends_with("it has expired"), "{error}");
}

#[tokio::test]
async fn a_certificate_of_version_1_can_be_used_and_bound_to() {
    let directory = Directory::new("version-1");
    let pair = certificates::version_1(&directory, "old.example");
    let server = with_certificate(&pair);
    open(&url_of(&server, "any", "sslmode=require&channel_binding=require")).await;
    let settings = format!("sslmode=verify-full&sslrootcert={}", pair.certificate.display());
    open(&url_of(&server, "old.example", &settings)).await;
}

#[tokio::test]
async fn a_longer_hash_is_bound_to_as_well() {
    let directory = Directory::new("sha-384");
    let authority = Authority::new(&directory, "authority");
    let p384 = &rcgen::PKCS_ECDSA_P384_SHA384;
    let server = with_certificate(&authority.sign_with(&directory, "server", &[], p384));
    open(&url_of(&server, "any", "sslmode=require&channel_binding=require")).await;
}

#[tokio::test]
async fn a_unix_socket_is_never_encrypted_whatever_the_mode() {
    let server = shared(Version::NEWEST);
    let (directory, port) = (server.socket_directory(), server.port());
    let url = format!("postgres://postgres@/postgres?host={}&port={port}", directory.display());
    for settings in ["", "&sslmode=require", "&sslmode=verify-full&sslrootcert=system"] {
        let mut connection = open(&format!("{url}{settings}")).await;
        assert!(!connection.is_encrypted());
        assert_eq!(value(&mut connection, "SELECT inet_client_addr() IS NULL").await, "t");
    }
    let mut params = params(&url);
    params.hosts = vec![waltide::postgres::Host::Unix { directory: "/nowhere".into(), port }];
    let error = Connection::open(&params, Mode::Plain).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("/nowhere/.s.PGSQL."), "{error}");
}
