//! Values as Postgres prints them, made from what a consumer reads, without the product's code.
//! With `SET timezone TO 'UTC'` and the server's other settings at their defaults.

use waltide_stack::serde_json::Value;

const DAY_US: i64 = 86_400_000_000;

/// The text of a value of a type, named as `format_type` names it; none for NULL. Floats are in
/// Rust's shortest form, to which [`normal`] brings the server's.
pub(crate) fn of(data_type: &str, value: &Value) -> Option<String> {
    if value.is_null() {
        return None;
    }
    if let Some(element) = data_type.strip_suffix("[]") {
        return Some(array(element, value));
    }
    let base = data_type.split('(').next().unwrap_or(data_type).trim();
    let suffix = data_type.rsplit(')').next().filter(|_| data_type.contains('(')).unwrap_or("");
    Some(match (base, suffix) {
        ("bytea", _) => format!("\\x{}", string(value)),
        ("date", _) => date(number(value)),
        ("time", "") | ("time without time zone", _) | ("time", " without time zone") => {
            time(number(value))
        }
        ("timestamp without time zone", _) | ("timestamp", " without time zone") => {
            timestamp(number(value))
        }
        ("timestamp with time zone", _) | ("timestamp", " with time zone") => {
            timestamp(number(value)) + "+00"
        }
        ("real" | "double precision", _) => match value {
            Value::String(special) => special.clone(),
            number => number.as_f64().expect("a number").to_string(),
        },
        _ => string(value),
    })
}

/// The server's text, in the form in which [`of`] writes that type.
pub(crate) fn normal(data_type: &str, text: &str) -> String {
    match data_type {
        "real" | "double precision" => match text.parse::<f64>() {
            Ok(number) if number.is_finite() => number.to_string(),
            _ => text.to_owned(),
        },
        _ => text.to_owned(),
    }
}

fn string(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or_else(|| panic!("{value} is no whole number"))
}

fn array(element: &str, value: &Value) -> String {
    let items = value.as_array().unwrap_or_else(|| panic!("{value} is no array"));
    let items = items.iter().map(|item| match of(element, item) {
        None => "NULL".to_owned(),
        Some(text) if element == "boolean" => text[..1].to_owned(),
        Some(text) if needs_quotes(&text) => {
            format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
        }
        Some(text) => text,
    });
    format!("{{{}}}", items.collect::<Vec<_>>().join(","))
}

fn needs_quotes(text: &str) -> bool {
    text.is_empty()
        || text.eq_ignore_ascii_case("null")
        || text.contains(|c: char| matches!(c, '{' | '}' | ',' | '"' | '\\') || c.is_whitespace())
}

pub(crate) fn timestamp(us: i64) -> String {
    let day = date(us.div_euclid(DAY_US));
    let (day, era) = match day.strip_suffix(" BC") {
        Some(day) => (day, " BC"),
        None => (day.as_str(), ""),
    };
    format!("{day} {}{era}", time(us.rem_euclid(DAY_US)))
}

pub(crate) fn time(us: i64) -> String {
    let (seconds, fraction) = (us / 1_000_000, us % 1_000_000);
    let clock = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    match fraction {
        0 => clock,
        _ => format!("{clock}.{fraction:06}").trim_end_matches('0').to_owned(),
    }
}

/// A day counted from 1970, in the Gregorian calendar; years before 1 are BC.
pub(crate) fn date(day: i64) -> String {
    // Eras of 400 years that begin on the first of March, so that the leap day comes last.
    let day = day + 719_468;
    let (era, day) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + i64::from(month <= 2);
    match year {
        1.. => format!("{year:04}-{month:02}-{day:02}"),
        _ => format!("{:04}-{month:02}-{day:02} BC", 1 - year),
    }
}
