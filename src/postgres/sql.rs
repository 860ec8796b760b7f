//! Quoting. Sessions have `standard_conforming_strings` on, so a quote is doubled and nothing
//! else is special; the replication grammar knows no other way.

/// Two columns: the sizes of a block and of a file of the log, by which
/// `waltide_core::snapshot::reachable` knows what positions there are.
pub(crate) const LOG_SIZES: &str = "\
current_setting('wal_block_size'),
(SELECT setting::bigint * CASE unit WHEN '8kB' THEN 8192 ELSE 1 END
 FROM pg_settings WHERE name = 'wal_segment_size')";

/// As an identifier, whatever is in it.
#[must_use]
pub fn identifier(name: &str) -> String {
    quoted(name, '"')
}

/// As a string literal, whatever is in it.
#[must_use]
pub fn literal(text: &str) -> String {
    quoted(text, '\'')
}

/// A schema's object.
#[must_use]
pub fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", identifier(schema), identifier(name))
}

/// In text form as an array of texts, for a parameter.
pub(super) fn array<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    let mut text = String::from("{");
    for (at, item) in items.into_iter().enumerate() {
        if at > 0 {
            text.push(',');
        }
        text.push('"');
        for char in item.as_ref().chars() {
            if matches!(char, '"' | '\\') {
                text.push('\\');
            }
            text.push(char);
        }
        text.push('"');
    }
    text.push('}');
    text
}

fn quoted(text: &str, quote: char) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push(quote);
    for char in text.chars() {
        if char == quote {
            quoted.push(quote);
        }
        quoted.push(char);
    }
    quoted.push(quote);
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_inside_are_doubled() {
        assert_eq!(identifier(r#"a"b'c\"#), r#""a""b'c\""#);
        assert_eq!(literal(r#"a"b'c\"#), r#"'a"b''c\'"#);
        assert_eq!(qualified("s", "t.u"), r#""s"."t.u""#);
        assert_eq!(array(["a", r#"b"\"#]), r#"{"a","b\"\\"}"#);
        assert_eq!(array::<&str>([]), "{}");
    }
}
