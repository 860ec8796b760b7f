//! What is registered, and what follows from it for a schema that wants to be.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use super::{Level, Line, Schema, identity, obstacles};
use crate::checkpoint::fingerprint;

/// Everything that was registered, as its log tells it.
#[derive(Clone, Debug, Default)]
pub struct Book {
    schemas: BTreeMap<u32, Held>,
    ids: HashMap<String, u32>,
    /// Each subject's ids by version, the first one first.
    subjects: BTreeMap<String, Vec<u32>>,
    rules: BTreeMap<String, Level>,
    rule: Option<Level>,
}

#[derive(Clone, Debug)]
struct Held {
    text: String,
    schema: Schema,
    fingerprint: u64,
}

/// A schema under a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version<'a> {
    /// Counted from 1.
    pub version: u32,
    /// The schema's id.
    pub id: u32,
    /// The schema, as it was given.
    pub text: &'a str,
}

/// What becomes of a schema that is to be registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judged {
    /// It is there already, with this id.
    There(u32),
    /// It becomes this version; with the id that it has from another subject.
    New {
        /// The version it becomes.
        version: u32,
        /// The id it has.
        id: Option<u32>,
    },
}

/// Why a schema is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is no Avro.
    Invalid(String),
    /// Readers could not follow.
    Incompatible {
        /// The rule.
        level: Level,
        /// What is in their way.
        obstacles: Vec<String>,
    },
}

impl Book {
    /// The level where nobody said otherwise, as with other registries.
    pub const DEFAULT: Level = Level::Backward;

    /// What would become of a schema under a subject.
    ///
    /// # Errors
    /// Where it would not be taken.
    pub fn judge(&self, subject: &str, text: &str) -> Result<Judged, Refusal> {
        let schema = Schema::parse(text).map_err(Refusal::Invalid)?;
        let id = self.id_of(text);
        let ids = self.subjects.get(subject).map_or(&[][..], Vec::as_slice);
        if let Some(id) = id.filter(|id| ids.contains(id)) {
            return Ok(Judged::There(id));
        }
        let level = self.level_of(subject);
        let obstacles = self.obstacles(ids, level, &schema);
        if !obstacles.is_empty() {
            return Err(Refusal::Incompatible { level, obstacles });
        }
        let version = u32::try_from(ids.len()).unwrap_or(u32::MAX).saturating_add(1);
        Ok(Judged::New { version, id })
    }

    /// What stands in the way of a schema under a subject's rule: beside one version, or beside all
    /// that the rule names.
    ///
    /// # Errors
    /// What about it is no Avro.
    pub fn hinders(
        &self,
        subject: &str,
        text: &str,
        beside: Option<u32>,
    ) -> Result<Vec<String>, String> {
        let schema = Schema::parse(text)?;
        let (level, ids) = (self.level_of(subject), self.subjects.get(subject));
        let ids = ids.map_or(&[][..], Vec::as_slice);
        Ok(match beside {
            Some(id) => self.obstacles(&[id], level, &schema),
            None => self.obstacles(ids, level, &schema),
        })
    }

    fn obstacles(&self, ids: &[u32], level: Level, schema: &Schema) -> Vec<String> {
        let newest_first = ids.iter().rev();
        let counts = if level.is_transitive() { usize::MAX } else { 1 };
        let held = newest_first.take(counts).filter_map(|id| self.schemas.get(id));
        let mut found = Vec::new();
        for Held { schema: before, .. } in held {
            if level.looks_back() {
                found.extend(obstacles(schema, before));
            }
            if level.looks_forward() {
                let forward = obstacles(before, schema).into_iter();
                found.extend(forward.map(|one| format!("for readers of what is there, {one}")));
            }
        }
        found
    }

    /// The line that makes a schema a version of a subject.
    #[must_use]
    pub fn registration(&self, subject: &str, version: u32, id: u32, text: &str) -> Line {
        // One that has its id already keeps the text that it was given first.
        let known = self.schemas.get(&id).map(|held| held.fingerprint);
        let fingerprint = known.unwrap_or_else(|| fingerprint(text.as_bytes()));
        Line::Registered { subject: subject.to_owned(), version, id, fingerprint }
    }

