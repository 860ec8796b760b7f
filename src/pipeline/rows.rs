// Hot path: runs once a row.
//! A row becomes its records: one, or two for a delete, or three for a changed key.

use waltide_core::avro::{self, DataError, Notes, RecordMeta, Snapshot, Written};
use waltide_core::change::{Position, Row, Transaction};
use waltide_core::dead_letter::DeadLetter;
use waltide_core::intake::Place;
use waltide_core::lsn::Lsn;
use waltide_core::pgoutput::{OldTuple, Relation, RelationId};
use waltide_core::snapshot::{Book, Touch, key_of};

use super::position_text::PositionText;
use super::routes::{Compiler, DeadLetters, Known, Route};
use super::snapshot::KEY_HEADER;
use super::stream::Engine;
use super::transactions::{self, Means};
use super::{diagnosis, marks};
use crate::config::settled::Envelope;
use crate::fault::Fault;
use crate::kafka::{Headers, Record, partition_of};
use crate::status;

/// Reused from row to row. One row of a gigabyte leaves buffers of a gigabyte behind, so they are
/// given back when they are this much larger than ordinary rows.
const KEPT_BYTES: usize = 1 << 20;

/// What records are written into.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    pub(super) position: PositionText,
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
    pub(super) headers: Headers,
    notes: Notes,
}

impl Engine {
    pub(super) async fn row(
        &mut self,
        relation: RelationId,
        lsn: Lsn,
        row: Row<'_>,
    ) -> Result<(), Fault> {
        let Some(place) = self.sink.intake.row().map_err(diagnosis::of_disorder)? else {
            return Ok(());
        };
        let Some((description, known)) = self.relations.get(relation) else {
            return Err(diagnosis::of_unknown_relation(relation));
        };
        if let Known::Described = known {
            let compiled = Box::pin(self.compiler.compile(description)).await;
            *known = compiled.map_err(|fault| diagnosis::at_row(fault, lsn))?;
        }
        let Known::Captured(route) = known else { return Ok(()) };
        let reading = self.sink.book.reads(relation);
        // It was in the rows of a table without a key when they were read.
        if reading && self.sink.book.leaves_out(relation, place.transaction.xid) {
            return Ok(());
        }
        let records = route.plan.records(&row).map_err(|error| diagnosis::of_row(&error))?;
        let mut order = None;
        for (sub_index, record) in records {
            let sub_index = u32::from(sub_index);
            // A tombstone behind its delete is not another event.
            if order.is_none() || !matches!(record, avro::Record::Tombstone(_)) {
                let (compiler, sink, out) = (&mut self.compiler, &mut self.sink, &mut self.out);
                let means = Means { compiler, sink, out };
                order = transactions::event(&mut self.transactions, means, &place, &route.table)
                    .await?;
            }
            let meta = RecordMeta { order, ..meta(&place, sub_index, lsn, self.last_commit) };
            let (keyed, written) = match self.out.encode(route, &row, &record, &meta) {
                Ok(written) => written,
                Err(error) => {
                    let again = Again { compiler: &mut self.compiler, description, route };
                    Box::pin(self.out.encode_again(again, &row, &record, &meta, error)).await?
                }
            };
            let mut to = (route.topic.as_str(), route.partitions, route.lane);
            match (written, &route.dead_letters) {
                // A table that turned out to have no key has no tombstones.
                (Written::Null, _) if !keyed && !route.plan.buries_keyless() => continue,
                (Written::Value | Written::Null, _) => {}
                (Written::TooLarge { bytes }, None) => {
                    return Err(diagnosis::of_large_row(&route.topic, bytes));
                }
                (Written::TooLarge { bytes }, Some(dead)) => {
                    self.out.dead_letter(dead, route, &place.transaction, &meta, bytes);
                    to = (&dead.topic, dead.partitions, dead.lane);
                }
            }
            let valued = written != Written::Null;
            let (topic, partitions, lane) = to;
            let key = keyed.then_some(self.out.key.as_slice());
            let out = Record {
                topic,
                partition: partition(key, &place.position, partitions),
                key,
                value: valued.then_some(self.out.value.as_slice()),
                timestamp_ms: status::unix_ms(place.transaction.commit_time),
                position: self.out.position.at(place.position.ordinal, sub_index),
                headers: &self.out.headers,
                ticket: place.ticket,
                lane,
            };
            self.sink.put(&out).await?;
            if reading && keyed {
                touched(&mut self.sink.book, relation, route, &self.out, &record);
            }
        }
        if !self.sink.intake.is_muted() {
            route.count(&row);
        }
        self.out.shrink();
        Ok(())
    }

