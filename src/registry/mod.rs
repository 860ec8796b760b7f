//! Schemas get their ids from a registry that speaks Confluent's API.

mod changes;
mod client;
mod transport;

pub use changes::{changes, full_name};
pub use client::{Client, Error, SchemaId};
pub use transport::{Authentication, Settings};
