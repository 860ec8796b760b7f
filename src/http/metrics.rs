//! The pipelines' state in Prometheus's own terms, gathered when it scrapes.
//!
//! [`METRICS`] is all there is: what is not in it is not written, and `docs/metrics.md` is made of
//! it, which a test holds.

use std::time::Duration;

use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};
use prometheus::{Encoder as _, TextEncoder};

use super::process::Process;
use crate::fault::Code;
use crate::status::{Pipeline, SlotHealth, State};

/// One metric.
pub(super) struct Definition {
    name: &'static str,
    kind: MetricType,
    labels: &'static [&'static str],
    help: &'static str,
}

const ONE: &[&str] = &["pipeline"];

const fn gauge(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Definition {
    Definition { name, kind: MetricType::GAUGE, labels, help }
}

const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Definition {
    Definition { name, kind: MetricType::COUNTER, labels, help }
}

/// All metrics, in the order of the documentation.
pub(super) const METRICS: &[Definition] = &[
    gauge(
        "waltide_build_info",
        &["version", "features"],
        "Always 1; the version and the optional parts of the build are labels.",
    ),
    gauge(
        "waltide_pipeline_state",
        &["pipeline", "state"],
        "1 for the state the pipeline is in, 0 for the others.",
    ),
    gauge(
        "waltide_pipeline_ready",
        ONE,
        "1 while changes flow, or would, or another daemon sees to it; what /readyz asks.",
    ),
    counter("waltide_outages_total", ONE, "Times the pipeline was not ready after it had been."),
    counter(
        "waltide_unready_seconds_total",
        ONE,
        "Time it was not ready since the process started, its start included.",
    ),
    gauge(
        "waltide_recovery_seconds",
        ONE,
        "How long the last outage took that is over; absent before the first.",
    ),
    gauge(
        "waltide_source_lag_bytes",
        ONE,
        "WAL the server has written and consumers do not have yet.",
    ),
    gauge(
        "waltide_source_lag_seconds",
        ONE,
        "Age of the oldest commit that is not delivered, by the server's clock; 0 when all is; the \
         time since last contact while the source is away.",
    ),
    Definition {
        name: "waltide_end_to_end_seconds",
        kind: MetricType::HISTOGRAM,
        labels: ONE,
        help: "Time from a commit, by the server's clock, to the acknowledgement of its records by \
               Kafka; one observation for each batch of a transaction's acknowledgements.",
    },
    counter(
        "waltide_stage_seconds_total",
        &["pipeline", "stage"],
        "Time of the pipeline's thread: source (waiting for the server, or nothing to do), rows \
         (decoding, encoding, handing over), schemas (asking catalog, registry and Kafka about a \
         table), kafka (waiting for room in the queue).",
    ),
    gauge("waltide_slot_retained_wal_bytes", ONE, "WAL the server keeps for the slot."),
    gauge(
        "waltide_slot_safe_wal_bytes",
        ONE,
        "WAL that can be written before the slot is lost; absent without a limit.",
    ),
    gauge(
        "waltide_slot_status",
        &["pipeline", "status"],
        "1 for the slot's wal_status, 0 for the others; absent before the slot was looked at.",
    ),
    counter(
        "waltide_events_total",
        &["pipeline", "table", "op"],
        "Changes published: c for inserts, u updates, d deletes, t truncates.",
    ),
    counter(
        "waltide_bytes_total",
        &["pipeline", "direction"],
        "Bytes read from the source (in) and handed to Kafka (out).",
    ),
    counter("waltide_records_total", ONE, "Records handed to Kafka."),
    gauge("waltide_records_in_flight", ONE, "Records queued or on their way to Kafka."),
    gauge(
        "waltide_spool_bytes",
        ONE,
        "Bytes on disk of transactions that were sent before they are committed, and of the one that \
         is being published from there.",
    ),
    gauge(
        "waltide_open_transactions",
        ONE,
        "Transactions that the server has begun to send and that are not committed yet.",
    ),
    gauge(
        "waltide_open_transaction_age_seconds",
        ONE,
        "Time since the server sent the first of the oldest of them; 0 where there is none.",
    ),
    gauge(
        "waltide_queue_bytes",
        ONE,
        "Bytes of keys and values that are queued or on their way to Kafka.",
    ),
    gauge(
        "waltide_checkpoint_age_seconds",
        ONE,
        "Time since the last checkpoint was written; absent before the first and on a standby.",
    ),
    counter(
        "waltide_registry_requests_total",
        &["pipeline", "outcome"],
        "Requests to the schema registry, by whether they were answered as hoped: done or failed.",
    ),
    counter(
        "waltide_schema_changes_total",
        ONE,
        "Times a table was described in another way than before.",
    ),
    counter(
        "waltide_errors_total",
        &["pipeline", "class", "code"],
        "Failures, by the codes of docs/errors.md.",
    ),
    counter("waltide_retries_total", ONE, "Attempts after a failure."),
    gauge(
        "waltide_snapshot_rows",
        &["pipeline", "table", "state"],
        "Rows read of a table and published, of those that this process has read or is reading.",
    ),
    gauge(
        "waltide_snapshot_blocks_left",
        &["pipeline", "table"],
        "Blocks of a table that are still to be read.",
    ),
    gauge(
        "waltide_source_certificate_expiry_timestamp_seconds",
        ONE,
        "When the certificate that the source showed last runs out, since 1970; absent without TLS.",
    ),
    gauge(
        "waltide_http_certificate_expiry_timestamp_seconds",
        &[],
        "When the certificate of this endpoint runs out, since 1970; absent without `http.tls`.",
    ),
    gauge(
        "waltide_circuit_open",
        &["pipeline", "system"],
        "1 while a server fails: it is tried again after waits that grow up to five seconds, \
         spread at random, or not at all where the pipeline is stopped.",
    ),
    counter("process_cpu_seconds_total", &[], "CPU time of the process, user and system."),
    gauge("process_resident_memory_bytes", &[], "Memory the process holds."),
    gauge("process_virtual_memory_bytes", &[], "Addresses the process has asked for."),
    gauge("process_threads", &[], "Threads of the process."),
    gauge("process_open_fds", &[], "Files and sockets that are open."),
    gauge("process_max_fds", &[], "How many may be."),
    gauge("process_start_time_seconds", &[], "When the process started, since 1970."),
];

/// What one scrape reads.
///
/// # Errors
/// Where the text cannot be made, which a test excludes.
pub(super) fn render<'a>(
    pipelines: impl IntoIterator<Item = &'a Pipeline>,
    certificate: Option<Duration>,
) -> prometheus::Result<String> {
    let mut sheet = Sheet { samples: METRICS.iter().map(|_| Vec::new()).collect() };
    sheet.set("waltide_build_info", &[env!("CARGO_PKG_VERSION"), crate::FEATURES], 1.0);
    for pipeline in pipelines {
        sheet.fill(pipeline);
    }
    if let Some(expires) = certificate {
        let metric = "waltide_http_certificate_expiry_timestamp_seconds";
        sheet.set(metric, &[], expires.as_secs_f64());
    }
    sheet.process(&Process::look());
    let mut text = Vec::new();
    TextEncoder::new().encode(&sheet.families(), &mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// What is to be written of each metric.
struct Sheet {
    samples: Vec<Vec<Metric>>,
}

impl Sheet {
    fn set(&mut self, name: &str, labels: &[&str], value: f64) {
        self.sample(name, labels, |definition, metric| match definition.kind {
            MetricType::COUNTER => {
                let mut counter = Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            }
            _ => {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
        });
    }

    fn sample(
        &mut self,
        name: &str,
        values: &[&str],
        write: impl FnOnce(&Definition, &mut Metric),
    ) {
        let place = METRICS.iter().position(|metric| metric.name == name);
        let found = place.and_then(|place| METRICS.get(place).zip(self.samples.get_mut(place)));
        debug_assert!(found.is_some(), "{name} is no metric of ours");
        let Some((definition, samples)) = found else { return };
        debug_assert_eq!(definition.labels.len(), values.len(), "{name}");
        let mut metric = Metric::default();
        let labels = definition.labels.iter().zip(values).map(|(name, value)| {
            let mut label = LabelPair::default();
            label.set_name((*name).to_owned());
            label.set_value((*value).to_owned());
            label
        });
        metric.set_label(labels.collect());
        write(definition, &mut metric);
        samples.push(metric);
    }

    fn families(self) -> Vec<MetricFamily> {
        let all = METRICS.iter().zip(self.samples).filter(|(_, samples)| !samples.is_empty());
        all.map(|(definition, samples)| {
            let mut family = MetricFamily::default();
            family.set_name(definition.name.to_owned());
            family.set_help(definition.help.to_owned());
            family.set_field_type(definition.kind);
            family.set_metric(samples);
            family
        })
        .collect()
    }

    fn fill(&mut self, pipeline: &Pipeline) {
        let name = pipeline.name.as_str();
        self.standing(name, pipeline);
        self.set("waltide_source_lag_bytes", &[name], number(pipeline.lag_bytes()));
        self.set("waltide_source_lag_seconds", &[name], pipeline.lag().as_secs_f64());
        self.latency(name, pipeline);
        self.slot(name, &pipeline.slot());
        for (table, known) in pipeline.tables() {
            for (op, count) in known.counts.by_op() {
                if count > 0 {
                    self.set("waltide_events_total", &[name, &table, op], number(count));
                }
            }
        }
        let (records, record_bytes) = pipeline.records();
        self.set("waltide_records_total", &[name], number(records));
        self.set("waltide_bytes_total", &[name, "in"], number(pipeline.wal_bytes()));
        self.set("waltide_bytes_total", &[name, "out"], number(record_bytes));
        self.set("waltide_records_in_flight", &[name], number(pipeline.in_flight()));
        let (spooled, open) = pipeline.spool();
        self.set("waltide_spool_bytes", &[name], number(spooled));
        self.set("waltide_open_transactions", &[name], number(open));
        let age = pipeline.oldest_open().unwrap_or_default();
        self.set("waltide_open_transaction_age_seconds", &[name], age.as_secs_f64());
        self.set("waltide_queue_bytes", &[name], number(pipeline.queue_bytes()));
        for (stage, spent) in pipeline.stages().spent() {
            self.set("waltide_stage_seconds_total", &[name, stage], spent.as_secs_f64());
        }
        if let Some(expires) = pipeline.certificate_expires() {
            let metric = "waltide_source_certificate_expiry_timestamp_seconds";
            self.set(metric, &[name], expires.as_secs_f64());
        }
        if let Some(age) = pipeline.checkpoint_age() {
            self.set("waltide_checkpoint_age_seconds", &[name], age.as_secs_f64());
        }
        let (done, failed) = pipeline.registry_calls().counts();
        self.set("waltide_registry_requests_total", &[name, "done"], number(done));
        self.set("waltide_registry_requests_total", &[name, "failed"], number(failed));
        self.set("waltide_schema_changes_total", &[name], number(pipeline.schema_changes()));
        for (code, count) in pipeline.errors() {
            let labels = [name, code.class().as_str(), code.id()];
            self.set("waltide_errors_total", &labels, number(count));
        }
        self.set("waltide_retries_total", &[name], number(pipeline.retries()));
        for (table, snapshot) in pipeline.snapshots() {
            let labels = [name, &table, snapshot.state()];
            self.set("waltide_snapshot_rows", &labels, number(snapshot.rows));
            let left = number(snapshot.blocks_left.unwrap_or(0));
            self.set("waltide_snapshot_blocks_left", &[name, &table], left);
        }
        let failing = pipeline.last_fault().and_then(|fault| fault.code.system());
        for system in Code::SYSTEMS {
            self.set("waltide_circuit_open", &[name, system], is(failing == Some(*system)));
        }
    }

    fn standing(&mut self, name: &str, pipeline: &Pipeline) {
        let (state, outages) = (pipeline.state(), pipeline.outages());
        for known in State::NAMES {
            let is = is(*known == state.as_str());
            self.set("waltide_pipeline_state", &[name, known], is);
        }
        self.set("waltide_pipeline_ready", &[name], is(state.is_ready()));
        self.set("waltide_outages_total", &[name], number(outages.count));
        self.set("waltide_unready_seconds_total", &[name], outages.time.as_secs_f64());
        if let Some(took) = outages.last {
            self.set("waltide_recovery_seconds", &[name], took.as_secs_f64());
        }
    }

    fn latency(&mut self, name: &str, pipeline: &Pipeline) {
        let (bounds, count, sum) = pipeline.latency().cumulative();
        self.sample("waltide_end_to_end_seconds", &[name], |_, metric| {
            let buckets = bounds.into_iter().map(|(bound, count)| {
                let mut bucket = Bucket::default();
                bucket.set_upper_bound(bound);
                bucket.set_cumulative_count(count);
                bucket
            });
            let mut histogram = Histogram::default();
            histogram.set_bucket(buckets.collect());
            histogram.set_sample_count(count);
            histogram.set_sample_sum(sum);
            metric.set_histogram(histogram);
        });
    }

    fn slot(&mut self, name: &str, slot: &SlotHealth) {
        if let Some(bytes) = slot.retained_bytes {
            self.set("waltide_slot_retained_wal_bytes", &[name], number(bytes));
        }
        if let Some(bytes) = slot.safe_bytes {
            self.set("waltide_slot_safe_wal_bytes", &[name], bytes as f64);
        }
        let Some(status) = slot.wal_status.as_deref() else { return };
        let known = ["reserved", "extended", "unreserved", "lost"];
        for known in known {
            self.set("waltide_slot_status", &[name, known], is(known == status));
        }
        if !known.contains(&status) {
            self.set("waltide_slot_status", &[name, status], 1.0);
        }
    }

    fn process(&mut self, of: &Process) {
        let whole = |value: Option<u64>| value.map(number);
        for (name, value) in [
            ("process_cpu_seconds_total", of.cpu_seconds),
            ("process_resident_memory_bytes", whole(of.resident_bytes)),
            ("process_virtual_memory_bytes", whole(of.virtual_bytes)),
            ("process_threads", whole(of.threads)),
            ("process_open_fds", whole(of.open_files)),
            ("process_max_fds", whole(of.most_files)),
            ("process_start_time_seconds", of.started_seconds),
        ] {
            if let Some(value) = value {
                self.set(name, &[], value);
            }
        }
    }
}

const fn is(so: bool) -> f64 {
    if so { 1.0 } else { 0.0 }
}

/// Prometheus counts in floats: exact up to 2^53.
const fn number(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Code, Fault};
    use crate::status::{Counts, now};
    use waltide_core::lsn::Lsn;

    fn full() -> std::sync::Arc<Pipeline> {
        let pipeline = Pipeline::new("shop");
        pipeline.enter(State::Streaming);
        let fault = || Fault::new(Code::KafkaUnreachable, "x", "y");
        pipeline.enter(State::Waiting(fault()));
        pipeline.enter(State::Streaming);
        pipeline.enter(State::Waiting(fault()));
        pipeline.published([(
            "public.orders".to_owned(),
            Counts { inserts: 3, ..Counts::default() },
            None,
        )]);
        let slot = SlotHealth {
            retained_bytes: Some(7),
            safe_bytes: Some(9),
            wal_status: Some("reserved".to_owned()),
        };
        let snapshot = crate::status::Snapshot { rows: 5, ..Default::default() };
        pipeline.snapshot_at("public.orders", snapshot);
        pipeline.slot_seen(slot, Lsn(0));
        pipeline.checkpointed();
        pipeline.delivered(now(), now());
        pipeline.certificate_seen(Some(Duration::from_secs(1)));
        pipeline
    }

    #[test]
    fn a_scrape_names_every_metric_once_and_is_well_formed() {
        let text = render([&*full()], Some(Duration::from_secs(1))).unwrap();
        for line in [
            "waltide_events_total{pipeline=\"shop\",table=\"public.orders\",op=\"c\"} 3",
            "waltide_pipeline_state{pipeline=\"shop\",state=\"waiting\"} 1",
            "waltide_pipeline_state{pipeline=\"shop\",state=\"streaming\"} 0",
            "waltide_errors_total{pipeline=\"shop\",class=\"transient\",code=\"WT301\"} 2",
            "waltide_slot_retained_wal_bytes{pipeline=\"shop\"} 7",
            "waltide_slot_status{pipeline=\"shop\",status=\"lost\"} 0",
            "waltide_end_to_end_seconds_bucket{pipeline=\"shop\",le=\"+Inf\"} 1",
            "waltide_outages_total{pipeline=\"shop\"} 2",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        for Definition { name, .. } in METRICS {
            let heads = text.lines().filter(|line| line.starts_with(&format!("# TYPE {name} ")));
            assert_eq!(heads.count(), 1, "{name}\n{text}");
        }
    }

    /// With `UPDATE_DOCS=1` the table is written anew.
    #[test]
    fn every_metric_is_documented_and_nothing_else_is() {
        const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
        let rows = METRICS.iter().map(|Definition { name, kind, labels, help }| {
            let kind = format!("{kind:?}").to_lowercase();
            let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
            format!("| `{name}` | {kind} | {} | {help} |", labels.join(", "))
        });
        let expected: Vec<String> = rows.collect();
        let page = std::fs::read_to_string(PATH).unwrap();
        let found: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
        if std::env::var_os("UPDATE_DOCS").is_some() {
            let (head, rest) = page.split_once("| --- | --- | --- | --- |\n").unwrap();
            let tail: Vec<&str> = rest.lines().skip_while(|line| line.starts_with('|')).collect();
            let table = expected.join("\n");
            let page = format!("{head}| --- | --- | --- | --- |\n{table}\n{}\n", tail.join("\n"));
            std::fs::write(PATH, page).unwrap();
            return;
        }
        assert_eq!(found, expected, "UPDATE_DOCS=1 cargo test --lib metrics brings it up to date");
    }
}
