//! The text forms of dates, times and intervals, as DateStyle ISO and IntervalStyle postgres
//! write them (`iso_8601` intervals are read as well).

use super::time::{Bounded, DAY_US, EPOCH_DAYS, EPOCH_US, Interval, civil, days_from_civil};
use super::{Fault, What, put};

/// What is left of a text.
struct Cursor<'a> {
    rest: &'a [u8],
    fault: Fault,
}

impl<'a> Cursor<'a> {
    fn new(text: &'a [u8], what: What) -> Self {
        Self { rest: text, fault: Fault::Malformed(what) }
    }

    /// Takes `token` where it comes next.
    fn eat(&mut self, token: &[u8]) -> bool {
        match self.rest.strip_prefix(token) {
            Some(tail) => {
                self.rest = tail;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, token: &[u8]) -> Result<(), Fault> {
        if self.eat(token) { Ok(()) } else { Err(self.fault) }
    }

    fn digits(&mut self) -> Result<&'a [u8], Fault> {
        let len = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (digits, tail) = self.rest.split_at_checked(len).ok_or(self.fault)?;
        self.rest = tail;
        if (1..=18).contains(&len) { Ok(digits) } else { Err(self.fault) }
    }

    fn number(&mut self) -> Result<i64, Fault> {
        Ok(self.digits()?.iter().fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0')))
    }

    fn small(&mut self, max: u8) -> Result<u8, Fault> {
        u8::try_from(self.number()?).ok().filter(|number| *number <= max).ok_or(self.fault)
    }

    /// `.123` as microseconds, where a point comes next.
    fn fraction_us(&mut self) -> Result<i64, Fault> {
        if !self.eat(b".") {
            return Ok(0);
        }
        let digits = self.digits()?;
        if digits.len() > 6 {
            return Err(self.fault);
        }
        let padded = digits.iter().copied().chain(std::iter::repeat(b'0')).take(6);
        Ok(padded.fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0')))
    }

    /// `04:05:06.789`; the hours of an interval have no end.
    fn clock_us(&mut self) -> Result<i64, Fault> {
        let hours = self.number()?;
        self.expect(b":")?;
        let minutes = i64::from(self.small(59)?);
        let mut us = 0;
        if self.eat(b":") {
            us = i64::from(self.small(60)?) * 1_000_000 + self.fraction_us()?;
        }
        let minutes = hours.checked_mul(60).map(|h| h + minutes).ok_or(self.fault)?;
        minutes.checked_mul(60_000_000).and_then(|sum| sum.checked_add(us)).ok_or(self.fault)
    }

    /// `+05:53:28` in seconds to the east.
    fn offset_seconds(&mut self) -> Result<i32, Fault> {
        let west = self.eat(b"-");
        if !west {
            self.expect(b"+")?;
        }
        let mut seconds = i32::from(self.small(23)?) * 3600;
        if self.eat(b":") {
            seconds += i32::from(self.small(59)?) * 60;
        }
        if self.eat(b":") {
            seconds += i32::from(self.small(59)?);
        }
        Ok(if west { -seconds } else { seconds })
    }

    /// `2016-11-04`: the year as written, the month and the day.
    fn ymd(&mut self) -> Result<(i64, u8, u8), Fault> {
        let year = self.number()?;
        self.expect(b"-")?;
        let month = self.small(12)?;
        self.expect(b"-")?;
        let day = self.small(31)?;
        if year == 0 || year > 10_000_000 || month == 0 || day == 0 {
            return Err(self.fault);
        }
        Ok((year, month, day))
    }

    /// The day since 1970 of such a date, and the ` BC` that may end the text.
    fn day_of(&mut self, (year, month, day): (i64, u8, u8)) -> Result<i64, Fault> {
        let year = if self.eat(b" BC") { 1 - year } else { year };
        self.end()?;
        Ok(days_from_civil(year, month, day))
    }

    fn end(&self) -> Result<(), Fault> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.fault) }
    }
}

fn infinity<T>(text: &[u8]) -> Option<Bounded<T>> {
    match text {
        b"infinity" => Some(Bounded::Infinity),
        b"-infinity" => Some(Bounded::NegativeInfinity),
        _ => None,
    }
}

