// Hot path: the call-back of a delivery report runs once a record.
//! What librdkafka reports, until somebody looks.
//!
//! It calls back on a thread of its own. The call-back only adds to the books of a mailbox, where
//! reports of one transaction are one entry; the owner of the pipeline empties it when it is woken.
//! So everything that decides stays with one owner, and the mailbox is bounded by what is in flight.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rdkafka::ClientContext;
use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::ProducerContext;
use tokio::sync::Notify;
use waltide_core::watermark::Ticket;

use super::connection::Complaints;
use super::login::Badge;
use super::{Error, Settings};

/// A topic's number with a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lane(pub(super) usize);

/// What comes back with a delivery report is one word of the machine: the ticket above, the lane
/// below. Transactions of one connection and topics of one daemon stay far below these.
const LANE_BITS: u32 = 24;

/// As many transactions fit above a lane.
const MAX_TICKETS: u64 = 1 << (usize::BITS - LANE_BITS);

/// That word; none where one of them does not fit.
#[inline]
pub(super) fn tag(ticket: Ticket, lane: Lane) -> Option<usize> {
    let number = usize::try_from(ticket.0).ok()?;
    let fits = ticket.0 < MAX_TICKETS && lane.0 < 1 << LANE_BITS;
    fits.then_some(number << LANE_BITS | lane.0)
}

/// What comes back with the last record of a Kafka transaction, which counts for no ticket.
pub(super) const LAST: usize = usize::MAX;

/// Delivery reports that nobody has looked at yet.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    /// By transaction.
    pub(super) delivered: Vec<(Ticket, u64)>,
    /// All there ever were.
    reported: u64,
    pub(super) failure: Option<Error>,
    /// Bytes of all keys and values that have come back, delivered or not.
    pub(super) bytes: u64,
    /// What became of a commit.
    outcome: Option<Result<(), Error>>,
    /// By lane and partition.
    ends: Vec<Vec<End>>,
}

/// What has arrived in a partition.
#[derive(Clone, Copy, Debug, Default)]
struct End {
    /// How many records.
    records: u64,
    /// The offset after the last one.
    offset: i64,
}

impl Mailbox {
    fn ends_at(&mut self, lane: usize, partition: i32, offset: i64) {
        let Some(ends) = self.ends.get_mut(lane) else { return };
        let Ok(index) = usize::try_from(partition) else { return };
        if index >= ends.len() {
            // The topic has more partitions than it had.
            ends.resize(index + 1, End::default());
        }
        if let Some(end) = ends.get_mut(index) {
            end.records += 1;
            end.offset = end.offset.max(offset + 1);
        }
    }

    /// How many records have arrived there.
    pub(super) fn arrived(&self, (lane, partition): (usize, i32)) -> u64 {
        let ends = self.ends.get(lane);
        let end = ends.and_then(|ends| ends.get(usize::try_from(partition).ok()?));
        end.map_or(0, |end| end.records)
    }
}

/// The names of topics and where our last records in each of their partitions end.
#[derive(Clone, Debug)]
pub struct Ends {
    reports: Arc<Reports>,
    topics: Arc<Mutex<Topics>>,
}

/// Topics with their numbers.
#[derive(Debug, Default)]
struct Topics {
    lanes: HashMap<String, Lane>,
    names: Vec<String>,
}

impl Ends {
    pub(super) fn new(reports: &Arc<Reports>) -> Self {
        Self { reports: Arc::clone(reports), topics: Arc::default() }
    }

    /// The number of a topic, by which its reports are counted from now on.
    #[must_use]
    pub fn lane(&self, topic: &str) -> Lane {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lane) = topics.lanes.get(topic) {
            return *lane;
        }
        let lane = Lane(topics.names.len());
        topics.names.push(topic.to_owned());
        topics.lanes.insert(topic.to_owned(), lane);
        self.reports.mailbox().ends.push(Vec::new());
        lane
    }

    /// What is acknowledged so far, by topic.
    #[must_use]
    pub fn so_far(&self) -> Vec<(String, Vec<i64>)> {
        let topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        let mailbox = self.reports.mailbox();
        let ends = mailbox.ends.iter().map(|ends| ends.iter().map(|end| end.offset).collect());
        topics.names.iter().cloned().zip(ends).collect()
    }
}

