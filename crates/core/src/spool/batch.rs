// Hot path: `Batch::push` and `Records` run once a row of a streamed transaction.
//! The form in which changes of open transactions are kept.
//!
//! ```text
//! batch  = length of the records (4 bytes), sum (8), records
//! record = length of the message (4), (sub)transaction (4), position (8), message
//! ```
//!
//! A message is kept as it would have come outside of a stream, its transaction's id taken out and
//! put beside it: so what is published of it is the same, byte for byte, as if the server had
//! sent it after the commit.
//!
//! The sum covers the records and where they belong: the run of the daemon, the transaction, the
//! place in its file. A batch of another file, of another run, or in another place is as wrong
//! as one of which a bit has flipped.

use std::hash::Hasher;

use rustc_hash::FxHasher;

use crate::lsn::Lsn;
use crate::pgoutput::Xid;

/// Changes are gathered up to this length; one that is longer is a batch by itself. Writes of this
/// size cost a disk little, and there is one such buffer.
pub const BATCH_BYTES: usize = 64 << 10;

/// What stands before the records of a batch.
pub const HEAD_BYTES: usize = 12;

/// What stands before a message.
const RECORD_HEAD_BYTES: usize = 16;

/// A record up to its message's first byte, which says what kind of message it is.
const START_BYTES: usize = RECORD_HEAD_BYTES + 1;

/// Where a batch belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal {
    /// A number that no other run of the daemon has.
    pub run: u64,
    /// The transaction.
    pub xid: Xid,
    /// Where in its file the batch starts.
    pub offset: u64,
}

/// What was read is not what was written there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged;

/// A change that came in a block of an open transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change<'a> {
    xid: [u8; 4],
    lsn: Lsn,
    kind: u8,
    rest: &'a [u8],
}

impl<'a> Change<'a> {
    /// The message of a change, as it came in a block, and its position. `None` where it is too
    /// short or too long for one, which no decoded message is.
    #[must_use]
    pub fn new(message: &'a [u8], lsn: Lsn) -> Option<Self> {
        u32::try_from(message.len()).ok()?;
        let (kind, rest) = message.split_first()?;
        let (xid, rest) = rest.split_first_chunk()?;
        Some(Self { xid: *xid, lsn, kind: *kind, rest })
    }

    /// What it takes in a batch.
    #[must_use]
    pub const fn size(&self) -> usize {
        START_BYTES + self.rest.len()
    }

    /// The message without what stands before it.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    fn start(&self) -> [u8; START_BYTES] {
        // `new` has seen that it fits.
        let length = u32::try_from(1 + self.rest.len()).unwrap_or(u32::MAX).to_le_bytes();
        let (xid, lsn) = (self.xid, self.lsn.0.to_le_bytes());
        let mut start = [0; START_BYTES];
        let bytes = length.into_iter().chain(xid).chain(lsn).chain([self.kind]);
        start.iter_mut().zip(bytes).for_each(|(place, byte)| *place = byte);
        start
    }

    /// For a change that is a batch by itself: all of it but [`Change::rest`], which follows.
    #[must_use]
    pub fn alone(&self, seal: Seal) -> [u8; HEAD_BYTES + START_BYTES] {
        let start = self.start();
        let head = head(self.size(), sum(seal, &start, self.rest));
        let mut bytes = [0; HEAD_BYTES + START_BYTES];
        let all = head.into_iter().chain(start);
        bytes.iter_mut().zip(all).for_each(|(place, byte)| *place = byte);
        bytes
    }
}

/// Changes on their way to the file.
#[derive(Debug)]
pub struct Batch {
    bytes: Vec<u8>,
}

impl Default for Batch {
    fn default() -> Self {
        Self { bytes: vec![0; HEAD_BYTES] }
    }
}

impl Batch {
    /// Whether nothing is gathered.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes.len() == HEAD_BYTES
    }

    /// What it takes in the file.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether a change can be added.
    #[must_use]
    pub const fn fits(&self, change: &Change<'_>) -> bool {
        self.bytes.len() + change.size() <= BATCH_BYTES
    }

    /// Adds a change.
    pub fn push(&mut self, change: &Change<'_>) {
        self.bytes.extend_from_slice(&change.start());
        self.bytes.extend_from_slice(change.rest);
    }

    /// The whole batch, as it goes into the file.
    pub fn seal(&mut self, seal: Seal) -> &[u8] {
        let head = match self.bytes.get(HEAD_BYTES..) {
            Some(records) => {
                let (start, rest) = records.split_at_checked(START_BYTES).unwrap_or((records, &[]));
                head(records.len(), sum(seal, start, rest))
            }
            None => [0; HEAD_BYTES],
        };
        self.bytes.iter_mut().zip(head).for_each(|(place, byte)| *place = byte);
        &self.bytes
    }

    /// What was gathered is in the file.
    pub fn clear(&mut self) {
        self.bytes.truncate(HEAD_BYTES);
    }
}

/// How many bytes of records follow this head.
#[must_use]
pub fn length(head: [u8; HEAD_BYTES]) -> u32 {
    let [a, b, c, d, ..] = head;
    u32::from_le_bytes([a, b, c, d])
}

/// The records that follow this head.
///
/// # Errors
/// Where they are not what was written there.
pub fn open(
    head: [u8; HEAD_BYTES],
    seal: Seal,
    records: &[u8],
) -> Result<impl Iterator<Item = Result<Record<'_>, Damaged>>, Damaged> {
    let [_, _, _, _, rest @ ..] = head;
    let (start, others) = records.split_at_checked(START_BYTES).ok_or(Damaged)?;
    if u64::from_le_bytes(rest) != sum(seal, start, others) {
        return Err(Damaged);
    }
    Ok(Records(records))
}

