//! The broker itself: one node that is its own controller.

use std::fmt::Write;
use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};

use super::KafkaOptions;
use crate::artifacts;
use crate::error::Error;
use crate::jvm::{self, Classes};
use crate::keeper;
use crate::ports::free_port;
use crate::proxy::Proxy;
use crate::server::{Failure, Server, Use};

const LOG4J: &str = include_str!("log4j2.properties");

/// Kafka holds this much in the heap; records stay in the page cache.
const HEAP: &str = "512m";

/// Factors that one node can fulfil, one partition each for quick starts, no wait for consumers
/// that might join, and topics only where somebody meant them. A killed broker is let in again when
/// its session has timed out, so that is short, but no shorter than a busy machine may stall.
const SETTINGS: &str = "\
process.roles=broker,controller
node.id=1
inter.broker.listener.name=BROKER
controller.listener.names=CONTROLLER
auto.create.topics.enable=false
broker.heartbeat.interval.ms=300
broker.session.timeout.ms=3000
group.initial.rebalance.delay.ms=0
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
";

#[derive(Debug, Clone, Copy)]
struct Ports {
    /// For the stack's own helpers, always plain and direct.
    broker: u16,
    controller: u16,
    /// For the program under test, where it was asked for.
    client: u16,
}

#[derive(Debug)]
pub(super) struct Broker {
    pub(super) server: Server,
    pub(super) proxy: Option<Proxy>,
    options: KafkaOptions,
    ports: Mutex<Ports>,
    archive: Option<PathBuf>,
}

impl Broker {
    /// Starts a new broker with empty data.
    pub(super) fn start(name: &str, options: KafkaOptions, usage: Use) -> Result<Self, Error> {
        let archive = jvm::archive("kafka", |file| {
            let broker = Self::new("kafka-training", KafkaOptions::new(), Use::Private, None)?;
            broker.first_launch(&Classes::Train(file.into()))?;
            broker.server.try_stop("TERM")
        });
        let broker = Self::new(name, options, usage, archive)?;
        broker.first_launch(&Classes::Shared(broker.archive.clone()))?;
        Ok(broker)
    }

    fn new(
        name: &str,
        options: KafkaOptions,
        usage: Use,
        archive: Option<PathBuf>,
    ) -> Result<Self, Error> {
        let server = Server::new(name, usage)?;
        keeper::write_file(&server.home.join("log4j2.properties"), LOG4J)?;
        match &options.joins {
            None => format(&server.home.join("data"))?,
            Some(first) => join(&first.home()?, &server.home.join("data"))?,
        }
        // The proxy is there first because the broker must tell clients its address.
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
        let proxy = options.proxied.then(|| Proxy::to(nowhere));
        let ports = Mutex::new(Ports { broker: 0, controller: 0, client: 0 });
        Ok(Self { server, proxy, options, ports, archive })
    }

    fn first_launch(&self, classes: &Classes) -> Result<(), Error> {
        Server::with_free_ports(|| {
            let ports = Ports { broker: free_port(), controller: free_port(), client: free_port() };
            *self.ports.lock().unwrap_or_else(PoisonError::into_inner) = ports;
            if let Some(proxy) = &self.proxy {
                proxy.retarget(SocketAddr::from(([127, 0, 0, 1], ports.client)));
            }
            keeper::write_file(&self.server.home.join("server.properties"), &self.properties())?;
            self.launch(classes)
        })
    }

    /// Starts it again with its data, on its ports.
    pub(super) fn start_again(&self) -> Result<(), Error> {
        self.launch(&Classes::Shared(self.archive.clone())).map_err(Failure::into_error)
    }

    fn launch(&self, classes: &Classes) -> Result<(), Failure> {
        let home = &self.server.home;
        let mut command = jvm::command(HEAP, classes, &home.path);
        command
            .arg(format!("-Dlog4j2.configurationFile={}", home.join("log4j2.properties").display()))
            .arg("-cp")
            .arg(artifacts::servers()?.join("kafka/*"))
            .arg("kafka.Kafka")
            .arg(home.join("server.properties"));
        let probe: BaseConsumer = super::client_config(&self.direct())
            .create()
            .map_err(Error::because("cannot make a Kafka client"))?;
        // A broker answers clients only once the controller has let it in, so an answer is enough.
        self.server
            .launch(&command, || probe.fetch_metadata(None, Duration::from_millis(500)).is_ok())
    }

