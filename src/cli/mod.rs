//! What was asked on the command line.

pub mod args;
mod check;
mod checkpoint;
mod daemon;
mod healthcheck;
mod manual;
mod ordering;
mod overview;
mod plan;
mod recover;
mod repair;
mod run;
mod schema;
mod slot;
mod snapshot;
mod status;
mod tail;
mod terminal;
mod trust;
mod verify;

use std::fmt;
use std::io::{BufRead as _, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{self, Config, Environment, Loaded, settled};
use crate::fault::{Code, Fault};
use crate::pipeline;
use args::{Arguments, CheckpointCommand, Command, ConfigCommand, ConfigFile};
use args::{SchemaCommand, SlotCommand};

/// Why a command did not do what was asked.
#[derive(Debug)]
pub enum Failure {
    /// The configuration is wrong: exit code 2.
    Misused(config::Errors),
    /// It was tried and failed: exit code 1.
    Failed(Fault),
}

impl Failure {
    /// As the shell sees it.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Failed(_) => 1,
            Self::Misused(_) => 2,
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Misused(errors) => write!(f, "{errors}"),
            Self::Failed(fault) => write!(f, "error: {fault}"),
        }
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::Failed(fault)
    }
}

/// Does what the command line asks.
///
/// # Errors
/// Where it cannot be done.
pub fn perform() -> Result<(), Failure> {
    // The one provider of TLS algorithms in this process; fails only where there is one already.
    let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
    match Arguments::parse().command {
        Command::Run(asked) => {
            let loaded = load(&asked.config)?;
            run::run(asked.config.path().map(Into::into), loaded, asked.fail_fast)
        }
        Command::Setup(file) => setup(load(&file)?.config),
        Command::Tail(asked) => tail::tail(asked),
        Command::Check(asked) => check::check(load(&asked.config)?.config, &asked),
        Command::Checkpoint { command: CheckpointCommand::Show { pipeline, json, config } } => {
            checkpoint::show(load(&config)?.config, pipeline.as_deref(), json)
        }
        Command::Recover(asked) => recover::recover(load(&asked.config)?.config, &asked),
        Command::Slot { command } => match command {
            SlotCommand::List(asked) => slot::list(load(&asked.config)?.config, &asked),
            SlotCommand::Show(asked) => slot::show(load(&asked.config)?.config, &asked),
            SlotCommand::Advance { pipeline, to, yes, config } => {
                slot::advance(load(&config)?.config, &pipeline, &to, yes)
            }
            SlotCommand::Drop { pipeline, yes, config } => {
                slot::drop(load(&config)?.config, &pipeline, yes)
            }
        },
        Command::Verify(asked) => verify::verify(load(&asked.daemon.config)?.config, &asked),
        Command::Status(asked) => status::status(&asked),
        Command::Pause(asked) => ordering::pause(&asked),
        Command::Resume(asked) => ordering::resume(&asked),
        Command::Snapshot { command } => snapshot::perform(&command),
        Command::Reload(daemon) => ordering::reload(&daemon),
        Command::Healthcheck(asked) => healthcheck::check(&asked),
        Command::Completions { shell } => manual::completions(shell),
        Command::Man { directory } => manual::pages(&directory),
        Command::Schema { command } => match command {
            SchemaCommand::Show(asked) => schema::show(load(&asked.looked.config)?.config, &asked),
            SchemaCommand::Diff(asked) => schema::diff(load(&asked.looked.config)?.config, &asked),
            SchemaCommand::Plan(asked) => plan::plan(load(&asked.looked.config)?.config, &asked),
        },
        Command::Config { command } => match command {
            ConfigCommand::Check(file) => {
                let loaded = load(&file)?;
                for warning in &loaded.warnings {
                    eprintln!("warning: {warning}");
                }
                say(&format!("{} pipelines, nothing wrong\n", loaded.config.pipelines.len()))
            }
            ConfigCommand::Show(file) => say(&load(&file)?.show()),
            ConfigCommand::Schema => say(&format!("{:#}\n", config::json_schema())),
        },
    }
}

fn load(file: &ConfigFile) -> Result<Loaded, Failure> {
    config::load(file.path(), &Environment::of_process()).map_err(Failure::Misused)
}

/// The pipelines that were meant: all of them, or the one that is named.
fn chosen(config: Config, name: Option<&str>) -> Result<Vec<settled::Pipeline>, Failure> {
    let all: Vec<String> = config.pipelines.iter().map(|one| one.name.clone()).collect();
    let mut pipelines = config.pipelines;
    pipelines.retain(|one| name.is_none_or(|name| one.name == name));
    if pipelines.is_empty() {
        let name = name.unwrap_or_default();
        return Err(Fault::new(
            Code::ConfigInvalid,
            format!("there is no pipeline {name} in the configuration"),
            format!("name one of: {}", all.join(", ")),
        )
        .into());
    }
    Ok(pipelines)
}

/// A runtime for a command that asks servers a few questions.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    // Two threads, so that a server is told where we are while another one is asked.
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| pipeline::cannot_start(&error).into())
}

/// Done once somebody asks for the end.
fn stop() -> Result<impl Future<Output = ()>, Fault> {
    let of = |kind| signal(kind).map_err(|error| pipeline::cannot_start(&error));
    let mut signals =
        [of(SignalKind::interrupt())?, of(SignalKind::terminate())?, of(SignalKind::hangup())?];
    Ok(async move {
        let [interrupt, terminate, hangup] = &mut signals;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    })
}

/// Asks; an end of input is a no.
fn agreed() -> bool {
    let mut out = std::io::stdout().lock();
    let asked = write!(out, "go on? [yes/no] ").and_then(|()| out.flush());
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    asked.is_ok() && read.is_ok() && answer.trim().eq_ignore_ascii_case("yes")
}

/// `waltide setup`: prints what somebody with more rights can run.
fn setup(config: Config) -> Result<(), Failure> {
    let runtime = runtime()?;
    for settings in &config.pipelines {
        let sql = runtime.block_on(pipeline::setup(settings))?;
        say(&sql)?;
    }
    Ok(())
}

/// Prints what was asked for. A reader that has seen enough (`| head`) is not a failure.
fn say(text: &str) -> Result<(), Failure> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Fault::new(
            Code::Internal,
            format!("cannot print: {error}"),
            "look at where the output goes",
        )
        .into()),
        _ => Ok(()),
    }
}
