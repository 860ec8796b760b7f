//! What applications write into the log with `pg_logical_emit_message`, on a topic of its own.
//!
//! A message of a transaction shares its fate and its ticket. One of no transaction has a ticket
//! to itself, so that it is confirmed when it has arrived, and neither earlier nor never.

use waltide_core::avro::{Order, RecordMeta, Snapshot, write_header};
use waltide_core::change::{Position, Transaction};
use waltide_core::logical::Form;
use waltide_core::lsn::{CommitLsn, Lsn};
use waltide_core::pgoutput::{LogicalMessage, PgTimestamp};
use waltide_core::watermark::Ticket;

use super::diagnosis;
use super::routes::OwnTopic;
use super::stream::Engine;
use super::transactions::{self, Means};
use crate::fault::Fault;
use crate::kafka::Record;
use crate::status;

/// The form of messages, and their topic once it is needed.
#[derive(Debug)]
pub(super) struct Messages {
    form: Form,
    topic: Option<OwnTopic>,
}

/// A message's place in the stream.
struct Place {
    transaction: Option<Transaction>,
    position: Position,
    ticket: Ticket,
    /// The commit's time; for a message of no transaction, when the server sent it.
    time: PgTimestamp,
    /// Which of its transaction's changes it is, where that is told.
    order: Option<Order>,
}

impl Messages {
    pub(super) const fn new(form: Form) -> Self {
        Self { form, topic: None }
    }

    async fn put(
        &mut self,
        Means { compiler, sink, out }: Means<'_>,
        message: &LogicalMessage<'_>,
        place: Place,
        last_commit: Option<Lsn>,
    ) -> Result<(), Fault> {
        let topic = match &mut self.topic {
            Some(topic) => topic,
            none => {
                let (key, value) = self.form.schemas();
                let name = compiler.settings.message_topic();
                none.insert(compiler.own_topic(name, (key.as_deref(), &value)).await?)
            }
        };
        let meta = RecordMeta {
            transaction: place.transaction,
            position: place.position,
            lsn: message.lsn,
            snapshot: Snapshot::No,
            now: place.time,
            order: place.order,
            last_commit,
            origin: None,
        };
        out.headers.clear();
        out.key.clear();
        if let Some(id) = topic.key_id {
            write_header(id.0, &mut out.key);
            self.form.write_key(message, &mut out.key);
        }
        out.value.clear();
        write_header(topic.value_id.0, &mut out.value);
        self.form.write(message, &meta, &mut out.value);
        let record = Record {
            topic: &topic.name,
            // One partition, whatever the topic has: messages are in order only there.
            partition: 0,
            key: topic.key_id.is_some().then_some(out.key.as_slice()),
            value: Some(out.value.as_slice()),
            timestamp_ms: status::unix_ms(place.time),
            position: out.position.at(place.position.ordinal, place.position.sub_index),
            headers: &out.headers,
            ticket: place.ticket,
            lane: topic.lane,
        };
        sink.put(&record).await?;
        out.shrink();
        Ok(())
    }
}

impl Engine {
    /// A message came; the server sends them only where they are asked for.
    pub(super) async fn logical(
        &mut self,
        message: &LogicalMessage<'_>,
        sent_at: PgTimestamp,
    ) -> Result<(), Fault> {
        let Some(messages) = &mut self.messages else { return Ok(()) };
        let intake = &mut self.sink.intake;
        if message.transactional {
            let Some(place) = intake.message().map_err(diagnosis::of_disorder)? else {
                return Ok(());
            };
            let (compiler, sink, out) = (&mut self.compiler, &mut self.sink, &mut self.out);
            let means = Means { compiler, sink, out };
            let order = transactions::message(&mut self.transactions, means, &place).await?;
            let place = Place {
                order,
                transaction: Some(place.transaction),
                position: place.position,
                ticket: place.ticket,
                time: place.transaction.commit_time,
            };
            let (compiler, sink, out) = (&mut self.compiler, &mut self.sink, &mut self.out);
            let means = Means { compiler, sink, out };
            return messages.put(means, message, place, self.last_commit).await;
        }
        // Its last byte: at its end a commit may start, which would have the same position.
        let at = Lsn(message.lsn.0.saturating_sub(1));
        let ticket = intake.begin_alone(at, sent_at).map_err(diagnosis::of_disorder)?;
        let Some(ticket) = ticket else { return Ok(()) };
        self.out.position.start(at);
        // Debezium takes it for a commit of its own.
        self.last_commit = Some(message.lsn);
        let position = Position { commit_lsn: CommitLsn(at), ordinal: 0, sub_index: 0 };
        let place = Place { transaction: None, position, ticket, time: sent_at, order: None };
        let (compiler, sink, out) = (&mut self.compiler, &mut self.sink, &mut self.out);
        let means = Means { compiler, sink, out };
        messages.put(means, message, place, self.last_commit).await?;
        let end = self.sink.intake.end_alone(at);
        self.sink.received(end);
        Ok(())
    }
}
