//! How the registry's API is reached: one of several addresses, with a login, over TLS.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::{Certificate, Identity, Method, RequestBuilder, StatusCode, Url};
use serde_json::Value;

use super::{Error, Own};
use crate::credential::Credential;

/// How long the registry may take for one answer. `run` promises to name a registry that is away
/// within ten seconds.
const ANSWER: Duration = Duration::from_secs(5);

/// How long a connection may take to come up.
const CONNECT: Duration = Duration::from_secs(3);

/// How long all tries of one question may take together.
const QUESTION: Duration = Duration::from_secs(8);

/// A registry that says it cannot just now is asked again so often, after a little while. What
/// lasts longer is the caller's to wait for.
const AGAIN: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(400)];

/// Answers are small; what is longer is not a registry's.
const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024;

/// Of an answer, how much a message may quote: registries begin with their own names for things,
/// and what is incompatible comes last.
const MAX_QUOTED_CHARS: usize = 500;

/// A token is asked for again this long before it expires.
const EARLY: Duration = Duration::from_secs(30);

/// How long a token is good for where its giver does not say.
const UNSAID: Duration = Duration::from_secs(300);

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
    /// A token that another server gives for these (OAuth 2, client credentials).
    Client {
        /// Where tokens are given.
        token_url: String,
        /// Who we are.
        id: String,
        /// What proves it.
        secret: Credential,
        /// What the token shall be good for, where that must be said.
        scope: Option<String>,
    },
}

/// How the registry is reached.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// One of our own, instead of all below.
    pub own: Option<Own>,
    /// Where its API begins, without credentials: at any of these.
    pub urls: Vec<String>,
    /// How it knows us.
    pub authentication: Authentication,
    /// Authorities to trust, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Our certificate and its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
}

/// A way to the registry.
#[derive(Debug)]
pub(super) struct Transport {
    http: reqwest::Client,
    settings: Settings,
    urls: Vec<Url>,
    /// The address that answered last.
    preferred: AtomicUsize,
    token: Mutex<Option<Token>>,
}

#[derive(Clone, Debug)]
struct Token {
    text: String,
    expires: Instant,
}

/// A question.
#[derive(Clone, Debug)]
pub(super) struct Question<'a> {
    pub(super) method: Method,
    pub(super) path: &'a [&'a str],
    /// What stands behind the path, as `name=value`.
    pub(super) query: Option<&'a str>,
    pub(super) body: Option<&'a Value>,
    /// The subject it is about, for messages.
    pub(super) subject: &'a str,
}

impl Transport {
    pub(super) fn new(settings: Settings) -> Result<Self, Error> {
        let parsed = settings.urls.iter().map(|url| parse(url));
        let urls = parsed.collect::<Result<Vec<_>, _>>()?;
        let http = client(&settings)?;
        let (preferred, token) = (AtomicUsize::new(0), Mutex::default());
        Ok(Self { http, settings, urls, preferred, token })
    }

    /// Reads certificates again: they may have been renewed.
    pub(super) fn renew(&mut self) -> Result<(), Error> {
        if self.settings.ca_file.is_some() || self.settings.certificate.is_some() {
            self.http = client(&self.settings)?;
        }
        Ok(())
    }

    /// The address that is asked first.
    pub(super) fn url(&self) -> &str {
        let at = self.preferred.load(Ordering::Relaxed);
        self.settings.urls.get(at).or(self.settings.urls.first()).map_or("", String::as_str)
    }

    /// Asks at each address in turn, and again after a while where it may be a matter of that.
    pub(super) async fn ask(&self, question: &Question<'_>) -> Result<Value, Error> {
        let started = Instant::now();
        let mut waits = AGAIN.iter();
        loop {
            let error = match self.ask_each(question, started).await {
                Err(error @ Error::Failing { .. }) => error,
                settled => return settled,
            };
            match waits.next() {
                Some(wait) if started.elapsed() < QUESTION => {
                    let spread = wait.mul_f64(crate::chance::spread());
                    tokio::time::sleep(*wait / 2 + spread).await;
                }
                _ => return Err(error),
            }
        }
    }

