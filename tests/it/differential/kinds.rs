//! The types, and random values of each as text that Postgres reads.

use waltide_stack::Version;
use waltide_stack::serde_json::json;

use super::form::{Form, nested, quoted};
use super::random_text as text;
use crate::support::Random;

type Make = Box<dyn Fn(&mut Random) -> String>;

/// A bound of a range, out of a number.
type Bound = fn(i64) -> String;

/// A type and how to meet its values.
pub(crate) struct Kind {
    /// The column's type.
    pub(crate) sql: String,
    /// The type without what would round or cut off: a text is read as this one.
    pub(crate) cast: String,
    pub(crate) form: Form,
    pub(crate) make: Make,
}

pub(crate) fn kind(sql: &str, form: Form, make: impl Fn(&mut Random) -> String + 'static) -> Kind {
    Kind { sql: sql.to_owned(), cast: sql.to_owned(), form, make: Box::new(make) }
}

impl Kind {
    fn cast(self, cast: &str) -> Self {
        Self { cast: cast.to_owned(), ..self }
    }
}

/// What the tests' types are made of.
pub(crate) const TYPES: &str = r#"
    CREATE EXTENSION hstore; CREATE EXTENSION citext; CREATE EXTENSION ltree;
    CREATE EXTENSION cube; CREATE EXTENSION seg; CREATE EXTENSION isn;
    CREATE TYPE mood AS ENUM ('fine', 'so-so', 'ünï "q"', '');
    CREATE DOMAIN price AS numeric(12,3);
    CREATE TYPE address AS (street text, zip varchar(10), geo point, paid numeric(8,2), due timestamptz);
    CREATE TYPE measured AS (rough real, fine double precision);
    CREATE TYPE person AS (name text, home address, moods mood[]);
"#;

/// Every type of a version.
pub(crate) fn all(version: Version) -> Vec<Kind> {
    let mut kinds = numbers(version);
    kinds.extend(words());
    kinds.extend(times(version));
    kinds.extend(shapes());
    kinds.extend(ranges());
    kinds.extend(made(version));
    kinds
}

fn numbers(version: Version) -> Vec<Kind> {
    let whole = |sql, most: i64| {
        kind(sql, Form::Plain, move |random| text::whole(random, most).to_string())
    };
    let unsigned =
        |sql, most: u64| kind(sql, Form::Plain, move |random| random.of(0..most).to_string());
    let scaled = |sql: &str, most, scale| {
        kind(sql, Form::Plain, move |random| text::scaled(random, most, scale)).cast("numeric")
    };
    let mut kinds = vec![
        whole("smallint", i16::MAX.into()),
        whole("int", i32::MAX.into()),
        whole("bigint", i64::MAX),
        unsigned("oid", 1 << 32),
        unsigned("xid", 1 << 32),
        unsigned("xid8", u64::MAX),
        kind("real", Form::Plain, |random| text::float(random, 38)),
        kind("double precision", Form::Plain, |random| text::float(random, 307)),
        kind("numeric", Form::Plain, text::numeric),
        scaled("numeric(12,3)", 999_999_999_999, 3),
        scaled("numeric(5)", 99_999, 0),
        scaled("price", 999_999_999_999, 3),
        kind("money", Form::Plain, |random| text::scaled(random, i64::MAX, 2).replace("NaN", "0")),
        kind("boolean", Form::Plain, |random| random.once_in(2).to_string()),
    ];
    if version >= Version::V15 {
        kinds.push(scaled("numeric(5,-2)", 9_999_900, 0));
        kinds.push(scaled("numeric(3,5)", 999, 5));
    }
    kinds
}

