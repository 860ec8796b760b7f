//! Changes of a database on the terminal: no Kafka, no registry, no slot that stays.
//!
//! The stream is decoded, and its rows are written as Avro, by what the daemon uses; the bytes are
//! read back, so what is shown is what a consumer would read. The slot is temporary: the server
//! drops it when the connection ends, however that happens.

mod change;
mod published;

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use waltide_core::intake::Intake;
use waltide_core::lsn::DurableLsn;
use waltide_core::pgoutput::{Decoder, Frame, Message, Relation, RelationCache};

pub use change::Change;
use change::Shown;
use published::Published;

use crate::config::TablePattern;
use crate::fault::{Code, Fault};
use crate::pipeline;
use crate::postgres::{
    Connection, Error, Mode, NewSlot, Params, Password, SqlState, StreamOptions, StreamReader,
    StreamWriter,
};

/// How long making the slot may wait for transactions that are open.
const SLOT_WAIT: Duration = Duration::from_secs(15);

/// How long finding or making a publication may take.
const PUBLISH_WAIT: Duration = Duration::from_secs(30);

/// The server hears from us this often.
const FEEDBACK: Duration = Duration::from_millis(900);

/// A pager that somebody reads holds us up; the server waits for that long.
const WAL_SENDER_TIMEOUT: Duration = Duration::from_secs(600);

/// The end of a connection may take this long.
const FAREWELL: Duration = Duration::from_secs(2);

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The database.
    pub url: String,
    /// The password, where the URL has none.
    pub password: Option<String>,
    /// The tables.
    pub tables: Vec<TablePattern>,
    /// A publication to use as it is.
    pub publication: Option<String>,
    /// After how many changes it ends.
    pub count: Option<u64>,
}

impl Asked {
    fn captures(&self, schema: &str, table: &str) -> bool {
        self.tables.iter().any(|pattern| pattern.matches(schema, table))
    }
}

/// What is told while it goes on.
#[derive(Debug)]
pub enum Event<'a> {
    /// Once the stream has begun.
    Begun {
        /// How many tables are looked at.
        tables: usize,
        /// The publications it comes through.
        publications: &'a [String],
        /// Whether they were made for it, and go with it.
        made: bool,
    },
    /// A change.
    Change(&'a Change),
    /// All that has come so far was told.
    Pause,
}

