//! Whether a topic holds what its table holds: proof for people who do not take our word.
//!
//! Both sides are read as strangers would read them: the table in short transactions of its own,
//! and the topic as a consumer of committed records, with the schemas that its records name. The
//! daemon is not asked, and need not run. The rules are in `waltide_core::verify`; here are the
//! connections, the files, and the patience.
//!
//! Nothing is written on the source, and no lock is taken beyond that of a SELECT.

mod outcome;
mod pending;
mod rounds;
mod spill;
mod table;
mod topic;

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, Instant};

use serde_json::Value;
use waltide_core::checkpoint::Checkpoint;
use waltide_core::pgoutput::RelationId;
use waltide_core::read_back::Seed;
use waltide_core::snapshot::Book;
use waltide_core::verify::{Columns, Key, Open, Place, RowEntry, Verdict, compare};

pub use outcome::{Finding, Kind, Outcome, Result};

use crate::config::TableName;
use crate::config::settled::Pipeline;
use crate::fault::{Code, Fault};
use crate::kafka::TopicReader;
use crate::pipeline;
use crate::postgres::{Connection, Mode};
use rounds::{Looker, Settled};
use spill::{BUCKETS, Buckets};
use table::{Table, Trouble};
use topic::{Reader, Said, of_kafka};

/// So many keys are looked at again at once. Each takes some hundreds of bytes.
const LOOK_AGAIN: usize = 50_000;

/// So many keys are named to people and programs.
pub const MOST_NAMED: usize = 1_000;

/// So many keys are named where they are to be repaired.
pub const MOST_REPAIRED: usize = 10_000;

/// How often it begins anew because the table is not what it was.
const BEGINNINGS: u32 = 3;

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The table.
    pub table: TableName,
    /// How long a daemon that runs may stand still while it is waited for.
    pub patience: Duration,
    /// How many keys are named at most.
    pub named: usize,
}

/// Compares a table with its topic.
///
/// # Errors
/// Where a side cannot be read, or the table has nothing by which it could be compared.
pub async fn verify(settings: &Pipeline, asked: &Asked) -> std::result::Result<Outcome, Fault> {
    for _ in 0..BEGINNINGS {
        match attempt(settings, asked).await {
            Ok(outcome) => return Ok(outcome),
            Err(Trouble::Failed(fault)) => return Err(fault),
            Err(Trouble::Moved) => {}
        }
    }
    Err(Fault::new(
        Code::VerifyImpossible,
        format!("table {} is altered or rewritten while it is read, time and again", asked.table),
        "verify again once its migration is done",
    ))
}

async fn attempt(settings: &Pipeline, asked: &Asked) -> std::result::Result<Outcome, Trouble> {
    let since = Instant::now();
    let seed = Seed(RandomState::new().hash_one(std::process::id()));
    let params = pipeline::params(&settings.source)?;
    let opened = Connection::open(&params, Mode::Plain).await;
    let mut on = opened.map_err(|error| pipeline::of_source(&error))?;
    let mut table = Table::find(&mut on, settings, &asked.table, seed).await?;
    let before = remembered(settings).await?;
    let topics = topic::topics(settings, pipeline::topic_of(settings, &asked.table)?).await?;
    let reader = Reader::new(settings, (seed, table.rows.columns.clone()), topics.clone())?;
    // Both sides at once; neither waits for the other.
    let kafka = pipeline::kafka_settings(&settings.kafka);
    let names = topics.clone();
    let reading = tokio::task::spawn_blocking(move || read_topics(&kafka, &names, reader));
    let mut rows = Buckets::new();
    let scanned = table.scan(&mut on, |row| {
        let columns = Columns::Made(row.columns);
        let entry = RowEntry { digest: row.digest, key: row.key, columns };
        rows.push(row.digest, |out| entry.write(out))
    });
    let seen = scanned.await?;
    let mut said = reading.await.map_err(|error| {
        Fault::new(Code::Internal, format!("the topic's reader ended: {error}"), "report it")
    })??;
    let mut outcome = Outcome {
        pipeline: settings.name.clone(),
        table: asked.table.clone(),
        topics,
        position: seen.max(before.end_lsn.0),
        down_at: None,
        removed: said.removed,
        rows: 0,
        keys: 0,
        equal: 0,
        counts: BTreeMap::new(),
        named: Vec::new(),
        key_columns: table.rows.key_columns(),
        why: None,
        rounds: 0,
        took: Duration::ZERO,
    };
    let mut open: Vec<Open> = Vec::new();
    for number in 0..BUCKETS {
        let (topic, table_rows) = (said.entries.take(number)?, rows.take(number)?);
        let columns = table.rows.columns.len();
        let compared = compare(&topic, &table_rows, columns, &said.truncated).ok_or_else(|| {
            Fault::new(Code::SpoolUnusable, "what was kept does not read back", "try again")
        })?;
        outcome.rows += compared.rows;
        outcome.keys += compared.keys;
        outcome.equal += compared.equal;
        open.extend(compared.open);
        while open.len() >= LOOK_AGAIN || (number + 1 == BUCKETS && !open.is_empty()) {
            let now = open.split_off(open.len().saturating_sub(LOOK_AGAIN));
            let mut looker = Looker {
                on: &mut on,
                table: &mut table,
                reader: &mut said.reader,
                settings,
                from: &said.positions,
                patience: asked.patience,
            };
            let settled = looker.settle(now).await?;
            enter(&mut outcome, (settled, asked.named), &table, &said.reader);
        }
    }
    if outcome.down_at.is_none() && !rounds::is_read(&mut on, settings).await? {
        outcome.down_at = Some(before.end_lsn.0);
    }
    on.close().await;
    outcome.named.sort_by(|one, other| {
        one.kind.cmp(&other.kind).then_with(|| outcome::in_order(&one.key, &other.key))
    });
    outcome.took = since.elapsed();
    Ok(outcome)
}

