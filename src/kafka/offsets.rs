//! Where topics end, asked of the brokers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::connection::Listening;
use super::{Error, Settings};

/// The end of each partition of these topics, as far as they exist.
///
/// # Errors
/// Where Kafka does not answer in time or does not allow it.
pub async fn end_offsets(
    settings: &Settings,
    topics: BTreeSet<String>,
    within: Duration,
) -> Result<BTreeMap<String, Vec<i64>>, Error> {
    let settings = settings.clone();
    let brokers = settings.bootstrap_servers.clone();
    // librdkafka's calls block their thread.
    let asked = tokio::task::spawn_blocking(move || ask(&settings, &topics, within)).await;
    asked.map_err(|error| Error::Unreachable { brokers, reason: error.to_string() })?
}

fn ask(
    settings: &Settings,
    topics: &BTreeSet<String>,
    within: Duration,
) -> Result<BTreeMap<String, Vec<i64>>, Error> {
    let brokers = &settings.bootstrap_servers;
    let failed = |error| Error::of_call(&error, brokers, "", "describe topics and read their ends");
    let mut config = settings.client()?;
    config.set("group.id", "waltide").set("enable.auto.commit", "false");
    let client: BaseConsumer<Listening> =
        config.create_with_context(settings.listening()).map_err(failed)?;
    client
        .context()
        .1
        .settle(Instant::now() + within, || drop(client.poll(Duration::from_millis(1))));
    let metadata = client.fetch_metadata(None, within).map_err(failed)?;
    let mut list = TopicPartitionList::new();
    let mut ends = BTreeMap::new();
    for topic in metadata.topics().iter().filter(|topic| topics.contains(topic.name())) {
        if let Some(code) = topic.error().map(RDKafkaErrorCode::from) {
            return Err(Error::Topic { topic: topic.name().to_owned(), reason: code.to_string() });
        }
        ends.insert(topic.name().to_owned(), vec![0; topic.partitions().len()]);
        for partition in topic.partitions() {
            let added = list.add_partition_offset(topic.name(), partition.id(), Offset::End);
            added.map_err(failed)?;
        }
    }
    if ends.is_empty() {
        return Ok(ends);
    }
    // "The end" is a time as well: that of the next record.
    let answers = client.offsets_for_times(list, within).map_err(failed)?;
    for answer in answers.elements() {
        answer.error().map_err(failed)?;
        let place = usize::try_from(answer.partition()).ok();
        let end = place.and_then(|place| ends.get_mut(answer.topic())?.get_mut(place));
        if let (Some(end), Offset::Offset(offset)) = (end, answer.offset()) {
            *end = offset;
        }
    }
    Ok(ends)
}
