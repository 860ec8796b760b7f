//! Reads libpq's connection strings: `postgres://` URLs and `keyword=value` lists.
//!
//! Two steps: what was typed becomes a list of keys and values, the same for both forms; then
//! each key is given its meaning. What libpq knows and we do not is refused by name, as is what
//! nobody knows: a setting that is silently ignored is worse than one that is missing. No
//! message repeats a value, since a badly quoted password can end up in any of them.

mod typed;

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::params::{
    AuthMethod, ChannelBinding, ClientCertificate, Host, PORT, Params, Password, PasswordSource,
    RequireAuth, Roots, SslMode, SslNegotiation, TargetSessionAttrs, TlsVersion,
};

/// The longest `connect_timeout` that is taken for one.
const MAX_CONNECT_TIMEOUT_S: u64 = 3600;

/// What to say where a password that is not escaped has torn a URL apart.
const ESCAPE: &str = "there is an '@' where none can be; in a URL's user and password '@', ':', '/', '?' and '%' \
                      are written %40, %3A, %2F, %3F and %25";

/// Why a connection string was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UrlError {
    /// It is not of either form.
    Form(&'static str),
    /// Something that must be named is not.
    Missing(&'static str),
    /// Nobody knows this key.
    UnknownKey(String),
    /// libpq knows this key and we do not.
    Unsupported {
        /// The key.
        key: &'static str,
        /// Why, or what to do instead.
        why: &'static str,
    },
    /// The key's value is not one of those it can have.
    Value {
        /// The key.
        key: &'static str,
        /// What it can have.
        expected: &'static str,
    },
    /// Two settings do not go together.
    Conflict(&'static str),
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection string cannot be used: ")?;
        match self {
            Self::Form(what) | Self::Conflict(what) => f.write_str(what),
            Self::Missing(what) => write!(f, "it names no {what}"),
            Self::UnknownKey(key) => write!(f, "it has the unknown key {key:?}"),
            Self::Unsupported { key, why } => write!(f, "{key} is not supported: {why}"),
            Self::Value { key, expected } => write!(f, "{key} must be {expected}"),
        }
    }
}

impl std::error::Error for UrlError {}

impl FromStr for Params {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let mut typed = Typed::default();
        for (key, value) in typed::pairs(text)? {
            typed.set(&key, value)?;
        }
        typed.meaning()
    }
}

/// What was typed, by key; the last one wins, as in libpq.
#[derive(Default)]
struct Typed {
    values: [Option<String>; KEYS.len()],
}

/// The keys that have a meaning here.
const KEYS: [&str; 30] = [
    "host",
    "hostaddr",
    "port",
    "user",
    "password",
    "passfile",
    "dbname",
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "sslnegotiation",
    "sslsni",
    "ssl_min_protocol_version",
    "channel_binding",
    "require_auth",
    "target_session_attrs",
    "connect_timeout",
    "application_name",
    "fallback_application_name",
    "options",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
    "gssencmode",
    "client_encoding",
    "load_balance_hosts",
    "sslcompression",
];

/// The keys of libpq that have none.
const UNSUPPORTED: [(&str, &str); 17] = [
    ("service", "write the settings out"),
    ("servicefile", "write the settings out"),
    ("replication", "it is set where it is needed"),
    ("sslcrl", "revocation lists are not read"),
    ("sslcrldir", "revocation lists are not read"),
    ("sslpassword", "give sslkey a key that is not encrypted"),
    ("sslcertmode", "leave out sslcert to send no certificate"),
    ("ssl_max_protocol_version", "the newest version is used"),
    ("requiressl", "use sslmode"),
    ("requirepeer", "protect the socket's directory"),
    ("krbsrvname", "there is no GSSAPI"),
    ("gsslib", "there is no GSSAPI"),
    ("gssdelegation", "there is no GSSAPI"),
    ("scram_client_key", "use a password"),
    ("scram_server_key", "use a password"),
    ("min_protocol_version", "protocol 3.0 is spoken"),
    ("max_protocol_version", "protocol 3.0 is spoken"),
];

