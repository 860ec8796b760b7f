//! Hot path: no allocation per row. Rows by their keys, in binary form: one statement, parsed once
//! and run for each key, all in one round trip.

use bytes::BytesMut;
use postgres_protocol::IsNull;
use postgres_protocol::message::frontend;

use super::connection::Connection;
use super::error::Error;
use super::message;

/// A parameter: whether it is in binary form, and its bytes.
pub type Value<'a> = (bool, &'a [u8]);

impl Connection {
    /// Runs a statement with each of these parameters, and gives the body of each row to `each`:
    /// the number of its fields and the fields with their lengths, as COPY has them.
    pub async fn fetch(
        &mut self,
        sql: &str,
        keys: &[Vec<Value<'_>>],
        mut each: impl FnMut(&[u8]) -> Result<(), &'static str>,
    ) -> Result<(), Error> {
        self.start(|out| {
            frontend::parse("", sql, [], out)?;
            for key in keys {
                bind(key, out)?;
                frontend::execute("", 0, out)?;
            }
            frontend::sync(out);
            Ok(())
        })
        .await?;
        loop {
            let frame = self.receive().await?;
            match frame.tag {
                b'D' => each(frame.body).map_err(|what| self.link.malformed(what))?,
                b'Z' => {
                    let status = [frame.body.first().copied().unwrap_or(b'I')];
                    self.session.ready(&status);
                    return Ok(());
                }
                b'E' => {
                    let error = message::server_error(frame.body);
                    return Err(self.after_error(error).await);
                }
                // Parsed, bound, command complete.
                b'1' | b'2' | b'C' => {}
                tag => return Err(self.link.unexpected(tag, "a query")),
            }
        }
    }
}

fn bind(key: &[Value<'_>], out: &mut BytesMut) -> std::io::Result<()> {
    let formats = key.iter().map(|(binary, _)| i16::from(*binary));
    let put = |(_, value): &Value<'_>, out: &mut BytesMut| {
        out.extend_from_slice(value);
        Ok(IsNull::No)
    };
    frontend::bind("", "", formats, key, put, [1], out).map_err(|error| match error {
        frontend::BindError::Serialization(error) => error,
        frontend::BindError::Conversion(error) => std::io::Error::other(error.to_string()),
    })
}
