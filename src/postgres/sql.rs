//! Quoting. Sessions have `standard_conforming_strings` on, so a quote is doubled and nothing
//! else is special; the replication grammar knows no other way.

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
    }
}