/// Shows changes until `stop` is done, or as many as were asked for.
///
/// # Errors
/// Where the source is away or refuses, or where telling fails.
pub async fn tail(
    asked: &Asked,
    mut tell: impl FnMut(Event<'_>) -> Result<(), Fault>,
    stop: impl Future<Output = ()>,
) -> Result<(), Fault> {
    let params = params(asked)?;
    let source = |error: Error| pipeline::of_source(&error);
    tokio::pin!(stop);
    let mut catalog = tokio::select! {
        opened = Connection::open(&params, Mode::Plain) => opened.map_err(source)?,
        () = &mut stop => return Ok(()),
    };
    // To its end, so that what was made is known and taken away.
    let finding = published::find_or_make(&mut catalog, asked);
    let Ok(published) = tokio::time::timeout(PUBLISH_WAIT, finding).await else {
        let what = format!("{} does not answer within {PUBLISH_WAIT:?}", catalog.peer());
        let mend = "look at the server's load and at locks on its catalog";
        return Err(Fault::new(Code::SourceUnreachable, what, mend));
    };
    let published = published?;
    let ended = tokio::select! {
        ended = Box::pin(follow(asked, &params, &mut catalog, &published, &mut tell)) => ended,
        () = &mut stop => Ok(()),
    };
    // The stream may have been dropped in the middle of a question to the catalog.
    let tidied = tokio::time::timeout(FAREWELL * 2, published.tidy(catalog, &params)).await;
    ended?;
    match tidied {
        Ok(tidied) => tidied,
        Err(_) => Err(published.left_behind()),
    }
}

fn params(asked: &Asked) -> Result<Params, Fault> {
    let parsed = asked.url.parse::<Params>();
    let mut params = parsed.map_err(|error| {
        let mend = "give --source as postgres://user@host:5432/database";
        Fault::new(Code::SourceSettings, format!("--source: {error}"), mend)
    })?;
    params = params.with_password_from(None, asked.password.as_deref().map(Password::new));
    params.wal_sender_timeout.get_or_insert(WAL_SENDER_TIMEOUT);
    Ok(params)
}

async fn follow(
    asked: &Asked,
    params: &Params,
    catalog: &mut Connection,
    published: &Published,
    tell: &mut impl FnMut(Event<'_>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let source = |error: Error| pipeline::of_source(&error);
    let mut stream = Connection::open(params, Mode::Replication).await.map_err(source)?;
    let slot = published.temporary_name().to_owned();
    let start = make_slot(&mut stream, &slot).await?;
    let publications: Vec<&str> = published.names().iter().map(String::as_str).collect();
    let options = StreamOptions {
        publications: &publications,
        binary: true,
        streaming: false,
        messages: false,
        any_origin: true,
    };
    stream.start_replication(&slot, start.lsn(), &options).await.map_err(source)?;
    let (reader, writer) = stream.into_stream().map_err(source)?;
    tell(Event::Begun {
        tables: published.tables(),
        publications: published.names(),
        made: published.is_made(),
    })?;
    let mut follower = Follower {
        asked,
        intake: Intake::resume(start),
        decoder: Decoder::new(),
        relations: RelationCache::new(),
        told: 0,
    };
    follower.run(reader, writer, catalog, tell).await
}

/// A creation that the server cancels leaves no half-made slot behind.
async fn make_slot(on: &mut Connection, name: &str) -> Result<DurableLsn, Fault> {
    let cancel = on.cancel_token();
    let slot = NewSlot { name, temporary: true, failover: false };
    let making = on.create_slot(&slot);
    tokio::pin!(making);
    let made = tokio::select! {
        made = &mut making => made,
        () = tokio::time::sleep(SLOT_WAIT) => {
            if let Some(cancel) = cancel {
                let _ = cancel.cancel().await;
            }
            making.await
        }
    };
    match made {
        Ok(slot) => Ok(DurableLsn::proven(slot.consistent_point)),
        Err(error) if error.sqlstate() == Some(SqlState::QUERY_CANCELED) => Err(Fault::new(
            Code::SlotBlocked,
            format!("a temporary slot waits for transactions that were open {SLOT_WAIT:?} ago"),
            "end them, or wait: SELECT pid, xact_start FROM pg_stat_activity WHERE backend_xid IS \
             NOT NULL",
        )),
        Err(error) => Err(pipeline::of_source(&error)),
    }
}

/// What is known of a relation.
#[derive(Debug)]
enum Known {
    Described,
    Shown(Box<Shown>),
    LeftOut,
}

struct Follower<'a> {
    asked: &'a Asked,
    intake: Intake,
    decoder: Decoder,
    relations: RelationCache<Known>,
    told: u64,
}

impl Follower<'_> {
    async fn run(
        &mut self,
        mut reader: StreamReader,
        mut writer: StreamWriter,
        catalog: &mut Connection,
        tell: &mut impl FnMut(Event<'_>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let source = |error: Error| pipeline::of_source(&error);
        let mut tick = interval(FEEDBACK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = tick.tick() => {
                    let durable = self.intake.durable();
                    let told = writer.status_update(durable.lsn(), durable, durable, false).await;
                    told.map_err(source)?;
                }
                filled = reader.fill() => {
                    filled.map_err(source)?;
                    while let Some(payload) = reader.next_frame() {
                        self.apply(payload.map_err(source)?, catalog, tell).await?;
                        if self.asked.count.is_some_and(|count| self.told >= count) {
                            tell(Event::Pause)?;
                            return Ok(());
                        }
                    }
                    tell(Event::Pause)?;
                }
            }
        }
    }

    async fn apply(
        &mut self,
        payload: &[u8],
        catalog: &mut Connection,
        tell: &mut impl FnMut(Event<'_>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let strange = |error| pipeline::of_bytes(&error);
        let (start, body) = match Frame::decode(payload).map_err(strange)? {
            Frame::XLogData { start, body, .. } => (start, body),
            Frame::Keepalive { wal_end, .. } => {
                return self.intake.passed(wal_end).map_err(pipeline::of_disorder);
            }
        };
        let message = self.decoder.decode(body).map_err(strange)?;
        match &message {
            Message::Begin(begin) => self.intake.begin(begin).map_err(pipeline::of_disorder),
            Message::Commit(commit) => self.intake.commit(commit).map_err(pipeline::of_disorder),
            Message::Relation(_, body) => self
                .relations
                .insert(Relation::from(body), Known::Described)
                .map_err(pipeline::of_too_many_relations),
            message => {
                let Some(rows) = change::rows(message) else { return Ok(()) };
                let Some(place) = self.intake.row().map_err(pipeline::of_disorder)? else {
                    return Ok(());
                };
                for (id, row) in rows {
                    let Some((relation, known)) = self.relations.get(id) else {
                        return Err(pipeline::of_unknown_relation(id));
                    };
                    if let Known::Described = known {
                        *known = if self.asked.captures(&relation.schema, &relation.name) {
                            let shown = Shown::compile(catalog, relation, &[]).await?;
                            Known::Shown(Box::new(shown))
                        } else {
                            Known::LeftOut
                        };
                    }
                    let Known::Shown(shown) = known else { continue };
                    for change in shown.changes(catalog, relation, row, &place, start).await? {
                        tell(Event::Change(&change))?;
                        self.told += 1;
                    }
                }
                Ok(())
            }
        }
    }
}
