//! Waltide: change data capture from PostgreSQL to Kafka.
//!
//! The rooms are the stations of the ring a change travels; only `pipeline`, `preview`,
//! `check` and `verify` know two of them.

mod chance;
pub mod check;
pub mod cli;
pub mod config;
pub mod control;
mod credential;
pub mod fault;
pub mod http;
pub mod kafka;
pub mod pipeline;
pub mod postgres;
pub mod preview;
pub mod registry;
pub mod spool;
pub mod status;
pub mod tail;
pub mod verify;

/// What of the optional parts this build has: those of `[features]` in Cargo.toml, or `none`.
pub const FEATURES: &str = if cfg!(feature = "kafka-tls") { "kafka-tls" } else { "none" };
