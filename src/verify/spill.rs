//! What is kept of both sides until they are compared: in memory, and on disk where there is more.
//!
//! Entries are kept by the bucket of their key, and buckets are compared one after the other. So
//! memory is bounded by what is kept before it is written, and by the largest bucket: one part of
//! [`BUCKETS`] of what there is.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use waltide_core::verify::bucket;

use crate::fault::{Code, Fault};

/// Each side has as many files at most.
pub(super) const BUCKETS: usize = 128;

/// What one side keeps in memory before it is written.
const KEPT_BYTES: usize = 24 << 20;

/// One side's entries, by bucket.
#[derive(Debug)]
pub(super) struct Buckets {
    kept: Vec<Vec<u8>>,
    bytes: usize,
    /// Those of buckets of which something was written. They have no names any more, and go away
    /// with the process however it ends.
    files: Vec<Option<File>>,
}

impl Buckets {
    pub(super) fn new() -> Self {
        let files = std::iter::repeat_with(|| None).take(BUCKETS).collect();
        Self { kept: vec![Vec::new(); BUCKETS], bytes: 0, files }
    }

    /// Keeps an entry, which `write` appends.
    pub(super) fn push(
        &mut self,
        digest: u128,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), Fault> {
        let Some(kept) = self.kept.get_mut(bucket(digest, BUCKETS)) else { return Ok(()) };
        let before = kept.len();
        write(kept);
        self.bytes += kept.len() - before;
        if self.bytes > KEPT_BYTES {
            self.write_out()?;
        }
        Ok(())
    }

    /// All entries of a bucket; it is empty afterwards.
    pub(super) fn take(&mut self, number: usize) -> Result<Vec<u8>, Fault> {
        let kept = self.kept.get_mut(number).map(std::mem::take).unwrap_or_default();
        self.bytes = self.bytes.saturating_sub(kept.len());
        let Some(mut file) = self.files.get_mut(number).and_then(Option::take) else {
            return Ok(kept);
        };
        let mut all = Vec::new();
        let read = file.seek(SeekFrom::Start(0)).and_then(|_| file.read_to_end(&mut all));
        read.map_err(|error| unusable(&error))?;
        all.extend_from_slice(&kept);
        Ok(all)
    }

    fn write_out(&mut self) -> Result<(), Fault> {
        for (kept, file) in self.kept.iter_mut().zip(&mut self.files) {
            if kept.is_empty() {
                continue;
            }
            let file = match file {
                Some(file) => file,
                none => none.insert(nameless(&std::env::temp_dir()).map_err(|e| unusable(&e))?),
            };
            file.write_all(kept).map_err(|error| unusable(&error))?;
            kept.clear();
        }
        self.bytes = 0;
        Ok(())
    }
}

/// A file that nobody else can read, and that nobody finds.
fn nameless(directory: &Path) -> std::io::Result<File> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = directory.join(format!("waltide-verify-{}-{number}", std::process::id()));
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

fn unusable(error: &std::io::Error) -> Fault {
    let directory = std::env::temp_dir();
    Fault::new(
        Code::SpoolUnusable,
        format!("what was read cannot be kept in {}: {error}", directory.display()),
        "name a directory with room in TMPDIR: about 200 bytes for each row and each record, and \
         8 for each of their columns",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back_in_its_order_whether_it_was_written_or_not() {
        let mut buckets = Buckets::new();
        let large = vec![7; KEPT_BYTES / 2];
        for number in 0..5_u8 {
            buckets
                .push(u128::from(number % 2), |out| {
                    out.push(number);
                    out.extend_from_slice(&large);
                })
                .expect("room");
        }
        assert!(buckets.bytes <= KEPT_BYTES);
        let firsts = |bytes: Vec<u8>| -> Vec<u8> {
            bytes.chunks(large.len() + 1).map(|entry| entry[0]).collect()
        };
        assert_eq!(firsts(buckets.take(0).expect("entries")), [0, 2, 4]);
        assert_eq!(firsts(buckets.take(1).expect("entries")), [1, 3]);
        assert!(buckets.take(1).expect("nothing").is_empty());
    }
}
