//! Each table has a topic of its own, whose name Kafka takes.

use std::collections::HashMap;

use waltide_core::pgoutput::RelationId;

use crate::config::settled::Pipeline;
use crate::config::{MAX_TOPIC_BYTES, TableName};
use crate::fault::{Code, Fault};

/// Who has which topic, as far as rows have come.
pub(super) type Topics = HashMap<String, (RelationId, TableName)>;

/// Sees to it that no two of these tables share a topic, and that each has one.
pub(crate) fn check(
    settings: &Pipeline,
    tables: impl Iterator<Item = TableName>,
) -> Result<(), Fault> {
    let mut owners: HashMap<String, TableName> = HashMap::new();
    for table in tables {
        let topic = name(settings, &table)?;
        if let Some(other) = owners.get(&topic) {
            return Err(shared(&topic, other, &table));
        }
        owners.insert(topic, table);
    }
    Ok(())
}

/// The topic of a table.
pub(crate) fn name(settings: &Pipeline, table: &TableName) -> Result<String, Fault> {
    let topic = settings.topic_of(table);
    if settings.reserved_topics().contains(&topic) {
        return Err(unusable(format!(
            "the topic of table {table} would be {topic}, which holds records of another kind"
        )));
    }
    if topic.len() <= MAX_TOPIC_BYTES {
        return Ok(topic);
    }
    let length = topic.len();
    Err(unusable(format!(
        "the topic of table {table} would have a name of {length} bytes, and Kafka takes \
         {MAX_TOPIC_BYTES}: {topic}"
    )))
}

/// Two tables whose topics have one name once what Kafka does not take is replaced.
pub(super) fn shared(topic: &str, one: &TableName, other: &TableName) -> Fault {
    unusable(format!("tables {one} and {other} would both be written to topic {topic}"))
}

fn unusable(what: String) -> Fault {
    let mend = "give one of them a topic of its own under table_options, leave it out under \
                source.exclude, or rename it, and restart the daemon";
    Fault::new(Code::TableUnplannable, what, mend)
}
