//! Where the owner of a stream leaves how far it is, for the keeper of checkpoints, and the keeper
//! what is in its way.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use waltide_core::checkpoint::RegisteredSchema;
use waltide_core::lsn::{CommitLsn, DurableLsn};

use crate::fault::Fault;

/// How far everything is delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Offer {
    pub(super) durable: DurableLsn,
    /// The last transaction before that; none before the first on this connection.
    pub(super) last: Option<CommitLsn>,
    /// The books of snapshots at that moment, where they are kept.
    pub(super) books: Option<Arc<Vec<u8>>>,
}

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
    offer: Mutex<Offer>,
    offered: Notify,
    schemas: Mutex<BTreeMap<String, RegisteredSchema>>,
    trouble: Mutex<Option<Trouble>>,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Desk {
    pub(super) fn new(start: DurableLsn) -> Self {
        Self {
            offer: Mutex::new(Offer { durable: start, last: None, books: None }),
            offered: Notify::new(),
            schemas: Mutex::default(),
            trouble: Mutex::default(),
        }
    }

    /// Everything before there is delivered.
    pub(super) fn offer(&self, offer: Offer) {
        *lock(&self.offer) = offer;
        self.offered.notify_one();
    }

    pub(super) fn latest(&self) -> Offer {
        lock(&self.offer).clone()
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
