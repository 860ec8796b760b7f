//! The directory's registry on the network, for consumers.
//!
//! Whoever reaches it may read: schemas say what columns are called, and nothing of what is in
//! them. To write takes the token.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::api::{self, Answer, Asked};
use super::{Directory, Trouble};
use crate::credential::Credential;
use crate::fault::{Code, Fault};

/// The largest question: the largest schema, and what it takes to quote it.
const MAX_BODY_BYTES: usize = 8 * 1024 * 1024;

/// How many questions look at files at once; more would only wait for the same disk.
const AT_ONCE: usize = 8;

const JSON: &str = "application/vnd.schemaregistry.v1+json";

#[derive(Clone, Debug)]
struct Served {
    directory: Directory,
    token: Option<Credential>,
    turns: Arc<Semaphore>,
}

/// Listens, so that a taken address is known before anything is started.
///
/// # Errors
/// Where the address cannot be had.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, Fault> {
    TcpListener::bind(address).await.map_err(|error| {
        Fault::new(
            Code::ListenFailed,
            format!("cannot listen on {address} for the schema registry: {error}"),
            "set registry.listen to an address and port of this host that is free",
        )
    })
}

/// Answers until the process ends.
pub async fn serve(listener: TcpListener, directory: Directory, token: Option<Credential>) {
    let served = Served { directory, token, turns: Arc::new(Semaphore::new(AT_ONCE)) };
    let router = Router::new()
        .fallback(respond)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(served);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the server of the schema registry ended");
    }
}

async fn respond(
    State(served): State<Served>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let path = uri.path().trim_matches('/');
    let parts = path.split('/').filter(|_| !path.is_empty()).map(decoded);
    let Some(path) = parts.collect::<Option<Vec<_>>>() else {
        return written(api::said(404, 404, "HTTP 404 Not Found"));
    };
    let query = uri.query().unwrap_or_default().to_owned();
    let asked = Asked { method, path, query, body: body.to_vec() };
    let login = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let login = login.map(str::to_owned);
    let Ok(_turn) = served.turns.clone().acquire_owned().await else {
        return written(api::said(503, 50301, "it is ending"));
    };
    let done = tokio::task::spawn_blocking(move || served.answer(&asked, login.as_deref())).await;
    written(done.unwrap_or_else(|_| api::said(500, 50001, "it failed: see the daemon's log")))
}

impl Served {
    fn answer(&self, asked: &Asked, login: Option<&str>) -> Answer {
        if asked.writes()
            && let Err(refused) = self.allows(login)
        {
            return refused;
        }
        api::answer(&self.directory, asked).unwrap_or_else(|trouble| {
            let (Trouble::Io { reason } | Trouble::Damaged { reason }) = trouble;
            tracing::warn!(reason, "the registry's directory cannot be used");
            api::said(500, 50001, &reason)
        })
    }

    fn allows(&self, login: Option<&str>) -> Result<(), Answer> {
        let Some(token) = &self.token else {
            let message = "nothing is written here over the network without registry.token_file";
            return Err(api::said(403, 40301, message));
        };
        let token = token.read_named().map_err(|reason| {
            tracing::warn!(reason, "the registry's token cannot be read");
            api::said(500, 50001, "its token cannot be read: see the daemon's log")
        })?;
        let given = login.and_then(|login| login.strip_prefix("Bearer ")).map(str::trim);
        // Of digests, how long a comparison takes tells nothing.
        let digest = |text: &str| Sha256::digest(text.as_bytes());
        match given.is_some_and(|given| digest(given) == digest(token.expose())) {
            true => Ok(()),
            false => Err(api::said(401, 40101, "to write takes the token of registry.token_file")),
        }
    }
}

fn written((status, body): Answer) -> Response {
    let login =
        (status == StatusCode::UNAUTHORIZED).then_some([(header::WWW_AUTHENTICATE, "Bearer")]);
    (status, login, [(header::CONTENT_TYPE, JSON)], body.to_string()).into_response()
}

/// A part of a path, without its escapes.
fn decoded(part: &str) -> Option<String> {
    let mut bytes = part.bytes();
    let mut text = Vec::with_capacity(part.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            text.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let value = digit(bytes.next())? * 16 + digit(bytes.next())?;
        text.push(u8::try_from(value).ok()?);
    }
    String::from_utf8(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_path_is_read_as_it_was_meant() {
        assert_eq!(decoded("a.b-value").as_deref(), Some("a.b-value"));
        assert_eq!(decoded("a%2Fb%20%C3%BC").as_deref(), Some("a/b ü"));
        for broken in ["%", "%2", "%zz", "%ff"] {
            assert_eq!(decoded(broken), None, "{broken}");
        }
    }
}
