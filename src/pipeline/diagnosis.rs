//! Every room's errors become one message with a way out. Exhaustive: what is new there does not
//! compile here until somebody has decided what an operator is told.

use std::time::Duration;

use waltide_core::avro::{DataError, PlanError};
use waltide_core::checkpoint::{Stop, Unreadable};
use waltide_core::intake::Disorder;
use waltide_core::lsn::Lsn;
use waltide_core::pgoutput::{DecodeError, Message, RelationId, TooManyRelations};

use crate::fault::{Code, Fault};
use crate::postgres::sql::identifier;
use crate::postgres::{Error as SourceError, Peer, ServerError, SqlState};
use crate::{kafka, registry, spool};

const REPORT: &str = "this should not happen: report it with this message; after a restart \
                      everything unconfirmed is read again";

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
pub(super) fn replication_mend(peer: &Peer) -> String {
    format!("have a superuser run: ALTER ROLE {} REPLICATION;", identifier(peer.user()))
}

/// A change is decoded with the catalog of its own time, so a publication that is made later, or
/// made again, does not serve the changes before it.
const PUBLICATION_TOO_YOUNG_MEND: &str = "the slot holds changes from before the publication was there, and they cannot be published: \
     decide what to do about those changes, drop the slot, and go on with `waltide recover PIPELINE \
     --accept-gap`";

/// How logical WAL is switched on.
pub(super) const WAL_LEVEL_MEND: &str =
    "run ALTER SYSTEM SET wal_level = 'logical' on the server and restart it";

/// The sink.
pub(crate) fn of_kafka(error: &kafka::Error) -> Fault {
    use kafka::Error as E;
    match error {
        E::Unreachable { brokers, reason } => Fault::new(
            Code::KafkaUnreachable,
            format!("no broker answers at {brokers}: {reason}"),
            "check kafka.bootstrap_servers, that a broker runs there, and its advertised.listeners",
        ),
        E::Authentication { brokers, reason } => Fault::new(
            Code::KafkaAuthentication,
            format!("the brokers at {brokers} refuse the login: {reason}"),
            "check sasl.mechanism, sasl.username and sasl.password under kafka.properties, or \
             kafka.password_file, kafka.token_file or kafka.token_command; it is read again by itself",
        ),
        E::Tls { brokers, reason } => Fault::new(
            Code::KafkaTls,
            format!("no TLS session with the brokers at {brokers}: {reason}"),
            "check security.protocol and ssl.ca.location under kafka.properties, and the port",
        ),
        E::Authorization { what, reason } => Fault::new(
            Code::KafkaAuthorization,
            format!("Kafka does not allow us to {what}: {reason}"),
            "allow it with an ACL for the user the daemon logs in as",
        ),
        E::Topic { topic, reason } => Fault::new(
            Code::TopicUnusable,
            format!("topic {topic} cannot be used: {reason}"),
            "create it by hand, or correct kafka.topic, kafka.partitions and kafka.replication_factor",
        ),
        E::TooLarge { topic } => Fault::new(
            Code::RecordTooLarge,
            format!("a record for topic {topic} is larger than Kafka takes"),
            "raise message.max.bytes under kafka.properties and max.message.bytes of the topic, or \
             exclude the column, and restart the daemon",
        ),
        E::Delivery { topic, reason } => Fault::new(
            Code::DeliveryFailed,
            format!("Kafka gave back a record for topic {topic}: {reason}"),
            "nothing if it goes on by itself: what is not confirmed is read again",
        ),
        E::NotInTime { what, reason } => Fault::new(
            Code::KafkaUnreachable,
            format!("Kafka did not let us {what} in time: {reason}"),
            "look at the brokers: it is tried again by itself",
        ),
        E::Fenced { transactional_id } => Fault::new(
            Code::Superseded,
            format!("another producer has taken over transactional id {transactional_id}"),
            "nothing if another daemon runs this pipeline; otherwise find out who uses that id",
        ),
        E::UnknownOutcome { topic, reason } => Fault::new(
            Code::DeliveryFailed,
            format!("whether a record for topic {topic} was committed is not known: {reason}"),
            "nothing if it goes on by itself: the topic is read again",
        ),
        E::Settings { reason } => Fault::new(
            Code::KafkaSettings,
            format!("a Kafka setting cannot be used: {reason}"),
            "correct it under kafka.properties, or make the file readable that is named",
        ),
    }
}

