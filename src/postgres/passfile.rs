//! Looks a password up in a file of libpq's format: lines of `host:port:database:user:password`.

use std::path::Path;

use super::error::{Error, Peer};
use super::params::Password;

/// The password of the first line that fits, if one does.
pub(super) async fn look_up(path: &Path, peer: &Peer) -> Result<Option<Password>, Error> {
    let unusable = |reason: String| Error::File { path: path.to_owned(), reason };
    let about = tokio::fs::metadata(path).await.map_err(|error| unusable(error.to_string()))?;
    if is_open_to_others(&about) {
        return Err(unusable("others may read it: chmod 0600 or stricter".to_owned()));
    }
    let text = tokio::fs::read_to_string(path).await;
    let text = text.map_err(|error| unusable(error.to_string()))?;
    Ok(find(&text, peer))
}

#[cfg(unix)]
fn is_open_to_others(about: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    about.permissions().mode() & 0o077 != 0
}

#[cfg(not(unix))]
fn is_open_to_others(_: &std::fs::Metadata) -> bool {
    false
}

fn find(text: &str, peer: &Peer) -> Option<Password> {
    let port = peer.port().to_string();
    let wanted = [peer.host(), &port, peer.database(), peer.user()];
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let password = wanted.iter().try_fold(line, |rest, wanted| {
            let (field, rest) = split_field(rest)?;
            (field == "*" || unescaped(field) == *wanted).then_some(rest)
        })?;
        Some(Password::new(unescaped(password)))
    })
}

/// What comes before the first colon that no backslash protects, and what comes after.
fn split_field(line: &str) -> Option<(&str, &str)> {
    let mut escaped = false;
    line.split_once(|char| {
        let ends = char == ':' && !escaped;
        escaped = char == '\\' && !escaped;
        ends
    })
}

fn unescaped(field: &str) -> String {
    let mut text = String::with_capacity(field.len());
    let mut chars = field.chars();
    while let Some(char) = chars.next() {
        text.extend(if char == '\\' { chars.next() } else { Some(char) });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(text: &str) -> Option<String> {
        let peer = Peer::new("db".to_owned(), 5432, "shop", "wal:tide");
        find(text, &peer).map(|password| password.reveal().to_owned())
    }

    #[test]
    fn the_first_line_that_fits_counts() {
        let text = "# db:5432:shop:wal\\:tide:no\nother:*:*:*:no\n*:5432:*:wal\\:tide:p\\::\\\\w\n*:*:*:*:no";
        assert_eq!(password(text), Some("p::\\w".to_owned()));
    }

    #[test]
    fn no_line_that_fits_is_no_password() {
        for text in ["", "db:5432:shop:other:p", "db:5433:*:*:p", "db:5432:shop", "db"] {
            assert_eq!(password(text), None, "{text}");
        }
    }
}
