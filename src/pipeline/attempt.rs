//! One attempt: from nothing to a stream, and the stream until it ends.
//!
//! The order is that of recovery. What only looks comes first. Holding the slot is leadership, so
//! nothing is written to Kafka or the registry before the server has given it to us; from then on
//! it hears from us, whatever else takes its time.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use waltide_core::checkpoint::{Checkpoint, Partial, RegisteredSchema, SourceFacts};
use waltide_core::delivery::{Began, Keep};
use waltide_core::intake::Intake;
use waltide_core::lsn::{DurableLsn, Lsn};
use waltide_core::pgoutput::Xid;
use waltide_core::snapshot::Book;

use super::clusters::Clusters;
use super::commits::Commits;
use super::desk::Desk;
use super::diagnosis;
use super::holding::Held;
use super::keeper::{Keeper, Writer};
use super::positions::Positions;
use super::reach::{kafka_settings, params, params_of_replica, registry_settings};
use super::routes::Compiler;
use super::sink::{Servers, Sink, Strictness};
use super::snapshot::{self, Replica, Snapshots};
use super::source;
use super::standing::Standing;
use super::starting::{Hands, Started};
use super::starts::Starts;
use super::stream::{Ended, Engine};
use super::streamed::Leaving;
use super::told::Told;
use super::topics::Topics;
use super::watching::watch_source;
use super::yielding::Yielding;
use crate::config;
use crate::control::Orders;
use crate::fault::Fault;
use crate::kafka::{self, Producer};
use crate::postgres::{Connection, Error, Mode, Params, StreamReader, SystemIdentity};
use crate::registry::{self, Client, SchemaId};
use crate::spool::{self, Spool};
use crate::status::{Pipeline, State};

/// How long the last checkpoint may take, once everything is delivered or nothing more will be.
const LAST_CHECKPOINT: Duration = Duration::from_secs(3);

/// How long the end of a connection may take after that.
const FAREWELL: Duration = Duration::from_secs(2);

/// How many ids are looked for at the start: enough to notice what is missing, and few beside the
/// time that a start takes. Each is looked for again when its table's first row comes.
const VERIFIED_AT_START: usize = 16;

/// After so long a connection tries again to keep open transactions. The one that could not be kept
/// may have been rolled back, which nobody says.
const KEEP_AGAIN: Duration = Duration::from_secs(600);

/// How an attempt ended without a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The daemon was asked to end.
    Ended,
    /// Another daemon holds the slot.
    Standby,
    /// It goes on with another stream, or with other settings.
    Again,
}

/// Since when open transactions are not kept, and which one could not be.
#[derive(Clone, Copy, Debug)]
struct Unstreamed {
    since: Instant,
    xid: Option<Xid>,
}

/// A pipeline, and what of it outlives a connection.
pub(super) struct Attempt {
    settings: config::settled::Pipeline,
    status: Arc<Pipeline>,
    control: Handle,
    clusters: Clusters,
    /// Ids stay known while the registry is away.
    registry: Option<Client>,
    /// The registry was seen to have the ids of the checkpoint.
    verified: bool,
    /// The last stream ended with a failure: the next one may meet it again.
    troubled: bool,
    /// The last attempt came to a stream that got over the failure before it.
    well: bool,
    /// The last stream ended to let a standby have the slot.
    yielded: bool,
    unstreamed: Option<Unstreamed>,
    fail_fast: bool,
}

impl Attempt {
    pub(super) fn new(
        settings: config::settled::Pipeline,
        status: Arc<Pipeline>,
        control: Handle,
        clusters: Clusters,
        fail_fast: bool,
    ) -> Self {
        let registry = None;
        let (troubled, well, yielded) = (false, false, false);
        let (verified, unstreamed) = (false, None);
        Self {
            settings,
            status,
            control,
            clusters,
            registry,
            verified,
            troubled,
            well,
            yielded,
            unstreamed,
            fail_fast,
        }
    }

    /// Goes on with other settings from the next connection on.
    pub(super) fn take_on(&mut self, settings: &config::settled::Pipeline) {
        self.settings = settings.clone();
        tracing::info!(pipeline = settings.name, "other settings are taken on");
    }

    /// Whether the slot was given up to a standby just now.
    pub(super) const fn has_yielded(&self) -> bool {
        self.yielded
    }

    /// Whether the last attempt was of use: a failure after it is the first in a row.
    pub(super) const fn has_streamed_well(&self) -> bool {
        self.well
    }

