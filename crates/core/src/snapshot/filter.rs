//! A condition on rows that somebody typed, as it may stand between parentheses in our SQL.
//!
//! The server judges what it means; here it is seen to that it is one expression, so that nothing
//! of it reaches beyond the parentheses around it: `true) OR (true` would read all of a table with
//! each of its chunks. What the server's lexer and this one could understand differently is
//! refused: comments, dollar quotes, a number that runs into a quote. Line breaks become spaces,
//! because a string goes on behind one.

use std::fmt;
use std::iter::Peekable;
use std::str::Chars;

/// The longest. It is in every checkpoint while its table is being read.
const MAX_BYTES: usize = 4096;

/// A condition that is one expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter(Box<str>);

/// Why a text is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadFilter {
    /// There is nothing in it.
    Empty,
    /// It is too long.
    TooLong,
    /// A string, a quoted name or a parenthesis has no end.
    Unclosed(char),
    /// This closes what nothing has opened.
    Unopened(char),
    /// This may not stand outside of a string.
    Refused(&'static str),
}

impl fmt::Display for BadFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("it is empty"),
            Self::TooLong => write!(f, "it has more than {MAX_BYTES} bytes"),
            Self::Unclosed(open) => write!(f, "a {open} in it has no end"),
            Self::Unopened(close) => write!(f, "a {close} in it closes what nothing has opened"),
            Self::Refused(what) => write!(f, "{what} may not be in it"),
        }
    }
}

impl std::error::Error for BadFilter {}

impl Filter {
    /// Takes what was typed.
    ///
    /// # Errors
    /// Where it is not one expression, or the server might take it for something else.
    pub fn parse(typed: &str) -> Result<Self, BadFilter> {
        if typed.trim().is_empty() {
            return Err(BadFilter::Empty);
        }
        if typed.len() > MAX_BYTES {
            return Err(BadFilter::TooLong);
        }
        if typed.contains('\0') {
            return Err(BadFilter::Refused("a zero byte"));
        }
        let mut lexer = Lexer { rest: typed.chars().peekable(), taken: String::new() };
        lexer.run()?;
        Ok(Self(lexer.taken.trim().into()))
    }

    /// As it stands between parentheses.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

struct Lexer<'a> {
    rest: Peekable<Chars<'a>>,
    taken: String,
}

impl Lexer<'_> {
    fn run(&mut self) -> Result<(), BadFilter> {
        let mut open = Vec::new();
        while let Some(character) = self.rest.next() {
            let next = self.rest.peek().copied();
            match (character, next) {
                (';', _) => return Err(BadFilter::Refused("a semicolon")),
                ('-', Some('-')) | ('/', Some('*')) => {
                    return Err(BadFilter::Refused("a comment"));
                }
                ('$', _) => return Err(BadFilter::Refused("a $")),
                ('(', _) => open.push(')'),
                ('[', _) => open.push(']'),
                (')' | ']', _) if open.pop() != Some(character) => {
                    return Err(BadFilter::Unopened(character));
                }
                _ => {}
            }
            // Also the white space that only the server takes for a line break.
            let breaks = matches!(character, '\n' | '\r' | '\u{b}' | '\u{c}');
            self.taken.push(if breaks { ' ' } else { character });
            match character {
                '\'' | '"' => self.quoted(character, false)?,
                first if first.is_ascii_digit() => self.number()?,
                first if is_word(first) => self.word(first)?,
                _ => {}
            }
        }
        match open.pop() {
            Some(')') => Err(BadFilter::Unclosed('(')),
            Some(_) => Err(BadFilter::Unclosed('[')),
            None => Ok(()),
        }
    }

    /// The rest of a name or a keyword, and of a string that it is the prefix of.
    fn word(&mut self, first: char) -> Result<(), BadFilter> {
        let mut alone = true;
        while let Some(character) = self.rest.next_if(|next| is_word(*next) || *next == '$') {
            self.taken.push(character);
            alone = false;
        }
        if self.rest.next_if_eq(&'\'').is_none() {
            return Ok(());
        }
        self.taken.push('\'');
        self.quoted('\'', alone && matches!(first, 'e' | 'E'))
    }

    /// The rest of a number. Old servers end it where they can, and take a letter behind it for
    /// what makes a backslash special in the string that follows.
    fn number(&mut self) -> Result<(), BadFilter> {
        while let Some(character) = self.rest.next_if(|next| is_word(*next) || *next == '.') {
            self.taken.push(character);
        }
        match self.rest.peek() {
            Some('\'' | '"' | '$') => Err(BadFilter::Refused("a quote right behind a number")),
            _ => Ok(()),
        }
    }

    /// The rest of what is quoted. A doubled quote ends it and begins it anew, which is the same.
    fn quoted(&mut self, quote: char, escapes: bool) -> Result<(), BadFilter> {
        while let Some(character) = self.rest.next() {
            self.taken.push(character);
            if character == '\\' && escapes {
                self.taken.extend(self.rest.next());
            } else if character == quote && self.rest.next_if_eq(&quote).is_some() {
                self.taken.push(quote);
            } else if character == quote {
                return Ok(());
            }
        }
        Err(BadFilter::Unclosed(quote))
    }
}

