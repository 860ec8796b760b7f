//! Checked reads off a value's bytes.

use super::{Fault, What};

/// What is left of a value's binary form.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    what: What,
}

impl<'a> Reader<'a> {
    /// `what` names the type in the message when the bytes are too few or too many.
    #[inline]
    pub(crate) fn new(bytes: &'a [u8], what: What) -> Self {
        Self { rest: bytes, what }
    }

    #[inline]
    pub(crate) fn fault(&self) -> Fault {
        Fault::Malformed(self.what)
    }

    #[inline]
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let (head, tail) = self.rest.split_first_chunk::<N>().ok_or(self.fault())?;
        self.rest = tail;
        Ok(*head)
    }

    #[inline]
    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], Fault> {
        let (head, tail) = self.rest.split_at_checked(len).ok_or(self.fault())?;
        self.rest = tail;
        Ok(head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Fault> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Fault> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn i16(&mut self) -> Result<i16, Fault> {
        self.array().map(i16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Fault> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn i32(&mut self) -> Result<i32, Fault> {
        self.array().map(i32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Fault> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn i64(&mut self) -> Result<i64, Fault> {
        self.array().map(i64::from_be_bytes)
    }

    pub(crate) fn f64(&mut self) -> Result<f64, Fault> {
        self.array().map(f64::from_be_bytes)
    }

    /// A 32-bit count or length, which Postgres never sends negative.
    pub(crate) fn len(&mut self) -> Result<usize, Fault> {
        usize::try_from(self.i32()?).map_err(|_| self.fault())
    }

    /// A 32-bit length and as many bytes; -1 stands for null.
    pub(crate) fn item(&mut self) -> Result<Option<&'a [u8]>, Fault> {
        match self.i32()? {
            -1 => Ok(None),
            len => {
                usize::try_from(len).map_err(|_| self.fault()).and_then(|n| self.take(n)).map(Some)
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// All bytes must have been read.
    #[inline]
    pub(crate) fn end(self) -> Result<(), Fault> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.fault()) }
    }
}

/// A value of fixed size.
#[inline]
pub(crate) fn exactly<const N: usize>(bytes: &[u8], what: What) -> Result<[u8; N], Fault> {
    bytes.try_into().map_err(|_| Fault::Malformed(what))
}

/// A number in text form.
pub(crate) fn number<T: std::str::FromStr>(text: &[u8], what: What) -> Result<T, Fault> {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(Fault::Malformed(what))
}