#[derive(Debug, Default)]
pub(super) struct Reports {
    mailbox: Mutex<Mailbox>,
    pub(super) arrived: Notify,
    complaints: Complaints,
    /// Connections that were lost so far.
    lost: AtomicU64,
    /// A record came back as delivered by a Kafka that may not have it.
    doubtful: AtomicBool,
}

/// Kafka says of what it has taken where it is. Where it does not, librdkafka concludes from what was
/// sent later that this is there, which need not be so (`firsts.rs`).
const DOUBT: &str = "Kafka has taken what was sent after it, and has not said that it has this";

impl Reports {
    pub(super) fn mailbox(&self) -> MutexGuard<'_, Mailbox> {
        self.mailbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A commit has ended.
    pub(super) fn ended(&self, outcome: Result<(), Error>) {
        self.mailbox().outcome = Some(outcome);
        self.arrived.notify_one();
    }

    /// How it has, once so many records are reported.
    pub(super) fn take_outcome(&self, sent: u64) -> Option<Result<(), Error>> {
        let mut mailbox = self.mailbox();
        if mailbox.outcome.as_ref()?.is_ok() && mailbox.reported < sent {
            return None;
        }
        mailbox.outcome.take()
    }

    /// Whether so many records are reported.
    pub(super) fn has(&self, sent: u64) -> bool {
        self.mailbox().reported >= sent
    }

    /// What librdkafka complained of in the last seconds.
    pub(super) fn complaint(&self) -> Option<String> {
        self.complaints.recent()
    }

    /// Why what was sent may not be committed, if so.
    pub(super) fn doubt(&self) -> Option<&'static str> {
        self.doubtful.load(Ordering::Acquire).then_some(DOUBT)
    }

    /// How many connections have been lost.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

/// What a client calls back.
#[derive(Clone, Debug, Default)]
pub(super) struct Reporter(Arc<Reports>, Arc<Badge>);

impl Reporter {
    pub(super) fn new(reports: &Arc<Reports>, settings: &Settings) -> Self {
        Self(Arc::clone(reports), Arc::new(Badge::new(&settings.login)))
    }

    /// Lets a client ask for a token before it connects.
    pub(super) fn settle(&self, deadline: Instant, poll: impl Fn()) {
        self.1.settle(deadline, poll);
    }

    pub(super) fn complaint(&self) -> Option<String> {
        self.0.complaint()
    }
}

impl ClientContext for Reporter {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(
        &self,
        _: Option<&str>,
    ) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.1.show()
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.0.complaints.logged(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // By one that did not come to be, nothing was sent.
        if !reason.contains(": Connect to ") {
            self.0.lost.fetch_add(1, Ordering::Relaxed);
        }
        self.0.complaints.failed(&error, reason);
    }
}

impl ProducerContext for Reporter {
    /// The ticket's number and the lane's.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: usize) {
        let ticket = Ticket((opaque >> LANE_BITS) as u64);
        let lane = opaque & ((1 << LANE_BITS) - 1);
        let mut mailbox = self.0.mailbox();
        let was_empty = mailbox.delivered.is_empty() && mailbox.failure.is_none();
        let (Ok(message) | Err((_, message))) = result;
        if opaque != LAST {
            mailbox.bytes += super::producer::size(message.key(), message.payload());
        }
        mailbox.reported += 1;
        match result {
            Ok(message) if message.offset() < 0 => {
                self.0.doubtful.store(true, Ordering::Release);
                let topic = message.topic().to_owned();
                let reason = DOUBT.to_owned();
                mailbox.failure.get_or_insert(Error::Delivery { topic, reason });
            }
            // It wakes whoever waits for the outcome.
            Ok(_) if opaque == LAST => {}
            Ok(message) => {
                mailbox.ends_at(lane, message.partition(), message.offset());
                match mailbox.delivered.last_mut() {
                    Some((last, count)) if *last == ticket => *count += 1,
                    _ => mailbox.delivered.push((ticket, 1)),
                }
            }
            Err((error, message)) => {
                mailbox.failure.get_or_insert_with(|| Error::of_delivery(error, message.topic()));
            }
        }
        drop(mailbox);
        if was_empty {
            self.0.arrived.notify_one();
        }
    }
}
