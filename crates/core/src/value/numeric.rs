//! `numeric`: exact decimals of up to 131072 digits before the point and 16383 behind it.
//!
//! The binary form is groups of four decimal digits; group `i` counts 10000^(weight - i).
//! Nothing is ever rounded or clamped: what does not fit is unrepresentable.

use super::decimal::{few_groups, power_of_ten, write_minimal};
use super::read::Reader;
use super::{Datum, Fault, What, put};

const WHAT: What = &"numeric";

/// A decimal, still in the form in which it came.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Numeric<'a> {
    Finite(Finite<'a>),
    Nan,
    Infinity,
    NegativeInfinity,
}

/// A decimal that is a number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Finite<'a> {
    negative: bool,
    /// Digits behind the point, trailing zeros and all.
    pub(crate) scale: u32,
    digits: Digits<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Digits<'a> {
    Groups { weight: i64, groups: &'a [u8] },
    Decimal { whole: &'a [u8], part: &'a [u8] },
}

/// Why digits could not be added up.
enum Stop {
    Overflow,
    Fault(Fault),
}

/// Reads either form.
#[inline]
pub(crate) fn parse(datum: Datum<'_>) -> Result<Numeric<'_>, Fault> {
    match datum {
        Datum::Binary(bytes) => parse_binary(bytes),
        Datum::Text(text) => parse_text(text),
    }
}

#[inline]
fn parse_binary(bytes: &[u8]) -> Result<Numeric<'_>, Fault> {
    let mut reader = Reader::new(bytes, WHAT);
    let count = usize::from(reader.u16()?);
    let weight = i64::from(reader.i16()?);
    let sign = reader.u16()?;
    let scale = u32::from(reader.u16()?);
    let groups = reader.take(count * 2)?;
    reader.end()?;
    let sound =
        |group: &[u8]| matches!(group, [high, low] if u16::from_be_bytes([*high, *low]) < 10_000);
    if !groups.chunks_exact(2).all(sound) {
        return Err(Fault::Malformed(WHAT));
    }
    let finite = |negative| {
        Numeric::Finite(Finite { negative, scale, digits: Digits::Groups { weight, groups } })
    };
    match sign {
        0x0000 => Ok(finite(false)),
        0x4000 => Ok(finite(true)),
        0xC000 => Ok(Numeric::Nan),
        0xD000 => Ok(Numeric::Infinity),
        0xF000 => Ok(Numeric::NegativeInfinity),
        _ => Err(Fault::Malformed(WHAT)),
    }
}

fn parse_text(text: &[u8]) -> Result<Numeric<'_>, Fault> {
    match text {
        b"NaN" => return Ok(Numeric::Nan),
        b"Infinity" => return Ok(Numeric::Infinity),
        b"-Infinity" => return Ok(Numeric::NegativeInfinity),
        _ => {}
    }
    let (negative, unsigned) = match text {
        [b'-', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let point = unsigned.iter().position(|byte| *byte == b'.');
    let (whole, part) = match point.and_then(|at| unsigned.split_at_checked(at)) {
        Some((whole, [_, part @ ..])) if !part.is_empty() => (whole, part),
        Some(_) => return Err(Fault::Malformed(WHAT)),
        None => (unsigned, &[][..]),
    };
    if whole.is_empty() || !whole.iter().chain(part).all(u8::is_ascii_digit) {
        return Err(Fault::Malformed(WHAT));
    }
    let scale = u32::try_from(part.len()).map_err(|_| Fault::Malformed(WHAT))?;
    Ok(Numeric::Finite(Finite { negative, scale, digits: Digits::Decimal { whole, part } }))
}

impl Numeric<'_> {
    /// `-123.450`, `NaN`, `Infinity`: as Postgres writes it.
    pub(crate) fn write_text(&self, out: &mut Vec<u8>) {
        match self {
            Self::Finite(finite) => finite.write_text(out),
            Self::Nan => out.extend_from_slice(b"NaN"),
            Self::Infinity => out.extend_from_slice(b"Infinity"),
            Self::NegativeInfinity => out.extend_from_slice(b"-Infinity"),
        }
    }
}

