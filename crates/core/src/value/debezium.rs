//! What Debezium makes of values, where it is neither their text form nor a plain number.
//!
//! Read off Debezium's behaviour, to the last bit: consumers compare.

use super::hstore::{Part, pairs};
use super::time::{Bounded, DAY_US, EPOCH_US, Interval, civil};
use super::{Datum, Fault, bytes, put, time};

/// What stands for a value that the server did not send because it did not change.
pub(crate) const UNAVAILABLE: &str = "__debezium_unavailable_value";
/// Its name-based UUID, which stands for it where a UUID is wanted.
pub(crate) const UNAVAILABLE_UUID: &str = "b68a35a7-17ad-35b3-af2a-ae46edb4545a";

/// Days since 1970; Debezium's infinities are what is left of the largest and the smallest day
/// after 32 bits overflow.
pub(crate) fn date(datum: Datum<'_>) -> Result<i32, Fault> {
    Ok(match time::date(datum)? {
        Bounded::Finite(days) => days,
        Bounded::Infinity => i32::MAX.wrapping_add(time::EPOCH_DAYS),
        Bounded::NegativeInfinity => i32::MIN.wrapping_add(time::EPOCH_DAYS),
    })
}

/// Milliseconds since 1970; they reach further than microseconds do.
pub(crate) fn timestamp_ms(datum: Datum<'_>) -> Result<i64, Fault> {
    match time::timestamp(datum)? {
        Bounded::Finite(us) => Ok(us.div_euclid(1000) + EPOCH_US / 1000),
        _ => Ok(timestamp_us(datum)?.div_euclid(1000)),
    }
}

/// Microseconds since 1970; the infinities are those of the Java driver, which counts
/// milliseconds.
pub(crate) fn timestamp_us(datum: Datum<'_>) -> Result<i64, Fault> {
    match time::timestamp(datum)? {
        Bounded::Finite(us) => time::unix_us(us),
        Bounded::Infinity => Ok(9_223_372_036_825_200_000),
        Bounded::NegativeInfinity => Ok(-9_223_372_036_832_400_000),
    }
}

/// `2016-11-04T11:51:30.123456Z`, with as many digits of the second as the type has; 0 stands for
/// as many as are needed.
pub(crate) fn write_zoned_timestamp(
    datum: Datum<'_>,
    digits: u8,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    let us = match time::timestamp(datum)? {
        Bounded::Finite(us) => us,
        Bounded::Infinity => {
            out.extend_from_slice(b"infinity");
            return Ok(());
        }
        Bounded::NegativeInfinity => {
            out.extend_from_slice(b"-infinity");
            return Ok(());
        }
    };
    let (year, month, day) = civil(us.div_euclid(DAY_US) + EPOCH_US / DAY_US);
    match year {
        ..0 => put!(out, "-{:04}", year.unsigned_abs()),
        0..10_000 => put!(out, "{year:04}"),
        10_000.. => put!(out, "+{year}"),
    }
    put!(out, "-{month:02}-{day:02}T");
    write_clock(us.rem_euclid(DAY_US), digits, out);
    out.push(b'Z');
    Ok(())
}

/// `11:51:30.123789Z`: in UTC, whatever the offset was. The end of a day stays it at offset 0.
pub(crate) fn write_zoned_time(datum: Datum<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    let (us, offset) = time::timetz(datum)?;
    let utc = if (us, offset) == (DAY_US, 0) {
        us
    } else {
        (us - i64::from(offset) * 1_000_000).rem_euclid(DAY_US)
    };
    write_clock(utc, 0, out);
    out.push(b'Z');
    Ok(())
}

fn write_clock(us: i64, digits: u8, out: &mut Vec<u8>) {
    put!(out, "{:02}:{:02}:", us / 3_600_000_000, us / 60_000_000 % 60);
    put!(out, "{:02}", us / 1_000_000 % 60);
    let part = us % 1_000_000;
    if digits > 0 {
        let end = out.len() + 1 + usize::from(digits);
        put!(out, ".{part:06}");
        out.truncate(end);
    } else if part != 0 {
        put!(out, ".{part:06}");
        while out.last() == Some(&b'0') {
            out.pop();
        }
    }
}

