//! The demo from beginning to end.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::consumer::Consumer;
use crate::daemon::Daemon;
use crate::dashboard::{Addresses, grouped};
use crate::interrupts::Interrupts;
use crate::ledger::Verdict;
use crate::live::{Live, Shared};
use crate::screen::Screen;
use crate::servers::{Servers, VERSION};
use crate::settings::{Settings, short};
use crate::shop::{DATABASE, Row, Table};
use crate::workload::{self, Workload};

/// How often the screen is drawn anew.
const REFRESH: Duration = Duration::from_millis(250);

/// How long the daemon may take to deliver what was committed when the shop closed.
const DELIVERY_DEADLINE: Duration = Duration::from_secs(60);

/// Runs the demo and returns whether all that was committed is what was read.
pub(crate) fn run(
    settings: &Settings,
    interrupts: &Interrupts,
    screen: &mut Screen,
) -> Result<bool, String> {
    let began = Instant::now();
    screen.say(&format!("starting PostgreSQL {VERSION}, Kafka and a schema registry"));
    waltide_stack::fetch().map_err(|error| error.to_string())?;
    let servers = Servers::start(screen);
    let daemon = Daemon::start(&settings.daemon, &settings.directory, &servers)?;
    let addresses = Addresses {
        http: daemon.url(),
        kafka: servers.kafka.bootstrap(),
        registry: servers.registry.url(),
        postgres: servers.postgres.url(DATABASE),
        config: short(&daemon.config),
    };
    announce(screen, &short(&settings.daemon), &addresses);
    let demo = Demo { shared: Arc::new(Shared::new(screen.sample_every())), servers, daemon };
    let outcome = demo.show(settings, interrupts, screen, &addresses, began);
    screen.close_dashboard();
    let log = demo.daemon.save_log();
    if !outcome.as_ref().is_ok_and(Vec::is_empty) {
        screen.say_in_full(&format!("the daemon's log, {}, ends with", short(&log)));
        for line in demo.daemon.last_words() {
            screen.say_in_full(&format!("  {line}"));
        }
    }
    let Demo { servers, daemon, shared } = demo;
    drop(daemon);
    servers.stop();
    Ok(conclude(screen, &shared.ledger().verdict(), &outcome?))
}

/// Says last what one wants to see: whether all is well. It is not where there was trouble on the
/// way, whatever arrived.
fn conclude(screen: &mut Screen, verdict: &Verdict, troubles: &[String]) -> bool {
    for line in verdict.findings.iter().chain(troubles) {
        screen.say_in_full(&format!("  {line}"));
    }
    let is_good = verdict.is_good() && troubles.is_empty();
    let addition = if verdict.is_good() && !is_good { ", and yet: FAILED" } else { "" };
    screen.say_in_full(&format!("{verdict}{addition}"));
    is_good
}

fn announce(screen: &mut Screen, program: &str, addresses: &Addresses) {
    let Addresses { http, kafka, registry, postgres, config } = addresses;
    screen.say_in_full(&format!("running {program} run --config {config}"));
    for (name, place) in [
        ("browser", &format!("{http}   {http}metrics   {http}api/status")),
        ("consumer", &format!("{kafka}   topics shop.public.*")),
        ("registry", registry),
        ("psql", postgres),
    ] {
        screen.say_in_full(&format!("  {name:<9} {place}"));
    }
}

struct Demo {
    shared: Arc<Shared>,
    servers: Servers,
    daemon: Daemon,
}

impl Demo {
    /// Opens the shop, shows it, closes it and lets everything come to its end. Returns what went
    /// wrong besides what the books tell.
    fn show(
        &self,
        settings: &Settings,
        interrupts: &Interrupts,
        screen: &mut Screen,
        addresses: &Addresses,
        began: Instant,
    ) -> Result<Vec<String>, String> {
        let shared = &self.shared;
        self.daemon.wait_until_streaming()?;
        let registry = self.servers.registry.clone();
        let consumer = Consumer::start(&addresses.kafka, registry, Arc::clone(shared))?;
        screen.say("the daemon streams; opening the shop");
        interrupts.be_orderly();
        let workload = Workload::start(&addresses.postgres, settings.migrate_after(), shared)?;
        let is_over = |live: &Live| {
            settings.run_for.is_some_and(|time| live.elapsed() >= time)
                || interrupts.asked()
                || workload.has_failed()
                || consumer.has_ended()
                || self.daemon.exit_status().is_some()
        };
        self.watch(screen, addresses, began, is_over);
        screen.close_dashboard();
        let mut troubles = Vec::new();
        let mut note = |outcome: Result<(), String>| troubles.extend(outcome.err());
        note(workload.finish(shared));
        self.report(screen, interrupts);
        note(self.wait_until_delivered(screen).and_then(|()| self.daemon.stop()));
        note(consumer.finish());
        note(self.compare_tables());
        Ok(troubles)
    }

