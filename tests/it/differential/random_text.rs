//! Random values as text that Postgres reads; the edges of each type come often.

use crate::support::Random;

/// One of the edges now and then, else what is made.
fn or_edge(
    random: &mut Random,
    edges: &[&str],
    make: impl FnOnce(&mut Random) -> String,
) -> String {
    if random.once_in(4) { (*random.pick(edges)).to_owned() } else { make(random) }
}

/// From `-most - 1` to `most`, of every length.
pub(crate) fn whole(random: &mut Random, most: i64) -> i64 {
    match random.of(0..8) {
        0 => most,
        1 => -most - 1,
        2 => 0,
        _ => {
            let number = (random.of(0..u64::MAX) >> random.of(1..64)).cast_signed() % most;
            if random.once_in(2) { -number } else { number }
        }
    }
}

/// `most` digits with a point in them, and NaN.
pub(crate) fn scaled(random: &mut Random, most: i64, scale: usize) -> String {
    if random.once_in(12) {
        return "NaN".to_owned();
    }
    let number = whole(random, most).clamp(-most, most);
    let digits = format!("{:0>width$}", number.unsigned_abs(), width = scale + 1);
    let (head, tail) = digits.split_at(digits.len() - scale);
    let sign = if number < 0 { "-" } else { "" };
    if scale == 0 { format!("{sign}{head}") } else { format!("{sign}{head}.{tail}") }
}

pub(crate) fn numeric(random: &mut Random) -> String {
    let edges = [
        "NaN",
        "Infinity",
        "-Infinity",
        "0",
        "-0.000",
        "1e-20",
        "1e1000",
        "1e-16383",
        "0.10",
        "1E131071",
    ];
    or_edge(random, &edges, |random| {
        let digits = |random: &mut Random, most| -> String {
            let count = random.of(1..most);
            (0..count)
                .map(|_| char::from(b'0' + u8::try_from(random.of(0..10)).unwrap_or(0)))
                .collect()
        };
        let sign = if random.once_in(2) { "-" } else { "" };
        format!("{sign}{}.{}", digits(random, 60), digits(random, 40))
    })
}

pub(crate) fn float(random: &mut Random, exponent: u64) -> String {
    let edges = [
        "NaN",
        "Infinity",
        "-Infinity",
        "-0",
        "0.1",
        "1e-40",
        "1",
        "3.4028234e38",
        "16777217",
        "1e23",
        "-426252.125",
    ];
    or_edge(random, &edges, |random| {
        let digits = random.of(1..1 << 53);
        let power = random.of(0..exponent).cast_signed() - 16;
        let sign = if random.once_in(2) { "-" } else { "" };
        let power = if power > exponent.cast_signed() - 20 { 0 } else { power };
        format!("{sign}{digits}e{power}")
    })
}

/// Words of every kind of character but the one that Postgres does not take.
pub(crate) fn words(random: &mut Random) -> String {
    let parts = [
        "tea", " ", "\"", "'", "\\", "\n", "\t", ",", "{", "}", "(", ")", "ü", "漢字", "😀",
        "NULL", "null", "%s", "$1", "\u{1}", "\u{feff}", "e\u{301}", "\r\n", "::", "a b",
    ];
    let count = random.of(0..8);
    (0..count).map(|_| *random.pick(&parts)).collect()
}

pub(crate) fn hex(random: &mut Random, most_bytes: u64) -> String {
    let count = random.of(0..most_bytes);
    (0..count).map(|_| format!("{:02x}", random.of(0..256))).collect()
}

pub(crate) fn bits(random: &mut Random) -> u128 {
    u128::from(random.of(0..u64::MAX)) << 64 | u128::from(random.of(0..u64::MAX))
}

pub(crate) fn octets(random: &mut Random, count: usize) -> String {
    let octets: Vec<String> = (0..count).map(|_| format!("{:02x}", random.of(0..256))).collect();
    octets.join(":")
}

