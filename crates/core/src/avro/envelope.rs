//! What stands around a row in the envelope `full`. On the row path: nothing here allocates.

use super::notes::Notes;
use super::options::Profile;
use super::plan::{Plan, Source};
use super::record::{RecordMeta, Snapshot};
use super::wire;
use crate::lsn::Lsn;
use crate::value::put;
use crate::value::time::EPOCH_US;

impl Plan {
    /// Appends all that follows `before` and `after`.
    #[inline]
    pub(super) fn write_tail(
        &self,
        op: u8,
        before_is_key: bool,
        meta: &RecordMeta<'_>,
        notes: &Notes,
        out: &mut Vec<u8>,
    ) {
        match self.profile {
            Profile::Waltide => self.write_waltide_tail(op, before_is_key, meta, notes, out),
            Profile::Debezium => self.write_debezium_tail(op, meta, out),
        }
    }

    fn write_waltide_tail(
        &self,
        op: u8,
        before_is_key: bool,
        meta: &RecordMeta<'_>,
        notes: &Notes,
        out: &mut Vec<u8>,
    ) {
        out.extend_from_slice(&self.source.head);
        wire::boolean(out, meta.snapshot != Snapshot::No);
        let position = meta.position;
        write_lsn(position.commit_lsn.0, out);
        wire::long(out, position.ordinal.cast_signed());
        wire::long(out, position.sub_index.into());
        write_lsn(meta.lsn, out);
        optional(out, meta.transaction, |out, transaction| {
            wire::long(out, transaction.xid.0.into());
        });
        optional(out, meta.origin, |out, (name, _)| wire::bytes(out, name.as_bytes()));
        write_transaction(meta, out);
        out.extend_from_slice(&[2, op]);
        wire::long(out, commit_time_us(meta));
        wire::boolean(out, before_is_key);
        let unchanged = notes.unchanged();
        if unchanged.len() > 0 {
            wire::size(out, unchanged.len());
            for column in unchanged {
                wire::bytes(out, self.field_name(column).unwrap_or_default().as_bytes());
            }
        }
        out.push(0);
        notes.write_unrepresentable(out);
        notes.write_shapes(out);
    }

    fn write_debezium_tail(&self, op: u8, meta: &RecordMeta<'_>, out: &mut Vec<u8>) {
        self.source.write_debezium(meta, out);
        write_transaction(meta, out);
        out.extend_from_slice(&[2, op]);
        let now_us = meta.now.0.saturating_add(EPOCH_US);
        for time in [now_us.div_euclid(1000), now_us, now_us.wrapping_mul(1000)] {
            out.push(2);
            wire::long(out, time);
        }
    }
}

impl Source {
    /// Appends where a record comes from, as Debezium says it.
    #[inline]
    pub(crate) fn write_debezium(&self, meta: &RecordMeta<'_>, out: &mut Vec<u8>) {
        let commit_us = commit_time_us(meta);
        out.extend_from_slice(&self.head);
        wire::long(out, commit_us.div_euclid(1000));
        out.push(0);
        wire::bytes(out, meta.snapshot.as_str().as_bytes());
        out.extend_from_slice(&self.database);
        out.push(2);
        write_sequence(meta, out);
        for time in [commit_us, commit_us.wrapping_mul(1000)] {
            out.push(2);
            wire::long(out, time);
        }
        out.extend_from_slice(&self.table);
        optional(out, meta.transaction, |out, transaction| {
            wire::long(out, transaction.xid.0.into());
        });
        out.push(2);
        write_lsn(meta.lsn, out);
        // xmin, which Debezium has only where it is asked to watch it.
        out.push(0);
        optional(out, meta.origin, |out, (name, _)| wire::bytes(out, name.as_bytes()));
        optional(out, meta.origin, |out, (_, lsn)| write_lsn(lsn, out));
    }
}

/// The block that orders a transaction's changes. Its id is the same in all of its records and in
/// the transaction topic.
pub(crate) fn write_transaction(meta: &RecordMeta<'_>, out: &mut Vec<u8>) {
    optional(out, meta.transaction.zip(meta.order), |out, (transaction, order)| {
        text(out, |out| transaction.write_id(out));
        wire::long(out, order.total.cast_signed());
        wire::long(out, order.in_table.cast_signed());
    });
}

/// `["<last commit>","<this change>"]`.
fn write_sequence(meta: &RecordMeta<'_>, out: &mut Vec<u8>) {
    text(out, |out| match meta.last_commit {
        Some(last) => put!(out, "[\"{}\",\"{}\"]", last.0, meta.lsn.0),
        None => put!(out, "[null,\"{}\"]", meta.lsn.0),
    });
}

pub(crate) fn text(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let _ = wire::sized(out, |out| {
        write(out);
        Ok::<_, std::convert::Infallible>(())
    });
}

#[inline]
fn write_lsn(lsn: Lsn, out: &mut Vec<u8>) {
    wire::long(out, lsn.0.cast_signed());
}

#[inline]
pub(crate) fn optional<T>(
    out: &mut Vec<u8>,
    value: Option<T>,
    write: impl FnOnce(&mut Vec<u8>, T),
) {
    match value {
        None => out.push(0),
        Some(value) => {
            out.push(2);
            write(out, value);
        }
    }
}

/// When the transaction was committed, in microseconds since 1970; now for what has none.
fn commit_time_us(meta: &RecordMeta<'_>) -> i64 {
    let time = meta.transaction.map_or(meta.now, |transaction| transaction.commit_time);
    time.0.saturating_add(EPOCH_US)
}