    async fn ask_each(&self, question: &Question<'_>, started: Instant) -> Result<Value, Error> {
        let first = self.preferred.load(Ordering::Relaxed);
        let mut last = None;
        for step in 0..self.urls.len() {
            let at = (first + step) % self.urls.len();
            let Some(url) = self.urls.get(at) else { continue };
            match self.ask_at(url, question).await {
                // Another may be well. Whichever answered says more than one that did not.
                Err(error @ (Error::Unreachable { .. } | Error::Failing { .. })) => {
                    if last.is_none() || matches!(error, Error::Failing { .. }) {
                        last = Some(error);
                    }
                    if started.elapsed() > QUESTION {
                        break;
                    }
                }
                settled => {
                    self.preferred.store(at, Ordering::Relaxed);
                    return settled;
                }
            }
        }
        Err(last.unwrap_or_else(|| Error::Settings { reason: "no address is given".to_owned() }))
    }

    async fn ask_at(&self, url: &Url, question: &Question<'_>) -> Result<Value, Error> {
        match self.once(url, question).await {
            // A token may have been taken back before its time.
            Err(Error::Authentication { .. }) if self.forget_token() => {
                self.once(url, question).await
            }
            settled => settled,
        }
    }

    async fn once(&self, url: &Url, question: &Question<'_>) -> Result<Value, Error> {
        let mut url = url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(question.path);
        }
        url.set_query(question.query);
        let mut request = self
            .http
            .request(question.method.clone(), url)
            .header("content-type", "application/vnd.schemaregistry.v1+json")
            .header("accept", "application/vnd.schemaregistry.v1+json, application/json");
        if let Some(body) = question.body {
            request = request.body(body.to_string());
        }
        let (status, body) = answer(self.authenticated(request).await?).await?;
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|_| Error::Foreign {
                reason: format!("it answers: {}", quote(&String::from_utf8_lossy(&body))),
            });
        }
        Err(refusal(status, &body, question.subject))
    }

    /// Credentials are read again each time: requests are few, and they may have changed.
    async fn authenticated(&self, request: RequestBuilder) -> Result<RequestBuilder, Error> {
        Ok(match &self.settings.authentication {
            Authentication::None => request,
            Authentication::Basic { username, password } => {
                request.basic_auth(username, Some(read(password)?))
            }
            Authentication::Bearer(token) => request.bearer_auth(read(token)?),
            Authentication::Client { token_url, id, secret, scope } => {
                let known = self.token().clone().filter(|token| token.expires > Instant::now());
                let token = match known {
                    Some(token) => token,
                    None => {
                        let form = form(scope.as_deref());
                        let asked = self.http.post(token_url).basic_auth(id, Some(read(secret)?));
                        let token = fetch_token(asked, form, token_url).await?;
                        *self.token() = Some(token.clone());
                        token
                    }
                };
                request.bearer_auth(token.text)
            }
        })
    }

    fn token(&self) -> std::sync::MutexGuard<'_, Option<Token>> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there was one that was not new.
    fn forget_token(&self) -> bool {
        self.token().take().is_some()
    }
}

fn parse(url: &str) -> Result<Url, Error> {
    let wrong = |reason: String| Error::Settings { reason };
    let parsed = Url::parse(url).map_err(|error| wrong(format!("{url}: {error}")))?;
    if !matches!(parsed.scheme(), "http" | "https") {
        return Err(wrong(format!("the scheme must be http or https, not {}", parsed.scheme())));
    }
    Ok(parsed)
}

