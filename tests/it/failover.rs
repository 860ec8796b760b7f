//! A standby becomes the primary: where its copy of the slot proves that nothing is missing the
//! pipeline goes on by itself, and where it cannot be proved it stops.

use waltide_stack::{Database, Postgres, PostgresOptions, Version, eventually};

use crate::support::{
    Daemon, Lsn, Pipeline, SOON, assert_each_once_and_in_order, on_each_version, without_repeats,
};

use super::recovery::{gaps, goes_on_after, order, published, stops};

/// A primary and a standby that follows it, on which the database is the same.
struct Pair {
    // The database goes first: it cleans up on its server.
    shop: Database,
    primary: Postgres,
    standby: Postgres,
}

/// The physical slot by which the standby follows.
const FOLLOWER: &str = "follower";

impl Pair {
    /// The primary's sessions are read by the pipeline only once the standby has them, where it
    /// is told to wait for that.
    fn start(version: Version, test: &str, patient: bool) -> Self {
        let primary = PostgresOptions::new(version).start();
        let shop = primary.database(test);
        shop.execute("CREATE TABLE orders (id int PRIMARY KEY, item text)");
        primary.execute(&format!("SELECT pg_create_physical_replication_slot('{FOLLOWER}')"));
        let connection = format!(
            "host={} port={} user=postgres dbname=postgres",
            primary.socket_directory().display(),
            primary.port()
        );
        let mut options = PostgresOptions::new(version)
            .standby_of(&primary)
            .setting("primary_conninfo", &connection)
            .setting("primary_slot_name", FOLLOWER)
            .setting("hot_standby_feedback", "on");
        if version >= Version::V17 {
            options = options.setting("sync_replication_slots", "on");
        }
        let standby = options.start();
        if patient {
            primary.reconfigure(&[("synchronized_standby_slots", FOLLOWER)]);
        }
        Self { shop, primary, standby }
    }

    /// A pipeline that takes whichever server is the primary.
    fn pipeline(&self) -> Pipeline<'_> {
        let url = format!(
            "postgres://postgres@127.0.0.1:{},127.0.0.1:{}/{}?target_session_attrs=read-write",
            self.primary.port(),
            self.standby.port(),
            self.shop.name()
        );
        Pipeline::of(&self.shop).with("source.url", url)
    }

    /// Waits until the standby's copy of the slot is one to go on from.
    #[track_caller]
    fn wait_for_copy(&self, slot: &str) {
        let sql = format!(
            "SELECT synced AND NOT temporary AND invalidation_reason IS NULL \
             FROM pg_replication_slots WHERE slot_name = '{slot}'"
        );
        eventually("the standby has a copy of the slot", SOON * 2, || {
            let rows = self.standby.query(&sql);
            (rows.first()?[0].as_deref() == Some("t")).then_some(())
        });
    }

    /// Waits until the standby has everything up to there.
    #[track_caller]
    fn wait_for_standby(&self, end: Lsn) {
        eventually("the standby has it", SOON, || {
            let rows = self.standby.query("SELECT pg_last_wal_replay_lsn()");
            let replayed: Lsn = rows[0][0].as_deref()?.parse().ok()?;
            (replayed >= end).then_some(())
        });
    }

    fn fail_over(&self) {
        self.primary.kill();
        self.standby.promote();
    }

    /// Commits on the new primary.
    fn order_there(&self, id: u32) {
        let session = self.standby.session(self.shop.name());
        session.execute(&format!("INSERT INTO orders VALUES ({id}, 'tea')"));
    }
}

#[track_caller]
fn arrive(pipeline: &Pipeline<'_>, count: u32) {
    let all: Vec<u64> = (1..=u64::from(count)).collect();
    eventually("all orders are there", SOON, || {
        let changes = pipeline.changes("public.orders");
        let mut ids: Vec<u64> = changes
            .iter()
            .filter_map(|change| change.after.as_ref()?.get("id")?.as_u64())
            .collect();
        ids.sort_unstable();
        ids.dedup();
        (ids == all).then_some(())
    });
}

#[track_caller]
fn codes(daemon: &Daemon) -> Vec<String> {
    let failures = daemon.events().into_iter().filter(|event| event["level"] == "ERROR");
    failures.filter_map(|event| Some(event["code"].as_str()?.to_owned())).collect()
}

/// Older versions do not copy slots.
mod a_promoted_standby_that_has_the_slot_is_gone_on_with {
    use waltide_stack::Version;

    #[test]
    fn on_17() {
        super::a_promoted_standby_that_has_the_slot_is_gone_on_with(Version::V17);
    }
    #[test]
    fn on_18() {
        super::a_promoted_standby_that_has_the_slot_is_gone_on_with(Version::V18);
    }
}