    /// Connects and streams until something ends it.
    pub(super) async fn run(
        &mut self,
        shutdown: &watch::Receiver<bool>,
        orders: &mut Orders,
        starts: &Starts,
    ) -> Result<Outcome, Fault> {
        (self.well, self.yielded) = (false, false);
        let mut asked = shutdown.clone();
        let ready = tokio::select! {
            biased;
            _ = asked.wait_for(|asked| *asked) => return Ok(Outcome::Ended),
            ready = starts.in_turn(self.make_ready()) => ready?,
        };
        let Some(ready) = ready else { return Ok(Outcome::Standby) };
        Box::pin(self.stream(ready, shutdown, orders)).await
    }

    /// Everything up to the first byte of the stream; `None` where another holds the slot.
    async fn make_ready(&mut self) -> Result<Option<Ready>, Fault> {
        let source = |error: Error| diagnosis::of_source(&error);
        let params = params(&self.settings.source)?;
        let mut catalog = Connection::open(&params, Mode::Plain).await.map_err(source)?;
        self.status.certificate_seen(catalog.certificate_expires());
        let published = source::prepare(&mut catalog, &self.settings).await?;
        let kafka = kafka_settings(&self.settings.kafka);
        let admin = self.clusters.admin(&self.settings.kafka)?;
        // Whether it is there is seen later; here Kafka shows that it answers.
        let asked = admin.partitions(&self.settings.checkpoint_topic()).await;
        asked.map_err(|error| diagnosis::of_kafka(&error))?;
        let away = self.reach_registry().await?;
        let directory = self.spool_directory();
        let hands = Hands {
            settings: &self.settings,
            control: &self.control,
            params: &params,
            published: &published,
            kafka: &kafka,
            admin: &admin,
            catalog: &mut catalog,
            away: away.as_ref(),
            directory,
        };
        let started = hands.start().await;
        if away.is_some() && !matches!(started, Ok(Some(_))) {
            // The next attempt asks again whether it is there.
            self.registry = None;
        }
        let Some(started) = started? else { return Ok(None) };
        let Started { began, held, keeper, spool, spool_failed } = started;
        if let Some(error) = spool_failed {
            self.does_not_stream(&error);
            self.unstreamed = Some(Unstreamed { since: Instant::now(), xid: None });
        }
        let Began { resume, inside, book, life, last, base, .. } = *began;
        let recorded = self.recorded_schemas(&last);
        match away {
            None => self.verify_ids(&recorded).await?,
            Some(fault) if recorded.is_empty() => {
                self.registry = None;
                return Err(fault);
            }
            Some(fault) => tracing::warn!(
                code = fault.code.id(),
                schemas = recorded.len(),
                "{}; tables go on whose schema the checkpoint knows",
                fault.what
            ),
        }
        let Some(registry) = self.registry.take() else { return Ok(None) };
        let desk = Arc::new(Desk::new(resume));
        let xid = match book {
            Some(_) => source::current_xid(&mut catalog).await?,
            None => 0,
        };
        let settings = self.settings.clone();
        let (producer, memory) = engage(keeper, last, base, &kafka, &desk)?;
        let (topics, ends) = (Topics::new(), producer.ends());
        let partitions = HashMap::new();
        let compiler = Compiler {
            settings,
            catalog,
            admin,
            registry,
            topics,
            partitions,
            recorded,
            unverified: BTreeMap::new(),
            ends,
            desk,
            waited: Duration::ZERO,
        };
        let Held { reader, told, positions, pending, facts, .. } = held;
        Ok(Some(Ready {
            reader,
            told,
            positions,
            compiler,
            producer,
            params,
            memory,
            from: Start { resume, inside, book, life, facts },
            pending,
            xid,
            spool,
        }))
    }

    /// Where open transactions can be kept; none where the server is not to send them.
    fn spool_directory(&mut self) -> Option<spool::Directory> {
        if !self.settings.source.streaming {
            return None;
        }
        self.unstreamed = self.unstreamed.filter(|it| it.since.elapsed() < KEEP_AGAIN);
        if self.unstreamed.is_some() {
            return None;
        }
        let directory = spool::Directory::have(&self.settings.spool_directory());
        directory.inspect_err(|error| self.does_not_stream(error)).ok()
    }

    /// It is no failure: the server keeps large transactions until they are committed.
    fn does_not_stream(&self, error: &spool::Error) {
        let Fault { code, what, mend } = diagnosis::of_spool(error);
        tracing::warn!(pipeline = self.settings.name, code = code.id(), mend, "{what}");
    }

