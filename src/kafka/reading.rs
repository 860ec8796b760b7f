//! Reads topics from their first record, as a consumer would that sees what is committed.
//!
//! It blocks its thread. No group is joined and nothing is committed, so nobody notices.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::connection::Listening;
use super::{Error, Settings};

/// What may wait to be looked at.
const QUEUE_KIB: u32 = 16 * 1024;

/// What is asked for at once, of one partition.
const FETCH_BYTES: u32 = 512 * 1024;

/// How long one poll waits. Markers alone do not end a poll, so this is also how late an end is
/// noticed.
const POLL: Duration = Duration::from_millis(5);

/// How many records are taken before it is seen whether that was all.
const LOOK_EVERY: u32 = 500;

/// How long nothing may come while there is more.
const SILENCE: Duration = Duration::from_secs(30);

/// A partition, and where what is there begins and ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Its topic.
    pub topic: String,
    /// Its number.
    pub partition: i32,
    /// Its first record's offset; records before it have been removed where it is not zero.
    pub low: i64,
    /// The offset behind its last record that is committed.
    pub high: i64,
}

/// A record.
#[derive(Debug)]
pub struct Found<'a> {
    /// Which of the partitions it is in.
    pub partition: usize,
    /// Its offset.
    pub offset: i64,
    message: &'a BorrowedMessage<'a>,
}

impl Found<'_> {
    /// Its key.
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        self.message.key()
    }

    /// Its value; none in a tombstone.
    #[must_use]
    pub fn value(&self) -> Option<&[u8]> {
        self.message.payload()
    }

    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let headers = self.message.headers()?;
        headers.iter().find(|header| header.key == name)?.value
    }
}

/// Reads some topics' partitions, in the order in which [`TopicReader::positions`] has them.
pub struct TopicReader {
    consumer: BaseConsumer<Listening>,
    settings: Settings,
    partitions: Vec<(String, i32)>,
    /// The offset behind the last record that was taken of each.
    next: Vec<i64>,
    trouble: Option<Error>,
}

impl std::fmt::Debug for TopicReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TopicReader").field("next", &self.next).finish_non_exhaustive()
    }
}

impl TopicReader {
    /// A reader of these partitions, each with the offset at which it begins.
    ///
    /// # Errors
    /// Where librdkafka refuses a setting.
    pub fn new(
        settings: &Settings,
        partitions: impl IntoIterator<Item = (String, i32, i64)>,
    ) -> Result<Self, Error> {
        let brokers = &settings.bootstrap_servers;
        let failed = |error: KafkaError| Error::of_call(&error, brokers, "", "read topics");
        let mut config = settings.client()?;
        config
            .set("isolation.level", "read_committed")
            // librdkafka assigns nothing without one; no group is ever joined.
            .set("group.id", "waltide")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // Where the start has gone meanwhile, another place is not as good.
            .set("auto.offset.reset", "error")
            // A follower nearby may not have the last record yet.
            .set("client.rack", "")
            .set("queued.max.messages.kbytes", QUEUE_KIB.to_string())
            .set("fetch.message.max.bytes", FETCH_BYTES.to_string())
            .set("fetch.queue.backoff.ms", "5");
        let consumer: BaseConsumer<Listening> =
            config.create_with_context(settings.listening()).map_err(failed)?;
        let badge = &consumer.context().1;
        badge.settle(Instant::now() + SILENCE, || drop(consumer.poll(POLL)));
        let mut list = TopicPartitionList::new();
        let (mut names, mut next) = (Vec::new(), Vec::new());
        for (topic, partition, from) in partitions {
            let added = list.add_partition_offset(&topic, partition, Offset::Offset(from));
            added.map_err(failed)?;
            names.push((topic, partition));
            next.push(from);
        }
        consumer.assign(&list).map_err(failed)?;
        let settings = settings.clone();
        Ok(Self { consumer, settings, partitions: names, next, trouble: None })
    }

    /// The partitions of these topics, in order, and what is in them now.
    ///
    /// # Errors
    /// Where Kafka does not answer within a time, or does not allow it.
    pub fn bounds_of(settings: &Settings, topics: &[String]) -> Result<Vec<Bounds>, Error> {
        let reader = Self::new(settings, [])?;
        let mut bounds = Vec::new();
        for topic in topics {
            let found = reader.consumer.fetch_metadata(Some(topic), SILENCE);
            let found = found.map_err(|error| reader.of_call(&error))?;
            let found = found.topics().iter().find(|found| found.name() == topic);
            let Some(found) = found else { continue };
            if let Some(code) = found.error().map(RDKafkaErrorCode::from) {
                return Err(Error::Topic { topic: topic.clone(), reason: code.to_string() });
            }
            let mut numbers: Vec<i32> = found.partitions().iter().map(|one| one.id()).collect();
            numbers.sort_unstable();
            for partition in numbers {
                let (low, high) = reader.watermarks(topic, partition)?;
                bounds.push(Bounds { topic: topic.clone(), partition, low, high });
            }
        }
        Ok(bounds)
    }

