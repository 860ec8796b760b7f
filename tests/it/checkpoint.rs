//! The checkpoint topic on a real Kafka: what is read is the last that was committed, and nobody
//! but the present writer can change that.

mod failures;
pub(crate) mod tap;

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::ResourceSpecifier;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use waltide::kafka::{Admin, CheckpointTopic, CheckpointWriter, Error, Settings};
use waltide_core::checkpoint::{Checkpoint, FORMAT_VERSION, Unreadable};
use waltide_stack::Stack;

const KEY: &[u8] = b"shop";

/// For what works: long enough for a machine that is busy with other tests.
const SOON: Duration = Duration::from_secs(20);

/// For what cannot work: its whole length is waited.
const BRIEFLY: Duration = Duration::from_millis(800);

/// How much later than its deadline a call may return: scheduling, and the outer guard.
const TOLERANCE: Duration = Duration::from_secs(1);

fn admin(bootstrap_servers: String) -> Arc<Admin> {
    let settings = Settings { bootstrap_servers, ..Settings::default() };
    Arc::new(Admin::new(&settings).unwrap())
}

/// A topic of that name on the shared Kafka.
async fn topic(name: &str) -> CheckpointTopic {
    let admin = admin(Stack::shared().kafka().bootstrap());
    CheckpointTopic::open(&admin, name, Some(1)).await.unwrap()
}

/// The transactional id of a topic's pipeline.
fn id(topic: &CheckpointTopic) -> String {
    format!("{}.writer", topic.name())
}

async fn writer(topic: &CheckpointTopic) -> CheckpointWriter {
    CheckpointWriter::init(topic, &id(topic), SOON).await.unwrap()
}

async fn last(topic: &CheckpointTopic) -> Option<String> {
    let value = topic.read_last(KEY, SOON).await.unwrap();
    value.map(|bytes| String::from_utf8(bytes).unwrap())
}

/// A producer below our own, for what ours never does.
fn raw_writer(bootstrap: &str, transactional_id: &str) -> BaseProducer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("transactional.id", transactional_id);
    config.set("linger.ms", "0").set("log_level", "0");
    let producer: BaseProducer = config.create().unwrap();
    producer.init_transactions(SOON).unwrap();
    producer
}

/// Begins a transaction and waits until its record lies in the log.
fn begin_with(producer: &BaseProducer, topic: &str, value: &str) {
    producer.begin_transaction().unwrap();
    let record = BaseRecord::to(topic).partition(0).key(KEY).payload(value);
    producer.send(record).map_err(|(error, _)| error).unwrap();
    producer.flush(SOON).unwrap();
}

#[tokio::test]
async fn a_fresh_topic_has_no_checkpoint() {
    let topic = topic("fresh").await;
    assert_eq!(last(&topic).await, None);
    writer(&topic).await;
    assert_eq!(last(&topic).await, None, "becoming the writer writes nothing");
}

#[tokio::test]
async fn the_last_of_many_is_read() {
    let topic = topic("last-of-many").await;
    let mut writer = writer(&topic).await;
    for number in 0..40 {
        writer.write(KEY, format!("checkpoint {number}").as_bytes(), SOON).await.unwrap();
        if number % 13 == 0 {
            assert_eq!(last(&topic).await, Some(format!("checkpoint {number}")));
        }
    }
    assert_eq!(last(&topic).await.as_deref(), Some("checkpoint 39"));
}

#[tokio::test]
async fn records_of_other_keys_are_walked_past() {
    let topic = topic("other-keys").await;
    let mut writer = writer(&topic).await;
    writer.write(KEY, b"ours", SOON).await.unwrap();
    for _ in 0..300 {
        writer.write(b"another", b"theirs", SOON).await.unwrap();
    }
    assert_eq!(last(&topic).await.as_deref(), Some("ours"));
    assert_eq!(topic.read_last(b"nobody", SOON).await, Ok(None));
}

#[tokio::test]
async fn what_was_rolled_back_is_not_read() {
    let topic = topic("rolled-back").await;
    writer(&topic).await.write(KEY, b"committed", SOON).await.unwrap();
    let raw = raw_writer(&Stack::shared().kafka().bootstrap(), &id(&topic));
    // More of them than the first look reaches back.
    for _ in 0..10 {
        begin_with(&raw, topic.name(), "rolled back");
        raw.abort_transaction(SOON).unwrap();
    }
    assert_eq!(last(&topic).await.as_deref(), Some("committed"));
}