/// A change as it is read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The (sub)transaction that made it.
    pub xid: Xid,
    /// Where it stands in the log.
    pub lsn: Lsn,
    /// The message, as it comes outside of a stream.
    pub message: &'a [u8],
}

struct Records<'a>(&'a [u8]);

impl<'a> Records<'a> {
    fn take(&mut self) -> Option<Record<'a>> {
        let (length, rest) = self.0.split_first_chunk()?;
        let (xid, rest) = rest.split_first_chunk()?;
        let (lsn, rest) = rest.split_first_chunk()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let (message, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        let lsn = Lsn(u64::from_le_bytes(*lsn));
        Some(Record { xid: Xid(u32::from_be_bytes(*xid)), lsn, message })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, Damaged>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let record = self.take().ok_or(Damaged);
        if record.is_err() {
            self.0 = &[];
        }
        Some(record)
    }
}

fn head(length: usize, sum: u64) -> [u8; HEAD_BYTES] {
    let length = u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
    let mut head = [0; HEAD_BYTES];
    let bytes = length.into_iter().chain(sum.to_le_bytes());
    head.iter_mut().zip(bytes).for_each(|(place, byte)| *place = byte);
    head
}

/// Not against malice, but against disks: read by the process that wrote it, so it may differ from
/// one version to the next.
fn sum(seal: Seal, start: &[u8], rest: &[u8]) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write_u64(seal.run);
    hasher.write_u32(seal.xid.0);
    hasher.write_u64(seal.offset);
    hasher.write(start);
    hasher.write(rest);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Seal = Seal { run: 9, xid: Xid(700), offset: 4_096 };

    fn read(bytes: &[u8], seal: Seal) -> Result<Vec<Record<'_>>, Damaged> {
        let (head, records) = bytes.split_first_chunk().ok_or(Damaged)?;
        open(*head, seal, records)?.collect()
    }

    fn three() -> Vec<u8> {
        let mut batch = Batch::default();
        for (message, lsn) in [(b"I\0\0\x02\xbdrow".as_slice(), 1), (b"R\0\0\x02\xbc", 2)] {
            batch.push(&Change::new(message, Lsn(lsn)).unwrap());
        }
        batch.push(&Change::new(b"T\0\0\x02\xbcall", Lsn(u64::MAX)).unwrap());
        batch.seal(HERE).to_vec()
    }

    #[test]
    fn changes_are_read_as_they_would_have_come_outside_of_a_stream() {
        let record = |xid, lsn, message| Record { xid: Xid(xid), lsn: Lsn(lsn), message };
        let bytes = three();
        assert_eq!(length(*bytes.first_chunk().unwrap()) as usize, bytes.len() - HEAD_BYTES);
        let expected = vec![
            record(701, 1, b"Irow".as_slice()),
            record(700, 2, b"R"),
            record(700, u64::MAX, b"Tall"),
        ];
        assert_eq!(read(&bytes, HERE), Ok(expected));
    }

    #[test]
    fn a_change_that_is_a_batch_by_itself_reads_like_any_other() {
        let change = Change::new(b"I\0\0\x02\xbda long row", Lsn(5)).unwrap();
        let alone = [&change.alone(HERE), change.rest()].concat();
        let mut batch = Batch::default();
        batch.push(&change);
        assert_eq!(batch.seal(HERE), alone);
        let record = Record { xid: Xid(701), lsn: Lsn(5), message: b"Ia long row" };
        assert_eq!(read(&alone, HERE), Ok(vec![record]));
    }

    #[test]
    fn a_flipped_bit_anywhere_is_noticed() {
        let bytes = three();
        for place in 4..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[place] ^= 1 << bit;
                assert_eq!(read(&damaged, HERE), Err(Damaged), "byte {place}, bit {bit}");
            }
        }
        for length in 0..bytes.len() {
            assert_eq!(read(&bytes[..length], HERE), Err(Damaged), "cut at {length}");
        }
    }

    #[test]
    fn a_batch_of_elsewhere_is_noticed() {
        let bytes = three();
        for seal in
            [Seal { run: 8, ..HERE }, Seal { xid: Xid(701), ..HERE }, Seal { offset: 0, ..HERE }]
        {
            assert_eq!(read(&bytes, seal), Err(Damaged), "{seal:?}");
        }
    }

    #[test]
    fn a_batch_is_full_before_it_is_too_long_and_empty_once_it_is_written() {
        let row = [b'I'; 1_000];
        let change = Change::new(&row, Lsn(1)).unwrap();
        let mut batch = Batch::default();
        let mut count = 0;
        while batch.fits(&change) {
            batch.push(&change);
            count += 1;
        }
        assert!(batch.len() <= BATCH_BYTES && count > 60, "{count}");
        batch.clear();
        assert!(batch.is_empty() && batch.fits(&change));
        assert_eq!(Change::new(b"I\0\0\0", Lsn(1)), None, "it has no transaction");
    }

    #[test]
    fn no_bytes_make_reading_panic() {
        for length in 0..64 {
            for byte in [0, 1, 0x7f, 0xff] {
                let bytes = vec![byte; length];
                let seal = Seal { run: 0, xid: Xid(0), offset: 0 };
                // With a sum that is right, so that the records themselves are walked.
                if let Some((start, rest)) = bytes.split_at_checked(START_BYTES) {
                    let head = head(length, sum(seal, start, rest));
                    let _ = open(head, seal, &bytes).unwrap().count();
                }
            }
        }
    }
}
