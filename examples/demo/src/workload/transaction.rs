//! One transaction: what it changed is entered into the books when, and only when, its COMMIT has
//! returned.

use postgres::types::ToSql;
use postgres::{Client, Statement, Transaction};

use crate::ledger::Committed;
use crate::live::Shared;
use crate::shop::{Op, Row, Table};

/// A statement that changes rows of one table and returns each as [`Table::row_sql`] writes it.
#[derive(Clone)]
pub(super) struct Change {
    table: Table,
    op: Op,
    statement: Statement,
}

impl Change {
    /// Prepares `INSERT INTO`, `UPDATE` or `DELETE FROM table AS t rest`.
    pub(super) fn prepare(
        client: &mut Client,
        table: Table,
        op: Op,
        rest: &str,
    ) -> Result<Self, String> {
        let verb = match op {
            Op::Insert => "INSERT INTO",
            Op::Update => "UPDATE",
            Op::Delete => "DELETE FROM",
        };
        let (name, row) = (table.name(), table.row_sql());
        let sql = format!("{verb} {name} AS t {rest} RETURNING {row}");
        let statement =
            client.prepare(&sql).map_err(|error| format!("{}: {sql}", described(&error)))?;
        Ok(Self { table, op, statement })
    }
}

/// An open transaction.
pub(super) struct Open<'a> {
    transaction: Transaction<'a>,
    changes: Vec<Committed>,
}

impl<'a> Open<'a> {
    pub(super) fn begin(client: &'a mut Client) -> Result<Self, postgres::Error> {
        Ok(Self { transaction: client.transaction()?, changes: Vec::new() })
    }

    /// Changes rows and returns them: as they are, or as they were before they were deleted.
    pub(super) fn change(
        &mut self,
        change: &Change,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, postgres::Error> {
        let rows = self.transaction.query(&change.statement, values)?;
        Ok(rows.iter().filter_map(|row| self.note(change, row.get(0))).collect())
    }

    fn note(&mut self, change: &Change, text: &str) -> Option<Row> {
        let row = Row::from_json(text)?;
        let (table, op) = (change.table, change.op);
        // A delete is one version more than the row it takes away.
        let version = row.version()? + u64::from(op == Op::Delete);
        let key = table.key_of(&row)?;
        self.changes.push(Committed { table, key, op, version, digest: row.digest() });
        Some(row)
    }

    /// Changes rows and takes it back, as an application does that has second thoughts.
    pub(super) fn change_in_vain(
        &mut self,
        change: &Change,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<(), postgres::Error> {
        let mut savepoint = self.transaction.transaction()?;
        savepoint.query(&change.statement, values)?;
        savepoint.rollback()
    }

    /// Locks rows, in an order that all keep, so that no two transactions wait for each other.
    pub(super) fn run(
        &mut self,
        statement: &Statement,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<(), postgres::Error> {
        self.transaction.execute(statement, values).map(|_| ())
    }

    pub(super) fn commit(self, shared: &Shared) -> Result<(), postgres::Error> {
        self.transaction.commit()?;
        let count = self.changes.len() as u64;
        shared.ledger().commit(self.changes);
        let mut live = shared.live();
        live.transactions += 1;
        live.committed += count;
        Ok(())
    }

    pub(super) fn roll_back(self, shared: &Shared) -> Result<(), postgres::Error> {
        self.transaction.rollback()?;
        shared.live().rolled_back += 1;
        Ok(())
    }
}

/// The server's own words, which the error's `Display` leaves out.
pub(crate) fn described(error: &postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("Postgres says: {} ({})", db.message(), db.code().code()),
        None => match std::error::Error::source(error) {
            Some(source) => format!("Postgres: {error}: {source}"),
            None => format!("Postgres: {error}"),
        },
    }
}
