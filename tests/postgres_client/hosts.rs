//! Lists of hosts, and servers that are not what was asked for or do not answer.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use waltide::postgres::{Connection, Error, Mode, SqlState};
use waltide_stack::{Postgres, PostgresOptions, Version};

use crate::{apart, guarded, launch, open, params, refusal, shared, value};

/// A port that nobody listens on: it was free a moment ago, and the system gives it to nobody
/// else while it is bound without listening.
struct DeadPort(socket2::Socket);

impl DeadPort {
    fn new() -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.expect("a socket");
        socket.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
        Self(socket)
    }

    fn port(&self) -> u16 {
        self.0.local_addr().unwrap().as_socket_ipv4().unwrap().port()
    }
}

/// A standby: a server that was shut down in order and told to follow nobody.
fn standby() -> Postgres {
    let server = launch(PostgresOptions::new(Version::NEWEST));
    server.stop();
    std::fs::write(server.data_directory().join("standby.signal"), "").unwrap();
    apart(|| server.start_again());
    server
}

fn hosts(servers: &[u16], settings: &str) -> String {
    let list: Vec<String> = servers.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    format!("postgres://postgres@{}/postgres?{settings}", list.join(","))
}

#[tokio::test]
async fn a_dead_host_gives_way_to_the_next() {
    let (dead, alive) = (DeadPort::new(), shared(Version::NEWEST));
    let connection = open(&hosts(&[dead.port(), alive.port()], "")).await;
    assert_eq!(connection.peer().port(), alive.port());
}

#[tokio::test]
async fn where_all_are_dead_each_one_is_told() {
    let (one, two) = (DeadPort::new(), DeadPort::new());
    let error = refusal(&hosts(&[one.port(), two.port()], "")).await;
    let Error::NoHostReached(failed) = &error else { panic!("{error}") };
    let ports: Vec<u16> = failed.iter().map(|error| error.peer().unwrap().port()).collect();
    assert_eq!(ports, [one.port(), two.port()]);
    let error = refusal(&hosts(&[one.port()], "")).await;
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn a_name_without_an_address_is_told_apart() {
    let error = refusal("postgres://u@no-such-host.invalid/d").await;
    assert!(matches!(error, Error::Dns { .. }), "{error}");
}

#[tokio::test]
async fn a_wrong_password_ends_the_search() {
    let [first, second] = guarded::guarded();
    let ports = [first.postgres.port(), second.postgres.port()];
    let url = hosts(&ports, "user=scram_user&password=wrong");
    let error = refusal(&url).await;
    assert_eq!(error.sqlstate(), Some(SqlState::INVALID_PASSWORD), "{error}");
    assert_eq!(error.peer().unwrap().port(), ports[0]);
}

#[tokio::test]
async fn a_host_that_listens_and_never_answers_is_given_up_in_time() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    for (mode, expected) in [
        ("disable", "the login"),
        ("prefer", "TLS to be agreed upon"),
        ("require", "TLS to be agreed upon"),
    ] {
        let start = Instant::now();
        let error = refusal(&hosts(&[port], &format!("connect_timeout=1&sslmode={mode}"))).await;
        let Error::Timeout { waiting_for, after, .. } = error else { panic!("{error}") };
        assert_eq!((waiting_for, after), (expected, Duration::from_secs(1)));
        assert!(start.elapsed() >= Duration::from_secs(1));
    }
    let alive = shared(Version::NEWEST);
    let url = hosts(&[port, alive.port()], "connect_timeout=1");
    assert_eq!(open(&url).await.peer().port(), alive.port());
}

#[tokio::test]
async fn a_server_that_is_frozen_after_the_login_is_given_up_as_well() {
    let server = launch(PostgresOptions::new(Version::NEWEST));
    let mut params = params(&server.url("postgres"));
    params.connect_timeout = Duration::from_millis(300);
    Connection::open(&params, Mode::Plain).await.unwrap();
    server.pause();
    let error = Connection::open(&params, Mode::Plain).await.unwrap_err();
    server.resume();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
}

#[tokio::test]
async fn the_kind_of_server_that_is_asked_for_is_found() {
    let (primary, standby) = (shared(Version::NEWEST), standby());
    let (p, s) = (primary.port(), standby.port());
    for (wanted, first, expected) in [
        ("any", s, s),
        ("read-write", s, p),
        ("primary", s, p),
        ("read-only", p, s),
        ("standby", p, s),
        ("prefer-standby", p, s),
    ] {
        let other = if first == p { s } else { p };
        let settings = format!("target_session_attrs={wanted}");
        let connection = open(&hosts(&[first, other], &settings)).await;
        assert_eq!(connection.peer().port(), expected, "{wanted}");
    }
    let connection = open(&hosts(&[p], "target_session_attrs=prefer-standby")).await;
    assert_eq!(connection.peer().port(), p);
    for (wanted, only) in [("read-write", s), ("primary", s), ("read-only", p), ("standby", p)] {
        let dead = DeadPort::new();
        let settings = format!("target_session_attrs={wanted}");
        let error = refusal(&hosts(&[dead.port(), only], &settings)).await;
        let Error::NoHostMatches { wanted: told, answered, failed } = &error else {
            panic!("{error}")
        };
        assert_eq!(told.to_string(), wanted);
        assert_eq!((answered.len(), answered[0].port(), failed.len()), (1, only, 1));
    }
}

#[tokio::test]
async fn a_primary_that_refuses_writes_is_not_read_write() {
    let server =
        launch(PostgresOptions::new(Version::V14).setting("default_transaction_read_only", "on"));
    let error = refusal(&hosts(&[server.port()], "target_session_attrs=read-write")).await;
    assert!(matches!(error, Error::NoHostMatches { .. }), "{error}");
    let mut connection = open(&hosts(&[server.port()], "target_session_attrs=primary")).await;
    // And the answer was not of our own making.
    assert_eq!(value(&mut connection, "SHOW default_transaction_read_only").await, "on");
}
