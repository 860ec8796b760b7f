//! Free TCP ports.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::TcpListener;

/// Below the ports that the kernel hands to outgoing connections, so that none of those can take
/// the port of a server that is stopped for a moment and comes back.
const RANGE: std::ops::Range<u16> = 15_000..32_000;

/// A port nobody listens on just now. Another process may be quicker, so whoever starts a server
/// on it tries again with another when the bind fails.
pub(crate) fn free_port() -> u16 {
    loop {
        let port = RANGE.start + random() % (RANGE.end - RANGE.start);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Enough chance for a port: the hasher's seed comes from the operating system.
fn random() -> u16 {
    let bytes = RandomState::new().build_hasher().finish().to_le_bytes();
    u16::from_le_bytes([bytes[0], bytes[1]])
}
