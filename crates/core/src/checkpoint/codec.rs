//! The checkpoint's bytes: Avro's single-object encoding of `schemas/checkpoint.avsc`.
//!
//! It needs no registry, which may be away when a pipeline recovers, and it tells the four cases
//! apart that recovery must not confuse: a checkpoint, one of a newer format, bytes that are none,
//! and (outside of this module) no bytes at all. All versions keep the frame and begin with
//! `format_version`; the rest of a newer one is not looked at.

use std::fmt;

use super::{Checkpoint, FORMAT_VERSION, Partial, Progress, RegisteredSchema, TopicEnd};
use crate::lsn::{CommitLsn, EndLsn, Lsn};

/// How every single-object encoding begins.
const MARKER: [u8; 2] = [0xC3, 0x01];

/// The CRC-64-AVRO fingerprint of the schema's canonical form, which stands behind the marker,
/// lowest byte first.
const FINGERPRINT: u64 = 0xE663_2B19_A6E2_40B5;

/// Bytes that cannot be taken for a checkpoint. It is never the same as having none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// They do not begin as a checkpoint does.
    Foreign,
    /// A newer daemon wrote it.
    NewerFormat {
        /// Its format.
        found: i64,
        /// The newest this code reads.
        known: i32,
    },
    /// They begin as one and do not go on so.
    Malformed {
        /// At which byte that shows.
        at: usize,
        /// What was expected there.
        expected: &'static str,
    },
    /// Its positions cannot all be true.
    Contradictory,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign => f.write_str("the last record is not a checkpoint"),
            Self::NewerFormat { found, known } => write!(
                f,
                "the last checkpoint has format {found} and this version reads formats up to {known}: a newer version wrote it"
            ),
            Self::Malformed { at, expected } => {
                write!(f, "the last checkpoint is damaged at byte {at}: {expected} was expected")
            }
            Self::Contradictory => {
                f.write_str("the positions in the last checkpoint contradict each other")
            }
        }
    }
}

impl std::error::Error for Unreadable {}

impl Checkpoint {
    /// Appends the record's value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&MARKER);
        out.extend_from_slice(&FINGERPRINT.to_le_bytes());
        let mut out = Writer(out);
        out.long(i64::from(FORMAT_VERSION));
        out.shown(self.system_identifier);
        out.long(i64::from(self.timeline));
        out.string(&self.database);
        out.string(&self.slot);
        out.string(&self.publication_fingerprint);
        out.shown(self.commit_lsn.0);
        out.shown(self.end_lsn.0);
        match &self.progress {
            Progress::Complete => out.branch(0),
            Progress::Partial(partial) => {
                out.branch(1);
                out.shown(partial.commit_lsn.0);
                out.long(partial.ordinal.cast_signed());
                out.shown(format_args!("{:016x}", partial.hash));
            }
        }
        out.array(&self.topics, |out, topic| {
            out.string(&topic.name);
            out.optional(topic.topic_id.as_deref().map(str::as_bytes));
            out.array(&topic.end_offsets, |out, offset| out.long(*offset));
        });
        out.array(&self.schemas, |out, schema| {
            out.string(&schema.subject);
            out.long(i64::from(schema.id));
            out.string(&schema.fingerprint);
        });
        out.long(self.settled_at_us);
        out.optional(self.snapshot.as_deref());
        out.string(&self.instance);
        out.long(self.written_at_us);
    }

    /// Reads a record's value.
    ///
    /// # Errors
    /// Where the bytes are not a checkpoint this code can go by.
    pub fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let body = bytes.strip_prefix(&MARKER).ok_or(Unreadable::Foreign)?;
        let (fingerprint, body) = body.split_first_chunk().ok_or(Unreadable::Foreign)?;
        let mut input = Reader { whole: bytes.len(), rest: body };
        let found = input.long()?;
        if found > i64::from(FORMAT_VERSION) {
            return Err(Unreadable::NewerFormat { found, known: FORMAT_VERSION });
        }
        if found != i64::from(FORMAT_VERSION) || u64::from_le_bytes(*fingerprint) != FINGERPRINT {
            return Err(Unreadable::Foreign);
        }
        let checkpoint = Self::decode_fields(&mut input)?;
        input.finish()?;
        if checkpoint.is_consistent() { Ok(checkpoint) } else { Err(Unreadable::Contradictory) }
    }

    fn decode_fields(input: &mut Reader<'_>) -> Result<Self, Unreadable> {
        Ok(Self {
            system_identifier: input.parsed("a system identifier", |text| text.parse().ok())?,
            timeline: input.number("a timeline")?,
            database: input.string()?,
            slot: input.string()?,
            publication_fingerprint: input.string()?,
            commit_lsn: CommitLsn(input.lsn()?),
            end_lsn: EndLsn(input.lsn()?),
            progress: match input.optional(Reader::partial)? {
                None => Progress::Complete,
                Some(partial) => Progress::Partial(partial),
            },
            topics: input.array(Reader::topic)?,
            schemas: input.array(Reader::schema)?,
            settled_at_us: input.long()?,
            snapshot: input.optional(|input| Ok(input.bytes()?.to_vec()))?,
            instance: input.string()?,
            written_at_us: input.long()?,
        })
    }

    /// A transaction ends after its commit record starts, and the partial one comes after all
    /// that is complete.
    fn is_consistent(&self) -> bool {
        let end = self.end_lsn.0;
        let partial_follows = match self.progress {
            Progress::Complete => true,
            Progress::Partial(partial) => partial.commit_lsn.0 >= end,
        };
        self.commit_lsn.0 < end && partial_follows
    }
}

