//! Takes the slot. Holding it is leadership: nothing is written to Kafka before.

use std::sync::Arc;

use tokio::runtime::Handle;
use waltide_core::checkpoint::SourceFacts;
use waltide_core::lsn::{DurableLsn, Lsn};

use super::diagnosis;
use super::positions::Positions;
use super::source::{ANSWER, Published, answered};
use super::told::Told;
use crate::config::settled::Pipeline;
use crate::fault::Fault;
use crate::postgres::sql::identifier;
use crate::postgres::{Connection, Error, Mode, Params, SqlState, StreamOptions, StreamReader};

/// A slot that is ours, and the stream through it.
pub(super) struct Held {
    pub(super) reader: StreamReader,
    pub(super) told: Told,
    pub(super) positions: Arc<Positions>,
    pub(super) facts: SourceFacts,
    pub(super) holding: Holding,
    /// Where the server's log ended meanwhile.
    pub(super) pending: Lsn,
}

/// The slot, and the server's process through which it is held.
#[derive(Clone, Debug)]
pub(super) struct Holding {
    pub(super) params: Params,
    pub(super) slot: String,
    pub(super) pid: Option<i32>,
}

impl Holding {
    /// Asks the server whether the slot is still ours.
    pub(super) async fn is_ours(&self) -> Result<bool, Fault> {
        let opened = Connection::open(&self.params, Mode::Plain).await;
        let mut on = opened.map_err(|error| diagnosis::of_source(&error))?;
        self.is_ours_by(&mut on).await
    }

    /// The same, by a connection that there is.
    pub(super) async fn is_ours_by(&self, on: &mut Connection) -> Result<bool, Fault> {
        let peer = on.peer().clone();
        let slot = answered(ANSWER, &peer, on.read_slot(&self.slot)).await;
        let slot = slot.map_err(|error| diagnosis::of_source(&error))?;
        Ok(slot.is_some_and(|slot| slot.active_pid.is_some() && slot.active_pid == self.pid))
    }
}

/// What it takes to take a slot.
#[derive(Clone, Copy)]
pub(super) struct Ask<'a> {
    pub(super) settings: &'a Pipeline,
    pub(super) params: &'a Params,
    pub(super) published: &'a Published,
    /// Whether the slot was made just now.
    pub(super) made: bool,
    /// Whether large transactions are wanted before they are committed.
    pub(super) streaming: bool,
}

/// Takes the slot, which is leadership; `None` where another has it.
pub(super) async fn hold(
    catalog: &mut Connection,
    control: &Handle,
    asked: Ask<'_>,
) -> Result<Option<Held>, Fault> {
    let Ask { settings, params, published, made, streaming } = asked;
    let source = |error: Error| diagnosis::of_source(&error);
    let name = &settings.source.slot;
    let mut connection = Connection::open(params, Mode::Replication).await.map_err(source)?;
    let peer = catalog.peer().clone();
    let ask = async {
        let identity = connection.identify_system().await?;
        let history = connection.timeline_history(identity.timeline).await?;
        if settings.source.failover {
            have_it_copied(&mut connection, name).await?;
        }
        start_replication(&mut connection, settings, published, streaming).await?;
        Ok((identity, history))
    };
    let (identity, timeline_history) = match answered(ANSWER, &peer, ask).await {
        Err(error) if error.sqlstate() == Some(SqlState::OBJECT_IN_USE) => return Ok(None),
        answer => answer.map_err(source)?,
    };
    let pid = connection.process_id();
    // The slot is ours now; where it stands counts only from here on.
    let look = async {
        let slot = catalog.read_slot(name).await?;
        Ok((slot.and_then(|slot| slot.confirmed_flush_lsn), catalog.current_wal_lsn().await?))
    };
    let (slot, pending) = answered(ANSWER, &peer, look).await.map_err(source)?;
    let slot_confirmed = slot.ok_or_else(|| diagnosis::of_vanished_slot(name))?;
    let (reader, writer) = connection.into_stream().map_err(source)?;
    let positions = Arc::new(Positions::starting(DurableLsn::proven(slot_confirmed)));
    let told = Told::start(control, writer, Arc::clone(&positions));
    let facts = SourceFacts {
        system_identifier: identity.system_identifier,
        timeline: identity.timeline,
        flushed: identity.flushed,
        timeline_history,
        database: peer.database().to_owned(),
        slot_confirmed,
        slot_created_now: made,
    };
    let holding = Holding { params: params.clone(), slot: name.clone(), pid };
    Ok(Some(Held { reader, told, positions, facts, holding, pending }))
}

/// A slot that was made without it is copied to standbys from now on.
async fn have_it_copied(connection: &mut Connection, name: &str) -> Result<(), Error> {
    if connection.read_slot(name).await?.and_then(|slot| slot.failover) == Some(false) {
        let sql = format!("ALTER_REPLICATION_SLOT {} (FAILOVER true)", identifier(name));
        connection.simple_query(&sql).await?;
        tracing::info!(slot = name, "standbys keep a copy of the slot from now on");
    }
    Ok(())
}

async fn start_replication(
    connection: &mut Connection,
    settings: &Pipeline,
    published: &Published,
    streaming: bool,
) -> Result<(), Error> {
    let publications: Vec<&str> = published.publications.iter().map(String::as_str).collect();
    let options = StreamOptions {
        publications: &publications,
        binary: settings.source.binary,
        streaming,
        messages: settings.messages,
        any_origin: true,
    };
    // From where the slot stands: what repeats is left out here.
    connection.start_replication(&settings.source.slot, Lsn::ZERO, &options).await
}
