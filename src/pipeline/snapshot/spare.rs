//! Buffers of rows, used again: a reader's thread takes them and the owner's gives them back, and an
//! allocator keeps what goes from one thread to another for itself for a while.

use std::sync::{Arc, Mutex, PoisonError};

use waltide_core::snapshot::HeldRows;

/// A buffer that grew beyond this, for rows that are larger than usual, is not kept.
const KEPT_BYTES: usize = 4 << 20;

/// What is not in use. There are never more than were in use at once.
#[derive(Clone, Debug, Default)]
pub(super) struct Spare(Arc<Mutex<Vec<HeldRows>>>);

impl Spare {
    pub(super) fn take(&self) -> HeldRows {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    pub(super) fn give(&self, mut rows: HeldRows) {
        if rows.capacity() <= KEPT_BYTES {
            rows.clear();
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(rows);
        }
    }
}
