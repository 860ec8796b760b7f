//! What the server and our role are like.

use super::finding::Finding;
use super::source::Seen;
use crate::fault::Code;
use crate::postgres::sql::identifier;

/// Above this the two clocks are not told the same time, and ages are off for people who compare.
const SKEW_US: i64 = 2_000_000;

/// A slot that may keep less than this is lost in a short outage of Kafka.
const LITTLE_WAL_MB: i64 = 1_024;

/// What is proposed: an outage of hours on most servers, and less than most disks.
const ENOUGH_WAL: &str = "64GB";

/// Below this a hiccup of the network ends the stream.
const SHORT_TIMEOUT_MS: i64 = 3_000;

/// Judges the server's settings and our role, for the pipeline with this slot.
pub(super) fn judge(seen: &Seen, role: &str, slot: &str) -> Vec<Finding> {
    let mut findings = vec![wal_level(seen), recovery(seen), login(seen, role)];
    findings.push(pooler(seen));
    findings.push(clock(seen.facts.clock_ahead_us));
    findings.extend([wal_senders(seen, slot), retention(seen), idle_timeout(seen)]);
    findings.push(sender_timeout(seen));
    findings.extend(old_transactions(seen, slot));
    findings.push(not_captured(seen));
    findings
}

impl Seen {
    fn number(&self, setting: &str) -> Option<i64> {
        self.facts.settings.get(setting)?.parse().ok()
    }
}

fn wal_level(seen: &Seen) -> Finding {
    const CHECK: &str = "source.wal_level";
    let level = seen.facts.settings.get("wal_level").map_or("unknown", String::as_str);
    if level == "logical" {
        return Finding::ok(CHECK, "wal_level is logical");
    }
    let mut finding = Finding::error(CHECK, format!("wal_level is {level}, not logical"));
    finding.code = Some(Code::WalLevel.id());
    finding.sql("ALTER SYSTEM SET wal_level = 'logical'").step(super::Step::Restart)
}

fn recovery(seen: &Seen) -> Finding {
    const CHECK: &str = "source.primary";
    if !seen.facts.in_recovery {
        return Finding::ok(CHECK, "the server is a primary");
    }
    let what = "the server is a standby: it takes no new slot or publication";
    let mut finding = Finding::error(CHECK, what);
    finding.code = Some(Code::SourceUnfit.id());
    finding.advice("give source.url the primary, or all hosts with target_session_attrs=read-write")
}

fn login(seen: &Seen, role: &str) -> Finding {
    const CHECK: &str = "source.role";
    if seen.facts.replication {
        return Finding::ok(CHECK, format!("role {role} may replicate"));
    }
    let what = format!("role {role} may not replicate");
    let mut finding = Finding::error(CHECK, what);
    finding.code = Some(Code::SourcePrivilege.id());
    finding.sql(format!("ALTER ROLE {} REPLICATION", identifier(role)))
}

/// A pooler answers the login itself, with a process of its own invention.
fn pooler(seen: &Seen) -> Finding {
    const CHECK: &str = "source.direct";
    if seen.process_id == Some(seen.facts.process_id) {
        return Finding::ok(CHECK, "the server answers itself, no pooler is in between");
    }
    let what =
        "a connection pooler is in between: it mixes sessions, and a stream needs one of its own";
    Finding::error(CHECK, what).advice("give source.url the server's own host and port")
}

/// The difference is known to lie in a span; only what lies outside of it is held against anybody.
fn clock((most_us, least_us): (i64, i64)) -> Finding {
    const CHECK: &str = "source.clock";
    let off_us = if least_us > 0 { least_us } else { most_us.min(0) };
    if off_us.abs() <= SKEW_US {
        return Finding::ok(CHECK, "the server's clock and ours agree");
    }
    let by = off_us.abs() / 1_000_000;
    let which = if off_us > 0 { "ahead of" } else { "behind" };
    let what = format!(
        "the server's clock is {by} s {which} ours: lag is corrected for it, but times in records \
         are the server's"
    );
    Finding::warning(CHECK, what).advice("let both hosts keep time with NTP")
}

fn wal_senders(seen: &Seen, slot: &str) -> Finding {
    const CHECK: &str = "source.wal_senders";
    let most = seen.number("max_wal_senders").unwrap_or(0);
    let used = i64::from(seen.facts.wal_senders);
    let ours = seen.slots.iter().any(|one| one.name == slot && one.active_pid.is_some());
    if used < most || ours {
        return Finding::ok(CHECK, format!("{used} of {most} walsenders are in use"));
    }
    let what = format!("all {most} walsenders are in use");
    let mut finding = Finding::error(CHECK, what);
    finding.code = Some(Code::NoFreeConnection.id());
    let more = most + 5;
    finding.sql(format!("ALTER SYSTEM SET max_wal_senders = {more}")).step(super::Step::Restart)
}

