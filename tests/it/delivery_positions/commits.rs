//! Commits as the log has them, read through a slot of our own and without the product's code.

use waltide_stack::Database;

use crate::support::Lsn;

/// Where a commit record starts, and where the next record may.
#[derive(Debug, Clone, Copy)]
pub(super) struct Commit {
    pub(super) start: Lsn,
    pub(super) end: Lsn,
}

/// A second slot beside the daemon's.
pub(super) struct Commits<'a> {
    database: &'a Database,
    slot: String,
}

impl<'a> Commits<'a> {
    /// Watches from now on.
    pub(super) fn watch(database: &'a Database) -> Self {
        let slot = format!("{}_watch", database.prefix());
        database.execute("CREATE PUBLICATION watch FOR ALL TABLES");
        database
            .execute(&format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"));
        Self { database, slot }
    }

    /// The commits since the last call.
    fn read(&self) -> Vec<Commit> {
        let rows = self.database.query(&format!(
            "SELECT encode(data, 'hex') FROM pg_logical_slot_get_binary_changes('{}', NULL, NULL, \
             'proto_version', '1', 'publication_names', 'watch') WHERE get_byte(data, 0) = 67",
            self.slot
        ));
        // 'C', flags, the commit's start, its end, its time.
        let position = |hex: &str| Lsn(u64::from_str_radix(hex, 16).expect("eight bytes"));
        rows.iter()
            .map(|row| row[0].as_deref().expect("a message"))
            .map(|hex| Commit { start: position(&hex[4..20]), end: position(&hex[20..36]) })
            .collect()
    }

    /// Commits two statements until nothing comes between them in the log; other tests write to
    /// it too. What did not do is given to `pass` with its end.
    pub(super) fn back_to_back(
        &self,
        (first, second): (&str, &str),
        mut pass: impl FnMut(Lsn),
    ) -> (Commit, Commit) {
        let sessions = [self.database.session(), self.database.session()];
        for _ in 0..1_000 {
            for (session, statement) in sessions.iter().zip([first, second]) {
                session.execute("BEGIN");
                session.execute(statement);
            }
            for session in &sessions {
                session.execute("COMMIT");
            }
            let commits = self.read();
            let [one, two] = commits.as_slice() else { panic!("not two commits: {commits:?}") };
            if one.end == two.start {
                return (*one, *two);
            }
            pass(two.end);
        }
        panic!("no two commits were back to back");
    }
}
