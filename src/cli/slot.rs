//! `waltide slot`: what the servers keep for whom, and what is lost by moving or dropping it.

use serde_json::{Value, json};
use waltide_core::lsn::Lsn;

use super::args::Looked;
use super::{Failure, agreed, chosen, runtime, say};
use crate::config::Config;
use crate::config::settled::Pipeline;
use crate::fault::{Code, Fault};
use crate::pipeline;
use crate::postgres::sql::literal;
use crate::postgres::{Connection, Error, Mode, Slot, WalStatus};

/// `waltide slot list`: several pipelines on one server see the same slots.
pub(super) fn list(config: Config, asked: &Looked) -> Result<(), Failure> {
    let runtime = runtime()?;
    for settings in chosen(config, asked.pipeline.as_deref())? {
        let (slots, end) = runtime.block_on(async {
            let mut on = open(&settings).await?;
            let slots = on.list_slots().await.map_err(|error| source(&error))?;
            Ok::<_, Fault>((slots, end(&mut on).await?))
        })?;
        if !asked.json {
            say(&format!("server of pipeline {}\n", settings.name))?;
        }
        for slot in &slots {
            print(&settings, slot, end, asked.json)?;
        }
    }
    Ok(())
}

/// `waltide slot show`
pub(super) fn show(config: Config, asked: &Looked) -> Result<(), Failure> {
    let runtime = runtime()?;
    for settings in chosen(config, asked.pipeline.as_deref())? {
        let (slot, end) = runtime.block_on(async {
            let mut on = open(&settings).await?;
            let end = end(&mut on).await?;
            Ok::<_, Fault>((find(&mut on, &settings).await?, end))
        })?;
        print(&settings, &slot, end, asked.json)?;
    }
    Ok(())
}

/// `waltide slot advance`
pub(super) fn advance(config: Config, name: &str, to: &str, yes: bool) -> Result<(), Failure> {
    let to: Lsn = to.parse().map_err(|_| {
        let mend = "a position is two hexadecimal numbers, such as 0/1A2B3C8";
        Fault::new(Code::ConfigInvalid, format!("--to {to} is no position"), mend)
    })?;
    let runtime = runtime()?;
    for settings in chosen(config, Some(name))? {
        let (mut on, slot) = runtime.block_on(idle(&settings))?;
        let end = runtime.block_on(end(&mut on))?;
        let from = slot.confirmed_flush_lsn.unwrap_or(Lsn::ZERO);
        if to <= from || to > end {
            let what = format!("slot {} stands at {from}, and the log ends at {end}", slot.name);
            let mend = format!("give --to a position after {from}, and up to {end}");
            return Err(Fault::new(Code::SlotUnusable, what, mend).into());
        }
        say(&format!(
            "slot {} moves from {from} to {to}: changes in {} bytes of WAL are never published\n",
            slot.name,
            to.bytes_since(from)
        ))?;
        agree(yes)?;
        let sql = format!(
            "SELECT pg_replication_slot_advance({}, {})",
            literal(&slot.name),
            literal(&to.to_string())
        );
        let done = runtime.block_on(on.simple_query(&sql));
        done.map_err(|error| source(&error))?;
        say(&format!(
            "done; if pipeline {name} has a checkpoint before that, it goes on with: waltide recover \
             {name} --accept-gap\n"
        ))?;
    }
    Ok(())
}

/// `waltide slot drop`
pub(super) fn drop(config: Config, name: &str, yes: bool) -> Result<(), Failure> {
    let runtime = runtime()?;
    for settings in chosen(config, Some(name))? {
        let (mut on, slot) = runtime.block_on(idle(&settings))?;
        let end = runtime.block_on(end(&mut on))?;
        let lost = match slot.confirmed_flush_lsn {
            Some(from) => format!("changes in {} bytes of WAL", end.bytes_since(from)),
            None => "nothing that was confirmed".to_owned(),
        };
        say(&format!(
            "slot {} goes: {lost} that it has not confirmed can never be read again, and whatever \
             is committed from now on neither, until there is another one\n",
            slot.name
        ))?;
        agree(yes)?;
        let sql = format!("SELECT pg_drop_replication_slot({})", literal(&slot.name));
        let done = runtime.block_on(on.simple_query(&sql));
        done.map_err(|error| source(&error))?;
        say(&format!(
            "done; if pipeline {name} has a checkpoint, it goes on with: waltide recover {name} \
             --accept-gap\n"
        ))?;
    }
    Ok(())
}

