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

use super::codec::{self, ArrayStyle, Codec, Null, Slot};
use super::json::Json;
use super::plan::ColumnPlan;
use super::plan::{Compiler, SHARED};
use super::resolve::{Resolution, display_name, numeric_modifier, resolve};
use super::{Options, names};
use crate::catalog::{Attribute, PgType, Table, TableColumn};
use crate::pgoutput::{Relation, RelationColumn};
use crate::value::geometric::Shape;
use crate::value::scalar::Scalar;
use crate::value::vector::Width;

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

/// How a column is written, and its field in the schema.
pub(crate) fn column(
    compiler: &mut Compiler<'_>,
    column: &RelationColumn,
    known: Option<&TableColumn>,
    required: bool,
) -> (ColumnPlan, Json) {
    let Typed { codec, schema } = type_of(compiler, column.type_oid, column.type_modifier);
    let name = names::escape(&column.name);
    let mut field = if required { field(&name, schema) } else { optional(&name, schema) };
    if let Some(comment) = known.and_then(|known| known.comment.as_deref()) {
        field = field.with("doc", Json::str(comment));
    }
    if name != column.name {
        field = field.with("postgres.column", Json::str(column.name.as_str()));
    }
    let type_name = display_name(compiler.types, column.type_oid);
    field = field.with("postgres.type", Json::str(type_name));
    let null = if required { Null::Never } else { Null::First };
    (ColumnPlan { slot: Slot { codec, null }, absent: None, unavailable: None }, field)
}

/// The row's record. Inside the envelope its namespace is the envelope's.
pub(crate) fn row(
    relation: &Relation,
    table: &Table,
    namespace: Option<&str>,
    fields: Vec<Json>,
) -> Json {
    let mut row = record("Row", namespace, fields);
    if let Some(comment) = &table.comment {
        row = row.with("doc", Json::str(comment.as_str()));
    }
    row.with("postgres.schema", Json::str(relation.schema.as_str()))
        .with("postgres.table", Json::str(relation.name.as_str()))
}

/// How values of a type are written.
pub(crate) fn type_of(compiler: &mut Compiler<'_>, oid: u32, modifier: i32) -> Typed {
    let resolved = resolve(compiler.types, oid, modifier);
    match resolved.kind {
        Resolution::Scalar(scalar) => scalar_type(compiler, scalar, resolved.modifier),
        Resolution::Enum(labels) => {
            let labels = labels.iter().map(|label| Json::str(label.as_str())).collect();
            let schema = Json::str("string").with("postgres.labels", Json::Array(labels));
            typed(Codec::Text, schema)
        }
        Resolution::Opaque { has_send } => {
            let binary = has_send && compiler.options.binary;
            compiler.warn_opaque(oid, binary);
            opaque(binary)
        }
        Resolution::Array { element, delimiter } => {
            let element = compiler.nested(element, resolved.modifier);
            array_type(element, ArrayStyle::Delimited(delimiter))
        }
        Resolution::Composite(of, attributes) => composite_type(compiler, of, attributes),
        Resolution::Range { of, subtype } => {
            let (bound, schema) = range_type(compiler, of, subtype);
            typed(Codec::Range(Box::new(bound)), schema)
        }
        Resolution::Multirange { range } => match resolve(compiler.types, range, -1).kind {
            Resolution::Range { of, subtype } => {
                let (bound, schema) = range_type(compiler, of, subtype);
                typed(Codec::Multirange(Box::new(bound)), list(schema))
            }
            _ => opaque(true),
        },
    }
}

/// An array keeps SQL's nulls, and one of one dimension is what everybody takes an array for:
/// where there are more, or a lower bound is not 1, the envelope's `shapes` says so.
fn array_type(element: Typed, style: ArrayStyle) -> Typed {
    let null = if style == ArrayStyle::Vector { Null::Never } else { Null::First };
    let items = match null {
        Null::Never => element.schema,
        _ => Json::Array(vec![Json::str("null"), element.schema]),
    };
    let element = Box::new(Slot { codec: element.codec, null });
    typed(Codec::Array { element, style }, list(items))
}

fn composite_type(compiler: &mut Compiler<'_>, of: &PgType, attributes: &[Attribute]) -> Typed {
    let (mut slots, mut fields) = (Vec::new(), Vec::new());
    for attribute in attributes {
        let of = compiler.nested(attribute.type_oid, attribute.modifier);
        let name = names::escape(&attribute.name);
        let mut field = optional(&name, of.schema);
        if name != attribute.name {
            field = field.with("postgres.column", Json::str(attribute.name.as_str()));
        }
        fields.push(field);
        let slot = Slot { codec: of.codec, null: Null::First };
        slots.push(codec::Attribute { name, type_oid: attribute.type_oid, slot });
    }
    let schema = compiler.define(of, fields);
    typed(Codec::Composite(slots.into()), schema)
}

/// The slot of a range's bounds, and the range's schema. A bound that is not there is null.
fn range_type(compiler: &mut Compiler<'_>, of: &PgType, subtype: u32) -> (Slot, Json) {
    let bound = compiler.nested(subtype, -1);
    let fields = vec![
        optional("lower", bound.schema.clone()),
        // What the lower bound defines has been defined when the upper one comes.
        optional("upper", compiler.nested(subtype, -1).schema),
        field("bounds", Json::str("string")),
    ];
    (Slot { codec: bound.codec, null: Null::First }, compiler.define(of, fields))
}

