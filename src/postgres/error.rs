//! What can go wrong between us and a server, told apart as far as an operator can act on it.
//!
//! A message names the server, the database and the user, never a password. The server's own
//! words come along with their SQLSTATE; its DETAIL is kept but not printed, because it is where
//! row values appear.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::params::TargetSessionAttrs;

/// Who was asked, for whom: part of every error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer(Arc<PeerParts>);

#[derive(Debug, PartialEq, Eq)]
struct PeerParts {
    host: String,
    port: u16,
    database: String,
    user: String,
}

impl Peer {
    pub(super) fn new(host: String, port: u16, database: &str, user: &str) -> Self {
        let (database, user) = (database.to_owned(), user.to_owned());
        Self(Arc::new(PeerParts { host, port, database, user }))
    }

    /// The host as it was configured; a directory for a Unix socket.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.0.host
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.0.port
    }

    /// The database.
    #[must_use]
    pub fn database(&self) -> &str {
        &self.0.database
    }

    /// The role we log in as.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.0.user
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PeerParts { host, port, database, user } = &*self.0;
        if host.starts_with('/') {
            write!(f, "{host}/.s.PGSQL.{port} (database {database}, user {user})")
        } else if host.contains(':') {
            write!(f, "[{host}]:{port} (database {database}, user {user})")
        } else {
            write!(f, "{host}:{port} (database {database}, user {user})")
        }
    }
}

/// A failure between us and a server.
#[derive(Debug)]
pub enum Error {
    /// The host's name has no address.
    Dns {
        /// Who was asked.
        peer: Peer,
        /// What the resolver said.
        source: io::Error,
    },
    /// No connection could be made.
    Unreachable {
        /// Who was asked.
        peer: Peer,
        /// What the system said.
        source: io::Error,
    },
    /// An answer did not come in time.
    Timeout {
        /// Who was asked.
        peer: Peer,
        /// What we were waiting for.
        waiting_for: &'static str,
        /// How long.
        after: Duration,
    },
    /// TLS was required and the server has none.
    TlsRefused {
        /// Who was asked.
        peer: Peer,
    },
    /// The server's certificate does not lead to a trusted root, or is out of its time.
    CertificateUntrusted {
        /// Who was asked.
        peer: Peer,
        /// What is wrong with it.
        reason: String,
    },
    /// The server's certificate is for other hosts.
    CertificateWrongHost {
        /// Who was asked.
        peer: Peer,
        /// The names in the certificate.
        names: Vec<String>,
    },
    /// TLS failed otherwise; the server's alert is in the reason where it sent one.
    Tls {
        /// Who was asked.
        peer: Peer,
        /// What happened.
        reason: String,
    },
    /// A password, certificate or key file could not be used.
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The command that shall print the password gave none.
    PasswordCommand {
        /// What happened, in the command's words where it had some.
        reason: String,
    },
    /// We would not log in the way the server asked, or it did not prove itself. What the server
    /// has to say against our login is [`Error::Server`].
    Auth {
        /// Who was asked.
        peer: Peer,
        /// Why.
        reason: AuthError,
    },
    /// The server said no.
    Server {
        /// Who was asked.
        peer: Peer,
        /// What it said.
        error: Box<ServerError>,
    },
    /// The server, or the caller, did what the protocol does not allow.
    Protocol {
        /// Who was asked.
        peer: Peer,
        /// What was not expected.
        what: Cow<'static, str>,
    },
    /// The connection ended.
    Closed {
        /// Who was asked.
        peer: Peer,
        /// What the system said, unless it ended in an orderly way.
        source: Option<io::Error>,
    },
    /// None of the servers is what `target_session_attrs` asks for.
    NoHostMatches {
        /// What was asked for.
        wanted: TargetSessionAttrs,
        /// The servers that answered and are not it.
        answered: Vec<Peer>,
        /// Why the other hosts could not be asked.
        failed: Vec<Error>,
    },
    /// None of several hosts could be reached: each one's own reason, in the order tried.
    NoHostReached(Vec<Error>),
}

