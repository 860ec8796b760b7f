//! The books' bytes, as the checkpoint carries them.
//!
//! ```text
//! version, adopts 0|1, life, near, unsettled [xid],
//! known [table, fingerprint, [leaf]],
//! jobs [table, fingerprint, [leaf], only [leaf], waits 0|1, rows, shape, floor,
//!       left null|[leaf, file, from, to], again [key], from version 2 on
//!       filter null|text, asked 0|1, paused 0|1, from version 3 on
//!       keys null|[column], [key]]
//! ```
//!
//! All numbers and lists are as Avro has them. What is in hand is written as left.

use std::collections::BTreeSet;

use super::job::{Job, Terms, Unsettled, Waits};
use super::{Book, Filter, Keys, Known, Span, Tid};
use crate::checkpoint::Unreadable;
use crate::checkpoint::codec::{Reader, Writer};
use crate::lsn::Lsn;
use crate::pgoutput::RelationId;

/// The format this code writes. It reads all of them.
const VERSION: i64 = 3;

impl Book {
    /// Appends the books.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut out = Writer(out);
        out.long(VERSION);
        out.branch(i64::from(self.adopts));
        out.long(self.life.cast_signed());
        out.long(self.near.cast_signed());
        let unsettled: Vec<u64> = self.unsettled.0.iter().copied().collect();
        out.array(&unsettled, |out, xid| out.long(xid.cast_signed()));
        let known: Vec<_> = self.known.iter().collect();
        out.array(&known, |out, (table, known)| {
            out.long(i64::from(table.0));
            write_known(out, known);
        });
        let jobs: Vec<_> = self.jobs.iter().collect();
        out.array(&jobs, |out, (table, job)| {
            out.long(i64::from(table.0));
            write_job(out, job);
        });
    }

    /// Reads books that were appended.
    ///
    /// # Errors
    /// Where the bytes are none.
    pub fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let mut input = Reader::new(bytes);
        let version = input.long()?;
        if !(1..=VERSION).contains(&version) {
            return Err(Unreadable::Foreign);
        }
        let adopts = input.long()? == 1;
        let life = input.long()?.cast_unsigned();
        let near = input.long()?.cast_unsigned();
        let unsettled = input.array(|input| Ok(input.long()?.cast_unsigned()))?;
        let known = input.array(|input| Ok((table(input)?, read_known(input)?)))?;
        let jobs = input.array(|input| Ok((table(input)?, read_job(input, version)?)))?;
        input.finish()?;
        let mut book = Self::default();
        (book.adopts, book.life, book.near) = (adopts, life, near);
        book.unsettled = Unsettled(unsettled.into_iter().collect());
        book.known = known.into_iter().collect();
        book.jobs = jobs.into_iter().collect();
        // Who was open when it began is not remembered: it may be any of those that are left.
        for job in book.jobs.values_mut() {
            job.first.clone_from(&book.unsettled.0);
        }
        Ok(book)
    }
}

fn write_tables(out: &mut Writer<'_>, tables: &BTreeSet<RelationId>) {
    let tables: Vec<_> = tables.iter().collect();
    out.array(&tables, |out, table| out.long(i64::from(table.0)));
}

fn write_known(out: &mut Writer<'_>, known: &Known) {
    out.long(known.fingerprint.cast_signed());
    write_tables(out, &known.leaves);
}

fn write_job(out: &mut Writer<'_>, job: &Job) {
    write_known(out, &job.known);
    write_tables(out, &job.only);
    // Who is still waited for may end or be published unseen: they are looked for again.
    let looked = matches!(&job.waits, Waits::For(open) if open.is_empty());
    out.branch(i64::from(looked));
    out.long(job.rows.cast_signed());
    out.long(job.shape.cast_signed());
    out.long(job.floor.0.cast_signed());
    match job.spans_left() {
        None => out.branch(0),
        Some(spans) => {
            out.branch(1);
            out.array(&spans, |out, span| {
                out.long(i64::from(span.leaf.0));
                out.long(i64::from(span.file));
                out.long(span.from.raw().cast_signed());
                out.long(span.to.raw().cast_signed());
            });
        }
    }
    let keys: Vec<_> = job.keys_left().into_iter().collect();
    out.array(&keys, |out, key| out.bytes(key));
    match &job.terms.filter {
        None => out.branch(0),
        Some(filter) => {
            out.branch(1);
            out.bytes(filter.as_str().as_bytes());
        }
    }
    out.branch(i64::from(job.terms.asked));
    out.branch(i64::from(job.terms.paused));
    match &job.terms.keys {
        None => out.branch(0),
        Some(keys) => {
            out.branch(1);
            out.array(&keys.columns, |out, column| out.bytes(column.as_bytes()));
            let rows: Vec<_> = keys.rows.iter().collect();
            out.array(&rows, |out, row| out.bytes(row));
        }
    }
}

fn table(input: &mut Reader<'_>) -> Result<RelationId, Unreadable> {
    input.number("a table").map(RelationId)
}

fn read_known(input: &mut Reader<'_>) -> Result<Known, Unreadable> {
    let fingerprint = input.long()?.cast_unsigned();
    let leaves = input.array(table)?.into_iter().collect();
    Ok(Known { fingerprint, leaves })
}

