//! The pipelines' state in Prometheus's own terms, gathered when it scrapes.

use std::sync::Arc;

use prometheus::core::Collector;
use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};

use crate::status::{Pipeline, State};

/// What one scrape reads.
///
/// # Errors
/// Where two metrics contradict each other, which a test excludes.
pub(super) fn render(pipelines: &[Arc<Pipeline>]) -> prometheus::Result<String> {
    let registry = Registry::new();
    let build = int_gauge(
        &registry,
        "waltide_build_info",
        "Always 1; the version is a label.",
        &["version"],
    )?;
    build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    let sheet = Sheet::new(&registry)?;
    for pipeline in pipelines {
        sheet.fill(pipeline);
    }
    TextEncoder::new().encode_to_string(&registry.gather())
}

struct Sheet {
    state: IntGaugeVec,
    lag_bytes: IntGaugeVec,
    lag_seconds: GaugeVec,
    in_flight: IntGaugeVec,
    retained: IntGaugeVec,
    safe: IntGaugeVec,
    slot_status: IntGaugeVec,
    events: IntCounterVec,
    bytes: IntCounterVec,
    records: IntCounterVec,
    errors: IntCounterVec,
    retries: IntCounterVec,
    checkpoint_age: GaugeVec,
    snapshot_rows: IntGaugeVec,
    snapshot_left: IntGaugeVec,
}

impl Sheet {
    fn new(registry: &Registry) -> prometheus::Result<Self> {
        let one = &["pipeline"];
        Ok(Self {
            state: int_gauge(
                registry,
                "waltide_pipeline_state",
                "1 for the state the pipeline is in.",
                &["pipeline", "state"],
            )?,
            lag_bytes: int_gauge(
                registry,
                "waltide_source_lag_bytes",
                "WAL the server has written and consumers do not have yet.",
                one,
            )?,
            lag_seconds: registered(
                registry,
                GaugeVec::new(
                    Opts::new(
                        "waltide_source_lag_seconds",
                        "Age of the oldest commit that is not delivered; time since last contact while the source is away.",
                    ),
                    one,
                )?,
            )?,
            checkpoint_age: registered(
                registry,
                GaugeVec::new(
                    Opts::new(
                        "waltide_checkpoint_age_seconds",
                        "Time since the last checkpoint was written; absent before the first and on a standby.",
                    ),
                    one,
                )?,
            )?,
            in_flight: int_gauge(
                registry,
                "waltide_records_in_flight",
                "Records queued or on their way to Kafka.",
                one,
            )?,
            retained: int_gauge(
                registry,
                "waltide_slot_retained_wal_bytes",
                "WAL the server keeps for the slot.",
                one,
            )?,
            safe: int_gauge(
                registry,
                "waltide_slot_safe_wal_bytes",
                "WAL that can be written before the slot is lost; absent without a limit.",
                one,
            )?,
            slot_status: int_gauge(
                registry,
                "waltide_slot_status",
                "1 for the slot's wal_status.",
                &["pipeline", "status"],
            )?,
            events: counter(
                registry,
                "waltide_events_total",
                "Changes published.",
                &["pipeline", "table", "op"],
            )?,
            bytes: counter(
                registry,
                "waltide_bytes_total",
                "Bytes read from the source and handed to Kafka.",
                &["pipeline", "direction"],
            )?,
            records: counter(registry, "waltide_records_total", "Records handed to Kafka.", one)?,
            errors: counter(
                registry,
                "waltide_errors_total",
                "Failures, by class and code.",
                &["pipeline", "class", "code"],
            )?,
            snapshot_rows: int_gauge(
                registry,
                "waltide_snapshot_rows",
                "Rows read of a table and published, since this process began to read it.",
                &["pipeline", "table", "state"],
            )?,
            snapshot_left: int_gauge(
                registry,
                "waltide_snapshot_blocks_left",
                "Blocks of a table that are still to be read.",
                &["pipeline", "table"],
            )?,
            retries: counter(registry, "waltide_retries_total", "Attempts after a failure.", one)?,
        })
    }

