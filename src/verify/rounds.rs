//! Keys are looked at again: their rows in one snapshot, held against what the topic says around it.

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::task::block_in_place;
use waltide_core::avro::Plan;
use waltide_core::checkpoint::Checkpoint;
use waltide_core::lsn::Lsn;
use waltide_core::read_back::Schema;
use waltide_core::verify::{Key, Open, Settling, Verdict};

use super::pending;
use super::table::{Table, Trouble};
use super::topic::{Reader, Said, of_kafka};
use crate::config::settled::Pipeline;
use crate::fault::Fault;
use crate::kafka::TopicReader;
use crate::pipeline::{self, ANSWER, answered};
use crate::postgres::{Connection, Error};

/// How often keys are looked at again that change all the time.
const MOST: u32 = 40;

/// A commit is in the log a moment before it is visible: until it is flushed, and its session runs
/// again. What the log held for this long is taken to be visible; where it was not, the next round
/// tells.
const VISIBLE_AFTER: Duration = Duration::from_millis(200);

/// Between looks at how far the daemon is.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Keys on which there is a last word, and those on which there is none.
#[derive(Default)]
pub(super) struct Settled {
    pub(super) verdicts: Vec<(Key, Verdict)>,
    pub(super) unsettled: Vec<Key>,
    pub(super) pending: Vec<Key>,
    pub(super) rounds: u32,
    /// Everything that was seen of the table lies before.
    pub(super) position: Lsn,
    /// Up to where the daemon had published, where it does not run.
    pub(super) down_at: Option<Lsn>,
    pub(super) why: Option<String>,
    /// Whether the table was still being read.
    pub(super) reading: bool,
}

/// What it takes to look again.
pub(super) struct Looker<'a> {
    pub(super) on: &'a mut Connection,
    pub(super) table: &'a mut Table,
    pub(super) reader: &'a mut Reader,
    pub(super) settings: &'a Pipeline,
    /// Up to where the topic had been read.
    pub(super) from: &'a [(String, i32, i64)],
    /// How long a daemon that runs may stand still.
    pub(super) patience: Duration,
}

/// How far the daemon is.
enum Daemon {
    /// Past what the round's snapshot showed.
    Past,
    /// It does not run.
    Down(Box<Checkpoint>),
    /// It does not come along.
    Behind(Lsn),
}