/// Why we refused a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthError {
    /// The server wants a password and there is none.
    NoPassword,
    /// The server wants a method we do not speak.
    Unsupported(Cow<'static, str>),
    /// `require_auth` does not allow the method the server uses.
    NotAllowed(&'static str),
    /// `channel_binding=require`, and the server did not authenticate with it.
    ChannelBindingRequired(&'static str),
    /// The server could not prove that it knows the password, or broke the exchange.
    NotProven(String),
}

/// The five characters that name an error's kind.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SqlState([u8; 5]);

impl SqlState {
    /// `08P01 protocol_violation`
    pub const PROTOCOL_VIOLATION: Self = Self(*b"08P01");
    /// `28000 invalid_authorization_specification`: no such role, or `pg_hba.conf` says no.
    pub const INVALID_AUTHORIZATION: Self = Self(*b"28000");
    /// `28P01 invalid_password`
    pub const INVALID_PASSWORD: Self = Self(*b"28P01");
    /// `3D000 invalid_catalog_name`: no such database.
    pub const INVALID_CATALOG_NAME: Self = Self(*b"3D000");
    /// `42501 insufficient_privilege`
    pub const INSUFFICIENT_PRIVILEGE: Self = Self(*b"42501");
    /// `42601 syntax_error`
    pub const SYNTAX_ERROR: Self = Self(*b"42601");
    /// `42704 undefined_object`: no such slot or publication.
    pub const UNDEFINED_OBJECT: Self = Self(*b"42704");
    /// `42710 duplicate_object`: the slot exists.
    pub const DUPLICATE_OBJECT: Self = Self(*b"42710");
    /// `42883 undefined_function`: a type without a send function, in binary.
    pub const UNDEFINED_FUNCTION: Self = Self(*b"42883");
    /// `53300 too_many_connections`
    pub const TOO_MANY_CONNECTIONS: Self = Self(*b"53300");
    /// `53400 configuration_limit_exceeded`: no free slot.
    pub const CONFIGURATION_LIMIT_EXCEEDED: Self = Self(*b"53400");
    /// `54000 program_limit_exceeded`: a value larger than 1 GiB on the wire.
    pub const PROGRAM_LIMIT_EXCEEDED: Self = Self(*b"54000");
    /// `55000 object_not_in_prerequisite_state`: wal_level, or a lost slot.
    pub const OBJECT_NOT_IN_PREREQUISITE_STATE: Self = Self(*b"55000");
    /// `55006 object_in_use`: the slot is taken.
    pub const OBJECT_IN_USE: Self = Self(*b"55006");
    /// `57014 query_canceled`
    pub const QUERY_CANCELED: Self = Self(*b"57014");
    /// `57P01 admin_shutdown`: shut down, or our backend was terminated.
    pub const ADMIN_SHUTDOWN: Self = Self(*b"57P01");
    /// `57P02 crash_shutdown`
    pub const CRASH_SHUTDOWN: Self = Self(*b"57P02");
    /// `57P03 cannot_connect_now`: starting up, shutting down, or a standby that is not ready.
    pub const CANNOT_CONNECT_NOW: Self = Self(*b"57P03");
    /// `58P01 undefined_file`: a WAL segment that is gone.
    pub const UNDEFINED_FILE: Self = Self(*b"58P01");

    /// Takes the code as the server sent it; anything that is none becomes `XX000`.
    pub(super) fn parse(code: &[u8]) -> Self {
        match <[u8; 5]>::try_from(code) {
            Ok(code) if code.iter().all(u8::is_ascii_alphanumeric) => Self(code),
            _ => Self(*b"XX000"),
        }
    }

    /// The code as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("XX000")
    }

    /// The first two characters, which name the class.
    #[must_use]
    pub fn class(&self) -> &str {
        self.as_str().get(..2).unwrap_or_default()
    }
}

impl fmt::Display for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SqlState({})", self.as_str())
    }
}

/// An error or a notice as the server sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerError {
    /// `ERROR`, `FATAL`, `PANIC`, `WARNING` ..., never translated.
    pub severity: String,
    /// What kind of error it is.
    pub sqlstate: SqlState,
    /// What happened, in the server's language.
    pub message: String,
    /// More of it. May hold row values: not for logs.
    pub detail: Option<String>,
    /// What to do.
    pub hint: Option<String>,
    /// Where in the server's work it happened. May hold row values: not for logs.
    pub context: Option<String>,
    /// The schema of the object it is about.
    pub schema: Option<String>,
    /// The table it is about.
    pub table: Option<String>,
    /// The column it is about.
    pub column: Option<String>,
    /// The type it is about.
    pub data_type: Option<String>,
    /// The constraint it is about.
    pub constraint: Option<String>,
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (SQLSTATE {})", self.message, self.sqlstate)?;
        match &self.hint {
            Some(hint) => write!(f, ". Hint: {hint}"),
            None => Ok(()),
        }
    }
}

impl Error {
    /// What kind of error the server sent, where it did.
    #[must_use]
    pub fn sqlstate(&self) -> Option<SqlState> {
        self.server().map(|error| error.sqlstate)
    }

    /// What the server sent, where it did.
    #[must_use]
    pub fn server(&self) -> Option<&ServerError> {
        match self {
            Self::Server { error, .. } => Some(error),
            _ => None,
        }
    }

