//! What the keys of `source` mean.

use std::path::PathBuf;

use crate::config::error::Kind;
use crate::config::reading::{At, Given, Key};
use crate::config::scalars::Url;
use crate::config::secret::{Credential, Secret};
use crate::config::settled::{Replica, Source};
use crate::config::tables::{MAX_IDENTIFIER_BYTES, TablePattern};
use crate::config::typed::{self, Texts, value_or};
use crate::config::url::DatabaseUrl;

use super::{DEFAULT_NAME_PREFIX, Settling};

/// What libpq and its friends call the password.
const PASSWORD_VARIABLE: &str = "PGPASSWORD";

impl Settling<'_> {
    pub(super) fn source(
        &mut self,
        pipeline: &str,
        given: &Given<typed::Source>,
        messages: &Key<bool>,
    ) -> Option<Source> {
        let Given { value: typed, at } = given;
        let url = self.database_url(&typed.url, at);
        let keys = (&typed.password_file, &typed.password_command);
        let password = self.database_password(keys, url.as_ref());
        let tables = typed.tables.required("tables", at, self.problems);
        let tables = tables.and_then(|given| {
            if given.value.is_empty() {
                let error = given.at.error(Kind::InvalidValue, "no table is named");
                self.problems.add(error.help("`[public.*]` captures all tables of a schema"));
            }
            self.patterns(&given.value)
        });
        let exclude = match &typed.exclude {
            Key::Given(given) => self.patterns(&given.value),
            Key::Absent => Some(Vec::new()),
            Key::Broken => None,
        };
        let default = format!("{DEFAULT_NAME_PREFIX}{}", pipeline.replace('-', "_"));
        let slot = self.slot(&typed.slot, &default);
        let publication = self.publication(&typed.publication, &default);
        let streaming = self.streaming(&typed.streaming, value_or(messages, false));
        Some(Source {
            url: url?,
            password: password?,
            tables: tables?,
            exclude: exclude?,
            slot: slot?,
            publication: publication?,
            failover: value_or(&typed.failover, false),
            streaming,
            binary: value_or(&typed.binary, true),
        })
    }

    /// Inside a stream a message of a subtransaction that is rolled back cannot be told from others.
    fn streaming(&mut self, typed: &Key<bool>, messages: bool) -> bool {
        if let Key::Given(given) = typed
            && given.value
            && messages
        {
            let error = given.at.key_error(Kind::Conflict, "`messages` cannot be read with this");
            self.problems.add(error.help("take one of them away"));
        }
        value_or(typed, !messages)
    }

    /// A replica of the source.
    pub(super) fn replica(&mut self, given: &Given<typed::Replica>) -> Option<Replica> {
        let Given { value: typed, at } = given;
        let url = self.database_url(&typed.url, at);
        let keys = (&typed.password_file, &typed.password_command);
        let password = self.database_password(keys, url.as_ref());
        Some(Replica { url: url?, password: password? })
    }

    fn database_url(&mut self, typed: &Key<Url>, at: &At) -> Option<DatabaseUrl> {
        let given = typed.required("url", at, self.problems)?;
        let parsed = DatabaseUrl::parse(given.value.0.expose(), &given.at);
        self.problems.check(parsed.map_err(|why| given.at.error(Kind::InvalidValue, why)))
    }

    fn database_password(
        &mut self,
        (file, command): (&Key<PathBuf>, &Key<Texts>),
        url: Option<&DatabaseUrl>,
    ) -> Option<Option<Credential>> {
        let (credential, at) = match (file, command) {
            (Key::Broken, _) | (_, Key::Broken) => return None,
            (Key::Given(_), Key::Given(command)) => {
                let message = "the password is given twice: here and as `password_file`";
                let error = command.at.key_error(Kind::Conflict, message);
                self.problems.add(error.help("keep one of them"));
                return None;
            }
            (Key::Given(file), Key::Absent) => (Credential::File(file.value.clone()), &file.at),
            (Key::Absent, Key::Given(command)) => (self.command(command)?, &command.at),
            (Key::Absent, Key::Absent) => {
                let given = self.environment.get(PASSWORD_VARIABLE).filter(|text| !text.is_empty());
                let needed = !url.is_some_and(DatabaseUrl::has_password);
                return Some(
                    given.filter(|_| needed).map(|text| Credential::Inline(Secret::new(text))),
                );
            }
        };
        if url.is_some_and(DatabaseUrl::has_password) {
            let message = "the password is given twice: here and in `url`";
            let error = at.key_error(Kind::Conflict, message);
            self.problems.add(error.help("take it out of the URL"));
        }
        Some(Some(credential))
    }

    /// A command that prints a secret.
    pub(super) fn command(&mut self, given: &Given<Texts>) -> Option<Credential> {
        let words: Vec<String> = given.value.iter().map(|word| word.value.clone()).collect();
        if words.first().is_none_or(String::is_empty) {
            let error = given.at.error(Kind::InvalidValue, "no program is named");
            self.problems.add(error.help("write the program and its arguments: [print-it, --now]"));
            return None;
        }
        Some(Credential::Command(words))
    }

    fn patterns(&mut self, typed: &Texts) -> Option<Vec<TablePattern>> {
        let patterns = typed.iter().map(|Given { value, at }| {
            let parsed = TablePattern::parse(value).map_err(|why| {
                at.error(Kind::InvalidValue, format!("this is no pattern of tables: {why}"))
                    .help("write `schema.table`, where `*` stands for any characters: `public.*`")
            });
            self.problems.check(parsed)
        });
        let patterns: Vec<_> = patterns.collect();
        patterns.into_iter().collect()
    }

    fn slot(&mut self, typed: &Key<String>, default: &str) -> Option<String> {
        let given = match typed {
            Key::Absent => return Some(default.to_owned()),
            Key::Broken => return None,
            Key::Given(given) => given,
        };
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        if given.value.len() <= MAX_IDENTIFIER_BYTES && given.value.bytes().all(legal) {
            return Some(given.value.clone());
        }
        let error = given.at.error(Kind::InvalidValue, "Postgres takes no slot of this name");
        self.problems.add(error.help(format!(
            "a slot's name is made of lower-case letters, digits and `_`, up to {MAX_IDENTIFIER_BYTES} \
             characters"
        )));
        None
    }

    fn publication(&mut self, typed: &Key<String>, default: &str) -> Option<String> {
        match typed {
            Key::Absent => Some(default.to_owned()),
            Key::Broken => None,
            Key::Given(given) if given.value.len() <= MAX_IDENTIFIER_BYTES => {
                Some(given.value.clone())
            }
            Key::Given(given) => {
                let message =
                    format!("a name in Postgres has at most {MAX_IDENTIFIER_BYTES} bytes");
                self.problems.add(given.at.error(Kind::InvalidValue, message));
                None
            }
        }
    }
}