    /// The offset behind the last committed record of each partition, now.
    ///
    /// # Errors
    /// Where Kafka does not answer within a time, or does not allow it.
    pub fn ends(&self) -> Result<Vec<i64>, Error> {
        let end = |(topic, partition): &(String, i32)| Ok(self.watermarks(topic, *partition)?.1);
        self.partitions.iter().map(end).collect()
    }

    /// Up to where each partition has been taken.
    #[must_use]
    pub fn positions(&self) -> Vec<(String, i32, i64)> {
        let places = self.partitions.iter().zip(&self.next);
        places.map(|((topic, partition), next)| (topic.clone(), *partition, *next)).collect()
    }

    /// Gives every record before these ends to `each`, which says whether to go on, and perhaps
    /// some behind them.
    ///
    /// # Errors
    /// Where Kafka goes away, or the records do.
    pub fn read_to(
        &mut self,
        ends: &[i64],
        mut each: impl FnMut(Found<'_>) -> bool,
    ) -> Result<(), Error> {
        let (mut last, mut taken) = (Instant::now(), 0);
        while taken % LOOK_EVERY != 0 || !self.has_come_to(ends)? {
            match self.consumer.poll(POLL) {
                Some(Ok(message)) => {
                    (last, taken) = (Instant::now(), taken + 1);
                    let is_its = |(topic, number): &(String, i32)| {
                        topic == message.topic() && *number == message.partition()
                    };
                    let Some(partition) = self.partitions.iter().position(is_its) else { continue };
                    let offset = message.offset();
                    if !each(Found { partition, offset, message: &message }) {
                        return Ok(());
                    }
                    if let Some(next) = self.next.get_mut(partition) {
                        *next = offset + 1;
                    }
                }
                Some(Err(error)) => self.trouble = Some(self.bear(&error)?),
                None => {
                    taken = 0;
                    if last.elapsed() > SILENCE {
                        return Err(self.trouble.take().unwrap_or_else(|| Error::NotInTime {
                            what: "read a table's topic to its end".to_owned(),
                            reason: format!(
                                "nothing comes for {SILENCE:?}; an open transaction \
                                             may hold it up"
                            ),
                        }));
                    }
                }
            }
        }
        Ok(())
    }

    /// Unlike an offset of a record, a position also moves over markers and what was rolled back.
    fn has_come_to(&self, ends: &[i64]) -> Result<bool, Error> {
        let positions = self.consumer.position().map_err(|error| self.of_call(&error))?;
        let come = |((topic, partition), (next, end)): (&(String, i32), (&i64, &i64))| {
            let found = positions.find_partition(topic, *partition);
            let at = match found.map(|found| found.offset()) {
                Some(Offset::Offset(offset)) => offset.max(*next),
                _ => *next,
            };
            at >= *end
        };
        Ok(self.partitions.iter().zip(self.next.iter().zip(ends)).all(come))
    }

    fn watermarks(&self, topic: &str, partition: i32) -> Result<(i64, i64), Error> {
        let found = self.consumer.fetch_watermarks(topic, partition, SILENCE);
        found.map_err(|error| self.of_call(&error))
    }

    /// What may pass is kept in mind; what does not is an error.
    fn bear(&self, error: &KafkaError) -> Result<Error, Error> {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                let topics = self.partitions.iter().map(|(topic, _)| topic.as_str());
                Err(Error::Topic {
                    topic: topics.collect::<std::collections::BTreeSet<_>>().into_iter().collect(),
                    reason: "records went away while they were read".to_owned(),
                })
            }
            // Librdkafka looks for the group's coordinator although there is no group.
            Some(RDKafkaErrorCode::GroupAuthorizationFailed) => Ok(self.of_call(error)),
            _ => match self.of_call(error) {
                refused @ (Error::Authorization { .. } | Error::Settings { .. }) => Err(refused),
                passing => Ok(passing),
            },
        }
    }

    fn of_call(&self, error: &KafkaError) -> Error {
        let said = self.consumer.context().0.recent().unwrap_or_default();
        Error::of_call(error, &self.settings.bootstrap_servers, &said, "read a table's topic")
    }
}
