//! The servers, the two daemons, and what can be done to them.

use std::cell::RefCell;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use postgres::{Client, NoTls};
use serde_json::{Value, json};
use waltide_stack::{
    Database, Kafka, KafkaOptions, Postgres, PostgresOptions, Proxy, Registry, RegistryOptions,
    Version,
};

use crate::Mode;
use crate::daemon::Daemon;
use crate::position::lsn;
use crate::schedule::{Fault, Link, Planned};
use crate::wire::Wire;

/// How long a step of the way to Kafka may take to come by.
const STEP_WAIT: Duration = Duration::from_secs(3);

pub(crate) struct World {
    // Dropped in this order: the daemons before what they use.
    pub(crate) daemons: [Daemon; 2],
    wire: Wire,
    pub(crate) database: Database,
    pub(crate) registry: Registry,
    pub(crate) kafka: Kafka,
    pub(crate) postgres: Postgres,
    pub(crate) directory: PathBuf,
    admin: RefCell<Option<Client>>,
}

/// What has been begun and must be mended.
pub(crate) enum Begun {
    Nothing,
    Daemons,
    Ended(usize),
    Frozen(usize),
    Process(String),
    Postgres {
        frozen: bool,
    },
    Broker {
        frozen: bool,
    },
    Registry,
    Link(Link, usize, Option<End>),
    Full(Vec<PathBuf>),
    Held,
    /// What should have been met did not come by.
    Missed,
}

/// How the trouble of a link ends.
#[derive(Clone, Copy)]
pub(crate) enum End {
    Delay,
    Break,
}

impl World {
    /// Starts everything but the daemons. `program` is the daemon's.
    pub(crate) fn start(version: Version, mode: Mode, program: &Path) -> Result<Self, String> {
        let (postgres, kafka, registry) = thread::scope(|scope| {
            let kafka = scope.spawn(|| KafkaOptions::new().behind_proxy().start());
            let registry = scope.spawn(|| RegistryOptions::new().start());
            // Transactions are streamed from here on.
            let options =
                PostgresOptions::new(version).setting("logical_decoding_work_mem", "64kB");
            let postgres = options.start();
            let down = |_| "a server did not come up".to_owned();
            Ok::<_, String>((postgres, kafka.join().map_err(down)?, registry.join().map_err(down)?))
        })?;
        let wire = Wire::on(&kafka)?;
        let database = postgres.database("torture");
        let directory =
            std::env::temp_dir().join(format!("waltide-torture-{}", std::process::id()));
        let daemon = |name: &str| {
            let proxy = Proxy::to(("127.0.0.1", postgres.port()));
            let url = database.url();
            let (ours, theirs) = (postgres.port().to_string(), proxy.addr().port().to_string());
            let url = url.replace(&ours, &theirs);
            let settings = |spool: &str| {
                json!({
                    "pipelines": { database.prefix(): {
                        "source": { "url": url, "tables": ["public.*"] },
                        "kafka": { "bootstrap_servers": kafka.bootstrap(), "partitions": 3 },
                        "registry": { "url": registry.url() },
                        "snapshot": "initial",
                        "delivery": mode.as_str(),
                        "spool": spool,
                    } },
                    "http": { "listen": "127.0.0.1:0" },
                })
            };
            Daemon::new(name, proxy, program, &directory, settings)
        };
        let daemons = [daemon("one")?, daemon("two")?];
        let admin = RefCell::new(None);
        Ok(Self { daemons, wire, database, registry, kafka, postgres, directory, admin })
    }

    /// The pipeline's name, with which its topics begin.
    pub(crate) fn pipeline(&self) -> &str {
        self.database.prefix()
    }

    /// With a superuser's connection past all proxies.
    pub(crate) fn with_admin<T>(
        &self,
        work: impl FnOnce(&mut Client) -> Result<T, String>,
    ) -> Result<T, String> {
        let mut admin = self.admin.borrow_mut();
        if admin.as_ref().is_none_or(Client::is_closed) {
            let connected = Client::connect(&self.database.url(), NoTls);
            *admin = Some(connected.map_err(|error| format!("Postgres: {error}"))?);
        }
        let Some(client) = admin.as_mut() else { return Err("no connection".into()) };
        let done = work(client);
        if done.is_err() {
            *admin = None;
        }
        done
    }

    fn value(&self, sql: &str) -> Option<String> {
        let ask = |client: &mut Client| {
            let row = client.query_opt(sql, &[]).map_err(|error| error.to_string())?;
            Ok(row.and_then(|row| row.get::<_, Option<String>>(0)))
        };
        self.with_admin(ask).ok().flatten()
    }

    /// Where the server's log ends.
    pub(crate) fn end_of_log(&self) -> Option<u64> {
        lsn(&self.value("SELECT pg_current_wal_lsn()::text")?)
    }

