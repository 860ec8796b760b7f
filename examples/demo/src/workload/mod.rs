//! The shop's business: a few writers at a steady pace, and one migration while they work.

mod transaction;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use postgres::{Client, NoTls};

use crate::live::Shared;
use crate::shop;

pub(crate) use transaction::described;
use writer::Writer;

const WRITERS: u64 = 3;

/// One transaction of each writer in this time: all in all a good thousand rows a second, which a
/// small machine bears beside two JVMs.
const PACE: Duration = Duration::from_millis(10);

/// A writer that has fallen this far behind its pace does not try to make up for it.
const MAX_BEHIND: Duration = Duration::from_millis(500);

/// The migration tries again rather than let the whole shop wait behind it.
const MIGRATION_SESSION: &str = "SET lock_timeout = '1s'";

/// The threads at work.
pub(crate) struct Workload {
    threads: Vec<JoinHandle<Result<(), String>>>,
}

impl Workload {
    /// Stocks the shop and opens it; `migrate_after` that time the migration is done.
    pub(crate) fn start(
        url: &str,
        migrate_after: Duration,
        shared: &Arc<Shared>,
    ) -> Result<Self, String> {
        let opened = Instant::now();
        shared.live().opened = Some(opened);
        let prices = writer::stock(&mut connect(url)?, shared)?;
        let migrated = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for number in 1..=WRITERS {
            let mut writer = Writer::new(
                connect(url)?,
                number,
                prices.clone(),
                Arc::clone(shared),
                Arc::clone(&migrated),
            )?;
            let shared = Arc::clone(shared);
            threads.push(spawn(&format!("writer-{number}"), move || {
                let mut next = Instant::now();
                while !shared.is_closing() {
                    writer.work()?;
                    next = (next + PACE).max(Instant::now() - MAX_BEHIND);
                    thread::sleep(next.saturating_duration_since(Instant::now()));
                }
                Ok(())
            })?);
        }
        let (url, shared) = (url.to_owned(), Arc::clone(shared));
        threads.push(spawn("migration", move || {
            migrate(&url, opened + migrate_after, &shared, &migrated)
        })?);
        Ok(Self { threads })
    }

    /// Whether one of them has ended, which none does by itself but in trouble.
    pub(crate) fn has_failed(&self) -> bool {
        self.threads
            .iter()
            .any(|thread| thread.is_finished() && thread.thread().name() != Some("migration"))
    }

    /// Waits until all have ended their transactions.
    pub(crate) fn finish(self, shared: &Shared) -> Result<(), String> {
        shared.close_shop();
        let mut outcome = Ok(());
        for thread in self.threads {
            let ended = thread.join().unwrap_or_else(|_| Err("a writer died".to_owned()));
            outcome = outcome.and(ended);
        }
        outcome
    }
}

fn spawn(
    name: &str,
    work: impl FnOnce() -> Result<(), String> + Send + 'static,
) -> Result<JoinHandle<Result<(), String>>, String> {
    let thread = thread::Builder::new().name(name.to_owned()).spawn(work);
    thread.map_err(|error| format!("no thread for {name}: {error}"))
}

pub(crate) fn connect(url: &str) -> Result<Client, String> {
    Client::connect(url, NoTls).map_err(|error| described(&error))
}

fn migrate(url: &str, at: Instant, shared: &Shared, migrated: &AtomicBool) -> Result<(), String> {
    while Instant::now() < at {
        if shared.is_closing() {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(20));
    }
    let mut client = connect(url)?;
    client.batch_execute(MIGRATION_SESSION).map_err(|error| described(&error))?;
    while !shared.is_closing() {
        match client.batch_execute(shop::MIGRATION) {
            Ok(()) => {
                shared.live().event(shop::MIGRATION.to_owned());
                migrated.store(true, Ordering::Release);
                return Ok(());
            }
            Err(error) if error.code() == Some(&postgres::error::SqlState::LOCK_NOT_AVAILABLE) => {}
            Err(error) => return Err(described(&error)),
        }
    }
    Ok(())
}
