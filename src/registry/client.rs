//! A thin client of the registry's HTTP API.
//!
//! Registering is idempotent: the same schema under the same subject gets the same id, so every
//! start asks again and nothing about ids needs to be remembered between starts.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::status::Calls;

use crate::credential::Credential;

/// How long the registry may take for one answer. `run` promises to name a registry that is away
/// within ten seconds.
const ANSWER: Duration = Duration::from_secs(5);

/// How long a connection may take to come up.
const CONNECT: Duration = Duration::from_secs(3);

/// Answers are small; what is longer is not a registry's.
const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024;

/// Of an answer, how much a message may quote: registries begin with their own names for things,
/// and what is incompatible comes last.
const MAX_QUOTED_CHARS: usize = 500;

/// The number that stands before every record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SchemaId(pub u32);

/// How the registry knows us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Authentication {
    /// Not at all.
    #[default]
    None,
    /// User and password.
    Basic {
        /// The user.
        username: String,
        /// The password.
        password: Credential,
    },
    /// A token.
    Bearer(Credential),
}

/// How the registry is reached.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where its API begins, without credentials.
    pub url: String,
    /// How it knows us.
    pub authentication: Authentication,
}

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
    /// 409: the change breaks the subject's compatibility rule.
    Incompatible {
        /// The subject.
        subject: String,
        /// What the registry found.
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
    /// The URL or a setting cannot be used.
    Settings {
        /// Why.
        reason: String,
    },
}

/// A client with the ids it has learnt.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    settings: Settings,
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
        let wrong = |reason: String| Error::Settings { reason };
        let url = reqwest::Url::parse(&settings.url).map_err(|error| wrong(error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong(format!("the scheme must be http or https, not {}", url.scheme())));
        }
        let http = reqwest::Client::builder()
            .timeout(ANSWER)
            .connect_timeout(CONNECT)
            .user_agent(concat!("waltide/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| wrong(chain(&error)))?;
        let (known, refused) = (HashMap::new(), HashMap::new());
        Ok(Self { http, settings, known, refused, calls: Arc::default() })
    }

    /// Counts its requests there.
    #[must_use]
    pub fn counted(self, calls: Arc<Calls>) -> Self {
        Self { calls, ..self }
    }

    /// Where the registry is, for messages.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.settings.url
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
        let answer = self.ask(self.request(Method::GET, &["config"])?, "").await?;
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
        let answer = self.ask(self.request(Method::GET, &["mode"])?, "").await?;
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
        let request = self
            .request(Method::POST, &["subjects", subject, "versions"])?
            .json(&json!({ "schema": schema }));
        let answer = match self.ask(request, subject).await {
            Ok(answer) => answer,
            Err(error) => return Err(self.in_the_same_words(subject, schema, error)),
        };
        let id = answer
            .get("id")
            .and_then(Value::as_u64)
            .and_then(|id| u32::try_from(id).ok())
            .map(SchemaId)
            .ok_or_else(|| Error::Foreign {
                reason: format!("no id in: {}", quote(&answer.to_string())),
            })?;
        self.known.insert(key, id);
        self.refused.remove(subject);
        Ok(id)
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

    fn request(&self, method: Method, path: &[&str]) -> Result<RequestBuilder, Error> {
        let mut url = reqwest::Url::parse(&self.settings.url)
            .map_err(|error| Error::Settings { reason: error.to_string() })?;
        url.path_segments_mut()
            .map_err(|()| Error::Settings { reason: "the URL has no path".to_owned() })?
            .pop_if_empty()
            .extend(path);
        let request = self
            .http
            .request(method, url)
            .header("content-type", "application/vnd.schemaregistry.v1+json")
            .header("accept", "application/vnd.schemaregistry.v1+json, application/json");
        // Read again each time: requests are few, and it may have changed.
        let read = |credential: &Credential| {
            credential.read_named().map_err(|reason| Error::Settings { reason })
        };
        Ok(match &self.settings.authentication {
            Authentication::None => request,
            Authentication::Basic { username, password } => {
                request.basic_auth(username, Some(read(password)?.expose()))
            }
            Authentication::Bearer(token) => request.bearer_auth(read(token)?.expose()),
        })
    }

    async fn ask(&self, request: RequestBuilder, subject: &str) -> Result<Value, Error> {
        let answer = self.answer(request, subject).await;
        self.calls.count(answer.is_ok());
        answer
    }

    async fn answer(&self, request: RequestBuilder, subject: &str) -> Result<Value, Error> {
        let unreachable = |error: reqwest::Error| Error::Unreachable { reason: why(error) };
        let mut response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_ANSWER_BYTES {
                return Err(Error::Foreign { reason: "its answer does not end".to_owned() });
            }
        }
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|_| Error::Foreign {
                reason: format!("it answers: {}", quote(&String::from_utf8_lossy(&body))),
            });
        }
        Err(refusal(status, &body, subject))
    }
}

fn refusal(status: StatusCode, body: &[u8], subject: &str) -> Error {
    let text = String::from_utf8_lossy(body);
    let parsed: Option<Value> = serde_json::from_str(&text).ok();
    let message = parsed.as_ref().and_then(|body| body.get("message")).and_then(Value::as_str);
    let reason = quote(message.unwrap_or(&text));
    let subject = subject.to_owned();
    match status.as_u16() {
        401 | 403 => Error::Authentication { status: status.as_u16() },
        409 => Error::Incompatible { subject, reason },
        422 => Error::Invalid { subject, reason },
        408 | 429 | 500.. => Error::Failing { status: status.as_u16(), reason },
        other => Error::Foreign { reason: format!("it answers {other}: {reason}") },
    }
}

/// Why a request had no answer, without the layers that only say that it was a request.
fn why(error: reqwest::Error) -> String {
    match (error.is_timeout(), error.is_connect()) {
        (true, true) => return format!("no connection within {CONNECT:?}"),
        (true, false) => return format!("no answer within {ANSWER:?}"),
        _ => {}
    }
    let error = error.without_url();
    let cause = std::error::Error::source(&error).and_then(std::error::Error::source);
    cause.map_or_else(|| chain(&error), chain)
}

/// An error with its causes: the outermost alone says "error sending request".
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

fn quote(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MAX_QUOTED_CHARS) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None if line.is_empty() => "(an empty answer)".to_owned(),
        None => line,
    }
}
