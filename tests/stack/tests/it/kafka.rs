use std::sync::Mutex;
use std::time::Duration;

use waltide_stack::rdkafka::message::{Header, OwnedHeaders};
use waltide_stack::rdkafka::producer::{
    BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext,
};
use waltide_stack::rdkafka::{ClientConfig, ClientContext};
use waltide_stack::serde_json::json;
use waltide_stack::{Stack, Topic};

const SOON: Duration = Duration::from_secs(20);

/// Remembers how the last delivery ended.
#[derive(Default)]
pub(crate) struct LastDelivery(Mutex<Option<bool>>);

impl ClientContext for LastDelivery {}

impl ProducerContext for LastDelivery {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        *self.0.lock().expect("not poisoned") = Some(result.is_ok());
    }
}

pub(crate) type TestProducer = BaseProducer<LastDelivery>;

pub(crate) fn producer(bootstrap: &str, settings: &[(&str, &str)]) -> TestProducer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("acks", "all").set("log_level", "0");
    for (key, value) in settings {
        config.set(*key, *value);
    }
    config.create_with_context(LastDelivery::default()).expect("a producer")
}

/// Sends a record and says whether it was delivered in time.
pub(crate) fn is_delivered(producer: &TestProducer, topic: &Topic, value: &[u8]) -> bool {
    let headers = OwnedHeaders::new().insert(Header { key: "from", value: Some("a test") });
    let record = BaseRecord::to(topic.name()).key(b"key").payload(value).headers(headers);
    producer.send(record.timestamp(1234)).map_err(|(error, _)| error).expect("queued");
    producer.flush(SOON).expect("its time-out is shorter");
    let outcome = producer.context().0.lock().expect("not poisoned").take();
    outcome.expect("a delivery report")
}

#[test]
fn what_is_produced_is_read_with_key_headers_and_timestamp() {
    let kafka = Stack::shared().kafka();
    let topic = kafka.create_topic("produced-and-read", 3, &[("cleanup.policy", "compact")]);
    assert_eq!(topic.read(), []);
    assert!(is_delivered(&producer(&kafka.bootstrap(), &[]), &topic, b"value"));
    let records = topic.read();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].key.as_deref(), Some(&b"key"[..]));
    assert_eq!(records[0].value.as_deref(), Some(&b"value"[..]));
    assert_eq!(records[0].timestamp_ms, Some(1234));
    assert_eq!(records[0].header("from").as_deref(), Some("a test"));
    kafka.delete_topic(topic.name());
    assert!(!kafka.topics().contains(&"produced-and-read".to_owned()));
}

#[test]
fn avro_is_read_as_json_with_the_schemas_of_the_registry() {
    let stack = Stack::shared();
    let topic = stack.kafka().create_topic("read-as-json", 1, &[]);
    let schema =
        json!({"type": "record", "name": "Key", "fields": [{"name": "id", "type": "int"}]});
    let id = stack.registry().register("read-as-json-key", &schema);
    let framed = |datum: &[u8]| [&[0], &id.to_be_bytes()[..], datum].concat();
    let producer = producer(&stack.kafka().bootstrap(), &[]);
    let (key, value) = (framed(&[84]), framed(&[2]));
    let row = BaseRecord::to(topic.name()).key(&key[..]).payload(&value[..]);
    producer.send(row).map_err(|(error, _)| error).expect("queued");
    let tombstone: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic.name()).key(&key[..]);
    producer.send(tombstone).map_err(|(error, _)| error).expect("queued");
    producer.flush(SOON).expect("delivered");
    let records = topic.wait_for_json(2, SOON);
    assert_eq!(records[0].key, json!({"id": 42}));
    assert_eq!(records[0].value, json!({"id": 1}));
    assert_eq!((&records[1].key, &records[1].value), (&json!({"id": 42}), &json!(null)));
    assert_eq!(records[0].value_schema_id, Some(id));
}

#[test]
fn a_reader_sees_aborted_records_only_if_it_asks_for_them() {
    let kafka = Stack::shared().kafka();
    let topic = kafka.create_topic("aborted", 1, &[]);
    let producer = producer(&kafka.bootstrap(), &[("transactional.id", "aborted")]);
    producer.init_transactions(SOON).expect("initialised");
    for (value, commit) in [("kept", true), ("aborted", false)] {
        producer.begin_transaction().expect("begun");
        assert!(is_delivered(&producer, &topic, value.as_bytes()));
        if commit {
            producer.commit_transaction(SOON).expect("committed");
        } else {
            producer.abort_transaction(SOON).expect("aborted");
        }
    }
    assert_eq!(topic.read().len(), 1);
    assert_eq!(topic.clone().read_uncommitted().read().len(), 2);
}