/// Days since 1970-01-01.
pub(crate) fn date(text: &[u8]) -> Result<Bounded<i32>, Fault> {
    if let Some(infinite) = infinity(text) {
        return Ok(infinite);
    }
    let mut cursor = Cursor::new(text, &"date in DateStyle ISO");
    let ymd = cursor.ymd()?;
    let days = cursor.day_of(ymd)?;
    i32::try_from(days).map(Bounded::Finite).map_err(|_| cursor.fault)
}

/// Microseconds since midnight.
pub(crate) fn time(text: &[u8]) -> Result<i64, Fault> {
    let mut cursor = Cursor::new(text, &"time");
    let us = cursor.clock_us()?;
    cursor.end()?;
    Ok(us)
}

/// Microseconds since midnight and seconds to the east.
pub(crate) fn timetz(text: &[u8]) -> Result<(i64, i32), Fault> {
    let mut cursor = Cursor::new(text, &"timetz");
    let us = cursor.clock_us()?;
    let offset = cursor.offset_seconds()?;
    cursor.end()?;
    Ok((us, offset))
}

/// Microseconds since 2000-01-01, in UTC where the text has an offset.
pub(crate) fn timestamp(text: &[u8]) -> Result<Bounded<i64>, Fault> {
    if let Some(infinite) = infinity(text) {
        return Ok(infinite);
    }
    let mut cursor = Cursor::new(text, &"timestamp in DateStyle ISO");
    let ymd = cursor.ymd()?;
    cursor.expect(b" ")?;
    let clock = cursor.clock_us()?;
    let offset = match cursor.rest.first() {
        Some(b'+' | b'-') => cursor.offset_seconds()?,
        _ => 0,
    };
    let days = cursor.day_of(ymd)? - i64::from(EPOCH_DAYS);
    let us = days.checked_mul(DAY_US).and_then(|us| us.checked_add(clock));
    us.map(|us| us - i64::from(offset) * 1_000_000).map(Bounded::Finite).ok_or(cursor.fault)
}

/// An interval in the styles `postgres` and `iso_8601`.
pub(crate) fn interval(text: &[u8]) -> Result<Bounded<Interval>, Fault> {
    if let Some(infinite) = infinity(text) {
        return Ok(infinite);
    }
    let mut cursor = Cursor::new(text, &"interval in IntervalStyle postgres");
    if cursor.eat(b"P") { iso_interval(cursor) } else { postgres_interval(cursor) }
}

fn postgres_interval(mut cursor: Cursor<'_>) -> Result<Bounded<Interval>, Fault> {
    let mut sum = Interval { months: 0, days: 0, us: 0 };
    while !cursor.rest.is_empty() {
        let negative = cursor.eat(b"-");
        if !negative {
            cursor.eat(b"+");
        }
        let sign = if negative { -1 } else { 1 };
        let before = cursor.rest;
        let number = cursor.number()?;
        if cursor.rest.first() == Some(&b':') {
            cursor.rest = before;
            sum.us = sign * cursor.clock_us()?;
        } else {
            cursor.expect(b" ")?;
            let part = i32::try_from(sign * number).map_err(|_| cursor.fault)?;
            if cursor.eat(b"year") {
                sum.months = part.checked_mul(12).ok_or(cursor.fault)?;
            } else if cursor.eat(b"mon") {
                sum.months = sum.months.checked_add(part).ok_or(cursor.fault)?;
            } else if cursor.eat(b"day") {
                sum.days = part;
            } else {
                return Err(cursor.fault);
            }
            cursor.eat(b"s");
        }
        if !cursor.rest.is_empty() {
            cursor.expect(b" ")?;
        }
    }
    Ok(Bounded::Finite(sum))
}

