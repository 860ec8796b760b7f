//! Hot path: no allocation, lock or log per message. The replication stream, one half for each
//! direction.
//!
//! ```text
//! socket -> fill (one large read) -> next_frame, next_frame, ... (views on the buffer) -> socket
//! ```
//!
//! Hazards:
//! - A walsender writes every message by itself. A reader that is woken for each pays two context
//!   switches a row; while behind, raise the low-water mark so that the system wakes us for a
//!   batch. It must come down again when the stream falls quiet, or what lies below the mark
//!   stays there: put a bound on `fill`, and on its passing lower the mark and `fill` again.
//! - Data still comes after we have said CopyDone, and even after the server has: a walsender in
//!   the middle of a transaction sends it to the end.
//! - Half a status update is worse than none. The writer keeps what could not be sent and sends
//!   it first next time, so its futures may be dropped at any point.

use std::io;
use std::time::{Duration, SystemTime};

use tokio::io::AsyncWriteExt;
use waltide_core::lsn::{DurableLsn, Lsn};
use waltide_core::pgoutput::{PgTimestamp, write_status_update};

use super::connection::Connection;
use super::error::{Error, Peer, ServerError};
use super::frame::FrameBuffer;
use super::halves::{ReadHalf, WriteHalf};
use super::link::{Link, QUERY_BUFFER_LEN, fill_error};
use super::message;
use super::session::{Session, State};
use super::transport::Socket;

/// The read buffer of a stream: what one read takes at most. On loopback a larger one reads no
/// faster, and a smaller one costs more calls.
pub const STREAM_BUFFER_LEN: usize = 256 * 1024;

/// CopyData and its length: itself, `r`, three positions, the time, and whether to answer.
const COPY_DATA_OF_STATUS_UPDATE: [u8; 5] = [b'd', 0, 0, 0, 4 + 1 + 3 * 8 + 8 + 1];

/// Postgres counts from 2000-01-01.
const POSTGRES_EPOCH: Duration = Duration::from_secs(946_684_800);

/// The stream's messages, as they come.
pub struct StreamReader {
    half: ReadHalf,
    buffer: FrameBuffer,
    session: Session,
    peer: Peer,
    low_water: usize,
}

/// What we tell the server while it streams.
pub struct StreamWriter {
    half: WriteHalf,
    peer: Peer,
    pending: Vec<u8>,
    sent: usize,
}

impl std::fmt::Debug for StreamReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StreamReader({})", self.peer)
    }
}

impl std::fmt::Debug for StreamWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StreamWriter({})", self.peer)
    }
}

pub(super) fn split(connection: Connection) -> Result<(StreamReader, StreamWriter), Error> {
    let Connection { link: Link { socket, mut buffer, peer, .. }, session } = connection;
    let (read, write) = socket.split().map_err(|error| Error::broken(&peer, error))?;
    buffer.rest_at(STREAM_BUFFER_LEN);
    let writer = StreamWriter { half: write, peer: peer.clone(), pending: Vec::new(), sent: 0 };
    Ok((StreamReader { half: read, buffer, session, peer, low_water: 1 }, writer))
}

impl StreamReader {
    /// Waits until a message is there, or more of one, reading once; how many bytes wait, zero
    /// once the stream has ended in order. Nothing is lost if the future is dropped.
    pub async fn fill(&mut self) -> Result<usize, Error> {
        if self.is_finished() {
            return Ok(0);
        }
        if !self.buffer.has_frame() {
            match self.buffer.fill(&mut self.half).await {
                Ok(0) => return Err(Error::Closed { peer: self.peer.clone(), source: None }),
                Ok(_) => {}
                Err(error) => return Err(fill_error(&self.peer, error)),
            }
        }
        Ok(self.buffer.waiting())
    }

    /// The next message's payload, if all of it was read: a view until the next call. An error
    /// of the server comes where it stands in the stream, after all that it sent before.
    #[inline]
    pub fn next_frame(&mut self) -> Option<Result<&[u8], Error>> {
        loop {
            match self.buffer.advance() {
                Ok(Some((b'd', body))) => return Some(Ok(self.buffer.view(body))),
                Ok(Some((tag, body))) => {
                    if let Err(error) = self.take_other(tag, body) {
                        return Some(Err(error));
                    }
                }
                Ok(None) => return None,
                Err(bad) => return Some(Err(Error::protocol(&self.peer, bad.told()))),
            }
        }
    }

    #[cold]
    fn take_other(&mut self, tag: u8, body: std::ops::Range<usize>) -> Result<(), Error> {
        let body = self.buffer.view(body);
        match tag {
            // The server has no more to send, or so it says; the command is complete.
            b'c' | b'C' => Ok(()),
            b'Z' => {
                self.session.ready(body);
                Ok(())
            }
            b'E' => {
                let error = Box::new(message::server_error(body));
                Err(Error::Server { peer: self.peer.clone(), error })
            }
            tag if self.session.take_aside(tag, body) => Ok(()),
            tag => {
                let tag = tag.escape_ascii();
                Err(Error::protocol(
                    &self.peer,
                    format!("a message of type {tag} came in the stream"),
                ))
            }
        }
    }

