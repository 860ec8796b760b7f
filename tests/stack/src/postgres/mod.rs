//! PostgreSQL servers.

mod cluster;
mod copy;
mod database;
mod session;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use postgres::Config;

pub use self::database::Database;
use self::session::Lost;
pub use self::session::{Pending, Rows, Session};
use crate::error::Error;
use crate::extended::Installation;
use crate::server::Use;
use crate::version::Version;
use cluster::Cluster;

/// Connecting takes a millisecond; this is for a server that has been paused by mistake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What a private Postgres shall be like.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    version: Version,
    settings: Vec<(String, String)>,
    hba: Option<String>,
    tls: Option<Tls>,
    initdb: Vec<String>,
    origin: Option<Origin>,
    build: Build,
    clock: Option<String>,
}

/// Which installation it runs from.
#[derive(Debug, Clone, Copy)]
enum Build {
    Plain,
    Pgvector,
    Postgis,
}

/// The running server whose files a new one starts with.
#[derive(Debug, Clone)]
struct Origin {
    source: Postgres,
    follows: bool,
}

#[derive(Debug, Clone)]
struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
}

impl PostgresOptions {
    /// As the shared one of that version is.
    pub fn new(version: Version) -> Self {
        Self {
            version,
            settings: Vec::new(),
            hba: None,
            tls: None,
            initdb: Vec::new(),
            origin: None,
            build: Build::Plain,
            clock: None,
        }
    }

    /// Its clock is wrong by this, such as `+60s`.
    #[must_use]
    pub fn clock(mut self, offset: &str) -> Self {
        self.clock = Some(offset.to_owned());
        self
    }

    /// One that has pgvector; there is one for 16 and one for 18.
    pub fn pgvector(version: Version) -> Self {
        Self { build: Build::Pgvector, ..Self::new(version) }
    }

    /// One that has PostGIS; its version is that of the machine's distribution.
    ///
    /// # Panics
    /// When there is none to be had.
    #[track_caller]
    pub fn postgis() -> Self {
        match Installation::with_postgis() {
            Ok(found) => Self { build: Build::Postgis, ..Self::new(found.version) },
            Err(error) => panic!("{error}"),
        }
    }

    fn installation(&self) -> Result<Installation, Error> {
        match self.build {
            Build::Plain => Installation::plain(self.version),
            Build::Pgvector => Installation::with_pgvector(self.version),
            Build::Postgis => Installation::with_postgis(),
        }
    }

    /// A configuration parameter, such as `("max_slot_wal_keep_size", "1MB")`.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Lines of `pg_hba.conf` for TCP connections, instead of trust for all. The helpers here
    /// connect through the Unix socket and stay trusted.
    #[must_use]
    pub fn hba(mut self, lines: &str) -> Self {
        self.hba = Some(lines.to_owned());
        self
    }

    /// Speaks TLS with this certificate and key, both PEM files.
    #[must_use]
    pub fn tls(mut self, certificate: &Path, key: &Path) -> Self {
        self.tls = Some(Tls { certificate: certificate.into(), key: key.into(), client_ca: None });
        self
    }

    /// Checks clients' certificates against this CA; comes after [`tls`](Self::tls).
    ///
    /// # Panics
    /// When it comes before.
    #[must_use]
    pub fn client_ca(mut self, ca: &Path) -> Self {
        self.tls.as_mut().expect("tls() comes first").client_ca = Some(ca.into());
        self
    }

    /// One more argument for `initdb`, such as `--wal-segsize=1`.
    #[must_use]
    pub fn initdb(mut self, argument: &str) -> Self {
        self.initdb.push(argument.to_owned());
        self
    }

    /// Begins as a hot standby of a running server and follows it, until [`Postgres::promote`].
    #[must_use]
    pub fn standby_of(mut self, primary: &Postgres) -> Self {
        self.version = primary.version();
        self.origin = Some(Origin { source: primary.clone(), follows: true });
        self
    }

    /// Begins as a copy of a running server, as a restored backup does: another server with the
    /// same system identifier, the same data, and none of its slots.
    #[must_use]
    pub fn copy_of(mut self, source: &Postgres) -> Self {
        self.version = source.version();
        self.origin = Some(Origin { source: source.clone(), follows: false });
        self
    }

