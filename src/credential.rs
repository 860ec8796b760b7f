//! Passwords and tokens: where they come from, and how they stay unseen.
//!
//! The third vocabulary that all rooms share, beside faults and status. What is in a file or comes
//! from a command is read again for each new connection, so that it can be changed while the daemon
//! runs.

mod command;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use command::COMMAND_WAIT;

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
    /// What a command prints, run again for each new connection: a program and its arguments.
    Command(Vec<String>),
}

impl Credential {
    /// The secret as it is now. A command blocks the thread, for five seconds at most.
    ///
    /// # Errors
    /// When the file cannot be read, is too large or is not UTF-8; when the command fails, prints
    /// nothing or does not end. The message says which, and what the command had to say.
    pub fn read(&self) -> io::Result<Secret> {
        match self {
            Self::Inline(secret) => Ok(secret.clone()),
            Self::File(path) => read_file(path).map(Secret::new),
            Self::Command(words) => command::run(words, COMMAND_WAIT).map(Secret::new),
        }
    }

    /// As [`read_named`](Self::read_named); what a command printed a moment ago will do.
    ///
    /// # Errors
    /// As there.
    pub fn read_shared(&self) -> Result<Secret, String> {
        match self {
            Self::Command(words) => {
                command::run_or_remember(words, COMMAND_WAIT).map_err(|error| error.to_string())
            }
            Self::Inline(_) | Self::File(_) => self.read_named(),
        }
    }

    /// It was refused: the next [`read_shared`](Self::read_shared) reads it again.
    pub fn forget(&self) {
        if let Self::Command(words) = self {
            command::forget(words);
        }
    }

    /// As [`read`](Self::read), with the file's name in what went wrong.
    ///
    /// # Errors
    /// As there.
    pub fn read_named(&self) -> Result<Secret, String> {
        self.read().map_err(|error| match self {
            Self::File(path) => format!("{}: {error}", path.display()),
            Self::Inline(_) | Self::Command(_) => error.to_string(),
        })
    }
}

/// Reads a file that holds one secret.
pub(crate) fn read_file(path: &Path) -> io::Result<String> {
    read_bounded(path, MAX_SECRET_BYTES).map(without_line_break)
}

/// One line break at its end belongs to the editor, or to `echo`, not to the secret.
fn without_line_break(mut text: String) -> String {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    text
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
