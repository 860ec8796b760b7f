//! Schemas get their ids from a registry that speaks Confluent's API, or from a directory of ours.

mod changes;
mod client;
pub mod directory;
mod transport;
mod way;

pub use changes::{changes, full_name};
pub use client::{Client, Error, SchemaId, Verdict};
pub use transport::{Authentication, Settings};
pub use way::Own;
