//! What CopyData carries on a replication connection: frames of the server, and our answer.

use super::reader::Reader;
use super::{DecodeError, Fault, PgTimestamp};
use crate::lsn::{DurableLsn, Lsn};

/// A CopyData payload from the server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Frame<'a> {
    /// A piece of the stream; in logical replication, one message of the output plugin.
    XLogData {
        /// Where the record stands that the message is about; zero where there is none.
        start: Lsn,
        /// In logical replication the same as `start`.
        end: Lsn,
        /// When it was sent, by the server's clock.
        sent_at: PgTimestamp,
        /// The message.
        body: &'a [u8],
    },
    /// The server is alive, and may want to hear the same of us.
    Keepalive {
        /// Up to here the server has read its log and sent what there was to send.
        wal_end: Lsn,
        /// When it was sent, by the server's clock.
        sent_at: PgTimestamp,
        /// Answer at once, or the server takes us for dead.
        reply_requested: bool,
    },
}

impl<'a> Frame<'a> {
    /// Decodes the payload of one CopyData message.
    #[inline]
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        match reader.byte("tag")? {
            b'w' => Ok(Self::XLogData {
                start: reader.lsn("start LSN")?,
                end: reader.lsn("end LSN")?,
                sent_at: PgTimestamp(reader.signed64("time")?),
                body: reader.rest(),
            }),
            b'k' => {
                let keepalive = Self::Keepalive {
                    wal_end: reader.lsn("end LSN")?,
                    sent_at: PgTimestamp(reader.signed64("time")?),
                    reply_requested: reader.flags("reply flag", 1)? == 1,
                };
                reader.finish()?;
                Ok(keepalive)
            }
            tag => {
                Err(DecodeError { tag: Some(tag), offset: 0, fault: Fault::Unknown("tag", tag) })
            }
        }
    }
}

/// Appends a standby status update: the payload of a CopyData message to the server.
///
/// `flushed` is what the server may forget. It reports `received` and `applied` in
/// `pg_stat_replication` and, where it waits for us as a synchronous standby, goes by them.
pub fn write_status_update(
    out: &mut Vec<u8>,
    received: Lsn,
    flushed: DurableLsn,
    applied: DurableLsn,
    now: PgTimestamp,
    reply_requested: bool,
) {
    out.push(b'r');
    out.extend_from_slice(&received.0.to_be_bytes());
    out.extend_from_slice(&flushed.lsn().0.to_be_bytes());
    out.extend_from_slice(&applied.lsn().0.to_be_bytes());
    out.extend_from_slice(&now.0.to_be_bytes());
    out.push(u8::from(reply_requested));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_update_is_written_as_the_protocol_lays_it_out() {
        let mut out = b"kept".to_vec();
        write_status_update(
            &mut out,
            Lsn(0x0102_0304_0506_0708),
            DurableLsn::proven(Lsn(2)),
            DurableLsn::proven(Lsn(3)),
            PgTimestamp(-1),
            true,
        );
        let mut expected = b"keptr\x01\x02\x03\x04\x05\x06\x07\x08".to_vec();
        expected.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3]);
        expected.extend_from_slice(&[0xff; 8]);
        expected.push(1);
        assert_eq!(out, expected);
    }

    #[test]
    fn a_keepalive_says_whether_it_wants_an_answer() {
        let mut bytes = vec![b'k'];
        bytes.extend_from_slice(&7_u64.to_be_bytes());
        bytes.extend_from_slice(&9_i64.to_be_bytes());
        bytes.push(1);
        let (wal_end, sent_at) = (Lsn(7), PgTimestamp(9));
        let expected = Frame::Keepalive { wal_end, sent_at, reply_requested: true };
        assert_eq!(Frame::decode(&bytes), Ok(expected));

        bytes.push(0);
        let error = Frame::decode(&bytes).unwrap_err();
        assert_eq!((error.offset, error.fault), (18, Fault::Trailing(1)));
        bytes.truncate(17);
        let error = Frame::decode(&bytes).unwrap_err();
        assert_eq!((error.offset, error.fault), (17, Fault::Truncated("reply flag")));
        bytes.push(2);
        let error = Frame::decode(&bytes).unwrap_err();
        assert_eq!((error.offset, error.fault), (17, Fault::Unknown("reply flag", 2)));
    }

    #[test]
    fn an_unknown_frame_is_named_with_its_byte() {
        let error = Frame::decode(b"s").unwrap_err();
        assert_eq!(error.to_string(), "unknown message, byte 0: unknown tag 0x73");
    }
}
