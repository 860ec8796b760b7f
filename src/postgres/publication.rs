//! The publication of a pipeline: what the catalog has, and the SQL that makes it what it should be.
//!
//! A publication must never make the application fail. The server refuses UPDATE and DELETE on a
//! published table that has no replica identity, so a table without one goes into a second
//! publication that carries inserts and truncates only.
//!
//! A publication that somebody else made is used as it is. Ours carry a comment, and tables that
//! come to match later are added to them.

use std::collections::HashSet;

use waltide_core::pgoutput::ReplicaIdentity;

use super::catalog::{Publication, TableFacts};
use super::sql::{identifier, literal, qualified};
use super::{Connection, Error};

/// The comment that marks a publication as ours to change.
const MARK: &str = "made by waltide";

/// A table that could be captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Whether the server lets updates and deletes of it be published.
    pub identifiable: bool,
    /// Whether one of the two publications covers it.
    pub published: bool,
}

/// A publication as the catalog has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Existing {
    /// Its name.
    pub name: String,
    /// Operations it leaves out.
    pub lacks: Vec<&'static str>,
    /// Whether it is ours to change.
    pub ours: bool,
}

/// What there is of a pipeline's publications, and the tables they could cover.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// The publications that exist, of the two.
    pub existing: Vec<Existing>,
    /// Every permanent table outside of the server's own schemas. A partitioned table stands for
    /// its partitions.
    pub candidates: Vec<Candidate>,
}

/// The name of the second publication, for tables without replica identity.
#[must_use]
pub fn inserts_only(publication: &str) -> String {
    format!("{publication}_inserts")
}

impl Connection {
    /// Looks at a pipeline's publications and at the tables of the database.
    pub async fn load_coverage(&mut self, publication: &str) -> Result<Coverage, Error> {
        let second = inserts_only(publication);
        let mut coverage = Coverage::default();
        let mut all_tables = false;
        let mut covered = HashSet::new();
        for name in [publication, &second] {
            let Some((found, members)) = self.load_members(name).await? else { continue };
            all_tables |= found.all_tables;
            covered.extend(members);
            coverage.existing.push(Existing {
                name: name.to_owned(),
                lacks: lacks(&found),
                ours: self.is_ours(name).await? == Some(true),
            });
        }
        let tables = self.list_tables(&["*"]).await?;
        let streamed = tables.into_iter().filter(TableFacts::is_streamed);
        coverage.candidates = streamed
            .map(|table| Candidate {
                published: all_tables || covered.contains(&table.id),
                identifiable: is_identifiable(&table),
                schema: table.schema,
                name: table.name,
            })
            .collect();
        Ok(coverage)
    }

    /// The tables that a pipeline's publications may lack: none where the publication is not ours
    /// to change, all that are not in ours where it is, or where there is none. Cheap where nothing
    /// has changed, whatever the number of tables.
    pub async fn list_unpublished(&mut self, publication: &str) -> Result<Vec<TableFacts>, Error> {
        if self.is_ours(publication).await? == Some(false) {
            return Ok(Vec::new());
        }
        let second = inserts_only(publication);
        let mut tables = self.list_tables_outside(&[publication, &second]).await?;
        tables.retain(TableFacts::is_streamed);
        Ok(tables)
    }

    /// None where there is no such publication.
    async fn is_ours(&mut self, publication: &str) -> Result<Option<bool>, Error> {
        let sql = "SELECT coalesce(obj_description(oid, 'pg_publication') LIKE $2 || '%', false)
                   FROM pg_publication WHERE pubname = $1";
        let found = self.query(sql, &[Some(publication), Some(MARK)]).await?;
        Ok(found.single().map(|ours| ours == "t"))
    }
}

/// Where it is not, the server refuses UPDATE and DELETE once they are published.
fn is_identifiable(table: &TableFacts) -> bool {
    match table.identity {
        ReplicaIdentity::Full | ReplicaIdentity::Index => true,
        ReplicaIdentity::Nothing => false,
        ReplicaIdentity::Default => !table.primary_key.is_empty() && !table.deferrable_key,
    }
}