/// An interval as microseconds, a month being a twelfth of 365.25 days, in double precision.
pub(crate) fn micro_duration(datum: Datum<'_>) -> Result<i64, Fault> {
    const DAYS_PER_MONTH: f64 = 365.25 / 12.0;
    let Interval { months, days, us } = time::interval(datum)?.finite()?;
    let hours = us / 3_600_000_000;
    let minutes = us / 60_000_000 % 60;
    let (seconds, rest_us) = (us / 1_000_000 % 60, us % 1_000_000);
    let exact = |part: i64| i32::try_from(part).map(f64::from).map_err(|_| Fault::Unrepresentable);
    let seconds = exact(seconds)? + exact(rest_us)? / 1_000_000.0;
    let days = f64::from(months) * DAYS_PER_MONTH + f64::from(days);
    let seconds = ((days * 24.0 + exact(hours)?) * 60.0 + exact(minutes)?) * 60.0 + seconds;
    #[expect(clippy::cast_possible_truncation, reason = "saturates, as Java's cast does")]
    Ok((seconds * 1e6) as i64)
}

/// A bit string as little-endian bytes, as many as hold the highest bit that is set.
pub(crate) fn write_bits(datum: Datum<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    let start = out.len();
    // The string's last bit is the lowest one.
    let mut put_bits = |bits: &mut dyn Iterator<Item = bool>| {
        for (i, set) in bits.enumerate() {
            if i % 8 == 0 {
                out.push(0);
            }
            if let Some(last) = out.last_mut() {
                *last |= u8::from(set) << (i % 8);
            }
        }
    };
    match datum {
        Datum::Binary(binary) => {
            let (count, packed) = bytes::bits(binary)?;
            let bit = |i: usize| packed.get(i / 8).is_some_and(|byte| byte >> (7 - i % 8) & 1 == 1);
            put_bits(&mut (0..count).rev().map(bit));
        }
        Datum::Text(text) if text.iter().all(|byte| matches!(byte, b'0' | b'1')) => {
            put_bits(&mut text.iter().rev().map(|byte| *byte == b'1'));
        }
        Datum::Text(_) => return Err(Fault::Malformed(&"bit string")),
    }
    while out.len() > start && out.last() == Some(&0) {
        out.pop();
    }
    Ok(())
}

/// A bit string of one bit.
pub(crate) fn bit(datum: Datum<'_>) -> Result<bool, Fault> {
    match datum {
        Datum::Binary([0, 0, 0, 1, byte]) => Ok(byte >> 7 == 1),
        Datum::Text(b"1") => Ok(true),
        Datum::Text(b"0") => Ok(false),
        // `varbit(1)` may be empty, which is no boolean.
        Datum::Binary([0, 0, 0, 0]) | Datum::Text(b"") => Err(Fault::Unrepresentable),
        _ => Err(Fault::Malformed(&"bit string")),
    }
}

/// An `hstore` as JSON: `{"k":"v","n":null}`, in the order of the value itself.
pub(crate) fn write_hstore(
    datum: Datum<'_>,
    scratch: &mut Vec<u8>,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    out.push(b'{');
    let mut first = true;
    pairs(datum, scratch, |part| match part {
        Part::Key(key) => {
            if !first {
                out.push(b',');
            }
            first = false;
            write_json_string(key, out);
            out.push(b':');
        }
        Part::Value(Some(value)) => write_json_string(value, out),
        Part::Value(None) => out.extend_from_slice(b"null"),
    })?;
    out.push(b'}');
    Ok(())
}

fn write_json_string(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            0x08 => out.extend_from_slice(b"\\b"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            0x0C => out.extend_from_slice(b"\\f"),
            b'\r' => out.extend_from_slice(b"\\r"),
            0..0x20 => put!(out, "\\u{byte:04X}"),
            _ => out.push(*byte),
        }
    }
    out.push(b'"');
}

