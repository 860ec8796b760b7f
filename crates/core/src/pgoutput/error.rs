use std::fmt;

/// Bytes that are no message of pgoutput (or no frame of the replication stream): which, where, why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// The first byte of the message or frame, where there was one.
    pub tag: Option<u8>,
    /// Where, counted from that first byte.
    pub offset: usize,
    /// What is wrong there.
    pub fault: Fault,
}

/// What is wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The bytes end before the named part does.
    Truncated(&'static str),
    /// This many bytes follow a complete message.
    Trailing(usize),
    /// The named part has a value that protocols 1 to 4 do not have.
    Unknown(&'static str, u8),
    /// The named count or length is negative.
    Negative(&'static str),
    /// The named part is not UTF-8.
    NotUtf8(&'static str),
    /// A message that cannot stand inside a block of a streamed transaction does.
    InsideStream,
    /// A message that can stand only inside a block of a streamed transaction stands outside.
    OutsideStream,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.tag {
            Some(tag) => write!(f, "{} message, byte {}: ", tag_name(tag), self.offset)?,
            None => f.write_str("empty message: ")?,
        }
        self.fault.fmt(f)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Truncated(part) => write!(f, "it ends before its {part} does"),
            Fault::Trailing(count) => write!(f, "{count} bytes follow its end"),
            Fault::Unknown(part, byte) => write!(f, "unknown {part} 0x{byte:02x}"),
            Fault::Negative(part) => write!(f, "its {part} is negative"),
            Fault::NotUtf8(part) => write!(
                f,
                "its {part} is not UTF-8; rename it (a SQL_ASCII database does not check names)"
            ),
            Fault::InsideStream => {
                f.write_str("it cannot stand inside a block of a streamed transaction")
            }
            Fault::OutsideStream => {
                f.write_str("it can stand only inside a block of a streamed transaction")
            }
        }
    }
}

impl std::error::Error for DecodeError {}

fn tag_name(tag: u8) -> &'static str {
    match tag {
        b'B' => "Begin",
        b'C' => "Commit",
        b'R' => "Relation",
        b'Y' => "Type",
        b'I' => "Insert",
        b'U' => "Update",
        b'D' => "Delete",
        b'T' => "Truncate",
        b'M' => "Logical",
        b'O' => "Origin",
        b'S' => "Stream Start",
        b'E' => "Stream Stop",
        b'c' => "Stream Commit",
        b'A' => "Stream Abort",
        b'b' => "Begin Prepare",
        b'P' => "Prepare",
        b'K' => "Commit Prepared",
        b'r' => "Rollback Prepared",
        b'p' => "Stream Prepare",
        b'w' => "XLogData",
        b'k' => "keepalive",
        _ => "unknown",
    }
}
