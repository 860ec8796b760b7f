//! Decimals of few digits: most that there are, and so worth a way of their own.

/// The value of a `numeric` in binary times 10^`scale`, where it has up to three groups and fits
/// that scale and precision. Anything else, malformed bytes too, is for `numeric` to judge.
#[inline]
pub(crate) fn small(bytes: &[u8], scale: u32, precision: u32) -> Option<i64> {
    let [0, count @ 0..=3, high, low, sign @ (0 | 0x40), 0, _, _, groups @ ..] = bytes else {
        return None;
    };
    if groups.len() != 2 * usize::from(*count) {
        return None;
    }
    let sound = |group: &[u8; 2]| u16::from_be_bytes(*group) < 10_000;
    if !groups.as_chunks().0.iter().all(sound) {
        return None;
    }
    let sum = few_groups(i16::from_be_bytes([*high, *low]).into(), groups, scale)?;
    if precision <= 18 && sum >= power_of_ten(precision.into()) {
        return None;
    }
    let sum = sum.cast_signed();
    Some(if *sign == 0 { sum } else { -sum })
}

/// The sum of up to three groups times 10^`scale`, where that is exact and has no more than 18
/// digits.
#[inline]
pub(crate) fn few_groups(weight: i64, groups: &[u8], scale: u32) -> Option<u64> {
    let (groups, _) = groups.as_chunks();
    let count = i64::try_from(groups.len()).ok().filter(|count| *count <= 3)?;
    let sum = groups
        .iter()
        .fold(0_u64, |sum, group| sum * 10_000 + u64::from(u16::from_be_bytes(*group)));
    // The power of ten that the last digit counts, scaled.
    match 4 * (weight + 1 - count) + i64::from(scale) {
        unit @ 0..=6 => Some(sum * power_of_ten(unit)),
        // A division by what is known beforehand is a multiplication.
        -1 => exactly(sum, sum / 10, 10),
        -2 => exactly(sum, sum / 100, 100),
        -3 => exactly(sum, sum / 1_000, 1_000),
        -4 => exactly(sum, sum / 10_000, 10_000),
        _ => None,
    }
}

#[inline]
fn exactly(sum: u64, part: u64, cut: u64) -> Option<u64> {
    (part * cut == sum).then_some(part)
}

/// 10^n for n up to 18.
#[inline]
pub(crate) fn power_of_ten(n: i64) -> u64 {
    #[expect(clippy::indexing_slicing, reason = "it is computed when this is compiled")]
    const POWERS: [u64; 19] = {
        let mut powers = [1; 19];
        let mut n = 1;
        while n < powers.len() {
            powers[n] = powers[n - 1] * 10;
            n += 1;
        }
        powers
    };
    usize::try_from(n).ok().and_then(|n| POWERS.get(n)).copied().unwrap_or(1)
}

/// How many bytes an integer needs as two's complement.
#[inline]
fn width(value: i64) -> u8 {
    // One bit for the sign, and those below the redundant ones.
    let bits = 65 - (value ^ (value >> 63)).leading_zeros();
    u8::try_from(bits.div_ceil(8)).unwrap_or(8)
}

/// An integer as big-endian two's complement in as few bytes as it needs.
#[inline]
pub(crate) fn write_minimal(value: i64, out: &mut Vec<u8>) {
    let from = 8_usize.saturating_sub(width(value).into());
    out.extend_from_slice(value.to_be_bytes().get(from..).unwrap_or_default());
}

/// The same behind a byte that [`width`] gives: all eight at once and then fewer, as a copy of
/// fixed size is a store and not a call.
#[inline]
pub(crate) fn write_minimal_behind(value: i64, before: impl FnOnce(u8) -> u8, out: &mut Vec<u8>) {
    let width = width(value);
    let [a, b, c, d, e, f, g, h] = (value << (64 - 8 * u32::from(width))).to_be_bytes();
    let end = out.len() + 1 + usize::from(width);
    out.extend_from_slice(&[before(width), a, b, c, d, e, f, g, h]);
    out.truncate(end);
}

#[cfg(test)]
mod tests {
    use super::super::numeric::tests::binary;
    use super::super::{Datum, numeric};
    use super::*;

    #[test]
    fn what_is_small_is_what_the_long_way_makes_of_it() {
        let (mut met, mut left) = (0, 0);
        for whole in [0_u64, 1, 9, 10, 9_999, 10_000, 10_001, 99_990_000, 123_456_789_012] {
            for part in ["", "0", "1", "05", "37", "9999", "0001", "00001", "123456", "10000000"] {
                for (sign, scale, precision) in
                    [("", 0, 5), ("-", 2, 12), ("", 4, 18), ("-", 6, 40)]
                {
                    let point = if part.is_empty() { "" } else { "." };
                    let bytes = binary(&format!("{sign}{whole}{point}{part}"));
                    let Some(value) = small(&bytes, scale, precision) else {
                        left += 1;
                        continue;
                    };
                    met += 1;
                    let (mut short, mut long) = (Vec::new(), vec![0]);
                    write_minimal_behind(value, |width| width, &mut short);
                    let Ok(numeric::Numeric::Finite(finite)) =
                        numeric::parse(Datum::Binary(&bytes))
                    else {
                        panic!("{whole}.{part}")
                    };
                    finite.write_unscaled(scale, Some(precision), &mut long).unwrap();
                    long[0] = u8::try_from(long.len() - 1).unwrap();
                    assert_eq!(short, long, "{sign}{whole}.{part}");
                }
            }
        }
        assert!(met > 100 && left > 50, "{met} {left}");
    }

    #[test]
    fn what_does_not_fit_or_is_malformed_is_not_small() {
        assert_eq!(small(&binary("123.45"), 2, 5), Some(12_345));
        assert_eq!(small(&binary("-123.45"), 2, 5), Some(-12_345));
        assert_eq!(small(&binary("123.45"), 2, 4), None);
        assert_eq!(small(&binary("123.45"), 1, 9), None);
        assert_eq!(small(&[0, 0, 0, 0, 0xC0, 0, 0, 0], 2, 9), None);
        assert_eq!(small(&[0, 1, 0, 0, 0, 0, 0, 0], 2, 9), None);
        assert_eq!(small(&[0, 1, 0, 0, 0, 0, 0, 0, 0x27, 0x10], 2, 9), None);
        assert_eq!(small(&[], 2, 9), None);
    }
}
