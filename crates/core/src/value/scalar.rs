//! Every type that is not made of others, and the text form of its values.

use super::geometric::Shape;
use super::vector::{self, Width};
use super::{Datum, Fault, array, bool_int, bytes, float, hstore, network, numeric, put, system};
use super::{text, time, time_text, tsearch, uuid};

/// A type we know, by what its bytes mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scalar {
    Bool,
    Int2,
    Int4,
    Int8,
    Oid,
    Xid,
    Xid8,
    Float4,
    Float8,
    Numeric,
    Money,
    Text,
    Varchar,
    Bpchar,
    Name,
    Char,
    Json,
    Jsonb,
    Xml,
    Bytea,
    Bit,
    Varbit,
    Date,
    Time,
    Timetz,
    Timestamp,
    Timestamptz,
    Interval,
    Uuid,
    Inet,
    Cidr,
    Macaddr,
    Macaddr8,
    Geometric(Shape),
    Tsvector,
    Tsquery,
    Jsonpath,
    Lsn,
    Snapshot,
    Tid,
    /// `regclass` and the like: an OID in binary, a name in text.
    Reg,
    Int2vector,
    Oidvector,
    Citext,
    Hstore,
    Ltree,
    /// `lquery` and `ltxtquery`.
    Lquery,
    /// `isbn` and the like.
    Isn,
    Cube,
    Vector,
    Halfvec,
    Sparsevec,
    Geometry,
    Geography,
    /// Of a type that has a text form only.
    TextOnly,
    /// An enum's label.
    Label,
    /// Nothing is known but that there are bytes, or text.
    Opaque,
}

impl Scalar {
    /// A built-in type.
    pub(crate) fn of_oid(oid: u32) -> Option<Self> {
        Some(match oid {
            16 => Self::Bool,
            17 => Self::Bytea,
            18 => Self::Char,
            19 => Self::Name,
            20 => Self::Int8,
            21 => Self::Int2,
            22 => Self::Int2vector,
            23 => Self::Int4,
            24 | 2202..=2206 | 3734 | 3769 | 4089 | 4096 | 4191 => Self::Reg,
            25 | 1790 => Self::Text,
            26 => Self::Oid,
            27 => Self::Tid,
            28 | 29 => Self::Xid,
            30 => Self::Oidvector,
            114 => Self::Json,
            142 => Self::Xml,
            600 => Self::Geometric(Shape::Point),
            601 => Self::Geometric(Shape::Lseg),
            602 => Self::Geometric(Shape::Path),
            603 => Self::Geometric(Shape::Box),
            604 => Self::Geometric(Shape::Polygon),
            628 => Self::Geometric(Shape::Line),
            650 => Self::Cidr,
            700 => Self::Float4,
            701 => Self::Float8,
            718 => Self::Geometric(Shape::Circle),
            774 => Self::Macaddr8,
            790 => Self::Money,
            829 => Self::Macaddr,
            869 => Self::Inet,
            // aclitem, gtsvector
            1033 | 3642 => Self::TextOnly,
            1042 => Self::Bpchar,
            1043 => Self::Varchar,
            1082 => Self::Date,
            1083 => Self::Time,
            1114 => Self::Timestamp,
            1184 => Self::Timestamptz,
            1186 => Self::Interval,
            1266 => Self::Timetz,
            1560 => Self::Bit,
            1562 => Self::Varbit,
            1700 => Self::Numeric,
            2950 => Self::Uuid,
            2970 | 5038 => Self::Snapshot,
            3220 => Self::Lsn,
            3614 => Self::Tsvector,
            3615 => Self::Tsquery,
            3802 => Self::Jsonb,
            4072 => Self::Jsonpath,
            5069 => Self::Xid8,
            _ => return None,
        })
    }

    /// A type that an extension brings.
    pub(crate) fn of_extension(extension: &str, name: &str) -> Option<Self> {
        Some(match (extension, name) {
            ("citext", "citext") => Self::Citext,
            ("hstore", "hstore") => Self::Hstore,
            ("ltree", "ltree") => Self::Ltree,
            ("ltree", "lquery" | "ltxtquery") => Self::Lquery,
            (
                "isn",
                "ean13" | "isbn" | "isbn13" | "ismn" | "ismn13" | "issn" | "issn13" | "upc",
            ) => Self::Isn,
            ("cube", "cube") => Self::Cube,
            ("seg", "seg") => Self::TextOnly,
            ("vector", "vector") => Self::Vector,
            ("vector", "halfvec") => Self::Halfvec,
            ("vector", "sparsevec") => Self::Sparsevec,
            ("postgis", "geometry") => Self::Geometry,
            ("postgis", "geography") => Self::Geography,
            ("postgis", "box2d" | "box3d" | "box2df" | "gidx" | "spheroid") => Self::TextOnly,
            _ => return None,
        })
    }