impl Typed {
    fn set(&mut self, key: &str, value: String) -> Result<(), UrlError> {
        let slots = KEYS.iter().zip(&mut self.values);
        if let Some((_, slot)) = slots.into_iter().find(|(known, _)| **known == key) {
            *slot = Some(value);
            return Ok(());
        }
        match UNSUPPORTED.iter().find(|(known, _)| *known == key) {
            Some((key, why)) => Err(UrlError::Unsupported { key, why }),
            None => Err(UrlError::UnknownKey(key.to_owned())),
        }
    }

    /// A key's value; an empty one counts as not given, as in libpq.
    fn take(&mut self, key: &'static str) -> Option<String> {
        let at = KEYS.iter().position(|known| *known == key)?;
        self.values.get_mut(at)?.take().filter(|value| !value.is_empty())
    }

    fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        choices: &[(&str, T)],
        expected: &'static str,
    ) -> Result<Option<T>, UrlError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        match choices.iter().find(|(name, _)| *name == value) {
            Some((_, choice)) => Ok(Some(*choice)),
            None => Err(UrlError::Value { key, expected }),
        }
    }

    fn number<T: FromStr>(
        &mut self,
        key: &'static str,
        expected: &'static str,
    ) -> Result<Option<T>, UrlError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        value.trim().parse().map(Some).map_err(|_| UrlError::Value { key, expected })
    }

    fn meaning(mut self) -> Result<Params, UrlError> {
        let hosts = self.hosts()?;
        let user = self.take("user").ok_or(UrlError::Missing("user"))?;
        let database = self.take("dbname").unwrap_or_else(|| user.clone());
        let mut params =
            Params::new(hosts.first().cloned().ok_or(UrlError::Missing("host"))?, user, database);
        params.hosts = hosts;
        params.password = match (self.take("password"), self.take("passfile")) {
            (Some(password), _) => PasswordSource::Given(Password::new(password)),
            (None, Some(file)) => PasswordSource::Passfile(PathBuf::from(file)),
            (None, None) => PasswordSource::None,
        };
        self.tls(&mut params)?;
        self.login(&mut params)?;
        self.session(&mut params)?;
        self.tcp(&mut params)?;
        self.harmless()?;
        Ok(params)
    }

    fn hosts(&mut self) -> Result<Vec<Host>, UrlError> {
        let names = self.take("host");
        let addresses = self.take("hostaddr");
        let names: Vec<&str> = names.as_deref().map(|n| n.split(',').collect()).unwrap_or_default();
        let addresses: Vec<&str> =
            addresses.as_deref().map(|a| a.split(',').collect()).unwrap_or_default();
        let count = names.len().max(addresses.len());
        if count == 0 {
            return Err(UrlError::Missing("host"));
        }
        if !names.is_empty() && !addresses.is_empty() && names.len() != addresses.len() {
            return Err(UrlError::Conflict("host and hostaddr list different numbers of hosts"));
        }
        let ports = ports(self.take("port"), count)?;
        let at =
            |list: &[&str], index: usize| list.get(index).map_or("", |item| item.trim()).to_owned();
        let hosts = ports.into_iter().enumerate();
        hosts.map(|(i, port)| host(at(&names, i), &at(&addresses, i), port)).collect()
    }

    fn tls(&mut self, params: &mut Params) -> Result<(), UrlError> {
        let mode = self.choice(
            "sslmode",
            &[
                ("disable", SslMode::Disable),
                ("allow", SslMode::Allow),
                ("prefer", SslMode::Prefer),
                ("require", SslMode::Require),
                ("verify-ca", SslMode::VerifyCa),
                ("verify-full", SslMode::VerifyFull),
            ],
            "disable, allow, prefer, require, verify-ca or verify-full",
        )?;
        let tls = &mut params.tls;
        tls.roots = match self.take("sslrootcert") {
            None => Roots::Unset,
            Some(name) if name == "system" => Roots::System,
            Some(file) => Roots::File(PathBuf::from(file)),
        };
        tls.mode = match (mode, &tls.roots) {
            (None, Roots::System) => SslMode::VerifyFull,
            (None, _) => SslMode::Prefer,
            (Some(mode), _) => mode,
        };
        if tls.roots == Roots::System && tls.mode != SslMode::VerifyFull {
            return Err(UrlError::Conflict("sslrootcert=system needs sslmode=verify-full"));
        }
        if tls.roots == Roots::Unset && tls.mode == SslMode::VerifyCa {
            return Err(UrlError::Conflict("sslmode=verify-ca needs sslrootcert"));
        }
        tls.client = match (self.take("sslcert"), self.take("sslkey")) {
            (Some(certificate), Some(key)) => {
                Some(ClientCertificate { certificate: certificate.into(), key: key.into() })
            }
            (None, None) => None,
            _ => return Err(UrlError::Conflict("sslcert and sslkey need each other")),
        };
        tls.negotiation = self
            .choice(
                "sslnegotiation",
                &[("postgres", SslNegotiation::Postgres), ("direct", SslNegotiation::Direct)],
                "postgres or direct",
            )?
            .unwrap_or(SslNegotiation::Postgres);
        let weak = matches!(tls.mode, SslMode::Disable | SslMode::Allow | SslMode::Prefer);
        if tls.negotiation == SslNegotiation::Direct && weak {
            return Err(UrlError::Conflict(
                "sslnegotiation=direct needs sslmode=require or better",
            ));
        }
        tls.sni = self.switch("sslsni")?.unwrap_or(true);
        tls.min_version = self
            .choice(
                "ssl_min_protocol_version",
                &[("TLSv1.2", TlsVersion::V1_2), ("TLSv1.3", TlsVersion::V1_3)],
                "TLSv1.2 or TLSv1.3",
            )?
            .unwrap_or(TlsVersion::V1_2);
        Ok(())
    }

    fn switch(&mut self, key: &'static str) -> Result<Option<bool>, UrlError> {
        self.choice(key, &[("0", false), ("1", true)], "0 or 1")
    }

    fn login(&mut self, params: &mut Params) -> Result<(), UrlError> {
        params.channel_binding = self
            .choice(
                "channel_binding",
                &[
                    ("disable", ChannelBinding::Disable),
                    ("prefer", ChannelBinding::Prefer),
                    ("require", ChannelBinding::Require),
                ],
                "disable, prefer or require",
            )?
            .unwrap_or(ChannelBinding::Prefer);
        params.require_auth =
            self.take("require_auth").map(|list| require_auth(&list)).transpose()?;
        if params.channel_binding == ChannelBinding::Require && params.tls.mode == SslMode::Disable
        {
            return Err(UrlError::Conflict("channel_binding=require needs TLS"));
        }
        Ok(())
    }

    fn session(&mut self, params: &mut Params) -> Result<(), UrlError> {
        params.target_session_attrs = self
            .choice(
                "target_session_attrs",
                &[
                    ("any", TargetSessionAttrs::Any),
                    ("read-write", TargetSessionAttrs::ReadWrite),
                    ("read-only", TargetSessionAttrs::ReadOnly),
                    ("primary", TargetSessionAttrs::Primary),
                    ("standby", TargetSessionAttrs::Standby),
                    ("prefer-standby", TargetSessionAttrs::PreferStandby),
                ],
                "any, read-write, read-only, primary, standby or prefer-standby",
            )?
            .unwrap_or(TargetSessionAttrs::Any);
        let expected = "a number of seconds from 1 to 3600";
        if let Some(seconds) = self.number::<u64>("connect_timeout", expected)? {
            if !(1..=MAX_CONNECT_TIMEOUT_S).contains(&seconds) {
                return Err(UrlError::Value { key: "connect_timeout", expected });
            }
            params.connect_timeout = Duration::from_secs(seconds);
        }
        let name = self.take("application_name");
        if let Some(name) = name.or(self.take("fallback_application_name")) {
            params.application_name = name;
        }
        params.options = self.take("options");
        Ok(())
    }

    fn tcp(&mut self, params: &mut Params) -> Result<(), UrlError> {
        let seconds = "a number of seconds, or 0 for the system's";
        let tcp = &mut params.tcp;
        if let Some(on) = self.switch("keepalives")? {
            tcp.keepalive = on;
        }
        let some = |n: u32| (n > 0).then(|| Duration::from_secs(n.into()));
        if let Some(n) = self.number("keepalives_idle", seconds)? {
            tcp.idle = some(n);
        }
        if let Some(n) = self.number("keepalives_interval", seconds)? {
            tcp.interval = some(n);
        }
        if let Some(n) =
            self.number::<u32>("keepalives_count", "a number, or 0 for the system's")?
        {
            tcp.count = (n > 0).then_some(n);
        }
        let millis = "a number of milliseconds, or 0 for the system's";
        if let Some(n) = self.number::<u32>("tcp_user_timeout", millis)? {
            tcp.user_timeout = (n > 0).then(|| Duration::from_millis(n.into()));
        }
        Ok(())
    }

    /// Keys that only have one value we can honour, and are common enough to be let through.
    fn harmless(&mut self) -> Result<(), UrlError> {
        let gss = [("disable", ()), ("prefer", ())];
        self.choice("gssencmode", &gss, "disable or prefer: there is no GSSAPI")?;
        let encodings = [("UTF8", ()), ("utf8", ()), ("UTF-8", ()), ("utf-8", ()), ("auto", ())];
        self.choice("client_encoding", &encodings, "UTF8")?;
        self.choice("load_balance_hosts", &[("disable", ())], "disable: hosts are tried in order")?;
        self.choice("sslcompression", &[("0", ())], "0")?;
        Ok(())
    }
}

