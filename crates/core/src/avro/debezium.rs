//! The debezium profile: the schemas that Debezium's Postgres connector registers through
//! Confluent's Avro converter, so that a reader of its topics can be pointed at ours.
//!
//! Where Debezium drops a column (composites, multiranges, `pg_lsn` and the like) ours is there:
//! as text in the form that Postgres prints.

use super::codec::{ArrayStyle, Codec, Null, Slot};
use super::debezium_codec::DebeziumCodec;
use super::debezium_default as defaults;
use super::json::Json;
use super::names;
use super::plan::{ColumnPlan, Compiler};
use super::resolve::{Resolution, form, numeric_modifier, resolve};
use super::waltide::{field, optional, record};
use crate::catalog::TableColumn;
use crate::pgoutput::RelationColumn;
use crate::value::form::Form;
use crate::value::geometric::Shape as Geometric;
use crate::value::scalar::Scalar;
use crate::value::vector::Width;

/// A type as it is written, and what its schema says.
pub(crate) struct Type {
    pub(crate) codec: Codec,
    pub(crate) shape: Shape,
}

/// A schema, taken apart so that a default can be put where the converter puts it.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    /// The Avro type: `int`, `string`, `array`, `record` ...
    pub(crate) primitive: &'static str,
    /// What comes first in the schema: the type, and what a complex one is made of; or nothing,
    /// where the schema is a reference.
    head: Vec<(&'static str, Json)>,
    /// The full name, where the schema refers to a record defined before.
    reference: Option<String>,
    doc: Option<&'static str>,
    version: bool,
    parameters: Vec<(&'static str, Json)>,
    pub(crate) name: Option<&'static str>,
    connect_type: Option<&'static str>,
    decimal: Option<(u32, u32)>,
    /// Whether the builder makes it optional whatever the column is.
    optional: bool,
}

impl Shape {
    fn primitive(primitive: &'static str) -> Self {
        Self {
            primitive,
            head: vec![("type", Json::str(primitive))],
            reference: None,
            doc: None,
            version: false,
            parameters: Vec::new(),
            name: None,
            connect_type: None,
            decimal: None,
            optional: false,
        }
    }

    /// A semantic type: a name and the version 1.
    fn semantic(primitive: &'static str, name: &'static str) -> Self {
        Self { name: Some(name), version: true, ..Self::primitive(primitive) }
    }

    fn array(items: Json) -> Self {
        let mut shape = Self::primitive("array");
        shape.head.push(("items", items));
        shape
    }

    /// A decimal; the precision that the converter assumes is not among the parameters.
    fn decimal(scale: u32, precision: Option<u32>) -> Self {
        let text = |number: u32| Json::str(number.to_string());
        let mut parameters = vec![("scale", text(scale))];
        parameters.extend(precision.map(|p| ("connect.decimal.precision", text(p))));
        Self {
            parameters,
            decimal: Some((scale, precision.unwrap_or(64))),
            ..Self::semantic("bytes", "org.apache.kafka.connect.data.Decimal")
        }
    }

    /// The schema, in the converter's order.
    pub(crate) fn schema(&self, default: Option<&Json>) -> Json {
        if let Some(reference) = &self.reference {
            return Json::str(reference.as_str());
        }
        let mut properties = self.head.clone();
        if let Some((scale, precision)) = self.decimal {
            properties.push(("scale", Json::Int(scale.into())));
            properties.push(("precision", Json::Int(precision.into())));
        }
        properties.extend(self.doc.map(|doc| ("connect.doc", Json::str(doc))));
        properties.extend(self.version.then_some(("connect.version", Json::Int(1))));
        if !self.parameters.is_empty() {
            properties.push(("connect.parameters", Json::Object(self.parameters.clone())));
        }
        properties.extend(default.map(|default| ("connect.default", default.clone())));
        properties.extend(self.name.map(|name| ("connect.name", Json::str(name))));
        properties.extend(self.connect_type.map(|of| ("connect.type", Json::str(of))));
        properties.extend(self.decimal.map(|_| ("logicalType", Json::str("decimal"))));
        match properties.as_slice() {
            [("type", bare)] => bare.clone(),
            _ => Json::Object(properties),
        }
    }
}

/// A record with a name of its own: in full the first time, then by name.
fn named(
    compiler: &mut Compiler<'_>,
    full_name: &'static str,
    doc: Option<&'static str>,
    fields: impl FnOnce(&mut Compiler<'_>) -> Vec<Json>,
) -> Shape {
    let shape = Shape { doc, ..Shape::semantic("record", full_name) };
    if !compiler.is_new(full_name) {
        return Shape { reference: Some(full_name.to_owned()), ..shape };
    }
    let fields = fields(compiler);
    let (namespace, name) = full_name.rsplit_once('.').unwrap_or(("", full_name));
    let head = match record(name, Some(namespace), fields) {
        Json::Object(head) => head,
        _ => Vec::new(),
    };
    Shape { head, ..shape }
}

/// The namespace of a table's records: its topic's name.
pub(crate) fn namespace(prefix: &str, schema: &str, table: &str) -> String {
    names::debezium_full_name(&names::debezium_topic(prefix, schema, table))
}

/// How a column is written, and its field in the schema.
pub(crate) fn column(
    compiler: &mut Compiler<'_>,
    column: &RelationColumn,
    known: Option<&TableColumn>,
    required: bool,
) -> (ColumnPlan, Json) {
    let Type { codec, shape } = type_of(compiler, column.type_oid, column.type_modifier);
    let required = required && !shape.optional;
    let default = known
        .filter(|known| !known.generated)
        .and_then(|known| known.default.as_deref())
        .and_then(|sql| defaults::of_column(compiler.types, column.type_oid, sql, &codec, &shape));
    let null = match (required, &default) {
        (true, _) => Null::Never,
        (false, None) => Null::First,
        (false, Some(_)) => Null::Last,
    };
    let json = default.as_ref().map(|default| &default.json);
    let schema = shape.schema(json);
    let name = names::debezium_field(&column.name);
    let field = match (null, json) {
        (Null::Never, None) => field(&name, schema),
        (Null::Never, Some(json)) => field(&name, schema).with("default", json.clone()),
        (Null::First, _) => optional(&name, schema),
        (Null::Last, json) => {
            let union = Json::Array(vec![schema, Json::str("null")]);
            field(&name, union).with("default", json.cloned().unwrap_or(Json::Null))
        }
    };
    // What Debezium writes in a required column for which an old row has no value.
    let absent = match (null, default) {
        (Null::Never, Some(default)) => Some(default.bytes),
        (Null::Never, None) => defaults::zero(&shape),
        _ => None,
    };
    let element = match &codec {
        Codec::Array { .. } => element_of(compiler, column.type_oid),
        _ => None,
    };
    let unavailable = defaults::unavailable(&codec, &shape, element).map(|mut bytes| {
        match null {
            Null::Never => {}
            Null::First => bytes.insert(0, 2),
            Null::Last => bytes.insert(0, 0),
        }
        bytes
    });
    (ColumnPlan { slot: Slot { codec, null }, absent, unavailable }, field)
}

/// What an array holds, where that is a scalar.
fn element_of(compiler: &Compiler<'_>, oid: u32) -> Option<Scalar> {
    let Resolution::Array { element, .. } = resolve(compiler.types, oid, -1).kind else {
        return None;
    };
    match resolve(compiler.types, element, -1).kind {
        Resolution::Scalar(scalar) => Some(scalar),
        _ => None,
    }
}

/// How values of a type are written.
pub(crate) fn type_of(compiler: &mut Compiler<'_>, oid: u32, modifier: i32) -> Type {
    let resolved = resolve(compiler.types, oid, modifier);
    match resolved.kind {
        Resolution::Scalar(scalar) => scalar_type(compiler, scalar, resolved.modifier),
        Resolution::Enum(labels) => {
            let parameters = vec![("allowed", Json::str(labels.join(",")))];
            let shape = Shape::semantic("string", "io.debezium.data.Enum");
            Type { codec: Codec::Text, shape: Shape { parameters, ..shape } }
        }
        Resolution::Array { element, delimiter } => {
            let is_enum = matches!(resolve(compiler.types, element, -1).kind, Resolution::Enum(_));
            let element = compiler.nested_debezium(element, resolved.modifier);
            let schema = element.shape.schema(None);
            // Debezium does not make the elements of an array of enums optional.
            let (null, items) = if is_enum {
                (Null::Never, schema)
            } else {
                (Null::First, Json::Array(vec![Json::str("null"), schema]))
            };
            let element = Box::new(Slot { codec: element.codec, null });
            let style = ArrayStyle::Delimited(delimiter);
            Type { codec: Codec::Array { element, style }, shape: Shape::array(items) }
        }
        Resolution::Composite(..) | Resolution::Range { .. } | Resolution::Multirange { .. } => {
            printed(form(compiler.types, oid))
        }
        Resolution::Opaque { has_send } => {
            let binary = has_send && compiler.options.binary;
            compiler.warn_opaque(oid, binary);
            if binary {
                opaque()
            } else {
                Type { codec: Codec::Text, shape: Shape::primitive("string") }
            }
        }
    }
}

/// Bytes as they come.
pub(crate) fn opaque() -> Type {
    Type { codec: Codec::Raw, shape: Shape::primitive("bytes") }
}

/// Text as Postgres prints it.
fn printed(form: Form) -> Type {
    let codec = match form {
        Form::Scalar(scalar) => Codec::Printed(scalar),
        form => Codec::PrintedForm(form),
    };
    Type { codec, shape: Shape::primitive("string") }
}

fn scalar_type(compiler: &mut Compiler<'_>, scalar: Scalar, modifier: i32) -> Type {
    let plain = |codec, primitive| Type { codec, shape: Shape::primitive(primitive) };
    let semantic = |codec, primitive, name| Type { codec, shape: Shape::semantic(primitive, name) };
    let own = |codec, primitive, name| Type {
        codec: Codec::Debezium(codec),
        shape: Shape::semantic(primitive, name),
    };
    match scalar {
        Scalar::Bool => plain(Codec::Bool, "boolean"),
        Scalar::Int2 => {
            let shape = Shape { connect_type: Some("int16"), ..Shape::primitive("int") };
            Type { codec: Codec::Int2, shape }
        }
        Scalar::Int4 => plain(Codec::Int4, "int"),
        Scalar::Int8 => plain(Codec::Int8, "long"),
        Scalar::Oid | Scalar::Xid => plain(Codec::Unsigned, "long"),
        Scalar::Xid8 => plain(Codec::Unsigned8, "long"),
        Scalar::Float4 => plain(Codec::Float4, "float"),
        Scalar::Float8 => plain(Codec::Float8, "double"),
        Scalar::Numeric => numeric_type(compiler, modifier),
        Scalar::Money => Type { codec: Codec::Money, shape: Shape::decimal(2, None) },
        Scalar::Text
        | Scalar::Varchar
        | Scalar::Bpchar
        | Scalar::Name
        | Scalar::Citext
        | Scalar::Isn
        | Scalar::TextOnly
        | Scalar::Label => plain(Codec::Text, "string"),
        Scalar::Jsonpath | Scalar::Lquery => plain(Codec::Versioned, "string"),
        Scalar::Json => semantic(Codec::Text, "string", "io.debezium.data.Json"),
        Scalar::Jsonb => semantic(Codec::Versioned, "string", "io.debezium.data.Json"),
        Scalar::Hstore => own(DebeziumCodec::Hstore, "string", "io.debezium.data.Json"),
        Scalar::Xml => semantic(Codec::Text, "string", "io.debezium.data.Xml"),
        Scalar::Uuid => semantic(Codec::Uuid, "string", "io.debezium.data.Uuid"),
        Scalar::Ltree => semantic(Codec::Versioned, "string", "io.debezium.data.Ltree"),
        Scalar::Tsvector => semantic(Codec::Printed(scalar), "string", "io.debezium.data.Tsvector"),
        Scalar::Bytea => plain(Codec::Bytea, "bytes"),
        Scalar::Opaque => opaque(),
        Scalar::Bit | Scalar::Varbit => bits(scalar, modifier),
        Scalar::Date => own(DebeziumCodec::Date, "int", "io.debezium.time.Date"),
        // Without a precision there are six digits.
        Scalar::Time if (0..=3).contains(&modifier) => {
            own(DebeziumCodec::TimeMs, "int", "io.debezium.time.Time")
        }
        Scalar::Time => own(DebeziumCodec::TimeUs, "long", "io.debezium.time.MicroTime"),
        Scalar::Timestamp if (0..=3).contains(&modifier) => {
            own(DebeziumCodec::TimestampMs, "long", "io.debezium.time.Timestamp")
        }
        Scalar::Timestamp => {
            own(DebeziumCodec::TimestampUs, "long", "io.debezium.time.MicroTimestamp")
        }
        Scalar::Timestamptz => {
            let digits = u8::try_from(modifier).ok().filter(|digits| *digits <= 6).unwrap_or(6);
            let codec = DebeziumCodec::ZonedTimestamp { digits };
            own(codec, "string", "io.debezium.time.ZonedTimestamp")
        }
        Scalar::Timetz => own(DebeziumCodec::ZonedTime, "string", "io.debezium.time.ZonedTime"),
        Scalar::Interval => {
            own(DebeziumCodec::MicroDuration, "long", "io.debezium.time.MicroDuration")
        }
        Scalar::Geometric(Geometric::Point) => point(compiler),
        Scalar::Geometry => {
            // Its builder makes it optional whatever the column is.
            let Type { codec, shape } =
                geometry(compiler, "io.debezium.data.geometry.Geometry", "Geometry");
            Type { codec, shape: Shape { optional: true, ..shape } }
        }
        Scalar::Geography => geometry(compiler, "io.debezium.data.geometry.Geography", "Geography"),
        Scalar::Vector => vector(
            Codec::Debezium(DebeziumCodec::DoubleVector),
            "double",
            "io.debezium.data.DoubleVector",
        ),
        Scalar::Halfvec => {
            vector(Codec::Vector(Width::Half), "float", "io.debezium.data.FloatVector")
        }
        Scalar::Sparsevec => sparse_vector(compiler),
        Scalar::Char
        | Scalar::Inet
        | Scalar::Cidr
        | Scalar::Macaddr
        | Scalar::Macaddr8
        | Scalar::Geometric(_)
        | Scalar::Tsquery
        | Scalar::Lsn
        | Scalar::Snapshot
        | Scalar::Tid
        | Scalar::Reg
        | Scalar::Int2vector
        | Scalar::Oidvector
        | Scalar::Cube => printed(Form::Scalar(scalar)),
    }
}

fn numeric_type(compiler: &mut Compiler<'_>, modifier: i32) -> Type {
    let Some((precision, scale)) = numeric_modifier(modifier) else {
        let name = "io.debezium.data.VariableScaleDecimal";
        let shape = named(compiler, name, Some("Variable scaled decimal"), |_| {
            vec![field("scale", Json::str("int")), field("value", Json::str("bytes"))]
        });
        return Type { codec: Codec::Debezium(DebeziumCodec::VariableScaleDecimal), shape };
    };
    let (precision, scale) = match u32::try_from(scale) {
        Ok(scale) => (precision, scale),
        // Debezium takes a negative scale for a large one; nobody reads that, so it is mended.
        Err(_) => (precision + scale.unsigned_abs(), 0),
    };
    let codec = Codec::Decimal { scale, precision: precision.max(scale) };
    Type { codec, shape: Shape::decimal(scale, Some(precision)) }
}

/// One bit is a boolean; without a length, `bit` has one and `varbit` has no end.
fn bits(scalar: Scalar, modifier: i32) -> Type {
    let length = match (scalar, modifier) {
        (_, 0..) => modifier,
        (Scalar::Bit, _) => 1,
        _ => i32::MAX,
    };
    if length == 1 {
        let codec = Codec::Debezium(DebeziumCodec::Bit);
        return Type { codec, shape: Shape::primitive("boolean") };
    }
    let parameters = vec![("length", Json::str(length.to_string()))];
    let shape = Shape { parameters, ..Shape::semantic("bytes", "io.debezium.data.Bits") };
    Type { codec: Codec::Debezium(DebeziumCodec::Bits), shape }
}

fn point(compiler: &mut Compiler<'_>) -> Type {
    let name = "io.debezium.data.geometry.Point";
    let shape = named(compiler, name, Some("Geometry (POINT)"), |_| {
        vec![
            field("x", Json::str("double")),
            field("y", Json::str("double")),
            optional("wkb", Json::str("bytes")),
            optional("srid", Json::str("int")),
        ]
    });
    Type { codec: Codec::Debezium(DebeziumCodec::Point), shape }
}

fn geometry(compiler: &mut Compiler<'_>, name: &'static str, doc: &'static str) -> Type {
    let shape = named(compiler, name, Some(doc), |_| {
        vec![field("wkb", Json::str("bytes")), optional("srid", Json::str("int"))]
    });
    Type { codec: Codec::Debezium(DebeziumCodec::Geometry), shape }
}

fn vector(codec: Codec, items: &str, name: &'static str) -> Type {
    let shape = Shape { name: Some(name), version: true, ..Shape::array(Json::str(items)) };
    Type { codec, shape }
}

/// A map whose keys are no strings is an array of entries in Avro.
fn sparse_vector(compiler: &mut Compiler<'_>) -> Type {
    let name = "io.debezium.data.SparseDoubleVector";
    let shape = named(compiler, name, Some("Sparse double vector"), |_| {
        let int16 =
            || Json::Object(vec![("type", Json::str("int")), ("connect.type", Json::str("int16"))]);
        let entry = vec![field("key", int16()), field("value", Json::str("double"))];
        let entry = record("MapEntry", Some("io.confluent.connect.avro"), entry);
        let entries = Json::Object(vec![("type", Json::str("array")), ("items", entry)]);
        vec![field("dimensions", int16()), field("vector", entries)]
    });
    Type { codec: Codec::Debezium(DebeziumCodec::SparseVector), shape }
}

/// The record that tells where a change comes from.
pub(crate) fn source() -> Json {
    let string = || Json::str("string");
    let long = || Json::str("long");
    let snapshot = Shape {
        parameters: vec![(
            "allowed",
            Json::str(
                "true,first,first_in_data_collection,last_in_data_collection,last,false,incremental",
            ),
        )],
        ..Shape::semantic("string", "io.debezium.data.Enum")
    };
    let no = Json::str("false");
    let snapshot = Json::Array(vec![snapshot.schema(Some(&no)), Json::str("null")]);
    let fields = vec![
        field("version", string()),
        field("connector", string()),
        field("name", string()),
        field("ts_ms", long()),
        field("snapshot", snapshot).with("default", no),
        field("db", string()),
        optional("sequence", string()),
        optional("ts_us", long()),
        optional("ts_ns", long()),
        field("schema", string()),
        field("table", string()),
        optional("txId", long()),
        optional("lsn", long()),
        optional("xmin", long()),
        optional("origin", string()),
        optional("origin_lsn", long()),
    ];
    versioned("Source", "io.debezium.connector.postgresql", fields, 1)
}

pub(crate) fn transaction() -> Json {
    let fields = vec![
        field("id", Json::str("string")),
        field("total_order", Json::str("long")),
        field("data_collection_order", Json::str("long")),
    ];
    versioned("block", "event", fields, 1)
}

pub(crate) fn versioned(name: &str, namespace: &str, fields: Vec<Json>, version: i64) -> Json {
    record(name, Some(namespace), fields)
        .with("connect.version", Json::Int(version))
        .with("connect.name", Json::str(format!("{namespace}.{name}")))
}

/// The key's record, or in the flat envelope the row's.
pub(crate) fn top_level(name: &str, namespace: &str, fields: Vec<Json>) -> Json {
    record(name, Some(namespace), fields)
        .with("connect.name", Json::str(format!("{namespace}.{name}")))
}

/// The envelope around a row.
pub(crate) fn envelope(namespace: &str, fields: Vec<Json>) -> Json {
    let value =
        record("Value", None, fields).with("connect.name", Json::str(format!("{namespace}.Value")));
    let fields = vec![
        optional("before", value),
        optional("after", Json::str("Value")),
        field("source", source()),
        optional("transaction", transaction()),
        field("op", Json::str("string")),
        optional("ts_ms", Json::str("long")),
        optional("ts_us", Json::str("long")),
        optional("ts_ns", Json::str("long")),
    ];
    versioned("Envelope", namespace, fields, 2)
}
