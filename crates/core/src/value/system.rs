//! Types of the server itself: positions, tuple ids, snapshots.

use super::read::{Reader, exactly};
use super::{Fault, put};

/// `pg_lsn`: `16/B374D848`.
pub(crate) fn write_lsn(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
    let lsn = u64::from_be_bytes(exactly(bytes, &"pg_lsn")?);
    put!(out, "{}", crate::lsn::Lsn(lsn));
    Ok(())
}

/// `tid`: `(0,1)`.
pub(crate) fn write_tid(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
    let mut reader = Reader::new(bytes, &"tid");
    let (block, offset) = (reader.u32()?, reader.u16()?);
    reader.end()?;
    put!(out, "({block},{offset})");
    Ok(())
}

/// `pg_snapshot` and `txid_snapshot`: `10:20:10,14,15`.
pub(crate) fn write_snapshot(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
    let mut reader = Reader::new(bytes, &"pg_snapshot");
    let count = reader.len()?;
    put!(out, "{}:{}:", reader.u64()?, reader.u64()?);
    for i in 0..count {
        put!(out, "{}{}", if i > 0 { "," } else { "" }, reader.u64()?);
    }
    reader.end()
}
