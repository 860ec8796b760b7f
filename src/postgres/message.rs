//! The server's messages other than CopyData, as views on a frame. Nothing here panics on any
//! input: what cannot be read is `None`.

use std::borrow::Cow;

use super::error::{ServerError, SqlState};

/// Reads numbers and strings off the front of a message.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(front)
    }

    fn chunk<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (front, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*front)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.chunk().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.chunk().map(u16::from_be_bytes)
    }

    pub(super) fn i32(&mut self) -> Option<i32> {
        self.chunk().map(i32::from_be_bytes)
    }

    /// Up to a zero byte, which is taken as well.
    pub(super) fn cstr(&mut self) -> Option<&'a [u8]> {
        let end = self.0.iter().position(|byte| *byte == 0)?;
        let text = self.take(end)?;
        self.take(1)?;
        Some(text)
    }
}

/// What the server asks of a login.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Authentication<'a> {
    Ok,
    Cleartext,
    Md5 { salt: [u8; 4] },
    Sasl { mechanisms: Vec<&'a [u8]> },
    SaslContinue(&'a [u8]),
    SaslFinal(&'a [u8]),
    Other(i32),
}

pub(super) fn authentication(body: &[u8]) -> Option<Authentication<'_>> {
    let mut fields = Fields(body);
    Some(match fields.i32()? {
        0 => Authentication::Ok,
        3 => Authentication::Cleartext,
        5 => Authentication::Md5 { salt: fields.chunk()? },
        10 => {
            let mut mechanisms = Vec::new();
            while let Some(name) = fields.cstr().filter(|name| !name.is_empty()) {
                mechanisms.push(name);
            }
            Authentication::Sasl { mechanisms }
        }
        11 => Authentication::SaslContinue(fields.0),
        12 => Authentication::SaslFinal(fields.0),
        other => Authentication::Other(other),
    })
}

/// An ErrorResponse or a NoticeResponse. Total: what is missing is left empty.
pub(super) fn server_error(body: &[u8]) -> ServerError {
    let mut error = ServerError {
        severity: String::new(),
        sqlstate: SqlState::parse(b""),
        message: String::new(),
        detail: None,
        hint: None,
        context: None,
        schema: None,
        table: None,
        column: None,
        data_type: None,
        constraint: None,
    };
    let mut fields = Fields(body);
    while let Some(kind) = fields.u8().filter(|kind| *kind != 0) {
        let Some(value) = fields.cstr() else { break };
        // Before the encoding is agreed upon it may be any.
        let text = || String::from_utf8_lossy(value).into_owned();
        match kind {
            b'S' if error.severity.is_empty() => error.severity = text(),
            b'V' => error.severity = text(),
            b'C' => error.sqlstate = SqlState::parse(value),
            b'M' => error.message = text(),
            b'D' => error.detail = Some(text()),
            b'H' => error.hint = Some(text()),
            b'W' => error.context = Some(text()),
            b's' => error.schema = Some(text()),
            b't' => error.table = Some(text()),
            b'c' => error.column = Some(text()),
            b'd' => error.data_type = Some(text()),
            b'n' => error.constraint = Some(text()),
            _ => {}
        }
    }
    error
}

/// A ParameterStatus: name and value.
pub(super) fn parameter_status(body: &[u8]) -> Option<(String, String)> {
    let mut fields = Fields(body);
    let name = String::from_utf8_lossy(fields.cstr()?).into_owned();
    Some((name, String::from_utf8_lossy(fields.cstr()?).into_owned()))
}

/// The names of a RowDescription's columns.
pub(super) fn column_names(body: &[u8]) -> Option<Vec<String>> {
    let mut fields = Fields(body);
    let count = fields.u16()?;
    let mut names = Vec::new();
    for _ in 0..count {
        names.push(String::from_utf8_lossy(fields.cstr()?).into_owned());
        // Table, column, type, size, modifier, format.
        fields.take(4 + 2 + 4 + 2 + 4 + 2)?;
    }
    Some(names)
}

/// The values of a DataRow in text form; `Err` names the column whose value is not UTF-8, unless
/// `lossy` replaces what is not.
pub(super) fn text_row(body: &[u8], lossy: bool) -> Option<Result<Vec<Option<String>>, usize>> {
    let mut fields = Fields(body);
    let count = fields.u16()?;
    let mut values = Vec::with_capacity(count.into());
    for column in 0..usize::from(count) {
        let value = match usize::try_from(fields.i32()?) {
            Err(_) => None,
            Ok(len) => match String::from_utf8_lossy(fields.take(len)?) {
                Cow::Owned(_) if !lossy => return Some(Err(column)),
                text => Some(text.into_owned()),
            },
        };
        values.push(value);
    }
    Some(Ok(values))
}

/// A CommandComplete's tag.
pub(super) fn command_tag(body: &[u8]) -> Option<String> {
    Some(String::from_utf8_lossy(Fields(body).cstr()?).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_keeps_what_the_server_said() {
        let error = server_error(
            b"SFEHLER\0VERROR\0C55006\0Mreplication slot \"s\" is active for PID 7\0Dd\0Hh\0Wc\0tt\0F-\0\0",
        );
        assert_eq!(error.severity, "ERROR");
        assert_eq!(error.sqlstate, SqlState::OBJECT_IN_USE);
        assert_eq!(error.message, "replication slot \"s\" is active for PID 7");
        let kept = [error.detail, error.hint, error.context, error.table];
        assert_eq!(kept.map(Option::unwrap), ["d", "h", "c", "t"]);
    }

    #[test]
    fn every_cut_of_every_message_is_survived() {
        let row = b"\0\x03\0\0\0\x01a\xff\xff\xff\xff\0\0\0\x02bc";
        let names = b"\0\x01id\0aaaabbccccddeeeeff";
        let sasl = b"\0\0\0\x0aSCRAM-SHA-256\0\0";
        let error = b"SERROR\0C42601\0Mno\0\0";
        for whole in [&row[..], names, sasl, error, b"name\0value\0", b"COPY 1\0"] {
            for end in 0..=whole.len() {
                let cut = &whole[..end];
                let _ = (text_row(cut, false), column_names(cut), authentication(cut));
                let _ = (server_error(cut), parameter_status(cut), command_tag(cut));
            }
        }
        let values = text_row(row, false).unwrap().unwrap();
        assert_eq!(values, [Some("a".to_owned()), None, Some("bc".to_owned())]);
        let latin1 = b"\0\x01\0\0\0\x01\xe9";
        assert_eq!(text_row(latin1, false), Some(Err(0)));
        assert_eq!(text_row(latin1, true), Some(Ok(vec![Some("\u{fffd}".to_owned())])));
        assert_eq!(column_names(names).unwrap(), ["id"]);
        let mechanisms = vec![&b"SCRAM-SHA-256"[..]];
        assert_eq!(authentication(sasl), Some(Authentication::Sasl { mechanisms }));
    }
}
