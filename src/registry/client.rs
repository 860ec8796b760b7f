//! A thin client of the registry's API.
//!
//! Registering is idempotent: the same schema under the same subject gets the same id, so every
//! start asks again and nothing about ids needs to be remembered between starts.

use std::collections::HashMap;
use std::sync::Arc;

use reqwest::Method;
use serde_json::{Value, json};

use super::transport::{Question, Settings, quote};
use super::way::Way;
use crate::status::Calls;

/// The number that stands before every record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SchemaId(pub u32);

/// A failure of the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// Nothing answers.
    Unreachable {
        /// What was said.
        reason: String,
    },
    /// 401 or 403.
    Authentication {
        /// The status.
        status: u16,
    },
    /// The server that gives tokens does not give us one.
    Token {
        /// Where it was asked.
        url: String,
        /// The status.
        status: u16,
    },
    /// 409: the change breaks the subject's compatibility rule.
    Incompatible {
        /// The subject.
        subject: String,
        /// What the registry found.
        reason: String,
    },
    /// 404: it knows no such subject, version or schema.
    Unknown {
        /// The subject.
        subject: String,
        /// What the registry said.
        reason: String,
    },
    /// 422: it cannot read the schema, or its rules forbid it.
    Invalid {
        /// The subject.
        subject: String,
        /// What the registry found.
        reason: String,
    },
    /// Something answers that is not a registry.
    Foreign {
        /// What it was.
        reason: String,
    },
    /// 429 or 5xx.
    Failing {
        /// The status.
        status: u16,
        /// What it said.
        reason: String,
    },
    /// The directory of our own registry cannot be read or written.
    Directory {
        /// Where it is.
        path: String,
        /// What the file system says.
        reason: String,
    },
    /// The directory of our own registry does not hold what was written.
    Damaged {
        /// Where it is.
        path: String,
        /// How that shows.
        reason: String,
    },
    /// The URL or a setting cannot be used.
    Settings {
        /// Why.
        reason: String,
    },
}

impl Error {
    /// Whether nobody has said anything about what was asked: it may be said later.
    #[must_use]
    pub const fn is_away(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Failing { .. })
    }
}

/// What the registry would say to a schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It would take it.
    Taken,
    /// It would not.
    Refused {
        /// What it says.
        reasons: Vec<String>,
    },
}

/// A client with the ids it has learnt.
#[derive(Debug)]
pub struct Client {
    way: Way,
    known: HashMap<(String, String), SchemaId>,
    refused: HashMap<String, Refused>,
    calls: Arc<Calls>,
}

/// The last schema of a subject that the registry refused, and what it said then.
#[derive(Debug)]
struct Refused {
    schema: String,
    error: Error,
}

impl Client {
    /// A client that has not yet asked for anything.
    ///
    /// # Errors
    /// Where the URL or TLS cannot be used.
    pub fn new(settings: Settings) -> Result<Self, Error> {
        let way = Way::new(settings)?;
        let (known, refused) = (HashMap::new(), HashMap::new());
        Ok(Self { way, known, refused, calls: Arc::default() })
    }

    /// Counts its requests there.
    #[must_use]
    pub fn counted(self, calls: Arc<Calls>) -> Self {
        Self { calls, ..self }
    }

    /// Reads certificates again; what is known stays known.
    ///
    /// # Errors
    /// Where they cannot be used.
    pub fn renew(&mut self) -> Result<(), Error> {
        self.way.renew()
    }

    /// Where the registry is, for messages.
    #[must_use]
    pub fn url(&self) -> &str {
        self.way.url()
    }

    /// Asks something cheap, to learn whether there is a registry that lets us in.
    ///
    /// # Errors
    /// Where there is not.
    pub async fn probe(&self) -> Result<(), Error> {
        self.compatibility().await.map(drop)
    }