fn words() -> Vec<Kind> {
    let plain = |sql, make: fn(&mut Random) -> String| kind(sql, Form::Plain, make);
    let cut = |random: &mut Random, chars| text::words(random).chars().take(chars).collect();
    let json = |random: &mut Random| {
        let (key, word) = (text::words(random).replace('\u{1}', ""), text::words(random));
        let doc =
            json!({ key: [1, null, word.replace('\u{1}', "")], "n": text::whole(random, 99) });
        random.pick(&[doc.to_string(), "null".to_owned(), "1.50".to_owned()]).clone()
    };
    vec![
        plain("text", text::words),
        kind("varchar(20)", Form::Plain, move |random| cut(random, 20)).cast("varchar"),
        kind("char(5)", Form::Plain, move |random| cut(random, 5)).cast("bpchar"),
        kind("name", Form::Plain, move |random| cut(random, 12)),
        plain("\"char\"", |random| (*random.pick(&["a", "Z", "~", ""])).to_owned()),
        plain("citext", text::words),
        plain("mood", |random| (*random.pick(&["fine", "so-so", "ünï \"q\"", ""])).to_owned()),
        kind("bytea", Form::Bytes, |random| format!("\\x{}", text::hex(random, 40))),
        kind("bit(9)", Form::Plain, |random| format!("{:09b}", random.of(0..512))).cast("varbit"),
        plain("bit varying", |random| {
            let length = random.of(0..30);
            (0..length).map(|_| if random.once_in(2) { '1' } else { '0' }).collect()
        }),
        kind("uuid", Form::Plain, |random| format!("{:032x}", text::bits(random))),
        kind("json", Form::Plain, json),
        kind("jsonb", Form::Plain, json),
        plain("jsonpath", |random| format!("$.\"a\"[*]?(@.\"b\" > {})", random.of(0..99))),
        plain("xml", |random| format!("<a b=\"{}\"><!-- c --> d</a>", random.of(0..99))),
        plain("inet", text::inet),
        plain("cidr", |random| format!("10.{}.0.0/16", random.of(0..256))),
        plain("macaddr", |random| text::octets(random, 6)),
        plain("macaddr8", |random| text::octets(random, 8)),
        plain("tsvector", |random| {
            format!("'a b':{}A,{} 'it''s' 'ü':3B", random.of(1..9), random.of(9..16_000))
        }),
        plain("tsquery", |random| format!("'fat' & ( 'cat':*AB | !'d{}' )", random.of(0..99))),
        plain("pg_lsn", |random| {
            format!("{:X}/{:X}", random.of(0..1 << 32), random.of(0..1 << 32))
        }),
        plain("pg_snapshot", |random| format!("10:20:1{},15", random.of(1..5))),
        kind("hstore", Form::Pairs, |random| {
            let [one, other] = [text::words(random), text::words(random)].map(|it| quoted(&it));
            format!("{one}=>{other}, \"n\"=>NULL")
        }),
        plain("ltree", |random| format!("Top.a{}.b_c", random.of(0..99))),
        plain("cube", |random| format!("({}, 2.5),(3, -4.25)", random.of(0..99))),
        plain("seg", |random| format!("1.5 .. {}", random.of(2..99))),
        plain("isbn", |random| (*random.pick(&["0-393-04002-X", "1-55860-190-2"])).to_owned()),
        kind("int2vector", Form::Vector, |random| format!("1 {}", random.of(0..32_768))),
        kind("oidvector", Form::Vector, |random| format!("{} 4294967295", random.of(0..9))),
    ]
}

fn times(version: Version) -> Vec<Kind> {
    let infinite = version >= Version::V17;
    vec![
        kind("date", Form::Date, text::date),
        kind("time", Form::Time, |random| text::time(random, 6)),
        kind("time(3)", Form::Time, |random| text::time(random, 3)).cast("time"),
        kind("time with time zone", Form::Plain, |random| {
            let zone = *random.pick(&["+00", "-08", "+05:30", "+15:59:59", "-12:34:56"]);
            format!("{}{zone}", text::time(random, 6))
        }),
        kind("timestamp", Form::Timestamp, |random| text::timestamp(random, 6)),
        kind("timestamp(3)", Form::Timestamp, |random| text::timestamp(random, 3))
            .cast("timestamp"),
        kind("timestamptz", Form::Timestamp, |random| text::timestamp(random, 6)),
        kind("interval", Form::Interval, move |random| text::interval(random, infinite)),
    ]
}

fn shapes() -> Vec<Kind> {
    let list = |random: &mut Random| {
        let count = random.of(1..5);
        (0..count).map(|_| text::point(random)).collect::<Vec<_>>().join(",")
    };
    vec![
        kind("point", Form::Point, text::point),
        kind("line", Form::Line, |random| format!("{{1,{},0.5}}", text::coordinate(random))),
        kind("lseg", Form::Segment, |random| {
            format!("[{},{}]", text::point(random), text::point(random))
        }),
        kind("box", Form::Corners, |random| {
            format!("{},{}", text::point(random), text::point(random))
        }),
        kind("path", Form::Path, move |random| match random.once_in(2) {
            true => format!("[{}]", list(random)),
            false => format!("({})", list(random)),
        }),
        kind("polygon", Form::Polygon, move |random| format!("({})", list(random))),
        kind("circle", Form::Circle, |random| {
            format!("<{},{}>", text::point(random), random.of(0..1000))
        }),
    ]
}

