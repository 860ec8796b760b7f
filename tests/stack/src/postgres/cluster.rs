//! One Postgres cluster of our own: made by `initdb`, configured by files of ours, run by the
//! unprivileged server user.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use postgres::{Config, NoTls};

use super::{PostgresOptions, copy};
use crate::artifacts;
use crate::error::Error;
use crate::extended::Installation;
use crate::identity;
use crate::keeper;
use crate::poll::poll;
use crate::ports::free_port;
use crate::process::Process;
use crate::server::{Failure, Server, Use};
use crate::tools::Tools;

/// initdb takes a second on a quiet machine.
const INITDB_DEADLINE: Duration = Duration::from_secs(120);

/// A reload takes milliseconds.
const RELOAD_DEADLINE: Duration = Duration::from_secs(30);

/// Counts the configurations, so that a session can tell whether it has the latest.
const GENERATION: &str = "waltide_stack.generation";

/// Room for many tests at once, and no waiting for disks: a power failure may take test data.
/// Shared memory lives in files of the data directory, so that it goes away with it.
const SETTINGS: &[(&str, &str)] = &[
    ("autovacuum_naptime", "10s"),
    ("dynamic_shared_memory_type", "mmap"),
    ("fsync", "off"),
    ("listen_addresses", "127.0.0.1"),
    ("log_line_prefix", "%m [%p] %q%u@%d "),
    ("log_replication_commands", "on"),
    ("max_connections", "300"),
    ("max_prepared_transactions", "100"),
    ("max_replication_slots", "100"),
    ("max_wal_senders", "100"),
    ("shared_buffers", "64MB"),
    ("timezone", "UTC"),
    ("wal_level", "logical"),
];

#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) server: Server,
    installation: Installation,
    port: AtomicU16,
    hba: String,
    settings: Mutex<Settings>,
    /// By how much its clock is wrong.
    clock: Option<String>,
}

#[derive(Debug)]
struct Settings {
    values: BTreeMap<String, String>,
    generation: u32,
}

impl Cluster {
    pub(super) fn start(name: &str, options: PostgresOptions, usage: Use) -> Result<Self, Error> {
        let installation = options.installation()?;
        let cluster = Self::new(name, options, installation, usage)?;
        Server::with_free_ports(|| {
            cluster.port.store(free_port(), Ordering::Relaxed);
            cluster.write_settings()?;
            cluster.launch()
        })?;
        Ok(cluster)
    }

    fn new(
        name: &str,
        options: PostgresOptions,
        installation: Installation,
        usage: Use,
    ) -> Result<Self, Error> {
        let server = Server::new(name, usage)?;
        for directory in ["data", "socket"] {
            let path = server.home.join(directory);
            keeper::make_directory(&path)?;
            identity::give(&path)?;
        }
        let mut values: BTreeMap<_, _> = SETTINGS
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        if let Some(tls) = &options.tls {
            values.insert("ssl".into(), "on".into());
            let mut files = vec![
                ("ssl_cert_file", &tls.certificate, "server.crt"),
                ("ssl_key_file", &tls.key, "server.key"),
            ];
            files.extend(tls.client_ca.iter().map(|ca| ("ssl_ca_file", ca, "clients.crt")));
            for (setting, source, name) in files {
                let copy = server.home.join(name);
                copy_secret(source, &copy)?;
                values.insert(setting.into(), copy.display().to_string());
            }
        }
        if let Some(origin) = &options.origin {
            copy::copy_data(&origin.source, &server.home.join("data"))?;
            if origin.follows {
                values.extend([copy::follow(&origin.source, &server.home.join("data"))?]);
            }
        }
        values.extend(options.settings);
        let rules = options
            .hba
            .as_deref()
            .unwrap_or("host all all 127.0.0.1/32 trust\nhost replication all 127.0.0.1/32 trust");
        let hba = format!("local all all trust\nlocal replication all trust\n{rules}\n");
        let settings = Mutex::new(Settings { values, generation: 0 });
        let (port, clock) = (AtomicU16::new(0), options.clock);
        let cluster = Self { server, installation, port, hba, settings, clock };
        if options.origin.is_none() {
            cluster.initdb(&options.initdb)?;
        }
        Ok(cluster)
    }

    fn initdb(&self, arguments: &[String]) -> Result<(), Error> {
        let home = &self.server.home;
        let mut command = self.command("initdb")?;
        command
            .args(["--auth=trust", "--no-sync", "--username=postgres"])
            .args(["--encoding=UTF8", "--no-locale", "--no-instructions"])
            .args(arguments)
            .arg("-D")
            .arg(self.data_directory());
        let process = Process::start_in(home, "initdb", &command)?;
        match process.wait(INITDB_DEADLINE) {
            Some(0) => Ok(()),
            status => {
                home.save_log();
                let log = artifacts::tail(&home.log(), 20);
                Err(Error::new(format!("{}: initdb ended with {status:?}:\n{log}", home.name)))
            }
        }
    }