    /// The server it is about, where it is about one.
    #[must_use]
    pub fn peer(&self) -> Option<&Peer> {
        match self {
            Self::Dns { peer, .. }
            | Self::Unreachable { peer, .. }
            | Self::Timeout { peer, .. }
            | Self::TlsRefused { peer }
            | Self::CertificateUntrusted { peer, .. }
            | Self::CertificateWrongHost { peer, .. }
            | Self::Tls { peer, .. }
            | Self::Auth { peer, .. }
            | Self::Server { peer, .. }
            | Self::Protocol { peer, .. }
            | Self::Closed { peer, .. } => Some(peer),
            Self::File { .. }
            | Self::PasswordCommand { .. }
            | Self::NoHostMatches { .. }
            | Self::NoHostReached(_) => None,
        }
    }

    /// A server that does not keep to the protocol, or to what was asked of it.
    pub fn protocol(peer: &Peer, what: impl Into<Cow<'static, str>>) -> Self {
        Self::Protocol { peer: peer.clone(), what: what.into() }
    }

    /// A command on a connection whose last one has no end: it is as good as lost.
    pub(super) fn given_up(peer: &Peer) -> Self {
        let source = io::Error::other("a command before this one was given up");
        Self::Closed { peer: peer.clone(), source: Some(source) }
    }

    /// A read or write on an open connection failed. What TLS reports travels inside `io::Error`.
    pub(super) fn broken(peer: &Peer, source: io::Error) -> Self {
        let peer = peer.clone();
        let inner =
            source.get_ref().and_then(|inner| inner.downcast_ref::<tokio_rustls::rustls::Error>());
        match inner {
            Some(tls) => Self::Tls { peer, reason: tls.to_string() },
            None if source.kind() == io::ErrorKind::UnexpectedEof => {
                Self::Closed { peer, source: None }
            }
            None => Self::Closed { peer, source: Some(source) },
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns { peer, source } => {
                write!(f, "the host of {peer} has no address: {source}")
            }
            Self::Unreachable { peer, source } => write!(f, "cannot reach {peer}: {source}"),
            Self::Timeout { peer, waiting_for, after } => {
                write!(f, "{peer} kept us waiting for {waiting_for} longer than {after:?}")
            }
            Self::TlsRefused { peer } => write!(f, "{peer} does not offer TLS"),
            Self::CertificateUntrusted { peer, reason } => {
                write!(f, "the certificate of {peer} is not trusted: {reason}")
            }
            Self::CertificateWrongHost { peer, names } if names.is_empty() => {
                write!(f, "the certificate of {peer} names no host")
            }
            Self::CertificateWrongHost { peer, names } => {
                write!(f, "the certificate of {peer} is for other hosts: {}", names.join(", "))
            }
            Self::Tls { peer, reason } => write!(f, "TLS with {peer} failed: {reason}"),
            Self::File { path, reason } => write!(f, "cannot use {}: {reason}", path.display()),
            Self::PasswordCommand { reason } => {
                write!(f, "there is no password for the source: {reason}")
            }
            Self::Auth { peer, reason } => write!(f, "cannot log in to {peer}: {reason}"),
            Self::Server { peer, error } => write!(f, "{peer} answered: {error}"),
            Self::Protocol { peer, what } => {
                write!(f, "the conversation with {peer} broke: {what}")
            }
            Self::Closed { peer, source: None } => write!(f, "{peer} closed the connection"),
            Self::Closed { peer, source: Some(source) } => {
                write!(f, "the connection to {peer} was lost: {source}")
            }
            Self::NoHostMatches { wanted, answered, failed } => {
                write!(f, "no host is {wanted}")?;
                let answered = answered.iter().map(|peer| format!("{peer} is not"));
                let failed = failed.iter().map(ToString::to_string);
                write_all(f, answered.chain(failed))
            }
            Self::NoHostReached(failed) => {
                f.write_str("none of the hosts could be reached")?;
                write_all(f, failed.iter().map(ToString::to_string))
            }
        }
    }
}

fn write_all(f: &mut fmt::Formatter<'_>, parts: impl Iterator<Item = String>) -> fmt::Result {
    for (at, part) in parts.enumerate() {
        write!(f, "{}{part}", if at == 0 { ": " } else { "; " })?;
    }
    Ok(())
}

// No `source()`: the sentence above already says what the system said.
impl std::error::Error for Error {}

impl std::error::Error for ServerError {}

impl fmt::Display for AuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPassword => f.write_str("the server asks for a password and none is given"),
            Self::Unsupported(method) => {
                write!(f, "the server asks for {method}, which is not supported")
            }
            Self::NotAllowed(method) => {
                write!(f, "the server uses {method}, which require_auth does not allow")
            }
            Self::ChannelBindingRequired(instead) => {
                write!(f, "channel_binding=require, but the server uses {instead}")
            }
            Self::NotProven(how) => {
                write!(f, "the server did not prove that it knows the password: {how}")
            }
        }
    }
}
