//! Finds a server among the hosts and opens a session there.
//!
//! As libpq does: hosts in order, each address of each; a host that cannot be reached, does not
//! answer in time or is starting up gives way to the next, but one that refuses our login does
//! not, because another answer elsewhere would hide a wrong password until a failover.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use postgres_protocol::message::frontend;
use tokio::net::lookup_host;
use tokio::time::{Instant, timeout_at};

use super::auth;
use super::connection::Connection;
use super::error::{Error, Peer, SqlState};
use super::link::Link;
use super::message::{self, Fields};
use super::params::{Host, Params, Password, PasswordSource, SslMode, TargetSessionAttrs};
use super::session::{Backend, Mode, Session, State, Target};
use super::tls::{IfRefused, Material};
use super::transport::{Socket, connect_tcp, connect_unix};
use crate::credential::Credential;

/// A session on the first host that will do.
pub(super) async fn open(params: &Params, mode: Mode) -> Result<Connection, Error> {
    let encrypts = params.tls.mode != SslMode::Disable
        && params.hosts.iter().any(|host| matches!(host, Host::Tcp { .. }));
    let material = if encrypts { Some(Material::load(&params.tls).await?) } else { None };
    let params = Arc::new(with_password(params.clone()).await?);
    let mut search = Search { params, mode, material, answered: Vec::new(), failed: Vec::new() };
    let wanted = search.params.target_session_attrs;
    let found = match wanted {
        TargetSessionAttrs::PreferStandby => {
            match search.pass(TargetSessionAttrs::Standby).await? {
                Some(standby) => Some(standby),
                None => {
                    search.failed.clear();
                    search.pass(TargetSessionAttrs::Any).await?
                }
            }
        }
        wanted => search.pass(wanted).await?,
    };
    found.ok_or_else(|| search.nothing_found(wanted))
}

/// Runs the command that prints the password, before a server waits for our answer.
async fn with_password(mut params: Params) -> Result<Params, Error> {
    let PasswordSource::Command(words) = &params.password else { return Ok(params) };
    let command = Credential::Command(words.clone());
    let failed = |reason: String| Error::PasswordCommand { reason };
    let printed = tokio::task::spawn_blocking(move || command.read_named()).await;
    let printed = printed.map_err(|error| failed(error.to_string()))?.map_err(failed)?;
    params.password = PasswordSource::Given(Password::new(printed.expose()));
    Ok(params)
}

struct Search {
    params: Arc<Params>,
    mode: Mode,
    material: Option<Material>,
    answered: Vec<Peer>,
    failed: Vec<Error>,
}

/// How one try is encrypted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Encryption {
    Plain,
    IfOffered,
    Always,
}

/// One try failed.
struct Failed {
    error: Error,
    /// Whether the connection was encrypted, or failed to become so.
    encrypted: bool,
    /// Whether the other kind of encryption may fare better.
    retry: bool,
}

