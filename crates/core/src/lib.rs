//! The pure part of Waltide.
//!
//! Everything here is a function of its arguments: bytes and events come in, bytes and
//! decisions go out. There is no clock, file, socket, thread or environment, so all of it
//! is tested in milliseconds and fuzzed without a server.

pub mod avro;
pub mod catalog;
pub mod change;
pub mod checkpoint;
pub mod dead_letter;
pub mod delivery;
pub mod gap;
pub mod heartbeat;
pub mod intake;
pub mod logical;
pub mod lsn;
pub mod pgoutput;
pub mod read_back;
pub mod registry;
pub mod snapshot;
pub mod spool;
pub mod trail;
pub mod transaction;
pub mod value;
pub mod verify;
pub mod watermark;
