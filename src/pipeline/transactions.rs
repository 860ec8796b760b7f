//! Where transactions begin and end, told on a topic of their own; and which of its transaction
//! each change is.
//!
//! A transaction begins there with its first change of a captured table, so one without any leaves
//! no trace. All of it counts for the transaction's ticket: nothing is confirmed before the end
//! has arrived as well.

use waltide_core::avro::{Order, Profile, write_header};
use waltide_core::intake::Place;
use waltide_core::transaction::{self, Bound, Events};

use super::routes::{Compiler, OwnTopic};
use super::rows::Buffers;
use super::sink::Sink;
use crate::config::TableName;
use crate::fault::Fault;
use crate::kafka::Record;
use crate::status;

/// The topic, once it is needed, and what of the open transaction was counted.
#[derive(Debug)]
pub(super) struct Transactions {
    profile: Profile,
    topic: Option<OwnTopic>,
    events: Events,
}

/// What it takes to write a record.
pub(super) struct Means<'a> {
    pub(super) compiler: &'a mut Compiler,
    pub(super) sink: &'a mut Sink,
    pub(super) out: &'a mut Buffers,
}

/// Counts a change where that is wanted, the first one after its transaction's begin was written.
pub(super) async fn event(
    transactions: &mut Option<Transactions>,
    means: Means<'_>,
    place: &Place,
    table: &TableName,
) -> Result<Option<Order>, Fault> {
    let Some(transactions) = transactions else { return Ok(None) };
    if transactions.events.is_empty() {
        Box::pin(transactions.begin(means, place)).await?;
    }
    Ok(Some(transactions.events.count(&table.schema, &table.table)))
}

/// Counts a message, which only Debezium has among a transaction's changes.
pub(super) async fn message(
    transactions: &mut Option<Transactions>,
    means: Means<'_>,
    place: &Place,
) -> Result<Option<Order>, Fault> {
    let Some(transactions) = transactions.as_mut().filter(|it| it.profile == Profile::Debezium)
    else {
        return Ok(None);
    };
    if transactions.events.is_empty() {
        transactions.begin(means, place).await?;
    }
    Ok(Some(transactions.events.count_message()))
}

impl Transactions {
    pub(super) fn new(profile: Profile) -> Self {
        Self { profile, topic: None, events: Events::default() }
    }

    async fn begin(&mut self, means: Means<'_>, place: &Place) -> Result<(), Fault> {
        if self.topic.is_none() {
            let name = means.compiler.settings.transaction_topic();
            let schemas = transaction::schemas(self.profile);
            self.topic = Some(means.compiler.own_topic(name, schemas).await?);
        }
        // Whichever row is the first, a begin has the position of the first that can be.
        self.put(means, place, 0, Bound::Begin).await
    }

    /// Writes the end of a transaction that has a beginning. Its place is behind the rows.
    pub(super) async fn end(&mut self, means: Means<'_>, place: &Place) -> Result<(), Fault> {
        if self.events.is_empty() {
            return Ok(());
        }
        let events = std::mem::take(&mut self.events);
        self.put(means, place, place.position.ordinal, Bound::End(&events)).await
    }

    async fn put(
        &self,
        Means { sink, out, .. }: Means<'_>,
        place: &Place,
        ordinal: u64,
        bound: Bound<'_>,
    ) -> Result<(), Fault> {
        let Some(topic) = &self.topic else { return Ok(()) };
        out.headers.clear();
        out.key.clear();
        if let Some(id) = topic.key_id {
            write_header(id.0, &mut out.key);
            transaction::write_key(&place.transaction, &mut out.key);
        }
        out.value.clear();
        write_header(topic.value_id.0, &mut out.value);
        transaction::write(self.profile, &place.transaction, bound, &mut out.value);
        let record = Record {
            topic: &topic.name,
            // One partition, whatever the topic has: transactions are in order only there.
            partition: 0,
            key: topic.key_id.is_some().then_some(out.key.as_slice()),
            value: Some(out.value.as_slice()),
            timestamp_ms: status::unix_ms(place.transaction.commit_time),
            position: out.position.at(ordinal, 0),
            headers: &out.headers,
            ticket: place.ticket,
            lane: topic.lane,
        };
        sink.put(&record).await
    }
}
