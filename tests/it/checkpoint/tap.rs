//! Sits on the wire to Kafka and catches a transaction's commit at the worst moment.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use waltide_stack::Kafka;

/// The number of the request that commits or aborts a transaction.
const END_TXN: i16 = 26;

/// What becomes of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Commits {
    /// It passes, and so does its answer.
    Pass,
    /// It is held on its way until [`Tap::release`].
    Hold,
    /// It passes; its answer, and every later one on that connection, is lost.
    LoseAnswer,
}

/// A tap between the proxy of a Kafka and its broker.
pub(crate) struct Tap {
    commits: Arc<Mutex<Commits>>,
    release: Sender<()>,
    /// The error codes of commits that were held and then passed on.
    answers: Receiver<i16>,
}

impl Tap {
    /// On a Kafka that was started behind a proxy, for connections made from now on.
    pub(crate) fn on(kafka: &Kafka) -> Self {
        let broker = kafka.behind();
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        kafka.proxy().retarget(listener.local_addr().unwrap());
        let commits = Arc::new(Mutex::new(Commits::Pass));
        let (release, released) = channel();
        let (answer, answers) = channel();
        let (shared, released) = (Arc::clone(&commits), Arc::new(Mutex::new(released)));
        thread::spawn(move || {
            for client in listener.incoming() {
                let wire = Wire {
                    commits: Arc::clone(&shared),
                    released: Arc::clone(&released),
                    answer: answer.clone(),
                };
                let server = TcpStream::connect(broker).unwrap();
                wire.join(client.unwrap(), server);
            }
        });
        Self { commits, release, answers }
    }

    pub(crate) fn commits(&self, fate: Commits) {
        *self.commits.lock().unwrap() = fate;
    }

    /// Lets a held commit go on its way, and returns the error code of the broker's answer.
    pub(crate) fn release(&self) -> i16 {
        self.release.send(()).unwrap();
        self.answers.recv_timeout(super::SOON).unwrap()
    }
}

/// One connection.
struct Wire {
    commits: Arc<Mutex<Commits>>,
    released: Arc<Mutex<Receiver<()>>>,
    answer: Sender<i16>,
}

impl Wire {
    fn join(self, client: TcpStream, server: TcpStream) {
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        // The correlation id of a commit whose answer is lost or of interest.
        let caught = Arc::new(Mutex::new(None));
        let (from_client, to_client) = (client.try_clone().unwrap(), client);
        let (from_server, to_server) = (server.try_clone().unwrap(), server);
        let Self { commits, released, answer } = self;
        let seen = Arc::clone(&caught);
        thread::spawn(move || requests(from_client, to_server, &commits, &released, &seen));
        thread::spawn(move || answers(from_server, to_client, &answer, &caught));
    }
}

type Caught = Mutex<Option<(Commits, [u8; 4])>>;

fn requests(
    mut from: TcpStream,
    mut to: TcpStream,
    commits: &Mutex<Commits>,
    released: &Mutex<Receiver<()>>,
    caught: &Caught,
) {
    while let Some(frame) = frame(&mut from) {
        // Length, the request's number and version, correlation id.
        if frame[4..6] == END_TXN.to_be_bytes() {
            let fate = *commits.lock().unwrap();
            if fate != Commits::Pass {
                *caught.lock().unwrap() = Some((fate, frame[8..12].try_into().unwrap()));
            }
            if fate == Commits::Hold && released.lock().unwrap().recv().is_err() {
                return;
            }
        }
        if to.write_all(&frame).is_err() {
            return;
        }
    }
}

fn answers(mut from: TcpStream, mut to: TcpStream, answer: &Sender<i16>, caught: &Caught) {
    while let Some(frame) = frame(&mut from) {
        match *caught.lock().unwrap() {
            // Length, correlation id, throttle time, error code.
            Some((Commits::Hold, id)) if frame[4..8] == id => {
                let _ = answer.send(i16::from_be_bytes([frame[12], frame[13]]));
            }
            Some((Commits::LoseAnswer, _)) => continue,
            _ => {}
        }
        // A client that is gone does not matter: the answer was.
        let _ = to.write_all(&frame);
    }
}

/// A request or answer with its length before it.
fn frame(from: &mut TcpStream) -> Option<Vec<u8>> {
    let mut frame = vec![0; 4];
    from.read_exact(&mut frame).ok()?;
    let length = u32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]]);
    frame.resize(4 + length as usize, 0);
    from.read_exact(&mut frame[4..]).ok()?;
    Some(frame)
}

/// The settings of a topic or broker.
pub(crate) async fn described(
    kafka: &Kafka,
    what: ResourceSpecifier<'_>,
) -> HashMap<String, String> {
    let mut config = ClientConfig::new();
    let admin: AdminClient<DefaultClientContext> =
        config.set("bootstrap.servers", kafka.direct()).create().unwrap();
    let wait = AdminOptions::new().request_timeout(Some(Duration::from_secs(10)));
    let mut answers = admin.describe_configs(&[what], &wait).await.unwrap();
    let entries = answers.remove(0).unwrap().entries;
    entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect()
}
