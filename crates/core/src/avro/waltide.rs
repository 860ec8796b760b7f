//! The waltide profile: Avro's own logical types, and everything nullable that is not key.
//!
//! - Names are escaped injectively; a field whose name changed has `postgres.column`.
//! - A value that a logical type cannot hold (a NaN, an infinity) is null and stands, as text
//!   and with its path, in the envelope's `unrepresentable`: nothing is lost, and a reader that
//!   does not care sees no odd type.
//! - `numeric` without a scale is a string: exact, with its scale, readable everywhere; a NaN is
//!   "NaN". `uuid` is a string and not `fixed`, as most readers know only that.
//! - Enums are strings with their labels in `postgres.labels`: labels are any text, and one
//!   that is added must not stop a reader.

use super::codec::Codec;
use super::json::Json;
use super::plan::Compiler;
use super::resolve::{Resolution, display_name, numeric_modifier, resolve};
use super::{Options, names};
use crate::pgoutput::Relation;
use crate::value::scalar::Scalar;

/// A type as it is written, and what its schema says.
pub(crate) struct Typed {
    pub(crate) codec: Codec,
    pub(crate) schema: Json,
}

fn typed(codec: Codec, schema: Json) -> Typed {
    Typed { codec, schema }
}

fn logical(primitive: &'static str, name: &'static str) -> Json {
    Json::Object(vec![("type", Json::str(primitive)), ("logicalType", Json::str(name))])
}

fn decimal(precision: u32, scale: u32) -> Json {
    logical("bytes", "decimal")
        .with("precision", Json::Int(precision.into()))
        .with("scale", Json::Int(scale.into()))
}

/// The namespace of a table's records: `prefix.schema.table`, each part escaped.
pub(crate) fn namespace(options: &Options, relation: &Relation) -> String {
    let prefix: Vec<String> = options.prefix.split('.').map(names::escape).collect();
    let (schema, table) = (names::escape(&relation.schema), names::escape(&relation.name));
    format!("{}.{schema}.{table}", prefix.join("."))
}

/// How values of a type are written.
pub(crate) fn type_of(compiler: &mut Compiler<'_>, oid: u32, modifier: i32) -> Typed {
    let resolved = resolve(compiler.types, oid, modifier);
    match resolved.kind {
        Resolution::Scalar(scalar) => scalar_type(scalar, resolved.modifier),
        Resolution::Enum(labels) => {
            let labels = labels.iter().map(|label| Json::str(label.as_str())).collect();
            let schema = Json::str("string").with("postgres.labels", Json::Array(labels));
            typed(Codec::Text, schema)
        }
        Resolution::Opaque { has_send } => {
            let binary = has_send && compiler.options.binary;
            compiler.warn_opaque(display_name(compiler.types, oid), binary);
            opaque(binary)
        }
        _ => opaque(true),
    }
}

/// Bytes or text as they come.
fn opaque(binary: bool) -> Typed {
    if binary {
        typed(Codec::Raw, Json::str("bytes"))
    } else {
        typed(Codec::Text, Json::str("string"))
    }
}

fn scalar_type(scalar: Scalar, modifier: i32) -> Typed {
    let primitive = |codec, name: &str| typed(codec, Json::str(name));
    match scalar {
        Scalar::Bool => primitive(Codec::Bool, "boolean"),
        Scalar::Int2 => primitive(Codec::Int2, "int"),
        Scalar::Int4 => primitive(Codec::Int4, "int"),
        Scalar::Int8 => primitive(Codec::Int8, "long"),
        Scalar::Oid | Scalar::Xid => primitive(Codec::Unsigned, "long"),
        Scalar::Xid8 => primitive(Codec::Unsigned8, "long"),
        Scalar::Float4 => primitive(Codec::Float4, "float"),
        Scalar::Float8 => primitive(Codec::Float8, "double"),
        Scalar::Numeric => numeric_type(modifier),
        Scalar::Money => typed(Codec::Money, decimal(19, 2)),
        Scalar::Text
        | Scalar::Varchar
        | Scalar::Bpchar
        | Scalar::Name
        | Scalar::Citext
        | Scalar::Json
        | Scalar::Xml
        | Scalar::Label => primitive(Codec::Text, "string"),
        Scalar::Jsonb => primitive(Codec::Versioned, "string"),
        Scalar::Bytea => primitive(Codec::Bytea, "bytes"),
        Scalar::Date => typed(Codec::Date, logical("int", "date")),
        Scalar::Time => typed(Codec::TimeUs, logical("long", "time-micros")),
        Scalar::Timestamp => {
            typed(Codec::TimestampUs { zoned: false }, logical("long", "local-timestamp-micros"))
        }
        Scalar::Timestamptz => {
            typed(Codec::TimestampUs { zoned: true }, logical("long", "timestamp-micros"))
        }
        Scalar::Uuid => typed(Codec::Uuid, logical("string", "uuid")),
        Scalar::Opaque => opaque(true),
        Scalar::Char | Scalar::Bit | Scalar::Varbit | Scalar::Timetz | Scalar::Interval => {
            primitive(Codec::Printed(scalar), "string")
        }
    }
}

