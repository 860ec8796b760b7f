//! What the server's catalog says: types and tables for the plans, and what `check` looks at.
//!
//! Everything here runs on a plain connection. What takes several queries sees one state of the
//! catalog: they share a snapshot, the caller's where a transaction is open.

mod preflight;
mod publication;
mod reading;
mod relations;
mod server;
mod tables;
mod types;

pub use preflight::Preflight;
pub use publication::{Publication, PublishedTable};
pub use reading::{Activity, Leaf, SHAPE};
pub use relations::Relations;
pub use server::ServerFacts;
pub use tables::{Persistence, RelationKind, TableFacts};

use super::connection::Connection;
use super::error::Error;
use super::query::Rows;
use super::sql;

impl Connection {
    /// Opens a transaction whose queries all see the same, unless one is open.
    async fn begin_reading(&mut self) -> Result<bool, Error> {
        if self.in_transaction() {
            return Ok(false);
        }
        self.simple_query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        Ok(true)
    }

    /// Ends it, if it is ours, and hands the result on; its own failure matters only where there
    /// is no other.
    async fn end_reading<T>(&mut self, ours: bool, result: Result<T, Error>) -> Result<T, Error> {
        if ours {
            let ended = self.simple_query("ROLLBACK").await;
            let value = result?;
            ended?;
            return Ok(value);
        }
        result
    }

    /// Each row of a result as what `read` makes of it.
    fn rows_as<T>(
        &self,
        rows: &Rows,
        what: &str,
        read: impl Fn(&[Option<String>]) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        let values = rows.rows.iter().map(|row| read(row));
        values.collect::<Option<Vec<T>>>().ok_or_else(|| self.link.malformed(what))
    }
}

/// A list of OIDs, as a parameter.
fn oids(oids: impl IntoIterator<Item = u32>) -> String {
    sql::array(oids.into_iter().map(|oid| oid.to_string()))
}

/// Of pairs in order, those with the same first part together; equal parts come in a row.
fn grouped<T>(pairs: Vec<(u32, T)>) -> std::collections::HashMap<u32, Vec<T>> {
    let mut groups = std::collections::HashMap::<u32, Vec<T>>::new();
    for (of, item) in pairs {
        groups.entry(of).or_default().push(item);
    }
    groups
}
