//! How one value is written. On the row path: nothing here allocates.
//!
//! A codec is compiled from a type and knows the one Avro type that it writes; a slot adds
//! whether there may be none.

use super::debezium_codec::DebeziumCodec;
use super::notes::{Notes, Path};
use super::{made, wire};
use crate::value::form::Form;
use crate::value::geometric::Shape;
use crate::value::numeric::{self, Numeric};
use crate::value::scalar::Scalar;
use crate::value::time::{self, Bounded};
use crate::value::vector::Width;
use crate::value::{Datum, Fault, bool_int, bytes, decimal, float, text, uuid};

/// A place for a value: its type, and where null stands in the union.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) codec: Codec,
    pub(crate) null: Null,
}

/// Where null stands in a union of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Null {
    /// There is no union: the value is required.
    Never,
    /// `["null", T]`.
    First,
    /// `[T, "null"]`.
    Last,
}

/// How a value is written.
///
/// Its tag has a byte of its own: to find it among those of the enums within takes longer.
#[derive(Debug)]
#[repr(u8)]
pub(crate) enum Codec {
    Bool,
    Int2,
    Int4,
    Int8,
    /// 32 bits without a sign, as a long.
    Unsigned,
    /// 64 bits without a sign, as a long.
    Unsigned8,
    Float4,
    Float8,
    /// A decimal of this scale; more digits than the precision are unrepresentable.
    Decimal {
        scale: u32,
        precision: u32,
    },
    /// Hundredths as a decimal.
    Money,
    /// Text as it is, as a string.
    Text,
    /// Text behind a version byte, as a string.
    Versioned,
    /// The text form of anything, as a string.
    Printed(Scalar),
    /// The text form of what is made of others, as a string.
    PrintedForm(Form),
    Bytea,
    /// Bytes as they come.
    Raw,
    Uuid,
    /// Days since 1970.
    Date,
    /// Microseconds since midnight, less than a day.
    TimeUs,
    /// Microseconds since 1970, of either timestamp type.
    TimestampUs {
        zoned: bool,
    },
    /// Months, days and microseconds.
    Interval,
    /// A record of numbers.
    Geometric(Shape),
    /// A map of strings.
    Hstore,
    /// Floats.
    Vector(Width),
    /// Dimensions, indices and values.
    Sparsevec,
    /// Extended well-known binary, whose text form is hex.
    Ewkb,
    /// The elements in a row; where there are several dimensions or odd bounds, a note.
    Array {
        element: Box<Slot>,
        style: ArrayStyle,
    },
    /// A record.
    Composite(Box<[Attribute]>),
    /// Lower bound, upper bound, and how they bound.
    Range(Box<Slot>),
    /// An array of ranges, of bounds such as these.
    Multirange(Box<Slot>),
    /// As Debezium writes it.
    Debezium(DebeziumCodec),
}

/// How an array is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ArrayStyle {
    /// With this between elements in text form.
    Delimited(u8),
    /// `int2vector` and `oidvector`.
    Vector,
}

/// An attribute of a composite.
#[derive(Debug)]
pub(crate) struct Attribute {
    /// As the schema has it.
    pub(crate) name: String,
    pub(crate) type_oid: u32,
    pub(crate) slot: Slot,
}

impl Slot {
    /// Writes a value that is there, and notes one that the schema cannot hold.
    pub(crate) fn write(
        &self,
        datum: Datum<'_>,
        path: &Path<'_>,
        notes: &mut Notes,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        self.write_here(datum, || *path, notes, out)
    }

    /// The same as a part of its caller: it knows the form of the datum, and most values have no
    /// use for a path.
    #[inline(always)]
    pub(crate) fn write_here<'p>(
        &self,
        datum: Datum<'_>,
        path: impl Fn() -> Path<'p>,
        notes: &mut Notes,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        let start = out.len();
        if self.null != Null::Never {
            out.push(if self.null == Null::First { 2 } else { 0 });
        }
        match self.codec.write_here(datum, &path, notes, out) {
            Err(Fault::Unrepresentable) => self.write_other(datum, start, &path(), notes, out),
            result => result,
        }
    }

    /// Writes what stands for a value that the schema cannot hold: null, or where there is none
    /// (in a key, which must stay unique) the number that Postgres itself uses for it.
    #[cold]
    fn write_other(
        &self,
        datum: Datum<'_>,
        start: usize,
        path: &Path<'_>,
        notes: &mut Notes,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        out.truncate(start);
        if self.null == Null::Never {
            self.codec.write_stand_in(datum, out)?;
        } else {
            self.write_null(out)?;
        }
        notes.note_unrepresentable(path, &self.codec.form(), datum);
        Ok(())
    }

    #[inline]
    pub(crate) fn write_null(&self, out: &mut Vec<u8>) -> Result<(), Fault> {
        match self.null {
            Null::Never => return Err(Fault::Null),
            Null::First => out.push(0),
            Null::Last => out.push(2),
        }
        Ok(())
    }
}