    /// The level of compatibility that holds where a subject has none of its own.
    ///
    /// # Errors
    /// Where there is no registry that lets us in.
    pub async fn compatibility(&self) -> Result<String, Error> {
        let answer = self.get(&["config"], "").await?;
        let level = answer.get("compatibilityLevel").and_then(Value::as_str);
        level.map(ToOwned::to_owned).ok_or_else(|| Error::Foreign {
            reason: "GET /config names no compatibilityLevel".to_owned(),
        })
    }

    /// Whether it takes schemas: `READWRITE`, or it does not.
    ///
    /// # Errors
    /// Where it has no such thing, or does not answer.
    pub async fn mode(&self) -> Result<String, Error> {
        let answer = self.get(&["mode"], "").await?;
        let mode = answer.get("mode").and_then(Value::as_str);
        mode.map(ToOwned::to_owned)
            .ok_or_else(|| Error::Foreign { reason: "GET /mode names no mode".to_owned() })
    }

    /// The id of a schema under a subject, registered now if it was not before.
    ///
    /// # Errors
    /// Where the registry refuses it or does not answer.
    pub async fn register(&mut self, subject: &str, schema: &str) -> Result<SchemaId, Error> {
        let key = (subject.to_owned(), schema.to_owned());
        if let Some(id) = self.known.get(&key) {
            return Ok(*id);
        }
        let body = json!({ "schema": schema });
        let question = Question {
            method: Method::POST,
            path: &["subjects", subject, "versions"],
            query: None,
            body: Some(&body),
            subject,
        };
        let answer = match self.ask(&question).await {
            Ok(answer) => answer,
            Err(error) => return Err(self.in_the_same_words(subject, schema, error)),
        };
        let id = id_in(&answer)?;
        self.known.insert(key, id);
        self.refused.remove(subject);
        Ok(id)
    }

