//! Booleans and integers, and the types that are integers inside.

use super::read::{exactly, number};
use super::{Datum, Fault, put};

#[inline]
pub(crate) fn boolean(datum: Datum<'_>) -> Result<bool, Fault> {
    match datum {
        Datum::Binary([0]) | Datum::Text(b"f") => Ok(false),
        Datum::Binary([_]) | Datum::Text(b"t") => Ok(true),
        _ => Err(Fault::Malformed(&"bool")),
    }
}

#[inline]
pub(crate) fn int2(datum: Datum<'_>) -> Result<i16, Fault> {
    match datum {
        Datum::Binary(bytes) => Ok(i16::from_be_bytes(exactly(bytes, &"int2")?)),
        Datum::Text(text) => number(text, &"int2"),
    }
}

#[inline]
pub(crate) fn int4(datum: Datum<'_>) -> Result<i32, Fault> {
    match datum {
        Datum::Binary(bytes) => Ok(i32::from_be_bytes(exactly(bytes, &"int4")?)),
        Datum::Text(text) => number(text, &"int4"),
    }
}

#[inline]
pub(crate) fn int8(datum: Datum<'_>) -> Result<i64, Fault> {
    match datum {
        Datum::Binary(bytes) => Ok(i64::from_be_bytes(exactly(bytes, &"int8")?)),
        Datum::Text(text) => number(text, &"int8"),
    }
}

/// `oid`, `xid`, `cid`: 32 bits without a sign.
#[inline]
pub(crate) fn unsigned(datum: Datum<'_>) -> Result<u32, Fault> {
    match datum {
        Datum::Binary(bytes) => Ok(u32::from_be_bytes(exactly(bytes, &"oid")?)),
        Datum::Text(text) => number(text, &"oid"),
    }
}

/// `xid8`: 64 bits without a sign.
pub(crate) fn unsigned8(datum: Datum<'_>) -> Result<u64, Fault> {
    match datum {
        Datum::Binary(bytes) => Ok(u64::from_be_bytes(exactly(bytes, &"xid8")?)),
        Datum::Text(text) => number(text, &"xid8"),
    }
}

/// The amount in hundredths: what the binary form carries. The text form is read as
/// `lc_monetary` "C" writes it, `-$1,234.50`.
pub(crate) fn money(datum: Datum<'_>) -> Result<i64, Fault> {
    let text = match datum {
        Datum::Binary(bytes) => return Ok(i64::from_be_bytes(exactly(bytes, &"money")?)),
        Datum::Text(text) => text,
    };
    let mut cents: i64 = 0;
    // Counted down from zero, as the most negative amount has no positive counterpart.
    let mut digits = 0;
    for byte in text.iter().filter(|byte| byte.is_ascii_digit()) {
        cents = cents
            .checked_mul(10)
            .and_then(|cents| cents.checked_sub(i64::from(byte - b'0')))
            .ok_or(Fault::Malformed(&"money"))?;
        digits += 1;
    }
    let known = text.iter().all(|byte| byte.is_ascii_digit() || b"-$,.".contains(byte));
    let hundredths = text.iter().rev().position(|byte| *byte == b'.') == Some(2);
    if digits == 0 || !known || !hundredths {
        return Err(Fault::Malformed(&"money with lc_monetary C"));
    }
    if text.contains(&b'-') {
        Ok(cents)
    } else {
        cents.checked_neg().ok_or(Fault::Malformed(&"money"))
    }
}

/// `-$1,234.50`, as `lc_monetary` "C" has it.
pub(crate) fn write_money(cents: i64, out: &mut Vec<u8>) {
    let sign = if cents < 0 { "-" } else { "" };
    let (whole, part) = (cents.unsigned_abs() / 100, cents.unsigned_abs() % 100);
    put!(out, "{sign}$");
    let mut divisor = 1_u64;
    while whole / divisor >= 1000 {
        divisor *= 1000;
    }
    put!(out, "{}", whole / divisor);
    while divisor > 1 {
        divisor /= 1000;
        put!(out, ",{:03}", whole / divisor % 1000);
    }
    put!(out, ".{part:02}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_reads_the_same_from_both_forms() {
        for cents in [0, 1, -1, 99, 123_450, -123_456_789, i64::MAX, i64::MIN] {
            let mut text = Vec::new();
            write_money(cents, &mut text);
            assert_eq!(money(Datum::Text(&text)), Ok(cents), "{cents}");
            assert_eq!(money(Datum::Binary(&cents.to_be_bytes())), Ok(cents));
        }
        let mut text = Vec::new();
        write_money(-123_456_789, &mut text);
        assert_eq!(text, b"-$1,234,567.89");
    }

    #[test]
    fn what_is_no_number_is_refused() {
        assert!(int4(Datum::Binary(&[0, 1])).is_err());
        assert!(int2(Datum::Text(b"32768")).is_err());
        assert!(boolean(Datum::Text(b"true")).is_err());
        assert!(money(Datum::Text(b"1,50 EUR")).is_err());
    }
}
