//! Whoever is slow, large or many costs the daemon little, and the stream nothing.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use waltide_stack::{Stack, Version, eventually};

use crate::support::{Daemon, Pipeline, Request, SOON};

/// Connections that begin a request and do not go on; `test-full` asks for more.
fn connections() -> usize {
    let given = std::env::var("WALTIDE_CONNECTIONS").ok().filter(|text| !text.is_empty());
    given.map_or(1_000, |text| text.parse().expect("WALTIDE_CONNECTIONS is a number"))
}

fn connect(daemon: &Daemon) -> TcpStream {
    let url = daemon.url();
    let stream = TcpStream::connect(url.trim_start_matches("http://")).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a time-out");
    stream
}

fn open_files(daemon: &Daemon) -> usize {
    let directory = format!("/proc/{}/fd", daemon.process().pid());
    fs::read_dir(directory).expect("it runs").count()
}

/// How long a probe takes.
#[track_caller]
fn probe(daemon: &Daemon) -> Duration {
    let asked = Instant::now();
    assert_eq!(Request::get("/livez").send(daemon).0, 200);
    asked.elapsed()
}

#[test]
fn slow_many_and_giant_requests_disturb_neither_probes_nor_the_stream() {
    let database = Stack::shared().database(Version::NEWEST, "flood");
    database.execute("CREATE TABLE orders (id int PRIMARY KEY)");
    let pipeline = Pipeline::of(&database);
    let daemon = pipeline.start();
    database.execute("INSERT INTO orders VALUES (0)");
    pipeline.wait_until_delivered();
    let quiet = open_files(&daemon);
    let (count, mut slow) = (connections(), Vec::new());
    let (mut longest, mut most, mut lag) = (Duration::ZERO, 0, 0.0_f64);
    for number in 1..=count {
        let mut stream = connect(&daemon);
        // The oldest are let go, which those here need not know.
        let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ");
        slow.push(stream);
        if number % 100 == 0 {
            database.execute(&format!("INSERT INTO orders VALUES ({number})"));
            longest = longest.max(probe(&daemon));
            most = most.max(open_files(&daemon));
            lag = lag.max(daemon.status()["lag_seconds"].as_f64().expect("a lag"));
        }
    }
    eprintln!("{count} slow ones: a probe took {longest:?}, {most} files, a lag of {lag} s");
    pipeline.wait_until_delivered();
    assert!(longest < Duration::from_secs(5), "a probe took {longest:?}");
    assert!(most < quiet + 300, "{most} files were open, {quiet} before");
    assert!(lag < 5.0, "a lag of {lag} s");
    eventually("the slow ones are let go, while they hold on", SOON, || {
        (open_files(&daemon) < quiet + 20).then_some(())
    });
    drop(slow);

    let answer = |request: &[u8]| {
        let mut stream = connect(&daemon);
        // It may be refused before all of it is sent.
        let _ = stream.write_all(request);
        let mut answer = [0; 15];
        stream.read(&mut answer).map(|size| String::from_utf8_lossy(&answer[..size]).into_owned())
    };
    let head = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "a".repeat(60_000));
    assert_eq!(answer(head.as_bytes()).unwrap_or_default(), "HTTP/1.1 431 Re");
    let body = format!(
        "PUT /api/log-level HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000000\r\n\r\n{}",
        "a".repeat(100_000)
    );
    // Nobody without a token has a body read.
    assert_eq!(answer(body.as_bytes()).unwrap_or_default(), "HTTP/1.1 401 Un");
    probe(&daemon);
    assert_eq!(pipeline.changes("public.orders").len(), 1 + count / 100);
    let status = daemon.status();
    assert_eq!((&status["state"], &status["outages"]), (&"streaming".into(), &0.into()));
    daemon.terminate();
}
