//! A TCP proxy that makes the network fail on request.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::ports::free_port;

/// One read from a socket; a delay is suffered once for each.
const CHUNK: usize = 64 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Bytes flow.
    Open,
    /// Connections live, bytes wait.
    Stalled,
    /// No connection lives, none is let in.
    Cut,
    /// The proxy has gone.
    Closed,
}

struct State {
    mode: Mode,
    target: SocketAddr,
    delay: Duration,
    connections: HashMap<u64, [TcpStream; 2]>,
    next_connection: u64,
}

struct Shared {
    address: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
}

/// Stands between a client and a server: give the client [`addr`](Self::addr) as the server's
/// address. Gone, with its connections, on drop.
pub struct Proxy {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Proxy({})", self.shared.address)
    }
}

impl Proxy {
    /// A proxy in front of `target`, open.
    ///
    /// # Panics
    /// When no port can be had or the target is no address.
    #[track_caller]
    pub fn to(target: impl ToSocketAddrs) -> Self {
        let target = target.to_socket_addrs().ok().and_then(|mut found| found.next());
        let target = target.expect("the address of a server");
        let bound = (0..20).find_map(|_| TcpListener::bind(("127.0.0.1", free_port())).ok());
        let listener = bound.expect("a free port for a proxy");
        let address = listener.local_addr().expect("a bound socket has an address");
        let state = State {
            mode: Mode::Open,
            target,
            delay: Duration::ZERO,
            connections: HashMap::new(),
            next_connection: 0,
        };
        let shared =
            Arc::new(Shared { address, state: Mutex::new(state), changed: Condvar::new() });
        let ours = Arc::clone(&shared);
        thread::spawn(move || ours.accept(listener));
        Self { shared }
    }

    /// Where clients connect to.
    pub fn addr(&self) -> SocketAddr {
        self.shared.address
    }

    /// Sends later connections elsewhere, as a failover does.
    pub fn retarget(&self, target: SocketAddr) {
        self.shared.state().target = target;
    }

    /// Closes all connections and refuses new ones.
    pub fn cut(&self) {
        self.shared.set_mode(Mode::Cut);
        // The listener has to go for connections to be refused; wait until it has.
        while TcpStream::connect(self.shared.address).is_ok() {
            thread::yield_now();
        }
    }

    /// Closes all connections; new ones are let in.
    pub fn reset(&self) {
        self.shared.close_connections(&mut self.shared.state());
    }

    /// Leaves connections open, and lets new ones in, but passes nothing on, as a network does
    /// that swallows packets.
    pub fn stall(&self) {
        self.shared.set_mode(Mode::Stalled);
    }

    /// Ends [`cut`](Self::cut) and [`stall`](Self::stall). What a stall held back goes on its way.
    pub fn restore(&self) {
        let was_cut = self.shared.state().mode == Mode::Cut;
        self.shared.set_mode(Mode::Open);
        // Clients may come from now on.
        while was_cut && TcpStream::connect(self.shared.address).is_err() {
            thread::yield_now();
        }
    }

    /// Holds each piece of data for some milliseconds in either direction.
    pub fn delay(&self, delay_ms: u64) {
        self.shared.state().delay = Duration::from_millis(delay_ms);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.set_mode(Mode::Closed);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_mode(&self, mode: Mode) {
        let mut state = self.state();
        state.mode = mode;
        if matches!(mode, Mode::Cut | Mode::Closed) {
            self.close_connections(&mut state);
        }
        drop(state);
        self.changed.notify_all();
        // Wakes the listener, which notices the mode only between two connections.
        drop(TcpStream::connect(self.address));
    }

    fn close_connections(&self, state: &mut State) {
        for (_, ends) in state.connections.drain() {
            for end in ends {
                let _ = end.shutdown(Shutdown::Both);
            }
        }
        self.changed.notify_all();
    }

    /// Waits while the mode is one of these, and returns the one that is not.
    fn wait_while(&self, modes: &[Mode]) -> MutexGuard<'_, State> {
        self.changed
            .wait_while(self.state(), |state| modes.contains(&state.mode))
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread that lets connections in.
    fn accept(self: &Arc<Self>, first: TcpListener) {
        let mut listener = Some(first);
        loop {
            let Some(open) = &listener else {
                if self.wait_while(&[Mode::Cut]).mode == Mode::Closed {
                    return;
                }
                // Nobody else is handed this port, see `ports`; if somebody took it all the same,
                // wait for it.
                listener = TcpListener::bind(self.address).ok();
                if listener.is_none() {
                    thread::sleep(Duration::from_millis(1));
                }
                continue;
            };
            let accepted = open.accept();
            match self.state().mode {
                Mode::Closed => return,
                Mode::Cut => listener = None,
                Mode::Open | Mode::Stalled => {
                    if let Ok((client, _)) = accepted {
                        let ours = Arc::clone(self);
                        thread::spawn(move || ours.connect(client));
                    }
                }
            }
        }
    }

    /// The thread that joins a client with the server.
    fn connect(self: Arc<Self>, client: TcpStream) {
        let target = self.state().target;
        let Ok(server) = TcpStream::connect(target) else { return };
        let pair = || Some([client.try_clone().ok()?, server.try_clone().ok()?]);
        let (Some(there), Some(kept)) = (pair(), pair()) else { return };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let number = {
            let mut state = self.state();
            if matches!(state.mode, Mode::Cut | Mode::Closed) {
                return;
            }
            state.next_connection += 1;
            let number = state.next_connection;
            state.connections.insert(number, kept);
            number
        };
        let ours = Arc::clone(&self);
        let other = thread::spawn(move || {
            let [client, server] = there;
            ours.pump(client, server);
        });
        self.pump(server, client);
        let _ = other.join();
        self.state().connections.remove(&number);
    }

    /// Carries one direction until either end closes.
    fn pump(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut chunk = vec![0; CHUNK];
        loop {
            let count = match from.read(&mut chunk) {
                Ok(count) if count > 0 => count,
                _ => break,
            };
            let delay = self.state().delay;
            if !delay.is_zero() {
                thread::sleep(delay);
            }
            if self.wait_while(&[Mode::Stalled]).mode != Mode::Open {
                break;
            }
            if to.write_all(&chunk[..count]).is_err() {
                break;
            }
        }
        // An end of data is passed on even so: the other direction may still be busy.
        let _ = to.shutdown(Shutdown::Write);
    }
}
