//! Where topics end, asked of the brokers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::topics::Asking;
use super::{Admin, Error};

/// Of so many topics each is asked for by itself. Beyond, one answer about all topics of the cluster
/// comes sooner.
const ASKED_SINGLY: usize = 32;

/// A topic and how many partitions it has, or why nobody says.
type Found = (String, Result<usize, RDKafkaErrorCode>);

impl Admin {
    /// The end of each partition of these topics, as far as they exist.
    ///
    /// # Errors
    /// Where Kafka does not answer in time or does not allow it.
    pub async fn end_offsets(
        &self,
        topics: BTreeSet<String>,
        within: Duration,
    ) -> Result<BTreeMap<String, Vec<i64>>, Error> {
        let what = "describe topics and read their ends";
        let found = self.ask(what, move |client| find(client, &topics, within)).await?;
        let mut counts = BTreeMap::new();
        for (topic, count) in found {
            match count {
                Ok(count) => drop(counts.insert(topic, count)),
                Err(RDKafkaErrorCode::UnknownTopicOrPartition) => {}
                Err(code) => return Err(self.of_topic(&topic, code)),
            }
        }
        if counts.is_empty() {
            return Ok(BTreeMap::new());
        }
        self.ask(what, move |client| measure(client, counts, within)).await
    }
}

fn find(
    client: &Asking,
    topics: &BTreeSet<String>,
    within: Duration,
) -> Result<Vec<Found>, KafkaError> {
    let few: Vec<Option<&str>> = match topics.len() {
        0..=ASKED_SINGLY => topics.iter().map(|topic| Some(topic.as_str())).collect(),
        _ => vec![None],
    };
    let mut found = Vec::new();
    for asked in few {
        let metadata = client.fetch_metadata(asked, within)?;
        let wanted = metadata.topics().iter().filter(|topic| topics.contains(topic.name()));
        found.extend(wanted.map(|topic| {
            let wrong = topic.error().map(RDKafkaErrorCode::from);
            (topic.name().to_owned(), wrong.map_or(Ok(topic.partitions().len()), Err))
        }));
    }
    Ok(found)
}

fn measure(
    client: &Asking,
    counts: BTreeMap<String, usize>,
    within: Duration,
) -> Result<BTreeMap<String, Vec<i64>>, KafkaError> {
    let mut list = TopicPartitionList::new();
    for (topic, count) in &counts {
        for partition in 0..i32::try_from(*count).unwrap_or(i32::MAX) {
            list.add_partition_offset(topic, partition, Offset::End)?;
        }
    }
    let mut ends: BTreeMap<String, Vec<i64>> =
        counts.into_iter().map(|(topic, count)| (topic, vec![0; count])).collect();
    // "The end" is a time as well: that of the next record.
    let answers = client.offsets_for_times(list, within)?;
    for answer in answers.elements() {
        answer.error()?;
        let place = usize::try_from(answer.partition()).ok();
        let end = place.and_then(|place| ends.get_mut(answer.topic())?.get_mut(place));
        if let (Some(end), Offset::Offset(offset)) = (end, answer.offset()) {
            *end = offset;
        }
    }
    Ok(ends)
}
