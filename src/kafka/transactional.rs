//! A client whose records count together or not at all, for a reader of committed records.
//!
//! It has shut out every earlier client with its transactional id before anything is sent through
//! it, and it is used up by the first failure: a commit without an answer is neither done nor lost,
//! and a late one could hit the client's next transaction. Whoever needs another makes one, and
//! reads the last checkpoint after that.
//!
//! Where a connection is lost while a commit is on its way, librdkafka sends it again by another.
//! The first may still arrive, behind the second, and would commit the half of what comes next. So
//! such a client is used up as well, although its commit was done.
//!
//! librdkafka's calls that ask the brokers block, so a thread makes them. While a commit is on its
//! way nothing else can be sent by this client: there is another one (`turns.rs`).

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, Producer as _};
use tokio::sync::oneshot;

use super::polled::Polled;
use super::producer::producer_config;
use super::reports::{Reporter, Reports};
use super::{Error, Settings};

/// After this long Kafka rolls back what a daemon that died had begun, unless configured: until
/// then readers of committed records wait. The next daemon does that at once.
pub const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(30);

/// What librdkafka takes.
const LEAST_TIMEOUT_MS: u64 = 1_000;

/// Its name among the properties.
const TIMEOUT_KEY: &str = "transaction.timeout.ms";

/// How long a record waits for others. librdkafka spins while records wait behind a request for
/// longer than this (`gear.rs`), and there is only one client here; a commit is later by as much.
const LINGER_MS: &str = "1";

/// A checkpoint may be larger than a row; what is too much after compression, the broker says.
const MAX_RECORD_BYTES: u32 = 8 * 1024 * 1024;

/// How often it is looked whether the last records have arrived.
const LOOK: Duration = Duration::from_micros(200);

/// How long rolling back may take: the next client does it as well, when it shuts this one out.
const ROLL_BACK: Duration = Duration::from_secs(2);

/// What a call that keeps its own deadline may exceed it by, before it is given up from outside.
const GRACE: Duration = Duration::from_millis(500);

/// Where the client's one transaction at a time is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// None is open.
    Between,
    /// Records are taken.
    Open,
    /// The commit is on its way.
    Ending,
    /// The client is used up.
    Over,
}

/// What the thread is to do.
#[derive(Debug)]
enum Order {
    /// Wait until everything has arrived, and commit it, until then.
    Commit(Instant),
    RollBack,
}

/// The client and its thread.
pub(super) struct Transactional {
    client: Arc<Polled<BaseProducer<Reporter>>>,
    orders: SyncSender<Order>,
    reports: Arc<Reports>,
    phase: Phase,
    /// Connections that had been lost when the last commit was sent.
    lost: u64,
    timeout: Duration,
    who: Who,
}

/// For messages.
#[derive(Clone, Debug)]
struct Who {
    transactional_id: String,
    /// That of the checkpoint, which is there.
    topic: String,
    brokers: String,
    timeout: Duration,
}

impl Transactional {
    /// Shuts out every earlier client with this transactional id, and rolls back what it had begun.
    /// Only what is read after this cannot change any more.
    ///
    /// # Errors
    /// Where Kafka does not answer in time or does not allow it.
    pub(super) async fn init(
        settings: &Settings,
        (transactional_id, topic): (&str, &str),
        reports: &Arc<Reports>,
        within: Duration,
    ) -> Result<Self, Error> {
        let deadline = Instant::now() + within;
        let timeout = timeout(settings)?;
        let who = Who {
            transactional_id: transactional_id.to_owned(),
            topic: topic.to_owned(),
            brokers: settings.bootstrap_servers.clone(),
            timeout,
        };
        let config = config(settings, transactional_id, timeout)?;
        let client = Polled::new(&config, Reporter::new(reports, settings))
            .map_err(|error| Error::of_call(&error, &who.brokers, "", ""))?;
        let client = Arc::new(client);
        let (ready, readied) = oneshot::channel();
        // One order at a time; and the last, for which nobody waits.
        let (orders, waiting) = sync_channel(2);
        let work = Work { client: Arc::clone(&client), reports: Arc::clone(reports), who };
        let who = work.who.clone();
        thread::Builder::new()
            .name("kafka-commits".to_owned())
            .spawn(move || work.run(deadline, ready, waiting))
            .map_err(|error| Error::NotInTime {
                what: "start to commit records".to_owned(),
                reason: format!("no thread can be had: {error}"),
            })?;
        match tokio::time::timeout(within + GRACE, readied).await {
            Ok(Ok(outcome)) => outcome?,
            Ok(Err(_)) | Err(_) => {
                return Err(Error::NotInTime {
                    what: format!("use transactional id {transactional_id}"),
                    reason: "the producer does not answer".to_owned(),
                });
            }
        }
        let (reports, phase) = (Arc::clone(reports), Phase::Between);
        let lost = reports.lost();
        Ok(Self { client, orders, reports, phase, lost, timeout, who })
    }

