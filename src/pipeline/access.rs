//! What a pipeline needs where Kafka has access control: no more than it uses.

use std::collections::BTreeSet;

use crate::config::TableName;
use crate::config::settled::Pipeline;

/// The commands that allow it, as comments of the SQL beside which they are printed.
pub(super) fn lines(settings: &Pipeline, tables: impl Iterator<Item = TableName>) -> Vec<String> {
    let heading = "-- where Kafka has access control, for USER, whom the daemon logs in as:";
    let commands = commands(settings, "USER", tables).into_iter();
    let commands = commands.map(|command| format!("--   {command}"));
    std::iter::once(heading.to_owned()).chain(commands).collect()
}

/// The commands that allow it to a user.
pub(crate) fn commands(
    settings: &Pipeline,
    user: &str,
    tables: impl Iterator<Item = TableName>,
) -> Vec<String> {
    let prefix = format!("{}.", settings.name);
    let [id, _] = settings.transactional_ids();
    let tables: BTreeSet<String> = tables.map(|table| settings.topic_of(&table)).collect();
    let mut allowed = vec![
        format!("Create --operation Write --topic {prefix} --resource-pattern-type prefixed"),
        format!("Read --operation DescribeConfigs --topic {}", settings.checkpoint_topic()),
        format!("Write --transactional-id {id} --resource-pattern-type prefixed"),
    ];
    let heartbeat = settings.heartbeat.map(|_| settings.heartbeat_topic());
    let beside = settings.topics_beside_tables().into_iter().chain(heartbeat);
    let elsewhere = tables.into_iter().chain(beside).filter(|topic| !topic.starts_with(&prefix));
    allowed.extend(elsewhere.map(|topic| format!("Create --operation Write --topic {topic}")));
    let brokers = &settings.kafka.bootstrap_servers;
    let commands = allowed.into_iter().map(|operations| {
        format!(
            "kafka-acls.sh --bootstrap-server {brokers} --add --allow-principal User:{user} \
             --operation {operations}"
        )
    });
    commands.collect()
}
