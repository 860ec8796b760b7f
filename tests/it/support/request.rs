//! A request as a program of somebody else's sends it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use super::Daemon;

/// A request; its headers are sent as they are.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    method: &'static str,
    path: String,
    headers: Vec<(String, String)>,
    body: String,
}

impl Request {
    pub(crate) fn get(path: &str) -> Self {
        Self::of("GET", path)
    }

    pub(crate) fn post(path: &str) -> Self {
        Self::of("POST", path)
    }

    pub(crate) fn of(method: &'static str, path: &str) -> Self {
        Self { method, path: path.to_owned(), headers: Vec::new(), body: String::new() }
    }

    #[must_use]
    pub(crate) fn with(mut self, headers: &[(&str, &str)]) -> Self {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        self.headers.extend(headers.iter().map(own));
        self
    }

    /// Sends JSON with the token that the daemon has made for its user.
    #[must_use]
    pub(crate) fn of_its_user(self, daemon: &Daemon) -> Self {
        let said = "what changes something needs this token";
        daemon.wait_for_event(said, 1);
        let events = daemon.events();
        let event = events.iter().find(|event| event["message"] == said).expect("it is said");
        let file = event["file"].as_str().expect("a file");
        let token = std::fs::read_to_string(file).expect("it is ours");
        let bearer = format!("Bearer {token}");
        self.with(&[("Authorization", &bearer), ("Content-Type", "application/json")])
    }

    #[must_use]
    pub(crate) fn body(mut self, body: &str) -> Self {
        self.body = body.to_owned();
        self
    }

    /// The status and body of the answer.
    #[track_caller]
    pub(crate) fn send(&self, daemon: &Daemon) -> (u16, String) {
        let url = daemon.url();
        let address = url.strip_prefix("http://").expect("an address");
        let mut stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a time-out");
        let mut text = format!("{} {} HTTP/1.1\r\nConnection: close\r\n", self.method, self.path);
        if !self.headers.iter().any(|(name, _)| name == "Host") {
            text.push_str(&format!("Host: {address}\r\n"));
        }
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str(&format!("Content-Length: {}\r\n\r\n{}", self.body.len(), self.body));
        stream.write_all(text.as_bytes()).expect("it reads");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("it answers");
        let answer = String::from_utf8(answer).expect("UTF-8");
        let status = answer.split(' ').nth(1).and_then(|word| word.parse().ok());
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        assert!(!chunked, "{head}");
        (status.expect("a status"), body.to_owned())
    }
}