    /// Takes a line of the log, with the text of the schema where it is one that is new.
    ///
    /// # Errors
    /// Where it cannot follow what was before, as the end of a sentence.
    pub fn take(&mut self, line: Line, text: Option<String>) -> Result<(), String> {
        let (subject, version, id, of) = match line {
            Line::Registered { subject, version, id, fingerprint } => {
                (subject, version, id, fingerprint)
            }
            Line::Rule { subject: None, level } => {
                self.rule = level;
                return Ok(());
            }
            Line::Rule { subject: Some(subject), level } => {
                match level {
                    Some(level) => self.rules.insert(subject, level),
                    None => self.rules.remove(&subject),
                };
                return Ok(());
            }
        };
        let next = self.subjects.get(&subject).map_or(0, Vec::len) + 1;
        if usize::try_from(version) != Ok(next) {
            return Err(format!("version {version} of {subject} stands where {next} belongs"));
        }
        if let Some(held) = self.schemas.get(&id) {
            if held.fingerprint != of {
                return Err(format!("id {id} stands for two schemas"));
            }
        } else {
            let text = text.ok_or_else(|| format!("the schema with id {id} is missing"))?;
            if fingerprint(text.as_bytes()) != of {
                return Err(format!("the schema with id {id} is not the one that was registered"));
            }
            let schema = Schema::parse(&text).map_err(|why| format!("schema {id}: {why}"))?;
            if let Some(identity) = identity_of(&text) {
                self.ids.entry(identity).or_insert(id);
            }
            self.schemas.insert(id, Held { text, schema, fingerprint: of });
        }
        self.subjects.entry(subject).or_default().push(id);
        Ok(())
    }

    /// Whether a schema of that id is there.
    #[must_use]
    pub fn has(&self, id: u32) -> bool {
        self.schemas.contains_key(&id)
    }

    /// The schema of an id, as it was given.
    #[must_use]
    pub fn text(&self, id: u32) -> Option<&str> {
        self.schemas.get(&id).map(|held| held.text.as_str())
    }

    /// The highest id; zero where there is none.
    #[must_use]
    pub fn newest_id(&self) -> u32 {
        self.schemas.last_key_value().map_or(0, |(id, _)| *id)
    }

    /// Every subject.
    pub fn subjects(&self) -> impl Iterator<Item = &str> {
        self.subjects.keys().map(String::as_str)
    }

    /// A subject's versions, the first one first; none where there is no such subject.
    #[must_use]
    pub fn versions(&self, subject: &str) -> Option<Vec<Version<'_>>> {
        let ids = self.subjects.get(subject)?;
        let held = ids
            .iter()
            .zip(1..)
            .filter_map(|(id, version)| Some(Version { version, id: *id, text: self.text(*id)? }));
        Some(held.collect())
    }

    /// Under which subjects, and as which versions, a schema is registered.
    pub fn places(&self, id: u32) -> impl Iterator<Item = (&str, u32)> {
        self.subjects.iter().flat_map(move |(subject, ids)| {
            let at = ids.iter().zip(1..).filter(move |(one, _)| **one == id);
            at.map(move |(_, version)| (subject.as_str(), version))
        })
    }

    /// The version of a schema under a subject.
    #[must_use]
    pub fn find(&self, subject: &str, text: &str) -> Option<Version<'_>> {
        let id = self.id_of(text)?;
        self.versions(subject)?.into_iter().find(|version| version.id == id)
    }

    /// The level that holds where a subject has none of its own.
    #[must_use]
    pub fn level(&self) -> Level {
        self.rule.unwrap_or(Self::DEFAULT)
    }

    /// The level that a subject has of its own.
    #[must_use]
    pub fn own_level(&self, subject: &str) -> Option<Level> {
        self.rules.get(subject).copied()
    }

    fn level_of(&self, subject: &str) -> Level {
        self.own_level(subject).unwrap_or_else(|| self.level())
    }

    fn id_of(&self, text: &str) -> Option<u32> {
        self.ids.get(&identity_of(text)?).copied()
    }
}