fn source(error: &Error) -> Fault {
    pipeline::of_source(error)
}

fn agree(yes: bool) -> Result<(), Failure> {
    if yes || agreed() {
        return Ok(());
    }
    let mend = "answer yes, or add --yes where nobody can be asked";
    Err(Fault::new(Code::Declined, "nothing was done".to_owned(), mend).into())
}

async fn open(settings: &Pipeline) -> Result<Connection, Fault> {
    let params = pipeline::params(&settings.source)?;
    Connection::open(&params, Mode::Plain).await.map_err(|error| source(&error))
}

async fn end(on: &mut Connection) -> Result<Lsn, Fault> {
    on.current_wal_lsn().await.map_err(|error| source(&error))
}

async fn find(on: &mut Connection, settings: &Pipeline) -> Result<Slot, Fault> {
    let name = &settings.source.slot;
    let slot = on.read_slot(name).await.map_err(|error| source(&error))?;
    slot.ok_or_else(|| {
        Fault::new(
            Code::SlotMissing,
            format!("there is no slot {name} on {}", on.peer()),
            "correct source.slot; a pipeline that has not begun makes its slot at its first start",
        )
    })
}

/// A slot that nobody reads.
async fn idle(settings: &Pipeline) -> Result<(Connection, Slot), Fault> {
    let mut on = open(settings).await?;
    let slot = find(&mut on, settings).await?;
    match slot.active_pid {
        None => Ok((on, slot)),
        Some(pid) => Err(Fault::new(
            Code::SlotTaken,
            format!("process {pid} reads slot {}", slot.name),
            "end the daemon that reads it first",
        )),
    }
}

fn print(settings: &Pipeline, slot: &Slot, end: Lsn, json: bool) -> Result<(), Failure> {
    if json {
        return say(&format!("{}\n", as_json(settings, slot, end)));
    }
    let reader = match slot.active_pid {
        Some(pid) => format!("read by process {pid}"),
        None => "read by nobody".to_owned(),
    };
    let of = match (&slot.database, &slot.plugin) {
        (Some(database), Some(plugin)) => format!("{plugin}, database {database}"),
        _ => "physical".to_owned(),
    };
    let confirmed = slot.confirmed_flush_lsn.map(|at| format!(", confirmed {at}"));
    let retained = slot.restart_lsn.map(|from| format!(", keeps {} bytes", end.bytes_since(from)));
    let safe = slot.safe_wal_size.map(|bytes| format!(", {bytes} bytes until it is in danger"));
    let status = slot.wal_status.as_ref().map(|status| format!(", {}", word(status)));
    let reason = slot.invalidation_reason.as_ref().map(|why| format!(", lost by {why}"));
    let parts = [confirmed, retained, safe, status, reason];
    let parts: String = parts.into_iter().flatten().collect();
    say(&format!("  {}: {of}, {reader}{parts}\n", slot.name))
}

fn word(status: &WalStatus) -> &str {
    match status {
        WalStatus::Reserved => "reserved",
        WalStatus::Extended => "extended",
        WalStatus::Unreserved => "unreserved",
        WalStatus::Lost => "lost",
        WalStatus::Other(word) => word,
    }
}

fn as_json(settings: &Pipeline, slot: &Slot, end: Lsn) -> Value {
    let lsn = |at: Option<Lsn>| at.map(|at| at.to_string());
    json!({
        "pipeline": settings.name,
        "slot": slot.name,
        "ours": slot.name == settings.source.slot,
        "plugin": slot.plugin,
        "database": slot.database,
        "temporary": slot.temporary,
        "active_pid": slot.active_pid,
        "restart_lsn": lsn(slot.restart_lsn),
        "confirmed_flush_lsn": lsn(slot.confirmed_flush_lsn),
        "retained_wal_bytes": slot.restart_lsn.map(|from| end.bytes_since(from)),
        "safe_wal_bytes": slot.safe_wal_size,
        "wal_status": slot.wal_status.as_ref().map(word),
        "invalidation_reason": slot.invalidation_reason,
        "conflicting": slot.conflicting,
        "failover": slot.failover,
        "synced": slot.synced,
    })
}
