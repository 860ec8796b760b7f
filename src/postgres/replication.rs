//! Replication commands: who the server is, slots, and the start of the stream.

use waltide_core::checkpoint::TimelineEnd;
use waltide_core::lsn::Lsn;

use super::connection::Connection;
use super::error::Error;
use super::message;
use super::query::Rows;
use super::session::State;
use super::sql::{identifier, literal};
use super::stream::{self, StreamReader, StreamWriter};

/// The output plugin.
const PLUGIN: &str = "pgoutput";

/// What IDENTIFY_SYSTEM tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemIdentity {
    /// The cluster's number, kept by its replicas and by copies of its files.
    pub system_identifier: u64,
    /// The timeline it is on.
    pub timeline: u32,
    /// How far its log is flushed, or replayed on a standby.
    pub flushed: Lsn,
    /// The database we are connected to.
    pub database: String,
}

/// A slot to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSlot<'a> {
    /// Its name: up to 63 of a-z, 0-9 and _.
    pub name: &'a str,
    /// Whether it goes with the connection.
    pub temporary: bool,
    /// Whether standbys keep a copy of it; PostgreSQL 17 and newer.
    pub failover: bool,
}

/// The slot that was created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedSlot {
    /// From where on whole transactions are streamed.
    pub consistent_point: Lsn,
}

/// What to stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamOptions<'a> {
    /// The publications whose tables are streamed.
    pub publications: &'a [&'a str],
    /// Whether values come in binary where their type can.
    pub binary: bool,
    /// Whether large transactions are sent before they are committed.
    pub streaming: bool,
    /// Whether `pg_logical_emit_message` is streamed. Never together with `streaming`: inside a
    /// stream a message of a rolled-back subtransaction cannot be told from the others.
    pub messages: bool,
    /// Whether changes that came from other nodes are streamed, PostgreSQL 16 and newer; before,
    /// they always are.
    pub any_origin: bool,
}

/// The newest version of pgoutput's protocol that a server speaks.
#[must_use]
pub fn protocol_version(server_version_num: u32) -> u32 {
    match server_version_num {
        160_000.. => 4,
        150_000.. => 3,
        _ => 2,
    }
}

impl Connection {
    /// Who the server is.
    pub async fn identify_system(&mut self) -> Result<SystemIdentity, Error> {
        let rows = self.simple_query("IDENTIFY_SYSTEM").await?;
        let identity = || {
            let [system, timeline, flushed, database] = one_row(&rows)?;
            Some(SystemIdentity {
                system_identifier: system?.parse().ok()?,
                timeline: timeline?.parse().ok()?,
                flushed: flushed?.parse().ok()?,
                database: database?.to_owned(),
            })
        };
        identity().ok_or_else(|| self.link.malformed("the answer to IDENTIFY_SYSTEM"))
    }

    /// The timelines before this one, and where each was left.
    pub async fn timeline_history(&mut self, timeline: u32) -> Result<Vec<TimelineEnd>, Error> {
        // The first one has no history, and the server no file of it.
        if timeline <= 1 {
            return Ok(Vec::new());
        }
        let rows = self.simple_query(&format!("TIMELINE_HISTORY {timeline}")).await?;
        let history = one_row(&rows).and_then(|[_, content]| timeline_ends(content?));
        history.ok_or_else(|| self.link.malformed("the answer to TIMELINE_HISTORY"))
    }

    /// Creates a logical slot for pgoutput. No snapshot is exported: it would hold a transaction
    /// open, and is known to miss commits.
    ///
    /// This waits for every transaction that is running when it starts; bound it, and look for
    /// a slot left behind if you give it up.
    pub async fn create_slot(&mut self, slot: &NewSlot<'_>) -> Result<CreatedSlot, Error> {
        let version = self.server_version_num();
        if slot.failover && version < 170_000 {
            let what = "failover slots need PostgreSQL 17";
            return Err(Error::protocol(&self.link.peer, what));
        }
        let rows = self.simple_query(&create_statement(slot, version)).await?;
        let point = one_row::<4>(&rows).and_then(|[_, point, ..]| point?.parse().ok());
        let consistent_point =
            point.ok_or_else(|| self.link.malformed("the answer to CREATE_REPLICATION_SLOT"))?;
        Ok(CreatedSlot { consistent_point })
    }

    /// Drops a slot; with `wait`, once whoever uses it has gone.
    pub async fn drop_slot(&mut self, name: &str, wait: bool) -> Result<(), Error> {
        let wait = if wait { " WAIT" } else { "" };
        let name = identifier(name);
        self.simple_query(&format!("DROP_REPLICATION_SLOT {name}{wait}")).await.map(drop)
    }

    /// Starts the stream at a position, or where the slot stands if that is later. A slot that
    /// is taken is SQLSTATE 55006, and the connection can ask again. After a stream that ended
    /// it cannot: the server would end the next one at once (its bug #18754), which looks like an
    /// orderly end and is none.
    pub async fn start_replication(
        &mut self,
        slot: &str,
        start: Lsn,
        options: &StreamOptions<'_>,
    ) -> Result<(), Error> {
        if self.session.has_streamed {
            let what = "a server process streams only once: open another connection";
            return Err(Error::protocol(&self.link.peer, what));
        }
        let command = start_statement(slot, start, options, self.server_version_num());
        self.start(|out| postgres_protocol::message::frontend::query(&command, out)).await?;
        let frame = self.receive().await?;
        match frame.tag {
            b'W' => {
                self.session.state = State::CopyBoth;
                self.session.has_streamed = true;
                Ok(())
            }
            b'E' => {
                let error = message::server_error(frame.body);
                Err(self.after_error(error).await)
            }
            tag => Err(self.link.unexpected(tag, "START_REPLICATION")),
        }
    }

