//! Checked reads from the front of a message. On the row path: nothing here allocates.

use super::{DecodeError, Fault};
use crate::lsn::Lsn;

/// What is left of a message, and the whole of it, from which an error tells where it was.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    whole: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    #[inline]
    pub(super) const fn new(whole: &'a [u8]) -> Self {
        Self { whole, rest: whole }
    }

    #[inline]
    pub(super) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Goes on at `rest`, which must be a tail of what was left, and returns what was passed over.
    #[inline]
    pub(super) fn advance_to(&mut self, rest: &'a [u8]) -> &'a [u8] {
        let passed = self.rest.len().saturating_sub(rest.len());
        let passed = self.rest.get(..passed).unwrap_or_default();
        self.rest = rest;
        passed
    }

    #[inline]
    fn array<const N: usize>(&mut self, part: &'static str) -> Result<[u8; N], DecodeError> {
        match self.rest.split_first_chunk() {
            Some((array, rest)) => {
                self.rest = rest;
                Ok(*array)
            }
            None => Err(self.fault(Fault::Truncated(part))),
        }
    }

    #[inline]
    pub(super) fn byte(&mut self, part: &'static str) -> Result<u8, DecodeError> {
        self.array(part).map(|[byte]| byte)
    }

    #[inline]
    pub(super) fn int32(&mut self, part: &'static str) -> Result<u32, DecodeError> {
        self.array(part).map(u32::from_be_bytes)
    }

    #[inline]
    pub(super) fn signed32(&mut self, part: &'static str) -> Result<i32, DecodeError> {
        self.array(part).map(i32::from_be_bytes)
    }

    #[inline]
    pub(super) fn signed64(&mut self, part: &'static str) -> Result<i64, DecodeError> {
        self.array(part).map(i64::from_be_bytes)
    }

    #[inline]
    pub(super) fn lsn(&mut self, part: &'static str) -> Result<Lsn, DecodeError> {
        self.array(part).map(|bytes| Lsn(u64::from_be_bytes(bytes)))
    }

    /// An Int16 that counts something.
    #[inline]
    pub(super) fn count16(&mut self, part: &'static str) -> Result<u16, DecodeError> {
        let here = *self;
        let count = self.array(part).map(i16::from_be_bytes)?;
        u16::try_from(count).map_err(|_| here.fault(Fault::Negative(part)))
    }

    /// An Int32 that counts something.
    pub(super) fn count32(&mut self, part: &'static str) -> Result<usize, DecodeError> {
        let here = *self;
        let count = self.array(part).map(i32::from_be_bytes)?;
        usize::try_from(count).map_err(|_| here.fault(Fault::Negative(part)))
    }

    /// A byte of flags of which only those of `known` can be set.
    #[inline]
    pub(super) fn flags(&mut self, part: &'static str, known: u8) -> Result<u8, DecodeError> {
        let here = *self;
        let flags = self.byte(part)?;
        if flags & !known == 0 { Ok(flags) } else { Err(here.fault(Fault::Unknown(part, flags))) }
    }

    pub(super) fn bytes(
        &mut self,
        length: usize,
        part: &'static str,
    ) -> Result<&'a [u8], DecodeError> {
        match self.rest.split_at_checked(length) {
            Some((bytes, rest)) => {
                self.rest = rest;
                Ok(bytes)
            }
            None => Err(self.fault(Fault::Truncated(part))),
        }
    }

    /// A string that ends with a zero byte.
    pub(super) fn string(&mut self, part: &'static str) -> Result<&'a str, DecodeError> {
        let end = self.rest.iter().position(|&byte| byte == 0);
        let end = end.ok_or_else(|| self.fault(Fault::Truncated(part)))?;
        let here = *self;
        let bytes = self.bytes(end, part)?;
        self.byte(part)?;
        std::str::from_utf8(bytes).map_err(|_| here.fault(Fault::NotUtf8(part)))
    }

    /// A schema's name, for which the server writes nothing where it is `pg_catalog`.
    pub(super) fn schema(&mut self) -> Result<&'a str, DecodeError> {
        let name = self.string("schema")?;
        Ok(if name.is_empty() { "pg_catalog" } else { name })
    }

    /// Nothing may be left.
    #[inline]
    pub(super) fn finish(&self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(self.fault(Fault::Trailing(left))),
        }
    }

    /// The fault, at what is to be read next.
    #[cold]
    pub(super) fn fault(&self, fault: Fault) -> DecodeError {
        DecodeError {
            tag: self.whole.first().copied(),
            offset: self.whole.len() - self.rest.len(),
            fault,
        }
    }
}
