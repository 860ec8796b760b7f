//! `waltide snapshot ...`

use clap::{Args, Subcommand};

use super::Running;

/// `waltide snapshot ...`
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum SnapshotCommand {
    /// Read the rows of a table, or of all, beside the stream, whatever was read before
    ///
    /// They arrive in the table's topic with op r. It goes on after a restart of the daemon where
    /// it was.
    #[command(
        after_help = "Example:\n  waltide snapshot start --table public.orders --where \"created_at >= '2026-01-01'\" -c w.yaml"
    )]
    Start(Start),
    /// Read nothing more of a table, or of all that are being read, for now
    ///
    /// It stays so when the daemon is started again, until it is told to resume.
    #[command(
        after_help = "Example:\n  waltide snapshot pause --table public.orders --config waltide.yaml"
    )]
    Pause(OfTables),
    /// Go on reading what was paused
    #[command(after_help = "Example:\n  waltide snapshot resume --all --config waltide.yaml")]
    Resume(OfTables),
    /// Do not read a table to its end, or any that is being read
    ///
    /// What has been read of it stays in its topic; the stream is not touched.
    #[command(
        after_help = "Example:\n  waltide snapshot cancel --table public.orders --config waltide.yaml"
    )]
    Cancel(OfTables),
    /// Show how far tables are
    #[command(after_help = "Example:\n  waltide snapshot list --watch --config waltide.yaml")]
    List(List),
}

/// `waltide snapshot start`
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Start {
    /// Only rows for which this is true, as behind WHERE; for one table
    #[arg(long = "where", value_name = "CONDITION", requires = "table")]
    pub condition: Option<String>,
    /// Wait for the end, and show how far it is; exit 1 where there is none
    #[arg(long)]
    pub wait: bool,
    /// Of what.
    #[command(flatten)]
    pub of: OfTables,
}

/// The tables that are meant, and where the daemon is.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct OfTables {
    /// The pipeline; may be left out where there is one
    pub pipeline: Option<String>,
    /// What is meant.
    #[command(flatten)]
    pub tables: Tables,
    /// Where the daemon is.
    #[command(flatten)]
    pub daemon: Running,
}

/// One table or all: whoever names none may have forgotten it.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[group(required = true, multiple = false)]
pub struct Tables {
    /// The table, as schema.table
    #[arg(long, value_name = "TABLE")]
    pub table: Option<String>,
    /// Every table of the pipeline
    #[arg(long)]
    pub all: bool,
}

/// `waltide snapshot list`
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct List {
    /// The pipeline; may be left out where there is one
    pub pipeline: Option<String>,
    /// For programs: what the API answers
    #[arg(long)]
    pub json: bool,
    /// Show it anew every so many seconds, until Ctrl-C
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1")]
    pub watch: Option<u64>,
    /// Where the daemon is.
    #[command(flatten)]
    pub daemon: Running,
}