    /// One of Kafka's own tools, by its class.
    pub(super) fn tool<'a>(
        &self,
        class: &str,
        arguments: impl IntoIterator<Item = &'a str>,
    ) -> Result<(), Error> {
        let mut command = jvm::command(HEAP, &Classes::Shared(None), &self.server.home.path);
        command.arg("-cp").arg(artifacts::servers()?.join("kafka/*"));
        command.args([class, "--bootstrap-server", &self.direct()]);
        artifacts::run("java", command.args(arguments))
    }

    /// The address for the stack's own helpers: no proxy, no password.
    pub(super) fn direct(&self) -> String {
        format!("127.0.0.1:{}", self.ports().broker)
    }

    /// The address for the program under test.
    pub(super) fn bootstrap(&self) -> String {
        match (&self.proxy, &self.options.protocol) {
            (Some(proxy), _) => proxy.addr().to_string(),
            (None, Some(_)) => format!("127.0.0.1:{}", self.ports().client),
            (None, None) => self.direct(),
        }
    }

    /// Where it listens for the program under test, behind any proxy.
    pub(super) fn client(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ports().client))
    }

    /// Where its controller listens.
    pub(super) fn controller_port(&self) -> u16 {
        self.ports().controller
    }

    fn ports(&self) -> Ports {
        *self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn properties(&self) -> String {
        let Ports { broker, controller, client } = self.ports();
        let protocol = self.options.protocol.as_deref().unwrap_or("PLAINTEXT");
        let data = self.server.home.join("data");
        let mut text = format!(
            "{SETTINGS}\
             log.dirs={}\n\
             controller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners=BROKER://127.0.0.1:{broker},CLIENT://127.0.0.1:{client},\
             CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=BROKER://127.0.0.1:{broker},CLIENT://{}\n\
             listener.security.protocol.map=BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT,\
             CLIENT:{protocol}\n",
            data.display(),
            match &self.proxy {
                Some(proxy) => proxy.addr().to_string(),
                None => format!("127.0.0.1:{client}"),
            },
        );
        if let Some(first) = &self.options.joins {
            let first = first.controller_port();
            let _ = writeln!(
                text,
                "process.roles=broker\nnode.id=2\ncontroller.quorum.voters=1@127.0.0.1:{first}\n\
                 listeners=BROKER://127.0.0.1:{broker},CLIENT://127.0.0.1:{client}"
            );
        }
        for (key, value) in &self.options.settings {
            // The last of several lines for a key counts.
            let _ = writeln!(text, "{key}={value}");
        }
        text
    }
}

/// Makes an empty data directory for a second node of a cluster.
fn join(first: &Path, data: &Path) -> Result<(), Error> {
    let file = first.join("data/meta.properties");
    let first = fs::read_to_string(&file).map_err(Error::because(file.display()))?;
    let cluster = first.lines().find(|line| line.starts_with("cluster.id=")).unwrap_or_default();
    keeper::make_directory(data)?;
    let meta = format!("version=1\nnode.id=2\n{cluster}\ndirectory.id={}\n", random_uuid());
    keeper::write_file(&data.join("meta.properties"), &meta)
}

/// Makes an empty data directory. Kafka's own tool for that takes a JVM's start, so it has run
/// once when the servers were fetched; what differs between clusters are two random names.
fn format(data: &Path) -> Result<(), Error> {
    let template = artifacts::servers()?.join("kafka-format/data/bootstrap.checkpoint");
    keeper::make_directory(data)?;
    fs::copy(&template, data.join("bootstrap.checkpoint"))
        .map_err(Error::because(template.display()))?;
    let meta = format!(
        "version=1\nnode.id=1\ncluster.id={}\ndirectory.id={}\n",
        random_uuid(),
        random_uuid()
    );
    keeper::write_file(&data.join("meta.properties"), &meta)
}

/// Lets Kafka format a data directory, for [`format`] to copy.
pub(crate) fn format_template(servers: &Path) -> Result<(), Error> {
    let directory = servers.join("kafka-format");
    fs::create_dir(&directory).map_err(Error::because(directory.display()))?;
    let properties = directory.join("server.properties");
    let text = format!(
        "{SETTINGS}log.dirs={}\nlisteners=BROKER://127.0.0.1:2,CONTROLLER://127.0.0.1:1\n\
         listener.security.protocol.map=BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
         controller.quorum.voters=1@127.0.0.1:1\n",
        directory.join("data").display()
    );
    fs::write(&properties, text).map_err(Error::because(properties.display()))?;
    let mut command = jvm::command(HEAP, &Classes::Shared(None), &directory);
    command.arg("-cp").arg(servers.join("kafka/*"));
    command.args(["kafka.tools.StorageTool", "format", "-t", &random_uuid(), "-c"]);
    artifacts::run("java", command.arg(&properties))
}

/// Sixteen bytes as Kafka writes them: 22 characters of base64, the last of which holds two bits.
fn random_uuid() -> String {
    const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef";
    let random = || RandomState::new().build_hasher().finish().to_le_bytes();
    let bytes = (0..3).flat_map(|_| random()).take(21);
    bytes.map(|byte| char::from(LETTERS[usize::from(byte % 32)])).chain(['A']).collect()
}