fn retention(seen: &Seen) -> Finding {
    const CHECK: &str = "source.wal_retention";
    const RELOAD: &str = "SELECT pg_reload_conf()";
    let set = format!("ALTER SYSTEM SET max_slot_wal_keep_size = '{ENOUGH_WAL}'");
    match seen.number("max_slot_wal_keep_size") {
        Some(megabytes) if megabytes < 0 => {
            let what = "max_slot_wal_keep_size has no limit: a slot that nobody reads fills the \
                        server's disk";
            Finding::warning(CHECK, what).sql(set).sql(RELOAD)
        }
        Some(megabytes) if megabytes < LITTLE_WAL_MB => {
            let what = format!(
                "max_slot_wal_keep_size is {megabytes} MB: a short outage of Kafka loses the slot"
            );
            Finding::warning(CHECK, what).sql(set).sql(RELOAD)
        }
        Some(megabytes) => Finding::ok(CHECK, format!("a slot may keep {megabytes} MB of WAL")),
        None => Finding::ok(CHECK, "the server does not say how much WAL a slot may keep"),
    }
}

/// From 18 on.
fn idle_timeout(seen: &Seen) -> Finding {
    const CHECK: &str = "source.idle_timeout";
    match seen.number("idle_replication_slot_timeout") {
        Some(seconds) if seconds > 0 => {
            let what = format!(
                "idle_replication_slot_timeout is {seconds} s: a daemon that is away for longer \
                 loses its slot"
            );
            Finding::warning(CHECK, what)
                .sql("ALTER SYSTEM SET idle_replication_slot_timeout = 0")
                .sql("SELECT pg_reload_conf()")
        }
        _ => Finding::ok(CHECK, "a slot is not lost by being idle"),
    }
}

/// Our sessions ask for a time of their own, but other readers' and standbys' do not.
fn sender_timeout(seen: &Seen) -> Finding {
    const CHECK: &str = "source.wal_sender_timeout";
    match seen.number("wal_sender_timeout") {
        Some(0) => {
            let what = "wal_sender_timeout is 0: the server never lets go of readers that are gone \
                        (our own sessions ask for 10 s)";
            Finding::warning(CHECK, what)
                .sql("ALTER SYSTEM SET wal_sender_timeout = '60s'")
                .sql("SELECT pg_reload_conf()")
        }
        Some(ms) if ms < SHORT_TIMEOUT_MS => {
            let what =
                format!("wal_sender_timeout is {ms} ms: a hiccup of the network ends streams");
            Finding::warning(CHECK, what)
                .sql("ALTER SYSTEM SET wal_sender_timeout = '60s'")
                .sql("SELECT pg_reload_conf()")
        }
        Some(ms) => Finding::ok(CHECK, format!("wal_sender_timeout is {} s", ms / 1_000)),
        None => Finding::ok(CHECK, "the server does not say its wal_sender_timeout"),
    }
}

/// They hold up the making of a slot, and nothing once it is there.
fn old_transactions(seen: &Seen, slot: &str) -> Vec<Finding> {
    const CHECK: &str = "source.old_transactions";
    let there = seen.slots.iter().any(|one| one.name == slot);
    if there || seen.facts.old_transactions.is_empty() {
        return vec![Finding::ok(CHECK, "no old transaction is in the way of a slot")];
    }
    let each = seen.facts.old_transactions.iter();
    each.map(|(who, sql)| {
        let what = format!("the slot cannot be made before the open transaction of {who} ends");
        Finding::warning(CHECK, what).of(who.as_str()).sql(sql.as_str())
    })
    .collect()
}

fn not_captured(seen: &Seen) -> Finding {
    let (sequences, objects) = (seen.facts.sequences, seen.facts.large_objects);
    let what = format!(
        "{sequences} sequences and {objects} large objects of the database are not in the stream: \
         logical replication has none of them"
    );
    Finding::ok("source.not_captured", what)
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn only_a_difference_that_no_slow_answer_explains_is_held_against_a_clock() {
        let second = 1_000_000;
        let level = |most, least| clock((most * second, least * second)).level;
        assert_eq!(level(0, 0), Level::Ok);
        // The answer took a minute: the server's clock may be right.
        assert_eq!(level(60, 0), Level::Ok);
        assert_eq!(level(0, -60), Level::Ok);
        assert_eq!(level(30, -30), Level::Ok);
        assert_eq!(level(60, 59), Level::Warning);
        assert_eq!(level(-59, -60), Level::Warning);
        assert!(clock((61 * second, 60 * second)).what.contains("60 s ahead of ours"));
        assert!(clock((-60 * second, -61 * second)).what.contains("60 s behind ours"));
    }
}
