//! A PostgreSQL client: transport, TLS and login once, for catalog queries, COPY and replication.
//!
//! ```text
//! url -> params -> open -> link (transport, tls, auth) -> connection -> query, copy, catalog, slot
//!                                                                    -> replication -> stream
//! ```
//!
//! Nothing here retries, logs or decides: every failure comes back as an [`Error`] that keeps the
//! server's SQLSTATE, and the caller knows what to do about it.

mod auth;
mod cancel;
pub mod catalog;
mod cells;
mod certificate;
mod connection;
mod copy;
mod error;
mod fetch;
mod frame;
mod halves;
mod link;
mod message;
mod open;
pub mod params;
mod passfile;
pub mod publication;
mod query;
mod replication;
mod session;
mod settings;
mod slot;
pub mod sql;
mod stream;
mod tls;
mod transport;
pub mod url;

pub use cancel::CancelToken;
pub use connection::Connection;
pub use copy::{COPY_BUFFER_LEN, CopyOut};
pub use error::{AuthError, Error, Peer, ServerError, SqlState};
pub use fetch::Value;
pub use frame::MAX_MESSAGE_LEN;
pub use params::{Host, Params, Password, PasswordSource};
pub use query::{MAX_RESULT_LEN, Rows};
pub use replication::{CreatedSlot, NewSlot, StreamOptions, SystemIdentity, protocol_version};
pub use session::{MAX_NOTICES, Mode};
pub use slot::{Slot, WalStatus};
pub use stream::{STREAM_BUFFER_LEN, StreamReader, StreamWriter};