    /// Starts it.
    ///
    /// # Panics
    /// When it does not come up.
    #[track_caller]
    pub fn start(self) -> Postgres {
        let name = format!("postgres-{}-private", self.version);
        match Postgres::launch(&name, self, Use::Private) {
            Ok(postgres) => postgres,
            Err(error) => panic!("{error}"),
        }
    }
}

/// A Postgres server. A handle: the last one to go stops a private server, and a
/// [`Database`] is a handle too.
#[derive(Clone, Debug)]
pub struct Postgres(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    version: Version,
    server: Kind,
    /// A superuser's session in the database `postgres`.
    session: OnceLock<Session>,
}

#[derive(Debug)]
enum Kind {
    Ours(Box<Cluster>),
    External(String),
}

impl Postgres {
    pub(crate) fn launch(name: &str, options: PostgresOptions, usage: Use) -> Result<Self, Error> {
        let version = options.version;
        Ok(Self::new(version, Kind::Ours(Box::new(Cluster::start(name, options, usage)?))))
    }

    pub(crate) fn external(version: Version, url: &str) -> Result<Self, Error> {
        let parsed: Result<Config, _> = url.parse();
        parsed.map_err(Error::because(format!("WALTIDE_TEST_PG{version}_URL")))?;
        Ok(Self::new(version, Kind::External(url.to_owned())))
    }

    fn new(version: Version, server: Kind) -> Self {
        Self(Arc::new(Inner { version, server, session: OnceLock::new() }))
    }

    /// Its major version.
    pub fn version(&self) -> Version {
        self.0.version
    }

    /// A superuser's URL for one of its databases, by TCP.
    pub fn url(&self, database: &str) -> String {
        self.url_as("postgres", None, database)
    }

    /// The URL for a role, with a password where one is needed. For a server that is not ours,
    /// role and password are those of its URL when the role is `postgres`.
    pub fn url_as(&self, role: &str, password: Option<&str>, database: &str) -> String {
        match &self.0.server {
            Kind::Ours(cluster) => {
                let password = password.map(|it| format!(":{it}")).unwrap_or_default();
                format!("postgres://{role}{password}@127.0.0.1:{}/{database}", cluster.port())
            }
            Kind::External(url) => external_url(url, role, password, database),
        }
    }

    /// The TCP port on 127.0.0.1.
    #[track_caller]
    pub fn port(&self) -> u16 {
        self.cluster().port()
    }

    /// The directory of the Unix socket.
    #[track_caller]
    pub fn socket_directory(&self) -> PathBuf {
        self.cluster().socket_directory()
    }

    /// The data directory.
    #[track_caller]
    pub fn data_directory(&self) -> PathBuf {
        self.cluster().data_directory()
    }

    /// A superuser's session in one of its databases.
    ///
    /// # Panics
    /// When it cannot be had.
    #[track_caller]
    pub fn session(&self, database: &str) -> Session {
        match self.open(database, Lost::Stays) {
            Ok(session) => session,
            Err(error) => panic!("{error}"),
        }
    }

    /// Runs statements as superuser in the database `postgres`.
    ///
    /// # Panics
    /// When the server refuses, with its message.
    #[track_caller]
    pub fn execute(&self, sql: &str) {
        self.query(sql);
    }

    /// Runs statements as superuser in the database `postgres` and returns all their rows.
    ///
    /// # Panics
    /// When the server refuses, with its message.
    #[track_caller]
    pub fn query(&self, sql: &str) -> Rows {
        self.main_session().query(sql)
    }

    /// Creates a database of a test's own. The name only helps people to see whose it is.
    ///
    /// # Panics
    /// When the server refuses.
    #[track_caller]
    pub fn database(&self, test: &str) -> Database {
        Database::create(self.clone(), test, "")
    }

    /// As [`database`](Self::database), with more of `CREATE DATABASE`, such as
    /// `ENCODING 'SQL_ASCII' TEMPLATE template0`.
    ///
    /// # Panics
    /// When the server refuses.
    #[track_caller]
    pub fn database_with(&self, test: &str, options: &str) -> Database {
        Database::create(self.clone(), test, options)
    }

