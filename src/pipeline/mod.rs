//! The loop that joins the rooms, and what happens when one of them fails.
//!
//! Each pipeline runs on a thread of its own with a runtime of its own: one that is stuck or busy
//! takes nothing from the others. What must go on whatever a pipeline does (telling the server
//! where we are, answering probes) runs on the control runtime.

mod access;
mod attempt;
mod backoff;
mod clusters;
mod commits;
mod desk;
mod diagnosis;
mod heartbeats;
mod holding;
mod keeper;
mod marks;
mod messages;
mod pace;
mod position_text;
mod positions;
mod reach;
mod recover;
mod recovery;
mod routes;
mod rows;
mod schemas;
mod sink;
mod snapshot;
mod source;
mod standing;
mod starting;
mod starts;
mod stopwatch;
mod stream;
mod streamed;
mod told;
mod topics;
mod transactions;
mod watching;
mod yielding;

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use crate::config;
use crate::control::Orders;
use crate::fault::{Class, Code, Fault};
use crate::postgres::{Connection, Mode};
use crate::status::{Pipeline, State};
pub(crate) use access::commands as access_commands;
use attempt::{Attempt, Outcome};
use backoff::Backoff;
pub use clusters::Clusters;
pub(crate) use diagnosis::{
    of_bytes, of_directory, of_disorder, of_kafka, of_plan, of_registry, of_row, of_source,
    of_too_many_relations, of_unknown_relation,
};
pub use keeper::now_us;
pub(crate) use reach::{kafka_settings, params, params_of_replica, registry_settings};
pub use recover::{Decision, Way, consider};
pub(crate) use routes::table_options;
pub(crate) use schemas::subjects;
pub(crate) use snapshot::{Replica, Target};
pub(crate) use source::{ANSWER, OLDEST_VERSION, answered};
pub use starts::Starts;
pub(crate) use topics::{check as check_topics, name as topic_of};
use yielding::STAY_AWAY;

/// How often a standby asks for the slot. A takeover takes this long after the slot is free.
const STANDBY_POLL: Duration = Duration::from_secs(1);

/// What a pipeline needs from the process it runs in.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Where feedback and checks run.
    pub control: Handle,
    /// Turns true when the daemon is asked to end.
    pub shutdown: watch::Receiver<bool>,
    /// Where the first failure goes, if the daemon should end with it.
    pub fail_fast: Option<mpsc::Sender<Fault>>,
    /// Whose turn it is to get ready.
    pub starts: Starts,
    /// Who asks Kafka.
    pub clusters: Clusters,
}

/// Starts a pipeline on a thread of its own.
///
/// # Errors
/// Where the system gives no thread or no reactor.
pub fn start(
    settings: config::settled::Pipeline,
    status: Arc<Pipeline>,
    orders: Orders,
    surroundings: Surroundings,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name(format!("pipeline-{}", settings.name)).spawn(move || {
        runtime.block_on(supervise(settings, status, orders, surroundings));
    })
}