    /// Where the next record goes; `None` while a commit is on its way.
    ///
    /// # Errors
    /// Where the client is used up.
    #[inline]
    pub(super) fn open(&mut self) -> Result<Option<&BaseProducer<Reporter>>, Error> {
        match self.phase {
            Phase::Open => {}
            Phase::Ending => return Ok(None),
            Phase::Between => {
                let begun = self.client.begin_transaction();
                begun.map_err(|error| self.who.refused(&error, &self.client))?;
                self.phase = Phase::Open;
            }
            Phase::Over => {
                return Err(self.who.tainted());
            }
        }
        Ok(Some(&self.client))
    }

    /// Commits what was handed over. Nothing more is taken before the outcome is known.
    pub(super) fn commit(&mut self) {
        self.phase = Phase::Ending;
        self.lost = self.reports.lost();
        if self.orders.try_send(Order::Commit(Instant::now() + self.timeout)).is_err() {
            let outcome = Err(self.who.unknown("the producer has ended"));
            self.reports.ended(outcome);
        }
    }

    /// What became of the commit that was on its way.
    pub(super) fn committed(&mut self, outcome: &Result<(), Error>) {
        let tainted = self.lost != self.reports.lost();
        self.phase = if outcome.is_ok() && !tainted { Phase::Between } else { Phase::Over };
    }

    /// Why a record was refused. What is wrong with the transaction it was in says more than that
    /// the record was given back on account of it.
    pub(super) fn why(&self, error: Error) -> Error {
        if self.phase == Phase::Between {
            return error;
        }
        // In a transaction that cannot be committed any more this is refused for that reason; in
        // any other it is refused because there is one.
        match self.client.begin_transaction() {
            Err(reason) if reason.rdkafka_error_code() != Some(RDKafkaErrorCode::State) => {
                match (self.who.refused(&reason, &self.client), error) {
                    (Error::RolledBack { reason, .. }, Error::Delivery { topic, .. }) => {
                        Error::Delivery { topic, reason }
                    }
                    (Error::Authorization { reason, .. }, Error::Delivery { topic, .. }) => {
                        Error::Authorization { what: format!("write to topic {topic}"), reason }
                    }
                    (fenced @ Error::Fenced { .. }, _) => fenced,
                    (_, error) => error,
                }
            }
            _ => error,
        }
    }

    pub(super) fn client(&self) -> &BaseProducer<Reporter> {
        &self.client
    }
}

impl Drop for Transactional {
    /// What is open is rolled back, so that readers need not wait for Kafka to do it. Not what is
    /// being committed: nobody knows how far that is.
    fn drop(&mut self) {
        if self.phase == Phase::Open {
            let _ = self.orders.try_send(Order::RollBack);
        }
    }
}

/// The thread's.
struct Work {
    client: Arc<Polled<BaseProducer<Reporter>>>,
    reports: Arc<Reports>,
    who: Who,
}

impl Work {
    /// Until the client is used up, or its owner gone.
    fn run(
        self,
        deadline: Instant,
        ready: oneshot::Sender<Result<(), Error>>,
        orders: Receiver<Order>,
    ) {
        // Answers go out before the client is closed, which may take its time.
        let outcome = self.init(deadline);
        let is_over = outcome.is_err();
        if ready.send(outcome).is_err() || is_over {
            return;
        }
        while let Ok(order) = orders.recv() {
            match order {
                Order::Commit(deadline) => {
                    let outcome = self.commit(deadline);
                    let is_over = outcome.is_err();
                    self.reports.ended(outcome);
                    if is_over {
                        return;
                    }
                }
                Order::RollBack => {
                    let _ = self.client.abort_transaction(ROLL_BACK);
                    return;
                }
            }
        }
    }

    fn init(&self, deadline: Instant) -> Result<(), Error> {
        let client = self.client.client();
        client.context().settle(deadline, || thread::sleep(Duration::from_millis(1)));
        // As for the writer of checkpoints: an answer to the second question comes by a connection
        // that stays.
        let metadata = || client.fetch_metadata(Some(&self.who.topic), left(deadline)).map(drop);
        metadata()
            .and_then(|()| metadata())
            .and_then(|()| self.client.init_transactions(left(deadline)))
            .map_err(|error| self.who.before(&error, &self.client))
    }

