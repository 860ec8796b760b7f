//! Schemas get their ids from a registry that speaks Confluent's API.

mod client;

pub use client::{Authentication, Client, Error, SchemaId, Settings};