    fn fill(&self, pipeline: &Pipeline) {
        let name = pipeline.name.as_str();
        let state = pipeline.state();
        for known in State::NAMES {
            let is = i64::from(*known == state.as_str());
            self.state.with_label_values(&[name, known]).set(is);
        }
        self.lag_bytes.with_label_values(&[name]).set(signed(pipeline.lag_bytes()));
        self.lag_seconds.with_label_values(&[name]).set(pipeline.lag().as_secs_f64());
        if let Some(age) = pipeline.checkpoint_age() {
            self.checkpoint_age.with_label_values(&[name]).set(age.as_secs_f64());
        }
        self.in_flight.with_label_values(&[name]).set(signed(pipeline.in_flight()));
        let slot = pipeline.slot();
        if let Some(bytes) = slot.retained_bytes {
            self.retained.with_label_values(&[name]).set(signed(bytes));
        }
        if let Some(bytes) = slot.safe_bytes {
            self.safe.with_label_values(&[name]).set(bytes);
        }
        if let Some(status) = &slot.wal_status {
            self.slot_status.with_label_values(&[name, status.as_str()]).set(1);
        }
        for (table, counts) in pipeline.tables() {
            for (op, count) in counts.by_op() {
                if count > 0 {
                    self.events.with_label_values(&[name, &table, op]).inc_by(count);
                }
            }
        }
        for (table, snapshot) in pipeline.snapshots() {
            let labels = [name, &table, snapshot.state()];
            self.snapshot_rows.with_label_values(&labels).set(signed(snapshot.rows));
            let left = signed(snapshot.blocks_left.unwrap_or(0));
            self.snapshot_left.with_label_values(&[name, &table]).set(left);
        }
        let (records, record_bytes) = pipeline.records();
        self.records.with_label_values(&[name]).inc_by(records);
        self.bytes.with_label_values(&[name, "in"]).inc_by(pipeline.wal_bytes());
        self.bytes.with_label_values(&[name, "out"]).inc_by(record_bytes);
        for (code, count) in pipeline.errors() {
            let labels = [name, code.class().as_str(), code.id()];
            self.errors.with_label_values(&labels).inc_by(count);
        }
        self.retries.with_label_values(&[name]).inc_by(pipeline.retries());
    }
}

fn registered<C: Collector + Clone + 'static>(registry: &Registry, of: C) -> prometheus::Result<C> {
    registry.register(Box::new(of.clone()))?;
    Ok(of)
}

fn int_gauge(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> prometheus::Result<IntGaugeVec> {
    registered(registry, IntGaugeVec::new(Opts::new(name, help), labels)?)
}

fn counter(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> prometheus::Result<IntCounterVec> {
    registered(registry, IntCounterVec::new(Opts::new(name, help), labels)?)
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Code, Fault};
    use crate::status::{Counts, SlotHealth, Snapshot};
    use waltide_core::lsn::Lsn;

    #[test]
    fn a_scrape_names_every_metric_once_and_is_well_formed() {
        let pipeline = Pipeline::new("shop");
        pipeline.enter(State::Waiting(Fault::new(Code::KafkaUnreachable, "x", "y")));
        pipeline
            .published([("public.orders".to_owned(), Counts { inserts: 3, ..Counts::default() })]);
        let slot = SlotHealth {
            retained_bytes: Some(7),
            safe_bytes: Some(9),
            wal_status: Some("reserved".to_owned()),
        };
        pipeline.slot_seen(slot, Lsn(0));
        let snapshot = Snapshot { rows: 5, blocks_left: Some(6), ..Snapshot::default() };
        pipeline.snapshot_at("public.orders", snapshot);
        let text = render(&[pipeline]).unwrap();
        for line in [
            "waltide_events_total{op=\"c\",pipeline=\"shop\",table=\"public.orders\"} 3",
            "waltide_pipeline_state{pipeline=\"shop\",state=\"waiting\"} 1",
            "waltide_pipeline_state{pipeline=\"shop\",state=\"streaming\"} 0",
            "waltide_errors_total{class=\"transient\",code=\"WT301\",pipeline=\"shop\"} 1",
            "waltide_snapshot_rows{pipeline=\"shop\",state=\"reading\",table=\"public.orders\"} 5",
            "waltide_snapshot_blocks_left{pipeline=\"shop\",table=\"public.orders\"} 6",
            "waltide_slot_retained_wal_bytes{pipeline=\"shop\"} 7",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
