//! Names of topics, with places for the names of pipeline, schema and table.

use std::fmt;

use super::keys::{listed, nearest};

/// The longest name Kafka takes.
pub const MAX_TOPIC_BYTES: usize = 249;

const PLACES: [&str; 3] = ["pipeline", "schema", "table"];

/// A topic's name with places in it: `{pipeline}.{schema}.{table}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicTemplate {
    typed: String,
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Pipeline,
    Schema,
    Table,
}

impl TopicTemplate {
    /// Reads a template.
    ///
    /// # Errors
    /// What is wrong with it, as a sentence.
    pub fn parse(typed: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = typed;
        while let Some(open) = rest.find(['{', '}']) {
            let (text, from) = rest.split_at(open);
            add_text(&mut pieces, text)?;
            let inner = from.strip_prefix('{').and_then(|from| from.split_once('}'));
            let Some((name, after)) = inner else {
                return Err("a brace in it has no partner".to_owned());
            };
            pieces.push(place(name)?);
            rest = after;
        }
        add_text(&mut pieces, rest)?;
        if matches!(typed, "." | "..") || typed.len() > MAX_TOPIC_BYTES {
            return Err("Kafka takes no topic of this name".to_owned());
        }
        Ok(Self { typed: typed.to_owned(), pieces })
    }

    /// The topic of a table. What Kafka does not take in a topic's name becomes `_`, one for
    /// one, so two tables can come out at one name, and the name can be longer than
    /// [`MAX_TOPIC_BYTES`]: whoever makes topics looks at both.
    #[must_use]
    pub fn render(&self, pipeline: &str, schema: &str, table: &str) -> String {
        let mut name = String::new();
        for piece in &self.pieces {
            let part = match piece {
                Piece::Text(text) => text,
                Piece::Pipeline => pipeline,
                Piece::Schema => schema,
                Piece::Table => table,
            };
            name.extend(part.chars().map(|c| if is_legal(c) { c } else { '_' }));
        }
        name
    }

    /// Whether the names of two tables can make a difference.
    #[must_use]
    pub fn names_tables(&self) -> bool {
        self.pieces.contains(&Piece::Table)
    }

    /// Whether the pipeline's name is in it.
    #[must_use]
    pub fn names_pipeline(&self) -> bool {
        self.pieces.contains(&Piece::Pipeline)
    }
}

impl fmt::Display for TopicTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.typed)
    }
}

fn is_legal(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '.' | '_' | '-')
}

fn add_text(pieces: &mut Vec<Piece>, text: &str) -> Result<(), String> {
    if !text.chars().all(is_legal) {
        return Err("a topic's name is made of letters, digits, dots, `_` and `-`".to_owned());
    }
    if !text.is_empty() {
        pieces.push(Piece::Text(text.to_owned()));
    }
    Ok(())
}

fn place(name: &str) -> Result<Piece, String> {
    match name {
        "pipeline" => Ok(Piece::Pipeline),
        "schema" => Ok(Piece::Schema),
        "table" => Ok(Piece::Table),
        _ => Err(match nearest(name, PLACES) {
            Some(near) => {
                format!("there is no place of this name in it; did you mean `{{{near}}}`?")
            }
            None => format!("a place of this name is not known; there are {}", listed(PLACES)),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_filled_and_foreign_characters_replaced() {
        let topic = TopicTemplate::parse("{pipeline}.{schema}.{table}").unwrap();
        assert_eq!(topic.render("shop", "public", "orders"), "shop.public.orders");
        assert_eq!(topic.render("shop", "Pub lic", "ordérs.2"), "shop.Pub_lic.ord_rs.2");
        assert!(topic.names_tables());
        assert!(!TopicTemplate::parse("all").unwrap().names_tables());
    }

    #[test]
    fn what_is_no_template_is_told() {
        for (typed, told) in [
            ("{tabel}", "`{table}`"),
            ("{x}", "`pipeline`, `schema` or `table`"),
            ("a b", "letters"),
            ("{table", "partner"),
            ("table}", "partner"),
            ("..", "no topic"),
        ] {
            let error = TopicTemplate::parse(typed).unwrap_err();
            assert!(error.contains(told), "{typed}: {error}");
        }
    }
}
