// Hot path: `PositionText::at` runs once a record, and allocates nothing.
//! The value of the header `waltide.position`: `COMMIT_LSN:ORDINAL:SUB_INDEX`.
//!
//! A record is told apart by it, whatever was repeated: commit positions grow along the stream,
//! ordinals within a transaction, sub-indexes within a change.

use std::io::Write as _;

use waltide_core::lsn::Lsn;

/// Sixteen digits and a slash, and two numbers of at most twenty digits with their colons.
const LONGEST_BYTES: usize = 17 + 2 * 21;

/// Text that is rewritten from row to row behind a transaction's position.
#[derive(Debug)]
pub(super) struct PositionText {
    bytes: [u8; LONGEST_BYTES],
    commit_len: usize,
}

impl Default for PositionText {
    fn default() -> Self {
        Self { bytes: [0; LONGEST_BYTES], commit_len: 0 }
    }
}

impl PositionText {
    /// A transaction starts.
    pub(super) fn start(&mut self, commit: Lsn) {
        let mut left = self.bytes.as_mut_slice();
        // Cannot fail: the array holds the longest position.
        let _ = write!(left, "{commit}");
        let unused = left.len();
        self.commit_len = LONGEST_BYTES - unused;
    }

    /// The text of one record of it.
    pub(super) fn at(&mut self, ordinal: u64, sub_index: u32) -> &[u8] {
        let mut end = self.commit_len;
        for number in [ordinal, u64::from(sub_index)] {
            self.bytes[end] = b':';
            end = self.digits(end + 1, number);
        }
        &self.bytes[..end]
    }

    fn digits(&mut self, start: usize, number: u64) -> usize {
        let end = start + number.checked_ilog10().unwrap_or(0) as usize + 1;
        let mut left = number;
        for slot in self.bytes[start..end].iter_mut().rev() {
            *slot = b'0' + u8::try_from(left % 10).unwrap_or(0);
            left /= 10;
        }
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_reads_as_its_three_numbers() {
        let mut text = PositionText::default();
        text.start(Lsn(0x16_B374_D848));
        assert_eq!(text.at(0, 0), b"16/B374D848:0:0");
        assert_eq!(text.at(9, 10), b"16/B374D848:9:10");
        assert_eq!(text.at(1_000, 2), b"16/B374D848:1000:2");
        text.start(Lsn(1));
        assert_eq!(text.at(7, 1), b"0/1:7:1");
    }

    #[test]
    fn the_longest_position_fits() {
        let mut text = PositionText::default();
        text.start(Lsn(u64::MAX));
        let expected = format!("FFFFFFFF/FFFFFFFF:{}:{}", u64::MAX, u32::MAX);
        assert_eq!(text.at(u64::MAX, u32::MAX), expected.as_bytes());
    }
}
