//! A column's bytes become its value, one file for each family of types.
//!
//! Each family reads both forms in which a value travels, binary and text, and gives the same
//! value for both; and it writes the text form, as Postgres itself would, from the binary one.
//! Nothing here knows of Avro, allocates but by growing a buffer it was given, or panics on
//! any bytes.

pub(crate) mod array;
pub(crate) mod bool_int;
pub(crate) mod bytes;
pub(crate) mod composite;
pub(crate) mod debezium;
pub(crate) mod decimal;
pub(crate) mod float;
pub(crate) mod form;
pub(crate) mod geometric;
pub(crate) mod hstore;
pub(crate) mod network;
pub(crate) mod numeric;
pub(crate) mod quoted;
pub(crate) mod read;
pub(crate) mod scalar;
mod shortest;
pub(crate) mod system;
pub(crate) mod text;
pub(crate) mod time;
pub(crate) mod time_text;
pub(crate) mod tsearch;
pub(crate) mod uuid;
pub(crate) mod vector;

use std::fmt;

/// A value that is there, in the form in which it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Datum<'a> {
    /// What the type's output function wrote.
    Text(&'a [u8]),
    /// What the type's send function wrote.
    Binary(&'a [u8]),
}

/// What bytes should have been, for the message. A thin pointer keeps results in registers.
pub(crate) type What = &'static &'static str;

/// Why a value was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The bytes are not what the type sends: the type as it should be, for the message.
    Malformed(What),
    /// The value is sound, but what it is written to cannot hold it.
    Unrepresentable,
    /// There is no value where the schema wants one.
    Null,
}

/// Appends formatted text; a `Vec` takes all of it, so there is no error to look at.
pub(crate) struct Sink<'a>(pub(crate) &'a mut Vec<u8>);

impl fmt::Write for Sink<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// `write!` into a byte buffer.
macro_rules! put {
    ($out:expr, $($arg:tt)*) => {{
        use std::fmt::Write as _;
        let _ = write!($crate::value::Sink($out), $($arg)*);
    }};
}
pub(crate) use put;
