//! A run: cycle after cycle of writing, failing, mending, and looking.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use waltide_stack::Version;

use crate::checker::{Checker, Violation};
use crate::daemon::Daemon;
use crate::reader::Reader;
use crate::report::Report;
use crate::schedule::{Cycle, Planned};
use crate::workload::{self, Workload};
use crate::world::{Begun, World};
use crate::{Allowance, Mode, audit};

/// How long the pipeline may get nothing further. Only a machine in trouble needs this long.
const RECOVERY: Duration = Duration::from_secs(120);

/// How long something is missing before it is taken for lost: what is safe can be read at once, while the
/// rows of a table that joins are read when their turn comes.
const READING: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(120));

/// How long a writer rests between two transactions, about.
const REST_MS: u64 = 25;

/// Once nothing has come for this long, nothing is on its way; longer where a predecessor was held up.
const SILENCE: (Duration, Duration) = (Duration::from_millis(120), Duration::from_millis(600));

/// What is asked of a run.
#[derive(Debug, Clone)]
pub struct Options {
    /// What consumers were promised.
    pub mode: Mode,
    /// Of which server.
    pub version: Version,
    /// Of the schedule and of the writers.
    pub seed: u64,
    /// At most so many cycles.
    pub cycles: Option<u64>,
    /// No cycle is begun after this time.
    pub time: Option<Duration>,
    /// The daemon's program.
    pub daemon: PathBuf,
    /// Somebody wants it to end.
    pub ends: Arc<AtomicBool>,
}

impl Options {
    pub(crate) fn asked_to_end(&self) -> bool {
        self.ends.load(Ordering::Acquire)
    }
}

/// Runs until a limit or the first cycle with a violation.
///
/// # Errors
/// Where a server, or the machine, fails us.
pub fn torture(options: &Options) -> Result<Report, String> {
    let began = Instant::now();
    let world = World::start(options.version, options.mode, &options.daemon)?;
    if let Err(trouble) = settle_in(&world, options)? {
        let mut report = report(options);
        say(&format!("VIOLATION before the first cycle: stuck: {trouble}"));
        report.violations.push((0, Violation::Stuck(trouble)));
        return Ok(report);
    }
    let mut run = Run::begin(world, options)?;
    let mut number = 1;
    while options.cycles.is_none_or(|cycles| number <= cycles)
        && options.time.is_none_or(|time| began.elapsed() < time)
        && run.report.violations.is_empty()
    {
        let cycle = Cycle::of(options.seed, number);
        run.cycle(&cycle)?;
        if options.asked_to_end() {
            run.report.interrupted = true;
            break;
        }
        run.report.cycles = number;
        number += 1;
    }
    run.report.took = began.elapsed();
    run.report.transactions = run.workload.transactions();
    run.report.counts = run.checker.counts();
    run.finish();
    Ok(run.report)
}

struct Run<'a> {
    options: &'a Options,
    // Dropped before the servers.
    workload: Workload,
    reader: Reader,
    checker: Checker,
    world: World,
    report: Report,
}

impl<'a> Run<'a> {
    fn begin(world: World, options: &'a Options) -> Result<Self, String> {
        let mut reader = Reader::new(&world.kafka, &world.registry, world.pipeline())?;
        // What was stirred up is nobody's business.
        let found = reader.look()?;
        while reader.next(SILENCE.1).is_some() {}
        let mut checker = Checker::new(options.mode);
        for (table, partitions) in found {
            checker.has_partitions(&table, partitions);
        }
        world.with_admin(|client| {
            workload::watch_tables(client).map_err(|error| format!("the triggers: {error:?}"))
        })?;
        let workload = Workload::start(&world.database.url(), options.seed, REST_MS);
        let report = report(options);
        Ok(Self { options, workload, reader, checker, world, report })
    }

