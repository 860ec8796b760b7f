//! What the database itself says is in a table.

use std::collections::BTreeMap;

use waltide_stack::Session;
use waltide_stack::serde_json::Value;

use super::fold::Table;
use super::text;

/// A row as text, column by column.
type Texts = Vec<Option<String>>;

/// Compares a table with what was rebuilt from its topic, every column of every row as text.
///
/// # Panics
/// With the first rows that only one of the two has.
#[track_caller]
pub(crate) fn assert_table_is(on: &Session, table: &str, rebuilt: &Table) {
    let columns: Vec<(String, String)> = on
        .query(&format!(
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute \
             WHERE attrelid = '{table}'::regclass AND attnum > 0 AND NOT attisdropped \
             ORDER BY attnum"
        ))
        .into_iter()
        .map(|mut row| (row[0].take().expect("a name"), row[1].take().expect("a type")))
        .collect();
    let list: Vec<String> = columns.iter().map(|(name, _)| format!("\"{name}\"::text")).collect();
    on.execute("SET timezone TO 'UTC'");
    let rows = on.query(&format!("SELECT {} FROM {table}", list.join(", ")));
    let normal = |row: Texts| -> Texts {
        let cells = row.into_iter().zip(&columns);
        cells.map(|(cell, (_, kind))| cell.map(|cell| text::normal(kind, &cell))).collect()
    };
    let mut balance: BTreeMap<Texts, i64> = BTreeMap::new();
    let mut count = 0;
    for row in rows {
        *balance.entry(normal(row)).or_default() += 1;
        count += 1;
    }
    for row in rebuilt.rows() {
        let cells = columns
            .iter()
            .map(|(name, kind)| text::of(kind, row.get(name).unwrap_or(&Value::Null)));
        *balance.entry(cells.collect()).or_default() -= 1;
    }
    let differing: Vec<String> = balance
        .iter()
        .filter(|(_, difference)| **difference != 0)
        .map(|(row, difference)| {
            let place = if *difference > 0 { "table" } else { "topic" };
            format!("only in the {place}: {row:?}")
        })
        .collect();
    assert!(
        differing.is_empty(),
        "{table} ({count} rows) is not what its topic says, {} rows differ:\n{}",
        differing.len(),
        differing.iter().take(6).cloned().collect::<Vec<_>>().join("\n")
    );
}
