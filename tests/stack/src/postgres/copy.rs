//! A second cluster from the files of a running one: a standby, or what a restored backup is.
//!
//! This is what `pg_basebackup` does, which the fetched binaries lack: between the start and the
//! stop of a backup the files are copied in whatever state they are, and the WAL of that time
//! makes them whole.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{Postgres, Version};
use crate::artifacts;
use crate::error::Error;
use crate::identity;
use crate::keeper;

/// Files that belong to the running server alone.
const LEFT_OUT: [&str; 2] = ["postmaster.pid", "postmaster.opts"];

/// Fills the empty directory `target` with a copy of the server's data directory.
pub(super) fn copy_data(source: &Postgres, target: &Path) -> Result<(), Error> {
    let because = || format!("cannot copy {}", source.data_directory().display());
    // The session that starts a backup must stop it.
    let session = source.session("postgres");
    let (start, stop) = match source.version() {
        Version::V14 => (
            "SELECT pg_start_backup('copy', true, false)",
            "SELECT labelfile FROM pg_stop_backup(false, false)",
        ),
        _ => (
            "SELECT pg_backup_start('copy', true)",
            "SELECT labelfile FROM pg_backup_stop(wait_for_archive => false)",
        ),
    };
    let run = |sql| session.try_query(sql).map_err(Error::because(because()));
    run(start)?;
    copy_tree(&source.data_directory(), target)?;
    let label = run(stop)?.pop().and_then(|mut row| row.pop().flatten());
    // Again, now that it is complete to the backup's end.
    copy_tree(&source.data_directory().join("pg_wal"), &target.join("pg_wal"))?;
    for file in LEFT_OUT {
        let _ = fs::remove_file(target.join(file));
    }
    // Slots are not part of a backup.
    for slot in fs::read_dir(target.join("pg_replslot")).into_iter().flatten().flatten() {
        fs::remove_dir_all(slot.path()).map_err(Error::because(because()))?;
    }
    write_owned(&target.join("backup_label"), &label.unwrap_or_default())
}

/// Makes a copy follow the server it was made from, by its Unix socket.
pub(super) fn follow(source: &Postgres, data: &Path) -> Result<(String, String), Error> {
    write_owned(&data.join("standby.signal"), "")?;
    let connection = format!(
        "host={} port={} user=postgres",
        source.socket_directory().display(),
        source.port()
    );
    Ok(("primary_conninfo".into(), connection))
}

fn write_owned(file: &Path, text: &str) -> Result<(), Error> {
    keeper::write_file(file, text)?;
    identity::give(file)
}

/// Copies what is below one directory into another. Files come and go while a server runs, so
/// what has gone in between is not missed.
fn copy_tree(from: &Path, to: &Path) -> Result<(), Error> {
    let mut command = Command::new("cp");
    command.arg("-a").arg(from.join(".")).arg(to);
    match artifacts::run("cp", &mut command) {
        Err(error) if !error.to_string().contains("No such file") => Err(error),
        _ => Ok(()),
    }
}
