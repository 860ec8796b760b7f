//! A database of a test's own.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::session::{Lost, Pending, Rows, Session};
use super::{Postgres, Version};
use crate::Stack;
use crate::poll::poll;

/// How long an ended walsender may hold on to its slot.
const SLOT_DEADLINE: Duration = Duration::from_secs(10);

/// A database that goes away on drop, together with all that carries its
/// [`prefix`](Self::prefix): replication slots, roles, Kafka topics. If the test is failing, the
/// servers' logs are kept.
#[derive(Debug)]
pub struct Database {
    postgres: Postgres,
    name: String,
    session: Session,
}

impl Database {
    #[track_caller]
    pub(super) fn create(postgres: Postgres, test: &str, options: &str) -> Self {
        let name = unique_name(test);
        postgres.execute(&format!("CREATE DATABASE {name} {options}"));
        match postgres.open(&name, Lost::Returns) {
            Ok(session) => Self { postgres, name, session },
            Err(error) => panic!("{error}"),
        }
    }

    /// The server it is in.
    pub fn postgres(&self) -> &Postgres {
        &self.postgres
    }

    /// The server's version.
    pub fn version(&self) -> Version {
        self.postgres.version()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the names of slots, roles and topics begin with that belong to this test: lower case,
    /// unique in this and every other run, at most 40 bytes.
    pub fn prefix(&self) -> &str {
        &self.name
    }

    /// A superuser's URL.
    pub fn url(&self) -> String {
        self.postgres.url(&self.name)
    }

    /// The URL for another role.
    pub fn url_as(&self, role: &str, password: Option<&str>) -> String {
        self.postgres.url_as(role, password, &self.name)
    }

    /// Another superuser's session, for what must happen beside the first.
    ///
    /// # Panics
    /// When it cannot be had.
    #[track_caller]
    pub fn session(&self) -> Session {
        self.postgres.session(&self.name)
    }

    /// See [`Session::execute`].
    ///
    /// # Panics
    /// When the server refuses, with its message.
    #[track_caller]
    pub fn execute(&self, sql: &str) {
        self.session.execute(sql);
    }

    /// See [`Session::query`].
    ///
    /// # Panics
    /// When the server refuses, with its message.
    #[track_caller]
    pub fn query(&self, sql: &str) -> Rows {
        self.session.query(sql)
    }

    /// See [`Session::value`].
    ///
    /// # Panics
    /// When the answer is not one row of one value that is not NULL.
    #[track_caller]
    pub fn value(&self, sql: &str) -> String {
        self.session.value(sql)
    }

    /// See [`Session::try_query`].
    ///
    /// # Errors
    /// What the server answers, or that the connection is gone.
    pub fn try_query(&self, sql: &str) -> Result<Rows, postgres::Error> {
        self.session.try_query(sql)
    }

    /// See [`Session::send`].
    pub fn send(&self, sql: &str) -> Pending {
        self.session.send(sql)
    }

    fn clean_up(&self) -> Result<(), postgres::Error> {
        let (name, postgres) = (&self.name, self.postgres.main_session());
        for gid in column(self.try_query(
            "SELECT quote_literal(gid) FROM pg_prepared_xacts WHERE database = current_database()",
        )?) {
            self.try_query(&format!("ROLLBACK PREPARED {gid}"))?;
        }
        let mine = format!("(database = '{name}' OR starts_with(slot_name, '{name}'))");
        let drop_slots = || {
            postgres.try_query(&format!(
                "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots \
                 WHERE {mine} AND active"
            ))?;
            postgres.try_query(&format!(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots \
                 WHERE {mine} AND NOT active"
            ))?;
            let left = format!("SELECT slot_name FROM pg_replication_slots WHERE {mine}");
            postgres.try_query(&left)
        };
        // Whoever is still connected may take a slot between two of these statements.
        poll(SLOT_DEADLINE, || drop_slots().is_ok_and(|left| left.is_empty()).then_some(()));
        postgres.try_query(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))?;
        for role in column(postgres.try_query(&format!(
            "SELECT quote_ident(rolname) FROM pg_roles WHERE starts_with(rolname, '{name}')"
        ))?) {
            postgres.try_query(&format!("DROP ROLE {role}"))?;
        }
        Ok(())
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.postgres.save_log();
        }
        Stack::shared().after_test(&self.name);
        if self.postgres.is_answering()
            && let Err(error) = self.clean_up()
        {
            let error = super::session::described(&error);
            crate::artifacts::say(&format!("{} was not dropped: {error}", self.name));
        }
    }
}

fn column(rows: Rows) -> impl Iterator<Item = String> {
    rows.into_iter().filter_map(|row| row.into_iter().next().flatten())
}

/// A name for people, made unique among all runs that use the same server.
fn unique_name(test: &str) -> String {
    static RUN: OnceLock<u64> = OnceLock::new();
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let run = RUN.get_or_init(|| RandomState::new().build_hasher().finish()) & 0xff_ffff;
    let clean = test.rsplit("::").next().unwrap_or(test).chars();
    let clean = clean.map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' });
    let clean: String = clean.take(24).collect();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("t_{}_{run:06x}_{number}", clean.trim_matches('_'))
}
