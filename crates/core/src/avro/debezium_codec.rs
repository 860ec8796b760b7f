//! How a value is written in the debezium profile, where that differs. On the row path: nothing
//! here allocates.

use super::notes::Notes;
use super::wire;
use crate::value::geometric::Shape;
use crate::value::numeric::{self, Numeric};
use crate::value::scalar::Scalar;
use crate::value::vector::{self, Width};
use crate::value::{Datum, Fault, bytes, debezium, time};

/// How a value is written as Debezium does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DebeziumCodec {
    /// Days since 1970.
    Date,
    /// Milliseconds since midnight, up to 24:00.
    TimeMs,
    /// Microseconds since midnight, up to 24:00.
    TimeUs,
    /// Milliseconds since 1970.
    TimestampMs,
    /// Microseconds since 1970.
    TimestampUs,
    /// Text in UTC with so many digits of the second.
    ZonedTimestamp { digits: u8 },
    /// Text in UTC.
    ZonedTime,
    /// Microseconds.
    MicroDuration,
    /// One bit.
    Bit,
    /// Little-endian bytes.
    Bits,
    /// Scale and unscaled value.
    VariableScaleDecimal,
    /// Coordinates and well-known binary.
    Point,
    /// Extended well-known binary and its SRID.
    Geometry,
    /// Doubles.
    DoubleVector,
    /// Dimensions and values by index.
    SparseVector,
    /// JSON of an `hstore`.
    Hstore,
}

impl DebeziumCodec {
    pub(crate) fn write(
        self,
        datum: Datum<'_>,
        notes: &mut Notes,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        match self {
            Self::Date => wire::long(out, debezium::date(datum)?.into()),
            Self::TimeMs => wire::long(out, time::time(datum)? / 1000),
            Self::TimeUs => wire::long(out, time::time(datum)?),
            Self::TimestampMs => wire::long(out, debezium::timestamp_ms(datum)?),
            Self::TimestampUs => wire::long(out, debezium::timestamp_us(datum)?),
            Self::ZonedTimestamp { digits } => {
                wire::sized(out, |out| debezium::write_zoned_timestamp(datum, digits, out))?;
            }
            Self::ZonedTime => wire::sized(out, |out| debezium::write_zoned_time(datum, out))?,
            Self::MicroDuration => wire::long(out, debezium::micro_duration(datum)?),
            Self::Bit => wire::boolean(out, debezium::bit(datum)?),
            Self::Bits => wire::sized(out, |out| debezium::write_bits(datum, out))?,
            Self::VariableScaleDecimal => match numeric::parse(datum)? {
                Numeric::Finite(finite) => {
                    let scale = finite.stripped_scale();
                    wire::long(out, scale.into());
                    wire::sized(out, |out| finite.write_unscaled(scale, None, out))?;
                }
                _ => return Err(Fault::Unrepresentable),
            },
            Self::Point => write_point(datum, out)?,
            Self::Geometry => write_geometry(datum, out)?,
            Self::DoubleVector => {
                wire::block(out, |out| {
                    vector::dense(datum, Width::Single, |number| {
                        wire::double(out, as_printed(number));
                    })
                })?;
            }
            Self::SparseVector => write_sparse(datum, out)?,
            Self::Hstore => {
                let mut scratch = notes.borrow();
                let json = |out: &mut Vec<u8>| debezium::write_hstore(datum, &mut scratch, out);
                let written = wire::sized(out, json);
                notes.give_back(scratch);
                written?;
            }
        }
        Ok(())
    }

    /// The type, to print a value of it.
    pub(crate) fn scalar(self) -> Scalar {
        match self {
            Self::Date => Scalar::Date,
            Self::TimeMs | Self::TimeUs => Scalar::Time,
            Self::TimestampMs | Self::TimestampUs => Scalar::Timestamp,
            Self::ZonedTimestamp { .. } => Scalar::Timestamptz,
            Self::ZonedTime => Scalar::Timetz,
            Self::MicroDuration => Scalar::Interval,
            Self::Bit | Self::Bits => Scalar::Varbit,
            Self::VariableScaleDecimal => Scalar::Numeric,
            Self::Point => Scalar::Geometric(Shape::Point),
            Self::Geometry => Scalar::Geometry,
            Self::DoubleVector => Scalar::Vector,
            Self::SparseVector => Scalar::Sparsevec,
            Self::Hstore => Scalar::Hstore,
        }
    }
}

/// Coordinates, then the same as little-endian well-known binary, and no SRID.
fn write_point(datum: Datum<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    let point = Shape::Point.parse(datum)?;
    point.each(|number| wire::double(out, number));
    out.push(2);
    wire::size(out, 21);
    out.extend_from_slice(&[1, 1, 0, 0, 0]);
    point.each(|number| wire::double(out, number));
    out.push(0);
    Ok(())
}

fn write_geometry(datum: Datum<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    let mut srid = None;
    wire::sized(out, |out| {
        let start = out.len();
        match datum {
            Datum::Binary(ewkb) => out.extend_from_slice(ewkb),
            Datum::Text(hex) => bytes::unhex(hex, out)?,
        }
        srid = debezium::srid(out.get(start..).unwrap_or_default())?;
        Ok(())
    })?;
    match srid {
        None => out.push(0),
        Some(srid) => {
            out.push(2);
            wire::long(out, srid.into());
        }
    }
    Ok(())
}

/// Debezium reads the text form, so 1.1 is the double 1.1 and not the single widened.
fn as_printed(number: f32) -> f64 {
    // The longest shortest form of a single, `-1.17549435e-38`, has 15 characters.
    let mut text = [0_u8; 32];
    let mut rest = &mut text[..];
    let written = std::io::Write::write_fmt(&mut rest, format_args!("{number:e}"));
    let left = rest.len();
    let printed = text.get(..32 - left).and_then(|text| std::str::from_utf8(text).ok());
    match (written, printed.map(str::parse)) {
        (Ok(()), Some(Ok(double))) => double,
        _ => number.into(),
    }
}

/// Indices and dimensions are 16 bits wide in Debezium's schema.
fn write_sparse(datum: Datum<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    let sparse = vector::sparse(datum)?;
    let dimensions = i16::try_from(sparse.dimensions).map_err(|_| Fault::Unrepresentable)?;
    wire::long(out, dimensions.into());
    wire::block(out, |out| {
        sparse.each(|index, value| {
            wire::long(out, index.into());
            wire::double(out, as_printed(value));
        });
        Ok(sparse.count)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_becomes_the_double_it_is_printed_as() {
        assert_eq!(as_printed(1.1), 1.1);
        assert_eq!(as_printed(-1.175_494_4e-38), -1.175_494_4e-38);
        assert_eq!(as_printed(f32::MAX), 3.402_823_5e38);
        assert_eq!(as_printed(0.0), 0.0);
    }
}
