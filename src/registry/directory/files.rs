//! The files of a directory of schemas: read from where one stopped, written so that a kill at any
//! moment leaves what was promised.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::unistd::{AccessFlags, access};
use waltide_core::registry::{Book, Line};

use super::Trouble;

/// The log.
const LOG: &str = "registrations.jsonl";

/// Who has it locked writes.
const LOCK: &str = "lock";

/// A schema on its way to its name.
const COMING: &str = "new.avsc";

/// How long another writer may take: it writes two small files.
const LOCK_WAIT: Duration = Duration::from_secs(4);

/// How often it is asked meanwhile.
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// How far the files were read.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// Where the log's next line begins.
    read: u64,
}

/// Waits for its turn to write. The directory is made when it is first written to, not those above
/// it: where a volume is missing, that shall show.
pub(super) fn lock(directory: &Path) -> Result<File, Trouble> {
    match fs::create_dir(directory) {
        Ok(()) => {
            tracing::info!(directory = %directory.display(), "a directory of schemas is made");
            sync_parent(directory)?;
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(Trouble::io("make the directory", directory, &error)),
    }
    let path = directory.join(LOCK);
    let opened = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = opened.map_err(|error| Trouble::io("open", &path, &error))?;
    let started = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if started.elapsed() < LOCK_WAIT => {
                std::thread::sleep(LOCK_PAUSE);
            }
            Err(TryLockError::WouldBlock) => {
                let reason =
                    format!("another process has held {} for {LOCK_WAIT:?}", path.display());
                return Err(Trouble::Io { reason });
            }
            Err(TryLockError::Error(error)) => return Err(Trouble::io("lock", &path, &error)),
        }
    }
}

impl Files {
    /// Reads what was written since. A last line that cannot be read is one that nobody was told
    /// of, or that is being written just now.
    pub(super) fn catch_up(&mut self, directory: &Path, book: &mut Book) -> Result<(), Trouble> {
        let path = directory.join(LOG);
        let fail = |error: &io::Error| Trouble::io("read", &path, error);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.read == 0 => {
                return Ok(());
            }
            Err(error) => return Err(fail(&error)),
        };
        let length = file.metadata().map_err(|error| fail(&error))?.len();
        if length < self.read {
            let reason = format!(
                "{} has {length} bytes and had {}: registrations are gone",
                path.display(),
                self.read
            );
            return Err(Trouble::Damaged { reason });
        }
        if length == self.read {
            return Ok(());
        }
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(self.read)).map_err(|error| fail(&error))?;
        file.read_to_end(&mut bytes).map_err(|error| fail(&error))?;
        let mut lines = bytes.split_inclusive(|byte| *byte == b'\n').peekable();
        while let Some(bytes) = lines.next() {
            let whole = bytes.strip_suffix(b"\n").and_then(|line| str::from_utf8(line).ok());
            let Some(line) = whole.and_then(Line::read) else {
                if lines.peek().is_none() {
                    return Ok(());
                }
                let reason = format!("{} is no line of it at byte {}", path.display(), self.read);
                return Err(Trouble::Damaged { reason });
            };
            take(directory, book, line)?;
            self.read += bytes.len() as u64;
        }
        Ok(())
    }

    /// Writes a line behind those that were read, in the place of what nobody was told of.
    pub(super) fn add_line(&mut self, directory: &Path, line: &Line) -> Result<(), Trouble> {
        let path = directory.join(LOG);
        let fail = |error: &io::Error| Trouble::io("write", &path, error);
        let opened = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let mut file = opened.map_err(|error| fail(&error))?;
        let line = line.write() + "\n";
        let written = file
            .set_len(self.read)
            .and_then(|()| file.seek(SeekFrom::Start(self.read)))
            .and_then(|_| file.write_all(line.as_bytes()))
            .and_then(|()| file.sync_all());
        if let Err(error) = written {
            // Nobody is told of it, so nobody shall read it. Where that fails too, the next
            // writer does it.
            let _ = file.set_len(self.read);
            return Err(fail(&error));
        }
        if self.read == 0 {
            sync(directory)?;
        }
        self.read += line.len() as u64;
        Ok(())
    }
}

/// An id that no other schema ever had, also where the log does not name it.
pub(super) fn next_id(directory: &Path, newest: u32) -> Result<u32, Trouble> {
    let read = |error: &io::Error| Trouble::io("read", directory, error);
    let mut highest = newest;
    for entry in fs::read_dir(directory).map_err(|error| read(&error))? {
        let name = entry.map_err(|error| read(&error))?.file_name();
        let id = name.to_str().and_then(|name| name.strip_suffix(".avsc")?.parse().ok());
        highest = highest.max(id.unwrap_or(0));
    }
    // A client reads an id as a signed number.
    let id = highest.checked_add(1).filter(|id| i32::try_from(*id).is_ok());
    id.ok_or_else(|| Trouble::Damaged {
        reason: format!("there is a schema with id {highest}: there are no ids left"),
    })
}

/// Writes a schema, whole or not at all.
pub(super) fn add_schema(directory: &Path, id: u32, text: &str) -> Result<(), Trouble> {
    let (coming, path) = (directory.join(COMING), file_of(directory, id));
    let write = |error: &io::Error| Trouble::io("write", &coming, error);
    let mut file = File::create(&coming).map_err(|error| write(&error))?;
    file.write_all(text.as_bytes()).map_err(|error| write(&error))?;
    file.sync_all().map_err(|error| write(&error))?;
    fs::rename(&coming, &path).map_err(|error| Trouble::io("write", &path, &error))?;
    sync(directory)
}

/// Takes a line, with the schema that it names where that is new.
fn take(directory: &Path, book: &mut Book, line: Line) -> Result<(), Trouble> {
    let text = match &line {
        Line::Registered { id, .. } if !book.has(*id) => {
            let path = file_of(directory, *id);
            match fs::read_to_string(&path) {
                Ok(text) => Some(text),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(Trouble::io("read", &path, &error)),
            }
        }
        _ => None,
    };
    book.take(line, text).map_err(|reason| Trouble::Damaged {
        reason: format!("{}: {reason}", directory.join(LOG).display()),
    })
}

fn file_of(directory: &Path, id: u32) -> PathBuf {
    directory.join(format!("{id}.avsc"))
}

/// Puts the names in a directory on the disk.
fn sync(directory: &Path) -> Result<(), Trouble> {
    let done = File::open(directory).and_then(|directory| directory.sync_all());
    done.map_err(|error| Trouble::io("write", directory, &error))
}

fn sync_parent(directory: &Path) -> Result<(), Trouble> {
    match directory.parent() {
        Some(parent) if parent.as_os_str().is_empty() => sync(Path::new(".")),
        Some(parent) => sync(parent),
        None => Ok(()),
    }
}

/// Whether a directory, and what is in it, may be written, or else the one above be given it.
pub(super) fn writable(directory: &Path) -> Result<(), String> {
    let above = match directory.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let place = if directory.exists() { directory } else { above };
    let inside = [LOG, LOCK, COMING].map(|name| directory.join(name));
    let there = inside.iter().filter(|path| path.exists()).map(PathBuf::as_path);
    for path in [place].into_iter().chain(there) {
        let mut wanted = AccessFlags::W_OK;
        wanted.set(AccessFlags::X_OK, path.is_dir());
        access(path, wanted)
            .map_err(|error| format!("cannot write {}: {}", path.display(), error.desc()))?;
    }
    Ok(())
}