impl Search {
    /// Goes through all hosts once.
    async fn pass(&mut self, wanted: TargetSessionAttrs) -> Result<Option<Connection>, Error> {
        let params = self.params.clone();
        for host in &params.hosts {
            let peer = self.peer(host);
            match self.host(host, &peer).await {
                Ok(mut connection) => {
                    if is_wanted(&mut connection, wanted).await? {
                        return Ok(Some(connection));
                    }
                    self.answered.push(peer);
                    connection.close().await;
                }
                Err(error) if gives_way(&error) => self.failed.push(error),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    fn peer(&self, host: &Host) -> Peer {
        let (name, port) = match host {
            Host::Tcp { name, port, .. } => (name.clone(), *port),
            Host::Unix { directory, port } => (directory.display().to_string(), *port),
        };
        Peer::new(name, port, &self.params.database, &self.params.user)
    }

    fn nothing_found(&mut self, wanted: TargetSessionAttrs) -> Error {
        let (answered, mut failed) =
            (std::mem::take(&mut self.answered), std::mem::take(&mut self.failed));
        if !answered.is_empty() {
            return Error::NoHostMatches { wanted, answered, failed };
        }
        match failed.pop() {
            Some(only) if failed.is_empty() => only,
            Some(last) => {
                failed.push(last);
                Error::NoHostReached(failed)
            }
            None => Error::NoHostReached(failed),
        }
    }

    /// Tries each address of a host; the last one's error is the host's.
    async fn host(&self, host: &Host, peer: &Peer) -> Result<Connection, Error> {
        let mut last = None;
        for target in self.targets(host, peer).await? {
            match self.target(&target, peer).await {
                Ok(connection) => return Ok(connection),
                Err(error) if gives_way(&error) => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| Error::Dns {
            peer: peer.clone(),
            source: std::io::Error::other("the resolver gave an empty answer"),
        }))
    }

    async fn targets(&self, host: &Host, peer: &Peer) -> Result<Vec<Target>, Error> {
        match host {
            Host::Unix { directory, port } => Ok(vec![Target::Unix(directory.clone(), *port)]),
            Host::Tcp { address: Some(address), port, .. } => {
                Ok(vec![Target::Tcp(SocketAddr::new(*address, *port))])
            }
            Host::Tcp { name, port, .. } => {
                let within = Within::new(self.params.connect_timeout, peer);
                let found = within.run("the resolver", lookup_host((name.as_str(), *port))).await?;
                let failed = |source| Error::Dns { peer: peer.clone(), source };
                Ok(found.map_err(failed)?.map(Target::Tcp).collect())
            }
        }
    }

    /// Tries one address, with and without TLS as `sslmode` allows.
    async fn target(&self, target: &Target, peer: &Peer) -> Result<Connection, Error> {
        let tries: &[Encryption] = match (target, self.params.tls.mode) {
            (Target::Unix(..), _) | (_, SslMode::Disable) => &[Encryption::Plain],
            (_, SslMode::Allow) => &[Encryption::Plain, Encryption::Always],
            (_, SslMode::Prefer) => &[Encryption::IfOffered, Encryption::Plain],
            _ => &[Encryption::Always],
        };
        let mut before: Option<Failed> = None;
        for encryption in tries {
            let failed = match Box::pin(self.attempt(target, *encryption, peer)).await {
                Ok(connection) => return Ok(connection),
                Err(failed) => failed,
            };
            let retry = failed.retry && before.is_none();
            let failed = match before.take() {
                Some(before) => more_telling(before, failed),
                None => failed,
            };
            if !retry {
                return Err(failed.error);
            }
            before = Some(failed);
        }
        Err(before.map_or_else(
            || Error::protocol(peer, "no way to connect was tried"),
            |failed| failed.error,
        ))
    }

    async fn attempt(
        &self,
        target: &Target,
        encryption: Encryption,
        peer: &Peer,
    ) -> Result<Connection, Failed> {
        let within = Within::new(self.params.connect_timeout, peer);
        let socket = self.socket(target, encryption, &within).await?;
        let encrypted = socket.is_encrypted();
        let mut link = Link::new(socket, peer.clone());
        let login = within.run("the login", self.log_in(&mut link)).await.and_then(|done| done);
        login.map_err(|error| Failed {
            retry: match error {
                Error::Server { .. } => encrypted || encryption == Encryption::Plain,
                _ => false,
            },
            encrypted,
            error,
        })?;
        let session = Session::new(self.mode, self.params.clone(), target.clone());
        let mut connection = Connection { link, session };
        let ready = async {
            until_ready(&mut connection).await?;
            let settings = super::settings::statement(
                connection.server_version_num(),
                connection.parameter("server_encoding"),
                self.mode,
                self.params.wal_sender_timeout,
            );
            connection.simple_query(&settings).await.map(drop)
        };
        let ready = within.run("the session to start", ready).await.and_then(|done| done);
        ready.map_err(|error| Failed { error, encrypted, retry: false })?;
        Ok(connection)
    }

    async fn socket(
        &self,
        target: &Target,
        encryption: Encryption,
        within: &Within<'_>,
    ) -> Result<Socket, Failed> {
        let peer = within.peer;
        let unreachable = |source| Error::Unreachable { peer: peer.clone(), source };
        let plain = |error| Failed { error, encrypted: false, retry: false };
        let connecting = "the connection";
        let stream = match target {
            Target::Unix(directory, port) => {
                let stream = within.run(connecting, connect_unix(directory, *port)).await;
                let stream = stream.and_then(|done| done.map_err(unreachable));
                return stream.map(Socket::Unix).map_err(plain);
            }
            Target::Tcp(address) => {
                let stream = within.run(connecting, connect_tcp(*address, &self.params.tcp)).await;
                stream.and_then(|done| done.map_err(unreachable)).map_err(plain)?
            }
        };
        let if_refused = match encryption {
            Encryption::Plain => return Ok(Socket::Tcp(stream)),
            Encryption::IfOffered => IfRefused::GoOn,
            Encryption::Always => IfRefused::Fail,
        };
        let Some(material) = &self.material else { return Ok(Socket::Tcp(stream)) };
        let encrypted = material.encrypt(stream, &self.params.tls, if_refused, peer);
        let encrypted = within.run("TLS to be agreed upon", encrypted).await;
        encrypted.and_then(|done| done).map_err(|error| Failed {
            retry: !matches!(error, Error::Timeout { .. }),
            encrypted: true,
            error,
        })
    }

    async fn log_in(&self, link: &mut Link) -> Result<(), Error> {
        let params = &self.params;
        let mut startup = vec![
            ("user", params.user.as_str()),
            ("database", params.database.as_str()),
            ("application_name", params.application_name.as_str()),
            ("client_encoding", "UTF8"),
        ];
        if let Some(options) = &params.options {
            startup.push(("options", options));
        }
        if self.mode == Mode::Replication {
            startup.push(("replication", "database"));
        }
        frontend::startup_message(startup, &mut link.out)
            .map_err(|_| Error::protocol(&link.peer, "a setting has a zero byte in it"))?;
        link.send().await?;
        auth::log_in(link, params).await
    }
}

/// One deadline for all steps of a try, and whom to name when it passes.
struct Within<'a> {
    deadline: Instant,
    after: Duration,
    peer: &'a Peer,
}

impl<'a> Within<'a> {
    fn new(after: Duration, peer: &'a Peer) -> Self {
        Self { deadline: Instant::now() + after, after, peer }
    }

    async fn run<T>(
        &self,
        waiting_for: &'static str,
        step: impl Future<Output = T>,
    ) -> Result<T, Error> {
        let (peer, after) = (self.peer.clone(), self.after);
        let done = timeout_at(self.deadline, step).await;
        done.map_err(|_| Error::Timeout { peer, waiting_for, after })
    }
}

/// Whether the next host is to be asked after this.
fn gives_way(error: &Error) -> bool {
    match error {
        Error::Dns { .. }
        | Error::Unreachable { .. }
        | Error::Timeout { .. }
        | Error::Closed { .. } => true,
        Error::Server { error, .. } => matches!(
            error.sqlstate,
            SqlState::CANNOT_CONNECT_NOW | SqlState::ADMIN_SHUTDOWN | SqlState::CRASH_SHUTDOWN
        ),
        _ => false,
    }
}

/// Of two tries, one encrypted and one not, which error to tell: a wrong password above all, then
/// what the server said to the encrypted one, then what it said to the other.
fn more_telling(first: Failed, second: Failed) -> Failed {
    let rank = |failed: &Failed| match failed.error.sqlstate() {
        Some(SqlState::INVALID_PASSWORD) => 3,
        Some(_) if failed.encrypted => 2,
        Some(_) => 1,
        None => 0,
    };
    if rank(&second) > rank(&first) { second } else { first }
}

/// From the end of the login until the server waits for a command.
async fn until_ready(connection: &mut Connection) -> Result<(), Error> {
    let Connection { link, session } = connection;
    loop {
        let frame = link.receive().await?;
        match frame.tag {
            b'K' => {
                let mut fields = Fields(frame.body);
                let process_id = fields.i32();
                let secret = fields.0.to_vec();
                session.backend = process_id.map(|process_id| Backend { process_id, secret });
            }
            b'E' => {
                let error = message::server_error(frame.body);
                return Err(link.server(error));
            }
            b'Z' => {
                session.ready(frame.body);
                return Ok(());
            }
            tag if session.take_aside(tag, frame.body) => {}
            tag => return Err(link.unexpected(tag, "the start of the session")),
        }
    }
}

async fn is_wanted(connection: &mut Connection, wanted: TargetSessionAttrs) -> Result<bool, Error> {
    debug_assert!(connection.session.state == State::Ready);
    let wants_standby = match wanted {
        TargetSessionAttrs::Any | TargetSessionAttrs::PreferStandby => return Ok(true),
        TargetSessionAttrs::Primary => false,
        TargetSessionAttrs::Standby => true,
        TargetSessionAttrs::ReadWrite | TargetSessionAttrs::ReadOnly => {
            let read_only = is_on(connection, "default_transaction_read_only").await?
                || is_on(connection, "in_hot_standby").await?;
            return Ok(read_only == (wanted == TargetSessionAttrs::ReadOnly));
        }
    };
    Ok(is_on(connection, "in_hot_standby").await? == wants_standby)
}

/// A setting that the server reports by itself, unless a pooler in between keeps it back.
async fn is_on(connection: &mut Connection, setting: &str) -> Result<bool, Error> {
    if let Some(value) = connection.parameter(setting) {
        return Ok(value == "on");
    }
    let shown = connection.simple_query(&format!("SHOW {setting}")).await?;
    Ok(shown.single() == Some("on"))
}