impl Finite<'_> {
    /// Appends the value times 10^`scale` as big-endian two's complement in as few bytes as it
    /// needs: the content of an Avro decimal, and of Java's `BigInteger`. A value that has more
    /// than `precision` digits so, or digits behind that scale, is unrepresentable.
    #[inline]
    pub(crate) fn write_unscaled(
        &self,
        scale: u32,
        precision: Option<u32>,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        if let Digits::Groups { weight, groups } = self.digits
            && let Some(sum) = few_groups(weight, groups, scale)
            && precision.is_none_or(|precision| sum.checked_ilog10().unwrap_or(0) < precision)
        {
            let sum = sum.cast_signed();
            write_minimal(if self.negative { -sum } else { sum }, out);
            return Ok(());
        }
        let digits = self.leading_exponent().map_or(0, |exponent| exponent + 1 + i64::from(scale));
        if precision.is_some_and(|precision| digits > i64::from(precision)) {
            return Err(Fault::Unrepresentable);
        }
        if digits <= 18 {
            let mut sum = 0_i64;
            let added = self.add_up(scale, |factor, more| {
                sum = i64::try_from(factor).ok().and_then(|f| sum.checked_mul(f))?;
                sum = sum.checked_add(i64::from(more))?;
                Some(())
            });
            match added {
                Ok(()) => {
                    write_minimal(if self.negative { -sum } else { sum }, out);
                    return Ok(());
                }
                Err(Stop::Fault(fault)) => return Err(fault),
                Err(Stop::Overflow) => {}
            }
        }
        self.write_big(scale, out)
    }

    /// The same for numbers of any size: the sum grows at the end of `out` itself, in limbs of
    /// eight bytes, the lowest first.
    fn write_big(&self, scale: u32, out: &mut Vec<u8>) -> Result<(), Fault> {
        let start = out.len();
        let added = self.add_up(scale, |factor, more| {
            multiply_add(out, start, factor, more);
            Some(())
        });
        if let Err(Stop::Fault(fault)) = added {
            return Err(fault);
        }
        while out.len() > start && out.last() == Some(&0) {
            out.pop();
        }
        out.push(0);
        let Some(sum) = out.get_mut(start..) else { return Err(Fault::Malformed(WHAT)) };
        if self.negative {
            let mut carry = true;
            for byte in &mut *sum {
                (*byte, carry) = (!*byte).overflowing_add(u8::from(carry));
            }
        }
        sum.reverse();
        let spare = match *sum {
            [0, next, ..] if next < 0x80 => 1,
            [0xFF, next, ..] if next >= 0x80 => 1,
            _ => 0,
        };
        out.drain(start..start + spare);
        Ok(())
    }

    /// Gives the digits of the value times 10^`scale` from the highest: multiply what there is
    /// by the first number, add the second.
    #[inline]
    fn add_up(&self, scale: u32, mut add: impl FnMut(u64, u32) -> Option<()>) -> Result<(), Stop> {
        let scale = i64::from(scale);
        // The power of ten that the last digit given so far counts, scaled.
        let mut unit = 0;
        match self.digits {
            Digits::Groups { weight, groups } => {
                for (i, group) in (0_i64..).zip(groups.chunks_exact(2)) {
                    let &[high, low] = group else { continue };
                    let group = u32::from(u16::from_be_bytes([high, low]));
                    unit = 4 * (weight - i) + scale;
                    let cut = power_of_ten((-unit).clamp(0, 4));
                    let (kept, lost) = (u64::from(group) / cut, u64::from(group) % cut);
                    if lost != 0 {
                        return Err(Stop::Fault(Fault::Unrepresentable));
                    }
                    if cut < 10_000 {
                        let kept = u32::try_from(kept).unwrap_or_default();
                        add(10_000 / cut, kept).ok_or(Stop::Overflow)?;
                    }
                }
            }
            Digits::Decimal { whole, part } => {
                let kept = usize::try_from(scale).unwrap_or(usize::MAX).min(part.len());
                let (part, lost) = part.split_at(kept);
                if lost.iter().any(|digit| *digit != b'0') {
                    return Err(Stop::Fault(Fault::Unrepresentable));
                }
                for digit in whole.iter().chain(part) {
                    add(10, u32::from(digit - b'0')).ok_or(Stop::Overflow)?;
                }
                unit = scale - i64::try_from(kept).unwrap_or_default();
            }
        }
        while unit > 0 {
            let step = unit.min(18);
            add(power_of_ten(step), 0).ok_or(Stop::Overflow)?;
            unit -= step;
        }
        Ok(())
    }

    /// The power of ten of the highest digit that is not zero; `None` for zero.
    fn leading_exponent(&self) -> Option<i64> {
        match self.digits {
            Digits::Groups { weight, groups } => {
                let (i, group) = (0_i64..)
                    .zip(groups.chunks_exact(2))
                    .find(|(_, group)| group.iter().any(|byte| *byte != 0))?;
                let &[high, low] = group else { return None };
                let digits = u16::from_be_bytes([high, low]).checked_ilog10()?;
                Some(4 * (weight - i) + i64::from(digits))
            }
            Digits::Decimal { whole, part } => {
                let at = whole.iter().chain(part).position(|digit| *digit != b'0')?;
                Some(i64::try_from(whole.len()).ok()? - 1 - i64::try_from(at).ok()?)
            }
        }
    }

    /// The scale without the zeros at its end: 1.10 has one digit behind the point.
    pub(crate) fn stripped_scale(&self) -> u32 {
        let zeros = |part: &[u8]| part.iter().rev().take_while(|digit| **digit == b'0').count();
        match self.digits {
            Digits::Decimal { part, .. } => {
                self.scale - u32::try_from(zeros(part)).unwrap_or_default()
            }
            Digits::Groups { weight, groups } => {
                let last = (0_i64..)
                    .zip(groups.chunks_exact(2))
                    .filter(|(_, group)| group.iter().any(|byte| *byte != 0))
                    .last();
                let Some((i, &[high, low])) = last else { return 0 };
                let group = u16::from_be_bytes([high, low]);
                let zeros = (1..4).take_while(|n| u64::from(group) % power_of_ten(*n) == 0).count();
                let unit = 4 * (weight - i) + i64::try_from(zeros).unwrap_or_default();
                u32::try_from(-unit).unwrap_or(0)
            }
        }
    }

    fn write_text(&self, out: &mut Vec<u8>) {
        if self.negative {
            out.push(b'-');
        }
        let (weight, groups) = match self.digits {
            Digits::Groups { weight, groups } => (weight, groups),
            Digits::Decimal { whole, part } => {
                out.extend_from_slice(whole);
                if !part.is_empty() {
                    out.push(b'.');
                    out.extend_from_slice(part);
                }
                return;
            }
        };
        let mut groups = groups
            .chunks_exact(2)
            .filter_map(|group| Some(u16::from_be_bytes(<[u8; 2]>::try_from(group).ok()?)));
        let mut next = |at: i64| if at <= weight { groups.next().unwrap_or(0) } else { 0 };
        put!(out, "{}", if weight >= 0 { next(weight) } else { 0 });
        for at in (0..weight).rev() {
            put!(out, "{:04}", next(at));
        }
        if self.scale > 0 {
            out.push(b'.');
            let end = out.len() + usize::try_from(self.scale).unwrap_or_default();
            for at in (-i64::from(self.scale.div_ceil(4))..0).rev() {
                put!(out, "{:04}", next(at));
            }
            out.truncate(end);
        }
    }
}

