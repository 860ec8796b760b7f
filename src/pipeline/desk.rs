//! Where the owner of a stream leaves how far it is, for the keeper of checkpoints, and the keeper
//! what is in its way.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use waltide_core::checkpoint::RegisteredSchema;
use waltide_core::delivery::Offer;
use waltide_core::lsn::DurableLsn;

use crate::fault::Fault;

/// What keeps the keeper from writing.
#[derive(Clone, Debug)]
pub(super) enum Trouble {
    /// It tries again.
    Passing(Fault),
    /// This stream may not go on.
    Lasting(Fault),
}

/// What lies between the two.
#[derive(Debug)]
pub(super) struct Desk {
    /// The last one, and which books are in it.
    offer: Mutex<(Offer, u64)>,
    offered: Notify,
    schemas: Mutex<BTreeMap<String, RegisteredSchema>>,
    trouble: Mutex<Option<Trouble>>,
    /// Which books are in a checkpoint.
    kept: AtomicU64,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Desk {
    pub(super) fn new(start: DurableLsn) -> Self {
        Self {
            offer: Mutex::new((Offer { durable: start, last: None, books: None }, 0)),
            offered: Notify::new(),
            schemas: Mutex::default(),
            trouble: Mutex::default(),
            kept: AtomicU64::new(0),
        }
    }

    /// Everything before there is delivered; the books in it are of this edition.
    pub(super) fn offer(&self, offer: Offer, edition: u64) {
        *lock(&self.offer) = (offer, edition);
        self.offered.notify_one();
    }

    pub(super) fn latest(&self) -> (Offer, u64) {
        lock(&self.offer).clone()
    }

    /// Books of this edition are in a checkpoint.
    pub(super) fn keep(&self, edition: u64) {
        self.kept.store(edition, Relaxed);
    }

    /// Which books are in a checkpoint.
    pub(super) fn kept(&self) -> u64 {
        self.kept.load(Relaxed)
    }

    /// Waits for an offer. One that was made before the call counts.
    pub(super) async fn offered(&self) {
        self.offered.notified().await;
    }

    /// A schema that records are written with.
    pub(super) fn uses(&self, schema: RegisteredSchema) {
        lock(&self.schemas).insert(schema.subject.clone(), schema);
    }

    pub(super) fn schemas(&self) -> Vec<RegisteredSchema> {
        lock(&self.schemas).values().cloned().collect()
    }

    pub(super) fn trouble(&self) -> Option<Trouble> {
        lock(&self.trouble).clone()
    }

    pub(super) fn set_trouble(&self, trouble: Option<Trouble>) {
        *lock(&self.trouble) = trouble;
    }
}
