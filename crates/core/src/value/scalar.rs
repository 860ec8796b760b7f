//! Every type that is not made of others, and the text form of its values.

use super::{Datum, Fault, bool_int, bytes, float, numeric, put, text, time, time_text, uuid};

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
    Citext,
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
            23 => Self::Int4,
            25 | 1790 => Self::Text,
            26 => Self::Oid,
            28 | 29 => Self::Xid,
            114 => Self::Json,
            142 => Self::Xml,
            700 => Self::Float4,
            701 => Self::Float8,
            790 => Self::Money,
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
            3802 => Self::Jsonb,
            5069 => Self::Xid8,
            _ => return None,
        })
    }

    /// A type that an extension brings.
    pub(crate) fn of_extension(extension: &str, name: &str) -> Option<Self> {
        Some(match (extension, name) {
            ("citext", "citext") => Self::Citext,
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
            Self::Oid | Self::Xid => put!(out, "{}", bool_int::unsigned(datum)?),
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
            | Self::Label => out.extend_from_slice(text::text(datum)?),
            Self::Jsonb => out.extend_from_slice(text::versioned(datum)?),
            Self::Char => bytes::write_char(datum, out)?,
            Self::Bytea | Self::Opaque => bytes::write_hex(binary, out),
            Self::Bit | Self::Varbit => bytes::write_bits(datum, out)?,
            Self::Date => time_text::write_date(time::date(datum)?, out),
            Self::Time => time_text::write_time(time::time(datum)?, out),
            Self::Timetz => time_text::write_timetz(time::timetz(datum)?, out),
            Self::Timestamp => time_text::write_timestamp(time::timestamp(datum)?, "", out),
            Self::Timestamptz => time_text::write_timestamp(time::timestamp(datum)?, "+00", out),
            Self::Interval => time_text::write_interval(time::interval(datum)?, out),
            Self::Uuid => uuid::write(datum, out)?,
        }
        Ok(())
    }

    /// The same, or the bytes in hex where there is no such text: for notes, which must say
    /// something whatever came.
    pub(crate) fn describe(self, datum: Datum<'_>, out: &mut Vec<u8>) {
        let start = out.len();
        if self.write_text(datum, out).is_err() {
            out.truncate(start);
            let (Datum::Text(raw) | Datum::Binary(raw)) = datum;
            bytes::write_hex(raw, out);
        }
    }
}
