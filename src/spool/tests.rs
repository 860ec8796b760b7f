use std::os::unix::fs::PermissionsExt as _;

use super::*;

const A: Xid = Xid(700);
const B: Xid = Xid(800);
const NOON: PgTimestamp = PgTimestamp(0);
const ROOM: u64 = 1 << 30;

/// A directory that goes away with its owner.
struct Place(PathBuf);

impl Place {
    fn new(test: &str) -> Self {
        let name = format!("waltide-spool-{test}-{:x}", chance::number());
        Self(std::env::temp_dir().join(name))
    }

    fn files(&self) -> Vec<String> {
        let entries = self.0.read_dir().unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = entries.map(|name| name.into_string().unwrap()).collect();
        names.retain(|name| name != LOCK);
        names.sort();
        names
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn open(place: &Place, limit: u64) -> Result<Spool, Error> {
    let directory = Directory::have(&place.0)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(Spool::take(directory, limit))
}

fn insert(xid: Xid, row: &[u8]) -> Vec<u8> {
    [b"I".as_slice(), &xid.0.to_be_bytes(), row].concat()
}

/// A block of rows, each by the (sub)transaction beside it.
fn block(spool: &mut Spool, xid: Xid, first: bool, rows: &[(Xid, &[u8])]) -> Result<(), Error> {
    spool.start(xid, first, NOON)?;
    for (part, row) in rows {
        spool.keep(&insert(*part, row), Lsn(7))?;
    }
    spool.stop()
}

fn read(spool: &mut Spool, xid: Xid) -> Result<Vec<Vec<u8>>, Error> {
    let mut reading = spool.commit(xid)?;
    let mut rows = Vec::new();
    while let Some(records) = reading.next_batch()? {
        for record in records {
            rows.push(record?.message[1..].to_vec());
        }
    }
    spool.release(reading);
    Ok(rows)
}

#[test]
fn transactions_that_interleave_are_read_each_by_itself_and_leave_nothing() {
    let directory = Place::new("interleaved");
    let mut spool = open(&directory, ROOM).unwrap();
    block(&mut spool, A, true, &[(A, b"a1"), (A, b"a2")]).unwrap();
    block(&mut spool, B, true, &[(B, b"b1")]).unwrap();
    block(&mut spool, A, false, &[(A, b"a3")]).unwrap();
    assert_eq!(directory.files(), ["700.spool", "800.spool"]);
    assert_eq!(read(&mut spool, A).unwrap(), [b"a1", b"a2", b"a3"]);
    assert_eq!(directory.files(), ["800.spool"]);
    spool.abort(B, B).unwrap();
    assert_eq!(directory.files(), [""; 0]);
    assert_eq!(spool.books.bytes(), 0);
}

#[test]
fn what_was_rolled_back_is_not_read() {
    let directory = Place::new("rolled-back");
    let mut spool = open(&directory, ROOM).unwrap();
    let (gone, stays) = (Xid(701), Xid(702));
    block(&mut spool, A, true, &[(A, b"1"), (gone, b"2"), (stays, b"3"), (gone, b"4")]).unwrap();
    spool.abort(A, gone).unwrap();
    block(&mut spool, A, false, &[(A, b"5")]).unwrap();
    assert_eq!(read(&mut spool, A).unwrap(), [b"1", b"3", b"5"]);
}

#[test]
fn long_rows_and_many_rows_are_read_as_they_came() {
    let directory = Place::new("long");
    let mut spool = open(&directory, ROOM).unwrap();
    let rows: Vec<Vec<u8>> = (0..3_000_usize)
        .map(|number| match number % 1_000 {
            999 => vec![b'x'; 300_000 + number],
            _ => number.to_string().into_bytes(),
        })
        .collect();
    for (number, rows) in rows.chunks(700).enumerate() {
        let rows: Vec<(Xid, &[u8])> = rows.iter().map(|row| (A, row.as_slice())).collect();
        block(&mut spool, A, number == 0, &rows).unwrap();
    }
    assert!(spool.books.bytes() > 900_000);
    assert_eq!(read(&mut spool, A).unwrap(), rows);
}

#[test]
fn a_transaction_of_which_nothing_is_kept_is_committed_all_the_same() {
    let directory = Place::new("empty");
    let mut spool = open(&directory, ROOM).unwrap();
    block(&mut spool, A, true, &[]).unwrap();
    assert_eq!(read(&mut spool, A).unwrap(), [[0; 0]; 0]);
    assert!(matches!(spool.commit(A), Err(Error::Disorder(Disorder::Unknown(A)))));
}

#[test]
fn files_of_an_earlier_run_are_removed_and_never_read() {
    let directory = Place::new("earlier");
    let mut spool = open(&directory, ROOM).unwrap();
    block(&mut spool, A, true, &[(A, b"before")]).unwrap();
    let kept = std::fs::read(directory.0.join("700.spool")).unwrap();
    drop(spool);
    assert_eq!(directory.files(), [""; 0], "an orderly end leaves none");
    // As after a kill.
    std::fs::write(directory.0.join("700.spool"), &kept).unwrap();
    let mut spool = open(&directory, ROOM).unwrap();
    assert_eq!(directory.files(), [""; 0]);
    block(&mut spool, A, true, &[(A, b"after")]).unwrap();
    // Even one that came back: it is of another run.
    std::fs::write(directory.0.join("700.spool"), &kept).unwrap();
    assert!(matches!(read(&mut spool, A), Err(Error::Damaged(_))));
}

#[test]
fn what_the_disk_changed_is_noticed() {
    for cut in [true, false] {
        let directory = Place::new("damaged");
        let mut spool = open(&directory, ROOM).unwrap();
        block(&mut spool, A, true, &[(A, b"one"), (A, b"two")]).unwrap();
        let path = directory.0.join("700.spool");
        let mut bytes = std::fs::read(&path).unwrap();
        if cut {
            bytes.pop();
        } else {
            // The length itself.
            bytes[2] ^= 1;
        }
        std::fs::write(&path, bytes).unwrap();
        assert!(matches!(read(&mut spool, A), Err(Error::Damaged(_))));
    }
}

#[test]
fn more_than_may_be_kept_is_not_written() {
    let directory = Place::new("outgrown");
    let mut spool = open(&directory, 1_000).unwrap();
    block(&mut spool, A, true, &[(A, &[0; 900])]).unwrap();
    let more = block(&mut spool, A, false, &[(A, &[0; 100])]);
    assert!(matches!(more, Err(Error::Outgrown(Outgrown::Bytes))), "{more:?}");
    assert!(directory.0.join("700.spool").metadata().unwrap().len() <= 1_000);
}

#[test]
fn a_directory_is_one_processs_at_a_time_and_nobody_elses_to_read() {
    let directory = Place::new("taken");
    let mut first = open(&directory, ROOM).unwrap();
    block(&mut first, A, true, &[(A, b"row")]).unwrap();
    assert!(matches!(open(&directory, ROOM), Err(Error::Taken(_))));
    assert_eq!(read(&mut first, A).unwrap(), [b"row"], "what is its own is still there");
    let mode = directory.0.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    drop(first);
    assert!(open(&directory, ROOM).is_ok());
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let directory = Place::new("file");
    std::fs::write(&directory.0, "in the way").unwrap();
    let error = open(&directory, ROOM).unwrap_err();
    std::fs::remove_file(&directory.0).unwrap();
    assert!(error.to_string().contains(directory.0.to_str().unwrap()), "{error}");
}
