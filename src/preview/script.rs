//! A file of SQL as its statements, as psql would send them.
//!
//! A migration may hold what no transaction takes (`CREATE INDEX CONCURRENTLY`) beside transactions
//! of its own, so it is sent one statement after the other, and where it fails is told by line.

use std::fmt;

/// One statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Statement<'a> {
    /// Where it begins, from 1.
    pub(crate) line: usize,
    /// Without what stands before it, and without the semicolon.
    pub(crate) text: &'a str,
    /// Its first words, in upper case.
    pub(crate) words: Vec<String>,
}

/// Why a file cannot be taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable {
    pub(crate) line: usize,
    pub(crate) what: String,
}

/// More words than decide what a statement is.
const WORDS: usize = 6;

/// Commands of psql that change nothing of what is run: they are passed over.
const HARMLESS: [&str; 9] =
    ["restrict", "unrestrict", "set", "unset", "echo", "qecho", "timing", "pset", "encoding"];

impl Statement<'_> {
    /// Whether it begins with these words; `|` stands between words that will do.
    pub(crate) fn is(&self, pattern: &str) -> bool {
        let wanted = pattern.split(' ');
        let mut words = self.words.iter();
        wanted
            .into_iter()
            .all(|wanted| words.next().is_some_and(|word| wanted.split('|').any(|one| one == word)))
    }

    /// Its beginning, for a person.
    pub(crate) fn brief(&self) -> String {
        let line: Vec<&str> = self.text.split_whitespace().collect();
        let line = line.join(" ");
        match line.char_indices().nth(100) {
            Some((end, _)) => format!("{}...", line.get(..end).unwrap_or_default()),
            None => line,
        }
    }
}

impl fmt::Display for Statement<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.brief())
    }
}

/// Takes a file apart. Lines of data behind a COPY are left out: data changes no schema.
pub(crate) fn statements(text: &str) -> Result<Vec<Statement<'_>>, Unreadable> {
    let mut reader = Reader { text, at: 0, line: 1 };
    let mut found = Vec::new();
    while let Some(statement) = reader.next()? {
        if statement.is("COPY") && statement.text.to_uppercase().contains("FROM STDIN") {
            reader.skip_data();
        }
        found.push(statement);
    }
    Ok(found)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    line: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn step(&mut self, len: usize) {
        let passed = self.rest().get(..len).unwrap_or_default();
        self.line += passed.matches('\n').count();
        self.at += len;
    }

    fn wrong<T>(&self, line: usize, what: impl Into<String>) -> Result<T, Unreadable> {
        Err(Unreadable { line, what: what.into() })
    }

    fn next(&mut self) -> Result<Option<Statement<'a>>, Unreadable> {
        let mut begun: Option<(usize, usize)> = None;
        let mut words: Vec<String> = Vec::new();
        // Parentheses, and bodies of SQL functions (BEGIN ATOMIC ... END), hold semicolons.
        let (mut parens, mut bodies) = (0_usize, 0_usize);
        while let Some(char) = self.rest().chars().next() {
            let rest = self.rest();
            if char.is_whitespace() {
                self.step(char.len_utf8());
                continue;
            }
            if rest.starts_with("--") {
                self.step(rest.find('\n').unwrap_or(rest.len()));
                continue;
            }
            if rest.starts_with("/*") {
                self.comment()?;
                continue;
            }
            if char == '\\' {
                self.command(begun.is_some())?;
                continue;
            }
            if char == ';' && parens == 0 && bodies == 0 {
                let end = self.at;
                self.step(1);
                match begun {
                    Some((start, line)) => return Ok(Some(self.made(start, end, line, words))),
                    None => continue,
                }
            }
            begun = begun.or(Some((self.at, self.line)));
            match char {
                '\'' => self.quoted('\'', false)?,
                '"' => self.quoted('"', false)?,
                '$' => self.dollars()?,
                '(' => (parens, ()) = (parens + 1, self.step(1)),
                ')' => (parens, ()) = (parens.saturating_sub(1), self.step(1)),
                _ if is_of_word(char) => {
                    let word = self.word()?;
                    if has_body(&words) {
                        match word.as_str() {
                            "BEGIN" => bodies += 1,
                            "CASE" if bodies > 0 => bodies += 1,
                            "END" => bodies = bodies.saturating_sub(1),
                            _ => {}
                        }
                    }
                    if words.len() < WORDS {
                        words.push(word);
                    }
                }
                _ => self.step(char.len_utf8()),
            }
        }
        Ok(begun.map(|(start, line)| self.made(start, self.at, line, words)))
    }

    fn made(&self, start: usize, end: usize, line: usize, words: Vec<String>) -> Statement<'a> {
        let text = self.text.get(start..end).unwrap_or_default().trim_end();
        Statement { line, text, words }
    }

    /// A word in upper case; behind a lone `e` a string with escapes may follow.
    fn word(&mut self) -> Result<String, Unreadable> {
        let rest = self.rest();
        let len = rest.find(|char| !is_of_word(char) && char != '$').unwrap_or(rest.len());
        let word = rest.get(..len).unwrap_or_default().to_uppercase();
        self.step(len);
        if word == "E" && self.rest().starts_with('\'') {
            self.quoted('\'', true)?;
        }
        Ok(word)
    }

    /// A quote inside is doubled: it ends one string and begins another, which comes to the same.
    fn quoted(&mut self, quote: char, escapes: bool) -> Result<(), Unreadable> {
        let line = self.line;
        let mut escaped = false;
        let inside = self.rest().char_indices().skip(1);
        for (at, char) in inside {
            if escaped {
                escaped = false;
            } else if escapes && char == '\\' {
                escaped = true;
            } else if char == quote {
                self.step(at + 1);
                return Ok(());
            }
        }
        self.wrong(line, format!("what is quoted with {quote} has no end"))
    }

    fn dollars(&mut self) -> Result<(), Unreadable> {
        let rest = self.rest();
        let tag = rest.get(1..).and_then(|inside| {
            let end = inside.find(|char| !is_of_word(char))?;
            let is_tag = inside.get(end..)?.starts_with('$')
                && !inside.starts_with(|char: char| char.is_ascii_digit());
            is_tag.then_some(end + 2)
        });
        // A parameter such as $1.
        let Some(tag) = tag else {
            self.step(1);
            return Ok(());
        };
        let (open, inside) = (rest.get(..tag).unwrap_or_default(), rest.get(tag..));
        match inside.and_then(|inside| inside.find(open)) {
            Some(end) => self.step(end + 2 * tag),
            None => return self.wrong(self.line, format!("what is quoted with {open} has no end")),
        }
        Ok(())
    }

    fn comment(&mut self) -> Result<(), Unreadable> {
        let line = self.line;
        let mut depth = 0_usize;
        loop {
            let rest = self.rest();
            if rest.starts_with("/*") {
                (depth, ()) = (depth + 1, self.step(2));
            } else if rest.starts_with("*/") {
                (depth, ()) = (depth - 1, self.step(2));
                if depth == 0 {
                    return Ok(());
                }
            } else if let Some(char) = rest.chars().next() {
                self.step(char.len_utf8());
            } else {
                return self.wrong(line, "a comment has no end");
            }
        }
    }

    fn command(&mut self, amid: bool) -> Result<(), Unreadable> {
        let rest = self.rest();
        let line = rest.lines().next().unwrap_or_default();
        let name = line.get(1..).and_then(|line| line.split_whitespace().next());
        let name = name.unwrap_or_default();
        if amid || !HARMLESS.contains(&name) {
            let what = format!("psql's \\{name} is not understood: write what it does as SQL");
            return self.wrong(self.line, what);
        }
        self.step(line.len());
        Ok(())
    }

    /// The lines of data, up to the one that ends them.
    fn skip_data(&mut self) {
        let mut len = 0;
        for line in self.rest().split_inclusive('\n') {
            len += line.len();
            if line.trim_end() == "\\." {
                break;
            }
        }
        self.step(len);
    }
}