fn read_job(input: &mut Reader<'_>, version: i64) -> Result<Job, Unreadable> {
    let known = read_known(input)?;
    let only = input.array(table)?.into_iter().collect();
    let mut job = Job::new(known, only);
    if input.long()? == 1 {
        job.waits = Waits::For(BTreeSet::new());
    }
    job.rows = input.long()?.cast_unsigned();
    job.shape = input.long()?.cast_unsigned();
    job.floor = Lsn(input.long()?.cast_unsigned());
    job.left = input.optional(|input| {
        input.array(|input| {
            let (leaf, file) = (table(input)?, input.number("a file")?);
            let [from, to] = [input.long()?, input.long()?];
            let [from, to] = [from, to].map(|raw| Tid::from_raw(raw.cast_unsigned()));
            Ok(Span { leaf, file, from, to })
        })
    })?;
    for key in input.array(|input| Ok(input.bytes()?.into()))? {
        job.read_again(key);
    }
    if version > 1 {
        let filter = input.optional(read_filter)?;
        let (asked, paused) = (input.long()? == 1, input.long()? == 1);
        job.terms = Terms { filter, asked, paused, keys: None };
    }
    if version > 2 {
        job.terms.keys = input.optional(read_keys)?;
    }
    Ok(job)
}

fn read_keys(input: &mut Reader<'_>) -> Result<Keys, Unreadable> {
    let columns = input.array(|input| Ok(String::from_utf8(input.bytes()?.into())))?;
    let columns: Result<_, _> = columns.into_iter().collect();
    let rows = input.array(|input| Ok(input.bytes()?.into()))?;
    let columns = columns.map_err(|_| Unreadable::Foreign)?;
    Ok(Keys { columns, rows: rows.into_iter().collect() })
}

fn read_filter(input: &mut Reader<'_>) -> Result<Filter, Unreadable> {
    let text = std::str::from_utf8(input.bytes()?).ok();
    text.and_then(|text| Filter::parse(text).ok()).ok_or(Unreadable::Foreign)
}

#[cfg(test)]
mod tests {
    use super::super::{Key, Part, Sight, Touch};
    use super::*;
    use crate::pgoutput::Xid;

    const TABLE: RelationId = RelationId(7);

    fn read_back(book: &Book) -> Book {
        let mut bytes = Vec::new();
        book.encode(&mut bytes);
        for end in 0..bytes.len() {
            assert!(Book::decode(&bytes[..end]).is_err(), "{end} bytes of {}", bytes.len());
        }
        Book::decode(&bytes).expect("the books")
    }

    #[test]
    fn the_terms_of_a_table_come_back_and_books_of_before_there_were_any_are_read() {
        let mut book = Book::default();
        let filter = Filter::parse("a > 'x'").ok();
        let mut keys = Keys { columns: vec!["a".to_owned()], ..Keys::default() };
        assert!(keys.push(["x"].into_iter()));
        let terms = Terms { filter, asked: true, paused: true, keys: Some(keys) };
        book.start_on(TABLE, Known::default(), BTreeSet::new(), terms.clone());
        assert_eq!(read_back(&book).terms(TABLE), Some(&terms));
        let mut plain = Book::default();
        plain.start(TABLE, Known::default(), BTreeSet::new());
        let mut bytes = Vec::new();
        plain.encode(&mut bytes);
        // The job's last bytes, before the end of the list of jobs: one of version 3, three of 2.
        for (version, terms) in [(2, 1), (1, 3)] {
            let terms = bytes.len() - 1 - terms..bytes.len() - 1;
            assert!(bytes.drain(terms).all(|byte| byte == 0));
            *bytes.first_mut().expect("a version") = 2 * version;
            let old = Book::decode(&bytes).expect("books of an older version");
            assert_eq!(old.terms(TABLE), Some(&Terms::default()));
        }
    }

    #[test]
    fn books_come_back_with_what_was_in_hand_left() {
        let mut book = Book::default();
        book.now_near(1 << 33);
        book.take_as_read(RelationId(8), Known { fingerprint: u64::MAX, ..Known::default() });
        let leaves = BTreeSet::from([RelationId(70), RelationId(71)]);
        let known = Known { fingerprint: 5, leaves };
        book.start(TABLE, known.clone(), BTreeSet::from([RelationId(71)]));
        assert_eq!(read_back(&book).ready().count(), 0, "nobody has looked who is open");
        book.open_now(&BTreeSet::new());
        book.measured(TABLE, 77, Lsn(90), Span::whole(RelationId(71), 3, 10).into_iter().collect());
        book.begin(Xid(9));
        book.boundary(Lsn(100));
        let first = book.register(4, |_| true).expect("a chunk");
        let key: Key = b"k".as_slice().into();
        book.touched(TABLE, b"k", Touch::Moved, || Some(key.clone()));

        let mut again = read_back(&book);
        assert_eq!((again.begin_life(Lsn(1)), again.known(TABLE)), (1, Some(&known)));
        assert_eq!(again.only(TABLE), Some(&BTreeSet::from([RelationId(71)])));
        assert_eq!(again.known(RelationId(8)).map(|known| known.fingerprint), Some(u64::MAX));
        again.boundary(Lsn(100));
        let mut parts = Vec::new();
        while let Some(next) = again.register(100, |_| true) {
            assert_eq!(next.published, [(1 << 33) + 9]);
            parts.push(next.part);
        }
        assert!(parts.contains(&first.part), "{parts:?}");
        assert!(parts.contains(&Part::Keys(vec![key])), "{parts:?}");
        assert_eq!(parts.len(), 3);
        let seen: Sight = Sight::Primary("1:8589934700:".parse().expect("a snapshot"));
        again.settle(&seen);
        assert!(again.register(1, |_| true).is_none());
    }
}
