//! What a run comes to, for programs and for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use crate::{Counts, Mode, Violation};

/// What a run came to.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Report {
    pub mode: Mode,
    pub version: String,
    pub seed: u64,
    pub cycles: u64,
    pub took: Duration,
    pub transactions: u64,
    /// How often each fault was met.
    pub faults: BTreeMap<String, u64>,
    /// How often there was nothing that could have failed, or nothing came by.
    pub missed: u64,
    pub counts: Counts,
    /// From when everything was mended until all that was committed until then was safe.
    pub recoveries: Vec<Duration>,
    /// From when something failed until all that was committed until it was mended was safe.
    pub longest_pause: Duration,
    /// With the number of its cycle.
    pub violations: Vec<(u64, Violation)>,
    /// Somebody ended it before its end.
    pub interrupted: bool,
}

impl Report {
    /// The recovery time that so many of a hundred stayed below.
    pub fn recovery(&self, percent: usize) -> Duration {
        let mut sorted = self.recoveries.clone();
        sorted.sort_unstable();
        let place = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
        sorted.get(place).copied().unwrap_or_default()
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let violations = self.violations.iter().map(|(cycle, violation)| {
            json!({ "cycle": cycle, "kind": violation.name(), "what": violation.to_string() })
        });
        json!({
            "mode": self.mode.as_str(),
            "postgres": self.version,
            "seed": self.seed,
            "cycles": self.cycles,
            "seconds": self.took.as_secs(),
            "interrupted": self.interrupted,
            "faults": self.faults,
            "faults_that_met_nothing": self.missed,
            "transactions": self.transactions,
            "changes": self.counts.changes,
            "records": self.counts.records,
            "repeats": self.counts.repeats,
            "late_records_of_predecessors": self.counts.late,
            "recovery_ms": {
                "median": ms(self.recovery(50)),
                "p99": ms(self.recovery(99)),
                "most": ms(self.recovery(100)),
            },
            "longest_pause_ms": ms(self.longest_pause),
            "violations": violations.collect::<Vec<_>>(),
        })
    }

    /// For people.
    pub fn markdown(&self) -> String {
        let verdict = match (self.violations.len(), self.interrupted) {
            (0, false) => "no violation".to_owned(),
            (0, true) => "no violation so far; it was ended early".to_owned(),
            (count, _) => format!("**{count} violations**"),
        };
        let mut text = format!(
            "# Torture: {} on PostgreSQL {}\n\nWritten by `make torture`; [what it does](../torture.md).\n\n",
            self.mode.as_str(),
            self.version
        );
        let mut line = |name: &str, value: String| {
            let _ = writeln!(text, "- {name}: {value}");
        };
        line("result", verdict);
        line("seed", self.seed.to_string());
        line("cycles", format!("{}, in {} minutes", self.cycles, self.took.as_secs().div_ceil(60)));
        let faults: u64 = self.faults.values().sum();
        line("faults", format!("{faults} met, {} met nothing", self.missed));
        line("transactions begun", self.transactions.to_string());
        line("changes that committed", self.counts.changes.to_string());
        line("records", self.counts.records.to_string());
        line("records that came again, as they may", self.counts.repeats.to_string());
        line("late records of predecessors", self.counts.late.to_string());
        let (median, p99) = (self.recovery(50), self.recovery(99));
        line(
            "until all is safe after a fault is mended",
            format!("median {median:.1?}, p99 {p99:.1?}"),
        );
        line("longest pause, the fault included", format!("{:.1?}", self.longest_pause));
        text.push_str("\n| fault | times |\n| --- | --- |\n");
        for (fault, times) in &self.faults {
            let _ = writeln!(text, "| {fault} | {times} |");
        }
        if !self.violations.is_empty() {
            text.push_str("\n## Violations\n\n");
            for (cycle, violation) in &self.violations {
                let _ = writeln!(text, "- cycle {cycle}: {violation}");
            }
        }
        text
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
