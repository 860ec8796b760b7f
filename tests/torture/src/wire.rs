//! Sits on the wire between the daemons and Kafka and catches one request, or its answer: the steps of the
//! way to Kafka are requests, so this stands between every two of them.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use waltide_stack::Kafka;

use crate::schedule::{Side, Step};

/// What is to be caught, and what was.
#[derive(Default)]
struct State {
    wanted: Option<(Step, Side)>,
    caught: bool,
    /// A request waits, until it is released.
    held: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// On the wire of a Kafka that was started behind a proxy, for connections made from now on.
pub(crate) struct Wire {
    shared: Arc<Shared>,
}

impl Wire {
    pub(crate) fn on(kafka: &Kafka) -> Result<Self, String> {
        let because = |error: std::io::Error| format!("no port for the wire: {error}");
        let broker = kafka.behind();
        let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(because)?;
        kafka.proxy().retarget(listener.local_addr().map_err(because)?);
        let shared = Arc::new(Shared::default());
        let ours = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let ours = Arc::clone(&ours);
                thread::spawn(move || join(client, broker, &ours));
            }
        });
        Ok(Self { shared })
    }

    /// Catches the next request of a step, or its answer; false where none comes in time.
    pub(crate) fn catch(&self, step: Step, side: Side, wait: Duration) -> bool {
        let mut state = self.shared.state();
        (state.wanted, state.caught) = (Some((step, side)), false);
        let waited = self.shared.changed.wait_timeout_while(state, wait, |state| !state.caught);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.wanted = None;
        state.caught
    }

    /// Lets what is held go on its way, late.
    pub(crate) fn release(&self) {
        self.shared.state().held = false;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this request is the one that is wanted.
    fn takes(&self, frame: &[u8]) -> Option<Side> {
        let mut state = self.state();
        let (_, side) = state.wanted.take_if(|(step, _)| is(frame, *step))?;
        state.held = side == Side::Before;
        state.caught = side == Side::Before;
        self.changed.notify_all();
        Some(side)
    }

    fn wait_for_release(&self) {
        let held = self.changed.wait_while(self.state(), |state| state.held);
        drop(held.unwrap_or_else(PoisonError::into_inner));
    }

    fn answer_is_lost(&self) {
        self.state().caught = true;
        self.changed.notify_all();
    }
}

fn join(client: TcpStream, broker: SocketAddr, shared: &Arc<Shared>) {
    let Ok(server) = TcpStream::connect(broker) else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    // The correlation id of the request whose answer is lost.
    let lost = Arc::new(Mutex::new(None));
    let both = (client.try_clone(), server.try_clone());
    let (Ok(from_client), Ok(from_server)) = both else { return };
    let (seen, ours) = (Arc::clone(&lost), Arc::clone(shared));
    thread::spawn(move || requests(from_client, server, &ours, &seen));
    answers(from_server, client, shared, &lost);
}

type Lost = Mutex<Option<[u8; 4]>>;

fn requests(mut from: TcpStream, mut to: TcpStream, shared: &Shared, lost: &Lost) {
    while let Some(frame) = frame(&mut from) {
        match shared.takes(&frame) {
            Some(Side::Before) => shared.wait_for_release(),
            Some(Side::After) => {
                let id = frame.get(8..12).and_then(|id| id.try_into().ok());
                *lost.lock().unwrap_or_else(PoisonError::into_inner) = id;
            }
            None => {}
        }
        if to.write_all(&frame).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
}

fn answers(mut from: TcpStream, mut to: TcpStream, shared: &Shared, lost: &Lost) {
    let mut is_lost = false;
    while let Some(frame) = frame(&mut from) {
        let id = *lost.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_lost && id.is_some() && frame.get(4..8) == id.as_ref().map(|id| &id[..]) {
            is_lost = true;
            shared.answer_is_lost();
        }
        // A client that is gone does not matter: the answer was.
        if !is_lost && to.write_all(&frame).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
}

/// Length, the request's number and version, correlation id, and so on.
fn is(frame: &[u8], step: Step) -> bool {
    let (request, with) = step.request();
    let with = with.as_bytes();
    frame.get(4..6) == Some(&request.to_be_bytes())
        && (with.is_empty() || frame.windows(with.len()).any(|part| part == with))
}

/// A request or answer with its length before it.
fn frame(from: &mut TcpStream) -> Option<Vec<u8>> {
    let mut frame = vec![0; 4];
    from.read_exact(&mut frame).ok()?;
    let length = u32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]]);
    frame.resize(4 + usize::try_from(length).ok()?, 0);
    from.read_exact(frame.get_mut(4..)?).ok()?;
    Some(frame)
}