    /// The id of a schema under a subject, unless it was never registered there. Registers nothing.
    ///
    /// # Errors
    /// Where the registry does not answer.
    pub async fn look_up(
        &mut self,
        subject: &str,
        schema: &str,
    ) -> Result<Option<SchemaId>, Error> {
        let key = (subject.to_owned(), schema.to_owned());
        if let Some(id) = self.known.get(&key) {
            return Ok(Some(*id));
        }
        let body = json!({ "schema": schema });
        let question = Question {
            method: Method::POST,
            path: &["subjects", subject],
            query: None,
            body: Some(&body),
            subject,
        };
        match self.ask(&question).await {
            Ok(answer) => {
                let id = id_in(&answer)?;
                self.known.insert(key, id);
                Ok(Some(id))
            }
            Err(Error::Unknown { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Forgets an id, so that it is asked for again.
    pub fn forget(&mut self, subject: &str, schema: &str) {
        self.known.remove(&(subject.to_owned(), schema.to_owned()));
    }

    /// Whether it has a schema of that id.
    ///
    /// # Errors
    /// Where the registry does not answer.
    pub async fn has(&self, id: SchemaId) -> Result<bool, Error> {
        match self.get(&["schemas", "ids", &id.0.to_string()], "").await {
            Ok(_) => Ok(true),
            Err(Error::Unknown { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The schema of that id; none where there is none.
    ///
    /// # Errors
    /// Where the registry does not answer.
    pub async fn schema(&self, id: SchemaId) -> Result<Option<String>, Error> {
        let answer = match self.get(&["schemas", "ids", &id.0.to_string()], "").await {
            Ok(answer) => answer,
            Err(Error::Unknown { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let schema = answer.get("schema").and_then(Value::as_str);
        schema.map(|schema| Some(schema.to_owned())).ok_or_else(|| Error::Foreign {
            reason: format!("no schema in: {}", quote(&answer.to_string())),
        })
    }

    /// The newest schema of a subject.
    ///
    /// # Errors
    /// Where there is none, or the registry does not answer.
    pub async fn latest(&self, subject: &str) -> Result<String, Error> {
        let answer = self.get(&["subjects", subject, "versions", "latest"], subject).await?;
        let schema = answer.get("schema").and_then(Value::as_str);
        schema.map(ToOwned::to_owned).ok_or_else(|| Error::Foreign {
            reason: format!("no schema in: {}", quote(&answer.to_string())),
        })
    }

    /// Whether the registry would take a schema for a subject that has some. Registers nothing.
    ///
    /// # Errors
    /// Where the registry does not answer.
    pub async fn would_take(&self, subject: &str, schema: &str) -> Result<Verdict, Error> {
        let body = json!({ "schema": schema });
        let question = Question {
            method: Method::POST,
            path: &["compatibility", "subjects", subject, "versions", "latest"],
            // The reasons as well.
            query: Some("verbose=true"),
            body: Some(&body),
            subject,
        };
        let answer = self.ask(&question).await?;
        match answer.get("is_compatible").and_then(Value::as_bool) {
            Some(true) => Ok(Verdict::Taken),
            Some(false) => {
                let said = answer.get("messages").and_then(Value::as_array);
                let said = said.into_iter().flatten().filter_map(Value::as_str);
                Ok(Verdict::Refused { reasons: said.map(quote).collect() })
            }
            None => Err(Error::Foreign {
                reason: format!("no verdict in: {}", quote(&answer.to_string())),
            }),
        }
    }

    /// Registers a schema that breaks its subject's rule: the rule is lifted and put back.
    ///
    /// # Errors
    /// Where the registry refuses or does not answer. The rule is put back then as well, if the
    /// registry can still be asked.
    pub async fn force(&mut self, subject: &str, schema: &str) -> Result<SchemaId, Error> {
        let own = match self.get(&["config", subject], subject).await {
            Ok(answer) => {
                answer.get("compatibilityLevel").and_then(Value::as_str).map(str::to_owned)
            }
            Err(Error::Unknown { .. }) => None,
            Err(error) => return Err(error),
        };
        self.set_rule(subject, Some("NONE")).await?;
        let registered = self.register(subject, schema).await;
        let restored = self.set_rule(subject, own.as_deref()).await;
        let id = registered?;
        restored.map(|()| id)
    }

    /// Gives a subject a rule of its own, or takes it away.
    async fn set_rule(&self, subject: &str, rule: Option<&str>) -> Result<(), Error> {
        let body = rule.map(|rule| json!({ "compatibility": rule }));
        let method = if body.is_some() { Method::PUT } else { Method::DELETE };
        let path = &["config", subject];
        let asked = Question { method, path, query: None, body: body.as_ref(), subject };
        self.ask(&asked).await.map(drop)
    }

    /// A registry may list what is incompatible in another order each time it is asked. The same
    /// refusal is told in the same words, or it would look like a new one.
    fn in_the_same_words(&mut self, subject: &str, schema: &str, error: Error) -> Error {
        if !matches!(error, Error::Incompatible { .. } | Error::Invalid { .. }) {
            return error;
        }
        let same = |last: &&Refused| {
            last.schema == schema
                && std::mem::discriminant(&last.error) == std::mem::discriminant(&error)
        };
        if let Some(last) = self.refused.get(subject).filter(same) {
            return last.error.clone();
        }
        let refused = Refused { schema: schema.to_owned(), error: error.clone() };
        self.refused.insert(subject.to_owned(), refused);
        error
    }

    async fn get(&self, path: &[&str], subject: &str) -> Result<Value, Error> {
        self.ask(&Question { method: Method::GET, path, query: None, body: None, subject }).await
    }

    async fn ask(&self, question: &Question<'_>) -> Result<Value, Error> {
        let answer = self.way.ask(question).await;
        // That it knows of nothing is an answer.
        self.calls.count(matches!(answer, Ok(_) | Err(Error::Unknown { .. })));
        answer
    }
}

fn id_in(answer: &Value) -> Result<SchemaId, Error> {
    let id = answer.get("id").and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());
    id.map(SchemaId).ok_or_else(|| Error::Foreign {
        reason: format!("no id in: {}", quote(&answer.to_string())),
    })
}
