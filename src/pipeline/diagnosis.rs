//! Every room's errors become one message with a way out. Exhaustive: what is new there does not
//! compile here until somebody has decided what an operator is told.

mod checkpoint;
mod source;

use waltide_core::avro::{DataError, PlanError};
use waltide_core::intake::Disorder;
use waltide_core::lsn::Lsn;
use waltide_core::pgoutput::{DecodeError, Message, RelationId, TooManyRelations};

use crate::fault::{Code, Fault};
use crate::{kafka, registry, spool};
pub(super) use checkpoint::{
    of_books, of_checkpoint, of_lost_checkpoint, of_lost_topic, of_missing_slot, of_stop,
    of_successor,
};
pub(crate) use source::of_source;
pub(super) use source::{
    WAL_LEVEL_MEND, of_lost_slot, of_silence, of_vanished_slot, replication_mend,
};

const REPORT: &str = "this should not happen: report it with this message; after a restart \
                      everything unconfirmed is read again";

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
        E::UnknownCommit { transactional_id, reason } => Fault::new(
            Code::DeliveryFailed,
            format!(
                "whether the last records of {transactional_id} were committed is not known: {reason}"
            ),
            "nothing if it goes on by itself: the checkpoint, which was among them, is read again",
        ),
        E::RolledBack { transactional_id, reason } => Fault::new(
            Code::DeliveryFailed,
            format!("Kafka rolled back the last records of {transactional_id}: {reason}"),
            "nothing if it goes on by itself: they are read again",
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

/// A machine and its hands do not agree.
pub(super) fn of_machine() -> Fault {
    Fault::new(Code::Internal, "what was done is not what was asked for", REPORT)
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
