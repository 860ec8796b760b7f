//! Asks a server to stop what it is doing for one of our connections.

use std::fmt;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::error::{Error, Peer};
use super::params::Params;
use super::session::{Backend, Target};
use super::tls::{IfRefused, Material};
use super::transport::{Socket, connect_tcp, connect_unix};

/// The code of a CancelRequest: 1234 and 5678.
const CANCEL_REQUEST: u32 = 80_877_102;

/// Cancels what one connection's server process is doing; usable from another task.
#[derive(Clone)]
pub struct CancelToken {
    pub(super) params: Arc<Params>,
    pub(super) target: Target,
    pub(super) peer: Peer,
    pub(super) backend: Backend,
    pub(super) encrypted: bool,
}

impl fmt::Debug for CancelToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CancelToken(process {} of {})", self.backend.process_id, self.peer)
    }
}

impl CancelToken {
    /// Sends the request and waits until the server has taken it. Whether there was anything to
    /// cancel is not told; a command that was ends with SQLSTATE 57014.
    pub async fn cancel(&self) -> Result<(), Error> {
        let after = self.params.connect_timeout;
        match timeout(after, self.send()).await {
            Ok(result) => result,
            Err(_) => Err(Error::Timeout {
                peer: self.peer.clone(),
                waiting_for: "a cancel request to be taken",
                after,
            }),
        }
    }

    async fn send(&self) -> Result<(), Error> {
        let mut socket = self.connect().await?;
        let len = u32::try_from(12 + self.backend.secret.len()).unwrap_or(u32::MAX);
        let mut request = Vec::with_capacity(16);
        request.extend(len.to_be_bytes());
        request.extend(CANCEL_REQUEST.to_be_bytes());
        request.extend(self.backend.process_id.to_be_bytes());
        request.extend(&self.backend.secret);
        let failed = |error| Error::broken(&self.peer, error);
        socket.write_all(&request).await.map_err(failed)?;
        socket.flush().await.map_err(failed)?;
        // The server closes once it has passed the request on; how it closes says nothing.
        let _ = socket.read(&mut [0; 1]).await;
        Ok(())
    }

    async fn connect(&self) -> Result<Socket, Error> {
        let failed = |source| Error::Unreachable { peer: self.peer.clone(), source };
        match &self.target {
            Target::Unix(directory, port) => {
                Ok(Socket::Unix(connect_unix(directory, *port).await.map_err(failed)?))
            }
            Target::Tcp(address) => {
                let stream = connect_tcp(*address, &self.params.tcp).await.map_err(failed)?;
                if !self.encrypted {
                    return Ok(Socket::Tcp(stream));
                }
                let tls = &self.params.tls;
                let material = Material::load(tls).await?;
                material.encrypt(stream, tls, IfRefused::Fail, &self.peer).await
            }
        }
    }
}