fn ranges() -> Vec<Kind> {
    let day = |at: i64| crate::support::text::date(at);
    let instant = |at: i64| crate::support::text::timestamp(at * 1_000_003);
    let ranges: [(&str, Form, Bound); 6] = [
        ("int4", Form::Plain, |at| at.to_string()),
        ("int8", Form::Plain, |at| (at * 1_000_000_007).to_string()),
        ("num", Form::Plain, |at| format!("{at}.50")),
        ("date", Form::Date, day),
        ("ts", Form::Timestamp, instant),
        ("tstz", Form::Timestamp, instant),
    ];
    let both = |(name, bound, make): (&str, Form, Bound)| {
        let of_one = Form::Range(Box::new(bound.clone()));
        let of_many = Form::Multirange(Box::new(bound));
        let many = move |random: &mut Random| {
            let count = random.of(0..4);
            let ranges = (0..count).map(|_| text::range(random, make));
            format!("{{{}}}", ranges.collect::<Vec<_>>().join(","))
        };
        [
            kind(&format!("{name}range"), of_one, move |random| text::range(random, make)),
            kind(&format!("{name}multirange"), of_many, many),
        ]
    };
    ranges.into_iter().flat_map(both).collect()
}

/// Arrays of many types, composites, and arrays of these.
fn made(version: Version) -> Vec<Kind> {
    let kinds = [numbers(version), words(), times(version), shapes(), ranges()];
    let of = [
        "int",
        "bigint",
        "boolean",
        "numeric",
        "numeric(12,3)",
        "price",
        "double precision",
        "text",
        "char(5)",
        "mood",
        "bytea",
        "bit varying",
        "uuid",
        "jsonb",
        "inet",
        "date",
        "time",
        "timestamp",
        "timestamptz",
        "interval",
        "point",
        "path",
        "int4range",
        "hstore",
        "citext",
    ];
    let chosen = kinds.into_iter().flatten().filter(|kind| of.contains(&kind.sql.as_str()));
    let mut made: Vec<Kind> = chosen.map(array).collect();
    assert_eq!(made.len(), of.len());
    let corners = shapes().into_iter().find(|kind| kind.sql == "box").expect("box");
    made.extend([measured(), person(), array(address()), array_with(corners, ';')]);
    made
}

/// Elements may be NULL, in up to two dimensions that begin anywhere.
fn array(of: Kind) -> Kind {
    array_with(of, ',')
}

/// Some types have another delimiter than a comma.
pub(crate) fn array_with(of: Kind, delimiter: char) -> Kind {
    let (sql, cast) = (format!("{}[]", of.sql), format!("{}[]", of.cast));
    let make = move |random: &mut Random| {
        let lengths = match random.of(0..5) {
            0 => vec![],
            1 => vec![random.of(1..4), random.of(1..4)],
            _ => vec![random.of(1..6)],
        };
        let bounds: String = match random.once_in(3) {
            true => {
                lengths.iter().map(|length| format!("[-1:{}]", length.cast_signed() - 2)).collect()
            }
            false => String::new(),
        };
        let lengths: Vec<usize> =
            lengths.iter().map(|length| usize::try_from(*length).expect("a length")).collect();
        let count = if lengths.is_empty() { 0 } else { lengths.iter().product() };
        let texts: Vec<String> = (0..count)
            .map(|_| if random.once_in(6) { "NULL".to_owned() } else { quoted(&(of.make)(random)) })
            .collect();
        let equals = if bounds.is_empty() { "" } else { "=" };
        format!("{bounds}{equals}{}", nested(&lengths, &texts, delimiter))
    };
    kind(&sql, Form::Array(Box::new(of.form), delimiter), make).cast(&cast)
}

/// A profile tells it as text, so the digits have to be the server's.
fn measured() -> Kind {
    let form = Form::Composite(vec![("rough", Form::Plain), ("fine", Form::Plain)]);
    kind("measured", form, |random| {
        format!("({},{})", text::float(random, 38), text::float(random, 307))
    })
}

fn address() -> Kind {
    let form = Form::Composite(vec![
        ("street", Form::Plain),
        ("zip", Form::Plain),
        ("geo", Form::Point),
        ("paid", Form::Plain),
        ("due", Form::Timestamp),
    ]);
    kind("address", form, |random| {
        let street = if random.once_in(4) { String::new() } else { quoted(&text::words(random)) };
        let (geo, due) = (quoted(&text::point(random)), quoted(&text::timestamp(random, 6)));
        format!("({street},12-3,{geo},{},{due})", text::scaled(random, 99_999_999, 2))
    })
}

fn person() -> Kind {
    let home = address();
    let moods = Form::Array(Box::new(Form::Plain), ',');
    let fields = vec![("name", Form::Plain), ("home", home.form), ("moods", moods)];
    kind("person", Form::Composite(fields), move |random| {
        let (name, home) = (quoted(&text::words(random)), quoted(&(home.make)(random)));
        let moods = random.pick(&["\"{fine,NULL}\"", "\"{}\"", ""]);
        format!("({name},{home},{moods})")
    })
}