/// The SRID of an extended well-known binary, where it has one.
pub(crate) fn srid(ewkb: &[u8]) -> Result<Option<i32>, Fault> {
    const HAS_SRID: u32 = 0x2000_0000;
    let fault = Fault::Malformed(&"extended well-known binary");
    let (order, rest) = ewkb.split_first().ok_or(fault)?;
    let (kind, rest) = rest.split_first_chunk::<4>().ok_or(fault)?;
    let little = *order != 0;
    let kind = if little { u32::from_le_bytes(*kind) } else { u32::from_be_bytes(*kind) };
    if kind & HAS_SRID == 0 {
        return Ok(None);
    }
    let srid = rest.first_chunk::<4>().ok_or(fault)?;
    Ok(Some(if little { i32::from_le_bytes(*srid) } else { i32::from_be_bytes(*srid) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>) -> Result<(), Fault>) -> String {
        let mut out = Vec::new();
        write(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_interval_is_what_double_precision_makes_of_it() {
        for (text, us) in [
            ("1 year 2 mons 3 days 04:05:06.78", 37_091_106_780_000),
            ("-1 mons +2 days -03:00:00", -2_467_800_000_000),
            ("00:00:00", 0),
            ("-00:00:00.5", -500_000),
        ] {
            assert_eq!(micro_duration(Datum::Text(text.as_bytes())), Ok(us), "{text}");
        }
        assert_eq!(micro_duration(Datum::Text(b"infinity")), Err(Fault::Unrepresentable));
    }

    #[test]
    fn a_zoned_timestamp_has_the_digits_of_its_type() {
        for (text, digits, expected) in [
            ("2016-11-04 13:51:30.5+02", 6, "2016-11-04T11:51:30.500000Z"),
            ("2016-11-04 13:51:30.5+02", 3, "2016-11-04T11:51:30.500Z"),
            ("2016-11-04 13:51:30+02", 0, "2016-11-04T11:51:30Z"),
            ("21016-11-04 13:51:30.5+07", 6, "+21016-11-04T06:51:30.500000Z"),
            ("0044-03-15 12:00:00+00 BC", 6, "-0043-03-15T12:00:00.000000Z"),
            ("0001-01-01 00:00:00+00 BC", 6, "0000-01-01T00:00:00.000000Z"),
            ("-infinity", 6, "-infinity"),
        ] {
            let datum = Datum::Text(text.as_bytes());
            assert_eq!(written(|out| write_zoned_timestamp(datum, digits, out)), expected);
        }
    }

    #[test]
    fn a_zoned_time_is_in_utc() {
        for (text, expected) in [
            ("13:51:30.123789+02", "11:51:30.123789Z"),
            ("23:59:59.999999-15:59", "15:58:59.999999Z"),
            ("00:30:00+01", "23:30:00Z"),
            ("24:00:00+00", "24:00:00Z"),
            ("24:00:00+05:30", "18:30:00Z"),
            ("12:00:00.100+00", "12:00:00.1Z"),
        ] {
            let datum = Datum::Text(text.as_bytes());
            assert_eq!(written(|out| write_zoned_time(datum, out)), expected);
        }
    }

    #[test]
    fn bits_are_little_endian_and_no_more_than_needed() {
        for (text, expected) in
            [("101000001", &[0x41_u8, 0x01][..]), ("110", &[6]), ("000000000", &[]), ("", &[])]
        {
            let mut out = vec![0];
            write_bits(Datum::Text(text.as_bytes()), &mut out).unwrap();
            assert_eq!(out[1..], *expected, "{text}");
        }
    }

    #[test]
    fn an_hstore_is_json() {
        let datum = Datum::Text(b"\"a\\\"\"=>\"1\\\\\", \"b\"=>NULL, \"c\"=>\"\x01\n\"");
        let json = written(|out| write_hstore(datum, &mut Vec::new(), out));
        assert_eq!(json, r#"{"a\"":"1\\","b":null,"c":"\u0001\n"}"#);
    }

    #[test]
    fn the_srid_is_read_in_both_byte_orders() {
        assert_eq!(srid(&[1, 1, 0, 0, 0x20, 0xE6, 0x10, 0, 0]), Ok(Some(4326)));
        assert_eq!(srid(&[0, 0x20, 0, 0, 1, 0, 0, 0x10, 0xE6]), Ok(Some(4326)));
        assert_eq!(srid(&[1, 1, 0, 0, 0]), Ok(None));
        assert!(srid(&[1, 1]).is_err());
    }

    #[test]
    fn the_infinities_of_a_date_are_debeziums() {
        assert_eq!(date(Datum::Text(b"infinity")), Ok(-2_147_472_692));
        assert_eq!(date(Datum::Text(b"-infinity")), Ok(-2_147_472_691));
    }
}
