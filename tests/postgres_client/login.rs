//! Every way to log in, and every way to be refused.

use waltide::postgres::{AuthError, Connection, Error, Mode, Password, PasswordSource, SqlState};

use crate::guarded::{PASSWORD, guarded};
use crate::{open, params, refusal, value};

#[tokio::test]
async fn every_method_lets_the_right_password_in() {
    for server in guarded() {
        for mode in ["disable", "require"] {
            for role in ["clear_user", "md5_user", "scram_user", "trusted"] {
                let mut connection = open(&server.url(role, &format!("sslmode={mode}"))).await;
                assert_eq!(value(&mut connection, "SELECT current_user").await, role);
            }
        }
    }
}

#[tokio::test]
async fn a_wrong_password_is_told_from_a_missing_role_and_from_a_rejection() {
    for server in guarded() {
        for role in ["clear_user", "md5_user", "scram_user"] {
            let error = refusal(&server.url_with(role, "wrong", "")).await;
            assert_eq!(error.sqlstate(), Some(SqlState::INVALID_PASSWORD), "{role}: {error}");
            assert!(!error.to_string().contains("wrong"), "{error}");
        }
        let error = refusal(&server.url("nobody_knows", "")).await;
        assert_eq!(error.sqlstate(), Some(SqlState::INVALID_AUTHORIZATION), "{error}");
        assert!(error.to_string().contains("does not exist"), "{error}");
        let error = refusal(&server.url("rejected", "")).await;
        assert_eq!(error.sqlstate(), Some(SqlState::INVALID_AUTHORIZATION), "{error}");
        assert!(error.to_string().contains("pg_hba.conf"), "{error}");
        let mut missing = params(&server.url("trusted", ""));
        missing.database = "nowhere".to_owned();
        let error = Connection::open(&missing, Mode::Plain).await.unwrap_err();
        assert_eq!(error.sqlstate(), Some(SqlState::INVALID_CATALOG_NAME), "{error}");
    }
}

#[tokio::test]
async fn an_error_names_server_database_and_user() {
    let [server, _] = guarded();
    let error = refusal(&server.url_with("scram_user", "wrong", "")).await.to_string();
    let peer =
        format!("db.example:{} (database postgres, user scram_user)", server.postgres.port());
    assert!(error.starts_with(&peer), "{error}");
}

#[tokio::test]
async fn without_a_password_we_say_so_ourselves() {
    let [server, _] = guarded();
    let mut params = params(&server.url("scram_user", ""));
    params.password = PasswordSource::None;
    let error = Connection::open(&params, Mode::Plain).await.unwrap_err();
    assert!(matches!(error, Error::Auth { reason: AuthError::NoPassword, .. }), "{error}");
}

#[tokio::test]
async fn a_password_file_is_read_anew_for_each_connection() {
    let [server, _] = guarded();
    let file = server.directory.write("password", "wrong\n");
    let mut params = params(&server.url("scram_user", ""));
    params.password = PasswordSource::File(file.clone());
    let error = Connection::open(&params, Mode::Plain).await.unwrap_err();
    assert_eq!(error.sqlstate(), Some(SqlState::INVALID_PASSWORD), "{error}");
    std::fs::write(&file, format!("{PASSWORD}\n")).unwrap();
    Connection::open(&params, Mode::Plain).await.unwrap();
    std::fs::write(&file, "\n").unwrap();
    let error = Connection::open(&params, Mode::Plain).await.unwrap_err();
    assert!(matches!(&error, Error::File { path, .. } if *path == file), "{error}");
}

#[cfg(unix)]
#[tokio::test]
async fn a_passfile_is_searched_for_the_host_and_must_be_private() {
    use std::os::unix::fs::PermissionsExt;
    let [server, _] = guarded();
    let line = format!("db.example:{}:*:scram_user:{PASSWORD}\n", server.postgres.port());
    let file = server.directory.write("passfile", &format!("other:*:*:*:wrong\n{line}"));
    let mut params = params(&server.url("scram_user", ""));
    params.password = PasswordSource::Passfile(file.clone());
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    let error = Connection::open(&params, Mode::Plain).await.unwrap_err();
    assert!(matches!(error, Error::File { .. }), "{error}");
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    Connection::open(&params, Mode::Plain).await.unwrap();
}

#[tokio::test]
async fn methods_that_are_not_allowed_are_refused_before_the_password_is_given() {
    let [_, server] = guarded();
    for (role, allowed, method) in [
        ("clear_user", "scram-sha-256", "password"),
        ("md5_user", "!md5", "md5"),
        ("trusted", "scram-sha-256", "no authentication"),
        ("scram_user", "password,md5", "scram-sha-256"),
    ] {
        let error = refusal(&server.url(role, &format!("require_auth={allowed}"))).await;
        match error {
            Error::Auth { reason: AuthError::NotAllowed(named), .. } => assert_eq!(named, method),
            other => panic!("{role}: {other}"),
        }
    }
    open(&server.url("scram_user", "require_auth=scram-sha-256")).await;
}

#[tokio::test]
async fn required_channel_binding_is_refused_everything_else() {
    for server in guarded() {
        open(&server.url("scram_user", "sslmode=require&channel_binding=require")).await;
        for (role, mode) in
            [("clear_user", "require"), ("md5_user", "require"), ("trusted", "require")]
        {
            let url = server.url(role, &format!("sslmode={mode}&channel_binding=require"));
            let error = refusal(&url).await;
            let Error::Auth { reason: AuthError::ChannelBindingRequired(_), .. } = error else {
                panic!("{role}: {error}")
            };
        }
        // Over plain TCP there is no channel to bind to.
        let mut plain = params(&server.url("scram_user", "sslmode=disable"));
        plain.channel_binding = waltide::postgres::params::ChannelBinding::Require;
        let error = Connection::open(&plain, Mode::Plain).await.unwrap_err();
        let Error::Auth { reason: AuthError::ChannelBindingRequired(_), .. } = error else {
            panic!("{error}")
        };
    }
}

#[tokio::test]
async fn a_replication_connection_logs_in_the_same_way() {
    for server in guarded() {
        let mut params = params(&server.url("scram_user", &server.verified()));
        let mut connection = Connection::open(&params, Mode::Replication).await.unwrap();
        assert!(connection.is_encrypted());
        assert_eq!(connection.identify_system().await.unwrap().database, "postgres");
        params.password = PasswordSource::Given(Password::new("wrong"));
        let error = Connection::open(&params, Mode::Replication).await.unwrap_err();
        assert_eq!(error.sqlstate(), Some(SqlState::INVALID_PASSWORD), "{error}");
    }
}
