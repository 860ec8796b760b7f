//! Every precondition of a pipeline, looked at before anything runs. Nothing is changed anywhere.
//!
//! ```text
//! source (server, role, slots, publication) -> tables -> replicas -> kafka -> registry
//! ```
//!
//! Each finding says what is so; a warning or an error also says what mends it, literally: SQL to
//! run, a command, a line of the configuration. Judgements are functions of what was read, so that
//! what no test can bring about on a real server is tested all the same.

mod finding;
mod kafka;
mod publication;
mod registry;
mod replica;
mod server;
mod slots;
mod source;
mod tables;
mod versions;

pub use finding::{Finding, Level, Step};

use crate::config::settled::Pipeline;

/// Looks at everything a pipeline needs. One server that is away does not hide the others.
pub async fn look(settings: &Pipeline) -> Vec<Finding> {
    let (source, replica, registry) =
        tokio::join!(source::look(settings), replica::look(settings), registry::look(settings));
    let (mut findings, tables) = source;
    findings.extend(replica);
    findings.extend(kafka::look(settings, &tables).await);
    findings.extend(registry);
    findings
}