    /// Shows the shop until it is over.
    fn watch(
        &self,
        screen: &mut Screen,
        addresses: &Addresses,
        began: Instant,
        is_over: impl Fn(&Live) -> bool,
    ) {
        let mut has_begun = false;
        loop {
            let heard = self.daemon.look();
            let mut live = self.shared.live();
            match heard {
                Some(daemon) => live.daemon = daemon,
                None => live.daemon.state = "silent".to_owned(),
            }
            live.tick(Instant::now());
            if !has_begun && live.read > 0 {
                has_begun = true;
                let seconds = began.elapsed().as_secs_f64();
                live.event(format!("the first record arrived {seconds:.1} s after the start"));
            }
            screen.show(&live, addresses);
            let is_over = is_over(&live) || screen.is_closed();
            drop(live);
            if is_over {
                return;
            }
            thread::sleep(REFRESH);
        }
    }

    fn report(&self, screen: &mut Screen, interrupts: &Interrupts) {
        let live = self.shared.live();
        screen.say(&format!(
            "closed after {:.1} s: {} rows in {} transactions, {} rolled back",
            live.elapsed().as_secs_f64(),
            grouped(live.committed),
            grouped(live.transactions),
            grouped(live.rolled_back),
        ));
        for event in live.events.iter().skip(screen.told_events()) {
            screen.say(&format!("{:6.1} s  {}", event.after.as_secs_f64(), event.text));
        }
        if interrupts.asked() {
            screen.say("checking what arrived; Ctrl-C again leaves at once");
        }
    }

    /// Waits until the daemon has confirmed all that the database had when the shop closed.
    fn wait_until_delivered(&self, screen: &mut Screen) -> Result<(), String> {
        let began = Instant::now();
        screen.say("waiting until the daemon has delivered everything");
        let session = self.servers.postgres.session(DATABASE);
        let end = session.value("SELECT pg_current_wal_insert_lsn()");
        let question = format!(
            "SELECT coalesce(bool_and(confirmed_flush_lsn >= '{end}'), false)::text \
             FROM pg_replication_slots"
        );
        while began.elapsed() < DELIVERY_DEADLINE {
            if let Some(status) = self.daemon.exit_status() {
                return Err(format!("the daemon ended with status {status}"));
            }
            if session.value(&question) == "true" && self.shared.ledger().outstanding() == 0 {
                let seconds = began.elapsed().as_secs_f64();
                screen
                    .say(&format!("delivered and confirmed {seconds:.1} s after the last commit"));
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
        }
        let left = self.shared.ledger().outstanding();
        screen.say(&format!("{left} changes did not arrive within {DELIVERY_DEADLINE:?}"));
        Ok(())
    }

    /// Compares the last record of each row with the table itself.
    fn compare_tables(&self) -> Result<(), String> {
        let mut client = workload::connect(&self.servers.postgres.url(DATABASE))?;
        for table in Table::ALL {
            let sql = format!("SELECT {} FROM {} AS t", table.row_sql(), table.name());
            let rows = client.query(&sql, &[]).map_err(|error| workload::described(&error))?;
            let states = rows.iter().map(|row| {
                let row = Row::from_json(row.get(0)).ok_or("a row is not JSON")?;
                let key = table.key_of(&row).ok_or("a row has no key")?;
                Ok((key, row.version().ok_or("a row has no version")?, row.digest()))
            });
            let states: Result<Vec<_>, &str> = states.collect();
            self.shared.ledger().compare_with(table, states?);
        }
        Ok(())
    }
}
