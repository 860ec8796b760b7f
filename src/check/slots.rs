//! Our slot, room for it, and slots that nobody reads.

use super::finding::Finding;
use super::source::Seen;
use crate::config::settled::Pipeline;
use crate::fault::Code;
use crate::postgres::sql::literal;
use crate::postgres::{Slot, WalStatus};

/// Judges the server's slots, for a pipeline and the database it reads.
pub(super) fn judge(seen: &Seen, settings: &Pipeline, database: &str) -> Vec<Finding> {
    let name = settings.source.slot.as_str();
    let ours = seen.slots.iter().find(|slot| slot.name == name);
    let mut findings = vec![match ours {
        Some(slot) => own(slot, settings, database),
        None => room(seen, name),
    }];
    let unread = seen.slots.iter().filter(|slot| slot.name != name && is_unread(slot));
    let unread: Vec<Finding> = unread.map(left).collect();
    if unread.is_empty() {
        findings.push(Finding::ok("source.other_slots", "every other slot is read"));
    }
    findings.extend(unread);
    findings
}

fn room(seen: &Seen, name: &str) -> Finding {
    const CHECK: &str = "source.slots";
    let most = seen.facts.settings.get("max_replication_slots").and_then(|it| it.parse().ok());
    let (most, used) = (most.unwrap_or(0), seen.slots.len());
    if used < most {
        let what = format!("slot {name} is made at the first start; {used} of {most} are in use");
        return Finding::ok(CHECK, what);
    }
    let mut finding = Finding::error(CHECK, format!("all {most} replication slots are in use"));
    finding.code = Some(Code::NoFreeSlot.id());
    finding
        .sql(format!("ALTER SYSTEM SET max_replication_slots = {}", most + 5))
        .step(super::Step::Restart)
}

fn own(slot: &Slot, settings: &Pipeline, database: &str) -> Finding {
    const CHECK: &str = "source.slot";
    let name = slot.name.as_str();
    let unusable = |what: String| {
        let mut finding = Finding::error(CHECK, what).of(name);
        finding.code = Some(Code::SlotUnusable.id());
        finding
    };
    let another = |finding: Finding| {
        finding.configure("source.slot", format!("{}_2", name.get(..60).unwrap_or(name)))
    };
    if slot.plugin.as_deref() != Some("pgoutput") {
        let plugin = slot.plugin.as_deref().unwrap_or("physical replication");
        return another(unusable(format!("slot {name} is for {plugin}, not for pgoutput")));
    }
    if slot.database.as_deref() != Some(database) {
        let theirs = slot.database.as_deref().unwrap_or("no database");
        return another(unusable(format!("slot {name} belongs to {theirs}, not to {database}")));
    }
    if slot.wal_status == Some(WalStatus::Lost) || slot.invalidation_reason.is_some() {
        let why = slot.invalidation_reason.as_deref().unwrap_or("max_slot_wal_keep_size");
        return unusable(format!("slot {name} is lost ({why}): changes may be missing")).command(
            format!("waltide recover {} --accept-gap --yes --config FILE", settings.name),
        );
    }
    if slot.two_phase {
        let what = format!(
            "slot {name} sends prepared transactions before they are committed, which is not read"
        );
        return another(unusable(what));
    }
    if slot.wal_status == Some(WalStatus::Unreserved) {
        let what =
            format!("slot {name} is beyond max_slot_wal_keep_size: it may be lost any moment");
        return Finding::warning(CHECK, what)
            .of(name)
            .sql("ALTER SYSTEM SET max_slot_wal_keep_size = '64GB'")
            .sql("SELECT pg_reload_conf()");
    }
    let reader = match slot.active_pid {
        Some(pid) => format!("process {pid} reads it"),
        None => "nobody reads it now".to_owned(),
    };
    Finding::ok(CHECK, format!("slot {name} is there, {reader}")).of(name)
}

/// Copies of a primary's slots are nobody's to read, and temporary ones go by themselves.
fn is_unread(slot: &Slot) -> bool {
    slot.active_pid.is_none() && !slot.temporary && slot.synced != Some(true)
}

fn left(slot: &Slot) -> Finding {
    let name = slot.name.as_str();
    let what = format!(
        "nobody reads slot {name}, and the server keeps WAL for it: drop it if it is not needed"
    );
    Finding::warning("source.other_slots", what)
        .of(name)
        .sql(format!("SELECT pg_drop_replication_slot({})", literal(name)))
}