/// Avro wants 0 <= scale <= precision; Postgres also has scales outside of that since version 15,
/// and the smallest decimal that holds all of their values is taken.
fn numeric_type(modifier: i32) -> Typed {
    let Some((precision, scale)) = numeric_modifier(modifier) else {
        return typed(Codec::Printed(Scalar::Numeric), Json::str("string"));
    };
    let (precision, scale) = match u32::try_from(scale) {
        Ok(scale) => (precision.max(scale), scale),
        Err(_) => (precision + scale.unsigned_abs(), 0),
    };
    typed(Codec::Decimal { scale, precision }, decimal(precision, scale))
}

/// The record that tells where a change comes from; the same for every table.
fn source() -> Json {
    let field = |name: &str, of: Json| field(name, of);
    let fields = vec![
        field("version", Json::str("string")),
        field("connector", Json::str("string")),
        field("name", Json::str("string")),
        field("db", Json::str("string")),
        field("schema", Json::str("string")),
        field("table", Json::str("string")),
        field("snapshot", Json::str("boolean")),
        field("commit_lsn", Json::str("long")),
        field("ordinal", Json::str("long")),
        field("sub_index", Json::str("int")),
        field("lsn", Json::str("long")),
        optional("xid", Json::str("long")),
        optional("origin", Json::str("string")),
    ];
    record("Source", Some("waltide"), fields)
}

fn transaction() -> Json {
    let fields = vec![
        field("id", Json::str("string")),
        field("total_order", Json::str("long")),
        field("data_collection_order", Json::str("long")),
    ];
    record("Transaction", Some("waltide"), fields)
}

/// The envelope around a row.
pub(crate) fn envelope(namespace: &str, row: Json) -> Json {
    let map = Json::Object(vec![("type", Json::str("map")), ("values", Json::str("string"))]);
    let list = Json::Object(vec![("type", Json::str("array")), ("items", Json::str("string"))]);
    let fields = vec![
        optional("before", row),
        optional("after", Json::str("Row")),
        field("source", source()),
        optional("transaction", transaction()),
        field("op", Json::str("string")),
        field("ts_us", logical("long", "timestamp-micros")),
        field("before_is_key", Json::str("boolean")).with("default", Json::Bool(false)),
        field("unchanged", list).with("default", Json::Array(Vec::new())),
        field("unrepresentable", map.clone()).with("default", Json::Object(Vec::new())),
        field("shapes", map).with("default", Json::Object(Vec::new())),
    ];
    record("Envelope", Some(namespace), fields)
}

/// A record's schema.
pub(crate) fn record(name: &str, namespace: Option<&str>, fields: Vec<Json>) -> Json {
    let mut properties = vec![("type", Json::str("record")), ("name", Json::str(name))];
    properties.extend(namespace.map(|namespace| ("namespace", Json::str(namespace))));
    properties.push(("fields", Json::Array(fields)));
    Json::Object(properties)
}

/// A required field.
pub(crate) fn field(name: &str, of: Json) -> Json {
    Json::Object(vec![("name", Json::str(name)), ("type", of)])
}

/// A field that may be null, and is by default.
pub(crate) fn optional(name: &str, of: Json) -> Json {
    field(name, Json::Array(vec![Json::str("null"), of])).with("default", Json::Null)
}
