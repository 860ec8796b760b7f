use std::time::Duration;

use waltide_stack::rdkafka::ClientConfig;
use waltide_stack::rdkafka::message::{Header, OwnedHeaders};
use waltide_stack::rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use waltide_stack::serde_json::json;
use waltide_stack::{Stack, Topic};

const SOON: Duration = Duration::from_secs(20);

fn producer(bootstrap: &str, settings: &[(&str, &str)]) -> BaseProducer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("acks", "all");
    for (key, value) in settings {
        config.set(*key, *value);
    }
    config.create().expect("a producer")
}

fn send(producer: &BaseProducer, topic: &Topic, key: &[u8], value: &[u8]) {
    let headers = OwnedHeaders::new().insert(Header { key: "from", value: Some("a test") });
    let record = BaseRecord::to(topic.name()).key(key).payload(value).headers(headers);
    producer.send(record.timestamp(1234)).map_err(|(error, _)| error).expect("queued");
    producer.flush(SOON).expect("delivered");
}

#[test]
fn what_is_produced_is_read_with_key_headers_and_timestamp() {
    let kafka = Stack::shared().kafka();
    let topic = kafka.create_topic("produced-and-read", 3, &[("cleanup.policy", "compact")]);
    assert_eq!(topic.read(), []);
    send(&producer(&kafka.bootstrap(), &[]), &topic, b"key", b"value");
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
    let key = [&[0], &id.to_be_bytes()[..], &[84]].concat();
    let value = [&[0], &id.to_be_bytes()[..], &[2]].concat();
    send(&producer(&stack.kafka().bootstrap(), &[]), &topic, &key, &value);
    let records = topic.wait_for_json(1, SOON);
    assert_eq!(records[0].key, json!({"id": 42}));
    assert_eq!(records[0].value, json!({"id": 1}));
    assert_eq!(records[0].value_schema_id, Some(id));
}
