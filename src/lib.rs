//! Waltide: change data capture from PostgreSQL to Kafka.
//!
//! The rooms are the stations of the ring a change travels; only `pipeline`, `preview` and
//! `check` know two of them.

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