    /// The two directions of a stream that has started, for two tasks.
    pub fn into_stream(self) -> Result<(StreamReader, StreamWriter), Error> {
        if self.session.state != State::CopyBoth {
            return Err(Error::protocol(&self.link.peer, "the replication stream was not started"));
        }
        stream::split(self)
    }
}

/// The only row's values, if there are as many columns.
fn one_row<const N: usize>(rows: &Rows) -> Option<[Option<&str>; N]> {
    let values: Vec<_> = rows.rows.first()?.iter().map(Option::as_deref).collect();
    values.try_into().ok()
}

/// A history file: a line for each timeline, with where it was left and why.
fn timeline_ends(content: &str) -> Option<Vec<TimelineEnd>> {
    let lines = content.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let end = |line: &str| {
        let mut fields = line.split_whitespace();
        let timeline = fields.next()?.parse().ok()?;
        Some(TimelineEnd { timeline, switch_lsn: fields.next()?.parse().ok()? })
    };
    lines.map(end).collect()
}

fn create_statement(slot: &NewSlot<'_>, version: u32) -> String {
    let name = identifier(slot.name);
    let temporary = if slot.temporary { " TEMPORARY" } else { "" };
    let options = match (version, slot.failover) {
        (150_000.., true) => "(SNAPSHOT 'nothing', FAILOVER true)",
        (150_000.., false) => "(SNAPSHOT 'nothing')",
        _ => "NOEXPORT_SNAPSHOT",
    };
    format!("CREATE_REPLICATION_SLOT {name}{temporary} LOGICAL {PLUGIN} {options}")
}

fn start_statement(slot: &str, start: Lsn, options: &StreamOptions<'_>, version: u32) -> String {
    // pgoutput splits the list as identifiers, after the command's own quotes are off.
    let publications: Vec<_> = options.publications.iter().map(|name| identifier(name)).collect();
    let protocol = protocol_version(version);
    let mut list = vec![
        format!("proto_version '{protocol}'"),
        format!("publication_names {}", literal(&publications.join(","))),
    ];
    if options.binary {
        list.push("binary 'true'".to_owned());
    }
    if options.streaming {
        // Never 'parallel': it only adds to stream aborts what an applier needs.
        list.push("streaming 'on'".to_owned());
    }
    if options.messages {
        list.push("messages 'true'".to_owned());
    }
    if version >= 160_000 && !options.any_origin {
        list.push("origin 'none'".to_owned());
    }
    let (slot, list) = (identifier(slot), list.join(", "));
    format!("START_REPLICATION SLOT {slot} LOGICAL {start} ({list})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_file_names_where_each_timeline_was_left() {
        let file = "1\t0/3000000\tno recovery target specified\n\n# by hand\n2\tA/0\tbefore 2026\n";
        let end = |timeline, lsn| TimelineEnd { timeline, switch_lsn: Lsn(lsn) };
        assert_eq!(timeline_ends(file), Some(vec![end(1, 0x300_0000), end(2, 0xA_0000_0000)]));
        assert_eq!(timeline_ends("one\t0/1"), None);
    }

    #[test]
    fn a_slot_is_created_in_the_words_each_version_knows() {
        let slot = NewSlot { name: "s", temporary: true, failover: false };
        assert_eq!(
            create_statement(&slot, 140_024),
            r#"CREATE_REPLICATION_SLOT "s" TEMPORARY LOGICAL pgoutput NOEXPORT_SNAPSHOT"#
        );
        assert_eq!(
            create_statement(&slot, 150_000),
            r#"CREATE_REPLICATION_SLOT "s" TEMPORARY LOGICAL pgoutput (SNAPSHOT 'nothing')"#
        );
        let slot = NewSlot { name: "s", temporary: false, failover: true };
        assert_eq!(
            create_statement(&slot, 170_000),
            r#"CREATE_REPLICATION_SLOT "s" LOGICAL pgoutput (SNAPSHOT 'nothing', FAILOVER true)"#
        );
    }

    #[test]
    fn publication_names_survive_both_layers_of_quotes() {
        let options = StreamOptions {
            publications: &["plain", r#"it's "odd", really"#],
            binary: true,
            streaming: true,
            messages: false,
            any_origin: true,
        };
        assert_eq!(
            start_statement("s", Lsn(0x16_0000_0010), &options, 160_000),
            concat!(
                r#"START_REPLICATION SLOT "s" LOGICAL 16/10 (proto_version '4', "#,
                r#"publication_names '"plain","it''s ""odd"", really"', binary 'true', streaming 'on')"#
            )
        );
    }

    #[test]
    fn the_newest_protocol_of_each_server_is_spoken() {
        let versions = [140_000, 150_000, 160_000, 170_000, 180_000].map(protocol_version);
        assert_eq!(versions, [2, 3, 4, 4, 4]);
    }
}
