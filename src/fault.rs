//! Every failure a user can meet: one code, one message, one way out.
//!
//! Rooms have small error enums of their own; `pipeline::diagnosis` turns them into a [`Fault`].
//! `docs/errors.md` has a section for each code, which a test holds to this list.

use std::fmt;

/// What a failure asks of whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Goes away by itself; tried again at once, then at growing intervals.
    Transient,
    /// Somebody must change something outside of the daemon; tried again at a steady interval,
    /// so that the mend alone is enough.
    Operator,
    /// Going on could lose or invent data; the pipeline stops until somebody decides.
    Stop,
}

impl Class {
    /// As metrics and logs write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Operator => "operator",
            Self::Stop => "stop",
        }
    }
}

macro_rules! codes {
    ($($name:ident $id:literal $class:ident $title:literal;)*) => {
        /// A kind of failure; its number never changes its meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code { $(#[doc = $title] $name,)* }

        impl Code {
            /// Every code, in the order of `docs/errors.md`.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The code as it is printed.
            #[must_use]
            pub const fn id(self) -> &'static str {
                match self { $(Self::$name => $id,)* }
            }

            /// What it asks of whom.
            #[must_use]
            pub const fn class(self) -> Class {
                match self { $(Self::$name => Class::$class,)* }
            }

            /// Its heading in `docs/errors.md`.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }
        }
    };
}

codes! {
    ConfigUnreadable "WT101" Operator "the configuration cannot be read";
    ConfigInvalid "WT102" Operator "the configuration is not valid";
    ListenFailed "WT103" Operator "the HTTP address cannot be listened on";
    CheckFailed "WT104" Operator "check has found what is in the way";
    Declined "WT105" Operator "nothing was done because nobody agreed";
    DaemonAway "WT106" Operator "the daemon does not answer";
    NotReady "WT107" Operator "a pipeline is not ready";
    TokenRefused "WT108" Operator "the token is missing or wrong";
    RequestInvalid "WT109" Operator "the daemon does not take this request";
    RequestUntimely "WT110" Operator "the pipeline cannot do that now";
    NeedsRestart "WT111" Operator "a change needs a restart";
    MigrationFails "WT115" Operator "a migration cannot be applied";
    ScratchUnusable "WT116" Operator "a migration cannot be tried";
    CertificateUnusable "WT117" Operator "the certificate of the HTTP endpoint cannot be used";
    VerifyDiffers "WT121" Operator "a topic does not hold what its table holds";
    VerifyUnproven "WT122" Operator "it cannot be proved that a topic holds its table";
    VerifyImpossible "WT123" Operator "a table cannot be verified";
    SourceUnreachable "WT201" Transient "the source cannot be reached";
    SourceTls "WT202" Operator "the source and we do not agree on TLS";
    SourceCertificate "WT203" Operator "the source's certificate is not acceptable";
    SourceAuthentication "WT204" Operator "the source refuses the login";
    SourceDatabaseMissing "WT205" Operator "the source has no such database";
    WalLevel "WT206" Operator "the source does not write logical WAL";
    NoFreeSlot "WT207" Operator "the source has no replication slot left";
    NoFreeConnection "WT208" Transient "the source has no connection left";
    SourcePrivilege "WT209" Operator "the source's role lacks a privilege";
    SlotTaken "WT210" Transient "another process reads the slot";
    SlotUnusable "WT211" Stop "the slot cannot be used by this pipeline";
    SlotMissing "WT212" Stop "the slot is gone";
    PublicationUnusable "WT213" Operator "the publication does not serve this pipeline";
    SourceVersion "WT214" Operator "the source's version is not supported";
    SourceLost "WT215" Transient "the connection to the source broke";
    SourceProtocol "WT216" Stop "the source said something we do not understand";
    NoTables "WT217" Operator "no table matches";
    SourceRefused "WT218" Operator "the source refuses a command";
    SourceSettings "WT219" Operator "the connection settings cannot be used";
    SourceUnfit "WT220" Operator "the server is not the one that is wanted";
    SlotBlocked "WT221" Transient "creating the slot waits for old transactions";
    AnotherSource "WT222" Stop "the source is another one";
    AnotherHistory "WT223" Stop "the source has another history";
    SlotAhead "WT224" Stop "the slot is ahead of the checkpoint";
    NothingToRecover "WT225" Operator "there is nothing to recover";
    PasswordCommand "WT226" Operator "the password command fails";
    SnapshotPrivilege "WT227" Operator "a table may not be read";
    SnapshotRowSecurity "WT228" Operator "row-level security hides rows of a table";
    SnapshotBlocked "WT229" Transient "a table that is to be read is locked";
    SnapshotTableGone "WT230" Operator "a table went away while it was read";
    AnotherTransaction "WT231" Stop "a transaction is not the one that was begun";
    SnapshotTooLarge "WT232" Operator "a table without a key is large";
    SnapshotTableUnknown "WT235" Operator "a table that is to be read is none of the pipeline's";
    SnapshotFilter "WT236" Operator "a condition on rows cannot be used";
    SnapshotReplicaBehind "WT237" Transient "a replica that is read from must catch up";
    SnapshotReplicaUnfit "WT238" Operator "a replica cannot be read from";
    SnapshotHeldBack "WT239" Transient "nothing is read while a replica is behind";
    KafkaUnreachable "WT301" Transient "Kafka cannot be reached";
    KafkaAuthentication "WT302" Operator "Kafka refuses the login";
    KafkaTls "WT303" Operator "Kafka and we do not agree on TLS";
    KafkaAuthorization "WT304" Operator "Kafka does not allow it";
    TopicUnusable "WT305" Operator "a topic cannot be created or used";
    RecordTooLarge "WT306" Stop "a record is larger than its topic takes";
    DeliveryFailed "WT307" Transient "Kafka did not take a record";
    KafkaSettings "WT308" Operator "a Kafka setting cannot be used";
    CheckpointLost "WT309" Stop "the checkpoint is lost";
    CheckpointUnreadable "WT310" Stop "the checkpoint cannot be read";
    TopicLost "WT311" Stop "a topic has lost records";
    Superseded "WT312" Transient "another daemon has taken over";
    RegistryUnreachable "WT401" Transient "the schema registry cannot be reached";
    RegistryAuthentication "WT402" Operator "the schema registry refuses the login";
    SchemaIncompatible "WT403" Operator "the registry refuses a changed schema";
    SchemaInvalid "WT404" Operator "the registry cannot read a schema";
    RegistryForeign "WT405" Operator "what answers is not a schema registry";
    RegistryFailing "WT406" Transient "the schema registry fails";
    RegistrySettings "WT407" Operator "the registry settings cannot be used";
    RegistryRenumbered "WT408" Operator "the registry has other ids";
    SchemaDirectory "WT409" Operator "the directory of schemas cannot be used";
    RowUnencodable "WT501" Stop "a row cannot be written as Avro";
    TableUnplannable "WT502" Stop "a table cannot be written as Avro";
    SpoolUnusable "WT601" Operator "the spool cannot be used";
    SpoolDamaged "WT602" Transient "what was spooled is damaged";
    Internal "WT901" Stop "a promise inside the daemon is broken";
}

