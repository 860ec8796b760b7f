//! One attempt: from nothing to a stream, and the stream until it ends.
//!
//! The order is that of recovery. What only looks comes first. Holding the slot is leadership, so
//! nothing is written to Kafka or the registry before the server has given it to us.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use waltide_core::intake::Intake;
use waltide_core::lsn::DurableLsn;

use super::diagnosis;
use super::positions::{self, Positions};
use super::routes::Compiler;
use super::sink::Sink;
use super::source::{self, Prepared};
use super::stream::{Ended, Engine};
use super::topics::Topics;
use super::watching::watch_source;
use crate::config;
use crate::fault::{Code, Fault};
use crate::kafka::{self, Admin, Producer};
use crate::postgres::{
    Connection, Error, Mode, Params, Password, SqlState, StreamOptions, StreamReader, StreamWriter,
};
use crate::registry::{self, Client};
use crate::status::{Pipeline, State};

/// How long one server may take to let us in; `run` promises to name what is wrong within ten
/// seconds. A shorter time in the URL counts.
const CONNECT: Duration = Duration::from_secs(5);

/// How soon the server lets go of the slot of a daemon that froze or lost its network.
const WAL_SENDER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the end of a connection may take once everything is delivered.
const FAREWELL: Duration = Duration::from_secs(2);

/// How an attempt ended without a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The daemon was asked to end.
    Ended,
    /// Another daemon holds the slot.
    Standby,
}

/// A pipeline, and what of it outlives a connection.
pub(super) struct Attempt {
    settings: config::settled::Pipeline,
    status: Arc<Pipeline>,
    control: Handle,
    /// Ids stay known while the registry is away.
    registry: Option<Client>,
    /// Up to where this process had delivered everything, once it has streamed.
    durable: Option<DurableLsn>,
}

impl Attempt {
    pub(super) fn new(
        settings: config::settled::Pipeline,
        status: Arc<Pipeline>,
        control: Handle,
    ) -> Self {
        Self { settings, status, control, registry: None, durable: None }
    }

    /// Connects and streams until something ends it. `streaming` is called once changes flow.
    pub(super) async fn run(
        &mut self,
        shutdown: &watch::Receiver<bool>,
        streaming: impl FnOnce(),
    ) -> Result<Outcome, Fault> {
        let mut asked = shutdown.clone();
        let ready = tokio::select! {
            biased;
            _ = asked.wait_for(|asked| *asked) => return Ok(Outcome::Ended),
            ready = self.make_ready() => ready?,
        };
        let Some(ready) = ready else { return Ok(Outcome::Standby) };
        streaming();
        self.stream(ready, shutdown).await
    }

    /// Everything up to the first byte of the stream; `None` where another holds the slot.
    async fn make_ready(&mut self) -> Result<Option<Ready>, Fault> {
        let source = |error: Error| diagnosis::of_source(&error);
        let params = params(&self.settings.source)?;
        let mut catalog = Connection::open(&params, Mode::Plain).await.map_err(source)?;
        let prepared =
            source::prepare(&mut catalog, &self.settings, self.durable.is_some()).await?;
        let kafka = kafka_settings(&self.settings.kafka);
        let admin = Admin::new(&kafka).map_err(|error| diagnosis::of_kafka(&error))?;
        admin.partitions(None).await.map_err(|error| diagnosis::of_kafka(&error))?;
        let registry = self.reach_registry().await?;
        let mut connection = Connection::open(&params, Mode::Replication).await.map_err(source)?;
        if let Err(error) = self.start_replication(&mut connection, &prepared).await {
            self.registry = Some(registry);
            return if error.sqlstate() == Some(SqlState::OBJECT_IN_USE) {
                Ok(None)
            } else {
                Err(source(error))
            };
        }
        // The slot is ours now; where it stands counts only from here on.
        let slot = catalog.read_slot(&self.settings.source.slot).await.map_err(source)?;
        let confirmed = slot.and_then(|slot| slot.confirmed_flush_lsn);
        let resume = self.resume_at(confirmed.unwrap_or(prepared.confirmed))?;
        let (reader, writer) = connection.into_stream().map_err(source)?;
        let settings = self.settings.clone();
        let compiler = Compiler { settings, catalog, admin, registry, topics: Topics::new() };
        Ok(Some(Ready { reader, writer, compiler, kafka, params, resume }))
    }

    async fn start_replication(
        &self,
        connection: &mut Connection,
        prepared: &Prepared,
    ) -> Result<(), Error> {
        let publications: Vec<&str> = prepared.publications.iter().map(String::as_str).collect();
        let options = StreamOptions {
            publications: &publications,
            binary: self.settings.source.binary,
            streaming: false,
            messages: false,
            any_origin: true,
        };
        connection.start_replication(&self.settings.source.slot, prepared.confirmed, &options).await
    }

    /// The slot is at its confirmed position, or behind where the server forgot what we confirmed.
    /// Ahead of what this process has delivered, somebody else has moved it.
    fn resume_at(&self, confirmed: waltide_core::lsn::Lsn) -> Result<DurableLsn, Fault> {
        match self.durable {
            Some(durable) if confirmed > durable.lsn() => Err(Fault::new(
                Code::SlotUnusable,
                format!(
                    "slot {} stands at {confirmed}, but this daemon had delivered up to {} only: \
                     somebody has moved it",
                    self.settings.source.slot,
                    durable.lsn()
                ),
                "find out who read or advanced the slot; if the gap is acceptable, restart the daemon",
            )),
            Some(durable) => Ok(durable),
            None => Ok(DurableLsn::proven(confirmed)),
        }
    }