#[tokio::test]
async fn a_topic_with_nothing_but_rolled_back_records_has_no_checkpoint() {
    let topic = topic("only-rolled-back").await;
    let raw = raw_writer(&Stack::shared().kafka().bootstrap(), &id(&topic));
    for _ in 0..10 {
        begin_with(&raw, topic.name(), "rolled back");
        raw.abort_transaction(SOON).unwrap();
    }
    assert_eq!(last(&topic).await, None);
}

#[tokio::test]
async fn what_is_not_decided_yet_is_an_error_and_not_the_checkpoint_before() {
    let topic = topic("undecided").await;
    writer(&topic).await.write(KEY, b"before", SOON).await.unwrap();
    let raw = raw_writer(&Stack::shared().kafka().bootstrap(), "undecided.another");
    begin_with(&raw, topic.name(), "after");
    let begun = Instant::now();
    let outcome = topic.read_last(KEY, BRIEFLY).await;
    assert!(matches!(outcome, Err(Error::NotInTime { .. })), "{outcome:?}");
    assert!(begun.elapsed() < BRIEFLY + TOLERANCE);
    raw.commit_transaction(SOON).unwrap();
    assert_eq!(last(&topic).await.as_deref(), Some("after"));
}

#[tokio::test]
async fn a_deleted_checkpoint_is_none() {
    let topic = topic("deleted").await;
    writer(&topic).await.write(KEY, b"unwanted", SOON).await.unwrap();
    let raw = raw_writer(&Stack::shared().kafka().bootstrap(), &id(&topic));
    raw.begin_transaction().unwrap();
    raw.send(BaseRecord::<[u8], [u8]>::to(topic.name()).key(KEY)).map_err(|(e, _)| e).unwrap();
    raw.commit_transaction(SOON).unwrap();
    assert_eq!(last(&topic).await, None);
}

#[tokio::test]
async fn a_fenced_writer_cannot_write() {
    let topic = topic("fenced").await;
    let mut old = writer(&topic).await;
    old.write(KEY, b"old", SOON).await.unwrap();
    let mut new = writer(&topic).await;
    let fenced = Err(Error::Fenced { transactional_id: id(&topic) });
    assert_eq!(old.write(KEY, b"older", SOON).await, fenced);
    assert_eq!(old.write(KEY, b"older", SOON).await, fenced, "it stays so");
    assert_eq!(last(&topic).await.as_deref(), Some("old"));
    new.write(KEY, b"new", SOON).await.unwrap();
    assert_eq!(last(&topic).await.as_deref(), Some("new"));
}

#[tokio::test]
async fn a_predecessor_that_froze_before_its_commit_cannot_put_an_older_checkpoint_last() {
    let topic = topic("froze-before-commit").await;
    let frozen = raw_writer(&Stack::shared().kafka().bootstrap(), &id(&topic));
    begin_with(&frozen, topic.name(), "older");
    let mut successor = writer(&topic).await;
    assert_eq!(last(&topic).await, None);
    successor.write(KEY, b"newer", SOON).await.unwrap();
    frozen.commit_transaction(SOON).expect_err("it wakes up and is refused");
    assert_eq!(last(&topic).await.as_deref(), Some("newer"));
}

#[tokio::test]
async fn writers_of_two_pipelines_do_not_shut_each_other_out() {
    let (one, other) = (topic("pipeline-one").await, topic("pipeline-two").await);
    let (mut first, mut second) = (writer(&one).await, writer(&other).await);
    first.write(KEY, b"one", SOON).await.unwrap();
    second.write(KEY, b"two", SOON).await.unwrap();
    first.write(KEY, b"one more", SOON).await.unwrap();
    assert_eq!(last(&one).await.as_deref(), Some("one more"));
    assert_eq!(last(&other).await.as_deref(), Some("two"));
}