fn iso_interval(mut cursor: Cursor<'_>) -> Result<Bounded<Interval>, Fault> {
    let mut sum = Interval { months: 0, days: 0, us: 0 };
    let mut clock = false;
    while !cursor.rest.is_empty() {
        if cursor.eat(b"T") {
            clock = true;
            continue;
        }
        let sign = if cursor.eat(b"-") { -1 } else { 1 };
        let number = sign * cursor.number()?;
        let fraction = sign * cursor.fraction_us()?;
        let part = |number: i64| i32::try_from(number).map_err(|_| Fault::Malformed(&"interval"));
        let fault = cursor.fault;
        let mut add_us = |unit_us: i64| {
            let us = number.checked_mul(unit_us).and_then(|us| us.checked_add(fraction));
            sum.us = us.and_then(|us| sum.us.checked_add(us)).ok_or(fault)?;
            Ok(())
        };
        match (clock, cursor.rest.first()) {
            (false, Some(b'Y')) => {
                let months = part(number)?.checked_mul(12);
                sum.months = months.and_then(|m| sum.months.checked_add(m)).ok_or(fault)?;
            }
            (false, Some(b'M')) => {
                sum.months = sum.months.checked_add(part(number)?).ok_or(fault)?;
            }
            (false, Some(b'W')) => sum.days += part(number)?.checked_mul(7).ok_or(fault)?,
            (false, Some(b'D')) => {
                sum.days = sum.days.checked_add(part(number)?).ok_or(fault)?;
            }
            (true, Some(b'H')) => add_us(3_600_000_000)?,
            (true, Some(b'M')) => add_us(60_000_000)?,
            (true, Some(b'S')) => add_us(1_000_000)?,
            _ => return Err(fault),
        }
        cursor.rest = cursor.rest.get(1..).unwrap_or_default();
    }
    Ok(Bounded::Finite(sum))
}

/// `2016-11-04`, of a day since 1970-01-01.
pub(crate) fn write_date(date: Bounded<i32>, out: &mut Vec<u8>) {
    if let Some(days) = write_infinity(date, out) {
        let (year, month, day) = civil(i64::from(days));
        write_ymd(year, month, day, out);
        write_era(year, out);
    }
}

/// `2016-11-04 13:51:30.123`, of microseconds since 2000-01-01; `zone` comes behind it.
pub(crate) fn write_timestamp(timestamp: Bounded<i64>, zone: &str, out: &mut Vec<u8>) {
    if let Some(us) = write_infinity(timestamp, out) {
        let days = us.div_euclid(DAY_US) + EPOCH_US / DAY_US;
        let (year, month, day) = civil(days);
        write_ymd(year, month, day, out);
        out.push(b' ');
        write_time(us.rem_euclid(DAY_US), out);
        out.extend_from_slice(zone.as_bytes());
        write_era(year, out);
    }
}

/// `13:51:30.123`.
pub(crate) fn write_time(us: i64, out: &mut Vec<u8>) {
    put!(out, "{:02}:{:02}:", us / 3_600_000_000, us / 60_000_000 % 60);
    write_seconds(us % 60_000_000, out);
}

/// `13:51:30.123+02`.
pub(crate) fn write_timetz((us, offset): (i64, i32), out: &mut Vec<u8>) {
    write_time(us, out);
    let (sign, offset) = (if offset < 0 { '-' } else { '+' }, offset.abs());
    put!(out, "{sign}{:02}", offset / 3600);
    if offset % 3600 != 0 {
        put!(out, ":{:02}", offset / 60 % 60);
    }
    if offset % 60 != 0 {
        put!(out, ":{:02}", offset % 60);
    }
}

/// `1 year 2 mons -3 days +04:05:06.7`.
pub(crate) fn write_interval(interval: Bounded<Interval>, out: &mut Vec<u8>) {
    let Some(Interval { months, days, us }) = write_infinity(interval, out) else { return };
    let (mut first, mut before_negative) = (true, false);
    for (value, unit) in [(months / 12, "year"), (months % 12, "mon"), (days, "day")] {
        if value != 0 {
            let space = if first { "" } else { " " };
            let plus = if before_negative && value > 0 { "+" } else { "" };
            let plural = if value == 1 { "" } else { "s" };
            put!(out, "{space}{plus}{value} {unit}{plural}");
            (first, before_negative) = (false, value < 0);
        }
    }
    if first || us != 0 {
        let space = if first { "" } else { " " };
        let sign = match us {
            ..0 => "-",
            _ if before_negative => "+",
            _ => "",
        };
        let us = us.unsigned_abs();
        put!(out, "{space}{sign}{:02}:{:02}:", us / 3_600_000_000, us / 60_000_000 % 60);
        write_seconds(i64::try_from(us % 60_000_000).unwrap_or_default(), out);
    }
}

