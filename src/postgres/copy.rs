//! Hot path: no allocation, lock or log per row. COPY ... TO STDOUT, row by row.

use postgres_protocol::message::frontend;

use super::connection::Connection;
use super::error::Error;
use super::link::QUERY_BUFFER_LEN;
use super::message;

/// The read buffer while rows come in.
pub const COPY_BUFFER_LEN: usize = 256 * 1024;

/// Rows on their way.
///
/// Drive it so; once [`fill`](Self::fill) returns zero the connection is free again:
///
/// ```text
/// while copy.fill().await? > 0 {
///     while let Some(row) = copy.next_frame() { ... row? ... }
/// }
/// ```
#[derive(Debug)]
pub struct CopyOut<'a> {
    connection: &'a mut Connection,
    done: bool,
}

impl Connection {
    /// Starts a `COPY ... TO STDOUT`.
    pub async fn copy_out(&mut self, sql: &str) -> Result<CopyOut<'_>, Error> {
        self.start(|out| frontend::query(sql, out)).await?;
        loop {
            let frame = self.receive().await?;
            match frame.tag {
                b'H' => {
                    self.link.buffer.rest_at(COPY_BUFFER_LEN);
                    return Ok(CopyOut { connection: self, done: false });
                }
                b'E' => {
                    let error = message::server_error(frame.body);
                    return Err(self.after_error(error).await);
                }
                b'T' | b'D' | b'C' | b'I' => {}
                b'Z' => {
                    let status = [frame.body.first().copied().unwrap_or(b'I')];
                    self.session.ready(&status);
                    return Err(Error::protocol(
                        &self.link.peer,
                        "the statement is no COPY TO STDOUT",
                    ));
                }
                tag => return Err(self.link.unexpected(tag, "COPY")),
            }
        }
    }
}

impl CopyOut<'_> {
    /// Waits until more can be taken; how many bytes wait, zero at the end. Nothing is lost if
    /// the future is dropped.
    pub async fn fill(&mut self) -> Result<usize, Error> {
        let link = &mut self.connection.link;
        if !self.done && !link.buffer.has_frame() {
            link.fill().await?;
        }
        Ok(if self.done { 0 } else { link.buffer.waiting() })
    }

    /// The next row as COPY sends it: a view until the next call.
    pub fn next_frame(&mut self) -> Option<Result<&[u8], Error>> {
        let Connection { link, session } = &mut *self.connection;
        loop {
            let (tag, body) = match link.buffer.advance() {
                Ok(next) => next?,
                Err(bad) => return Some(Err(Error::protocol(&link.peer, bad.told()))),
            };
            if tag == b'd' {
                return Some(Ok(link.buffer.view(body)));
            }
            let body = link.buffer.view(body);
            match tag {
                // No more rows; command complete.
                b'c' | b'C' => {}
                b'E' => {
                    let error = message::server_error(body);
                    return Some(Err(link.server(error)));
                }
                b'Z' => {
                    session.ready(body);
                    self.done = true;
                    link.buffer.rest_at(QUERY_BUFFER_LEN);
                    return None;
                }
                tag if session.take_aside(tag, body) => {}
                tag => return Some(Err(link.unexpected(tag, "COPY"))),
            }
        }
    }

    /// Reads on until the connection is free, after an error or for want of interest in the rest.
    pub async fn finish(mut self) -> Result<(), Error> {
        while self.fill().await? > 0 {
            while let Some(row) = self.next_frame() {
                match row {
                    Ok(_) | Err(Error::Server { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}