#[tokio::test]
async fn a_checkpoint_of_a_newer_format_is_refused() {
    let topic = topic("newer-format").await;
    let newer = b"\xC3\x01from a later version\x04".as_slice();
    let bytes = [&newer[..10], &[4], b"and what it says"].concat();
    writer(&topic).await.write(KEY, &bytes, SOON).await.unwrap();
    let read = topic.read_last(KEY, SOON).await.unwrap().unwrap();
    let refused = Unreadable::NewerFormat { found: 2, known: FORMAT_VERSION };
    assert_eq!(Checkpoint::decode(&read), Err(refused));
}

#[tokio::test]
async fn a_checkpoint_too_large_for_the_topic_is_refused_and_leaves_the_one_before() {
    let topic = topic("too-large").await;
    let mut first = writer(&topic).await;
    first.write(KEY, b"small", SOON).await.unwrap();
    let large = random_bytes(1_600_000);
    let refused = first.write(KEY, &large, SOON).await;
    assert_eq!(refused, Err(Error::TooLarge { topic: topic.name().to_owned() }));
    let mut second = writer(&topic).await;
    assert_eq!(last(&topic).await.as_deref(), Some("small"));
    // A megabyte of names compresses.
    second.write(KEY, &b"shop.public.orders ".repeat(60_000), SOON).await.unwrap();
}

#[tokio::test]
async fn a_write_given_up_half_way_uses_the_writer_up() {
    let topic = topic("given-up").await;
    let mut old = writer(&topic).await;
    let given_up = tokio::time::timeout(Duration::ZERO, old.write(KEY, b"maybe", SOON)).await;
    assert!(given_up.is_err());
    let outcome = old.write(KEY, b"next", SOON).await;
    assert!(matches!(outcome, Err(Error::UnknownOutcome { .. })), "{outcome:?}");
    let mut new = writer(&topic).await;
    let found = last(&topic).await;
    assert!(found.is_none() || found.as_deref() == Some("maybe"), "{found:?}");
    new.write(KEY, b"sure", SOON).await.unwrap();
    assert_eq!(last(&topic).await.as_deref(), Some("sure"));
}

/// librdkafka's own wait for a delivery is 100 ms long.
#[tokio::test]
async fn a_write_takes_milliseconds() {
    let topic = topic("quick").await;
    let mut writer = writer(&topic).await;
    let mut took = Vec::new();
    for _ in 0..100 {
        let begun = Instant::now();
        writer.write(KEY, &[7; 400], SOON).await.unwrap();
        took.push(begun.elapsed());
    }
    took.sort();
    println!("100 writes: p50 {:?}, p90 {:?}, max {:?}", took[50], took[90], took[99]);
    // The quickest show it on a busy machine as well.
    assert!(took[10] < Duration::from_millis(60), "nine in ten took more than {:?}", took[10]);
}

#[tokio::test]
async fn the_topic_is_made_so_that_its_last_record_stays() {
    let topic = topic("made").await;
    let kafka = Stack::shared().kafka();
    let again = CheckpointTopic::open(&admin(kafka.bootstrap()), topic.name(), None).await;
    again.expect("it is there already");
    let made = tap::described(kafka, ResourceSpecifier::Topic(topic.name())).await;
    for (key, value) in [
        ("cleanup.policy", "compact"),
        ("segment.bytes", "1048576"),
        ("min.cleanable.dirty.ratio", "0.01"),
    ] {
        assert_eq!(made[key], value, "{key}");
    }
}

#[tokio::test]
async fn a_topic_that_would_lose_checkpoints_is_refused() {
    let kafka = Stack::shared().kafka();
    kafka.create_topic("two-partitions", 2, &[("cleanup.policy", "compact")]);
    kafka.create_topic("expiring", 1, &[("cleanup.policy", "delete")]);
    kafka.create_topic("expiring-too", 1, &[("cleanup.policy", "compact,delete")]);
    for (name, named) in
        [("two-partitions", "2 partitions"), ("expiring", "delete"), ("expiring-too", "delete")]
    {
        match CheckpointTopic::open(&admin(kafka.bootstrap()), name, None).await {
            Err(Error::Topic { topic, reason }) => {
                assert_eq!(topic, name);
                assert!(reason.contains(named), "{reason}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

/// They do not compress.
fn random_bytes(length: usize) -> Vec<u8> {
    let mut random: u64 = 42;
    let words = std::iter::repeat_with(|| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random.to_le_bytes()
    });
    words.flatten().take(length).collect()
}