impl Looker<'_> {
    /// Looks at these keys until each is settled, or cannot be.
    pub(super) async fn settle(&mut self, open: Vec<Open>) -> Result<Settled, Trouble> {
        let kafka = pipeline::kafka_settings(&self.settings.kafka);
        let topic = TopicReader::new(&kafka, self.from.iter().cloned());
        let mut topic = topic.map_err(|error| of_kafka(&error))?;
        let mut settled = Settled::default();
        let mut askable = Vec::new();
        for open in open {
            match self.values(&open.key) {
                Some(_) => askable.push(open),
                None => {
                    settled.why = Some("a key of this type cannot be asked for".to_owned());
                    settled.unsettled.push(open.key);
                }
            }
        }
        let mut settling = Settling::of(askable);
        while settling.left() > 0 && settled.rounds < MOST {
            settled.rounds += 1;
            if !self.round(&mut settling, &mut topic, &mut settled).await? {
                break;
            }
        }
        if settling.left() > 0 && settled.why.is_none() {
            let rounds = settled.rounds;
            settled.why = Some(format!("in {rounds} rounds they changed all the time"));
        }
        for (_, key, verdict) in settling.into_verdicts() {
            match verdict {
                Some(verdict) => settled.verdicts.push((key, verdict)),
                None => settled.unsettled.push(key),
            }
        }
        Ok(settled)
    }

    /// One round; false where another one is of no use.
    async fn round(
        &mut self,
        settling: &mut Settling,
        topic: &mut TopicReader,
        settled: &mut Settled,
    ) -> Result<bool, Trouble> {
        let low = self.flushed().await?;
        tokio::time::sleep(VISIBLE_AFTER).await;
        let keys: Vec<Vec<String>> =
            settling.unsettled().filter_map(|(_, key)| self.values(key)).collect();
        let mut rows: Vec<(u128, Box<[u64]>)> = Vec::new();
        let high = self
            .table
            .by_keys(self.on, &keys, |row| {
                rows.push((row.digest, row.columns.into()));
                Ok(())
            })
            .await?;
        settled.position = settled.position.max(high);
        settling.begin(low, high);
        rows.into_iter().for_each(|(digest, columns)| settling.row(digest, &columns));
        match self.wait(settling, topic, settled, high).await? {
            Daemon::Past => {
                settling.end();
                Ok(true)
            }
            Daemon::Behind(at) => {
                settled.why = Some(format!(
                    "the daemon has the slot and has published up to {at}; the table was read at \
                     {high}, and for {:?} it has come no further",
                    self.patience
                ));
                Ok(false)
            }
            Daemon::Down(checkpoint) => self.without_daemon(settling, settled, &checkpoint).await,
        }
    }

    /// What has changed since the checkpoint is nobody's fault.
    async fn without_daemon(
        &mut self,
        settling: &mut Settling,
        settled: &mut Settled,
        checkpoint: &Checkpoint,
    ) -> Result<bool, Trouble> {
        let at = checkpoint.end_lsn.0;
        settled.down_at = Some(at);
        let slot = self.settings.source.slot.clone();
        let Some(pending) = pending::keys(self.on, self.table, &slot, at).await? else {
            settled.why = Some(format!(
                "the daemon does not run, and more is waiting in its slot than can be looked \
                 through: it had published up to {at}"
            ));
            return Ok(false);
        };
        settled.pending.extend(pending.into_iter().filter_map(|digest| settling.take(digest)));
        settling.end();
        Ok(true)
    }

    /// Takes in what the topic says until every key is settled, or the topic has come past a
    /// position.
    async fn wait(
        &mut self,
        settling: &mut Settling,
        topic: &mut TopicReader,
        settled: &mut Settled,
        high: Lsn,
    ) -> Result<Daemon, Fault> {
        let (mut furthest, mut since) = (Lsn::ZERO, Instant::now());
        loop {
            self.take_in(settling, topic)?;
            if settling.check() == 0 {
                return Ok(Daemon::Past);
            }
            let checkpoint = super::remembered(self.settings).await?;
            let at = checkpoint.end_lsn.0;
            settled.reading = super::is_being_read(&checkpoint, self.table.id);
            if at >= high {
                // What it vouches for was there before it was.
                self.take_in(settling, topic)?;
                return Ok(Daemon::Past);
            }
            if !is_read(self.on, self.settings).await? {
                self.take_in(settling, topic)?;
                settling.check();
                return Ok(Daemon::Down(Box::new(checkpoint)));
            }
            if at > furthest {
                (furthest, since) = (at, Instant::now());
            }
            if since.elapsed() > self.patience {
                return Ok(Daemon::Behind(at));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn take_in(&mut self, settling: &mut Settling, topic: &mut TopicReader) -> Result<(), Fault> {
        let mut failed = None;
        let reader = &mut *self.reader;
        let read = block_in_place(|| {
            let ends = topic.ends()?;
            topic.read_to(&ends, |found| {
                match reader.read(&found) {
                    Ok(Some(Said::Truncated(place))) => settling.truncated(place),
                    Ok(Some(Said::Key { digest, place, told, columns, .. })) => {
                        settling.record(digest, place, told, columns);
                    }
                    Ok(None) => {}
                    Err(fault) => failed = Some(fault),
                }
                failed.is_none()
            })
        });
        read.map_err(|error| of_kafka(&error))?;
        failed.map_or(Ok(()), Err)
    }

    /// Up to where the log is on disk.
    async fn flushed(&mut self) -> Result<Lsn, Fault> {
        let peer = self.on.peer().clone();
        let asked = self.on.simple_query("SELECT pg_current_wal_flush_lsn()");
        let rows = answered(ANSWER, &peer, asked).await;
        let rows = rows.map_err(|error| pipeline::of_source(&error))?;
        rows.single().and_then(|text| text.parse().ok()).ok_or_else(|| {
            pipeline::of_source(&Error::protocol(&peer, "a position cannot be read"))
        })
    }

    /// A key's values as SQL writes them; none where it is of a type that cannot be asked for.
    fn values(&self, key: &Key) -> Option<Vec<String>> {
        values(&self.table.rows.plan, self.schema(key)?, key)
    }

    fn schema(&self, key: &Key) -> Option<&Schema> {
        match key.schema {
            0 => Some(&self.table.rows.key_schema),
            id => self.reader.key_schema(id),
        }
    }
}

/// Whether a daemon reads the slot.
pub(super) async fn is_read(on: &mut Connection, settings: &Pipeline) -> Result<bool, Fault> {
    let peer = on.peer().clone();
    let slot = answered(ANSWER, &peer, on.read_slot(&settings.source.slot)).await;
    let slot = slot.map_err(|error| pipeline::of_source(&error))?;
    Ok(slot.is_some_and(|slot| slot.active_pid.is_some()))
}

/// A key, as JSON has it.
pub(super) fn json(schema: &Schema, key: &Key) -> Option<Value> {
    schema.read(&key.bytes)
}

/// A key's values as SQL writes them; none where it is of a type that cannot be asked for.
pub(super) fn values(plan: &Plan, schema: &Schema, key: &Key) -> Option<Vec<String>> {
    let json = json(schema, key)?;
    let columns = plan.key_columns().iter().map(|at| {
        let name = plan.column_name(*at)?;
        json.get(name).or_else(|| json.get(plan.field_name(*at)?)).and_then(sql)
    });
    columns.collect()
}

/// A value of a key, as the server reads it.
fn sql(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Object(of) => {
            let part = |name: &str| of.get(name).and_then(Value::as_i64);
            let (months, days, micros) = (part("months")?, part("days")?, part("micros")?);
            Some(format!("{months} mons {days} days {micros} microseconds"))
        }
        Value::Null | Value::Array(_) => None,
    }
}
