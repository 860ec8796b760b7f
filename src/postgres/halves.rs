//! A socket in two halves, for a stream that one task reads and another answers.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use nix::libc;
use nix::sys::socket::setsockopt;
use nix::{getsockopt_impl, setsockopt_impl, sockopt_impl};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, tcp, unix};

use super::transport::{Socket, Tls, writes};

sockopt_impl!(
    /// Below how many waiting bytes a reader is not woken.
    ReceiveLowWater, Both, libc::SOL_SOCKET, libc::SO_RCVLOWAT, usize);

/// What is read from.
pub(super) enum ReadHalf {
    Tcp(tcp::OwnedReadHalf),
    Unix(unix::OwnedReadHalf),
    /// With a second handle on the socket, for its options.
    Tls(tokio::io::ReadHalf<Box<Tls>>, socket2::Socket),
}

/// What is written to.
pub(super) enum WriteHalf {
    Tcp(tcp::OwnedWriteHalf),
    Unix(unix::OwnedWriteHalf),
    Tls(tokio::io::WriteHalf<Box<Tls>>),
}

impl Socket {
    /// Two halves that can live in different tasks.
    pub(super) fn split(self) -> io::Result<(ReadHalf, WriteHalf)> {
        Ok(match self {
            Self::Tcp(stream) => {
                let (read, write) = stream.into_split();
                (ReadHalf::Tcp(read), WriteHalf::Tcp(write))
            }
            Self::Unix(stream) => {
                let (read, write) = stream.into_split();
                (ReadHalf::Unix(read), WriteHalf::Unix(write))
            }
            Self::Tls(stream) => {
                let options = SockRef::from(stream.get_ref().0.get_ref()).try_clone()?;
                let (read, write) = tokio::io::split(stream);
                (ReadHalf::Tls(read, options), WriteHalf::Tls(write))
            }
        })
    }

    /// The halves of one socket as one again; `None` where they are of different ones.
    pub(super) fn join(read: ReadHalf, write: WriteHalf) -> Option<Self> {
        match (read, write) {
            (ReadHalf::Tcp(read), WriteHalf::Tcp(write)) => read.reunite(write).ok().map(Self::Tcp),
            (ReadHalf::Unix(read), WriteHalf::Unix(write)) => {
                read.reunite(write).ok().map(Self::Unix)
            }
            (ReadHalf::Tls(read, _), WriteHalf::Tls(write)) => {
                read.is_pair_of(&write).then(|| Self::Tls(read.unsplit(write)))
            }
            _ => None,
        }
    }
}

impl ReadHalf {
    /// Below how many waiting bytes the system leaves a reader asleep. A Unix socket has no such
    /// mark, and needs none: there `false` comes back.
    pub(super) fn set_low_water(&self, bytes: usize) -> io::Result<bool> {
        match self {
            Self::Tcp(half) => {
                let stream: &TcpStream = half.as_ref();
                setsockopt(stream, ReceiveLowWater, &bytes)?;
            }
            Self::Tls(_, options) => setsockopt(options, ReceiveLowWater, &bytes)?,
            Self::Unix(_) => return Ok(false),
        }
        Ok(true)
    }
}

impl AsyncRead for ReadHalf {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(half) => Pin::new(half).poll_read(cx, buf),
            Self::Unix(half) => Pin::new(half).poll_read(cx, buf),
            Self::Tls(half, _) => Pin::new(half).poll_read(cx, buf),
        }
    }
}

writes!(WriteHalf);
