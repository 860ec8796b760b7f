//! Values that must not be seen, and the mask that stands for them.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// What is written instead of a secret, whatever its length.
pub const MASK: &str = "********";

/// The largest file a secret is read from: a certificate chain fits many times over, and a
/// path to the wrong file does not fill the memory.
pub const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// A text that only [`Secret::expose`] gives out: every way of printing it prints [`MASK`].
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a text into custody.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one call that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl serde::Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(MASK)
    }
}

/// A password or token, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// Given in the configuration or the environment.
    Inline(Secret),
    /// In a file, read again for each new connection, so that it can be rotated in place.
    File(PathBuf),
}

impl Credential {
    /// The secret as it is now.
    ///
    /// # Errors
    /// When the file cannot be read, is too large or is not UTF-8.
    pub fn read(&self) -> io::Result<Secret> {
        match self {
            Self::Inline(secret) => Ok(secret.clone()),
            Self::File(path) => read_file(path).map(Secret::new),
        }
    }
}

/// Reads a file that holds one secret. One line break at its end belongs to the editor, not
/// to the secret.
pub(super) fn read_file(path: &Path) -> io::Result<String> {
    let mut text = read_bounded(path, MAX_SECRET_BYTES)?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

fn read_bounded(path: &Path, limit: u64) -> io::Result<String> {
    use io::Read;
    let mut text = String::new();
    let read = std::fs::File::open(path)?.take(limit + 1).read_to_string(&mut text)?;
    if read as u64 > limit {
        return Err(io::Error::other(format!("the file is larger than {limit} bytes")));
    }
    Ok(text)
}

/// Masks the password of every URL in a text: for text that came from outside and is shown.
#[must_use]
pub fn mask_urls(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("://") {
        let (before, after) = rest.split_at(start + "://".len());
        shown.push_str(before);
        rest = after;
        // A password may hold a slash that should have been escaped, so the credentials reach
        // to the word's last @; masking too much is the better mistake.
        let word = after.find(char::is_whitespace).unwrap_or(after.len());
        let Some(at) = after[..word].rfind('@') else { continue };
        let (credentials, host) = after.split_at(at);
        rest = host;
        match credentials.split_once(':') {
            Some((user, _)) => shown.extend([user, ":", MASK]),
            None => shown.push_str(credentials),
        }
    }
    shown.push_str(rest);
    mask_parameters(&shown)
}

/// Masks `password=...` (and `sslpassword=...`) in a URL's query.
fn mask_parameters(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("password=") {
        let (before, after) = rest.split_at(start + "password=".len());
        shown.push_str(before);
        shown.push_str(MASK);
        let end = after.find(|c: char| c == '&' || c.is_whitespace()).unwrap_or(after.len());
        rest = &after[end..];
    }
    shown.push_str(rest);
    shown
}
