//! What a connection has said of its relations. On the row path: a look-up does not allocate.
//!
//! The server describes a relation once and then counts on us to remember it, so this cache
//! must hold exactly what the server believes we hold; a stale entry lays a row out wrongly and
//! nothing else notices. The server's book-keeping (`pgoutput.c`, `maybe_send_schema` and
//! `cleanup_rel_sync_cache`, the same from 14 to 18) is:
//!
//! - A relation is described again after anything about it may have changed, and each
//!   description replaces the one before, whatever it says.
//! - A streamed transaction gets descriptions of its own, even of relations that the connection
//!   has seen. They count for that transaction only, until its Stream Commit makes them count
//!   for the connection; the server does not send them again after it.
//! - Any Stream Abort of the transaction, of a subtransaction too, makes the server forget what
//!   it described in it.
//!
//! One hazard is left. While a streamed transaction is open, the publication's column list may
//! change (that waits for no lock on the table), and the connection may be told of the new layout
//! before the older transaction commits. 15.6 then sends rows of the new layout without another
//! word; newer minor releases describe the table once more. So what joins the connection at Stream
//! Commit replaces only what was described before it: the newest description wins, by arrival and
//! not by commit.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use rustc_hash::FxHashMap;

use super::{RelationBody, RelationId, ReplicaIdentity, Xid};

/// A relation as the stream described it, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    /// Its OID.
    pub id: RelationId,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// How old rows are identified.
    pub identity: ReplicaIdentity,
    /// Its columns, in the order of every tuple.
    pub columns: Vec<RelationColumn>,
}

/// A column of a [`Relation`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelationColumn {
    /// Whether it is part of the replica identity.
    pub key: bool,
    /// Its name.
    pub name: String,
    /// Its type's OID.
    pub type_oid: u32,
    /// Its type modifier; -1 for none.
    pub type_modifier: i32,
}

impl From<&RelationBody<'_>> for Relation {
    fn from(body: &RelationBody<'_>) -> Self {
        let columns = body.columns.iter().map(|column| RelationColumn {
            key: column.key,
            name: column.name.to_owned(),
            type_oid: column.type_oid,
            type_modifier: column.type_modifier,
        });
        Self {
            id: body.id,
            schema: body.schema.to_owned(),
            name: body.name.to_owned(),
            identity: body.identity,
            columns: columns.collect(),
        }
    }
}

/// Relations by OID, each with what the caller hangs on it: its compiled plan.
#[derive(Clone, Debug)]
pub struct Relations<P> {
    entries: Vec<Slot<P>>,
    index: FxHashMap<u32, usize>,
    /// Rows come in runs of one relation: the entry looked up last is tried first.
    last: usize,
}

#[derive(Clone, Debug)]
struct Slot<P> {
    relation: Relation,
    payload: P,
    /// Counts descriptions in the order they came in on the connection.
    arrival: u64,
}

impl<P> Default for Relations<P> {
    fn default() -> Self {
        Self { entries: Vec::new(), index: HashMap::default(), last: 0 }
    }
}

impl<P> Relations<P> {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces what was known of this relation.
    pub fn insert(&mut self, relation: Relation, payload: P) {
        self.put(Slot { relation, payload, arrival: 0 });
    }

    /// The relation and its payload.
    #[inline]
    pub fn get(&mut self, id: RelationId) -> Option<(&Relation, &mut P)> {
        if self.entries.get(self.last).is_none_or(|slot| slot.relation.id != id) {
            self.last = *self.index.get(&id.0)?;
        }
        let slot = self.entries.get_mut(self.last)?;
        Some((&slot.relation, &mut slot.payload))
    }

    /// How many relations are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Puts the slot in, unless what is there arrived later.
    fn put(&mut self, slot: Slot<P>) {
        match self.index.entry(slot.relation.id.0) {
            Entry::Occupied(at) => match self.entries.get_mut(*at.get()) {
                Some(known) if known.arrival <= slot.arrival => *known = slot,
                _ => {}
            },
            Entry::Vacant(at) => {
                at.insert(self.entries.len());
                self.entries.push(slot);
            }
        }
    }
}

/// The connection has described more relations than are remembered.
///
/// The server drops nothing from its own cache while a connection lives, so neither can we; a
/// new connection starts with an empty one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyRelations;

impl std::fmt::Display for TooManyRelations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let limit = MAX_RELATIONS;
        write!(f, "the connection described over {limit} relations; connect again to go on")
    }
}

impl std::error::Error for TooManyRelations {}

/// Descriptions remembered on one connection, those of open streamed transactions included. Far
/// above what databases hold; it is there for those that create and drop tables all day, whose
/// dropped ones would otherwise stay for as long as the connection does.
pub const MAX_RELATIONS: usize = 1 << 17;

