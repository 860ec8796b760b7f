//! The topic: what its records say, key by key, as a reader of committed records sees it.

use std::collections::{BTreeMap, HashMap};

use tokio::runtime::Handle;
use waltide_core::lsn::Lsn;
use waltide_core::read_back::{Note, Schema, Seed, Told, ValueReader};
use waltide_core::verify::{Place, TopicEntry};

use crate::config::settled::{Envelope, Pipeline};
use crate::fault::{Code, Fault};
use crate::kafka::{self, Admin, Found};
use crate::pipeline;
use crate::registry::{Client, SchemaId};

/// The most topics that a table has been published to.
const MAX_TOPICS: usize = 1_000;

/// What a record says.
pub(super) enum Said<'a> {
    /// Of a key: its digest, its schema's id, its bytes, and what is so.
    Key { digest: u128, schema: u32, key: &'a [u8], place: Place, told: Told, columns: &'a [u64] },
    /// That there are no rows any more.
    Truncated(Place),
}

impl Said<'_> {
    /// As it is kept, where it is about a key.
    pub(super) fn entry(&self) -> Option<TopicEntry<'_>> {
        let Self::Key { digest, schema, key, place, told, columns } = *self else { return None };
        let columns = waltide_core::verify::Columns::Made(columns);
        Some(TopicEntry { digest, schema, key, place, told, columns })
    }
}

/// Reads what records say, with the schemas that they name.
pub(super) struct Reader {
    registry: Client,
    /// Where the registry is asked from: records are read on a thread that blocks.
    runtime: Handle,
    seed: Seed,
    envelope: bool,
    columns: Vec<String>,
    keys: HashMap<u32, Schema>,
    values: HashMap<u32, ValueReader>,
    names: Vec<String>,
    digests: Vec<u64>,
}

/// The topics of a table, in the order in which it went from one to the next.
pub(super) async fn topics(settings: &Pipeline, base: String) -> Result<Vec<String>, Fault> {
    let failed = |error| pipeline::of_kafka(&error);
    let admin = Admin::new(&pipeline::kafka_settings(&settings.kafka)).map_err(failed)?;
    let mut topics = Vec::new();
    while topics.len() < MAX_TOPICS {
        let name = match topics.len() {
            0 => base.clone(),
            more => format!("{base}.v{}", more + 1),
        };
        if admin.partitions(&name).await.map_err(failed)?.is_none() {
            break;
        }
        topics.push(name);
    }
    if topics.is_empty() {
        return Err(Fault::new(
            Code::VerifyImpossible,
            format!("there is no topic {base}: nothing of the table has been published"),
            "start the daemon, and verify once it has published something of the table",
        ));
    }
    Ok(topics)
}

impl Reader {
    pub(super) fn new(
        settings: &Pipeline,
        (seed, columns): (Seed, Vec<String>),
        names: Vec<String>,
    ) -> Result<Self, Fault> {
        let address = settings.registry.address();
        let registry = Client::new(pipeline::registry_settings(&settings.registry));
        let registry = registry.map_err(|error| pipeline::of_registry(&error, &address))?;
        Ok(Self {
            registry,
            runtime: Handle::current(),
            seed,
            envelope: settings.envelope == Envelope::Full,
            columns,
            keys: HashMap::new(),
            values: HashMap::new(),
            names,
            digests: Vec::new(),
        })
    }

    /// The schemas of keys, as far as records have named them.
    pub(super) fn key_schema(&self, id: u32) -> Option<&Schema> {
        self.keys.get(&id)
    }

