//! A registry of our own, in a directory: for set-ups that have no other.
//!
//! ```text
//! 1.avsc 2.avsc ...     each schema, as it was given, by its id
//! registrations.jsonl   what became which version of what subject, and which rules hold
//! lock                  held by whoever writes
//! ```
//!
//! Nothing is ever changed or taken away. A schema's file is there, whole and on the disk, before
//! the line that names it, and the line is on the disk before anybody is told the id. So a kill
//! leaves at most a file that no line names, whose id is not given again, or the beginning of a
//! line that nobody was told of, which the next writer cuts off.
//!
//! Whoever looks reads first what others have written meanwhile: several daemons, and commands
//! beside them, may share a directory as far as locks of files hold.

mod api;
mod files;
mod server;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use waltide_core::registry::{Book, Judged, Level, Line, Refusal};

use files::Files;

pub(super) use api::{Asked, answer};
pub use server::{listen, serve};

/// Why a directory cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The file system says no.
    Io {
        /// What was done, and what was said.
        reason: String,
    },
    /// What is there is not what was written.
    Damaged {
        /// How that shows.
        reason: String,
    },
}

impl Trouble {
    fn io(doing: &str, path: &Path, error: &io::Error) -> Self {
        Self::Io { reason: format!("cannot {doing} {}: {error}", path.display()) }
    }
}

/// A directory of schemas. A handle; what was read of it is shared.
#[derive(Clone, Debug)]
pub struct Directory {
    path: PathBuf,
    /// Held while files are read or written: they answer in milliseconds, or the disk hangs.
    read: Arc<Mutex<Read>>,
}

/// As much of it as was read.
#[derive(Debug, Default)]
struct Read {
    book: Book,
    files: Files,
}

impl Directory {
    /// A directory that has not yet been looked at.
    #[must_use]
    pub fn at(path: PathBuf) -> Self {
        Self { path, read: Arc::default() }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Looks into the book as it is now.
    fn look<T>(&self, ask: impl FnOnce(&Book) -> T) -> Result<T, Trouble> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let read = &mut *read;
        read.files.catch_up(&self.path, &mut read.book)?;
        Ok(ask(&read.book))
    }

    /// The schema of an id, which never changes.
    fn text(&self, id: u32) -> Result<Option<String>, Trouble> {
        let known = {
            let read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
            read.book.text(id).map(str::to_owned)
        };
        match known {
            Some(text) => Ok(Some(text)),
            None => self.look(|book| book.text(id).map(str::to_owned)),
        }
    }

    /// The id of a schema under a subject, given now if it was not before.
    fn register(&self, subject: &str, text: &str) -> Result<Result<u32, Refusal>, Trouble> {
        match self.look(|book| book.judge(subject, text))? {
            Ok(Judged::There(id)) => return Ok(Ok(id)),
            Err(refusal) => return Ok(Err(refusal)),
            Ok(Judged::New { .. }) => {}
        }
        self.write(|book, files| {
            let (version, known) = match book.judge(subject, text) {
                Err(refusal) => return Ok(Err(refusal)),
                Ok(Judged::There(id)) => return Ok(Ok(id)),
                Ok(Judged::New { version, id }) => (version, id),
            };
            let id = match known {
                Some(id) => id,
                None => files::next_id(&self.path, book.newest_id())?,
            };
            let line = book.registration(subject, version, id, text);
            if known.is_none() {
                files::add_schema(&self.path, id, text)?;
            }
            files.add_line(&self.path, &line)?;
            let taken = book.take(line, Some(text.to_owned()));
            taken.map(|()| Ok(id)).map_err(|reason| Trouble::Damaged { reason })
        })
    }

    /// Gives a rule, or takes it away.
    fn rule(&self, subject: Option<&str>, level: Option<Level>) -> Result<(), Trouble> {
        self.write(|book, files| {
            let line = Line::Rule { subject: subject.map(str::to_owned), level };
            files.add_line(&self.path, &line)?;
            book.take(line, None).map_err(|reason| Trouble::Damaged { reason })
        })
    }

    /// Writes, while nobody else does, on top of what everybody has written.
    fn write<T>(
        &self,
        add: impl FnOnce(&mut Book, &mut Files) -> Result<T, Trouble>,
    ) -> Result<T, Trouble> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let read = &mut *read;
        let _locked = files::lock(&self.path)?;
        read.files.catch_up(&self.path, &mut read.book)?;
        add(&mut read.book, &mut read.files)
    }

    /// Whether it can be written, as far as that shows without writing.
    ///
    /// # Errors
    /// Why it cannot.
    pub fn writable(&self) -> Result<(), String> {
        files::writable(&self.path)
    }
}