/// Records that wait and are not acknowledged, while the connection to the source is fine.
pub(super) fn of_stall(brokers: &str, said: &str) -> Fault {
    of_kafka(&kafka::Error::of_words(brokers, said))
}

/// A checkpoint that cannot be gone by.
pub(super) fn of_checkpoint(error: &Unreadable, topic: &str) -> Fault {
    let mend = match error {
        Unreadable::NewerFormat { .. } => {
            "run the newer version again, which reads all formats before its own".to_owned()
        }
        Unreadable::Foreign | Unreadable::Malformed { .. } | Unreadable::Contradictory => {
            format!("find out who else writes to {topic}; nobody but this pipeline may")
        }
    };
    Fault::new(Code::CheckpointUnreadable, format!("topic {topic}: {error}"), mend)
}

/// Continuity that cannot be proved.
pub(super) fn of_stop(stop: &Stop, pipeline: &str) -> Fault {
    let code = match stop {
        Stop::CheckpointLost { .. } => Code::CheckpointLost,
        Stop::AnotherSystem { .. } | Stop::AnotherDatabase { .. } => Code::AnotherSource,
        Stop::OlderTimeline { .. } | Stop::ForkedTimeline { .. } | Stop::LogEndsBefore { .. } => {
            Code::AnotherHistory
        }
        Stop::SlotRecreated { .. } => Code::SlotMissing,
        Stop::SlotAhead { .. } => Code::SlotAhead,
    };
    let way = match stop {
        Stop::CheckpointLost { .. } => "--adopt",
        _ => "--accept-gap",
    };
    let mend = format!("{}: waltide recover {pipeline} {way}", stop.mend());
    Fault::new(code, stop.to_string(), mend)
}

/// A topic that no longer holds what was acknowledged.
pub(super) fn of_lost_topic(topic: &str, what: &str) -> Fault {
    Fault::new(
        Code::TopicLost,
        format!("topic {topic} has lost records of this pipeline: {what}"),
        "restore it if that was a mistake; otherwise tell its consumers and accept the gap with \
         `waltide recover PIPELINE --accept-gap`",
    )
}

/// A slot that is gone although it was just taken.
pub(super) fn of_vanished_slot(slot: &str) -> Fault {
    Fault::new(
        Code::SourceLost,
        format!("slot {slot} was taken and cannot be seen"),
        "nothing: the pipeline starts over",
    )
}

/// A server that does not answer, while its connection stands.
pub(super) fn of_silence(source: &str, after: Duration) -> Fault {
    Fault::new(
        Code::SourceUnreachable,
        format!("{source} has sent nothing for {} s although it was asked", after.as_secs()),
        "look whether the server hangs or the network in between drops packets; it goes on by \
         itself with the first answer",
    )
}

