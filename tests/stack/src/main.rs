//! `waltide-stack`: the servers for a person at a terminal, or for one command.

use std::io::{self, Write};
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use waltide_stack::{Error, Stack, Version};

const USAGE: &str = "\
usage: waltide-stack up [--postgres N]... [--kafka] [--registry] [-- COMMAND [ARGUMENT]...]
       waltide-stack fetch

up      starts servers (without options: the newest Postgres, Kafka and the registry), prints
        their addresses as environment variables and keeps them until Ctrl-C; or runs COMMAND with
        these variables set, until it ends. Nothing of them is left afterwards.
fetch   fetches the servers' files, so that the next start need not.
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.first().map(String::as_str) {
        Some("up") => Wanted::parse(&arguments[1..]).map(|wanted| wanted.run()),
        Some("fetch") if arguments.len() == 1 => Ok(waltide_stack::fetch().map(|()| 0)),
        _ => Err(USAGE.to_owned()),
    };
    match outcome {
        Ok(Ok(status)) => ExitCode::from(status),
        Ok(Err(error)) => {
            let _ = writeln!(io::stderr(), "waltide-stack: {error}");
            ExitCode::from(1)
        }
        Err(misuse) => {
            let _ = io::stderr().write_all(misuse.as_bytes());
            ExitCode::from(2)
        }
    }
}

/// What the command line asks for.
#[derive(Default)]
struct Wanted {
    postgres: Vec<Version>,
    kafka: bool,
    registry: bool,
    command: Vec<String>,
}

impl Wanted {
    fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut wanted = Self::default();
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--kafka" => wanted.kafka = true,
                "--registry" => wanted.registry = true,
                "--postgres" => {
                    let version = arguments.next().ok_or(USAGE)?.parse();
                    wanted.postgres.push(version.map_err(|error: Error| format!("{error}\n"))?);
                }
                "--" => {
                    wanted.command = arguments.cloned().collect();
                    if wanted.command.is_empty() {
                        return Err(USAGE.to_owned());
                    }
                    break;
                }
                _ => return Err(USAGE.to_owned()),
            }
        }
        if wanted.postgres.is_empty() && !wanted.kafka && !wanted.registry {
            wanted = Self {
                postgres: vec![Version::NEWEST],
                kafka: true,
                registry: true,
                command: wanted.command,
            };
        }
        Ok(wanted)
    }

    fn run(&self) -> Result<u8, Error> {
        waltide_stack::fetch()?;
        let addresses = self.start();
        let Some((program, arguments)) = self.command.split_first() else {
            let mut stdout = io::stdout().lock();
            for (name, value) in &addresses {
                // Whoever reads this may have gone; the servers stay for others.
                let _ = writeln!(stdout, "{name}={value}");
            }
            let _ = stdout.flush();
            drop(stdout);
            loop {
                thread::park();
            }
        };
        let interrupted = Interrupts::take_over()?;
        let child = Command::new(program).args(arguments).envs(addresses).spawn();
        let child = child.map_err(|error| Error::new(format!("cannot run {program}: {error}")))?;
        interrupted.wait_for(child)
    }

    /// Starts all at once and returns their addresses.
    fn start(&self) -> Vec<(String, String)> {
        let stack = Stack::shared();
        thread::scope(|scope| {
            let mut starting = Vec::new();
            for version in &self.postgres {
                starting.push(scope.spawn(move || {
                    let url = stack.postgres(*version).url("postgres");
                    (format!("WALTIDE_TEST_PG{version}_URL"), url)
                }));
            }
            if self.kafka {
                starting.push(
                    scope.spawn(|| ("WALTIDE_TEST_KAFKA".to_owned(), stack.kafka().bootstrap())),
                );
            }
            if self.registry {
                starting.push(
                    scope.spawn(|| ("WALTIDE_TEST_REGISTRY".to_owned(), stack.registry().url())),
                );
            }
            starting.into_iter().map(|thread| thread.join().expect("the server started")).collect()
        })
    }
}

/// Ctrl-C reaches the command as well as us. We stay until the command has ended, for it may still
/// need the servers to end well.
struct Interrupts {
    terminated: Arc<AtomicBool>,
}

impl Interrupts {
    fn take_over() -> Result<Self, Error> {
        let terminated = Arc::new(AtomicBool::new(false));
        for (signal, flag) in
            [(SIGINT, Arc::new(AtomicBool::new(false))), (SIGTERM, Arc::clone(&terminated))]
        {
            signal_hook::flag::register(signal, flag)
                .map_err(|error| Error::new(format!("cannot handle signals: {error}")))?;
        }
        Ok(Self { terminated })
    }

    fn wait_for(self, mut child: Child) -> Result<u8, Error> {
        loop {
            match child.try_wait() {
                Ok(Some(status)) => return Ok(exit_code(status)),
                Ok(None) => thread::sleep(Duration::from_millis(20)),
                Err(error) => return Err(Error::new(format!("cannot wait: {error}"))),
            }
            // Unlike Ctrl-C, a SIGTERM was for us alone.
            if self.terminated.swap(false, Ordering::Relaxed) {
                let kill = format!("kill -s TERM {}", child.id());
                let _ = Command::new("sh").args(["-c", &kill]).status();
            }
        }
    }
}

/// As a shell would say it.
fn exit_code(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}