fn client(settings: &Settings) -> Result<reqwest::Client, Error> {
    let wrong = |reason: String| Error::Settings { reason };
    let file = |path: &PathBuf| {
        std::fs::read(path).map_err(|error| wrong(format!("{}: {error}", path.display())))
    };
    let mut builder = reqwest::Client::builder()
        .timeout(ANSWER)
        .connect_timeout(CONNECT)
        .user_agent(concat!("waltide/", env!("CARGO_PKG_VERSION")));
    if let Some(path) = &settings.ca_file {
        let bundle = Certificate::from_pem_bundle(&file(path)?);
        let bundle =
            bundle.map_err(|error| wrong(format!("{}: {}", path.display(), chain(&error))))?;
        if bundle.is_empty() {
            return Err(wrong(format!("{} holds no certificate", path.display())));
        }
        builder = builder.tls_certs_only(bundle);
    }
    if let Some((certificate, key)) = &settings.certificate {
        let both = [file(certificate)?, file(key)?].join(&b'\n');
        let identity = Identity::from_pem(&both);
        let identity = identity
            .map_err(|error| wrong(format!("{}: {}", certificate.display(), chain(&error))))?;
        builder = builder.identity(identity);
    }
    builder.build().map_err(|error| wrong(chain(&error)))
}

fn read(credential: &Credential) -> Result<String, Error> {
    let read = credential.read_named().map_err(|reason| Error::Settings { reason })?;
    Ok(read.expose().to_owned())
}

/// The question for a token, as forms are written.
fn form(scope: Option<&str>) -> String {
    let mut pairs = vec![("grant_type", "client_credentials")];
    pairs.extend(scope.map(|scope| ("scope", scope)));
    let url = Url::parse_with_params("form:", pairs);
    url.ok().and_then(|url| url.query().map(str::to_owned)).unwrap_or_default()
}

async fn fetch_token(asked: RequestBuilder, form: String, token_url: &str) -> Result<Token, Error> {
    let asked = asked.header("content-type", "application/x-www-form-urlencoded").body(form);
    let (status, body) = answer(asked).await.map_err(|error| match error {
        Error::Unreachable { reason } => {
            Error::Unreachable { reason: format!("{token_url}, which gives the tokens: {reason}") }
        }
        other => other,
    })?;
    let parsed: Option<Value> = serde_json::from_slice(&body).ok();
    let text = parsed.as_ref().and_then(|body| body.get("access_token")).and_then(Value::as_str);
    match text {
        Some(text) if status.is_success() => {
            let said = parsed.as_ref().and_then(|body| body.get("expires_in"));
            let good = said.and_then(Value::as_u64).map_or(UNSAID, Duration::from_secs);
            let expires = Instant::now() + good.saturating_sub(EARLY).max(good / 2);
            Ok(Token { text: text.to_owned(), expires })
        }
        _ if matches!(status.as_u16(), 408 | 429 | 500..) => {
            Err(Error::Failing { status: status.as_u16(), reason: format!("{token_url} failed") })
        }
        // What it says may hold what was sent.
        _ => Err(Error::Token { url: token_url.to_owned(), status: status.as_u16() }),
    }
}

/// The answer, however long it is allowed to be.
async fn answer(request: RequestBuilder) -> Result<(StatusCode, Vec<u8>), Error> {
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
    Ok((status, body))
}

pub(super) fn refusal(status: StatusCode, body: &[u8], subject: &str) -> Error {
    let text = String::from_utf8_lossy(body);
    let parsed: Option<Value> = serde_json::from_str(&text).ok();
    let message = parsed.as_ref().and_then(|body| body.get("message")).and_then(Value::as_str);
    let reason = quote(message.unwrap_or(&text));
    let subject = subject.to_owned();
    let code = parsed.as_ref().and_then(|body| body.get("error_code")).and_then(Value::as_u64);
    let code = code.map(|code| code / 100);
    match status.as_u16() {
        401 | 403 => Error::Authentication { status: status.as_u16() },
        // With a code of its own; another page that is not there has none.
        404 if code == Some(404) => Error::Unknown { subject, reason },
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

pub(super) fn quote(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MAX_QUOTED_CHARS) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None if line.is_empty() => "(an empty answer)".to_owned(),
        None => line,
    }
}
