//! Names Avro accepts for names Postgres accepts.
//!
//! Avro allows letters, digits and underscores, and no leading digit; Postgres allows anything.
//! In the waltide profile the escape is injective, so two columns can never meet: any other
//! character `c` becomes `_X<hex>_`, and an underscore that the reader could take for the start
//! of such an escape becomes one itself. A capital X keeps ordinary lower-case names as they are.
//! The debezium profile does what Debezium does, and refuses two columns that meet.

use std::fmt::Write;

/// The injective escape of one name: `a-b` is `a_X2d_b`, `1st` is `_X31_st`.
#[must_use]
pub fn escape(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut chars = name.chars().peekable();
    while let Some(c) = chars.next() {
        let starts_escape = c == '_' && {
            let mut ahead = chars.clone();
            ahead.next() == Some('X')
                && ahead.next().is_some_and(|c| c.is_ascii_hexdigit() || c == '_')
        };
        let plain = match c {
            '_' => !starts_escape,
            c if c.is_ascii_digit() => !out.is_empty(),
            c => c.is_ascii_alphabetic(),
        };
        if plain {
            out.push(c);
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "_X{:x}_", u32::from(c));
        }
    }
    if out.is_empty() { "_X_".to_owned() } else { out }
}

/// The name that [`escape`] was given; `None` where the text is not of its making.
#[must_use]
pub fn unescape(escaped: &str) -> Option<String> {
    if escaped == "_X_" {
        return Some(String::new());
    }
    let mut out = String::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some(c) = rest.chars().next() {
        let hex = rest.strip_prefix("_X").and_then(|tail| tail.split_once('_'));
        match hex {
            Some((hex, tail)) if hex.starts_with(|c: char| c.is_ascii_hexdigit()) => {
                out.push(char::from_u32(u32::from_str_radix(hex, 16).ok()?)?);
                rest = tail;
            }
            _ => {
                out.push(c);
                rest = rest.get(c.len_utf8()..)?;
            }
        }
    }
    (escape(&out) == escaped).then_some(out)
}

/// The topic of a table as Debezium names it: what Kafka does not allow becomes an underscore.
#[must_use]
pub fn debezium_topic(prefix: &str, schema: &str, table: &str) -> String {
    /// Kafka's limit, where Debezium cuts off.
    const MAX_LENGTH: usize = 249;
    let mut topic = replaced(&format!("{prefix}.{schema}.{table}"), |c| matches!(c, '.' | '-'));
    topic.truncate(MAX_LENGTH);
    topic
}

/// A dotted name as Debezium adjusts it for Avro.
pub(crate) fn debezium_full_name(name: &str) -> String {
    not_a_digit_first(replaced(name, |c| c == '.'))
}

/// A field's name as Debezium adjusts it for Avro.
pub(crate) fn debezium_field(name: &str) -> String {
    not_a_digit_first(replaced(name, |_| false))
}

/// Underscores for all but letters, digits, underscores and what `allowed` takes: as many as Java
/// counts characters, which is two for one outside the basic plane.
fn replaced(name: &str, allowed: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        if c.is_ascii_alphanumeric() || c == '_' || allowed(c) {
            out.push(c);
        } else {
            out.extend(std::iter::repeat_n('_', c.len_utf16()));
        }
    }
    out
}

fn not_a_digit_first(mut name: String) -> String {
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        name.insert(0, '_');
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_stay_as_they_are() {
        for name in ["id", "created_at", "_x", "user_uuid", "Id", "a1", "max_xact_age", "_"] {
            assert_eq!(escape(name), name);
        }
    }

    #[test]
    fn every_escaped_name_is_one_avro_accepts_and_reads_back() {
        let names = [
            "a-b",
            "a b",
            "a_b",
            "1st",
            "ünï",
            "_X2d_",
            "_X",
            "_X2",
            "_Xg",
            "_",
            "__X2d_",
            "-",
            "_-",
            "漢😀",
            "a.b",
            "\u{1}",
            "_X5f_X2d_",
            "x_X",
            "a_X2d_b",
            "",
            "_X_",
        ];
        let mut seen = std::collections::HashSet::new();
        for name in names {
            let escaped = escape(name);
            assert!(escaped.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'), "{escaped}");
            assert!(!escaped.starts_with(|c: char| c.is_ascii_digit()), "{escaped}");
            assert!(seen.insert(escaped.clone()), "{name:?} meets another");
            assert_eq!(unescape(&escaped).as_deref(), Some(name), "{escaped}");
        }
    }

    #[test]
    fn no_two_short_names_over_the_dangerous_characters_meet() {
        let alphabet = ['_', 'X', '2', 'd', '-', 'é'];
        let mut seen = std::collections::HashMap::new();
        for n in 0..6_usize.pow(6) {
            let name: String = (0..6_u32).map(|i| alphabet[n / 6_usize.pow(i) % 6]).collect();
            for cut in 1..=6 {
                let name: String = name.chars().take(cut).collect();
                if let Some(other) = seen.insert(escape(&name), name.clone()) {
                    assert_eq!(other, name);
                }
            }
        }
    }

    #[test]
    fn debezium_names_lose_what_avro_does_not_allow() {
        assert_eq!(
            debezium_topic("dbserver1", "public", "Odd-Name é"),
            "dbserver1.public.Odd-Name__"
        );
        assert_eq!(debezium_full_name("1db.public.Odd-Name"), "_1db.public.Odd_Name");
        assert_eq!(debezium_field("a😀"), "a__");
        assert_eq!(debezium_field("ünï"), "_n_");
        assert_eq!(debezium_field("1st"), "_1st");
    }
}