    /// Whether the stream has ended in order, so that [`rejoin`](Self::rejoin) gives the
    /// connection back.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.session.state == State::Ready
    }

    /// From how many waiting bytes on the system wakes us; 1 is where it starts. `false` where
    /// the socket has no such mark (Unix sockets).
    pub fn set_low_water_mark(&mut self, bytes: usize) -> Result<bool, Error> {
        let bytes = bytes.clamp(1, STREAM_BUFFER_LEN);
        if bytes == self.low_water {
            return Ok(true);
        }
        let set =
            self.half.set_low_water(bytes).map_err(|error| Error::broken(&self.peer, error))?;
        if set {
            self.low_water = bytes;
        }
        Ok(set)
    }

    /// Who answers.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The id of the server's process, as `pg_replication_slots.active_pid` shows it.
    #[must_use]
    pub fn process_id(&self) -> Option<i32> {
        self.session.backend.as_ref().map(|backend| backend.process_id)
    }

    /// The server's version as in `server_version_num`.
    #[must_use]
    pub fn server_version_num(&self) -> u32 {
        self.session.version_num()
    }

    /// The warnings and notices since the last call.
    pub fn take_notices(&mut self) -> Vec<ServerError> {
        self.session.notices.drain(..).collect()
    }

    /// The connection again, after [`StreamWriter::finish`]: what still comes is skipped. A
    /// server in the middle of a long transaction sends it to the end first, so bound this.
    pub async fn rejoin(mut self, writer: StreamWriter) -> Result<Connection, Error> {
        self.set_low_water_mark(1)?;
        while self.fill().await? > 0 {
            while let Some(frame) = self.next_frame() {
                frame?;
            }
        }
        let Self { half, mut buffer, session, peer, .. } = self;
        buffer.rest_at(QUERY_BUFFER_LEN);
        let Some(socket) = Socket::join(half, writer.half) else {
            return Err(Error::protocol(&peer, "the two halves are of different streams"));
        };
        let mut link = Link::new(socket, peer);
        link.buffer = buffer;
        Ok(Connection { link, session })
    }
}

impl StreamWriter {
    /// Tells how far we are: what was received, what will never be asked for again, and what is
    /// applied. The future may be dropped: what was begun is sent first next time.
    pub async fn status_update(
        &mut self,
        received: Lsn,
        flushed: DurableLsn,
        applied: DurableLsn,
        reply_requested: bool,
    ) -> Result<(), Error> {
        self.flush().await?;
        self.pending.extend_from_slice(&COPY_DATA_OF_STATUS_UPDATE);
        let out = &mut self.pending;
        write_status_update(out, received, flushed, applied, now(), reply_requested);
        self.flush().await
    }

    /// Asks the server to end the stream in order. Keep reading until the reader is finished.
    pub async fn finish(&mut self) -> Result<(), Error> {
        self.flush().await?;
        self.pending.extend_from_slice(b"c\0\0\0\x04");
        self.flush().await
    }

    /// Says goodbye at once and closes; the slot is free as soon as the server has noticed.
    pub async fn terminate(mut self) -> Result<(), Error> {
        self.flush().await?;
        self.pending.extend_from_slice(b"X\0\0\0\x04");
        self.flush().await?;
        self.half.shutdown().await.map_err(|error| Error::broken(&self.peer, error))
    }

    async fn flush(&mut self) -> Result<(), Error> {
        while let Some(rest) = self.pending.get(self.sent..).filter(|rest| !rest.is_empty()) {
            let sent = self.half.write(rest).await.and_then(|sent| match sent {
                0 => Err(io::ErrorKind::WriteZero.into()),
                sent => Ok(sent),
            });
            self.sent += sent.map_err(|error| Error::broken(&self.peer, error))?;
        }
        self.pending.clear();
        self.sent = 0;
        self.half.flush().await.map_err(|error| Error::broken(&self.peer, error))
    }
}

/// Our clock, as Postgres counts.
fn now() -> PgTimestamp {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let micros = since_1970.saturating_sub(POSTGRES_EPOCH).as_micros();
    PgTimestamp(i64::try_from(micros).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_update_is_as_long_as_its_copy_data_says() {
        let durable = DurableLsn::proven(Lsn(1));
        let mut body = Vec::new();
        write_status_update(&mut body, Lsn(1), durable, durable, now(), true);
        let [tag, length @ ..] = COPY_DATA_OF_STATUS_UPDATE;
        assert_eq!((tag, u32::from_be_bytes(length) as usize), (b'd', 4 + body.len()));
    }
}
