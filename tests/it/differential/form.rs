//! What an independent reader made of a value, as text that Postgres reads.
//!
//! Only Avro's side is told here: how a day count or a decimal is meant. What the text means, and
//! how it is written in the end, is the server's to say.

use waltide_stack::serde_json::Value;

use crate::support::text;

/// How the JSON of a type is to be read.
#[derive(Clone, Debug)]
pub(crate) enum Form {
    /// A text, a number or a boolean.
    Plain,
    Bytes,
    Date,
    Time,
    Timestamp,
    Interval,
    Point,
    Line,
    Segment,
    Corners,
    Path,
    Polygon,
    Circle,
    Pairs,
    /// Numbers with spaces between them.
    Vector,
    /// Numbers as pgvector writes them.
    Dense,
    /// The numbers that are not zero, each behind its index.
    Sparse,
    /// With what stands between its elements.
    Array(Box<Form>, char),
    Range(Box<Form>),
    Multirange(Box<Form>),
    Composite(Vec<(&'static str, Form)>),
}

/// What an envelope says beside the row.
pub(crate) struct Beside<'a> {
    pub(crate) unrepresentable: &'a Value,
    pub(crate) shapes: &'a Value,
}

impl Form {
    /// The text of a value, or of what stands beside a null in its place; none for NULL.
    pub(crate) fn text(&self, value: &Value, path: &str, beside: &Beside<'_>) -> Option<String> {
        if value.is_null() {
            return beside.unrepresentable[path].as_str().map(str::to_owned);
        }
        Some(match self {
            Self::Plain => plain(value),
            Self::Bytes => format!("\\x{}", plain(value)),
            Self::Date => text::date(number(value)),
            Self::Time => text::time(number(value)),
            Self::Timestamp => text::timestamp(number(value)),
            Self::Interval => interval(value),
            Self::Point => point(value),
            Self::Line => {
                let [a, b, c] = ["a", "b", "c"].map(|name| plain(&value[name]));
                format!("{{{a},{b},{c}}}")
            }
            Self::Segment => format!("[{},{}]", point(&value["start"]), point(&value["end"])),
            Self::Corners => format!("{},{}", point(&value["high"]), point(&value["low"])),
            Self::Path if value["closed"] == true => format!("({})", points(value)),
            Self::Path => format!("[{}]", points(value)),
            Self::Polygon => format!("({})", points(value)),
            Self::Circle => format!("<{},{}>", point(&value["center"]), plain(&value["radius"])),
            Self::Pairs => pairs(value),
            Self::Vector => numbers(value).replace(',', " "),
            Self::Dense => format!("[{}]", numbers(value)),
            Self::Sparse => sparse(value),
            Self::Array(element, delimiter) => array(element, *delimiter, value, path, beside),
            Self::Range(bound) => range(bound, value, path, beside),
            Self::Multirange(bound) => {
                let ranges = items(value).iter().enumerate();
                let ranges = ranges.map(|(at, one)| range(bound, one, &index(path, at), beside));
                format!("{{{}}}", ranges.collect::<Vec<_>>().join(","))
            }
            Self::Composite(fields) => {
                assert_eq!(value.as_object().map(|record| record.len()), Some(fields.len()));
                let fields = fields.iter().map(|(name, form)| {
                    let text = form.text(&value[name], &format!("{path}.{name}"), beside);
                    text.map_or(String::new(), |text| quoted(&text))
                });
                format!("({})", fields.collect::<Vec<_>>().join(","))
            }
        })
    }
}

/// In double quotes, as arrays, composites, ranges and pairs take it.
pub(crate) fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[track_caller]
fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or_else(|| panic!("{value} is no whole number"))
}

#[track_caller]
fn items(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("{value} is no array"))
}

fn index(path: &str, at: usize) -> String {
    format!("{path}[{at}]")
}

fn point(value: &Value) -> String {
    format!("({},{})", plain(&value["x"]), plain(&value["y"]))
}

fn points(value: &Value) -> String {
    items(&value["points"]).iter().map(point).collect::<Vec<_>>().join(",")
}

fn numbers(value: &Value) -> String {
    items(value).iter().map(plain).collect::<Vec<_>>().join(",")
}

fn sparse(value: &Value) -> String {
    let [indices, values] = ["indices", "values"].map(|name| items(&value[name]));
    assert_eq!(indices.len(), values.len());
    let elements = indices.iter().zip(values);
    let elements = elements.map(|(index, value)| format!("{index}:{}", plain(value)));
    format!("{{{}}}/{}", elements.collect::<Vec<_>>().join(","), value["dimensions"])
}

fn interval(value: &Value) -> String {
    let [months, days, us] = ["months", "days", "micros"].map(|part| number(&value[part]));
    let (sign, us) = (if us < 0 { "-" } else { "" }, us.unsigned_abs());
    let (seconds, fraction) = (us / 1_000_000, us % 1_000_000);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{months} mons {days} days {sign}{hours}:{minutes:02}:{seconds:02}.{fraction:06}")
}

fn pairs(value: &Value) -> String {
    let pairs = value.as_object().expect("a map").iter().map(|(key, value)| {
        let value = value.as_str().map_or("NULL".to_owned(), quoted);
        format!("{}=>{value}", quoted(key))
    });
    pairs.collect::<Vec<_>>().join(",")
}

fn array(
    element: &Form,
    delimiter: char,
    value: &Value,
    path: &str,
    beside: &Beside<'_>,
) -> String {
    let items = items(value).iter().enumerate();
    let texts: Vec<String> = items
        .map(|(at, item)| {
            let text = element.text(item, &index(path, at), beside);
            text.map_or("NULL".to_owned(), |text| quoted(&text))
        })
        .collect();
    match beside.shapes[path].as_str() {
        Some(bounds) => format!("{bounds}={}", nested(&lengths(bounds), &texts, delimiter)),
        None => nested(&[texts.len()], &texts, delimiter),
    }
}

/// How many there are in each dimension of `[0:1][1:3]`.
fn lengths(bounds: &str) -> Vec<usize> {
    let dimensions = bounds.trim_matches(['[', ']']).split("][");
    let length = |bounds: &str| {
        let (low, high) = bounds.split_once(':').expect("bounds");
        let [low, high] = [low, high].map(|text| text.parse::<i64>().expect("a bound"));
        usize::try_from(high - low + 1).expect("a length")
    };
    dimensions.map(length).collect()
}

/// Elements that stand in one row, in braces for each dimension.
pub(crate) fn nested(lengths: &[usize], texts: &[String], delimiter: char) -> String {
    let inner = match lengths {
        [] | [_] => texts.to_vec(),
        [first, rest @ ..] => {
            texts.chunks(texts.len() / first).map(|part| nested(rest, part, delimiter)).collect()
        }
    };
    format!("{{{}}}", inner.join(&delimiter.to_string()))
}

fn range(bound: &Form, value: &Value, path: &str, beside: &Beside<'_>) -> String {
    let bounds = value["bounds"].as_str().expect("the bounds of a range");
    let [open, close] = bounds.as_bytes() else { return bounds.to_owned() };
    let [lower, upper] = ["lower", "upper"].map(|name| {
        let text = bound.text(&value[name], &format!("{path}.{name}"), beside);
        text.map_or(String::new(), |text| quoted(&text))
    });
    format!("{}{lower},{upper}{}", char::from(*open), char::from(*close))
}
