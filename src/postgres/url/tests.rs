use std::net::Ipv4Addr;

use super::*;
use crate::postgres::params::Tls;

fn parse(text: &str) -> Params {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn refusal(text: &str) -> UrlError {
    match text.parse::<Params>() {
        Ok(params) => panic!("{text} was taken as {params:?}"),
        Err(error) => error,
    }
}

fn tcp(name: &str, port: u16) -> Host {
    Host::Tcp { name: name.to_owned(), address: None, port }
}

#[test]
fn both_forms_mean_the_same() {
    let url = parse(
        "postgresql://wal%40tide:p%20w@db.example:6432/sh%2Fop?sslmode=require&connect_timeout=3",
    );
    let list = parse(
        "host=db.example port = 6432 user=wal@tide password='p w' dbname=sh/op sslmode=require connect_timeout=3",
    );
    assert_eq!(url, list);
    assert_eq!(url.hosts, [tcp("db.example", 6432)]);
    assert_eq!(url.user, "wal@tide");
    assert_eq!(url.database, "sh/op");
    assert_eq!(url.password, PasswordSource::Given(Password::new("p w")));
    assert_eq!(url.connect_timeout, Duration::from_secs(3));
}

#[test]
fn what_is_left_out_is_as_in_libpq() {
    let params = parse("postgres://waltide@db");
    assert_eq!(params.hosts, [tcp("db", 5432)]);
    assert_eq!(params.database, "waltide");
    assert_eq!(params.tls, Tls::default());
    assert_eq!(params.tls.mode, SslMode::Prefer);
    assert_eq!(params.channel_binding, ChannelBinding::Prefer);
    assert_eq!(params.target_session_attrs, TargetSessionAttrs::Any);
}

#[test]
fn several_hosts_keep_their_order_and_ports() {
    let expected = [tcp("a", 5432), tcp("::1", 5433), tcp("c", 5434)];
    assert_eq!(parse("postgres://u@a,[::1]:5433,c:5434/d").hosts, expected);
    assert_eq!(parse("host=a,::1,c port=5432,5433,5434 user=u").hosts, expected);
    assert_eq!(parse("host=a,b port=6000 user=u").hosts, [tcp("a", 6000), tcp("b", 6000)]);
    assert!(matches!(refusal("host=a,b,c port=1,2 user=u"), UrlError::Conflict(_)));
    assert!(matches!(refusal("host=a,,c user=u"), UrlError::Missing("host")));
}

#[test]
fn a_unix_socket_is_a_host_that_starts_with_a_slash() {
    let expected = [Host::Unix { directory: "/run/postgresql".into(), port: 5433 }];
    for text in [
        "postgres://u@%2Frun%2Fpostgresql:5433/d",
        "postgres://u@/d?host=/run/postgresql&port=5433",
        "host=/run/postgresql port=5433 user=u",
    ] {
        assert_eq!(parse(text).hosts, expected, "{text}");
    }
}

#[test]
fn an_address_saves_asking_for_the_name_but_does_not_replace_it() {
    let address = Some(Ipv4Addr::new(10, 0, 0, 7).into());
    let named = Host::Tcp { name: "db".to_owned(), address, port: 5432 };
    assert_eq!(parse("host=db hostaddr=10.0.0.7 user=u").hosts, [named]);
    let bare = Host::Tcp { name: "10.0.0.7".to_owned(), address, port: 5432 };
    assert_eq!(parse("hostaddr=10.0.0.7 user=u").hosts, [bare]);
    assert!(matches!(refusal("hostaddr=db user=u"), UrlError::Value { key: "hostaddr", .. }));
}

#[test]
fn quotes_and_backslashes_are_read_as_libpq_reads_them() {
    let params = parse(r"host=db user='it\'s \\ me' password = a\ b options='-c a=b -c c=d'");
    assert_eq!(params.user, r"it's \ me");
    assert_eq!(params.password, PasswordSource::Given(Password::new("a b")));
    assert_eq!(params.options.as_deref(), Some("-c a=b -c c=d"));
    assert!(matches!(refusal("host=db user='me"), UrlError::Form(_)));
    assert!(matches!(refusal("host=db user"), UrlError::Form(_)));
}

#[test]
fn an_unknown_key_is_refused_by_name_and_one_of_libpq_with_a_reason() {
    assert_eq!(
        refusal("postgres://u@db?sslmod=require"),
        UrlError::UnknownKey("sslmod".to_owned())
    );
    let error = refusal("host=db user=u sslcrl=/x");
    assert!(matches!(error, UrlError::Unsupported { key: "sslcrl", .. }), "{error}");
}

#[test]
fn every_value_is_checked() {
    for (setting, named) in [
        ("sslmode=on", "sslmode"),
        ("channel_binding=yes", "channel_binding"),
        ("target_session_attrs=master", "target_session_attrs"),
        ("connect_timeout=0", "connect_timeout"),
        ("connect_timeout=3601", "connect_timeout"),
        ("port=0", "port"),
        ("port=65536", "port"),
        ("keepalives=2", "keepalives"),
        ("keepalives_idle=-1", "keepalives_idle"),
        ("require_auth=scram", "require_auth"),
        ("require_auth=md5,!none", "require_auth"),
        ("gssencmode=require", "gssencmode"),
        ("client_encoding=LATIN1", "client_encoding"),
        ("sslnegotiation=no", "sslnegotiation"),
        ("ssl_min_protocol_version=TLSv1", "ssl_min_protocol_version"),
    ] {
        match refusal(&format!("host=db user=u {setting}")) {
            UrlError::Value { key, .. } => assert_eq!(key, named),
            other => panic!("{setting}: {other}"),
        }
    }
}

#[test]
fn settings_that_do_not_go_together_are_refused() {
    for settings in [
        "sslmode=require sslrootcert=system",
        "sslmode=verify-ca",
        "sslcert=/c",
        "sslkey=/k",
        "sslnegotiation=direct",
        "sslmode=disable channel_binding=require",
    ] {
        let error = refusal(&format!("host=db user=u {settings}"));
        assert!(matches!(error, UrlError::Conflict(_)), "{settings}: {error}");
    }
}

#[test]
fn naming_the_system_roots_is_asking_for_full_verification() {
    assert_eq!(parse("postgres://u@db?sslrootcert=system").tls.mode, SslMode::VerifyFull);
    assert_eq!(parse("postgres://u@db?ssl=true").tls.mode, SslMode::Require);
}

#[test]
fn keepalive_settings_reach_the_socket_and_zero_leaves_them_to_the_system() {
    let tcp = parse(
        "host=db user=u keepalives_idle=7 keepalives_interval=0 keepalives_count=4 tcp_user_timeout=1500",
    )
    .tcp;
    assert_eq!(tcp.idle, Some(Duration::from_secs(7)));
    assert_eq!(tcp.interval, None);
    assert_eq!(tcp.count, Some(4));
    assert_eq!(tcp.user_timeout, Some(Duration::from_millis(1500)));
}

#[test]
fn allowed_methods_are_named_or_all_but_the_named() {
    let methods =
        |list: &str| parse(&format!("host=db user=u require_auth={list}")).require_auth.unwrap().0;
    assert_eq!(methods("scram-sha-256"), [AuthMethod::ScramSha256]);
    assert_eq!(methods("!password,!md5"), [AuthMethod::ScramSha256, AuthMethod::None]);
    assert_eq!(methods("gss"), []);
}

#[test]
fn a_password_is_never_printed() {
    let params = parse("postgres://u:hush-hush@db/d");
    assert!(!format!("{params:?}").contains("hush"));
    assert_eq!(params.to_string(), "postgres://u@db:5432/d");
    // Torn apart by an '@', '/' or ':' of its own, it is not in the message either.
    for text in [
        "postgres://u:hush@hush@db/d",
        "postgres://u:hush/hush@db/d",
        "postgres://u:1/hush@db/d",
        "postgres://u:hush%zzhush@db/d",
        "host=db user=u port=hush",
        "host=db user=u hostaddr=hush",
    ] {
        let error = refusal(text).to_string();
        assert!(!error.contains("hush"), "{text}: {error}");
    }
}

#[test]
fn a_password_in_the_string_wins_over_the_file_and_the_file_over_the_environment() {
    let environment = || Some(Password::new("e"));
    let file = || Some(PathBuf::from("/f"));
    let typed = parse("postgres://u:p@db").with_password_from(file(), environment());
    assert_eq!(typed.password, PasswordSource::Given(Password::new("p")));
    let filed = parse("postgres://u@db?passfile=/x").with_password_from(file(), environment());
    assert_eq!(filed.password, PasswordSource::File("/f".into()));
    let passed = parse("postgres://u@db?passfile=/x").with_password_from(None, None);
    assert_eq!(passed.password, PasswordSource::Passfile("/x".into()));
}

#[test]
fn what_is_no_connection_string_is_refused() {
    for text in ["", "mysql://u@db", "postgres://", "postgres://u@/d", "db", "postgres://u@[::1/d"]
    {
        refusal(text);
    }
    assert_eq!(refusal("postgres://db/d"), UrlError::Missing("user"));
}
