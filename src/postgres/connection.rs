//! A session with one server: commands in, answers out, one at a time.
//!
//! Every future here reads or writes the socket in order. Dropping one before it is done leaves
//! the session in the middle of an answer; it knows that and refuses the next command, so bound a
//! command by cancelling it ([`Connection::cancel_token`]) or by giving the connection up.

use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::message::frontend;

use super::cancel::CancelToken;
use super::error::{Error, Peer, ServerError};
use super::frame::Frame;
use super::link::Link;
use super::message;
use super::open;
use super::params::Params;
use super::session::{Mode, Session};
use super::tls;

/// How long a farewell may take before the socket is closed without.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A session with a server.
pub struct Connection {
    pub(super) link: Link,
    pub(super) session: Session,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Connection({:?} to {})", self.session.mode, self.link.peer)
    }
}

impl Connection {
    /// Connects to the first of the hosts that will do, logs in, and pins the session's settings.
    pub async fn open(params: &Params, mode: Mode) -> Result<Self, Error> {
        open::open(params, mode).await
    }

    /// Who answers.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.link.peer
    }

    /// The server's version as in `server_version_num`: 150018 for 15.18.
    #[must_use]
    pub fn server_version_num(&self) -> u32 {
        self.session.version_num()
    }

    /// A setting that the server reports by itself, such as `server_encoding`.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.session.parameters.get(name).map(String::as_str)
    }

    /// The id of the server's process, as `pg_replication_slots.active_pid` shows it.
    #[must_use]
    pub fn process_id(&self) -> Option<i32> {
        self.session.backend.as_ref().map(|backend| backend.process_id)
    }

    /// Whether it is encrypted.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.link.socket.is_encrypted()
    }

    /// When the certificate that the server has shown runs out, since 1970; none without TLS.
    #[must_use]
    pub fn certificate_expires(&self) -> Option<Duration> {
        tls::certificate(&self.link.socket)?.expires()
    }

    /// Whether a transaction is open, failed or not.
    #[must_use]
    pub fn in_transaction(&self) -> bool {
        self.session.transaction != b'I'
    }

    /// Cancels this connection's commands from elsewhere; `None` where a pooler gives no key.
    #[must_use]
    pub fn cancel_token(&self) -> Option<CancelToken> {
        self.session.cancel_token(&self.link.peer, self.is_encrypted())
    }

    /// The warnings and notices since the last call, the newest [`MAX_NOTICES`] of them.
    ///
    /// [`MAX_NOTICES`]: super::session::MAX_NOTICES
    pub fn take_notices(&mut self) -> Vec<ServerError> {
        self.session.notices.drain(..).collect()
    }

    /// Says goodbye, so that the server does not log a lost connection. Bounded; errors mean
    /// that the connection is gone already.
    pub async fn close(mut self) {
        frontend::terminate(&mut self.link.out);
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.link.send()).await;
    }

    /// Takes the session for a command and sends what `encode` writes.
    pub(super) async fn start(
        &mut self,
        encode: impl FnOnce(&mut BytesMut) -> std::io::Result<()>,
    ) -> Result<(), Error> {
        self.session.begin(&self.link.peer)?;
        self.link.out.clear();
        encode(&mut self.link.out)
            .map_err(|error| Error::protocol(&self.link.peer, error.to_string()))?;
        self.link.send().await
    }

    /// The next message that belongs to the command.
    pub(super) async fn receive(&mut self) -> Result<Frame<'_>, Error> {
        loop {
            self.link.wait().await?;
            let next = self.link.buffer.advance();
            let next = next.map_err(|bad| Error::protocol(&self.link.peer, bad.told()))?;
            let Some((tag, body)) = next else { continue };
            let aside = self.session.take_aside(tag, self.link.buffer.view(body.clone()));
            if !aside {
                return Ok(Frame { tag, body: self.link.buffer.view(body) });
            }
        }
    }

    /// The server said no: reads on until it is ready again, unless it is about to close.
    pub(super) async fn after_error(&mut self, error: ServerError) -> Error {
        let ends = matches!(error.severity.as_str(), "FATAL" | "PANIC");
        let error = self.link.server(error);
        if !ends && let Err(worse) = self.until_ready().await {
            return worse;
        }
        error
    }

    /// Skips what is left of an answer.
    pub(super) async fn until_ready(&mut self) -> Result<(), Error> {
        loop {
            let frame = self.receive().await?;
            match frame.tag {
                b'Z' => {
                    let status = [frame.body.first().copied().unwrap_or(b'I')];
                    self.session.ready(&status);
                    return Ok(());
                }
                b'E' => {
                    let error = message::server_error(frame.body);
                    return Err(self.link.server(error));
                }
                _ => {}
            }
        }
    }
}
