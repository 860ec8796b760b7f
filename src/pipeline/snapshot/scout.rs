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
use waltide_core::snapshot::{Filter, Known, Seen, Span, widen};

use super::super::diagnosis;
use super::super::source::{ANSWER, answered};
use super::limits::Furthest;
use super::target::Target;
use super::{Event, Wanted, vet};
use crate::config::TableName;
use crate::config::settled::Source;
use crate::fault::{Code, Fault};
use crate::postgres::catalog::PublishedTable;
use crate::postgres::sql::identifier;
use crate::postgres::{Connection, Error, Mode, Params, publication};

/// How often what is published is looked at.
const EVERY: Duration = Duration::from_secs(5);

/// What the owner wants to know.
#[derive(Debug)]
pub(super) enum Ask {
    /// Who is writing.
    Activity,
    /// How far replicas are.
    Replicas,
    /// What a table is made of, and whether its rows can be told by this.
    Measure(RelationId, Option<Filter>),
    /// Whether what somebody wants can be read.
    Vet(Box<Wanted>),
}

/// A table of the stream.
#[derive(Clone, Debug)]
pub(in super::super) struct Member {
    pub(super) published: PublishedTable,
    pub(super) known: Known,
}

impl Member {
    pub(super) fn name(&self) -> String {
        self.table_name().to_string()
    }

    pub(super) fn table_name(&self) -> TableName {
        let PublishedTable { schema, name, .. } = &self.published;
        TableName { schema: schema.clone(), table: name.clone() }
    }

    pub(super) fn is_called(&self, name: &TableName) -> bool {
        self.published.schema == name.schema && self.published.name == name.table
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
            let answer = self.answer(&mut connection, asked.as_ref()).await;
            if answer.is_err() {
                connection = None;
            }
            let event = match (answer, asked) {
                (Ok(Event::Covered(members)), Some(Ask::Vet(wanted))) => {
                    Event::Vetted(wanted, Ok(members))
                }
                (Ok(Event::Unanswered(_, fault)) | Err(fault), Some(Ask::Vet(wanted))) => {
                    Event::Vetted(wanted, Err(fault))
                }
                (Ok(event), _) => event,
                (Err(fault), asked) => {
                    Event::Unanswered(asked.and_then(|asked| asked.table()), fault)
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
                Some(Ask::Replicas) => replicas(on).await,
                Some(Ask::Measure(table, filter)) => {
                    measure(on, &self.source, *table, filter.as_ref()).await
                }
                Some(Ask::Vet(wanted)) => vet::look(on, &self.source, wanted).await,
            }
        };
        answered(ANSWER, &peer, work).await.map_err(source)
    }
}

impl Ask {
    fn table(&self) -> Option<RelationId> {
        match self {
            Self::Activity | Self::Replicas | Self::Vet(_) => None,
            Self::Measure(table, _) => Some(*table),
        }
    }
}

/// What the publications cover of what is captured.
pub(super) async fn covered(on: &mut Connection, source: &Source) -> Result<Event, Error> {
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

/// Replicas that are connected, as the primary knows them; whoever reads a logical slot is none.
async fn replicas(on: &mut Connection) -> Result<Event, Error> {
    let sql = "SELECT application_name, state IS NULL, \
               pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)::bigint \
               FROM pg_stat_replication r WHERE NOT EXISTS (SELECT FROM pg_replication_slots s \
               WHERE s.active_pid = r.pid AND s.slot_type = 'logical')";
    let rows = on.simple_query(sql).await?;
    let cell = |row: &[Option<String>], at: usize| row.get(at).cloned().flatten();
    if rows.rows.iter().any(|row| cell(row, 1).as_deref() == Some("t")) {
        let role = identifier(on.peer().user());
        return Ok(Event::Replicas(Err(Fault::new(
            Code::SourcePrivilege,
            "the role may not see how far replicas of the source are, which \
             `snapshot.max_replica_lag_bytes` asks for",
            format!("have a superuser run: GRANT pg_read_all_stats TO {role}"),
        ))));
    }
    // One that replays nothing, such as a backup, has no position.
    let behind = |row: &Vec<Option<String>>| {
        let bytes: i64 = cell(row, 2)?.parse().ok()?;
        let bytes = u64::try_from(bytes).unwrap_or(0);
        Some(Furthest { name: cell(row, 0).unwrap_or_default(), bytes })
    };
    let furthest = rows.rows.iter().filter_map(behind).max_by_key(|one| one.bytes);
    Ok(Event::Replicas(Ok(furthest)))
}

/// The shape comes first: if the rest is already that of another one, no chunk will fit it.
async fn measure(
    on: &mut Connection,
    source: &Source,
    id: RelationId,
    filter: Option<&Filter>,
) -> Result<Event, Error> {
    let Some(shape) = on.shape_of(id).await? else { return Ok(Event::Gone(id)) };
    let published = match covered(on, source).await? {
        Event::Covered(members) => {
            members.into_iter().map(|one| one.published).find(|table| table.id == id)
        }
        Event::Unanswered(_, fault) => return Ok(Event::Unanswered(Some(id), fault)),
        other => return Ok(other),
    };
    let Some(table) = published else { return Ok(Event::Gone(id)) };
    if let (Some(_), Err(fault)) = (filter, vet::rows(on, &table, filter).await?) {
        return Ok(Event::Unanswered(Some(id), fault));
    }
    let Some(relation) = on.as_published(&table).await? else { return Ok(Event::Gone(id)) };
    let oids: Vec<u32> = relation.columns.iter().map(|column| column.type_oid).collect();
    let types = on.load_types(&oids).await?;
    let leaves = on.leaves(table.id).await?;
    let at = on.insert_lsn().await?;
    let spans = leaves.iter().filter_map(|leaf| Span::whole(leaf.id, leaf.file, leaf.blocks));
    Ok(Event::Measured(Box::new(Measured {
        spans: spans.collect(),
        target: Arc::new(Target::new(&table, relation, &types, &leaves, filter)),
        shape: fingerprint(shape.as_bytes()),
        at,
    })))
}
