//! Says now and then, on a topic of its own, that the pipeline lives and how far it is.
//!
//! Only between transactions and while the stream gets on: a heartbeat that comes all the same
//! while rows are stuck would say the opposite of what is so. Nothing waits for one.

use std::time::Duration;

use tokio::time::Instant;
use waltide_core::avro::{Profile, write_header};
use waltide_core::heartbeat::{self, Heartbeat};

use super::keeper::now_us;
use super::routes::OwnTopic;
use super::stream::Engine;
use crate::config::settled::Pipeline;
use crate::fault::Fault;
use crate::kafka::Record;

/// When the next one is due, and where it goes once that is known.
#[derive(Debug)]
pub(super) struct Heartbeats {
    every: Duration,
    profile: Profile,
    next: Instant,
    topic: Option<OwnTopic>,
}

impl Heartbeats {
    /// `None` where they are not wanted.
    pub(super) fn new(settings: &Pipeline, profile: Profile) -> Option<Self> {
        let every = settings.heartbeat?;
        Some(Self { every, profile, next: Instant::now(), topic: None })
    }
}

impl Engine {
    /// Writes one where it is due.
    pub(super) async fn beat(&mut self) -> Result<(), Fault> {
        let Some(beats) = &mut self.heartbeats else { return Ok(()) };
        if Instant::now() < beats.next || self.sink.intake.in_transaction() {
            return Ok(());
        }
        let settings = &self.compiler.settings;
        let (pipeline, profile) = (settings.prefix.clone(), beats.profile);
        let topic = match &mut beats.topic {
            Some(topic) => topic,
            none => {
                let name = settings.heartbeat_topic();
                let made = self.compiler.own_topic(name, heartbeat::schemas(profile)).await?;
                none.insert(made)
            }
        };
        beats.next = Instant::now() + beats.every;
        let position = self.sink.intake.durable();
        let database = self.compiler.catalog.peer().database();
        let beat = Heartbeat { pipeline: &pipeline, database, position, at_us: now_us() };
        let out = &mut self.out;
        out.headers.clear();
        out.key.clear();
        if let Some(id) = topic.key_id {
            write_header(id.0, &mut out.key);
            beat.write_key(&mut out.key);
        }
        out.value.clear();
        write_header(topic.value_id.0, &mut out.value);
        beat.write(profile, &mut out.value);
        // The next transaction writes its own over it.
        out.position.start(position.lsn());
        let record = Record {
            topic: &topic.name,
            partition: 0,
            key: topic.key_id.is_some().then_some(out.key.as_slice()),
            value: Some(out.value.as_slice()),
            timestamp_ms: beat.at_us.div_euclid(1000),
            position: out.position.at(0, 0),
            headers: &out.headers,
            ticket: self.sink.intake.begin_aside(crate::status::now()),
            lane: topic.lane,
        };
        self.sink.put(&record).await?;
        self.sink.intake.end_aside();
        Ok(())
    }
}
