//! From one checkpoint to the next.

use crate::checkpoint::{Checkpoint, RegisteredSchema, TopicEnd};

/// What a checkpoint says beside a position.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Topics that were published to, and where our records end by partition.
    pub ends: Vec<(String, Vec<i64>)>,
    /// Schemas in use.
    pub schemas: Vec<RegisteredSchema>,
    /// Microseconds since 1970.
    pub now_us: i64,
}

/// What the next checkpoint says, but for how far it reaches.
pub(super) fn following(last: &Checkpoint, seen: Seen) -> Checkpoint {
    let mut next = last.clone();
    merge_topics(&mut next.topics, seen.ends);
    merge_schemas(&mut next.schemas, seen.schemas);
    next.settled_at_us = seen.now_us;
    next.written_at_us = seen.now_us;
    next
}

/// Enters where topics end now. With thousands of them this is done often, so they are sorted.
fn merge_topics(known: &mut Vec<TopicEnd>, ends: Vec<(String, Vec<i64>)>) {
    for (name, ends) in ends {
        match known.binary_search_by(|topic| topic.name.cmp(&name)) {
            Ok(place) => {
                let Some(topic) = known.get_mut(place) else { continue };
                let partitions = topic.end_offsets.len().max(ends.len());
                topic.end_offsets.resize(partitions, 0);
                for (known, end) in topic.end_offsets.iter_mut().zip(ends) {
                    *known = (*known).max(end);
                }
            }
            Err(place) => known.insert(place, TopicEnd { name, topic_id: None, end_offsets: ends }),
        }
    }
}

/// Enters the schemas in use. Sorted as well.
fn merge_schemas(known: &mut Vec<RegisteredSchema>, used: Vec<RegisteredSchema>) {
    for schema in used {
        match known.binary_search_by(|one| one.subject.cmp(&schema.subject)) {
            Ok(place) => {
                if let Some(one) = known.get_mut(place) {
                    *one = schema;
                }
            }
            Err(place) => known.insert(place, schema),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::smallest;

    #[test]
    fn an_end_never_goes_back_and_a_partition_that_was_added_counts() {
        let topics = vec![TopicEnd { name: "b".to_owned(), topic_id: None, end_offsets: vec![5] }];
        let last = Checkpoint { topics, ..smallest() };
        let ends = vec![("b".to_owned(), vec![3, 7]), ("a".to_owned(), vec![1])];
        let next = following(&last, Seen { ends, ..Seen::default() });
        let known: Vec<(&str, &[i64])> =
            next.topics.iter().map(|it| (it.name.as_str(), it.end_offsets.as_slice())).collect();
        assert_eq!(known, [("a", [1].as_slice()), ("b", [5, 7].as_slice())]);
    }

    #[test]
    fn the_schema_in_use_takes_the_place_of_the_one_before() {
        let schema = |subject: &str, id| RegisteredSchema {
            subject: subject.to_owned(),
            id,
            fingerprint: String::new(),
        };
        let last = Checkpoint { schemas: vec![schema("b", 1)], ..smallest() };
        let schemas = vec![schema("b", 2), schema("a", 3)];
        let next = following(&last, Seen { schemas, now_us: 9, ..Seen::default() });
        assert_eq!(next.schemas, [schema("a", 3), schema("b", 2)]);
        assert_eq!((next.settled_at_us, next.written_at_us), (9, 9));
    }
}
