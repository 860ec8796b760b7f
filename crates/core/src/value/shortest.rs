//! The digits that Postgres gives a floating point number: the fewest that lie strictly between
//! the middles to both neighbours, the nearest of these, the even one of two as near.
//!
//! Rust's own digits differ where a middle has few digits itself: it takes the middle (`1e23`,
//! where Postgres has `9.999999999999999e+22`), and of two as near the greater. Both happen
//! only between 2^-30 and 2^140, where the exact quotient fits 256 bits; so only there it is worked
//! out here.

use std::cmp::Ordering;

/// Where a middle between neighbours, or the number itself, may have few enough digits to matter.
const EXACT: std::ops::Range<f64> = 9.313_225_746_154_785e-10..1.393_796_574_908_164e42;

/// Enough for 17 digits.
pub(super) type Digits = [u8; 20];

/// A positive number, mantissa and power of two.
#[derive(Clone, Copy, Debug)]
pub(super) struct Float {
    mantissa: u64,
    exponent: i32,
    /// The neighbour below is half as far away as the one above.
    near_below: bool,
    value: f64,
}

impl Float {
    pub(super) fn single(value: f32) -> Self {
        let bits = value.to_bits();
        let (fraction, power) = (bits & 0x7F_FFFF, (bits >> 23 & 0xFF).cast_signed());
        Self::new(fraction.into(), 1 << 23, power, 150, value.into())
    }

    pub(super) fn double(value: f64) -> Self {
        let bits = value.to_bits();
        let power = i32::try_from(bits >> 52 & 0x7FF).unwrap_or_default();
        Self::new(bits & 0xF_FFFF_FFFF_FFFF, 1 << 52, power, 1075, value)
    }

    fn new(fraction: u64, hidden: u64, power: i32, bias: i32, value: f64) -> Self {
        let mantissa = if power == 0 { fraction } else { fraction | hidden };
        let near_below = fraction == 0 && power > 1;
        Self { mantissa, exponent: power.max(1) - bias, near_below, value: value.abs() }
    }

    /// Whether Rust's digits may not be Postgres's.
    pub(super) fn is_special(self) -> bool {
        EXACT.contains(&self.value)
    }

    /// The digits as ASCII, how many, and the power of ten of the first. After Steele and White,
    /// "How to print floating-point numbers accurately", with the bounds left out.
    pub(super) fn digits(self) -> (Digits, usize, i32) {
        let mut state = self.scaled();
        let (mut digits, mut count) = ([0; 20], 0);
        for slot in &mut digits {
            let (digit, last) = state.next();
            *slot = b'0' + digit;
            count += 1;
            if last {
                break;
            }
        }
        (digits, count, state.power - 1)
    }

    /// The number as a quotient below one, times a power of ten.
    fn scaled(self) -> State {
        let up = u32::from(self.near_below);
        let raised = u32::try_from(self.exponent).unwrap_or(0);
        let lowered = u32::try_from(-self.exponent).unwrap_or(0);
        let mut state = State {
            rest: Wide::new(self.mantissa).shifted(raised + 1 + up),
            whole: Wide::new(1).shifted(lowered + 1 + up),
            above: Wide::new(1).shifted(raised + up),
            below: Wide::new(1).shifted(raised),
            power: 0,
        };
        // As near as makes no difference: what is left is done step by step.
        #[expect(clippy::cast_possible_truncation, reason = "between -10 and 43")]
        let estimate = self.value.log10().ceil() as i32;
        for _ in 0..estimate {
            state.whole = state.whole.times(10);
        }
        for _ in estimate..0 {
            state.times_ten();
        }
        state.power = estimate;
        while state.rest.plus(state.above) > state.whole {
            state.whole = state.whole.times(10);
            state.power += 1;
        }
        while state.rest.plus(state.above).times(10) <= state.whole {
            state.times_ten();
            state.power -= 1;
        }
        state
    }
}

/// `rest / whole` is what has no digit yet; `above` and `below` say how far the middles are.
struct State {
    rest: Wide,
    whole: Wide,
    above: Wide,
    below: Wide,
    power: i32,
}

impl State {
    fn times_ten(&mut self) {
        self.rest = self.rest.times(10);
        self.above = self.above.times(10);
        self.below = self.below.times(10);
    }

    /// The next digit, and whether it is the last.
    fn next(&mut self) -> (u8, bool) {
        self.times_ten();
        let mut digit = 0;
        while self.rest >= self.whole {
            self.rest = self.rest.minus(self.whole);
            digit += 1;
        }
        let (low, high) = (self.rest < self.below, self.rest.plus(self.above) > self.whole);
        let up = match (low, high) {
            (false, false) => return (digit, false),
            (true, false) => false,
            (false, true) => true,
            (true, true) => match self.rest.times(2).cmp(&self.whole) {
                Ordering::Less => false,
                Ordering::Equal => digit % 2 == 1,
                Ordering::Greater => true,
            },
        };
        (digit + u8::from(up), true)
    }
}

/// A number of 256 bits, the low ones first. Nothing here comes near to its end.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Wide([u64; 4]);

impl Wide {
    const fn new(low: u64) -> Self {
        Self([low, 0, 0, 0])
    }

    fn shifted(mut self, bits: u32) -> Self {
        for _ in 0..bits / 32 {
            self = self.times(1 << 32);
        }
        self.times(1 << (bits % 32))
    }

    fn times(mut self, factor: u64) -> Self {
        let mut carry = 0_u128;
        for limb in &mut self.0 {
            carry += u128::from(*limb) * u128::from(factor);
            #[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
            let low = carry as u64;
            *limb = low;
            carry >>= 64;
        }
        self
    }

    fn plus(mut self, other: Self) -> Self {
        let mut carry = false;
        for (limb, added) in self.0.iter_mut().zip(other.0) {
            let (sum, first) = limb.overflowing_add(added);
            let (sum, second) = sum.overflowing_add(carry.into());
            (*limb, carry) = (sum, first || second);
        }
        self
    }

    fn minus(mut self, other: Self) -> Self {
        let mut borrow = false;
        for (limb, taken) in self.0.iter_mut().zip(other.0) {
            let (rest, first) = limb.overflowing_sub(taken);
            let (rest, second) = rest.overflowing_sub(borrow.into());
            (*limb, borrow) = (rest, first || second);
        }
        self
    }
}

impl PartialOrd for Wide {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Wide {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.iter().rev().cmp(other.0.iter().rev())
    }
}