    /// Appends the value as Postgres would write it. What is no UTF-8 is unrepresentable.
    pub(crate) fn write_text(self, datum: Datum<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
        let binary = match datum {
            Datum::Text(bytes) => {
                text::text(datum)?;
                out.extend_from_slice(bytes);
                return Ok(());
            }
            Datum::Binary(bytes) => bytes,
        };
        match self {
            Self::Bool => out.push(if bool_int::boolean(datum)? { b't' } else { b'f' }),
            Self::Int2 => put!(out, "{}", bool_int::int2(datum)?),
            Self::Int4 => put!(out, "{}", bool_int::int4(datum)?),
            Self::Int8 => put!(out, "{}", bool_int::int8(datum)?),
            Self::Oid | Self::Xid | Self::Reg => put!(out, "{}", bool_int::unsigned(datum)?),
            Self::Xid8 => put!(out, "{}", bool_int::unsigned8(datum)?),
            Self::Float4 => float::write_float4(float::float4(datum)?, out),
            Self::Float8 => float::write_float8(float::float8(datum)?, out),
            Self::Numeric => numeric::parse(datum)?.write_text(out),
            Self::Money => bool_int::write_money(bool_int::money(datum)?, out),
            Self::Text
            | Self::Varchar
            | Self::Bpchar
            | Self::Name
            | Self::Json
            | Self::Xml
            | Self::Citext
            | Self::Isn
            | Self::TextOnly
            | Self::Label => out.extend_from_slice(text::text(datum)?),
            Self::Jsonb | Self::Jsonpath | Self::Ltree | Self::Lquery => {
                out.extend_from_slice(text::versioned(datum)?)
            }
            Self::Char => bytes::write_char(datum, out)?,
            Self::Bytea | Self::Opaque => bytes::write_hex(binary, out),
            Self::Bit | Self::Varbit => bytes::write_bits(datum, out)?,
            Self::Date => time_text::write_date(time::date(datum)?, out),
            Self::Time => time_text::write_time(time::time(datum)?, out),
            Self::Timetz => time_text::write_timetz(time::timetz(datum)?, out),
            Self::Timestamp => time_text::write_timestamp(time::timestamp(datum)?, "", out),
            Self::Timestamptz => time_text::write_timestamp(time::timestamp(datum)?, "+00", out),
            Self::Interval => time_text::write_interval(time::interval(datum)?, out),
            Self::Uuid => out.extend_from_slice(&uuid::text(datum)?),
            Self::Inet | Self::Cidr => network::write_inet(binary, out)?,
            Self::Macaddr => network::write_mac(binary, 6, out)?,
            Self::Macaddr8 => network::write_mac(binary, 8, out)?,
            Self::Geometric(shape) => shape.write_text(binary, out)?,
            Self::Tsvector => tsearch::write_vector(binary, out)?,
            Self::Tsquery => tsearch::write_query(binary, out)?,
            Self::Lsn => system::write_lsn(binary, out)?,
            Self::Snapshot => system::write_snapshot(binary, out)?,
            Self::Tid => system::write_tid(binary, out)?,
            Self::Int2vector => write_vector(datum, Self::Int2, out)?,
            Self::Oidvector => write_vector(datum, Self::Oid, out)?,
            Self::Hstore => hstore::write_text(binary, out)?,
            Self::Cube => vector::write_cube(binary, out)?,
            Self::Vector => vector::write_dense(binary, Width::Single, out)?,
            Self::Halfvec => vector::write_dense(binary, Width::Half, out)?,
            Self::Sparsevec => vector::write_sparse(binary, out)?,
            Self::Geometry | Self::Geography => bytes::write_upper_hex(binary, out),
        }
        Ok(())
    }
}

/// `1 2 3`.
fn write_vector(datum: Datum<'_>, element: Scalar, out: &mut Vec<u8>) -> Result<(), Fault> {
    let mut first = true;
    let write = |value: Option<Datum<'_>>| {
        if !first {
            out.push(b' ');
        }
        first = false;
        value.map_or(Ok(()), |value| element.write_text(value, out))
    };
    array::parse_vector(datum)?.each(&mut Vec::new(), write).map(drop)
}
