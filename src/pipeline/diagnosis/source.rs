//! What the source says, and what it does not say any more.

use std::time::Duration;

use crate::fault::{Code, Fault};
use crate::postgres::sql::identifier;
use crate::postgres::{Error as SourceError, Peer, ServerError, SqlState};

/// The source.
pub(crate) fn of_source(error: &SourceError) -> Fault {
    use SourceError as E;
    let (code, mend) = match error {
        E::Dns { .. } => (
            Code::SourceUnreachable,
            "check the host in source.url, and that this machine can resolve it",
        ),
        E::Unreachable { .. } | E::Timeout { .. } | E::NoHostReached(_) => (
            Code::SourceUnreachable,
            "check host and port in source.url, that the server runs, and the network in between",
        ),
        E::TlsRefused { .. } => (
            Code::SourceTls,
            "switch TLS on in the server (ssl = on), or ask for less with sslmode in source.url",
        ),
        E::Tls { .. } => (
            Code::SourceTls,
            "check sslmode, sslrootcert, sslcert and sslkey in source.url against the server's setting",
        ),
        E::CertificateUntrusted { .. } => (
            Code::SourceCertificate,
            "name the authority that signed the server's certificate in sslrootcert",
        ),
        E::CertificateWrongHost { .. } => (
            Code::SourceCertificate,
            "connect by a name that stands in the certificate, or give the server one for this name",
        ),
        E::File { .. } => {
            (Code::SourceSettings, "give a file this process can read, in the form it needs")
        }
        E::PasswordCommand { .. } => (
            Code::PasswordCommand,
            "run source.password_command as the daemon's user and follow what it says",
        ),
        E::Auth { .. } => (
            Code::SourceAuthentication,
            "check the password (password_file, password_command or PGPASSWORD) and the server's authentication method",
        ),
        E::NoHostMatches { .. } => (
            Code::SourceUnfit,
            "list the server that is wanted in source.url, or wait for the failover to finish",
        ),
        E::Closed { .. } => (
            Code::SourceLost,
            "nothing if it comes back by itself; otherwise look at the server's log",
        ),
        E::Protocol { .. } => {
            (Code::SourceProtocol, "connect without a proxy or pooler in between")
        }
        E::Server { peer, error: server } => return of_server(error, peer, server),
    };
    Fault::new(code, error.to_string(), mend)
}

/// What the server itself said. Where a command has a better answer, it maps the error itself.
fn of_server(error: &SourceError, peer: &Peer, server: &ServerError) -> Fault {
    let what = error.to_string();
    let (code, mend) = match server.sqlstate {
        SqlState::INVALID_PASSWORD => (
            Code::SourceAuthentication,
            "check the user in source.url and the password (password_file, password_command or PGPASSWORD)",
        ),
        SqlState::INVALID_AUTHORIZATION => {
            return Fault::new(Code::SourceAuthentication, what, login_mend(peer, server));
        }
        SqlState::INSUFFICIENT_PRIVILEGE => {
            return Fault::new(Code::SourcePrivilege, what, privilege_mend(peer, server));
        }
        SqlState::INVALID_CATALOG_NAME => {
            (Code::SourceDatabaseMissing, "correct the database in source.url, or create it")
        }
        SqlState::TOO_MANY_CONNECTIONS => (
            Code::NoFreeConnection,
            "raise the limit the server names (max_wal_senders, max_connections, or the CONNECTION \
             LIMIT of role or database), or end connections that are not needed",
        ),
        SqlState::CONFIGURATION_LIMIT_EXCEEDED => (
            Code::NoFreeSlot,
            "raise max_replication_slots on the server and restart it, or drop slots that nobody reads",
        ),
        SqlState::OBJECT_IN_USE => (
            Code::SlotTaken,
            "nothing if a standby is wanted; this daemon takes over when the slot is free",
        ),
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE if server.message.contains("wal_level") => {
            (Code::WalLevel, WAL_LEVEL_MEND)
        }
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE => (
            Code::SlotUnusable,
            "look at the slot in pg_replication_slots; for a lost one, `waltide recover PIPELINE --accept-gap`",
        ),
        SqlState::UNDEFINED_OBJECT if server.message.starts_with("publication") => {
            (Code::PublicationUnusable, PUBLICATION_TOO_YOUNG_MEND)
        }
        SqlState::ADMIN_SHUTDOWN | SqlState::CRASH_SHUTDOWN | SqlState::CANNOT_CONNECT_NOW => (
            Code::SourceLost,
            "nothing if the server comes back by itself; otherwise look at its log",
        ),
        SqlState::UNDEFINED_FILE => (
            Code::SlotUnusable,
            "the server has removed WAL the slot needs: `waltide recover PIPELINE --accept-gap` makes a new one",
        ),
        _ if server.sqlstate.class() == "08" => (
            Code::SourceLost,
            "nothing if it comes back by itself; otherwise look at the server's log",
        ),
        _ => (Code::SourceRefused, "follow the server's message; its log has the statement"),
    };
    Fault::new(code, what, mend)
}

