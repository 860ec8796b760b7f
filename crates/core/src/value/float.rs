//! Floating point numbers, and the shortest text that reads back as the same number.

use super::read::{exactly, number};
use super::shortest::Float;
use super::{Datum, Fault, put};

#[inline]
pub(crate) fn float4(datum: Datum<'_>) -> Result<f32, Fault> {
    match datum {
        Datum::Binary(bytes) => Ok(f32::from_be_bytes(exactly(bytes, &"float4")?)),
        Datum::Text(text) => number(text, &"float4"),
    }
}

#[inline]
pub(crate) fn float8(datum: Datum<'_>) -> Result<f64, Fault> {
    match datum {
        Datum::Binary(bytes) => Ok(f64::from_be_bytes(exactly(bytes, &"float8")?)),
        Datum::Text(text) => number(text, &"float8"),
    }
}

pub(crate) fn write_float4(value: f32, out: &mut Vec<u8>) {
    if value.is_finite() {
        write_finite(Float::single(value), value < 0.0, format_args!("{value:e}"), 6, out);
    } else {
        write_special(value.is_nan(), value > 0.0, out);
    }
}

pub(crate) fn write_float8(value: f64, out: &mut Vec<u8>) {
    if value.is_finite() {
        write_finite(Float::double(value), value < 0.0, format_args!("{value:e}"), 15, out);
    } else {
        write_special(value.is_nan(), value > 0.0, out);
    }
}

fn write_special(nan: bool, positive: bool, out: &mut Vec<u8>) {
    let name: &[u8] = match (nan, positive) {
        (true, _) => b"NaN",
        (false, true) => b"Infinity",
        (false, false) => b"-Infinity",
    };
    out.extend_from_slice(name);
}

/// Rust's digits are quicker to have, and nearly always the same.
fn write_finite(
    float: Float,
    negative: bool,
    shortest: std::fmt::Arguments<'_>,
    plain: i32,
    out: &mut Vec<u8>,
) {
    if !float.is_special() {
        return write_shortest(shortest, plain, out);
    }
    let (digits, count, exponent) = float.digits();
    if negative {
        out.push(b'-');
    }
    lay_out(digits.get(..count).unwrap_or_default(), exponent, plain, out);
}

/// Lays Rust's shortest digits (`-1.234e5`) out as Postgres does: plain for exponents from -4
/// to below `plain`, else `1.234e+20`.
fn write_shortest(shortest: std::fmt::Arguments<'_>, plain: i32, out: &mut Vec<u8>) {
    // At most 17 digits, a point, two signs, an `e` and three digits of exponent.
    let start = out.len();
    put!(out, "{shortest}");
    let mut digits = [0_u8; 20];
    let (mut count, mut exponent, mut negative) = (0, 0_i32, false);
    if let Some((mantissa, power)) = out
        .get(start..)
        .and_then(|text| std::str::from_utf8(text).ok())
        .and_then(|text| text.split_once('e'))
    {
        exponent = power.parse().unwrap_or_default();
        negative = mantissa.starts_with('-');
        for (slot, digit) in
            digits.iter_mut().zip(mantissa.bytes().filter(|byte| byte.is_ascii_digit()))
        {
            *slot = digit;
            count += 1;
        }
    }
    out.truncate(start);
    let digits = digits.get(..count).unwrap_or_default();
    if negative {
        out.push(b'-');
    }
    lay_out(digits, exponent, plain, out);
}

fn lay_out(digits: &[u8], exponent: i32, plain: i32, out: &mut Vec<u8>) {
    let (first, others) = digits.split_at_checked(1).unwrap_or_default();
    if (0..plain).contains(&exponent) {
        let whole = usize::try_from(exponent).unwrap_or_default() + 1;
        let (whole_digits, part) = digits.split_at(whole.min(digits.len()));
        out.extend_from_slice(whole_digits);
        out.resize(out.len() + whole - whole_digits.len(), b'0');
        if !part.is_empty() {
            out.push(b'.');
            out.extend_from_slice(part);
        }
    } else if (-4..0).contains(&exponent) {
        out.extend_from_slice(b"0.");
        let zeros = usize::try_from(-1 - exponent).unwrap_or_default();
        out.resize(out.len() + zeros, b'0');
        out.extend_from_slice(digits);
    } else {
        out.extend_from_slice(first);
        if !others.is_empty() {
            out.push(b'.');
            out.extend_from_slice(others);
        }
        put!(out, "e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text8(value: f64) -> String {
        let mut out = Vec::new();
        write_float8(value, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_float_prints_as_postgres_prints_it() {
        for (value, expected) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.5, "1.5"),
            (100.0, "100"),
            (1e14, "100000000000000"),
            (123_456_789_012_345.0, "123456789012345"),
            (1e15, "1e+15"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1.234e-7, "1.234e-07"),
            (f64::MAX, "1.7976931348623157e+308"),
            (5e-324, "5e-324"),
            // A middle between two numbers, which reads back as either.
            (1e23, "9.999999999999999e+22"),
            (9_007_199_254_740_994.0, "9.007199254740994e+15"),
            (0.1 + 0.2, "0.30000000000000004"),
            (1.0 / 3.0, "0.3333333333333333"),
            (f64::NEG_INFINITY, "-Infinity"),
        ] {
            assert_eq!(text8(value), expected);
        }
        let mut out = Vec::new();
        write_float4(1e6, &mut out);
        out.push(b' ');
        write_float4(123_456.0, &mut out);
        assert_eq!(out, b"1e+06 123456");
        // The second is 426252.125, half-way between what would be its last digits: the even is taken.
        for (value, expected) in [
            (49_583_768.0, "4.9583768e+07"),
            (-426_252.13, "-426252.12"),
            (16_777_216.0, "1.6777216e+07"),
            (0.1, "0.1"),
            (f32::MAX, "3.4028235e+38"),
        ] {
            let mut out = Vec::new();
            write_float4(value, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    #[test]
    fn what_is_printed_reads_back_as_the_same_number() {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        for _ in 0..20_000 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            // Around one, where the digits are worked out here.
            let power = 1023 - 40 + state % 190;
            let double = f64::from_bits(state & 0x800F_FFFF_FFFF_FFFF | power << 52);
            let text = text8(double);
            assert_eq!(text.parse(), Ok(double), "{text}");
            let rusts = format!("{double:e}");
            assert!(text.len() <= rusts.len().max(17) + 5, "{text} for {rusts}");
        }
    }
}
