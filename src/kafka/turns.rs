// Hot path: `Turns::open` and `Turns::sent` run once a record.
//! Two transactional clients that take turns, so that nobody waits for Kafka to be done with a
//! transaction.
//!
//! When Kafka says that a transaction is committed, the partitions have yet to hear of it. A client
//! that begins its next one meanwhile is turned away, and librdkafka asks again after 20 ms, in
//! which nothing moves. And while a commit is on its way, its client takes nothing.
//!
//! ```text
//!   one    records  arrive | commit           records  arrive | commit
//!   other                    records  arrive  | commit           records ...
//! ```
//!
//! The order holds: a client is given records only when all that the other was given have arrived,
//! and its commit is sent only when the other's is known. Whatever fails ends both. A reader of
//! committed records sees a beginning of the stream.
//!
//! Whoever takes over shuts out both before it reads the last checkpoint. Where two take over at
//! once and each has shut the other out of one, one of them may commit: all begin with the first
//! client, and only who has that comes to use the second.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::producer::BaseProducer;

use super::reports::{Reporter, Reports};
use super::transactional::Transactional;
use super::{Error, Settings};

/// The clients, and whose turn it is.
pub(super) struct Turns {
    clients: [Transactional; 2],
    reports: Arc<Reports>,
    /// Who takes records.
    turn: usize,
    /// What the other was given may still be on its way.
    arriving: bool,
    /// Whose commit is on its way.
    committing: Option<usize>,
    /// Who has its last record, and waits until that commit is known.
    waiting: Option<usize>,
    /// Records that were handed over.
    sent: u64,
    /// Of those, up to the last one that each client was given before its turn ended.
    upto: [u64; 2],
}

impl Turns {
    /// Shuts out every earlier client with these transactional ids, and rolls back what they had
    /// begun. Only what is read after this cannot change any more.
    ///
    /// # Errors
    /// Where Kafka does not answer in time or does not allow it.
    pub(super) async fn init(
        settings: &Settings,
        [one, other]: [&str; 2],
        checkpoints: &str,
        reports: &Arc<Reports>,
        within: Duration,
    ) -> Result<Self, Error> {
        let init = |id| Transactional::init(settings, (id, checkpoints), reports, within);
        let (one, other) = tokio::try_join!(init(one), init(other))?;
        Ok(Self {
            clients: [one, other],
            reports: Arc::clone(reports),
            turn: 0,
            arriving: false,
            committing: None,
            waiting: None,
            sent: 0,
            upto: [0, 0],
        })
    }

    /// The number of the client that takes records.
    pub(super) const fn turn(&self) -> usize {
        self.turn
    }

    /// Where the next record goes; `None` while it would not be in order, or nobody can take it.
    ///
    /// # Errors
    /// Where a client is used up.
    #[inline]
    pub(super) fn open(&mut self) -> Result<Option<&BaseProducer<Reporter>>, Error> {
        if self.arriving {
            if !self.reports.has(self.upto[1 - self.turn]) {
                return Ok(None);
            }
            self.arriving = false;
        }
        self.clients[self.turn].open()
    }

    /// A record was handed over.
    #[inline]
    pub(super) const fn sent(&mut self) {
        self.sent += 1;
    }

    /// Commits what was handed over since the last call, once what was handed over before that is
    /// committed. Follows [`Turns::open`], which has said who takes the last record.
    pub(super) fn commit(&mut self) {
        let client = self.turn;
        self.upto[client] = self.sent;
        if self.committing.is_none() {
            self.clients[client].commit();
            self.committing = Some(client);
        } else {
            self.waiting = Some(client);
        }
        (self.turn, self.arriving) = (1 - client, true);
    }

    /// How many commits are on their way.
    pub(super) fn committing(&self) -> usize {
        usize::from(self.committing.is_some()) + usize::from(self.waiting.is_some())
    }

    /// What became of the first of them, once all reports are there as well.
    pub(super) fn outcome(&mut self) -> Option<Result<(), Error>> {
        let client = self.committing?;
        let outcome = self.reports.take_outcome(self.upto[client])?;
        self.clients[client].committed(&outcome);
        self.committing = self.waiting.take().filter(|_| outcome.is_ok());
        if let Some(next) = self.committing {
            self.clients[next].commit();
        }
        Some(outcome)
    }

    /// Why a record was refused.
    pub(super) fn why(&self, error: Error) -> Error {
        let [one, other] = &self.clients;
        // The one whose transaction has failed knows better.
        match one.why(error.clone()) {
            said if said == error => other.why(error),
            said => said,
        }
    }

    pub(super) fn clients(&self) -> [&BaseProducer<Reporter>; 2] {
        self.clients.each_ref().map(Transactional::client)
    }
}
