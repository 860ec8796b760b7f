//! Avro bytes become Kafka records; delivery reports come back.

mod connection;
mod error;
mod gear;
mod polled;
mod producer;
mod topics;

pub use connection::Settings;
pub use error::Error;
pub use producer::{Failure, Producer, Record, Refusal};
pub use topics::{Admin, TopicOptions};
