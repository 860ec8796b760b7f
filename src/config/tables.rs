//! Patterns of tables: `public.*`, `sales_*.orders`, `"Odd.Schema".t`.

use std::fmt;

/// A pattern of `schema.table`, in which `*` outside quotes stands for any characters.
///
/// Names are compared as Postgres stores them; nothing is folded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TablePattern {
    typed: String,
    schema: Glob,
    table: Glob,
}

/// One table's full name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub table: String,
}

/// The longest identifier of Postgres, in bytes.
pub(super) const MAX_IDENTIFIER_BYTES: usize = 63;

/// What stands between the stars: first, last and what must be found in between, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Glob(Vec<String>);

impl TablePattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What is wrong with it, as a sentence.
    pub fn parse(typed: &str) -> Result<Self, String> {
        let (schema, table) = parts(typed)?;
        Ok(Self { typed: typed.to_owned(), schema, table })
    }

    /// Whether it covers a table. Postgres' own schemas are covered only by their own names:
    /// nobody means the catalog by a star.
    #[must_use]
    pub fn matches(&self, schema: &str, table: &str) -> bool {
        let system = schema.starts_with("pg_") || schema == "information_schema";
        let schema_named = self.schema.0.len() == 1;
        (schema_named || !system) && self.schema.matches(schema) && self.table.matches(table)
    }

    /// The one table it stands for, where it has no star.
    #[must_use]
    pub fn exact(&self) -> Option<TableName> {
        match (self.schema.0.as_slice(), self.table.0.as_slice()) {
            ([schema], [table]) => Some(TableName { schema: schema.clone(), table: table.clone() }),
            _ => None,
        }
    }
}

impl fmt::Display for TablePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.typed)
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", quoted(&self.schema), quoted(&self.table))
    }
}

/// A name as [`TablePattern::parse`] reads it back.
fn quoted(name: &str) -> String {
    if name.contains(['.', '*', '"']) {
        format!("\"{}\"", name.replace('"', "\"\""))
    } else {
        name.to_owned()
    }
}

impl Glob {
    fn matches(&self, name: &str) -> bool {
        let Some((first, others)) = self.0.split_first() else { return false };
        let Some(mut rest) = name.strip_prefix(first.as_str()) else { return false };
        let Some((last, middle)) = others.split_last() else { return rest.is_empty() };
        // The leftmost place for each piece leaves the most room for those that follow.
        for piece in middle {
            match rest.find(piece.as_str()) {
                Some(start) => rest = &rest[start + piece.len()..],
                None => return false,
            }
        }
        rest.ends_with(last.as_str())
    }
}

fn parts(typed: &str) -> Result<(Glob, Glob), String> {
    let mut parts = Vec::new();
    let mut pieces = vec![String::new()];
    let mut quoted = false;
    let mut characters = typed.chars().peekable();
    while let Some(character) = characters.next() {
        let Some(piece) = pieces.last_mut() else { break };
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                piece.push('"');
            }
            '"' => quoted = !quoted,
            '.' if !quoted => parts.push(std::mem::replace(&mut pieces, vec![String::new()])),
            '*' if !quoted => pieces.push(String::new()),
            character => piece.push(character),
        }
    }
    if quoted {
        return Err("a double quote is not closed".to_owned());
    }
    parts.push(pieces);
    let too_long =
        |pieces: &Vec<String>| pieces.iter().map(String::len).sum::<usize>() > MAX_IDENTIFIER_BYTES;
    match parts.as_slice() {
        [_] => Err("it names no schema".to_owned()),
        [schema, table] => {
            for pieces in [schema, table] {
                if pieces.len() == 1 && pieces.concat().is_empty() {
                    return Err("the schema or the table is empty".to_owned());
                }
                if too_long(pieces) {
                    return Err(format!(
                        "a name in it is longer than Postgres' {MAX_IDENTIFIER_BYTES} bytes"
                    ));
                }
            }
            Ok((Glob(schema.clone()), Glob(table.clone())))
        }
        _ => Err("it has more than one dot; a name with a dot goes in double quotes".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covers(pattern: &str, schema: &str, table: &str) -> bool {
        TablePattern::parse(pattern).unwrap().matches(schema, table)
    }

    #[test]
    fn a_star_stands_for_any_characters_and_for_none() {
        assert!(covers("public.*", "public", "orders"));
        assert!(covers("public.o*s", "public", "orders"));
        assert!(covers("public.*orders*", "public", "orders"));
        assert!(covers("public.*a*a*", "public", "banana"));
        assert!(covers("*.orders", "sales", "orders"));
        assert!(covers("public.**", "public", "x"));
        assert!(!covers("public.o*x", "public", "orders"));
        assert!(!covers("public.orders", "public", "orders_old"));
        assert!(!covers("public.a*a", "public", "a"));
        assert!(!covers("public.ab*bc", "public", "abc"));
    }

    #[test]
    fn names_are_compared_as_they_are_written() {
        assert!(covers("public.Orders", "public", "Orders"));
        assert!(!covers("public.Orders", "public", "orders"));
        assert!(covers("\"a.b\".\"c*\"", "a.b", "c*"));
        assert!(!covers("\"a.b\".\"c*\"", "a.b", "cd"));
        assert!(covers("public.\"say \"\"hi\"\"\"", "public", "say \"hi\""));
    }

    #[test]
    fn a_star_never_means_the_catalog() {
        assert!(!covers("*.*", "pg_catalog", "pg_class"));
        assert!(!covers("*.*", "information_schema", "tables"));
        assert!(covers("*.*", "public", "pg_things"));
    }

    #[test]
    fn a_name_shown_is_a_name_that_reads_back() {
        for (schema, table) in [("a", "b"), ("a.b", "c"), ("q\"q", "*"), ("Ä", "x y")] {
            let name = TableName { schema: schema.into(), table: table.into() };
            assert_eq!(TablePattern::parse(&name.to_string()).unwrap().exact(), Some(name));
        }
    }

    #[test]
    fn what_is_no_pattern_is_told() {
        for (typed, told) in [
            ("orders", "no schema"),
            ("a.b.c", "more than one dot"),
            (".b", "empty"),
            ("a.", "empty"),
            ("\"a.b", "not closed"),
        ] {
            assert!(TablePattern::parse(typed).unwrap_err().contains(told), "{typed}");
        }
    }
}
