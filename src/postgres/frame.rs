//! Hot path: no allocation, lock or log per message. Bytes from the socket, cut into messages.
//!
//! One buffer, read into in large pieces and given out as views. A message that does not fit
//! makes it grow, to the message's size at once: the pages of a large allocation are the
//! system's until something is written to them, so a length that a peer only claims costs
//! nothing. It shrinks again when large messages stop coming, not after each one, or a table of
//! large values would allocate for every row.

use std::borrow::Cow;
use std::io;
use std::ops::Range;

use tokio::io::{AsyncRead, AsyncReadExt};

/// A tag and a length.
const HEADER_LEN: usize = 5;

/// The longest message that is read. The server builds each in a buffer of at most 1 GiB - 1, so
/// anything longer is no message of a server.
pub const MAX_MESSAGE_LEN: usize = (1 << 30) + (1 << 16);

/// A grown buffer is kept for this many reads without a message that needs it.
const FILLS_BEFORE_SHRINKING: u32 = 64;

/// Grown buffers are a multiple of this, so that messages of about one size share a buffer.
const GROWTH_STEP: usize = 64 * 1024;

/// One message of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    /// What kind of message it is.
    pub(super) tag: u8,
    /// What comes after tag and length.
    pub(super) body: &'a [u8],
}

/// Bytes that were read and not yet given out: `bytes[start..end]`.
pub(super) struct FrameBuffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// The size it has while no message needs more.
    resting: usize,
    fills_since_large: u32,
}

impl FrameBuffer {
    pub(super) fn new(resting: usize) -> Self {
        let bytes = vec![0; resting];
        Self { bytes, start: 0, end: 0, resting, fills_since_large: 0 }
    }

    /// Changes the size it has while no message needs more.
    pub(super) fn rest_at(&mut self, resting: usize) {
        self.resting = resting;
        let waiting = self.end - self.start;
        if self.bytes.len() < resting || waiting <= resting {
            self.move_to(resting.max(waiting));
        }
    }

    /// Reads once, as much as is there and fits. Nothing is read, and nothing lost, if the
    /// future is dropped. Zero means that the peer closed; a buffer full of messages that nobody
    /// took is the caller's mistake and an error.
    pub(super) async fn fill<R>(&mut self, source: &mut R) -> Result<usize, FillError>
    where
        R: AsyncRead + Unpin,
    {
        self.make_room()?;
        let room = self.bytes.get_mut(self.end..).unwrap_or_default();
        let count = source.read(room).await.map_err(FillError::Io)?;
        self.end += count;
        Ok(count)
    }

    /// The next message, if all of it is here.
    pub(super) fn next(&mut self) -> Result<Option<Frame<'_>>, BadLength> {
        let next = self.advance()?;
        Ok(next.map(|(tag, body)| Frame { tag, body: self.view(body) }))
    }

    /// The next message's tag, and where [`view`](Self::view) finds its body until more is read.
    #[inline]
    pub(super) fn advance(&mut self) -> Result<Option<(u8, Range<usize>)>, BadLength> {
        match self.header()? {
            Some((tag, len)) if self.end - self.start >= len => {
                let body = self.start + HEADER_LEN..self.start + len;
                self.start += len;
                Ok(Some((tag, body)))
            }
            _ => Ok(None),
        }
    }

    #[inline]
    pub(super) fn view(&self, body: Range<usize>) -> &[u8] {
        self.bytes.get(body).unwrap_or_default()
    }

    /// How much was read and not yet taken.
    pub(super) fn waiting(&self) -> usize {
        self.end - self.start
    }

    /// Whether a whole message waits.
    pub(super) fn has_frame(&self) -> bool {
        matches!(self.header(), Ok(Some((_, len))) if self.end - self.start >= len)
    }

    /// The tag of the message at the front, and its length with tag and length.
    #[inline]
    fn header(&self) -> Result<Option<(u8, usize)>, BadLength> {
        let waiting = self.bytes.get(self.start..self.end).unwrap_or_default();
        let Some(([tag, len @ ..], _)) = waiting.split_first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        // The length counts itself and not the tag.
        let len = u32::from_be_bytes(*len);
        match usize::try_from(len) {
            Ok(len) if (4..=MAX_MESSAGE_LEN).contains(&len) => Ok(Some((*tag, len + 1))),
            _ => Err(BadLength { tag: *tag, len }),
        }
    }

    fn make_room(&mut self) -> Result<(), FillError> {
        let needed = match self.header().map_err(FillError::Length)? {
            Some((_, len)) if self.end - self.start >= len => return Err(FillError::NotDrained),
            Some((_, len)) => len,
            None => HEADER_LEN,
        };
        if needed > self.resting {
            self.fills_since_large = 0;
            if needed > self.bytes.len() {
                self.move_to(needed.next_multiple_of(GROWTH_STEP));
            }
        } else if self.bytes.len() > self.resting {
            self.fills_since_large += 1;
            if self.fills_since_large >= FILLS_BEFORE_SHRINKING
                && self.end - self.start <= self.resting
            {
                self.move_to(self.resting);
            }
        }
        // What is left of the last read is part of one message: short, or soon to be read past.
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        Ok(())
    }

    /// A new buffer of this size, at least that of what waits.
    fn move_to(&mut self, size: usize) {
        // Not `resize`: it would write zeros over all of it, and so take all of its memory.
        let mut bytes = vec![0; size];
        let waiting = self.bytes.get(self.start..self.end).unwrap_or_default();
        if let Some(front) = bytes.get_mut(..waiting.len()) {
            front.copy_from_slice(waiting);
            self.end = waiting.len();
            self.start = 0;
            self.bytes = bytes;
            self.fills_since_large = 0;
        }
    }
}

