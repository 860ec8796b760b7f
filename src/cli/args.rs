//! The command line: what can be asked for.
//!
//! Misuse ends with exit code 2, which is clap's own; colours follow the terminal and `NO_COLOR`.

mod snapshot;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use clap::builder::OsStringValueParser;
use clap::{Args, Parser, Subcommand};

pub use snapshot::{List, OfTables, SnapshotCommand, Start, Tables};

/// The version. A build that knows its commit sets `WALTIDE_VERSION`, as in `0.1.0 (1feade0)`.
pub const VERSION: &str = match option_env!("WALTIDE_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};

/// With the optional parts of the build: that one is missing should show before it is missed.
static LONG_VERSION: LazyLock<String> =
    LazyLock::new(|| format!("{VERSION}\nfeatures: {}", crate::FEATURES));

/// Everything that was typed.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "waltide",
    version = VERSION,
    long_version = LONG_VERSION.as_str(),
    about = "Change data capture from PostgreSQL to Kafka",
    after_help = "\
Example:
  waltide run --config waltide.yaml

Exit codes: 0 done, 1 failed, 2 misused (bad arguments or a bad file).",
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Run the daemon: capture changes and publish them until told to stop
    ///
    /// It stays up when a server is away, and says so on /readyz; see --fail-fast.
    #[command(after_help = "Example:\n  waltide run --config /etc/waltide/waltide.yaml")]
    Run(Run),
    /// Print the SQL that makes role, publication and slot
    #[command(after_help = "Example:\n  waltide setup --config waltide.yaml | psql --host db shop")]
    Setup(ConfigFile),
    /// Look at everything a pipeline needs, and say what mends what is missing
    ///
    /// Nothing is changed anywhere. Exit code 1 where something is in the way.
    #[command(after_help = "Example:\n  waltide check --config waltide.yaml")]
    Check(Looked),
    /// Show a database's changes as they come: no Kafka, no registry, no lasting slot
    ///
    /// The role needs LOGIN and REPLICATION. A publication that shows the tables is used where
    /// there is one; else one is made and taken away at the end, for which the role must own the
    /// tables. The password may be in PGPASSWORD.
    #[command(
        after_help = "Example:\n  waltide tail --source postgres://me@db/shop --table public.orders"
    )]
    Tail(Tail),
    /// Look at what pipelines remember
    #[command(
        subcommand_required = true,
        arg_required_else_help = true,
        disable_help_subcommand = true,
        after_help = "Example:\n  waltide checkpoint show --config waltide.yaml"
    )]
    Checkpoint {
        /// What to do with it.
        #[command(subcommand)]
        command: CheckpointCommand,
    },
    /// Go on where a pipeline has stopped because changes may be missing
    ///
    /// It says what is lost, asks, records the gap for consumers on PIPELINE.waltide.gap, and
    /// writes a checkpoint from which the next daemon goes on. The daemon must not run meanwhile.
    #[command(after_help = "Example:\n  waltide recover shop --accept-gap --config waltide.yaml")]
    Recover(Recover),
    /// Look at replication slots, and move or drop one
    #[command(
        subcommand_required = true,
        arg_required_else_help = true,
        disable_help_subcommand = true,
        after_help = "Example:\n  waltide slot list --config waltide.yaml"
    )]
    Slot {
        /// What to do with it.
        #[command(subcommand)]
        command: SlotCommand,
    },
    /// Compare a table with what its topic holds, key by key; exit 1 where they differ
    ///
    /// Both are read beside whatever goes on, with no lock beyond that of a SELECT.
    #[command(
        after_help = "Example:\n  waltide verify --table public.orders --config waltide.yaml"
    )]
    Verify(Verify),
    /// Ask the running daemon how its pipelines are
    #[command(after_help = "Example:\n  waltide status --config waltide.yaml")]
    Status(Status),
    /// Let a pipeline of the running daemon publish nothing until told to resume
    ///
    /// It publishes what it has begun, then holds its slot, so that no standby takes over; the source
    /// keeps its log meanwhile. A pause ends with the process.
    #[command(after_help = "Example:\n  waltide pause shop --config waltide.yaml")]
    Pause(Ordered),
    /// Let a pipeline go on that is paused, or that has stopped and was mended
    #[command(after_help = "Example:\n  waltide resume shop --config waltide.yaml")]
    Resume(Ordered),
    /// Have rows that are there read by the running daemon, and see how far that is
    #[command(
        subcommand_required = true,
        arg_required_else_help = true,
        disable_help_subcommand = true,
        after_help = "Example:\n  waltide snapshot start --table public.orders --config waltide.yaml"
    )]
    Snapshot {
        /// What to do.
        #[command(subcommand)]
        command: SnapshotCommand,
    },
    /// Let the running daemon read its configuration again
    ///
    /// Tables and limits are taken on at once; what needs a restart is named, and then nothing is
    /// taken on.
    #[command(after_help = "Example:\n  waltide reload --config waltide.yaml")]
    Reload(Running),
    /// Exit with 0 where every pipeline of the running daemon is ready, else with 1
    ///
    /// For probes of containers. It says what is not ready, and why.
    #[command(after_help = "Example:\n  waltide healthcheck --url http://127.0.0.1:9464")]
    Healthcheck(Healthcheck),
    /// Print what makes a shell complete the command line
    #[command(after_help = "Example:\n  waltide completions bash > /etc/bash_completion.d/waltide")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual's pages into a directory
    #[command(after_help = "Example:\n  waltide man /usr/local/share/man/man1")]
    Man {
        /// The directory, which is there
        directory: PathBuf,
    },
    /// See what consumers would know of tables, and whether the registry would take it
    #[command(
        subcommand_required = true,
        arg_required_else_help = true,
        disable_help_subcommand = true,
        after_help = "Example:\n  waltide schema diff --config waltide.yaml"
    )]
    Schema {
        /// What to do.
        #[command(subcommand)]
        command: SchemaCommand,
    },
    /// Look at the configuration
    #[command(
        subcommand_required = true,
        arg_required_else_help = true,
        disable_help_subcommand = true,
        after_help = "Example:\n  waltide config check --config waltide.yaml"
    )]
    Config {
        /// What to do with it.
        #[command(subcommand)]
        command: ConfigCommand,
    },
}

