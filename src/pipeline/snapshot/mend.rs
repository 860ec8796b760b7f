//! Rows that somebody has named by their keys: read again, and buried where they are not there.
//!
//! They go the way of every chunk of keys, beside the stream, and so never bring anything older than
//! the stream has. What is special is told in `waltide_core::snapshot`: a key without a row is held
//! like a row, and released as its delete where nothing has touched it since.

use std::collections::HashSet;

use waltide_core::avro::{DataError, Notes, Record};
use waltide_core::change::Row;
use waltide_core::lsn::Lsn;
use waltide_core::pgoutput::{OldTuple, PgTimestamp, Relation, RelationId};
use waltide_core::snapshot::{Book, HeldRows, Key, Keys, key_of, row_of_key};
use waltide_core::watermark::Ticket;

use super::super::diagnosis;
use super::super::routes::Route;
use super::super::stream::Engine;
use super::reader::{Chunk, values};
use super::target::{Target, key_alone};
use super::{Snapshots, vet};
use crate::fault::{Code, Fault};
use crate::postgres::catalog::PublishedTable;
use crate::postgres::sql::qualified;
use crate::postgres::{Connection, Error};
use crate::status;

/// Whether the server takes the values of these keys. No row is looked for.
pub(super) async fn look(
    on: &mut Connection,
    table: &PublishedTable,
    keys: Option<&Keys>,
) -> Result<Option<Fault>, Error> {
    let Some(keys) = keys else { return Ok(None) };
    let of = qualified(&table.schema, &table.name);
    if let Some(other) = keys.columns.iter().find(|name| !table.columns.contains(name)) {
        return Ok(Some(unusable(&of, &format!("it publishes no column {other}"))));
    }
    let columns = keys.columns.iter().map(String::as_str);
    let sql = key_alone(&of, columns, &vec![true; keys.columns.len()]);
    let rows: Vec<_> = keys.rows.iter().filter_map(values).collect();
    on.simple_query(vet::BEGIN).await?;
    let looked = on.fetch(&sql, &rows, |_| Ok(())).await;
    let refused = match looked {
        Err(Error::Server { error, .. }) if on.in_transaction() => Some(error.to_string()),
        Err(error) => return Err(error),
        Ok(()) => None,
    };
    on.simple_query("ROLLBACK").await?;
    Ok(refused.map(|why| unusable(&of, &why)))
}

fn unusable(table: &str, why: &str) -> Fault {
    Fault::new(
        Code::RequestInvalid,
        format!("these keys of {table} cannot be used: {why}"),
        "name the columns of the table's key, and a value of each as SQL writes it",
    )
}

/// Keys in the form in which rows have them.
pub(super) async fn written(
    on: &mut Connection,
    target: &Target,
    columns: &[usize],
    keys: &[Key],
) -> Result<Vec<Key>, Error> {
    let (sql, mut reader) = target.key_alone(columns);
    let all: Vec<usize> = (0..columns.len()).collect();
    let keys: Vec<_> = keys.iter().filter_map(values).collect();
    let mut held = HeldRows::default();
    on.fetch(&sql, &keys, |body| {
        let row = reader.decode(body).map_err(|_| "a key")?;
        row.and_then(|row| held.push(row)).map(|_| ()).ok_or("a key")
    })
    .await?;
    let row = |number| held.get(number).and_then(|row| key_of(row, &all));
    Ok((0..held.len()).filter_map(row).collect())
}

/// Writes the keys that were asked for as records will have them, behind those of the rows, and
/// keeps those of which there is no row.
pub(super) fn keep(route: &Route, chunk: &mut Chunk) -> Result<(), DataError> {
    if chunk.asked.is_empty() {
        return Ok(());
    }
    let mut taken: HashSet<Vec<u8>> = chunk.keys.iter().map(<[u8]>::to_vec).collect();
    let (mut notes, mut failed) = (Notes::default(), None);
    let asked = std::mem::take(&mut chunk.asked);
    let is_gone = |key: &Key| {
        let mut bytes = Vec::new();
        let done = write_key(route, key, &mut notes, &mut bytes);
        failed = failed.take().or(done.err());
        // What names one row twice has one key.
        failed.is_none() && taken.insert(bytes)
    };
    chunk.asked = asked.into_iter().filter(is_gone).collect();
    for key in &chunk.asked {
        chunk.keys.push(|out| write_key(route, key, &mut notes, out))?;
    }
    failed.map_or(Ok(()), Err)
}

fn write_key(
    route: &Route,
    key: &Key,
    notes: &mut Notes,
    out: &mut Vec<u8>,
) -> Result<(), DataError> {
    let Some(row) = row_of_key(key, route.plan.key_columns(), route.plan.column_count()) else {
        return Ok(());
    };
    let record = Record::Tombstone(OldTuple::Key(row.tuple()));
    route.plan.encode_key(&record, notes, out).map(drop)
}

/// What is wrong with the columns by which rows of a table were named.
pub(super) fn misnamed(book: &Book, table: RelationId, route: &Route) -> Option<Fault> {
    let keys = book.terms(table)?.keys.as_ref()?;
    let columns = route.plan.key_columns().iter();
    let columns: Vec<&str> = columns.filter_map(|at| route.plan.column_name(*at)).collect();
    if !columns.is_empty() && columns == keys.columns {
        return None;
    }
    let why = match columns.is_empty() {
        true => "it has none".to_owned(),
        false => format!("its key is ({})", columns.join(", ")),
    };
    Some(unusable(&route.table.to_string(), &why))
}

impl Snapshots {
    /// A table is not read, for what was asked for makes no sense.
    pub(super) fn give_up(&mut self, book: &mut Book, id: RelationId, fault: &Fault) {
        book.cancel(id);
        let Some(table) = self.tables.remove(&id) else { return };
        let (name, code, mend) = (table.member.name(), fault.code.id(), fault.mend.as_str());
        tracing::warn!(pipeline = self.status.name, table = name, code, mend, "{}", fault.what);
        self.status.snapshot_ended(&name, status::End::Cancelled);
    }
}

impl Engine {
    /// Buries the keys of a chunk of which there is no row, and that nothing has touched since; how
    /// many. None where that cannot be told of one.
    pub(super) async fn release_gone(
        &mut self,
        chunk: &Chunk,
        table: RelationId,
        to: (Lsn, PgTimestamp, Ticket),
        (description, route): (&Relation, &mut Route),
    ) -> Result<Option<u64>, Fault> {
        let mut buried = 0;
        for (number, key) in chunk.asked.iter().enumerate() {
            let written = chunk.keys.get(chunk.rows.len() + number);
            match self.sink.book.may_bury(table, chunk.chunk, written) {
                None => return Ok(None),
                Some(false) => continue,
                Some(true) => {}
            }
            let columns = route.plan.key_columns();
            let Some(row) = row_of_key(key, columns, route.plan.column_count()) else { continue };
            let row = Row::Delete(OldTuple::Key(row.tuple()));
            let records = route.plan.records(&row).map_err(|error| diagnosis::of_row(&error))?;
            let ordinal = self.next_ordinal();
            for (sub_index, record) in records {
                let place = (ordinal, u32::from(sub_index));
                self.put_aside((&row, &record), place, to, (description, &mut *route)).await?;
            }
            buried += 1;
        }
        Ok(Some(buried))
    }
}
