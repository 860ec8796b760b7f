//! `waltide run`: one story, from logging to the last acknowledgement.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tracing_subscriber::filter::{LevelFilter, Targets};

use super::{Failure, terminal};
use crate::config::Loaded;
use crate::config::settled::{Log, LogFormat, LogLevel, OwnRegistry, Pipeline as Settings};
use crate::control;
use crate::control::reload::{Reloader, SetLevel};
use crate::control::token::{self, Token, TokenFile};
use crate::credential::Credential;
use crate::fault::Fault;
use crate::pipeline::{self, Surroundings};
use crate::registry::directory::{self, Directory};
use crate::status::Pipeline;
use crate::{http, pipeline::cannot_start};

/// Threads that answer probes and feed positions back. Two, so that one slow answer does not hold
/// up the other kind.
const CONTROL_THREADS: usize = 2;

/// How long pipelines may take to end after they were asked: their own drain and farewell, and a
/// little. Kubernetes kills after 30 s.
const GRACE: Duration = Duration::from_secs(25);

/// Runs the pipelines of a configuration until a signal, or with `fail_fast` the first failure.
///
/// # Errors
/// Where the process cannot be set up, or the first failure with `fail_fast`.
pub(super) fn run(file: Option<PathBuf>, loaded: Loaded, fail_fast: bool) -> Result<(), Failure> {
    let config = loaded.config.clone();
    let set_level = start_logging(config.log);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()
        .map_err(|error| cannot_start(&error))?;
    // From here on a signal ends it in order, before anybody can know that it runs.
    let signals = runtime.block_on(async { Signals::listen() })?;
    let certificate = config.http.tls.as_ref().map(|tls| tls.certificate.clone());
    let tls = config.http.tls.map(http::Identity::read).transpose()?.map(Arc::new);
    let listener = http::listen(config.http.listen)?;
    let registries = runtime.block_on(registries(&config.pipelines))?;
    // Port 0 lets the system choose, so what was asked for is not what can be asked.
    let http = listener.local_addr().unwrap_or(config.http.listen);
    let (token, _token_file) = token(config.http.token, http, certificate.as_deref());
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        pipelines = config.pipelines.len(),
        %http,
        "waltide starts"
    );
    let (shutdown, asked) = watch::channel(false);
    let (first_failure, failures) = mpsc::channel(1);
    let surroundings = Surroundings {
        control: runtime.handle().clone(),
        shutdown: asked,
        fail_fast: fail_fast.then_some(first_failure),
        starts: pipeline::Starts::default(),
        clusters: pipeline::Clusters::default(),
    };
    let mut handles = Vec::new();
    let mut threads = Vec::new();
    for settings in config.pipelines {
        let status = Pipeline::new(&settings.name);
        let (handle, orders) = control::line(Arc::clone(&status));
        handles.push(handle);
        let thread = pipeline::start(settings, status, orders, surroundings.clone());
        threads.push(thread.map_err(|error| cannot_start(&error))?);
    }
    let reloader = Reloader::new(file, loaded, handles.clone(), set_level);
    let reloader = Arc::new(reloader);
    let service = http::Service {
        pipelines: handles,
        control: runtime.handle().clone(),
        listen: http,
        token,
        protect_reads: config.http.protect_reads,
        tls,
        reloader: Arc::clone(&reloader),
    };
    http::start(listener, service)?;
    for (listener, own) in registries {
        let directory = Directory::at(own.directory);
        runtime.spawn(directory::serve(listener, directory, own.token));
    }
    let ended_by = runtime.block_on(signals.wait(failures, fail_fast, &reloader));
    let _ = shutdown.send(true);
    wait_for_all(threads);
    runtime.shutdown_timeout(Duration::from_millis(200));
    match ended_by {
        Some(fault) => Err(fault.into()),
        None => {
            tracing::info!("waltide ends");
            Ok(())
        }
    }
}

