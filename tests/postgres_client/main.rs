//! The PostgreSQL client against real servers.

mod cancel;
mod catalog;
mod certificates;
mod copy;
mod guarded;
mod hosts;
mod login;
mod middleman;
mod query;
mod settings;
mod slots;
mod stream;
mod tls;

use std::time::Duration;

use waltide::postgres::{Connection, Error, Mode, Params};
use waltide_stack::{Database, Postgres, PostgresOptions, Stack, Version};

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Does on a thread of its own what must not happen inside a runtime, such as starting a server.
fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let done = std::thread::scope(|scope| scope.spawn(work).join());
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The server of this version that all tests share.
fn shared(version: Version) -> &'static Postgres {
    apart(|| Stack::shared().postgres(version))
}

/// A server of this test's own.
fn launch(options: PostgresOptions) -> Postgres {
    apart(|| options.start())
}

/// A database for one test.
fn database(version: Version, test: &str) -> Database {
    shared(version).database(test)
}

fn params(url: &str) -> Params {
    url.parse().unwrap_or_else(|error| panic!("{url}: {error}"))
}

/// Connects, or tells why not.
async fn try_open(url: &str) -> Result<Connection, Error> {
    within(Connection::open(&params(url), Mode::Plain)).await
}

async fn open(url: &str) -> Connection {
    try_open(url).await.unwrap_or_else(|error| panic!("{url}: {error}"))
}

async fn open_replication(url: &str) -> Connection {
    let opened = within(Connection::open(&params(url), Mode::Replication)).await;
    opened.unwrap_or_else(|error| panic!("{url}: {error}"))
}

async fn refusal(url: &str) -> Error {
    match try_open(url).await {
        Ok(connection) => panic!("{url} was let in: {connection:?}"),
        Err(error) => error,
    }
}

/// Bounds what should not hang.
async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("no answer in time")
}

/// The first value of a query.
async fn value(connection: &mut Connection, sql: &str) -> String {
    let rows = within(connection.simple_query(sql)).await;
    let rows = rows.unwrap_or_else(|error| panic!("{sql}: {error}"));
    rows.single().unwrap_or_else(|| panic!("{sql}: no value")).to_owned()
}
