//! The running daemon: where it is, and how it is asked.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use reqwest::Method;
use serde_json::Value;

use super::args::Running;
use super::{Failure, load, runtime, trust};
use crate::control::token;
use crate::credential::{Credential, Secret};
use crate::fault::{Code, Fault};

/// A probe that waits longer is of no use.
const ANSWER: Duration = Duration::from_secs(5);

/// What changes something waits until it is done, a little.
const DONE: Duration = Duration::from_secs(30);

/// How long a daemon that has written its address down may take to be there.
const THERE: Duration = Duration::from_millis(500);

/// Where a daemon is unless it was told otherwise.
const USUAL: &str = "127.0.0.1:9464";

/// The prefix of variables that describe pipelines.
const OF_PIPELINES: &str = "WALTIDE_PIPELINES__";

/// A daemon, found.
#[derive(Debug)]
pub(super) struct Daemon {
    base: String,
    token: Option<Secret>,
    /// Certificates by which it is known; the system's authorities where there is none.
    trusted: Option<PathBuf>,
}

impl Daemon {
    /// Finds it: where `--url` or the configuration says, or as the only one of this user.
    pub(super) fn find(asked: &Running) -> Result<Self, Failure> {
        let configured = asked.config.path().is_some()
            || std::env::vars_os()
                .any(|(name, _)| name.to_string_lossy().starts_with(OF_PIPELINES));
        let (base, credential, certificate) = match &asked.url {
            Some(url) => {
                let base = url.trim_end_matches('/').to_owned();
                let certificate = address_of(&base).and_then(token::find_certificate);
                (base, None, certificate)
            }
            None if configured => {
                let http = load(&asked.config)?.config.http;
                let certificate = http.tls.map(|tls| tls.certificate);
                let base = base_of(reachable(http.listen), certificate.is_some());
                (base, http.token, certificate)
            }
            None => {
                let address = reachable(only_one()?);
                let certificate = token::find_certificate(address);
                (base_of(address, certificate.is_some()), None, certificate)
            }
        };
        let trusted = asked.ca_file.clone().or(certificate);
        let credential = asked.token_file.clone().map(Credential::File).or(credential);
        let token = match credential {
            Some(credential) => Some(credential.read_named().map_err(|why| {
                let mend = "name a file that holds the token and that you may read";
                Fault::new(Code::TokenRefused, format!("the token cannot be read: {why}"), mend)
            })?),
            None => address_of(&base).and_then(token::find),
        };
        Ok(Self { base, token, trusted })
    }

    /// The status of an answer and its body; what is no JSON is null.
    pub(super) fn ask(&self, path: &str) -> Result<(u16, Value), Failure> {
        self.send(Method::GET, path, None, ANSWER)
    }

    /// Has something changed.
    pub(super) fn change(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        let (status, answer) = self.send(method, path, body, DONE)?;
        if (200..300).contains(&status) { Ok(answer) } else { Err(refused(status, &answer).into()) }
    }

    /// What it says of its pipelines.
    pub(super) fn status(&self) -> Result<Value, Failure> {
        self.look("/api/status")
    }

    /// What it answers, where it does not refuse.
    pub(super) fn look(&self, path: &str) -> Result<Value, Failure> {
        match self.ask(path)? {
            (200, answer) => Ok(answer),
            (status, answer) => Err(refused(status, &answer).into()),
        }
    }

    fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        within: Duration,
    ) -> Result<(u16, Value), Failure> {
        let mut client = reqwest::Client::builder().timeout(within).no_proxy();
        if let Some(trusted) = self.trusted.as_deref().filter(|_| self.base.starts_with("https:")) {
            client = client.tls_backend_preconfigured(trust::of(trusted)?);
        }
        let answered = runtime()?.block_on(async {
            let client = client.build()?;
            let mut request = client.request(method, format!("{}{path}", self.base));
            if let Some(token) = &self.token {
                request = request.bearer_auth(token.expose());
            }
            if let Some(body) = body {
                request = request.json(body);
            }
            let response = request.send().await?;
            let status = response.status().as_u16();
            Ok::<_, reqwest::Error>((status, response.text().await?))
        });
        let (status, body) = answered.map_err(|error| self.away(error, within))?;
        Ok((status, serde_json::from_str(&body).unwrap_or_default()))
    }

    fn away(&self, error: reqwest::Error, within: Duration) -> Fault {
        let (why, mend) = match error.is_timeout() {
            true => (format!("nothing within {} s", within.as_secs()), None),
            false => trust::why(&error),
        };
        let what = format!("no daemon answers at {}: {why}", self.base);
        let mend = mend.unwrap_or("start it, or name its address with --url http://HOST:PORT");
        Fault::new(Code::DaemonAway, what, mend)
    }
}

/// What the daemon said, as a failure of ours.
fn refused(status: u16, answer: &Value) -> Fault {
    let word = |key: &str| answer["error"][key].as_str().unwrap_or_default().to_owned();
    let code = Code::ALL.iter().find(|code| code.id() == word("code"));
    match code {
        Some(code) => Fault::new(*code, word("what"), word("mend")),
        None => {
            let mend = "look whether it is a daemon of this version that listens there";
            Fault::new(Code::RequestInvalid, format!("it answers {status}"), mend)
        }
    }
}

/// The daemon of this user, where there is one; the usual place, where none has said otherwise.
fn only_one() -> Result<SocketAddr, Fault> {
    let mut found = token::daemons();
    found.retain(|listen| TcpStream::connect_timeout(&reachable(*listen), THERE).is_ok());
    match found.as_slice() {
        [] => Ok(USUAL.parse().unwrap_or_else(|_| SocketAddr::from(([127, 0, 0, 1], 9464)))),
        [one] => Ok(*one),
        several => {
            let base = |at: SocketAddr| base_of(at, token::find_certificate(at).is_some());
            let several: Vec<String> = several.iter().map(|one| base(reachable(*one))).collect();
            let what = format!("several daemons run here: {}", several.join(", "));
            let mend = "name one with --url, or its configuration with --config";
            Err(Fault::new(Code::DaemonAway, what, mend))
        }
    }
}

fn base_of(address: SocketAddr, tls: bool) -> String {
    let scheme = if tls { "https" } else { "http" };
    format!("{scheme}://{address}")
}

/// The address that a URL of this host names.
fn address_of(base: &str) -> Option<SocketAddr> {
    let (_, host) = base.split_once("://")?;
    let host = host.split('/').next()?;
    host.parse().ok().or_else(|| {
        let port = host.strip_prefix("localhost:")?.parse().ok()?;
        Some(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port))
    })
}

/// Who listens everywhere is asked at home.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let home: IpAddr = match listen.ip() {
        IpAddr::V4(all) if all.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(all) if all.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        own => own,
    };
    SocketAddr::new(home, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_everywhere_is_asked_at_home() {
        let at = |text: &str| reachable(text.parse().unwrap()).to_string();
        assert_eq!(at("0.0.0.0:9464"), "127.0.0.1:9464");
        assert_eq!(at("[::]:9464"), "[::1]:9464");
        assert_eq!(at("10.0.0.7:1"), "10.0.0.7:1");
    }

    #[test]
    fn a_token_goes_only_to_an_address_that_is_known() {
        let at = |base: &str| address_of(base).map(|address| address.to_string());
        assert_eq!(at("http://127.0.0.1:9464").as_deref(), Some("127.0.0.1:9464"));
        assert_eq!(at("http://localhost:1/x").as_deref(), Some("127.0.0.1:1"));
        assert_eq!(at("http://[::1]:9464").as_deref(), Some("[::1]:9464"));
        for other in ["http://waltide.example:9464", "http://localhost", "localhost:1", ""] {
            assert_eq!(at(other), None, "{other}");
        }
    }
}