/// No message has this length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadLength {
    tag: u8,
    len: u32,
}

impl BadLength {
    pub(super) fn told(self) -> Cow<'static, str> {
        let Self { tag, len } = self;
        format!("a message of {len} bytes (type {}) came", tag.escape_ascii()).into()
    }
}

/// Why nothing could be read.
#[derive(Debug)]
pub(super) enum FillError {
    /// The socket failed.
    Io(io::Error),
    /// What was read before is no message.
    Length(BadLength),
    /// Whole messages wait to be taken.
    NotDrained,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
        let len = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        [&[tag], &len[..], body].concat()
    }

    async fn read_all(mut bytes: &[u8], piece: usize, resting: usize) -> Vec<(u8, Vec<u8>)> {
        let mut buffer = FrameBuffer::new(resting);
        let mut frames = Vec::new();
        loop {
            let (mut now, later) = bytes.split_at(piece.min(bytes.len()));
            while !now.is_empty() {
                buffer.fill(&mut now).await.unwrap();
                while let Some(frame) = buffer.next().unwrap() {
                    frames.push((frame.tag, frame.body.to_vec()));
                }
            }
            bytes = later;
            if bytes.is_empty() {
                return frames;
            }
        }
    }

    #[tokio::test]
    async fn messages_come_out_whole_however_they_arrive() {
        let bodies: Vec<Vec<u8>> = (0..40).map(|n: usize| vec![7; (n * 37) % 301]).collect();
        let bytes: Vec<u8> = bodies.iter().flat_map(|body| frame(b'd', body)).collect();
        let expected: Vec<_> = bodies.into_iter().map(|body| (b'd', body)).collect();
        for piece in [1, 2, 3, 5, 64, 1000, bytes.len()] {
            for resting in [5, 16, 100, 4096] {
                assert_eq!(read_all(&bytes, piece, resting).await, expected, "{piece} {resting}");
            }
        }
    }

    #[tokio::test]
    async fn a_length_that_no_message_has_is_refused() {
        for len in [0_u32, 3, 1 << 30 | 1 << 20, u32::MAX] {
            let bytes = [&b"d"[..], &len.to_be_bytes()].concat();
            let mut buffer = FrameBuffer::new(64);
            buffer.fill(&mut &bytes[..]).await.unwrap();
            assert_eq!(buffer.next(), Err(BadLength { tag: b'd', len }));
        }
    }

    #[tokio::test]
    async fn the_buffer_grows_for_a_large_message_and_shrinks_when_no_more_come() {
        let mut buffer = FrameBuffer::new(1024);
        let large = frame(b'd', &vec![1; 3_000_000]);
        let mut source = &large[..];
        while buffer.next().unwrap().is_none() {
            buffer.fill(&mut source).await.unwrap();
        }
        assert!(buffer.bytes.len() >= 3_000_000);
        for _ in 0..=FILLS_BEFORE_SHRINKING {
            buffer.fill(&mut &frame(b'd', b"x")[..]).await.unwrap();
            assert_eq!(buffer.next().unwrap().unwrap().body, b"x");
        }
        assert_eq!(buffer.bytes.len(), 1024);
    }

    #[tokio::test]
    async fn reading_on_without_taking_what_is_there_is_an_error() {
        let mut buffer = FrameBuffer::new(64);
        buffer.fill(&mut &frame(b'd', b"x")[..]).await.unwrap();
        assert!(matches!(buffer.fill(&mut &b"y"[..]).await, Err(FillError::NotDrained)));
        assert_eq!(buffer.next().unwrap().unwrap().body, b"x");
    }
}
