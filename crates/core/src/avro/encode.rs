//! Rows become bytes. On the row path: nothing here allocates, locks or looks up by name.

use super::error::{DataError, Problem};
use super::notes::{Notes, Path};
use super::options::{Envelope, Profile};
use super::plan::{Column, ColumnPlan, Plan};
use super::record::{Record, RecordMeta, Records, Written};
use crate::change::Row;
use crate::pgoutput::{Field, OldTuple, Tuple};
use crate::value::{Datum, Fault};

/// A value in Avro takes at least this part of what the server sends for it: a NULL or a small
/// number in a composite takes eight bytes or sixteen there, and one or two here; so do bits in text.
const MOST_SHRUNK: usize = 8;

/// But for numbers, whose zeros in text are no bytes at all. This is more than the longest has.
const LONGEST_NUMBER: usize = 160 * 1024;

/// A fault and the column it is in, before it is told with names.
struct At {
    column: Option<usize>,
    problem: Problem,
}

impl At {
    fn column(column: usize, fault: Fault) -> Self {
        let problem = match fault {
            Fault::Malformed(what) => Problem::Malformed(what),
            Fault::Unrepresentable => Problem::Unrepresentable,
            Fault::Null => Problem::Null,
        };
        Self { column: Some(column), problem }
    }
}

