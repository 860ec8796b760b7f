//! What is known of a session besides what it is asked: who answers, its settings, its notices,
//! and whether it is free for the next command.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::cancel::CancelToken;
use super::error::{Error, Peer, ServerError};
use super::message;
use super::params::Params;

/// Notices that nobody has taken are kept up to this many; a server in a loop must not fill our
/// memory, and the newest say most about what is happening now.
pub const MAX_NOTICES: usize = 32;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Queries and COPY.
    Plain,
    /// Replication commands, and simple queries.
    Replication,
}

/// What can be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The server waits for a command.
    Ready,
    /// A command was sent and its answer not read to the end. A connection that stays here was
    /// given up in the middle and is of no further use.
    Busy,
    /// The stream has started.
    CopyBoth,
}

pub(super) struct Session {
    pub(super) mode: Mode,
    pub(super) state: State,
    /// Whether a stream was started, which a server process can do once.
    pub(super) has_streamed: bool,
    /// `I` idle, `T` in a transaction, `E` in a failed one.
    pub(super) transaction: u8,
    pub(super) parameters: HashMap<String, String>,
    pub(super) backend: Option<Backend>,
    pub(super) notices: VecDeque<ServerError>,
    pub(super) params: Arc<Params>,
    pub(super) target: Target,
}

/// The server process that serves us, and the secret that cancels its work.
#[derive(Clone)]
pub(super) struct Backend {
    pub(super) process_id: i32,
    pub(super) secret: Vec<u8>,
}

/// Where exactly we are connected to.
#[derive(Clone, Debug)]
pub(super) enum Target {
    Tcp(std::net::SocketAddr),
    Unix(std::path::PathBuf, u16),
}

impl Session {
    pub(super) fn new(mode: Mode, params: Arc<Params>, target: Target) -> Self {
        Self {
            mode,
            state: State::Busy,
            has_streamed: false,
            transaction: b'I',
            parameters: HashMap::new(),
            backend: None,
            notices: VecDeque::new(),
            params,
            target,
        }
    }

    /// Takes a message that may come at any moment; `false` if this is none of them.
    pub(super) fn take_aside(&mut self, tag: u8, body: &[u8]) -> bool {
        match tag {
            b'N' => {
                if self.notices.len() == MAX_NOTICES {
                    self.notices.pop_front();
                }
                self.notices.push_back(message::server_error(body));
            }
            b'S' => self.parameters.extend(message::parameter_status(body)),
            // A notification: nobody here listens.
            b'A' => {}
            _ => return false,
        }
        true
    }

    pub(super) fn ready(&mut self, body: &[u8]) {
        self.state = State::Ready;
        self.transaction = body.first().copied().unwrap_or(b'I');
    }

    /// The session is taken for one command, if it is free.
    pub(super) fn begin(&mut self, peer: &Peer) -> Result<(), Error> {
        match self.state {
            State::Ready => {
                self.state = State::Busy;
                Ok(())
            }
            // Whoever asks has not heard, or not minded, how that command ended.
            State::Busy => Err(Error::given_up(peer)),
            State::CopyBoth => Err(Error::protocol(peer, "the replication stream has started")),
        }
    }

    /// The server's version as in `server_version_num`: 150018 for 15.18; 0 where it is not told.
    pub(super) fn version_num(&self) -> u32 {
        self.parameters.get("server_version").map_or(0, |text| version_num(text))
    }

    pub(super) fn cancel_token(&self, peer: &Peer, encrypted: bool) -> Option<CancelToken> {
        let backend = self.backend.clone()?;
        let (params, target) = (self.params.clone(), self.target.clone());
        Some(CancelToken { params, target, peer: peer.clone(), backend, encrypted })
    }
}

/// Of `15.18 (Debian 15.18-1)`, `18beta1` and the like.
fn version_num(text: &str) -> u32 {
    let digits = |text: &str| {
        let end = text.find(|char: char| !char.is_ascii_digit()).unwrap_or(text.len());
        let (digits, rest) = text.split_at(end);
        (digits.parse::<u32>().ok(), rest.to_owned())
    };
    let (Some(major), rest) = digits(text) else { return 0 };
    let minor = rest.strip_prefix('.').and_then(|rest| digits(rest).0).unwrap_or(0);
    major.saturating_mul(10_000).saturating_add(minor)
}

#[cfg(test)]
mod tests {
    use super::version_num;

    #[test]
    fn a_version_is_read_as_the_server_numbers_it() {
        for (text, number) in [
            ("14.24", 140_024),
            ("15.18 (Debian 15.18-1.pgdg12+1)", 150_018),
            ("18beta1", 180_000),
            ("19devel", 190_000),
            ("", 0),
            ("x", 0),
        ] {
            assert_eq!(version_num(text), number, "{text}");
        }
    }
}
