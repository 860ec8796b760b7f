//! As whom servers run. Postgres refuses to run as root, so root hands it to `nobody`.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use crate::error::Error;

/// The user and group of the Postgres servers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// The unprivileged user to run Postgres as; none when we are unprivileged ourselves.
pub(crate) fn server_user() -> Result<Option<User>, Error> {
    static USER: OnceLock<Result<Option<User>, Error>> = OnceLock::new();
    USER.get_or_init(find_server_user).clone()
}

fn find_server_user() -> Result<Option<User>, Error> {
    if !is_root() {
        return Ok(None);
    }
    let passwd = std::fs::read_to_string("/etc/passwd").map_err(Error::because("/etc/passwd"))?;
    let nobody = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        (name == "nobody").then_some(User { uid, gid })
    });
    nobody.map(Some).ok_or_else(|| {
        Error::new(
            "we are root, and Postgres needs an unprivileged user: /etc/passwd has no `nobody`",
        )
    })
}

/// Whether this process may do everything.
pub(crate) fn is_root() -> bool {
    static ROOT: OnceLock<bool> = OnceLock::new();
    *ROOT.get_or_init(|| {
        let output = Command::new("id").arg("-u").output();
        output.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
    })
}

/// A command that runs `program` as the server user.
pub(crate) fn command(program: &Path) -> Result<Command, Error> {
    let Some(user) = server_user()? else {
        return Ok(Command::new(program));
    };
    let mut command = Command::new("setpriv");
    command
        .arg(format!("--reuid={}", user.uid))
        .arg(format!("--regid={}", user.gid))
        .arg("--clear-groups")
        .arg("--")
        .arg(program);
    Ok(command)
}

/// Gives a file or directory to the server user.
pub(crate) fn give(path: &Path) -> Result<(), Error> {
    match server_user()? {
        Some(user) => std::os::unix::fs::chown(path, Some(user.uid), Some(user.gid))
            .map_err(Error::because(path.display())),
        None => Ok(()),
    }
}

/// Whether everybody may pass through each directory on the way to `path` and into it.
pub(crate) fn is_open_to_all(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    let Ok(path) = path.canonicalize() else { return false };
    path.ancestors()
        .all(|step| step.metadata().is_ok_and(|meta| meta.permissions().mode() & 0o001 != 0))
}
