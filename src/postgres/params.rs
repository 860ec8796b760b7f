//! What a connection string means: everything needed to connect, checked, with nothing left to
//! guess. Parsing is in `url.rs`.
//!
//! Meanings are libpq's, with three differences that suit a daemon. Nothing is taken from the
//! environment or a home directory behind the caller's back. A user and a host must be named.
//! Every wait has a bound, and TCP keepalive is on with short times, because a half-open
//! connection that nobody notices holds a replication slot and with it the source's disk.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The longest a host may take from the first packet to a usable session.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// TCP keepalive: silence before the first probe.
pub const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
/// TCP keepalive: between probes.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// TCP keepalive: unanswered probes before the connection counts as lost.
pub const KEEPALIVE_COUNT: u32 = 3;
/// The longest that sent data may go unacknowledged by the peer's kernel.
pub const TCP_USER_TIMEOUT: Duration = Duration::from_secs(30);
/// What `pg_stat_activity` shows unless told otherwise.
pub const APPLICATION_NAME: &str = "waltide";
/// The port unless told otherwise.
pub const PORT: u16 = 5432;

/// Everything needed to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Params {
    /// Tried in order.
    pub hosts: Vec<Host>,
    /// The role to log in as.
    pub user: String,
    /// The database; libpq's default is the user's name.
    pub database: String,
    /// Where the password comes from, read anew for each connection.
    pub password: PasswordSource,
    /// How the connection is encrypted.
    pub tls: Tls,
    /// Whether the login must be bound to the TLS channel.
    pub channel_binding: ChannelBinding,
    /// The only login methods allowed, where some are named.
    pub require_auth: Option<RequireAuth>,
    /// What kind of server is wanted.
    pub target_session_attrs: TargetSessionAttrs,
    /// The bound on connecting to one address.
    pub connect_timeout: Duration,
    /// What `pg_stat_activity` shows.
    pub application_name: String,
    /// Command-line options for the server, as in `-c name=value`.
    pub options: Option<String>,
    /// How soon a dead peer is noticed.
    pub tcp: Tcp,
    /// After how much silence from us the server gives the slot free; set on replication connections.
    pub wal_sender_timeout: Option<Duration>,
}

/// A server's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A name or an address, and a port.
    Tcp {
        /// What certificates and messages are checked against and speak of.
        name: String,
        /// Where to connect instead of asking the resolver for the name.
        address: Option<IpAddr>,
        /// The port.
        port: u16,
    },
    /// The directory of a Unix socket.
    Unix {
        /// The directory.
        directory: PathBuf,
        /// The number in the socket's name.
        port: u16,
    },
}

/// A password. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Takes it as it is.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// Where the password comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PasswordSource {
    /// There is none: the server trusts us, or knows us by certificate or by peer credentials.
    None,
    /// This one.
    Given(Password),
    /// A file that holds it and nothing else; a newline at its end is not part of it.
    File(PathBuf),
    /// A file in the format of `.pgpass`.
    Passfile(PathBuf),
    /// What a command prints: a program and its arguments.
    Command(Vec<String>),
}

/// How the connection is encrypted. A Unix socket never is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Whether, and what is checked.
    pub mode: SslMode,
    /// Whom to trust.
    pub roots: Roots,
    /// Our own certificate, for servers that ask for one.
    pub client: Option<ClientCertificate>,
    /// Whether TLS is asked for or started at once.
    pub negotiation: SslNegotiation,
    /// Whether the server is told the name we look for.
    pub sni: bool,
    /// The oldest version allowed.
    pub min_version: TlsVersion,
}

/// libpq's `sslmode`, from the weakest to the strongest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SslMode {
    /// Never.
    Disable,
    /// Only where the server refuses us without.
    Allow,
    /// Where the server offers it.
    Prefer,
    /// Always; the certificate is checked only if roots are named.
    Require,
    /// Always, with a certificate from a trusted root.
    VerifyCa,
    /// Always, with a certificate from a trusted root, for the host we connect to.
    VerifyFull,
}

/// Whom to trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Roots {
    /// Nobody was named; `verify-full` trusts the system's roots then.
    Unset,
    /// The system's roots.
    System,
    /// Those in a PEM file.
    File(PathBuf),
}

/// Our own certificate: both in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate and those between it and its root.
    pub certificate: PathBuf,
    /// Its key, not encrypted.
    pub key: PathBuf,
}

/// libpq's `sslnegotiation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SslNegotiation {
    /// Ask first, as all servers understand.
    Postgres,
    /// Start at once: saves a round trip, PostgreSQL 17 and newer.
    Direct,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// 1.2
    V1_2,
    /// 1.3
    V1_3,
}