impl Plan {
    /// The records that a row makes, in order.
    ///
    /// A delete is followed by its tombstone. An update that changes the key is a delete and a
    /// tombstone of the old one and a create of the new one. In the flat envelope the tombstone
    /// is the delete, and a row without a key goes unseen (the plan warns of it). Debezium writes
    /// a tombstone for a row without a key as well, which is a record of nothing.
    ///
    /// # Errors
    /// Where a tuple does not have the relation's columns.
    pub fn records<'a>(&self, row: &Row<'a>) -> Result<Records<'a>, DataError> {
        let keyed = !self.key.is_empty();
        let flat = self.envelope == Envelope::Flat;
        let gone = |old| {
            let delete = (!flat).then_some(Record::Delete(old));
            let wanted =
                if flat { keyed } else { self.tombstones && (keyed || self.buries_keyless()) };
            let tombstone = wanted.then_some(Record::Tombstone(old));
            [delete, tombstone, None]
        };
        let records = match *row {
            Row::Update { old: Some(old), new } if self.key_changed(old, new)? => {
                let [delete, tombstone, _] = gone(old);
                [delete, tombstone, Some(Record::Create { old: Some(old), new })]
            }
            Row::Delete(old) => gone(old),
            other => [Some(Record::from(other)), None, None],
        };
        Ok(Records { records, next: 0 })
    }

    /// Whether the delete of a row without a key is followed by a tombstone.
    #[must_use]
    pub fn buries_keyless(&self) -> bool {
        self.profile == Profile::Debezium && self.envelope == Envelope::Full
    }

    /// Whether an update moves the row to another key.
    ///
    /// # Errors
    /// Where a tuple does not have the relation's columns.
    pub fn key_changed(&self, old: OldTuple<'_>, new: Tuple<'_>) -> Result<bool, DataError> {
        if self.key.is_empty() {
            return Ok(false);
        }
        let (old, new) = (row_of(old), new);
        self.check(old).and_then(|()| self.check(new)).map_err(|at| self.error(at))?;
        let mut pairs = self.columns.iter().zip(old.fields().zip(new.fields()));
        Ok(pairs.any(|(column, (old, new))| {
            column.key_index.is_some() && new != Field::Unchanged && old != new
        }))
    }

    /// Appends a record's key; false where the table has none, and the key is null.
    ///
    /// # Errors
    /// Where the row does not have the key, or a value of it is malformed or has no place in it.
    pub fn encode_key(
        &self,
        record: &Record<'_>,
        notes: &mut Notes,
        out: &mut Vec<u8>,
    ) -> Result<bool, DataError> {
        if self.key.is_empty() {
            return Ok(false);
        }
        notes.clear();
        let start = out.len();
        let written = self.each_key_field(record, |column, datum| {
            let Some(plan) = &column.plan else { return Ok(()) };
            match datum {
                Some(datum) => {
                    let path = || Path::name(None, &column.field);
                    plan.slot.write_here(datum, path, notes, out)
                }
                None => plan.slot.write_null(out),
            }
        });
        written.inspect_err(|_| out.truncate(start))?;
        Ok(true)
    }

    /// Gives each column of a record's key to `each`, in key order.
    pub(super) fn each_key_field(
        &self,
        record: &Record<'_>,
        mut each: impl FnMut(&Column, Option<Datum<'_>>) -> Result<(), Fault>,
    ) -> Result<(), DataError> {
        let (tuple, old) = match *record {
            Record::Read(new) => (new, None),
            Record::Create { old, new } | Record::Update { old, new } => (new, old),
            Record::Delete(old) | Record::Tombstone(old) => (row_of(old), None),
        };
        self.check(tuple).map_err(|at| self.error(at))?;
        for position in &self.key {
            let Some(column) = self.columns.get(*position) else { continue };
            // A key has few columns, most often the first ones: to walk to each is the least work.
            let field = match (tuple.fields().nth(*position), old) {
                // A key column out of line that did not change: the old key has it.
                (Some(Field::Unchanged), Some(old)) => sent_before(row_of(old), *position),
                (field, _) => field.unwrap_or(Field::Null),
            };
            let written = match field {
                Field::Binary(bytes) => each(column, Some(Datum::Binary(bytes))),
                Field::Text(text) => each(column, Some(Datum::Text(text))),
                Field::Null => each(column, None),
                Field::Unchanged => {
                    let problem = Problem::Unchanged;
                    return Err(self.error(At { column: Some(*position), problem }));
                }
            };
            written.map_err(|fault| self.error(At::column(*position, fault)))?;
        }
        Ok(())
    }

    /// Appends a record's value and fills `notes`. A tombstone has no value: it leaves what its
    /// key noted.
    ///
    /// # Errors
    /// Where the row does not fit its relation, a value is malformed, or a required one is not
    /// there; nothing is appended then.
    pub fn encode(
        &self,
        record: &Record<'_>,
        meta: &RecordMeta<'_>,
        notes: &mut Notes,
        out: &mut Vec<u8>,
    ) -> Result<Written, DataError> {
        if matches!(record, Record::Tombstone(_)) {
            return Ok(Written::Null);
        }
        notes.clear();
        let start = out.len();
        let result = match self.envelope {
            Envelope::Flat => self.flat(record, notes, out),
            Envelope::Full => self.full(record, meta, notes, out),
        };
        self.finish(result, start, out)
    }

    /// Appends the value that says that the table was emptied; the flat envelope has none.
    pub fn encode_truncate(
        &self,
        meta: &RecordMeta<'_>,
        notes: &mut Notes,
        out: &mut Vec<u8>,
    ) -> Written {
        notes.clear();
        if self.envelope == Envelope::Flat {
            return Written::Null;
        }
        out.extend_from_slice(&[0, 0]);
        self.write_tail(b't', false, meta, notes, out);
        Written::Value
    }

    fn finish(
        &self,
        result: Result<bool, At>,
        start: usize,
        out: &mut Vec<u8>,
    ) -> Result<Written, DataError> {
        let bytes = out.len() - start;
        match result {
            Ok(true) if bytes <= self.max_row_bytes => Ok(Written::Value),
            Ok(_) => {
                out.truncate(start);
                Ok(Written::TooLarge { bytes: bytes.max(self.max_row_bytes) })
            }
            Err(at) => {
                out.truncate(start);
                Err(self.error(at))
            }
        }
    }

    fn flat(&self, record: &Record<'_>, notes: &mut Notes, out: &mut Vec<u8>) -> Result<bool, At> {
        let image = match *record {
            Record::Read(new) => Image::after(new, None),
            Record::Create { old, new } | Record::Update { old, new } => Image::after(new, old),
            Record::Delete(old) | Record::Tombstone(old) => Image::before(old),
        };
        self.row(image, None, notes, out)
    }

    fn full(
        &self,
        record: &Record<'_>,
        meta: &RecordMeta<'_>,
        notes: &mut Notes,
        out: &mut Vec<u8>,
    ) -> Result<bool, At> {
        let (op, before, after) = match *record {
            Record::Read(new) => (b'r', None, Some(Image::after(new, None))),
            Record::Create { old, new } => (b'c', None, Some(Image::after(new, old))),
            Record::Update { old, new } => (b'u', old, Some(Image::after(new, old))),
            Record::Delete(old) | Record::Tombstone(old) => (b'd', Some(old), None),
        };
        let mut fits = true;
        match before {
            None => out.push(0),
            Some(old) => {
                out.push(2);
                let path = Path::name(None, "before");
                fits = self.row(Image::before(old), Some(&path), notes, out)?;
            }
        }
        match after {
            None => out.push(0),
            Some(image) => {
                out.push(2);
                let path = Path::name(None, "after");
                fits = fits && self.row(image, Some(&path), notes, out)?;
            }
        }
        let before_is_key = matches!(before, Some(OldTuple::Key(_)));
        self.write_tail(op, before_is_key, meta, notes, out);
        Ok(fits)
    }

    /// Appends a row; false where it outgrew what is allowed.
    fn row(
        &self,
        image: Image<'_>,
        path: Option<&Path<'_>>,
        notes: &mut Notes,
        out: &mut Vec<u8>,
    ) -> Result<bool, At> {
        self.check(image.tuple)?;
        if image.tuple.bytes.len() / MOST_SHRUNK > self.max_row_bytes && self.outgrows(image.tuple)
        {
            return Ok(false);
        }
        let limit = out.len().saturating_add(self.max_row_bytes);
        let fields = image.tuple.fields();
        for (position, (column, field)) in self.columns.iter().zip(fields).enumerate() {
            let Some(plan) = &column.plan else { continue };
            let path = || Path::name(path, &column.field);
            let written = match field {
                Field::Binary(bytes) => {
                    plan.slot.write_here(Datum::Binary(bytes), path, notes, out)
                }
                Field::Text(text) => plan.slot.write(Datum::Text(text), &path(), notes, out),
                Field::Null => plan.write_null(image.key_only, out),
                Field::Unchanged => {
                    let sent = image.old.map_or(field, |old| sent_before(old, position));
                    plan.write_unchanged(sent, position, &path(), notes, out)?;
                    Ok(())
                }
            };
            written.map_err(|fault| At::column(position, fault))?;
            if out.len() > limit {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether what is captured of a row is too large before anything of it is written, so that no
    /// more memory is taken for it than for what is allowed.
    #[cold]
    fn outgrows(&self, tuple: Tuple<'_>) -> bool {
        let captured = self.columns.iter().zip(tuple.fields()).filter_map(|(column, field)| {
            column.plan.as_ref().and(match field {
                Field::Binary(bytes) | Field::Text(bytes) => Some(bytes.len()),
                Field::Null | Field::Unchanged => None,
            })
        });
        let sent = captured.fold(0, usize::saturating_add);
        sent.saturating_sub(self.columns.len().saturating_mul(LONGEST_NUMBER)) / MOST_SHRUNK
            > self.max_row_bytes
    }

    #[inline]
    fn check(&self, tuple: Tuple<'_>) -> Result<(), At> {
        let (expected, found) = (self.columns.len(), tuple.len());
        if expected == found {
            return Ok(());
        }
        Err(At { column: None, problem: Problem::ColumnCount { expected, found } })
    }

    #[cold]
    fn error(&self, at: At) -> DataError {
        let column = at.column.and_then(|column| self.column_name(column));
        DataError {
            schema: self.schema.clone(),
            table: self.table.clone(),
            column: column.map(str::to_owned),
            problem: at.problem,
        }
    }
}

/// The row as it was, whole or not.
fn row_of(old: OldTuple<'_>) -> Tuple<'_> {
    let (OldTuple::Key(tuple) | OldTuple::Full(tuple)) = old;
    tuple
}

/// A value that did not change, out of the old row. It is there where the old row is whole, or
/// the value part of its key; a null stands only for what was not sent. Rare enough to walk the
/// row for it.
#[cold]
fn sent_before(old: Tuple<'_>, position: usize) -> Field<'_> {
    match old.fields().nth(position) {
        Some(value @ (Field::Text(_) | Field::Binary(_))) => value,
        _ => Field::Unchanged,
    }
}

/// A row as it was or is.
#[derive(Clone, Copy)]
struct Image<'a> {
    tuple: Tuple<'a>,
    /// The old row, which may have what did not change and was not sent again.
    old: Option<Tuple<'a>>,
    /// Whether all but the replica identity is missing.
    key_only: bool,
}

impl<'a> Image<'a> {
    fn after(tuple: Tuple<'a>, old: Option<OldTuple<'a>>) -> Self {
        Self { tuple, old: old.map(row_of), key_only: false }
    }

    fn before(old: OldTuple<'a>) -> Self {
        let key_only = matches!(old, OldTuple::Key(_));
        Self { tuple: row_of(old), old: None, key_only }
    }
}

impl ColumnPlan {
    #[inline]
    fn write_null(&self, key_only: bool, out: &mut Vec<u8>) -> Result<(), Fault> {
        match &self.absent {
            Some(absent) if key_only => {
                out.extend_from_slice(absent);
                Ok(())
            }
            _ => self.slot.write_null(out),
        }
    }

    /// Writes a value that the server did not send again: as it was, where that was `sent`, or
    /// what stands for it.
    #[cold]
    fn write_unchanged(
        &self,
        sent: Field<'_>,
        position: usize,
        path: &Path<'_>,
        notes: &mut Notes,
        out: &mut Vec<u8>,
    ) -> Result<(), At> {
        let datum = match sent {
            Field::Binary(bytes) => Datum::Binary(bytes),
            Field::Text(text) => Datum::Text(text),
            Field::Null | Field::Unchanged => {
                notes.note_unchanged(position);
                let written = match &self.unavailable {
                    Some(mark) => {
                        out.extend_from_slice(mark);
                        Ok(())
                    }
                    None => self.slot.write_null(out).map_err(|_| Problem::Unchanged),
                };
                return written.map_err(|problem| At { column: Some(position), problem });
            }
        };
        self.slot.write(datum, path, notes, out).map_err(|fault| At::column(position, fault))
    }
}