    /// What the server has been told is safe.
    pub(crate) fn confirmed(&self) -> Option<u64> {
        lsn(&self.value(&self.of_slot("confirmed_flush_lsn"))?)
    }

    fn walsender(&self) -> Option<String> {
        self.value(&self.of_slot("active_pid"))
    }

    fn of_slot(&self, column: &str) -> String {
        let slot = format!("waltide_{}", self.pipeline());
        format!("SELECT {column}::text FROM pg_replication_slots WHERE slot_name = '{slot}'")
    }

    /// Which daemon streams; the first where none does.
    pub(crate) fn leader(&self) -> usize {
        let streams = |daemon: &Daemon| {
            let state = daemon.state();
            matches!(state.as_str(), "streaming" | "waiting" | "draining")
        };
        usize::from(!streams(&self.daemons[0]) && streams(&self.daemons[1]))
    }

    /// Whether both daemons are where they belong.
    pub(crate) fn is_healthy(&self) -> bool {
        let mut states = [self.daemons[0].state(), self.daemons[1].state()];
        states.sort_unstable();
        states == ["standby", "streaming"]
    }

    /// Whether so many tables have been read, be they empty: from then on all their changes come.
    pub(crate) fn has_read(&self, tables: usize) -> bool {
        let status = self.daemons[self.leader()].status().unwrap_or_default();
        let snapshots = status["snapshots"].as_object();
        snapshots.is_some_and(|all| {
            all.len() == tables && all.values().all(|snapshot| snapshot["state"] == "done")
        })
    }

