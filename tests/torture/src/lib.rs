//! Torture: the real daemon on real servers, under everything that goes wrong, and a checker of what
//! arrives.
//!
//! Nothing here knows the daemon's code. It is run as a program; what committed is read from an audit
//! that triggers write in Postgres itself; what arrived is read by a consumer and a decoder of others
//! (librdkafka and `apache-avro`); and [`Checker`] compares the two. The checker is pure, so that
//! `tests/checker` can give it logs with every kind of violation.
//!
//! A run is cycles: writers write, something fails (the [`schedule`] says what, by the seed), it is
//! mended, writers pause, and when the server has been told that everything is safe, everything must be
//! there: see [`torture`].

mod audit;
mod checker;
mod daemon;
mod partition;
mod position;
mod reader;
mod report;
mod run;
pub mod schedule;
mod soak;
mod wire;
mod workload;
mod world;

pub use checker::{Change, Checker, Counts, Kind, Violation};
pub use partition::{Allowance, Mode, Seen, What};
pub use position::Position;
pub use report::Report;
pub use run::{Options, torture};
pub use soak::soak;
pub use waltide_stack::Random;

/// A row by the names of its columns.
pub type Row = serde_json::Map<String, serde_json::Value>;
