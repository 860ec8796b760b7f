//! What Debezium writes where there is no value: a column's default, a type's zero, and the mark
//! of a value that the server did not send.
//!
//! Debezium reads a default out of its SQL by a few rules and evaluates nothing: what is in the
//! first quotes, or the text as it is; what calls a function becomes the type's zero.

use super::codec::Codec;
use super::debezium::Shape;
use super::debezium_codec::DebeziumCodec;
use super::json::Json;
use super::notes::{Notes, Path};
use super::wire;
use crate::catalog::{Kind, Types};
use crate::value::Datum;
use crate::value::debezium::{UNAVAILABLE, UNAVAILABLE_UUID};
use crate::value::scalar::Scalar;

/// A column's default.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Default {
    /// As the schema has it.
    pub(crate) json: Json,
    /// As a row would.
    pub(crate) bytes: Vec<u8>,
}

/// The default of a column, where Debezium would find one.
pub(crate) fn of_column(
    types: &Types,
    oid: u32,
    sql: &str,
    codec: &Codec,
    shape: &Shape,
) -> Option<Default> {
    let text = match Scalar::of_oid(oid) {
        Some(scalar) => of_scalar(scalar, sql, codec)?,
        // A domain's default is not read, an enum's only where it is cast to the enum.
        None => match types.get(oid)?.kind {
            Kind::Enum(_) => quoted(sql.rsplit_once("::")?.0)?,
            _ => return None,
        },
    };
    let mut bytes = Vec::new();
    let path = Path::name(None, "");
    codec.write(Datum::Text(text.as_bytes()), &path, &mut Notes::new(), &mut bytes).ok()?;
    Some(Default { json: json_of(shape.primitive, &bytes)?, bytes })
}

/// The text of a built-in type's default.
fn of_scalar(scalar: Scalar, sql: &str, codec: &Codec) -> Option<String> {
    let zero = match scalar {
        Scalar::Bit if matches!(codec, Codec::Debezium(DebeziumCodec::Bit)) => "0",
        Scalar::Bit => "00",
        Scalar::Varbit | Scalar::Int2 | Scalar::Int4 | Scalar::Int8 => "0",
        Scalar::Bool => "f",
        Scalar::Bpchar | Scalar::Varchar | Scalar::Text | Scalar::Xml => "",
        Scalar::Numeric | Scalar::Float4 | Scalar::Float8 => "0.0",
        Scalar::Json | Scalar::Jsonb => "{}",
        Scalar::Uuid => "00000000-0000-0000-0000-000000000000",
        Scalar::Date => "1970-01-01",
        Scalar::Time => "00:00:00",
        Scalar::Timestamp => "1970-01-01 00:00:00",
        Scalar::Timestamptz => "1970-01-01 00:00:00+00",
        Scalar::Interval => "00:00:00",
        _ => return None,
    };
    let clocks =
        ["current_timestamp", "current_time", "current_date", "localtime", "localtimestamp"];
    if calls_a_function(sql) || clocks.iter().any(|clock| sql.eq_ignore_ascii_case(clock)) {
        return Some(zero.to_owned());
    }
    let text = match quoted(sql) {
        Some(text) => text,
        None if sql.starts_with("NULL::") => return None,
        None => sql.to_owned(),
    };
    Some(match scalar {
        Scalar::Bool if text.eq_ignore_ascii_case("true") => "t".to_owned(),
        Scalar::Bool => "f".to_owned(),
        Scalar::Timestamp | Scalar::Timestamptz if text.len() == "1970-01-01".len() => {
            text + " 00:00:00"
        }
        _ => text,
    })
}

/// Whether the SQL starts with a call, perhaps in brackets.
fn calls_a_function(sql: &str) -> bool {
    let sql = sql.strip_prefix('(').unwrap_or(sql);
    let name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
    let arguments = sql.trim_start_matches(name);
    arguments.len() < sql.len() && arguments.starts_with('(') && arguments.contains(')')
}

/// What is in the first quotes.
fn quoted(sql: &str) -> Option<String> {
    let mut rest = sql.split_once('\'')?.1;
    let mut text = String::new();
    loop {
        let (part, tail) = rest.split_once('\'')?;
        text.push_str(part);
        match tail.strip_prefix('\'') {
            Some(tail) => {
                text.push('\'');
                rest = tail;
            }
            None => return Some(text),
        }
    }
}