    /// A truncate goes to every partition, so that each consumer sees it in order with its keys.
    pub(super) async fn truncate(
        &mut self,
        relation: RelationId,
        lsn: Lsn,
        place: &Place,
        first_sub_index: u32,
    ) -> Result<u32, Fault> {
        self.sink.book.truncated(relation);
        if self.sink.book.leaves_out(relation, place.transaction.xid) {
            return Ok(first_sub_index);
        }
        if !self.compiler.settings.truncates {
            return Ok(first_sub_index);
        }
        let Some((description, known)) = self.relations.get(relation) else {
            return Err(diagnosis::of_unknown_relation(relation));
        };
        if let Known::Described = known {
            let compiled = Box::pin(self.compiler.compile(description)).await;
            *known = compiled.map_err(|fault| diagnosis::at_row(fault, lsn))?;
        }
        let Known::Captured(route) = known else { return Ok(first_sub_index) };
        let mut sub_index = first_sub_index;
        let mut order = None;
        // The flat envelope has no form for it.
        if self.compiler.settings.envelope == Envelope::Full {
            let (compiler, sink, out) = (&mut self.compiler, &mut self.sink, &mut self.out);
            let means = Means { compiler, sink, out };
            order = transactions::event(&mut self.transactions, means, place, &route.table).await?;
        }
        for partition in 0..route.partitions {
            let meta = RecordMeta { order, ..meta(place, sub_index, lsn, self.last_commit) };
            self.out.value.clear();
            self.out.headers.clear();
            avro::write_header(route.value_id.0, &mut self.out.value);
            let (notes, value) = (&mut self.out.notes, &mut self.out.value);
            if route.plan.encode_truncate(&meta, notes, value) == Written::Null {
                break;
            }
            let out = Record {
                topic: &route.topic,
                partition,
                key: None,
                value: Some(self.out.value.as_slice()),
                timestamp_ms: status::unix_ms(place.transaction.commit_time),
                position: self.out.position.at(place.position.ordinal, sub_index),
                headers: &self.out.headers,
                ticket: place.ticket,
                lane: route.lane,
            };
            self.sink.put(&out).await?;
            sub_index += 1;
        }
        route.count_truncate();
        Ok(sub_index)
    }
}

/// What it takes to compile a route again.
pub(super) struct Again<'a> {
    pub(super) compiler: &'a mut Compiler,
    pub(super) description: &'a Relation,
    pub(super) route: &'a mut Route,
}

impl Buffers {
    /// Writes a record's key, value and headers; says whether there is a key, and what became of
    /// the value.
    pub(super) fn encode(
        &mut self,
        route: &Route,
        row: &Row<'_>,
        record: &avro::Record<'_>,
        meta: &RecordMeta<'_>,
    ) -> Result<(bool, Written), DataError> {
        self.headers.clear();
        if let Some((name, other)) = route.plan.key_header(row, record) {
            let (plan, notes) = (&route.plan, &mut self.notes);
            let mut written = Ok(());
            self.headers.push(name, |out| written = plan.write_key_text(&other, notes, out));
            written?;
        }
        self.key.clear();
        let keyed = match route.key_id {
            Some(id) => {
                avro::write_header(id.0, &mut self.key);
                route.plan.encode_key(record, &mut self.notes, &mut self.key)?
            }
            None => false,
        };
        self.value.clear();
        avro::write_header(route.value_id.0, &mut self.value);
        let written = route.plan.encode(record, meta, &mut self.notes, &mut self.value)?;
        let told = written == Written::Value && route.plan.envelope_has_notes();
        if !told && !self.notes.is_empty() {
            marks::write(&route.plan, &self.notes, &mut self.headers);
        }
        Ok((keyed, written))
    }

    /// Writes a record that did not fit its route, with what the catalog says now. The same error
    /// twice in a row is the row's own.
    #[cold]
    pub(super) async fn encode_again(
        &mut self,
        Again { compiler, description, route }: Again<'_>,
        row: &Row<'_>,
        record: &avro::Record<'_>,
        meta: &RecordMeta<'_>,
        mut error: DataError,
    ) -> Result<(bool, Written), Fault> {
        loop {
            *route = compiler.compile_again(description, route, &error).await?;
            match self.encode(route, row, record, meta) {
                Ok(written) => return Ok(written),
                Err(same) if same == error => return Err(diagnosis::of_row(&same)),
                Err(other) => error = other,
            }
        }
    }