    /// What a record says; none where that is nothing of any key.
    pub(super) fn read<'a>(&'a mut self, found: &'a Found<'_>) -> Result<Option<Said<'a>>, Fault> {
        let commit = found.header("waltide.position").and_then(commit_of).unwrap_or(Lsn::ZERO);
        let partition = u32::try_from(found.partition).unwrap_or(u32::MAX);
        let place = Place { partition, offset: found.offset, commit };
        let foreign = |names: &[String], why: &str| foreign(names, found, why);
        let told = match found.value() {
            None => Told::Gone,
            Some(value) => {
                let Some((id, body)) = split(value) else {
                    return Err(foreign(&self.names, "its value is no Avro under a schema's id"));
                };
                self.know_value(id)?;
                let texts = beside(found);
                let Some(reader) = self.values.get(&id) else {
                    return Err(foreign(&self.names, "its schema is of no such table"));
                };
                let told = reader.digest(self.seed, body, notes(&texts), &mut self.digests);
                told.ok_or_else(|| foreign(&self.names, "its value is not of its schema"))?
            }
        };
        if told == Told::Truncated {
            return Ok(Some(Said::Truncated(place)));
        }
        // Of a table that had no key then.
        let Some(key) = found.key() else { return Ok(None) };
        let Some((schema, body)) = split(key) else {
            return Err(foreign(&self.names, "its key is no Avro under a schema's id"));
        };
        self.know_key(schema)?;
        let digest = self.keys.get(&schema).and_then(|key| key.digest_of_key(self.seed, body));
        let Some(digest) = digest else {
            return Err(foreign(&self.names, "its key is not of its schema"));
        };
        let columns = if told == Told::Row { self.digests.as_slice() } else { &[] };
        Ok(Some(Said::Key { digest, schema, key: body, place, told, columns }))
    }

    fn know_key(&mut self, id: u32) -> Result<(), Fault> {
        if !self.keys.contains_key(&id) {
            let schema = Schema::parse(&self.ask(id)?);
            self.keys.insert(id, schema.ok_or_else(|| unreadable(id))?);
        }
        Ok(())
    }

    fn know_value(&mut self, id: u32) -> Result<(), Fault> {
        if !self.values.contains_key(&id) {
            let schema = Schema::parse(&self.ask(id)?).ok_or_else(|| unreadable(id))?;
            if let Some(reader) = ValueReader::new(schema, self.envelope, &self.columns) {
                self.values.insert(id, reader);
            }
        }
        Ok(())
    }

    fn ask(&self, id: u32) -> Result<String, Fault> {
        let address = self.registry.url().to_owned();
        let asked = self.runtime.block_on(self.registry.schema(SchemaId(id)));
        asked.map_err(|error| pipeline::of_registry(&error, &address))?.ok_or_else(|| {
            Fault::new(
                Code::VerifyImpossible,
                format!("records are written with schema {id}, which {address} does not know"),
                "look whether the registry has lost schemas, or is another one: no consumer can \
                 read these records",
            )
        })
    }
}

fn unreadable(id: u32) -> Fault {
    Fault::new(
        Code::VerifyImpossible,
        format!("records are written with schema {id}, which no pipeline writes"),
        "look who else writes to the topic",
    )
}

fn foreign(names: &[String], found: &Found<'_>, why: &str) -> Fault {
    let (topics, number, offset) = (names.join(", "), found.partition, found.offset);
    Fault::new(
        Code::VerifyImpossible,
        format!("a record of {topics} (partition {number}, offset {offset}) cannot be read: {why}"),
        "look who else writes to the topic, and whether `envelope` and `profile` have changed",
    )
}

/// The id of a schema, and what was written with it.
fn split(record: &[u8]) -> Option<(u32, &[u8])> {
    match record {
        [0, a, b, c, d, body @ ..] => Some((u32::from_be_bytes([*a, *b, *c, *d]), body)),
        _ => None,
    }
}

/// `COMMIT_LSN:ORDINAL:SUB_INDEX`
fn commit_of(position: &[u8]) -> Option<Lsn> {
    std::str::from_utf8(position).ok()?.split(':').next()?.parse().ok()
}

/// What headers say of a value.
#[derive(Default)]
struct Beside {
    unchanged: Vec<String>,
    said: Vec<(String, String)>,
}

fn beside(found: &Found<'_>) -> Beside {
    let mut beside = Beside::default();
    if let Some(names) = found.header("waltide.unchanged") {
        beside.unchanged = serde_json::from_slice(names).unwrap_or_default();
    }
    for header in ["waltide.unrepresentable", "waltide.shapes"] {
        let Some(pairs) = found.header(header) else { continue };
        let pairs: BTreeMap<String, String> = serde_json::from_slice(pairs).unwrap_or_default();
        beside.said.extend(pairs);
    }
    beside
}

fn notes(of: &Beside) -> impl Iterator<Item = Note<'_>> {
    let unchanged = of.unchanged.iter().map(|name| Note::Unchanged(name));
    unchanged.chain(of.said.iter().map(|(path, text)| Note::Said { path, text }))
}

/// A failure of Kafka while a topic is read.
pub(super) fn of_kafka(error: &kafka::Error) -> Fault {
    pipeline::of_kafka(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_names_its_schema_and_its_position() {
        assert_eq!(split(&[0, 0, 0, 1, 2, 9]), Some((258, &[9][..])));
        assert_eq!(split(&[0, 0, 0, 1]), None);
        assert_eq!(split(b"\x01abcde"), None);
        assert_eq!(commit_of(b"1/A:7:0"), Some(Lsn(0x1_0000_000A)));
        assert_eq!(commit_of(b"x"), None);
    }
}
