//! Where transactions wait on disk that the server sends before they are committed.
//!
//! A file for each, in a directory that one process has at a time. Nothing in it matters beyond the
//! connection: what is lost here, the server sends again. So nothing is synced, and files of an
//! earlier run are removed, never read.
//!
//! All of it is done by the owner of the pipeline, as is every write to the producer's queue: a disk
//! that is slow slows the stream down, and nothing else. What the server is told leaves from another
//! thread.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use waltide_core::lsn::Lsn;
use waltide_core::pgoutput::{PgTimestamp, Xid};
use waltide_core::spool::batch::{self, Batch, Change, Damaged, Record, Seal};
use waltide_core::spool::{Aborted, Books, Disorder, Outgrown};

use crate::chance;

/// How the files of transactions end.
const EXTENSION: &str = "spool";

/// Who has the directory has this file locked. It stays, so that two never lock different ones.
const LOCK: &str = "lock";

/// How long another process may have the directory: one that looks whether the slot is free has it
/// for a moment.
const LOCK_WAIT: Duration = Duration::from_secs(1);

/// Between attempts to have it.
const LOCK_POLL: Duration = Duration::from_millis(20);

/// A batch that is longer leaves a buffer behind that is given back.
const KEPT_BYTES: usize = 4 * batch::BATCH_BYTES;

/// What keeps the spool from being used.
#[derive(Debug)]
pub enum Error {
    /// The system refuses.
    Io {
        /// What was to be done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another process has the directory.
    Taken(PathBuf),
    /// There is more than may be kept.
    Outgrown(Outgrown),
    /// What is read is not what was written.
    Damaged(PathBuf),
    /// The stream contradicts itself.
    Disorder(Disorder),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { doing, path, source } => {
                write!(f, "cannot {doing} {}: {source}", path.display())
            }
            Self::Taken(path) => write!(f, "another process uses {}", path.display()),
            Self::Outgrown(what) => {
                let what = match what {
                    Outgrown::Bytes => "bytes",
                    Outgrown::Transactions => "transactions",
                    Outgrown::RolledBack => "subtransactions that were rolled back",
                };
                write!(f, "open transactions have more {what} than may be kept")
            }
            Self::Damaged(path) => write!(f, "{} is not as it was written", path.display()),
            Self::Disorder(disorder) => disorder.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

impl From<Disorder> for Error {
    fn from(disorder: Disorder) -> Self {
        Self::Disorder(disorder)
    }
}

/// A directory that is there and can be written to, whoever has it.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    lock: File,
}

impl Directory {
    /// Makes it where it is missing.
    ///
    /// # Errors
    /// Where it cannot be made or written to.
    pub fn have(path: &Path) -> Result<Self, Error> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(refused("make", path))?;
        let file = path.join(LOCK);
        let opened = OpenOptions::new().create(true).truncate(false).write(true).open(&file);
        Ok(Self { path: path.to_owned(), lock: opened.map_err(refused("write", &file))? })
    }
}

/// The open transactions of one connection.
#[derive(Debug)]
pub struct Spool {
    directory: PathBuf,
    /// Held for its lock.
    _lock: File,
    run: u64,
    books: Books,
    /// Of the block that is being read.
    batch: Batch,
    file: Option<File>,
}

impl Spool {
    /// Takes the directory, and clears it of what an earlier run left.
    ///
    /// # Errors
    /// Where another process has it, or it cannot be cleared.
    pub async fn take(
        Directory { path: directory, lock }: Directory,
        limit: u64,
    ) -> Result<Self, Error> {
        hold(&lock, &directory).await?;
        for entry in directory.read_dir().map_err(refused("read", &directory))? {
            let path = entry.map_err(refused("read", &directory))?.path();
            if path.extension().is_some_and(|extension| extension == EXTENSION) {
                std::fs::remove_file(&path).map_err(refused("remove", &path))?;
            }
        }
        Ok(Self {
            directory,
            _lock: lock,
            run: chance::number(),
            books: Books::new(limit),
            batch: Batch::default(),
            file: None,
        })
    }

    /// A block of a transaction starts.
    ///
    /// # Errors
    /// Where it does not fit what came before.
    pub fn start(&mut self, xid: Xid, first: bool, at: PgTimestamp) -> Result<(), Error> {
        Ok(self.books.start(xid, first, at)?)
    }