/// The server has one SQLSTATE for several refusals of a login. Its words tell which; where they
/// are translated, the advice is that for the commonest.
fn login_mend(peer: &Peer, server: &ServerError) -> String {
    let (role, database) = (identifier(peer.user()), identifier(peer.database()));
    if server.message.contains("does not exist") {
        return format!(
            "correct the user in source.url, or create the role: CREATE ROLE {role} LOGIN \
             REPLICATION PASSWORD '...';"
        );
    }
    if server.message.contains("not permitted to log in") {
        return format!("have a superuser run: ALTER ROLE {role} LOGIN;");
    }
    format!(
        "let the role in with a line in the server's pg_hba.conf, such as: host {database} {role} \
         ADDRESS scram-sha-256; then reload the server"
    )
}

/// As with logins, only the words tell what is missing.
fn privilege_mend(peer: &Peer, server: &ServerError) -> String {
    if server.message.contains("permission denied for database") {
        let (role, database) = (identifier(peer.user()), identifier(peer.database()));
        return format!("have a superuser run: GRANT CONNECT ON DATABASE {database} TO {role};");
    }
    // A session that may not even start wanted to be a walsender.
    if server.severity == "FATAL" {
        return replication_mend(peer);
    }
    "run the SQL that `waltide setup` prints, as an owner of the tables or a superuser".to_owned()
}

/// How a role gets the right to replicate.
pub(in crate::pipeline) fn replication_mend(peer: &Peer) -> String {
    format!("have a superuser run: ALTER ROLE {} REPLICATION;", identifier(peer.user()))
}

/// A change is decoded with the catalog of its own time, so a publication that is made later, or
/// made again, does not serve the changes before it.
const PUBLICATION_TOO_YOUNG_MEND: &str = "the slot holds changes from before the publication was there, and they cannot be published: \
     decide what to do about those changes, drop the slot, and go on with `waltide recover PIPELINE \
     --accept-gap`";

/// How logical WAL is switched on.
pub(in crate::pipeline) const WAL_LEVEL_MEND: &str =
    "run ALTER SYSTEM SET wal_level = 'logical' on the server and restart it";

/// A slot that another connection has.
pub(in crate::pipeline) fn of_lost_slot(slot: &str) -> Fault {
    Fault::new(
        Code::SourceLost,
        format!("slot {slot} is not ours any more"),
        "nothing: the pipeline starts over, or stands by where another daemon has it",
    )
}

/// A slot that is gone although it was just taken.
pub(in crate::pipeline) fn of_vanished_slot(slot: &str) -> Fault {
    Fault::new(
        Code::SourceLost,
        format!("slot {slot} was taken and cannot be seen"),
        "nothing: the pipeline starts over",
    )
}

/// A server that does not answer, while its connection stands.
pub(in crate::pipeline) fn of_silence(source: &str, after: Duration) -> Fault {
    Fault::new(
        Code::SourceUnreachable,
        format!("{source} has sent nothing for {} s although it was asked", after.as_secs()),
        "look whether the server hangs or the network in between drops packets; it goes on by \
         itself with the first answer",
    )
}