    fn cycle(&mut self, cycle: &Cycle) -> Result<(), String> {
        let began = Instant::now();
        self.checker.allow(cycle.allows());
        if cycle.joins {
            let joined = self.world.with_admin(|client| {
                workload::join(client, cycle.number).map_err(|error| error.to_string())
            });
            joined?;
            self.workload.joined(workload::joined(cycle.number));
        }
        thread::sleep(Duration::from_millis(cycle.quiet_ms));
        let failed = Instant::now();
        let outcome = self.fail(cycle);
        let recovery = match outcome {
            Ok(()) => self.recover(),
            Err(trouble) => Err(trouble),
        };
        let recovery = match recovery {
            Ok(recovery) => recovery,
            Err(trouble) => {
                self.violated(cycle, Violation::Stuck(trouble));
                return Ok(());
            }
        };
        self.report.recoveries.push(recovery);
        self.report.longest_pause = self.report.longest_pause.max(failed.elapsed());
        self.compare(cycle)?;
        let counts = self.checker.counts();
        say(&format!(
            "{cycle}: safe after {recovery:.1?}, {:.1?} in all; {} records",
            began.elapsed(),
            counts.records
        ));
        Ok(())
    }

    /// What goes wrong, and is mended.
    fn fail(&mut self, cycle: &Cycle) -> Result<(), String> {
        let first = self.begin_fault(cycle.first);
        let mut left = cycle.first.lasts_ms;
        let mut mended = Ok(());
        if let Some(second) = cycle.second {
            thread::sleep(Duration::from_millis(left / 2));
            left -= left / 2;
            // Two faults of one kind: the second one has nothing left to fail.
            let apart = !clashes(cycle.first, second);
            if apart {
                let second_begun = self.begin_fault(second);
                thread::sleep(Duration::from_millis(second.lasts_ms));
                mended = self.world.end(&second_begun);
            } else {
                self.report.missed += 1;
            }
        }
        thread::sleep(Duration::from_millis(left));
        mended.and(self.world.end(&first))
    }

    fn begin_fault(&mut self, planned: Planned) -> Begun {
        let begun = self.world.begin(planned);
        if matches!(begun, Begun::Missed) {
            self.report.missed += 1;
        } else {
            *self.report.faults.entry(planned.fault.name()).or_default() += 1;
        }
        begun
    }

    /// Waits until all that has been committed is safe.
    fn recover(&self) -> Result<Duration, String> {
        let end = self.until("Postgres answers", || self.world.end_of_log())?;
        self.world.wait_for_safety(end, RECOVERY, &|| self.options.asked_to_end())
    }