/// What one connection has said of its relations, and what its streamed transactions have.
///
/// Call the method named after a message when that message arrives; Stream Commit's once the
/// transaction is published, before which no other message may come. A spooled transaction is
/// published between [`RelationCache::publish`] and [`RelationCache::stream_commit`]: its rows are
/// those of the Relation messages before them in the spool, whatever came since.
#[derive(Clone, Debug)]
pub struct RelationCache<P> {
    connection: Relations<P>,
    /// Open streamed transactions other than the one whose block is being read. A handful: the
    /// server streams the largest ones only.
    streamed: Vec<(Xid, Relations<P>)>,
    block: Option<(Xid, Relations<P>)>,
    /// Of the streamed transaction that is being published.
    published: Option<Relations<P>>,
    arrivals: u64,
}

impl<P> Default for RelationCache<P> {
    fn default() -> Self {
        let connection = Relations::new();
        Self { connection, streamed: Vec::new(), block: None, published: None, arrivals: 0 }
    }
}

impl<P> RelationCache<P> {
    /// For a connection on which nothing has been sent yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A Relation message: it counts for the streamed transaction whose block is being read, or that
    /// is being published, else for the connection.
    pub fn insert(&mut self, relation: Relation, payload: P) -> Result<(), TooManyRelations> {
        let open = self.streamed.iter().chain(&self.block).map(|(_, of)| of);
        let known = open.chain(&self.published).map(Relations::len).sum::<usize>();
        if self.connection.len() + known >= MAX_RELATIONS {
            return Err(TooManyRelations);
        }
        self.arrivals += 1;
        let slot = Slot { relation, payload, arrival: self.arrivals };
        self.current().put(slot);
        Ok(())
    }

    /// The relation of a row, as described to the streamed transaction whose block is being
    /// read, or that is being published, else to the connection. `None` breaks the protocol: the
    /// row cannot be read.
    #[inline]
    pub fn get(&mut self, id: RelationId) -> Option<(&Relation, &mut P)> {
        self.current().get(id)
    }

    #[inline]
    fn current(&mut self) -> &mut Relations<P> {
        match (&mut self.block, &mut self.published) {
            (None, None) => &mut self.connection,
            (Some((_, relations)), _) | (None, Some(relations)) => relations,
        }
    }

    /// What was known of a relation before a description of it that is about to be inserted.
    #[must_use]
    pub fn before(&self, id: RelationId) -> Option<(&Relation, &P)> {
        let find = |of: &Relations<P>| of.index.get(&id.0).copied();
        let published = self.published.as_ref().and_then(|of| of.entries.get(find(of)?));
        let slot = published.or_else(|| self.connection.entries.get(find(&self.connection)?))?;
        Some((&slot.relation, &slot.payload))
    }

    /// What hangs on the relations of which rows are published.
    pub fn payloads_mut(&mut self) -> impl Iterator<Item = &mut P> {
        let published = self.published.iter_mut().flat_map(|of| of.entries.iter_mut());
        self.connection.entries.iter_mut().chain(published).map(|slot| &mut slot.payload)
    }

    /// A streamed transaction is published from here on, until [`RelationCache::stream_commit`].
    pub fn publish(&mut self) {
        self.published = Some(Relations::new());
    }

    /// Stream Start.
    pub fn stream_start(&mut self, xid: Xid) {
        self.stream_stop();
        let relations = self.take(xid).unwrap_or_default();
        self.block = Some((xid, relations));
    }

    /// Stream Stop.
    pub fn stream_stop(&mut self) {
        // An empty one is as good as none, and would stay for ever where nothing ends it.
        self.streamed.extend(self.block.take().filter(|(_, relations)| !relations.is_empty()));
    }

    /// Stream Commit: what was described to the transaction counts for the connection, except
    /// where the connection has been told something newer.
    pub fn stream_commit(&mut self, xid: Xid) {
        self.published = None;
        for slot in self.take(xid).into_iter().flat_map(|relations| relations.entries) {
            self.connection.put(slot);
        }
    }

    /// Stream Abort, of the transaction or of any part of it: what was described to it is void.
    /// So it is at Stream Prepare, after which the server describes again what it needs.
    pub fn stream_abort(&mut self, xid: Xid) {
        self.take(xid);
    }

