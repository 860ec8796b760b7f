//! Parts of a table, by where rows lie in its file.
//!
//! A file is measured once its table's job has its books open. What is written behind that end
//! afterwards comes through the stream, so the last part ends there too.

use crate::pgoutput::RelationId;

/// A row's place in its file: the block, and the number in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tid(u64);

impl Tid {
    /// The place of a row.
    #[must_use]
    pub const fn new(block: u32, number: u16) -> Self {
        Self((block as u64) << 16 | number as u64)
    }

    /// The next place, where there may be a row or none.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The block.
    #[must_use]
    pub const fn block(self) -> u64 {
        self.0 >> 16
    }

    /// The number in its block.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0 & 0xFFFF
    }

    pub(super) const fn raw(self) -> u64 {
        self.0
    }

    pub(super) const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }
}

/// A part of a table's file, or of a partition's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Whose file: the table, or the partition that has the rows.
    pub leaf: RelationId,
    /// The file's number, another one once the table has been rewritten.
    pub file: u32,
    /// The first place that belongs to it.
    pub from: Tid,
    /// The first place that does not.
    pub to: Tid,
}

impl Span {
    /// The whole of a file of so many blocks; none where there are no rows in it.
    #[must_use]
    pub fn whole(leaf: RelationId, file: u32, blocks: u32) -> Option<Self> {
        let (from, to) = (Tid::default(), Tid::new(blocks, 0));
        (blocks > 0).then_some(Self { leaf, file, from, to })
    }

    /// Takes so many blocks off the front.
    pub(super) fn split(self, blocks: u32) -> (Self, Option<Self>) {
        let cut = Tid((self.from.block() + u64::from(blocks)) << 16);
        if cut >= self.to {
            return (self, None);
        }
        (Self { to: cut, ..self }, Some(Self { from: cut, ..self }))
    }

    /// What is left behind a row; none where that was the last place.
    #[must_use]
    pub fn behind(self, row: Tid) -> Option<Self> {
        let from = row.next().max(self.from);
        (from < self.to).then_some(Self { from, ..self })
    }

    /// How many blocks it reaches into.
    #[must_use]
    pub const fn blocks(self) -> u64 {
        ((self.to.0 + 0xFFFF) >> 16).saturating_sub(self.from.block())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_follow_one_another_to_the_end() {
        let mut left = Span::whole(RelationId(1), 2, 10);
        let mut cuts = Vec::new();
        while let Some(span) = left {
            let (piece, rest) = span.split(4);
            cuts.push((piece.from.block(), piece.to.block()));
            left = rest;
        }
        assert_eq!(cuts, [(0, 4), (4, 8), (8, 10)]);
        assert_eq!(Span::whole(RelationId(1), 2, 0), None);
    }

    #[test]
    fn a_piece_may_begin_inside_a_block() {
        let span = Span::whole(RelationId(1), 2, 4).and_then(|span| span.behind(Tid::new(2, 6)));
        let span = span.expect("there is more");
        assert_eq!((span.from, span.blocks()), (Tid::new(2, 7), 2));
        let (piece, rest) = span.split(1);
        assert_eq!((piece.from, piece.to), (Tid::new(2, 7), Tid::new(3, 0)));
        assert_eq!(rest.map(|rest| (rest.from, rest.to)), Some((Tid::new(3, 0), span.to)));
        assert_eq!(span.split(2), (span, None));
        assert_eq!(span.behind(Tid::new(3, u16::MAX)), None);
    }
}
