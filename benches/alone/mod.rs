//! What Kafka itself takes: records that nobody but a producer and a broker has to do with.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use waltide_stack::rdkafka::ClientConfig;
use waltide_stack::rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use waltide_stack::{Stack, Topic};

use super::{Clock, LAST, after_warm_up, consumer, due_in, receive};

/// Between looks whether records have arrived.
const LOOK: Duration = Duration::from_micros(50);

/// As long as a row with its envelope.
fn value(due: i128) -> String {
    format!("{:200}due at {due}.", "")
}

fn send(producer: &BaseProducer, topic: &str, value: &str) {
    let record = BaseRecord::<(), _>::to(topic).payload(value);
    producer.send(record).map_err(|(error, _)| error).expect("there is room");
}

/// Reads while `write` writes to the topic; what each record took.
fn timed(
    stack: &Stack,
    topic: &Topic,
    (records, lasts): (u32, Duration),
    write: impl FnOnce(Clock, Vec<Instant>),
) -> Vec<f64> {
    let consumer = consumer(stack, topic.name());
    let begin = Instant::now() + Duration::from_millis(500);
    let (clock, gap) = (Clock::now(), Duration::from_secs(1) / records);
    let due_in_all = due_in(lasts, gap);
    let ended = AtomicBool::new(false);
    let samples = thread::scope(|scope| {
        let received = scope.spawn(|| receive(&consumer, due_in_all, clock, &ended));
        write(clock, (0..due_in_all).map(|number| begin + gap * number).collect());
        ended.store(true, Ordering::Release);
        received.join().expect("a reader reads")
    });
    after_warm_up(samples, clock, begin)
}

/// A producer that sends each record when it is due.
pub(crate) fn sent(stack: &Stack, records: u32, lasts: Duration) -> Vec<f64> {
    let topic = stack.kafka().create_topic("latency-alone", 1, &[]);
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", stack.kafka().bootstrap())
        .set("enable.idempotence", "true")
        .set("linger.ms", "0");
    let producer: BaseProducer = config.create().expect("a producer");
    timed(stack, &topic, (records, lasts), |clock, due| {
        for due in due {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            send(&producer, topic.name(), &value(clock.at(due)));
            producer.poll(Duration::ZERO);
        }
        producer.flush(LAST).expect("Kafka takes them");
    })
}

/// A producer, with a thread that commits for it.
struct Client {
    producer: Arc<BaseProducer>,
    commits: Sender<()>,
    committed: Receiver<()>,
    is_committing: bool,
}

impl Client {
    fn new(stack: &Stack, id: &str) -> Self {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", stack.kafka().bootstrap())
            .set("transactional.id", id)
            .set("linger.ms", "0");
        let producer: Arc<BaseProducer> = Arc::new(config.create().expect("a producer"));
        producer.init_transactions(LAST).expect("Kafka answers");
        let ((commits, orders), (tell, committed)) = (channel(), channel());
        let ours = Arc::clone(&producer);
        thread::spawn(move || {
            while orders.recv().is_ok() {
                ours.commit_transaction(LAST).expect("Kafka commits");
                if tell.send(()).is_err() {
                    return;
                }
            }
        });
        Self { producer, commits, committed, is_committing: false }
    }

    fn wait(&mut self) {
        if std::mem::take(&mut self.is_committing) {
            self.committed.recv().expect("it is committed");
        }
    }
}

/// Two producers that take turns, as the daemon's do: the records of one transaction arrive, with a
/// small one in another topic, while the one before is being committed.
pub(crate) fn committed(stack: &Stack, records: u32, lasts: Duration) -> Vec<f64> {
    let topic = stack.kafka().create_topic("latency-turns", 1, &[]);
    let beside = stack.kafka().create_topic("latency-beside", 1, &[]);
    let mut clients =
        ["one", "two"].map(|id| Client::new(stack, &format!("{}-{id}", topic.name())));
    timed(stack, &topic, (records, lasts), |clock, due| {
        let (tell, comes) = channel();
        let writer = thread::spawn(move || {
            for due in due {
                thread::sleep(due.saturating_duration_since(Instant::now()));
                tell.send(due).expect("somebody takes them");
            }
        });
        while let Ok(first) = comes.recv() {
            let [client, other] = &mut clients;
            client.wait();
            client.producer.begin_transaction().expect("a transaction begins");
            send(&client.producer, topic.name(), &value(clock.at(first)));
            comes.try_iter().for_each(|due| {
                send(&client.producer, topic.name(), &value(clock.at(due)));
            });
            send(&client.producer, beside.name(), "a checkpoint");
            while client.producer.in_flight_count() > 0 {
                client.producer.poll(Duration::ZERO);
                thread::sleep(LOOK);
            }
            other.wait();
            client.commits.send(()).expect("its thread lives");
            client.is_committing = true;
            clients.reverse();
        }
        clients.iter_mut().for_each(Client::wait);
        writer.join().expect("a writer writes");
    })
}
