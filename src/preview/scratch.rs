//! A database of our own on a server that is there for trying things.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{of_scratch, unusable};
use crate::fault::Fault;
use crate::postgres::sql::identifier;
use crate::postgres::{Connection, Error, Mode, Params};

/// It, and what was made beside it. It stays until [`Scratch::remove`].
pub(super) struct Scratch {
    server: Params,
    params: Params,
    /// Roles the migration names, which belong to the server.
    roles: Vec<String>,
}

impl Scratch {
    /// Makes it, unless the server is the one with the source.
    pub(super) async fn make(server: &Params, source: Option<&str>) -> Result<Self, Fault> {
        let mut on =
            Connection::open(server, Mode::Plain).await.map_err(|error| of_scratch(&error))?;
        let identity = identity(&mut on).await;
        if identity.is_some() && identity.as_deref() == source {
            return Err(unusable(
                format!("--scratch names {}, which is the server of the source", on.peer()),
                "name another server: roles and settings of a server are not a database's own",
            ));
        }
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let name = format!("waltide_plan_{}_{:x}", std::process::id(), at.as_micros());
        // The other template may hold what is not the source's.
        let made = on.simple_query(&format!("CREATE DATABASE {name} TEMPLATE template0")).await;
        on.close().await;
        made.map_err(|error| of_scratch(&error))?;
        let params = Params { database: name, ..server.clone() };
        Ok(Self { server: server.clone(), params, roles: Vec::new() })
    }

    /// How it is reached.
    pub(super) const fn params(&self) -> &Params {
        &self.params
    }

    /// Sees to it that there is a role, for as long as this is.
    pub(super) async fn lend_role(&mut self, name: &str) -> Result<(), Error> {
        let mut on = Connection::open(&self.server, Mode::Plain).await?;
        let there = on.query("SELECT FROM pg_roles WHERE rolname = $1", &[Some(name)]).await?;
        if there.rows.is_empty() {
            on.simple_query(&format!("CREATE ROLE {}", identifier(name))).await?;
            self.roles.push(name.to_owned());
        }
        on.close().await;
        Ok(())
    }

    /// Removes all that was made.
    pub(super) async fn remove(self) -> Result<(), Fault> {
        let name = &self.params.database;
        let left = |error: &Error| {
            unusable(
                format!("database {name} and roles {:?} are left on it: {error}", self.roles),
                format!("drop them: DROP DATABASE {name} WITH (FORCE)"),
            )
        };
        let mut on =
            Connection::open(&self.server, Mode::Plain).await.map_err(|error| left(&error))?;
        let dropped = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
        on.simple_query(&dropped).await.map_err(|error| left(&error))?;
        for role in &self.roles {
            let dropped = format!("DROP ROLE IF EXISTS {}", identifier(role));
            on.simple_query(&dropped).await.map_err(|error| left(&error))?;
        }
        on.close().await;
        Ok(())
    }
}

/// What tells servers apart, where the role may know.
pub(super) async fn identity(on: &mut Connection) -> Option<String> {
    let asked = "SELECT system_identifier FROM pg_control_system()";
    on.query(asked, &[]).await.ok()?.single().map(str::to_owned)
}