    /// A registry that is away stops only a start that knows no ids yet: that is what is given back
    /// for whoever finds out that this is such a start.
    async fn reach_registry(&mut self) -> Result<Option<Fault>, Fault> {
        let settings = registry_settings(&self.settings.registry);
        let url = self.settings.registry.address();
        let wrong = |error| diagnosis::of_registry(&error, &url);
        if let Some(client) = &mut self.registry {
            return client.renew().map_err(wrong).map(|()| None);
        }
        let client = Client::new(settings).map_err(wrong)?.counted(self.status.registry_calls());
        let away = match client.probe().await {
            Ok(()) => None,
            Err(error) if error.is_away() => Some(wrong(error)),
            Err(error) => return Err(wrong(error)),
        };
        self.registry = Some(client);
        Ok(away)
    }

    /// What the checkpoint knows of schemas, where the registry must agree.
    fn recorded_schemas(&self, last: &Checkpoint) -> HashMap<String, RegisteredSchema> {
        let known = last.schemas.iter().cloned();
        let known = known.filter(|_| self.settings.registry.verify_ids);
        known.map(|schema| (schema.subject.clone(), schema)).collect()
    }

    /// Sees at the start whether the registry has lost ids: what it lost, it lost from the end.
    async fn verify_ids(
        &mut self,
        recorded: &HashMap<String, RegisteredSchema>,
    ) -> Result<(), Fault> {
        let Some(registry) = self.registry.as_ref().filter(|_| !self.verified) else {
            return Ok(());
        };
        let mut newest: Vec<&RegisteredSchema> = recorded.values().collect();
        newest.sort_by_key(|schema| std::cmp::Reverse(schema.id));
        for schema in newest.into_iter().take(VERIFIED_AT_START) {
            let url = registry.url();
            let has = registry.has(SchemaId(schema.id)).await;
            // It has just gone away: as if it had been before.
            if has.as_ref().is_err_and(registry::Error::is_away) {
                return Ok(());
            }
            if !has.map_err(|error| diagnosis::of_registry(&error, url))? {
                return Err(diagnosis::of_other_id(&schema.subject, schema.id, None, url));
            }
        }
        self.verified = true;
        Ok(())
    }

    async fn stream(
        &mut self,
        ready: Ready,
        shutdown: &watch::Receiver<bool>,
        orders: &mut Orders,
    ) -> Result<Outcome, Fault> {
        let Ready { mut reader, told, positions, compiler, producer, params, memory, .. } = ready;
        let (pending, xid, spool) = (ready.pending, ready.xid, ready.spool);
        let Start { resume, inside, mut book, life, facts } = ready.from;
        let snapshots = match (&mut book, &self.settings.snapshot) {
            (Some(book), config::settled::Snapshot::Initial(options)) => {
                book.boundary(resume.lsn());
                book.now_near(xid);
                let (params, source) = (params.clone(), self.settings.source.clone());
                let of = self.settings.table_options.iter();
                let plans = of.map(|(name, of)| (name.clone(), of.snapshot.clone())).collect();
                let replica = options.from.as_ref().map(|of| replica(of, &facts)).transpose()?;
                let options = options.clone();
                let start = snapshot::Start { params, source, replica, options, plans, life };
                Some(Box::new(Snapshots::start(&self.control, start, Arc::clone(&self.status))))
            }
            _ => None,
        };
        let watch = watch_source(
            params,
            self.settings.source.clone(),
            Arc::clone(&positions),
            Arc::clone(&self.status),
        );
        let watching = Watching(self.control.spawn(watch));
        let desk = Arc::clone(&compiler.desk);
        let (intake, keeping, commits) = match memory {
            Memory::Kept(keeper, keep) => {
                let (positions, ends) = (Arc::clone(&positions), producer.ends());
                let (desk, status) = (Arc::clone(&desk), Arc::clone(&self.status));
                let keeping = keeper.start(*keep, &self.control, desk, positions, ends, status);
                (Intake::resume(resume), Some(keeping), None)
            }
            Memory::Committed(commits) => {
                (Intake::resume_inside(resume, inside), None, Some(commits))
            }
        };
        let servers = Servers {
            source: compiler.catalog.peer().to_string(),
            brokers: self.settings.kafka.bootstrap_servers.clone(),
        };
        let standing = Standing::new(Instant::now(), self.troubled.then_some(pending));
        let status = Arc::clone(&self.status);
        let strict = Strictness {
            standing,
            yielding: Yielding::after(self.settings.standby_yield),
            fail_fast: self.fail_fast,
        };
        let mut sink = Sink::new(intake, producer, positions, desk, status, servers, strict);
        if let Some(book) = book {
            sink.keep(book);
        }
        if let Some(commits) = commits {
            sink.commit_with(*commits);
        }
        let mut engine = Engine::new(sink, compiler, snapshots, Arc::clone(&self.status));
        engine.last_commit = Some(resume.lsn());
        engine.streamed.spool = spool;
        engine.streamed.awaited = self.unstreamed.and_then(|it| it.xid);
        if !self.troubled {
            let paused = orders.paused();
            self.status.enter(if paused { State::Paused } else { State::Streaming });
        }
        tracing::info!(
            pipeline = self.settings.name,
            slot = self.settings.source.slot,
            from = %resume.lsn(),
            "streaming"
        );
        let ended = engine.run(&mut reader, shutdown, orders).await;
        drop(watching);
        let leaving = engine.streamed.leaving.take();
        let ended = self.left(leaving.as_ref(), ended);
        self.troubled = ended.is_err();
        self.well = engine.sink.is_proven();
        self.yielded = engine.sink.has_yielded();
        if ended.is_err() {
            engine.sink.wind_up().await;
        }
        self.registry = Some(engine.into_compiler().registry);
        // What is delivered is written down first, so that the server may be told of it.
        if let Some(keeping) = keeping {
            keeping.end(LAST_CHECKPOINT).await;
        }
        let farewell = tokio::time::timeout(FAREWELL, told.end(reader)).await;
        self.say_how_it_ended(&ended?, matches!(farewell, Ok(Ok(()))));
        let renewed = orders.renewed() && !*shutdown.borrow();
        Ok(if leaving.is_some() || renewed { Outcome::Again } else { Outcome::Ended })
    }