/// Tries until asked to end. Where going on could lose something, somebody has to ask for it.
async fn supervise(
    settings: config::settled::Pipeline,
    status: Arc<Pipeline>,
    mut orders: Orders,
    surroundings: Surroundings,
) {
    let mut shutdown = surroundings.shutdown.clone();
    let mut backoff = Backoff::default();
    let fail_fast = surroundings.fail_fast.is_some();
    let (control, clusters) = (surroundings.control.clone(), surroundings.clusters.clone());
    let mut attempt = Attempt::new(settings, Arc::clone(&status), control, clusters, fail_fast);
    loop {
        if let Some(settings) = orders.begin() {
            attempt.take_on(&settings);
        }
        let ended = Box::pin(attempt.run(&shutdown, &mut orders, &surroundings.starts)).await;
        if attempt.has_streamed_well() {
            backoff.succeeded();
        }
        let fault = match ended {
            Ok(Outcome::Ended) => return,
            Ok(Outcome::Again) => continue,
            Ok(Outcome::Standby) => {
                stand_by(&status);
                if pause(&mut shutdown, STANDBY_POLL).await {
                    return;
                }
                continue;
            }
            Err(fault) => fault,
        };
        let class = fault.code.class();
        report(&status, &fault);
        if let Some(first) = &surroundings.fail_fast {
            // The receiver takes one and ends the process; more than one is of no use to it.
            let _ = first.try_send(fault);
            return;
        }
        let wait = backoff.failed(class);
        // Somebody else shall have it.
        let wait = if attempt.has_yielded() { wait.max(STAY_AWAY) } else { wait };
        // What stops a pipeline does not go away by itself, but may have been mended.
        let wait = (class != Class::Stop).then_some(wait);
        if !again(&mut shutdown, &mut orders, wait).await {
            return;
        }
        if class == Class::Stop {
            status.enter(State::Starting);
        }
        status.retried();
    }
}

/// Another daemon has the slot: not a failure, and said once.
fn stand_by(status: &Pipeline) {
    if status.state() != State::Standby {
        status.enter(State::Standby);
        tracing::info!(pipeline = status.name, "standing by: another connection reads the slot");
    }
}

/// Says a failure where people look. The same one again is not logged again.
fn report(status: &Pipeline, fault: &Fault) {
    let state = match fault.code.class() {
        Class::Stop => State::Stopped(fault.clone()),
        Class::Transient | Class::Operator => State::Waiting(fault.clone()),
    };
    let again = status.last_fault().is_some_and(|last| last == *fault);
    status.enter(state);
    if again {
        tracing::debug!(pipeline = status.name, code = fault.code.id(), "still so");
        return;
    }
    let Fault { code, what, mend } = fault;
    let class = code.class().as_str();
    tracing::error!(pipeline = status.name, code = code.id(), class, mend, "{what}");
}

/// Waits until it is time to try again, or somebody asks for that; false where the daemon was asked
/// to end meanwhile.
async fn again(
    shutdown: &mut watch::Receiver<bool>,
    orders: &mut Orders,
    wait: Option<Duration>,
) -> bool {
    let time = async {
        match wait {
            Some(wait) => tokio::time::sleep(wait).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        asked = shutdown.wait_for(|asked| *asked) => asked.is_err(),
        () = orders.resumed() => true,
        () = time => true,
    }
}

/// Waits; true where the daemon was asked to end meanwhile.
async fn pause(shutdown: &mut watch::Receiver<bool>, wait: Duration) -> bool {
    tokio::select! {
        asked = shutdown.wait_for(|asked| *asked) => asked.is_ok(),
        () = tokio::time::sleep(wait) => false,
    }
}

/// A failure of the process itself.
#[must_use]
pub fn cannot_start(error: &std::io::Error) -> Fault {
    Fault::new(
        Code::Internal,
        format!("a thread or socket of the daemon cannot be made: {error}"),
        "raise the limits of the process (ulimit -n, pids)",
    )
}

/// What a pipeline remembers; none where it has not begun.
///
/// # Errors
/// Where Kafka is away or refuses, or where what is there cannot be read.
pub async fn remembered(
    settings: &config::settled::Pipeline,
) -> Result<Option<waltide_core::checkpoint::Checkpoint>, Fault> {
    recovery::look(settings, &Clusters::default().admin(&settings.kafka)?).await
}

/// The SQL that gives a pipeline what it needs, for somebody with more rights to run.
///
/// # Errors
/// Where the source cannot be looked at.
pub async fn setup(settings: &config::settled::Pipeline) -> Result<String, Fault> {
    let params = params(&settings.source)?;
    let opened = Connection::open(&params, Mode::Plain).await;
    let mut connection = opened.map_err(|error| of_source(&error))?;
    source::setup_sql(&mut connection, settings).await
}
