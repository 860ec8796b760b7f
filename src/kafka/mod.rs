//! Avro bytes become Kafka records; delivery reports come back.

mod checkpoint;
mod cluster;
mod connection;
mod error;
mod firsts;
mod gear;
mod headers;
mod login;
mod offsets;
mod polled;
mod producer;
mod reading;
mod reports;
mod topics;
mod transactional;
mod turns;

pub use checkpoint::{CheckpointTopic, CheckpointWriter};
pub use cluster::{ClusterFacts, Config, TopicFacts};
pub use connection::Settings;
pub use error::Error;
pub use firsts::partition_of;
pub use headers::Headers;
pub use login::{Login, Tokens};
pub use producer::{Failure, Producer, Record, Refusal};
pub use reading::{Bounds, Found, TopicReader};
pub use reports::{Ends, Lane};
pub use topics::{Admin, TopicOptions};
pub use transactional::TRANSACTION_TIMEOUT;