fn is_of_word(char: char) -> bool {
    char.is_alphanumeric() || char == '_'
}

/// Whether what begins so may have a body between BEGIN ATOMIC and END.
fn has_body(words: &[String]) -> bool {
    let mut words =
        words.iter().map(String::as_str).filter(|word| !["OR", "REPLACE"].contains(word));
    words.next() == Some("CREATE") && matches!(words.next(), Some("FUNCTION" | "PROCEDURE"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(usize, &str)> {
        let found = statements(text).expect("statements");
        found.into_iter().map(|one| (one.line, one.text)).collect()
    }

    #[test]
    fn what_holds_a_semicolon_is_one_statement() {
        for one in [
            "SELECT 'a;b', 'it''s;'",
            r"SELECT E'it\'s;', e'\\'",
            r"SELECT 'a\', ';'",
            "SELECT \"a;\"\"b;\" FROM t",
            "DO $$ BEGIN PERFORM 1; END; $$",
            "DO $a$ SELECT '$$;' $a$",
            "SELECT $1, a$b, $tag$;$tag$",
            "SELECT 1 -- one; two\n + 2",
            "SELECT /* a; /* b; */ c; */ 1",
            "CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2)",
            "CREATE OR REPLACE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT CASE WHEN \
             true THEN 1 ELSE 2 END; END",
        ] {
            assert_eq!(
                found(&format!("{one};\nSELECT 2")),
                [(1, one), (2 + one.matches('\n').count(), "SELECT 2")]
            );
        }
    }

    #[test]
    fn a_statement_begins_behind_what_says_nothing() {
        let text = "\n-- why\n/* and\nhow */ ;; BEGIN;\n  ALTER TABLE t\n ADD a int ;\nCOMMIT;\n";
        assert_eq!(found(text), [(4, "BEGIN"), (5, "ALTER TABLE t\n ADD a int"), (7, "COMMIT")]);
    }

    #[test]
    fn data_is_left_out_and_commands_of_psql_are_as_far_as_they_do_nothing() {
        let text =
            "\\restrict x\n\\set ON_ERROR_STOP on\nCOPY t (a) FROM stdin;\n1;\n'2\n\\.\nSELECT 3;";
        assert_eq!(found(text), [(3, "COPY t (a) FROM stdin"), (7, "SELECT 3")]);
        let error = statements("SELECT 1;\n\\i other.sql\n").expect_err("a file");
        assert_eq!((error.line, error.what.contains("\\i")), (2, true));
        assert!(statements("SELECT 1 \\gexec\n").is_err());
    }

    #[test]
    fn what_has_no_end_is_told_with_its_line() {
        for (text, line) in
            [("SELECT 1;\n'a", 2), ("\"a", 1), ("\n\n$$ a", 3), ("/* /* */", 1), ("$a$ $$", 1)]
        {
            assert_eq!(statements(text).map_err(|error| error.line), Err(line), "{text}");
        }
    }

    #[test]
    fn words_tell_what_a_statement_is() {
        let found = statements("alter  /* */ role \"Bob\" password 'x'").expect("one");
        assert!(found[0].is("CREATE|ALTER ROLE|USER") && !found[0].is("ALTER TABLE"));
        assert!(!found[0].is("ALTER ROLE PASSWORD RENAME"));
    }
}
