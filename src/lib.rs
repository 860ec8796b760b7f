//! Change data capture from PostgreSQL to Kafka.

pub mod postgres;