    /// What no daemon gets over by itself.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.daemons.iter().find_map(|daemon| {
            if let Some(status) = daemon.has_died() {
                return Some(format!("daemon {} died with status {status}", daemon.name));
            }
            let status = daemon.status()?;
            (status["state"] == "stopped")
                .then(|| format!("daemon {} has stopped: {}", daemon.name, status["error"]))
        })
    }

    /// What each daemon says of itself.
    pub(crate) fn said(&self) -> String {
        let said = self.daemons.iter().map(|daemon| {
            let status = daemon.status().unwrap_or_default();
            let error = match &status["error"] {
                Value::Null => String::new(),
                error => format!(" {error}"),
            };
            format!("{} is {}{error}", daemon.name, daemon.state())
        });
        said.collect::<Vec<_>>().join("; ")
    }

    /// Lets something fail.
    pub(crate) fn begin(&self, planned: Planned) -> Begun {
        let leader = self.leader();
        match planned.fault {
            Fault::Nothing => Begun::Nothing,
            Fault::KillLeader => self.kill(&[leader]),
            Fault::KillStandby => self.kill(&[1 - leader]),
            Fault::KillBoth => self.kill(&[0, 1]),
            Fault::EndLeader => {
                self.daemons[leader].ask_to_end();
                Begun::Ended(leader)
            }
            Fault::FreezeLeader | Fault::FreezeLeaderLong => self.freeze(leader),
            Fault::FreezeStandby => self.freeze(1 - leader),
            Fault::EndWalsender => match self.walsender() {
                Some(pid) => {
                    self.value(&format!("SELECT pg_terminate_backend({pid})::text"));
                    Begun::Nothing
                }
                None => Begun::Missed,
            },
            Fault::KillWalsender => match self.walsender() {
                Some(pid) => {
                    signal("KILL", &pid);
                    Begun::Nothing
                }
                None => Begun::Missed,
            },
            Fault::FreezeWalsender => match self.walsender() {
                Some(pid) => {
                    signal("STOP", &pid);
                    Begun::Process(pid)
                }
                None => Begun::Missed,
            },
            Fault::KillPostgres => {
                self.postgres.kill();
                Begun::Postgres { frozen: false }
            }
            Fault::StopPostgres => {
                self.postgres.stop();
                Begun::Postgres { frozen: false }
            }
            Fault::FreezePostgres => {
                self.postgres.pause();
                Begun::Postgres { frozen: true }
            }
            Fault::KillBroker => {
                self.kafka.kill();
                Begun::Broker { frozen: false }
            }
            Fault::StopBroker => {
                self.kafka.stop();
                Begun::Broker { frozen: false }
            }
            Fault::FreezeBroker => {
                self.kafka.pause();
                Begun::Broker { frozen: true }
            }
            Fault::FreezeRegistry => {
                self.registry.pause();
                Begun::Registry
            }
            Fault::FillSpool => self.fill(),
            Fault::KillAt(step, side) => {
                self.come_to(step);
                if !self.wire.catch(step, side, STEP_WAIT) {
                    return Begun::Missed;
                }
                let _ = self.kill(&[self.leader()]);
                Begun::Held
            }
            Fault::CutAt(step, side) => {
                self.come_to(step);
                if !self.wire.catch(step, side, STEP_WAIT) {
                    return Begun::Missed;
                }
                self.kafka.proxy().reset();
                Begun::Held
            }
            Fault::Cut(link) => self.link(link, leader, None, Proxy::cut),
            Fault::Reset(link) => self.link(link, leader, None, Proxy::reset),
            Fault::Stall(link) => self.link(link, leader, None, Proxy::stall),
            Fault::HalfOpen(link) => self.link(link, leader, Some(End::Break), Proxy::stall),
            Fault::Delay(link) => {
                self.link(link, leader, Some(End::Delay), |proxy| proxy.delay(30))
            }
        }
    }

    /// Mends it.
    pub(crate) fn end(&self, begun: &Begun) -> Result<(), String> {
        match begun {
            Begun::Nothing | Begun::Missed => self.wire.release(),
            Begun::Daemons => self.daemons.iter().for_each(Daemon::start),
            Begun::Ended(daemon) => {
                let ended = self.daemons[*daemon].wait_for_end();
                self.daemons[*daemon].start();
                return ended;
            }
            Begun::Frozen(daemon) => self.daemons[*daemon].resume(),
            Begun::Process(pid) => signal("CONT", pid),
            Begun::Postgres { frozen: true } => self.postgres.resume(),
            Begun::Postgres { frozen: false } => self.postgres.start_again(),
            Begun::Broker { frozen: true } => self.kafka.resume(),
            Begun::Broker { frozen: false } => self.kafka.start_again(),
            Begun::Registry => self.registry.resume(),
            Begun::Link(link, daemon, end) => {
                let proxy = self.proxy(*link, *daemon);
                match end {
                    Some(End::Break) => proxy.cut(),
                    Some(End::Delay) => proxy.delay(0),
                    None => {}
                }
                proxy.restore();
            }
            Begun::Full(files) => files.iter().for_each(|file| drop(fs::remove_file(file))),
            Begun::Held => {
                self.daemons.iter().for_each(Daemon::start);
                self.wire.release();
            }
        }
        Ok(())
    }

    fn kill(&self, daemons: &[usize]) -> Begun {
        daemons.iter().for_each(|daemon| self.daemons[*daemon].kill());
        Begun::Daemons
    }

    fn freeze(&self, daemon: usize) -> Begun {
        self.daemons[daemon].pause();
        Begun::Frozen(daemon)
    }

    fn proxy(&self, link: Link, daemon: usize) -> &Proxy {
        match link {
            Link::Postgres => &self.daemons[daemon].proxy,
            Link::Kafka => self.kafka.proxy(),
        }
    }

    fn link(&self, link: Link, daemon: usize, end: Option<End>, what: impl Fn(&Proxy)) -> Begun {
        what(self.proxy(link, daemon));
        Begun::Link(link, daemon, end)
    }

    /// Who starts shuts others out; who streams does not do it again.
    fn come_to(&self, step: crate::schedule::Step) {
        if step == crate::schedule::Step::Init
            && let Some(pid) = self.walsender()
        {
            self.value(&format!("SELECT pg_terminate_backend({pid})::text"));
        }
    }

    /// Fills the disk of each spool.
    fn fill(&self) -> Begun {
        let disks = self.daemons.iter().filter_map(Daemon::disk);
        let fill = |disk: PathBuf| {
            let path = disk.join("filler");
            let mut file = fs::File::create(&path).ok()?;
            let chunk = vec![0; 64 * 1024];
            while file.write_all(&chunk).is_ok() {}
            Some(path)
        };
        let files: Vec<PathBuf> = disks.filter_map(fill).collect();
        if files.is_empty() { Begun::Missed } else { Begun::Full(files) }
    }

    /// Waits until the server has been told that all up to `target` is safe, and says how long it took; no
    /// longer than `deadline` for any progress.
    pub(crate) fn wait_for_safety(
        &self,
        target: u64,
        deadline: Duration,
        asked_to_end: &dyn Fn() -> bool,
    ) -> Result<Duration, String> {
        let began = Instant::now();
        let (mut looked, mut moved, mut reached) = (began, began, None);
        loop {
            let confirmed = self.confirmed();
            if confirmed.is_some_and(|confirmed| confirmed >= target) {
                return Ok(began.elapsed());
            }
            if confirmed > reached {
                (reached, moved) = (confirmed, Instant::now());
            }
            if looked.elapsed() > Duration::from_secs(1) {
                looked = Instant::now();
                if let Some(trouble) = self.trouble() {
                    return Err(trouble);
                }
            }
            if moved.elapsed() > deadline {
                return Err(format!("nothing got safe for {deadline:?}: {}", self.said()));
            }
            if asked_to_end() {
                return Ok(began.elapsed());
            }
            thread::sleep(Duration::from_millis(15));
        }
    }
}

fn signal(signal: &str, pid: &str) {
    let _ = Command::new("kill").args(["-s", signal, pid]).status();
}