/// `waltide run`
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Run {
    /// The configuration.
    #[command(flatten)]
    pub config: ConfigFile,
    /// Exit with code 1 where a server is away or refuses
    #[arg(long)]
    pub fail_fast: bool,
}

/// `waltide tail`
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Tail {
    /// The database: postgres://user@host:5432/database
    #[arg(long, value_name = "URL", env = "WALTIDE_SOURCE", hide_env_values = true)]
    pub source: String,
    /// Tables as schema.table, * for any characters; may be given again
    #[arg(long = "table", value_name = "TABLE", required = true)]
    pub tables: Vec<String>,
    /// A publication to look through, as it is
    #[arg(long, value_name = "NAME")]
    pub publication: Option<String>,
    /// End after so many changes
    #[arg(long, value_name = "NUMBER")]
    pub count: Option<u64>,
    /// For programs: one object a line
    #[arg(long)]
    pub json: bool,
}

/// `waltide verify`
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Verify {
    /// The table, as schema.table
    #[arg(long, value_name = "TABLE")]
    pub table: String,
    /// The pipeline; those that capture the table where none is named
    #[arg(long, value_name = "NAME")]
    pub pipeline: Option<String>,
    /// How long a running daemon that stands still is waited for
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub wait: u64,
    /// Have the daemon publish what differs as the table has it; verify again
    #[arg(long)]
    pub repair: bool,
    /// Do not ask before
    #[arg(long, requires = "repair")]
    pub yes: bool,
    /// For programs: one object
    #[arg(long)]
    pub json: bool,
    /// The configuration, and for a repair where the daemon is.
    #[command(flatten)]
    pub daemon: Running,
}

/// `waltide checkpoint ...`
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum CheckpointCommand {
    /// Print the last checkpoint of each pipeline, or of one
    #[command(after_help = "Example:\n  waltide checkpoint show shop --config waltide.yaml --json")]
    Show {
        /// The pipeline; all of them where none is named
        pipeline: Option<String>,
        /// For programs: one object a line
        #[arg(long)]
        json: bool,
        /// The configuration.
        #[command(flatten)]
        config: ConfigFile,
    },
}