fn identity_of(text: &str) -> Option<String> {
    serde_json::from_str::<Value>(text).ok().map(|json| identity(&json))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: &str = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"long"}]}"#;
    const INT: &str = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"int"}]}"#;
    const TEXT: &str = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"string"}]}"#;

    /// As the daemon does it: judged, given an id, written down, taken.
    fn register(book: &mut Book, subject: &str, text: &str) -> Result<u32, Refusal> {
        let (version, id) = match book.judge(subject, text)? {
            Judged::There(id) => return Ok(id),
            Judged::New { version, id } => (version, id.unwrap_or(book.newest_id() + 1)),
        };
        let line = book.registration(subject, version, id, text);
        book.take(line, Some(text.to_owned())).expect("it follows");
        Ok(id)
    }

    fn rule(book: &mut Book, subject: Option<&str>, level: Option<Level>) {
        let subject = subject.map(str::to_owned);
        book.take(Line::Rule { subject, level }, None).expect("a rule");
    }

    #[test]
    fn a_schema_has_one_id_under_all_subjects() {
        let mut book = Book::default();
        assert_eq!(register(&mut book, "a", INT), Ok(1));
        assert_eq!(register(&mut book, "b", LONG), Ok(2));
        let spread = INT.replace(':', " : ");
        assert_eq!(register(&mut book, "c", &spread), Ok(1));
        assert_eq!(register(&mut book, "a", LONG), Ok(2));
        assert_eq!(register(&mut book, "a", INT), Ok(1), "as before");
        assert_eq!(book.places(2).collect::<Vec<_>>(), [("a", 2), ("b", 1)]);
        assert_eq!(book.find("a", &spread).map(|found| (found.version, found.id)), Some((1, 1)));
        assert_eq!(book.find("b", INT), None);
    }

    #[test]
    fn each_level_looks_where_it_says() {
        use Level::{
            Backward, BackwardTransitive, Forward, ForwardTransitive, Full, FullTransitive,
            None as Any,
        };
        // What is there, what comes, and the levels that take it.
        for (there, comes, takes) in [
            (&[INT][..], LONG, &[Any, Backward, BackwardTransitive][..]),
            (&[LONG], INT, &[Any, Forward, ForwardTransitive]),
            (&[LONG], TEXT, &[Any]),
            // The last one alone is no obstacle.
            (&[TEXT, INT], LONG, &[Any, Backward]),
            (&[TEXT, LONG], INT, &[Any, Forward]),
            (
                &[],
                TEXT,
                &[
                    Any,
                    Backward,
                    BackwardTransitive,
                    Forward,
                    ForwardTransitive,
                    Full,
                    FullTransitive,
                ],
            ),
        ] {
            for level in Level::ALL {
                let mut book = Book::default();
                rule(&mut book, Some("s"), Some(Any));
                for text in there {
                    register(&mut book, "s", text).expect("anything goes");
                }
                rule(&mut book, Some("s"), Some(level));
                let taken = book.judge("s", comes).is_ok();
                assert_eq!(taken, takes.contains(&level), "{there:?} then {comes} at {level:?}");
            }
        }
    }

    #[test]
    fn a_subject_without_a_rule_has_that_of_all() {
        let mut book = Book::default();
        register(&mut book, "s", LONG).expect("the first");
        assert_eq!(book.level(), Level::Backward);
        let refused = book.judge("s", TEXT);
        assert!(matches!(refused, Err(Refusal::Incompatible { level: Level::Backward, .. })));
        rule(&mut book, None, Some(Level::None));
        assert!(book.judge("s", TEXT).is_ok());
        rule(&mut book, Some("s"), Some(Level::Full));
        assert!(book.judge("s", TEXT).is_err());
        rule(&mut book, Some("s"), None);
        assert!(book.judge("s", TEXT).is_ok());
    }

    #[test]
    fn a_log_that_contradicts_itself_is_not_followed() {
        let mut book = Book::default();
        register(&mut book, "s", INT).expect("the first");
        let line = |version: u32, id: u32, text: &str| Line::Registered {
            subject: "s".to_owned(),
            version,
            id,
            fingerprint: fingerprint(text.as_bytes()),
        };
        for (line, text, told) in [
            (line(3, 2, LONG), Some(LONG), "version 3 of s stands where 2 belongs"),
            (line(2, 1, LONG), Some(LONG), "id 1 stands for two schemas"),
            (line(2, 2, LONG), None, "the schema with id 2 is missing"),
            (line(2, 2, LONG), Some(TEXT), "is not the one that was registered"),
        ] {
            let error = book.take(line, text.map(str::to_owned)).expect_err(told);
            assert!(error.contains(told), "{error}");
        }
        assert_eq!(book.versions("s").map(|found| found.len()), Some(1));
    }
}