    /// Puts in the place of a value that is too large what says so.
    #[cold]
    pub(super) fn dead_letter(
        &mut self,
        to: &DeadLetters,
        route: &Route,
        transaction: &Transaction,
        meta: &RecordMeta<'_>,
        bytes: usize,
    ) {
        let fault = diagnosis::of_large_row(&route.topic, bytes);
        let (table, reason) = (&route.table, fault.what.as_str());
        tracing::warn!(%table, to = to.topic, code = fault.code.id(), "{reason}");
        self.headers.clear();
        self.value.clear();
        avro::write_header(to.value_id.0, &mut self.value);
        let letter = DeadLetter {
            code: fault.code.id(),
            reason,
            schema: &table.schema,
            table: &table.table,
            topic: &route.topic,
            position: meta.position,
            lsn: meta.lsn,
            transaction: *transaction,
        };
        letter.encode(&mut self.value);
    }

    pub(super) fn shrink(&mut self) {
        for buffer in [&mut self.key, &mut self.value] {
            if buffer.capacity() > KEPT_BYTES {
                buffer.clear();
                buffer.shrink_to(KEPT_BYTES);
            }
        }
        self.headers.shrink_to(KEPT_BYTES);
    }
}

/// The partition of a record.
pub(super) fn partition(key: Option<&[u8]>, position: &Position, partitions: i32) -> i32 {
    match key {
        Some(key) => partition_of(key, partitions),
        None => spread(position, partitions),
    }
}

/// The partition of a record without a key: any, but the same one whenever it is repeated, so that
/// in each partition what comes again is the end of what was there.
fn spread(position: &Position, partitions: i32) -> i32 {
    // Multiplying by the golden ratio spreads numbers that follow each other evenly over the high
    // bits, which are then scaled to the partitions.
    let mixed = position.commit_lsn.0.0.wrapping_add(position.ordinal);
    let high = mixed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    let partition = (high * u64::from(partitions.unsigned_abs())) >> 32;
    i32::try_from(partition).unwrap_or(0)
}

/// Notes what a record says of its row, for a table that is being read.
fn touched(
    book: &mut Book,
    relation: RelationId,
    route: &Route,
    written: &Buffers,
    record: &avro::Record<'_>,
) {
    let left_out = written.notes.unchanged().len() > 0;
    let (row, touch) = match *record {
        avro::Record::Update { new, .. } if left_out => (new, Touch::Partly(new)),
        avro::Record::Create { new, .. } if left_out => (new, Touch::Moved),
        avro::Record::Update { new, .. }
        | avro::Record::Create { new, .. }
        | avro::Record::Read(new) => (new, Touch::Whole),
        avro::Record::Delete(OldTuple::Key(old) | OldTuple::Full(old))
        | avro::Record::Tombstone(OldTuple::Key(old) | OldTuple::Full(old)) => (old, Touch::Whole),
    };
    let key = written.key.get(KEY_HEADER..).unwrap_or_default();
    book.touched(relation, key, touch, || key_of(row, route.plan.key_columns()));
}

fn meta(place: &Place, sub_index: u32, lsn: Lsn, last_commit: Option<Lsn>) -> RecordMeta<'static> {
    RecordMeta {
        transaction: Some(place.transaction),
        position: Position { sub_index, ..place.position },
        lsn,
        snapshot: Snapshot::No,
        now: place.transaction.commit_time,
        order: None,
        last_commit,
        origin: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use waltide_core::lsn::CommitLsn;

    #[test]
    fn records_without_a_key_spread_evenly_within_and_over_transactions() {
        let at = |commit, ordinal| Position {
            commit_lsn: CommitLsn(Lsn(commit)),
            ordinal,
            sub_index: 0,
        };
        let one_transaction: Vec<Position> = (0..3_000).map(|row| at(0x16B_3748, row)).collect();
        let one_row_each = (0..3_000).map(|number| at(0x16B_3748 + 240 * number, 0)).collect();
        for positions in [one_transaction, one_row_each] {
            let mut counts = [0; 3];
            for position in &positions {
                counts[usize::try_from(spread(position, 3)).unwrap()] += 1;
            }
            assert!(counts.iter().all(|count| (900..=1_100).contains(count)), "{counts:?}");
        }
        assert_eq!(spread(&at(u64::MAX, u64::MAX), 1), 0);
    }
}
