//! Dates, times and intervals: days, microseconds and the calendar between them.
//!
//! Postgres counts from 2000-01-01, everybody else from 1970-01-01.

use super::read::{Reader, exactly};
use super::{Datum, Fault, time_text};

/// Days from 1970-01-01 to 2000-01-01.
pub(crate) const EPOCH_DAYS: i32 = 10_957;
/// Microseconds of a day.
pub(crate) const DAY_US: i64 = 86_400_000_000;
/// Microseconds from 1970-01-01 to 2000-01-01.
pub(crate) const EPOCH_US: i64 = 10_957 * DAY_US;

/// A value of a type that knows the infinities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bounded<T> {
    Finite(T),
    Infinity,
    NegativeInfinity,
}

impl<T> Bounded<T> {
    /// The value; the infinities are unrepresentable.
    #[inline]
    pub(crate) fn finite(self) -> Result<T, Fault> {
        match self {
            Self::Finite(value) => Ok(value),
            Self::Infinity | Self::NegativeInfinity => Err(Fault::Unrepresentable),
        }
    }
}

/// An interval; its parts have signs of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interval {
    pub(crate) months: i32,
    pub(crate) days: i32,
    pub(crate) us: i64,
}

/// Days since 1970-01-01.
#[inline]
pub(crate) fn date(datum: Datum<'_>) -> Result<Bounded<i32>, Fault> {
    match datum {
        Datum::Binary(bytes) => Ok(match i32::from_be_bytes(exactly(bytes, &"date")?) {
            i32::MAX => Bounded::Infinity,
            i32::MIN => Bounded::NegativeInfinity,
            // Postgres ends its calendar in 5874897, so this does not overflow.
            days => Bounded::Finite(days.checked_add(EPOCH_DAYS).ok_or(Fault::Malformed(&"date"))?),
        }),
        Datum::Text(text) => time_text::date(text),
    }
}

/// Microseconds since midnight, up to and including 24:00.
#[inline]
pub(crate) fn time(datum: Datum<'_>) -> Result<i64, Fault> {
    let us = match datum {
        Datum::Binary(bytes) => i64::from_be_bytes(exactly(bytes, &"time")?),
        Datum::Text(text) => time_text::time(text)?,
    };
    if (0..=DAY_US).contains(&us) { Ok(us) } else { Err(Fault::Malformed(&"time")) }
}

/// Microseconds since midnight and the offset from UTC in seconds, positive to the east.
pub(crate) fn timetz(datum: Datum<'_>) -> Result<(i64, i32), Fault> {
    let (us, offset) = match datum {
        Datum::Binary(bytes) => {
            let mut reader = Reader::new(bytes, &"timetz");
            let us = reader.i64()?;
            // On the wire it is positive to the west.
            let offset = reader.i32()?.checked_neg().ok_or(reader.fault())?;
            reader.end()?;
            (us, offset)
        }
        Datum::Text(text) => time_text::timetz(text)?,
    };
    let sound = (0..=DAY_US).contains(&us) && offset.abs() < 86_400;
    if sound { Ok((us, offset)) } else { Err(Fault::Malformed(&"timetz")) }
}

/// Microseconds since 2000-01-01: `timestamp`, and `timestamptz` in UTC.
#[inline]
pub(crate) fn timestamp(datum: Datum<'_>) -> Result<Bounded<i64>, Fault> {
    match datum {
        Datum::Binary(bytes) => Ok(match i64::from_be_bytes(exactly(bytes, &"timestamp")?) {
            i64::MAX => Bounded::Infinity,
            i64::MIN => Bounded::NegativeInfinity,
            us => Bounded::Finite(us),
        }),
        Datum::Text(text) => time_text::timestamp(text),
    }
}

/// Microseconds since 1970-01-01; from 294247-01-10 04:00:54.775807 on they do not fit (the
/// largest number is kept for infinity in keys).
#[inline]
pub(crate) fn unix_us(since_2000_us: i64) -> Result<i64, Fault> {
    let us = since_2000_us.checked_add(EPOCH_US).filter(|us| *us != i64::MAX);
    us.ok_or(Fault::Unrepresentable)
}

pub(crate) fn interval(datum: Datum<'_>) -> Result<Bounded<Interval>, Fault> {
    let interval = match datum {
        Datum::Binary(bytes) => {
            let mut reader = Reader::new(bytes, &"interval");
            let (us, days, months) = (reader.i64()?, reader.i32()?, reader.i32()?);
            reader.end()?;
            Interval { months, days, us }
        }
        Datum::Text(text) => return time_text::interval(text),
    };
    Ok(match interval {
        Interval { months: i32::MAX, days: i32::MAX, us: i64::MAX } => Bounded::Infinity,
        Interval { months: i32::MIN, days: i32::MIN, us: i64::MIN } => Bounded::NegativeInfinity,
        finite => Bounded::Finite(finite),
    })
}

/// The proleptic Gregorian year, month and day of a day since 1970-01-01; year 0 is 1 BC.
pub(crate) fn civil(days: i64) -> (i64, u8, u8) {
    // Years start in March, so that a leap day is the last one of its year; eras are 400 years.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, u8::try_from(month).unwrap_or_default(), u8::try_from(day).unwrap_or_default())
}

/// The day since 1970-01-01 of a proleptic Gregorian date.
pub(crate) fn days_from_civil(year: i64, month: u8, day: u8) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = (i64::from(month) + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calendar_turns_both_ways() {
        for (days, date) in [
            (0, (1970, 1, 1)),
            (10_957, (2000, 1, 1)),
            (11_016, (2000, 2, 29)),
            (-719_162, (1, 1, 1)),
            (-719_163, (0, 12, 31)),
            (2_932_896, (9999, 12, 31)),
        ] {
            assert_eq!(civil(days), date);
            assert_eq!(days_from_civil(date.0, date.1, date.2), days);
        }
        for days in (-3_000_000..3_000_000).step_by(37) {
            let (year, month, day) = civil(days);
            assert_eq!(days_from_civil(year, month, day), days);
        }
    }
}
