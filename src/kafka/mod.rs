//! Avro bytes become Kafka records; delivery reports come back.

mod checkpoint;
mod connection;
mod error;
mod producer;
mod topics;

pub use checkpoint::{CheckpointTopic, CheckpointWriter};
pub use connection::Settings;
pub use error::Error;
pub use producer::{Failure, Producer, Record, Refusal};
pub use topics::{Admin, TopicOptions};
