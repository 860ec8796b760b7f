//! What tests about the daemon need: its configuration, the daemon itself, and what it has done.
//!
//! ```ignore
//! let shop = Stack::shared().database(Version::NEWEST, "an order arrives");
//! shop.execute("CREATE TABLE orders (id int PRIMARY KEY, item text)");
//! let pipeline = Pipeline::of(&shop);
//! let daemon = pipeline.start();
//! shop.execute("INSERT INTO orders VALUES (1, 'tea')");
//! let records = pipeline.topic("public.orders").wait_for_json(1, SOON);
//! daemon.terminate();
//! ```

#![allow(dead_code, reason = "each file of tests takes what it needs")]

mod change;
mod daemon;
mod fold;
mod gateway;
mod oracle;
mod order;
mod pipeline;
mod position;
mod request;
pub(crate) mod text;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) use change::{Change, Op};
pub(crate) use daemon::Daemon;
pub(crate) use fold::Table;
pub(crate) use gateway::Gateway;
pub(crate) use oracle::assert_table_is;
pub(crate) use order::{
    assert_each_once_and_in_order, assert_transactions_are_whole, beyond_the_last, without_repeats,
};
pub(crate) use pipeline::{ConfigFile, Pipeline};
pub(crate) use position::{Lsn, Position};
pub(crate) use request::Request;
pub(crate) use waltide_stack::Random;

/// Makes a test of a function that takes a version, for each version of Postgres.
macro_rules! on_each_version {
    ($($sentence:ident)+) => {$(
        mod $sentence {
            #[test]
            fn on_14() {
                super::$sentence(waltide_stack::Version::V14);
            }
            #[test]
            fn on_15() {
                super::$sentence(waltide_stack::Version::V15);
            }
            #[test]
            fn on_16() {
                super::$sentence(waltide_stack::Version::V16);
            }
            #[test]
            fn on_17() {
                super::$sentence(waltide_stack::Version::V17);
            }
            #[test]
            fn on_18() {
                super::$sentence(waltide_stack::Version::V18);
            }
        }
    )+};
}
pub(crate) use on_each_version;

/// For what takes milliseconds on a quiet machine, and must never fail on a busy one.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// Where daemons of this process of tests write what only their user shall read.
pub(crate) fn runtime_directory() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("run-{}", std::process::id()))
}