    fn take(&mut self, xid: Xid) -> Option<Relations<P>> {
        let at = self.streamed.iter().position(|(of, _)| *of == xid)?;
        Some(self.streamed.swap_remove(at).1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: RelationId = RelationId(16_384);

    fn described(name: &str) -> Relation {
        let (schema, identity) = ("public".to_owned(), ReplicaIdentity::Default);
        Relation { id: T, schema, name: name.to_owned(), identity, columns: Vec::new() }
    }

    fn name_of(cache: &mut RelationCache<u8>, id: RelationId) -> Option<String> {
        cache.get(id).map(|(relation, _)| relation.name.clone())
    }

    fn block(cache: &mut RelationCache<u8>, xid: Xid, name: &str) {
        cache.stream_start(xid);
        cache.insert(described(name), 0).unwrap();
        cache.stream_stop();
    }

    #[test]
    fn a_description_replaces_the_one_before_with_its_payload() {
        let mut relations = Relations::new();
        relations.insert(described("old"), 1);
        relations.insert(Relation { id: RelationId(1), ..described("other") }, 2);
        relations.insert(described("new"), 3);
        assert_eq!(relations.len(), 2);
        let (relation, payload) = relations.get(T).unwrap();
        assert_eq!((relation.name.as_str(), *payload), ("new", 3));
        *payload = 4;
        assert_eq!(relations.get(RelationId(1)).map(|(_, payload)| *payload), Some(2));
        assert_eq!(relations.get(T).map(|(_, payload)| *payload), Some(4));
        assert!(relations.get(RelationId(2)).is_none());
        assert!(relations.get(T).is_some(), "a miss does not lose the last hit");
    }

    #[test]
    fn a_streamed_description_counts_for_its_transaction_only_until_it_commits() {
        let mut cache = RelationCache::new();
        cache.insert(described("before"), 0).unwrap();
        block(&mut cache, Xid(7), "streamed");
        assert_eq!(name_of(&mut cache, T).as_deref(), Some("before"));
        cache.stream_start(Xid(8));
        assert_eq!(name_of(&mut cache, T), None, "another transaction was told nothing");
        cache.stream_stop();
        cache.stream_start(Xid(7));
        assert_eq!(name_of(&mut cache, T).as_deref(), Some("streamed"));
        cache.stream_stop();
        cache.stream_commit(Xid(7));
        assert_eq!(name_of(&mut cache, T).as_deref(), Some("streamed"));
        assert!(cache.streamed.is_empty());
    }

    #[test]
    fn what_is_published_of_a_streamed_transaction_has_the_descriptions_of_its_spool() {
        let mut cache = RelationCache::new();
        cache.insert(described("before"), 1).unwrap();
        block(&mut cache, Xid(7), "first");
        block(&mut cache, Xid(7), "second");
        cache.insert(described("of another"), 2).unwrap();
        cache.publish();
        assert_eq!(name_of(&mut cache, T), None, "it was not described in the spool yet");
        assert_eq!(cache.before(T).map(|(relation, _)| &*relation.name), Some("of another"));
        cache.insert(described("first"), 3).unwrap();
        assert_eq!(name_of(&mut cache, T).as_deref(), Some("first"));
        assert_eq!(cache.before(T).map(|(relation, _)| &*relation.name), Some("first"));
        cache.insert(described("second"), 4).unwrap();
        let payloads: Vec<u8> = cache.payloads_mut().map(|payload| *payload).collect();
        assert_eq!(payloads, [2, 4]);
        cache.stream_commit(Xid(7));
        assert_eq!(name_of(&mut cache, T).as_deref(), Some("of another"), "it is newer");
    }

    #[test]
    fn an_abort_of_any_part_drops_what_the_transaction_was_told() {
        let mut cache = RelationCache::new();
        cache.insert(described("before"), 0).unwrap();
        block(&mut cache, Xid(7), "of a subtransaction");
        cache.stream_abort(Xid(7));
        cache.stream_start(Xid(7));
        assert_eq!(name_of(&mut cache, T), None);
        cache.stream_stop();
        cache.stream_commit(Xid(7));
        assert_eq!(name_of(&mut cache, T).as_deref(), Some("before"));
    }

    #[test]
    fn a_commit_does_not_bring_back_what_the_connection_knows_better() {
        let mut cache = RelationCache::new();
        block(&mut cache, Xid(7), "old");
        cache.insert(described("new"), 0).unwrap();
        cache.stream_commit(Xid(7));
        assert_eq!(name_of(&mut cache, T).as_deref(), Some("new"));
    }

    #[test]
    fn a_connection_that_describes_without_end_is_refused() {
        let mut cache = RelationCache::new();
        let relation = |id| Relation { id: RelationId(id), ..described("t") };
        for id in 0..u32::try_from(MAX_RELATIONS).unwrap() {
            assert_eq!(cache.insert(relation(id), 0), Ok(()));
        }
        cache.stream_start(Xid(7));
        assert_eq!(cache.insert(relation(0), 0), Err(TooManyRelations));
    }
}