    fn until<T>(&self, what: &str, mut ask: impl FnMut() -> Option<T>) -> Result<T, String> {
        let deadline = Instant::now() + RECOVERY;
        loop {
            if let Some(answer) = ask() {
                return Ok(answer);
            }
            if Instant::now() > deadline {
                return Err(format!("waited {RECOVERY:?} in vain: {what}; {}", self.world.said()));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Lets writers pause, and holds what arrived against what committed.
    fn compare(&mut self, cycle: &Cycle) -> Result<(), String> {
        self.workload.pause();
        // They would hold up whoever reads a table that joins, and lock others out of what they altered.
        self.world.with_admin(workload::finish_prepared)?;
        let late = cycle.allows() == Allowance::Late;
        let mut settled = self.recover().map(|_| ());
        if settled.is_ok() && late {
            settled = self.until("both daemons are well", || {
                (self.world.is_healthy() || self.options.asked_to_end()).then_some(())
            });
        }
        if let Err(trouble) = settled {
            self.violated(cycle, Violation::Stuck(trouble));
            return Ok(());
        }
        let changes = self.world.with_admin(audit::drain)?;
        for change in changes {
            if workload::is_joined(&change.table) {
                self.checker.joins(&change.table);
            }
            self.checker.committed(change);
        }
        let silence = if late { SILENCE.1 } else { SILENCE.0 };
        self.read(silence, if cycle.joins { READING.1 } else { READING.0 })?;
        if !self.options.asked_to_end() {
            self.checker.conclude();
            let found = self.checker.take_violations();
            found.into_iter().for_each(|violation| self.violated(cycle, violation));
        }
        self.workload.resume();
        Ok(())
    }

    /// Reads until everything is there and nothing more comes, or time is up.
    fn read(&mut self, silence: Duration, patience: Duration) -> Result<(), String> {
        let mut heard = Instant::now();
        let mut looked = None;
        self.reader.begin_anew()?;
        while !self.options.asked_to_end() {
            if looked.is_none_or(|at: Instant| at.elapsed() > Duration::from_millis(500)) {
                looked = Some(Instant::now());
                for (table, partitions) in self.reader.look()? {
                    if workload::is_joined(&table) {
                        self.checker.joins(&table);
                    }
                    self.checker.has_partitions(&table, partitions);
                }
            }
            let mut came = false;
            while let Some(seen) = self.reader.next(silence) {
                came = true;
                match seen {
                    Ok(seen) if workload::is_stirred(&seen) => {}
                    Ok(seen) => self.checker.arrived(seen),
                    Err(what) => self.checker.unreadable(what),
                }
            }
            if !came && self.checker.is_settled() || heard.elapsed() > patience {
                return Ok(());
            }
            if came {
                heard = Instant::now();
            }
        }
        Ok(())
    }

    fn violated(&mut self, cycle: &Cycle, violation: Violation) {
        // The first ones say what is wrong.
        if self.report.violations.len() < 50 {
            say(&format!("VIOLATION in cycle {cycle}: {violation}"));
            self.report.violations.push((cycle.number, violation));
        }
    }

    /// Logs stay where something was wrong.
    fn finish(&self) {
        let directory = &self.world.directory;
        if self.report.violations.is_empty() {
            let _ = std::fs::remove_dir_all(directory);
        } else {
            self.world.daemons.iter().for_each(Daemon::keep_logs);
            say(&format!("the daemons' logs are in {}", directory.display()));
        }
    }
}

/// Starts the daemons, and waits until all changes of all tables come. The inner error is the daemons'.
fn settle_in(world: &World, options: &Options) -> Result<Result<(), String>, String> {
    world.with_admin(|client| {
        let made = audit::create(client).and_then(|()| workload::create_tables(client));
        made.map_err(|error| format!("the tables: {error:?}"))
    })?;
    world.daemons[0].start();
    let deadline = Instant::now() + RECOVERY;
    // They do once it has been read, be it empty.
    while !(world.is_healthy() && world.has_read(workload::TABLE_COUNT)) {
        if let Some(trouble) = world.trouble() {
            return Ok(Err(trouble));
        }
        if options.asked_to_end() {
            return Err("ended before it began".into());
        }
        if Instant::now() > deadline {
            let snapshots = world.daemons[0].status().unwrap_or_default()["snapshots"].take();
            let said = world.said();
            return Ok(Err(format!("the daemons do not begin: {said}; tables: {snapshots}")));
        }
        stir(world)?;
        if world.daemons[0].state() == "streaming" {
            world.daemons[1].start();
        }
        thread::sleep(Duration::from_millis(100));
    }
    let end = world.end_of_log().ok_or("Postgres does not answer")?;
    Ok(world.wait_for_safety(end, RECOVERY, &|| options.asked_to_end()).map(|_| ()))
}

/// Of a run that has not begun.
fn report(options: &Options) -> Report {
    Report {
        mode: options.mode,
        version: options.version.to_string(),
        seed: options.seed,
        cycles: 0,
        took: Duration::ZERO,
        transactions: 0,
        faults: BTreeMap::new(),
        missed: 0,
        counts: crate::Counts::default(),
        recoveries: Vec::new(),
        longest_pause: Duration::ZERO,
        violations: Vec::new(),
        interrupted: false,
    }
}

fn stir(world: &World) -> Result<(), String> {
    world.with_admin(|client| {
        workload::stir(client).map_err(|error| format!("the first rows: {error:?}"))
    })
}

/// Whether a fault makes another one senseless, as both are of the same thing.
fn clashes(first: Planned, second: Planned) -> bool {
    first.fault.subject() == second.fault.subject()
}

/// Past the capture of a test.
pub(crate) fn say(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "torture: {text}");
}
