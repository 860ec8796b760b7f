//! What happened to a registry, as lines of a log that only grows.

use serde_json::{Map, Value, json};

use super::Level;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// A schema became a version of a subject.
    Registered {
        /// The subject.
        subject: String,
        /// Its version, counted from 1.
        version: u32,
        /// The schema's id.
        id: u32,
        /// The fingerprint of the schema's text.
        fingerprint: u64,
    },
    /// A rule was given or taken away.
    Rule {
        /// Whose; none where it holds for all that have none of their own.
        subject: Option<String>,
        /// The level; none where it was taken away.
        level: Option<Level>,
    },
}

impl Line {
    /// As it is written, without its end.
    #[must_use]
    pub fn write(&self) -> String {
        match self {
            Self::Registered { subject, version, id, fingerprint } => json!({
                "subject": subject,
                "version": version,
                "id": id,
                "fingerprint": format!("{fingerprint:016x}"),
            })
            .to_string(),
            Self::Rule { subject, level } => {
                let mut line = Map::new();
                if let Some(subject) = subject {
                    line.insert("subject".to_owned(), subject.as_str().into());
                }
                line.insert("rule".to_owned(), level.map(Level::as_str).into());
                Value::Object(line).to_string()
            }
        }
    }

    /// Reads a line; none where nobody can have written it so.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let line: Map<String, Value> = serde_json::from_str(text).ok()?;
        let number = |key: &str| u32::try_from(line.get(key)?.as_u64()?).ok();
        let text = |key: &str| line.get(key)?.as_str().map(str::to_owned);
        if let Some(rule) = line.get("rule") {
            let subject = match line.get("subject") {
                None => None,
                Some(subject) => Some(subject.as_str()?.to_owned()),
            };
            let level = match rule {
                Value::Null => None,
                rule => Some(Level::parse(rule.as_str()?)?),
            };
            return Some(Self::Rule { subject, level });
        }
        Some(Self::Registered {
            subject: text("subject")?,
            version: number("version")?,
            id: number("id")?,
            fingerprint: u64::from_str_radix(&text("fingerprint")?, 16).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_again_and_half_of_it_is_not() {
        let registered = Line::Registered {
            subject: "shop.\"odd\"\n-value".to_owned(),
            version: 2,
            id: 7,
            fingerprint: 0x0123_4567_89ab_cdef,
        };
        let rules = [
            (None, Some(Level::Full)),
            (Some("a-value".to_owned()), Some(Level::None)),
            (Some("a-value".to_owned()), None),
            (None, None),
        ];
        let rules = rules.map(|(subject, level)| Line::Rule { subject, level });
        for line in [registered].into_iter().chain(rules) {
            let text = line.write();
            assert!(!text.contains('\n'), "{text:?}");
            assert_eq!(Line::read(&text), Some(line));
            for half in (0..text.len()).filter_map(|cut| text.get(..cut)) {
                assert_eq!(Line::read(half), None, "{half}");
            }
        }
    }
}