    /// What a stream that was left has to say, and how the next one is begun.
    fn left(
        &mut self,
        leaving: Option<&Leaving>,
        ended: Result<Ended, Fault>,
    ) -> Result<Ended, Fault> {
        self.status.spooled(0, 0, None);
        match leaving {
            Some(Leaving::CannotKeep(xid, fault)) => {
                self.unstreamed = Some(Unstreamed { since: Instant::now(), xid: Some(*xid) });
                ended.and_then(|ended| fault.clone().map_or(Ok(ended), Err))
            }
            Some(Leaving::CanKeepAgain) => {
                self.unstreamed = None;
                ended
            }
            None => ended,
        }
    }

    fn say_how_it_ended(&self, ended: &Ended, told: bool) {
        let pipeline = self.settings.name.as_str();
        match ended {
            Ended::OutOfTime => {
                tracing::warn!(pipeline, "not everything was delivered in time; it is read again");
            }
            // What the server sends again is left out by the checkpoint.
            Ended::Drained if !told => {
                tracing::warn!(pipeline, "the server was not told the last position");
            }
            Ended::Drained => {}
        }
    }
}

/// A stream that has started, and what it takes to carry it on.
struct Ready {
    reader: StreamReader,
    told: Told,
    positions: Arc<Positions>,
    compiler: Compiler,
    producer: Producer,
    params: Params,
    memory: Memory,
    from: Start,
    pending: Lsn,
    /// Of a transaction of about now.
    xid: u64,
    /// Where open transactions are kept, if the server sends them.
    spool: Option<Spool>,
}

/// From where it goes on.
struct Start {
    resume: DurableLsn,
    inside: Option<Partial>,
    book: Option<Book>,
    life: u64,
    /// Who the source is.
    facts: SourceFacts,
}

/// The replica whose rows are those of the source.
fn replica(of: &config::settled::Replica, facts: &SourceFacts) -> Result<Replica, Fault> {
    let source = SystemIdentity {
        system_identifier: facts.system_identifier,
        timeline: facts.timeline,
        flushed: facts.flushed,
        database: facts.database.clone(),
    };
    Ok(Replica::of(params_of_replica(of)?, &source))
}

/// How what is published is written down.
enum Memory {
    /// Behind the delivery reports.
    Kept(Box<Keeper>, Box<Keep>),
    /// Together with it.
    Committed(Box<Commits>),
}

/// A producer, and who writes down what it has published.
fn engage(
    keeper: Keeper,
    last: Checkpoint,
    base: Option<(String, i64)>,
    kafka: &kafka::Settings,
    desk: &Arc<Desk>,
) -> Result<(Producer, Memory), Fault> {
    match keeper.writer {
        Writer::Apart(_) => {
            let producer = Producer::new(kafka).map_err(|error| diagnosis::of_kafka(&error))?;
            let keep = Box::new(Keep::new(last, base));
            Ok((producer, Memory::Kept(Box::new(keeper), keep)))
        }
        Writer::Within(producer) => {
            let ends = producer.ends();
            let commits = Commits::new(keeper.memory, last, Arc::clone(desk), ends);
            Ok((*producer, Memory::Committed(Box::new(commits))))
        }
    }
}

/// A task that ends with its owner.
struct Watching(JoinHandle<()>);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.abort();
    }
}
