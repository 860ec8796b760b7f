//! From a commit to a consumer, at a steady rate, in both delivery modes with the same settings.
//!
//! Transactions are due at fixed times and their rows are sent beforehand; what is measured is from
//! when a commit was due until a consumer has the transaction's last row. A writer that comes late
//! has its lateness counted, and nothing that is slow keeps the next commits from being due: there is
//! no coordinated omission. Every transaction is a sample, and the percentiles are exact.
//!
//! Beside each mode, the same with Kafka alone: a producer sends, or two that take turns commit, one record where
//! a writer would commit. What the machine and the broker take of each percentile is seen there; the
//! daemon answers for the rest.
//!
//! `make latency`; `WALTIDE_LATENCY_SECONDS` (20) says how long each rate lasts, `WALTIDE_LATENCY_DELIVERY` (`all`)
//! asks for one delivery mode.

mod alone;
mod daemon;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use daemon::{number, pipeline, start, status, stop, until, used};
use waltide_stack::rdkafka::consumer::{BaseConsumer, Consumer as _};
use waltide_stack::rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};
use waltide_stack::serde_json::json;
use waltide_stack::{Database, Stack, Version};

/// Transactions a second, and rows in each.
const RATES: [(u32, u32); 3] = [(500, 1), (500, 10), (500, 100)];

/// They take turns, so that a commit has the time of so many.
const WRITERS: u32 = 8;

/// Before the due time of its last row, in the text that each transaction ends with.
const MARK: &[u8] = b"due at ";

/// Not counted: topics, schemas and connections come to be.
const WARM_UP: Duration = Duration::from_secs(3);

/// What has not come by then will not.
const LAST: Duration = Duration::from_secs(10);

fn main() {
    let lasts = Duration::from_secs(number("WALTIDE_LATENCY_SECONDS", 20)) + WARM_UP;
    let only = std::env::var("WALTIDE_LATENCY_DELIVERY").ok().filter(|only| only != "all");
    let stack = Stack::shared();
    for delivery in ["at_least_once", "exactly_once"] {
        if only.as_ref().is_some_and(|only| only != delivery) {
            continue;
        }
        let (alone, name) = match delivery {
            "exactly_once" => (alone::committed(stack, RATES[0].0, lasts), "Kafka, turns"),
            _ => (alone::sent(stack, RATES[0].0, lasts), "Kafka alone"),
        };
        report(name, RATES[0].0, 1, alone, 0.0);
        let database = stack.database(Version::V17, "latency");
        database.execute("CREATE TABLE rows (id bigserial PRIMARY KEY, a int, b text, c text)");
        let slot = format!("waltide_{}", database.prefix().replace('-', "_"));
        let daemon = start(stack, &database, (&slot, "latency"), delivery, json!("never"));
        // Topics and schemas are there once a row has come.
        database.execute("INSERT INTO rows (a) VALUES (0)");
        until("the first row is delivered", || {
            status().filter(|it| it["records"].as_u64() >= Some(1) && it["records_in_flight"] == 0)
        });
        for (transactions, rows) in RATES {
            let (before, _) = used(&daemon.pid().to_string());
            let samples = measure(stack, &database, (transactions, rows), lasts);
            let (after, _) = used(&daemon.pid().to_string());
            report(delivery, transactions, rows, samples, (after - before) / lasts.as_secs_f64());
        }
        stop(&daemon);
    }
}

fn after_warm_up(samples: Vec<(i128, f64)>, clock: Clock, begin: Instant) -> Vec<f64> {
    let warm = clock.at(begin + WARM_UP);
    samples.into_iter().filter(|(due, _)| *due >= warm).map(|(_, ms)| ms).collect()
}

fn due_in(lasts: Duration, gap: Duration) -> u32 {
    u32::try_from(lasts.as_micros() / gap.as_micros()).expect("a short run")
}

