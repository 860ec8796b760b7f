//! A relation and its catalog become a schema and the steps that write it.
//!
//! [`Plan::compile`] looks everything up once for each version of a relation: names, types, what
//! may be null, the key. What is left for each row is to walk its fields beside the plan's
//! columns and write bytes: no map, no allocation, no tree of values.
//!
//! ```text
//! Relation + Table + Types + Options -> Plan -> key schema, value schema
//! Row -> Plan::records -> Record -> encode_key, encode -> bytes, Notes
//! ```

mod codec;
pub(crate) mod debezium;
mod debezium_codec;
mod debezium_default;
mod debezium_header;
mod encode;
pub(crate) mod envelope;
mod error;
pub(crate) mod json;
mod key;
mod made;
pub mod names;
mod notes;
mod options;
pub(crate) mod plan;
mod record;
#[cfg(test)]
#[path = "../../tests/avro_fixture/recorded.rs"]
mod recorded;
mod resolve;
pub(crate) mod waltide;
pub(crate) mod wire;

pub use error::{DataError, PlanError, PlanFault, Problem, Warning};
pub use notes::Notes;
pub use options::{ColumnFilter, Envelope, Options, Profile};
pub use plan::Plan;
pub use record::{Order, Record, RecordMeta, Records, Snapshot, Written};

/// Appends the header before every Avro body: a zero and the registry's id of its schema.
pub fn write_header(schema_id: u32, out: &mut Vec<u8>) {
    out.push(0);
    out.extend_from_slice(&schema_id.to_be_bytes());
}