/// libpq's `channel_binding`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// Where it is possible.
    Prefer,
    /// Always: anything else, a trusting server included, is refused.
    Require,
}

/// libpq's `require_auth`: the login methods allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequireAuth(pub(super) Vec<AuthMethod>);

/// A way to log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMethod {
    /// The password as it is.
    Password,
    /// An MD5 hash.
    Md5,
    /// SCRAM-SHA-256, with or without channel binding.
    ScramSha256,
    /// The server asks for nothing.
    None,
}

impl AuthMethod {
    /// All of them.
    pub(super) const ALL: [Self; 4] = [Self::Password, Self::Md5, Self::ScramSha256, Self::None];

    /// As `require_auth` calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Md5 => "md5",
            Self::ScramSha256 => "scram-sha-256",
            Self::None => "no authentication",
        }
    }
}

/// libpq's `target_session_attrs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetSessionAttrs {
    /// Any server.
    Any,
    /// One that takes writes.
    ReadWrite,
    /// One that does not.
    ReadOnly,
    /// Not a hot standby.
    Primary,
    /// A hot standby.
    Standby,
    /// A hot standby, or else any server.
    PreferStandby,
}

impl fmt::Display for TargetSessionAttrs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Any => "any",
            Self::ReadWrite => "read-write",
            Self::ReadOnly => "read-only",
            Self::Primary => "primary",
            Self::Standby => "standby",
            Self::PreferStandby => "prefer-standby",
        })
    }
}

/// How soon a dead peer is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// Whether silence is probed.
    pub keepalive: bool,
    /// Silence before the first probe; `None` leaves it to the system.
    pub idle: Option<Duration>,
    /// Between probes.
    pub interval: Option<Duration>,
    /// Unanswered probes before the connection counts as lost.
    pub count: Option<u32>,
    /// The longest that sent data may go unacknowledged.
    pub user_timeout: Option<Duration>,
}

impl Default for Tcp {
    fn default() -> Self {
        Self {
            keepalive: true,
            idle: Some(KEEPALIVE_IDLE),
            interval: Some(KEEPALIVE_INTERVAL),
            count: Some(KEEPALIVE_COUNT),
            user_timeout: Some(TCP_USER_TIMEOUT),
        }
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            mode: SslMode::Prefer,
            roots: Roots::Unset,
            client: None,
            negotiation: SslNegotiation::Postgres,
            sni: true,
            min_version: TlsVersion::V1_2,
        }
    }
}

impl Params {
    /// What libpq would assume of one host, a user and a database.
    #[must_use]
    pub fn new(host: Host, user: impl Into<String>, database: impl Into<String>) -> Self {
        Self {
            hosts: vec![host],
            user: user.into(),
            database: database.into(),
            password: PasswordSource::None,
            tls: Tls::default(),
            channel_binding: ChannelBinding::Prefer,
            require_auth: None,
            target_session_attrs: TargetSessionAttrs::Any,
            connect_timeout: CONNECT_TIMEOUT,
            application_name: APPLICATION_NAME.to_owned(),
            options: None,
            tcp: Tcp::default(),
            wal_sender_timeout: None,
        }
    }

    /// Where the connection string has no password, takes it from a file, or else from what the
    /// environment has (`PGPASSWORD`); a `passfile` in the string comes last, as in libpq.
    #[must_use]
    pub fn with_password_from(mut self, file: Option<PathBuf>, given: Option<Password>) -> Self {
        if !matches!(self.password, PasswordSource::Given(_)) {
            if let Some(path) = file {
                self.password = PasswordSource::File(path);
            } else if let Some(password) = given {
                self.password = PasswordSource::Given(password);
            }
        }
        self
    }

    /// Takes the password from what a command prints, unless the connection string has one.
    #[must_use]
    pub fn with_password_command(mut self, words: &[String]) -> Self {
        if !matches!(self.password, PasswordSource::Given(_)) {
            self.password = PasswordSource::Command(words.to_vec());
        }
        self
    }
}

/// As a URL, without the password.
impl fmt::Display for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "postgres://{}@", self.user)?;
        for (at, host) in self.hosts.iter().enumerate() {
            write!(f, "{}{host}", if at == 0 { "" } else { "," })?;
        }
        write!(f, "/{}", self.database)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { name, port, .. } if name.contains(':') => write!(f, "[{name}]:{port}"),
            Self::Tcp { name, port, .. } => write!(f, "{name}:{port}"),
            Self::Unix { directory, port } => write!(f, "{}:{port}", directory.display()),
        }
    }
}