/// As the server has it: whatever is not ASCII may be in a name.
const fn is_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_' || !character.is_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_expression_is_taken_as_it_is() {
        for text in [
            "created_at >= '2026-01-01'",
            "a = 'it''s; -- not a comment' AND b = E'a\\'; b'",
            "\"odd;\"\"name(\" = 1 AND (x->>'k')::int - 1 > 2",
            "id IN (SELECT id FROM public.flagged) AND tags[1] = ANY (ARRAY['a', 'b'])",
            "d = date'2026-01-01' AND e1 = 1e5 AND b = b'01' AND größe > 1.5",
            "name = E'\\\\' AND f(')') > 0 AND n$1 = 7",
        ] {
            assert_eq!(Filter::parse(text).map(|it| it.0), Ok(text.into()), "{text}");
        }
        let lines = Filter::parse(" a = 'x\ny'\n  AND\r\nb ").expect("an expression");
        assert_eq!(lines.as_str(), "a = 'x\ny'   AND  b");
    }

    #[test]
    fn what_reaches_beyond_its_parentheses_is_refused() {
        use BadFilter::{Empty, Refused, TooLong, Unclosed, Unopened};
        for (text, why) in [
            ("", Empty),
            (" \n", Empty),
            ("true) OR (true", Unopened(')')),
            ("a[1) OR (b[1]", Unopened(')')),
            ("a]", Unopened(']')),
            ("true); DROP TABLE orders; SELECT (true", Unopened(')')),
            ("true; SELECT 1", Refused("a semicolon")),
            ("true -- ", Refused("a comment")),
            ("true /* ", Refused("a comment")),
            ("a = 'x", Unclosed('\'')),
            ("a = E'x\\'", Unclosed('\'')),
            ("\"a = 1", Unclosed('"')),
            ("(a = 1", Unclosed('(')),
            ("a[1", Unclosed('[')),
            ("a = $$x$$", Refused("a $")),
            ("a = $1", Refused("a $")),
            ("a = 1e'\\'' OR 'x'", Refused("a quote right behind a number")),
            ("a = 1\"b\"", Refused("a quote right behind a number")),
            ("a = 1$x$", Refused("a quote right behind a number")),
            ("a\0", Refused("a zero byte")),
        ] {
            assert_eq!(Filter::parse(text), Err(why), "{text}");
        }
        assert_eq!(Filter::parse(&"x".repeat(MAX_BYTES + 1)), Err(TooLong));
        // A string does not go on behind a line break, where a backslash would be special.
        let broken = Filter::parse("a = E'x'\n'\\' OR b = '' OR (c = '\\')'");
        assert_eq!(broken, Err(Unclosed('\'')));
    }
}
