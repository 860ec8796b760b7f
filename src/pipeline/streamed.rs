// Hot path: `Engine::keep` and `Engine::publish_some` run once a row of a streamed transaction.
//! Transactions that the server sends before they are committed: kept until they are, and then
//! published as if they had come only now.
//!
//! ```text
//!   Stream Start, rows, Stream Stop -> spool        Stream Abort -> spool drops (a part of) it
//!   Stream Commit -> Begin, rows from the spool, Commit
//! ```
//!
//! So nothing behind here knows the difference: positions, ordinals and bytes are the same. While a
//! transaction is published nothing is read from the socket; everything else goes on, for it is
//! done in small steps.
//!
//! What cannot be kept is read again: the stream is left in order, and the next one is begun with
//! `streaming` off. The server then keeps large transactions itself until they are committed.

use waltide_core::lsn::Lsn;
use waltide_core::pgoutput::{
    Begin, Commit, Context, Message, PgTimestamp, Relation, RelationBody, Xid, decode,
};

use super::diagnosis;
use super::routes::Known;
use super::stream::Engine;
use crate::fault::Fault;
use crate::spool::{Error, Reading, Spool};

/// Why a stream is left in order, to be begun again in another way.
#[derive(Clone, Debug)]
pub(super) enum Leaving {
    /// This transaction cannot be kept, and must come once it is committed.
    CannotKeep(Xid, Option<Fault>),
    /// It has come.
    CanKeepAgain,
}

/// What is done with transactions that are not committed.
#[derive(Debug, Default)]
pub(super) struct Streamed {
    /// None where the server does not send them.
    pub(super) spool: Option<Spool>,
    /// One that is committed, and not yet published whole.
    publishing: Option<Box<Publishing>>,
    /// One that could not be kept: once it has come, they can be sent again.
    pub(super) awaited: Option<Xid>,
    pub(super) leaving: Option<Leaving>,
}

#[derive(Debug)]
struct Publishing {
    xid: Xid,
    commit: Commit,
    reading: Reading,
}

impl Streamed {
    /// Whether a transaction is being published from the spool.
    pub(super) const fn is_publishing(&self) -> bool {
        self.publishing.is_some()
    }

    /// Whether what was read already must wait, or will not be needed.
    pub(super) const fn holds_up(&self) -> bool {
        self.publishing.is_some() || self.leaving.is_some()
    }
}

impl Engine {
    /// A message in a block of an open transaction.
    pub(super) fn keep(
        &mut self,
        message: &Message<'_>,
        bytes: &[u8],
        lsn: Lsn,
    ) -> Result<(), Fault> {
        let Some(spool) = &mut self.streamed.spool else {
            return Err(diagnosis::of_message(message));
        };
        let kept = match message {
            Message::Insert(..)
            | Message::Update(..)
            | Message::Delete(..)
            | Message::Truncate(..) => spool.keep(bytes, lsn),
            Message::Relation(_, body) => {
                let kept = spool.keep(bytes, lsn);
                self.described_in_block(body)?;
                kept
            }
            Message::StreamStop => {
                let kept = spool.stop();
                self.relations.stream_stop();
                kept
            }
            // The catalog names types; origins are not filtered; messages are not asked for.
            Message::Type(..) | Message::Origin(_) | Message::Logical(..) => Ok(()),
            other => return Err(diagnosis::of_message(other)),
        };
        kept.or_else(|error| self.cannot_keep(None, &error))
    }

    /// It counts for the connection once the transaction is committed.
    fn described_in_block(&mut self, body: &RelationBody<'_>) -> Result<(), Fault> {
        let inserted = self.relations.insert(Relation::from(body), Known::Described);
        inserted.map_err(diagnosis::of_too_many_relations)
    }