    /// Stops it in an orderly way ("fast": sessions are ended, WAL is streamed to its end).
    #[track_caller]
    pub fn stop(&self) {
        self.cluster().server.stop("INT");
    }

    /// Starts it after [`stop`](Self::stop) or [`kill`](Self::kill), on the same port and data.
    #[track_caller]
    pub fn start_again(&self) {
        let cluster = self.cluster();
        cluster.server.check_private();
        if let Err(error) = cluster.start_again() {
            panic!("{error}");
        }
    }

    /// Stops it and starts it again.
    #[track_caller]
    pub fn restart(&self) {
        self.stop();
        self.start_again();
    }

    /// Kills it and all its backends without warning.
    #[track_caller]
    pub fn kill(&self) {
        self.cluster().server.kill();
    }

    /// Freezes it and all its backends: connections stay, nobody answers.
    #[track_caller]
    pub fn pause(&self) {
        self.cluster().server.pause();
    }

    /// Lets it go on.
    #[track_caller]
    pub fn resume(&self) {
        self.cluster().server.resume();
    }

    /// Changes configuration parameters: by a reload where that is enough, else by a restart.
    /// Returns when new sessions see them.
    #[track_caller]
    pub fn reconfigure(&self, settings: &[(&str, &str)]) {
        let cluster = self.cluster();
        cluster.server.check_private();
        if let Err(error) = cluster.reconfigure(settings) {
            panic!("{error}");
        }
        // Only the server can tell which parameters a reload leaves as they were.
        let pending = "SELECT name FROM pg_settings WHERE pending_restart";
        if !self.session("postgres").query(pending).is_empty() {
            self.restart();
        }
    }

    /// Makes a standby a primary, on a new timeline. Returns when it is one.
    ///
    /// # Panics
    /// When it is no standby or does not manage within a minute.
    #[track_caller]
    pub fn promote(&self) {
        self.cluster().server.check_private();
        let promoted = self.query("SELECT pg_promote(true, 60)");
        assert_eq!(promoted[0][0].as_deref(), Some("t"), "the standby was not promoted");
    }

    /// What it has logged.
    #[track_caller]
    pub fn log(&self) -> String {
        self.cluster().server.home.log()
    }

    pub(crate) fn save_log(&self) {
        if let Kind::Ours(cluster) = &self.0.server {
            cluster.server.home.save_log();
        }
    }

    #[track_caller]
    fn cluster(&self) -> &Cluster {
        match &self.0.server {
            Kind::Ours(cluster) => cluster,
            Kind::External(..) => {
                panic!("the server of WALTIDE_TEST_PG{}_URL is not ours", self.version())
            }
        }
    }

    /// Whether a statement has a chance to be answered.
    fn is_answering(&self) -> bool {
        match &self.0.server {
            Kind::Ours(cluster) => cluster.server.is_running() && !cluster.server.is_paused(),
            Kind::External(..) => true,
        }
    }

    fn open(&self, database: &str, lost: Lost) -> Result<Session, Error> {
        let mut config = match &self.0.server {
            Kind::Ours(cluster) => cluster.socket_config(),
            Kind::External(url) => url.parse().map_err(Error::because("not a URL"))?,
        };
        Session::open(config.dbname(database).connect_timeout(CONNECT_TIMEOUT), lost)
    }

    #[track_caller]
    fn main_session(&self) -> &Session {
        self.0.session.get_or_init(|| match self.open("postgres", Lost::Returns) {
            Ok(session) => session,
            Err(error) => panic!("{error}"),
        })
    }
}

/// The URL of a server that is not ours, for another database and perhaps another role.
fn external_url(url: &str, role: &str, password: Option<&str>, database: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("postgres", url));
    let (rest, options) = rest.split_once('?').map_or((rest, None), |(a, b)| (a, Some(b)));
    let authority = rest.split('/').next().unwrap_or_default();
    let (login, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    let login = match (role, password) {
        ("postgres", None) => login.to_owned(),
        (role, None) => role.to_owned(),
        (role, Some(password)) => format!("{role}:{password}"),
    };
    let options = options.map(|options| format!("?{options}")).unwrap_or_default();
    format!("{scheme}://{login}@{host}/{database}{options}")
}
