//! Sits on the wire between a daemon and Kafka and catches one request, or its answer.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use waltide_stack::Kafka;

use crate::support::SOON;

/// The numbers of requests.
pub(crate) const PRODUCE: i16 = 0;
pub(crate) const INIT: i16 = 22;
pub(crate) const ADD_PARTITIONS: i16 = 24;
pub(crate) const END: i16 = 26;

/// Which side of a request is caught.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// It does not arrive, until it is released.
    Before,
    /// It arrives; its answer, and every later one on that connection, is lost.
    After,
    /// It arrives for a partition that is not there, as if the broker had yet to hear of the one
    /// that it is for. Of records for one topic.
    Astray,
}

/// A request to be caught.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) request: i16,
    /// It must have these words in it: names of topics, ends of transactional ids.
    pub(crate) with: &'static str,
    pub(crate) side: Side,
}

struct Shared {
    wanted: Mutex<Option<Step>>,
    /// Told when it is caught.
    caught: Sender<()>,
    released: Mutex<Receiver<()>>,
}

/// On the wire of a Kafka that was started behind a proxy, for connections made from now on.
pub(crate) struct Wire {
    shared: Arc<Shared>,
    caught: Receiver<()>,
    release: Sender<()>,
}

impl Wire {
    pub(crate) fn on(kafka: &Kafka) -> Self {
        let broker = kafka.behind();
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        kafka.proxy().retarget(listener.local_addr().expect("an address"));
        let (tell, caught) = channel();
        let (release, released) = channel();
        let shared = Arc::new(Shared {
            wanted: Mutex::new(None),
            caught: tell,
            released: Mutex::new(released),
        });
        let ours = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(broker)) else { return };
                join(client, server, &ours);
            }
        });
        Self { shared, caught, release }
    }

    /// The next request of that kind is to be caught.
    pub(crate) fn catch(&self, step: Step) {
        *self.shared.wanted.lock().expect("a lock") = Some(step);
    }

    /// Waits until it is.
    #[track_caller]
    pub(crate) fn wait(&self) {
        self.caught.recv_timeout(SOON).expect("the request comes");
    }

    /// Whether it is, within a second.
    pub(crate) fn is_caught(&self) -> bool {
        self.caught.recv_timeout(Duration::from_secs(1)).is_ok()
    }

    /// Lets what is held go on its way, late.
    pub(crate) fn release(&self) {
        self.release.send(()).expect("somebody listens");
    }
}

fn join(client: TcpStream, server: TcpStream, shared: &Arc<Shared>) {
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    // The correlation id of the request whose answer is lost.
    let lost = Arc::new(Mutex::new(None));
    let both = (client.try_clone(), server.try_clone());
    let (Ok(from_client), Ok(from_server)) = both else { return };
    let (seen, ours) = (Arc::clone(&lost), Arc::clone(shared));
    thread::spawn(move || requests(from_client, server, &ours, &seen));
    let ours = Arc::clone(shared);
    thread::spawn(move || answers(from_server, client, &ours, &lost));
}

type Lost = Mutex<Option<[u8; 4]>>;

fn requests(mut from: TcpStream, mut to: TcpStream, shared: &Shared, lost: &Lost) {
    while let Some(mut frame) = frame(&mut from) {
        let step = shared.wanted.lock().expect("a lock").take_if(|step| is(&frame, step));
        if let Some(step) = step {
            match step.side {
                Side::Before => {
                    let _ = shared.caught.send(());
                    if shared.released.lock().expect("a lock").recv().is_err() {
                        return;
                    }
                }
                Side::After => {
                    *lost.lock().expect("a lock") = frame[8..12].try_into().ok();
                }
                Side::Astray => {
                    lead_astray(&mut frame, step.with);
                    let _ = shared.caught.send(());
                }
            }
        }
        if to.write_all(&frame).is_err() {
            return;
        }
    }
}

fn answers(mut from: TcpStream, mut to: TcpStream, shared: &Shared, lost: &Lost) {
    let mut is_lost = false;
    while let Some(frame) = frame(&mut from) {
        let id = *lost.lock().expect("a lock");
        if !is_lost && id.is_some_and(|id| frame[4..8] == id) {
            is_lost = true;
            let _ = shared.caught.send(());
        }
        // A client that is gone does not matter: the answer was.
        if !is_lost && to.write_all(&frame).is_err() {
            return;
        }
    }
}

/// Length, the request's number and version, correlation id, and so on.
fn is(frame: &[u8], step: &Step) -> bool {
    let has = |text: &str| frame.windows(text.len()).any(|part| part == text.as_bytes());
    frame[4..6] == step.request.to_be_bytes() && step.with.split_whitespace().all(has)
}

/// The number of the partition stands behind the topic's name and a count of one, which is a byte
/// in newer versions and four in older ones.
fn lead_astray(frame: &mut [u8], topic: &str) {
    let name = frame.windows(topic.len()).position(|part| part == topic.as_bytes());
    let count = name.expect("it has that in it") + topic.len();
    let partition = if frame[count] == 2 { count + 1 } else { count + 4 };
    frame[partition..partition + 4].copy_from_slice(&99_i32.to_be_bytes());
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