/// Milliseconds, of each transaction that was due after the warm-up.
fn measure(
    stack: &Stack,
    database: &Database,
    (transactions, rows): (u32, u32),
    lasts: Duration,
) -> Vec<f64> {
    let consumer = consumer(stack, &format!("{}.public.rows", pipeline(database, "latency")));
    let begin = Instant::now() + Duration::from_millis(500);
    let (clock, gap) = (Clock::now(), Duration::from_secs(1) / transactions);
    let due_in_all = due_in(lasts, gap);
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let received = scope.spawn(|| receive(&consumer, due_in_all, clock, &ended));
        let writers: Vec<_> = (0..WRITERS)
            .map(|first| {
                scope.spawn(move || {
                    let session = database.session();
                    for number in (first..due_in_all).step_by(WRITERS as usize) {
                        let due = begin + gap * number;
                        let ns = clock.at(due);
                        session.execute(&format!(
                            "BEGIN; INSERT INTO rows (a, b, c) SELECT g, repeat('x', 150),
                               CASE g WHEN {rows} THEN 'due at {ns}' ELSE '' END
                             FROM generate_series(1, {rows}) g"
                        ));
                        thread::sleep(due.saturating_duration_since(Instant::now()));
                        session.execute("COMMIT");
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.join().expect("a writer writes");
        }
        ended.store(true, Ordering::Release);
        after_warm_up(received.join().expect("a reader reads"), clock, begin)
    })
}

/// Two clocks that were read together.
#[derive(Clone, Copy)]
struct Clock {
    instant: Instant,
    ns: i128,
}

impl Clock {
    fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
        Self {
            instant: Instant::now(),
            ns: i128::try_from(since.as_nanos()).expect("not for long"),
        }
    }

    /// Nanoseconds since 1970.
    fn at(&self, then: Instant) -> i128 {
        let after = then.saturating_duration_since(self.instant).as_nanos();
        self.ns + i128::try_from(after).expect("a short run")
    }
}

/// Reads committed records from the topic's end on, as soon as they are there.
fn consumer(stack: &Stack, topic: &str) -> BaseConsumer {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", stack.kafka().bootstrap())
        .set("group.id", "latency")
        .set("enable.auto.commit", "false")
        .set("fetch.wait.max.ms", "500")
        .set("isolation.level", "read_committed");
    let consumer: BaseConsumer = config.create().expect("a consumer");
    let (_, end) =
        consumer.fetch_watermarks(topic, 0, Duration::from_secs(10)).expect("the topic is there");
    let mut from = TopicPartitionList::new();
    from.add_partition_offset(topic, 0, Offset::Offset(end)).expect("an offset");
    consumer.assign(&from).expect("a consumer takes what it is given");
    consumer
}

/// When each transaction was due, and the milliseconds until its last row was here.
fn receive(
    consumer: &BaseConsumer,
    due_in_all: u32,
    clock: Clock,
    ended: &AtomicBool,
) -> Vec<(i128, f64)> {
    let mut samples = Vec::new();
    let mut last = Instant::now();
    while samples.len() < due_in_all as usize {
        let polled = consumer.poll(Duration::from_millis(100));
        let now = Instant::now();
        let Some(message) = polled else {
            assert!(!ended.load(Ordering::Acquire) || last.elapsed() < LAST, "not all has come");
            continue;
        };
        last = now;
        let message = message.expect("Kafka answers");
        let value = message.payload().unwrap_or_default();
        let Some(place) = value.windows(MARK.len()).rposition(|part| part == MARK) else {
            continue;
        };
        let digits = value[place + MARK.len()..].iter().take_while(|byte| byte.is_ascii_digit());
        let due = digits.fold(0, |number, digit| number * 10 + i128::from(digit - b'0'));
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of one run")]
        samples.push((due, (clock.at(now) - due) as f64 / 1e6));
    }
    samples
}

#[expect(clippy::print_stdout, reason = "the figures are what was asked for")]
fn report(delivery: &str, transactions: u32, rows: u32, mut ms: Vec<f64>, cores: f64) {
    ms.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank among some thousand samples"
    )]
    let at = |share: f64| ms[((ms.len() - 1) as f64 * share).round() as usize];
    let percentiles = [0.5, 0.95, 0.99, 0.999].map(at);
    let [p50, p95, p99, p999] = percentiles;
    eprintln!(
        "{delivery:<13} {:>6} rows/s in {transactions} transactions | p50 {p50:>7.2} ms | \
         p95 {p95:>7.2} | p99 {p99:>7.2} | p99.9 {p999:>7.2} | {cores:.2} cores | {} samples",
        transactions * rows,
        ms.len()
    );
    println!(
        "{}",
        json!({
            "delivery": delivery, "transactions_per_second": transactions,
            "rows_per_second": transactions * rows, "samples": ms.len(),
            "p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "p999_ms": p999, "cores": cores,
        })
    );
}