impl Code {
    /// The systems outside of the daemon, as metrics call them.
    pub const SYSTEMS: &'static [&'static str] = &["source", "kafka", "registry"];

    /// The one that fails with this code, where it is one of them.
    #[must_use]
    pub fn system(self) -> Option<&'static str> {
        let systems = [("WT2", "source"), ("WT3", "kafka"), ("WT4", "registry")];
        systems.iter().find(|(series, _)| self.id().starts_with(series)).map(|(_, system)| *system)
    }
}

/// One failure, as a person is told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its kind.
    pub code: Code,
    /// What happened, and where.
    pub what: String,
    /// What to do about it.
    pub mend: String,
}

impl Fault {
    /// A failure of a kind, with what happened and what to do.
    pub fn new(code: Code, what: impl Into<String>, mend: impl Into<String>) -> Self {
        let mut what = what.into();
        // A server's hint may end a sentence that goes on here.
        if what.ends_with('.') && !what.ends_with("...") {
            what.pop();
        }
        Self { code, what, mend: mend.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}. What to do: {}", self.code.id(), self.what, self.mend)
    }
}

impl std::error::Error for Fault {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_message_is_sentences() {
        let line = |what: &str| Fault::new(Code::NoFreeSlot, what, "raise it").to_string();
        assert_eq!(line("no. Hint: do."), "WT207 no. Hint: do. What to do: raise it");
        assert_eq!(line("it says: abc..."), "WT207 it says: abc.... What to do: raise it");
    }

    #[test]
    fn every_code_has_a_number_of_its_own() {
        let ids: HashSet<_> = Code::ALL.iter().map(|code| code.id()).collect();
        assert_eq!(ids.len(), Code::ALL.len());
    }

    #[test]
    fn every_code_is_explained_and_nothing_else_is() {
        let page = include_str!("../docs/errors.md");
        let explained: Vec<&str> =
            page.lines().filter_map(|line| line.strip_prefix("## ")).collect();
        let expected: Vec<String> =
            Code::ALL.iter().map(|code| format!("{}: {}", code.id(), code.title())).collect();
        assert_eq!(explained, expected);
    }
}
