//! The two URLs of a configuration, read as far as configuration goes: what must be in them is
//! there, and they can be shown without their passwords. The rooms that connect read the rest.

use std::fmt;

use super::error::{Error, Kind};
use super::reading::At;
use super::secret::{MASK, Secret};

const ESCAPE: &str = "there is an `@` where none can be; in a user or password `@`, `:`, `/`, `?`, `#` and `%` are \
                      written %40, %3A, %2F, %3F, %23 and %25";

/// A database's URL. It prints without its password.
#[derive(Clone)]
pub struct DatabaseUrl {
    typed: Secret,
    parts: Parts,
    at: At,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Parts {
    user: String,
    has_password: bool,
    hosts: String,
    database: String,
    parameters: Vec<(String, String)>,
}

impl DatabaseUrl {
    pub(super) fn parse(typed: &str, at: &At) -> Result<Self, String> {
        Ok(Self { typed: Secret::new(typed), parts: parts(typed)?, at: at.clone() })
    }

    /// The whole URL, for the one that connects.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.typed.expose()
    }

    /// Whether a password is in it.
    #[must_use]
    pub fn has_password(&self) -> bool {
        self.parts.has_password
    }

    /// The error of someone who reads it more closely, at the place where it was given. The
    /// reason must not repeat the URL.
    #[must_use]
    pub fn refused(&self, why: impl fmt::Display) -> Error {
        self.at.error(Kind::InvalidValue, why.to_string())
    }

    /// Its hosts and ports, in a form that can be compared.
    pub(super) fn servers(&self) -> String {
        let parameter = |key: &str| {
            let found = self.parts.parameters.iter().find(|(name, _)| name == key);
            found.map(|(_, value)| value.as_str()).unwrap_or_default()
        };
        let hosts = self.parts.hosts.split(',').map(|host| host.trim_end_matches(":5432"));
        let hosts = hosts.collect::<Vec<_>>().join(",");
        format!("{hosts} {} {}", parameter("host"), parameter("port")).to_lowercase()
    }
}

impl PartialEq for DatabaseUrl {
    fn eq(&self, other: &Self) -> bool {
        self.typed == other.typed
    }
}

impl Eq for DatabaseUrl {}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Parts { user, has_password, hosts, database, parameters } = &self.parts;
        f.write_str("postgres://")?;
        if !user.is_empty() {
            let password = if *has_password && !in_parameters(parameters) { MASK } else { "" };
            let colon = if password.is_empty() { "" } else { ":" };
            write!(f, "{user}{colon}{password}@")?;
        }
        write!(f, "{hosts}/{database}")?;
        for (index, (key, value)) in parameters.iter().enumerate() {
            let value = if is_secret(key) { MASK } else { value };
            write!(f, "{}{key}={value}", if index == 0 { '?' } else { '&' })?;
        }
        Ok(())
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

fn is_secret(key: &str) -> bool {
    key.contains("password")
}

fn in_parameters(parameters: &[(String, String)]) -> bool {
    parameters.iter().any(|(key, _)| key == "password")
}

fn parts(typed: &str) -> Result<Parts, String> {
    let rest = ["postgres://", "postgresql://"]
        .iter()
        .find_map(|scheme| typed.strip_prefix(scheme))
        .ok_or("a database's URL begins with `postgres://`")?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, hosts) = authority.split_once('@').unwrap_or(("", authority));
    let (user, password) = match login.split_once(':') {
        Some((user, password)) => (user, Some(password)),
        None => (login, None),
    };
    let mut parameters = Vec::new();
    for item in query.split('&').filter(|item| !item.is_empty()) {
        let (key, value) =
            item.split_once('=').ok_or("what follows the `?` has the form key=value")?;
        parameters.push((key.to_owned(), value.to_owned()));
    }
    let torn = [hosts, database].into_iter().chain(parameters.iter().map(|(key, _)| key.as_str()));
    if torn.into_iter().any(|part| part.contains('@')) {
        return Err(ESCAPE.to_owned());
    }
    let has = |key: &str| parameters.iter().any(|(name, value)| name == key && !value.is_empty());
    if user.is_empty() && !has("user") {
        return Err("the URL names no user: `postgres://user@host:5432/database`".to_owned());
    }
    if hosts.is_empty() && !has("host") && !has("hostaddr") {
        return Err("the URL names no host: `postgres://user@host:5432/database`".to_owned());
    }
    if database.is_empty() && !has("dbname") {
        return Err("the URL names no database: `postgres://user@host:5432/database`".to_owned());
    }
    Ok(Parts {
        user: user.to_owned(),
        has_password: password.is_some_and(|text| !text.is_empty()) || has("password"),
        hosts: hosts.to_owned(),
        database: database.to_owned(),
        parameters,
    })
}

/// A registry's address, and the login that was found in it.
pub(super) struct RegistryUrl {
    /// Without login, without a slash at its end.
    pub(super) address: String,
    pub(super) login: Option<(String, Secret)>,
}

impl RegistryUrl {
    pub(super) fn parse(typed: &str) -> Result<Self, String> {
        let (scheme, rest) = typed
            .split_once("://")
            .filter(|(scheme, _)| matches!(*scheme, "http" | "https"))
            .ok_or("a registry's URL begins with `http://` or `https://`")?;
        if rest.contains(['?', '#', ' ']) {
            return Err(
                "a registry's URL ends with its path, without `?`, `#` or spaces".to_owned()
            );
        }
        let (authority, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, ""),
        };
        let (login, host) = match authority.split_once('@') {
            Some((login, host)) => (Some(login), host),
            None => (None, authority),
        };
        if host.contains('@') || path.contains('@') {
            return Err(ESCAPE.to_owned());
        }
        check_host(host)?;
        let login = match login.map(|login| login.split_once(':')) {
            None => None,
            Some(Some((user, password))) if !user.is_empty() && !password.is_empty() => {
                Some((decoded(user)?, Secret::new(decoded(password)?)))
            }
            Some(_) => return Err("before the `@` stand a user and a password".to_owned()),
        };
        let address = format!("{scheme}://{host}{}", path.trim_end_matches('/'));
        Ok(Self { address, login })
    }
}

/// A host's name or address, with or without a port.
pub(super) fn check_host(host: &str) -> Result<(), String> {
    let (name, port) = match host.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
        Some((address, "")) => (address, None),
        Some((address, after)) => (address, after.strip_prefix(':').or(Some(""))),
        None => match host.rsplit_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (host, None),
        },
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let bracketed = host.starts_with('[');
    if name.is_empty() || !name.chars().all(|c| is_name(c) || (bracketed && c == ':')) {
        return Err("the host is not a name or address".to_owned());
    }
    match port.map(str::parse::<u16>) {
        None => Ok(()),
        Some(Ok(port)) if port > 0 => Ok(()),
        Some(_) => Err("the port is not a number from 1 to 65535".to_owned()),
    }
}

/// Undoes `%41`.
fn decoded(text: &str) -> Result<String, String> {
    let fault = || "a `%` in the URL is not followed by two hexadecimal digits".to_owned();
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
            let (high, low) = digit().zip(digit()).ok_or_else(fault)?;
            bytes.push(u8::try_from(high * 16 + low).map_err(|_| fault())?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).map_err(|_| "the URL's login is not UTF-8 once decoded".to_owned())
}