/// The registry at an address.
pub(crate) fn of_registry(error: &registry::Error, url: &str) -> Fault {
    use registry::Error as E;
    match error {
        E::Unreachable { reason } => Fault::new(
            Code::RegistryUnreachable,
            format!("the schema registry at {url} does not answer: {reason}"),
            "check registry.url, that the registry runs, and the network in between",
        ),
        E::Authentication { status } => Fault::new(
            Code::RegistryAuthentication,
            format!("the schema registry at {url} refuses the login (HTTP {status})"),
            "check the credentials under registry; a file is read again with each request",
        ),
        E::Token { url: giver, status } => Fault::new(
            Code::RegistryAuthentication,
            format!("{giver} gives no token for the schema registry (HTTP {status})"),
            "check token_url, client_id and client_secret under registry.oauth",
        ),
        E::Incompatible { subject, reason } => Fault::new(
            Code::SchemaIncompatible,
            format!("the registry refuses the new schema of subject {subject}: {reason}"),
            format!(
                "loosen the compatibility rule of that subject (PUT {{\"compatibility\": \"NONE\"}} to \
                 {url}/config/{subject}), or say with registry.on_incompatible whether the table \
                 goes on in a new topic (fork) or all the same (force); rows wait until then, and \
                 to undo the migration does not help those that were written since"
            ),
        ),
        E::Invalid { subject, reason } => Fault::new(
            Code::SchemaInvalid,
            format!("the registry cannot take the schema of subject {subject}: {reason}"),
            "follow its reason, or report it with the table's definition",
        ),
        E::Unknown { subject, reason } => Fault::new(
            Code::RegistryForeign,
            format!("the schema registry at {url} knows nothing of subject {subject}: {reason}"),
            "look whether the subject was deleted; it is registered again with the next start",
        ),
        E::Foreign { reason } => Fault::new(
            Code::RegistryForeign,
            format!("what answers at {url} is not a schema registry: {reason}"),
            "give the address under which the API begins, such as http://HOST/apis/ccompat/v7 for Apicurio",
        ),
        E::Failing { status, reason } => Fault::new(
            Code::RegistryFailing,
            format!("the schema registry at {url} answers {status}: {reason}"),
            "look at the registry's log",
        ),
        E::Directory { path, reason } => of_directory(path, reason),
        E::Damaged { path, reason } => Fault::new(
            Code::SchemaDirectory,
            format!("the schema registry in {path} is damaged: {reason}"),
            "restore the directory of registry.directory from a backup that is as new as what is \
             published, then restart the daemon",
        ),
        E::Settings { reason } => Fault::new(
            Code::RegistrySettings,
            format!("the registry settings cannot be used: {reason}"),
            "correct registry.url and the credentials beside it",
        ),
    }
}

/// The directory of a registry of our own.
pub(crate) fn of_directory(path: &str, reason: &str) -> Fault {
    Fault::new(
        Code::SchemaDirectory,
        format!("the schema registry in {path} cannot be used: {reason}"),
        "let the daemon's user write the directory of registry.directory, and see that the volume \
         is mounted and has room; it goes on by itself",
    )
}

/// A schema that is refused is so for a row, and whoever mends it wants to know which.
pub(super) fn at_row(fault: Fault, lsn: Lsn) -> Fault {
    match fault.code {
        Code::SchemaIncompatible | Code::SchemaInvalid => {
            Fault { what: format!("{}, for the row at {lsn}", fault.what), ..fault }
        }
        _ => fault,
    }
}

/// Ids that records name which are published already, and that mean nothing or something else now.
pub(crate) fn of_other_id(subject: &str, was: u32, is: Option<u32>, url: &str) -> Fault {
    let now = is.map_or_else(|| "does not know it".to_owned(), |id| format!("gives it id {id}"));
    Fault::new(
        Code::RegistryRenumbered,
        format!(
            "a schema of subject {subject} had id {was}, and the schema registry at {url} {now}"
        ),
        "restore the registry, or point registry.url or registry.directory to the one with the \
         schemas; where nobody needs what is published already, set registry.verify_ids: false and \
         restart the daemon",
    )
}

/// What decides which rows are sent, and how.
const ANOTHER_MEND: &str = "put back what was changed since (source.binary, the tables, columns \
    and row filters of the publication) and restart the daemon; or set `delivery: at_least_once`, \
    with which that transaction is published again from its start";

