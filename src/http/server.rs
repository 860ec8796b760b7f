//! Accepts connections and bounds what they may take: whoever is slow, large or many costs the
//! daemon a little memory, and pipelines nothing. It runs on a thread of its own.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::tls::Identity;
use crate::fault::{Code, Fault};
use crate::pipeline::cannot_start;

/// Connections at once. Probes, Prometheus and a room of people need a tenth; the usual limit of a
/// process is 1,024 files. The oldest gives way to one more, so that a flood keeps no probe out.
const CONNECTIONS: usize = 256;

/// How long a request's head may take to come, and a connection may idle.
const HEAD: Duration = Duration::from_secs(10);

/// The largest head. A browser's with cookies has two KiB.
const HEAD_BYTES: usize = 16 << 10;

/// How long a connection may live. One that is in use then is ended after its request.
const LIFE: Duration = Duration::from_secs(120);

/// How long that request may take.
const FAREWELL: Duration = Duration::from_secs(10);

/// What TLS begins with, and no request of HTTP does.
const HANDSHAKE: u8 = 0x16;

/// After the system gave no connection: it has no files left, and some will be free.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// Listens, so that a taken address is known before anything is started.
///
/// # Errors
/// Where the address cannot be had.
pub fn listen(address: SocketAddr) -> Result<std::net::TcpListener, Fault> {
    let listening = std::net::TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    listening.map_err(|error| {
        Fault::new(
            Code::ListenFailed,
            format!("cannot listen on {address}: {error}"),
            "set http.listen to an address and port of this host that is free",
        )
    })
}

/// Answers on a thread of its own, until the process ends, and does something `beside`.
///
/// # Errors
/// Where the system gives no thread or no reactor.
pub(super) fn start(
    listener: std::net::TcpListener,
    router: Router,
    tls: Option<Arc<Identity>>,
    beside: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Fault> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| cannot_start(&error))?;
    let listener = {
        let _entered = runtime.enter();
        TcpListener::from_std(listener).map_err(|error| cannot_start(&error))?
    };
    let serve = move || {
        runtime.spawn(beside);
        runtime.block_on(accept(listener, Way { router, tls }));
    };
    let thread = std::thread::Builder::new().name("http".to_owned()).spawn(serve);
    thread.map(drop).map_err(|error| cannot_start(&error))
}

/// How a connection is answered.
#[derive(Clone)]
struct Way {
    router: Router,
    tls: Option<Arc<Identity>>,
}

async fn accept(listener: TcpListener, way: Way) {
    let mut open: VecDeque<JoinHandle<()>> = VecDeque::with_capacity(CONNECTIONS);
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "no connection could be accepted");
                sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        if open.len() >= CONNECTIONS {
            open.retain(|one| !one.is_finished());
        }
        if open.len() >= CONNECTIONS
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        open.push_back(tokio::spawn(one(stream, way.clone())));
    }
}

async fn one(stream: TcpStream, Way { router, tls }: Way) {
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else { return talk(stream, router).await };
    let mut first = [0];
    match timeout(HEAD, stream.peek(&mut first)).await {
        Ok(Ok(1)) if first == [HANDSHAKE] => {
            if let Ok(Ok(stream)) = timeout(HEAD, tls.acceptor().accept(stream)).await {
                talk(stream, router).await;
            }
        }
        Ok(Ok(1)) => talk(stream, Router::new().fallback(super::in_the_clear)).await,
        _ => {}
    }
}

/// Answers the requests of one connection.
async fn talk(stream: impl AsyncRead + AsyncWrite + Unpin, router: Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    // What goes wrong on a connection is its client's to see.
    if timeout(LIFE, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = timeout(FAREWELL, connection).await;
    }
}