/// A value as JSON in a schema; records and arrays cannot be defaults.
fn json_of(primitive: &str, bytes: &[u8]) -> Option<Json> {
    Some(match primitive {
        "boolean" => Json::Bool(bytes == [1]),
        "int" | "long" => Json::Int(wire::read_long(bytes)?.0),
        "float" => number(f32::from_le_bytes(bytes.try_into().ok()?))?,
        "double" => number(f64::from_le_bytes(bytes.try_into().ok()?))?,
        "string" => Json::str(std::str::from_utf8(wire::read_long(bytes)?.1).ok()?),
        // One character for each byte.
        "bytes" => Json::Str(wire::read_long(bytes)?.1.iter().map(|b| char::from(*b)).collect()),
        _ => return None,
    })
}

/// A number, but for those that JSON has no word for.
fn number(number: impl std::fmt::Debug) -> Option<Json> {
    let text = format!("{number:?}");
    (!text.contains("inf") && !text.contains("NaN")).then_some(Json::Number(text))
}

/// What stands in a required column for which an old row has no value and there is no default.
pub(crate) fn zero(shape: &Shape) -> Option<Vec<u8>> {
    let string = |text: &str| {
        let mut out = Vec::new();
        wire::bytes(&mut out, text.as_bytes());
        out
    };
    Some(match (shape.primitive, shape.name) {
        ("boolean" | "int" | "long" | "array", _) => vec![0],
        ("float", _) => vec![0; 4],
        ("double", _) => vec![0; 8],
        ("bytes", Some("org.apache.kafka.connect.data.Decimal")) => vec![2, 0],
        ("bytes", _) => vec![0],
        ("string", Some("io.debezium.time.ZonedTimestamp")) => string("1970-01-01T00:00:00Z"),
        ("string", Some("io.debezium.time.ZonedTime")) => string("00:00:00Z"),
        ("string", _) => string(""),
        ("record", Some("io.debezium.data.VariableScaleDecimal")) => vec![0, 2, 0],
        ("record", Some("io.debezium.data.SparseDoubleVector")) => vec![0, 0],
        ("record", Some("io.debezium.data.geometry.Point")) => {
            written(DebeziumCodec::Point, Datum::Text(b"(0,0)"))?
        }
        ("record", Some("io.debezium.data.geometry.Geography")) => {
            // An empty collection.
            written(DebeziumCodec::Geometry, Datum::Binary(&[1, 7, 0, 0, 0, 0, 0, 0, 0]))?
        }
        _ => return None,
    })
}

fn written(codec: DebeziumCodec, datum: Datum<'_>) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    codec.write(datum, &mut Notes::new(), &mut out).ok()?;
    Some(out)
}

/// What stands for a value that the server did not send, where Debezium has a mark that fits.
pub(crate) fn unavailable(
    codec: &Codec,
    shape: &Shape,
    element: Option<Scalar>,
) -> Option<Vec<u8>> {
    let mark = UNAVAILABLE.as_bytes();
    let mut out = Vec::new();
    let mut list = |count: usize, item: &dyn Fn(&mut Vec<u8>, usize)| {
        wire::size(&mut out, count);
        for i in 0..count {
            out.push(2);
            item(&mut out, i);
        }
        out.push(0);
    };
    match (shape.primitive, shape.name) {
        ("string", _) if matches!(codec, Codec::Debezium(DebeziumCodec::Hstore)) => {
            let json = format!("{{\"{UNAVAILABLE}\":\"{UNAVAILABLE}\"}}");
            wire::bytes(&mut out, json.as_bytes());
        }
        ("string", _) => wire::bytes(&mut out, mark),
        ("bytes", Some("org.apache.kafka.connect.data.Decimal")) => return None,
        ("bytes", _) => wire::bytes(&mut out, mark),
        ("array", None) => match element? {
            Scalar::Text
            | Scalar::Varchar
            | Scalar::Bpchar
            | Scalar::Json
            | Scalar::Jsonb
            | Scalar::Bytea => list(1, &|out, _| wire::bytes(out, mark)),
            // The number of each byte.
            Scalar::Int4 | Scalar::Int8 | Scalar::Date => list(mark.len(), &|out, i| {
                wire::long(out, mark.get(i).copied().unwrap_or_default().into());
            }),
            // The name-based UUID of the mark.
            Scalar::Uuid => list(1, &|out, _| wire::bytes(out, UNAVAILABLE_UUID.as_bytes())),
            _ => return None,
        },
        _ => return None,
    }
    Some(out)
}