    /// A command of this version, for the server user. It starts where that user may be.
    fn command(&self, program: &str) -> Result<Command, Error> {
        self.run(&self.installation.binaries.join(program))
    }

    fn run(&self, program: &Path) -> Result<Command, Error> {
        let mut command = identity::command(program)?;
        command.current_dir(self.data_directory());
        for variable in ["PGDATA", "PGPORT", "PGHOST", "LC_ALL", "LANG"] {
            command.env_remove(variable);
        }
        if let Some(libraries) = &self.installation.libraries {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        Ok(command)
    }

    fn launch(&self) -> Result<(), Failure> {
        let mut command = match &self.clock {
            None => self.command("postgres")?,
            // The library must not be loaded before the user is the server's.
            Some(offset) => {
                let mut command = self.run(Path::new("/usr/bin/env"))?;
                command.arg(format!("LD_PRELOAD={}", Tools::shared().faketime()?.display()));
                command.arg(format!("FAKETIME={offset}")).arg("FAKETIME_DONT_FAKE_MONOTONIC=1");
                command.arg(self.installation.binaries.join("postgres"));
                command
            }
        };
        command.arg("-D").arg(self.data_directory());
        command.arg("-c").arg(format!("config_file={}", self.settings_file().display()));
        self.server.launch(&command, || self.socket_config().connect(NoTls).is_ok())
    }

    pub(super) fn start_again(&self) -> Result<(), Error> {
        self.launch().map_err(Failure::into_error)
    }

    /// Changes settings and waits until new sessions have loaded them.
    pub(super) fn reconfigure(&self, changes: &[(&str, &str)]) -> Result<(), Error> {
        let mut settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        settings.generation += 1;
        for (name, value) in changes {
            settings.values.insert((*name).to_owned(), (*value).to_owned());
        }
        let generation = settings.generation.to_string();
        drop(settings);
        self.write_settings()?;
        if !self.server.is_running() {
            return Ok(());
        }
        self.server.signal("HUP");
        let loaded = poll(RELOAD_DEADLINE, || {
            let mut client = self.socket_config().connect(NoTls).ok()?;
            let row = client.query_one(&format!("SHOW {GENERATION}"), &[]).ok()?;
            (row.get::<_, String>(0) == generation).then_some(())
        });
        let name = &self.server.home.name;
        loaded
            .ok_or_else(|| Error::new(format!("{name} did not load its new settings; see its log")))
    }

    fn write_settings(&self) -> Result<(), Error> {
        let home = &self.server.home;
        let hba = home.join("pg_hba.conf");
        keeper::write_file(&hba, &self.hba)?;
        let settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = format!(
            "port = {}\nunix_socket_directories = {}\nhba_file = {}\n{GENERATION} = '{}'\n",
            self.port(),
            quoted(&self.socket_directory().to_string_lossy()),
            quoted(&hba.to_string_lossy()),
            settings.generation,
        );
        for (name, value) in &settings.values {
            let _ = writeln!(text, "{name} = {}", quoted(value));
        }
        keeper::write_file(&self.settings_file(), &text)
    }

    fn settings_file(&self) -> PathBuf {
        self.server.home.join("postgresql.conf")
    }

    pub(super) fn data_directory(&self) -> PathBuf {
        self.server.home.join("data")
    }

    pub(super) fn socket_directory(&self) -> PathBuf {
        self.server.home.join("socket")
    }

    pub(super) fn port(&self) -> u16 {
        self.port.load(Ordering::Relaxed)
    }

    /// For a superuser, by the Unix socket, whatever the rules for TCP.
    pub(super) fn socket_config(&self) -> Config {
        let mut config = Config::new();
        config.host_path(self.socket_directory()).port(self.port()).user("postgres");
        config.dbname("postgres");
        config
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.server.discard();
        // The seventh line of the pid file names the System V segment that a killed postmaster
        // leaves behind; Perl has the call to remove it.
        let file = fs::read_to_string(self.data_directory().join("postmaster.pid"));
        let line = file.as_ref().ok().and_then(|text| text.lines().nth(6));
        if let Some(segment) = line.and_then(|line| line.split_whitespace().nth(1)) {
            let mut command = Command::new("perl");
            let _ = command.args(["-e", "shmctl($ARGV[0], 0, 0)", segment]).status();
        }
    }
}

/// A copy that only the server user can read, as Postgres demands of keys.
fn copy_secret(source: &Path, copy: &Path) -> Result<(), Error> {
    fs::copy(source, copy).map_err(Error::because(source.display()))?;
    identity::give(copy)?;
    fs::set_permissions(copy, fs::Permissions::from_mode(0o600))
        .map_err(Error::because(copy.display()))
}

/// A value for `postgresql.conf`.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', r"\\").replace('\'', "''"))
}
