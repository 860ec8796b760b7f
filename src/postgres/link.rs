//! A socket, what was read from it, and what is to be written: messages in and out, in order.

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;

use super::error::{Error, Peer, ServerError};
use super::frame::{FillError, Frame, FrameBuffer};
use super::message;
use super::transport::Socket;

/// The read buffer of a connection that carries logins and catalog queries.
pub(super) const QUERY_BUFFER_LEN: usize = 16 * 1024;

/// What was written is kept allocated up to this size.
const OUT_KEPT_LEN: usize = 16 * 1024;

pub(super) struct Link {
    pub(super) socket: Socket,
    pub(super) buffer: FrameBuffer,
    pub(super) peer: Peer,
    /// Encoded and not yet sent.
    pub(super) out: BytesMut,
}

impl Link {
    pub(super) fn new(socket: Socket, peer: Peer) -> Self {
        let buffer = FrameBuffer::new(QUERY_BUFFER_LEN);
        Self { socket, buffer, peer, out: BytesMut::new() }
    }

    /// Sends all of `out`. Where that fails because the server has gone, its last words are what
    /// comes back.
    pub(super) async fn send(&mut self) -> Result<(), Error> {
        let mut sent = self.socket.write_all(&self.out).await;
        if sent.is_ok() {
            sent = self.socket.flush().await;
        }
        if self.out.capacity() > OUT_KEPT_LEN {
            self.out = BytesMut::new();
        }
        self.out.clear();
        match sent {
            Ok(()) => Ok(()),
            Err(error) => match self.last_words().await {
                Some(said) => Err(self.server(said)),
                None => Err(Error::broken(&self.peer, error)),
            },
        }
    }

    async fn last_words(&mut self) -> Option<ServerError> {
        loop {
            while let Some(frame) = self.buffer.next().ok()? {
                if frame.tag == b'E' {
                    return Some(message::server_error(frame.body));
                }
            }
            if self.buffer.fill(&mut self.socket).await.ok()? == 0 {
                return None;
            }
        }
    }

    /// Reads until a whole message is there.
    pub(super) async fn wait(&mut self) -> Result<(), Error> {
        while !self.buffer.has_frame() {
            self.fill().await?;
        }
        Ok(())
    }

    /// Reads once.
    pub(super) async fn fill(&mut self) -> Result<usize, Error> {
        match self.buffer.fill(&mut self.socket).await {
            Ok(0) => Err(Error::Closed { peer: self.peer.clone(), source: None }),
            Ok(count) => Ok(count),
            Err(error) => Err(fill_error(&self.peer, error)),
        }
    }

    /// The next message, waiting for it.
    pub(super) async fn receive(&mut self) -> Result<Frame<'_>, Error> {
        self.wait().await?;
        match self.buffer.next() {
            Ok(Some(frame)) => Ok(frame),
            Ok(None) => Err(Error::protocol(&self.peer, "a message vanished")),
            Err(bad) => Err(Error::protocol(&self.peer, bad.told())),
        }
    }

    pub(super) fn server(&self, error: ServerError) -> Error {
        Error::Server { peer: self.peer.clone(), error: Box::new(error) }
    }

    /// A message that has no place here.
    pub(super) fn unexpected(&self, tag: u8, during: &str) -> Error {
        let tag = tag.escape_ascii();
        Error::protocol(&self.peer, format!("a message of type {tag} came during {during}"))
    }

    /// A message could not be read.
    pub(super) fn malformed(&self, what: &str) -> Error {
        Error::protocol(&self.peer, format!("{what} cannot be read"))
    }
}

pub(super) fn fill_error(peer: &Peer, error: FillError) -> Error {
    match error {
        FillError::Io(error) => Error::broken(peer, error),
        FillError::Length(bad) => Error::protocol(peer, bad.told()),
        FillError::NotDrained => Error::protocol(peer, "messages were left lying in the buffer"),
    }
}
