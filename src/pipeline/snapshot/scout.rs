//! Looks at the source for snapshots, on a connection of its own: what is published, who is
//! writing, and what a table is made of.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use waltide_core::checkpoint::fingerprint;
use waltide_core::lsn::Lsn;
use waltide_core::pgoutput::{RelationId, Xid};
use waltide_core::snapshot::{Known, Seen, Span, widen};

use super::super::diagnosis;
use super::super::source::{ANSWER, answered};
use super::Event;
use super::target::Target;
use crate::config::TableName;
use crate::config::settled::Source;
use crate::fault::{Code, Fault};
use crate::postgres::catalog::PublishedTable;
use crate::postgres::{Connection, Error, Mode, Params, publication};

/// How often what is published is looked at.
const EVERY: Duration = Duration::from_secs(5);

/// What the owner wants to know.
#[derive(Debug)]
pub(super) enum Ask {
    /// Who is writing.
    Activity,
    /// What a table is made of.
    Measure(RelationId),
}

/// A table of the stream.
#[derive(Clone, Debug)]
pub(in super::super) struct Member {
    pub(super) published: PublishedTable,
    pub(super) known: Known,
}

impl Member {
    pub(super) fn name(&self) -> String {
        let PublishedTable { schema, name, .. } = &self.published;
        TableName { schema: schema.clone(), table: name.clone() }.to_string()
    }
}

/// What a table is made of, and how it is read.
#[derive(Debug)]
pub(in super::super) struct Measured {
    pub(super) target: Arc<Target>,
    pub(super) shape: u64,
    pub(super) at: Lsn,
    pub(super) spans: Vec<Span>,
}

pub(super) struct Scout {
    pub(super) params: Params,
    pub(super) source: Source,
    pub(super) asked: mpsc::Receiver<Ask>,
    pub(super) events: mpsc::Sender<Event>,
}

impl Scout {
    /// Answers until nobody asks any more.
    pub(super) async fn run(mut self) {
        let mut tick = interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut connection = None;
        loop {
            let asked = tokio::select! {
                asked = self.asked.recv() => match asked {
                    Some(asked) => Some(asked),
                    None => return,
                },
                _ = tick.tick() => None,
            };
            let event = match self.answer(&mut connection, asked.as_ref()).await {
                Ok(event) => event,
                Err(error) => {
                    connection = None;
                    Event::Unanswered(asked.and_then(|asked| asked.table()), error)
                }
            };
            if self.events.send(event).await.is_err() {
                return;
            }
        }
    }

    async fn answer(
        &self,
        connection: &mut Option<Connection>,
        asked: Option<&Ask>,
    ) -> Result<Event, Fault> {
        let source = |error: Error| diagnosis::of_source(&error);
        let on = match connection {
            Some(open) => open,
            none => {
                let open = Connection::open(&self.params, Mode::Plain).await.map_err(source)?;
                none.insert(open)
            }
        };
        let peer = on.peer().clone();
        let work = async {
            match asked {
                None => covered(on, &self.source).await,
                Some(Ask::Activity) => active(on).await,
                Some(Ask::Measure(table)) => measure(on, &self.source, *table).await,
            }
        };
        answered(ANSWER, &peer, work).await.map_err(source)
    }
}

impl Ask {
    fn table(&self) -> Option<RelationId> {
        match self {
            Self::Activity => None,
            Self::Measure(table) => Some(*table),
        }
    }
}

/// What the publications cover of what is captured.
async fn covered(on: &mut Connection, source: &Source) -> Result<Event, Error> {
    let (mut members, mut publications) = (Vec::new(), 0);
    for name in [source.publication.clone(), publication::inserts_only(&source.publication)] {
        let Some(found) = on.load_publication(&name).await? else { continue };
        publications += 1;
        let captured = |table: &PublishedTable| source.captures(&table.schema, &table.name);
        members.extend(found.tables.into_iter().filter(captured));
    }
    // Without any, it is not the tables that have gone.
    if publications == 0 {
        let what = format!("publication {} is gone", source.publication);
        let fault = Fault::new(Code::PublicationUnusable, what, "make it again");
        return Ok(Event::Unanswered(None, fault));
    }
    let ids: Vec<RelationId> = members.iter().map(|table| table.id).collect();
    let mut partitions = on.partitions(&ids).await?;
    let member = |published: PublishedTable| {
        let leaves: BTreeSet<_> =
            partitions.remove(&published.id.0).unwrap_or_default().into_iter().collect();
        Member { known: Known { fingerprint: membership(&published), leaves }, published }
    };
    Ok(Event::Covered(members.into_iter().map(member).collect()))
}

/// Changes when a table has been taken out of a publication and put in again, and when other rows
/// or columns of it are published.
fn membership(table: &PublishedTable) -> u64 {
    let columns = if table.column_list { table.columns.join(",") } else { "*".to_owned() };
    let filter = table.filter.as_deref().unwrap_or_default();
    fingerprint(format!("{:?} {columns} {filter}", table.memberships).as_bytes())
}

async fn active(on: &mut Connection) -> Result<Event, Error> {
    let activity = on.activity().await?;
    let seen: Seen = activity
        .snapshot
        .parse()
        .map_err(|_| Error::protocol(on.peer(), "a snapshot cannot be read"))?;
    let open = activity.open.into_iter().map(|xid| widen(Xid(xid), seen.xmax)).collect();
    Ok(Event::Active { open, seen })
}

/// The shape comes first: if the rest is already that of another one, no chunk will fit it.
async fn measure(on: &mut Connection, source: &Source, id: RelationId) -> Result<Event, Error> {
    let Some(shape) = on.shape_of(id).await? else { return Ok(Event::Gone(id)) };
    let published = match covered(on, source).await? {
        Event::Covered(members) => {
            members.into_iter().map(|one| one.published).find(|table| table.id == id)
        }
        Event::Unanswered(_, fault) => return Ok(Event::Unanswered(Some(id), fault)),
        other => return Ok(other),
    };
    let Some(table) = published else { return Ok(Event::Gone(id)) };
    let Some(relation) = on.as_published(&table).await? else { return Ok(Event::Gone(id)) };
    let oids: Vec<u32> = relation.columns.iter().map(|column| column.type_oid).collect();
    let types = on.load_types(&oids).await?;
    let leaves = on.leaves(table.id).await?;
    let at = on.insert_lsn().await?;
    let spans = leaves.iter().filter_map(|leaf| Span::whole(leaf.id, leaf.file, leaf.blocks));
    Ok(Event::Measured(Box::new(Measured {
        spans: spans.collect(),
        target: Arc::new(Target::new(&table, relation, &types, &leaves)),
        shape: fingerprint(shape.as_bytes()),
        at,
    })))
}