pub(crate) fn inet(random: &mut Random) -> String {
    let edges = ["0.0.0.0/0", "::/0", "::1", "::ffff:1.2.3.4", "2001:db8::/32", "255.255.255.255"];
    or_edge(random, &edges, |random| {
        format!("10.{}.{}.1/{}", random.of(0..256), random.of(0..256), random.of(0..33))
    })
}

pub(crate) fn date(random: &mut Random) -> String {
    let edges =
        ["infinity", "-infinity", "5874897-12-31", "4714-11-24 BC", "0001-01-01", "1970-01-01"];
    or_edge(random, &edges, |random| {
        let era = if random.once_in(5) { " BC" } else { "" };
        format!("{}{era}", day(random, 4713))
    })
}

fn day(random: &mut Random, years: u64) -> String {
    format!("{:04}-{:02}-{:02}", random.of(1..years), random.of(1..13), random.of(1..29))
}

pub(crate) fn time(random: &mut Random, digits: usize) -> String {
    or_edge(random, &["24:00", "00:00", "23:59:59.999"], |random| {
        let fraction = format!("{:06}", random.of(0..1_000_000));
        let (hour, minute, second) = (random.of(0..24), random.of(0..60), random.of(0..60));
        format!("{hour:02}:{minute:02}:{second:02}.{}", &fraction[..digits])
    })
}

pub(crate) fn timestamp(random: &mut Random, digits: usize) -> String {
    let edges = [
        "infinity",
        "-infinity",
        "294276-12-31 23:59:59.999",
        "294247-01-10 04:00:54.775",
        "294247-01-10 04:00:54.776",
        "4714-11-24 00:00:00 BC",
        "0001-12-31 23:59:59.999 BC",
        "1969-12-31 23:59:59.999",
        "2000-01-01 00:00:00",
        "2024-02-29 12:00:00",
    ];
    or_edge(random, &edges, |random| {
        let era = if random.once_in(5) { " BC" } else { "" };
        let clock = time(random, digits).replace("24:00", "12:00");
        format!("{} {clock}{era}", day(random, 4713))
    })
}

pub(crate) fn interval(random: &mut Random, infinite: bool) -> String {
    let edges: &[&str] = match infinite {
        true => &["infinity", "-infinity", "0", "-1 mon", "-178000000 years"],
        false => &["0", "-1 mon", "-178000000 years", "-26:00:00.000001"],
    };
    or_edge(random, edges, |random| {
        let [months, days] = [whole(random, 2_000_000), whole(random, 2_000_000)];
        let (hours, minutes) = (whole(random, 2_500_000), random.of(0..60));
        let (seconds, fraction) = (random.of(0..60), random.of(0..1_000_000));
        format!("{months} mons {days} days {hours}:{minutes:02}:{seconds:02}.{fraction:06}")
    })
}

pub(crate) fn coordinate(random: &mut Random) -> String {
    or_edge(random, &["0", "-0", "0.1", "1e300", "-1e-300", "Infinity"], |random| {
        let number = whole(random, 1_000_000_000);
        format!("{number}e-{}", random.of(0..12))
    })
}

pub(crate) fn point(random: &mut Random) -> String {
    format!("({},{})", coordinate(random), coordinate(random))
}

/// Bounds out of numbers that stand in order; some are open, some inclusive, some none at all.
pub(crate) fn range(random: &mut Random, bound: fn(i64) -> String) -> String {
    if random.once_in(8) {
        return "empty".to_owned();
    }
    let low = whole(random, 1_000_000);
    let high = low + random.of(0..1_000_000).cast_signed();
    let open = if random.once_in(2) { '[' } else { '(' };
    let close = if random.once_in(2) { ']' } else { ')' };
    let [lower, upper] = [low, high].map(|at| match random.once_in(6) {
        true => String::new(),
        false => format!("\"{}\"", bound(at)),
    });
    format!("{open}{lower},{upper}{close}")
}
