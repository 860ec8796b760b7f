// Hot path: `Recent::touch` runs for each record of a table that is being read.
//! What the stream did to rows between the registration of a chunk and its release.
//!
//! How long that takes is how far the stream is behind, so what is remembered must not grow with
//! it. While a chunk is being read nobody knows its keys, and every key that is touched is noted,
//! once for all chunks that are being read. From then on only the chunk's own keys are looked at.

use std::collections::HashMap;

use crate::pgoutput::encode::TupleBuf;
use crate::pgoutput::{Field, Tuple};

/// What the keys that are touched while chunks are read may take of memory. With more than that
/// these chunks are read again.
pub(super) const MAX_RECENT_BYTES: usize = 8 << 20;

/// Below this nothing is tidied away.
const TIDY_BYTES: usize = 1 << 20;

/// What a record says of the row with its key.
#[derive(Clone, Copy, Debug)]
pub enum Touch<'a> {
    /// Consumers have all of it now, or know that it is gone.
    Whole,
    /// The row, but for large values that are as they were.
    Partly(Tuple<'a>),
    /// Values that were left out are as they were under another key.
    Moved,
}

/// What all records since say together.
#[derive(Clone)]
pub(super) enum Touched {
    Whole,
    Partly(TupleBuf),
    Moved,
}

impl Touched {
    /// Enters one more; true where consumers have all of the row.
    pub(super) fn enter(so_far: &mut Option<Self>, touch: Touch<'_>) -> bool {
        let next = match (so_far.take(), touch) {
            (_, Touch::Whole) | (Some(Self::Whole), Touch::Partly(_)) => Self::Whole,
            (None, Touch::Partly(row)) => Self::Partly(TupleBuf::new(row.fields())),
            (Some(Self::Partly(before)), Touch::Partly(row)) => {
                Self::Partly(filled(row, before.tuple()))
            }
            (Some(Self::Moved), Touch::Partly(_)) | (_, Touch::Moved) => Self::Moved,
        };
        let whole = matches!(next, Self::Whole);
        *so_far = Some(next);
        whole
    }
}

/// A row whose values that were left out are those of another.
#[must_use]
pub(super) fn filled(row: Tuple<'_>, from: Tuple<'_>) -> TupleBuf {
    let fields = row.fields().zip(from.fields());
    TupleBuf::new(fields.map(|(field, from)| if field == Field::Unchanged { from } else { field }))
}

/// What was touched while chunks are being read.
#[derive(Clone, Default)]
pub(super) struct Recent {
    keys: HashMap<Box<[u8]>, (u64, Option<Touched>)>,
    bytes: usize,
    /// Counts what was touched.
    number: u64,
    tidied_bytes: usize,
}

impl Recent {
    /// What is touched from now on has a greater number.
    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    /// Notes what a record says of a row; true where consumers have all of it.
    pub(super) fn touch(&mut self, key: &[u8], touch: Touch<'_>) -> bool {
        self.number += 1;
        if let Some((number, touched)) = self.keys.get_mut(key) {
            *number = self.number;
            return Touched::enter(touched, touch);
        }
        let mut touched = None;
        let whole = Touched::enter(&mut touched, touch);
        let row = if let Touch::Partly(row) = touch { row.bytes.len() } else { 0 };
        // The key, its pointer and its place in the table.
        self.bytes += key.len() + row + 96;
        self.keys.insert(key.into(), (self.number, touched));
        whole
    }

    pub(super) const fn is_too_large(&self) -> bool {
        self.bytes > MAX_RECENT_BYTES
    }

    /// What was done to a row after that number.
    pub(super) fn since(&self, number: u64, key: &[u8]) -> Option<Touched> {
        let (last, touched) = self.keys.get(key)?;
        touched.clone().filter(|_| *last > number)
    }

    /// Nobody asks any more for what was touched up to that number, or at all.
    pub(super) fn tidy(&mut self, up_to: Option<u64>) {
        let Some(up_to) = up_to else {
            self.keys = HashMap::new();
            (self.bytes, self.tidied_bytes) = (0, 0);
            return;
        };
        if self.bytes < TIDY_BYTES || self.bytes < 2 * self.tidied_bytes {
            return;
        }
        self.keys.retain(|_, (number, _)| *number > up_to);
        let row = |touched: &Option<Touched>| match touched {
            Some(Touched::Partly(row)) => row.tuple().bytes.len(),
            _ => 0,
        };
        let sizes = self.keys.iter().map(|(key, (_, touched))| key.len() + row(touched) + 96);
        self.bytes = sizes.sum();
        self.tidied_bytes = self.bytes;
    }
}

/// Keys and rows are data, and stay out of logs.
impl std::fmt::Debug for Recent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Recent({} keys)", self.keys.len())
    }
}

impl std::fmt::Debug for Touched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Whole => "Whole",
            Self::Partly(_) => "Partly",
            Self::Moved => "Moved",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(fields: [Field<'static>; 2]) -> TupleBuf {
        TupleBuf::new(fields)
    }

    #[test]
    fn what_touches_a_row_adds_up() {
        let [a, b, c] = [b"a", b"b", b"c"].map(|text| Field::Text(text));
        let mut so_far = None;
        assert!(!Touched::enter(&mut so_far, Touch::Partly(row([a, Field::Unchanged]).tuple())));
        assert!(!Touched::enter(&mut so_far, Touch::Partly(row([Field::Unchanged, b]).tuple())));
        let Some(Touched::Partly(both)) = &so_far else { panic!("{so_far:?}") };
        assert_eq!(both.tuple().fields().collect::<Vec<_>>(), [a, b]);
        assert!(!Touched::enter(&mut so_far, Touch::Moved));
        assert!(!Touched::enter(&mut so_far, Touch::Partly(row([c, Field::Unchanged]).tuple())));
        assert!(matches!(so_far, Some(Touched::Moved)), "{so_far:?}");
        assert!(Touched::enter(&mut so_far, Touch::Whole));
        assert!(Touched::enter(&mut so_far, Touch::Partly(row([c, Field::Unchanged]).tuple())));
    }

    #[test]
    fn only_what_came_later_counts_and_only_that_is_kept() {
        let mut recent = Recent::default();
        recent.touch(b"before", Touch::Whole);
        let registered = recent.number();
        recent.touch(b"after", Touch::Whole);
        let later = recent.number();
        assert!(recent.since(registered, b"before").is_none());
        assert!(recent.since(registered, b"after").is_some());
        assert!(recent.since(later, b"after").is_none());
        let long = [0; 1000];
        let keys =
            || (0..2_000_u32).map(|number| [number.to_be_bytes().as_slice(), &long].concat());
        for key in keys() {
            recent.touch(&key, Touch::Whole);
        }
        recent.tidy(Some(recent.number() - 1));
        assert_eq!(recent.keys.len(), 1);
        assert!(recent.bytes < TIDY_BYTES);
    }
}
