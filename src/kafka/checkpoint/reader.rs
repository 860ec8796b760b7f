//! Finds the last record, and knows that it is the last.

use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::PARTITION;
use crate::kafka::connection::Listening;
use crate::kafka::{Error, Settings};

/// How far before the end the first look starts. A checkpoint takes two offsets, its own and its
/// transaction's marker, so the last one is nearly always in it.
const FIRST_LOOK_OFFSETS: i64 = 8;

/// By how much further the next look reaches back: four of them reach back two million.
const GROWTH: i64 = 64;

/// How long one poll waits. Markers alone do not end a poll, so this is also how late the end is
/// noticed.
const POLL: Duration = Duration::from_millis(2);

/// What the reader may hold before it is looked at.
const QUEUE_KIB: u32 = 1024;

/// What it asks for at once. Compressed: what one answer holds may be many times larger.
const FETCH_BYTES: u32 = 64 * 1024;

type Consumer = BaseConsumer<Listening>;

/// Reads the end of one topic. It keeps its clients until it is dropped, because closing them can
/// take longer than reading.
pub(super) struct Reader {
    settings: Settings,
    topic: String,
    deadline: Instant,
    used: Vec<Consumer>,
    /// The last thing that went wrong and may pass.
    trouble: Option<Error>,
}

impl Reader {
    pub(super) fn new(settings: Settings, topic: String, deadline: Instant) -> Self {
        Self { settings, topic, deadline, used: Vec::new(), trouble: None }
    }

    /// The last value with that key between these bounds.
    pub(super) fn last(
        &mut self,
        (low, high): (i64, i64),
        key: &[u8],
    ) -> Result<Option<Vec<u8>>, Error> {
        let mut reach = FIRST_LOOK_OFFSETS;
        loop {
            let start = high.saturating_sub(reach).max(low);
            if start >= high {
                return Ok(None);
            }
            if let Some(value) = self.last_between(start, high, key)? {
                return Ok(value);
            }
            if start == low {
                return Ok(None);
            }
            reach = reach.saturating_mul(GROWTH);
        }
    }

    /// The last value with that key from `start` on, once everything before `end` has been seen.
    ///
    /// Each look has a consumer of its own: one that was assigned before may still report the
    /// position it had, and the end would seem to be reached.
    fn last_between(
        &mut self,
        start: i64,
        end: i64,
        key: &[u8],
    ) -> Result<Option<Option<Vec<u8>>>, Error> {
        let consumer = self.create(&self.committed_only()?)?;
        let last = self.read_through(&consumer, start, end, key);
        self.used.push(consumer);
        last
    }

    fn read_through(
        &mut self,
        consumer: &Consumer,
        start: i64,
        end: i64,
        key: &[u8],
    ) -> Result<Option<Option<Vec<u8>>>, Error> {
        let mut from = TopicPartitionList::new();
        from.add_partition_offset(&self.topic, PARTITION, Offset::Offset(start))
            .and_then(|()| consumer.assign(&from))
            .map_err(|error| self.of_call(&error, consumer))?;
        let mut last = None;
        let mut position = start;
        while position < end {
            if self.left().is_zero() {
                return Err(self.too_late(&format!(
                    "offset {position} of {end} was reached; an open transaction may hold it up"
                )));
            }
            match consumer.poll(POLL) {
                Some(Ok(record)) if record.key() == Some(key) => {
                    last = Some(record.payload().map(<[u8]>::to_vec));
                }
                Some(Err(error)) => self.bear(&error, consumer)?,
                Some(Ok(_)) | None => {}
            }
            position = self.position(consumer)?.unwrap_or(position);
        }
        Ok(last)
    }

    /// Behind what the consumer has seen: unlike an offset of a record it also moves over markers
    /// and what was rolled back. `None` before the first.
    fn position(&self, consumer: &Consumer) -> Result<Option<i64>, Error> {
        let known = consumer.position().map_err(|error| self.of_call(&error, consumer))?;
        Ok(known.elements().first().and_then(|partition| match partition.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        }))
    }

    fn committed_only(&self) -> Result<ClientConfig, Error> {
        let mut config = self.settings.client()?;
        config
            .set("isolation.level", "read_committed")
            // librdkafka assigns nothing without one; no group is ever joined.
            .set("group.id", &self.topic)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // Where the start has gone meanwhile, another place is not as good.
            .set("auto.offset.reset", "error")
            // A follower nearby may not have the last record yet.
            .set("client.rack", "")
            .set("queued.max.messages.kbytes", QUEUE_KIB.to_string())
            .set("fetch.message.max.bytes", FETCH_BYTES.to_string())
            // How soon it asks again once there is room.
            .set("fetch.queue.backoff.ms", "5");
        Ok(config)
    }

    fn create(&self, config: &ClientConfig) -> Result<Consumer, Error> {
        let consumer: Consumer = config
            .create_with_context(self.settings.listening())
            .map_err(|error| Error::of_call(&error, &self.settings.bootstrap_servers, "", ""))?;
        let badge = &consumer.client().context().1;
        badge.settle(self.deadline, || drop(consumer.poll(POLL)));
        Ok(consumer)
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Keeps in mind what may pass, and gives up on what does not.
    fn bear(&mut self, error: &KafkaError, consumer: &Consumer) -> Result<(), Error> {
        match error.rdkafka_error_code() {
            // Librdkafka looks for the group's coordinator although there is no group.
            Some(RDKafkaErrorCode::GroupAuthorizationFailed) => return Ok(()),
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                return Err(Error::Topic {
                    topic: self.topic.clone(),
                    reason: "records went away while they were read".to_owned(),
                });
            }
            _ => {}
        }
        match self.of_call(error, consumer) {
            refused @ (Error::Authorization { .. } | Error::Settings { .. }) => Err(refused),
            passing => {
                self.trouble = Some(passing);
                Ok(())
            }
        }
    }

    fn of_call(&self, error: &KafkaError, consumer: &Consumer) -> Error {
        let said = consumer.client().context().0.recent().unwrap_or_default();
        let what = format!("read topic {}", self.topic);
        Error::of_call(error, &self.settings.bootstrap_servers, &said, &what)
    }

    fn too_late(&mut self, state: &str) -> Error {
        self.trouble.take().unwrap_or_else(|| Error::NotInTime {
            what: format!("read the last checkpoint from topic {}", self.topic),
            reason: state.to_owned(),
        })
    }
}