/// The stream's order.
pub(crate) fn of_disorder(error: Disorder) -> Fault {
    let code = match error {
        Disorder::Another { .. } => {
            return Fault::new(Code::AnotherTransaction, error.to_string(), ANOTHER_MEND);
        }
        Disorder::Unaccounted(_) => Code::Internal,
        Disorder::NestedBegin(_)
        | Disorder::BackwardBegin { .. }
        | Disorder::Outside
        | Disorder::Inside(_)
        | Disorder::ForeignCommit { .. } => Code::SourceProtocol,
    };
    Fault::new(code, format!("the stream contradicts itself: {error}"), REPORT)
}

/// The stream's bytes.
pub(crate) fn of_bytes(error: &DecodeError) -> Fault {
    Fault::new(
        Code::SourceProtocol,
        format!("the server sent bytes that are not pgoutput: {error}"),
        "connect without a proxy or pooler in between; otherwise report it with this message",
    )
}

/// Transactions that wait on disk until they are committed.
pub(super) fn of_spool(error: &spool::Error) -> Fault {
    use spool::Error as E;
    let what = error.to_string();
    match error {
        E::Io { .. } => Fault::new(
            Code::SpoolUnusable,
            format!("open transactions cannot be kept: {what}"),
            "make room there, or let this process write there, or give it another directory with \
             spool; meanwhile large transactions are read once they are committed",
        ),
        E::Taken(_) => Fault::new(
            Code::SpoolUnusable,
            format!("open transactions cannot be kept: {what}"),
            "give each daemon a directory of its own with spool; meanwhile large transactions are \
             read once they are committed",
        ),
        E::Outgrown(_) => Fault::new(
            Code::SpoolUnusable,
            format!("{what}: they are read again once they are committed"),
            "nothing, or raise spool_max_bytes",
        ),
        E::Damaged(_) => Fault::new(
            Code::SpoolDamaged,
            format!("what was kept of a transaction is damaged: {what}"),
            "look at the disk, and that nobody else writes there; the transaction is read again",
        ),
        E::Disorder(disorder) => Fault::new(
            Code::SourceProtocol,
            format!("the stream contradicts itself: {disorder}"),
            REPORT,
        ),
    }
}

/// A message that was not asked for.
pub(super) fn of_message(message: &Message<'_>) -> Fault {
    let kind = match message {
        Message::StreamStart { .. }
        | Message::StreamStop
        | Message::StreamCommit(..)
        | Message::StreamAbort(_)
        | Message::StreamPrepare(_) => "a part of an open transaction",
        _ => "a two-phase message",
    };
    Fault::new(
        Code::SourceProtocol,
        format!("the server sent {kind}, which was not asked for"),
        REPORT,
    )
}

/// More relations on one connection than are remembered.
pub(crate) fn of_too_many_relations(_: TooManyRelations) -> Fault {
    Fault::new(
        Code::SourceLost,
        "the connection has described more tables than are remembered".to_owned(),
        "nothing: a new connection starts afresh",
    )
}

/// A row of a relation the server has not described.
pub(crate) fn of_unknown_relation(relation: RelationId) -> Fault {
    Fault::new(
        Code::SourceProtocol,
        format!("a row came for relation {} that the server has not described", relation.0),
        REPORT,
    )
}

/// A row.
pub(crate) fn of_row(error: &DataError) -> Fault {
    Fault::new(
        Code::RowUnencodable,
        error.to_string(),
        "mend the value in the source, or leave the column out under table_options, and restart the daemon",
    )
}

/// A row that takes more than is allowed.
pub(super) fn of_large_row(topic: &str, bytes: usize) -> Fault {
    Fault::new(
        Code::RecordTooLarge,
        format!("a row of topic {topic} takes more than {bytes} bytes"),
        "raise max_row_bytes, set large_rows to dead_letter, or exclude the column under \
         table_options, and restart the daemon",
    )
}

/// A table.
pub(crate) fn of_plan(error: &PlanError) -> Fault {
    Fault::new(
        Code::TableUnplannable,
        format!("a table cannot be written as Avro: {error}"),
        "rename what collides, or leave the column or table out, and restart the daemon",
    )
}
