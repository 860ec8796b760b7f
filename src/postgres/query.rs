//! Queries: what they return is small, read whole, and text.

use postgres_protocol::IsNull;
use postgres_protocol::message::frontend;

use super::connection::Connection;
use super::error::Error;
use super::message;
use super::session::Mode;

/// The most that one query may return. Catalog queries stay far below; rows of tables come
/// through COPY, which is not held in memory.
pub const MAX_RESULT_LEN: usize = 256 << 20;

/// What a query returned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// The columns' names.
    pub columns: Vec<String>,
    /// The rows: one value for each column, `None` for NULL.
    pub rows: Vec<Vec<Option<String>>>,
    /// What the server says was done, such as `SELECT 3`.
    pub tag: String,
}

impl Rows {
    /// The first value of the first row, if there is one.
    #[must_use]
    pub fn single(&self) -> Option<&str> {
        self.rows.first()?.first()?.as_deref()
    }
}

impl Connection {
    /// Runs one or several statements, in either mode; the last one's rows come back.
    pub async fn simple_query(&mut self, sql: &str) -> Result<Rows, Error> {
        self.start(|out| frontend::query(sql, out)).await?;
        self.collect().await
    }

    /// Runs one statement with parameters in text form (`$1`, `$2` ...), on a plain connection.
    pub async fn query(&mut self, sql: &str, params: &[Option<&str>]) -> Result<Rows, Error> {
        if self.session.mode != Mode::Plain {
            let what = "a replication connection takes no query with parameters";
            return Err(Error::protocol(&self.link.peer, what));
        }
        self.start(|out| {
            frontend::parse("", sql, [], out)?;
            let text = |param: &Option<&str>, out: &mut bytes::BytesMut| match param {
                Some(text) => {
                    out.extend_from_slice(text.as_bytes());
                    Ok(IsNull::No)
                }
                None => Ok(IsNull::Yes),
            };
            frontend::bind("", "", [0], params, text, [0], out).map_err(|error| match error {
                frontend::BindError::Serialization(error) => error,
                frontend::BindError::Conversion(error) => std::io::Error::other(error.to_string()),
            })?;
            frontend::describe(b'P', "", out)?;
            frontend::execute("", 0, out)?;
            frontend::sync(out);
            Ok(())
        })
        .await?;
        self.collect().await
    }

    /// Reads an answer to its end.
    async fn collect(&mut self) -> Result<Rows, Error> {
        let mut rows = Rows::default();
        let mut len = 0;
        // Such a database holds bytes of any encoding; a comment must not make a table unreadable.
        let lossy = self.parameter("server_encoding") == Some("SQL_ASCII");
        loop {
            let frame = self.receive().await?;
            match frame.tag {
                b'T' => {
                    let names = message::column_names(frame.body);
                    let columns = names.ok_or_else(|| self.link.malformed("a result's columns"))?;
                    rows = Rows { columns, ..Rows::default() };
                }
                b'D' => {
                    len += frame.body.len();
                    let row = message::text_row(frame.body, lossy);
                    let row = match row.ok_or_else(|| self.link.malformed("a row"))? {
                        Ok(row) if len <= MAX_RESULT_LEN => row,
                        Ok(_) => return Err(self.link.malformed("a result this large")),
                        Err(column) => {
                            let column = rows.columns.get(column).cloned().unwrap_or_default();
                            let what = format!("column {column} holds text that is not UTF-8");
                            return Err(Error::protocol(&self.link.peer, what));
                        }
                    };
                    rows.rows.push(row);
                }
                b'C' => rows.tag = message::command_tag(frame.body).unwrap_or_default(),
                b'Z' => {
                    let status = [frame.body.first().copied().unwrap_or(b'I')];
                    self.session.ready(&status);
                    return Ok(rows);
                }
                b'E' => {
                    let error = message::server_error(frame.body);
                    return Err(self.after_error(error).await);
                }
                // Parsed, bound, no columns, empty query.
                b'1' | b'2' | b'n' | b'I' => {}
                tag => return Err(self.link.unexpected(tag, "a query")),
            }
        }
    }
}
