//! One connection to Postgres for test code, without psql and without async.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use postgres::{Config, NoTls, SimpleQueryMessage};

use crate::error::Error;

/// What a query returns: rows of values as text, none for NULL.
pub type Rows = Vec<Vec<Option<String>>>;

/// A connection. It lives on a thread of its own, so tests inside an async runtime may use it too.
#[derive(Debug)]
pub struct Session {
    requests: mpsc::Sender<Request>,
}

/// What becomes of a session whose connection is lost, be it by a restart or because a test has
/// ended all sessions of its database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lost {
    /// It stays lost: it may have been in a transaction.
    Stays,
    /// It connects again before the next statement.
    Returns,
}

#[derive(Debug)]
struct Request {
    sql: String,
    answer: mpsc::Sender<Result<Rows, postgres::Error>>,
}

/// A statement that was sent and may not have been answered yet.
#[derive(Debug)]
pub struct Pending {
    sql: String,
    answer: mpsc::Receiver<Result<Rows, postgres::Error>>,
}

impl Session {
    /// Connects to any server, with a `postgres://` URL.
    ///
    /// # Panics
    /// When the server refuses.
    #[track_caller]
    pub fn connect(url: &str) -> Self {
        let opened = url.parse().map_err(Error::because("not a URL for Postgres"));
        match opened.and_then(|config: Config| Self::open(&config, Lost::Stays)) {
            Ok(session) => session,
            Err(error) => panic!("{error}"),
        }
    }

    pub(crate) fn open(config: &Config, lost: Lost) -> Result<Self, Error> {
        let config = config.clone();
        let (requests, inbox) = mpsc::channel::<Request>();
        let (opened, outcome) = mpsc::channel();
        let work = move || {
            let mut client = match config.connect(NoTls) {
                Ok(client) => client,
                Err(error) => {
                    let _ = opened.send(Err(Error::new(described(&error))));
                    return;
                }
            };
            let _ = opened.send(Ok(()));
            for Request { sql, answer } in inbox {
                // Asked beforehand, because after a failure nobody knows what was done.
                if lost == Lost::Returns && client.simple_query("").is_err() {
                    match config.connect(NoTls) {
                        Ok(again) => client = again,
                        Err(error) => {
                            let _ = answer.send(Err(error));
                            continue;
                        }
                    }
                }
                let _ = answer.send(client.simple_query(&sql).map(rows));
            }
        };
        thread::Builder::new()
            .name("stack-session".into())
            .spawn(work)
            .map_err(Error::because("no thread for a Postgres session"))?;
        outcome.recv().map_err(Error::because("the Postgres session died"))??;
        Ok(Self { requests })
    }

    /// Runs statements whose rows do not matter.
    ///
    /// # Panics
    /// When the server refuses, with its message.
    #[track_caller]
    pub fn execute(&self, sql: &str) {
        self.query(sql);
    }

    /// Runs statements and returns all their rows.
    ///
    /// # Panics
    /// When the server refuses, with its message.
    #[track_caller]
    pub fn query(&self, sql: &str) -> Rows {
        self.send(sql).wait()
    }

    /// Runs a query for one value.
    ///
    /// # Panics
    /// When the answer is not one row of one value that is not NULL.
    #[track_caller]
    pub fn value(&self, sql: &str) -> String {
        let rows = self.query(sql);
        match rows.as_slice() {
            [row] if row.len() == 1 && row[0].is_some() => row[0].clone().unwrap_or_default(),
            _ => panic!("not one value but {rows:?}: {sql}"),
        }
    }

    /// Runs statements that may fail.
    ///
    /// # Errors
    /// What the server answers, or that the connection is gone.
    pub fn try_query(&self, sql: &str) -> Result<Rows, postgres::Error> {
        self.send(sql).answer.recv().expect("a session answers each request")
    }

    /// Sends statements without waiting: for those that block until something else happens.
    pub fn send(&self, sql: &str) -> Pending {
        let (sender, answer) = mpsc::channel();
        let request = Request { sql: sql.to_owned(), answer: sender };
        self.requests.send(request).expect("a session lives as long as its handle");
        Pending { sql: sql.to_owned(), answer }
    }
}

impl Pending {
    /// Waits for the rows.
    ///
    /// # Panics
    /// When the server refuses, with its message.
    #[track_caller]
    pub fn wait(self) -> Rows {
        match self.answer.recv() {
            Ok(Ok(rows)) => rows,
            Ok(Err(error)) => panic!("{}\n  in: {}", described(&error), self.sql),
            Err(_) => panic!("the session died in: {}", self.sql),
        }
    }

    /// Whether the statement is still without an answer after this time.
    pub fn is_blocked_for(&self, time: Duration) -> bool {
        matches!(self.answer.recv_timeout(time), Err(mpsc::RecvTimeoutError::Timeout))
    }
}

fn rows(messages: Vec<SimpleQueryMessage>) -> Rows {
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect())
        }
        _ => None,
    });
    rows.collect()
}

/// The server's own words, which the error's `Display` leaves out.
pub(crate) fn described(error: &postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => {
            let mut text = format!("{}: {} ({})", db.severity(), db.message(), db.code().code());
            for more in [db.detail(), db.hint()].into_iter().flatten() {
                text.push_str("; ");
                text.push_str(more);
            }
            text
        }
        None => match std::error::Error::source(error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        },
    }
}
