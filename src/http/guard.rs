//! Who may ask for what. Reading is for everybody who reaches the address, unless told otherwise;
//! changing something needs the token. A page of somebody else's in a browser that can reach us may
//! do neither.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::extract::{Request, State as Shared};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Json, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::control::token::Token;
use crate::fault::{Code, Fault};

/// How long a request may take, its body included. A pause waits for Kafka, a little.
const REQUEST: Duration = Duration::from_secs(20);

/// What probes and Prometheus ask for, which know no token.
const OPEN: [&str; 3] = ["/livez", "/readyz", "/metrics"];

/// What requests are held against.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    pub(super) listen: SocketAddr,
    pub(super) token: Token,
    /// Whether reading needs the token as well.
    pub(super) protect_reads: bool,
}

/// Lets through what may be asked, and adds what browsers should know of every answer.
pub(super) async fn watch(Shared(guard): Shared<Guard>, request: Request, next: Next) -> Response {
    let mut response = match guard.refuse(&request) {
        Some(refusal) => refusal,
        None => match timeout(REQUEST, next.run(request)).await {
            Ok(response) => response,
            Err(_) => refusal(
                StatusCode::REQUEST_TIMEOUT,
                &invalid("the request took too long", "send it faster"),
            ),
        },
    };
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

impl Guard {
    fn refuse(&self, request: &Request) -> Option<Response> {
        let headers = request.headers();
        if self.listen.ip().is_loopback() && !names_this_host(headers) {
            let what = "the request is for another host than this one";
            let mend = "ask at localhost or at the address itself; a proxy in front has to say so \
                        in the Host header";
            return Some(refusal(StatusCode::MISDIRECTED_REQUEST, &invalid(what, mend)));
        }
        let changes = !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        if changes && is_from_another_site(headers) {
            let what = "the request comes from a page of another site";
            let mend = "send it from the command line, or from the status page itself";
            return Some(refusal(StatusCode::FORBIDDEN, &invalid(what, mend)));
        }
        let path = request.uri().path();
        if !changes && (!self.protect_reads || OPEN.contains(&path)) {
            return None;
        }
        let given = bearer(headers).or_else(|| basic(headers).filter(|_| !changes));
        match given.map(|given| self.token.is(&given)) {
            Some(Ok(true)) => None,
            Some(Ok(false)) => Some(unauthorized("the token is another one", changes)),
            Some(Err(why)) => Some(unauthorized(&why, changes)),
            None => Some(unauthorized("the request has no token", changes)),
        }
    }
}

/// Whether the Host header is an address or `localhost`. A name that leads here and is none of
/// ours is how a page elsewhere would reach us.
fn names_this_host(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST) else { return true };
    let Ok(host) = host.to_str() else { return false };
    let port = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let name = match host.rsplit_once(':') {
        Some((name, after)) if port(after) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']');
    address.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || name.to_ascii_lowercase().ends_with(".localhost")
}

/// As browsers say it of themselves. Whatever else asks says nothing.
fn is_from_another_site(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    if text("sec-fetch-site").is_some_and(|site| !matches!(site, "same-origin" | "none")) {
        return true;
    }
    let host = text("host").unwrap_or_default();
    text("origin").is_some_and(|origin| origin.split_once("://").map(|(_, at)| at) != Some(host))
}

fn bearer(headers: &HeaderMap) -> Option<String> {
    let (kind, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    kind.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
}

/// A browser asks a person for user and password; the token is the password, of whatever user.
fn basic(headers: &HeaderMap) -> Option<String> {
    let (kind, both) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let both = STANDARD.decode(both.trim()).ok().filter(|_| kind.eq_ignore_ascii_case("basic"))?;
    let (_, password) = std::str::from_utf8(&both).ok()?.split_once(':')?;
    Some(password.to_owned())
}

fn unauthorized(why: &str, changes: bool) -> Response {
    let fault = Fault::new(
        Code::TokenRefused,
        why,
        "send the token as `Authorization: Bearer TOKEN`: it is http.token of the configuration, or \
         in the file that the daemon names in its log when it starts; `waltide pause`, `resume` and \
         `reload` find it by themselves",
    );
    let mut response = refusal(StatusCode::UNAUTHORIZED, &fault);
    // A browser would ask for a password even where none helps.
    let how = if changes { "Bearer" } else { "Basic realm=\"waltide\", Bearer" };
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(how));
    response
}

/// A request that is not one that we take.
pub(super) fn invalid(what: &str, mend: &str) -> Fault {
    Fault::new(Code::RequestInvalid, what, mend)
}

/// A request that is not done, and why.
#[derive(Debug)]
pub(super) struct Refused(pub(super) StatusCode, pub(super) Fault);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        refusal(self.0, &self.1)
    }
}

/// A failure as it is answered.
pub(super) fn refusal(status: StatusCode, fault: &Fault) -> Response {
    (status, Json(json!({ "error": error(fault) }))).into_response()
}

/// A failure as the API writes it.
pub(super) fn error(fault: &Fault) -> Value {
    json!({
        "code": fault.code.id(),
        "class": fault.code.class().as_str(),
        "title": fault.code.title(),
        "what": fault.what,
        "mend": fault.mend,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &'static str, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().expect("a value"));
        headers
    }

    #[test]
    fn names_of_this_host_are_addresses_and_localhost() {
        for host in ["127.0.0.1:9464", "localhost", "LOCALHOST:1", "[::1]:9464", "a.localhost:1"] {
            assert!(names_this_host(&with("host", host)), "{host}");
        }
        for host in ["evil.example", "evil.example:9464", "localhost.evil.example:1", "", "1.2.3"] {
            assert!(!names_this_host(&with("host", host)), "{host}");
        }
    }

    #[test]
    fn a_page_of_another_site_is_known_by_what_its_browser_says() {
        for (name, value, another) in [
            ("sec-fetch-site", "cross-site", true),
            ("sec-fetch-site", "same-site", true),
            ("sec-fetch-site", "same-origin", false),
            ("sec-fetch-site", "none", false),
            ("origin", "http://localhost:9464", false),
            ("origin", "http://evil.example", true),
            ("origin", "null", true),
            ("accept", "*/*", false),
        ] {
            let mut headers = with("host", "localhost:9464");
            headers.insert(name, value.parse().expect("a value"));
            assert_eq!(is_from_another_site(&headers), another, "{name}: {value}");
        }
    }

    #[test]
    fn a_token_comes_as_a_bearers_or_as_a_password() {
        assert_eq!(bearer(&with("authorization", "bearer  x ")).as_deref(), Some("x"));
        assert_eq!(bearer(&with("authorization", "Basic x")), None);
        let both = STANDARD.encode("me:to:ken");
        let given = basic(&with("authorization", &format!("Basic {both}")));
        assert_eq!(given.as_deref(), Some("to:ken"));
        for odd in ["Basic", "Basic !", "Basic bWU=", "Bearer bWU6eA=="] {
            assert_eq!(basic(&with("authorization", odd)), None, "{odd}");
        }
    }
}
