//! A process and all that descends from it.
//!
//! Signals go to each process by its number. A process group would not do: every Postgres backend
//! makes a session of its own.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::poll::poll;

struct Row {
    pid: u32,
    parent: u32,
    zombie: bool,
}

/// Every process there is: from `/proc` where it exists, else from `ps`.
fn table() -> Vec<Row> {
    match fs::read_dir("/proc") {
        Ok(entries) => entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter_map(|pid: u32| {
                let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
                row(&format!("{pid} {}", stat.rsplit_once(") ")?.1))
            })
            .collect(),
        Err(_) => {
            let output = Command::new("ps").args(["-A", "-o", "pid=,state=,ppid="]).output();
            let text = output.map(|output| output.stdout).unwrap_or_default();
            String::from_utf8_lossy(&text).lines().filter_map(row).collect()
        }
    }
}

/// Reads "pid state parent ...".
fn row(line: &str) -> Option<Row> {
    let mut fields = line.split_whitespace();
    let pid = fields.next()?.parse().ok()?;
    let zombie = fields.next()?.starts_with(['Z', 'X']);
    Some(Row { pid, parent: fields.next()?.parse().ok()?, zombie })
}

/// Sends a signal to some processes; one that has gone in between is no error.
pub(crate) fn signal(signal: &str, pids: impl IntoIterator<Item = u32>) {
    let pids: Vec<String> = pids.into_iter().map(|pid| pid.to_string()).collect();
    if !pids.is_empty() {
        let _ = Command::new("sh")
            .args(["-c", "signal=$0; for pid; do kill -s \"$signal\" \"$pid\"; done", signal])
            .args(pids)
            .stderr(Stdio::null())
            .status();
    }
}

/// Stops a process and its descendants, each as it is found, so that none can beget another.
pub(crate) fn stop(pid: u32) -> BTreeSet<u32> {
    let mut family = BTreeSet::from([pid]);
    signal("STOP", [pid]);
    loop {
        let table = table();
        let born: Vec<u32> = table
            .iter()
            .filter(|row| family.contains(&row.parent) && !family.contains(&row.pid))
            .map(|row| row.pid)
            .collect();
        if born.is_empty() {
            return family;
        }
        signal("STOP", born.iter().copied());
        family.extend(born);
    }
}

/// Lets a stopped family go on, its head last, for it is the one who acts on the others' deaths.
pub(crate) fn resume(family: &BTreeSet<u32>, head: u32) {
    signal("CONT", family.iter().copied().filter(|pid| *pid != head).chain([head]));
}

/// Kills a process and its descendants and waits until none of them runs.
pub(crate) fn kill(pid: u32) {
    let family = stop(pid);
    signal("KILL", family.iter().copied());
    poll(Duration::from_secs(10), || {
        let alive = table().iter().any(|row| family.contains(&row.pid) && !row.zombie);
        (!alive).then_some(())
    });
}