/// The limbs from `start` on times `factor` plus `more`.
fn multiply_add(out: &mut Vec<u8>, start: usize, factor: u64, more: u32) {
    let mut carry = u128::from(more);
    for limb in out.get_mut(start..).unwrap_or_default().chunks_exact_mut(8) {
        let Ok(bytes) = <[u8; 8]>::try_from(&*limb) else { continue };
        carry += u128::from(u64::from_le_bytes(bytes)) * u128::from(factor);
        let [low, high] = halves(carry);
        limb.copy_from_slice(&low.to_le_bytes());
        carry = u128::from(high);
    }
    if carry > 0 {
        out.extend_from_slice(&halves(carry)[0].to_le_bytes());
    }
}

fn halves(value: u128) -> [u64; 2] {
    let high = u64::try_from(value >> 64).unwrap_or_default();
    let low = u64::try_from(value & u128::from(u64::MAX)).unwrap_or_default();
    [low, high]
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The binary form of a decimal, as `numeric_send` would make it.
    pub(crate) fn binary(text: &str) -> Vec<u8> {
        let (negative, unsigned) =
            text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (whole, part) = unsigned.split_once('.').unwrap_or((unsigned, ""));
        let pad = |len: usize| (4 - len % 4) % 4;
        let digits = "0".repeat(pad(whole.len())) + whole + part + &"0".repeat(pad(part.len()));
        let mut groups: Vec<u16> = digits
            .as_bytes()
            .chunks(4)
            .map(|c| std::str::from_utf8(c).unwrap().parse().unwrap())
            .collect();
        let mut weight = i32::try_from(whole.len().div_ceil(4)).unwrap() - 1;
        while groups.first() == Some(&0) {
            groups.remove(0);
            weight -= 1;
        }
        while groups.last() == Some(&0) {
            groups.pop();
        }
        if groups.is_empty() {
            weight = 0;
        }
        let mut out = u16::try_from(groups.len()).unwrap().to_be_bytes().to_vec();
        out.extend(i16::try_from(weight).unwrap().to_be_bytes());
        out.extend(if negative { 0x4000_u16 } else { 0 }.to_be_bytes());
        out.extend(u16::try_from(part.len()).unwrap().to_be_bytes());
        groups.iter().for_each(|group| out.extend(group.to_be_bytes()));
        out
    }

    fn unscaled(text: &str, scale: u32, precision: u32) -> Result<Vec<u8>, Fault> {
        let bytes = binary(text);
        let both = [Datum::Binary(&bytes), Datum::Text(text.as_bytes())].map(|datum| {
            let Numeric::Finite(finite) = parse(datum).unwrap() else { panic!("{text}") };
            let mut out = b"x".to_vec();
            finite.write_unscaled(scale, Some(precision), &mut out)?;
            Ok(out[1..].to_vec())
        });
        assert_eq!(both[0], both[1], "{text}");
        both[0].clone()
    }

    #[test]
    fn the_unscaled_value_is_what_java_makes_of_it() {
        for (text, scale, expected) in [
            ("0", 0, &[0_u8][..]),
            ("0.00", 2, &[0]),
            ("1", 0, &[1]),
            ("-1", 0, &[0xFF]),
            ("127", 0, &[0x7F]),
            ("128", 0, &[0, 0x80]),
            ("-128", 0, &[0x80]),
            ("-129", 0, &[0xFF, 0x7F]),
            ("10.50", 2, &[0x04, 0x1A]),
            ("10.5", 2, &[0x04, 0x1A]),
            ("12345.6789", 4, &[0x07, 0x5B, 0xCD, 0x15]),
            ("-0.01", 2, &[0xFF]),
            ("100000000", 2, &[0x02, 0x54, 0x0B, 0xE4, 0x00]),
            ("0.00001234", 8, &[0x04, 0xD2]),
        ] {
            assert_eq!(unscaled(text, scale, 40).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn large_and_small_numbers_take_different_ways_to_the_same_bytes() {
        for text in
            ["1", "-1", "128", "-128", "255", "-256", "9223372036854775807", "123456789012345678"]
        {
            let bytes = binary(text);
            let Numeric::Finite(finite) = parse(Datum::Binary(&bytes)).unwrap() else { panic!() };
            let (mut small, mut big) = (Vec::new(), Vec::new());
            finite.write_unscaled(3, None, &mut small).unwrap();
            finite.write_big(3, &mut big).unwrap();
            assert_eq!(small, big, "{text}");
            let expected = text.parse::<i128>().unwrap() * 1000;
            let value = big.iter().fold(if big[0] >= 0x80 { -1_i128 } else { 0 }, |sum, byte| {
                sum << 8 | i128::from(*byte)
            });
            assert_eq!(value, expected);
        }
    }

    #[test]
    fn nothing_is_rounded_or_clamped() {
        assert_eq!(unscaled("1.005", 2, 10), Err(Fault::Unrepresentable));
        assert_eq!(unscaled("12345678901.00", 2, 10), Err(Fault::Unrepresentable));
        assert_eq!(unscaled("0.00009", 4, 10), Err(Fault::Unrepresentable));
        assert!(unscaled("1.000", 2, 10).is_ok());
        assert!(unscaled("99999999.99", 2, 10).is_ok());
        assert_eq!(unscaled("100000000.00", 2, 10), Err(Fault::Unrepresentable));
    }

    #[test]
    fn text_is_what_postgres_writes() {
        let long = "9".repeat(131_072);
        for text in [
            "0",
            "0.000",
            "1",
            "-1.50",
            "10000",
            "99999999.0001",
            "0.0001",
            "0.00001",
            "12340000.5",
            "100000000000000000000",
            "-0.00000000000000000000012",
            long.as_str(),
        ] {
            let bytes = binary(text);
            let mut out = Vec::new();
            parse(Datum::Binary(&bytes)).unwrap().write_text(&mut out);
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
    }

    #[test]
    fn the_stripped_scale_ends_at_the_last_digit() {
        for (text, scale) in
            [("0", 0), ("0.00", 0), ("1.10", 1), ("100", 0), ("0.0001", 4), ("1.00010", 4)]
        {
            let bytes = binary(text);
            for datum in [Datum::Binary(&bytes), Datum::Text(text.as_bytes())] {
                let Numeric::Finite(finite) = parse(datum).unwrap() else { panic!() };
                assert_eq!(finite.stripped_scale(), scale, "{text}");
            }
        }
    }

    #[test]
    fn malformed_bytes_are_refused() {
        for bytes in [&[][..], &[0, 1, 0, 0, 0, 0, 0, 0], &[0, 1, 0, 0, 0, 0, 0, 0, 0x27, 0x10]] {
            assert!(parse(Datum::Binary(bytes)).is_err());
        }
        for text in ["", "-", "1.", ".5", "1e5", "+1", " 1", "1.2.3"] {
            assert!(parse(Datum::Text(text.as_bytes())).is_err(), "{text}");
        }
    }
}
