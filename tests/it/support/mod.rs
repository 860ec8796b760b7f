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

mod daemon;
mod pipeline;
mod position;

use std::time::Duration;

pub(crate) use daemon::Daemon;
pub(crate) use pipeline::Pipeline;
pub(crate) use position::{Lsn, Position};

/// For what takes milliseconds on a quiet machine, and must never fail on a busy one.
pub(crate) const SOON: Duration = Duration::from_secs(60);
