//! Which columns identify a record.

use super::error::PlanFault;
use crate::catalog::Table;
use crate::pgoutput::{Relation, ReplicaIdentity};

/// No index of Postgres has more columns.
pub(crate) const MAX_COLUMNS: usize = 32;

/// The key's columns as positions in the relation, in key order; none where there is no key.
///
/// Named columns win. Else the primary key, where every old tuple carries it; else the replica
/// identity's index, which is unique and not null as well. A key is never invented: the whole
/// row under `REPLICA IDENTITY FULL` is none.
pub(crate) fn columns(
    relation: &Relation,
    table: &Table,
    named: &[String],
) -> Result<Vec<usize>, PlanFault> {
    let position = |name: &str| relation.columns.iter().position(|column| column.name == name);
    let in_identity = |at: &usize| relation.columns.get(*at).is_some_and(|column| column.key);
    let partial = matches!(relation.identity, ReplicaIdentity::Default | ReplicaIdentity::Index);
    let key = if named.is_empty() {
        let primary: Option<Vec<usize>> =
            table.primary_key.iter().map(|name| position(name)).collect();
        // A primary key the stream does not know of (it may be newer than the log) is none.
        let primary = primary.unwrap_or_default();
        if !partial || (!primary.is_empty() && primary.iter().all(in_identity)) {
            primary
        } else {
            identity(relation, table)
        }
    } else {
        let mut key = Vec::with_capacity(named.len());
        for name in named {
            let at = position(name).ok_or_else(|| PlanFault::UnknownKeyColumn(name.clone()))?;
            if partial && !in_identity(&at) {
                return Err(PlanFault::KeyNotInIdentity(name.clone()));
            }
            key.push(at);
        }
        key
    };
    if key.len() > MAX_COLUMNS {
        return Err(PlanFault::TooManyKeyColumns(key.len()));
    }
    Ok(key)
}

/// The columns the stream marks, in the index's order where the catalog knows it.
fn identity(relation: &Relation, table: &Table) -> Vec<usize> {
    let mut marked: Vec<usize> = (0..relation.columns.len())
        .filter(|at| relation.columns.get(*at).is_some_and(|column| column.key))
        .collect();
    let rank = |at: &usize| {
        let name = relation.columns.get(*at).map(|column| &column.name);
        let order = [&table.primary_key, &table.identity_index];
        order.iter().find_map(|order| order.iter().position(|column| Some(column) == name))
    };
    marked.sort_by_key(|at| rank(at).unwrap_or(usize::MAX));
    marked
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pgoutput::{RelationColumn, RelationId};

    fn relation(identity: ReplicaIdentity, marked: &str) -> Relation {
        let columns = ["a", "b", "c"].map(|name| RelationColumn {
            key: marked.contains(name),
            name: name.to_owned(),
            type_oid: 23,
            type_modifier: -1,
        });
        let (schema, name) = ("public".to_owned(), "t".to_owned());
        Relation { id: RelationId(1), schema, name, identity, columns: columns.to_vec() }
    }

    fn table(primary_key: &[&str], identity_index: &[&str]) -> Table {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Table {
            primary_key: owned(primary_key),
            identity_index: owned(identity_index),
            ..Table::default()
        }
    }

    #[test]
    fn the_primary_key_is_the_key_in_its_own_order() {
        let relation = relation(ReplicaIdentity::Default, "ac");
        assert_eq!(columns(&relation, &table(&["c", "a"], &[]), &[]), Ok(vec![2, 0]));
    }

    #[test]
    fn an_identity_index_without_the_primary_key_becomes_the_key() {
        let by_index = relation(ReplicaIdentity::Index, "bc");
        assert_eq!(columns(&by_index, &table(&["a"], &["c", "b"]), &[]), Ok(vec![2, 1]));
        assert_eq!(columns(&by_index, &table(&["b"], &["c", "b"]), &[]), Ok(vec![1]));
        assert_eq!(columns(&by_index, &table(&[], &["b", "c"]), &[]), Ok(vec![1, 2]));
    }

    #[test]
    fn a_whole_row_is_no_key() {
        let full = relation(ReplicaIdentity::Full, "abc");
        assert_eq!(columns(&full, &table(&[], &[]), &[]), Ok(vec![]));
        assert_eq!(columns(&full, &table(&["b"], &[]), &[]), Ok(vec![1]));
    }

    #[test]
    fn a_primary_key_newer_than_the_log_gives_way_to_what_the_stream_marks() {
        let relation = relation(ReplicaIdentity::Default, "a");
        assert_eq!(columns(&relation, &table(&["d"], &[]), &[]), Ok(vec![0]));
        assert_eq!(columns(&relation, &table(&["b"], &[]), &[]), Ok(vec![0]));
    }

    #[test]
    fn a_named_key_must_be_there_when_a_row_is_deleted() {
        let b = ["b".to_owned()];
        let partial = relation(ReplicaIdentity::Default, "a");
        let fault = PlanFault::KeyNotInIdentity("b".to_owned());
        assert_eq!(columns(&partial, &table(&["a"], &[]), &b), Err(fault));
        let full = relation(ReplicaIdentity::Full, "abc");
        assert_eq!(columns(&full, &table(&["a"], &[]), &b), Ok(vec![1]));
        let fault = PlanFault::UnknownKeyColumn("x".to_owned());
        assert_eq!(columns(&full, &table(&[], &[]), &["x".to_owned()]), Err(fault));
    }
}
