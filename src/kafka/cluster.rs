//! What a cluster and its topics are like, for a look before the start. Nothing is changed.

use std::collections::BTreeMap;

use rdkafka::admin::{OwnedResourceSpecifier, ResourceSpecifier};

use super::{Admin, Error, Login, TopicOptions};

/// Settings by name.
pub type Config = BTreeMap<String, String>;

/// A topic that is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicFacts {
    /// How many partitions it has.
    pub partitions: usize,
    /// The fewest replicas that one of them has.
    pub replicas: usize,
    /// The fewest replicas of one of them that are in sync.
    pub in_sync: usize,
    /// Its settings, the brokers' where it has none; empty where we may not see them.
    pub config: Config,
}

/// A cluster, as it answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterFacts {
    /// How many brokers there are.
    pub brokers: usize,
    /// The settings of one of them; empty where we may not see them.
    pub config: Config,
    /// Of the topics that were asked for those that are there.
    pub topics: BTreeMap<String, TopicFacts>,
}

impl Admin {
    /// Looks at the cluster and at these topics.
    ///
    /// # Errors
    /// Where Kafka cannot be reached or does not let us in.
    pub async fn look(&self, topics: &[String]) -> Result<ClusterFacts, Error> {
        let metadata = self.metadata().await?;
        let mut facts = ClusterFacts { brokers: metadata.brokers, ..ClusterFacts::default() };
        for (name, topic) in metadata.topics {
            if topics.contains(&name) {
                facts.topics.insert(name, topic);
            }
        }
        if let Login::Token(_) = self.settings().login {
            // What would ask for settings asks for no token; they stay unseen.
            return Ok(facts);
        }
        let mut asked: Vec<ResourceSpecifier<'_>> =
            facts.topics.keys().map(|name| ResourceSpecifier::Topic(name)).collect();
        asked.extend(metadata.broker.map(ResourceSpecifier::Broker));
        let answers = self.describe(&asked).await.unwrap_or_default();
        for answer in answers.into_iter().flatten() {
            let entries = answer.entries.into_iter();
            let config =
                entries.filter_map(|entry| Some((entry.name, entry.value?))).collect::<Config>();
            match answer.specifier {
                OwnedResourceSpecifier::Broker(_) => facts.config = config,
                OwnedResourceSpecifier::Topic(name) => {
                    if let Some(topic) = facts.topics.get_mut(&name) {
                        topic.config = config;
                    }
                }
                OwnedResourceSpecifier::Group(_) => {}
            }
        }
        Ok(facts)
    }

    /// Whether a topic could be made; it is not.
    ///
    /// # Errors
    /// Where Kafka would refuse it, or cannot be asked.
    pub async fn could_make(&self, topic: &str, of: &TopicOptions) -> Result<(), Error> {
        self.make(topic, of, true).await
    }
}