/// `waltide slot ...`
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum SlotCommand {
    /// Print all slots of the pipelines' servers
    #[command(after_help = "Example:\n  waltide slot list --config waltide.yaml --json")]
    List(Looked),
    /// Print the slot of each pipeline, or of one
    #[command(after_help = "Example:\n  waltide slot show shop --config waltide.yaml")]
    Show(Looked),
    /// Move a pipeline's slot to a later position: what lies in between is not published
    ///
    /// It says what is lost, and asks. The daemon must not run meanwhile, and stops at its next
    /// start, because its checkpoint is older: `waltide recover` lets it go on.
    #[command(
        after_help = "Example:\n  waltide slot advance shop --to 0/1A2B3C8 --config waltide.yaml"
    )]
    Advance {
        /// The pipeline
        pipeline: String,
        /// The position, such as 0/1A2B3C8
        #[arg(long, value_name = "LSN")]
        to: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// The configuration.
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Drop a pipeline's slot: what it has not read is not published
    ///
    /// It says what is lost, and asks. The daemon must not run meanwhile.
    #[command(after_help = "Example:\n  waltide slot drop shop --config waltide.yaml")]
    Drop {
        /// The pipeline
        pipeline: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// The configuration.
        #[command(flatten)]
        config: ConfigFile,
    },
}

/// What is looked at, and how it is printed.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Looked {
    /// The pipeline; all of them where none is named
    pub pipeline: Option<String>,
    /// For programs: one object a line
    #[arg(long)]
    pub json: bool,
    /// The configuration.
    #[command(flatten)]
    pub config: ConfigFile,
}

/// `waltide schema ...`
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum SchemaCommand {
    /// Print the Avro schemas of tables as they are now
    #[command(
        after_help = "Example:\n  waltide schema show shop --table public.orders --config waltide.yaml"
    )]
    Show(SchemaOf),
    /// Hold the tables of a database against the registry; exit 1 where it would refuse one
    ///
    /// With --source the tables are those of another database: one to which a CI job has applied
    /// a migration, for instance. Nothing is registered.
    #[command(
        after_help = "Example:\n  waltide schema diff shop --source postgres://ci@db/shop --config waltide.yaml"
    )]
    Diff(SchemaOf),
    /// Say what a migration would make of the topics; exit 1 where the registry would refuse
    ///
    /// The tables' definitions are copied into a database made for it on the server of --scratch,
    /// and the migration is applied there. The source is only read, and nothing is left behind.
    #[command(
        after_help = "Example:\n  waltide schema plan shop --migration 042.sql --scratch postgres://ci@db/ci --config waltide.yaml"
    )]
    Plan(SchemaPlan),
}

/// `waltide schema plan`
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct SchemaPlan {
    /// The migration, as psql would run it; - for standard input
    #[arg(long, value_name = "SQL")]
    pub migration: PathBuf,
    /// Where a database may be made: postgres://user@host:5432/database
    #[arg(long, value_name = "URL")]
    pub scratch: String,
    /// What `pg_dump --schema-only` wrote, in place of the source
    #[arg(long, value_name = "FILE")]
    pub dump: Option<PathBuf>,
    /// What is looked at.
    #[command(flatten)]
    pub looked: Looked,
}

/// Whose schemas `waltide schema` is about.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct SchemaOf {
    /// Tables as schema.table, * for any characters; all where none is named
    #[arg(long = "table", value_name = "TABLE")]
    pub tables: Vec<String>,
    /// Another database with the tables: postgres://user@host:5432/database
    #[arg(long, value_name = "URL")]
    pub source: Option<String>,
    /// What is looked at.
    #[command(flatten)]
    pub looked: Looked,
}

/// `waltide status`
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Status {
    /// For programs: what /api/status answers
    #[arg(long)]
    pub json: bool,
    /// Show it anew every so many seconds, until Ctrl-C
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2")]
    pub watch: Option<u64>,
    /// Where the daemon is.
    #[command(flatten)]
    pub daemon: Running,
}

/// `waltide pause` and `waltide resume`
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Ordered {
    /// The pipeline; may be left out where there is one
    pub pipeline: Option<String>,
    /// Where the daemon is.
    #[command(flatten)]
    pub daemon: Running,
}

/// `waltide healthcheck`
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Healthcheck {
    /// Ask only whether the process lives
    #[arg(long)]
    pub live: bool,
    /// Where the daemon is.
    #[command(flatten)]
    pub daemon: Running,
}