    /// Where open transactions begin, go on and end.
    #[cold]
    pub(super) fn open_transaction(
        &mut self,
        message: &Message<'_>,
        sent_at: PgTimestamp,
    ) -> Result<(), Fault> {
        let Some(spool) = &mut self.streamed.spool else {
            return Err(diagnosis::of_message(message));
        };
        match *message {
            Message::StreamStart { xid, first } => {
                let started = spool.start(xid, first, sent_at);
                self.relations.stream_start(xid);
                started.or_else(|error| self.cannot_keep(Some(xid), &error))
            }
            Message::StreamAbort(abort) => {
                let dropped = spool.abort(abort.xid, abort.subxid);
                self.relations.stream_abort(abort.xid);
                dropped.or_else(|error| self.cannot_keep(Some(abort.xid), &error))
            }
            Message::StreamCommit(xid, commit) => match spool.commit(xid) {
                Ok(reading) => self.begin_publishing(Publishing { xid, commit, reading }),
                Err(error) => self.cannot_keep(Some(xid), &error),
            },
            ref other => Err(diagnosis::of_message(other)),
        }
    }

    /// Ends the reading, so that what cannot be kept is read again. What came before is delivered
    /// first: nothing of it need repeat.
    #[cold]
    fn cannot_keep(&mut self, xid: Option<Xid>, error: &Error) -> Result<(), Fault> {
        let fault = diagnosis::of_spool(error);
        let block = self.streamed.spool.as_ref().and_then(Spool::block);
        let Some(xid) = xid.or(block).filter(|_| !matches!(error, Error::Disorder(_))) else {
            return Err(fault);
        };
        let outgrown = matches!(error, Error::Outgrown(_));
        if outgrown {
            let (pipeline, mend) = (self.status.name.as_str(), fault.mend.as_str());
            tracing::warn!(pipeline, xid = xid.0, mend, "{}", fault.what);
        }
        self.leave(Leaving::CannotKeep(xid, (!outgrown).then_some(fault)));
        Ok(())
    }

    fn leave(&mut self, leaving: Leaving) {
        self.streamed.leaving = Some(leaving);
        self.draining = true;
    }

    /// A transaction begins that may be the one for which streaming was given up.
    pub(super) fn note_awaited(&mut self, xid: Xid) {
        if self.streamed.awaited == Some(xid) && self.streamed.leaving.is_none() {
            // It is read to its end.
            self.leave(Leaving::CanKeepAgain);
        }
    }

    fn begin_publishing(&mut self, publishing: Publishing) -> Result<(), Fault> {
        let Commit { commit_lsn, commit_time, .. } = publishing.commit;
        self.relations.publish();
        self.begin(&Begin { commit_lsn, commit_time, xid: publishing.xid })?;
        self.streamed.publishing = Some(Box::new(publishing));
        Ok(())
    }

    /// Publishes what one read of the spool gives, or ends the transaction.
    pub(super) async fn publish_some(&mut self) -> Result<(), Fault> {
        let Some(mut publishing) = self.streamed.publishing.take() else { return Ok(()) };
        // Nobody listens to the server meanwhile, so its silence means nothing.
        self.sink.read(0);
        // What only repeats need not be read.
        let is_new = self.sink.intake.behind().map_err(diagnosis::of_disorder)?.is_some();
        if is_new && self.publish_batch(&mut publishing).await? {
            self.streamed.publishing = Some(publishing);
            return Ok(());
        }
        // What was counted for its descriptions must not be lost.
        self.show()?;
        let Publishing { xid, commit, reading } = *publishing;
        self.relations.stream_commit(xid);
        if let Some(spool) = &mut self.streamed.spool {
            spool.release(reading);
        }
        self.commit(&commit).await
    }

    /// Whether there was more.
    async fn publish_batch(&mut self, publishing: &mut Publishing) -> Result<bool, Fault> {
        let xid = publishing.xid;
        let records = match publishing.reading.next_batch() {
            Ok(records) => records,
            Err(error) => return Err(self.cannot_read(xid, &error)),
        };
        let Some(records) = records else { return Ok(false) };
        for record in records {
            let record = record.map_err(|error| self.cannot_read(xid, &error))?;
            let message = decode(record.message, Context::default());
            let message = message.map_err(|error| diagnosis::of_bytes(&error))?;
            self.message(&message, record.lsn).await?;
        }
        Ok(true)
    }

    /// A part of it may have been published: the connection ends, and all of it is read again.
    #[cold]
    fn cannot_read(&mut self, xid: Xid, error: &Error) -> Fault {
        let fault = diagnosis::of_spool(error);
        self.streamed.leaving = Some(Leaving::CannotKeep(xid, None));
        fault
    }
}