/// Avro's binary encoding, as far as the schema needs it.
pub(crate) struct Writer<'a>(pub(crate) &'a mut Vec<u8>);

impl Writer<'_> {
    /// Zigzag, then seven bits a byte, lowest first.
    pub(crate) fn long(&mut self, value: i64) {
        let mut left = ((value << 1) ^ (value >> 63)).cast_unsigned();
        loop {
            let [low, ..] = left.to_le_bytes();
            left >>= 7;
            if left == 0 {
                return self.0.push(low);
            }
            self.0.push(low | 0x80);
        }
    }

    fn length(&mut self, length: usize) {
        // No slice is longer than an i64 can say.
        self.long(i64::try_from(length).unwrap_or(i64::MAX));
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    fn string(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn shown(&mut self, value: impl fmt::Display) {
        self.string(&value.to_string());
    }

    pub(crate) fn branch(&mut self, of_union: i64) {
        self.long(of_union);
    }

    fn optional(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            None => self.branch(0),
            Some(bytes) => {
                self.branch(1);
                self.bytes(bytes);
            }
        }
    }

    pub(crate) fn array<T>(&mut self, items: &[T], each: impl Fn(&mut Self, &T)) {
        if !items.is_empty() {
            self.length(items.len());
            for item in items {
                each(self, item);
            }
        }
        self.long(0);
    }
}

/// Checked reads over foreign bytes. Nothing is reserved by what a count says, only by what is
/// there.
pub(crate) struct Reader<'a> {
    whole: usize,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { whole: bytes.len(), rest: bytes }
    }

    pub(crate) fn finish(&self) -> Result<(), Unreadable> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.expected("the end of the record")) }
    }

    fn expected(&self, expected: &'static str) -> Unreadable {
        Unreadable::Malformed { at: self.whole - self.rest.len(), expected }
    }

    pub(crate) fn long(&mut self) -> Result<i64, Unreadable> {
        let mut raw: u64 = 0;
        for shift in (0..64).step_by(7) {
            let Some((&byte, rest)) = self.rest.split_first() else { break };
            let bits = u64::from(byte & 0x7F);
            // The tenth byte has room for one bit.
            if shift == 63 && bits > 1 {
                break;
            }
            self.rest = rest;
            raw |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok((raw >> 1).cast_signed() ^ -(raw & 1).cast_signed());
            }
        }
        Err(self.expected("a number"))
    }

    pub(crate) fn number<T: TryFrom<i64>>(&mut self, what: &'static str) -> Result<T, Unreadable> {
        let value = self.long()?;
        T::try_from(value).map_err(|_| self.expected(what))
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Unreadable> {
        let length: usize = self.number("a length")?;
        let (bytes, rest) =
            self.rest.split_at_checked(length).ok_or_else(|| self.expected("as many bytes"))?;
        self.rest = rest;
        Ok(bytes)
    }

    fn text(&mut self) -> Result<&'a str, Unreadable> {
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes).map_err(|_| self.expected("text"))
    }

    fn string(&mut self) -> Result<String, Unreadable> {
        self.text().map(ToOwned::to_owned)
    }

    fn parsed<T>(
        &mut self,
        what: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<T, Unreadable> {
        let text = self.text()?;
        parse(text).ok_or_else(|| self.expected(what))
    }

    fn lsn(&mut self) -> Result<Lsn, Unreadable> {
        self.parsed("a WAL position", |text| text.parse().ok())
    }

    pub(crate) fn optional<T>(
        &mut self,
        some: impl Fn(&mut Self) -> Result<T, Unreadable>,
    ) -> Result<Option<T>, Unreadable> {
        match self.long()? {
            0 => Ok(None),
            1 => some(self).map(Some),
            _ => Err(self.expected("a branch of a union")),
        }
    }

    /// Blocks of items until an empty one. A writer may give a block's size in bytes, then its
    /// count is negative.
    pub(crate) fn array<T>(
        &mut self,
        each: impl Fn(&mut Self) -> Result<T, Unreadable>,
    ) -> Result<Vec<T>, Unreadable> {
        let mut items = Vec::new();
        loop {
            let count = self.long()?;
            if count < 0 {
                self.long()?;
            }
            if count == 0 {
                return Ok(items);
            }
            // Each item takes a byte at least, so this ends where the bytes do.
            for _ in 0..count.unsigned_abs() {
                items.push(each(self)?);
            }
        }
    }

    fn partial(&mut self) -> Result<Partial, Unreadable> {
        Ok(Partial {
            commit_lsn: CommitLsn(self.lsn()?),
            ordinal: self.number("an ordinal")?,
            hash: self.parsed("a hash", |text| u64::from_str_radix(text, 16).ok())?,
        })
    }

    fn topic(&mut self) -> Result<TopicEnd, Unreadable> {
        Ok(TopicEnd {
            name: self.string()?,
            topic_id: self.optional(Self::string)?,
            end_offsets: self.array(Self::long)?,
        })
    }

    fn schema(&mut self) -> Result<RegisteredSchema, Unreadable> {
        Ok(RegisteredSchema {
            subject: self.string()?,
            id: self.number("a schema id")?,
            fingerprint: self.string()?,
        })
    }
}

#[cfg(test)]
mod tests;