fn ports(list: Option<String>, count: usize) -> Result<Vec<u16>, UrlError> {
    let bad = UrlError::Value { key: "port", expected: "a number from 1 to 65535" };
    let port = |text: &str| match text.trim() {
        "" => Ok(PORT),
        digits => digits.parse().ok().filter(|port| *port > 0).ok_or(bad.clone()),
    };
    let ports = list.unwrap_or_default().split(',').map(port).collect::<Result<Vec<_>, _>>()?;
    match ports.as_slice() {
        [one] => Ok(vec![*one; count]),
        many if many.len() == count => Ok(ports),
        _ => Err(UrlError::Conflict("port must be one, or one for each host")),
    }
}

fn host(name: String, address: &str, port: u16) -> Result<Host, UrlError> {
    if name.contains('@') {
        return Err(UrlError::Form(ESCAPE));
    }
    if name.starts_with('/') {
        return Ok(Host::Unix { directory: PathBuf::from(name), port });
    }
    let address = match address {
        "" => None,
        text => Some(text.parse::<IpAddr>().map_err(|_| UrlError::Value {
            key: "hostaddr",
            expected: "an IPv4 or IPv6 address",
        })?),
    };
    match (name.is_empty(), address) {
        (true, None) => Err(UrlError::Missing("host")),
        (true, Some(address)) => {
            Ok(Host::Tcp { name: address.to_string(), address: Some(address), port })
        }
        (false, address) => Ok(Host::Tcp { name, address, port }),
    }
}

/// A list of methods to allow, or, each with a `!`, to refuse.
fn require_auth(list: &str) -> Result<RequireAuth, UrlError> {
    let bad = UrlError::Value {
        key: "require_auth",
        expected: "a list of password, md5, scram-sha-256 and none, either all or none of them with a '!'",
    };
    let mut named = Vec::new();
    let negative = list.trim_start().starts_with('!');
    for item in list.split(',').map(str::trim) {
        let name = match item.strip_prefix('!') {
            Some(name) if negative => name,
            None if !negative => item,
            _ => return Err(bad),
        };
        match name {
            "password" => named.push(AuthMethod::Password),
            "md5" => named.push(AuthMethod::Md5),
            "scram-sha-256" => named.push(AuthMethod::ScramSha256),
            "none" => named.push(AuthMethod::None),
            // Methods that we never speak: nothing to allow, nothing to refuse.
            "gss" | "sspi" | "oauth" => {}
            _ => return Err(bad),
        }
    }
    let allowed = AuthMethod::ALL.into_iter().filter(|method| named.contains(method) != negative);
    Ok(RequireAuth(allowed.collect()))
}

#[cfg(test)]
mod tests;
