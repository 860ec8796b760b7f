//! An hour, or any time, without faults: what grows, grows.

use std::fmt::Write as _;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use crate::audit;
use crate::run::{Options, say};
use crate::workload::{self, Workload};
use crate::world::World;

/// How often it is looked.
const EVERY: Duration = Duration::from_secs(5);

/// What is looked at, and by how much an hour it may grow. Memory settles while caches fill, so the first
/// fifth of the time is left out.
const FIGURES: [(&str, f64); 4] = [
    ("memory in KiB", 4096.0),
    ("descriptors", 4.0),
    ("bytes in the spool", 1e6),
    ("bytes of slot lag", 1e6),
];

/// Runs at a moderate rate, and returns a page for people and whether everything stayed flat.
///
/// # Errors
/// Where a server, or the daemon, fails us.
pub fn soak(options: &Options) -> Result<(String, bool), String> {
    let world = World::start(options.version, options.mode, &options.daemon)?;
    world.with_admin(|client| {
        let made = audit::create(client)
            .and_then(|()| workload::create_tables(client))
            .and_then(|()| workload::watch_tables(client));
        made.map_err(|error| format!("the tables: {error}"))
    })?;
    let daemon = &world.daemons[0];
    daemon.start();
    let workload = Workload::start(&world.database.url(), options.seed, 30);
    let time = options.time.unwrap_or(Duration::from_secs(3600));
    let began = Instant::now();
    let mut samples: Vec<(f64, [f64; 4])> = Vec::new();
    while began.elapsed() < time && !options.asked_to_end() {
        thread::sleep(EVERY);
        if let Some(trouble) = world.trouble() {
            return Err(trouble);
        }
        // The audit would grow for ever.
        let _ = world.with_admin(|client| audit::drain(client).map(|_| ()));
        let Some(sample) = sample(&world) else { continue };
        samples.push((began.elapsed().as_secs_f64() / 3600.0, sample));
    }
    let transactions = workload.transactions();
    drop(workload);
    let _ = fs::remove_dir_all(&world.directory);
    let settled = samples.split_off(samples.len() / 5);
    Ok(page(options, &settled, began.elapsed(), transactions))
}

fn sample(world: &World) -> Option<[f64; 4]> {
    let daemon = &world.daemons[0];
    let pid = daemon.pid()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let memory = memory.trim().trim_end_matches("kB").trim().parse().ok()?;
    let count = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count();
    let descriptors = u32::try_from(count).ok().map(f64::from)?;
    let lag = world.end_of_log()?.saturating_sub(world.confirmed()?);
    let number = |bytes: u64| u32::try_from(bytes).map_or(f64::MAX, f64::from);
    Some([memory, descriptors, number(spooled(&daemon.disk()?)), number(lag)])
}

/// Bytes of all files below a directory.
fn spooled(directory: &std::path::Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(about) if about.is_dir() => spooled(&entry.path()),
        Ok(about) => about.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}

fn page(
    options: &Options,
    samples: &[(f64, [f64; 4])],
    took: Duration,
    transactions: u64,
) -> (String, bool) {
    let mut text = format!(
        "# Soak: {} on PostgreSQL {}\n\nWritten by `make torture ARGS=--soak`; [what it does](../torture.md).\n\n\
         - {} minutes, {transactions} transactions, {} samples (the first fifth is left out)\n- seed: {}\n\n\
         | figure | median | most | grows in an hour by | may grow by |\n| --- | --- | --- | --- | --- |\n",
        options.mode.as_str(),
        options.version,
        took.as_secs() / 60,
        samples.len(),
        options.seed
    );
    let mut flat = !samples.is_empty();
    for (index, (name, limit)) in FIGURES.iter().enumerate() {
        let series: Vec<(f64, f64)> = samples.iter().map(|(at, of)| (*at, of[index])).collect();
        let slope = slope(&series);
        flat &= slope <= *limit;
        let mut values: Vec<f64> = series.iter().map(|(_, value)| *value).collect();
        values.sort_by(f64::total_cmp);
        let median = values.get(values.len() / 2).copied().unwrap_or_default();
        let most = values.last().copied().unwrap_or_default();
        let _ = writeln!(text, "| {name} | {median:.0} | {most:.0} | {slope:.0} | {limit:.0} |");
    }
    say(if flat { "everything stayed flat" } else { "something grows" });
    (text, flat)
}

/// By how much the values grow in an hour: of all pairs, the median of their slopes, so that a few samples
/// in the middle of a large transaction do not count (Theil and Sen).
fn slope(series: &[(f64, f64)]) -> f64 {
    let mut slopes = Vec::new();
    for (index, (at, value)) in series.iter().enumerate() {
        for (later, then) in series.iter().skip(index + 1).step_by(7) {
            slopes.push((then - value) / (later - at));
        }
    }
    slopes.sort_by(f64::total_cmp);
    slopes.get(slopes.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::slope;

    #[test]
    fn the_slope_is_that_of_most_values() {
        let line = (0..50).map(|at| (f64::from(at), 100.0 + 3.0 * f64::from(at)));
        let mut line: Vec<(f64, f64)> = line.collect();
        line[20].1 = 1e9;
        assert!((slope(&line) - 3.0).abs() < 0.01);
        assert!(slope(&[]).abs() < 0.01);
    }
}
