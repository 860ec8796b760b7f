//! Writes checkpoints, each in a transaction of its own, from a thread of its own.
//!
//! librdkafka's transactional calls block, so they stay off the threads that feed Postgres.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};
use tokio::sync::oneshot;

use super::{CheckpointTopic, GRACE, PARTITION};
use crate::kafka::Error;
use crate::kafka::connection::Complaints;
use crate::kafka::login::Badge;

/// Writes waiting for the thread: they come one at a time, and none after one that was given up.
const WAITING: usize = 1;

/// How often librdkafka is served between writes, so that what it has to say does not pile up.
const SERVE: Duration = Duration::from_secs(1);

/// Between looks for a delivery report. A poll that waits less than some milliseconds spins: with many
/// pipelines, and a Kafka that takes its time, that was most of what the machine did.
const LOOK: Duration = Duration::from_micros(500);

/// After this long Kafka rolls back what a daemon that died had begun. The next one does that at
/// once; this is for readers when there is no next one. A record is given up by then as well.
const TRANSACTION_TIMEOUT_MS: u32 = 10_000;

/// Before compression; what is too much after it, the broker says.
const MAX_RECORD_BYTES: u32 = 8 * 1024 * 1024;

type Outcome = Result<(), Error>;

/// A writer that has shut out all earlier ones with its transactional id.
#[derive(Debug)]
pub struct CheckpointWriter {
    orders: SyncSender<Order>,
    topic: String,
    state: State,
}

#[derive(Debug)]
enum State {
    Ready,
    /// A write was given up from outside and nobody has heard its outcome.
    Writing,
    Failed(Error),
}

#[derive(Debug)]
struct Order {
    key: Vec<u8>,
    value: Vec<u8>,
    deadline: Instant,
    done: oneshot::Sender<Outcome>,
}

impl CheckpointWriter {
    /// Shuts out every earlier writer with this transactional id, and rolls back what it had
    /// begun. Only what is read after this cannot change any more.
    ///
    /// # Errors
    /// Where Kafka does not answer in time or does not allow it.
    pub async fn init(
        topic: &CheckpointTopic,
        transactional_id: &str,
        within: Duration,
    ) -> Result<Self, Error> {
        let deadline = Instant::now() + within;
        let (ready, readied) = oneshot::channel();
        let (orders, waiting) = sync_channel(WAITING);
        let (shared, id) = (topic.clone(), transactional_id.to_owned());
        std::thread::Builder::new()
            .name("checkpoint".to_owned())
            .spawn(move || run(&shared, id, deadline, ready, waiting))
            .map_err(|error| Error::NotInTime {
                what: "start to write checkpoints".to_owned(),
                reason: format!("no thread can be had: {error}"),
            })?;
        match tokio::time::timeout(within + GRACE, readied).await {
            Ok(Ok(outcome)) => outcome?,
            Ok(Err(_)) | Err(_) => {
                return Err(Error::NotInTime {
                    what: format!("become the writer of topic {}", topic.name),
                    reason: "the producer does not answer".to_owned(),
                });
            }
        }
        Ok(Self { orders, topic: topic.name.clone(), state: State::Ready })
    }

    /// Writes a record. When it returns, the record is the last committed one with its key.
    ///
    /// After an error, or when the future is dropped before its end, the writer is used up: every
    /// further call repeats the error. Make a new one, and read again before writing.
    ///
    /// # Errors
    /// [`Error::Fenced`] where a newer writer has taken over, [`Error::UnknownOutcome`] where the
    /// record may or may not be there; after any other error it is not there.
    pub async fn write(&mut self, key: &[u8], value: &[u8], within: Duration) -> Outcome {
        match &self.state {
            State::Ready => self.state = State::Writing,
            State::Writing => return Err(self.unknown("the write before it was given up")),
            State::Failed(error) => return Err(error.clone()),
        }
        let (done, outcome) = oneshot::channel();
        let deadline = Instant::now() + within;
        let order = Order { key: key.to_vec(), value: value.to_vec(), deadline, done };
        let outcome = match self.orders.try_send(order) {
            Ok(()) => match tokio::time::timeout(within + GRACE, outcome).await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(_)) | Err(_) => Err(self.unknown("the producer does not answer")),
            },
            Err(_) => Err(self.unknown("the producer has ended")),
        };
        self.state = match &outcome {
            Ok(()) => State::Ready,
            Err(error) => State::Failed(error.clone()),
        };
        outcome
    }

    fn unknown(&self, reason: &str) -> Error {
        Error::UnknownOutcome { topic: self.topic.clone(), reason: reason.to_owned() }
    }
}