fn list(items: Json) -> Json {
    Json::Object(vec![("type", Json::str("array")), ("items", items)])
}

/// Bytes or text as they come.
pub(crate) fn opaque(binary: bool) -> Typed {
    if binary {
        typed(Codec::Raw, Json::str("bytes"))
    } else {
        typed(Codec::Text, Json::str("string"))
    }
}

fn scalar_type(compiler: &mut Compiler<'_>, scalar: Scalar, modifier: i32) -> Typed {
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
        | Scalar::Isn
        | Scalar::TextOnly
        | Scalar::Label => primitive(Codec::Text, "string"),
        Scalar::Jsonb | Scalar::Jsonpath | Scalar::Ltree | Scalar::Lquery => {
            primitive(Codec::Versioned, "string")
        }
        Scalar::Bytea => primitive(Codec::Bytea, "bytes"),
        Scalar::Geometry | Scalar::Geography => primitive(Codec::Ewkb, "bytes"),
        Scalar::Date => typed(Codec::Date, logical("int", "date")),
        Scalar::Time => typed(Codec::TimeUs, logical("long", "time-micros")),
        Scalar::Timestamp => {
            let schema = logical("long", "local-timestamp-micros");
            typed(Codec::TimestampUs { zoned: false }, schema)
        }
        Scalar::Timestamptz => {
            typed(Codec::TimestampUs { zoned: true }, logical("long", "timestamp-micros"))
        }
        Scalar::Uuid => typed(Codec::Uuid, logical("string", "uuid")),
        Scalar::Interval => typed(Codec::Interval, interval(compiler)),
        Scalar::Geometric(shape) => typed(Codec::Geometric(shape), geometric(compiler, shape)),
        Scalar::Hstore => {
            let values = Json::Array(vec![Json::str("null"), Json::str("string")]);
            let map = Json::Object(vec![("type", Json::str("map")), ("values", values)]);
            typed(Codec::Hstore, map)
        }
        Scalar::Vector => typed(Codec::Vector(Width::Single), list(Json::str("float"))),
        Scalar::Halfvec => typed(Codec::Vector(Width::Half), list(Json::str("float"))),
        Scalar::Sparsevec => typed(Codec::Sparsevec, sparsevec(compiler)),
        Scalar::Int2vector => array_type(primitive(Codec::Int2, "int"), ArrayStyle::Vector),
        Scalar::Oidvector => array_type(primitive(Codec::Unsigned, "long"), ArrayStyle::Vector),
        Scalar::Opaque => opaque(true),
        Scalar::Char
        | Scalar::Bit
        | Scalar::Varbit
        | Scalar::Timetz
        | Scalar::Inet
        | Scalar::Cidr
        | Scalar::Macaddr
        | Scalar::Macaddr8
        | Scalar::Tsvector
        | Scalar::Tsquery
        | Scalar::Lsn
        | Scalar::Snapshot
        | Scalar::Tid
        | Scalar::Reg
        | Scalar::Cube => primitive(Codec::Printed(scalar), "string"),
    }
}

/// Avro's `duration` has no signs and no microseconds.
fn interval(compiler: &mut Compiler<'_>) -> Json {
    compiler.shared("Interval", |_| {
        vec![
            field("months", Json::str("int")),
            field("days", Json::str("int")),
            field("micros", Json::str("long")),
        ]
    })
}

fn sparsevec(compiler: &mut Compiler<'_>) -> Json {
    compiler.shared("SparseVector", |_| {
        vec![
            field("dimensions", Json::str("int")),
            field("indices", list(Json::str("int"))),
            field("values", list(Json::str("float"))),
        ]
    })
}

fn geometric(compiler: &mut Compiler<'_>, shape: Shape) -> Json {
    fn point(compiler: &mut Compiler<'_>) -> Json {
        compiler.shared("Point", |_| numbers(["x", "y"]))
    }
    fn numbers<const N: usize>(names: [&str; N]) -> Vec<Json> {
        names.iter().map(|name| field(name, Json::str("double"))).collect()
    }
    match shape {
        Shape::Point => point(compiler),
        Shape::Line => compiler.shared("Line", |_| numbers(["a", "b", "c"])),
        Shape::Lseg => compiler.shared("Segment", |compiler| {
            vec![field("start", point(compiler)), field("end", point(compiler))]
        }),
        Shape::Box => compiler.shared("Box", |compiler| {
            vec![field("high", point(compiler)), field("low", point(compiler))]
        }),
        Shape::Path => compiler.shared("Path", |compiler| {
            let points = list(point(compiler));
            vec![field("closed", Json::str("boolean")), field("points", points)]
        }),
        Shape::Polygon => {
            compiler.shared("Polygon", |compiler| vec![field("points", list(point(compiler)))])
        }
        Shape::Circle => compiler.shared("Circle", |compiler| {
            vec![field("center", point(compiler)), field("radius", Json::str("double"))]
        }),
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
    record("Source", Some(SHARED), fields)
}

fn transaction() -> Json {
    let fields = vec![
        field("id", Json::str("string")),
        field("total_order", Json::str("long")),
        field("data_collection_order", Json::str("long")),
    ];
    record("Transaction", Some(SHARED), fields)
}

/// The envelope around a row.
pub(crate) fn envelope(namespace: &str, row: Json) -> Json {
    let map = Json::Object(vec![("type", Json::str("map")), ("values", Json::str("string"))]);
    let list = list(Json::str("string"));
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