/// The token that is configured, or a new one and the file it is in.
fn token(
    configured: Option<Credential>,
    http: SocketAddr,
    certificate: Option<&Path>,
) -> (Token, Option<TokenFile>) {
    if configured.is_some() {
        return (Token::of(configured), None);
    }
    match token::write(http, certificate) {
        Ok((token, file)) => {
            tracing::info!(file = %file.path().display(), "what changes something needs this token");
            (Token::of(Some(Credential::Inline(token))), Some(file))
        }
        Err(error) => {
            let mend = "set http.token_file, or XDG_RUNTIME_DIR to a directory of the daemon's own";
            tracing::warn!(%error, mend, "no token could be written: nothing can be changed over HTTP");
            (Token::of(None), None)
        }
    }
}

/// Listens for the registries that are ours; for each once, however many pipelines use it.
async fn registries(pipelines: &[Settings]) -> Result<Vec<(TcpListener, OwnRegistry)>, Fault> {
    let mut found: Vec<(TcpListener, OwnRegistry)> = Vec::new();
    for own in pipelines.iter().filter_map(|pipeline| pipeline.registry.own.as_ref()) {
        if found.iter().any(|(_, other)| other.directory == own.directory) {
            continue;
        }
        let listener = directory::listen(own.listen).await?;
        let address = listener.local_addr().unwrap_or(own.listen);
        let (directory, announced) = (own.directory.display(), &own.announced);
        tracing::info!(%directory, %address, announced, "the schema registry answers");
        found.push((listener, own.clone()));
    }
    Ok(found)
}

/// What the process may be told.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn listen() -> Result<Self, Failure> {
        let of = |kind| signal(kind).map_err(|error| Failure::from(cannot_start(&error)));
        Ok(Self {
            terminate: of(SignalKind::terminate())?,
            interrupt: of(SignalKind::interrupt())?,
            hang_up: of(SignalKind::hangup())?,
        })
    }

    /// Waits for a reason to end: a signal, or a failure where those count.
    async fn wait(
        mut self,
        mut failures: mpsc::Receiver<Fault>,
        fail_fast: bool,
        reloader: &Arc<Reloader>,
    ) -> Option<Fault> {
        let name = loop {
            tokio::select! {
                _ = self.terminate.recv() => break "SIGTERM",
                _ = self.interrupt.recv() => break "SIGINT",
                _ = self.hang_up.recv() => reload(reloader).await,
                Some(fault) = failures.recv(), if fail_fast => return Some(fault),
            }
        };
        tracing::info!(signal = name, "asked to end: delivering what is in flight");
        None
    }
}

/// Reads the configuration again; what is wrong with it is said, and changes nothing.
async fn reload(reloader: &Arc<Reloader>) {
    let reloader = Arc::clone(reloader);
    if let Ok(Err(Fault { code, what, mend })) =
        tokio::task::spawn_blocking(move || reloader.reload()).await
    {
        tracing::error!(code = code.id(), mend, "{what}");
    }
}

fn wait_for_all(threads: Vec<JoinHandle<()>>) {
    let deadline = Instant::now() + GRACE;
    while threads.iter().any(|thread| !thread.is_finished()) {
        if Instant::now() >= deadline {
            tracing::warn!(
                "a pipeline did not end in time; what it had not confirmed is read again"
            );
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What is written of a level and above.
fn filter(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    // Other crates' own chatter below a warning helps nobody who runs the daemon.
    Targets::new().with_default(level.min(LevelFilter::WARN)).with_target("waltide", level)
}

/// Begins to write; what it returns sets another level.
fn start_logging(log: Log) -> SetLevel {
    let terminal = std::io::stderr().is_terminal();
    let json = match log.format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !terminal,
    };
    let colour = terminal && terminal::wants_colour();
    let (layer, handle) = tracing_subscriber::reload::Layer::new(filter(log.level));
    let registry = tracing_subscriber::registry();
    use tracing_subscriber::layer::SubscriberExt as _;
    use tracing_subscriber::util::SubscriberInitExt as _;
    let done = if json {
        let lines = tracing_subscriber::fmt::layer().json().flatten_event(true);
        registry.with(layer).with(lines.with_writer(std::io::stderr)).try_init()
    } else {
        let lines = tracing_subscriber::fmt::layer().with_ansi(colour).with_target(false);
        registry.with(layer).with(lines.with_writer(std::io::stderr)).try_init()
    };
    // Fails only where a subscriber is there already, as in a test that runs this twice.
    drop(done);
    // Fails only where nothing writes any more.
    Box::new(move |level| drop(handle.reload(filter(level))))
}