    fn commit(&self, deadline: Instant) -> Result<(), Error> {
        // The call would wait as well, but in steps of 100 ms.
        while self.client.in_flight_count() > 0 {
            if left(deadline).is_zero() {
                return Err(Error::NotInTime {
                    what: "deliver the records of a transaction".to_owned(),
                    reason: self.said().unwrap_or_else(|| "the broker does not answer".to_owned()),
                });
            }
            thread::sleep(LOOK);
        }
        // Every report has come by now.
        if let Some(reason) = self.reports.doubt() {
            let transactional_id = self.who.transactional_id.clone();
            return Err(Error::RolledBack { transactional_id, reason: reason.to_owned() });
        }
        self.client.commit_transaction(left(deadline)).map_err(|error| {
            match &error {
                // Something in it has failed: it cannot have been committed.
                KafkaError::Transaction(reason) if reason.txn_requires_abort() => {
                    self.who.refused(&error, &self.client)
                }
                _ if Who::is_fenced(&error, &self.client) => self.who.refused(&error, &self.client),
                _ => self.who.unknown(&match self.said() {
                    Some(said) => format!("{error} ({said})"),
                    None => error.to_string(),
                }),
            }
        })
    }

    fn said(&self) -> Option<String> {
        self.reports.complaint()
    }
}

impl Who {
    fn unknown(&self, reason: &str) -> Error {
        let (transactional_id, reason) = (self.transactional_id.clone(), reason.to_owned());
        Error::UnknownCommit { transactional_id, reason }
    }

    fn tainted(&self) -> Error {
        Error::RolledBack {
            transactional_id: self.transactional_id.clone(),
            reason: "nothing; but a connection was lost, and what was sent by it could still \
                     arrive: another producer shuts it out"
                .to_owned(),
        }
    }

    /// A transaction that was refused before its commit.
    fn refused(&self, error: &KafkaError, client: &BaseProducer<Reporter>) -> Error {
        if Self::is_fenced(error, client) {
            return Error::Fenced { transactional_id: self.transactional_id.clone() };
        }
        Error::of_transaction(error, &self.transactional_id)
    }

    fn before(&self, error: &KafkaError, client: &BaseProducer<Reporter>) -> Error {
        if Self::is_fenced(error, client) {
            return Error::Fenced { transactional_id: self.transactional_id.clone() };
        }
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::InvalidTransactionTimeout) {
            return Error::Settings {
                reason: format!(
                    "the brokers refuse {TIMEOUT_KEY} = {}, which is more than their \
                     transaction.max.timeout.ms",
                    self.timeout.as_millis()
                ),
            };
        }
        let said = client.context().complaint().unwrap_or_default();
        let what = format!("use transactional id {}", self.transactional_id);
        Error::of_call(error, &self.brokers, &said, &what)
    }

    /// Being fenced shows first as a refused record, a transaction that cannot go on or a fatal
    /// error, whichever comes first.
    fn is_fenced(error: &KafkaError, client: &BaseProducer<Reporter>) -> bool {
        let fatal = client.client().fatal_error().map(|(code, _)| code);
        [error.rdkafka_error_code(), fatal].into_iter().flatten().any(Error::is_fenced)
    }
}

fn timeout(settings: &Settings) -> Result<Duration, Error> {
    let Some(text) = settings.properties.get(TIMEOUT_KEY) else { return Ok(TRANSACTION_TIMEOUT) };
    let number = text.parse().ok().filter(|number| *number >= LEAST_TIMEOUT_MS);
    number.map(Duration::from_millis).ok_or_else(|| Error::Settings {
        reason: format!("{TIMEOUT_KEY} is a number of milliseconds from {LEAST_TIMEOUT_MS} on"),
    })
}

fn config(
    settings: &Settings,
    transactional_id: &str,
    timeout: Duration,
) -> Result<rdkafka::config::ClientConfig, Error> {
    let mut config = producer_config(settings, LINGER_MS, Some(MAX_RECORD_BYTES))?;
    let timeout_ms = timeout.as_millis().to_string();
    config
        .set("transactional.id", transactional_id)
        .set(TIMEOUT_KEY, &timeout_ms)
        // Neither may be longer than the transaction.
        .set("message.timeout.ms", &timeout_ms)
        .set("socket.timeout.ms", &timeout_ms);
    Ok(config)
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}
