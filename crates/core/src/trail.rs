// Hot path: `Trail::add` runs once a row, where each change is published exactly once.
//! A number for what has come of a transaction, by which it is known again.
//!
//! A transaction that is published in parts is decoded anew after a restart, and its first part is
//! left out. That is right only if the server sends the same rows again, so what was published is
//! remembered as a number: of the row and truncate messages as they were sent, before any filter
//! of ours. What may differ without being another change is not in it: descriptions of relations
//! (a cache decides when they come), messages of the log (they are asked for or not) and the id of
//! a subtransaction (it comes only where an open transaction is streamed).

use crate::pgoutput::{Message, OldTuple, RelationId, Tuple};

/// The number so far. Not a defence against anybody who means to deceive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trail(u64);

impl Default for Trail {
    fn default() -> Self {
        Self(0x9E37_79B9_7F4A_7C15)
    }
}

impl Trail {
    /// The number.
    #[must_use]
    pub const fn hash(self) -> u64 {
        self.0
    }

    /// Adds a row or truncate message; any other leaves it as it is.
    #[inline]
    pub fn add(&mut self, message: &Message<'_>) {
        match message {
            Message::Insert(_, relation, new) => self.row(b'I', *relation, None, Some(*new)),
            Message::Update(_, relation, old, new) => {
                self.row(b'U', *relation, *old, Some(*new));
            }
            Message::Delete(_, relation, old) => self.row(b'D', *relation, Some(*old), None),
            Message::Truncate(_, truncate) => {
                let flags = u64::from(truncate.cascade) | u64::from(truncate.restart_identity) << 1;
                self.word(u64::from(b'T') | flags << 8);
                self.bytes(truncate.relations);
            }
            _ => {}
        }
    }

    fn row(
        &mut self,
        kind: u8,
        relation: RelationId,
        old: Option<OldTuple<'_>>,
        new: Option<Tuple<'_>>,
    ) {
        let (mark, old) = match old {
            None => (0, None),
            Some(OldTuple::Key(tuple)) => (1, Some(tuple)),
            Some(OldTuple::Full(tuple)) => (2, Some(tuple)),
        };
        self.word(u64::from(kind) | mark << 8 | u64::from(relation.0) << 32);
        for tuple in [old, new].into_iter().flatten() {
            self.bytes(tuple.bytes);
        }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks();
        for word in words {
            self.word(u64::from_le_bytes(*word));
        }
        // Less than eight bytes are left, so their number has room above them.
        let rest = rest.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        self.word(rest);
        self.word(bytes.len() as u64);
    }

    /// Multiplies and folds the halves, so that each bit of what came reaches each bit of it.
    #[inline]
    fn word(&mut self, word: u64) {
        let wide = u128::from(self.0 ^ word) * 0xA076_1D64_78BD_642F;
        let [low, high] = [wide & u128::from(u64::MAX), wide >> 64];
        // Both are below 2^64. What came before must not be lost where the product is zero.
        self.0 = u64::try_from(low ^ high).unwrap_or_default().wrapping_add(self.0.rotate_left(23));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pgoutput::{Decoder, Xid};

    fn tuple(fields: &[&str]) -> Vec<u8> {
        let mut bytes = u16::try_from(fields.len()).unwrap().to_be_bytes().to_vec();
        for field in fields {
            bytes.push(b't');
            bytes.extend(u32::try_from(field.len()).unwrap().to_be_bytes());
            bytes.extend(field.as_bytes());
        }
        bytes
    }

    fn of(messages: &[Message<'_>]) -> u64 {
        let mut trail = Trail::default();
        messages.iter().for_each(|message| trail.add(message));
        trail.hash()
    }

    #[test]
    fn whatever_differs_between_rows_differs_in_the_number() {
        let all: Vec<Vec<u8>> = [
            &["1", "tea"][..],
            &["1", "te", "a"],
            &["1", "teb"],
            &["1tea", ""],
            &["", "1tea"],
            &["1", "tea", ""],
            &["12345678", "12345678"],
            &["12345678", "1234567"],
        ]
        .into_iter()
        .map(tuple)
        .collect();
        let mut seen = Vec::new();
        for bytes in &all {
            let row = Tuple::decode(bytes).unwrap();
            let id = RelationId(7);
            seen.push(of(&[Message::Insert(None, id, row)]));
            seen.push(of(&[Message::Insert(None, RelationId(8), row)]));
            seen.push(of(&[Message::Delete(None, id, OldTuple::Key(row))]));
            seen.push(of(&[Message::Delete(None, id, OldTuple::Full(row))]));
            seen.push(of(&[Message::Update(None, id, None, row)]));
            seen.push(of(&[Message::Update(None, id, Some(OldTuple::Key(row)), row)]));
            seen.push(of(&[Message::Insert(None, id, row), Message::Insert(None, id, row)]));
        }
        let count = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), count);
    }

    #[test]
    fn what_is_no_other_change_does_not() {
        let bytes = tuple(&["1", "tea"]);
        let row = Tuple::decode(&bytes).unwrap();
        let plain = Message::Insert(None, RelationId(7), row);
        let streamed = Message::Insert(Some(Xid(9)), RelationId(7), row);
        assert_eq!(of(&[plain]), of(&[streamed]));
        let other = Message::StreamStop;
        assert_eq!(of(&[other, plain]), of(&[plain]));
    }

    #[test]
    fn order_counts() {
        let (one, other) = (tuple(&["1"]), tuple(&["2"]));
        let [one, other] = [&one, &other]
            .map(|bytes| Message::Insert(None, RelationId(7), Tuple::decode(bytes).unwrap()));
        assert_ne!(of(&[one, other]), of(&[other, one]));
    }

    #[test]
    fn it_is_the_same_in_every_version() {
        // A checkpoint of today is read tomorrow.
        let truncate = [b'T', 0, 0, 0, 1, 3, 0, 0, 0, 5];
        let mut decoder = Decoder::new();
        let truncate = decoder.decode(&truncate).unwrap();
        let bytes = tuple(&["1", "a text of some length"]);
        let row = Message::Insert(None, RelationId(7), Tuple::decode(&bytes).unwrap());
        assert_eq!(format!("{:016x}", of(&[truncate, row])), "316ccab6c014e797");
    }
}