    /// A registry that is away stops only a start that knows no ids yet.
    async fn reach_registry(&mut self) -> Result<Client, Fault> {
        if let Some(known) = self.registry.take() {
            return Ok(known);
        }
        let settings = registry_settings(&self.settings.registry)?;
        let url = settings.url.clone();
        let wrong = |error| diagnosis::of_registry(&error, &url);
        let client = Client::new(settings).map_err(wrong)?;
        client.probe().await.map_err(wrong)?;
        Ok(client)
    }

    async fn stream(
        &mut self,
        ready: Ready,
        shutdown: &watch::Receiver<bool>,
    ) -> Result<Outcome, Fault> {
        let Ready { mut reader, writer, compiler, kafka, params, resume } = ready;
        let producer = Producer::new(&kafka).map_err(|error| diagnosis::of_kafka(&error))?;
        let positions = Arc::new(Positions::starting(resume));
        let told = Told::start(&self.control, writer, Arc::clone(&positions));
        let watch = watch_source(params, self.settings.source.clone(), Arc::clone(&self.status));
        let watching = Watching(self.control.spawn(watch));
        let intake = Intake::resume(resume);
        let sink = Sink::new(
            intake,
            producer,
            positions,
            Arc::clone(&self.status),
            kafka.bootstrap_servers.clone(),
        );
        let mut engine = Engine::new(sink, compiler, Arc::clone(&self.status));
        self.status.enter(State::Streaming);
        tracing::info!(
            pipeline = self.settings.name,
            slot = self.settings.source.slot,
            from = %resume.lsn(),
            "streaming"
        );
        let ended = engine.run(&mut reader, shutdown).await;
        drop(watching);
        self.durable = Some(engine.sink.intake.durable());
        if ended.is_err() {
            engine.sink.producer.abandon();
        }
        self.registry = Some(engine.into_compiler().registry);
        let farewell = tokio::time::timeout(FAREWELL, told.end(reader)).await;
        match ended? {
            Ended::OutOfTime => {
                tracing::warn!(
                    pipeline = self.settings.name,
                    "not everything was delivered in time; it is read again"
                );
            }
            Ended::Drained => {
                if !matches!(farewell, Ok(Ok(()))) {
                    // What was delivered may be repeated by the next start, nothing more.
                    tracing::warn!(
                        pipeline = self.settings.name,
                        "the server was not told the last position"
                    );
                }
            }
        }
        Ok(Outcome::Ended)
    }
}

/// A stream that has started, and what it takes to carry it on.
struct Ready {
    reader: StreamReader,
    writer: StreamWriter,
    compiler: Compiler,
    kafka: kafka::Settings,
    params: Params,
    resume: DurableLsn,
}

/// The task that tells the server where we are.
struct Told {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<StreamWriter, Error>>,
    positions: Arc<Positions>,
}

impl Told {
    fn start(control: &Handle, mut writer: StreamWriter, positions: Arc<Positions>) -> Self {
        let (stop, stopped) = oneshot::channel();
        let shared = Arc::clone(&positions);
        let task = control.spawn(async move {
            tokio::select! {
                // A dropped sender stops it as well: nothing feeds a connection that has no owner.
                _ = stopped => {}
                error = positions::tell(&mut writer, &shared) => error?,
            }
            Ok(writer)
        });
        Self { stop, task, positions }
    }

    /// Tells the last position and ends the stream in order.
    async fn end(self, reader: StreamReader) -> Result<(), Error> {
        let _ = self.stop.send(());
        let Ok(writer) = self.task.await else { return Ok(()) };
        let mut writer = writer?;
        positions::tell_last(&mut writer, &self.positions).await?;
        writer.finish().await?;
        reader.rejoin(writer).await?.close().await;
        Ok(())
    }
}

/// A task that ends with its owner.
struct Watching(JoinHandle<()>);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(super) fn params(source: &config::settled::Source) -> Result<Params, Fault> {
    let wrong = |what: String| {
        Fault::new(Code::SourceSettings, what, "correct source.url and the files it names")
    };
    let params: Params =
        source.url.expose().parse().map_err(|error: crate::postgres::url::UrlError| {
            wrong(format!("source.url: {error}"))
        })?;
    let mut params = match &source.password {
        Some(config::Credential::File(path)) => params.with_password_from(Some(path.clone()), None),
        Some(config::Credential::Inline(secret)) => {
            params.with_password_from(None, Some(Password::new(secret.expose())))
        }
        None => params,
    };
    params.connect_timeout = params.connect_timeout.min(CONNECT);
    params.wal_sender_timeout.get_or_insert(WAL_SENDER_TIMEOUT);
    Ok(params)
}

fn kafka_settings(of: &config::settled::Kafka) -> kafka::Settings {
    let plain = |(key, value): (&String, &config::Secret)| (key.clone(), value.expose().to_owned());
    kafka::Settings {
        bootstrap_servers: of.bootstrap_servers.clone(),
        properties: of.properties.iter().map(plain).collect(),
    }
}

fn registry_settings(of: &config::settled::Registry) -> Result<registry::Settings, Fault> {
    use config::settled::RegistryLogin;
    let read = |credential: &config::Credential| {
        credential.read().map(|secret| secret.expose().to_owned()).map_err(|error| {
            Fault::new(
                Code::RegistrySettings,
                format!("the registry's password or token cannot be read: {error}"),
                "make the file under registry readable for this process",
            )
        })
    };
    let authentication = match &of.login {
        RegistryLogin::None => registry::Authentication::None,
        RegistryLogin::Basic { username, password } => registry::Authentication::Basic {
            username: username.clone(),
            password: read(password)?,
        },
        RegistryLogin::Bearer(token) => registry::Authentication::Bearer(read(token)?),
    };
    Ok(registry::Settings { url: of.url.clone(), authentication })
}