/// Where a running daemon listens.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Running {
    /// Its address, if not the configured one
    #[arg(long, value_name = "URL", env = "WALTIDE_URL")]
    pub url: Option<String>,
    /// A file with its token
    #[arg(long, value_name = "FILE", env = "WALTIDE_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// Certificates (PEM) that vouch for its TLS
    #[arg(long, value_name = "FILE", env = "WALTIDE_CA_FILE")]
    pub ca_file: Option<PathBuf>,
    /// The configuration.
    #[command(flatten)]
    pub config: ConfigFile,
}

/// `waltide recover`
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Recover {
    /// The pipeline
    pub pipeline: String,
    /// What was decided.
    #[command(flatten)]
    pub way: RecoverWay,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// The configuration.
    #[command(flatten)]
    pub config: ConfigFile,
}

/// The ways on, one of which must be named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Args)]
#[group(required = true, multiple = false)]
pub struct RecoverWay {
    /// Go on from where the slot stands, without what is missing
    ///
    /// For a slot that was lost or moved, another source, topics that were cut back.
    #[arg(long)]
    pub accept_gap: bool,
    /// Go on from where the slot stands, with the topics as they are
    ///
    /// For a checkpoint that is lost, and topics that something else has filled.
    #[arg(long)]
    pub adopt: bool,
    /// Go on from where the slot stands, and read all tables again
    ///
    /// For either of these, where the topics shall hold what the tables hold. Rows that were deleted
    /// meanwhile stay in the topics.
    #[arg(long)]
    pub resnapshot: bool,
}

/// `waltide config ...`
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum ConfigCommand {
    /// Check the configuration and say everything that is wrong with it
    #[command(after_help = "Example:\n  waltide config check --config waltide.yaml")]
    Check(ConfigFile),
    /// Print the effective configuration, secrets masked and defaults marked
    #[command(after_help = "Example:\n  waltide config show --config waltide.yaml")]
    Show(ConfigFile),
    /// Print the JSON Schema of a configuration file
    #[command(after_help = "Example:\n  waltide config schema > waltide.schema.json")]
    Schema,
}

/// Where the configuration is.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct ConfigFile {
    /// The configuration; without it, the environment's
    // Not clap's parser of paths: that one refuses a WALTIDE_CONFIG that is set and empty.
    #[arg(long = "config", short = 'c', value_name = "FILE", env = "WALTIDE_CONFIG", value_parser = OsStringValueParser::new())]
    file: Option<OsString>,
}

impl ConfigFile {
    /// The file, where one is named. An empty `WALTIDE_CONFIG` names none.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.file.as_deref().filter(|file| !file.is_empty()).map(Path::new)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn typed(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_definition_holds() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn run_takes_a_file_and_may_be_told_to_fail_fast() {
        let Command::Run(run) = typed("waltide run --config w.yaml --fail-fast").unwrap().command
        else {
            panic!("another command");
        };
        assert_eq!(run.config.path(), Some(Path::new("w.yaml")));
        assert!(run.fail_fast);
    }

    #[test]
    fn misuse_is_exit_code_2_and_help_is_0() {
        for line in [
            "waltide",
            "waltide config",
            "waltide fly",
            "waltide run --confg x",
            "waltide run --config",
            "waltide config schema --config x",
        ] {
            assert_eq!(typed(line).unwrap_err().exit_code(), 2, "{line}");
        }
        for line in ["waltide --help", "waltide run --help", "waltide --version"] {
            assert_eq!(typed(line).unwrap_err().exit_code(), 0, "{line}");
        }
    }

    #[test]
    fn every_command_shows_an_example() {
        fn look(command: &mut clap::Command, path: &str) {
            let help = command.render_help().to_string();
            assert!(help.contains(&format!("Example:\n  {path}")), "{path}:\n{help}");
            let widest = help.lines().map(|line| line.chars().count()).max();
            assert!(widest <= Some(100), "{path}: {widest:?}");
            for inner in command.get_subcommands_mut() {
                let path = format!("{path} {}", inner.get_name());
                look(inner, &path);
            }
        }
        let mut command = Arguments::command();
        command.build();
        look(&mut command, "waltide");
    }

    #[test]
    fn an_empty_file_name_names_no_file() {
        let file = ConfigFile { file: Some(OsString::new()) };
        assert_eq!(file.path(), None);
    }
}