fn a_promoted_standby_that_has_the_slot_is_gone_on_with(version: Version) {
    let pair = Pair::start(version, "failover", true);
    let pipeline = pair.pipeline().with("source.failover", true);
    let daemon = pipeline.start();
    (1..=100).for_each(|id| order(&pair.shop, id));
    pipeline.wait_until_delivered();
    pair.wait_for_copy(&pipeline.slot());
    (101..=200).for_each(|id| order(&pair.shop, id));
    pair.wait_for_standby(pipeline.end_of_log());
    pair.fail_over();
    (201..=300).for_each(|id| pair.order_there(id));
    arrive(&pipeline, 300);
    daemon.wait_ready();
    let codes = codes(&daemon);
    assert!(codes.iter().all(|code| ["WT215", "WT201", "WT220"].contains(&&**code)), "{codes:?}");
    let (once, _) = without_repeats(&pipeline.changes("public.orders"), 1);
    assert_eq!(once.len(), 300);

    // The old primary comes back and takes writes. Whoever is sent to it must not believe it.
    pair.primary.start_again();
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                   WHERE application_name = 'waltide'";
    let told = eventually("the old primary is met, and not gone on with", SOON, || {
        pair.standby.query(end);
        let status = daemon.status();
        (status["state"] == "stopped").then_some(status["error"].clone())
    });
    eprintln!("{told}");
    assert_eq!(told["code"], "WT223");
    let text = format!("{} {}", told["what"], told["mend"]);
    assert!(text.contains("former primary") && text.contains("the present primary"), "{text}");
    daemon.terminate();
    // What it says: the present primary.
    let url = pair.standby.url(pair.shop.name());
    let pipeline = pair.pipeline().with("source.failover", true).with("source.url", url);
    let daemon = pipeline.start();
    pair.order_there(301);
    arrive(&pipeline, 301);
    daemon.terminate();
}

/// A slot that was made before somebody thought of it.
#[test]
fn a_slot_that_is_there_is_copied_to_standbys_once_that_is_asked_for() {
    let pair = Pair::start(Version::NEWEST, "copied later", false);
    pair.pipeline().start().terminate();
    let sql = "SELECT failover FROM pg_replication_slots WHERE slot_type = 'logical'";
    assert_eq!(pair.shop.value(sql), "f");
    let pipeline = pair.pipeline().with("source.failover", true);
    let daemon = pipeline.start();
    assert_eq!(pair.shop.value(sql), "t");
    order(&pair.shop, 1);
    pipeline.wait_until_delivered();
    pair.wait_for_copy(&pipeline.slot());
    daemon.terminate();
    let daemon = pipeline.start();
    order(&pair.shop, 2);
    arrive(&pipeline, 2);
    assert_each_once_and_in_order(&pipeline.changes("public.orders"));
    daemon.terminate();
}

#[test]
fn a_slot_for_standbys_is_refused_where_the_server_knows_no_such_thing() {
    let shop = waltide_stack::Stack::shared().database(Version::V16, "no failover");
    shop.execute("CREATE TABLE orders (id int PRIMARY KEY, item text)");
    let pipeline = Pipeline::of(&shop).with("source.failover", true);
    let daemon = pipeline.launch();
    let status = daemon.wait_for_state("waiting");
    assert_eq!(status["error"]["code"], "WT214", "{status}");
    assert!(status["error"]["mend"].as_str().unwrap().contains("source.failover"), "{status}");
    daemon.terminate();
}

on_each_version!(a_promoted_standby_without_the_slot_is_a_gap_that_is_named);

fn a_promoted_standby_without_the_slot_is_a_gap_that_is_named(version: Version) {
    let pair = Pair::start(version, "no slot", false);
    let pipeline = pair.pipeline();
    let daemon = pipeline.start();
    (1..=10).for_each(|id| order(&pair.shop, id));
    pipeline.wait_until_delivered();
    pair.wait_for_standby(pipeline.end_of_log());
    pair.fail_over();
    pair.order_there(11);
    let status = daemon.wait_for_state("stopped");
    eprintln!("{}", status["error"]);
    assert_eq!(status["error"]["code"], "WT212");
    daemon.terminate();
    stops(&pipeline, "WT212", &[&pipeline.slot(), "is gone", "--accept-gap"]);
    goes_on_after(&pipeline, |id| pair.order_there(id), "--accept-gap", 12);
    assert_eq!(published(&pipeline), (1..=10).chain([12]).collect::<Vec<_>>());
    let gaps = gaps(&pipeline);
    assert_eq!(gaps.len(), 1);
    assert_eq!(gaps[0]["same_history"], true);
}

/// What was published and never reached the standby is in the topics alone.
#[test]
fn a_promoted_standby_that_missed_what_is_published_stops_the_pipeline() {
    let pair = Pair::start(Version::NEWEST, "phantoms", false);
    let pipeline = pair.pipeline().with("source.failover", true);
    let daemon = pipeline.start();
    order(&pair.shop, 1);
    pipeline.wait_until_delivered();
    pair.wait_for_copy(&pipeline.slot());
    pair.standby.stop();
    (2..=5).for_each(|id| order(&pair.shop, id));
    pipeline.wait_until_delivered();
    pair.primary.kill();
    pair.standby.start_again();
    pair.standby.promote();
    let status = daemon.wait_for_state("stopped");
    assert_eq!(status["error"]["code"], "WT223", "{status}");
    daemon.terminate();
    stops(&pipeline, "WT223", &["changes are published that this server never had"]);
    goes_on_after(&pipeline, |id| pair.order_there(id), "--accept-gap", 6);
    assert_eq!(gaps(&pipeline)[0]["same_history"], false);
    let mut ids = published(&pipeline);
    ids.sort_unstable();
    assert_eq!(ids, [1, 2, 3, 4, 5, 6]);
}
