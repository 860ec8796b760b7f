//! The process as the system sees it, under the names that every Prometheus client uses.

use std::fs;

/// What is known of the process; none where this system does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Process {
    pub(super) cpu_seconds: Option<f64>,
    pub(super) resident_bytes: Option<u64>,
    pub(super) virtual_bytes: Option<u64>,
    pub(super) threads: Option<u64>,
    pub(super) open_files: Option<u64>,
    pub(super) most_files: Option<u64>,
    pub(super) started_seconds: Option<f64>,
}

/// The kernel counts in these for programs, whatever its own clock is.
const TICKS: f64 = 100.0;

impl Process {
    pub(super) fn look() -> Self {
        let read = |path: &str| fs::read_to_string(path).ok();
        let (stat, status) = (read("/proc/self/stat"), read("/proc/self/status"));
        let boot = read("/proc/stat").and_then(|text| after(&text, "btime"));
        Self {
            open_files: fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as u64),
            most_files: read("/proc/self/limits").and_then(|text| after(&text, "Max open files")),
            ..Self::parse(stat.as_deref(), status.as_deref(), boot)
        }
    }

    fn parse(stat: Option<&str>, status: Option<&str>, boot: Option<u64>) -> Self {
        // The name in brackets may hold anything; the third field follows it.
        let fields: Vec<&str> = stat
            .and_then(|stat| stat.rsplit_once(')'))
            .map(|(_, rest)| rest.split_ascii_whitespace().collect())
            .unwrap_or_default();
        let ticks = |field: usize| fields.get(field - 3)?.parse::<f64>().ok();
        let kibibytes = |name| after(status?, name).map(|count| count * 1024);
        Self {
            cpu_seconds: ticks(14).zip(ticks(15)).map(|(user, system)| (user + system) / TICKS),
            resident_bytes: kibibytes("VmRSS:"),
            virtual_bytes: kibibytes("VmSize:"),
            threads: status.and_then(|status| after(status, "Threads:")),
            started_seconds: ticks(22).zip(boot).map(|(start, boot)| boot as f64 + start / TICKS),
            ..Self::default()
        }
    }
}

/// The number that follows a name at the start of a line.
fn after(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 3 0 1000 1 1";
        let status = "VmSize:\t 2048 kB\nVmRSS:\t    10 kB\nThreads:\t3\n";
        let process = Process::parse(Some(stat), Some(status), Some(100));
        assert_eq!(process.cpu_seconds, Some(2.0));
        assert_eq!(process.started_seconds, Some(110.0));
        assert_eq!(
            (process.resident_bytes, process.virtual_bytes),
            (Some(10_240), Some(2_097_152))
        );
        assert_eq!(process.threads, Some(3));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_all_of_it() {
        let process = Process::look();
        assert!(process.cpu_seconds.is_some() && process.started_seconds.is_some(), "{process:?}");
        assert!(process.open_files > Some(0) && process.most_files > Some(0), "{process:?}");
        assert!(process.resident_bytes > Some(0), "{process:?}");
    }
}