impl Codec {
    pub(crate) fn write(
        &self,
        datum: Datum<'_>,
        path: &Path<'_>,
        notes: &mut Notes,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        self.write_here(datum, || *path, notes, out)
    }

    /// The types that most columns have are written as a part of the caller.
    #[inline(always)]
    fn write_here<'p>(
        &self,
        datum: Datum<'_>,
        path: impl Fn() -> Path<'p>,
        notes: &mut Notes,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        match self {
            Self::Bool => wire::boolean(out, bool_int::boolean(datum)?),
            Self::Int2 => wire::long(out, bool_int::int2(datum)?.into()),
            Self::Int4 => wire::long(out, bool_int::int4(datum)?.into()),
            Self::Int8 => wire::long(out, bool_int::int8(datum)?),
            Self::Float8 => wire::double(out, float::float8(datum)?),
            Self::Text => wire::bytes(out, text::text(datum)?),
            Self::Uuid => wire::bytes(out, &uuid::text(datum)?),
            Self::Date => wire::long(out, time::date(datum)?.finite()?.into()),
            Self::TimestampUs { .. } => {
                wire::long(out, time::unix_us(time::timestamp(datum)?.finite()?)?);
            }
            Self::Decimal { scale, precision } => {
                return write_decimal(*scale, *precision, datum, out);
            }
            _ => return self.write_rarer(datum, &path(), notes, out),
        }
        Ok(())
    }

    fn write_rarer(
        &self,
        datum: Datum<'_>,
        path: &Path<'_>,
        notes: &mut Notes,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        match self {
            Self::Unsigned => wire::long(out, bool_int::unsigned(datum)?.into()),
            Self::Unsigned8 => {
                let value = i64::try_from(bool_int::unsigned8(datum)?);
                wire::long(out, value.map_err(|_| Fault::Unrepresentable)?);
            }
            Self::Float4 => wire::float(out, float::float4(datum)?),
            Self::Money => wire::unscaled(out, bool_int::money(datum)?),
            Self::Versioned => wire::bytes(out, text::versioned(datum)?),
            Self::Printed(scalar) => wire::sized(out, |out| scalar.write_text(datum, out))?,
            Self::PrintedForm(form) => wire::sized(out, |out| form.write_text(datum, out))?,
            Self::Bytea => match datum {
                Datum::Binary(bytes) => wire::bytes(out, bytes),
                Datum::Text(_) => wire::sized(out, |out| bytes::write_bytea(datum, out))?,
            },
            Self::Raw => {
                let (Datum::Text(bytes) | Datum::Binary(bytes)) = datum;
                wire::bytes(out, bytes);
            }
            Self::TimeUs => match time::time(datum)? {
                time::DAY_US => return Err(Fault::Unrepresentable),
                us => wire::long(out, us),
            },
            Self::Interval => {
                let interval = time::interval(datum)?.finite()?;
                wire::long(out, interval.months.into());
                wire::long(out, interval.days.into());
                wire::long(out, interval.us);
            }
            _ => return self.write_made(datum, path, notes, out),
        }
        Ok(())
    }

    /// Writes a value that is made of others.
    fn write_made(
        &self,
        datum: Datum<'_>,
        path: &Path<'_>,
        notes: &mut Notes,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        match self {
            Self::Geometric(shape) => made::geometric(*shape, datum, out),
            Self::Hstore => made::hstore(datum, notes, out),
            Self::Vector(width) => made::vector(*width, datum, out),
            Self::Sparsevec => made::sparsevec(datum, out),
            Self::Ewkb => made::ewkb(datum, out),
            Self::Array { element, style } => made::array(element, *style, datum, path, notes, out),
            Self::Composite(attributes) => made::composite(attributes, datum, path, notes, out),
            Self::Range(bound) => made::range(bound, datum, path, notes, out),
            Self::Multirange(bound) => made::multirange(bound, datum, path, notes, out),
            Self::Debezium(codec) => codec.write(datum, notes, out),
            _ => Err(Fault::Malformed(&"type that is made of others")),
        }
    }

    /// Writes, for a value of a key that the schema cannot hold, one that no other value has:
    /// for infinity the largest or smallest number, 24:00 for itself.
    fn write_stand_in(&self, datum: Datum<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
        let number = match self {
            Self::Date => match time::date(datum)? {
                Bounded::Infinity => i64::from(i32::MAX),
                Bounded::NegativeInfinity => i64::from(i32::MIN),
                Bounded::Finite(_) => return Err(Fault::Unrepresentable),
            },
            Self::TimestampUs { .. } => match time::timestamp(datum)? {
                Bounded::Infinity => i64::MAX,
                Bounded::NegativeInfinity => i64::MIN,
                Bounded::Finite(_) => return Err(Fault::Unrepresentable),
            },
            Self::TimeUs => time::time(datum)?,
            Self::Interval => {
                let (days, us) = match time::interval(datum)? {
                    Bounded::Infinity => (i32::MAX, i64::MAX),
                    Bounded::NegativeInfinity => (i32::MIN, i64::MIN),
                    Bounded::Finite(_) => return Err(Fault::Unrepresentable),
                };
                wire::long(out, days.into());
                wire::long(out, days.into());
                us
            }
            _ => return Err(Fault::Unrepresentable),
        };
        wire::long(out, number);
        Ok(())
    }

    /// Whether it writes an Avro `int` or `long` and nothing else.
    pub(crate) fn is_integer(&self) -> bool {
        use DebeziumCodec as D;
        match self {
            Self::Int2 | Self::Int4 | Self::Int8 | Self::Unsigned | Self::Unsigned8 => true,
            Self::Date | Self::TimeUs | Self::TimestampUs { .. } => true,
            Self::Debezium(codec) => matches!(
                codec,
                D::Date
                    | D::TimeMs
                    | D::TimeUs
                    | D::TimestampMs
                    | D::TimestampUs
                    | D::MicroDuration
            ),
            _ => false,
        }
    }

    /// Whether it writes an Avro `string`.
    pub(crate) fn is_string(&self) -> bool {
        use DebeziumCodec as D;
        match self {
            Self::Text | Self::Versioned | Self::Uuid => true,
            Self::Printed(_) | Self::PrintedForm(_) => true,
            Self::Debezium(codec) => {
                matches!(codec, D::ZonedTimestamp { .. } | D::ZonedTime | D::Hstore)
            }
            _ => false,
        }
    }

    /// What a value that was unrepresentable is made of, to print it.
    pub(crate) fn form(&self) -> Form {
        match self {
            Self::Array { element, style: ArrayStyle::Delimited(delimiter) } => {
                Form::Array { element: Box::new(element.codec.form()), delimiter: *delimiter }
            }
            _ => Form::Scalar(self.scalar()),
        }
    }

    /// The type of a value that was unrepresentable, to print it.
    pub(crate) fn scalar(&self) -> Scalar {
        match self {
            Self::Unsigned8 => Scalar::Xid8,
            Self::Decimal { .. } => Scalar::Numeric,
            Self::Date => Scalar::Date,
            Self::TimeUs => Scalar::Time,
            Self::TimestampUs { zoned: false } => Scalar::Timestamp,
            Self::TimestampUs { zoned: true } => Scalar::Timestamptz,
            Self::Interval => Scalar::Interval,
            Self::Printed(scalar) => *scalar,
            Self::Hstore => Scalar::Hstore,
            Self::Debezium(codec) => codec.scalar(),
            // Text that is no UTF-8 is shown as its bytes.
            _ => Scalar::Text,
        }
    }
}

fn write_decimal(
    scale: u32,
    precision: u32,
    datum: Datum<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    if let Datum::Binary(bytes) = datum
        && let Some(unscaled) = decimal::small(bytes, scale, precision)
    {
        wire::unscaled(out, unscaled);
        return Ok(());
    }
    match numeric::parse(datum)? {
        Numeric::Finite(finite) => {
            wire::sized(out, |out| finite.write_unscaled(scale, Some(precision), out))
        }
        _ => Err(Fault::Unrepresentable),
    }
}