/// The thread: until a write fails, or the handle is gone.
fn run(
    topic: &CheckpointTopic,
    transactional_id: String,
    deadline: Instant,
    ready: oneshot::Sender<Outcome>,
    orders: Receiver<Order>,
) {
    let writer = match Transactions::create(topic, transactional_id) {
        Ok(writer) => writer,
        Err(error) => {
            // Nobody may be waiting any more; then there is nothing to tell.
            let _ = ready.send(Err(error));
            return;
        }
    };
    // Answers go out before the producer is closed, which may take its time.
    let outcome = writer.init(deadline);
    let is_over = outcome.is_err();
    if ready.send(outcome).is_err() || is_over {
        return;
    }
    loop {
        match orders.recv_timeout(SERVE) {
            Ok(order) => {
                let outcome = writer.write(&order);
                let is_over = outcome.is_err();
                let _ = order.done.send(outcome);
                if is_over {
                    return;
                }
            }
            Err(RecvTimeoutError::Timeout) => writer.producer.poll(Duration::ZERO),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// What librdkafka told of the record that is on its way.
#[derive(Debug, Default)]
struct Reports {
    failure: Mutex<Option<KafkaError>>,
    complaints: Complaints,
    badge: Badge,
}

impl ClientContext for Reports {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(
        &self,
        _: Option<&str>,
    ) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.badge.show()
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.complaints.logged(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.complaints.failed(&error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
            failure.get_or_insert_with(|| error.clone());
        }
    }
}

struct Transactions {
    producer: BaseProducer<Reports>,
    topic: String,
    transactional_id: String,
    brokers: String,
}

impl Transactions {
    fn create(topic: &CheckpointTopic, transactional_id: String) -> Result<Self, Error> {
        let brokers = topic.settings().bootstrap_servers.clone();
        let mut config = topic.settings().client()?;
        config
            .set("transactional.id", &transactional_id)
            .set("transaction.timeout.ms", TRANSACTION_TIMEOUT_MS.to_string())
            // Neither may be longer than the transaction.
            .set("message.timeout.ms", TRANSACTION_TIMEOUT_MS.to_string())
            .set("socket.timeout.ms", TRANSACTION_TIMEOUT_MS.to_string())
            .set("enable.idempotence", "true")
            .set("acks", "all")
            // There is one record at a time.
            .set("max.in.flight.requests.per.connection", "1")
            .set("linger.ms", "0")
            // Names of topics and subjects repeat a lot where there are many.
            .set("compression.type", "lz4")
            .set("message.max.bytes", MAX_RECORD_BYTES.to_string());
        let producer: BaseProducer<Reports> = config
            .create_with_context(Reports {
                badge: Badge::new(&topic.settings().login),
                ..Reports::default()
            })
            .map_err(|error| Error::of_call(&error, &brokers, "", ""))?;
        Ok(Self { producer, topic: topic.name.clone(), transactional_id, brokers })
    }

    fn init(&self, deadline: Instant) -> Outcome {
        let badge = &self.producer.context().badge;
        badge.settle(deadline, || self.look());
        // librdkafka asks for the coordinator at once and, if it has no connection just then, only
        // half a second later. An answer to the first question may come by a connection to the
        // bootstrap address that is closed on account of it, an answer to the second shows one
        // that stays.
        let metadata = || {
            let client = self.producer.client();
            client.fetch_metadata(Some(&self.topic), left(deadline)).map(drop)
        };
        metadata()
            .and_then(|()| metadata())
            .and_then(|()| self.producer.init_transactions(left(deadline)))
            .map_err(|error| self.before_commit(&error))
    }

    fn look(&self) {
        self.producer.poll(Duration::ZERO);
        std::thread::sleep(LOOK);
    }

    fn write(&self, order: &Order) -> Outcome {
        self.producer.begin_transaction().map_err(|error| self.before_commit(&error))?;
        let record = BaseRecord::<[u8], [u8]>::to(&self.topic)
            .partition(PARTITION)
            .key(&order.key)
            .payload(&order.value);
        self.producer.send(record).map_err(|(error, _)| {
            self.fenced(&error).unwrap_or_else(|| self.undelivered(&error))
        })?;
        self.wait_for_delivery(order.deadline)?;
        self.producer.commit_transaction(left(order.deadline)).map_err(|error| {
            self.fenced(&error).unwrap_or_else(|| Error::UnknownOutcome {
                topic: self.topic.clone(),
                reason: self.with_complaint(&error),
            })
        })
    }

    /// A commit would wait too, but in steps of 100 ms. Nothing is committed before this is over,
    /// so what fails here is known not to be there.
    fn wait_for_delivery(&self, deadline: Instant) -> Outcome {
        while self.producer.in_flight_count() > 0 {
            if left(deadline).is_zero() {
                let said = self.said();
                return Err(Error::NotInTime {
                    what: format!("write a checkpoint to topic {}", self.topic),
                    reason: said.unwrap_or_else(|| "the broker does not answer".to_owned()),
                });
            }
            self.look();
        }
        let failure = &self.producer.context().failure;
        match failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            None => Ok(()),
            Some(error) => {
                let error = self.why_purged(error, deadline);
                Err(self.fenced(&error).unwrap_or_else(|| self.undelivered(&error)))
            }
        }
    }

    /// Where the topic may not join the transaction, librdkafka gives the record back as purged
    /// and keeps the reason for the commit, which cannot succeed any more.
    fn why_purged(&self, error: KafkaError, deadline: Instant) -> KafkaError {
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::PurgeQueue) {
            return error;
        }
        self.producer.commit_transaction(left(deadline)).err().unwrap_or(error)
    }

    fn undelivered(&self, error: &KafkaError) -> Error {
        Error::of_delivery(error, &self.topic)
    }

    fn before_commit(&self, error: &KafkaError) -> Error {
        self.fenced(error).unwrap_or_else(|| {
            let said = self.said().unwrap_or_default();
            let what = format!("use transactional id {}", self.transactional_id);
            Error::of_call(error, &self.brokers, &said, &what)
        })
    }

    /// Being fenced shows first as a refused record, an aborted transaction or a fatal error,
    /// whichever comes first.
    fn fenced(&self, error: &KafkaError) -> Option<Error> {
        let fatal = self.producer.client().fatal_error().map(|(code, _)| code);
        [error.rdkafka_error_code(), fatal]
            .into_iter()
            .flatten()
            .any(Error::is_fenced)
            .then(|| Error::Fenced { transactional_id: self.transactional_id.clone() })
    }

    /// What librdkafka complains of waits in its queue until somebody asks.
    fn said(&self) -> Option<String> {
        self.producer.poll(Duration::ZERO);
        self.producer.context().complaints.recent()
    }

    fn with_complaint(&self, error: &KafkaError) -> String {
        match self.said() {
            Some(said) => format!("{error} ({said})"),
            None => error.to_string(),
        }
    }
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}