    /// Keeps a change of the block.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn keep(&mut self, message: &[u8], lsn: Lsn) -> Result<(), Error> {
        // A message of four bytes has no relation, and was refused when it was decoded.
        let Some(change) = Change::new(message, lsn) else { return Err(Disorder::Outside.into()) };
        if !self.batch.fits(&change) {
            self.flush()?;
        }
        if self.batch.fits(&change) {
            self.batch.push(&change);
            return Ok(());
        }
        let seal = self.seal()?;
        let start = change.alone(seal);
        self.write(seal, &[&start, change.rest()])
    }

    /// The block ends.
    ///
    /// # Errors
    /// Where what is left of it cannot be written.
    pub fn stop(&mut self) -> Result<(), Error> {
        self.flush()?;
        self.file = None;
        self.books.stop();
        Ok(())
    }

    /// A transaction is rolled back, or a part of it.
    ///
    /// # Errors
    /// Where its file cannot be removed.
    pub fn abort(&mut self, xid: Xid, part: Xid) -> Result<(), Error> {
        match self.books.abort(xid, part) {
            Aborted::Whole => self.remove(xid),
            Aborted::Part | Aborted::Nothing => Ok(()),
        }
    }

    /// A transaction is committed: what is kept of it, to be read once.
    ///
    /// # Errors
    /// Where it is not here, or cannot be read.
    pub fn commit(&mut self, xid: Xid) -> Result<Reading, Error> {
        let open = self.books.commit(xid)?;
        let path = self.path(xid);
        let file = match open.bytes {
            0 => None,
            _ => {
                let file = File::open(&path).map_err(refused("read", &path))?;
                // It is there for as long as it is open.
                self.remove(xid)?;
                Some(file)
            }
        };
        let seal = Seal { run: self.run, xid, offset: 0 };
        let (path, rolled_back) = (self.path(xid), open.rolled_back);
        Ok(Reading { path, file, seal, end: open.bytes, rolled_back, records: Vec::new() })
    }

    /// What was read of a transaction is there no more.
    pub fn release(&mut self, reading: Reading) {
        self.books.release(reading.end);
    }

    /// The transaction whose block is being read.
    #[must_use]
    pub fn block(&self) -> Option<Xid> {
        self.books.place().ok().map(|(xid, _)| xid)
    }

    /// What is kept, how many transactions are open, and since when the oldest is.
    #[must_use]
    pub fn standing(&self) -> (u64, usize, Option<PgTimestamp>) {
        let gathered = if self.batch.is_empty() { 0 } else { self.batch.len() as u64 };
        (self.books.bytes() + gathered, self.books.len(), self.books.oldest())
    }

    fn path(&self, xid: Xid) -> PathBuf {
        self.directory.join(format!("{}.{EXTENSION}", xid.0))
    }

    fn remove(&self, xid: Xid) -> Result<(), Error> {
        let path = self.path(xid);
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(Error::Io { doing: "remove", path, source })
            }
            // One of which nothing was kept has no file.
            _ => Ok(()),
        }
    }

    fn seal(&self) -> Result<Seal, Error> {
        let (xid, offset) = self.books.place()?;
        Ok(Seal { run: self.run, xid, offset })
    }

    fn flush(&mut self) -> Result<(), Error> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let seal = self.seal()?;
        let mut batch = std::mem::take(&mut self.batch);
        self.write(seal, &[batch.seal(seal)])?;
        batch.clear();
        self.batch = batch;
        Ok(())
    }

    fn write(&mut self, seal: Seal, parts: &[&[u8]]) -> Result<(), Error> {
        let bytes = parts.iter().map(|part| part.len() as u64).sum();
        self.books.make_room(bytes).map_err(Error::Outgrown)?;
        let path = self.path(seal.xid);
        let refused = |source| Error::Io { doing: "write", path: path.clone(), source };
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                let mut options = OpenOptions::new();
                options.append(true).mode(0o600);
                if seal.offset == 0 {
                    options.create_new(true);
                }
                none.insert(options.open(&path).map_err(refused)?)
            }
        };
        for part in parts {
            file.write_all(part).map_err(refused)?;
        }
        self.books.kept(bytes);
        Ok(())
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        // What is left now the next one removes.
        let open: Vec<Xid> = self.books.open().map(|(xid, _)| xid).collect();
        open.into_iter().for_each(|xid| drop(self.remove(xid)));
    }
}

/// What the system says about something that was to be done.
fn refused(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { doing, path, source }
}

async fn hold(lock: &File, directory: &Path) -> Result<(), Error> {
    let since = Instant::now();
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if since.elapsed() < LOCK_WAIT => {
                sleep(LOCK_POLL).await;
            }
            Err(TryLockError::WouldBlock) => return Err(Error::Taken(directory.to_owned())),
            Err(TryLockError::Error(source)) => return Err(refused("lock", directory)(source)),
        }
    }
}

/// A committed transaction that is read again.
#[derive(Debug)]
pub struct Reading {
    path: PathBuf,
    /// None where nothing was kept of it.
    file: Option<File>,
    seal: Seal,
    end: u64,
    rolled_back: BTreeSet<Xid>,
    records: Vec<u8>,
}

impl Reading {
    /// Reads on: the next changes that were not rolled back, `None` behind the last ones.
    ///
    /// # Errors
    /// Where what was written cannot be read any more.
    pub fn next_batch(
        &mut self,
    ) -> Result<Option<impl Iterator<Item = Result<Record<'_>, Error>>>, Error> {
        let left = self.end.saturating_sub(self.seal.offset);
        let Some(file) = self.file.as_mut().filter(|_| left > 0) else { return Ok(None) };
        let path = &self.path;
        let unreadable = |source: io::Error| match source.kind() {
            io::ErrorKind::UnexpectedEof => Error::Damaged(path.clone()),
            _ => Error::Io { doing: "read", path: path.clone(), source },
        };
        let damaged = |Damaged| Error::Damaged(path.clone());
        let mut head = [0; batch::HEAD_BYTES];
        file.read_exact(&mut head).map_err(unreadable)?;
        let length = u64::from(batch::length(head));
        let whole = head.len() as u64 + length;
        // A length that is wrong must not take memory.
        if whole > left {
            return Err(damaged(Damaged));
        }
        self.records.clear();
        self.records.shrink_to(KEPT_BYTES);
        self.records.resize(usize::try_from(length).unwrap_or(usize::MAX), 0);
        file.read_exact(&mut self.records).map_err(unreadable)?;
        let records = batch::open(head, self.seal, &self.records).map_err(damaged)?;
        self.seal.offset += whole;
        let rolled_back = &self.rolled_back;
        let stands = |record: &Result<Record<'_>, Damaged>| {
            record.as_ref().map_or(true, |record| !rolled_back.contains(&record.xid))
        };
        Ok(Some(records.filter(stands).map(move |record| record.map_err(damaged))))
    }
}

#[cfg(test)]
mod tests;