/// The topic, read to its end.
struct Read {
    entries: Buckets,
    truncated: BTreeMap<u32, Place>,
    positions: Vec<(String, i32, i64)>,
    removed: bool,
    reader: Reader,
}

fn read_topics(
    kafka: &crate::kafka::Settings,
    topics: &[String],
    mut reader: Reader,
) -> std::result::Result<Read, Fault> {
    let failed = |error| of_kafka(&error);
    let bounds = TopicReader::bounds_of(kafka, topics).map_err(failed)?;
    let removed = bounds.iter().any(|of| of.low > 0);
    let starts = bounds.iter().map(|of| (of.topic.clone(), of.partition, of.low));
    let mut topic = TopicReader::new(kafka, starts).map_err(failed)?;
    let ends: Vec<i64> = bounds.iter().map(|of| of.high).collect();
    let (mut entries, mut truncated) = (Buckets::new(), BTreeMap::new());
    let mut wrong = None;
    let read = topic.read_to(&ends, |found| {
        let kept = match reader.read(&found) {
            Ok(Some(said)) => match (said.entry(), &said) {
                (Some(entry), _) => entries.push(entry.digest, |out| entry.write(out)),
                (None, Said::Truncated(place)) => {
                    truncated.insert(place.partition, *place);
                    Ok(())
                }
                (None, Said::Key { .. }) => Ok(()),
            },
            Ok(None) => Ok(()),
            Err(fault) => Err(fault),
        };
        wrong = kept.err();
        wrong.is_none()
    });
    read.map_err(failed)?;
    match wrong {
        Some(fault) => Err(fault),
        None => Ok(Read { entries, truncated, positions: topic.positions(), removed, reader }),
    }
}

/// Counts and names what was settled.
fn enter(outcome: &mut Outcome, (settled, most): (Settled, usize), table: &Table, reader: &Reader) {
    outcome.rounds += settled.rounds;
    outcome.position = outcome.position.max(settled.position);
    outcome.down_at = outcome.down_at.or(settled.down_at);
    outcome.why = outcome.why.take().or(settled.why);
    let removed = outcome.removed;
    let mut add = |kind: Kind, key: &Key, columns: &[usize]| {
        *outcome.counts.entry(kind).or_default() += 1;
        if outcome.named.len() < most {
            let name = |at: &usize| table.rows.columns.get(*at).cloned();
            let columns = columns.iter().filter_map(name).collect();
            let schema = match key.schema {
                0 => Some(&table.rows.key_schema),
                id => reader.key_schema(id),
            };
            let values = schema.and_then(|schema| rounds::values(&table.rows.plan, schema, key));
            let key = schema.and_then(|schema| rounds::json(schema, key)).unwrap_or(Value::Null);
            outcome.named.push(Finding { kind, key, columns, values });
        }
    };
    for (key, verdict) in &settled.verdicts {
        match verdict {
            Verdict::Equal => outcome.equal += 1,
            Verdict::Changed(columns) => add(Kind::Changed, key, columns),
            Verdict::Untold(columns) => add(Kind::Untold, key, columns),
            Verdict::Extra => add(Kind::Extra, key, &[]),
            Verdict::Missing if settled.reading => add(Kind::Unread, key, &[]),
            Verdict::Missing if removed => add(Kind::Removed, key, &[]),
            Verdict::Missing => add(Kind::Missing, key, &[]),
        }
    }
    settled.unsettled.iter().for_each(|key| add(Kind::Unsettled, key, &[]));
    settled.pending.iter().for_each(|key| add(Kind::Pending, key, &[]));
}

/// What the pipeline remembers.
async fn remembered(settings: &Pipeline) -> std::result::Result<Checkpoint, Fault> {
    pipeline::remembered(settings).await?.ok_or_else(|| {
        Fault::new(
            Code::VerifyImpossible,
            format!("pipeline {} has no checkpoint: it has not begun", settings.name),
            "start the daemon, and verify once it streams",
        )
    })
}

/// Whether a table's rows are being read, as far as a checkpoint says so.
fn is_being_read(checkpoint: &Checkpoint, table: RelationId) -> bool {
    let book = checkpoint.snapshot.as_ref().and_then(|bytes| Book::decode(bytes).ok());
    // While some keys of it are repaired it is not.
    book.is_some_and(|book| book.reads(table) && !book.mends(table))
}
