//! What a daemon that does not run would publish next: the slot is looked into, and stays as it is.

use std::collections::HashSet;

use waltide_core::avro::Record;
use waltide_core::change::Row;
use waltide_core::lsn::Lsn;
use waltide_core::pgoutput::{Decoder, Message};

use super::table::Table;
use crate::fault::Fault;
use crate::pipeline::{self, answered};
use crate::postgres::sql::{identifier, literal};
use crate::postgres::{Connection, SqlState};

/// So many changes are looked at. A backlog that is larger is the daemon's.
const MOST: usize = 50_000;

/// How long the server may take to decode them.
const ANSWER: std::time::Duration = std::time::Duration::from_secs(60);

/// The keys of a table that its slot has changes of beyond a position. None where that cannot be
/// told: there are too many, or somebody reads the slot by now.
pub(super) async fn keys(
    on: &mut Connection,
    table: &mut Table,
    slot: &str,
    beyond: Lsn,
) -> Result<Option<HashSet<u128>>, Fault> {
    let names: Vec<String> = table.publications.iter().map(|name| identifier(name)).collect();
    let sql = format!(
        "SELECT data FROM pg_logical_slot_peek_binary_changes({}, NULL, {MOST}, \
         'proto_version', '1', 'publication_names', {}, 'binary', 'true')",
        literal(slot),
        literal(&names.join(","))
    );
    let peer = on.peer().clone();
    let rows = match answered(ANSWER, &peer, on.simple_query(&sql)).await {
        Ok(rows) => rows,
        Err(error) if error.sqlstate() == Some(SqlState::OBJECT_IN_USE) => return Ok(None),
        Err(error) => return Err(pipeline::of_source(&error)),
    };
    if rows.rows.len() >= MOST {
        return Ok(None);
    }
    let mut found = HashSet::new();
    let mut decoder = Decoder::new();
    let mut counts = false;
    for data in rows.rows.iter().filter_map(|row| row.first()?.as_deref()) {
        let Some(bytes) = bytes(data) else { return Ok(None) };
        let message = decoder.decode(&bytes).map_err(|error| pipeline::of_bytes(&error))?;
        let (relation, row) = match message {
            Message::Begin(begin) => {
                counts = begin.commit_lsn.0 >= beyond;
                continue;
            }
            Message::Insert(_, relation, new) => (relation, Row::Insert(new)),
            Message::Update(_, relation, old, new) => (relation, Row::Update { old, new }),
            Message::Delete(_, relation, old) => (relation, Row::Delete(old)),
            Message::Truncate(_, truncate) => {
                let is_it = truncate.relations().any(|relation| relation == table.id);
                match counts && is_it {
                    true => return Ok(None),
                    false => continue,
                }
            }
            _ => continue,
        };
        if !counts || relation != table.id {
            continue;
        }
        let records = table.rows.plan.records(&row);
        let Ok(records) = records else { return Ok(None) };
        let records: Vec<Record<'_>> = records.map(|(_, record)| record).collect();
        for record in records {
            found.extend(table.rows.digest_of_key(&record)?);
        }
    }
    Ok(Some(found))
}

/// `\x` and hexadecimal digits.
fn bytes(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("\\x")?.as_bytes();
    let digit = |of: &u8| char::from(*of).to_digit(16);
    digits
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => u8::try_from(digit(high)? << 4 | digit(low)?).ok(),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_as_the_server_prints_them() {
        assert_eq!(bytes("\\x00fF10"), Some(vec![0, 255, 16]));
        assert_eq!((bytes("\\x"), bytes("\\x0"), bytes("00")), (Some(vec![]), None, None));
    }
}