fn write_infinity<T>(value: Bounded<T>, out: &mut Vec<u8>) -> Option<T> {
    match value {
        Bounded::Finite(value) => return Some(value),
        Bounded::Infinity => out.extend_from_slice(b"infinity"),
        Bounded::NegativeInfinity => out.extend_from_slice(b"-infinity"),
    }
    None
}

fn write_ymd(year: i64, month: u8, day: u8, out: &mut Vec<u8>) {
    let shown = if year > 0 { year } else { 1 - year };
    put!(out, "{shown:04}-{month:02}-{day:02}");
}

fn write_era(year: i64, out: &mut Vec<u8>) {
    if year <= 0 {
        out.extend_from_slice(b" BC");
    }
}

/// `05` or `05.678`: no zeros at the end of the fraction.
fn write_seconds(us: i64, out: &mut Vec<u8>) {
    put!(out, "{:02}", us / 1_000_000);
    if us % 1_000_000 != 0 {
        put!(out, ".{:06}", us % 1_000_000);
        while out.last() == Some(&b'0') {
            out.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_is_written_reads_back() {
        for text in [
            "2016-11-04 13:51:30.123456",
            "2000-01-01 00:00:00",
            "0001-01-01 00:00:00.5",
            "4714-11-24 00:00:00 BC",
            "294276-12-31 23:59:59.999999",
            "infinity",
            "-infinity",
        ] {
            let value = timestamp(text.as_bytes()).unwrap();
            assert_eq!(written(|out| write_timestamp(value, "", out)), text);
        }
        for text in ["2016-11-04", "4714-11-24 BC", "5874897-12-31", "infinity", "0044-03-15 BC"] {
            let value = date(text.as_bytes()).unwrap();
            assert_eq!(written(|out| write_date(value, out)), text);
        }
        for text in ["13:51:30.1+02", "00:00:00-15:59", "24:00:00+05:53:28", "23:59:59.999999+00"] {
            let value = timetz(text.as_bytes()).unwrap();
            assert_eq!(written(|out| write_timetz(value, out)), text);
        }
        for text in [
            "1 year 2 mons 3 days 04:05:06.78",
            "-1 mons +2 days -03:00:00",
            "00:00:00",
            "-1 years",
            "1 mon",
            "-1 days +02:03:04",
            "2562047788:00:54.775807",
            "infinity",
        ] {
            let value = interval(text.as_bytes()).unwrap();
            assert_eq!(written(|out| write_interval(value, out)), text);
        }
    }

    #[test]
    fn an_offset_is_taken_off() {
        let utc = timestamp(b"2016-11-04 11:51:30").unwrap();
        assert_eq!(timestamp(b"2016-11-04 13:51:30+02").unwrap(), utc);
        assert_eq!(timestamp(b"2016-11-04 06:21:30-05:30").unwrap(), utc);
    }

    #[test]
    fn both_interval_styles_say_the_same() {
        let expected = Bounded::Finite(Interval { months: 14, days: 3, us: 14_706_780_000 });
        assert_eq!(interval(b"1 year 2 mons 3 days 04:05:06.78"), Ok(expected));
        assert_eq!(interval(b"P1Y2M3DT4H5M6.78S"), Ok(expected));
        assert_eq!(
            interval(b"P-1M2DT-3H"),
            Ok(Bounded::Finite(Interval { months: -1, days: 2, us: -10_800_000_000 }))
        );
    }

    #[test]
    fn other_styles_are_refused() {
        for text in ["04/11/2016", "2016-13-01", "", "2016-11-04x", "0000-01-01"] {
            assert!(date(text.as_bytes()).is_err(), "{text}");
        }
        assert!(timestamp(b"2016-11-04T00:00:00").is_err());
        assert!(interval(b"@ 1 year").is_err());
        assert!(time(b"1:2:3:4").is_err());
    }
}