fn lacks(publication: &Publication) -> Vec<&'static str> {
    let Publication { inserts, updates, deletes, truncates, .. } = *publication;
    let has = [inserts, updates, deletes, truncates];
    let operations = ["insert", "update", "delete", "truncate"];
    operations.into_iter().zip(has).filter_map(|(name, has)| (!has).then_some(name)).collect()
}

/// The statements that make a pipeline's publications cover tables. Empty where nothing is to do.
#[must_use]
pub fn statements(publication: &str, existing: &[Existing], missing: &[&Candidate]) -> Vec<String> {
    let (whole, inserts): (Vec<&Candidate>, Vec<&Candidate>) =
        missing.iter().partition(|table| table.identifiable);
    let second = inserts_only(publication);
    // Both are made even while no table belongs in them: a stream is started with the names of
    // its publications, and a table that comes later can only join one of those.
    let mut all = cover(publication, "insert, update, delete, truncate", existing, &whole);
    if existing.first().is_none_or(|first| first.ours) {
        all.extend(cover(&second, "insert, truncate", existing, &inserts));
    }
    all
}

fn cover(
    name: &str,
    operations: &str,
    existing: &[Existing],
    tables: &[&Candidate],
) -> Vec<String> {
    let quoted = identifier(name);
    let list = tables
        .iter()
        .map(|table| qualified(&table.schema, &table.name))
        .collect::<Vec<_>>()
        .join(", ");
    match existing.iter().find(|publication| publication.name == name) {
        Some(publication) if publication.ours && !tables.is_empty() => {
            vec![format!("ALTER PUBLICATION {quoted} ADD TABLE {list}")]
        }
        Some(_) => Vec::new(),
        None => {
            let tables = if list.is_empty() { String::new() } else { format!(" FOR TABLE {list}") };
            let options = format!("publish = '{operations}', publish_via_partition_root = true");
            let comment = literal(&format!("{MARK}; drop it when the pipeline is gone"));
            vec![
                format!("CREATE PUBLICATION {quoted}{tables} WITH ({options})"),
                format!("COMMENT ON PUBLICATION {quoted} IS {comment}"),
            ]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str, identifiable: bool) -> Candidate {
        Candidate {
            schema: "s p".to_owned(),
            name: name.to_owned(),
            identifiable,
            published: false,
        }
    }

    #[test]
    fn a_table_without_identity_never_gets_its_updates_published() {
        let (keyed, keyless) = (table("a", true), table("b", false));
        let sql = statements("p", &[], &[&keyed, &keyless]);
        assert_eq!(
            sql,
            [
                "CREATE PUBLICATION \"p\" FOR TABLE \"s p\".\"a\" WITH (publish = 'insert, update, delete, \
                 truncate', publish_via_partition_root = true)",
                "COMMENT ON PUBLICATION \"p\" IS 'made by waltide; drop it when the pipeline is gone'",
                "CREATE PUBLICATION \"p_inserts\" FOR TABLE \"s p\".\"b\" WITH (publish = 'insert, truncate', \
                 publish_via_partition_root = true)",
                "COMMENT ON PUBLICATION \"p_inserts\" IS 'made by waltide; drop it when the pipeline is gone'",
            ]
        );
    }

    #[test]
    fn a_publication_somebody_else_made_is_used_as_it_is() {
        let theirs = Existing { name: "p".to_owned(), lacks: Vec::new(), ours: false };
        assert_eq!(statements("p", &[theirs], &[&table("a", true)]), Vec::<String>::new());
    }

    #[test]
    fn a_table_that_comes_to_match_is_added_to_ours() {
        let ours = Existing { name: "p".to_owned(), lacks: Vec::new(), ours: true };
        let second = Existing { name: inserts_only("p"), ..ours.clone() };
        let sql = statements("p", &[ours, second], &[&table("a\"b", true)]);
        assert_eq!(sql, ["ALTER PUBLICATION \"p\" ADD TABLE \"s p\".\"a\"\"b\""]);
    }
}
